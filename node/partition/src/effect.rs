//! What a replica wants done, and how it refuses.

use crate::isr::AlterPartition;
use crate::metadata::CurrentLeader;
use flowstone_types::{LeaderEpoch, Offset};

/// To be done by the shell, in the order of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect<A, W> {
    /// Acknowledge this request, or say why it is not committed.
    Acknowledge {
        /// Who waits.
        ack: A,
        /// Its outcome.
        outcome: Result<(), NotCommitted>,
    },
    /// Call this: there may be something to see.
    Wake(W),
    /// The high watermark is here now. Forward only, unless a truncation went below it.
    HighWatermark(Offset),
    /// Send this to the controller; its answer comes back as `alter_partition_answered`.
    AlterPartition(AlterPartition),
    /// The log's next epoch begins at its end, though no batch is in it yet: a follower that saw
    /// a later epoch than any in our batches must still find where to truncate (KIP-279).
    BeginEpoch(LeaderEpoch),
    /// The log starts here now; records below it are deleted.
    RaiseLogStart(Offset),
    /// Ready to be in the next Fetch to the leader: see `Replica::fetch_position`.
    Fetch,
    /// Append the batches of the Fetch response just given, those of `leader_epoch` and before
    /// (KAFKA-18723), and tell `batches_appended` before any other input.
    Append {
        /// No batch above this epoch.
        leader_epoch: LeaderEpoch,
    },
    /// Cut the log off here, not below its start, and tell `truncated`. The epoch cache forgets the epochs that begin at
    /// or above this offset, even where the log is no longer (KAFKA-10706). Ends reported as durable
    /// from now on speak of the log that is left.
    Truncate(Offset),
    /// Drop all of the log and begin anew here; tell `truncated`, unless an `Append` follows.
    StartAt {
        /// The offset the next record gets.
        base: Offset,
        /// The first offset that may be read.
        log_start: Offset,
    },
    /// Ask the leader (ListOffsets) where its log starts and ends; tell `leader_range`.
    AskLeaderRange(LeaderEpoch),
}

/// Why what was appended is not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotCommitted {
    /// It is committed, but the ISR is below the minimum since: NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    NotEnoughReplicasAfterAppend,
    /// Its time is over: REQUEST_TIMED_OUT.
    TimedOut,
    /// This replica leads no longer, so whether the records survive is unknown:
    /// NOT_LEADER_OR_FOLLOWER.
    NotLeader,
    /// The disk is full: it is committed once there is space.
    Stalled,
    /// The log failed, or went: KAFKA_STORAGE_ERROR.
    Offline,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// NOT_LEADER_OR_FOLLOWER.
    NotLeader(CurrentLeader),
    /// FENCED_LEADER_EPOCH: the client's epoch is over.
    FencedLeaderEpoch(CurrentLeader),
    /// UNKNOWN_LEADER_EPOCH: the client knows an epoch that has not come here yet; or a follower
    /// asks that is no replica as far as this leader knows.
    UnknownLeaderEpoch,
    /// NOT_ENOUGH_REPLICAS: the ISR is below the minimum, and nothing was appended.
    NotEnoughReplicas,
    /// OFFSET_OUT_OF_RANGE.
    OffsetOutOfRange,
    /// OFFSET_NOT_AVAILABLE: a new leader does not know the high watermark yet (KIP-207).
    OffsetNotAvailable,
    /// KAFKA_STORAGE_ERROR: the log failed or is not open.
    Offline,
}
