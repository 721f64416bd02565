//! What a replica of the metadata log has on its disk: log, snapshots, `quorum-state`.
//!
//! Separate from the node, because it outlives the process. Invariants: a `quorum-state` is replaced whole
//! or not at all; a snapshot has its name only once all of it is on the disk; what the log lost at a power
//! loss is a tail.

use std::collections::VecDeque;

use bytes::Bytes;
use flowstone_batch::{BatchHeader, batches};
use flowstone_raft::control::{ControlRecord, read_control_batch};
use flowstone_raft::snapshot::{SnapshotError, read_snapshot};
use flowstone_raft::{
    EpochStart, Quorum, QuorumHistory, QuorumState, SnapshotFile, SnapshotId, Stored,
};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use crate::disk::{Disk, Flush};
use crate::random::Random;

/// A batch of the log.
#[derive(Clone, Debug)]
pub struct LogBatch {
    /// Its first offset.
    pub base: Offset,
    /// The first offset behind it.
    pub end: Offset,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// Whether Raft wrote it for itself.
    pub is_control: bool,
    /// Stands for its bytes.
    pub crc: u32,
    /// The bytes.
    pub bytes: Bytes,
}

impl LogBatch {
    /// Cuts whole batches apart.
    pub fn parse(all: &Bytes) -> Vec<Self> {
        let mut parsed = Vec::new();
        for batch in batches(all) {
            let (_, header, bytes) = batch.expect("raft hands out whole batches");
            parsed.push(Self {
                base: header.base_offset,
                end: header.last_offset().plus(1),
                epoch: header.leader_epoch,
                is_control: header.attributes.is_control(),
                crc: crc(&header),
                bytes: all.slice_ref(bytes),
            });
        }
        parsed
    }

    /// Whether a control batch does nothing but change the voters: the first batch of an epoch, which may
    /// repeat them, does more.
    pub fn changes_voters(&self) -> bool {
        let records = read_control_batch(&self.bytes).expect("raft wrote it");
        matches!(records[..], [ControlRecord::KraftVoters(_)])
    }

    /// What the image comes to with this batch, if it came to `image` before.
    pub const fn image(&self, image: u64) -> u64 {
        Random::new(image ^ ((self.epoch.0 as u64) << 32), self.crc as u64).bits()
    }
}

fn crc(header: &BatchHeader) -> u32 {
    header.crc
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its file, as Raft knows it.
    pub file: SnapshotFile,
    /// The file's bytes.
    pub bytes: Bytes,
}

/// What a snapshot's file says.
pub struct Contents {
    /// What the image came to.
    pub image: u64,
    /// Who votes there.
    pub quorum: Option<Quorum>,
    /// When the last record that it covers was written.
    pub last_timestamp: Timestamp,
}

/// Reads a snapshot's file; `None` where it is not whole.
pub fn read(bytes: &Bytes) -> Option<Contents> {
    let mut image = None;
    let head = read_snapshot::<SnapshotError>(bytes, |value| {
        image = value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        Ok(())
    })
    .ok()?;
    let quorum = head.voters.map(|voters| Quorum { kraft_version: head.kraft_version, voters });
    Some(Contents { image: image?, quorum, last_timestamp: head.last_contained_log_timestamp })
}

/// The disk.
#[derive(Debug)]
pub struct RaftDisk {
    log: Disk<LogBatch>,
    start: SnapshotId,
    /// What is configured, or what the 0-0 snapshot says.
    formatted: Quorum,
    saved: Option<QuorumState>,
    saving: VecDeque<QuorumState>,
    snapshots: Vec<Snapshot>,
}

impl RaftDisk {
    /// A disk as `format` leaves it.
    pub fn new(formatted: Quorum) -> Self {
        Self {
            log: Disk::default(),
            start: SnapshotId::BOOTSTRAP,
            formatted,
            saved: None,
            saving: VecDeque::new(),
            snapshots: Vec::new(),
        }
    }

    /// The log's batches.
    pub const fn batches(&self) -> &VecDeque<LogBatch> {
        self.log.entries()
    }

    /// Where the log ends.
    pub fn end(&self) -> Offset {
        self.batches().back().map_or(self.start.end, |batch| batch.end)
    }

