//! Who votes, by which protocol, and since which offset (KIP-853).
//!
//! Invariants: a set counts from the batch that tells it on, committed or not; cutting the log brings the
//! set before it back; two sets that follow each other differ by one voter, but for a set that a snapshot
//! or the upgrade from `kraft.version` 0 brings whole.

use crate::control::{ControlRecord, KraftVoter, KraftVoters, VoterEndpoint};
use alloc::vec::Vec;
use flowstone_types::{NodeId, Offset, Uuid};

/// A replica of the metadata log: a disk that was replaced is another one (KIP-853).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaKey {
    /// Its node id.
    pub id: NodeId,
    /// The id of its metadata log directory; zero where it is not known, as at `kraft.version` 0.
    pub directory: Uuid,
}

impl ReplicaKey {
    /// Whether `other` may be this replica: a directory that is not known says nothing against it.
    pub const fn may_be(self, other: Self) -> bool {
        let same_directory = self.directory.0 == other.directory.0;
        self.id.0 == other.id.0
            && (same_directory || self.directory.is_zero() || other.directory.is_zero())
    }
}

/// A level of `kraft.version`, and the voters.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Quorum {
    /// 1 where voters are told in the log, 0 where they are configured.
    pub kraft_version: i16,
    /// The voters. May be none: the node then only observes, and asks its bootstrap servers.
    pub voters: KraftVoters,
}

impl Quorum {
    /// The voters' keys.
    pub fn keys(&self) -> impl Iterator<Item = ReplicaKey> {
        self.voters.voters.iter().map(key)
    }

    /// Whether a replica votes.
    pub fn has(&self, replica: ReplicaKey) -> bool {
        self.voter(replica).is_some()
    }

    /// The voter that a replica is.
    pub fn voter(&self, replica: ReplicaKey) -> Option<&KraftVoter> {
        self.voters.voters.iter().find(|voter| key(voter).may_be(replica))
    }

    /// The voter with this node id.
    pub fn with_id(&self, id: NodeId) -> Option<&KraftVoter> {
        self.voters.voters.iter().find(|voter| voter.voter_id == id.0)
    }

    /// How many voters decide.
    pub const fn majority(&self) -> usize {
        self.voters.voters.len() / 2 + 1
    }

    /// How many voters there are.
    pub const fn len(&self) -> usize {
        self.voters.voters.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.voters.voters.is_empty()
    }

    /// Whether this replica's vote alone decides.
    pub fn is_only(&self, replica: ReplicaKey) -> bool {
        self.len() == 1 && self.has(replica)
    }
}

/// A voter's key.
pub const fn key(voter: &KraftVoter) -> ReplicaKey {
    ReplicaKey { id: NodeId(voter.voter_id), directory: voter.voter_directory_id }
}

/// The endpoint of that listener.
pub fn endpoint<'a>(endpoints: &'a [VoterEndpoint], listener: &str) -> Option<&'a VoterEndpoint> {
    endpoints.iter().find(|endpoint| endpoint.name.eq_ignore_ascii_case(listener))
}

/// Every quorum that the log tells of, from the one that held at its start to the last one.
#[derive(Clone, PartialEq, Debug)]
pub struct QuorumHistory {
    /// What held before the first entry: of the snapshot at the log's start, or configured.
    base: Quorum,
    /// Whether `base` stands in a snapshot of the log (not in the 0-0 one): else a first leader tells it.
    base_in_log: bool,
    /// By the base offset of the batch that tells it.
    entries: Vec<(Offset, Quorum)>,
}

impl QuorumHistory {
    /// Starts from what is configured, or what the 0-0 snapshot of a formatted node tells.
    pub const fn configured(base: Quorum) -> Self {
        Self { base, base_in_log: false, entries: Vec::new() }
    }

    /// Starts from what a snapshot tells.
    pub const fn of_snapshot(base: Quorum) -> Self {
        Self { base, base_in_log: true, entries: Vec::new() }
    }

    /// The quorum that counts.
    pub fn last(&self) -> &Quorum {
        self.entries.last().map_or(&self.base, |(_, quorum)| quorum)
    }

    /// Where the last quorum is told in the log; `None` where a snapshot or the configuration tells it.
    pub fn last_offset(&self) -> Option<Offset> {
        self.entries.last().map(|(offset, _)| *offset)
    }

    /// The quorum that held behind everything below `end`: what a snapshot there tells.
    pub fn at(&self, end: Offset) -> &Quorum {
        let told = self.entries.iter().rev().find(|(offset, _)| *offset < end);
        told.map_or(&self.base, |(_, quorum)| quorum)
    }

    /// Every quorum that may count yet where everything below `committed` is: the one that held there, and
    /// those told since.
    pub fn since(&self, committed: Offset) -> impl Iterator<Item = &Quorum> {
        let later = self.entries.iter().filter(move |(offset, _)| *offset >= committed);
        core::iter::once(self.at(committed)).chain(later.map(|(_, quorum)| quorum))
    }

    /// Whether the voters stand in the log, or in a snapshot of it.
    pub fn in_log(&self) -> bool {
        self.base_in_log || !self.entries.is_empty()
    }

    /// Takes in the control records of a batch.
    pub fn append(&mut self, base_offset: Offset, records: &[ControlRecord]) {
        let mut quorum = None;
        for record in records {
            match record {
                ControlRecord::KraftVersion(record) => {
                    quorum.get_or_insert_with(|| self.last().clone()).kraft_version =
                        record.kraft_version;
                }
                ControlRecord::KraftVoters(record) => {
                    quorum.get_or_insert_with(|| self.last().clone()).voters = record.clone();
                }
                ControlRecord::LeaderChange(_)
                | ControlRecord::SnapshotHeader(_)
                | ControlRecord::SnapshotFooter(_)
                | ControlRecord::Other => {}
            }
        }
        self.entries.extend(quorum.map(|quorum| (base_offset, quorum)));
    }

    /// Forgets what was told at `end` and behind it.
    pub fn truncate(&mut self, end: Offset) {
        self.entries.retain(|(offset, _)| *offset < end);
    }

    /// Forgets which quorums there were before `start`, where a snapshot now stands for them.
    pub fn drop_before(&mut self, start: Offset) {
        let (base, in_log) = (self.at(start).clone(), self.in_log());
        self.entries.retain(|(offset, _)| *offset >= start);
        self.base = base;
        self.base_in_log = in_log;
    }
}
