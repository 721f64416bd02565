//! What can go wrong with storage, in types.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowstone_log::Refused;
use flowstone_types::{Offset, Uuid};
use thiserror::Error;

/// What was asked of the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// To see whether something is there.
    Find,
    /// To list a directory.
    List,
    /// To open a file; to make one that is missing, too.
    Open,
    /// To read.
    Read,
    /// To make a directory.
    Make,
    /// To reserve disk.
    Allocate,
    /// To write.
    Write,
    /// To cut a file, or lengthen it.
    Cut,
    /// To bring what was written to stable storage.
    Flush,
    /// To rename.
    Rename,
    /// To remove.
    Remove,
}

impl Action {
    /// Whether it asks the disk to take or to keep something.
    const fn is_write(self) -> bool {
        match self {
            Self::Find | Self::List | Self::Open | Self::Read => false,
            Self::Make
            | Self::Allocate
            | Self::Write
            | Self::Cut
            | Self::Flush
            | Self::Rename
            | Self::Remove => true,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Find => "find",
            Self::List => "list",
            Self::Open => "open",
            Self::Read => "read",
            Self::Make => "make",
            Self::Allocate => "allocate",
            Self::Write => "write",
            Self::Cut => "cut",
            Self::Flush => "flush",
            Self::Rename => "rename",
            Self::Remove => "remove",
        })
    }
}

/// Storage did not do what was asked. Clones share the cause.
#[derive(Clone, Debug, Error)]
pub enum StorageError {
    /// The operating system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: Action,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: Arc<io::Error>,
    },
    /// A checkpoint or identity file is not what it should be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// A log ends before what is known to have been on stable storage: the disk lost it, or somebody did. Nothing
    /// of it is cut or moved.
    #[error(
        "{} is damaged: {why} at byte {position}, offset {offset}, but everything below {known} was on stable storage; {}",
        path.display(), how_to_give_up()
    )]
    DamagedLog {
        /// The segment, or the directory where no segment is left.
        path: PathBuf,
        /// Where in the file its good batches end.
        position: u64,
        /// The first offset that is not there.
        offset: Offset,
        /// The log is known to have held everything below.
        known: Offset,
        /// What is there instead.
        why: &'static str,
    },
    /// A journal lacks what was on stable storage in it, and of no log in its directory is it known whether it has
    /// that: nothing there is opened or changed.
    #[error(
        "{} is damaged at byte {position}: what it brought there was on stable storage, and nothing tells any more for which of the logs; \
         put the log directory back from a copy or, to give up what its logs may lack, make a file {} in it; then start again",
        path.display(), flowstone_log::names::CUT_ALLOWED
    )]
    DamagedJournal {
        /// The journal's file.
        path: PathBuf,
        /// Where in it.
        position: u64,
    },
    /// Kafka's compaction was interrupted there; only Kafka can bring it to its end.
    #[error("{} holds an unfinished compaction (*.swap): start and stop Apache Kafka on it once", .0.display())]
    InterruptedCompaction(PathBuf),
    /// The log is in none of the directories that are here, and was made before: begun anew it would lack its records.
    #[error(
        "its log is missing: {}; bring that back and start again, or delete the topic to give up its records",
        told(*directory)
    )]
    Missing {
        /// The id of the directory that it is in, where that is known.
        directory: Option<Uuid>,
    },
    /// The partition is open already.
    #[error("{} is open already", .0.display())]
    AlreadyOpen(PathBuf),
    /// The store was shut down, or the log deleted.
    #[error("the log is closed")]
    Closed,
    /// No space for what was to be written; it is tried again.
    #[error("no space left for {}", .0.display())]
    DiskFull(PathBuf),
}

impl StorageError {
    /// Turns an I/O error into one that says what was tried on what.
    pub fn io(action: Action, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            if out_of_space(&source) {
                return Self::DiskFull(path);
            }
            Self::Io { action, path, source: Arc::new(source) }
        }
    }

    /// Whether the disk refused to take or to keep something: what else it said yes to, and has not flushed yet, may
    /// be gone with it.
    pub(crate) const fn is_failed_write(&self) -> bool {
        match self {
            Self::Io { action, .. } => action.is_write(),
            Self::Damaged { .. }
            | Self::DamagedLog { .. }
            | Self::DamagedJournal { .. }
            | Self::InterruptedCompaction(_)
            | Self::Missing { .. }
            | Self::AlreadyOpen(_)
            | Self::Closed
            | Self::DiskFull(_) => false,
        }
    }

    /// Whether space, when it comes back, is all that is missing.
    pub const fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull(_))
    }
}

/// Where a missing log is.
fn told(directory: Option<Uuid>) -> String {
    match directory {
        Some(id) => format!(
            "it is in the log directory of directory.id={id}, which is offline or not in log.dirs"
        ),
        None => "it may be in the log directory that is offline".to_owned(),
    }
}

/// What an operator can do about a damaged log.
pub(crate) fn how_to_give_up() -> String {
    let name = flowstone_log::names::CUT_ALLOWED;
    format!(
        "put it back from a copy or, to give up what is damaged and all behind it, make a file {name} in that partition's folder; then start again"
    )
}

/// Whether an error is about space (or a quota), not about the disk.
pub(crate) fn out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The log's rules forbid it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The disk is full. Reading goes on, and so does writing once there is space.
    #[error("no space left on the log's disk")]
    DiskFull,
    /// A write or flush failed: the log takes no more (KAFKA_STORAGE_ERROR).
    #[error("the log is offline: {0}")]
    Offline(StorageError),
    /// The log was deleted, or the store shut down.
    #[error("the log is closed")]
    Closed,
}

/// Why nothing was read.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// The offset is below the log's start or above its end.
    #[error("offset {offset} is outside of {start}..={end}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log's first offset.
        start: Offset,
        /// The offset after its last.
        end: Offset,
    },
    /// The disk did not give what it was given.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the disk gave is no batch of this log: never served.
    #[error("corrupt batch near offset {offset} at {position} of {}", path.display())]
    Corrupt {
        /// The segment's file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// The offset looked for.
        offset: Offset,
    },
    /// The log was deleted, or the store shut down.
    #[error("the log is closed")]
    Closed,
}
