//! Fetching: a replica's way to its leader's log (KIP-595) or to its snapshot (KIP-630).
//!
//! Invariants: a Fetch says that everything below its offset is held, so a node that may vote sends none
//! before its log is flushed; only what the present leader answered to the present state is taken in
//! (KAFKA-18991); the log is cut before anything else of such an answer counts (KAFKA-14704), where the
//! epochs part and not at the high watermark (KIP-101, KIP-279), and never below it.

use crate::code::Code;
use crate::io::{Destination, Effect, Fault, Now, Request, SnapshotFile};
use crate::links::{Asked, Peer};
use crate::log::EpochEnd;
use crate::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    FetchTopic, FetchedPartition, FetchedTopic, PieceId, PiecePartition, PieceRequestPartition,
    PieceRequestTopic, PieceTopic, ReplicaEpoch,
};
use crate::raft::Raft;
use crate::rpc::{TOPIC, address_in, only};
use crate::settings::Role;
use crate::snapshot::SnapshotId;
use crate::state::{Address, State, Taking};
use crate::voters::{Quorum, QuorumHistory};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Uuid};

/// How long a leader may hold a Fetch back, in milliseconds.
const MAX_WAIT_MS: i32 = 500;
/// Most bytes of log in an answer, and of a snapshot.
const BYTES_MAX: i32 = 1 << 20;

impl Raft {
    /// Asks anybody who may know who leads: a bootstrap server, or a voter.
    pub(crate) fn discover(&mut self, now: Now) {
        if self.is_stopping || self.links.is_asking(Asked::Discover) || !self.may_fetch() {
            return;
        }
        let request = self.fetch_request();
        let servers = self.settings.bootstrap_servers;
        let ready = |peer: &Peer| self.links.is_ready(*peer);
        if servers > 0 {
            let peers: Vec<_> = (0..servers).map(Peer::Bootstrap).filter(ready).collect();
            if let Some(peer) = self.any(&peers)
                && let Peer::Bootstrap(index) = peer
            {
                let to = Destination::Bootstrap(index);
                self.send(now, peer, to, Asked::Discover, Request::Fetch(request));
            }
            return;
        }
        let peers: Vec<_> = self.others().map(|voter| Peer::Node(voter.id)).filter(ready).collect();
        if let Some(Peer::Node(id)) = self.any(&peers)
            && let Some(address) = self.address_of(id)
        {
            self.ask(now, id, &address, Asked::Discover, Request::Fetch(request));
        }
    }

    fn any(&mut self, peers: &[Peer]) -> Option<Peer> {
        (!peers.is_empty()).then(|| peers[self.random().index(peers.len())])
    }

    fn may_fetch(&self) -> bool {
        match self.settings.role {
            Role::Controller => self.log.is_settled(),
            Role::Broker => !self.log.is_being_replaced(),
        }
    }

    /// Goes on as a follower: the next Fetch, or the next piece of a snapshot, or something to tell the
    /// leader.
    pub(crate) fn follow_on(&mut self, now: Now) {
        if self.is_stopping {
            return;
        }
        let State::Follower(state) = &self.state else { return };
        let (leader, address, taking) = (state.leader, state.address.clone(), state.taking);
        if state.fetch_deadline <= now.clock {
            // One without a vote cannot stand: it asks where the leader is now.
            self.discover(now);
        }
        if !self.links.is_ready(Peer::Node(leader)) {
            return;
        }
        if self.tell_leader(now) {
            return;
        }
        if let Some(taking) = taking {
            if !taking.writing {
                let request = self.piece_request(taking);
                self.ask(now, leader, &address, Asked::Piece, Request::FetchSnapshot(request));
            }
        } else if self.may_fetch() {
            let request = self.fetch_request();
            self.ask(now, leader, &address, Asked::Fetch, Request::Fetch(request));
        }
    }

    fn fetch_request(&self) -> FetchRequest {
        let partition = FetchPartition {
            current_leader_epoch: self.epoch.0,
            fetch_offset: self.log.end().0,
            last_fetched_epoch: self.log.last_epoch().0,
            partition_max_bytes: BYTES_MAX,
            replica_directory_id: self.me.directory,
            high_watermark: self.high_watermark.map_or(-1, |high| high.0),
            ..FetchPartition::default()
        };
        let topic = FetchTopic {
            topic: TOPIC.into(),
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![partition],
            ..FetchTopic::default()
        };
        FetchRequest {
            cluster_id: Some(self.settings.cluster_id.clone()),
            replica_id: self.me.id.0,
            replica_state: ReplicaEpoch { replica_id: self.me.id.0, ..ReplicaEpoch::default() },
            max_wait_ms: MAX_WAIT_MS,
            max_bytes: BYTES_MAX,
            topics: vec![topic],
            ..FetchRequest::default()
        }
    }

