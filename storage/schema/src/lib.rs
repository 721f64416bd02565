//! Kafka's message and record encodings, declared once: the schema macro and its bounded decoder.
//!
//! Separate because metadata records, coordinator records and the RPC versions which the codec crate
//! lacks are all written in the same notation (KIP-482 for the flexible versions), and a length that
//! lies must be caught in one place. [`schema!`] declares a message; [`Message`] is what it can do.
//!
//! ```
//! flowstone_schema::schema! {
//!     /// One partition of a topic.
//!     message PartitionRecord = 3, versions 0..=2, flexible 0 {
//!         /// The partition's index.
//!         partition_id: i32 = -1,
//!         /// Brokers that hold it, the preferred leader first.
//!         replicas: Vec<i32>,
//!         /// Brokers that may become leader besides the in-sync ones.
//!         eligible: Option<Vec<i32>> [since(2).tag(1)],
//!     }
//! }
//! use flowstone_schema::Message;
//! let record = PartitionRecord { partition_id: 7, ..PartitionRecord::default() };
//! let mut bytes = Vec::new();
//! record.encode(2, &mut bytes).unwrap();
//! assert_eq!(bytes, [0, 0, 0, 7, 1, 0]); // Index; no replicas (length + 1); no tagged fields.
//! assert_eq!(PartitionRecord::decode(2, &bytes).unwrap(), record);
//! ```
//!
//! Pure. Invariant: decoding holds no more elements than the bytes that arrived can carry.

#![no_std]

extern crate alloc;

mod field;
mod macros;
mod reader;
mod spec;
pub mod varint;

pub use field::{Encoding, Field, Nullable};
pub use reader::{DecodeError, Problem, Reader};
pub use spec::{EncodeError, FieldSpec, NEVER, UnknownTags, null_checked, read_tags, write_tags};

use alloc::vec::Vec;

/// A type of message or record, in every version of it.
pub trait Message: Field + Default {
    /// Kafka's name.
    const NAME: &'static str;
    /// The API key, or the record's type; -1 for data that travels without one.
    const KEY: i16;
    /// Oldest version that can be read and written.
    const VERSION_MIN: i16;
    /// Newest version that can be read and written.
    const VERSION_MAX: i16;
    /// First version in the compact notation with tagged fields (KIP-482); [`NEVER`] where none is.
    const FLEXIBLE_SINCE: i16;

    /// Appends this message in `version`. On an error `out` holds part of it.
    fn encode(&self, version: i16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !(Self::VERSION_MIN..=Self::VERSION_MAX).contains(&version) {
            return Err(EncodeError::UnknownVersion { name: Self::NAME, version });
        }
        self.write(Encoding::of::<Self>(version), out)
    }

    /// This message in `version`, alone.
    fn to_vec(&self, version: i16) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        self.encode(version, &mut out)?;
        Ok(out)
    }

    /// Reads a message that fills `bytes` to the end.
    fn decode(version: i16, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = Self::decode_from(version, &mut reader)?;
        reader.finish(Self::NAME)?;
        Ok(message)
    }

    /// Reads a message and leaves what follows it.
    fn decode_from(version: i16, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if !(Self::VERSION_MIN..=Self::VERSION_MAX).contains(&version) {
            return Err(DecodeError {
                place: Self::NAME,
                problem: Problem::UnknownVersion(version),
            });
        }
        Self::read(Encoding::of::<Self>(version), reader).map_err(|e| e.within(Self::NAME))
    }
}

/// What the macro's expansion names; not for other use.
#[doc(hidden)]
pub mod __private {
    pub use alloc::vec::Vec;
}
