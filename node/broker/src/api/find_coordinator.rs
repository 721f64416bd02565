//! FindCoordinator (key 10): which broker coordinates a group. With one broker: this one, once
//! `__consumer_offsets` exists.

use super::metadata::broker_id;
use crate::client::Client;
use crate::creation;
use crate::refusal::Refusal;
use crate::settings::CONSUMER_OFFSETS;
use crate::shard::Shard;
use flowstone_types::NodeId;
use flowstone_wire::messages::find_coordinator_response::Coordinator;
use flowstone_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use flowstone_wire::{ErrorCode, StrBytes, string};
use std::rc::Rc;

/// From this version on the answer has a text.
const MESSAGES_SINCE: i16 = 1;
/// From this version on a request has several keys.
const BATCHES_SINCE: i16 = 4;
/// `key_type` of a group, of a transactional id, of a share group's partition.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// Answers for every key.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let found = find(shard, request.key_type).await;
    let endpoint = shard.node.endpoint(client.listener);
    if client.version < BATCHES_SINCE {
        return match found {
            Ok(()) => {
                let mut response = FindCoordinatorResponse::default()
                    .with_node_id(broker_id(shard.node.id))
                    .with_host(string(endpoint.host.clone()))
                    .with_port(i32::from(endpoint.port));
                if client.version >= MESSAGES_SINCE {
                    // Kafka's word for no error; kafkajs' suite knows it or null.
                    response.error_message = Some(StrBytes::from_static_str("NONE"));
                }
                response
            }
            Err(refusal) => FindCoordinatorResponse::default()
                .with_error_code(refusal.code as i16)
                .with_error_message(Some(string(refusal.text())))
                .with_node_id(broker_id(NodeId::NONE))
                .with_port(-1),
        };
    }
    let one = |key: StrBytes| match &found {
        Ok(()) => Coordinator::default()
            .with_key(key)
            .with_node_id(broker_id(shard.node.id))
            .with_host(string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port)),
        Err(refusal) => Coordinator::default()
            .with_key(key)
            .with_error_code(refusal.code as i16)
            .with_error_message(Some(string(refusal.text())))
            .with_node_id(broker_id(NodeId::NONE))
            .with_port(-1),
    };
    let coordinators = request.coordinator_keys.into_iter().map(one).collect();
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}

async fn find(shard: &Rc<Shard>, key_type: i8) -> Result<(), Refusal> {
    match key_type {
        GROUP => creation::ensure_internal(shard, CONSUMER_OFFSETS).await,
        TRANSACTION => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "transactions are not supported by this broker yet",
        )),
        SHARE => Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "share groups are not supported by this broker yet",
        )),
        _ => Err(ErrorCode::InvalidRequest.into()),
    }
}
