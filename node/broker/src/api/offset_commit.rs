//! OffsetCommit (key 8): keeps a group's position; answered once it is on stable storage.

use super::group_words::{code, optional, text};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Commit, CommitTopic, OffsetCommit, Request, TopicResult};
use flowstone_metadata::{Image, Topic};
use flowstone_wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use flowstone_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use flowstone_wire::messages::{OffsetCommitRequest, OffsetCommitResponse};
use flowstone_wire::{ErrorCode, uuid_from_wire};
use std::rc::Rc;

/// Answers for every partition, once the offsets of those that exist are kept.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = shard.image();
    let topics: Vec<CommitTopic> =
        request.topics.iter().filter_map(|topic| existing(client.version, &image, topic)).collect();
    let mut results = Vec::new();
    if !topics.is_empty() {
        let commit = OffsetCommit {
            version: client.version,
            group: text(&request.group_id),
            generation: request.generation_id_or_member_epoch,
            member: text(&request.member_id),
            instance: optional(request.group_instance_id.as_ref()),
            retention_ms: request.retention_time_ms, // -1 in versions that have none.
            topics,
        };
        let answer = shard.ask_group(&request.group_id, Request::Commit(commit)).await;
        let Answer::Commit(committed) = answer else { unreachable!("a commit's answer") };
        results = committed;
    }
    respond(client.version, &image, request, results)
}

/// From this version on topics have ids and no names (KIP-848).
const IDS_SINCE: i16 = 10;

/// The topic that is meant, or the error of all its partitions.
fn meant<'a>(
    version: i16,
    image: &'a Image,
    asked: &OffsetCommitRequestTopic,
) -> Result<&'a Topic, ErrorCode> {
    if version >= IDS_SINCE {
        let topic = image.topics.with_id(uuid_from_wire(asked.topic_id));
        return topic.map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicId);
    }
    let topic = image.topics.named(&asked.name);
    topic.map(|topic| &**topic).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// What of a topic exists, under its id; `None` where nothing does.
fn existing(version: i16, image: &Image, asked: &OffsetCommitRequestTopic) -> Option<CommitTopic> {
    let topic = meant(version, image, asked).ok()?;
    let partitions = asked.partitions.iter();
    let partitions = partitions.filter(|one| topic.partition(one.partition_index).is_some());
    let partitions = partitions.map(|one| Commit {
        partition: one.partition_index,
        offset: one.committed_offset,
        leader_epoch: one.committed_leader_epoch,
        metadata: one.committed_metadata.as_ref().map(ToString::to_string),
    });
    let partitions: Vec<Commit> = partitions.collect();
    let name = topic.name.clone();
    (!partitions.is_empty()).then_some(CommitTopic { name, id: topic.id, partitions })
}

/// The results of what exists and so was asked of the coordinator, among those of what does not.
fn respond(
    version: i16,
    image: &Image,
    request: OffsetCommitRequest,
    results: Vec<TopicResult>,
) -> OffsetCommitResponse {
    let mut results = results.into_iter().flat_map(|topic| topic.partitions);
    let topics = request.topics.into_iter().map(|asked| {
        let topic = meant(version, image, &asked);
        let partitions = asked.partitions.iter().map(|one| {
            let index = one.partition_index;
            let code = match topic.map(|topic| topic.partition(index)) {
                Ok(Some(_)) => code(results.next().expect("one result for each that exists").error),
                Ok(None) => ErrorCode::UnknownTopicOrPartition as i16,
                Err(unknown) => unknown as i16,
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(asked.name)
            .with_topic_id(asked.topic_id)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::super::group_words::image_with;
    use super::*;
    use flowstone_coordinators::{Error, PartitionResult};
    use flowstone_types::Uuid;
    use flowstone_wire::messages::offset_commit_request::OffsetCommitRequestPartition;
    use flowstone_wire::{Api, ReplyTo, topic_name, uuid_to_wire};

    #[test]
    fn what_does_not_exist_fails_where_it_stands_and_the_rest_is_asked_for() {
        let image = image_with("t", 2);
        let topic = |name, partitions: &[i32]| {
            let one = |index| OffsetCommitRequestPartition::default().with_partition_index(index);
            let partitions = partitions.iter().copied().map(one).collect();
            let topic = OffsetCommitRequestTopic::default().with_name(topic_name(name));
            topic.with_partitions(partitions)
        };
        let topics = vec![topic("nope", &[0]), topic("t", &[1, 9, 0]), topic("t", &[5])];
        let asked: Vec<CommitTopic> =
            topics.iter().filter_map(|topic| existing(9, &image, topic)).collect();
        assert_eq!((asked.len(), asked[0].id), (1, Uuid(7)), "under the topic's id");
        let result = |partition, error| PartitionResult { partition, error };
        let partitions = vec![result(1, None), result(0, Some(Error::OffsetMetadataTooLarge))];
        let results =
            vec![TopicResult { name: asked[0].name.clone(), id: asked[0].id, partitions }];
        let request = OffsetCommitRequest::default().with_topics(topics);
        let response = respond(9, &image, request, results);
        let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<_> = codes.map(|one| (one.partition_index, one.error_code)).collect();
        assert_eq!(codes, [(0, 3), (1, 0), (9, 3), (0, 12), (5, 3)]);
        for version in 2..=9 {
            let reply_to = ReplyTo { api: Api::OffsetCommit, version, correlation_id: 1 };
            reply_to.encode(&response.clone().into(), &mut Vec::new()).unwrap();
        }
    }

    /// KafkaApis: an id that no topic has is UNKNOWN_TOPIC_ID; a partition that its topic has not is
    /// unknown as before. The answer has the ids, too.
    #[test]
    fn topics_are_known_by_their_ids_since_version_10() {
        let image = image_with("t", 1);
        let topic = |id: u128, index| {
            let one = OffsetCommitRequestPartition::default().with_partition_index(index);
            OffsetCommitRequestTopic::default()
                .with_topic_id(uuid_to_wire(Uuid(id)))
                .with_partitions(vec![one])
        };
        let topics = vec![topic(7, 0), topic(7, 4), topic(8, 0), topic(0, 0)];
        let asked: Vec<CommitTopic> =
            topics.iter().filter_map(|topic| existing(10, &image, topic)).collect();
        assert_eq!((asked.len(), &*asked[0].name), (1, "t"));
        let partitions = vec![PartitionResult { partition: 0, error: None }];
        let results =
            vec![TopicResult { name: asked[0].name.clone(), id: asked[0].id, partitions }];
        let request = OffsetCommitRequest::default().with_topics(topics);
        let response = respond(10, &image, request, results);
        let told: Vec<_> = response
            .topics
            .iter()
            .map(|topic| (uuid_from_wire(topic.topic_id).0, topic.partitions[0].error_code))
            .collect();
        assert_eq!(told, [(7, 0), (7, 3), (8, 100), (0, 100)]);
        let reply_to = ReplyTo { api: Api::OffsetCommit, version: 10, correlation_id: 1 };
        reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
    }
}
