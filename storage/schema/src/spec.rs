//! What a declaration says of a field, and how the tagged fields at a struct's end are written.

use crate::reader::{DecodeError, Problem, Reader};
use crate::{Field, varint};
use alloc::vec::Vec;
use bytes::Bytes;

/// A version that no message reaches: "never flexible", "no upper end".
pub const NEVER: i16 = i16::MAX;

/// A field's versions and kind. Built in the declaration's brackets: `[since(2).tag(1)]`.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    first: i16,
    last: i16,
    nullable_first: i16,
    ignorable: bool,
    tag: Option<u32>,
}

impl FieldSpec {
    /// In every version, with a place of its own, nullable (where its type can be null) in all.
    pub const ALWAYS: Self =
        Self { first: 0, last: NEVER, nullable_first: 0, ignorable: false, tag: None };

    /// From this version on.
    #[must_use]
    pub const fn since(self, first: i16) -> Self {
        Self { first, ..self }
    }

    /// Up to and including this version.
    #[must_use]
    pub const fn until(self, last: i16) -> Self {
        Self { last, ..self }
    }

    /// May be null from this version on only.
    #[must_use]
    pub const fn nullable_since(self, nullable_first: i16) -> Self {
        Self { nullable_first, ..self }
    }

    /// A value that the version has no place for is left out; otherwise it is an error.
    #[must_use]
    pub const fn ignorable(self) -> Self {
        Self { ignorable: true, ..self }
    }

    /// A tagged field: written only where it differs from its default.
    #[must_use]
    pub const fn tag(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    /// Whether `version` has this field.
    pub const fn exists_in(&self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// Whether `version` has this field among the untagged ones.
    pub const fn is_placed_in(&self, version: i16) -> bool {
        self.tag.is_none() && self.exists_in(version)
    }

    /// Whether null may stand here in `version`.
    pub const fn is_nullable_in(&self, version: i16) -> bool {
        self.nullable_first <= version
    }

    /// Whether a version without this field drops its value silently.
    pub const fn is_ignorable(&self) -> bool {
        self.ignorable
    }

    /// The tag's number.
    pub const fn tag_number(&self) -> Option<u32> {
        self.tag
    }
}

/// Tagged fields that this release does not know: kept, and written back as they came.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnknownTags(pub Vec<(u32, Bytes)>);

/// Writes the tagged fields: count, then tag, length and bytes of each, the lowest tag first.
pub fn write_tags(mut known: Vec<(u32, Vec<u8>)>, unknown: &UnknownTags, out: &mut Vec<u8>) {
    known.extend(unknown.0.iter().map(|(tag, value)| (*tag, value.to_vec())));
    known.sort_by_key(|(tag, _)| *tag);
    varint::write(known.len() as u32, out);
    for (tag, value) in known {
        varint::write(tag, out);
        varint::write(value.len() as u32, out);
        out.extend_from_slice(&value);
    }
}

/// Reads the tagged fields; `known` takes one that it knows, and says whether it did.
pub fn read_tags(
    reader: &mut Reader<'_>,
    mut known: impl FnMut(u32, &mut Reader<'_>) -> Result<bool, DecodeError>,
) -> Result<UnknownTags, DecodeError> {
    let mut unknown = Vec::new();
    for _ in 0..reader.varint()? {
        let tag = reader.varint()?;
        let len = reader.varint()?;
        let bytes = reader.take(len as usize)?;
        let mut value = Reader::new(bytes);
        if !known(tag, &mut value)? {
            unknown.push((tag, Bytes::copy_from_slice(bytes)));
        } else if value.remaining() > 0 {
            return Err(Problem::TagTooLong(value.remaining()).into());
        }
    }
    Ok(UnknownTags(unknown))
}

/// Passes on what was read, unless it is a null that `version` does not allow.
pub fn null_checked<T: Field>(value: T, spec: FieldSpec, version: i16) -> Result<T, DecodeError> {
    if value.is_null() && !spec.is_nullable_in(version) {
        return Err(Problem::Null.into());
    }
    Ok(value)
}

/// A message that cannot be written in the version asked for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The version is outside the declared range.
    #[error("{name} has no version {version}")]
    UnknownVersion {
        /// The message.
        name: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field holds a value that would be lost: this version has no place for it.
    #[error("{field} cannot be told in version {version}")]
    FieldNotInVersion {
        /// The field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null where the version does not allow it.
    #[error("{field} must not be null in version {version}")]
    Null {
        /// The field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A string of more than 32,767 bytes in an old, inflexible version, or 2 GiB of anything.
    #[error("a value of {len} bytes or elements is too long for its length field")]
    TooLong {
        /// Its length.
        len: usize,
    },
}
