//! What is true of the metadata log, as somebody knows who sees all machines at once; and the rules that are
//! checked against it.
//!
//! Separate from what is simulated: nothing in a simulated machine reads it. Invariant: what is committed
//! only grows.

use std::collections::BTreeMap;

use flowstone_types::{LeaderEpoch, NodeId, Offset};

use super::disk::{LogBatch, RaftDisk};
use crate::broken;
use crate::run::Violation;

/// A batch that is committed.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The first offset behind it.
    pub end: Offset,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// The epoch of the leader that committed it.
    pub by: LeaderEpoch,
    /// Stands for its bytes.
    pub crc: u32,
    /// What the image comes to with it.
    pub image: u64,
}

/// What is true.
#[derive(Debug, Default)]
pub struct Truth {
    committed: Vec<Committed>,
    leaders: BTreeMap<LeaderEpoch, NodeId>,
}

impl Truth {
    /// Up to where everything is committed.
    pub fn end(&self) -> Offset {
        self.committed.last().map_or(Offset::ZERO, |batch| batch.end)
    }

    /// Leaders there were.
    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// The committed batch that ends here.
    pub fn batch(&self, end: Offset) -> Option<&Committed> {
        let at = self.committed.partition_point(|batch| batch.end < end);
        self.committed.get(at).filter(|batch| batch.end == end)
    }

    /// What the image comes to at this offset.
    pub fn image(&self, end: Offset) -> Option<u64> {
        if end == Offset::ZERO { Some(0) } else { self.batch(end).map(|batch| batch.image) }
    }

    /// Somebody says who leads an epoch.
    pub fn leads(&mut self, epoch: LeaderEpoch, leader: NodeId) -> Result<(), Violation> {
        let known = *self.leaders.entry(epoch).or_insert(leader);
        if known != leader {
            broken!(
                "one leader per epoch",
                "{known} and {leader} are both said to lead epoch {epoch}"
            );
        }
        Ok(())
    }

    /// A new leader has everything that leaders before it committed.
    pub fn leader_has_all(
        &self,
        leader: NodeId,
        epoch: LeaderEpoch,
        disk: &RaftDisk,
    ) -> Result<(), Violation> {
        let before = self.committed.partition_point(|batch| batch.by < epoch);
        let Some(last) = before.checked_sub(1).map(|last| &self.committed[last]) else {
            return Ok(());
        };
        let at = disk.batches().partition_point(|batch| batch.end < last.end);
        let same = |batch: &LogBatch| batch.end == last.end && batch.crc == last.crc;
        let has = disk.batches().get(at).is_some_and(same);
        if !has && disk.start() < last.end {
            broken!(
                "a leader has all that is committed",
                "{leader} leads with a log up to {}; committed is up to {}, last in epoch {}",
                disk.end(),
                last.end,
                last.epoch
            );
        }
        Ok(())
    }

    /// A replica in the epoch `by` takes these batches, from `image` on, for committed; the first one to do so
    /// is the leader. Returns what its image comes to.
    pub fn commits<'a>(
        &mut self,
        node: NodeId,
        by: LeaderEpoch,
        mut image: u64,
        batches: impl Iterator<Item = &'a LogBatch>,
    ) -> Result<u64, Violation> {
        for batch in batches {
            image = batch.image(image);
            if batch.end > self.end() {
                if batch.base != self.end() {
                    broken!(
                        "committed is never lost or changed",
                        "{node} commits {} to {} where {} should follow",
                        batch.base,
                        batch.end,
                        self.end()
                    );
                }
                if self.committed.last().is_some_and(|last| last.epoch > batch.epoch) {
                    broken!(
                        "epochs grow along the log",
                        "{node} commits epoch {} late",
                        batch.epoch
                    );
                }
                let LogBatch { end, epoch, crc, .. } = *batch;
                self.committed.push(Committed { end, epoch, by, crc, image });
            } else if self.batch(batch.end).is_none_or(|known| known.image != image) {
                broken!(
                    "committed is never lost or changed",
                    "{node} commits {} to {} of epoch {}, where others committed {:?}",
                    batch.base,
                    batch.end,
                    batch.epoch,
                    self.batch(batch.end).map(|known| (known.epoch, known.crc))
                );
            }
        }
        Ok(image)
    }

    /// A replica cuts its log off: nothing that is committed may go.
    pub fn cuts(&self, node: NodeId, end: Offset, disk: &RaftDisk) -> Result<(), Violation> {
        let first = disk.batches().iter().find(|batch| batch.end > end);
        if let Some(batch) = first
            && self.batch(batch.end).is_some_and(|known| known.crc == batch.crc)
        {
            broken!(
                "nothing that is committed is cut off",
                "{node} cuts its log at {end}, and with it {} to {} of epoch {}",
                batch.base,
                batch.end,
                batch.epoch
            );
        }
        Ok(())
    }
}
