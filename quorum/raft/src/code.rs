//! Kafka's error codes, as far as the quorum's protocol names them.
//!
//! Separate from `node/wire`, which has them all: the rules here answer with them, and pure crates know
//! no codec.

/// An error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i16)]
pub enum Code {
    /// UNKNOWN_SERVER_ERROR; also stands for every code that is not in this list.
    Unknown = -1,
    /// NONE.
    None = 0,
    /// UNKNOWN_TOPIC_OR_PARTITION.
    UnknownTopicOrPartition = 3,
    /// NOT_LEADER_OR_FOLLOWER.
    NotLeaderOrFollower = 6,
    /// REQUEST_TIMED_OUT.
    RequestTimedOut = 7,
    /// BROKER_NOT_AVAILABLE.
    BrokerNotAvailable = 8,
    /// UNSUPPORTED_VERSION.
    UnsupportedVersion = 35,
    /// INVALID_REQUEST.
    InvalidRequest = 42,
    /// FENCED_LEADER_EPOCH.
    FencedLeaderEpoch = 74,
    /// UNKNOWN_LEADER_EPOCH.
    UnknownLeaderEpoch = 75,
    /// SNAPSHOT_NOT_FOUND.
    SnapshotNotFound = 98,
    /// POSITION_OUT_OF_RANGE.
    PositionOutOfRange = 99,
    /// INCONSISTENT_CLUSTER_ID.
    InconsistentClusterId = 104,
    /// INVALID_VOTER_KEY.
    InvalidVoterKey = 125,
    /// DUPLICATE_VOTER.
    DuplicateVoter = 126,
    /// VOTER_NOT_FOUND.
    VoterNotFound = 127,
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The code of a number.
    pub const fn of(number: i16) -> Self {
        match number {
            0 => Self::None,
            3 => Self::UnknownTopicOrPartition,
            6 => Self::NotLeaderOrFollower,
            7 => Self::RequestTimedOut,
            8 => Self::BrokerNotAvailable,
            35 => Self::UnsupportedVersion,
            42 => Self::InvalidRequest,
            74 => Self::FencedLeaderEpoch,
            75 => Self::UnknownLeaderEpoch,
            98 => Self::SnapshotNotFound,
            99 => Self::PositionOutOfRange,
            104 => Self::InconsistentClusterId,
            125 => Self::InvalidVoterKey,
            126 => Self::DuplicateVoter,
            127 => Self::VoterNotFound,
            _ => Self::Unknown,
        }
    }
}
