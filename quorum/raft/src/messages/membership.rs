//! AddRaftVoter (key 80), RemoveRaftVoter (81) and UpdateRaftVoter (82): KIP-853.

use crate::control::{KraftVersionRange, VoterEndpoint};
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// Makes an observer a voter.
    message AddRaftVoterRequest = 80, versions 0..=1, flexible 0 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// How long the answer may take.
        timeout_ms: i32,
        /// The new voter.
        voter_id: i32,
        /// Its directory id.
        voter_directory_id: Uuid,
        /// Where it listens.
        listeners: Vec<VoterEndpoint>,
        /// Whether to answer once the new voters are committed, or as soon as they are in the leader's log.
        ack_when_committed: bool [since(1).ignorable()] = true,
    }

    /// Answers [`AddRaftVoterRequest`].
    message AddRaftVoterResponse = 80, versions 0..=1, flexible 0 {
        /// How long the request was held back for a quota.
        throttle_time_ms: i32,
        /// What is wrong.
        error_code: i16,
        /// The same in words.
        error_message: Option<String> [ignorable()],
    }

    /// Makes a voter an observer.
    message RemoveRaftVoterRequest = 81, versions 0..=0, flexible 0 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// The voter.
        voter_id: i32,
        /// Its directory id.
        voter_directory_id: Uuid,
    }

    /// Answers [`RemoveRaftVoterRequest`].
    message RemoveRaftVoterResponse = 81, versions 0..=0, flexible 0 {
        /// How long the request was held back for a quota.
        throttle_time_ms: i32,
        /// What is wrong.
        error_code: i16,
        /// The same in words.
        error_message: Option<String> [ignorable()],
    }

    /// A voter says where it listens, and what it supports.
    message UpdateRaftVoterRequest = 82, versions 0..=0, flexible 0 {
        /// The cluster's id; null where it is not known.
        cluster_id: Option<String>,
        /// The leader's epoch, as the voter knows it.
        current_leader_epoch: i32,
        /// The voter.
        voter_id: i32,
        /// Its directory id.
        voter_directory_id: Uuid,
        /// Where it listens.
        listeners: Vec<VoterEndpoint>,
        /// The levels of `kraft.version` that it supports.
        kraft_version_feature: KraftVersionRange,
    }

    /// Answers [`UpdateRaftVoterRequest`].
    message UpdateRaftVoterResponse = 82, versions 0..=0, flexible 0 {
        /// How long the request was held back for a quota.
        throttle_time_ms: i32,
        /// What is wrong.
        error_code: i16,
        /// The leader, as the answering node knows it.
        current_leader: UpdatedLeader [tag(0)],
    }

    /// The leader, and where it is.
    struct UpdatedLeader {
        /// Its node id; -1 for none.
        leader_id: i32 = -1,
        /// Its epoch.
        leader_epoch: i32 = -1,
        /// Its host.
        host: String,
        /// Its port.
        port: i32,
    }
}
