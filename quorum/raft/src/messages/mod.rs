//! The quorum's RPCs as they stand on the wire in Apache Kafka 4.3.1, every version of them.
//!
//! Separate from the rules: these are Kafka's field lists and nothing else. A field that only says more
//! to newer peers is `ignorable` also where Kafka's own list is not: Raft fills in what it knows, and an
//! older version leaves it out. `VoteRequest.pre_vote` is not: a pre-vote that arrived as a vote would
//! depose a leader (KIP-996), so encoding it in an old version fails, which the shell reports as
//! [`Failure::UnsupportedVersion`](crate::Failure).

mod epoch;
mod fetch;
mod fetch_snapshot;
mod membership;
mod quorum;
mod vote;

pub use epoch::{
    BeginPartition, BeginQuorumEpochRequest, BeginQuorumEpochResponse, BeginTopic, Candidate,
    EndPartition, EndQuorumEpochRequest, EndQuorumEpochResponse, EndTopic, EpochPartition,
    EpochTopic,
};
pub use fetch::{
    AbortedTransaction, CurrentLeader, EpochEndOffset, FetchEndpoint, FetchPartition, FetchRequest,
    FetchResponse, FetchTopic, FetchedPartition, FetchedSnapshotId, FetchedTopic, ForgottenTopic,
    ReplicaEpoch,
};
pub use fetch_snapshot::{
    FetchSnapshotRequest, FetchSnapshotResponse, PieceId, PieceLeader, PiecePartition,
    PieceRequestPartition, PieceRequestTopic, PieceTopic,
};
pub use membership::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse, UpdatedLeader,
};
pub use quorum::{
    DescribePartition, DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopic,
    DescribedPartition, DescribedTopic, QuorumNode, QuorumReplica,
};
pub use vote::{VotePartition, VoteRequest, VoteResponse, VoteTopic, VotedPartition, VotedTopic};

use alloc::string::String;
use flowstone_schema::schema;

schema! {
    /// Where the leader that a response names is reached, on the listener that the request came in by.
    struct NodeEndpoint {
        /// Its node id.
        node_id: i32,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    }
}
