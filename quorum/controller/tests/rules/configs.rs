//! Config changes: each rule of reference section 7.2 once.

use crate::common::{after, apply, cluster, config};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    ApiError, ConfigChange, ConfigOp, Decision, alter_configs, replace_configs,
};
use flowstone_metadata::features::ELR_VERSION;
use flowstone_metadata::records::{FeatureLevelRecord, TopicRecord};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord, ResourceKind};
use flowstone_types::{NodeId, Uuid};

const KEY: &str = "segment.ms";
const THROTTLED: &str = "leader.replication.throttled.replicas";

fn image() -> Image {
    let mut image = cluster(&[1]);
    apply(
        &mut image,
        [TopicRecord { name: "t".into(), topic_id: Uuid(500), ..Default::default() }.into()],
    );
    image
}

fn t() -> ConfigResource {
    ConfigResource::topic("t")
}

fn change(op: ConfigOp, key: &str, value: &str) -> ConfigChange {
    ConfigChange { key: key.into(), op, value: Some(value.into()) }
}

fn set(key: &str, value: &str) -> ConfigChange {
    change(ConfigOp::Set, key, value)
}

type Answer = Decision<Vec<(ConfigResource, Result<(), ApiError>)>>;

fn alter(image: &Image, resource: ConfigResource, changes: &[ConfigChange]) -> Answer {
    alter_configs(image, &[(resource, changes.to_vec())], false, &config())
}

fn refused(resource: ConfigResource, changes: &[ConfigChange], kind: ErrorKind, message: &str) {
    let decision = alter(&image(), resource, changes);
    assert_eq!(decision.records, []);
    let error = decision.response[0].1.clone().unwrap_err();
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.message.contains(message), "{error}");
}

#[test]
fn set_delete_append_subtract() {
    let value = |changes: &[ConfigChange], key| {
        let mut now = image();
        for change in changes {
            let decision = alter(&now, t(), std::slice::from_ref(change));
            decision.response[0].1.clone().unwrap();
            now = after(&now, &decision);
        }
        now.config(&t(), key).map(ToString::to_string)
    };
    let append = |value| change(ConfigOp::Append, THROTTLED, value);
    let subtract = |value| change(ConfigOp::Subtract, THROTTLED, value);
    assert_eq!(value(&[set(KEY, "1")], KEY).as_deref(), Some("1"));
    let delete = ConfigChange { key: KEY.into(), op: ConfigOp::Delete, value: None };
    assert_eq!(value(&[set(KEY, "1"), delete], KEY), None);
    assert_eq!(
        value(&[append("0:1,1:1"), append("1:1,2:1")], THROTTLED).as_deref(),
        Some("0:1,1:1,2:1"),
        "once each"
    );
    assert_eq!(
        value(&[append("0:1,1:1,2:1"), subtract("1:1,7:1")], THROTTLED).as_deref(),
        Some("0:1,2:1")
    );
    let from_default = change(ConfigOp::Subtract, "cleanup.policy", "delete");
    assert_eq!(
        value(&[from_default], "cleanup.policy").as_deref(),
        Some(""),
        "may be empty in 4.x"
    );
}

#[test]
fn only_lists_grow() {
    let message = "Can't APPEND to key segment.ms because its type is not LIST.";
    refused(t(), &[change(ConfigOp::Append, KEY, "1")], InvalidConfig, message);
    refused(t(), &[change(ConfigOp::Subtract, KEY, "1")], InvalidConfig, "Can't SUBTRACT");
}

#[test]
fn malformed_requests_are_refused() {
    refused(t(), &[set(KEY, "1"), set(KEY, "2")], InvalidRequest, "duplicate config keys");
    let null = ConfigChange { key: KEY.into(), op: ConfigOp::Set, value: None };
    refused(t(), &[null], InvalidRequest, "Null value not supported for : segment.ms");
    let twice = [(t(), vec![set(KEY, "1")]), (t(), vec![set("flush.ms", "1")])];
    let decision = alter_configs(&image(), &twice, false, &config());
    assert!(decision.records.is_empty() && decision.response.iter().all(|(_, r)| r.is_err()));
}

