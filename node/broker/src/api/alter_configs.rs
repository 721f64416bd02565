//! AlterConfigs (key 33): replaces all configs of a resource. The old way: see
//! `incremental_alter_configs.rs`.

use super::config_resource::resource;
use super::incremental_alter_configs::outcomes;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_controller::{NewConfigs, replace_configs};
use flowstone_metadata::ConfigResource;
use flowstone_wire::messages::alter_configs_request::AlterConfigsResource;
use flowstone_wire::messages::alter_configs_response::AlterConfigsResourceResponse;
use flowstone_wire::messages::{AlterConfigsRequest, AlterConfigsResponse};
use flowstone_wire::string;
use std::rc::Rc;

/// Answers for every resource, once the configs are in force.
pub async fn handle(shard: &Rc<Shard>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let named: Vec<Result<(ConfigResource, NewConfigs), Refusal>> =
        request.resources.iter().map(|asked| configs(shard, asked)).collect();
    let valid: Vec<_> = named.iter().flatten().cloned().collect();
    let config = (*shard.config()).clone();
    let validate_only = request.validate_only;
    let decided =
        shard.decide(move |image, _| replace_configs(image, &valid, validate_only, &config)).await;
    let outcomes = outcomes(decided);
    let responses = request.resources.into_iter().zip(named).map(|(asked, named)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name);
        match named.and_then(|(resource, _)| outcomes.of(&resource)) {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => response
                .with_error_code(refusal.code as i16)
                .with_error_message(Some(string(refusal.text()))),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn configs(
    shard: &Shard,
    asked: &AlterConfigsResource,
) -> Result<(ConfigResource, NewConfigs), Refusal> {
    let resource = resource(shard, asked.resource_type, &asked.resource_name)?;
    let config = |config: &flowstone_wire::messages::alter_configs_request::AlterableConfig| {
        (config.name.to_string(), config.value.as_ref().map(ToString::to_string))
    };
    Ok((resource, asked.configs.iter().map(config).collect()))
}
