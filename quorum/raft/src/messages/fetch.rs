//! Fetch (key 1) as raft replicas use it: flexible versions 12 to 18, with topic ids from 13, replica
//! state from 15, endpoints from 16, directories from 17 (KIP-853), high watermark from 18 (KIP-1166).
//! Every field is declared, so that any Kafka frame of these versions decodes.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// Asks for the log from an offset on, and says that everything below it is held.
    message FetchRequest = 1, versions 12..=18, flexible 12 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String> [tag(0).ignorable()],
        /// The fetching replica.
        replica_id: i32 [until(14).ignorable()] = -1,
        /// The fetching replica.
        replica_state: ReplicaEpoch [since(15).tag(1).ignorable()],
        /// How long the leader may wait for `min_bytes`.
        max_wait_ms: i32,
        /// How many bytes are worth an answer.
        min_bytes: i32,
        /// Most bytes.
        max_bytes: i32 [ignorable()] = i32::MAX,
        /// Of consumers only.
        isolation_level: i8 [ignorable()],
        /// Of sessions (KIP-227); raft has none.
        session_id: i32 [ignorable()],
        /// Of sessions (KIP-227); raft has none.
        session_epoch: i32 [ignorable()] = -1,
        /// One topic.
        topics: Vec<FetchTopic>,
        /// Of sessions (KIP-227); raft has none.
        forgotten_topics_data: Vec<ForgottenTopic>,
        /// Of consumers only.
        rack_id: String [ignorable()],
    }

    /// Who fetches.
    struct ReplicaEpoch {
        /// Its node id; -1 for a consumer.
        replica_id: i32 = -1,
        /// Its broker epoch; -1 where it has none.
        replica_epoch: i64 = -1,
    }

    /// A topic of [`FetchRequest`].
    struct FetchTopic {
        /// Its name.
        topic: String [until(12).ignorable()],
        /// Its id.
        topic_id: Uuid [since(13).ignorable()],
        /// One partition.
        partitions: Vec<FetchPartition>,
    }

    /// A partition of [`FetchRequest`].
    struct FetchPartition {
        /// 0.
        partition: i32,
        /// The leader's epoch, as the replica knows it.
        current_leader_epoch: i32 [ignorable()] = -1,
        /// The end of its log.
        fetch_offset: i64,
        /// The epoch of its last batch.
        last_fetched_epoch: i32 = -1,
        /// Where its log starts.
        log_start_offset: i64 [ignorable()] = -1,
        /// Most bytes.
        partition_max_bytes: i32,
        /// Its directory id.
        replica_directory_id: Uuid [since(17).tag(0).ignorable()],
        /// Its high watermark; -1 for unknown, 2^63 - 1 from one that does not tell it.
        high_watermark: i64 [since(18).tag(1).ignorable()] = i64::MAX,
    }

    /// A topic that leaves a session.
    struct ForgottenTopic {
        /// Its name.
        topic: String [until(12).ignorable()],
        /// Its id.
        topic_id: Uuid [since(13).ignorable()],
        /// Its partitions.
        partitions: Vec<i32>,
    }

    /// Answers [`FetchRequest`].
    message FetchResponse = 1, versions 12..=18, flexible 12 {
        /// How long the request was held back for a quota.
        throttle_time_ms: i32 [ignorable()],
        /// What is wrong with the request as a whole.
        error_code: i16 [ignorable()],
        /// Of sessions (KIP-227); raft has none.
        session_id: i32,
        /// The topic.
        responses: Vec<FetchedTopic>,
        /// Where the leader is.
        node_endpoints: Vec<FetchEndpoint> [since(16).tag(0).ignorable()],
    }

    /// A topic of [`FetchResponse`].
    struct FetchedTopic {
        /// Its name.
        topic: String [until(12).ignorable()],
        /// Its id.
        topic_id: Uuid [since(13).ignorable()],
        /// Its partition.
        partitions: Vec<FetchedPartition>,
    }

    /// A partition of [`FetchResponse`].
    struct FetchedPartition {
        /// 0.
        partition_index: i32,
        /// What is wrong.
        error_code: i16,
        /// The leader's high watermark; -1 while it has none.
        high_watermark: i64,
        /// Of consumers only.
        last_stable_offset: i64 [ignorable()] = -1,
        /// Where the leader's log starts.
        log_start_offset: i64 [ignorable()] = -1,
        /// Where the logs part (KIP-595): nothing of the replica's behind it is the leader's.
        diverging_epoch: EpochEndOffset [tag(0)],
        /// The leader, as the answering node knows it.
        current_leader: CurrentLeader [tag(1)],
        /// The snapshot to take where the log is not there any more (KIP-630).
        snapshot_id: FetchedSnapshotId [tag(2)],
        /// Of consumers only.
        aborted_transactions: Option<Vec<AbortedTransaction>> [ignorable()],
        /// Of consumers only.
        preferred_read_replica: i32 = -1,
        /// Whole batches, though the last one may be cut.
        records: Option<Bytes>,
    }

    /// The end of an epoch.
    struct EpochEndOffset {
        /// The epoch; -1 for none.
        epoch: i32 = -1,
        /// Its end.
        end_offset: i64 = -1,
    }

    /// The leader.
    struct CurrentLeader {
        /// Its node id; -1 for none.
        leader_id: i32 = -1,
        /// Its epoch.
        leader_epoch: i32 = -1,
    }

    /// A snapshot.
    struct FetchedSnapshotId {
        /// The first offset that it does not cover; -1 for none.
        end_offset: i64 = -1,
        /// The epoch of the last batch that it covers.
        epoch: i32 = -1,
    }

    /// An aborted transaction.
    struct AbortedTransaction {
        /// The producer.
        producer_id: i64,
        /// Where it began.
        first_offset: i64,
    }

    /// Where a node is.
    struct FetchEndpoint {
        /// Its node id.
        node_id: i32,
        /// Its host.
        host: String,
        /// Its port.
        port: i32,
        /// Its rack.
        rack: Option<String>,
    }
}
