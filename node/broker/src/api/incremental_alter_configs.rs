//! IncrementalAlterConfigs (key 44, KIP-339): sets, deletes, appends to and subtracts from configs.

use super::config_resource::resource;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_controller::{ConfigChange, ConfigOp, alter_configs};
use flowstone_metadata::ConfigResource;
use flowstone_wire::messages::incremental_alter_configs_request::AlterConfigsResource;
use flowstone_wire::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use flowstone_wire::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use flowstone_wire::{ErrorCode, StrBytes, string};
use std::collections::HashMap;
use std::rc::Rc;

/// Answers for every resource, once the changes are in force.
pub async fn handle(
    shard: &Rc<Shard>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named: Vec<Result<(ConfigResource, Vec<ConfigChange>), Refusal>> =
        request.resources.iter().map(|asked| changes(shard, asked)).collect();
    let valid: Vec<_> = named.iter().flatten().cloned().collect();
    let config = (*shard.config()).clone();
    let validate_only = request.validate_only;
    let decided =
        shard.decide(move |image, _| alter_configs(image, &valid, validate_only, &config)).await;
    let outcomes = outcomes(decided);
    let responses = request.resources.into_iter().zip(named).map(|(asked, named)| {
        let outcome = named.and_then(|(resource, _)| outcomes.of(&resource));
        response(asked.resource_type, asked.resource_name, outcome)
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn changes(
    shard: &Shard,
    asked: &AlterConfigsResource,
) -> Result<(ConfigResource, Vec<ConfigChange>), Refusal> {
    let resource = resource(shard, asked.resource_type, &asked.resource_name)?;
    let changes = asked.configs.iter().map(|config| {
        let op = match config.config_operation {
            0 => ConfigOp::Set,
            1 => ConfigOp::Delete,
            2 => ConfigOp::Append,
            3 => ConfigOp::Subtract,
            op => {
                let text = format!("Unknown config operation {op} on {}", &*config.name);
                return Err(Refusal::new(ErrorCode::InvalidRequest, text));
            }
        };
        let value = config.value.as_ref().map(ToString::to_string);
        Ok(ConfigChange { key: config.name.to_string(), op, value })
    });
    Ok((resource, changes.collect::<Result<_, _>>()?))
}

/// What became of each resource; or of all, where nothing could be decided.
pub struct Outcomes(Result<HashMap<ConfigResource, Outcome>, Refusal>);

type Outcome = Result<(), Refusal>;

impl Outcomes {
    /// What became of one. Named twice, it was answered once, with an error.
    pub fn of(&self, resource: &ConfigResource) -> Outcome {
        match &self.0 {
            Ok(each) => each.get(resource).cloned().unwrap_or(Ok(())),
            Err(refusal) => Err(refusal.clone()),
        }
    }
}

/// What the controller answers.
type Decided<E> = Vec<(ConfigResource, Result<(), E>)>;

/// The controller's answers by resource.
pub fn outcomes<E: Into<Refusal>>(decided: Result<Decided<E>, Refusal>) -> Outcomes {
    let each = |(resource, answer): (_, Result<(), E>)| (resource, answer.map_err(Into::into));
    Outcomes(decided.map(|answers| answers.into_iter().map(each).collect()))
}

fn response(
    kind: i8,
    name: StrBytes,
    outcome: Result<(), Refusal>,
) -> AlterConfigsResourceResponse {
    let response =
        AlterConfigsResourceResponse::default().with_resource_type(kind).with_resource_name(name);
    match outcome {
        Ok(()) => response.with_error_message(None),
        Err(refusal) => response
            .with_error_code(refusal.code as i16)
            .with_error_message(Some(string(refusal.text()))),
    }
}
