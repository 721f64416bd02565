//! The log of one replica of a partition, as the simulator has it: batches that say who made them,
//! leader epochs, a disk underneath.
//!
//! Separate from [`crate::disk`], which knows no offsets. The leader epochs are the shipped ones
//! ([`Epochs`]). Invariants: batches follow each other; `durable` is never beyond the end.

use std::collections::VecDeque;

use flowstone_log::Epochs;
use flowstone_partition::{EpochCache, EpochEnd, LogEnds};
use flowstone_types::{LeaderEpoch, Offset};

use crate::disk::{Disk, Flush};
use crate::random::Random;

/// A batch: so many records of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Offset of the first record.
    pub base: Offset,
    /// How many records it has.
    pub count: i64,
    /// The leader epoch it was appended in.
    pub epoch: LeaderEpoch,
    /// Whose: the number of a simulated producer.
    pub producer: u16,
    /// The producer's count of batches for this partition.
    pub sequence: u32,
}

impl Batch {
    /// The first offset behind it.
    pub const fn end(&self) -> Offset {
        self.base.plus(self.count)
    }
}

/// A replica's log.
#[derive(Clone, Debug, Default)]
pub struct PartitionLog {
    disk: Disk<Batch>,
    epochs: Epochs,
    start: Offset,
    end: Offset,
    durable: Offset,
}

impl PartitionLog {
    /// How far it reaches.
    pub const fn ends(&self) -> LogEnds {
        LogEnds { start: self.start, end: self.end, durable: self.durable }
    }

    /// Its batches.
    pub const fn batches(&self) -> &VecDeque<Batch> {
        self.disk.entries()
    }

    /// Whether this very batch is there.
    pub fn has(&self, batch: &Batch) -> bool {
        let batches = self.disk.entries();
        let at = batches.partition_point(|other| other.base < batch.base);
        batches.get(at) == Some(batch)
    }

    /// Writes a batch at the end.
    pub fn append(&mut self, batch: Batch) {
        assert!(batch.base >= self.end, "batches follow each other");
        self.epochs.assign(batch.epoch, batch.base);
        self.end = batch.end();
        self.disk.append(batch);
    }

    /// An epoch begins at the end, without a batch.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        self.epochs.assign(epoch, self.end);
    }

    /// Cuts the log off at `offset`, where the next batch comes, as in Kafka. A batch that begins before it
    /// goes, too, if it reaches beyond.
    pub fn truncate(&mut self, offset: Offset) {
        let keep = self.disk.entries().partition_point(|batch| batch.end() <= offset);
        self.disk.truncate(keep);
        self.end = self.end.min(offset).max(self.start);
        self.durable = self.durable.min(self.end);
        self.epochs.truncate_from_end(offset);
    }

    /// Begins anew, empty.
    pub fn start_at(&mut self, base: Offset, log_start: Offset) {
        self.disk.clear();
        self.epochs = Epochs::default();
        self.start = log_start;
        self.end = base;
        self.durable = base;
    }

    /// Records below `offset` are deleted; whole batches go.
    pub fn raise_start(&mut self, offset: Offset) {
        let gone = self.disk.entries().partition_point(|batch| batch.end() <= offset);
        self.disk.drop_front(gone);
        self.epochs.truncate_from_start(offset);
        self.start = self.start.max(offset);
    }

    /// Up to `max` batches from `from` on, below `below`.
    pub fn read(&self, from: Offset, below: Offset, max: usize) -> Vec<Batch> {
        let batches = self.disk.entries();
        let first = batches.partition_point(|batch| batch.end() <= from);
        let wanted = batches.range(first..).take_while(|batch| batch.end() <= below);
        wanted.take(max).copied().collect()
    }

    /// A flush begins; it makes durable what is there now.
    pub fn flush(&self) -> (Flush, Offset) {
        (self.disk.flush(), self.end)
    }

    /// A flush that covered everything below `end` is over. What was cut off since, and what took its
    /// place, it did not make durable.
    pub fn flush_done(&mut self, flush: Flush, end: Offset) {
        self.disk.flush_done(flush);
        let len = self.disk.stable_len();
        let stable = if len == self.disk.entries().len() {
            self.end
        } else {
            len.checked_sub(1).map_or(self.start, |last| self.disk.entries()[last].end())
        };
        self.durable = self.durable.max(end.min(stable)).min(self.end);
    }

    /// Every written byte counts as durable: `memory` and `written`.
    pub const fn count_all(&mut self) {
        self.durable = self.end;
    }

    /// Power is lost: some of what was not flushed is gone. The file of epochs was flushed at each
    /// change; what it says of offsets that are gone goes at the next start.
    pub fn lose_power(&mut self, random: &mut Random) {
        self.disk.lose_power(random);
    }

    /// The process starts and reads the log: what came back from the disk is flushed, and so durable.
    pub fn recover(&mut self) {
        self.disk.flush_done(self.disk.flush());
        let start = self.start;
        let end = self.disk.entries().back().map_or(self.end.min(self.durable), Batch::end);
        self.end = end.max(start);
        self.durable = self.end;
        self.epochs.truncate_from_end(self.end);
        for batch in self.disk.entries() {
            self.epochs.assign(batch.epoch, batch.base);
        }
    }
}

impl EpochCache for PartitionLog {
    fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let (epoch, end) = self.epochs.end_of(epoch, self.end);
        (epoch != LeaderEpoch::NONE).then_some(EpochEnd { epoch, end })
    }

    fn latest(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }
}
