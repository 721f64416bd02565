//! OffsetCommit (key 8): keeps a group's position; answered once it is on stable storage.

use super::group_words::{code, optional, text};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Commit, CommitTopic, OffsetCommit, Request, TopicResult};
use flowstone_metadata::Image;
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::offset_commit_request::OffsetCommitRequestTopic;
use flowstone_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use flowstone_wire::messages::{OffsetCommitRequest, OffsetCommitResponse};
use std::rc::Rc;

/// Answers for every partition, once the offsets of those that exist are kept.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = shard.image();
    let topics: Vec<CommitTopic> =
        request.topics.iter().filter_map(|topic| existing(&image, topic)).collect();
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
    respond(&image, request, results)
}

/// What of a topic exists, under its id; `None` where nothing does.
fn existing(image: &Image, asked: &OffsetCommitRequestTopic) -> Option<CommitTopic> {
    let topic = image.topics.named(&asked.name)?;
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
    image: &Image,
    request: OffsetCommitRequest,
    results: Vec<TopicResult>,
) -> OffsetCommitResponse {
    let mut results = results.into_iter().flat_map(|topic| topic.partitions);
    let topics = request.topics.into_iter().map(|asked| {
        let topic = image.topics.named(&asked.name);
        let partitions = asked.partitions.iter().map(|one| {
            let index = one.partition_index;
            let code = match topic.and_then(|topic| topic.partition(index)) {
                Some(_) => code(results.next().expect("one result for each that exists").error),
                None => ErrorCode::UnknownTopicOrPartition as i16,
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(asked.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}
