//! From a request to the rule that answers it, and from a response to the rule that asked.
//!
//! Separate because every RPC of the quorum carries one topic and one partition in a frame of its own:
//! here they are unwrapped, checked and wrapped again, so that the rules speak of epochs and replicas.
//!
//! Invariants: a request that does not name `__cluster_metadata-0` alone is INVALID_REQUEST, one of
//! another cluster INCONSISTENT_CLUSTER_ID, and neither changes anything; every answer tells the epoch and
//! its leader as they are after the request.

use crate::code::Code;
use crate::control::VoterEndpoint;
use crate::io::{Failure, Now, Request, Response, Token};
use crate::links::{Asked, Peer};
use crate::messages::{
    BeginQuorumEpochResponse, EndQuorumEpochResponse, EpochPartition, EpochTopic, FetchEndpoint,
    NodeEndpoint, VoteResponse, VotedPartition, VotedTopic,
};
use crate::raft::Raft;
use crate::state::{Address, State};
use crate::voters::endpoint;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, NodeId};

/// The topic of the metadata log.
pub const TOPIC: &str = "__cluster_metadata";

/// The leader as an answer tells it.
pub(crate) struct Told {
    pub id: i32,
    pub epoch: i32,
    pub endpoint: Option<VoterEndpoint>,
}

impl Told {
    pub(crate) fn nodes(&self) -> Vec<NodeEndpoint> {
        let node = |at: &VoterEndpoint| NodeEndpoint {
            node_id: self.id,
            host: at.host.clone(),
            port: at.port,
            ..NodeEndpoint::default()
        };
        self.endpoint.iter().map(node).collect()
    }

    pub(crate) fn fetch_nodes(&self) -> Vec<FetchEndpoint> {
        let node = |at: &VoterEndpoint| FetchEndpoint {
            node_id: self.id,
            host: at.host.clone(),
            port: at.port.into(),
            ..FetchEndpoint::default()
        };
        self.endpoint.iter().map(node).collect()
    }
}

/// The only partition of a request, where it is `__cluster_metadata-0`.
pub(crate) fn only<'a, T, P>(
    topics: &'a [T],
    is_ours: impl Fn(&T) -> bool,
    partitions: impl Fn(&'a T) -> &'a [P],
    index: impl Fn(&P) -> i32,
) -> Option<&'a P> {
    match topics {
        [topic] if is_ours(topic) => match partitions(topic) {
            [partition] if index(partition) == 0 => Some(partition),
            _ => None,
        },
        _ => None,
    }
}

impl Raft {
    /// The leader, at the listener that a request came in by (reference section 2.8, 4).
    pub(crate) fn told(&self, listener: &str) -> Told {
        let leader = self.leader();
        let endpoint = match &self.state {
            State::Leader(_) => endpoint(&self.myself.endpoints, listener).cloned(),
            State::Follower(state) => {
                let voter = self.quorum().with_id(state.leader);
                let known = voter.and_then(|voter| endpoint(&voter.endpoints, listener)).cloned();
                let own = listener.eq_ignore_ascii_case(&self.settings.listener);
                known.or_else(|| own.then(|| named(listener, &state.address)))
            }
            _ => None,
        };
        Told { id: leader.unwrap_or(NodeId::NONE).0, epoch: self.epoch.0, endpoint }
    }

    pub(crate) fn request(&mut self, now: Now, token: Token, listener: &str, request: Request) {
        match request {
            Request::Vote(request) => self.on_vote(now, token, listener, &request),
            Request::BeginQuorumEpoch(request) => self.on_begin(now, token, listener, &request),
            Request::EndQuorumEpoch(request) => self.on_end(now, token, listener, &request),
            Request::Fetch(request) => self.on_fetch(now, token, listener, &request),
            Request::FetchSnapshot(request) => self.on_piece(now, token, listener, &request),
            Request::DescribeQuorum(request) => self.on_describe(now, token, &request),
            Request::AddRaftVoter(request) => self.on_add_voter(now, token, request),
            Request::RemoveRaftVoter(request) => self.on_remove_voter(now, token, &request),
            Request::UpdateRaftVoter(request) => {
                self.on_update_voter(now, token, listener, &request);
            }
            Request::ApiVersions => {
                let range = &self.myself.kraft_version_feature;
                let kraft_version =
                    Some((range.min_supported_version, range.max_supported_version));
                self.respond(token, Response::ApiVersions { error: Code::None, kraft_version });
            }
        }
    }