    /// Takes in the answer of a Fetch; `of_leader` where the leader was asked. Returns whether it was of
    /// use.
    pub(crate) fn fetched(&mut self, now: Now, of_leader: bool, response: FetchResponse) -> bool {
        let FetchResponse { error_code, responses, node_endpoints, .. } = response;
        let ours = |t: &FetchedTopic| t.topic_id == Uuid::METADATA_TOPIC || t.topic == TOPIC;
        let partition = only(&responses, ours, |t| &t.partitions[..], |p| p.partition_index);
        let Some(partition) = partition.filter(|_| error_code == 0) else { return false };
        let told = &partition.current_leader;
        let node = node_endpoints.iter().find(|node| node.node_id == told.leader_id);
        let address = node.and_then(|node| {
            Some(Address { host: node.host.clone(), port: u16::try_from(node.port).ok()? })
        });
        if !self.told_by_response(now, told.leader_id, told.leader_epoch, address.clone()) {
            // Another state asks anew: its leader, if that is known now, at once.
            return matches!(&self.state, State::Follower(_)) && !of_leader;
        }
        self.leader_moved(NodeId(told.leader_id), address);
        if !of_leader || partition.error_code != 0 {
            return false;
        }
        self.fetched_log(now, partition)
    }

    /// A follower's leader may listen elsewhere after its restart.
    fn leader_moved(&mut self, leader: NodeId, address: Option<Address>) {
        if let State::Follower(state) = &mut self.state
            && let Some(address) = address.filter(|_| state.leader == leader)
        {
            state.address = address;
        }
    }

    fn fetched_log(&mut self, now: Now, partition: &FetchedPartition) -> bool {
        let deadline = now.clock.after(self.settings.timers.fetch_timeout);
        if partition.diverging_epoch.epoch >= 0 {
            let diverging = &partition.diverging_epoch;
            let end = Offset(diverging.end_offset.max(0));
            if !self.cut(EpochEnd { epoch: LeaderEpoch(diverging.epoch), end }) {
                return false;
            }
        } else if partition.snapshot_id.epoch >= 0 {
            let snapshot = &partition.snapshot_id;
            let id =
                SnapshotId { end: Offset(snapshot.end_offset), epoch: LeaderEpoch(snapshot.epoch) };
            if !self.take_from_leader(id) {
                return false;
            }
        } else {
            if !self.take_records(partition.records.as_ref()) {
                return false;
            }
            let high_watermark = Offset(partition.high_watermark).min(self.log.end());
            if high_watermark >= Offset::ZERO && high_watermark > Offset::ZERO {
                self.raise_high_watermark(high_watermark);
            }
        }
        if let State::Follower(state) = &mut self.state {
            state.fetch_deadline = deadline;
            state.has_fetched = true;
        }
        true
    }

    /// Takes in the whole batches that belong at the log's end. False where there was something, but none
    /// of it does: a peer that sends such things is left alone, and not counted as a leader that works.
    fn take_records(&mut self, records: Option<&Bytes>) -> bool {
        let Some(records) = records.filter(|records| !records.is_empty()) else { return true };
        let mut len = 0;
        for batch in flowstone_batch::batches(records) {
            // The last one may be cut short by the size limit.
            let Ok((at, header, bytes)) = batch else { break };
            if !self.append_fetched(&header, &records.slice_ref(bytes)) {
                break;
            }
            len = at + header.total_len();
        }
        if len > 0 {
            self.out.push(Effect::Append { batches: records.slice(..len), end: self.log.end() });
        }
        len > 0
    }

    /// Cuts off what the leader does not have; false where that cannot be.
    fn cut(&mut self, leader: EpochEnd) -> bool {
        let to = self.log.cut_for(leader);
        if self.would_lose_committed(to) || to >= self.log.end() {
            return false;
        }
        self.log.truncate(to);
        self.quorums.truncate(to);
        self.snapshots.truncated(to);
        self.out.push(Effect::Truncate { end: to });
        true
    }

    fn would_lose_committed(&mut self, to: Offset) -> bool {
        let high_watermark = self.high_watermark.filter(|high| *high > to);
        if let Some(high_watermark) = high_watermark {
            let epoch = self.epoch;
            let fault = Fault::TruncationOfCommitted { epoch, to, high_watermark };
            self.out.push(Effect::Fault(fault));
        }
        high_watermark.is_some()
    }

