//! `__consumer_offsets`, byte for byte: `golden/kafka-4.3.1.txt` is what Kafka's own classes write
//! (`golden/Golden.java`).

use crate::harness::{Coordinator, commit, join, now, sync};
use bytes::Bytes;
use flowstone_coordinators::{
    Answer, Commit, DeleteGroups, Loading, OffsetCommit, OffsetDelete, Record, ReplayError,
    Replayed, Request,
};
use flowstone_types::Uuid;

fn golden(name: &str) -> Record {
    let line = include_str!("../golden/kafka-4.3.1.txt")
        .lines()
        .find(|line| line.split(' ').next() == Some(name))
        .unwrap_or_else(|| panic!("no golden record {name}"));
    let mut fields = line.split(' ').skip(1);
    let key = bytes(fields.next().unwrap());
    let value = fields.next().filter(|value| *value != "-").map(bytes);
    Record { key, value }
}

fn bytes(hex: &str) -> Bytes {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>().into()
}

fn one(
    group: &str,
    topic: &str,
    id: Uuid,
    (partition, offset, leader_epoch, metadata): (i32, i64, i32, &str),
) -> OffsetCommit {
    let mut request = commit(group, topic, offset);
    request.topics[0].id = id;
    let metadata = Some(metadata.into());
    request.topics[0].partitions = vec![Commit { partition, offset, leader_epoch, metadata }];
    request
}

const ID: Uuid = Uuid(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

#[test]
fn offsets_are_written_as_kafka_does() {
    let mut c = Coordinator::new();
    c.commit(one("my-group", "sizes", ID, (7, 1_234_567_890_123, 5, "note")));
    c.commit(one("", "t", Uuid::ZERO, (0, 0, -1, "")));
    c.commit(OffsetCommit { retention_ms: 2_000, ..one("g", "t", ID, (1, 9, 3, "m")) });
    c.ask(Request::DeleteOffsets(OffsetDelete {
        group: "g".into(),
        topics: vec![("t".into(), vec![1])],
    }));
    c.ask(Request::DeleteGroups(DeleteGroups { groups: vec!["g".into()] }));
    let names =
        ["offset", "offset-plain", "offset-expiring", "offset-tombstone", "group-tombstone"];
    assert_eq!(c.log, names.map(golden));
}

#[test]
fn groups_are_written_as_kafka_does() {
    let mut c = Coordinator::new();
    let first = |member: &str| {
        join(member).old().fresh(1).with(|j| {
            j.session_timeout_ms = 45_000;
            j.protocols[0].metadata = vec![1, 2].into();
        })
    };
    let second = join("").instance("i").fresh(2).with(|j| {
        j.client_id = "".into();
        j.rebalance_timeout_ms = 60_000;
        j.protocols[0].metadata = vec![4].into();
    });
    let id = c.ask(first("").request());
    c.pass(3_000);
    let member = c.joined(id).unwrap().member;
    let id = c.ask(first(&member).with(|j| j.protocols[0].metadata = vec![9].into()).request());
    assert_eq!(c.joined(id).unwrap().generation, 2);
    c.ask(second.request());
    let id = c.ask(first(&member).request());
    assert_eq!(c.joined(id).unwrap().generation, 3);
    c.ask(sync(&member, 3, vec![(member.clone(), Bytes::from_static(&[3]))]));
    assert_eq!(c.log, ["beginning", "group"].map(golden));
}

/// Every released version of the values is read.
#[test]
fn old_versions_are_read() {
    for version in 0..=4 {
        let log = [format!("offset-v{version}"), format!("group-v{version}")];
        let log = log.map(|name| golden(&name));
        let mut c = Coordinator::load(flowstone_coordinators::Config::default(), &log, 0);
        let mut fetch = crate::harness::fetch("g", "t", false);
        fetch.topics.as_mut().unwrap()[0].partitions = vec![2];
        let id = c.ask(Request::Fetch(fetch));
        let Some(Answer::Fetch(Ok(topics))) = c.take(id) else { panic!() };
        let found = &topics[0].partitions[0];
        assert_eq!((found.offset, &*found.metadata), (77, "m"));
        assert_eq!(found.leader_epoch, if version >= 3 { 6 } else { -1 });

        let group = c.describe("g");
        assert_eq!((group.state, &*group.protocol), ("Stable", "range"));
        assert_eq!(group.members[0].instance.as_deref(), (version >= 3).then_some("i"));
        assert_eq!(group.members[0].assignment, [2_u8][..]);
        let instance = (version >= 3).then_some("i");
        assert_eq!(c.heartbeat_as("m", instance, 1), Ok(()));
    }
}

/// Type 0 is the key of offsets before Kafka 0.9.
#[test]
fn legacy_keys_are_read() {
    let record = golden("offset-v0");
    let mut key = record.key.to_vec();
    key[1] = 0;
    let log = [Record { key: key.into(), ..record }];
    let c = Coordinator::load(flowstone_coordinators::Config::default(), &log, 0);
    assert_eq!(c.groups.len(), 1);
}

/// KIP-848's and later kinds are left out, and said to be.
#[test]
fn records_of_other_kinds_are_skipped() {
    let mut loading = Loading::new();
    assert_eq!(loading.replay(&[0, 3, 0, 1, b'g'], None), Ok(Replayed::Skipped { kind: 3 }));
}

#[test]
fn garbled_records_are_errors() {
    let mut loading = Loading::new();
    let record = golden("group");
    assert_eq!(loading.replay(&[0], None), Err(ReplayError::Unnamed));
    assert_eq!(loading.replay(&record.key, Some(&[])), Err(ReplayError::Unnamed));
    let value = record.value.unwrap();
    for end in 2..value.len() {
        assert!(matches!(
            loading.replay(&record.key, Some(&value[..end])),
            Err(ReplayError::Unreadable(_))
        ));
    }
    let mut twice = value.to_vec();
    let second = twice.windows(2).position(|w| w == b"i-").unwrap();
    twice[second..second + 38].copy_from_slice(b"c-00000000-0000-4000-8000-000000000001");
    assert!(matches!(
        loading.replay(&record.key, Some(&twice)),
        Err(ReplayError::Contradiction { .. })
    ));
    let mut effects = Vec::new();
    let groups = loading.finish(flowstone_coordinators::Config::default(), now(0), &mut effects);
    assert!(effects.is_empty(), "{groups:?}");
}
