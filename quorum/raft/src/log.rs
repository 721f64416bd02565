//! What Raft knows of the log: where it starts and ends, how far it is flushed, and its epochs.
//!
//! Separate from the bytes, which are the shell's. Invariants: `start <= flushed <= end`; epochs and their
//! starts rise strictly, and every one that stands here has a batch in the log; what is cut off takes its
//! epochs along (KAFKA-10706).

use crate::settings::EpochStart;
use crate::snapshot::SnapshotId;
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, Offset};

/// The log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Everything below is in a snapshot only, if `start.end` is not 0.
    start: SnapshotId,
    epochs: Vec<EpochStart>,
    end: Offset,
    flushed: Offset,
    /// Truncations that the shell has not confirmed yet.
    cutting: u32,
    /// The snapshot that is about to replace the log.
    installing: Option<SnapshotId>,
}

/// How a replica's log stands to this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// Its log is the beginning of this one.
    Valid,
    /// It parts from this one at this end of this epoch, or before.
    Diverging(EpochEnd),
    /// It needs a snapshot first.
    Snapshot(SnapshotId),
}

/// Where an epoch ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The first offset behind its last batch.
    pub end: Offset,
}

impl Log {
    /// A log that is flushed to its end. `start` is where it starts, and the epoch of the batch before.
    pub fn new(start: SnapshotId, epochs: Vec<EpochStart>, end: Offset) -> Self {
        assert!(epochs.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start));
        assert!(start.end <= end);
        Self { start, epochs, end, flushed: end, cutting: 0, installing: None }
    }

    /// Where it starts.
    pub const fn start(&self) -> Offset {
        self.start.end
    }

    /// Where it ends.
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// How far it is flushed.
    pub const fn flushed(&self) -> Offset {
        self.flushed
    }

    /// The epoch of its last batch; of the snapshot that it starts from where it has none.
    pub fn last_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(self.start.epoch, |last| last.epoch)
    }

    /// Whether everything that was asked of the disk is done: a Fetch may say that it holds the log.
    pub fn is_settled(&self) -> bool {
        self.flushed == self.end && self.cutting == 0 && self.installing.is_none()
    }

    /// Whether a snapshot is about to replace it.
    pub const fn is_being_replaced(&self) -> bool {
        self.installing.is_some()
    }

    /// The epoch of the last batch below `end`.
    pub fn epoch_before(&self, end: Offset) -> LeaderEpoch {
        let last = self.epochs.iter().rev().find(|epoch| epoch.start < end);
        last.map_or(self.start.epoch, |epoch| epoch.epoch)
    }

    /// The last epoch that is not above `epoch`, and its end: what a leader compares a replica's log by
    /// (KIP-101, KIP-279).
    pub fn end_of(&self, epoch: LeaderEpoch) -> EpochEnd {
        let above = self.epochs.iter().position(|known| known.epoch > epoch);
        let end = above.map_or(self.end, |above| self.epochs[above].start);
        let below = above.map_or(self.epochs.len(), |above| above).checked_sub(1);
        // Below all that is known: everything that the replica has of that epoch is not ours.
        let first = self.start.epoch.min(epoch);
        EpochEnd { epoch: below.map_or(first, |below| self.epochs[below].epoch), end }
    }

    /// Compares a replica's log, which ends at `end` with a batch of `epoch`. `snapshots` are those that can
    /// be served, as (oldest, newest).
    pub fn compare(
        &self,
        end: Offset,
        epoch: LeaderEpoch,
        snapshots: Option<(SnapshotId, SnapshotId)>,
    ) -> Position {
        if let Some((oldest, newest)) = snapshots {
            let before = end < self.start.end
                || (end == self.start.end && end > Offset::ZERO && epoch != self.start.epoch)
                || (self.start.end > Offset::ZERO && epoch < oldest.epoch);
            // KIP-630: an empty replica gets there faster by a snapshot.
            if before || end == Offset::ZERO {
                return Position::Snapshot(newest);
            }
        }
        let ours = self.end_of(epoch);
        if ours.epoch == epoch && end <= ours.end {
            Position::Valid
        } else {
            Position::Diverging(ours)
        }
    }

    /// Takes in a batch, from the log's end to `end`.
    pub fn append(&mut self, epoch: LeaderEpoch, end: Offset) {
        assert!(end > self.end, "a batch has records");
        assert!(epoch >= self.last_epoch(), "epochs never go back");
        assert!(self.installing.is_none(), "nothing is appended to a log that is being replaced");
        if self.epochs.last().is_none_or(|last| last.epoch < epoch) {
            self.epochs.push(EpochStart { epoch, start: self.end });
        }
        self.end = end;
    }

    /// Notes a flush. One of what is being cut off says nothing.
    pub fn flush(&mut self, end: Offset) {
        if self.cutting == 0 && self.installing.is_none() {
            assert!(end <= self.end, "what is flushed was appended");
            self.flushed = self.flushed.max(end);
        }
    }

    /// Where to cut so that nothing stays of what a leader's log, whose `leader.epoch` ends at
    /// `leader.end`, does not have.
    pub fn cut_for(&self, leader: EpochEnd) -> Offset {
        let ours = self.end_of(leader.epoch);
        if ours.epoch == leader.epoch { ours.end.min(leader.end) } else { ours.end }
    }

    /// Cuts the log off at `end`.
    pub fn truncate(&mut self, end: Offset) {
        assert!(self.start.end <= end, "what is in snapshots only cannot be cut off");
        assert!(end <= self.end, "a cut does not lengthen");
        self.epochs.retain(|epoch| epoch.start < end);
        self.end = end;
        self.flushed = self.flushed.min(end);
        self.cutting += 1;
    }

    /// The oldest cut is done.
    pub fn truncated(&mut self) {
        self.cutting = self.cutting.checked_sub(1).expect("each cut is confirmed once");
    }

    /// A snapshot is about to replace the log.
    pub fn replace(&mut self, id: SnapshotId) {
        assert!(self.installing.is_none(), "one at a time");
        self.installing = Some(id);
    }

    /// It proved to be none: the log stays.
    pub fn replace_failed(&mut self, id: SnapshotId) {
        assert!(self.installing.take() == Some(id), "only what was to be installed is refused");
    }

    /// It has replaced the log.
    pub fn replaced(&mut self, id: SnapshotId) {
        assert!(self.installing == Some(id), "only what was to be installed is installed");
        *self = Self { cutting: self.cutting, ..Self::new(id, Vec::new(), id.end) };
    }

    /// Lets go of everything below a snapshot's end.
    pub fn drop_before(&mut self, id: SnapshotId) {
        assert!(self.start.end <= id.end, "the start never goes back");
        assert!(id.end <= self.end, "a snapshot covers what the log holds");
        let first = self.epochs.iter().rposition(|epoch| epoch.start <= id.end);
        self.epochs.drain(..first.unwrap_or(0));
        if let Some(first) = self.epochs.first_mut() {
            first.start = first.start.max(id.end);
        }
        if id.end == self.end {
            self.epochs.clear();
        }
        self.start = id;
    }
}
