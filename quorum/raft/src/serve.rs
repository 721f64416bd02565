//! Being fetched from: Fetch and FetchSnapshot as the leader answers them (KIP-595, KIP-630), and the high
//! watermark that follows from it.
//!
//! Invariants: an offset counts for a replica only where its log is the beginning of this one; answers
//! hold uncommitted records, too, and never any beyond the log's end; a Fetch waits for news of the log or
//! of the high watermark (KIP-1166), one of each replica at a time, and is answered when the leader ceases
//! to lead; the 0-0 snapshot is never served.

use crate::code::Code;
use crate::io::{Effect, Now, Response, Token};
use crate::leader::{FETCHES_WAITING_MAX, Leader, WaitingFetch};
use crate::log::Position;
use crate::messages::{
    CurrentLeader, EpochEndOffset, FetchPartition, FetchRequest, FetchResponse,
    FetchSnapshotRequest, FetchSnapshotResponse, FetchTopic, FetchedPartition, FetchedSnapshotId,
    FetchedTopic, PieceId, PieceLeader, PiecePartition, PieceRequestPartition, PieceRequestTopic,
    PieceTopic,
};
use crate::raft::Raft;
use crate::rpc::{TOPIC, only};
use crate::snapshot::SnapshotId;
use crate::state::State;
use crate::voters::{ReplicaKey, key};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Uuid};

