//! Record batches, format v2: header, validation at append, compression, iteration, building.
#![doc = include_str!("checks.md")]
// Tests print and panic like any other: they have std.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod builder;
mod check;
mod compress;
mod control;
mod error;
mod header;
mod lz4;
mod record;
mod varint;

pub use builder::BatchBuilder;
pub use check::{
    Checked, Compression, Invalid, Origin, RECORD_ERRORS_MAX, RecordError, RecordFault, Rejected,
    Rules, check, conversion_bytes,
};
pub use compress::Limits;
pub use control::{ControlType, EndTxnMarker};
pub use error::{BatchError, Malformed};
pub use header::{
    Attributes, BatchHeader, Batches, Codec, HEADER_LEN, LOG_OVERHEAD, MAGIC, NO_PRODUCER_EPOCH,
    NO_SEQUENCE, TimestampType, batches, crc_ok, sequence_plus, stamp,
};
pub use record::{Headers, Record, Records, records};
