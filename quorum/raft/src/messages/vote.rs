//! Vote (key 52): KIP-595, voter keys of KIP-853 (version 1), pre-votes of KIP-996 (version 2).

use super::NodeEndpoint;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// Asks for a vote, or whether one would be given.
    message VoteRequest = 52, versions 0..=2, flexible 0 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// The node that is asked.
        voter_id: i32 [since(1).ignorable()] = -1,
        /// One topic.
        topics: Vec<VoteTopic>,
    }

    /// A topic of [`VoteRequest`].
    struct VoteTopic {
        /// `__cluster_metadata`.
        topic_name: String,
        /// One partition.
        partitions: Vec<VotePartition>,
    }

    /// A partition of [`VoteRequest`].
    struct VotePartition {
        /// 0.
        partition_index: i32,
        /// The epoch in which the sender stands; before a pre-vote the one it is in.
        replica_epoch: i32,
        /// The sender.
        replica_id: i32,
        /// Its directory id.
        replica_directory_id: Uuid [since(1).ignorable()],
        /// The directory id of the node that is asked.
        voter_directory_id: Uuid [since(1).ignorable()],
        /// The epoch of the sender's last batch.
        last_offset_epoch: i32,
        /// The end of its log.
        last_offset: i64,
        /// Whether it only asks if it would be elected.
        pre_vote: bool [since(2)],
    }

    /// Answers [`VoteRequest`].
    message VoteResponse = 52, versions 0..=2, flexible 0 {
        /// What is wrong with the request as a whole.
        error_code: i16,
        /// The topic asked for.
        topics: Vec<VotedTopic>,
        /// Where the leader is.
        node_endpoints: Vec<NodeEndpoint> [since(1).tag(0).ignorable()],
    }

    /// A topic of [`VoteResponse`].
    struct VotedTopic {
        /// Its name.
        topic_name: String,
        /// Its partition.
        partitions: Vec<VotedPartition>,
    }

    /// A partition of [`VoteResponse`].
    struct VotedPartition {
        /// 0.
        partition_index: i32,
        /// What is wrong.
        error_code: i16,
        /// The leader that the answering node knows; -1 for none.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
        /// Whether it has the vote.
        vote_granted: bool,
    }
}
