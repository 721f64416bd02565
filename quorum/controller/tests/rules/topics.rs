//! Topics and partitions: each rule of Kafka's ReplicationControlManager and ControllerApis once.

use crate::common::{after, apply, broker, cluster, config, nodes, with_random};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    CreatedTopic, Decision, NewPartitions, NewTopic, TopicChoice, TopicDefaults, create_partitions,
    create_topics, delete_topics,
};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord};
use flowstone_types::{LeaderEpoch, NodeId, Uuid};

const DEFAULTS: TopicDefaults = TopicDefaults { partitions: 4, replication_factor: 1 };

fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions,
        replication_factor,
        assignments: vec![],
        configs: vec![],
    }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments.iter().map(|(index, ids)| (*index, nodes(ids))).collect();
    NewTopic { assignments, ..topic(name, -1, -1) }
}

fn with_config(name: &str, key: &str, value: Option<&str>) -> NewTopic {
    NewTopic { configs: vec![(key.into(), value.map(Into::into))], ..topic(name, 1, 1) }
}

type Created = Decision<Vec<(String, Result<CreatedTopic, flowstone_controller::ApiError>)>>;

fn create(image: &Image, topics: &[NewTopic]) -> Created {
    with_random(|random| create_topics(image, topics, DEFAULTS, false, &config(), random))
}

/// The one topic is refused, and leaves no record.
fn refused(image: &Image, topic: NewTopic, kind: ErrorKind, message: &str) {
    let decision = create(image, &[topic]);
    assert_eq!(decision.records, []);
    let error = decision.response[0].1.clone().unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(message), "{error}");
}

#[test]
fn a_topic_is_its_record_then_configs_then_partitions() {
    let image = cluster(&[1]);
    let decision = create(
        &image,
        &[NewTopic { partitions: 2, ..with_config("t", "retention.ms", Some("1")) }],
    );
    let names: Vec<_> = decision.records.iter().map(MetadataRecord::name).collect();
    assert_eq!(names, ["TopicRecord", "ConfigRecord", "PartitionRecord", "PartitionRecord"]);
    assert!(decision.atomic);
    let created = decision.response[0].1.clone().unwrap();
    assert_eq!((created.partitions, created.replication_factor), (2, 1));
    let image = after(&image, &decision);
    let topic = image.topics.named("t").unwrap();
    assert_eq!(topic.id, created.id);
    let partition = topic.partition(1).unwrap();
    assert_eq!((&*partition.replicas, &*partition.isr), (&[NodeId(1)][..], &[NodeId(1)][..]));
    assert_eq!((partition.leader, partition.leader_epoch), (NodeId(1), LeaderEpoch(0)));
    assert_eq!(&*partition.directories, [Uuid(1001)], "the broker's only directory (KIP-858)");
    assert_eq!(image.config(&ConfigResource::topic("t"), "retention.ms"), Some("1"));
}

#[test]
fn minus_one_means_the_default() {
    let decision = create(&cluster(&[1]), &[topic("t", -1, -1)]);
    let created = decision.response[0].1.clone().unwrap();
    assert_eq!((created.partitions, created.replication_factor), (4, 1));
}

#[test]
fn validate_only_answers_and_writes_nothing() {
    let image = cluster(&[1]);
    let decision = with_random(|random| {
        create_topics(&image, &[topic("t", 1, 1)], DEFAULTS, true, &config(), random)
    });
    assert!(decision.response[0].1.is_ok() && decision.records.is_empty());
}

/// Reference section 4: `[a-zA-Z0-9._-]{1,249}`, and the collision of '.' and '_'.
#[test]
fn names_are_checked() {
    let image = cluster(&[1]);
    for name in ["", ".", "..", "a b", "a/b", &"x".repeat(250)] {
        refused(&image, topic(name, 1, 1), InvalidTopic, "Topic name is invalid");
    }
    let image = after(&image, &create(&image, &[topic("a.b", 1, 1), topic("c", 1, 1)]));
    refused(&image, topic("a_b", 1, 1), InvalidTopic, "collides with existing topic: a.b");
    refused(&image, topic("c", 1, 1), TopicAlreadyExists, "Topic 'c' already exists.");
    refused(&image, topic("__cluster_metadata", 1, 1), InvalidRequest, "prohibited");
}

