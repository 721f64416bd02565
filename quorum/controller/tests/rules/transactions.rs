//! Metadata transactions (KIP-868): what stands or falls together, beyond one batch.

use flowstone_controller::{Decision, activate, in_transaction};
use flowstone_metadata::log::BATCH_RECORDS_MAX;
use flowstone_metadata::records::UserScramCredentialRecord;
use flowstone_metadata::{Image, MetadataRecord, MetadataVersion, Replay, features};

fn credentials(count: usize) -> Vec<MetadataRecord> {
    let credential = |n: usize| {
        let name = n.to_string();
        UserScramCredentialRecord { name, mechanism: 1, ..Default::default() }.into()
    };
    (0..count).map(credential).collect()
}

/// Atomic by the batch as long as that takes it, by the transaction beyond.
#[test]
fn what_one_batch_takes_is_one_batch() {
    let at = |version, count| -> Decision<()> {
        in_transaction(MetadataVersion(version), "test", credentials(count), ())
    };
    let shape = |decision: &Decision<()>| (decision.records.len(), decision.atomic);
    assert_eq!(shape(&at(13, BATCH_RECORDS_MAX - 2)), (BATCH_RECORDS_MAX, true));
    assert_eq!(shape(&at(13, BATCH_RECORDS_MAX - 1)), (BATCH_RECORDS_MAX + 1, false));
    assert_eq!(shape(&at(12, 3)), (3, true), "before 3.6-IV1 there are none");
    assert_eq!(shape(&at(13, 0)), (0, true), "nothing needs no bracket");
}

/// Reference section 2.3: readers see all of it or nothing, be it the bootstrap records of a cluster
/// that is formatted with more users than a batch has records.
#[test]
fn a_large_bootstrap_is_seen_as_a_whole() {
    let levels = features::bootstrap_records(MetadataVersion::LATEST, &[]).unwrap();
    let mut bootstrap: Vec<MetadataRecord> = levels.into_iter().map(Into::into).collect();
    bootstrap.extend(credentials(BATCH_RECORDS_MAX));
    let decision = activate(&Image::default(), false, bootstrap, 1);
    assert!(!decision.atomic);
    let mut replay = Replay::default();
    let last = decision.records.len() - 1;
    for (index, record) in decision.records.into_iter().enumerate() {
        replay.apply(record).unwrap();
        assert_eq!(replay.in_transaction(), index < last, "record {index}");
    }
    assert_eq!(replay.publish().unwrap().0.scram.len(), BATCH_RECORDS_MAX);
}