    pub(crate) fn response(
        &mut self,
        now: Now,
        peer: Peer,
        asked: Asked,
        response: Result<Response, Failure>,
    ) {
        let done = match (asked, peer, response) {
            (Asked::Vote, Peer::Node(voter), Ok(Response::Vote(response))) => {
                self.voted(now, voter, &response)
            }
            (Asked::Vote, Peer::Node(_), Err(Failure::UnsupportedVersion)) => {
                self.pre_vote_unsupported(now)
            }
            (Asked::Begin, Peer::Node(_), Ok(Response::BeginQuorumEpoch(response))) => {
                let BeginQuorumEpochResponse { error_code, topics, node_endpoints, .. } = &response;
                self.epoch_told(now, *error_code, topics, node_endpoints)
            }
            (Asked::End, Peer::Node(voter), Ok(Response::EndQuorumEpoch(response))) => {
                let EndQuorumEpochResponse { error_code, topics, node_endpoints, .. } = &response;
                let done = self.epoch_told(now, *error_code, topics, node_endpoints);
                if done && let State::Resigned(state) = &mut self.state {
                    state.untold.remove(&voter);
                }
                done
            }
            (Asked::Fetch | Asked::Discover, _, Ok(Response::Fetch(response))) => {
                self.fetched(now, asked == Asked::Fetch, response)
            }
            (Asked::Piece, _, Ok(Response::FetchSnapshot(response))) => {
                self.piece_fetched(now, response)
            }
            (Asked::Update, _, Ok(Response::UpdateRaftVoter(response))) => {
                self.updated(now, &response)
            }
            (Asked::Join, _, Ok(Response::AddRaftVoter(_) | Response::RemoveRaftVoter(_))) => true,
            (
                Asked::Versions,
                Peer::Node(voter),
                Ok(Response::ApiVersions { error, kraft_version }),
            ) => {
                self.new_voter_supports(now, voter, error, kraft_version);
                true
            }
            (Asked::Versions, ..) => {
                self.new_voter_failed();
                false
            }
            // A failure, or an answer to another question: either way the peer is left alone for a while.
            _ => false,
        };
        if !done && self.links.is_ready(peer) {
            self.links.leave_alone(peer, now.clock, &self.settings.timers);
        }
    }

    /// Takes in what a response says of the leader. Returns whether it is of this epoch and changed
    /// nothing: then the rest of it counts.
    pub(crate) fn told_by_response(
        &mut self,
        now: Now,
        leader: i32,
        epoch: i32,
        address: Option<Address>,
    ) -> bool {
        let before = (self.epoch, self.leader(), core::mem::discriminant(&self.state));
        let leader = (leader >= 0).then_some(NodeId(leader));
        self.learn(now, LeaderEpoch(epoch), leader, address);
        let same = before == (self.epoch, self.leader(), core::mem::discriminant(&self.state));
        same && epoch == self.epoch.0
    }

    fn epoch_told(
        &mut self,
        now: Now,
        error: i16,
        topics: &[EpochTopic],
        nodes: &[NodeEndpoint],
    ) -> bool {
        let ours = |topic: &EpochTopic| topic.topic_name == TOPIC;
        let partition = only(topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let Some(partition) = partition.filter(|_| error == 0) else { return false };
        let address = address_in(nodes, partition.leader_id);
        let (leader, epoch) = (partition.leader_id, partition.leader_epoch);
        self.told_by_response(now, leader, epoch, address) && partition.error_code == 0
    }

    /// Whether a request is of this cluster; one that does not say counts as ours.
    pub(crate) fn is_our_cluster(&self, cluster: Option<&String>) -> bool {
        cluster.is_none_or(|cluster| *cluster == self.settings.cluster_id)
    }

    pub(crate) fn vote_response(&self, listener: &str, error: Code, granted: bool) -> VoteResponse {
        let told = self.told(listener);
        let partition = VotedPartition {
            error_code: error.number(),
            leader_id: told.id,
            leader_epoch: told.epoch,
            vote_granted: granted,
            ..VotedPartition::default()
        };
        let partitions = vec![partition];
        let topic = VotedTopic { topic_name: TOPIC.into(), partitions, ..VotedTopic::default() };
        VoteResponse {
            topics: vec![topic],
            node_endpoints: told.nodes(),
            ..VoteResponse::default()
        }
    }
}

pub(crate) fn epoch_topics(told: &Told, error: Code) -> Vec<EpochTopic> {
    let partition = EpochPartition {
        error_code: error.number(),
        leader_id: told.id,
        leader_epoch: told.epoch,
        ..EpochPartition::default()
    };
    let partitions = vec![partition];
    vec![EpochTopic { topic_name: TOPIC.into(), partitions, ..EpochTopic::default() }]
}

fn named(listener: &str, address: &Address) -> VoterEndpoint {
    let Address { host, port } = address.clone();
    VoterEndpoint { name: listener.into(), host, port, ..VoterEndpoint::default() }
}

/// Where a response says that the leader is.
pub(crate) fn address_in(nodes: &[NodeEndpoint], leader: i32) -> Option<Address> {
    let node = nodes.iter().find(|node| node.node_id == leader)?;
    Some(Address { host: node.host.clone(), port: node.port })
}
