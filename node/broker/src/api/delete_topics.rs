//! DeleteTopics (key 20): by name, or by id since version 6.

use crate::client::Client;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_controller::{DeletedTopic, TopicChoice, delete_topics};
use flowstone_types::Uuid;
use flowstone_wire::messages::delete_topics_response::DeletableTopicResult;
use flowstone_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use flowstone_wire::{ErrorCode, string, topic_name, uuid_from_wire, uuid_to_wire};
use std::rc::Rc;

/// From this version on topics are named one by one, by name or id.
const IDS_SINCE: i16 = 6;
/// From this version on an error comes in words.
const MESSAGES_SINCE: i16 = 5;
/// From this version on clients know TOPIC_DELETION_DISABLED.
const DISABLED_SINCE: i16 = 3;

/// Answers once the topics are gone for everybody; their files go a little later.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let choices = choices(client.version, &request);
    let results: Vec<DeletableTopicResult> = match decide(shard, client.version, &choices).await {
        Ok(deleted) => deleted.into_iter().map(|one| result(client.version, one)).collect(),
        Err(refusal) => {
            choices.iter().map(|choice| refused(client.version, choice, &refusal)).collect()
        }
    };
    DeleteTopicsResponse::default().with_responses(results)
}

fn choices(version: i16, request: &DeleteTopicsRequest) -> Vec<TopicChoice> {
    if version >= IDS_SINCE {
        let topics = request.topics.iter().map(|topic| TopicChoice {
            name: topic.name.as_ref().map(|name| name.to_string()),
            id: uuid_from_wire(topic.topic_id),
        });
        return topics.collect();
    }
    let names = request.topic_names.iter();
    names.map(|name| TopicChoice { name: Some(name.to_string()), id: Uuid::ZERO }).collect()
}

async fn decide(
    shard: &Rc<Shard>,
    version: i16,
    choices: &[TopicChoice],
) -> Result<Vec<DeletedTopic>, Refusal> {
    if !shard.node.config.settings.delete_topics {
        return Err(match version {
            ..DISABLED_SINCE => ErrorCode::InvalidRequest.into(),
            _ => ErrorCode::TopicDeletionDisabled.into(),
        });
    }
    let choices = choices.to_vec();
    shard.decide(move |image, _| delete_topics(image, &choices)).await
}

fn result(version: i16, deleted: DeletedTopic) -> DeletableTopicResult {
    let DeletedTopic { name, id, result } = deleted;
    match result {
        Ok(()) => named(name.as_deref(), id),
        Err(error) => refused(version, &TopicChoice { name, id }, &error.into()),
    }
}

fn refused(version: i16, choice: &TopicChoice, refusal: &Refusal) -> DeletableTopicResult {
    let message = (version >= MESSAGES_SINCE).then(|| string(refusal.text()));
    named(choice.name.as_deref(), choice.id)
        .with_error_code(refusal.code as i16)
        .with_error_message(message)
}

fn named(name: Option<&str>, id: Uuid) -> DeletableTopicResult {
    DeletableTopicResult::default()
        .with_name(name.map(topic_name))
        .with_topic_id(uuid_to_wire(id))
        .with_error_message(None)
}
