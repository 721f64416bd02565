//! What records do to the image, and what the delta tells of it.

use flowstone_metadata::features::{self, ELR_VERSION, FeatureError, METADATA_VERSION};
use flowstone_metadata::records::*;
use flowstone_metadata::{
    ConfigResource, Delta, Image, MetadataRecord, MetadataVersion, Partition, Replay, ReplayError,
    log,
};
use flowstone_types::{LeaderEpoch, NodeId, Offset, PartitionId, Timestamp, Uuid};
use proptest::prelude::*;

const T: Uuid = Uuid(1001);
const P0: PartitionId = PartitionId { topic: T, index: 0 };

fn topic(name: &str, topic_id: Uuid) -> MetadataRecord {
    TopicRecord { name: name.into(), topic_id, ..Default::default() }.into()
}

fn partition(index: i32) -> MetadataRecord {
    let new = Partition::new(vec![NodeId(1), NodeId(2)], vec![Uuid(101); 2], vec![NodeId(1)]);
    new.to_record(PartitionId { topic: T, index }, MetadataVersion::LATEST).into()
}

fn config(name: &str, key: &str, value: Option<&str>) -> MetadataRecord {
    ConfigRecord {
        resource_type: 2,
        resource_name: name.into(),
        name: key.into(),
        value: value.map(Into::into),
        ..Default::default()
    }
    .into()
}

fn change() -> PartitionChangeRecord {
    PartitionChangeRecord { partition_id: 0, topic_id: T, ..Default::default() }
}

fn image(records: impl IntoIterator<Item = MetadataRecord>) -> (Image, Delta) {
    let (mut image, mut delta) = Default::default();
    records.into_iter().for_each(|record| Image::apply(&mut image, record, &mut delta).unwrap());
    (image, delta)
}

fn refused(image: &Image, record: impl Into<MetadataRecord>) -> ReplayError {
    let mut after = image.clone();
    let mut delta = Delta::default();
    let error = after.apply(record.into(), &mut delta).unwrap_err();
    assert_eq!((&after, delta), (image, Delta::default()), "a refused record leaves no trace");
    error
}

#[test]
fn topics_are_found_by_id_and_name_and_listed_by_name() {
    let (image, delta) =
        image([topic("b", T), topic("a.x", Uuid(1002)), partition(0), partition(1)]);
    assert_eq!(image.topics.named("b"), image.topics.with_id(T));
    let names = |from| image.topics.iter_from(from).map(|t| t.name.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (names(""), names("b"), names("c")),
        (vec!["a.x".into(), "b".into()], vec!["b".into()], vec![])
    );
    assert_eq!(image.topics.colliding("a_x").map(|name| &**name), Some("a.x"));
    assert_eq!(image.topics.colliding("b"), None);
    assert_eq!(image.topics.colliding("a_w"), None);
    assert_eq!(delta.topics_created.len(), 2);
    assert_eq!(delta.partitions.into_iter().collect::<Vec<_>>(), [(T, 0), (T, 1)]);
}

/// Reference section 4: every change counts the partition epoch, every word on the leader its epoch.
#[test]
fn epochs_count_changes() {
    let (image0, _) = image([topic("t", T), partition(0)]);
    let after = |change: PartitionChangeRecord| {
        let (mut image, mut delta) = (image0.clone(), Delta::default());
        image.apply(change.into(), &mut delta).unwrap();
        assert!(delta.partitions.contains(&(T, 0)));
        image.topics.partition(P0).unwrap().clone()
    };
    let check = |change, leader, leader_epoch| {
        let p = after(change);
        assert_eq!(
            (p.leader, p.leader_epoch, p.partition_epoch),
            (NodeId(leader), LeaderEpoch(leader_epoch), 1)
        );
    };
    check(PartitionChangeRecord { isr: Some(vec![1, 2]), ..change() }, 1, 0);
    check(PartitionChangeRecord { leader: 2, ..change() }, 2, 1);
    check(PartitionChangeRecord { leader: 1, ..change() }, 1, 1); // The same leader, anew.
    check(PartitionChangeRecord { leader: -1, ..change() }, -1, 1);
    assert!(after(PartitionChangeRecord { leader_recovery_state: 1, ..change() }).recovering);
    let wide = PartitionChangeRecord {
        replicas: Some(vec![1, 2, 3]),
        directories: Some(vec![T; 3]),
        ..change()
    };
    assert_eq!(after(wide).directories.len(), 3);
    assert_eq!(
        image0.topics.partition(P0).unwrap().partition_epoch,
        0,
        "older images stay as they are"
    );
}

#[test]
fn a_deleted_topic_takes_its_configs_along() {
    let made = [topic("t", T), config("t", "retention.ms", Some("1")), partition(0)];
    let (mut now, created) = image(made.clone());
    let mut delta = Delta::default();
    let remove = || RemoveTopicRecord { topic_id: T, ..Default::default() }.into();
    now.apply(remove(), &mut delta).unwrap();
    assert_eq!(now, Image::default());
    assert_eq!(delta.topics_deleted[&T].partition_count(), 1, "as it last was");
    assert!(delta.configs.contains(&ConfigResource::topic("t")));
    assert!(delta.partitions.is_empty() && !created.partitions.is_empty());
    let (_, both) = image(made.into_iter().chain([remove()]));
    assert!(both.topics_created.is_empty() && both.topics_deleted.is_empty(), "no trace");
}

