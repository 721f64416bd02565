//! Which topics there are, where their partitions begin and end, and that one goes.

use flowstone_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use flowstone_wire::messages::{DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest};
use flowstone_wire::{ErrorCode, topic_name};

use super::{Client, ClientError};

/// Deletes a topic. What the broker says: an error that can be retried is not retried here.
pub fn delete_topic(client: &mut Client, name: &str) -> Result<ErrorCode, ClientError> {
    let mut request = DeleteTopicsRequest::default();
    request.topic_names = vec![topic_name(name)];
    request.timeout_ms = 30_000;
    let response = client.ask(5, &request)?;
    let answer = response.responses.first().map(|it| ErrorCode::from_number(it.error_code));
    Ok(answer.flatten().unwrap_or(ErrorCode::UnknownServerError))
}

/// Every topic by name, with the number of its partitions.
pub fn topic_names(client: &mut Client) -> Result<Vec<(String, i32)>, ClientError> {
    let mut request = MetadataRequest::default();
    request.topics = None;
    request.allow_auto_topic_creation = false;
    let response = client.ask(9, &request)?;
    let name = |name: Option<flowstone_wire::TopicName>| name.map(|it| it.to_string());
    let topics = response.topics.into_iter();
    Ok(topics.map(|it| (name(it.name).unwrap_or_default(), it.partitions.len() as i32)).collect())
}

/// Where a partition's log begins, and the offset behind the last record that consumers may read; the
/// error where the broker does not lead it (yet).
pub fn offsets(
    client: &mut Client,
    topic: &str,
    partition: i32,
) -> Result<Result<(i64, i64), ErrorCode>, ClientError> {
    // Kafka's words for the first offset and the last.
    let mut ask = |timestamp| -> Result<Result<i64, ErrorCode>, ClientError> {
        let mut place = ListOffsetsPartition::default();
        place.partition_index = partition;
        place.timestamp = timestamp;
        let mut of_topic = ListOffsetsTopic::default();
        of_topic.name = topic_name(topic);
        of_topic.partitions = vec![place];
        let mut request = ListOffsetsRequest::default();
        request.replica_id = (-1).into();
        request.topics = vec![of_topic];
        let response = client.ask(5, &request)?;
        let answer = response.topics.first().and_then(|it| it.partitions.first());
        let code = answer.and_then(|it| ErrorCode::from_number(it.error_code));
        Ok(match (code, answer) {
            (Some(ErrorCode::None), Some(answer)) => Ok(answer.offset),
            (code, _) => Err(code.unwrap_or(ErrorCode::UnknownServerError)),
        })
    };
    Ok(match (ask(-2)?, ask(-1)?) {
        (Ok(start), Ok(end)) => Ok((start, end)),
        (Err(code), _) | (_, Err(code)) => Err(code),
    })
}
