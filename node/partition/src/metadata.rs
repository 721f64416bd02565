//! What a replica is told: the controller's decisions, the brokers, the log's ends and epochs.
//!
//! Separate because these are the words between the cores: none of them decides anything.

use core::time::Duration;
use flowstone_types::{LeaderEpoch, NodeId, Offset};

/// A partition as the controller has it: a PartitionRecord, or a PartitionChangeRecord applied.
/// Eligible leader replicas are not in it: a leader has no use for them, since its high watermark
/// stands while the ISR is below the minimum (KIP-966).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metadata<'a> {
    /// The leader; `None` while there is none.
    pub leader: Option<NodeId>,
    /// Count of leaderships.
    pub leader_epoch: LeaderEpoch,
    /// Count of changes.
    pub partition_epoch: i32,
    /// Every broker that holds it, those that a reassignment adds or takes away included.
    pub replicas: &'a [NodeId],
    /// The committed in-sync replicas.
    pub isr: &'a [NodeId],
    /// Whether the leader came from an unclean election and has not said that it recovered.
    pub recovering: bool,
}

/// A registered broker, as the metadata image has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broker {
    /// The epoch of its registration.
    pub epoch: i64,
    /// Whether the controller counts it as gone.
    pub fenced: bool,
    /// Whether it is in a controlled shutdown.
    pub shutting_down: bool,
}

/// The brokers of a metadata image.
pub trait Brokers {
    /// The broker of this id, if it is registered.
    fn broker(&self, id: NodeId) -> Option<Broker>;
}

impl<F: Fn(NodeId) -> Option<Broker>> Brokers for F {
    fn broker(&self, id: NodeId) -> Option<Broker> {
        self(id)
    }
}

/// Where a leader epoch ended in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest epoch in the log that is not above the one asked for.
    pub epoch: LeaderEpoch,
    /// The first offset behind it.
    pub end: Offset,
}

/// The leader epochs of this replica's log, as they are when a method is called with them.
pub trait EpochCache {
    /// Kafka's `endOffsetFor`; `None` where nothing can be said (an epoch above all known ones).
    fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd>;
    /// The latest epoch; `None` in a log that knows none.
    fn latest(&self) -> Option<LeaderEpoch>;
}

/// How far a log reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogEnds {
    /// The first offset that may be read.
    pub start: Offset,
    /// The offset the next record gets.
    pub end: Offset,
    /// Everything below meets the log's durability mode: what this replica counts as its own.
    pub durable: Offset,
}

/// Configuration that decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `min.insync.replicas`; counts as the number of replicas where it is above that.
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`: who was not caught up for so long leaves the ISR.
    pub lag_time_max: Duration,
    /// `replica.fetch.backoff.ms`: a follower's pause after an error.
    pub fetch_backoff: Duration,
}

impl Default for Rules {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            min_insync_replicas: 1,
            lag_time_max: Duration::from_secs(30),
            fetch_backoff: Duration::from_secs(1),
        }
    }
}

/// Where to go instead (KIP-951): stands in NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CurrentLeader {
    /// The leader; `None` while there is none.
    pub leader: Option<NodeId>,
    /// Its epoch.
    pub epoch: LeaderEpoch,
}
