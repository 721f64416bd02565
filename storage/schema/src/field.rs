//! How each type of field stands in bytes, in the old notation and the compact one (KIP-482).

use crate::reader::{DecodeError, Problem, Reader};
use crate::spec::EncodeError;
use crate::{Message, varint};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::Uuid;

/// The notation of one version of a message; the structs nested in it follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// The message's version.
    pub version: i16,
    /// Compact lengths and tagged fields.
    pub flexible: bool,
}

impl Encoding {
    /// The notation of `version` of the message `M`.
    pub const fn of<M: Message>(version: i16) -> Self {
        Self { version, flexible: version >= M::FLEXIBLE_SINCE }
    }
}

/// A value that can stand in a message.
pub trait Field: Sized {
    /// The fewest bytes it takes. Bounds the count of an array before memory is reserved for it.
    fn len_min(encoding: Encoding) -> usize;

    /// Appends it.
    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Reads it.
    fn read(encoding: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Whether it is a null, which only some versions allow.
    fn is_null(&self) -> bool {
        false
    }

    /// Some instance that `version` can tell in full, made of `draw`, which gives any 64 bits at a
    /// call: a random source makes random instances, for tests.
    fn example(version: i16, draw: &mut dyn FnMut() -> u64) -> Self;
}

/// A value that has a notation for null: `Option` of it is a [`Field`].
pub trait Nullable: Field {
    /// The bytes of null, at the fewest.
    fn null_len(encoding: Encoding) -> usize;

    /// Appends null.
    fn write_null(encoding: Encoding, out: &mut Vec<u8>);

    /// Appends the value where null could have stood.
    fn write_some(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.write(encoding, out)
    }

    /// Reads the value, or null.
    fn read_nullable(
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, DecodeError>;
}

impl<T: Nullable> Field for Option<T> {
    fn len_min(encoding: Encoding) -> usize {
        T::null_len(encoding)
    }

    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(value) = self {
            return value.write_some(encoding, out);
        }
        T::write_null(encoding, out);
        Ok(())
    }

    fn read(encoding: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::read_nullable(encoding, reader)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }

    fn example(version: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        (!draw().is_multiple_of(4)).then(|| T::example(version, draw))
    }
}

macro_rules! numbers {
    ($($number:ty),+) => { $(
        impl Field for $number {
            fn len_min(_: Encoding) -> usize {
                size_of::<Self>()
            }

            fn write(&self, _: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                out.extend_from_slice(&self.to_be_bytes());
                Ok(())
            }

            fn read(_: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.array().map(Self::from_be_bytes)
            }

            #[allow(clippy::cast_lossless, reason = "one arm of the macro narrows, another does not")]
            fn example(_: i16, draw: &mut dyn FnMut() -> u64) -> Self {
                draw() as Self
            }
        }
    )+ };
}

numbers!(i8, i16, u16, i32, u32, i64, f64);

impl Field for bool {
    fn len_min(_: Encoding) -> usize {
        1
    }

    fn write(&self, _: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.push(u8::from(*self));
        Ok(())
    }

    fn read(_: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(|[byte]| byte != 0)
    }

    fn example(_: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        draw().is_multiple_of(2)
    }
}

impl Field for Uuid {
    fn len_min(_: Encoding) -> usize {
        16
    }

    fn write(&self, _: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.to_bytes());
        Ok(())
    }

    fn read(_: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self::from_bytes)
    }

    fn example(_: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        Self((u128::from(draw()) << 64) | u128::from(draw()))
    }
}

/// How a length stands before the old notation of strings (two bytes), or of bytes and arrays (four).
#[derive(Clone, Copy)]
enum OldLength {
    I16,
    I32,
}

impl OldLength {
    const fn len(self, encoding: Encoding) -> usize {
        match self {
            _ if encoding.flexible => 1,
            Self::I16 => 2,
            Self::I32 => 4,
        }
    }

    /// `None` is null: -1, or 0 in the compact notation, which writes every other length plus one.
    fn write(
        self,
        encoding: Encoding,
        len: Option<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let too_long = |len: Option<usize>| EncodeError::TooLong { len: len.unwrap_or(0) };
        let length = len.map_or(Ok(-1), i32::try_from).map_err(|_| too_long(len))?;
        match self {
            _ if encoding.flexible => varint::write((length + 1) as u32, out),
            Self::I16 => {
                let length = i16::try_from(length).map_err(|_| too_long(len))?;
                out.extend_from_slice(&length.to_be_bytes());
            }
            Self::I32 => out.extend_from_slice(&length.to_be_bytes()),
        }
        Ok(())
    }

