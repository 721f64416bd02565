//! What a replica tells those who read: consumers, and whoever asks where an epoch ended.
//!
//! Separate because leaders and followers answer alike (KIP-392): nothing here changes a replica.

use crate::effect::Refused;
use crate::leader::NextData;
use crate::metadata::{EpochCache, EpochEnd, LogEnds};
use crate::replica::{Replica, Role};
use core::cmp::Reverse;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};

/// A consumer's fetch of this partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerRead<'a> {
    /// CurrentLeaderEpoch; `None` where it is not told.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Where to read.
    pub offset: Offset,
    /// LastFetchedEpoch; `None` where it is not told.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The consumer's rack; `None` before Fetch v11: then only the leader may answer.
    pub rack: Option<&'a str>,
}

/// What a consumer gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsumerAnswer {
    /// It consumed what is not in this log (KIP-595's DivergingEpoch, KIP-320).
    Diverging(EpochEnd),
    /// It may read.
    Next(NextData),
}

impl LogEnds {
    /// Where this log parts from one that ends at `offset` with a batch of `last_fetched_epoch`.
    /// An epoch that this log never came to cannot be answered: OFFSET_OUT_OF_RANGE, as in Kafka.
    pub(crate) fn diverging(
        &self,
        last_fetched_epoch: Option<LeaderEpoch>,
        offset: Offset,
        epochs: &impl EpochCache,
    ) -> Result<Option<EpochEnd>, Refused> {
        let Some(asked) = last_fetched_epoch else { return Ok(None) };
        let known = epochs.end_of(asked).ok_or(Refused::OffsetOutOfRange)?;
        if offset < self.start {
            return Err(Refused::OffsetOutOfRange);
        }
        let parted = known.epoch < asked || known.end < offset;
        Ok(parted.then_some(known))
    }
}

impl<A, W> Replica<A, W> {
    /// Whether somebody who believes in `told` may go on (KIP-320).
    pub fn check_leader_epoch(&self, told: Option<LeaderEpoch>) -> Result<(), Refused> {
        match told {
            Some(told) if told < self.leader_epoch => {
                Err(Refused::FencedLeaderEpoch(self.current_leader()))
            }
            Some(told) if told > self.leader_epoch => Err(Refused::UnknownLeaderEpoch),
            Some(_) | None => Ok(()),
        }
    }

    fn check_readable(
        &self,
        leader_epoch: Option<LeaderEpoch>,
        leader_only: bool,
    ) -> Result<(), Refused> {
        self.check_leader_epoch(leader_epoch)?;
        match &self.role {
            Role::Leader(_) => Ok(()),
            Role::Follower(_) if !leader_only => Ok(()),
            Role::Follower(_) | Role::Offline(_) => Err(self.not_leader()),
        }
    }

    /// A consumer fetches: from the leader, or from a follower up to its own high watermark.
    pub fn consumer_reads(
        &self,
        read: &ConsumerRead<'_>,
        epochs: &impl EpochCache,
    ) -> Result<ConsumerAnswer, Refused> {
        self.check_readable(read.leader_epoch, read.rack.is_none())?;
        let log = &self.log;
        if let Some(parted) = log.diverging(read.last_fetched_epoch, read.offset, epochs)? {
            return Ok(ConsumerAnswer::Diverging(parted));
        }
        if read.offset < log.start || read.offset > log.end {
            return Err(Refused::OffsetOutOfRange);
        }
        Ok(ConsumerAnswer::Next(NextData {
            from: read.offset,
            below: self.high_watermark.max(read.offset),
            high_watermark: self.high_watermark,
            log_start: log.start,
            has_news: false,
        }))
    }

    /// OffsetForLeaderEpoch: the largest epoch not above `epoch`, and where it ended.
    pub fn offset_for_leader_epoch(
        &self,
        current: Option<LeaderEpoch>,
        epoch: LeaderEpoch,
        epochs: &impl EpochCache,
    ) -> Result<Option<EpochEnd>, Refused> {
        self.check_readable(current, true)?;
        Ok(epochs.end_of(epoch))
    }

    /// The latest offset, for a client's ListOffsets. A new leader whose high watermark has not
    /// reached its epoch yet may know less than was told before: OFFSET_NOT_AVAILABLE (KIP-207).
    pub fn latest_offset(&self, current: Option<LeaderEpoch>) -> Result<Offset, Refused> {
        self.check_readable(current, true)?;
        let leader = self.leader_or_refused()?;
        if leader.epoch_start > self.high_watermark {
            return Err(Refused::OffsetNotAvailable);
        }
        Ok(self.high_watermark)
    }

    /// RackAwareReplicaSelector (KIP-392): the in-sync follower in the consumer's rack that has the
    /// offset and is the most caught up; `None` where the consumer should stay with this leader.
    pub fn preferred_read_replica<'a>(
        &self,
        rack: &str,
        offset: Offset,
        rack_of: impl Fn(NodeId) -> Option<&'a str>,
        now: Instant,
    ) -> Option<NodeId> {
        let leader = self.leader_or_refused().ok()?;
        if rack.is_empty() || rack_of(self.me) == Some(rack) {
            return None;
        }
        let has_offset = |follower: &&crate::Progress| {
            follower.last.is_some_and(|last| last.log_start <= offset && offset <= last.end)
        };
        leader
            .followers
            .iter()
            .filter(|follower| leader.isr.committed().contains(&follower.node))
            .filter(|follower| rack_of(follower.node) == Some(rack))
            .filter(has_offset)
            .max_by_key(|follower| {
                let behind = follower.caught_up.map(|at| now.since(at));
                (follower.end(), Reverse(behind), follower.node)
            })
            .map(|follower| follower.node)
    }
}
