//! What each metadata.version has, which levels a feature may go to, and what is lost on the way.

use flowstone_metadata::features::{self, FEATURES, KRAFT_VERSION, METADATA_VERSION};
use flowstone_metadata::log::LogError;
use flowstone_metadata::records::*;
use flowstone_metadata::{Delta, Image, Loss, MetadataRecord, MetadataVersion, snapshot_file};
use flowstone_raft::SnapshotId;
use flowstone_raft::control::KraftVoters;
use flowstone_types::{LeaderEpoch, Offset, Timestamp, Uuid};
use proptest::prelude::*;
use random::{Draw, grown, image};

mod random;

/// Written by `golden/Levels.java`.
const APACHE: &str = include_str!("golden/apache-4.3.1/levels.txt");

/// Reference section 2.4, as Kafka's own classes have it.
#[test]
fn every_level_is_kafkas() {
    use std::fmt::Write;
    let (mut ours, mut before) = (String::new(), MetadataVersion(MetadataVersion::MIN.0 - 1));
    for level in MetadataVersion::MIN.0..=MetadataVersion::LATEST.0 {
        let v = MetadataVersion(level);
        let at = |record: MetadataRecord| record.version_at(v);
        let partition = at(PartitionRecord::default().into());
        let change = at(PartitionChangeRecord::default().into());
        let broker = at(RegisterBrokerRecord::default().into());
        assert_eq!(before.records_differ(v), v.changes_records());
        before = v;
        let (changed, migration, scram) =
            (v.changes_records(), v.has_zk_migration(), v.has_scram());
        let (transactions, tokens) = (v.has_transactions(), v.has_delegation_tokens());
        let (controllers, elr) = (v.has_controller_registration(), v.has_eligible_replicas());
        let (directories, cordoned) = (v.has_directories(), v.has_cordoned_directories());
        write!(
            ours,
            "metadata.version {level} {v} changed={changed} migration={migration} scram={scram} "
        )
        .unwrap();
        write!(ours, "transactions={transactions} tokens={tokens} controllers={controllers} ")
            .unwrap();
        write!(ours, "directories={directories} elr={elr} cordoned={cordoned} ").unwrap();
        writeln!(ours, "partition={partition} change={change} broker={broker}").unwrap();
    }
    let (versions, others) = APACHE.split_at(APACHE.find(KRAFT_VERSION).unwrap());
    assert_eq!(ours, versions);
    let mut levels = 0;
    for line in others.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let (name, level) = (words[0], words[1].parse().unwrap());
        let since = MetadataVersion::from_name(words[2]).unwrap();
        let supported = features::supported().into_iter().find(|f| f.name == name).unwrap();
        assert!(supported.max_supported_version >= level, "{line}");
        if let Some(feature) = FEATURES.iter().find(|feature| feature.name == name) {
            assert!(feature.default_at(since) >= level, "{line}");
            let before = feature.default_at(MetadataVersion(since.0 - 1));
            assert!(level == 0 || before < level, "{line}");
            let needs = match feature.needs_at(level) {
                MetadataVersion::MIN => "{}".into(),
                needs => format!("{{metadata.version={}}}", needs.0),
            };
            assert_eq!(needs, words[3], "{line}");
        }
        levels += 1;
    }
    let ours: i16 = features::supported()
        .iter()
        .filter(|f| f.name != METADATA_VERSION)
        .map(|f| f.max_supported_version + 1)
        .sum();
    assert_eq!(levels, ours, "no level of ours is unknown to Kafka");
}

/// Reference section 2.2: what a downgrade must not cross.
#[test]
fn records_differ_over_any_level_that_changed_them() {
    let differ = |a, b| MetadataVersion(a).records_differ(MetadataVersion(b));
    assert!(!differ(29, 23) && !differ(23, 29) && !differ(30, 30));
    assert!(differ(30, 29) && differ(29, 30));
    assert!(differ(29, 22), "4.0-IV1 is on the way");
}

fn written(image: &Image) -> Result<Image, LogError> {
    let id = SnapshotId { end: Offset(7), epoch: LeaderEpoch(1) };
    let (quorum, now) = ((0, &KraftVoters::default()), Timestamp(1));
    let mut file = Vec::new();
    snapshot_file::write(image, id, now, quorum, now, |part| file.extend_from_slice(&part))?;
    Ok(snapshot_file::read(&file.into()).unwrap().1)
}

