//! Records that take effect together though one batch may not take them all: metadata transactions
//! (KIP-868).
//!
//! Separate because whoever decides more than [`BATCH_RECORDS_MAX`] records that stand or fall together
//! needs it. Invariant: one begin, one end, nothing else of a transaction in between; a controller that
//! dies before the end leaves what [`activate`](crate::activate) aborts.

use crate::Decision;
use alloc::string::ToString;
use alloc::vec::Vec;
use flowstone_metadata::log::BATCH_RECORDS_MAX;
use flowstone_metadata::records::{BeginTransactionRecord, EndTransactionRecord};
use flowstone_metadata::{MetadataRecord, MetadataVersion};

/// The records as a transaction of that name, where `version` has such; else as one batch, which is
/// refused when it is written if it is too large.
pub fn in_transaction<R>(
    version: MetadataVersion,
    name: &str,
    records: Vec<MetadataRecord>,
    response: R,
) -> Decision<R> {
    if records.is_empty() || !version.has_transactions() {
        return Decision::atomic(records, response);
    }
    let is_bracket = |record: &MetadataRecord| {
        use MetadataRecord as R;
        matches!(
            record,
            R::BeginTransactionRecord(_)
                | R::EndTransactionRecord(_)
                | R::AbortTransactionRecord(_)
        )
    };
    assert!(!records.iter().any(is_bracket), "transactions do not nest");
    let name = Some(name.to_string());
    let begin = BeginTransactionRecord { name, ..BeginTransactionRecord::default() };
    let mut all = Vec::with_capacity(records.len() + 2);
    all.push(begin.into());
    all.extend(records);
    all.push(EndTransactionRecord::default().into());
    Decision { atomic: all.len() <= BATCH_RECORDS_MAX, records: all, response }
}
