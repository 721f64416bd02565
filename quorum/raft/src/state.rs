//! What a replica is in its epoch: KIP-595's states, with the pre-vote's (KIP-996).
//!
//! Invariants: each holds only what is true in it; the vote is no part of one, for it outlives them
//! within its epoch. KIP-595's "voted" is [`Unattached`] in an epoch whose vote is given.

use crate::leader::Leader;
use crate::snapshot::SnapshotId;
use crate::voters::{Quorum, ReplicaKey};
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_types::{Instant, NodeId};

/// The state.
#[derive(Clone, Debug)]
pub enum State {
    /// No leader can be reached: a voter waits for one, or for its turn to stand.
    Unattached(Unattached),
    /// It fetches from a leader.
    Follower(Follower),
    /// It asks whether it would be elected, in an epoch that stays as it is.
    Prospective(Prospective),
    /// It has voted for itself in a new epoch, and asks for votes.
    Candidate(Candidate),
    /// It leads.
    Leader(Leader),
    /// It led this epoch, and does so no more: it will not vote in it either.
    Resigned(Resigned),
}

/// See [`State::Unattached`].
#[derive(Clone, Debug)]
pub struct Unattached {
    /// The epoch's leader, where it is known by name, but not where it is.
    pub leader: Option<NodeId>,
    /// When a voter stands for election.
    pub election_deadline: Instant,
}

/// Where a node is reached, on the quorum's own listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// See [`State::Follower`].
#[derive(Clone, Debug)]
pub struct Follower {
    /// The leader.
    pub leader: NodeId,
    /// Where it is.
    pub address: Address,
    /// When a voter stands for election, if it could not fetch until then.
    pub fetch_deadline: Instant,
    /// Whether it ever fetched from this leader: then it helps nobody to depose it (KIP-996).
    pub has_fetched: bool,
    /// When to tell the leader who this voter is, or that this controller would be one.
    pub update_deadline: Instant,
    /// Whether this leader knows it (UpdateRaftVoter at `kraft.version` 0).
    pub is_known: bool,
    /// The snapshot that it takes instead of fetching.
    pub taking: Option<Taking>,
}

/// A snapshot on its way from the leader.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// Which.
    pub id: SnapshotId,
    /// Bytes that came.
    pub position: u64,
    /// The file's size, once it is known.
    pub size: Option<u64>,
    /// Whether the last piece is on its way to the file.
    pub writing: bool,
}

/// See [`State::Prospective`].
#[derive(Clone, Debug)]
pub struct Prospective {
    /// The leader that it could not fetch from, if it had one: it goes back to it where the others would
    /// not elect this node.
    pub leader: Option<(NodeId, Option<Address>)>,
    /// Who would vote for it.
    pub votes: Votes,
    /// When it asks anew.
    pub deadline: Instant,
    /// How many elections it lost in a row.
    pub losses: u32,
}

/// See [`State::Candidate`].
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who voted for it.
    pub votes: Votes,
    /// When the election counts as lost, or, once it is, when it asks anew.
    pub deadline: Instant,
    /// How many elections it lost in a row.
    pub losses: u32,
    /// Whether this one is lost.
    pub is_backing_off: bool,
}

/// See [`State::Resigned`].
#[derive(Clone, Debug)]
pub struct Resigned {
    /// When it may stand again, in another epoch.
    pub election_deadline: Instant,
    /// Who has not been told.
    pub untold: BTreeSet<NodeId>,
    /// Who should stand next, the best first.
    pub successors: Vec<ReplicaKey>,
}

/// An election, as far as it is counted.
#[derive(Clone, Debug)]
pub struct Votes {
    voters: Vec<ReplicaKey>,
    granted: BTreeSet<NodeId>,
    rejected: BTreeSet<NodeId>,
}

impl Votes {
    /// An election among the voters of `quorum`, with the vote of `me`, if that has one.
    pub fn new(quorum: &Quorum, me: ReplicaKey) -> Self {
        let granted = quorum.voter(me).map(|_| me.id).into_iter().collect();
        Self { voters: quorum.keys().collect(), granted, rejected: BTreeSet::new() }
    }

    /// Counts an answer; of those who vote, the first one of each.
    pub fn count(&mut self, voter: NodeId, granted: bool) {
        let votes = self.voters.iter().any(|known| known.id == voter);
        if votes && !self.granted.contains(&voter) && !self.rejected.contains(&voter) {
            if granted { &mut self.granted } else { &mut self.rejected }.insert(voter);
        }
    }

    /// Whether a majority granted.
    pub fn is_won(&self) -> bool {
        self.granted.len() > self.voters.len() / 2
    }

    /// Whether no majority can grant any more.
    pub fn is_lost(&self) -> bool {
        self.voters.len() - self.rejected.len() <= self.voters.len() / 2
    }

    /// Who has not answered.
    pub fn open(&self) -> impl Iterator<Item = ReplicaKey> {
        let answered = |id: NodeId| self.granted.contains(&id) || self.rejected.contains(&id);
        self.voters.iter().copied().filter(move |voter| !answered(voter.id))
    }

    /// The voters, and those of them who granted.
    pub fn result(&self) -> (&[ReplicaKey], impl Iterator<Item = ReplicaKey>) {
        let granted = |voter: &&ReplicaKey| self.granted.contains(&voter.id);
        (&self.voters, self.voters.iter().filter(granted).copied())
    }
}
