//! Metadata records, the immutable cluster image, its deltas and snapshots.
//!
//! [`MetadataRecord`] is what the metadata log holds; [`Image`] what it amounts to; [`Delta`] what a
//! few records changed; [`Replay`] goes through the log, and
//! [`Loader`] through all that a node has on disk. [`log`] has the batches of the log, and
//! [`snapshot_file`] the files of it.
//!
//! Pure: no clock, no files; time and offsets arrive as values.

#![no_std]

extern crate alloc;

mod acls;
mod apply;
mod delta;
pub mod features;
pub mod format;
mod image;
mod load;
pub mod log;
mod losses;
mod record;
pub mod records;
mod replay;
mod snapshot;
pub mod snapshot_file;
mod topics;

pub use acls::{AclOperation, AclPattern, AclPermission, AclResource};
pub use delta::Delta;
pub use features::MetadataVersion;
pub use image::{ConfigResource, Image, QuotaEntity, ResourceKind};
pub use load::{LoadError, Loader};
pub use losses::Loss;
pub use record::{MetadataRecord, RecordError};
pub use replay::{Replay, ReplayError};
pub use topics::{Partition, Topic, Topics, raw};
