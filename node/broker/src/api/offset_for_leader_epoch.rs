//! OffsetForLeaderEpoch (key 23): where the records of an epoch end, so that a consumer sees that
//! what it read was cut off (KIP-320).

use crate::partition::Partition;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_types::{LeaderEpoch, Offset, Uuid};
use flowstone_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use flowstone_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use std::rc::Rc;

/// Answers for every partition asked for.
pub async fn handle(
    shard: &Rc<Shard>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut items = Vec::new();
    for topic in &request.topics {
        for asked in &topic.partitions {
            let id = shard.resolve(&topic.topic, Uuid::ZERO, asked.partition);
            items.push((id, (asked.current_leader_epoch, asked.leader_epoch)));
        }
    }
    let mut ends = shard.scatter(items, end_of).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let end = ends.next().expect("one answer for each partition asked for");
            let response = EpochEndOffset::default().with_partition(asked.partition);
            match end {
                Ok((epoch, end)) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
                Err(refusal) => response.with_error_code(refusal.code as i16),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

async fn end_of(
    partition: Rc<Partition>,
    (current, epoch): (i32, i32),
) -> Result<(LeaderEpoch, Offset), Refusal> {
    partition.check_epoch(current)?;
    Ok(partition.log.epoch_end_offset(LeaderEpoch(epoch)))
}
