//! Vote: who is elected (KIP-595), and who would be (KIP-996).
//!
//! Invariants: one vote an epoch, on disk before it is told; a vote only for a log that reaches as far as
//! this one; a pre-vote is no vote and leaves nothing on disk, but a higher epoch in it counts as in any
//! message; a follower whose leader works helps nobody to depose it; who is voted out stands, without a
//! vote of its own, until that is committed (Raft thesis, 4.2.2).

use crate::code::Code;
use crate::control::{ControlRecord, KraftVersion, LeaderChange, Voter};
use crate::io::{Now, Request, Response, Token};
use crate::leader::Leader;
use crate::links::Asked;
use crate::messages::{VotePartition, VoteRequest, VoteResponse, VoteTopic, VotedTopic};
use crate::raft::Raft;
use crate::rpc::{TOPIC, address_in, only};
use crate::state::{Candidate, Prospective, State, Unattached, Votes};
use crate::voters::ReplicaKey;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Uuid};

impl Raft {
    pub(crate) fn on_vote(&mut self, now: Now, token: Token, listener: &str, vote: &VoteRequest) {
        let refused =
            |error: Code| VoteResponse { error_code: error.number(), ..VoteResponse::default() };
        let ours = |topic: &VoteTopic| topic.topic_name == TOPIC;
        let partition =
            only(&vote.topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let response = match partition {
            _ if !self.is_our_cluster(vote.cluster_id.as_ref()) => {
                refused(Code::InconsistentClusterId)
            }
            None => refused(Code::InvalidRequest),
            Some(partition) => {
                let (error, granted) = match self.decide_vote(now, vote.voter_id, partition) {
                    Ok(granted) => (Code::None, granted),
                    Err(error) => (error, false),
                };
                self.vote_response(listener, error, granted)
            }
        };
        self.respond(token, Response::Vote(response));
    }

    fn decide_vote(&mut self, now: Now, voter_id: i32, asks: &VotePartition) -> Result<bool, Code> {
        let (last_epoch, epoch) = (asks.last_offset_epoch, asks.replica_epoch);
        // A candidate's epoch is a new one; a pre-vote is asked in the epoch of the log, maybe.
        let too_late = if asks.pre_vote { last_epoch > epoch } else { last_epoch >= epoch };
        if asks.last_offset < 0 || last_epoch < 0 || too_late {
            return Err(Code::InvalidRequest);
        }
        if epoch < self.epoch.0 {
            return Err(Code::FencedLeaderEpoch);
        }
        if asks.replica_id < 0 {
            return Err(Code::InvalidRequest);
        }
        if epoch > self.epoch.0 {
            self.become_unattached(now, LeaderEpoch(epoch), None);
        }
        if !self.is_addressed(voter_id, asks.voter_directory_id) {
            return Err(Code::InvalidVoterKey);
        }
        let asks_key =
            ReplicaKey { id: NodeId(asks.replica_id), directory: asks.replica_directory_id };
        let theirs = (LeaderEpoch(last_epoch), Offset(asks.last_offset));
        let reaches = theirs >= (self.log.last_epoch(), self.log.end());
        if asks.pre_vote {
            return Ok(reaches && self.would_vote());
        }
        let granted = self.can_vote(asks_key, reaches);
        if granted && self.vote.is_none() {
            self.vote = Some(asks_key);
            // Who has just voted gives the candidate its time (Raft, 5.2).
            let later = self.election_deadline(now);
            if let State::Unattached(state) = &mut self.state {
                state.election_deadline = later;
            }
            self.persist();
        }
        Ok(granted)
    }

    /// Whether a message that names its receiver means this replica (KIP-853).
    pub(crate) fn is_addressed(&self, voter_id: i32, directory: Uuid) -> bool {
        // Version 0 names nobody.
        voter_id < 0 || self.me.may_be(ReplicaKey { id: NodeId(voter_id), directory })
    }

    /// Whether this replica would vote for one whose log reaches as far as its own.
    fn would_vote(&self) -> bool {
        match &self.state {
            State::Unattached(_)
            | State::Prospective(_)
            | State::Candidate(_)
            | State::Resigned(_) => true,
            State::Follower(state) => !state.has_fetched,
            State::Leader(leader) => leader.high_watermark.is_none(),
        }
    }

    fn can_vote(&self, candidate: ReplicaKey, reaches: bool) -> bool {
        match &self.state {
            State::Unattached(_) | State::Prospective(_) => match self.vote {
                Some(vote) => vote.may_be(candidate),
                // Who knows the epoch's leader need not elect one.
                None => reaches && self.leader().is_none(),
            },
            State::Follower(_) | State::Candidate(_) | State::Leader(_) | State::Resigned(_) => {
                false
            }
        }
    }

    /// Stands for election: asks first whether it would be elected (KIP-996). `losses` is how many
    /// elections it lost in a row.
    pub(crate) fn stand(&mut self, now: Now, losses: u32) {
        if self.leads_alone() {
            return self.become_candidate(now, losses);
        }
        let address = match &self.state {
            State::Follower(state) => Some(state.address.clone()),
            _ => None,
        };
        let leader = match &self.state {
            State::Prospective(state) => state.leader.clone(),
            _ => self.leader().map(|leader| (leader, address)),
        };
        let votes = Votes::new(self.quorum(), self.me);
        let deadline = self.election_deadline(now);
        self.enter(State::Prospective(Prospective { leader, votes, deadline, losses }));
    }

    fn become_candidate(&mut self, now: Now, losses: u32) {
        let Some(next) = self.next_epoch() else {
            // Nothing is left to stand for: wait for an operator, without asking again and again.
            return self.become_unattached_later(now);
        };
        self.enter_epoch(next);
        self.vote = Some(self.me);
        let votes = Votes::new(self.quorum(), self.me);
        if votes.is_won() {
            // The only voter: one write of quorum-state holds vote and leadership.
            return self.become_leader(now, &votes);
        }
        let (deadline, is_backing_off) = (self.election_deadline(now), false);
        self.enter(State::Candidate(Candidate { votes, deadline, losses, is_backing_off }));
    }

    fn become_unattached_later(&mut self, now: Now) {
        let election_deadline = self.election_deadline(now);
        self.enter(State::Unattached(Unattached { leader: None, election_deadline }));
    }

    /// Goes on as a prospective or a candidate; whether the state is another one now.
    pub(crate) fn campaign(&mut self, now: Now) -> bool {
        match &self.state {
            State::Prospective(state) if state.votes.is_won() => {
                let losses = state.losses;
                self.become_candidate(now, losses);
                true
            }
            State::Prospective(state) if state.votes.is_lost() => {
                // The others have a leader that works, or a log that reaches further.
                match state.leader.clone() {
                    Some((leader, Some(address))) => {
                        self.become_follower(now, self.epoch, leader, address);
                    }
                    leader => {
                        let leader = leader.map(|(leader, _)| leader);
                        self.become_unattached(now, self.epoch, leader);
                    }
                }
                true
            }
            State::Prospective(state) if self.may_stand() && state.deadline <= now.clock => {
                let losses = state.losses + 1;
                self.stand(now, losses);
                true
            }
            State::Candidate(state) if state.votes.is_won() => {
                let votes = state.votes.clone();
                self.become_leader(now, &votes);
                true
            }
            State::Candidate(state) if self.may_stand() && state.deadline <= now.clock => {
                let losses = state.losses + 1;
                self.stand(now, losses);
                true
            }
            State::Candidate(state) if state.votes.is_lost() && !state.is_backing_off => {
                let losses = state.losses;
                let deadline = now.clock.after(self.backoff(losses));
                let State::Candidate(state) = &mut self.state else { return false };
                (state.deadline, state.is_backing_off) = (deadline, true);
                false
            }
            State::Prospective(state) => {
                let open: Vec<_> = state.votes.open().collect();
                self.ask_for_votes(now, &open, true);
                false
            }
            State::Candidate(state) => {
                let open: Vec<_> = state.votes.open().collect();
                self.ask_for_votes(now, &open, false);
                false
            }
            _ => false,
        }
    }

    /// Binary exponential: 50 ms, doubled with each election lost, up to `election.backoff.max`; a random
    /// part of it, so that two candidates do not split the votes again.
    fn backoff(&mut self, losses: u32) -> Duration {
        const FIRST: Duration = Duration::from_millis(50);
        let limit = FIRST.saturating_mul(1 << losses.min(16));
        let limit = limit.min(self.settings.timers.election_backoff_max);
        self.random().below(limit)
    }

    fn ask_for_votes(&mut self, now: Now, voters: &[ReplicaKey], pre_vote: bool) {
        for voter in voters {
            let Some(address) = self.address_of(voter.id) else { continue };
            let partition = VotePartition {
                replica_epoch: self.epoch.0,
                replica_id: self.me.id.0,
                replica_directory_id: self.me.directory,
                voter_directory_id: voter.directory,
                last_offset_epoch: self.log.last_epoch().0,
                last_offset: self.log.end().0,
                pre_vote,
                ..VotePartition::default()
            };
            let partitions = vec![partition];
            let topic = VoteTopic { topic_name: TOPIC.into(), partitions, ..VoteTopic::default() };
            let request = VoteRequest {
                cluster_id: Some(self.settings.cluster_id.clone()),
                voter_id: voter.id.0,
                topics: vec![topic],
                ..VoteRequest::default()
            };
            self.ask(now, voter.id, &address, Asked::Vote, Request::Vote(request));
        }
    }

    /// Counts an answer; whether it was one.
    pub(crate) fn voted(&mut self, now: Now, voter: NodeId, response: &VoteResponse) -> bool {
        let ours = |topic: &VotedTopic| topic.topic_name == TOPIC;
        let partition =
            only(&response.topics, ours, |topic| &topic.partitions[..], |p| p.partition_index);
        let Some(partition) = partition.filter(|_| response.error_code == 0) else { return false };
        let address = address_in(&response.node_endpoints, partition.leader_id);
        let (leader, epoch) = (partition.leader_id, partition.leader_epoch);
        if !self.told_by_response(now, leader, epoch, address) {
            return false;
        }
        if Code::of(partition.error_code) == Code::UnsupportedVersion {
            return self.pre_vote_unsupported(now);
        }
        if partition.error_code != 0 {
            return false;
        }
        match &mut self.state {
            State::Prospective(state) => state.votes.count(voter, partition.vote_granted),
            State::Candidate(state) => state.votes.count(voter, partition.vote_granted),
            _ => return false,
        }
        true
    }

    /// A voter knows no pre-votes (it is older than KIP-996): then there are none.
    pub(crate) fn pre_vote_unsupported(&mut self, now: Now) -> bool {
        let State::Prospective(state) = &self.state else { return false };
        let losses = state.losses;
        self.become_candidate(now, losses);
        true
    }

    fn become_leader(&mut self, now: Now, votes: &Votes) {
        let start = self.log.end();
        let resign_at = self.resign_deadline(now);
        self.enter(State::Leader(Leader::new(start, resign_at)));
        let voter = |key: ReplicaKey| Voter {
            voter_id: key.id.0,
            // Told since version 1 of the record, which Apache does not write yet.
            voter_directory_id: Uuid::ZERO,
            ..Voter::default()
        };
        let (voters, granted) = votes.result();
        let change = LeaderChange {
            leader_id: self.me.id.0,
            voters: voters.iter().copied().map(voter).collect(),
            granting_voters: granted.map(voter).collect(),
            ..LeaderChange::default()
        };
        let mut first = vec![ControlRecord::LeaderChange(change)];
        first.extend(self.voters_to_tell());
        self.append_control(now, &first);
        self.lead_from(now);
    }

    /// What the first batch of an epoch says of the voters: all, where the log does not name them yet or
    /// this one has moved.
    fn voters_to_tell(&self) -> Vec<ControlRecord> {
        let quorum = self.quorum();
        let Some(known) = quorum.voter(self.me).filter(|_| quorum.kraft_version >= 1) else {
            return Vec::new();
        };
        if *known == self.myself && self.quorums.in_log() {
            return Vec::new();
        }
        let kraft_version = quorum.kraft_version;
        let mut voters = quorum.voters.clone();
        for voter in &mut voters.voters {
            if voter.voter_id == self.me.id.0 {
                *voter = self.myself.clone();
            }
        }
        let version = KraftVersion { kraft_version, ..KraftVersion::default() };
        vec![ControlRecord::KraftVersion(version), ControlRecord::KraftVoters(voters)]
    }
}
