//! BeginQuorumEpoch and EndQuorumEpoch (KIP-595), and what a leader does while it leads.
//!
//! Invariants: a leader that a majority has not fetched from for 1.5 x `fetch.timeout` resigns
//! (KAFKA-15489); who resigned votes for nobody in that epoch; successors stand in the order of what they
//! hold.

use crate::code::Code;
use crate::io::{Now, Request, Response, Token};
use crate::links::{Asked, Peer};
use crate::messages::{
    BeginPartition, BeginQuorumEpochRequest, BeginQuorumEpochResponse, BeginTopic,
    Candidate as Successor, EndPartition, EndQuorumEpochRequest, EndQuorumEpochResponse, EndTopic,
};
use crate::raft::Raft;
use crate::rpc::{TOPIC, epoch_topics, only};
use crate::state::{Address, State};
use crate::voters::{ReplicaKey, endpoint};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, LeaderEpoch, NodeId};

impl Raft {
    pub(crate) fn on_begin(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &BeginQuorumEpochRequest,
    ) {
        let ours = |topic: &BeginTopic| topic.topic_name == TOPIC;
        let partition =
            only(&request.topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let mut response = BeginQuorumEpochResponse::default();
        match partition {
            _ if !self.is_our_cluster(request.cluster_id.as_ref()) => {
                response.error_code = Code::InconsistentClusterId.number();
            }
            None => response.error_code = Code::InvalidRequest.number(),
            Some(partition) => {
                let error = self.begin(now, request, partition);
                let told = self.told(listener);
                response.topics = epoch_topics(&told, error);
                response.node_endpoints = told.nodes();
            }
        }
        self.respond(token, Response::BeginQuorumEpoch(response));
    }

    fn begin(
        &mut self,
        now: Now,
        request: &BeginQuorumEpochRequest,
        partition: &BeginPartition,
    ) -> Code {
        if let Err(error) = self.check_leader(partition.leader_id, partition.leader_epoch) {
            return error;
        }
        let (leader, epoch) = (NodeId(partition.leader_id), LeaderEpoch(partition.leader_epoch));
        let address = self.address_among(&request.leader_endpoints);
        self.learn(now, epoch, Some(leader), address.clone());
        if let State::Prospective(_) = &self.state
            && let Some(address) = address.or_else(|| self.address_of(leader))
            && self.leader() == Some(leader)
        {
            // The leader that it could not fetch from is back.
            self.become_follower(now, epoch, leader, address);
        }
        let deadline = now.clock.after(self.settings.timers.fetch_timeout);
        if let State::Follower(state) = &mut self.state {
            state.fetch_deadline = deadline;
        }
        if self.is_addressed(request.voter_id, partition.voter_directory_id) {
            Code::None
        } else {
            Code::InvalidVoterKey
        }
    }

    /// Whether a message may come from the leader that it names.
    fn check_leader(&self, leader: i32, epoch: i32) -> Result<(), Code> {
        if epoch < self.epoch.0 {
            return Err(Code::FencedLeaderEpoch);
        }
        if leader < 0 || leader == self.me.id.0 {
            return Err(Code::InvalidRequest);
        }
        Ok(())
    }

    fn address_among(&self, endpoints: &[crate::control::VoterEndpoint]) -> Option<Address> {
        let at = endpoint(endpoints, &self.settings.listener)?;
        Some(Address { host: at.host.clone(), port: at.port })
    }

    pub(crate) fn on_end(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &EndQuorumEpochRequest,
    ) {
        let ours = |topic: &EndTopic| topic.topic_name == TOPIC;
        let partition =
            only(&request.topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let mut response = EndQuorumEpochResponse::default();
        match partition {
            _ if !self.is_our_cluster(request.cluster_id.as_ref()) => {
                response.error_code = Code::InconsistentClusterId.number();
            }
            None => response.error_code = Code::InvalidRequest.number(),
            Some(partition) => {
                let error = self.end(now, request, partition);
                let told = self.told(listener);
                response.topics = epoch_topics(&told, error);
                response.node_endpoints = told.nodes();
            }
        }
        self.respond(token, Response::EndQuorumEpoch(response));
    }

    fn end(&mut self, now: Now, request: &EndQuorumEpochRequest, partition: &EndPartition) -> Code {
        if let Err(error) = self.check_leader(partition.leader_id, partition.leader_epoch) {
            return error;
        }
        let (leader, epoch) = (NodeId(partition.leader_id), LeaderEpoch(partition.leader_epoch));
        self.learn(now, epoch, Some(leader), self.address_among(&request.leader_endpoints));
        let candidates = &partition.preferred_candidates;
        let place = if candidates.is_empty() {
            let place = partition.preferred_successors.iter().position(|id| *id == self.me.id.0);
            place.map(|place| (place, partition.preferred_successors.len()))
        } else {
            let is_me = |candidate: &Successor| {
                let (id, directory) = (candidate.candidate_id, candidate.candidate_directory_id);
                self.me.may_be(ReplicaKey { id: NodeId(id), directory })
            };
            candidates.iter().position(is_me).map(|place| (place, candidates.len()))
        };
        let Some((place, count)) = place else { return Code::None };
        let stand_at = now.clock.after(self.successor_backoff(place, count));
        if let State::Follower(state) = &mut self.state
            && state.leader == leader
        {
            state.fetch_deadline = stand_at;
            state.has_fetched = false; // The leader itself asks for another one.
        }
        Code::None
    }

    /// The first successor stands at once, the others after a time that doubles from one to the next up
    /// to `election.backoff.max`.
    fn successor_backoff(&self, place: usize, count: usize) -> Duration {
        let Some(doublings) = place.checked_sub(1) else { return Duration::ZERO };
        let most = self.settings.timers.election_backoff_max;
        let first = most / (1 << (count - 1).min(16));
        first.saturating_mul(1 << doublings.min(16)).min(most)
    }

    /// 1.5 x `fetch.timeout` from now.
    pub(crate) fn resign_deadline(&self, now: Now) -> Instant {
        let timeout = self.settings.timers.fetch_timeout;
        now.clock.after(timeout + timeout / 2)
    }

    /// Begins to lead: everybody is to be told, and at `kraft.version` 0 this node's own part of an
    /// upgrade is known.
    pub(crate) fn lead_from(&mut self, now: Now) {
        let others: Vec<_> = self.others().map(|voter| voter.id).collect();
        let (id, myself) = (self.me.id, self.myself.clone());
        let State::Leader(leader) = &mut self.state else { panic!("it was just elected") };
        leader.begin_at = others.into_iter().map(|voter| (voter, now.clock)).collect();
        leader.told.insert(id, myself);
    }

    /// Goes on as the leader; whether it ceased to be.
    pub(crate) fn lead_on(&mut self, now: Now) -> bool {
        let removed = !self.is_voter()
            && self
                .quorums
                .last_offset()
                .is_none_or(|told| Some(told) < self.leader_high_watermark());
        let alone = self.leads_alone();
        let State::Leader(leader) = &mut self.state else { return false };
        if removed || (!alone && leader.resign_at <= now.clock) {
            self.resign(now);
            return true;
        }
        self.change_overdue(now);
        self.answer_waiting(now);
        self.tell_begin(now);
        false
    }

    pub(crate) fn leader_high_watermark(&self) -> Option<flowstone_types::Offset> {
        match &self.state {
            State::Leader(leader) => leader.high_watermark,
            _ => None,
        }
    }

    /// Tells voters that do not fetch that this node leads.
    fn tell_begin(&mut self, now: Now) {
        let others: Vec<_> = self.others().collect();
        let every = self.settings.timers.fetch_timeout / 2;
        let State::Leader(leader) = &mut self.state else { return };
        leader.begin_at.retain(|id, _| others.iter().any(|voter| voter.id == *id));
        for voter in others {
            let State::Leader(leader) = &mut self.state else { return };
            let due = leader.begin_at.entry(voter.id).or_insert(now.clock);
            if *due > now.clock || !self.links.is_ready(Peer::Node(voter.id)) {
                continue;
            }
            *due = now.clock.after(every);
            let Some(address) = self.address_of(voter.id) else { continue };
            let partition = BeginPartition {
                voter_directory_id: voter.directory,
                leader_id: self.me.id.0,
                leader_epoch: self.epoch.0,
                ..BeginPartition::default()
            };
            let partitions = vec![partition];
            let topic =
                BeginTopic { topic_name: TOPIC.into(), partitions, ..BeginTopic::default() };
            let request = BeginQuorumEpochRequest {
                cluster_id: Some(self.settings.cluster_id.clone()),
                voter_id: voter.id.0,
                topics: vec![topic],
                leader_endpoints: self.myself.endpoints.clone(),
                ..BeginQuorumEpochRequest::default()
            };
            self.ask(now, voter.id, &address, Asked::Begin, Request::BeginQuorumEpoch(request));
        }
    }

    /// Tells the voters that this node leads no more.
    pub(crate) fn tell_end(&mut self, now: Now) {
        let State::Resigned(state) = &self.state else { return };
        let (untold, successors) = (state.untold.clone(), state.successors.clone());
        let candidate = |key: &ReplicaKey| Successor {
            candidate_id: key.id.0,
            candidate_directory_id: key.directory,
            ..Successor::default()
        };
        for id in untold {
            let Some(address) = self.address_of(id) else { continue };
            let partition = EndPartition {
                leader_id: self.me.id.0,
                leader_epoch: self.epoch.0,
                preferred_successors: successors.iter().map(|key| key.id.0).collect(),
                preferred_candidates: successors.iter().map(candidate).collect(),
                ..EndPartition::default()
            };
            let partitions = vec![partition];
            let topic = EndTopic { topic_name: TOPIC.into(), partitions, ..EndTopic::default() };
            let request = EndQuorumEpochRequest {
                cluster_id: Some(self.settings.cluster_id.clone()),
                topics: vec![topic],
                leader_endpoints: self.myself.endpoints.clone(),
                ..EndQuorumEpochRequest::default()
            };
            self.ask(now, id, &address, Asked::End, Request::EndQuorumEpoch(request));
        }
    }
}
