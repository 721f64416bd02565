//! Logs and snapshots that Apache Kafka 4.3.1 wrote: a formatted node, and a node's short life (topics
//! made, grown, deleted; configs, quotas, SCRAM, an ACL, producer ids, a controlled shutdown), written
//! by `golden/Life.java`.

use bytes::Bytes;
use flowstone_batch::{BatchHeader, batches};
use flowstone_metadata::log::{self, Entry};
use flowstone_metadata::{
    ConfigResource, Image, LoadError, Loader, MetadataVersion, Replay, features, snapshot_file,
};
use flowstone_raft::control::{ControlRecord, KraftVoters};
use flowstone_raft::{EpochStart, SnapshotId};
use flowstone_types::{LeaderEpoch, NodeId, Offset, Timestamp};

const LOG: &[u8] = include_bytes!("golden/apache-4.3.1/life.log");
const SNAPSHOT: &[u8] = include_bytes!("golden/apache-4.3.1/life-60-1.checkpoint");
const BOOTSTRAP: &[u8] = include_bytes!("golden/apache-4.3.1/format-bootstrap.checkpoint");
const VOTERS: &[u8] = include_bytes!("golden/apache-4.3.1/format-0-0.checkpoint");

fn each_batch(file: &'static [u8]) -> impl Iterator<Item = (BatchHeader, Bytes)> {
    batches(file).map(|batch| {
        let (_, header, bytes) = batch.unwrap();
        (header, Bytes::from_static(bytes))
    })
}

/// The image after everything below `end`.
fn replayed(end: i64) -> Image {
    let mut replay = Replay::default();
    for (header, batch) in each_batch(LOG) {
        if header.base_offset.0 < end
            && let (_, Entry::Records(records)) = log::read_batch(&batch).unwrap()
        {
            for record in records {
                replay.apply(record).unwrap();
            }
        }
    }
    replay.publish().expect("no transaction is open").0
}

#[test]
fn the_log_replays() {
    let image = replayed(60);
    assert_eq!(image.metadata_version(), MetadataVersion::LATEST);
    assert_eq!(image.feature(features::ELR_VERSION), 1);
    let broker = &image.brokers[&NodeId(1)];
    assert_eq!((broker.broker_epoch, broker.fenced), (13, false));
    assert_eq!(broker.cordoned_log_dirs, Some(vec![]));
    assert_eq!(broker.features.len(), features::supported().len());
    let names: Vec<_> = image.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["manual", "orders"], "gone is gone");
    let orders = image.topics.named("orders").unwrap();
    assert_eq!(orders.partition_count(), 5);
    let partition = orders.partition(4).unwrap();
    assert_eq!((partition.leader, &*partition.isr), (NodeId(1), &[NodeId(1)][..]));
    assert_eq!(&*partition.directories, broker.log_dirs);
    assert_eq!(image.config(&ConfigResource::topic("orders"), "retention.ms"), Some("1000"));
    assert_eq!(image.config(&ConfigResource::all_brokers(), "min.insync.replicas"), Some("1"));
    assert_eq!(image.config(&ConfigResource::broker(NodeId(1)), "background.threads"), Some("12"));
    assert_eq!((image.client_quotas.len(), image.scram.len(), image.acls.len()), (2, 1, 1));
    assert_eq!(image.next_producer_id, 1000);
}

/// KIP-966, reference section 4: the only replica went, so that it is eligible outside an empty ISR.
#[test]
fn the_end_of_the_log_is_a_controlled_shutdown() {
    let image = replayed(i64::MAX);
    let broker = &image.brokers[&NodeId(1)];
    assert!(broker.fenced && broker.in_controlled_shutdown && !image.is_active(NodeId(1)));
    let partition = image.topics.named("orders").unwrap().partition(0).unwrap();
    assert_eq!((partition.leader, partition.leader_epoch), (NodeId::NONE, LeaderEpoch(1)));
    assert_eq!((partition.isr.len(), &*partition.eligible), (0, &[NodeId(1)][..]));
    assert_eq!(partition.partition_epoch, 1);
}

#[test]
fn the_snapshot_is_the_log() {
    let (head, image) = snapshot_file::read(&Bytes::from_static(SNAPSHOT)).unwrap();
    assert_eq!(head.kraft_version, 1);
    assert_eq!(head.voters.unwrap().voters[0].voter_id, 1);
    assert_eq!(image, replayed(60));
}

