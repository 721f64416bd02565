//! Several replicas by script: messages pass at once, unless a node is cut off; time moves from deadline
//! to deadline. After every step one leader an epoch, and committed logs are one.

use crate::harness::*;
use bytes::Bytes;
use flowstone_batch::{BatchHeader, batches};
use flowstone_raft::control::read_control_batch;
use flowstone_raft::messages::*;
use flowstone_raft::snapshot::{SnapshotError, SnapshotWriter, read_snapshot};
use flowstone_raft::*;
use flowstone_schema::Message;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    state: Option<QuorumState>,
    start: Offset,
    log: Vec<Bytes>,
    snapshots: BTreeMap<SnapshotId, Bytes>,
    part: Vec<u8>,
}

struct Node {
    raft: Raft,
    disk: Disk,
    committed: Offset,
}

enum Letter {
    Asks(i32, i32, RequestId, Request),
    Answers(i32, i32, RequestId, Response),
}

struct Cluster {
    nodes: BTreeMap<i32, Node>,
    voters: Quorum,
    settings: Settings,
    now: Now,
    letters: VecDeque<Letter>,
    /// Who asked, by token.
    asked: BTreeMap<Token, (i32, i32, RequestId)>,
    cut_off: BTreeSet<i32>,
    /// Every committed batch, by its offset.
    committed: BTreeMap<Offset, Bytes>,
    leaders: BTreeMap<LeaderEpoch, i32>,
    answers: Vec<Response>,
    tokens: u64,
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
    fn new(voters: &[i32], settings: Settings) -> Self {
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

    fn start(&mut self, id: i32, disk: Disk, knows_voters: bool) {
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

    fn crash(&mut self, id: i32) -> Disk {
        self.nodes.remove(&id).unwrap().disk
    }

    fn input(&mut self, id: i32, input: Input) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut effects = vec![];
        node.raft.handle(self.now, input, &mut effects);
        self.perform(id, effects);
    }

    fn perform(&mut self, id: i32, effects: Vec<Effect>) {
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

    fn answer(&mut self, token: Token, response: Response) {
        match self.asked.remove(&token) {
            Some((from, to, id)) => {
                self.letters.push_back(Letter::Answers(from, to, id, response));
            }
            None => self.answers.push(response),
        }
    }

    /// Delivers until nothing is under way; what a node cut off sends, or is sent, is lost.
    fn deliver(&mut self) {
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

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// Lets this much time pass.
    fn run(&mut self, millis: u64) {
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
    fn leader(&self) -> i32 {
        let leads = self.nodes.iter().filter(|(_, node)| node.raft.leading().is_some());
        *leads.max_by_key(|(_, node)| node.raft.epoch()).expect("somebody leads").0
    }

    fn append(&mut self, id: i32, value: &str) {
        let node = self.nodes.get_mut(&id).unwrap();
        let (epoch, _) = node.raft.leading().unwrap();
        let batch = batch(node.raft.log_end().0, epoch.0, &[value]);
        let mut effects = vec![];
        node.raft.append(self.now, epoch, batch, &mut effects).unwrap();
        self.perform(id, effects);
        self.deliver();
    }

    fn ask(&mut self, id: i32, request: Request) {
        let (token, listener) = (self.token(), "CONTROLLER".into());
        self.input(id, Input::Request { token, listener, request: sent(request) });
        self.deliver();
    }

    /// All nodes have the same log, all of it committed.
    fn assert_settled(&self) {
        let leader = &self.nodes[&self.leader()];
        for (id, node) in &self.nodes {
            assert_eq!(node.raft.log_end(), leader.raft.log_end(), "node {id}");
            assert_eq!(node.committed, leader.raft.log_end(), "node {id}");
            assert_eq!(node.raft.leader(), Some(NodeId(self.leader())), "node {id}");
            assert_eq!(node.raft.quorum(), leader.raft.quorum(), "node {id}");
        }
    }
}

/// 1, 3, 5 and 7 voters elect a leader and commit.
#[test]
fn quorums_of_any_size_elect_and_commit() {
    for voters in [&[1][..], &[1, 2, 3], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 6, 7]] {
        let mut cluster = Cluster::new(voters, settings());
        cluster.run(10_000);
        let leader = cluster.leader();
        (0..10).for_each(|_| cluster.append(leader, "a"));
        cluster.run(1_000);
        cluster.assert_settled();
        assert_eq!(cluster.leaders.len(), 1, "nobody disturbs a leader that works");
    }
}

/// A minority that dies changes nothing; the leader's death costs an election.
#[test]
fn a_quorum_survives_its_leader() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.append(first, "a");
    let disk = cluster.crash(first);
    cluster.run(10_000);
    let second = cluster.leader();
    assert_ne!(first, second);
    cluster.append(second, "b");
    cluster.start(first, disk, true);
    cluster.run(3_000);
    cluster.assert_settled();
    assert_eq!(cluster.leader(), second, "whoever comes back disturbs nobody (KIP-996)");
}

/// KAFKA-15489: a leader that is cut off resigns; what it could not commit is cut off when it is back.
#[test]
fn a_leader_that_is_cut_off_loses_what_it_could_not_commit() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.cut_off.insert(first);
    (0..5).for_each(|_| cluster.append(first, "lost"));
    cluster.run(2_999);
    cluster.run(10_000);
    assert!(cluster.nodes[&first].raft.leading().is_none());
    let second = cluster.leader();
    cluster.append(second, "kept");
    cluster.cut_off.clear();
    cluster.run(5_000);
    cluster.assert_settled();
    let text = format!("{:?}", cluster.nodes[&first].disk.log);
    assert!(text.contains("kept") && !text.contains("lost"));
}

/// KAFKA-6361 (KIP-279): three leaders in a row, each with a batch that the others do not get.
#[test]
fn logs_that_parted_three_times_become_one() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    for _ in 0..3 {
        let leader = cluster.leader();
        cluster.cut_off.insert(leader);
        cluster.append(leader, "only here");
        let disk = cluster.crash(leader);
        cluster.run(10_000);
        cluster.cut_off.clear();
        cluster.start(leader, disk, true);
        cluster.run(300);
    }
    cluster.run(10_000);
    cluster.assert_settled();
}

