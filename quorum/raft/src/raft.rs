//! One replica of the metadata log: inputs in, effects out.
//!
//! This file has the way of an input; `start` has that of a start, `change` that of a change of state;
//! each rule is in the file of its RPC: `election` (Vote), `epochs` (BeginQuorumEpoch, EndQuorumEpoch), `follow` (fetching), `serve`
//! (being fetched from), `membership` (who votes).
//!
//! Invariants: epochs never go back; a vote, once given, stands for its epoch; what is said or done in an
//! epoch waits for the epoch's being on disk (the outbox); the high watermark never goes back.

use crate::control::{ControlRecord, KraftVoter, control_batch, read_control_batch};
use crate::io::{Destination, Effect, Fault, Input, Now, Request, Response};
use crate::leader::{Leader, UNCOMMITTED_BATCHES_MAX};
use crate::links::{Asked, Links, Peer};
use crate::log::Log;
use crate::quorum_state::QuorumState;
use crate::random::Random;
use crate::settings::{Role, Settings};
use crate::snapshot::SnapshotId;
use crate::snapshots::Snapshots;
use crate::state::{Address, Follower, Resigned, State};
use crate::voters::{Quorum, QuorumHistory, ReplicaKey, endpoint};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_batch::BatchHeader;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};

/// The replica.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) settings: Settings,
    pub(crate) me: ReplicaKey,
    /// This node as the others should know it.
    pub(crate) myself: KraftVoter,
    pub(crate) random: Random,
    pub(crate) epoch: LeaderEpoch,
    /// Whom this replica voted for in the epoch.
    pub(crate) vote: Option<ReplicaKey>,
    pub(crate) state: State,
    pub(crate) log: Log,
    pub(crate) quorums: QuorumHistory,
    /// What is known to be committed.
    pub(crate) high_watermark: Option<Offset>,
    pub(crate) snapshots: Snapshots,
    pub(crate) links: Links,
    pub(crate) out: Outbox,
    /// What `quorum-state` holds, or will once what is in the outbox is done.
    pub(crate) saved: Option<QuorumState>,
    pub(crate) told: Option<(LeaderEpoch, Option<NodeId>)>,
    pub(crate) is_stopping: bool,
}

/// Effects on their way out. One that follows a [`Effect::SaveState`] stays here until that is on disk. Its
/// length is bound by its causes: a request that the shell holds, one request to each peer, a batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Effect>,
    is_saving: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.queue.push_back(effect);
    }

    pub(crate) fn release(&mut self, effects: &mut Vec<Effect>) {
        while !self.is_saving
            && let Some(effect) = self.queue.pop_front()
        {
            self.is_saving = matches!(effect, Effect::SaveState(_));
            effects.push(effect);
        }
    }
}

