//! Metadata (key 3): brokers, topics and their leaders; creates missing topics where that is on.

use super::authorized;
use crate::client::Client;
use crate::shard::Shard;
use crate::{creation, settings};
use flowstone_metadata::{Image, Topic};
use flowstone_types::{NodeId, Uuid, valid_topic_name};
use flowstone_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use flowstone_wire::messages::{BrokerId, MetadataRequest, MetadataResponse};
use flowstone_wire::{ErrorCode, string, topic_name, uuid_from_wire, uuid_to_wire};
use std::rc::Rc;

/// From this version on an empty list of topics means none, and null means all.
const EMPTY_MEANS_NONE_SINCE: i16 = 1;
/// The field that forbids creation exists from this version on.
const AUTO_CREATE_FLAG_SINCE: i16 = 4;
/// Topics may be asked for by id from this version on; two versions before have the field already.
const BY_ID_SINCE: i16 = 12;

/// How a request names a topic.
enum Named {
    Name(String),
    Id(Uuid),
}

/// Answers at once. Missing topics are created meanwhile: as in Kafka they are unknown to this answer,
/// and its client asks again.
pub fn handle(shard: &Rc<Shard>, client: &Client, request: MetadataRequest) -> MetadataResponse {
    let named: Option<Vec<Named>> = request.topics.map(|topics| {
        let named = topics.into_iter().map(|topic| match (topic.name, topic.topic_id) {
            // An id goes before a name: Java's client sends an empty name with it.
            (Some(name), id) if id.is_nil() => Named::Name(name.to_string()),
            (_, id) => Named::Id(uuid_from_wire(id)),
        });
        named.collect()
    });
    let named = named.filter(|named| !named.is_empty() || client.version >= EMPTY_MEANS_NONE_SINCE);
    let may_create = client.version < AUTO_CREATE_FLAG_SINCE || request.allow_auto_topic_creation;
    if let Some(named) = &named
        && may_create
        && shard.node.config.settings.auto_create_topics
    {
        create_missing(shard, named);
    }

    let image = shard.image();
    let mut topics: Vec<MetadataResponseTopic> = match &named {
        None => image.topics.iter().map(|topic| describe(&image, topic)).collect(),
        Some(named) => named.iter().map(|named| find(&image, client, named)).collect(),
    };
    for topic in &mut topics {
        if request.include_topic_authorized_operations {
            topic.topic_authorized_operations = authorized::TOPIC;
        }
    }
    let mut response = MetadataResponse::default()
        .with_brokers(brokers(shard, client))
        .with_cluster_id(Some(string(shard.node.cluster_id.clone())))
        .with_controller_id(broker_id(shard.node.id))
        .with_topics(topics);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}

/// Sets about creating those of the named topics that do not exist.
fn create_missing(shard: &Rc<Shard>, named: &[Named]) {
    let image = shard.image();
    let missing = named.iter().filter_map(|named| match named {
        Named::Name(name) if image.topics.named(name).is_none() && valid_topic_name(name) => {
            Some(name.clone())
        }
        _ => None,
    });
    creation::set_about(shard, missing);
}

fn find(image: &Image, client: &Client, named: &Named) -> MetadataResponseTopic {
    let found = match named {
        Named::Name(name) => image.topics.named(name),
        Named::Id(id) => image.topics.with_id(*id),
    };
    match (found, named) {
        (_, Named::Id(_)) if client.version < BY_ID_SINCE => MetadataResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest as i16)
            .with_name(Some(topic_name(""))),
        (Some(topic), _) => describe(image, topic),
        (None, Named::Name(name)) => MetadataResponseTopic::default()
            .with_error_code(why_unknown(name) as i16)
            .with_name(Some(topic_name(name)))
            .with_is_internal(settings::is_internal(name)),
        (None, Named::Id(id)) => MetadataResponseTopic::default()
            .with_error_code(ErrorCode::UnknownTopicId as i16)
            .with_name(None)
            .with_topic_id(uuid_to_wire(*id)),
    }
}

fn describe(image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let partitions = topic.partitions().map(|(index, partition)| {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| broker_id(*node)).collect();
        let offline = partition.replicas.iter().filter(|node| !image.is_active(**node));
        let leaderless = partition.leader == NodeId::NONE;
        let code = if leaderless { ErrorCode::LeaderNotAvailable } else { ErrorCode::None };
        MetadataResponsePartition::default()
            .with_error_code(code as i16)
            .with_partition_index(index)
            .with_leader_id(broker_id(partition.leader))
            .with_leader_epoch(partition.leader_epoch.0)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_offline_replicas(offline.map(|node| broker_id(*node)).collect())
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(uuid_to_wire(topic.id))
        .with_is_internal(settings::is_internal(&topic.name))
        .with_partitions(partitions.collect())
}

fn brokers(shard: &Shard, client: &Client) -> Vec<MetadataResponseBroker> {
    let endpoint = shard.node.endpoint(client.listener);
    let broker = MetadataResponseBroker::default()
        .with_node_id(broker_id(shard.node.id))
        .with_host(string(endpoint.host.clone()))
        .with_port(i32::from(endpoint.port))
        .with_rack(shard.node.config.settings.broker_rack.clone().map(string));
    vec![broker]
}

/// Why there is no topic of this name: there cannot be, or there is not.
pub fn why_unknown(name: &str) -> ErrorCode {
    if valid_topic_name(name) {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    }
}

/// A node's id as kafka-protocol's messages hold it.
pub fn broker_id(node: NodeId) -> BrokerId {
    BrokerId(node.0)
}
