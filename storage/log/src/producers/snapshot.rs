//! Kafka's producer snapshot, version 1: `%020d.snapshot`, written when a segment is rolled and at
//! a clean stop, so that recovery need not read older segments.
//!
//! `version i16, crc u32, count i32`, then an entry of 46 bytes per producer; the CRC-32C covers
//! everything behind it. Kafka's entry tells only the last batch of a producer, and a client may
//! have four more in flight: one that is retried after a restart would be out of order, and its
//! producer stuck. So behind the entries stands a section of our own, if there is anything to say:
//! `magic, version i16`, then until the end of the file for each producer with earlier batches
//! `id i64, count u8` and those, oldest first: `last sequence i32, last offset i64, offset delta
//! i32, timestamp i64`. Kafka's reader has its CRC cover them and looks no further.
//!
//! Invariant: earlier batches lead to the last one, sequence by sequence. What does not is not
//! written, and refused where it is read.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use flowstone_batch::{NO_SEQUENCE, sequence_plus};
use flowstone_types::{Offset, Timestamp};
use thiserror::Error;

use super::{CACHED_BATCHES, CachedBatch, PRODUCERS_MAX, Producer, ProducerState};

const VERSION: i16 = 1;
const CRC_AT: usize = 2;
const ENTRIES_AT: usize = CRC_AT + 4;
const FIRST_ENTRY_AT: usize = ENTRIES_AT + 4;
const ENTRY_LEN: usize = 46;
const _: () = assert!(8 + 2 + 4 + 8 + 4 + 8 + 4 + 8 == ENTRY_LEN);
/// Begins the section of earlier batches.
const SECTION_MAGIC: [u8; 4] = *b"FSpb";
const SECTION_VERSION: i16 = 1;
/// What stands for "no transaction" and "no batch".
const NO_OFFSET: Offset = Offset(-1);

/// Why a snapshot cannot be used: use an older one, or none and read the whole log.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    /// Not of version 1.
    #[error("producer snapshot of version {0}, only {VERSION} is read")]
    Version(i16),
    /// Not as long as its count of entries, and of earlier batches behind them, says.
    #[error("producer snapshot of {bytes} bytes is not one of {entries} entries")]
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
    /// Its earlier batches are written as no version of this program that we know writes them.
    #[error(
        "producer snapshot with earlier batches of version {0}, only {SECTION_VERSION} is read"
    )]
    SectionVersion(i16),
    /// Earlier batches that do not lead to the producer's last one.
    #[error("producer snapshot has impossible earlier batches of producer {0}")]
    Earlier(i64),
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
        self.write_section(&mut out);
        let crc = crc_fast::crc32_iscsi(&out[ENTRIES_AT..]);
        out[CRC_AT..ENTRIES_AT].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Nothing where nobody has an earlier batch: the file is then Kafka's to the byte.
    fn write_section(&self, out: &mut Vec<u8>) {
        let mut begun = false;
        for (id, producer) in &self.producers {
            let earlier = producer.earlier();
            if earlier.len() == 0 {
                continue;
            }
            if !core::mem::replace(&mut begun, true) {
                out.extend_from_slice(&SECTION_MAGIC);
                out.extend_from_slice(&SECTION_VERSION.to_be_bytes());
            }
            out.extend_from_slice(&id.to_be_bytes());
            out.push(earlier.len() as u8);
            for batch in earlier {
                out.extend_from_slice(&batch.last_sequence.to_be_bytes());
                out.extend_from_slice(&batch.last_offset.0.to_be_bytes());
                out.extend_from_slice(&batch.offset_delta.to_be_bytes());
                out.extend_from_slice(&batch.timestamp.0.to_be_bytes());
            }
        }
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
        let wrong_length = || SnapshotError::Length { bytes: bytes.len(), entries };
        let (mut fields, section) = usize::try_from(entries)
            .ok()
            .and_then(|count| fields.0.split_at_checked(count.checked_mul(ENTRY_LEN)?))
            .map(|(entries, section)| (Fields(entries), Fields(section)))
            .ok_or_else(wrong_length)?;
        let mut state = Self { loaded_at: at, ..Self::default() };
        while let Some((id, producer)) = fields.entry(now) {
            let possible = producer.batches.front().is_none_or(CachedBatch::is_possible);
            if id < 0 || !possible || state.producers.insert(id, producer).is_some() {
                return Err(SnapshotError::Entry(id));
            }
        }
        if !section.0.is_empty() {
            state.read_section(section, wrong_length)?;
        }
        if state.producers.len() > PRODUCERS_MAX {
            state.forget_oldest();
        }
        Ok(state)
    }

    fn read_section(
        &mut self,
        mut fields: Fields<'_>,
        wrong_length: impl Fn() -> SnapshotError,
    ) -> Result<(), SnapshotError> {
        if fields.take() != Some(SECTION_MAGIC) {
            return Err(wrong_length());
        }
        let version = i16::from_be_bytes(fields.take().ok_or_else(&wrong_length)?);
        if version != SECTION_VERSION {
            return Err(SnapshotError::SectionVersion(version));
        }
        while !fields.0.is_empty() {
            let id = i64::from_be_bytes(fields.take().ok_or_else(&wrong_length)?);
            let [count] = fields.take().ok_or_else(&wrong_length)?;
            let impossible = SnapshotError::Earlier(id);
            let Some(producer) = self.producers.get_mut(&id) else { return Err(impossible) };
            // Two are there if the section names it for the second time.
            let (1, Some(last)) = (producer.batches.len(), producer.batches.pop_back()) else {
                return Err(impossible);
            };
            if !(1..CACHED_BATCHES).contains(&count.into()) {
                return Err(impossible);
            }
            for _ in 0..count {
                producer.batches.push_back(fields.batch().ok_or_else(&wrong_length)?);
            }
            producer.batches.push_back(last);
            if producer.earlier().len() != usize::from(count) {
                return Err(impossible);
            }
        }
        Ok(())
    }
}

impl Producer {
    /// The batches that lead to its last one without a gap. Others can stand before it only in a
    /// log that lost some, or that a coordinator wrote: nobody retries those.
    fn earlier(&self) -> impl ExactSizeIterator<Item = &CachedBatch> {
        let last = self.batches.len().saturating_sub(1);
        let mut first = last;
        while first > 0 && self.batches[first - 1].leads_to(&self.batches[first]) {
            first -= 1;
        }
        self.batches.range(first..last)
    }
}

impl CachedBatch {
    fn is_possible(&self) -> bool {
        self.offset_delta >= 0
            && self.last_sequence >= NO_SEQUENCE
            && self.last_offset.0 >= i64::from(self.offset_delta)
    }

    /// Whether `next`, which is possible, may be the batch that its producer wrote behind this one.
    fn leads_to(&self, next: &Self) -> bool {
        self.is_possible()
            && self.last_sequence != NO_SEQUENCE
            && next.last_sequence != NO_SEQUENCE
            && next.first_sequence() == sequence_plus(self.last_sequence, 1)
            && self.last_offset.0 < next.last_offset.0 - i64::from(next.offset_delta)
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

    /// One earlier batch.
    fn batch(&mut self) -> Option<CachedBatch> {
        Some(CachedBatch {
            last_sequence: i32::from_be_bytes(self.take()?),
            last_offset: Offset(i64::from_be_bytes(self.take()?)),
            offset_delta: i32::from_be_bytes(self.take()?),
            timestamp: Timestamp(i64::from_be_bytes(self.take()?)),
        })
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
