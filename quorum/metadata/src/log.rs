//! The batches of the metadata log: records in, bytes out, and back (reference section 2.3).

use crate::features::MetadataVersion;
use crate::losses::Loss;
use crate::record::{MetadataRecord, RecordError};
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_batch::{BatchBuilder, BatchError, BatchHeader, crc_ok};
use flowstone_raft::control::{ControlError, ControlRecord, read_control_batch};
use flowstone_raft::snapshot::{SnapshotError, data_values};
use flowstone_schema::EncodeError;
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

/// Most records of one batch, and so of what takes effect at once: Kafka's bound on what one request
/// of a user may do.
pub const BATCH_RECORDS_MAX: usize = 10_000;

/// Most bytes of one batch; Kafka's raft client takes no larger ones.
pub const BATCH_BYTES_MAX: usize = 8 << 20;

/// Writes `records`, in the versions of `version`, as one batch: all of them or none take effect.
pub fn batch(
    records: &[MetadataRecord],
    version: MetadataVersion,
    base_offset: Offset,
    epoch: LeaderEpoch,
    now: Timestamp,
) -> Result<Bytes, LogError> {
    let mut all = batches(records, version, base_offset, epoch, now)?;
    match (all.pop(), all.len()) {
        (Some(batch), 0) => Ok(batch),
        (_, cut) => Err(LogError::TooLarge { records: records.len(), batches: cut + 1 }),
    }
}

/// Writes `records` as few batches, for what need not take effect at once.
pub fn batches(
    records: &[MetadataRecord],
    version: MetadataVersion,
    base_offset: Offset,
    epoch: LeaderEpoch,
    now: Timestamp,
) -> Result<Vec<Bytes>, LogError> {
    let start = |offset| BatchBuilder::new(offset).leader_epoch(epoch);
    let mut done = Vec::new();
    let mut next = base_offset;
    let mut open = start(next);
    for record in records {
        let value = record.encode(record.version_at(version))?;
        let full = open.len() + value.len() > BATCH_BYTES_MAX;
        if !open.is_empty() && (full || open.count() as usize == BATCH_RECORDS_MAX) {
            next = next.plus(open.count().into());
            done.push(core::mem::replace(&mut open, start(next)).build());
        }
        open.push(now, None, Some(&value), &[]);
    }
    if !open.is_empty() {
        done.push(open.build());
    }
    Ok(done)
}

/// What a batch of the metadata log holds.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// Records of the cluster; the first one's offset is the batch's.
    Records(Vec<MetadataRecord>),
    /// What the quorum tells itself.
    Control(Vec<ControlRecord>),
}

/// Reads one whole batch of the log.
pub fn read_batch(batch: &Bytes) -> Result<(BatchHeader, Entry), LogError> {
    let header = BatchHeader::parse(batch)?;
    if !crc_ok(batch) {
        return Err(SnapshotError::Crc(header.base_offset).into());
    }
    if header.attributes.is_control() {
        return Ok((header, Entry::Control(read_control_batch(batch)?)));
    }
    let mut all = Vec::new();
    data_values::<LogError>(batch, &header, &mut |value| {
        all.push(MetadataRecord::decode(&value)?.0);
        Ok(())
    })?;
    Ok((header, Entry::Records(all)))
}

/// Records that make no batch, or a batch that is none of the metadata log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// A record cannot be written in this version.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Too much to take effect at once.
    #[error("{records} records take {batches} batches, but must take effect at once")]
    TooLarge {
        /// How many records there are.
        records: usize,
        /// How many batches they take.
        batches: usize,
    },
    /// The image holds what its metadata.version has no records for: its snapshot would lose it.
    #[error("metadata.version {version} has no records for {loss}")]
    NotTold {
        /// What.
        loss: Loss,
        /// The version.
        version: MetadataVersion,
    },
    /// The batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A control record is damaged.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The batch is none of a metadata log, or a snapshot is not whole.
    #[error(transparent)]
    Frame(#[from] SnapshotError),
    /// A record is not known, or damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
}
