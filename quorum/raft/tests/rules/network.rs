//! Several replicas on disks that lose nothing: messages pass at once, unless a node is cut off; time moves from
//! deadline to deadline. After every step one leader an epoch, and committed logs are one.

use crate::harness::*;
use bytes::Bytes;
use flowstone_batch::{BatchHeader, batches};
use flowstone_raft::control::read_control_batch;
use flowstone_raft::snapshot::{SnapshotError, SnapshotWriter, read_snapshot};
use flowstone_raft::*;
use flowstone_schema::Message;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub state: Option<QuorumState>,
    pub start: Offset,
    pub log: Vec<Bytes>,
    pub snapshots: BTreeMap<SnapshotId, Bytes>,
    pub part: Vec<u8>,
}

pub struct Node {
    pub raft: Raft,
    pub disk: Disk,
    pub committed: Offset,
}

pub enum Letter {
    Asks(i32, i32, RequestId, Request),
    Answers(i32, i32, RequestId, Response),
}

pub struct Cluster {
    pub nodes: BTreeMap<i32, Node>,
    pub voters: Quorum,
    pub settings: Settings,
    pub now: Now,
    pub letters: VecDeque<Letter>,
    /// Who asked, by token.
    pub asked: BTreeMap<Token, (i32, i32, RequestId)>,
    pub cut_off: BTreeSet<i32>,
    /// Every committed batch, by its offset.
    pub committed: BTreeMap<Offset, Bytes>,
    pub leaders: BTreeMap<LeaderEpoch, i32>,
    pub answers: Vec<Response>,
    pub tokens: u64,
}

impl Disk {
    fn end(&self) -> Offset {
        let end = |batch: &Bytes| BatchHeader::parse(batch).unwrap().last_offset().plus(1);
        self.log.last().map_or(self.start, end)
    }

    fn read(&self, from: Offset) -> Bytes {
        let behind = |batch: &&Bytes| BatchHeader::parse(batch).unwrap().base_offset >= from;
        self.log.iter().filter(behind).take(3).flat_map(|batch| batch.to_vec()).collect()
    }

    fn stored(&self, configured: Quorum) -> Stored {
        let newest = self.snapshots.keys().last().copied();
        let mut quorum = QuorumHistory::configured(configured);
        if let Some(id) = newest {
            quorum = QuorumHistory::of_snapshot(quorum_of(&self.snapshots[&id]).unwrap());
        }
        let mut epochs: Vec<EpochStart> = vec![];
        for batch in &self.log {
            let header = BatchHeader::parse(batch).unwrap();
            let (epoch, start) = (header.leader_epoch, header.base_offset);
            if epochs.last().is_none_or(|last| last.epoch < epoch) {
                epochs.push(EpochStart { epoch, start });
            }
            if header.attributes.is_control() && newest.is_none_or(|id| id.end <= start) {
                quorum.append(start, &read_control_batch(batch).unwrap());
            }
        }
        let file = |(id, file): (&SnapshotId, &Bytes)| SnapshotFile {
            id: *id,
            bytes: file.len() as u64,
            last_timestamp: Timestamp(1),
        };
        let log_bytes = self.log.iter().map(|batch| batch.len() as u64).sum();
        Stored {
            state: self.state.clone(),
            epochs,
            log_start: self.start,
            log_end: self.end(),
            log_bytes,
            log_bytes_behind_snapshot: log_bytes,
            quorum,
            snapshots: self.snapshots.iter().map(file).collect(),
        }
    }
}

fn quorum_of(file: &Bytes) -> Result<Quorum, SnapshotError> {
    let head = read_snapshot::<SnapshotError>(file, |_| Ok(()))?;
    Ok(Quorum { kraft_version: head.kraft_version, voters: head.voters.unwrap_or_default() })
}

/// As it arrives: through its bytes.
fn over_the_wire<M: Message>(message: &M) -> M {
    M::decode(M::VERSION_MAX, &message.to_vec(M::VERSION_MAX).unwrap()).unwrap()
}

fn sent(request: Request) -> Request {
    use Request::*;
    match request {
        Vote(m) => Vote(over_the_wire(&m)),
        BeginQuorumEpoch(m) => BeginQuorumEpoch(over_the_wire(&m)),
        EndQuorumEpoch(m) => EndQuorumEpoch(over_the_wire(&m)),
        Fetch(m) => Fetch(over_the_wire(&m)),
        FetchSnapshot(m) => FetchSnapshot(over_the_wire(&m)),
        DescribeQuorum(m) => DescribeQuorum(over_the_wire(&m)),
        AddRaftVoter(m) => AddRaftVoter(over_the_wire(&m)),
        RemoveRaftVoter(m) => RemoveRaftVoter(over_the_wire(&m)),
        UpdateRaftVoter(m) => UpdateRaftVoter(over_the_wire(&m)),
        ApiVersions => ApiVersions,
    }
}

