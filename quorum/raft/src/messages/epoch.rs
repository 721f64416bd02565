//! BeginQuorumEpoch (key 53) and EndQuorumEpoch (key 54): a leader says that it leads, and that it
//! ceases to (KIP-595); endpoints and directories since KIP-853 (version 1).

use super::NodeEndpoint;
use crate::control::VoterEndpoint;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// The sender leads an epoch.
    message BeginQuorumEpochRequest = 53, versions 0..=1, flexible 1 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// The node that is told.
        voter_id: i32 [since(1).ignorable()] = -1,
        /// One topic.
        topics: Vec<BeginTopic>,
        /// Where the leader listens.
        leader_endpoints: Vec<VoterEndpoint> [since(1).ignorable()],
    }

    /// A topic of [`BeginQuorumEpochRequest`].
    struct BeginTopic {
        /// `__cluster_metadata`.
        topic_name: String,
        /// One partition.
        partitions: Vec<BeginPartition>,
    }

    /// A partition of [`BeginQuorumEpochRequest`].
    struct BeginPartition {
        /// 0.
        partition_index: i32,
        /// The directory id of the node that is told.
        voter_directory_id: Uuid [since(1).ignorable()],
        /// The leader.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
    }

    /// Answers [`BeginQuorumEpochRequest`].
    message BeginQuorumEpochResponse = 53, versions 0..=1, flexible 1 {
        /// What is wrong with the request as a whole.
        error_code: i16,
        /// The topic.
        topics: Vec<EpochTopic>,
        /// Where the leader is.
        node_endpoints: Vec<NodeEndpoint> [since(1).tag(0).ignorable()],
    }

    /// A topic of [`BeginQuorumEpochResponse`] and [`EndQuorumEpochResponse`].
    struct EpochTopic {
        /// Its name.
        topic_name: String,
        /// Its partition.
        partitions: Vec<EpochPartition>,
    }

    /// A partition of [`BeginQuorumEpochResponse`] and [`EndQuorumEpochResponse`].
    struct EpochPartition {
        /// 0.
        partition_index: i32,
        /// What is wrong.
        error_code: i16,
        /// The leader that the answering node knows; -1 for none.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
    }

    /// The sender leads no more.
    message EndQuorumEpochRequest = 54, versions 0..=1, flexible 1 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// One topic.
        topics: Vec<EndTopic>,
        /// Where the leader that was listens.
        leader_endpoints: Vec<VoterEndpoint> [since(1).ignorable()],
    }

    /// A topic of [`EndQuorumEpochRequest`].
    struct EndTopic {
        /// `__cluster_metadata`.
        topic_name: String,
        /// One partition.
        partitions: Vec<EndPartition>,
    }

    /// A partition of [`EndQuorumEpochRequest`].
    struct EndPartition {
        /// 0.
        partition_index: i32,
        /// The leader that was.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
        /// Who should stand next, the best first.
        preferred_successors: Vec<i32> [until(0).ignorable()],
        /// The same, with directory ids.
        preferred_candidates: Vec<Candidate> [since(1).ignorable()],
    }

    /// Who may stand next.
    struct Candidate {
        /// Its node id.
        candidate_id: i32,
        /// Its directory id.
        candidate_directory_id: Uuid,
    }

    /// Answers [`EndQuorumEpochRequest`].
    message EndQuorumEpochResponse = 54, versions 0..=1, flexible 1 {
        /// What is wrong with the request as a whole.
        error_code: i16,
        /// The topic.
        topics: Vec<EpochTopic>,
        /// Where the leader is.
        node_endpoints: Vec<NodeEndpoint> [since(1).tag(0).ignorable()],
    }
}
