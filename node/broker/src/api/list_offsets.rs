//! ListOffsets (key 2): offsets by time, and the special times that mean an end of the log.

use crate::client::Client;
use crate::partition::Partition;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_types::{LeaderEpoch, Offset, Timestamp, Uuid};
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use flowstone_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::HashSet;
use std::rc::Rc;

/// The end of what consumers may read.
const LATEST: i64 = -1;
/// The first offset there is.
const EARLIEST: i64 = -2;
/// The record with the greatest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on local disks: without tiered storage, of all (KIP-405).
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in tiered storage (KIP-1005): there is none.
const LATEST_TIERED: i64 = -5;
/// The first offset that tiered storage lacks (KIP-1023): there is none without it.
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Each special time and the first version that knows it.
const SPECIAL_SINCE: [(i64, i16); 4] =
    [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9), (EARLIEST_PENDING_UPLOAD, 11)];

/// Versions from this on tell the leader epoch of what was found.
const EPOCHS_SINCE: i16 = 4;

/// What is asked of one partition.
#[derive(Clone, Copy)]
struct Question {
    timestamp: i64,
    current_leader_epoch: i32,
}

/// What was found: the epoch and timestamp are -1 where Kafka has them so.
struct Found {
    offset: i64,
    timestamp: i64,
    epoch: LeaderEpoch,
}

/// Answers for every partition asked for.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut items = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let id = check(client.version, partition.timestamp).and_then(|()| {
                if seen.insert((topic.name.clone(), index)) {
                    shard.resolve(&topic.name, Uuid::ZERO, index)
                } else {
                    Err(ErrorCode::InvalidRequest.into()) // Asked for twice.
                }
            });
            let question = Question {
                timestamp: partition.timestamp,
                current_leader_epoch: partition.current_leader_epoch,
            };
            items.push((id, question));
        }
    }
    let mut found = shard.scatter(items, find).await.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let found = found.next().expect("one answer for each partition asked for");
            answer(client.version, partition.partition_index, found)
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn check(version: i16, timestamp: i64) -> Result<(), Refusal> {
    let since = SPECIAL_SINCE.iter().find(|(time, _)| *time == timestamp).map(|(_, since)| *since);
    match since {
        Some(since) if version < since => Err(ErrorCode::UnsupportedVersion.into()),
        None if timestamp < EARLIEST => Err(ErrorCode::UnsupportedVersion.into()),
        _ => Ok(()),
    }
}

async fn find(partition: Rc<Partition>, question: Question) -> Result<Found, Refusal> {
    partition.check_epoch(question.current_leader_epoch)?;
    let log = &partition.log;
    let at =
        |offset: Offset| Found { offset: offset.0, timestamp: -1, epoch: log.epoch_of(offset) };
    let nothing = Found { offset: -1, timestamp: -1, epoch: LeaderEpoch::NONE };
    let high_watermark = partition.high_watermark();
    Ok(match question.timestamp {
        LATEST => Found { epoch: partition.leader_epoch(), ..at(high_watermark) },
        EARLIEST | EARLIEST_LOCAL => at(log.log_start()),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => nothing,
        MAX_TIMESTAMP => {
            log.offset_of_max_timestamp(high_watermark).await?.map_or(nothing, Found::from)
        }
        time => {
            let found = log.offset_for_timestamp(Timestamp(time), high_watermark).await?;
            found.map_or(nothing, Found::from)
        }
    })
}

impl From<(Offset, Timestamp, LeaderEpoch)> for Found {
    fn from((offset, timestamp, epoch): (Offset, Timestamp, LeaderEpoch)) -> Self {
        Self { offset: offset.0, timestamp: timestamp.0, epoch }
    }
}

fn answer(version: i16, index: i32, found: Result<Found, Refusal>) -> ListOffsetsPartitionResponse {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
    match found {
        Ok(found) => response
            .with_offset(found.offset)
            .with_timestamp(found.timestamp)
            .with_leader_epoch(if version < EPOCHS_SINCE { -1 } else { found.epoch.0 }),
        Err(refusal) => {
            response.with_error_code(refusal.code as i16).with_offset(-1).with_timestamp(-1)
        }
    }
}
