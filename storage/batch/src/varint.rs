//! Protobuf's zigzag varints, and a cursor that never reads past its bytes.
#![expect(
    clippy::inline_always,
    reason = "each append decodes every record: 16 ns a record left to the compiler, 12 so"
)]

use alloc::vec::Vec;

/// Why a number could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadError {
    End,
    TooLong,
}

/// Reads a record's fields from the front.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(ReadError::End)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline(always)]
    pub(crate) fn byte(&mut self) -> Result<u8, ReadError> {
        let (byte, rest) = self.rest.split_first().ok_or(ReadError::End)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<i32, ReadError> {
        let raw = self.unsigned(u64::from(u32::MAX))? as u32;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline(always)]
    pub(crate) fn varlong(&mut self) -> Result<i64, ReadError> {
        let raw = self.unsigned(u64::MAX)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    #[inline(always)]
    fn unsigned(&mut self, max: u64) -> Result<u64, ReadError> {
        // One and two bytes are nearly all there is in a batch: lengths to 8 KiB, deltas to 8191.
        match *self.rest {
            [low, ref rest @ ..] if low < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.unsigned_long(max),
        }
    }

    #[inline(never)]
    fn unsigned_long(&mut self, max: u64) -> Result<u64, ReadError> {
        let mut value: u64 = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return Err(ReadError::TooLong);
            }
            value |= bits << (7 * place);
            if byte < 0x80 {
                return if value <= max { Ok(value) } else { Err(ReadError::TooLong) };
            }
        }
        Err(ReadError::TooLong)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from((value << 1 ^ value >> 31) as u32));
}

pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, (value << 1 ^ value >> 63) as u64);
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] writes.
pub(crate) const fn varint_len(value: i32) -> usize {
    varlong_len(value as i64)
}

/// Bytes that [`put_varlong`] writes.
pub(crate) const fn varlong_len(value: i64) -> usize {
    let bits = 64 - ((value << 1 ^ value >> 63) as u64 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_protobufs() {
        // Zigzag: 0, -1, 1, -2 ... are 0, 1, 2, 3 ...
        let cases: &[(i64, &[u8])] = &[
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (-64, &[127]),
            (64, &[128, 1]),
            (8191, &[254, 127]),
            (8192, &[128, 128, 1]),
            (i64::from(i32::MAX), &[254, 255, 255, 255, 15]),
            (i64::from(i32::MIN), &[255, 255, 255, 255, 15]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            put_varlong(&mut out, *value);
            assert_eq!(out, *bytes, "{value}");
            assert_eq!(varlong_len(*value), bytes.len(), "{value}");
            assert_eq!(Cursor::new(bytes).varint().map(i64::from), Ok(*value));
            assert_eq!(Cursor::new(bytes).varlong(), Ok(*value));
        }
        for value in [i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varlong(&mut out, value);
            assert_eq!((out.len(), varlong_len(value)), (10, 10));
            assert_eq!(Cursor::new(&out).varlong(), Ok(value));
            assert_eq!(Cursor::new(&out).varint(), Err(ReadError::TooLong));
        }
    }

    #[test]
    fn endless_and_cut_numbers_end() {
        assert_eq!(Cursor::new(&[0xff; 11]).varlong(), Err(ReadError::TooLong));
        assert_eq!(Cursor::new(&[0xff; 3]).varlong(), Err(ReadError::End));
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), Err(ReadError::TooLong));
        assert_eq!(Cursor::new(&[]).varint(), Err(ReadError::End));
    }
}