#[test]
fn partitions_of_other_topics_stay_in_the_delta() {
    let other = |id| {
        PartitionRecord { partition_id: 0, topic_id: id, replicas: vec![1], ..Default::default() }
            .into()
    };
    let (low, high) = (Uuid(1000), Uuid(1002));
    let (_, delta) = image([
        topic("a", low),
        topic("t", T),
        topic("z", high),
        other(low),
        partition(0),
        other(high),
        RemoveTopicRecord { topic_id: T, ..Default::default() }.into(),
    ]);
    assert_eq!(delta.partitions.into_iter().collect::<Vec<_>>(), [(low, 0), (high, 0)]);
}

/// KAFKA-14136: brokers load anew what a config points to, even if its value stays.
#[test]
fn a_config_set_to_its_value_is_a_change() {
    let (mut now, _) = image([config("t", "k", Some("v"))]);
    let mut delta = Delta::default();
    now.apply(config("t", "k", Some("v")), &mut delta).unwrap();
    assert_eq!(delta.configs.len(), 1);
    now.apply(config("t", "k", None), &mut delta).unwrap();
    assert_eq!(now, Image::default(), "no empty leftovers");
}

/// KIP-966: `min.insync.replicas` changed, so that eligibility must be earned anew.
#[test]
fn clear_elr_clears_one_topic_or_all() {
    let with_elr = PartitionChangeRecord {
        eligible_leader_replicas: Some(vec![2]),
        last_known_elr: Some(vec![1]),
        ..change()
    };
    let (image0, _) = image([topic("t", T), partition(0), partition(1), with_elr.into()]);
    let clear = |name: &str| ClearElrRecord { topic_name: name.into(), ..Default::default() };
    for name in ["", "t"] {
        let (mut image, mut delta) = (image0.clone(), Delta::default());
        image.apply(clear(name).into(), &mut delta).unwrap();
        let p = image.topics.partition(P0).unwrap();
        assert!(p.eligible.is_empty() && p.last_known.is_empty());
        assert_eq!((p.partition_epoch, delta.partitions.len()), (2, 1), "untouched ones stay");
    }
    assert_eq!(refused(&image0, clear("x")), ReplayError::UnknownTopicName("x".into()));
}

#[test]
fn what_does_not_fit_is_refused() {
    let broker = RegisterBrokerRecord { broker_id: 1, broker_epoch: 5, ..Default::default() };
    let ids = ProducerIdsRecord { next_producer_id: 1000, ..Default::default() };
    let (image, _) = image([topic("t", T), partition(0), broker.into(), ids.clone().into()]);
    assert!(matches!(refused(&image, topic("t", Uuid(9))), ReplayError::TopicExists { .. }));
    assert!(matches!(refused(&image, topic("u", T)), ReplayError::TopicExists { .. }));
    let out_of_order =
        ReplayError::PartitionOutOfOrder { id: PartitionId { topic: T, index: 2 }, count: 1 };
    assert_eq!(refused(&image, partition(2)), out_of_order);
    assert!(matches!(refused(&image, partition(0)), ReplayError::PartitionOutOfOrder { .. }));
    let unknown = PartitionChangeRecord { partition_id: 7, ..change() };
    assert!(matches!(refused(&image, unknown), ReplayError::UnknownPartition(_)));
    let narrow = PartitionChangeRecord { directories: Some(vec![T]), ..change() };
    assert_eq!(
        refused(&image, narrow),
        ReplayError::DirectoryCount { directories: 1, replicas: 2 }
    );
    let next = ReplayError::ProducerIdsGoBack { next: 1000, before: 1000 };
    assert_eq!(refused(&image, ids), next, "section 2.2: strictly increasing");
    let stale = BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 4,
        fenced: -1,
        ..Default::default()
    };
    assert!(matches!(
        refused(&image, stale.clone()),
        ReplayError::OtherBrokerEpoch { current: 5, .. }
    ));
    let odd = BrokerRegistrationChangeRecord { broker_epoch: 5, fenced: 2, ..stale };
    assert!(matches!(refused(&image, odd), ReplayError::BadValue { value: 2, .. }));
    let gone = UnregisterBrokerRecord { broker_id: 3, ..Default::default() };
    assert_eq!(refused(&image, gone), ReplayError::UnknownBroker(NodeId(3)));
    let newer = FeatureLevelRecord {
        name: METADATA_VERSION.into(),
        feature_level: 31,
        ..Default::default()
    };
    assert_eq!(refused(&image, newer), ReplayError::UnknownMetadataVersion(31));
    let kind = ConfigRecord { resource_type: 8, ..Default::default() };
    assert!(matches!(refused(&image, kind), ReplayError::BadValue { value: 8, .. }));
}

