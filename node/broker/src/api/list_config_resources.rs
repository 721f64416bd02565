//! ListConfigResources (key 74, KIP-1142): which resources have configs, or can have.

use super::config_resource::BROKER_LOGGER;
use crate::client::Client;
use crate::shard::Shard;
use flowstone_metadata::ResourceKind;
use flowstone_wire::messages::list_config_resources_response::ConfigResource;
use flowstone_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use flowstone_wire::{ErrorCode, string};

/// Answers for the kinds asked for; version 0 asks for client metrics.
pub fn handle(
    shard: &Shard,
    client: &Client,
    request: &ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let all =
        [ResourceKind::Topic, ResourceKind::Broker, ResourceKind::Group].map(ResourceKind::number);
    let asked: Vec<i8> = match &request.resource_types[..] {
        _ if client.version == 0 => vec![ResourceKind::ClientMetrics.number()],
        [] => [&all[..], &[BROKER_LOGGER, ResourceKind::ClientMetrics.number()]].concat(),
        some => some.to_vec(),
    };
    let image = shard.image();
    let mut found = Vec::new();
    for kind in asked {
        let names: Vec<String> = match ResourceKind::from_number(kind) {
            Some(ResourceKind::Topic) => image.topics.iter().map(|t| t.name.to_string()).collect(),
            Some(ResourceKind::Broker) => vec![shard.node.id.to_string()],
            Some(kind @ (ResourceKind::Group | ResourceKind::ClientMetrics)) => {
                let with_configs = image.configs.keys().filter(|resource| resource.kind == kind);
                with_configs.map(|resource| resource.name.clone()).collect()
            }
            None if kind == BROKER_LOGGER => vec![shard.node.id.to_string()],
            None => {
                return ListConfigResourcesResponse::default()
                    .with_error_code(ErrorCode::UnsupportedVersion as i16);
            }
        };
        for name in names {
            let resource = ConfigResource::default().with_resource_name(string(name));
            // Version 0 knows one kind, and has no field for it.
            found.push(if client.version == 0 {
                resource
            } else {
                resource.with_resource_type(kind)
            });
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(found)
}
