//! DescribeProducers (key 61, KIP-664): which producers a partition remembers.

use crate::partition::Partition;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_log::ActiveProducer;
use flowstone_types::Uuid;
use flowstone_wire::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use flowstone_wire::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use flowstone_wire::string;
use std::rc::Rc;

/// Answers for every partition asked for.
pub async fn handle(
    shard: &Rc<Shard>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut items = Vec::new();
    for topic in &request.topics {
        for index in &topic.partition_indexes {
            items.push((shard.resolve(&topic.name, Uuid::ZERO, *index), ()));
        }
    }
    let mut found = shard.scatter(items, active).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let response = PartitionResponse::default().with_partition_index(*index);
            match found.next().expect("one answer for each partition asked for") {
                Ok(active) => response.with_active_producers(active.iter().map(state).collect()),
                Err(refusal) => response
                    .with_error_code(refusal.code as i16)
                    .with_error_message(Some(string(refusal.text()))),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

async fn active(partition: Rc<Partition>, (): ()) -> Result<Vec<ActiveProducer>, Refusal> {
    Ok(partition.log.producers())
}

fn state(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.id.0))
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp.0)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.transaction_start.map_or(-1, |start| start.0))
}
