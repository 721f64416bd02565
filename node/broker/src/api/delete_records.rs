//! DeleteRecords (key 21): drops what lies below an offset; -1 stands for the high watermark.

use crate::partition::Partition;
use crate::refusal::Refusal;
use crate::settings::is_internal;
use crate::shard::Shard;
use flowstone_types::{Offset, Uuid};
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use flowstone_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use std::rc::Rc;

/// Stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Answers for every partition asked for.
pub async fn handle(shard: &Rc<Shard>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut items = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let id = if is_internal(&topic.name) {
                Err(ErrorCode::InvalidTopicException.into())
            } else {
                shard.resolve(&topic.name, Uuid::ZERO, partition.partition_index)
            };
            items.push((id, partition.offset));
        }
    }
    let mut done = shard.scatter(items, delete).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let response = DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index);
            match done.next().expect("one answer for each partition asked for") {
                Ok(low_watermark) => response.with_low_watermark(low_watermark.0),
                Err(refusal) => {
                    response.with_low_watermark(-1).with_error_code(refusal.code as i16)
                }
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

async fn delete(partition: Rc<Partition>, offset: i64) -> Result<Offset, Refusal> {
    let high_watermark = partition.high_watermark();
    let to = if offset == HIGH_WATERMARK { high_watermark } else { Offset(offset) };
    if to < Offset::ZERO || to > high_watermark {
        return Err(ErrorCode::OffsetOutOfRange.into());
    }
    Ok(partition.log.advance_log_start(to).await?)
}