/// Most bytes in an answer, whatever is asked for.
const BYTES_MAX: i32 = 8 << 20;
/// Longest that a Fetch waits.
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Raft {
    pub(crate) fn on_fetch(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &FetchRequest,
    ) {
        let ours = |topic: &FetchTopic| {
            topic.topic_id == Uuid::METADATA_TOPIC
                || (topic.topic_id.is_zero() && topic.topic == TOPIC)
        };
        let partition = only(&request.topics, ours, |topic| &topic.partitions[..], |p| p.partition);
        let refused =
            |error: Code| FetchResponse { error_code: error.number(), ..FetchResponse::default() };
        let response = match partition {
            _ if !self.is_our_cluster(request.cluster_id.as_ref()) => {
                refused(Code::InconsistentClusterId)
            }
            None => refused(Code::InvalidRequest),
            Some(partition) => match self.check_fetch(request, partition) {
                Ok(()) => return self.serve(now, token, listener, request, partition),
                Err(error) => self.fetch_response(listener, error),
            },
        };
        self.respond(token, Response::Fetch(response));
    }

    fn check_fetch(&self, request: &FetchRequest, partition: &FetchPartition) -> Result<(), Code> {
        let epoch = partition.current_leader_epoch;
        let impossible = request.max_wait_ms < 0
            || partition.fetch_offset < 0
            || partition.last_fetched_epoch < 0
            || epoch < 0
            || partition.last_fetched_epoch > epoch;
        let replica = replica_of(request, partition);
        if impossible || replica == Some(self.me) {
            return Err(Code::InvalidRequest);
        }
        self.check_leads(epoch)
    }

    /// Whether a request that only the leader of `epoch` answers may be answered here.
    pub(crate) fn check_leads(&self, epoch: i32) -> Result<(), Code> {
        if epoch < self.epoch.0 {
            return Err(Code::FencedLeaderEpoch);
        }
        if epoch > self.epoch.0 {
            return Err(Code::UnknownLeaderEpoch);
        }
        match &self.state {
            State::Leader(_) => Ok(()),
            _ => Err(Code::NotLeaderOrFollower),
        }
    }

    fn serve(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &FetchRequest,
        partition: &FetchPartition,
    ) {
        let replica = replica_of(request, partition);
        let from = Offset(partition.fetch_offset);
        let last_epoch = LeaderEpoch(partition.last_fetched_epoch);
        if let Some(replica) = replica {
            self.note_follows(now, replica);
        }
        let position = self.log.compare(from, last_epoch, self.snapshots.range());
        let position = match position {
            Position::Valid => None,
            Position::Diverging(ours) => {
                let mut response = self.fetch_response(listener, Code::None);
                only_of(&mut response).diverging_epoch = EpochEndOffset {
                    epoch: ours.epoch.0,
                    end_offset: ours.end.0,
                    ..EpochEndOffset::default()
                };
                Some(response)
            }
            Position::Snapshot(id) => {
                let mut response = self.fetch_response(listener, Code::None);
                only_of(&mut response).snapshot_id = FetchedSnapshotId {
                    end_offset: id.end.0,
                    epoch: id.epoch.0,
                    ..FetchedSnapshotId::default()
                };
                Some(response)
            }
        };
        if let Some(response) = position {
            return self.respond(token, Response::Fetch(response));
        }
        let (log_end, quorum) = (self.log.end(), self.quorums.last());
        let State::Leader(leader) = &mut self.state else { panic!("checked above") };
        if let Some(replica) = replica {
            leader.note_fetch(replica, quorum, from, log_end, now);
        }
        // Answers itself, too, where it waits for the high watermark that it raises.
        self.advance_high_watermark(now);
        let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(WAIT_MAX);
        let bytes_max =
            partition.partition_max_bytes.min(request.max_bytes).clamp(0, BYTES_MAX) as u32;
        let knows = (partition.high_watermark != i64::MAX).then_some(partition.high_watermark);
        let fetch = WaitingFetch {
            token,
            listener: listener.into(),
            replica,
            from,
            knows: knows.map(Offset),
            bytes_max,
            deadline: now.clock.after(wait),
        };
        let State::Leader(leader) = &mut self.state else { panic!("checked above") };
        let superseded = replica.and_then(|replica| {
            leader.waiting.iter().position(|waiting| waiting.replica == Some(replica))
        });
        let superseded = superseded.map(|at| leader.waiting.swap_remove(at));
        let waits = !has_news(&fetch, leader, log_end)
            && fetch.deadline > now.clock
            && leader.waiting.len() < FETCHES_WAITING_MAX;
        if waits {
            leader.waiting.push(fetch.clone());
        }
        if let Some(superseded) = superseded {
            self.answer_fetch(&superseded);
        }
        if !waits {
            self.answer_fetch(&fetch);
        }
    }

    /// Notes that a replica follows; only voters count.
    fn note_follows(&mut self, now: Now, replica: ReplicaKey) {
        let (resign_at, quorum) = (self.resign_deadline(now), self.quorums.last());
        let begin_at = now.clock.after(self.settings.timers.fetch_timeout / 2);
        let Some(voter) = quorum.voter(replica).map(key) else { return };
        let State::Leader(leader) = &mut self.state else { return };
        leader.note_follows(voter.id, quorum, self.me, resign_at);
        leader.begin_at.insert(voter.id, begin_at);
    }

    /// Commits what a majority has flushed.
    pub(crate) fn advance_high_watermark(&mut self, now: Now) {
        let (quorum, flushed) = (self.quorums.last(), self.log.flushed());
        let State::Leader(leader) = &mut self.state else { return };
        let Some(high_watermark) = leader.advance(quorum, self.me, flushed) else { return };
        leader.forget_observers(quorum, now);
        self.raise_high_watermark(high_watermark);
        self.change_committed(high_watermark);
        self.answer_waiting(now);
    }

    /// Answers what waited and need not any more.
    pub(crate) fn answer_waiting(&mut self, now: Now) {
        let log_end = self.log.end();
        let State::Leader(leader) = &mut self.state else { return };
        let waiting = core::mem::take(&mut leader.waiting);
        let (done, waiting): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|fetch| fetch.deadline <= now.clock || has_news(fetch, leader, log_end));
        leader.waiting = waiting;
        for fetch in done {
            self.answer_fetch(&fetch);
        }
    }

    fn answer_fetch(&mut self, fetch: &WaitingFetch) {
        let response = self.fetch_response(&fetch.listener, Code::None);
        let (token, from, bytes_max) = (fetch.token, fetch.from, fetch.bytes_max);
        if from < self.log.end() {
            self.out.push(Effect::ReadAndRespond { token, from, bytes_max, response });
        } else {
            self.respond(token, Response::Fetch(response));
        }
    }

    /// Answers everybody who waits for a leader that is none any more.
    pub(crate) fn abandon(&mut self, leader: Leader) {
        for fetch in leader.waiting {
            let response = self.fetch_response(&fetch.listener, Code::NotLeaderOrFollower);
            self.respond(fetch.token, Response::Fetch(response));
        }
        if let Some(change) = leader.change {
            self.answer_change(&change, Code::NotLeaderOrFollower, "this node leads no more");
        }
    }

    fn fetch_response(&self, listener: &str, error: Code) -> FetchResponse {
        let told = self.told(listener);
        let high_watermark = self.leader_high_watermark().map_or(-1, |high| high.0);
        let current_leader = CurrentLeader {
            leader_id: told.id,
            leader_epoch: told.epoch,
            ..CurrentLeader::default()
        };
        let partition = FetchedPartition {
            error_code: error.number(),
            high_watermark,
            log_start_offset: self.log.start().0,
            current_leader,
            records: Some(Bytes::new()),
            ..FetchedPartition::default()
        };
        let topic = FetchedTopic {
            topic: TOPIC.into(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![partition],
            ..FetchedTopic::default()
        };
        let node_endpoints = told.fetch_nodes();
        FetchResponse { responses: vec![topic], node_endpoints, ..FetchResponse::default() }
    }

    pub(crate) fn on_piece(
        &mut self,
        now: Now,
        token: Token,
        listener: &str,
        request: &FetchSnapshotRequest,
    ) {
        let ours = |topic: &PieceRequestTopic| topic.name == TOPIC;
        let asked = only(&request.topics, ours, |topic| &topic.partitions[..], |p| p.partition);
        let refused = |error: Code| FetchSnapshotResponse {
            error_code: error.number(),
            ..FetchSnapshotResponse::default()
        };
        let response = match asked {
            _ if !self.is_our_cluster(request.cluster_id.as_ref()) => {
                refused(Code::InconsistentClusterId)
            }
            None => refused(Code::InvalidRequest),
            Some(asked) => {
                let (size, error) = match self.check_piece(asked) {
                    Ok(size) => (size, Code::None),
                    Err(error) => (0, error),
                };
                let response = self.piece_response(listener, error, size, asked);
                if error == Code::None {
                    let replica = ReplicaKey {
                        id: NodeId(request.replica_id),
                        directory: asked.replica_directory_id,
                    };
                    self.note_follows(now, replica);
                    let (id, position) = (id_of(asked), asked.position as u64);
                    let bytes_max = request.max_bytes.clamp(1, BYTES_MAX) as u32;
                    let effect =
                        Effect::ReadPieceAndRespond { token, id, position, bytes_max, response };
                    return self.out.push(effect);
                }
                response
            }
        };
        self.respond(token, Response::FetchSnapshot(response));
    }

    /// The size of the file, if there is something of it to be had.
    fn check_piece(&self, asked: &PieceRequestPartition) -> Result<u64, Code> {
        self.check_leads(asked.current_leader_epoch)?;
        let file = self.snapshots.file(id_of(asked)).ok_or(Code::SnapshotNotFound)?;
        let inside = u64::try_from(asked.position).is_ok_and(|position| position < file.bytes);
        inside.then_some(file.bytes).ok_or(Code::PositionOutOfRange)
    }

    fn piece_response(
        &self,
        listener: &str,
        error: Code,
        size: u64,
        asked: &PieceRequestPartition,
    ) -> FetchSnapshotResponse {
        let told = self.told(listener);
        let snapshot_id = PieceId {
            end_offset: asked.snapshot_id.end_offset,
            epoch: asked.snapshot_id.epoch,
            ..PieceId::default()
        };
        let current_leader =
            PieceLeader { leader_id: told.id, leader_epoch: told.epoch, ..PieceLeader::default() };
        let partition = PiecePartition {
            error_code: error.number(),
            snapshot_id,
            current_leader,
            size: size as i64,
            position: asked.position,
            ..PiecePartition::default()
        };
        let partitions = vec![partition];
        let topic = PieceTopic { name: TOPIC.into(), partitions, ..PieceTopic::default() };
        FetchSnapshotResponse {
            topics: vec![topic],
            node_endpoints: told.nodes(),
            ..FetchSnapshotResponse::default()
        }
    }
}

fn id_of(asked: &PieceRequestPartition) -> SnapshotId {
    SnapshotId {
        end: Offset(asked.snapshot_id.end_offset),
        epoch: LeaderEpoch(asked.snapshot_id.epoch),
    }
}

/// Who fetches; `None` for a consumer.
fn replica_of(request: &FetchRequest, partition: &FetchPartition) -> Option<ReplicaKey> {
    let id = request.replica_state.replica_id.max(request.replica_id);
    (id >= 0).then_some(ReplicaKey { id: NodeId(id), directory: partition.replica_directory_id })
}

/// Whether there is something that the fetching replica does not know: records, or, where it says what it
/// knows, a high watermark (KIP-1166).
fn has_news(fetch: &WaitingFetch, leader: &Leader, log_end: Offset) -> bool {
    let committed = fetch.knows.is_some_and(|knows| leader.high_watermark > Some(knows));
    fetch.from < log_end || committed
}

fn only_of(response: &mut FetchResponse) -> &mut FetchedPartition {
    &mut response.responses[0].partitions[0]
}