#[test]
fn resources_must_be_right() {
    let named = |kind, name: &str| ConfigResource { kind, name: name.into() };
    let check = |resource, kind, message| refused(resource, &[set(KEY, "1")], kind, message);
    check(ConfigResource::topic(""), InvalidRequest, "Default topic");
    check(ConfigResource::topic("a b"), InvalidTopic, "");
    check(ConfigResource::topic("x"), UnknownTopicOrPartition, "The topic 'x' does not exist.");
    check(named(ResourceKind::Group, ""), InvalidRequest, "Default group");
    check(
        named(ResourceKind::ClientMetrics, ""),
        InvalidRequest,
        "Subscription name can't be empty",
    );
    check(named(ResourceKind::Broker, "one"), InvalidRequest, "base 10");
    check(named(ResourceKind::Broker, "-3"), InvalidRequest, "negative");
    check(ConfigResource::broker(NodeId(7)), BrokerIdNotRegistered, "No node with id 7 found.");
    check(named(ResourceKind::Group, "new"), InvalidConfig, "Unknown group config name");
    for (fine, key) in [
        (named(ResourceKind::Group, "new"), "consumer.session.timeout.ms"),
        (ConfigResource::all_brokers(), "log.flush.interval.ms"),
        (ConfigResource::broker(NodeId(1)), "log.flush.interval.ms"),
        (ConfigResource::broker(NodeId(1)), "a.plug.ins.own.key"),
    ] {
        assert_eq!(alter(&image(), fine, &[set(key, "50000")]).response[0].1, Ok(()), "{key}");
    }
}

/// KIP-714, ClientMetricsConfigs.validate: what a subscription may say, with Kafka's two codes.
#[test]
fn client_metrics_subscriptions_are_checked() {
    let kind = ResourceKind::ClientMetrics;
    let subscription = || ConfigResource { kind, name: "slow-producers".into() };
    let check = |key, value, kind| refused(subscription(), &[set(key, value)], kind, key);
    check("metric", "*", InvalidRequest);
    check("interval.ms", "99", InvalidRequest);
    check("interval.ms", "3600001", InvalidRequest);
    check("interval.ms", "often", InvalidConfig);
    check("match", "client_id", InvalidConfig);
    check("match", "colour=red", InvalidConfig);
    check("match", "client_id=", InvalidConfig);
    check("match", "client_id=a=b", InvalidConfig);
    check("match", "client_id=a(b", InvalidConfig);
    let fine = [
        set("metrics", "org.apache.kafka.producer.,org.apache.kafka.consumer."),
        set("interval.ms", "100"),
        set("match", "client_software_name=apache-kafka-java, client_id = app-[0-9]+\\.x"),
    ];
    let image = image();
    let decision = alter(&image, subscription(), &fine);
    assert_eq!(decision.response[0].1, Ok(()));
    let image = after(&image, &decision);
    let more = alter(&image, subscription(), &[change(ConfigOp::Append, "metrics", "mine.")]);
    let told = after(&image, &more).config(&subscription(), "metrics").map(ToString::to_string);
    assert!(told.unwrap().ends_with("consumer.,mine."), "a list");
    let replaced = replace_configs(&image, &[(subscription(), vec![])], false, &config());
    assert_eq!(after(&image, &replaced).configs.get(&subscription()), None);
}

/// KIP-848: a group's session outlives its heartbeats, by its own configs or the server's.
#[test]
fn a_groups_session_outlives_its_heartbeats() {
    let group = || ConfigResource { kind: ResourceKind::Group, name: "g".into() };
    let message = "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms";
    let narrow = ["group.consumer.min.session.timeout.ms=5000"];
    let pairs: Vec<(String, String)> = narrow
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    let config = flowstone_config::Config::dev("data", 9092, &pairs).unwrap().config;
    let decide = |session: &str| {
        let changes = vec![set("consumer.session.timeout.ms", session)];
        alter_configs(&image(), &[(group(), changes)], false, &config).response.remove(0).1
    };
    assert_eq!(decide("5000").unwrap_err().message, message, "the heartbeat's default is 5000");
    assert_eq!(decide("5001"), Ok(()));
}

/// KIP-1066: log directories are cordoned since metadata.version 4.3-IV0.
#[test]
fn directories_are_cordoned_only_where_registrations_tell() {
    let cordon = |metadata_version| {
        let mut image = image();
        let name = flowstone_metadata::features::METADATA_VERSION.into();
        let level =
            FeatureLevelRecord { name, feature_level: metadata_version, ..Default::default() };
        apply(&mut image, [level.into()]);
        let change = [set("cordoned.log.dirs", "/data/1")];
        alter(&image, ConfigResource::broker(NodeId(1)), &change).response.remove(0).1
    };
    assert_eq!(cordon(29).unwrap_err().kind, InvalidConfig);
    assert_eq!(cordon(30), Ok(()));
}