#[test]
fn numbers_are_checked() {
    let image = cluster(&[1]);
    refused(&image, topic("t", 0, 1), InvalidPartitions, "non-positive");
    refused(&image, topic("t", -2, 1), InvalidPartitions, "non-positive");
    refused(&image, topic("t", 1, 0), InvalidReplicationFactor, "larger than 0");
    let few = "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered.";
    refused(&image, topic("t", 1, 2), InvalidReplicationFactor, few);
    refused(&cluster(&[]), topic("t", 1, 1), InvalidReplicationFactor, "fenced");
}

#[test]
fn fenced_replicas_are_not_in_sync() {
    let mut image = cluster(&[1]);
    apply(&mut image, [broker(2, true)]);
    let image = after(&image, &create(&image, &[topic("t", 1, 2)]));
    let partition = image.topics.named("t").unwrap().partition(0).unwrap();
    assert_eq!((&*partition.replicas, &*partition.isr), (&nodes(&[1, 2])[..], &nodes(&[1])[..]));
}

#[test]
fn manual_assignments_are_checked() {
    let mut image = cluster(&[1, 2]);
    apply(&mut image, [broker(3, true)]);
    let check = |assignments: &[(i32, &[i32])], kind, message| {
        refused(&image, assigned("t", assignments), kind, message);
    };
    check(
        &[(0, &[1]), (0, &[2])],
        InvalidReplicaAssignment,
        "multiple manual partition assignments for partition 0",
    );
    check(&[(0, &[1]), (2, &[2])], InvalidReplicaAssignment, "consecutive 0-based");
    check(&[(-1, &[1])], InvalidReplicaAssignment, "consecutive 0-based");
    check(&[(0, &[1]), (1, &[1, 2])], InvalidReplicaAssignment, "which have 1 replica(s)");
    check(&[(0, &[1, 1])], InvalidReplicaAssignment, "broker 1 more than once");
    check(&[(0, &[9])], InvalidReplicaAssignment, "broker 9, but no such broker");
    check(&[(0, &[])], InvalidReplicaAssignment, "empty replica list");
    check(&[(0, &[3])], InvalidReplicaAssignment, "fenced or in controlled shutdown");
    let told = NewTopic { partitions: 1, ..assigned("t", &[(0, &[1])]) };
    refused(&image, told, InvalidRequest, "numPartitions was not set to -1");
    let told = NewTopic { replication_factor: 1, ..assigned("t", &[(0, &[1])]) };
    refused(&image, told, InvalidRequest, "replication factor was not set to -1");
    let made = after(&image, &create(&image, &[assigned("t", &[(1, &[2, 1]), (0, &[1, 3])])]));
    let topic = made.topics.named("t").unwrap();
    assert_eq!(*topic.partition(0).unwrap().isr, nodes(&[1]));
    assert_eq!(topic.partition(1).unwrap().leader, NodeId(2));
}

#[test]
fn configs_are_checked() {
    let image = cluster(&[1]);
    refused(
        &image,
        with_config("t", "bad", Some("1")),
        InvalidConfig,
        "Unknown topic config name: bad",
    );
    refused(
        &image,
        with_config("t", "retention.ms", None),
        InvalidConfig,
        "Null value not supported",
    );
    refused(
        &image,
        with_config("t", "leader.replication.throttled.replicas", Some(&"x".repeat(32_768))),
        InvalidConfig,
        "32767 bytes",
    );
    let compact = |name, policy| with_config(name, "cleanup.policy", Some(policy));
    refused(&image, compact("t", "compact"), InvalidConfig, "does not compact logs");
    refused(&image, compact("t", "delete, compact"), InvalidConfig, "does not compact logs");
    assert!(create(&image, &[compact("__consumer_offsets", "compact")]).response[0].1.is_ok());
}

#[test]
fn topics_are_answered_one_by_one() {
    let topics = [topic("a", 1, 1), topic("b c", 1, 1), topic("d", 1, 1), topic("d", 2, 1)];
    let decision = create(&cluster(&[1]), &topics);
    let kinds: Vec<_> = decision
        .response
        .iter()
        .map(|(name, r)| (name.as_str(), r.as_ref().err().map(|e| e.kind)))
        .collect();
    assert_eq!(kinds, [("a", None), ("b c", Some(InvalidTopic)), ("d", Some(InvalidRequest))]);
    assert_eq!(decision.records.len(), 2);
}

