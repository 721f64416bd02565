//! What a leader knows of the others: how far they are, and so what is committed; whether a majority
//! still follows; which voters are changing.
//!
//! Invariants: the high watermark is what a majority of the voters has *flushed*, this node's own log
//! included, and only once it lies behind the epoch's first batch (Raft, 5.4.2); it ends where a batch
//! ends and never goes back; there is one change of voters at a time.

use crate::control::KraftVoter;
use crate::io::{Now, Token};
use crate::messages::AddRaftVoterRequest;
use crate::voters::{Quorum, ReplicaKey};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, NodeId, Offset, Timestamp, Uuid};

/// Batches that a leader may have appended without their being committed: what check-quorum's three
/// seconds hold at some 5,000 batches a second.
pub const UNCOMMITTED_BATCHES_MAX: usize = 16_384;
/// Fetches that wait for news: as many as nodes that one quorum serves, and some tools.
pub const FETCHES_WAITING_MAX: usize = 4_096;
/// Replicas that a leader keeps count of: ten times the nodes of the largest clusters.
const REPLICAS_MAX: usize = 10_000;
/// How long a replica without a vote is told of after its last fetch (reference section 2.2).
const OBSERVER_TOLD_WITHIN: Duration = Duration::from_mins(5);
/// How recently an observer must have fetched to count as caught up (AddRaftVoter).
const CAUGHT_UP_WITHIN: Duration = Duration::from_hours(1);

/// A leader's state.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The base offset of the epoch's first batch.
    pub epoch_start: Offset,
    /// The high watermark, once something of this epoch is committed.
    pub high_watermark: Option<Offset>,
    /// Ends of this epoch's batches above the high watermark.
    pub batch_ends: VecDeque<Offset>,
    /// How far the others are.
    pub replicas: BTreeMap<ReplicaKey, Progress>,
    /// Voters that fetched since the check-quorum timer was last set.
    pub fetched: BTreeSet<NodeId>,
    /// When this leader resigns, if no majority has fetched until then.
    pub resign_at: Instant,
    /// When a voter that does not fetch is told again who leads.
    pub begin_at: BTreeMap<NodeId, Instant>,
    /// Fetches that wait for news.
    pub waiting: Vec<WaitingFetch>,
    /// The change of voters under way.
    pub change: Option<Change>,
    /// What UpdateRaftVoter told at `kraft.version` 0.
    pub told: BTreeMap<NodeId, KraftVoter>,
}

/// How far a replica is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Everything below it holds, flushed if it may vote.
    pub end: Offset,
    /// When it last fetched.
    pub fetched: Now,
    /// When it last had everything that this leader had then.
    pub caught_up: Option<Now>,
    /// This leader's log end when it last fetched.
    then: Offset,
}

/// A Fetch that waits for news.
#[derive(Clone, Debug)]
pub struct WaitingFetch {
    /// Its request.
    pub token: Token,
    /// The listener that it came in by.
    pub listener: String,
    /// Who asks; `None` for a consumer.
    pub replica: Option<ReplicaKey>,
    /// From which offset on.
    pub from: Offset,
    /// The high watermark that it knows; `None` where it does not say.
    pub knows: Option<Offset>,
    /// Most bytes.
    pub bytes_max: u32,
    /// When it is answered at the latest.
    pub deadline: Instant,
}

/// A change of voters.
#[derive(Clone, Debug)]
pub enum Change {
    /// The new voter is asked what it supports.
    Asking {
        /// The request to be answered.
        token: Token,
        /// What it asks for.
        request: AddRaftVoterRequest,
        /// When it is answered at the latest.
        deadline: Instant,
    },
    /// The new voters are in the log.
    Appended {
        /// The request to be answered.
        token: Token,
        /// Which kind it is.
        kind: ChangeKind,
        /// The end of the batch that tells them.
        end: Offset,
        /// When it is answered at the latest.
        deadline: Instant,
    },
}

/// Which RPC changes the voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// AddRaftVoter.
    Add,
    /// RemoveRaftVoter.
    Remove,
    /// UpdateRaftVoter.
    Update,
}

impl Change {
    /// When it is answered at the latest.
    pub const fn deadline(&self) -> Instant {
        match self {
            Self::Asking { deadline, .. } | Self::Appended { deadline, .. } => *deadline,
        }
    }
}

impl Leader {
    /// Starts to lead at `epoch_start`.
    pub fn new(epoch_start: Offset, resign_at: Instant) -> Self {
        Self {
            epoch_start,
            high_watermark: None,
            batch_ends: VecDeque::new(),
            replicas: BTreeMap::new(),
            fetched: BTreeSet::new(),
            resign_at,
            begin_at: BTreeMap::new(),
            waiting: Vec::new(),
            change: None,
            told: BTreeMap::new(),
        }
    }

