//! Kafka's producer snapshot, version 1: `%020d.snapshot`, written when a segment is rolled and at
//! a clean stop, so that recovery need not read older segments.
//!
//! `version i16, crc u32, count i32`, then an entry of 46 bytes per producer; the CRC-32C covers
//! everything behind it. Only the last batch of a producer is kept.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use flowstone_batch::NO_SEQUENCE;
use flowstone_types::{Offset, Timestamp};
use thiserror::Error;

use super::{CachedBatch, PRODUCERS_MAX, Producer, ProducerState};

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = CRC_AT + 4;
const FIRST_ENTRY_AT: usize = ENTRIES_AT + 4;
const ENTRY_LEN: usize = 46;
const _: () = assert!(8 + 2 + 4 + 8 + 4 + 8 + 4 + 8 == ENTRY_LEN);
/// What stands for "no transaction" and "no batch".
const NO_OFFSET: Offset = Offset(-1);

/// Why a snapshot cannot be used: use an older one, or none and read the whole log.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    /// Not of version 1.
    #[error("producer snapshot of version {0}, only {VERSION} is read")]
    Version(i16),
    /// Not as long as its count of entries says.
    #[error("producer snapshot of {bytes} bytes does not hold {entries} entries")]
    Length {
        /// The file's length.
        bytes: usize,
        /// What it declares.
        entries: i32,
    },
    /// Not what was written.
    #[error(
        "producer snapshot is corrupt: its CRC is {stored:#010x}, its bytes give {computed:#010x}"
    )]
    Crc {
        /// What the file says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Two entries of one producer, or an entry that no producer leaves behind.
    #[error("producer snapshot has an impossible entry of producer {0}")]
    Entry(i64),
}

impl ProducerState {
    /// This state as a snapshot file.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIRST_ENTRY_AT + ENTRY_LEN * self.producers.len());
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.producers.len() as i32).to_be_bytes());
        for (id, producer) in &self.producers {
            let last = producer.batches.back();
            let last_offset = last.map_or(NO_OFFSET, |batch| batch.last_offset);
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&producer.epoch.to_be_bytes());
            out.extend_from_slice(&producer.last_sequence().to_be_bytes());
            out.extend_from_slice(&last_offset.0.to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            out.extend_from_slice(&producer.last_timestamp.0.to_be_bytes());
            out.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&producer.transaction.unwrap_or(NO_OFFSET).0.to_be_bytes());
        }
        let crc = crc_fast::crc32_iscsi(&out[ENTRIES_AT..]);
        out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads the snapshot file of offset `at`. Everybody in it counts as seen `now`: the file does
    /// not say when they wrote, and forgetting late does no harm.
    pub fn load(bytes: &[u8], at: Offset, now: Timestamp) -> Result<Self, SnapshotError> {
        let short = || SnapshotError::Length { bytes: bytes.len(), entries: 0 };
        let mut fields = Fields(bytes);
        let version = i16::from_be_bytes(fields.take().ok_or_else(short)?);
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let stored = u32::from_be_bytes(fields.take().ok_or_else(short)?);
        let computed = crc_fast::crc32_iscsi(fields.0);
        let entries = i32::from_be_bytes(fields.take().ok_or_else(short)?);
        if stored != computed {
            return Err(SnapshotError::Crc { stored, computed });
        }
        if usize::try_from(entries).ok().and_then(|count| count.checked_mul(ENTRY_LEN))
            != Some(fields.0.len())
        {
            return Err(SnapshotError::Length { bytes: bytes.len(), entries });
        }
        let mut state = Self { loaded_at: at, ..Self::default() };
        while let Some((id, producer)) = fields.entry(now) {
            let batch = producer.batches.front();
            let possible = batch.is_none_or(|batch| {
                batch.offset_delta >= 0
                    && batch.last_sequence >= NO_SEQUENCE
                    && batch.last_offset.0 >= i64::from(batch.offset_delta)
            });
            if id < 0 || !possible || state.producers.insert(id, producer).is_some() {
                return Err(SnapshotError::Entry(id));
            }
        }
        if state.producers.len() > PRODUCERS_MAX {
            state.forget_oldest();
        }
        Ok(state)
    }
}

/// What is still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn entry(&mut self, now: Timestamp) -> Option<(i64, Producer)> {
        let id = i64::from_be_bytes(self.take()?);
        let epoch = i16::from_be_bytes(self.take()?);
        let last_sequence = i32::from_be_bytes(self.take()?);
        let last_offset = Offset(i64::from_be_bytes(self.take()?));
        let offset_delta = i32::from_be_bytes(self.take()?);
        let timestamp = Timestamp(i64::from_be_bytes(self.take()?));
        let coordinator_epoch = i32::from_be_bytes(self.take()?);
        let transaction = Offset(i64::from_be_bytes(self.take()?));
        let batch = CachedBatch { last_sequence, last_offset, offset_delta, timestamp };
        let producer = Producer {
            epoch,
            last_timestamp: timestamp,
            last_seen: now,
            batches: (last_offset >= Offset::ZERO)
                .then_some(batch)
                .into_iter()
                .collect::<VecDeque<_>>(),
            coordinator_epoch,
            transaction: (transaction >= Offset::ZERO).then_some(transaction),
            last_marker: None,
        };
        Some((id, producer))
    }
}
