//! From what a node has on disk to the image, and to what Raft must know to start.
//!
//! The order is: [`Loader::new`], [`Loader::snapshot`] with the newest one (the 0-0 one where there is no
//! other), [`Loader::batch`] for every batch of the log, [`Loader::finish`].
//!
//! Invariant: batches follow each other without a gap, and their epochs never go back.

use crate::log::{self, Entry, LogError};
use crate::replay::{Replay, ReplayError};
use crate::snapshot_file;
use bytes::Bytes;
use flowstone_raft::control::{ControlRecord, KraftVoters};
use flowstone_raft::snapshot::SnapshotError;
use flowstone_raft::{QuorumState, SnapshotId, Stored};
use flowstone_types::{LeaderEpoch, Offset};

/// Takes in snapshot and log.
#[derive(Clone, Debug)]
pub struct Loader {
    replay: Replay,
    stored: Stored,
}

impl Loader {
    /// Starts with what `quorum-state` holds, and with the voters that the configuration names
    /// (`controller.quorum.voters`; none where the log is to tell).
    pub fn new(state: Option<QuorumState>, configured: KraftVoters) -> Self {
        let stored = Stored {
            state,
            last_epoch: LeaderEpoch(0),
            log_end: Offset::ZERO,
            kraft_version: 0,
            voters: configured,
            voters_in_log: false,
            snapshot: None,
            log_bytes_behind_snapshot: 0,
        };
        Self { replay: Replay::default(), stored }
    }

    /// Goes on from a snapshot's file.
    pub fn snapshot(&mut self, id: SnapshotId, file: &Bytes) -> Result<(), LoadError> {
        let (head, image) = snapshot_file::read(file)?;
        let stored = &mut self.stored;
        self.replay = Replay::from_image(image);
        stored.kraft_version = head.kraft_version;
        if let Some(voters) = head.voters {
            stored.voters = voters;
            stored.voters_in_log = id != SnapshotId::BOOTSTRAP;
        }
        stored.log_end = id.end;
        stored.last_epoch = id.epoch;
        stored.snapshot = (id != SnapshotId::BOOTSTRAP).then_some(id);
        Ok(())
    }

    /// Takes in the next batch of the log; one that the snapshot covers is passed over.
    pub fn batch(&mut self, batch: &Bytes) -> Result<(), LoadError> {
        let (header, entry) = log::read_batch(batch)?;
        let stored = &mut self.stored;
        let next = header.last_offset().plus(1);
        if next <= stored.log_end {
            return Ok(());
        }
        if header.base_offset != stored.log_end {
            return Err(LoadError::Gap { expected: stored.log_end, found: header.base_offset });
        }
        if header.leader_epoch < stored.last_epoch {
            let (epoch, before) = (header.leader_epoch, stored.last_epoch);
            return Err(LoadError::EpochGoesBack { at: header.base_offset, epoch, before });
        }
        match entry {
            Entry::Records(records) => {
                for record in records {
                    self.replay.apply(record)?;
                }
            }
            Entry::Control(records) => {
                for record in records {
                    stored_control(stored, record);
                }
            }
        }
        stored.log_end = next;
        stored.last_epoch = header.leader_epoch;
        stored.log_bytes_behind_snapshot += batch.len() as u64;
        Ok(())
    }

    /// The image as it goes on, and what Raft starts from.
    pub fn finish(self) -> (Replay, Stored) {
        (self.replay, self.stored)
    }
}

/// Voters and `kraft.version` count as soon as they are appended (KIP-853).
fn stored_control(stored: &mut Stored, record: ControlRecord) {
    match record {
        ControlRecord::KraftVersion(record) => stored.kraft_version = record.kraft_version,
        ControlRecord::KraftVoters(record) => {
            stored.voters = record;
            stored.voters_in_log = true;
        }
        ControlRecord::LeaderChange(_)
        | ControlRecord::SnapshotHeader(_)
        | ControlRecord::SnapshotFooter(_)
        | ControlRecord::Other => {}
    }
}

/// A metadata log or snapshot that cannot be read, or that this release does not understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// Its batches or records are damaged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its records do not make an image.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// Batches are missing.
    #[error("the metadata log has offset {found} where {expected} should follow")]
    Gap {
        /// The offset that should come.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// A batch of an epoch that was over.
    #[error("the batch at offset {at} is of epoch {epoch}, behind one of epoch {before}")]
    EpochGoesBack {
        /// Where.
        at: Offset,
        /// Its epoch.
        epoch: LeaderEpoch,
        /// The epoch before it.
        before: LeaderEpoch,
    },
}

impl From<SnapshotError> for LoadError {
    fn from(error: SnapshotError) -> Self {
        Self::Log(error.into())
    }
}
