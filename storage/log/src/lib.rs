//! One partition's log, decided: segments, indexes, recovery, producer state, retention, checkpoints.
//!
//! Pure: bytes, listings and times come in; places, plans and file contents go out. The shell in
//! `node/store` owns every file and does what is decided here. Formats and names are Kafka's.

// Tests print and panic like any other: they have std.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod checkpoint;
mod config;
mod epochs;
mod index;
pub mod journal;
mod log;
pub mod names;
pub use names::FileKind;
mod producers;
pub mod recovery;
mod scan;
mod segment;

pub use checkpoint::{
    CorruptCheckpoint, MetaProperties, Offsets, decode_clean_shutdown, decode_offsets,
    decode_partition_metadata, encode_clean_shutdown, encode_offsets, encode_partition_metadata,
};
pub use config::{Durability, LogConfig};
pub use epochs::Epochs;
pub use index::{CorruptIndex, OffsetIndex, TimeIndex, TimestampOffset};
pub use log::{Appended, Duplicate, Expired, Located, Log, Opened, Placed, Refused, Sealed};
pub use producers::*;
pub use scan::{Cut, CutEnd, End, Scanner, Step, Wanted, cut};
pub use segment::{Active, Segment};
