//! DescribeCluster (key 60): the cluster's id and its brokers, or its controllers.

use super::authorized;
use super::metadata::broker_id;
use crate::client::Client;
use crate::shard::Shard;
use flowstone_wire::messages::describe_cluster_response::DescribeClusterBroker;
use flowstone_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};
use flowstone_wire::{ErrorCode, string};

/// `endpoint_type` of brokers and of controllers (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Answers about those whom the listener is for.
pub fn handle(
    shard: &Shard,
    client: &Client,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let mut response = DescribeClusterResponse::default()
        .with_endpoint_type(request.endpoint_type)
        .with_cluster_id(string(shard.node.cluster_id.clone()))
        .with_controller_id(broker_id(shard.node.id));
    let refused = match (request.endpoint_type, client.on_controller_listener) {
        (BROKERS, false) | (CONTROLLERS, true) => None,
        (CONTROLLERS, false) => Some((
            ErrorCode::MismatchedEndpointType,
            "this is a broker's listener: ask a controller's for controllers",
        )),
        (BROKERS, true) => Some((
            ErrorCode::MismatchedEndpointType,
            "this is a controller's listener: ask a broker's for brokers",
        )),
        _ => Some((ErrorCode::UnsupportedEndpointType, "an endpoint type is 1 or 2")),
    };
    if let Some((code, text)) = refused {
        return response.with_error_code(code as i16).with_error_message(Some(string(text)));
    }
    response.brokers = if client.on_controller_listener {
        controllers(shard, client)
    } else {
        brokers(shard, client)
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}

fn brokers(shard: &Shard, client: &Client) -> Vec<DescribeClusterBroker> {
    let endpoint = shard.node.endpoint(client.listener);
    let broker = DescribeClusterBroker::default()
        .with_broker_id(broker_id(shard.node.id))
        .with_host(string(endpoint.host.clone()))
        .with_port(i32::from(endpoint.port))
        .with_rack(shard.node.config.settings.broker_rack.clone().map(string));
    vec![broker]
}

/// The registered controllers that have a listener of this name.
fn controllers(shard: &Shard, client: &Client) -> Vec<DescribeClusterBroker> {
    let image = shard.image();
    let controllers = image.controllers.iter().filter_map(|(id, controller)| {
        let endpoint = controller.end_points.iter().find(|e| e.name == client.listener)?;
        let described = DescribeClusterBroker::default()
            .with_broker_id(broker_id(*id))
            .with_host(string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port));
        Some(described)
    });
    controllers.collect()
}