/// Every node at once, again and again.
#[test]
fn a_quorum_survives_the_loss_of_power() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    for _ in 0..4 {
        cluster.run(8_000);
        let leader = cluster.leader();
        cluster.append(leader, "a");
        let disks: Vec<_> = [1, 2, 3].map(|id| (id, cluster.crash(id))).into();
        cluster.letters.clear();
        cluster.asked.clear();
        for (id, disk) in disks {
            cluster.start(id, disk, true);
        }
    }
    cluster.run(8_000);
    cluster.assert_settled();
}

/// KIP-630: whoever comes late takes a snapshot, in pieces, and goes on from there; so does an observer
/// that knows only its bootstrap servers.
#[test]
fn late_nodes_take_a_snapshot() {
    let retention =
        Retention { snapshot_after_bytes: 2_000, keep_bytes: 1_000, ..Retention::default() };
    let mut cluster = Cluster::new(&[1, 2, 3], Settings { retention, ..settings() });
    cluster.run(5_000);
    let leader = cluster.leader();
    let late = leader % 3 + 1;
    let disk = cluster.crash(late);
    for _ in 0..100 {
        cluster.append(leader, "some twenty bytes...");
        cluster.run(10);
    }
    assert!(cluster.nodes[&leader].raft.log_start() > Offset(50), "old log is gone");
    cluster.start(late, disk, true);
    cluster.start(8, Disk::default(), false);
    cluster.run(3_000);
    cluster.assert_settled();
    assert!(cluster.nodes[&8].raft.log_start() > Offset(50));
}

/// KIP-853: from one voter to three by AddRaftVoter, and back by RemoveRaftVoter, the leader first.
#[test]
fn a_quorum_grows_and_shrinks() {
    let mut cluster = Cluster::new(&[1], settings());
    for id in [2, 3] {
        cluster.start(id, Disk::default(), false);
        cluster.run(1_000);
        let listeners = voter(id).endpoints;
        let request = AddRaftVoterRequest {
            timeout_ms: 1_000,
            voter_id: id,
            voter_directory_id: key(id).directory,
            listeners,
            ..AddRaftVoterRequest::default()
        };
        cluster.ask(1, Request::AddRaftVoter(request));
        cluster.run(1_000);
        let Some(Response::AddRaftVoter(added)) = cluster.answers.pop() else { panic!() };
        assert_eq!((added.error_code, added.error_message), (0, None));
    }
    cluster.assert_settled();
    assert_eq!(cluster.nodes[&3].raft.quorum(), &quorum(&[1, 2, 3]));
    let request = RemoveRaftVoterRequest {
        voter_id: 1,
        voter_directory_id: key(1).directory,
        ..RemoveRaftVoterRequest::default()
    };
    cluster.ask(1, Request::RemoveRaftVoter(request));
    cluster.run(10_000);
    let Some(Response::RemoveRaftVoter(removed)) = cluster.answers.pop() else { panic!() };
    assert_eq!(removed.error_code, 0);
    assert_ne!(cluster.leader(), 1);
    let leader = cluster.leader();
    cluster.append(leader, "without it");
    cluster.run(1_000);
    cluster.assert_settled();
    assert_eq!(cluster.nodes[&1].raft.quorum(), &quorum(&[2, 3]));
}

/// `controller.quorum.auto.join.enable`.
#[test]
fn controllers_join_by_themselves() {
    let mut cluster = Cluster::new(&[1], Settings { auto_join: true, ..settings() });
    cluster.start(2, Disk::default(), false);
    cluster.start(3, Disk::default(), false);
    cluster.run(20_000);
    cluster.assert_settled();
    let mut ids: Vec<_> = cluster.nodes[&1].raft.quorum().keys().map(|voter| voter.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

/// A leader that stops hands over at once, not after a fetch time-out.
#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.input(first, Input::Shutdown);
    cluster.deliver();
    cluster.run(300);
    assert_ne!(cluster.leader(), first);
}