impl Raft {
    /// Takes one input in. Afterwards nothing is due at `now` any more.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Tick => {}
            Input::Request { token, listener, request } => {
                self.request(now, token, &listener, request);
            }
            Input::Response { id, response } => {
                if let Some((peer, asked)) = self.links.answered(id) {
                    self.response(now, peer, asked, response);
                }
            }
            Input::StateSaved => {
                assert!(self.out.is_saving, "quorum-state was saved that nobody asked for");
                self.out.is_saving = false;
            }
            Input::Flushed { end } => {
                self.log.flush(end);
                self.advance_high_watermark(now);
            }
            Input::Truncated => self.log.truncated(),
            Input::SnapshotTaken(file) => self.snapshots.taken(file, now.clock),
            Input::SnapshotNotTaken(id) => self.snapshots.not_taken(id),
            Input::PieceWritten { id, end } => self.piece_written(id, end),
            Input::SnapshotInstalled { file, quorum } => self.installed(now, file, quorum),
            Input::SnapshotRefused(id) => self.log.replace_failed(id),
            Input::Dropped { log_bytes } => self.snapshots.dropped(log_bytes),
            Input::Resign(epoch) => {
                if epoch == self.epoch {
                    self.resign(now);
                }
            }
            Input::Shutdown => {
                self.is_stopping = true;
                self.resign(now);
            }
        }
        self.poll(now);
        self.out.release(effects);
    }

    /// When to give a [`Tick`](Input::Tick) at the latest; `None` while nothing is due by time.
    pub fn next_deadline(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Unattached(state) => self.may_stand().then_some(state.election_deadline),
            State::Follower(state) => {
                let fetch = self.may_stand().then_some(state.fetch_deadline);
                fetch.into_iter().chain(self.update_deadline(state)).min()
            }
            State::Prospective(state) => self.may_stand().then_some(state.deadline),
            State::Candidate(state) => self.may_stand().then_some(state.deadline),
            State::Leader(leader) => {
                let resign = (!self.leads_alone()).then_some(leader.resign_at);
                // Whoever cannot be told now is, once its link's own deadline is over.
                let ready = |id: &NodeId| self.links.is_ready(Peer::Node(*id));
                let begin = leader.begin_at.iter().filter(|(id, _)| ready(id));
                let begin = begin.map(|(_, at)| *at).min();
                [leader.next_deadline(), resign, begin].into_iter().flatten().min()
            }
            State::Resigned(state) => Some(state.election_deadline),
        };
        let snapshot = self.snapshot_end().and_then(|end| self.snapshots.next_deadline(end));
        [state, snapshot, self.links.next_deadline()].into_iter().flatten().min()
    }

    /// Appends a batch of the controller's, whose offset and epoch are in place: `epoch` must be the one
    /// that it decided in. Returns the log's end behind it. It is committed once
    /// [`Effect::Committed`] says so.
    pub fn append(
        &mut self,
        now: Now,
        epoch: LeaderEpoch,
        batch: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<Offset, AppendError> {
        let State::Leader(leader) = &self.state else { return Err(AppendError::NotLeader) };
        if epoch != self.epoch {
            return Err(AppendError::NotLeader);
        }
        if leader.batch_ends.len() >= UNCOMMITTED_BATCHES_MAX {
            return Err(AppendError::TooManyUncommitted);
        }
        let header = BatchHeader::parse(&batch).expect("the controller builds its batches");
        assert!(header.base_offset == self.log.end(), "a batch starts at the log's end");
        assert!(header.leader_epoch == epoch, "a batch is of its leader's epoch");
        assert!(header.total_len() == batch.len(), "one batch at a time");
        assert!(!header.attributes.is_control(), "control records are Raft's own");
        let end = self.append_own(now, &header, batch);
        self.poll(now);
        self.out.release(effects);
        Ok(end)
    }

    /// The epoch that this node leads, and where it starts in the log.
    pub const fn leading(&self) -> Option<(LeaderEpoch, Offset)> {
        match &self.state {
            State::Leader(leader) => Some((self.epoch, leader.epoch_start)),
            _ => None,
        }
    }

    /// The epoch.
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The epoch's leader, as far as it is known.
    pub const fn leader(&self) -> Option<NodeId> {
        match &self.state {
            State::Unattached(state) => state.leader,
            State::Follower(state) => Some(state.leader),
            State::Prospective(state) => match &state.leader {
                Some((leader, _)) => Some(*leader),
                None => None,
            },
            State::Candidate(_) => None,
            State::Leader(_) | State::Resigned(_) => Some(self.me.id),
        }
    }

    /// The state, for metrics, in Kafka's words.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Unattached(_) if !self.is_voter() => "unattached-observer",
            State::Unattached(_) if self.vote.is_some() => "unattached-voted",
            State::Unattached(_) => "unattached",
            State::Follower(_) if !self.is_voter() => "observer",
            State::Follower(_) => "follower",
            State::Prospective(_) => "prospective",
            State::Candidate(_) => "candidate",
            State::Leader(_) => "leader",
            State::Resigned(_) => "resigned",
        }
    }

    /// Everything below is committed; `None` while nothing is known to be.
    pub const fn high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// Where the log ends, flushed or not.
    pub const fn log_end(&self) -> Offset {
        self.log.end()
    }

    /// Where the log starts.
    pub const fn log_start(&self) -> Offset {
        self.log.start()
    }

    /// Who votes, committed or not.
    pub fn quorum(&self) -> &Quorum {
        self.quorums.last()
    }

    /// Who votes by everything below `end`: what a snapshot there tells.
    pub fn quorum_at(&self, end: Offset) -> &Quorum {
        self.quorums.at(end)
    }

    /// Whether this replica votes.
    pub fn is_voter(&self) -> bool {
        self.settings.role == Role::Controller && self.quorum().has(self.me)
    }

    /// Whether this replica may have to lead: it votes, or it did by voters whose successors may not be
    /// committed yet. Their log may reach further than that of all who vote, so that nobody else can be
    /// elected; it leads without a vote then, until they are committed (Raft thesis, 4.2.2). Apache's
    /// voters wait for an operator there.
    pub(crate) fn may_be_needed(&self) -> bool {
        let committed = self.high_watermark.unwrap_or(Offset::ZERO);
        let mut quorums = self.quorums.since(committed);
        self.settings.role == Role::Controller && quorums.any(|quorum| quorum.has(self.me))
    }

    /// Whether this replica may stand for election. Not with a log that a crash might shorten: it keeps a
    /// vote that it was given, and would lead the same epoch without what the vote was given for.
    pub(crate) fn may_stand(&self) -> bool {
        self.may_be_needed() && !self.is_stopping && self.log.is_settled()
    }

    /// Whether this replica's vote alone decides.
    pub(crate) fn leads_alone(&self) -> bool {
        self.quorum().is_only(self.me)
    }

    pub(crate) fn follower(&self, leader: NodeId, address: Address, now: Now) -> Follower {
        let fetch_deadline = now.clock.after(self.settings.timers.fetch_timeout);
        Follower {
            leader,
            address,
            fetch_deadline,
            has_fetched: false,
            update_deadline: fetch_deadline,
            is_known: false,
            taking: None,
        }
    }

    /// Does what is due, until nothing is: time moves no state twice.
    pub(crate) fn poll(&mut self, now: Now) {
        while let Some(given_up) = self.links.expire(now.clock, &self.settings.timers) {
            if given_up == Asked::Versions {
                self.new_voter_failed();
            }
        }
        while self.step(now) {}
        self.snapshot_if_due(now);
    }

    /// One step of what is due; whether the state is another one now.
    fn step(&mut self, now: Now) -> bool {
        match &self.state {
            State::Unattached(state) => {
                if self.may_stand() && state.election_deadline <= now.clock {
                    self.stand(now, 0);
                    return true;
                }
                self.discover(now);
                false
            }
            State::Follower(state) => {
                if self.may_stand() && state.fetch_deadline <= now.clock {
                    self.stand(now, 0);
                    return true;
                }
                self.follow_on(now);
                false
            }
            State::Prospective(_) | State::Candidate(_) => self.campaign(now),
            State::Leader(_) => self.lead_on(now),
            State::Resigned(state) => {
                if state.election_deadline <= now.clock {
                    let Some(next) = self.next_epoch() else { return false };
                    self.become_unattached(now, next, None);
                    return true;
                }
                self.tell_end(now);
                false
            }
        }
    }

    /// Raises what is known to be committed.
    pub(crate) fn raise_high_watermark(&mut self, high_watermark: Offset) {
        if Some(high_watermark) > self.high_watermark {
            assert!(high_watermark <= self.log.end(), "what is committed is in the log");
            self.high_watermark = Some(high_watermark);
            self.snapshots.committed(high_watermark);
            self.out.push(Effect::Committed(high_watermark));
        }
    }

    /// Takes a batch of this leader's into the log.
    pub(crate) fn append_own(&mut self, now: Now, header: &BatchHeader, batch: Bytes) -> Offset {
        let end = header.last_offset().plus(1);
        self.log.append(self.epoch, end);
        self.snapshots.appended(end, batch.len() as u64, now.wall);
        let State::Leader(leader) = &mut self.state else { panic!("only a leader appends") };
        leader.batch_ends.push_back(end);
        self.out.push(Effect::Append { batches: batch, end });
        self.answer_waiting(now);
        end
    }

    /// Appends control records; voters count from here on (KIP-853).
    pub(crate) fn append_control(&mut self, now: Now, records: &[ControlRecord]) -> Offset {
        let base = self.log.end();
        let batch = control_batch(base, self.epoch, now.wall, records);
        self.quorums.append(base, records);
        let header = BatchHeader::parse(&batch).expect("we built it");
        self.append_own(now, &header, batch)
    }

    /// Takes a batch of the leader's into the log, if it belongs there.
    pub(crate) fn append_fetched(&mut self, header: &BatchHeader, batch: &Bytes) -> bool {
        let belongs = header.base_offset == self.log.end()
            && header.last_offset() >= header.base_offset
            && header.leader_epoch <= self.epoch
            && header.leader_epoch >= self.log.last_epoch()
            && flowstone_batch::crc_ok(batch);
        if !belongs {
            return false;
        }
        if header.attributes.is_control() {
            let Ok(records) = read_control_batch(batch) else { return false };
            self.quorums.append(header.base_offset, &records);
        }
        let end = header.last_offset().plus(1);
        self.log.append(header.leader_epoch, end);
        self.snapshots.appended(end, batch.len() as u64, header.max_timestamp);
        true
    }

    /// Where a snapshot would end: at what is committed, once this replica's own log holds it, too, after
    /// a crash.
    fn snapshot_end(&self) -> Option<Offset> {
        let flushed = |end: &Offset| *end <= self.log.flushed() && !self.log.is_being_replaced();
        self.high_watermark.filter(flushed)
    }

    fn snapshot_if_due(&mut self, now: Now) {
        let Some(end) = self.snapshot_end() else { return };
        if let Some(last_timestamp) = self.snapshots.due(end, now.clock) {
            let id = SnapshotId { end, epoch: self.log.epoch_before(end) };
            self.snapshots.take(id);
            self.out.push(Effect::TakeSnapshot { id, last_timestamp });
        }
        if let Some(id) = self.snapshots.drop_due(now) {
            self.log.drop_before(id);
            self.quorums.drop_before(id.end);
            self.out.push(Effect::DropBefore(id));
        }
    }

    pub(crate) fn next_epoch(&mut self) -> Option<LeaderEpoch> {
        let next = self.epoch.0.checked_add(1).map(LeaderEpoch);
        if next.is_none() {
            self.out.push(Effect::Fault(Fault::NoEpochsLeft));
        }
        next
    }

    /// The voters beside this node.
    pub(crate) fn others(&self) -> impl Iterator<Item = ReplicaKey> {
        self.quorum().keys().filter(|voter| !voter.may_be(self.me))
    }

    /// Where a voter is, on the quorum's own listener.
    pub(crate) fn address_of(&self, id: NodeId) -> Option<Address> {
        let voter = self.quorum().with_id(id)?;
        let at = endpoint(&voter.endpoints, &self.settings.listener)?;
        Some(Address { host: at.host.clone(), port: at.port })
    }

    /// Uniform in [`election_timeout`, 2 x `election_timeout`).
    pub(crate) fn election_deadline(&mut self, now: Now) -> Instant {
        let least = self.settings.timers.election_timeout;
        now.clock.after(least + self.random.below(least))
    }

    pub(crate) const fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Asks a node something, if it is not being asked already.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        id: NodeId,
        at: &Address,
        asked: Asked,
        request: Request,
    ) {
        let (host, port) = (at.host.clone(), at.port);
        self.send(now, Peer::Node(id), Destination::Node { id, host, port }, asked, request);
    }

    pub(crate) fn send(
        &mut self,
        now: Now,
        peer: Peer,
        to: Destination,
        asked: Asked,
        request: Request,
    ) {
        if self.links.is_ready(peer) {
            let id = self.links.ask(peer, asked, now.clock, &self.settings.timers);
            self.out.push(Effect::Send { id, to, request });
        }
    }

    pub(crate) fn respond(&mut self, token: crate::io::Token, response: Response) {
        self.out.push(Effect::Respond { token, response });
    }

    /// Ceases to lead, if it does.
    pub(crate) fn resign(&mut self, now: Now) {
        let State::Leader(leader) = &self.state else { return };
        let successors = Leader::successors(leader, self.quorum(), self.me);
        let untold = successors.iter().map(|voter| voter.id).collect();
        let election_deadline = self.election_deadline(now);
        self.enter(State::Resigned(Resigned { election_deadline, untold, successors }));
    }
}

/// A batch that is not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// This node does not lead that epoch.
    #[error("this node does not lead that epoch")]
    NotLeader,
    /// Too many batches wait to be committed: the quorum does not follow.
    #[error("{UNCOMMITTED_BATCHES_MAX} batches wait to be committed")]
    TooManyUncommitted,
}
