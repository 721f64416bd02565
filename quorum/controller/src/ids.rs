//! Blocks of producer ids (KIP-730).

use crate::Decision;
use crate::error::{ApiError, ErrorKind};
use alloc::format;
use alloc::vec;
use core::ops::Range;
use flowstone_metadata::Image;
use flowstone_metadata::records::ProducerIdsRecord;
use flowstone_types::NodeId;

/// How many ids a block has.
pub const PRODUCER_ID_BLOCK_LEN: i64 = 1000;

/// Gives `broker` the next block of ids.
pub fn allocate_producer_ids(
    image: &Image,
    broker: NodeId,
    broker_epoch: i64,
) -> Result<Decision<Range<i64>>, ApiError> {
    check_epoch(image, broker, broker_epoch)?;
    let first = image.next_producer_id;
    let next = first.checked_add(PRODUCER_ID_BLOCK_LEN);
    let next_producer_id = next.ok_or_else(|| {
        ApiError::new(ErrorKind::UnknownServer, "All producer ids have been handed out.")
    })?;
    let record = ProducerIdsRecord {
        broker_id: broker.0,
        broker_epoch,
        next_producer_id,
        ..ProducerIdsRecord::default()
    };
    Ok(Decision::atomic(vec![record.into()], first..next_producer_id))
}

/// Whether the request comes from the broker's running incarnation.
pub(crate) fn check_epoch(image: &Image, broker: NodeId, epoch: i64) -> Result<(), ApiError> {
    let registered = image.brokers.get(&broker).ok_or_else(|| {
        ApiError::new(
            ErrorKind::BrokerIdNotRegistered,
            format!("Broker {broker} is not registered."),
        )
    })?;
    if registered.broker_epoch != epoch {
        let current = registered.broker_epoch;
        return Err(ApiError::new(
            ErrorKind::StaleBrokerEpoch,
            format!("Broker {broker} is registered with epoch {current}, not {epoch}."),
        ));
    }
    Ok(())
}
