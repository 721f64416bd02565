//! The requests that scenarios make, and what they need of the answers.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_types::{Offset, Timestamp};
use flowstone_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{
    CreateTopicsRequest, FetchRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProduceResponse,
};
use flowstone_wire::{ErrorCode, string, topic_name};

use super::{Client, ClientError};

/// The version in which everything here produces.
pub const PRODUCE_VERSION: i16 = 8;
/// The version in which everything here fetches.
pub const FETCH_VERSION: i16 = 11;

/// How long the broker may take over an append.
const PRODUCE_TIMEOUT_MS: i32 = 10_000;

/// What a broker said of one partition's batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Produced {
    /// The error, or `None`.
    pub code: ErrorCode,
    /// Where the batch is; -1 with an error.
    pub base_offset: i64,
}

/// What a broker gave of one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The error, or `None`.
    pub code: ErrorCode,
    /// End of what consumers may read.
    pub high_watermark: i64,
    /// Where the log begins.
    pub log_start: i64,
    /// Batches, whole.
    pub records: Bytes,
}

/// A place to read from.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub offset: i64,
    /// Most bytes of answer.
    pub bytes_max: i32,
    /// How long the broker may wait for one byte.
    pub wait: Duration,
}

/// A number that the protocol calls an error code.
fn code(number: i16) -> ErrorCode {
    ErrorCode::from_number(number).unwrap_or(ErrorCode::UnknownServerError)
}

/// Makes a topic. What the broker says: an error that can be retried is not retried here.
pub fn create_topic(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, String)],
) -> Result<ErrorCode, ClientError> {
    let mut topic = CreatableTopic::default();
    topic.name = topic_name(name);
    topic.num_partitions = partitions;
    topic.replication_factor = 1;
    let config = |(name, value): &(&str, String)| {
        let mut config = CreatableTopicConfig::default();
        config.name = string(*name);
        config.value = Some(string(value.clone()));
        config
    };
    topic.configs = configs.iter().map(config).collect();
    let mut request = CreateTopicsRequest::default();
    request.topics = vec![topic];
    request.timeout_ms = 30_000;
    let response = client.ask(5, &request)?;
    Ok(response.topics.first().map_or(ErrorCode::UnknownServerError, |it| code(it.error_code)))
}

/// Asks for a producer's id and epoch; the error where there is none.
pub fn init_producer(client: &mut Client) -> Result<Result<(i64, i16), ErrorCode>, ClientError> {
    let mut request = InitProducerIdRequest::default();
    request.transactional_id = None;
    request.transaction_timeout_ms = 60_000;
    let response = client.ask(1, &request)?;
    Ok(match code(response.error_code) {
        ErrorCode::None => Ok((response.producer_id.0, response.producer_epoch)),
        error => Err(error),
    })
}

/// A batch of these values, of no producer.
pub fn plain_batch(values: &[&[u8]]) -> Bytes {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    for value in values {
        batch.push(now(), None, Some(value), &[]);
    }
    batch.build()
}

/// A produce of one partition's records, acks=all.
pub fn produce_request(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let mut data = PartitionProduceData::default();
    data.index = partition;
    data.records = Some(records);
    let mut of_topic = TopicProduceData::default();
    of_topic.name = topic_name(topic);
    of_topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = PRODUCE_TIMEOUT_MS;
    request.topic_data = vec![of_topic];
    request
}

/// What the answer to a [`produce_request`] says.
pub fn produced(response: &ProduceResponse) -> Produced {
    let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
    answer.map_or(Produced { code: ErrorCode::UnknownServerError, base_offset: -1 }, |answer| {
        Produced { code: code(answer.error_code), base_offset: answer.base_offset }
    })
}

/// Sends one batch to one partition.
pub fn produce(
    client: &mut Client,
    topic: &str,
    partition: i32,
    records: Bytes,
) -> Result<Produced, ClientError> {
    let response = client.ask(PRODUCE_VERSION, &produce_request(topic, partition, records))?;
    Ok(produced(&response))
}

/// Reads one partition.
pub fn fetch(client: &mut Client, topic: &str, wanted: Wanted) -> Result<Fetched, ClientError> {
    let mut partition = FetchPartition::default();
    partition.partition = wanted.partition;
    partition.current_leader_epoch = -1;
    partition.fetch_offset = wanted.offset;
    partition.partition_max_bytes = wanted.bytes_max;
    let mut of_topic = FetchTopic::default();
    of_topic.topic = topic_name(topic);
    of_topic.partitions = vec![partition];
    let mut request = FetchRequest::default();
    request.replica_id = (-1).into();
    request.max_wait_ms = wanted.wait.as_millis() as i32;
    request.min_bytes = 1;
    request.max_bytes = wanted.bytes_max;
    request.session_epoch = -1;
    request.topics = vec![of_topic];
    let response = client.ask(FETCH_VERSION, &request)?;
    let answer = response.responses.into_iter().next().and_then(|mut it| it.partitions.pop());
    Ok(answer.map_or(
        Fetched {
            code: ErrorCode::UnknownServerError,
            high_watermark: -1,
            log_start: -1,
            records: Bytes::new(),
        },
        |answer| Fetched {
            code: code(answer.error_code),
            high_watermark: answer.high_watermark,
            log_start: answer.log_start_offset,
            records: answer.records.unwrap_or_default(),
        },
    ))
}

/// Commits an offset for a group without members.
pub fn commit(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<ErrorCode, ClientError> {
    let mut place = OffsetCommitRequestPartition::default();
    place.partition_index = partition;
    place.committed_offset = offset;
    place.committed_leader_epoch = -1;
    let mut of_topic = OffsetCommitRequestTopic::default();
    of_topic.name = topic_name(topic);
    of_topic.partitions = vec![place];
    let mut request = OffsetCommitRequest::default();
    request.group_id = GroupId(string(group.to_owned()));
    request.generation_id_or_member_epoch = -1;
    request.topics = vec![of_topic];
    let response = client.ask(7, &request)?;
    let answer = response.topics.first().and_then(|topic| topic.partitions.first());
    Ok(answer.map_or(ErrorCode::UnknownServerError, |answer| code(answer.error_code)))
}

/// What a group committed (-1: nothing), or the error: the coordinator may still be loading.
pub fn committed(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<Result<i64, ErrorCode>, ClientError> {
    let mut of_topic = OffsetFetchRequestTopic::default();
    of_topic.name = topic_name(topic);
    of_topic.partition_indexes = vec![partition];
    let mut request = OffsetFetchRequest::default();
    request.group_id = GroupId(string(group.to_owned()));
    request.topics = Some(vec![of_topic]);
    let response = client.ask(5, &request)?;
    let place = response.topics.first().and_then(|topic| topic.partitions.first());
    let error = match place {
        Some(place) if response.error_code == 0 => place.error_code,
        Some(_) | None => response.error_code,
    };
    Ok(match code(error) {
        ErrorCode::None => Ok(place.map_or(-1, |place| place.committed_offset)),
        error => Err(error),
    })
}

/// Asks who coordinates a group: that makes the topic of offsets, where there is none.
pub fn find_coordinator(client: &mut Client, group: &str) -> Result<(), ClientError> {
    let mut request = FindCoordinatorRequest::default();
    request.key = string(group.to_owned());
    client.ask(3, &request).map(|_| ())
}

/// The clock's time, as records carry it.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}