/// As Kafka's image writer: what the version has no record for is no silent loss.
#[test]
fn a_snapshot_that_would_lose_something_is_not_written() {
    let (version, mut old) = (MetadataVersion(10), Image::default());
    old.features.insert(METADATA_VERSION.into(), version.0);
    let alice =
        UserScramCredentialRecord { name: "alice".into(), mechanism: 1, ..Default::default() };
    old.apply(alice.into(), &mut Delta::default()).unwrap();
    assert_eq!(written(&old), Err(LogError::NotTold { loss: Loss::ScramCredentials, version }));
}

#[test]
fn each_loss_has_its_version() {
    let one = |record: MetadataRecord| {
        let mut image = Image::default();
        let topic = TopicRecord { name: "t".into(), topic_id: Uuid(1000), ..Default::default() };
        image.apply(topic.into(), &mut Delta::default()).unwrap();
        image.apply(record, &mut Delta::default()).unwrap();
        image
    };
    let check = |record: MetadataRecord, loss: Loss, since: i16| {
        let image = one(record);
        assert_eq!(image.losses_at(MetadataVersion(since - 1)), [loss]);
        assert_eq!(image.losses_at(MetadataVersion(since)), []);
    };
    let broker = RegisterBrokerRecord::default;
    let partition = || PartitionRecord {
        partition_id: 0,
        topic_id: Uuid(1000),
        replicas: vec![1],
        ..Default::default()
    };
    let token = DelegationTokenRecord { token_id: "t".into(), ..Default::default() };
    check(
        RegisterBrokerRecord { is_migrating_zk_broker: true, ..broker() }.into(),
        Loss::MigratingBrokers,
        8,
    );
    check(UserScramCredentialRecord::default().into(), Loss::ScramCredentials, 11);
    check(token.into(), Loss::DelegationTokens, 14);
    check(RegisterControllerRecord::default().into(), Loss::ControllerRegistrations, 15);
    check(
        RegisterBrokerRecord { log_dirs: vec![Uuid(101)], ..broker() }.into(),
        Loss::LogDirectories,
        17,
    );
    check(
        PartitionRecord { directories: vec![Uuid(101)], ..partition() }.into(),
        Loss::ReplicaDirectories,
        17,
    );
    let eligible = PartitionRecord { eligible_leader_replicas: Some(vec![1]), ..partition() };
    check(eligible.into(), Loss::EligibleReplicas, 23);
    check(
        PartitionRecord { last_known_elr: Some(vec![1]), ..partition() }.into(),
        Loss::EligibleReplicas,
        23,
    );
    check(
        RegisterBrokerRecord { cordoned_log_dirs: Some(vec![]), ..broker() }.into(),
        Loss::CordonedDirectories,
        30,
    );
}

fn any_version() -> impl Strategy<Value = MetadataVersion> {
    (MetadataVersion::MIN.0..=MetadataVersion::LATEST.0).prop_map(MetadataVersion)
}

/// The image with another metadata.version, as it stands.
fn relabelled(image: &Image, version: MetadataVersion) -> Image {
    let mut image = image.clone();
    image.features.insert(METADATA_VERSION.into(), version.0);
    image
}

proptest! {
    /// Whatever the version and the records of it: the snapshot is the image.
    #[test]
    fn a_snapshot_is_its_image_at_every_version(seed: u64, version in any_version(), count in 0usize..100) {
        let image = image(version, count, &mut Draw(seed));
        prop_assert_eq!(image.losses_at(version), []);
        prop_assert_eq!(written(&image).unwrap(), image);
    }

    /// Up: nothing is lost. Down: what a version's records make is all but the losses, and a downgrade that is
    /// allowed has none.
    #[test]
    fn what_is_lost_is_known(seed: u64, from in any_version(), to in any_version(), count in 0usize..100) {
        let mut draw = Draw(seed);
        let image = image(from, count, &mut draw);
        let mut told = Image::default();
        for record in image.to_records_at(to) {
            let version = record.version_at(to);
            let (again, _) = MetadataRecord::decode(&record.encode(version).unwrap()).unwrap();
            told.apply(again, &mut Delta::default()).unwrap();
        }
        prop_assert_eq!(told.metadata_version(), to);
        prop_assert_eq!(told.losses_at(to), []);
        let losses = image.losses_at(to);
        prop_assert_eq!(losses.is_empty(), told == relabelled(&image, to), "{:?}", losses);
        if to >= from || !from.records_differ(to) {
            prop_assert_eq!(losses, []);
        }
        // And life goes on at that version.
        grown(&mut told, &mut Delta::default(), 50, &mut draw);
        prop_assert_eq!(written(&told).unwrap(), told);
    }
}