impl Cluster {
    pub fn new(voters: &[i32], settings: Settings) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            voters: quorum(voters),
            settings,
            now: Now { clock: Instant(1_000_000_000), wall: Timestamp(1_000_000) },
            letters: VecDeque::new(),
            asked: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
            answers: vec![],
            tokens: 0,
        };
        for id in voters {
            cluster.start(*id, Disk::default(), true);
        }
        cluster
    }

    pub fn start(&mut self, id: i32, disk: Disk, knows_voters: bool) {
        let configured = if knows_voters { self.voters.clone() } else { Quorum::default() };
        let settings = Settings { bootstrap_servers: 3, ..self.settings.clone() };
        let (stored, mut effects) = (disk.stored(configured), vec![]);
        let seed = 40 + id as u64;
        let raft = Raft::start(settings, key(id), voter(id), stored, seed, self.now, &mut effects);
        let node = Node { raft: raft.unwrap(), disk, committed: Offset::ZERO };
        self.nodes.insert(id, node);
        self.perform(id, effects);
        self.deliver();
    }

    pub fn crash(&mut self, id: i32) -> Disk {
        self.nodes.remove(&id).unwrap().disk
    }

    pub fn input(&mut self, id: i32, input: Input) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut effects = vec![];
        node.raft.handle(self.now, input, &mut effects);
        self.perform(id, effects);
    }

    pub fn perform(&mut self, id: i32, effects: Vec<Effect>) {
        let mut then = vec![];
        for effect in effects {
            let node = self.nodes.get_mut(&id).unwrap();
            let disk = &mut node.disk;
            match effect {
                Effect::SaveState(state) => {
                    disk.state = Some(state);
                    then.push(Input::StateSaved);
                }
                Effect::Append { batches: bytes, end } => {
                    for batch in batches(&bytes) {
                        let (_, header, batch) = batch.unwrap();
                        assert_eq!(header.base_offset, disk.end());
                        disk.log.push(bytes.slice_ref(batch));
                    }
                    assert_eq!(disk.end(), end);
                    then.push(Input::Flushed { end });
                }
                Effect::Truncate { end } => {
                    assert!(end >= node.committed, "what is committed stays");
                    disk.log.retain(|batch| BatchHeader::parse(batch).unwrap().base_offset < end);
                    assert_eq!(disk.end(), end, "a cut is where a batch ends");
                    then.push(Input::Truncated);
                }
                Effect::Send { id: request, to, request: asks } => {
                    let to = match to {
                        Destination::Node { id, .. } => id.0,
                        Destination::Bootstrap(index) => index as i32 + 1,
                    };
                    self.letters.push_back(Letter::Asks(id, to, request, sent(asks)));
                }
                Effect::Respond { token, response } => self.answer(token, response),
                Effect::ReadAndRespond { token, from, mut response, .. } => {
                    let records = disk.read(from);
                    assert!(!records.is_empty(), "there is a batch at {from}");
                    response.responses[0].partitions[0].records = Some(records);
                    self.answer(token, Response::Fetch(over_the_wire(&response)));
                }
                Effect::ReadPieceAndRespond { token, id, position, mut response, .. } => {
                    let file = &disk.snapshots[&id];
                    let from = position as usize;
                    let piece = file.slice(from..file.len().min(from + 100));
                    response.topics[0].partitions[0].unaligned_records = piece;
                    self.answer(token, Response::FetchSnapshot(over_the_wire(&response)));
                }
                Effect::WritePiece { id, position, bytes } => {
                    disk.part.truncate(position as usize);
                    disk.part.extend_from_slice(&bytes);
                    then.push(Input::PieceWritten { id, end: disk.part.len() as u64 });
                }
                Effect::InstallSnapshot { id } => {
                    let file = Bytes::from(std::mem::take(&mut disk.part));
                    let quorum = Some(quorum_of(&file).unwrap());
                    let bytes = file.len() as u64;
                    disk.snapshots.insert(id, file);
                    (disk.start, disk.log) = (id.end, vec![]);
                    let file = SnapshotFile { id, bytes, last_timestamp: Timestamp(1) };
                    then.push(Input::SnapshotInstalled { file, quorum });
                }
                Effect::TakeSnapshot { id, last_timestamp } => {
                    let told = node.raft.quorum_at(id.end);
                    let (writer, first) = SnapshotWriter::new(
                        id.epoch,
                        last_timestamp,
                        Some((told.kraft_version, &told.voters)),
                        self.now.wall,
                    );
                    let mut file = first.to_vec();
                    file.extend(writer.finish().into_iter().flatten());
                    let bytes = file.len() as u64;
                    disk.snapshots.insert(id, file.into());
                    then.push(Input::SnapshotTaken(SnapshotFile { id, bytes, last_timestamp }));
                }
                Effect::DropBefore(id) => {
                    disk.snapshots.retain(|old, _| *old >= id);
                    disk.log.retain(|b| BatchHeader::parse(b).unwrap().base_offset >= id.end);
                    disk.start = id.end;
                    let log_bytes = disk.log.iter().map(|batch| batch.len() as u64).sum();
                    then.push(Input::Dropped { log_bytes });
                }
                Effect::Committed(end) => {
                    assert!(end > node.committed && end <= disk.end());
                    node.committed = end;
                    for batch in &node.disk.log {
                        let header = BatchHeader::parse(batch).unwrap();
                        if header.last_offset() < end {
                            let known =
                                self.committed.entry(header.base_offset).or_insert(batch.clone());
                            assert_eq!(known, batch, "what is committed never changes");
                        }
                    }
                }
                Effect::LeaderChanged { epoch, leader } => {
                    if let Some(NodeId(leader)) = leader {
                        let known = *self.leaders.entry(epoch).or_insert(leader);
                        assert_eq!(known, leader, "one leader an epoch");
                    }
                }
                Effect::Fault(fault) => panic!("node {id}: {fault}"),
            }
        }
        for input in then {
            self.input(id, input);
        }
    }

    pub fn answer(&mut self, token: Token, response: Response) {
        match self.asked.remove(&token) {
            Some((from, to, id)) => {
                self.letters.push_back(Letter::Answers(from, to, id, response));
            }
            None => self.answers.push(response),
        }
    }

    /// Delivers until nothing is under way; what a node cut off sends, or is sent, is lost.
    pub fn deliver(&mut self) {
        while let Some(letter) = self.letters.pop_front() {
            match letter {
                Letter::Asks(from, to, id, request) => {
                    let lost = self.cut_off.contains(&from) || self.cut_off.contains(&to);
                    if lost || !self.nodes.contains_key(&to) {
                        continue;
                    }
                    let token = self.token();
                    self.asked.insert(token, (to, from, id));
                    let listener = "CONTROLLER".into();
                    self.input(to, Input::Request { token, listener, request });
                }
                Letter::Answers(from, to, id, response) => {
                    if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
                        self.input(to, Input::Response { id, response: Ok(response) });
                    }
                }
            }
        }
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// Lets this much time pass.
    pub fn run(&mut self, millis: u64) {
        let until = self.now.clock.after(ms(millis));
        loop {
            let next = self.nodes.values().filter_map(|node| node.raft.next_deadline()).min();
            let next = next.unwrap_or(until).min(until);
            self.now.wall.0 += next.since(self.now.clock).as_millis() as i64;
            self.now.clock = next;
            let ids: Vec<i32> = self.nodes.keys().copied().collect();
            for id in ids {
                self.input(id, Input::Tick);
            }
            self.deliver();
            if next == until {
                return;
            }
        }
    }

    /// The leader that the most nodes know.
    pub fn leader(&self) -> i32 {
        let leads = self.nodes.iter().filter(|(_, node)| node.raft.leading().is_some());
        *leads.max_by_key(|(_, node)| node.raft.epoch()).expect("somebody leads").0
    }

    pub fn append(&mut self, id: i32, value: &str) {
        let node = self.nodes.get_mut(&id).unwrap();
        let (epoch, _) = node.raft.leading().unwrap();
        let batch = batch(node.raft.log_end().0, epoch.0, &[value]);
        let mut effects = vec![];
        node.raft.append(self.now, epoch, batch, &mut effects).unwrap();
        self.perform(id, effects);
        self.deliver();
    }

    pub fn ask(&mut self, id: i32, request: Request) {
        let (token, listener) = (self.token(), "CONTROLLER".into());
        self.input(id, Input::Request { token, listener, request: sent(request) });
        self.deliver();
    }

    /// All nodes have the same log, all of it committed.
    pub fn assert_settled(&self) {
        let leader = &self.nodes[&self.leader()];
        for (id, node) in &self.nodes {
            assert_eq!(node.raft.log_end(), leader.raft.log_end(), "node {id}");
            assert_eq!(node.committed, leader.raft.log_end(), "node {id}");
            assert_eq!(node.raft.leader(), Some(NodeId(self.leader())), "node {id}");
            assert_eq!(node.raft.quorum(), leader.raft.quorum(), "node {id}");
        }
    }
}
