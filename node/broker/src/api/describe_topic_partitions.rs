//! DescribeTopicPartitions (key 75, KIP-966): topics and their partitions, page by page.

use super::authorized;
use super::metadata::{broker_id, why_unknown};
use crate::settings;
use crate::shard::Shard;
use flowstone_metadata::{Image, Partition, Topic};
use flowstone_types::NodeId;
use flowstone_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use flowstone_wire::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use flowstone_wire::{topic_name, uuid_to_wire};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Answers with one page, and where the next one begins.
pub fn handle(
    shard: &Shard,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = shard.image();
    let limit = shard.node.config.settings.describe_partitions_max;
    let mut room = request.response_partition_limit.clamp(1, limit) as usize;
    let (from_topic, mut from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), cursor.partition_index.max(0)),
        None => (String::new(), 0),
    };
    let named: BTreeSet<String> = request.topics.iter().map(|t| t.name.to_string()).collect();
    // Topics are told in the order of their names: that is what makes a cursor of a name.
    let topics: Vec<(String, Option<Arc<Topic>>)> = if named.is_empty() {
        let topics = image.topics.iter_from(&from_topic);
        topics.map(|topic| (topic.name.to_string(), Some(Arc::clone(topic)))).collect()
    } else {
        let topics = named.into_iter().filter(|name| *name >= from_topic);
        topics.map(|name| (name.clone(), image.topics.named(&name).cloned())).collect()
    };
    let mut response = DescribeTopicPartitionsResponse::default();
    for (name, topic) in topics {
        let first = if name == from_topic { std::mem::take(&mut from_partition) } else { 0 };
        let Some(topic) = topic else {
            response.topics.push(unknown(&name));
            continue;
        };
        if room == 0 {
            response.next_cursor = Some(cursor(&name, first));
            break;
        }
        let count = topic.partition_count();
        let partitions: Vec<_> = topic
            .partitions()
            .skip(first as usize)
            .take(room)
            .map(|(index, partition)| describe(&image, index, partition))
            .collect();
        room -= partitions.len();
        let next = first as usize + partitions.len();
        response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic_name(&name)))
                .with_topic_id(uuid_to_wire(topic.id))
                .with_is_internal(settings::is_internal(&name))
                .with_topic_authorized_operations(authorized::TOPIC)
                .with_partitions(partitions),
        );
        if next < count {
            response.next_cursor = Some(cursor(&name, next as i32));
            break;
        }
    }
    response
}

fn cursor(topic: &str, partition: i32) -> Cursor {
    Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(why_unknown(name) as i16)
        .with_name(Some(topic_name(name)))
        .with_is_internal(settings::is_internal(name))
}

fn describe(
    image: &Image,
    index: i32,
    partition: &Partition,
) -> DescribeTopicPartitionsResponsePartition {
    let ids =
        |nodes: &[NodeId]| -> Vec<BrokerId> { nodes.iter().copied().map(broker_id).collect() };
    let offline = partition.replicas.iter().filter(|node| !image.is_active(**node));
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_leader_id(broker_id(partition.leader))
        .with_leader_epoch(partition.leader_epoch.0)
        .with_replica_nodes(ids(&partition.replicas))
        .with_isr_nodes(ids(&partition.isr))
        .with_eligible_leader_replicas(Some(ids(&partition.eligible)))
        .with_last_known_elr(Some(ids(&partition.last_known)))
        .with_offline_replicas(offline.copied().map(broker_id).collect())
}