    fn take_from_leader(&mut self, id: SnapshotId) -> bool {
        if id.end <= Offset::ZERO || self.would_lose_committed(id.end) {
            return false;
        }
        let State::Follower(state) = &mut self.state else { return false };
        state.taking = Some(Taking { id, position: 0, size: None, writing: false });
        true
    }

    fn piece_request(&self, taking: Taking) -> FetchSnapshotRequest {
        let snapshot_id =
            PieceId { end_offset: taking.id.end.0, epoch: taking.id.epoch.0, ..PieceId::default() };
        let partition = PieceRequestPartition {
            current_leader_epoch: self.epoch.0,
            snapshot_id,
            position: taking.position as i64,
            replica_directory_id: self.me.directory,
            ..PieceRequestPartition::default()
        };
        let partitions = vec![partition];
        let name = String::from(TOPIC);
        FetchSnapshotRequest {
            cluster_id: Some(self.settings.cluster_id.clone()),
            replica_id: self.me.id.0,
            max_bytes: BYTES_MAX,
            topics: vec![PieceRequestTopic { name, partitions, ..PieceRequestTopic::default() }],
            ..FetchSnapshotRequest::default()
        }
    }

    pub(crate) fn piece_fetched(&mut self, now: Now, response: FetchSnapshotResponse) -> bool {
        let FetchSnapshotResponse { error_code, topics, node_endpoints, .. } = response;
        let ours = |topic: &PieceTopic| topic.name == TOPIC;
        let partition = only(&topics, ours, |topic| &topic.partitions[..], |p| p.index);
        let Some(partition) = partition.filter(|_| error_code == 0) else { return false };
        let told = &partition.current_leader;
        let address = address_in(&node_endpoints, told.leader_id);
        if !self.told_by_response(now, told.leader_id, told.leader_epoch, address) {
            return false;
        }
        let deadline = now.clock.after(self.settings.timers.fetch_timeout);
        let State::Follower(state) = &mut self.state else { return false };
        let Some(taking) = &mut state.taking else { return false };
        match Code::of(partition.error_code) {
            Code::None => {}
            // The leader dropped it: the next Fetch names another one.
            Code::SnapshotNotFound | Code::PositionOutOfRange => {
                state.taking = None;
                return true;
            }
            _ => return false,
        }
        let Some(size) = piece_fits(taking, partition) else {
            state.taking = None;
            return false;
        };
        let (id, position, bytes) = (taking.id, taking.position, &partition.unaligned_records);
        taking.size = Some(size);
        taking.position += bytes.len() as u64;
        taking.writing = true;
        (state.fetch_deadline, state.has_fetched) = (deadline, true);
        self.out.push(Effect::WritePiece { id, position, bytes: bytes.clone() });
        true
    }

    pub(crate) fn piece_written(&mut self, id: SnapshotId, end: u64) {
        let State::Follower(state) = &mut self.state else { return };
        let Some(taking) = &mut state.taking else { return };
        // One that was given up may still be told of.
        if (taking.id, taking.position, taking.writing) != (id, end, true) {
            return;
        }
        taking.writing = false;
        if taking.size == Some(end) {
            state.taking = None;
            self.log.replace(id);
            self.out.push(Effect::InstallSnapshot { id });
        }
    }

    pub(crate) fn installed(&mut self, now: Now, file: SnapshotFile, quorum: Option<Quorum>) {
        self.log.replaced(file.id);
        self.quorums = match quorum {
            Some(quorum) => QuorumHistory::of_snapshot(quorum),
            // At kraft.version 0 a snapshot names no voters: they are configured.
            None => QuorumHistory::configured(self.quorums.at(Offset::ZERO).clone()),
        };
        self.snapshots.installed(file, now.clock);
        self.snapshots.drop_before(file.id);
        self.out.push(Effect::DropBefore(file.id));
        self.raise_high_watermark(file.id.end);
    }
}

/// The file's size, if the piece is the one that was asked for.
fn piece_fits(taking: &Taking, piece: &PiecePartition) -> Option<u64> {
    let id = (piece.snapshot_id.end_offset, piece.snapshot_id.epoch);
    let position = u64::try_from(piece.position).ok()?;
    let size = u64::try_from(piece.size).ok()?;
    let end = position + piece.unaligned_records.len() as u64;
    let fits = id == (taking.id.end.0, taking.id.epoch.0)
        && position == taking.position
        && taking.size.is_none_or(|known| known == size)
        && end > position
        && end <= size;
    fits.then_some(size)
}
