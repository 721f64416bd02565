//! What a store is given, and what a log is opened with.

use std::sync::Arc;

use flowstone_log::LogConfig;
use flowstone_types::{LeaderEpoch, PartitionId, Uuid};

use crate::dir::LogDir;

/// The storage of one shard.
#[derive(Clone)]
pub struct StoreConfig {
    /// The directories, shared with the other shards: `log.dirs`, and the one of the metadata log.
    pub dirs: Vec<LogDir>,
    /// A log that is in none of them is made in one of the first so many.
    pub dirs_for_new: usize,
    /// O_DIRECT; without it the page cache is used, under the same durability rule.
    pub direct_io: bool,
    /// Memory of this shard for tails, read-ahead and indexes of sealed segments.
    pub memory_bytes: usize,
    /// Bytes of batches written or waiting to be, at which [`crate::Store::room`] makes wait.
    pub waiting_bytes_max: usize,
    /// Bytes of disk for the journal of each log directory, of this shard; 0 for none.
    pub journal_bytes: u64,
    /// Files this shard keeps open.
    pub open_files_max: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_ms: i64,
    /// How often checkpoints are written.
    pub checkpoint_ms: i64,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
}

impl StoreConfig {
    /// Usual values for `dirs`.
    pub fn new(dirs: Vec<LogDir>) -> Self {
        Self {
            dirs_for_new: dirs.len(),
            dirs,
            direct_io: true,
            memory_bytes: 64 << 20,
            // A group of 4 MiB takes about 2 ms to write and flush, one of 16 MiB 7 ms (measured on
            // virtio NVMe); twice the former keeps the disk busy while acks leave.
            waiting_bytes_max: 8 << 20,
            journal_bytes: 512 << 20,
            open_files_max: 1024,
            retention_check_ms: 300_000,
            checkpoint_ms: 60_000,
            producer_expiration_ms: 86_400_000,
        }
    }
}

/// Which log to open, and how it is to behave.
#[derive(Clone)]
pub struct LogSpec {
    /// The topic's name, which names the directory.
    pub topic: Arc<str>,
    /// The topic's id and the partition's index.
    pub id: PartitionId,
    /// Configs in force.
    pub config: Arc<LogConfig>,
    /// The epoch in which this node leads: it begins at the log's end. `NONE` where it does not.
    pub leader_epoch: LeaderEpoch,
    /// Where it may be.
    pub whereabouts: Whereabouts,
}

/// Which log directory a log may be in, as the cluster's metadata tells (KIP-858). One that is found is opened where
/// it lies, whatever was told. This decides of one that is not found, which must not begin anew, empty, while its records
/// are in a directory that is offline or not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whereabouts {
    /// It was never opened: any directory may have it.
    New,
    /// It may have been opened before, in a directory that was not told.
    Untold,
    /// The directory with this id.
    In(Uuid),
}
