//! The first records of a cluster, registration, leaderships, producer ids.

use crate::common::{after, apply, cluster};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    BrokerRegistration, ControllerRegistration, activate, allocate_producer_ids, register_broker,
    register_controller, unfence_broker,
};
use flowstone_metadata::records::{
    BrokerRegistrationChangeRecord, PartitionChangeRecord, PartitionRecord, TopicRecord,
};
use flowstone_metadata::{
    ConfigResource, Image, MetadataRecord, MetadataVersion, Partition, Replay, features,
};
use flowstone_types::{LeaderEpoch, NodeId, PartitionId, Uuid};

const ME: NodeId = NodeId(1);
const T: Uuid = Uuid(500);

fn registration() -> BrokerRegistration {
    BrokerRegistration {
        id: ME,
        incarnation: Uuid(900),
        end_points: vec![],
        features: features::supported(),
        rack: None,
        log_dirs: vec![Uuid(1001)],
    }
}

/// Reference section 2.3 and Apache 4.3.1's own first records: a transaction of the bootstrap records,
/// with the cluster's min.insync.replicas where ELR is on.
#[test]
fn an_empty_log_starts_with_the_bootstrap_records() {
    let decision = activate(&Image::default(), false, vec![], 1);
    let names: Vec<_> = decision.records.iter().map(MetadataRecord::name).collect();
    assert_eq!(
        (names[0], names[1], names[7], names[8]),
        ("BeginTransactionRecord", "FeatureLevelRecord", "ConfigRecord", "EndTransactionRecord")
    );
    let mut replay = Replay::default();
    for record in decision.records {
        replay.apply(record).unwrap();
    }
    let (image, _) = replay.publish().unwrap();
    assert_eq!(image.metadata_version(), MetadataVersion::LATEST);
    assert_eq!(image.config(&ConfigResource::all_brokers(), "min.insync.replicas"), Some("1"));
    assert_eq!(activate(&image, false, vec![], 1).records, [], "only once");
    assert_eq!(activate(&image, true, vec![], 1).records[0].name(), "AbortTransactionRecord");
    let old = features::bootstrap_records(MetadataVersion::MIN, &[]).unwrap();
    let old = activate(&Image::default(), false, old.into_iter().map(Into::into).collect(), 1);
    assert_eq!(old.records.len(), 1, "no transactions before 3.6-IV1, no ELR");
}

#[test]
fn a_broker_registers_fenced_with_the_logs_end_as_epoch() {
    let image = cluster(&[]);
    let decision = register_broker(&image, registration(), 42).unwrap();
    assert_eq!(decision.response, 42);
    let image = after(&image, &decision);
    assert!(image.brokers[&ME].fenced && !image.is_active(ME));
    let image = after(&image, &unfence_broker(&image, ME, 42).unwrap());
    assert!(image.is_active(ME));
    let again = register_broker(
        &image,
        BrokerRegistration { rack: Some("r".into()), ..registration() },
        50,
    );
    let amended = after(&image, &again.unwrap());
    assert_eq!(
        (amended.brokers[&ME].broker_epoch, amended.is_active(ME)),
        (42, true),
        "same incarnation"
    );
    let new = register_broker(
        &image,
        BrokerRegistration { incarnation: Uuid(901), ..registration() },
        50,
    );
    let replaced = after(&image, &new.unwrap());
    assert_eq!((replaced.brokers[&ME].broker_epoch, replaced.is_active(ME)), (50, false));
    assert_eq!(unfence_broker(&replaced, ME, 42).unwrap_err().kind, StaleBrokerEpoch);
}

/// Reference section 2.2, BrokerRegistration.
#[test]
fn unfit_brokers_are_refused() {
    let image = cluster(&[2]);
    let check = |registration, kind: ErrorKind, message: &str| {
        let error = register_broker(&image, registration, 42).unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(error.message.contains(message), "{error}");
    };
    let dirs = |log_dirs| BrokerRegistration { log_dirs, ..registration() };
    check(dirs(vec![]), InvalidRegistration, "No directories");
    check(dirs(vec![Uuid(99)]), InvalidRegistration, "Reserved");
    check(dirs(vec![Uuid(1001), Uuid(1001)]), InvalidRegistration, "Duplicate");
    check(dirs(vec![Uuid(1002)]), InvalidRegistration, "Broker 2 is already registered");
    check(
        BrokerRegistration { features: vec![], ..registration() },
        InvalidRegistration,
        "metadata.version",
    );
    let mut few = registration();
    few.features.retain(|feature| feature.name != "group.version");
    check(few, UnsupportedVersion, "finalized version 1 of group.version");
}

fn with_partition(change: impl FnOnce(&mut Partition)) -> Image {
    let mut image = cluster(&[1]);
    let mut partition = Partition::new(vec![ME], vec![Uuid(1001)], vec![ME]);
    change(&mut partition);
    let record: PartitionRecord =
        partition.to_record(PartitionId { topic: T, index: 0 }, MetadataVersion::LATEST);
    apply(
        &mut image,
        [TopicRecord { name: "t".into(), topic_id: T, ..Default::default() }.into(), record.into()],
    );
    image
}