/// Reference section 2.3: 10,000 records at most per user operation. Nothing is built before that is
/// known, or 2^31 partitions would end the process.
#[test]
fn what_is_too_large_for_one_batch_is_refused_whole() {
    let image = cluster(&[1]);
    refused(&image, topic("t", i32::MAX, 1), PolicyViolation, "10000");
    let decision = create(&image, &[topic("a", 6000, 1), topic("b", 6000, 1)]);
    assert!(decision.records.is_empty() && decision.response.iter().all(|(_, r)| r.is_err()));
    assert_eq!(create(&image, &[topic("t", 9_999, 1)]).records.len(), 10_000);
}

fn grown(
    image: &Image,
    wish: NewPartitions,
) -> (Image, Result<(), flowstone_controller::ApiError>) {
    let decision = with_random(|random| create_partitions(image, &[wish], false, random));
    (after(image, &decision), decision.response[0].1.clone())
}

#[test]
fn partitions_are_added_behind_the_last() {
    let image = cluster(&[1, 2]);
    let image = after(&image, &create(&image, &[topic("t", 2, 1)]));
    let more = |count, assignments: Option<&[&[i32]]>| NewPartitions {
        name: "t".into(),
        count,
        assignments: assignments.map(|all| all.iter().map(|ids| nodes(ids)).collect()),
    };
    let (now, result) = grown(&image, more(5, None));
    assert_eq!((now.topics.named("t").unwrap().partition_count(), result), (5, Ok(())));
    let (now, _) = grown(&image, more(4, Some(&[&[2], &[1]])));
    assert_eq!(now.topics.named("t").unwrap().partition(2).unwrap().leader, NodeId(2));
    let check = |wish, kind, message: &str| {
        let (now, result) = grown(&image, wish);
        let error = result.unwrap_err();
        assert_eq!((error.kind, &now), (kind, &image));
        assert!(error.message.contains(message), "{error}");
    };
    check(more(2, None), InvalidPartitions, "Topic already has 2 partition(s).");
    check(more(1, None), InvalidPartitions, "would not be an increase");
    check(more(3, Some(&[&[1], &[2]])), InvalidReplicaAssignment, "only 2 assignment(s)");
    check(more(3, Some(&[&[1, 2]])), InvalidReplicaAssignment, "which have 1 replica(s)");
    check(more(i32::MAX, None), PolicyViolation, "10000");
    check(
        NewPartitions { name: "x".into(), ..more(3, None) },
        UnknownTopicOrPartition,
        "does not host",
    );
    let twice =
        with_random(|r| create_partitions(&image, &[more(3, None), more(4, None)], false, r));
    assert_eq!((twice.records.len(), twice.response.len()), (0, 1));
    let only = with_random(|r| create_partitions(&image, &[more(3, None)], true, r));
    assert!(only.records.is_empty() && only.response[0].1.is_ok());
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let image = cluster(&[1]);
    let image = after(&image, &create(&image, &[topic("a", 1, 1), topic("b", 1, 1)]));
    let id = image.topics.named("b").unwrap().id;
    let by = |name: Option<&str>, id| TopicChoice { name: name.map(Into::into), id };
    let decision = delete_topics(&image, &[by(Some("a"), Uuid::ZERO), by(None, id)]);
    assert!(decision.response.iter().all(|topic| topic.result.is_ok()));
    assert_eq!((decision.response[1].name.as_deref(), decision.response[1].id), (Some("b"), id));
    assert!(after(&image, &decision).topics.is_empty());
    let check = |choices: &[TopicChoice], kinds: &[ErrorKind]| {
        let decision = delete_topics(&image, choices);
        let got: Vec<_> = decision
            .response
            .iter()
            .filter_map(|t| t.result.as_ref().err())
            .map(|e| e.kind)
            .collect();
        assert_eq!(got, kinds);
        decision.records.len()
    };
    assert_eq!(check(&[by(Some("x"), Uuid::ZERO)], &[UnknownTopicOrPartition]), 0);
    assert_eq!(check(&[by(None, Uuid(7))], &[UnknownTopicId]), 0);
    assert_eq!(check(&[by(None, Uuid::ZERO)], &[InvalidRequest]), 0);
    assert_eq!(check(&[by(Some("a"), id)], &[InvalidRequest]), 0);
    assert_eq!(
        check(&[by(Some("a"), Uuid::ZERO), by(Some("a"), Uuid::ZERO)], &[InvalidRequest]),
        0
    );
    assert_eq!(
        check(&[by(Some("b"), Uuid::ZERO), by(None, id)], &[InvalidRequest]),
        1,
        "once is enough"
    );
}
