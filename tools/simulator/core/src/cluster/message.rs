//! What machines of a simulated cluster say to each other, and what they know of the metadata.
//!
//! Separate because controllers, brokers and clients share these words, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowstone_partition::{
    Acks, AlterPartition, AlterPartitionError, Altered, Broker, Brokers, ChangeId, FetchError,
    FetchPosition, Fetched, FollowerFetch, LeaderRange, Metadata,
};
use flowstone_types::{LeaderEpoch, NodeId, Offset, PartitionId};

use super::log::Batch;
use crate::disk::Flush;

/// A partition, as the metadata has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionView {
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// Count of leaderships.
    pub leader_epoch: LeaderEpoch,
    /// Count of changes.
    pub partition_epoch: i32,
    /// Who holds it.
    pub replicas: Arc<[NodeId]>,
    /// Who is in sync.
    pub isr: Arc<[NodeId]>,
    /// Who holds all that is committed, though it is not in sync (KIP-966).
    pub eligible: Arc<[NodeId]>,
    /// Whether its leader came from an unclean election, and has not recovered.
    pub recovering: bool,
}

impl PartitionView {
    /// As the replicas' core is told.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata {
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            replicas: &self.replicas,
            isr: &self.isr,
            recovering: self.recovering,
        }
    }
}

/// The metadata at one point.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// The registered brokers.
    pub brokers: BTreeMap<NodeId, Broker>,
    /// The partitions.
    pub partitions: BTreeMap<PartitionId, PartitionView>,
}

impl Brokers for View {
    fn broker(&self, id: NodeId) -> Option<Broker> {
        self.brokers.get(&id).copied()
    }
}

/// What a producer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Produced {
    /// It is in the log, as safe as was asked for.
    Safe {
        /// The leader.
        by: NodeId,
    },
    /// It is not; or nobody knows. Maybe this node leads.
    Not {
        /// Who may lead instead.
        leader: Option<NodeId>,
    },
}

/// A produce request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produce {
    /// Which partition.
    pub partition: PartitionId,
    /// Whose.
    pub producer: u16,
    /// The producer's count of batches for this partition.
    pub sequence: u32,
    /// Records.
    pub count: i64,
    /// How safe.
    pub acks: Acks,
}

/// A message.
#[derive(Clone, Debug)]
pub enum Message {
    /// A broker came.
    Register {
        /// Drawn at each start.
        incarnation: u64,
        /// The broker epoch that it stopped in an orderly way in; -1 otherwise.
        previous_epoch: i64,
    },
    /// It is registered.
    Registered {
        /// Which start was.
        incarnation: u64,
        /// Its epoch.
        epoch: i64,
    },
    /// A broker lives.
    Heartbeat {
        /// Its epoch.
        epoch: i64,
        /// How much metadata it has.
        version: u64,
        /// Whether it wants to stop.
        stopping: bool,
    },
    /// The controller has heard it.
    Heard {
        /// Of which registration.
        epoch: i64,
        /// Whether that one is over.
        stale: bool,
        /// Whether the broker may stop.
        may_stop: bool,
    },
    /// A broker wants the metadata behind this version.
    FetchView {
        /// What it has.
        version: u64,
    },
    /// The metadata.
    View {
        /// Which.
        version: u64,
        /// All of it.
        view: Arc<View>,
    },
    /// A leader wants another ISR.
    Alter {
        /// Of which partition.
        partition: PartitionId,
        /// The leader's broker epoch.
        broker_epoch: i64,
        /// What it wants.
        change: AlterPartition,
    },
    /// The controller's answer.
    Altered {
        /// Of which partition.
        partition: PartitionId,
        /// To which wish.
        id: ChangeId,
        /// The answer.
        result: Result<Altered, AlterPartitionError>,
    },
    /// A follower fetches.
    Fetch {
        /// Which partition.
        partition: PartitionId,
        /// What its core asks for.
        asked: FetchPosition,
        /// What the leader's core is told.
        fetch: FollowerFetch,
    },
    /// The leader's answer.
    Fetched {
        /// Of which partition.
        partition: PartitionId,
        /// What was asked.
        asked: FetchPosition,
        /// What came.
        result: Result<(Fetched, Vec<Batch>), FetchError>,
    },
    /// A follower asks where the leader's log starts and ends.
    AskRange {
        /// Of which partition.
        partition: PartitionId,
        /// What it had asked for before.
        asked: FetchPosition,
    },
    /// The answer.
    Range {
        /// Of which partition.
        partition: PartitionId,
        /// What was asked before.
        asked: FetchPosition,
        /// The range, from a leader of that epoch.
        range: Result<LeaderRange, FetchError>,
    },
    /// A client writes.
    Produce(Produce),
    /// It is told how that went.
    Produced {
        /// What it wrote.
        request: Produce,
        /// How that went.
        result: Produced,
    },
    /// A client reads.
    Read {
        /// Which partition.
        partition: PartitionId,
        /// From where.
        offset: Offset,
        /// Whether a follower may answer.
        anywhere: bool,
    },
    /// It is told.
    ReadData {
        /// Of which partition.
        partition: PartitionId,
        /// Batches below the high watermark.
        batches: Vec<Batch>,
    },
    /// A client deletes what is committed before this offset.
    DeleteRecords {
        /// Of which partition.
        partition: PartitionId,
        /// Up to where, at most.
        before: Offset,
    },
}

/// What a machine hears of itself.
#[derive(Clone, Copy, Debug)]
pub enum Io {
    /// A flush is over.
    Flushed {
        /// Of which partition.
        partition: PartitionId,
        /// What it covers.
        flush: Flush,
        /// Where the log ended when it began.
        end: Offset,
    },
    /// A truncation is done.
    Truncated {
        /// Of which partition.
        partition: PartitionId,
    },
    /// A fetch had no answer in time.
    FetchTimedOut {
        /// Of which partition.
        partition: PartitionId,
        /// What was asked.
        asked: FetchPosition,
    },
    /// The question for the leader's range had no answer in time.
    RangeTimedOut {
        /// Of which partition.
        partition: PartitionId,
        /// What was asked.
        asked: FetchPosition,
    },
    /// An AlterPartition had no answer in time.
    AlterTimedOut {
        /// Of which partition.
        partition: PartitionId,
        /// Which.
        id: ChangeId,
    },
    /// The metadata log is committed up to here.
    MetadataCommitted {
        /// The first offset that may not be.
        end: Offset,
    },
    /// A producer sends, sends again, or gives up waiting.
    ProduceNow {
        /// Its place.
        producer: usize,
        /// Which attempt this was meant for.
        attempt: u32,
    },
}
