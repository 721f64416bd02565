//! The words every crate shares: offsets, epochs, ids, time as a value.
//!
//! Separate so that the pure cores, the shell and the tools mean the same thing by the same word.
//! Pure: nothing here reads a clock or draws randomness; both arrive as values.

// Tests print and panic like any other: they have std.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod time;
mod uuid;

pub use time::{Instant, Timestamp};
pub use uuid::{ParseUuidError, Uuid};

use core::fmt;

/// Position of a record in a partition's log. Never negative in our own state; Kafka's special
/// negative values (-1 latest, -2 earliest, ...) exist on the wire only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of an empty log.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records later.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Count of leaderships of a partition (or of the metadata quorum); `NONE` (-1) where unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// What Kafka writes where no epoch is known.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A broker's or controller's `node.id`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub i32);

impl NodeId {
    /// "No node": Kafka's -1, for a partition without a leader.
    pub const NONE: Self = Self(-1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition, by its topic's id: a topic that was deleted and made again is another topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The topic's id.
    pub topic: Uuid,
    /// The partition's index within the topic, from 0.
    pub index: i32,
}

/// Identity of an idempotent or transactional producer (KIP-98); `NONE` (-1) for others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// A producer without idempotence.
    pub const NONE: Self = Self(-1);
}

/// The limits of a topic's name (kafka-reference: `[a-zA-Z0-9._-]{1,249}`, neither `.` nor `..`).
pub fn valid_topic_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= TOPIC_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Longest name a topic may have: its directory `<topic>-<partition>` must fit a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafka() {
        assert!(valid_topic_name("orders.v1_eu-west"));
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(!valid_topic_name(bad), "{bad}");
        }
    }
}