    /// The length, or `None` for null; a negative one other than -1 is null too, as Kafka reads it.
    fn read(self, encoding: Encoding, reader: &mut Reader<'_>) -> Result<Option<u32>, DecodeError> {
        if encoding.flexible {
            return Ok(reader.varint()?.checked_sub(1));
        }
        let length = match self {
            Self::I16 => i32::from(i16::from_be_bytes(reader.array()?)),
            Self::I32 => i32::from_be_bytes(reader.array()?),
        };
        Ok(u32::try_from(length).ok())
    }
}

/// Most elements of an array, and characters of a string, in an example: small, so that they nest.
const EXAMPLE_LEN_MAX: u64 = 4;

impl Field for String {
    fn len_min(encoding: Encoding) -> usize {
        OldLength::I16.len(encoding)
    }

    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        OldLength::I16.write(encoding, Some(self.len()), out)?;
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn read(encoding: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_nullable(encoding, reader)?.ok_or_else(|| Problem::Null.into())
    }

    fn example(_: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        const LETTERS: [char; 8] = ['a', 'Z', '0', '.', '-', '_', 'ä', '界'];
        (0..draw() % EXAMPLE_LEN_MAX).map(|_| LETTERS[(draw() % 8) as usize]).collect()
    }
}

impl Nullable for String {
    fn null_len(encoding: Encoding) -> usize {
        OldLength::I16.len(encoding)
    }

    fn write_null(encoding: Encoding, out: &mut Vec<u8>) {
        OldLength::I16.write(encoding, None, out).expect("null has no length");
    }

    fn read_nullable(
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(len) = OldLength::I16.read(encoding, reader)? else { return Ok(None) };
        let bytes = reader.take(len as usize)?;
        let text = core::str::from_utf8(bytes).map_err(|_| Problem::NotUtf8)?;
        Ok(Some(text.to_string()))
    }
}

impl Field for Bytes {
    fn len_min(encoding: Encoding) -> usize {
        OldLength::I32.len(encoding)
    }

    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        OldLength::I32.write(encoding, Some(self.len()), out)?;
        out.extend_from_slice(self);
        Ok(())
    }

    fn read(encoding: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_nullable(encoding, reader)?.ok_or_else(|| Problem::Null.into())
    }

    fn example(_: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        (0..draw() % EXAMPLE_LEN_MAX).map(|_| draw() as u8).collect()
    }
}

impl Nullable for Bytes {
    fn null_len(encoding: Encoding) -> usize {
        OldLength::I32.len(encoding)
    }

    fn write_null(encoding: Encoding, out: &mut Vec<u8>) {
        OldLength::I32.write(encoding, None, out).expect("null has no length");
    }

    /// Copies: a record that is kept must not keep the batch that it came in.
    fn read_nullable(
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(len) = OldLength::I32.read(encoding, reader)? else { return Ok(None) };
        Ok(Some(Self::copy_from_slice(reader.take(len as usize)?)))
    }
}

impl<T: Field> Field for Vec<T> {
    fn len_min(encoding: Encoding) -> usize {
        OldLength::I32.len(encoding)
    }

    fn write(&self, encoding: Encoding, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        OldLength::I32.write(encoding, Some(self.len()), out)?;
        self.iter().try_for_each(|element| element.write(encoding, out))
    }

    fn read(encoding: Encoding, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_nullable(encoding, reader)?.ok_or_else(|| Problem::Null.into())
    }

    fn example(version: i16, draw: &mut dyn FnMut() -> u64) -> Self {
        (0..draw() % EXAMPLE_LEN_MAX).map(|_| T::example(version, draw)).collect()
    }
}

impl<T: Field> Nullable for Vec<T> {
    fn null_len(encoding: Encoding) -> usize {
        OldLength::I32.len(encoding)
    }

    fn write_null(encoding: Encoding, out: &mut Vec<u8>) {
        OldLength::I32.write(encoding, None, out).expect("null has no length");
    }

    fn read_nullable(
        encoding: Encoding,
        reader: &mut Reader<'_>,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(count) = OldLength::I32.read(encoding, reader)? else { return Ok(None) };
        let remaining = reader.remaining();
        // An element of no bytes would let a count stand for nothing that arrived: take it for one.
        if count as usize > remaining / T::len_min(encoding).max(1) {
            return Err(Problem::BadCount { count: i64::from(count), remaining }.into());
        }
        let mut elements =
            Self::with_capacity((count as usize).min(RESERVE_BYTES_MAX / size_of::<T>().max(1)));
        for _ in 0..count {
            elements.push(T::read(encoding, reader)?);
        }
        Ok(Some(elements))
    }
}

/// An element in memory may be wider than on the wire, by its ids and its vectors: beyond this much, an
/// array grows as its elements are read, so that one false element early on costs no more.
const RESERVE_BYTES_MAX: usize = 64 * 1024;
