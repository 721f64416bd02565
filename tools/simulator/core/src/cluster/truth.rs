//! What is true of every partition, as somebody knows who sees all machines at once; and the rules that
//! are checked against it after every step.
//!
//! Separate from what is simulated: nothing in a simulated machine reads it. Invariant: what is committed
//! only grows.

use std::collections::BTreeMap;

use flowstone_types::{LeaderEpoch, NodeId, Offset, PartitionId};

use super::clients::WITHOUT_RETRIES;
use super::log::{Batch, PartitionLog};
use super::message::{Produce, View};
use crate::broken;
use crate::run::Violation;

/// What is true of one partition.
#[derive(Debug, Default)]
pub struct PartitionTruth {
    /// Everything that any leader's high watermark ever passed, in order.
    committed: Vec<Batch>,
    /// The greatest high watermark.
    high_watermark: Offset,
    /// Whether records were deleted: what a leader knows of a producer goes with its records here, so a
    /// retry may stand twice.
    pub has_deletions: bool,
    /// Whether it ever allowed an unclean election: what was committed may be lost, and changed, from then on.
    pub may_lose: bool,
    /// The high watermark of each leadership.
    by_epoch: BTreeMap<LeaderEpoch, (NodeId, Offset)>,
    /// The highest sequence of each producer that was acknowledged, or of which it cannot be known.
    acknowledged: BTreeMap<u16, u32>,
}

impl PartitionTruth {
    /// What is committed.
    pub fn committed(&self) -> &[Batch] {
        &self.committed
    }

    /// Up to where.
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether `log` holds all that is committed below `end` and was not deleted in it; if not, the
    /// first that it lacks.
    fn lacks(&self, log: &PartitionLog, from: Offset, end: Offset) -> Option<Batch> {
        let start = log.ends().start.max(from);
        // A log may start within a batch, and need not have that one yet.
        let first = self.committed.partition_point(|batch| batch.base < start);
        let batches = log.batches();
        let at = batches.partition_point(|batch| batch.base < start);
        let wanted = self.committed[first..].iter().take_while(|batch| batch.base < end);
        let mut pairs = wanted.zip((at..).map(|at| batches.get(at)));
        pairs.find(|(batch, found)| *found != Some(*batch)).map(|(batch, _)| *batch)
    }
}

/// What is true of all partitions.
#[derive(Debug, Default)]
pub struct Truth {
    partitions: BTreeMap<PartitionId, PartitionTruth>,
    /// Records that were committed.
    pub committed: u64,
    /// Records that were acknowledged with acks=all.
    pub acknowledged: u64,
    /// Partitions of which more is committed than when somebody last looked.
    pub touched: Vec<PartitionId>,
}

impl Truth {
    /// What is true of this partition.
    pub fn partition(&mut self, id: PartitionId) -> &mut PartitionTruth {
        self.partitions.entry(id).or_default()
    }

    /// What is true of this partition, if anything is.
    pub fn known(&self, id: PartitionId) -> Option<&PartitionTruth> {
        self.partitions.get(&id)
    }

