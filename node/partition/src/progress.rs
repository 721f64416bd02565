//! What the leader knows of one follower.
//!
//! Separate because in-sync, caught up and eligible are rules of their own. Invariant: all of it was
//! told by fetches of this leadership; a follower may have truncated in an epoch that we never saw,
//! so nothing is carried over from an earlier one.

use crate::metadata::Broker;
use core::time::Duration;
use flowstone_types::{Instant, NodeId, Offset};

/// A follower, as far as its fetches told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The follower.
    pub node: NodeId,
    /// Its registration in the latest metadata image.
    pub broker: Option<Broker>,
    /// What its last fetch said; `None` before the first.
    pub last: Option<LastFetch>,
    /// The latest time at which it had all that the leader had then; `None` for never.
    pub caught_up: Option<Instant>,
}

/// A follower's fetch, as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastFetch {
    /// When.
    pub at: Instant,
    /// Its fetch offset: it has everything below, by its own durability mode.
    pub end: Offset,
    /// Its log start offset.
    pub log_start: Offset,
    /// The epoch of the broker that sent it; -1 where it tells none.
    pub broker_epoch: i64,
    /// The leader's log end then.
    pub leader_end: Offset,
}

impl Progress {
    pub(crate) const fn new(
        node: NodeId,
        broker: Option<Broker>,
        caught_up: Option<Instant>,
    ) -> Self {
        Self { node, broker, last: None, caught_up }
    }

    /// Whether a fetch under `broker_epoch` comes from a broker that is gone since (KIP-903).
    pub(crate) fn is_stale(&self, broker_epoch: i64) -> bool {
        let registered = self.broker.map_or(-1, |broker| broker.epoch);
        let fetched = self.last.map_or(-1, |last| last.broker_epoch);
        broker_epoch != -1 && broker_epoch < registered.max(fetched)
    }

    /// Notes a fetch. Caught up is who has all that the leader has now; or who has all that it had
    /// when the fetch before came: then it was caught up at that time. Without the second rule a
    /// follower of a busy leader never would be.
    pub(crate) fn fetched(&mut self, fetch: LastFetch) {
        let caught_up = if fetch.end >= fetch.leader_end {
            Some(fetch.at)
        } else {
            self.last.filter(|last| fetch.end >= last.leader_end).map(|last| last.at)
        };
        self.caught_up = self.caught_up.max(caught_up);
        self.last = Some(fetch);
    }

    /// Where its log ends; `None` before its first fetch.
    pub fn end(&self) -> Option<Offset> {
        self.last.map(|last| last.end)
    }

    /// Whether it has all of the leader's log, or had within `lag_time_max`.
    pub fn is_caught_up(&self, leader_end: Offset, now: Instant, lag_time_max: Duration) -> bool {
        self.end() == Some(leader_end)
            || self.caught_up.is_some_and(|at| now.since(at) <= lag_time_max)
    }

    /// Whether the controller would take it into the ISR: unfenced, not shutting down (KIP-841), and
    /// the same start of the broker that fetched (KIP-903).
    pub fn is_eligible(&self) -> bool {
        self.broker.zip(self.last).is_some_and(|(broker, last)| {
            !broker.fenced
                && !broker.shutting_down
                && (last.broker_epoch == -1 || last.broker_epoch == broker.epoch)
        })
    }

    /// Whether its broker is there, for the low watermark.
    pub(crate) fn is_alive(&self) -> bool {
        self.broker.is_some_and(|broker| !broker.fenced)
    }
}
