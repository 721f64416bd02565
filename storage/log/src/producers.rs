//! What a partition remembers of its idempotent producers, so that a retry is stored once (KIP-98).
//!
//! Separate because appends, recovery and DescribeProducers all ask it. Pure: time arrives as a
//! value. Invariant: the state is a function of the batches applied, in log order; a batch that
//! `check` lets pass is applied before the next is checked. Rules as Kafka's ProducerAppendInfo.
//!
//! Not here yet: transactions. The fields that Kafka's snapshot keeps for them are carried along
//! from logs that Kafka wrote, but a transactional append is refused.

mod snapshot;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use flowstone_batch::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, Origin, sequence_plus};
use flowstone_types::{Offset, ProducerId, Timestamp};
use thiserror::Error;

pub use snapshot::SnapshotError;

/// Batches remembered of each producer: a client has at most this many in flight
/// (`max.in.flight.requests.per.connection` <= 5 with idempotence).
pub const CACHED_BATCHES: usize = 5;

/// Producers remembered per partition; at about 300 bytes each, 3 MiB. Kafka knows no limit but
/// `producer.id.expiration.ms`, so that a client that takes a new id for each batch fills the heap.
/// Above it, those silent the longest are forgotten, as if they had expired.
pub const PRODUCERS_MAX: usize = 10_000;

/// How many are forgotten at once, so that the search for the oldest is paid once for many.
const FORGOTTEN_AT_ONCE: usize = PRODUCERS_MAX / 16;

/// All producers of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerState {
    producers: BTreeMap<i64, Producer>,
    loaded_at: Offset, // Of the snapshot this began with: what was before it is not known.
}

/// One producer's last batches, in log order.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Producer {
    epoch: i16,
    /// Greatest timestamp of the last batch, for the snapshot and DescribeProducers.
    last_timestamp: Timestamp,
    /// When we last appended for it. Kafka expires by `last_timestamp`, which forgets a producer
    /// of old records while it writes.
    last_seen: Timestamp,
    batches: VecDeque<CachedBatch>, // At most CACHED_BATCHES, all of `epoch`.
    coordinator_epoch: i32,
    transaction: Option<Offset>, // First offset of the open one.
    last_marker: Option<Offset>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CachedBatch {
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32, // Last offset less first, and so for sequences.
    timestamp: Timestamp,
}

impl CachedBatch {
    fn first_sequence(&self) -> i32 {
        sequence_plus(self.last_sequence, self.offset_delta.wrapping_neg())
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Append it, then tell [`ProducerState::apply`].
    Append,
    /// It is in the log already: answer with these, without an error.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// Its greatest timestamp, which on a LogAppendTime topic is when it was appended.
        timestamp: Timestamp,
    },
}

/// Why a producer may not append a batch. Each variant names Kafka's error code.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProducerError {
    /// INVALID_PRODUCER_EPOCH: a newer instance of this producer has written.
    #[error("producer {producer} has epoch {epoch}, epoch {current} has written already")]
    Fenced {
        /// The producer id.
        producer: i64,
        /// The batch's epoch.
        epoch: i16,
        /// The newest that wrote.
        current: i16,
    },
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: batches before this one are missing, or it is an old one that
    /// is not remembered any more.
    #[error("producer {producer} sends sequence {sequence}, its next is {expected}")]
    OutOfOrder {
        /// The producer id.
        producer: i64,
        /// The batch's base sequence.
        sequence: i32,
        /// What it should be.
        expected: i32,
    },
    /// INVALID_TXN_STATE: the batch is part of no transaction that this partition knows.
    #[error("producer {producer} has no transaction open on this partition")]
    NoTransaction {
        /// The producer id.
        producer: i64,
    },
}

/// One row of DescribeProducers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveProducer {
    /// Its id.
    pub id: ProducerId,
    /// Its newest epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 if none is remembered.
    pub last_sequence: i32,
    /// Greatest timestamp of its last batch.
    pub last_timestamp: Timestamp,
    /// Epoch of the coordinator that last ended a transaction of it; -1 if none has.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<Offset>,
}

impl ProducerState {
    /// Knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a batch may be appended to the log, which ends at `end`. `header` is that of a batch
    /// which `flowstone_batch::check` let pass; its base offset is not looked at.
    pub fn check(
        &self,
        header: &BatchHeader,
        origin: Origin,
        end: Offset,
    ) -> Result<Outcome, ProducerError> {
        if !header.has_producer() {
            return Ok(Outcome::Append);
        }
        let id = header.producer_id.0;
        let known = self.producers.get(&id);
        if origin == Origin::Client
            && let Some(batch) = known.and_then(|producer| producer.duplicate_of(header))
        {
            return Ok(Outcome::Duplicate {
                base_offset: batch.last_offset.plus(-i64::from(batch.offset_delta)),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            });
        }
        let epoch = header.producer_epoch;
        let current = known.map_or(NO_PRODUCER_EPOCH, |producer| producer.epoch);
        if epoch < current {
            return Err(ProducerError::Fenced { producer: id, epoch, current });
        }
        if header.attributes.is_transactional() && !header.attributes.is_control() {
            return Err(ProducerError::NoTransaction { producer: id });
        }
        match (origin, known) {
            // A coordinator numbers nothing. A producer that is not known may have been forgotten
            // (expired, or its records deleted): any sequence is its next (KAFKA-7190, KIP-360).
            // But a log that never held a record has nobody forgotten: what does not begin at 0 has
            // overtaken the producer's first batch, which would be refused for ever (KAFKA-15591).
            (Origin::Client, None) if end == Offset::ZERO && header.base_sequence != 0 => {
                let sequence = header.base_sequence;
                Err(ProducerError::OutOfOrder { producer: id, sequence, expected: 0 })
            }
            (Origin::Coordinator, _) | (Origin::Client, None) => Ok(Outcome::Append),
            (Origin::Client, Some(producer)) => {
                let sequence = header.base_sequence;
                let expected = producer.next_sequence(epoch);
                if sequence == expected {
                    Ok(Outcome::Append)
                } else {
                    Err(ProducerError::OutOfOrder { producer: id, sequence, expected })
                }
            }
        }
    }

