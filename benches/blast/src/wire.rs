//! Kafka's primitive encodings, as far as a load generator needs them.
//!
//! Separate from node/wire on purpose: bytes that measure a broker should not come from that broker's own codec.

use anyhow::{Result, bail};

/// Appends big-endian and compact values to a buffer.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn uvarint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// Zigzag, as records have it.
    pub fn varint(&mut self, value: i64) -> &mut Self {
        self.uvarint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// A compact string, or the length of a compact array: one more than there is.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.uvarint(text.len() as u64 + 1).raw(text.as_bytes())
    }

    /// No tagged fields.
    pub fn tags(&mut self) -> &mut Self {
        self.uvarint(0)
    }
}

/// Takes values from the front of a reply.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((front, rest)) = self.0.split_at_checked(len) else {
            bail!("a reply ends {} bytes early", len - self.0.len());
        };
        self.0 = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(*self.raw(N)?.first_chunk().expect("of that length"))
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn uvarint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.raw(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a varint of more than ten bytes")
    }

    /// The length of a compact array, string or byte field; none where it is null.
    pub fn length(&mut self) -> Result<Option<usize>> {
        Ok(usize::try_from(self.uvarint()?)?.checked_sub(1))
    }

    /// A compact string or byte field; empty where it is null.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.length()?.unwrap_or(0);
        self.raw(len)
    }

    /// Passes over tagged fields.
    pub fn tags(&mut self) -> Result<()> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = usize::try_from(self.uvarint()?)?;
            self.raw(len)?;
        }
        Ok(())
    }
}
