//! Replication throttles (KIP-73): which replicas, and how fast.
//!
//! Separate because a throttle belongs to a topic's replicas, its rate to a broker, and neither to a
//! partition's role. Pure: time is a value. Both ends ask the same: the leader of a follower outside
//! the ISR, the follower of itself.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, NodeId};

/// `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas` of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ThrottledReplicas {
    /// None.
    #[default]
    None,
    /// `*`.
    All,
    /// `partition:broker` pairs, in order.
    These(Vec<(i32, NodeId)>),
}

/// A list that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{entry}' is not partition:broker; expected '*' or a list such as 0:1,1:2")]
pub struct ThrottledReplicasError {
    /// What could not be read.
    pub entry: String,
}

impl ThrottledReplicas {
    /// Reads the config's value.
    pub fn parse(text: &str) -> Result<Self, ThrottledReplicasError> {
        match text.trim() {
            "" | "none" => return Ok(Self::None),
            "*" => return Ok(Self::All),
            _ => {}
        }
        let pair = |entry: &str| {
            let (partition, broker) = entry.trim().split_once(':')?;
            Some((partition.parse().ok()?, NodeId(broker.parse().ok()?)))
        };
        let read = |entry: &str| {
            pair(entry).ok_or_else(|| ThrottledReplicasError { entry: String::from(entry) })
        };
        let mut pairs = text.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
        pairs.sort_unstable();
        pairs.dedup();
        Ok(Self::These(pairs))
    }

    /// Whether the replica of `partition` on `broker` is throttled.
    pub fn contains(&self, partition: i32, broker: NodeId) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(pairs) => pairs.binary_search(&(partition, broker)).is_ok(),
        }
    }
}

/// Length of one sample (`replication.quota.window.size.seconds`).
const SAMPLE: Duration = Duration::from_secs(1);
/// Number of samples (`replication.quota.window.num`).
const SAMPLES: usize = 11;

/// The throttled bytes of one broker, in one direction, against a rate.
#[derive(Clone, Debug)]
pub struct ReplicationQuota {
    bytes_per_second: Option<u64>,
    /// Bytes by second, modulo the number of samples.
    samples: [u64; SAMPLES],
    /// The second that the newest sample counts.
    newest: u64,
    /// The second of the first record.
    first: Option<u64>,
}

impl ReplicationQuota {
    /// No bytes yet; `None` for no limit.
    pub const fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, samples: [0; SAMPLES], newest: 0, first: None }
    }

    /// Changes the rate; what was counted stays.
    pub const fn set_rate(&mut self, bytes_per_second: Option<u64>) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Counts bytes of throttled replicas, in sync or not.
    pub fn record(&mut self, bytes: u64, now: Instant) {
        self.advance(now);
        self.first.get_or_insert(self.newest);
        self.samples[self.newest as usize % SAMPLES] += bytes;
    }

    /// Whether throttled replicas must wait: the bytes of the last eleven seconds, or of as many as
    /// there were, are above the rate.
    pub fn is_exceeded(&mut self, now: Instant) -> bool {
        self.advance(now);
        let (Some(rate), Some(first)) = (self.bytes_per_second, self.first) else { return false };
        let seconds = (self.newest - first + 1).min(SAMPLES as u64);
        let bytes: u64 = self.samples.iter().sum();
        bytes > rate.saturating_mul(seconds)
    }

    /// Whether a replica gets, or asks for, nothing for now. One in sync never is held back: a
    /// throttle is for reassignments, and must not push a replica out of the ISR.
    pub fn holds_back(&mut self, is_throttled: bool, is_in_sync: bool, now: Instant) -> bool {
        is_throttled && !is_in_sync && self.is_exceeded(now)
    }

    fn advance(&mut self, now: Instant) {
        let second = now.0 / SAMPLE.as_nanos() as u64;
        let passed = second.saturating_sub(self.newest).min(SAMPLES as u64);
        for after in 1..=passed {
            self.samples[(second - passed + after) as usize % SAMPLES] = 0;
        }
        self.newest = self.newest.max(second);
    }
}