/// A node that Apache formatted, and one that Apache ran: the image and what Raft starts from.
#[test]
fn a_node_is_loaded_from_its_disk() {
    let load = |id, file, log| {
        let mut loader = Loader::new(None, KraftVoters::default(), vec![]);
        loader.snapshot(id, &Bytes::from_static(file)).unwrap();
        for (_, batch) in each_batch(log) {
            loader.batch(&batch).unwrap();
        }
        loader.finish()
    };
    let (_, formatted) = load(SnapshotId::BOOTSTRAP, VOTERS, &[]);
    let quorum = formatted.quorum.last();
    assert_eq!((quorum.kraft_version, formatted.quorum.in_log()), (1, false));
    assert_eq!((quorum.len(), formatted.log_end), (1, Offset(0)));
    let id = SnapshotId { end: Offset(60), epoch: LeaderEpoch(1) };
    let (mut from_snapshot, stored) = load(id, SNAPSHOT, LOG);
    let first = EpochStart { epoch: LeaderEpoch(1), start: Offset(0) };
    assert_eq!(
        (stored.log_start, stored.log_end, &stored.epochs[..]),
        (Offset(0), Offset(77), &[first][..])
    );
    assert!(stored.quorum.in_log() && stored.log_bytes_behind_snapshot < LOG.len() as u64 / 2);
    assert_eq!(stored.log_bytes, LOG.len() as u64, "what the snapshot covers is there, too");
    let (mut from_log, stored) = load(SnapshotId::BOOTSTRAP, VOTERS, LOG);
    assert_eq!((stored.log_end, stored.quorum.in_log()), (Offset(77), true));
    assert_eq!(stored.log_bytes_behind_snapshot, LOG.len() as u64);
    assert_eq!(from_snapshot.publish().unwrap().0, from_log.publish().unwrap().0);
}

#[test]
fn a_log_with_a_gap_is_refused() {
    let mut loader = Loader::new(None, KraftVoters::default(), vec![]);
    let all: Vec<_> = each_batch(LOG).map(|(_, batch)| batch).collect();
    loader.batch(&all[0]).unwrap();
    let gap = LoadError::Gap { expected: Offset(3), found: Offset(12) };
    assert_eq!(loader.batch(&all[2]), Err(gap));
    let mut stale = all[1].to_vec();
    flowstone_batch::stamp(&mut stale, Offset(3), LeaderEpoch(0));
    assert!(matches!(loader.batch(&stale.into()), Err(LoadError::EpochGoesBack { .. })));
}

#[test]
fn our_snapshot_of_apaches_image_reads_back() {
    let image = replayed(60);
    let id = SnapshotId { end: Offset(60), epoch: LeaderEpoch(1) };
    let mut file = Vec::new();
    let quorum = (1, &KraftVoters::default());
    snapshot_file::write(&image, id, Timestamp(7), quorum, Timestamp(9), |part| {
        file.extend_from_slice(&part);
    })
    .unwrap();
    let (head, read) = snapshot_file::read(&file.into()).unwrap();
    assert_eq!((head.last_contained_log_timestamp, read), (Timestamp(7), image));
}

#[test]
fn every_batch_of_the_log_is_written_again_byte_for_byte() {
    for (header, batch) in each_batch(LOG) {
        let (_, entry) = log::read_batch(&batch).unwrap();
        let (offset, epoch, time) =
            (header.base_offset, header.leader_epoch, header.base_timestamp);
        let again = match entry {
            Entry::Records(records) => {
                log::batch(&records, MetadataVersion::LATEST, offset, epoch, time).unwrap()
            }
            Entry::Control(records) => {
                flowstone_raft::control::control_batch(offset, epoch, time, &records)
            }
        };
        assert_eq!(again, batch, "batch at {offset}");
    }
}

/// Every batch of `file` is what `write` makes at that batch's time: Kafka asks the clock anew for each.
fn check_file(file: &'static [u8], write: impl Fn(Timestamp) -> Bytes) {
    for (index, (header, batch)) in each_batch(file).enumerate() {
        let ours = write(header.base_timestamp);
        let (_, _, ours) = batches(&ours).nth(index).unwrap().unwrap();
        assert_eq!(ours, batch, "batch {index}");
    }
    let count = |bytes| batches(bytes).count();
    assert_eq!(count(&write(Timestamp(0))), count(file));
}

#[test]
fn bootstrap_checkpoint_is_apaches() {
    let records = || {
        let levels = features::bootstrap_records(MetadataVersion::LATEST, &[]).unwrap();
        levels.into_iter().map(Into::into).collect()
    };
    check_file(BOOTSTRAP, |now| snapshot_file::bootstrap(records(), now).unwrap());
    let (_, read) = snapshot_file::read_records(&Bytes::from_static(BOOTSTRAP)).unwrap();
    assert_eq!(read, records());
}

#[test]
fn the_first_voters_checkpoint_is_apaches() {
    let (_, batch) = each_batch(VOTERS).next().unwrap();
    let (_, Entry::Control(records)) = log::read_batch(&batch).unwrap() else { panic!("control") };
    let [ControlRecord::SnapshotHeader(header), _, ControlRecord::KraftVoters(voters)] =
        &records[..]
    else {
        panic!("{records:?}")
    };
    let told = header.last_contained_log_timestamp;
    // The header's own time was asked for some ms before the batch's: put it back.
    check_file(VOTERS, |now| {
        let ours = snapshot_file::first_voters(1, voters, now);
        let (_, _, first) = batches(&ours).next().unwrap().unwrap();
        let (header, entry) = log::read_batch(&ours.slice_ref(first)).unwrap();
        let Entry::Control(mut records) = entry else { panic!("control") };
        let ControlRecord::SnapshotHeader(head) = &mut records[0] else { panic!("header first") };
        assert_eq!(head.last_contained_log_timestamp, now.0);
        head.last_contained_log_timestamp = told;
        let mut file = flowstone_raft::control::control_batch(
            header.base_offset,
            header.leader_epoch,
            now,
            &records,
        )
        .to_vec();
        file.extend_from_slice(&ours[first.len()..]);
        file.into()
    });
}
