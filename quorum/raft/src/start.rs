//! How a replica starts: from `quorum-state`, log and snapshots to its first state (reference section 2.1).
//!
//! Separate because it is the one place that trusts the disk. Invariants: what was promised in an epoch
//! holds after a crash in it; a node that led never goes on leading the same epoch.

use crate::control::KraftVoter;
use crate::io::{Effect, Now};
use crate::links::Links;
use crate::log::Log;
use crate::quorum_state::QuorumState;
use crate::raft::{Outbox, Raft};
use crate::random::Random;
use crate::settings::{Role, Settings, StartError, Stored};
use crate::snapshot::SnapshotId;
use crate::snapshots::Snapshots;
use crate::state::{Candidate, Resigned, State, Unattached, Votes};
use crate::voters::{ReplicaKey, endpoint};
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Uuid};

impl Raft {
    /// Starts with what is on disk. `endpoints` is this node as others reach it, and what it supports;
    /// `seed` is where its chance comes from: another one for each node and start.
    ///
    /// A node that led before does not know what it had promised, so it never goes on in its epoch
    /// (reference section 2.1). The only voter waits for nobody: it leads, in a new epoch, as soon as that
    /// is on disk.
    pub fn start(
        settings: Settings,
        me: ReplicaKey,
        endpoints: KraftVoter,
        stored: Stored,
        seed: u64,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<Self, StartError> {
        if me.directory.is_zero() {
            return Err(StartError::NoDirectory);
        }
        if stored.quorum.last().is_empty() && settings.bootstrap_servers == 0 {
            return Err(StartError::NoVoters);
        }
        if settings.role == Role::Controller
            && endpoint(&endpoints.endpoints, &settings.listener).is_none()
        {
            return Err(StartError::NoEndpoint(settings.listener));
        }
        let Stored { state, epochs, log_start, log_end, quorum, mut snapshots, .. } = stored;
        let oldest = snapshots.iter().map(|file| file.id).find(|id| id.end >= log_start);
        let oldest = oldest.filter(|_| log_start > Offset::ZERO);
        let newest = snapshots.last().map_or(SnapshotId::BOOTSTRAP, |file| file.id);
        if newest.end > log_end || (oldest.is_none() && log_start > Offset::ZERO) {
            return Err(StartError::Gap { log_start, log_end, snapshot: newest.end });
        }
        // Where the batch before the start is in no snapshot, a crash came between dropping one and
        // dropping its log: the rest of that is done now.
        let unknown = SnapshotId { end: log_start, epoch: LeaderEpoch(0) };
        let exact = oldest.filter(|id| id.end == log_start);
        let mut log = Log::new(exact.unwrap_or(unknown), epochs, log_end);
        let mut out = Outbox::default();
        if let Some(oldest) = oldest
            && (exact.is_none() || snapshots[0].id < oldest)
        {
            log.drop_before(oldest);
            snapshots.retain(|file| file.id >= oldest);
            out.push(Effect::DropBefore(oldest));
        }
        let last_epoch = log.last_epoch();
        // A file behind the log has lost what the log proves (reference section 2.1).
        let election = state.clone().filter(|state| state.epoch >= last_epoch);
        let snapshots = Snapshots::new(
            settings.retention,
            snapshots,
            stored.log_bytes,
            stored.log_bytes_behind_snapshot,
            now.clock,
        );
        let unattached = Unattached { leader: None, election_deadline: now.clock };
        let mut raft = Self {
            settings,
            me,
            myself: endpoints,
            random: Random(seed),
            epoch: election.as_ref().map_or(last_epoch, |state| state.epoch),
            vote: election.as_ref().and_then(voted),
            state: State::Unattached(unattached),
            log,
            quorums: quorum,
            // Only what is committed goes into a snapshot.
            high_watermark: (newest.end > Offset::ZERO).then_some(newest.end),
            snapshots,
            links: Links::default(),
            out,
            saved: Some(state.unwrap_or(NEVER_SAVED)),
            told: None,
            is_stopping: false,
        };
        if raft.epoch.0 == i32::MAX {
            return Err(StartError::NoEpochsLeft);
        }
        let leader = election.map(|state| state.leader).filter(|leader| *leader != NodeId::NONE);
        raft.state = raft.first_state(leader, now);
        // The only voter's file is written once, with what it is about to become.
        if !raft.leads_alone() {
            raft.persist();
            raft.announce();
        }
        raft.poll(now);
        raft.out.release(effects);
        Ok(raft)
    }

    fn first_state(&mut self, leader: Option<NodeId>, now: Now) -> State {
        let election_deadline =
            if self.leads_alone() { now.clock } else { self.election_deadline(now) };
        if leader == Some(self.me.id) && self.may_be_needed() && !self.leads_alone() {
            let untold = self.others().map(|voter| voter.id).collect();
            return State::Resigned(Resigned { election_deadline, untold, successors: Vec::new() });
        }
        let leader = leader.filter(|leader| *leader != self.me.id);
        if let Some(leader) = leader
            && let Some(address) = self.address_of(leader)
        {
            return State::Follower(self.follower(leader, address, now));
        }
        // At `kraft.version` 0 the file has no directory.
        if self.vote.is_some_and(|vote| vote.may_be(self.me)) && self.may_stand() {
            let votes = Votes::new(self.quorum(), self.me);
            let (deadline, losses) = (election_deadline, 0);
            return State::Candidate(Candidate { votes, deadline, losses, is_backing_off: false });
        }
        State::Unattached(Unattached { leader, election_deadline })
    }
}

/// What a node without a `quorum-state` is in.
const NEVER_SAVED: QuorumState = QuorumState {
    epoch: LeaderEpoch(0),
    leader: NodeId::NONE,
    voted: NodeId::NONE,
    voted_directory: Uuid::ZERO,
};

/// Whom a `quorum-state` voted for.
fn voted(state: &QuorumState) -> Option<ReplicaKey> {
    (state.voted != NodeId::NONE)
        .then_some(ReplicaKey { id: state.voted, directory: state.voted_directory })
}