/// KIP-868: readers see a transaction whole, or not at all.
#[test]
fn transactions_are_all_or_nothing() {
    let begin = || BeginTransactionRecord::default().into();
    let mut replay = Replay::default();
    replay.apply(topic("before", Uuid(1000))).unwrap();
    replay.apply(begin()).unwrap();
    replay.apply(topic("t", T)).unwrap();
    assert!(replay.publish().is_none() && replay.in_transaction());
    assert_eq!(replay.apply(begin()), Err(ReplayError::TransactionInTransaction));
    replay.apply(AbortTransactionRecord::default().into()).unwrap();
    let (image, delta) = replay.publish().unwrap();
    assert_eq!((image.topics.len(), delta.topics_created.len()), (1, 1));
    replay.apply(begin()).unwrap();
    replay.apply(topic("t", T)).unwrap();
    replay.apply(EndTransactionRecord::default().into()).unwrap();
    let (image, delta) = replay.publish().unwrap();
    assert_eq!((image.topics.len(), delta.topics_created.len()), (2, 1));
    assert_eq!(
        replay.apply(EndTransactionRecord::default().into()),
        Err(ReplayError::NoTransaction)
    );
}

/// As `kafka-storage format --release-version` of 4.3.1 does for each.
#[test]
fn bootstrap_records_follow_the_release() {
    let levels = |release| {
        let version = MetadataVersion::from_name(release).unwrap();
        let records = features::bootstrap_records(version, &[]).unwrap();
        records.into_iter().map(|r| (r.name, r.feature_level)).collect::<Vec<_>>()
    };
    let check = |release, want: &[(&str, i16)]| {
        let want: Vec<_> = want.iter().map(|(name, level)| ((*name).to_string(), *level)).collect();
        assert_eq!(levels(release), want, "{release}");
    };
    check("3.3-IV3", &[(METADATA_VERSION, 7)]);
    check("3.9", &[(METADATA_VERSION, 21)]);
    let (group, transaction) = (("group.version", 1), ("transaction.version", 2));
    check("4.0", &[(METADATA_VERSION, 25), group, transaction]);
    check("4.1", &[(METADATA_VERSION, 27), (ELR_VERSION, 1), group, transaction]);
    let share_streams = [("share.version", 1), ("streams.version", 1)];
    let all =
        [&[(METADATA_VERSION, 30), (ELR_VERSION, 1), group], &share_streams[..], &[transaction]];
    check("4.3", &all.concat());
    let chosen = |name: &str, level| {
        features::bootstrap_records(MetadataVersion::LATEST, &[(name.to_string(), level)])
    };
    assert_eq!(chosen("group.version", 0).unwrap().len(), 5);
    assert_eq!(chosen("x.version", 1), Err(FeatureError::Unknown { name: "x.version".into() }));
    assert!(matches!(chosen("group.version", 2), Err(FeatureError::OutOfRange { level: 2, .. })));
    assert_eq!(MetadataVersion::from_name("9.9"), None);
    assert_eq!(MetadataVersion::LATEST.to_string(), "4.3-IV0");
}

/// Reference section 2.3: one batch is what takes effect at once, 10,000 records at most.
#[test]
fn too_many_records_for_one_batch_are_refused_or_cut() {
    let records = vec![MetadataRecord::from(NoOpRecord::default()); log::BATCH_RECORDS_MAX + 1];
    let (version, epoch, now) = (MetadataVersion::LATEST, LeaderEpoch(1), Timestamp(1));
    assert!(log::batch(&records[1..], version, Offset(5), epoch, now).is_ok());
    let error = log::batch(&records, version, Offset(5), epoch, now).unwrap_err();
    assert_eq!(error, log::LogError::TooLarge { records: 10_001, batches: 2 });
    let cut = log::batches(&records, version, Offset(5), epoch, now).unwrap();
    let offsets: Vec<_> = cut.iter().map(|b| log::read_batch(b).unwrap().0.base_offset).collect();
    assert_eq!(offsets, [Offset(5), Offset(10_005)]);
    let mut damaged = cut[1].to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(matches!(log::read_batch(&damaged.into()), Err(log::LogError::Frame(_))));
}

proptest! {
    /// Whatever the records: the image's own records make the same image again.
    #[test]
    fn the_images_records_make_the_image(seed: u64) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33 ^ state
        };
        let level = FeatureLevelRecord {
            name: METADATA_VERSION.into(),
            feature_level: MetadataVersion::LATEST.0,
            ..Default::default()
        };
        let (mut image, mut delta) = image([level.into()]);
        for _ in 0..200 {
            let types = MetadataRecord::TYPES;
            let (key, _, version) = types[draw() as usize % types.len()];
            if let Some(record) = MetadataRecord::example(key, version, &mut draw) {
                let _ = image.apply(record, &mut delta); // Many do not fit: they leave no trace.
            }
        }
        let mut again = Image::default();
        for record in image.to_records() {
            again.apply(record, &mut delta).unwrap();
        }
        // Random levels of features may be negative, quotas NaN: compared as they print.
        prop_assert_eq!(format!("{again:?}"), format!("{image:?}"));
    }
}
