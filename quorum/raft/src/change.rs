//! From one state to the next (KIP-595's transitions), and what is said of it.
//!
//! Separate because every RPC leads here. Invariants: an epoch is entered without a vote, and never left
//! for a lower one; `quorum-state` holds the new state before anything is said in it; an epoch has one
//! leader, and whoever is told of two says so.

use crate::io::{Effect, Fault, Now};
use crate::quorum_state::QuorumState;
use crate::raft::Raft;
use crate::state::{Address, Candidate, Follower, Prospective, State, Unattached};
use flowstone_types::{LeaderEpoch, NodeId, Uuid};

impl Raft {
    /// Moves to another state of the same epoch, or of one that was entered just before.
    pub(crate) fn enter(&mut self, state: State) {
        let old = core::mem::replace(&mut self.state, state);
        self.links.forget();
        self.persist();
        self.announce();
        if let State::Leader(leader) = old {
            self.abandon(leader);
        }
    }

    /// Moves on to `epoch`, without a vote in it.
    pub(crate) fn enter_epoch(&mut self, epoch: LeaderEpoch) {
        assert!(epoch >= self.epoch, "epochs never go back");
        if epoch > self.epoch {
            self.epoch = epoch;
            self.vote = None;
        }
    }

    /// Waits for a leader of `epoch`. A timer that runs keeps running: a message that brings a new epoch
    /// must not keep this voter from standing.
    pub(crate) fn become_unattached(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        leader: Option<NodeId>,
    ) {
        let election_deadline = match &self.state {
            State::Unattached(state) => state.election_deadline,
            State::Follower(Follower { fetch_deadline, .. }) => *fetch_deadline,
            State::Prospective(Prospective { deadline, .. })
            | State::Candidate(Candidate { deadline, .. }) => *deadline,
            State::Resigned(state) => state.election_deadline,
            State::Leader(_) => self.election_deadline(now),
        };
        self.enter_epoch(epoch);
        self.enter(State::Unattached(Unattached { leader, election_deadline }));
    }

    /// Follows the leader of `epoch`.
    pub(crate) fn become_follower(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        leader: NodeId,
        address: Address,
    ) {
        assert!(leader != self.me.id, "nobody follows itself");
        self.enter_epoch(epoch);
        let follower = self.follower(leader, address, now);
        self.enter(State::Follower(follower));
    }

    /// Takes in what a message says of an epoch and its leader.
    pub(crate) fn learn(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        leader: Option<NodeId>,
        address: Option<Address>,
    ) {
        if epoch < self.epoch {
            return;
        }
        // Whoever takes us for the leader of an epoch that we do not lead remembers more than our disk.
        let leader = leader.filter(|leader| *leader != self.me.id);
        let address = address.or_else(|| self.address_of(leader?));
        if epoch > self.epoch {
            match (leader, address) {
                (Some(leader), Some(address)) => self.become_follower(now, epoch, leader, address),
                (leader, _) => self.become_unattached(now, epoch, leader),
            }
            return;
        }
        let Some(told) = leader else { return };
        match self.leader() {
            Some(known) if known != told => {
                self.out.push(Effect::Fault(Fault::TwoLeaders { epoch, known, told }));
            }
            Some(_) => {
                if let (State::Unattached(_), Some(address)) = (&self.state, address) {
                    self.become_follower(now, epoch, told, address);
                }
            }
            None => match address {
                Some(address) => self.become_follower(now, epoch, told, address),
                None => self.become_unattached(now, epoch, leader),
            },
        }
    }

    /// Writes `quorum-state` where it does not hold what is true. A pre-vote changes nothing of it.
    pub(crate) fn persist(&mut self) {
        let leads = matches!(self.state, State::Leader(_) | State::Resigned(_));
        let vote = self.vote.filter(|_| !leads);
        let state = QuorumState {
            epoch: self.epoch,
            leader: self.leader().unwrap_or(NodeId::NONE),
            voted: vote.map_or(NodeId::NONE, |vote| vote.id),
            voted_directory: vote.map_or(Uuid::ZERO, |vote| vote.directory),
        };
        if self.saved.as_ref() != Some(&state) {
            self.saved = Some(state.clone());
            self.out.push(Effect::SaveState(state));
        }
    }

    pub(crate) fn announce(&mut self) {
        let leader = match &self.state {
            State::Resigned(_) => None,
            _ => self.leader(),
        };
        let now = Some((self.epoch, leader));
        if self.told != now {
            self.told = now;
            self.out.push(Effect::LeaderChanged { epoch: self.epoch, leader });
        }
    }
}
