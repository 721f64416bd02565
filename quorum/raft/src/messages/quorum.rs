//! DescribeQuorum (key 55): times since KIP-836 (version 1), directories, listeners and messages since
//! KIP-853 (version 2).

use crate::control::VoterEndpoint;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// Asks how the quorum is.
    message DescribeQuorumRequest = 55, versions 0..=2, flexible 0 {
        /// One topic.
        topics: Vec<DescribeTopic>,
    }

    /// A topic of [`DescribeQuorumRequest`].
    struct DescribeTopic {
        /// `__cluster_metadata`.
        topic_name: String,
        /// One partition.
        partitions: Vec<DescribePartition>,
    }

    /// A partition of [`DescribeQuorumRequest`].
    struct DescribePartition {
        /// 0.
        partition_index: i32,
    }

    /// Answers [`DescribeQuorumRequest`].
    message DescribeQuorumResponse = 55, versions 0..=2, flexible 0 {
        /// What is wrong with the request as a whole.
        error_code: i16,
        /// The same in words.
        error_message: Option<String> [since(2).ignorable()],
        /// The topic.
        topics: Vec<DescribedTopic>,
        /// Where the voters listen.
        nodes: Vec<QuorumNode> [since(2).ignorable()],
    }

    /// A topic of [`DescribeQuorumResponse`].
    struct DescribedTopic {
        /// Its name.
        topic_name: String,
        /// Its partition.
        partitions: Vec<DescribedPartition>,
    }

    /// A partition of [`DescribeQuorumResponse`].
    struct DescribedPartition {
        /// 0.
        partition_index: i32,
        /// What is wrong.
        error_code: i16,
        /// The same in words.
        error_message: Option<String> [since(2).ignorable()],
        /// The leader; -1 for none.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
        /// Its high watermark; -1 while it has none.
        high_watermark: i64,
        /// The voters.
        current_voters: Vec<QuorumReplica>,
        /// Those who follow without a vote.
        observers: Vec<QuorumReplica>,
    }

    /// How far a replica is.
    struct QuorumReplica {
        /// Its node id.
        replica_id: i32,
        /// Its directory id.
        replica_directory_id: Uuid [since(2).ignorable()],
        /// The end of its log; -1 where it has not fetched.
        log_end_offset: i64,
        /// When it last fetched; -1 for never.
        last_fetch_timestamp: i64 [since(1).ignorable()] = -1,
        /// When it last had everything; -1 for never.
        last_caught_up_timestamp: i64 [since(1).ignorable()] = -1,
    }

    /// A voter's listeners.
    struct QuorumNode {
        /// Its node id.
        node_id: i32,
        /// Where it listens.
        listeners: Vec<VoterEndpoint>,
    }
}
