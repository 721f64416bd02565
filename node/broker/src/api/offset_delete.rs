//! OffsetDelete (key 47): forgets a group's position in topics that its members do not read
//! (KIP-496).

use super::group_words::{code, text};
use crate::shard::Shard;
use flowstone_coordinators::{Answer, Error, OffsetDelete, Request, TopicResult};
use flowstone_metadata::Image;
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::offset_delete_request::OffsetDeleteRequestTopic;
use flowstone_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use flowstone_wire::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use std::rc::Rc;
use std::sync::Arc;

/// Answers for every partition, once the offsets of those that exist are gone.
pub async fn handle(shard: &Rc<Shard>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = shard.image();
    let topics = request.topics.iter().filter_map(|topic| existing(&image, topic)).collect();
    let delete = OffsetDelete { group: text(&request.group_id), topics };
    // Asked though there may be nothing to delete: an error of the group comes before all others.
    let answer = shard.ask_group(&request.group_id, Request::DeleteOffsets(delete)).await;
    let Answer::DeleteOffsets(result) = answer else { unreachable!("an offset deletion's answer") };
    respond(&image, request, result)
}

/// What of a topic exists; `None` where nothing does.
fn existing(image: &Image, asked: &OffsetDeleteRequestTopic) -> Option<(Arc<str>, Vec<i32>)> {
    let topic = image.topics.named(&asked.name)?;
    let partitions = asked.partitions.iter().map(|one| one.partition_index);
    let partitions: Vec<i32> = partitions.filter(|i| topic.partition(*i).is_some()).collect();
    (!partitions.is_empty()).then(|| (Arc::clone(&topic.name), partitions))
}

/// The results of what exists and so was asked of the coordinator, among those of what does not.
fn respond(
    image: &Image,
    request: OffsetDeleteRequest,
    result: Result<Vec<TopicResult>, Error>,
) -> OffsetDeleteResponse {
    let results = match result {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(code(Some(error))),
    };
    let mut results = results.into_iter().flat_map(|topic| topic.partitions);
    let topics = request.topics.into_iter().map(|asked| {
        let topic = image.topics.named(&asked.name);
        let partitions = asked.partitions.iter().map(|one| {
            let index = one.partition_index;
            let code = match topic.and_then(|topic| topic.partition(index)) {
                Some(_) => code(results.next().expect("one result for each that exists").error),
                None => ErrorCode::UnknownTopicOrPartition as i16,
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(asked.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