    /// Notes a data batch that was appended at `base_offset`, or found there at recovery. Control
    /// batches are [`ProducerState::end_transaction`]'s.
    pub fn apply(&mut self, header: &BatchHeader, base_offset: Offset, now: Timestamp) {
        if !header.has_producer() || header.attributes.is_control() {
            return;
        }
        let producer = self.producer(header, now);
        producer.last_timestamp = header.max_timestamp;
        if producer.batches.len() == CACHED_BATCHES {
            producer.batches.pop_front();
        }
        producer.batches.push_back(CachedBatch {
            last_sequence: header.last_sequence(),
            last_offset: base_offset.plus(i64::from(header.last_offset_delta)),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        if header.attributes.is_transactional() && producer.transaction.is_none() {
            producer.transaction = Some(base_offset);
        }
    }

    /// Notes a transaction marker, found at `base_offset` in a log that Kafka wrote.
    pub fn end_transaction(
        &mut self,
        header: &BatchHeader,
        base_offset: Offset,
        coordinator_epoch: i32,
        now: Timestamp,
    ) {
        assert!(header.attributes.is_control(), "markers come in control batches");
        if !header.has_producer() {
            return;
        }
        let producer = self.producer(header, now);
        producer.last_timestamp = header.max_timestamp;
        producer.coordinator_epoch = coordinator_epoch;
        producer.transaction = None;
        producer.last_marker = Some(base_offset);
    }

    /// The producer of a batch, in that batch's epoch.
    fn producer(&mut self, header: &BatchHeader, now: Timestamp) -> &mut Producer {
        let id = header.producer_id.0;
        if self.producers.len() >= PRODUCERS_MAX && !self.producers.contains_key(&id) {
            self.forget_oldest();
        }
        let producer = self.producers.entry(id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            last_timestamp: Timestamp::NONE,
            last_seen: now,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            transaction: None,
            last_marker: None,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear(); // Sequences begin anew.
        }
        producer.last_seen = now;
        producer
    }

    /// Forgets the longest silent, open transactions last.
    fn forget_oldest(&mut self) {
        let mut by_age: Vec<(bool, Timestamp, i64)> = self
            .producers
            .iter()
            .map(|(id, producer)| (producer.transaction.is_some(), producer.last_seen, *id))
            .collect();
        let forgotten = self.producers.len() - PRODUCERS_MAX + FORGOTTEN_AT_ONCE;
        by_age.select_nth_unstable(forgotten);
        for (_, _, id) in &by_age[..forgotten] {
            self.producers.remove(id);
        }
    }

    /// Forgets who has been silent for `producer.id.expiration.ms`; returns how many.
    /// A producer with an open transaction stays.
    pub fn expire(&mut self, now: Timestamp, expiration_ms: i64) -> usize {
        let before = self.producers.len();
        self.producers.retain(|_, producer| {
            producer.transaction.is_some()
                || now.0.saturating_sub(producer.last_seen.0) < expiration_ms
        });
        before - self.producers.len()
    }

    /// Takes back everything at and above `end`. False if that needs what is not remembered any
    /// more: the state is then empty, to be built again from a snapshot at or below `end` and the
    /// batches after it.
    #[must_use]
    pub fn truncate(&mut self, end: Offset) -> bool {
        let known = end >= self.loaded_at
            && self.producers.values_mut().all(|producer| producer.truncate(end));
        if !known {
            *self = Self::new();
        }
        known
    }

    /// Everybody remembered, by id.
    pub fn active(&self) -> impl Iterator<Item = ActiveProducer> {
        self.producers.iter().map(|(id, producer)| ActiveProducer {
            id: ProducerId(*id),
            epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.transaction,
        })
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}

impl Producer {
    fn duplicate_of(&self, header: &BatchHeader) -> Option<&CachedBatch> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let range = (header.base_sequence, header.last_sequence());
        self.batches.iter().find(|batch| (batch.first_sequence(), batch.last_sequence) == range)
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// 0 in a new epoch (KIP-360), and after the last one of 2^31.
    fn next_sequence(&self, epoch: i16) -> i32 {
        match self.last_sequence() {
            _ if epoch != self.epoch => 0,
            NO_SEQUENCE => 0,
            last => sequence_plus(last, 1),
        }
    }

    /// False if this needs what was before the batches remembered.
    fn truncate(&mut self, end: Offset) -> bool {
        let before = self.batches.len();
        self.batches.retain(|batch| batch.last_offset < end);
        let untouched = self.batches.len() == before;
        if self.last_marker.is_some_and(|marker| marker >= end) {
            return false; // It ended a transaction which is open again, and may have set the epoch.
        }
        if self.transaction.is_some_and(|first| first >= end) {
            self.transaction = None;
        }
        match self.batches.back() {
            _ if untouched => true,
            None => false,
            Some(last) => {
                self.last_timestamp = last.timestamp;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests;
