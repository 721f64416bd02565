//! FetchSnapshot (key 59): a piece of a snapshot's file (KIP-630); directory and endpoint since KIP-853
//! (version 1).

use super::NodeEndpoint;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// Asks for a piece.
    message FetchSnapshotRequest = 59, versions 0..=1, flexible 0 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String> [tag(0)],
        /// The fetching replica.
        replica_id: i32 = -1,
        /// Most bytes.
        max_bytes: i32 = i32::MAX,
        /// One topic.
        topics: Vec<PieceRequestTopic>,
    }

    /// A topic of [`FetchSnapshotRequest`].
    struct PieceRequestTopic {
        /// `__cluster_metadata`.
        name: String,
        /// One partition.
        partitions: Vec<PieceRequestPartition>,
    }

    /// A partition of [`FetchSnapshotRequest`].
    struct PieceRequestPartition {
        /// 0.
        partition: i32,
        /// The leader's epoch, as the replica knows it.
        current_leader_epoch: i32,
        /// Which snapshot.
        snapshot_id: PieceId,
        /// From which byte on.
        position: i64,
        /// The replica's directory id.
        replica_directory_id: Uuid [since(1).tag(0).ignorable()],
    }

    /// A snapshot.
    struct PieceId {
        /// The first offset that it does not cover.
        end_offset: i64,
        /// The epoch of the last batch that it covers.
        epoch: i32,
    }

    /// Answers [`FetchSnapshotRequest`].
    message FetchSnapshotResponse = 59, versions 0..=1, flexible 0 {
        /// How long the request was held back for a quota.
        throttle_time_ms: i32 [ignorable()],
        /// What is wrong with the request as a whole.
        error_code: i16,
        /// The topic.
        topics: Vec<PieceTopic>,
        /// Where the leader is.
        node_endpoints: Vec<NodeEndpoint> [since(1).tag(0).ignorable()],
    }

    /// A topic of [`FetchSnapshotResponse`].
    struct PieceTopic {
        /// Its name.
        name: String,
        /// Its partition.
        partitions: Vec<PiecePartition>,
    }

    /// A partition of [`FetchSnapshotResponse`].
    struct PiecePartition {
        /// 0.
        index: i32,
        /// What is wrong.
        error_code: i16,
        /// Which snapshot.
        snapshot_id: PieceId,
        /// The leader, as the answering node knows it.
        current_leader: PieceLeader [tag(0)],
        /// The file's size.
        size: i64,
        /// From which byte on.
        position: i64,
        /// The piece; it need not start or end with a batch.
        unaligned_records: Bytes,
    }

    /// The leader.
    struct PieceLeader {
        /// Its node id; -1 for none.
        leader_id: i32,
        /// Its epoch.
        leader_epoch: i32,
    }
}
