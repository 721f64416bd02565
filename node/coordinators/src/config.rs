//! What an operator sets, and the bounds on what clients can make us hold.

use core::time::Duration;

/// The coordinator's keys, checked by the config table before they come here.
#[derive(Clone, Debug)]
pub struct Config {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_ms_max: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members (KIP-134).
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`; never more than [`GROUP_MEMBERS_MAX`].
    pub group_size_max: i32,
    /// `offset.metadata.max.bytes`, which Kafka counts in UTF-16 units.
    pub offset_metadata_max: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub cleanup_interval_ms: i64,
}

impl Default for Config {
    /// Kafka 4.3's defaults.
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_size_max: i32::MAX,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            cleanup_interval_ms: 600_000,
        }
    }
}

impl Config {
    /// How many members one group may have.
    pub(crate) fn members_max(&self) -> usize {
        usize::try_from(self.group_size_max).unwrap_or(0).min(GROUP_MEMBERS_MAX)
    }

    /// Never zero: the clean-up would not end.
    pub(crate) fn cleanup_interval(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.cleanup_interval_ms).unwrap_or(0).max(1))
    }

    pub(crate) fn initial_delay(&self) -> Duration {
        millis(self.initial_rebalance_delay_ms)
    }
}

/// A time-out from the wire; a negative one has passed already.
pub(crate) fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Longest group id: a record's key holds it as a string with a 16-bit length.
pub const GROUP_ID_BYTES_MAX: usize = i16::MAX as usize;
/// Groups of one partition. At about 500 bytes for one without members: 50 MB.
pub const GROUPS_MAX: usize = 100_000;
/// Members of one group and ids handed out to members to come, each. Kafka's `group.max.size` has no
/// bound; a rebalance of this many already sends the leader 10 000 subscriptions.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Protocols in one JoinGroup: the Java client sends one an assignor, of which it has five.
pub const PROTOCOLS_MAX: usize = 100;
/// Texts and metadata of one JoinGroup. A record of one such member just fits a batch (1 MiB).
pub const JOIN_BYTES_MAX: usize = 1_000_000;
/// What the members of one group may take. All of it goes to the leader in one answer, and what
/// belongs to the chosen protocol must fit a record, so this is far from what a real group has.
pub const GROUP_BYTES_MAX: usize = 64 << 20;
/// What the members of all groups of one partition may take.
pub const MEMBER_BYTES_MAX: usize = 256 << 20;
/// Offsets one group may hold; the API admits only partitions that exist.
pub const OFFSETS_PER_GROUP_MAX: usize = 500_000;
/// Most that `offset.metadata.max.bytes` can admit, in UTF-16 units: a record that keeps a client's
/// retention time has 16 bits for the length, and a unit takes up to 3 bytes (3 x 10 922 = 32 766).
pub const OFFSET_METADATA_UNITS_MAX: usize = i16::MAX as usize / 3;
/// Tombstones of one clean-up step, so that a step stays below a millisecond or so and its records
/// below a batch (1 000 records x about 100 bytes); the next step follows at once.
pub const CLEANUP_RECORDS_MAX: usize = 1_000;
/// How long a member may wait for its first answer. It has no id to send heartbeats with, and a
/// client that went away while it waited is not noticed otherwise (KIP-394).
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1_000;