fn led(image: &Image) -> (NodeId, LeaderEpoch, Vec<i32>) {
    let p = image.topics.named("t").unwrap().partition(0).unwrap();
    (p.leader, p.leader_epoch, flowstone_metadata::raw(&p.isr))
}

/// Section 4 and KIP-966: ISR first, then eligible replicas, then the last known leader.
#[test]
fn a_broker_that_comes_back_leads_what_it_may() {
    let after_unfencing = |image: &Image| after(image, &unfence_broker(image, ME, 11).unwrap());
    let mine = (ME, LeaderEpoch(1), vec![1]);
    assert_eq!(led(&after_unfencing(&with_partition(|_| {}))), mine, "led before: a new epoch");
    assert_eq!(led(&after_unfencing(&with_partition(|p| p.leader = NodeId::NONE))), mine);
    let ran_out = |p: &mut Partition| {
        p.leader = NodeId::NONE;
        p.isr = Box::default();
    };
    let eligible = after_unfencing(&with_partition(|p| {
        ran_out(p);
        p.eligible = [ME].into();
        p.last_known = [ME].into();
    }));
    assert_eq!(led(&eligible), mine);
    let p = eligible.topics.named("t").unwrap().partition(0).unwrap();
    assert!(p.eligible.is_empty() && p.last_known.is_empty() && !p.recovering);
    let last = |p: &mut Partition| {
        ran_out(p);
        p.last_known = [ME].into();
    };
    assert_eq!(led(&after_unfencing(&with_partition(last))), mine);
    let nobody = (NodeId::NONE, LeaderEpoch(0), vec![]);
    assert_eq!(
        led(&after_unfencing(&with_partition(ran_out))),
        nobody,
        "nothing says it has the data"
    );
    let of_two = with_partition(|p| {
        last(p);
        p.replicas = [ME, NodeId(2)].into();
        p.directories = [Uuid(1001), Uuid(1002)].into();
    });
    let unclean = after_unfencing(&of_two);
    assert!(unclean.topics.named("t").unwrap().partition(0).unwrap().recovering);
}

#[test]
fn another_live_leader_stays() {
    let mut image = cluster(&[1, 2]);
    let partition =
        Partition::new(vec![NodeId(2), ME], vec![Uuid(1002), Uuid(1001)], vec![NodeId(2), ME]);
    let record = partition.to_record(PartitionId { topic: T, index: 0 }, MetadataVersion::LATEST);
    apply(
        &mut image,
        [TopicRecord { name: "t".into(), topic_id: T, ..Default::default() }.into(), record.into()],
    );
    assert_eq!(unfence_broker(&image, ME, 11).unwrap().response, 0);
}

/// What Apache's controlled shutdown leaves (as in its log that `flowstone-metadata` keeps) is led again.
#[test]
fn a_directory_that_apache_shut_down_is_led_again() {
    let mut image = with_partition(|_| {});
    let shutdown = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 11,
        fenced: 1,
        in_controlled_shutdown: 1,
        ..Default::default()
    };
    let gone = PartitionChangeRecord {
        partition_id: 0,
        topic_id: T,
        isr: Some(vec![]),
        leader: -1,
        eligible_leader_replicas: Some(vec![1]),
        last_known_elr: Some(vec![1]),
        ..Default::default()
    };
    apply(&mut image, [shutdown.into(), gone.into()]);
    let image = after(&image, &register_broker(&image, registration(), 77).unwrap());
    let image = after(&image, &unfence_broker(&image, ME, 77).unwrap());
    assert_eq!(led(&image), (ME, LeaderEpoch(2), vec![1]));
    assert!(image.is_active(ME));
}

#[test]
fn a_controller_registers_once_a_start() {
    let image = cluster(&[]);
    let controller = ControllerRegistration { id: ME, incarnation: Uuid(900), end_points: vec![] };
    let image = after(&image, &register_controller(&image, controller.clone()));
    assert_eq!(image.controllers[&ME].features.len(), features::supported().len());
    assert_eq!(register_controller(&image, controller).records, []);
}

/// Reference section 2.2, AllocateProducerIds: blocks of 1000, the record holds the next id.
#[test]
fn producer_ids_are_given_in_blocks() {
    let image = cluster(&[1]);
    let first = allocate_producer_ids(&image, ME, 11).unwrap();
    assert_eq!(first.response, 0..1000);
    let image = after(&image, &first);
    assert_eq!(allocate_producer_ids(&image, ME, 11).unwrap().response, 1000..2000);
    assert_eq!(allocate_producer_ids(&image, ME, 10).unwrap_err().kind, StaleBrokerEpoch);
    assert_eq!(
        allocate_producer_ids(&image, NodeId(9), 11).unwrap_err().kind,
        BrokerIdNotRegistered
    );
}