    /// How far a voter is. At `kraft.version` 0 its directory is not known: the one that fetched last
    /// counts.
    pub fn progress(&self, voter: ReplicaKey) -> Option<&Progress> {
        let of = |directory| ReplicaKey { id: voter.id, directory };
        let all = self.replicas.range(of(Uuid::ZERO)..=of(Uuid(u128::MAX)));
        let of_voter = all.filter(|(replica, _)| replica.may_be(voter));
        of_voter.map(|(_, progress)| progress).max_by_key(|progress| progress.fetched.clock)
    }

    /// Notes a fetch: the replica holds everything below `end`. `log_end` is where this leader's log ends.
    pub fn note_fetch(
        &mut self,
        replica: ReplicaKey,
        quorum: &Quorum,
        end: Offset,
        log_end: Offset,
        now: Now,
    ) {
        let before = self.replicas.get(&replica);
        if before.is_none() && self.replicas.len() >= REPLICAS_MAX && !quorum.has(replica) {
            return; // One observer more is served, but not told of.
        }
        let caught_up = if end >= log_end {
            Some(now)
        } else {
            // It has what there was at its last fetch: it was caught up then (KIP-836).
            before.and_then(|old| if end >= old.then { Some(old.fetched) } else { old.caught_up })
        };
        self.replicas.insert(replica, Progress { end, fetched: now, caught_up, then: log_end });
    }

    /// Notes that a voter follows. Once a majority did, the check-quorum timer starts anew.
    pub fn note_follows(
        &mut self,
        voter: NodeId,
        quorum: &Quorum,
        me: ReplicaKey,
        resign_at: Instant,
    ) {
        self.fetched.insert(voter);
        let count = quorum.keys().filter(|key| self.fetched.contains(&key.id)).count();
        if count + usize::from(quorum.has(me)) >= quorum.majority() {
            self.fetched.clear();
            self.resign_at = resign_at;
        }
    }

    /// Raises the high watermark to what a majority has flushed; returns it where it rose.
    pub fn advance(&mut self, quorum: &Quorum, me: ReplicaKey, flushed: Offset) -> Option<Offset> {
        let end = |voter: ReplicaKey| {
            if voter.may_be(me) {
                return flushed;
            }
            self.progress(voter).map_or(Offset::ZERO, |progress| progress.end)
        };
        let mut ends: Vec<Offset> = quorum.keys().map(end).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let held = *ends.get(quorum.majority() - 1)?;
        let ended = self.batch_ends.iter().take_while(|end| **end <= held).count();
        let reached = self.batch_ends.drain(..ended).next_back()?;
        assert!(reached > self.epoch_start, "this epoch's batches lie behind its start");
        assert!(Some(reached) > self.high_watermark, "the high watermark never goes back");
        self.high_watermark = Some(reached);
        Some(reached)
    }

    /// Whether a replica may become a voter: it follows, and is not far behind.
    pub fn is_caught_up(&self, replica: ReplicaKey, now: Now) -> bool {
        self.replicas.get(&replica).is_some_and(|progress| {
            let recent = now.clock.since(progress.fetched.clock) < CAUGHT_UP_WITHIN;
            recent && progress.caught_up.is_some()
        })
    }

    /// Those who fetched lately without a vote.
    pub fn observers(
        &self,
        quorum: &Quorum,
        now: Now,
    ) -> impl Iterator<Item = (ReplicaKey, &Progress)> {
        let recent = move |progress: &Progress| {
            now.clock.since(progress.fetched.clock) < OBSERVER_TOLD_WITHIN
        };
        let all = self.replicas.iter().map(|(replica, progress)| (*replica, progress));
        all.filter(move |(replica, progress)| !quorum.has(*replica) && recent(progress))
    }

    /// Forgets observers that are gone for good.
    pub fn forget_observers(&mut self, quorum: &Quorum, now: Now) {
        self.replicas.retain(|replica, progress| {
            quorum.has(*replica) || now.clock.since(progress.fetched.clock) < CAUGHT_UP_WITHIN
        });
    }

    /// The voters other than `me`, the one that is furthest first: who should lead next.
    pub fn successors(&self, quorum: &Quorum, me: ReplicaKey) -> Vec<ReplicaKey> {
        let mut others: Vec<_> = quorum.keys().filter(|voter| !voter.may_be(me)).collect();
        let end = |voter: &ReplicaKey| self.progress(*voter).map_or(Offset(-1), |p| p.end);
        others.sort_by_key(|voter| core::cmp::Reverse(end(voter)));
        others
    }

    /// When this leader has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let fetches = self.waiting.iter().map(|fetch| fetch.deadline);
        let change = self.change.as_ref().map(Change::deadline);
        fetches.chain(change).min()
    }

    /// When the replica was last told of, for operators; -1 for never.
    pub fn wall(time: Option<Now>) -> Timestamp {
        time.map_or(Timestamp::NONE, |time| time.wall)
    }
}
