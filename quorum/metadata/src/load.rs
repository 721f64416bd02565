//! From what a node has on disk to the image, and to what Raft must know to start.
//!
//! The order is: [`Loader::new`], [`Loader::snapshot`] with the newest one (the 0-0 one where there is no
//! other), [`Loader::skip`] for what the log holds before its end if that is not read, then
//! [`Loader::batch`] (or [`Loader::note`]) for every batch that is, and [`Loader::finish`].
//!
//! Invariant: batches follow each other without a gap, and their epochs never go back.

use crate::log::{self, Entry, LogError};
use crate::replay::{Replay, ReplayError};
use crate::snapshot_file;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_batch::BatchHeader;
use flowstone_raft::control::KraftVoters;
use flowstone_raft::snapshot::SnapshotError;
use flowstone_raft::{
    EpochStart, Quorum, QuorumHistory, QuorumState, SnapshotFile, SnapshotId, Stored,
};
use flowstone_types::{LeaderEpoch, Offset};

/// Takes in snapshot and log.
#[derive(Clone, Debug)]
pub struct Loader {
    replay: Replay,
    stored: Stored,
    /// What the image starts from: batches below its end are only noted.
    covered: Option<SnapshotId>,
    /// Whether any of the log was told yet: before that nobody knows where it starts.
    has_log: bool,
}

impl Loader {
    /// Starts with what `quorum-state` holds, the voters that the configuration names
    /// (`controller.quorum.voters`; none where the log is to tell), and the snapshots on disk beside the
    /// 0-0 one, the oldest first.
    pub fn new(
        state: Option<QuorumState>,
        configured: KraftVoters,
        snapshots: Vec<SnapshotFile>,
    ) -> Self {
        let configured = Quorum { kraft_version: 0, voters: configured };
        let stored = Stored {
            state,
            epochs: Vec::new(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            log_bytes: 0,
            log_bytes_behind_snapshot: 0,
            quorum: QuorumHistory::configured(configured),
            snapshots,
        };
        Self { replay: Replay::default(), stored, covered: None, has_log: false }
    }

    /// Goes on from a snapshot's file.
    pub fn snapshot(&mut self, id: SnapshotId, file: &Bytes) -> Result<(), LoadError> {
        let (head, image) = snapshot_file::read(file)?;
        self.replay = Replay::from_image(image);
        let told = head.voters.map(|voters| Quorum { kraft_version: head.kraft_version, voters });
        if let Some(told) = told {
            self.stored.quorum = if id == SnapshotId::BOOTSTRAP {
                QuorumHistory::configured(told)
            } else {
                QuorumHistory::of_snapshot(told)
            };
        }
        if id != SnapshotId::BOOTSTRAP {
            self.covered = Some(id);
            self.stored.log_start = id.end;
            self.stored.log_end = id.end;
        }
        Ok(())
    }

    /// Notes what the log holds below the snapshot's end, or of a part of that, without its batches: where
    /// it starts, where its epochs do, and its bytes.
    pub fn skip(&mut self, start: Offset, end: Offset, epochs: &[EpochStart], bytes: u64) {
        assert!(!self.has_log, "what is skipped comes first");
        assert!(end <= self.covered_end(), "only what a snapshot covers is skipped");
        self.has_log = true;
        self.stored.log_start = start;
        self.stored.log_end = end;
        self.stored.epochs.extend(epochs.iter().take_while(|epoch| epoch.start < end));
        self.stored.log_bytes = bytes;
    }

    /// Takes in the next batch of the log, committed as the caller knows; of one that the snapshot covers
    /// only what Raft must know.
    pub fn batch(&mut self, batch: &Bytes) -> Result<(), LoadError> {
        let (header, entry) = log::read_batch(batch)?;
        let is_covered = header.last_offset() < self.covered_end();
        self.take(&header, &entry, batch.len() as u64)?;
        if let Entry::Records(records) = entry
            && !is_covered
        {
            for record in records {
                self.replay.apply(record)?;
            }
        }
        Ok(())
    }

    /// The same, but leaves the image alone: one voter of several has more in its log than it knows to be
    /// committed.
    pub fn note(&mut self, batch: &Bytes) -> Result<(), LoadError> {
        let (header, entry) = log::read_batch(batch)?;
        self.take(&header, &entry, batch.len() as u64)
    }

    fn covered_end(&self) -> Offset {
        self.covered.map_or(Offset::ZERO, |id| id.end)
    }

    fn take(&mut self, header: &BatchHeader, entry: &Entry, bytes: u64) -> Result<(), LoadError> {
        let covered_end = self.covered_end();
        let stored = &mut self.stored;
        if !self.has_log && header.base_offset <= covered_end {
            (stored.log_start, stored.log_end) = (header.base_offset, header.base_offset);
        }
        if header.base_offset != stored.log_end {
            return Err(LoadError::Gap { expected: stored.log_end, found: header.base_offset });
        }
        self.has_log = true;
        let last = stored.epochs.last().map(|last| last.epoch);
        let of_snapshot = self.covered.filter(|id| id.end == header.base_offset);
        let before = last.or(of_snapshot.map(|id| id.epoch)).unwrap_or(LeaderEpoch(0));
        if header.leader_epoch < before {
            let epoch = header.leader_epoch;
            return Err(LoadError::EpochGoesBack { at: header.base_offset, epoch, before });
        }
        if last.is_none_or(|last| last < header.leader_epoch) {
            let (epoch, start) = (header.leader_epoch, header.base_offset);
            stored.epochs.push(EpochStart { epoch, start });
        }
        stored.log_end = header.last_offset().plus(1);
        stored.log_bytes += bytes;
        if stored.log_end > covered_end {
            stored.log_bytes_behind_snapshot += bytes;
            // Voters and `kraft.version` count as soon as they are appended (KIP-853).
            if let Entry::Control(records) = entry {
                stored.quorum.append(header.base_offset, records);
            }
        }
        Ok(())
    }

    /// The image as it goes on, and what Raft starts from.
    pub fn finish(self) -> (Replay, Stored) {
        (self.replay, self.stored)
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
