//! The in-sync replicas, and the one AlterPartition that may be under way.
//!
//! Separate because the controller commits what the leader only wishes, and the two must not be mixed
//! up. Invariants: at most one change is under way; while one may have been applied, the maximal
//! ISR (KIP-497) has everybody whom either outcome has, so that the high watermark is true of both.

use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, LeaderEpoch, NodeId};

/// Pause before an AlterPartition is sent again that failed on its way (as in Kafka).
pub(crate) const ALTER_PARTITION_BACKOFF: Duration = Duration::from_millis(50);

/// Names one wish; never used twice by a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChangeId(pub u64);

/// One partition's part of an AlterPartition request. Its LeaderRecoveryState is RECOVERED: a leader
/// that asks has recovered (KIP-704).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterPartition {
    /// Comes back with the answer.
    pub id: ChangeId,
    /// The epoch of this leadership.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch to which the change applies, and to no other.
    pub partition_epoch: i32,
    /// The wished ISR.
    pub isr: Vec<IsrMember>,
}

/// A member of a wished ISR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IsrMember {
    /// The replica.
    pub node: NodeId,
    /// The epoch of the broker that fetched (KIP-903); -1 where it is not known, which the
    /// controller does not check.
    pub broker_epoch: i64,
}

/// The controller's answer, if it applied the change, or had it applied before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Altered {
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch.
    pub partition_epoch: i32,
    /// The committed ISR.
    pub isr: Vec<NodeId>,
}

/// Why there is no new ISR (kafka-reference section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlterPartitionError {
    /// FENCED_LEADER_EPOCH: another leadership began.
    FencedLeaderEpoch,
    /// INVALID_UPDATE_VERSION: the partition epoch is another one by now.
    InvalidUpdateVersion,
    /// INVALID_REQUEST: this broker does not lead, or the ISR is not one.
    InvalidRequest,
    /// UNKNOWN_TOPIC_OR_PARTITION or UNKNOWN_TOPIC_ID: it was deleted.
    UnknownTopic,
    /// NEW_LEADER_ELECTED: applied, and a reassignment that it completed took this leader away.
    NewLeaderElected,
    /// INELIGIBLE_REPLICA: not applied; a wished member is fenced, shutting down or restarted.
    IneligibleReplica,
    /// OPERATION_NOT_ATTEMPTED: not applied.
    OperationNotAttempted,
    /// NOT_CONTROLLER (also where this leader's epochs are ahead of the controller's image),
    /// STALE_BROKER_EPOCH, a broken connection, any other: whether it was applied is unknown, and
    /// asking again tells.
    Retriable,
}

/// A change that may be under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// None.
    Settled,
    /// Sent, or to be sent again.
    UnderWay {
        /// What was sent.
        request: AlterPartition,
        /// Whom it adds.
        adds: Option<NodeId>,
        /// When to send it again; `None` while an answer may come.
        again: Option<Instant>,
    },
    /// Refused in a way that says that the metadata has moved on; it will come here.
    AwaitsMetadata {
        /// Whom it would have added.
        adds: Option<NodeId>,
    },
}

/// The ISR of a partition that this replica leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Isr {
    committed: Vec<NodeId>,
    change: Change,
}

impl Isr {
    pub(crate) fn new(committed: &[NodeId]) -> Self {
        Self { committed: committed.to_vec(), change: Change::Settled }
    }

    /// The committed in-sync replicas.
    pub fn committed(&self) -> &[NodeId] {
        &self.committed
    }

    /// What is under way.
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// Whom the change under way adds.
    fn adds(&self) -> Option<NodeId> {
        match self.change {
            Change::Settled => None,
            Change::UnderWay { adds, .. } | Change::AwaitsMetadata { adds } => adds,
        }
    }

    /// Whether `node` is in the maximal ISR.
    pub fn is_maximal_member(&self, node: NodeId) -> bool {
        self.committed.contains(&node) || self.adds() == Some(node)
    }

    /// The size of the maximal ISR.
    pub fn maximal_len(&self) -> usize {
        self.committed.len() + usize::from(self.adds().is_some())
    }

    /// Whether a change may be proposed.
    pub fn is_settled(&self) -> bool {
        self.change == Change::Settled
    }

    /// When a failed request is to be sent again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self.change {
            Change::UnderWay { again, .. } => again,
            Change::Settled | Change::AwaitsMetadata { .. } => None,
        }
    }

    pub(crate) fn propose(&mut self, request: AlterPartition) {
        assert!(self.is_settled(), "one change at a time");
        let mut wished = request.isr.iter().map(|member| member.node);
        let adds = wished.find(|node| !self.committed.contains(node));
        self.change = Change::UnderWay { request, adds, again: None };
    }

    /// The request to send again, if its time has come.
    pub(crate) fn retry(&mut self, now: Instant) -> Option<AlterPartition> {
        match &mut self.change {
            Change::UnderWay { request, again, .. } if again.is_some_and(|at| at <= now) => {
                *again = None;
                Some(request.clone())
            }
            _ => None,
        }
    }

    /// Whether this answers what is under way; anything else comes too late.
    pub(crate) fn awaits(&self, answered: ChangeId) -> bool {
        matches!(&self.change, Change::UnderWay { request, .. } if request.id == answered)
    }

    /// The controller, or the metadata log, says what the ISR is.
    pub(crate) fn commit(&mut self, committed: &[NodeId]) {
        self.committed.clear();
        self.committed.extend_from_slice(committed);
        self.change = Change::Settled;
    }

    /// What is under way failed.
    pub(crate) fn failed(&mut self, error: AlterPartitionError, now: Instant) {
        let adds = self.adds();
        match error {
            // The controller says that the partition epoch was right and nothing was applied; as
            // its epochs only grow, no other controller can have applied it either.
            AlterPartitionError::IneligibleReplica | AlterPartitionError::OperationNotAttempted => {
                self.change = Change::Settled;
            }
            AlterPartitionError::FencedLeaderEpoch
            | AlterPartitionError::InvalidUpdateVersion
            | AlterPartitionError::InvalidRequest
            | AlterPartitionError::UnknownTopic
            | AlterPartitionError::NewLeaderElected => {
                self.change = Change::AwaitsMetadata { adds };
            }
            AlterPartitionError::Retriable => {
                if let Change::UnderWay { again, .. } = &mut self.change {
                    *again = Some(now.after(ALTER_PARTITION_BACKOFF));
                }
            }
        }
    }
}
