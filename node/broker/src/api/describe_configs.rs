//! DescribeConfigs (key 32): configs with their sources, synonyms, types and documentation.

use super::config_resource::resource;
use crate::client::Client;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_config::{Described, Overrides};
use flowstone_metadata::{ConfigResource, ResourceKind};
use flowstone_wire::messages::describe_configs_request::DescribeConfigsResource;
use flowstone_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use flowstone_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use flowstone_wire::{ErrorCode, string};

/// From this version on a config tells its type and documentation.
const TYPES_SINCE: i16 = 3;

/// Answers for every resource asked for.
pub fn handle(
    shard: &Shard,
    client: &Client,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|asked| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match describe(shard, asked) {
            Ok(described) => {
                let configs = described.into_iter().map(|one| tell(client, request, one));
                result.with_configs(configs.collect()).with_error_message(None)
            }
            Err(refusal) => result
                .with_error_code(refusal.code as i16)
                .with_error_message(Some(string(refusal.text()))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(shard: &Shard, asked: &DescribeConfigsResource) -> Result<Vec<Described>, Refusal> {
    let resource = resource(shard, asked.resource_type, &asked.resource_name)?;
    let (config, image) = (shard.config(), shard.image());
    let set: Option<&Overrides> = image.configs.get(&resource).map(|set| &**set);
    let ConfigResource { kind, name } = &resource;
    let mut described = match kind {
        ResourceKind::Topic => {
            if !flowstone_types::valid_topic_name(name) {
                return Err(ErrorCode::InvalidTopicException.into());
            }
            image.topics.named(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
            config.describe_topic(set)
        }
        ResourceKind::Broker if name.is_empty() => config.describe_all_brokers(),
        ResourceKind::Broker => config.describe_broker(),
        ResourceKind::Group => config.describe_group(set),
        ResourceKind::ClientMetrics => config.describe_client_metrics(set),
    };
    // Clients ask for all with null or with an empty list; Kafka takes both.
    if let Some(keys) = &asked.configuration_keys
        && !keys.is_empty()
    {
        described.retain(|one| keys.iter().any(|key| &**key == one.name.as_str()));
    }
    Ok(described)
}

fn tell(
    client: &Client,
    request: &DescribeConfigsRequest,
    described: Described,
) -> DescribeConfigsResourceResult {
    let synonyms = described.synonyms.into_iter().filter(|_| request.include_synonyms);
    let synonyms = synonyms.map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(string(synonym.name))
            .with_value(synonym.value.map(string))
            .with_source(synonym.source as i8)
    });
    let mut told = DescribeConfigsResourceResult::default()
        .with_name(string(described.name))
        .with_value(described.value.map(string))
        .with_read_only(described.read_only)
        .with_config_source(described.source as i8)
        .with_is_sensitive(described.sensitive)
        .with_synonyms(synonyms.collect());
    if client.version >= TYPES_SINCE {
        told.config_type = described.kind.map_or(0, |kind| kind as i8);
        told.documentation = request.include_documentation.then(|| string(described.doc));
    }
    told
}