    /// What `quorum-state` holds, for sure.
    pub const fn saved(&self) -> Option<&QuorumState> {
        self.saved.as_ref()
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// Whether this batch is here, in the log or in a snapshot, and stays whatever happens.
    pub fn holds_durably(&self, end: Offset, crc: u32) -> bool {
        if self.snapshots.last().is_some_and(|snapshot| snapshot.file.id.end >= end) {
            return true;
        }
        let at = self.batches().partition_point(|batch| batch.end < end);
        at < self.log.stable_len() && self.batches()[at].end == end && self.batches()[at].crc == crc
    }

    /// A new `quorum-state` is being written.
    pub fn save(&mut self, state: QuorumState) {
        self.saving.push_back(state);
    }

    /// The oldest one that was being written is on the disk.
    pub fn save_done(&mut self) {
        self.saved = self.saving.pop_front();
        assert!(self.saved.is_some(), "it was being written");
    }

    /// Writes batches at the log's end.
    pub fn append(&mut self, all: &Bytes) {
        for batch in LogBatch::parse(all) {
            assert_eq!(batch.base, self.end(), "batches follow each other");
            self.log.append(batch);
        }
    }

    /// Cuts the log off.
    pub fn truncate(&mut self, end: Offset) {
        let keep = self.batches().partition_point(|batch| batch.end <= end);
        self.log.truncate(keep);
        assert_eq!(self.end(), end, "a cut is made between two batches");
    }

    /// A flush begins; it covers everything up to the end returned.
    pub fn flush(&self) -> (Flush, Offset) {
        (self.log.flush(), self.end())
    }

    /// Whether anything is not covered by a finished flush.
    pub fn has_unflushed(&self) -> bool {
        self.log.has_unflushed()
    }

    /// A flush is over.
    pub fn flush_done(&mut self, flush: Flush) {
        self.log.flush_done(flush);
    }

    /// A snapshot is on the disk.
    pub fn add_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshots.push(snapshot);
        self.snapshots.sort_by_key(|snapshot| snapshot.file.id);
    }

    /// A snapshot of the leader's takes the log's place.
    pub fn install(&mut self, snapshot: Snapshot) {
        self.log.clear();
        self.start = snapshot.file.id;
        self.snapshots.retain(|other| other.file.id < snapshot.file.id);
        self.snapshots.push(snapshot);
    }

    /// Snapshots before this one go, and the log below its end. Returns the bytes of log that are left.
    pub fn drop_before(&mut self, id: SnapshotId) -> u64 {
        self.snapshots.retain(|snapshot| snapshot.file.id >= id);
        if id.end > self.start.end {
            let gone = self.batches().partition_point(|batch| batch.end <= id.end);
            self.log.drop_front(gone);
            self.start = id;
        }
        self.log_bytes(Offset::ZERO)
    }

    fn log_bytes(&self, from: Offset) -> u64 {
        let behind = self.batches().iter().filter(|batch| batch.base >= from);
        behind.map(|batch| batch.bytes.len() as u64).sum()
    }

    /// The process is gone: a `quorum-state` that was being written is there, or not.
    pub fn killed(&mut self, random: &mut Random) {
        for _ in 0..random.below(self.saving.len() as u64 + 1) {
            self.save_done();
        }
        self.saving.clear();
    }

    /// The power is gone, too. Returns how many writes of the log were undone.
    pub fn lose_power(&mut self, random: &mut Random) -> usize {
        self.killed(random);
        self.log.lose_power(random)
    }

    /// What a start finds, all of it flushed; and up to where the newest snapshot has the image, and what that
    /// came to.
    pub fn recover(&mut self) -> (Stored, Offset, u64) {
        self.log.flush_done(self.log.flush());
        let newest = self.snapshots.last().map(|snapshot| snapshot.file.id);
        if let Some(newest) = newest.filter(|newest| newest.end > self.end()) {
            // A broker that did not flush lost what its snapshot covers: it goes on from there.
            self.log.clear();
            self.start = newest;
        }
        let at_start = self.snapshots.iter().find(|snapshot| snapshot.file.id == self.start);
        let at_start = at_start.and_then(|snapshot| read(&snapshot.bytes));
        let image = self.snapshots.last().and_then(|snapshot| read(&snapshot.bytes));
        let image = image.map_or(0, |contents| contents.image);
        let mut quorum = match at_start.and_then(|contents| contents.quorum) {
            Some(quorum) => QuorumHistory::of_snapshot(quorum),
            None => QuorumHistory::configured(self.formatted.clone()),
        };
        let mut epochs: Vec<EpochStart> = Vec::new();
        for batch in self.log.entries() {
            if epochs.last().is_none_or(|last| last.epoch < batch.epoch) {
                epochs.push(EpochStart { epoch: batch.epoch, start: batch.base });
            }
            if batch.is_control {
                let records = read_control_batch(&batch.bytes).expect("raft wrote it");
                quorum.append(batch.base, &records);
            }
        }
        let stored = Stored {
            state: self.saved.clone(),
            epochs,
            log_start: self.start.end,
            log_end: self.end(),
            log_bytes: self.log_bytes(Offset::ZERO),
            log_bytes_behind_snapshot: self.log_bytes(newest.map_or(Offset::ZERO, |id| id.end)),
            quorum,
            snapshots: self.snapshots.iter().map(|snapshot| snapshot.file).collect(),
        };
        (stored, newest.map_or(Offset::ZERO, |id| id.end), image)
    }

    /// Where the log starts.
    pub const fn start(&self) -> Offset {
        self.start.end
    }
}