/// KIP-919: a controller that is no broker has configs too.
#[test]
fn controllers_have_configs() {
    let mut image = image();
    let controller = flowstone_metadata::records::RegisterControllerRecord {
        controller_id: 7,
        ..Default::default()
    };
    apply(&mut image, [controller.into()]);
    let change = [set("log.flush.interval.ms", "5")];
    let decision = alter(&image, ConfigResource::broker(NodeId(7)), &change);
    assert_eq!(decision.response[0].1, Ok(()));
}

/// A resource's changes take effect together or not at all; KAFKA-13609 for the broker's code.
#[test]
fn bad_values_are_refused() {
    refused(
        t(),
        &[set(KEY, "1"), set("bad", "1")],
        InvalidConfig,
        "Unknown topic config name: bad",
    );
    let all = ConfigResource::all_brokers;
    refused(
        all(),
        &[set("node.id", "2")],
        InvalidRequest,
        "Cannot update these configs dynamically",
    );
    refused(all(), &[set("log.flush.interval.ms", "x")], InvalidRequest, "log.flush.interval.ms");
    refused(t(), &[set(KEY, "x")], InvalidConfig, KEY);
    refused(t(), &[set(THROTTLED, &"x".repeat(32_768))], InvalidConfig, "32767");
    refused(t(), &[set("cleanup.policy", "compact")], InvalidConfig, "does not compact logs");
    refused(
        t(),
        &[change(ConfigOp::Append, "cleanup.policy", "compact")],
        InvalidConfig,
        "does not compact logs",
    );
    refused(
        all(),
        &[set("log.cleanup.policy", "compact")],
        InvalidRequest,
        "does not compact logs",
    );
}

/// KAFKA-14136: brokers are told even what stays.
#[test]
fn unchanged_values_are_written_for_brokers_only() {
    let count = |resource: ConfigResource| {
        let image = image();
        let once = after(&image, &alter(&image, resource.clone(), &[set(KEY, "1")]));
        alter(&once, resource, &[set(KEY, "1")]).records.len()
    };
    assert_eq!((count(t()), count(ConfigResource::all_brokers())), (0, 1));
}

#[test]
fn replacing_takes_away_what_is_not_named() {
    let image = image();
    let image =
        after(&image, &alter(&image, t(), &[set("flush.ms", "1"), set("retention.ms", "2")]));
    let replace = |configs: &[(&str, Option<&str>)]| {
        let configs = configs.iter().map(|(k, v)| ((*k).into(), v.map(Into::into))).collect();
        replace_configs(&image, &[(t(), configs)], false, &config())
    };
    let now = after(&image, &replace(&[("retention.ms", Some("2")), ("segment.ms", Some("3"))]));
    let told: Vec<_> = now.configs[&t()].iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(told, [("retention.ms", "2"), ("segment.ms", "3")]);
    assert_eq!(after(&image, &replace(&[])).configs.get(&t()), None);
    assert!(replace(&[(KEY, None)]).response[0].1.is_err());
}

#[test]
fn validate_only_writes_nothing() {
    let decision = alter_configs(&image(), &[(t(), vec![set(KEY, "1")])], true, &config());
    assert!(decision.response[0].1.is_ok() && decision.records.is_empty());
}

/// KIP-966, reference section 4.
#[test]
fn min_insync_replicas_and_eligible_leader_replicas() {
    let key = "min.insync.replicas";
    let delete = ConfigChange { key: key.into(), op: ConfigOp::Delete, value: None };
    let broker = ConfigResource::broker(NodeId(1));
    refused(broker.clone(), &[set(key, "2")], InvalidConfig, "Broker-level");
    refused(ConfigResource::all_brokers(), &[delete], InvalidConfig, "cannot be removed");
    let cleared = |image: &Image, resource| {
        alter(image, resource, &[set(key, "2")]).records.into_iter().find_map(|record| match record
        {
            MetadataRecord::ClearElrRecord(record) => Some(record.topic_name),
            _ => None,
        })
    };
    assert_eq!(cleared(&image(), ConfigResource::all_brokers()).as_deref(), Some(""));
    assert_eq!(cleared(&image(), t()).as_deref(), Some("t"));
    let mut without = image();
    let off =
        FeatureLevelRecord { name: ELR_VERSION.into(), feature_level: 0, ..Default::default() };
    apply(&mut without, [off.into()]);
    assert_eq!(alter(&without, broker, &[set(key, "2")]).response[0].1, Ok(()));
    assert_eq!(cleared(&without, t()), None);
}
