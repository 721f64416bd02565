//! Why bytes are no batch, or a batch no records.

use thiserror::Error;

use crate::Codec;

/// What is wrong with bytes that should be record batches.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BatchError {
    /// The bytes end inside a batch.
    #[error("{bytes} bytes end inside a record batch that needs {needed}")]
    Truncated {
        /// Bytes there are.
        bytes: usize,
        /// Bytes the batch has, or its header where not even that is whole.
        needed: usize,
    },
    /// Not format v2: 0 and 1 are Kafka's before 0.11, anything else is nothing.
    #[error("record batch of format v{0}, only v2 is read")]
    Magic(i8),
    /// A length that does not even cover the header.
    #[error("a record batch cannot have a length field of {0}")]
    Length(i32),
    /// A codec number that means nothing.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// The record array is not what the header says.
    #[error("records do not fit their batch: {0}")]
    Malformed(#[from] Malformed),
    /// The record array does not decompress.
    #[error("{codec} data of a record batch does not decompress: {what}", codec = .0.name(), what = .1)]
    Compression(Codec, &'static str),
    /// The record array decompresses to more than [`crate::Limits`] allow.
    #[error("record batch would decompress to more than {limit} bytes")]
    Bomb {
        /// Bytes that were allowed.
        limit: usize,
    },
}

/// How a record array contradicts itself or its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Malformed {
    /// A record, or something in it, is longer than what holds it.
    #[error("record {0} runs past its end")]
    Overrun(i32),
    /// A variable-length number of more bits than its type has.
    #[error("record {0} has a number too long for its type")]
    Varint(i32),
    /// A negative length that is not "null", or a null where none may be.
    #[error("record {0} has a negative length")]
    NegativeLength(i32),
    /// A record's fields end before the record does.
    #[error("record {0} is longer than its fields")]
    Slack(i32),
    /// An offset delta that is not the record's index (or goes back, after compaction).
    #[error("record {0} has offset delta {1}")]
    OffsetDelta(i32, i32),
    /// Base timestamp and delta give no 64-bit number.
    #[error("the timestamps overflow")]
    Timestamp,
    /// Bytes after the last record.
    #[error("{0} bytes follow the last record")]
    TrailingBytes(usize),
    /// A count or last offset delta that no batch has.
    #[error("{count} records cannot end at offset delta {last_offset_delta}")]
    Count {
        /// Records the header declares.
        count: i32,
        /// Offsets the header declares, less one.
        last_offset_delta: i32,
    },
    /// A control record whose key is not version and type.
    #[error("not a control record")]
    Control,
}
