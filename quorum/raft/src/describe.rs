//! DescribeQuorum (KIP-836, KIP-853): how the quorum is, as its leader sees it.

use crate::code::Code;
use crate::control::KraftVoter;
use crate::io::{Now, Response, Token};
use crate::leader::{Leader, Progress};
use crate::messages::{
    DescribePartition, DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopic,
    DescribedPartition, DescribedTopic, QuorumNode, QuorumReplica,
};
use crate::raft::Raft;
use crate::rpc::{TOPIC, only};
use crate::state::State;
use crate::voters::ReplicaKey;
use alloc::vec;
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Timestamp};

/// What DescribeQuorum tells.
#[derive(Clone, PartialEq, Debug)]
pub struct QuorumDescription {
    /// The leader.
    pub leader: NodeId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// The high watermark, -1 where it is not known yet.
    pub high_watermark: i64,
    /// The voters, the leader among them.
    pub voters: Vec<ReplicaState>,
    /// Nodes that follow the log without a vote, if they fetched in the last 300 s.
    pub observers: Vec<ReplicaState>,
    /// The voters as they are reached.
    pub endpoints: Vec<KraftVoter>,
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// Which.
    pub replica: ReplicaKey,
    /// The end of its log; -1 where it has not fetched in this epoch.
    pub log_end: Offset,
    /// When it last fetched, -1 for never; the leader: now.
    pub last_fetch: Timestamp,
    /// When it last had everything, -1 for never; the leader: now.
    pub last_caught_up: Timestamp,
}

impl Raft {
    /// What DescribeQuorum answers; `None` where this node does not lead (NOT_LEADER_OR_FOLLOWER).
    pub fn describe(&self, now: Now) -> Option<QuorumDescription> {
        let State::Leader(leader) = &self.state else { return None };
        let quorum = self.quorum();
        let voters = quorum.keys().map(|voter| {
            if voter.may_be(self.me) {
                let (last_fetch, last_caught_up) = (now.wall, now.wall);
                let log_end = self.log.end();
                return ReplicaState { replica: voter, log_end, last_fetch, last_caught_up };
            }
            state(voter, leader.progress(voter))
        });
        let observers = leader.observers(quorum, now);
        Some(QuorumDescription {
            leader: self.me.id,
            epoch: self.epoch,
            high_watermark: leader.high_watermark.map_or(-1, |offset| offset.0),
            voters: voters.collect(),
            observers: observers
                .map(|(replica, progress)| state(replica, Some(progress)))
                .collect(),
            endpoints: quorum.voters.voters.clone(),
        })
    }

    pub(crate) fn on_describe(&mut self, now: Now, token: Token, request: &DescribeQuorumRequest) {
        let ours = |topic: &DescribeTopic| topic.topic_name == TOPIC;
        let asked: Option<&DescribePartition> =
            only(&request.topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let mut response = DescribeQuorumResponse::default();
        if asked.is_none() {
            response.error_code = Code::InvalidRequest.number();
        } else {
            let described = self.describe(now);
            response.nodes = described.iter().flat_map(nodes).collect();
            let partition = match described {
                Some(described) => partition(&described),
                None => DescribedPartition {
                    error_code: Code::NotLeaderOrFollower.number(),
                    leader_id: self.leader().unwrap_or(NodeId::NONE).0,
                    leader_epoch: self.epoch.0,
                    high_watermark: -1,
                    ..DescribedPartition::default()
                },
            };
            let partitions = vec![partition];
            let topic = DescribedTopic {
                topic_name: TOPIC.into(),
                partitions,
                ..DescribedTopic::default()
            };
            response.topics = vec![topic];
        }
        self.respond(token, Response::DescribeQuorum(response));
    }
}

fn state(replica: ReplicaKey, progress: Option<&Progress>) -> ReplicaState {
    ReplicaState {
        replica,
        log_end: progress.map_or(Offset(-1), |progress| progress.end),
        last_fetch: Leader::wall(progress.map(|progress| progress.fetched)),
        last_caught_up: Leader::wall(progress.and_then(|progress| progress.caught_up)),
    }
}

fn partition(described: &QuorumDescription) -> DescribedPartition {
    let replicas = |states: &[ReplicaState]| {
        let replica = |state: &ReplicaState| QuorumReplica {
            replica_id: state.replica.id.0,
            replica_directory_id: state.replica.directory,
            log_end_offset: state.log_end.0,
            last_fetch_timestamp: state.last_fetch.0,
            last_caught_up_timestamp: state.last_caught_up.0,
            ..QuorumReplica::default()
        };
        states.iter().map(replica).collect()
    };
    DescribedPartition {
        leader_id: described.leader.0,
        leader_epoch: described.epoch.0,
        high_watermark: described.high_watermark,
        current_voters: replicas(&described.voters),
        observers: replicas(&described.observers),
        ..DescribedPartition::default()
    }
}

fn nodes(described: &QuorumDescription) -> impl Iterator<Item = QuorumNode> {
    described.endpoints.iter().map(|voter| QuorumNode {
        node_id: voter.voter_id,
        listeners: voter.endpoints.clone(),
        ..QuorumNode::default()
    })
}