    /// All of them.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &PartitionTruth)> {
        self.partitions.iter().map(|(id, truth)| (*id, truth))
    }

    /// Leaderships in which something was committed.
    pub fn leaderships(&self) -> u64 {
        self.partitions.values().map(|truth| truth.by_epoch.len() as u64).sum()
    }

    /// A leader's high watermark is here now: what lies below is committed from now on, is the same as
    /// others committed, and within an epoch the watermark does not go back.
    pub fn leader_watermark(
        &mut self,
        id: PartitionId,
        node: NodeId,
        epoch: LeaderEpoch,
        high_watermark: Offset,
        log: &PartitionLog,
    ) -> Result<(), Violation> {
        let truth = self.partitions.entry(id).or_default();
        let (leader, before) = *truth.by_epoch.entry(epoch).or_insert((node, Offset::ZERO));
        if leader != node {
            broken!(
                "one leader per epoch",
                "{leader} and {node} both lead {} in epoch {epoch}",
                Name(id)
            );
        }
        if high_watermark < before {
            broken!(
                "the high watermark never goes back",
                "in epoch {epoch} of {}, {node} had {before}, and now has {high_watermark}",
                Name(id)
            );
        }
        truth.by_epoch.insert(epoch, (node, high_watermark));
        if truth.may_lose {
            return Ok(());
        }
        if high_watermark > log.ends().durable {
            broken!(
                "committed is durable",
                "{node} commits {} up to {high_watermark}, and holds it durably up to {} only",
                Name(id),
                log.ends().durable
            );
        }
        let known = high_watermark.min(truth.high_watermark);
        if let Some(batch) = truth.lacks(log, before, known) {
            broken!(
                "committed is never lost or changed",
                "{node}, leader of {} in epoch {epoch}, commits up to {high_watermark} without {batch:?}",
                Name(id)
            );
        }
        if high_watermark > truth.high_watermark {
            let first = log.batches().partition_point(|batch| batch.end() <= truth.high_watermark);
            for batch in log.batches().range(first..).take_while(|b| b.end() <= high_watermark) {
                if truth.committed.last().is_some_and(|last| last.epoch > batch.epoch) {
                    broken!(
                        "epochs grow along the log",
                        "{} has {batch:?} behind a later epoch",
                        Name(id)
                    );
                }
                truth.committed.push(*batch);
                self.committed += batch.count as u64;
            }
            truth.high_watermark = high_watermark;
            self.touched.push(id);
        }
        Ok(())
    }

    /// A follower's high watermark is here now: it is never beyond what is committed, and what it covers
    /// is that.
    pub fn follower_watermark(
        &self,
        id: PartitionId,
        node: NodeId,
        from: Offset,
        high_watermark: Offset,
        log: &PartitionLog,
    ) -> Result<(), Violation> {
        let Some(truth) = self.partitions.get(&id).filter(|truth| !truth.may_lose) else {
            return Ok(());
        };
        if high_watermark > truth.high_watermark {
            broken!(
                "a follower's high watermark is committed",
                "{node} has {high_watermark} in {}, committed is {}",
                Name(id),
                truth.high_watermark
            );
        }
        if let Some(batch) = truth.lacks(log, from, high_watermark) {
            broken!(
                "logs are equal below the high watermark",
                "{node} has the high watermark {high_watermark} in {} without {batch:?}",
                Name(id)
            );
        }
        Ok(())
    }

    /// Everybody whom the metadata counts as in sync, or as leader, holds what is committed.
    pub fn in_sync<'a>(
        &self,
        view: &View,
        id: PartitionId,
        log_of: impl Fn(NodeId) -> Option<&'a PartitionLog>,
    ) -> Result<(), Violation> {
        let truth = self.partitions.get(&id).filter(|truth| !truth.may_lose);
        let (Some(truth), Some(partition)) = (truth, view.partitions.get(&id)) else {
            return Ok(());
        };
        // The last one is enough: what lies before it is compared where a watermark passes it.
        let Some(last) = truth.committed.last() else { return Ok(()) };
        for node in partition.isr.iter().chain(partition.eligible.iter()) {
            let log = log_of(*node);
            let holds = log.is_some_and(|log| {
                log.ends().durable >= truth.high_watermark
                    && (log.ends().start > last.base || log.has(last))
            });
            if !holds {
                broken!(
                    "the ISR has only caught-up members",
                    "{node} is in the ISR (or eligible) of {}, and has {:?}; committed is up to {}, with {last:?}",
                    Name(id),
                    log.map(PartitionLog::ends),
                    truth.high_watermark
                );
            }
        }
        Ok(())
    }

    /// A producer is told that its batch is safe.
    pub fn acknowledge(&mut self, request: &Produce, base: Offset) -> Result<(), Violation> {
        let truth = self.partitions.entry(request.partition).or_default();
        if truth.may_lose {
            return Ok(());
        }
        let at = truth.committed.partition_point(|batch| batch.base < base);
        let there = truth.committed.get(at).is_some_and(|batch| {
            batch.base == base
                && batch.producer == request.producer
                && batch.sequence == request.sequence
        });
        if !there {
            broken!(
                "no acknowledgement before commit",
                "{request:?} is acknowledged at {base}, committed is up to {}",
                truth.high_watermark
            );
        }
        if truth.acknowledged.insert(request.producer, request.sequence) != Some(request.sequence) {
            self.acknowledged += request.count as u64; // A retry is told once more.
        }
        Ok(())
    }

    /// What a consumer reads is what is committed.
    pub fn read(&self, id: PartitionId, batches: &[Batch]) -> Result<(), Violation> {
        let truth = self.partitions.get(&id).filter(|truth| !truth.may_lose);
        let (Some(first), Some(truth)) = (batches.first(), truth) else {
            return Ok(());
        };
        let at = truth.committed.partition_point(|batch| batch.base < first.base);
        if truth.committed.get(at..at + batches.len()) != Some(batches) {
            broken!("consumers read what is committed", "{} gave {batches:?}", Name(id));
        }
        Ok(())
    }

    /// At the end: each producer's batches are there once, in order, without a gap up to the last one
    /// that was acknowledged.
    pub fn histories(&self) -> Result<(), Violation> {
        for (id, truth) in self.partitions().filter(|(_, truth)| !truth.may_lose) {
            let mut next: BTreeMap<u16, u32> = BTreeMap::new();
            let retried = |batch: &&Batch| batch.producer < WITHOUT_RETRIES && !truth.has_deletions;
            for batch in truth.committed.iter().filter(retried) {
                let next = next.entry(batch.producer).or_insert(0);
                if batch.sequence != *next {
                    broken!(
                        "a producer's batches stand once and in order",
                        "{} has {batch:?} where sequence {next} should be",
                        Name(id)
                    );
                }
                *next += 1;
            }
            for (producer, last) in &truth.acknowledged {
                let own = |batch: &&Batch| batch.producer == *producer;
                let reached = truth.committed.iter().filter(own).map(|batch| batch.sequence).max();
                if reached < Some(*last) {
                    broken!(
                        "acknowledged is never lost",
                        "sequence {last} of producer {producer} in {} was acknowledged, and is gone",
                        Name(id)
                    );
                }
            }
        }
        Ok(())
    }
}

/// A partition, for people: the low bits of its topic's id, and its index.
pub struct Name(pub PartitionId);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "topic {:x}-{}", self.0.topic.0 & 0xffff, self.0.index)
    }
}
