//! InitProducerId (key 22): an id for an idempotent producer (KIP-98).

use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use std::rc::Rc;

/// Answers with an id that was never handed out before, and epoch 0.
pub async fn handle(shard: &Rc<Shard>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let id = match request.transactional_id {
        // A client gets here only by asking for transactions, which it was not offered.
        Some(_) => Err(Refusal::from(ErrorCode::InvalidRequest)),
        // KIP-360: a producer that has an id tells it with its epoch.
        None if (request.producer_id.0 < 0) != (request.producer_epoch < 0) => {
            Err(Refusal::from(ErrorCode::InvalidRequest))
        }
        None => shard.new_producer_id().await,
    };
    match id {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id.0))
            .with_producer_epoch(0),
        Err(refusal) => InitProducerIdResponse::default()
            .with_error_code(refusal.code as i16)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}
