//! A node's way from formatted disks to topics and back, by the pure crates together: what the daemon
//! does, with a vector for a disk.

use crate::common::{config, with_random};
use bytes::Bytes;
use flowstone_batch::batches;
use flowstone_controller::{
    BrokerRegistration, Decision, NewTopic, TopicDefaults, activate, create_topics,
    register_broker, unfence_broker,
};
use flowstone_metadata::format::{Endpoint, Format};
use flowstone_metadata::{
    Image, Loader, MetadataRecord, MetadataVersion, Replay, features, log, snapshot_file,
};
use flowstone_raft::control::KraftVoters;
use flowstone_raft::{
    Effect, Input, Now, QuorumState, Raft, ReplicaKey, Retention, Role, Settings, SnapshotFile,
    SnapshotId, Timers,
};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp, Uuid};

const ME: ReplicaKey = ReplicaKey { id: NodeId(1), directory: Uuid(1 << 100) };
const NOW: Timestamp = Timestamp(1_000);

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    state: Option<QuorumState>,
    snapshot: Option<(SnapshotId, Bytes)>,
    bootstrap: Bytes,
    log: Vec<u8>,
}

struct Node {
    disk: Disk,
    raft: Raft,
    replay: Replay,
    image: Image,
    end: Offset,
    now: Now,
}

impl Disk {
    fn formatted() -> Self {
        let format = Format {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(),
            node_id: ME.id,
            version: MetadataVersion::LATEST,
            features: vec![],
            standalone: Some(Endpoint {
                listener: "CONTROLLER".into(),
                host: "localhost".into(),
                port: 9093,
            }),
            directory_ids: vec![ME.directory],
        };
        let files = format.files(NOW).unwrap();
        let file = |end: &str| files.iter().find(|f| f.path.ends_with(end)).unwrap().bytes.clone();
        let first = (SnapshotId::BOOTSTRAP, file("-0000000000.checkpoint"));
        Self { snapshot: Some(first), bootstrap: file("bootstrap.checkpoint"), ..Self::default() }
    }
}

impl Node {
    /// Loads the disk, starts a new epoch, and writes what a new controller writes.
    fn start(disk: Disk) -> Self {
        let file = |(id, file): &(SnapshotId, Bytes)| SnapshotFile {
            id: *id,
            bytes: file.len() as u64,
            last_timestamp: NOW,
        };
        let snapshots = disk.snapshot.iter().filter(|(id, _)| *id != SnapshotId::BOOTSTRAP);
        let snapshots = snapshots.map(file).collect();
        let mut loader = Loader::new(disk.state.clone(), KraftVoters::default(), snapshots);
        if let Some((id, file)) = &disk.snapshot {
            loader.snapshot(*id, file).unwrap();
        }
        for batch in batches(&disk.log) {
            loader.batch(&Bytes::copy_from_slice(batch.unwrap().2)).unwrap();
        }
        let (replay, stored) = loader.finish();
        let (end, voter) = (stored.log_end, stored.quorum.last().voters.voters[0].clone());
        let mut effects = Vec::new();
        let settings = Settings {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qg".into(),
            role: Role::Controller,
            listener: "CONTROLLER".into(),
            bootstrap_servers: 0,
            auto_join: false,
            timers: Timers::default(),
            retention: Retention::default(),
        };
        let now = Now { clock: Instant(0), wall: NOW };
        let raft = Raft::start(settings, ME, voter, stored, 1, now, &mut effects).unwrap();
        let mut node = Self { disk, raft, replay, image: Image::default(), end, now };
        node.perform(effects);
        let in_transaction = node.replay.in_transaction();
        let (_, bootstrap) = snapshot_file::read_records(&node.disk.bootstrap).unwrap();
        let decision = activate(&node.image, in_transaction, bootstrap, 1);
        node.commit(decision);
        node
    }

    fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.raft.handle(self.now, input, &mut effects);
        self.perform(effects);
    }

    /// A disk that is as fast as it is sure.
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SaveState(state) => {
                    self.disk.state = Some(state);
                    self.input(Input::StateSaved);
                }
                Effect::Append { batches, end } => {
                    let (header, _) = log::read_batch(&batches).unwrap();
                    assert_eq!(header.base_offset, self.end);
                    self.end = end;
                    self.disk.log.extend_from_slice(&batches);
                    self.input(Input::Flushed { end });
                }
                Effect::Committed(end) => {
                    assert_eq!(end, self.end);
                    self.image =
                        self.replay.publish().map_or(self.image.clone(), |(image, _)| image);
                }
                Effect::TakeSnapshot { id, last_timestamp } => {
                    let mut file = Vec::new();
                    let out = |part: Bytes| file.extend_from_slice(&part);
                    let quorum = self.raft.quorum_at(id.end);
                    let quorum = (quorum.kraft_version, &quorum.voters);
                    snapshot_file::write(&self.image, id, last_timestamp, quorum, NOW, out)
                        .unwrap();
                    let bytes = file.len() as u64;
                    self.disk.snapshot = Some((id, file.into()));
                    let file = SnapshotFile { id, bytes, last_timestamp };
                    self.input(Input::SnapshotTaken(file));
                }
                Effect::LeaderChanged { leader, .. } => assert_eq!(leader, Some(ME.id)),
                effect => panic!("a node alone has no use for {effect:?}"),
            }
        }
    }

    fn commit<R>(&mut self, decision: Decision<R>) -> R {
        let (epoch, _) = self.raft.leading().unwrap();
        let version = self.image.metadata_version();
        let all = log::batches(&decision.records, version, self.end, epoch, NOW).unwrap();
        assert!(all.len() <= 1 || !decision.atomic);
        // A commit publishes what was applied before it.
        for record in decision.records {
            self.replay.apply(record).unwrap();
        }
        for batch in all {
            let mut effects = Vec::new();
            self.raft.append(self.now, epoch, batch, &mut effects).unwrap();
            self.perform(effects);
        }
        decision.response
    }

    fn bring_in_broker(&mut self, incarnation: u128) -> usize {
        let broker = BrokerRegistration {
            id: ME.id,
            incarnation: Uuid(incarnation),
            end_points: vec![],
            features: features::supported(),
            rack: None,
            log_dirs: vec![ME.directory],
        };
        let epoch = self.commit(register_broker(&self.image, broker, self.end.0).unwrap());
        self.commit(unfence_broker(&self.image, ME.id, epoch).unwrap())
    }

    fn create(&mut self, name: &str, partitions: i32) {
        let topic = NewTopic {
            name: name.into(),
            partitions,
            replication_factor: 1,
            assignments: vec![],
            configs: vec![("retention.ms".into(), Some("1000".into()))],
        };
        let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
        let decision =
            with_random(|r| create_topics(&self.image, &[topic], defaults, false, &config(), r));
        self.commit(decision)[0].1.clone().unwrap();
    }

    fn leader_epoch(&self, topic: &str) -> (NodeId, LeaderEpoch) {
        let partition = self.image.topics.named(topic).unwrap().partition(0).unwrap();
        (partition.leader, partition.leader_epoch)
    }
}

#[test]
fn from_formatted_disks_to_topics_over_crashes_and_a_snapshot() {
    let mut node = Node::start(Disk::formatted());
    assert_eq!(node.raft.leading(), Some((LeaderEpoch(1), Offset(0))));
    assert_eq!(node.image.metadata_version(), MetadataVersion::LATEST);
    assert_eq!(node.bring_in_broker(900), 0);
    node.create("orders", 3);
    assert_eq!(node.leader_epoch("orders"), (ME.id, LeaderEpoch(0)));

    let mut node = Node::start(node.disk);
    assert_eq!(node.raft.epoch(), LeaderEpoch(2), "a new epoch at every start");
    assert_eq!(node.bring_in_broker(901), 3, "its partitions are its again");
    assert_eq!(node.leader_epoch("orders"), (ME.id, LeaderEpoch(1)));

    let hour = node.raft.next_deadline().unwrap();
    node.now.clock = Instant(hour.0 - 1);
    node.input(Input::Tick);
    assert_eq!(node.disk.snapshot.as_ref().unwrap().0, SnapshotId::BOOTSTRAP);
    node.now.clock = hour;
    node.input(Input::Tick);
    let (id, _) = node.disk.snapshot.clone().unwrap();
    assert_eq!((id.end, id.epoch), (node.end, LeaderEpoch(2)));
    let (image, mut disk) = (node.image.clone(), node.disk);
    disk.log.clear(); // The snapshot stands for it.
    let node = Node::start(disk);
    assert_eq!(node.image, image);
    let (header, _) = log::read_batch(&node.disk.log.clone().into()).unwrap();
    assert_eq!(
        (header.base_offset, header.leader_epoch, header.count),
        (id.end, LeaderEpoch(3), 1)
    );
}

/// KIP-868: a controller that died within a transaction leaves no half of it.
#[test]
fn a_dangling_transaction_is_aborted_at_the_next_start() {
    let mut node = Node::start(Disk::formatted());
    node.bring_in_broker(900);
    let image = node.image.clone();
    let begin = flowstone_metadata::records::BeginTransactionRecord::default();
    let topic = flowstone_metadata::records::TopicRecord {
        name: "half".into(),
        topic_id: Uuid(7 << 70),
        ..Default::default()
    };
    let records: Vec<MetadataRecord> = vec![begin.into(), topic.into()];
    node.commit(Decision { records, atomic: true, response: () });
    assert_eq!(node.image, image, "not published");
    let node = Node::start(node.disk);
    assert_eq!((&node.image, node.replay.in_transaction()), (&image, false));
}
