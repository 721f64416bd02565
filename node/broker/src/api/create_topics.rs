//! CreateTopics (key 19): new topics, with configs and placement, or only checked.

use crate::client::Client;
use crate::creation::topic_defaults;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_config::Config;
use flowstone_controller::{CreatedTopic, NewTopic, Random, create_topics};
use flowstone_runtime::random_u64;
use flowstone_types::NodeId;
use flowstone_wire::messages::create_topics_request::CreatableTopic;
use flowstone_wire::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use flowstone_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};
use flowstone_wire::{string, topic_name, uuid_to_wire};
use std::rc::Rc;

/// From this version on the answer tells the topic's configs and numbers (KIP-525).
const TELLS_CONFIGS_SINCE: i16 = 5;

/// Answers once the topics can be written to.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let topics: Vec<NewTopic> = request.topics.iter().map(new_topic).collect();
    let config = shard.config();
    let (defaults, validate_only) = (topic_defaults(shard), request.validate_only);
    let rules = (*config).clone();
    let decided = shard
        .decide(move |image, _| {
            let mut draw = random_u64;
            let random = &mut Random(&mut draw);
            create_topics(image, &topics, defaults, validate_only, &rules, random)
        })
        .await;
    let answers = match decided {
        Ok(answers) => answers,
        Err(refusal) => {
            let refused = |topic: CreatableTopic| failed(&topic.name, &refusal);
            return CreateTopicsResponse::default()
                .with_topics(request.topics.into_iter().map(refused).collect());
        }
    };
    let tells_configs = client.version >= TELLS_CONFIGS_SINCE;
    let answers = answers.into_iter().map(|(name, answer)| match answer {
        Ok(created) => succeeded(&config, &name, &created, tells_configs),
        Err(error) => failed(&name, &error.into()),
    });
    CreateTopicsResponse::default().with_topics(answers.collect())
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let nodes =
        |ids: &[flowstone_wire::messages::BrokerId]| ids.iter().map(|id| NodeId(id.0)).collect();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|assignment| (assignment.partition_index, nodes(&assignment.broker_ids)))
            .collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)))
            .collect(),
    }
}

fn succeeded(
    config: &Config,
    name: &str,
    created: &CreatedTopic,
    tells_configs: bool,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_topic_id(uuid_to_wire(created.id))
        .with_error_message(None);
    if !tells_configs {
        return result;
    }
    let configs = config.describe_topic(Some(&created.configs)).into_iter().map(|described| {
        CreatableTopicConfigs::default()
            .with_name(string(described.name))
            .with_value(described.value.map(string))
            .with_read_only(described.read_only)
            .with_config_source(described.source as i8)
            .with_is_sensitive(described.sensitive)
    });
    result
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(configs.collect()))
}

fn failed(name: &str, refusal: &Refusal) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic_name(name))
        .with_error_code(refusal.code as i16)
        .with_error_message(Some(string(refusal.text())))
}
