//! Reading from bytes that arrived, and what can be wrong with them.

use crate::varint;

/// Bytes not read yet.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// What is left.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Problem::EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Problem::EndsEarly)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// An unsigned variable-length integer.
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint::read(self.rest).ok_or(Problem::BadVarint)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Checks that nothing is left.
    pub fn finish(&self, place: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError { place, problem: Problem::TrailingBytes(left) }),
        }
    }
}

/// Bytes that are no such message: where reading stopped, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct DecodeError {
    /// The message, or `Struct.field`, that was being read.
    pub place: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

impl DecodeError {
    /// Names the place, unless an inner one was named already.
    #[must_use]
    pub fn within(self, place: &'static str) -> Self {
        if self.place.is_empty() { Self { place, ..self } } else { self }
    }
}

impl From<Problem> for DecodeError {
    fn from(problem: Problem) -> Self {
        Self { place: "", problem }
    }
}

/// What can be wrong with bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The message has no such version.
    #[error("unknown version {0}")]
    UnknownVersion(i16),
    /// A fixed-size value or a length reaches past the end.
    #[error("the bytes end too early")]
    EndsEarly,
    /// A variable-length integer that does not end, or exceeds 32 bits.
    #[error("a variable-length integer is cut short or too large")]
    BadVarint,
    /// More elements than the bytes left can hold, or fewer than none.
    #[error("a count of {count} elements, but {remaining} bytes are left")]
    BadCount {
        /// The count as read.
        count: i64,
        /// The bytes that were left.
        remaining: usize,
    },
    /// Null where the version does not allow it.
    #[error("null is not allowed here")]
    Null,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A tagged field that belongs to other versions.
    #[error("tag {0} does not belong to this version")]
    ForeignTag(u32),
    /// A tagged field that is shorter than the length before it says.
    #[error("{0} bytes are left over in a tagged field")]
    TagTooLong(usize),
    /// The message ended before the bytes did.
    #[error("{0} bytes follow the end")]
    TrailingBytes(usize),
}
