//! A group coordinator's log: its records as batches, and back.
//!
//! Separate from `groups.rs` because nothing here knows of requests or of time: records go in, and
//! come out again as Kafka's own coordinator would read them, also from a log that Apache Kafka
//! wrote (compressed batches, transactions).

use crate::partition::Partition;
use crate::reading::whole;
use anyhow::ensure;
use bytes::Bytes;
use flowstone_batch::{
    BatchBuilder, ControlType, Limits, Origin, Record as LogRecord, Rules, batches, check, records,
};
use flowstone_coordinators::{Loading, Record, Refusal, Replayed};
use flowstone_runtime::{wall_clock, yield_now};
use flowstone_store::AppendError;
use flowstone_types::{Offset, ProducerId, Timestamp};
use std::collections::{BTreeMap, HashMap};
use tracing::{debug, warn};

/// Bytes that loading reads at a time: a few milliseconds of work, between which others have theirs.
const LOAD_BYTES: usize = 1 << 20;

/// Most that a record takes beside its key and value: attributes, and six numbers of up to ten bytes.
const RECORD_OVERHEAD_MAX: usize = 64;

/// Why records are not in the log.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAppended {
    /// None of them is: the core may take back what it decided.
    Refused(Refusal),
    /// The log takes no more, and may have some of them.
    LogFailed,
}

/// Appends records in their order, as one batch or, where they are too many for one, several; the
/// end of what must be committed.
pub fn append(
    partition: &Partition,
    records: &[Record],
    rules: &Rules,
) -> Result<Offset, NotAppended> {
    let now = wall_clock();
    // All are checked before the first is appended: a refusal must leave nothing behind.
    let checked: Result<Vec<_>, _> = split(records, rules.max_message_bytes, now)
        .map(|batch| check(batch, rules, now))
        .collect();
    let checked = checked.map_err(|rejected| {
        // Of size, or else by a config that admits no record: trying again does not help.
        debug!(partition = partition.id.index, "records of groups were refused: {rejected}");
        NotAppended::Refused(Refusal::TooLarge)
    })?;
    let mut end = None;
    for batch in checked {
        match partition.append(batch, Origin::Coordinator) {
            Ok(appended) => end = Some(appended.last_offset.plus(1)),
            Err(AppendError::DiskFull) if end.is_none() => {
                return Err(NotAppended::Refused(Refusal::Unavailable));
            }
            Err(_) => return Err(NotAppended::LogFailed),
        }
    }
    Ok(end.expect("a write has records"))
}

/// The records as batches of up to `bytes_max`; one that is larger alone has a batch of its own.
fn split(records: &[Record], bytes_max: usize, now: Timestamp) -> impl Iterator<Item = Bytes> {
    let mut rest = records.iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut builder = BatchBuilder::new(Offset::ZERO);
        while let Some(record) = rest.next_if(|record| {
            let value_len = record.value.as_ref().map_or(0, Bytes::len);
            let bytes = record.key.len() + value_len + RECORD_OVERHEAD_MAX;
            builder.is_empty() || builder.len() + bytes <= bytes_max
        }) {
            builder.push(now, Some(&record.key), record.value.as_deref(), &[]);
        }
        Some(builder.build())
    })
}

/// Reads the whole partition.
pub async fn replay(partition: &Partition) -> anyhow::Result<Loading> {
    let mut replay = Replay::default();
    let log = &partition.log;
    let end = log.durable_end();
    let mut from = log.log_start();
    while from < end {
        let read = log.read(from, end, LOAD_BYTES, true).await?;
        let bytes = whole(read.parts);
        ensure!(!bytes.is_empty(), "nothing at offset {from}, and the end is {end}");
        from = replay.batches(&bytes)?;
        yield_now().await;
    }
    Ok(replay.finish(partition))
}

/// A key's value in a transaction, and where it stands.
type Uncommitted = (Offset, Option<Bytes>);

/// The partition as far as it was read.
#[derive(Default)]
struct Replay {
    loading: Loading,
    /// Of producers whose transaction has not ended yet: what it would change.
    open: HashMap<ProducerId, BTreeMap<Bytes, Uncommitted>>,
    /// Records of aborted transactions.
    aborted: usize,
    /// Records of kinds that this release does not know, by kind.
    unknown: BTreeMap<i16, usize>,
}

impl Replay {
    /// Takes in whole batches; the offset that follows them.
    fn batches(&mut self, bytes: &Bytes) -> anyhow::Result<Offset> {
        let mut end = Offset::ZERO;
        for found in batches(bytes) {
            let (at, header, batch) = found?;
            end = header.last_offset().plus(1);
            for record in records(&bytes.slice(at..at + batch.len()), &Limits::default())? {
                let record = record?;
                if header.attributes.is_control() {
                    self.transaction_ended(header.producer_id, &record)?;
                } else if header.attributes.is_transactional() {
                    let open = self.open.entry(header.producer_id).or_default();
                    // Copied: a slice would keep its batch until the transaction ends.
                    let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
                    if let Some(key) = record.key {
                        open.insert(copy(key), (record.offset, record.value.map(copy)));
                    }
                } else if let Some(key) = record.key {
                    self.record(record.offset, &key, record.value.as_deref())?;
                }
            }
        }
        Ok(end)
    }

    fn record(&mut self, at: Offset, key: &[u8], value: Option<&[u8]>) -> anyhow::Result<()> {
        if value.is_some() {
            // As Kafka has it: what stands later wins, though its transaction ends first.
            for open in self.open.values_mut() {
                if open.get(key).is_some_and(|(offset, _)| *offset < at) {
                    open.remove(key);
                }
            }
        }
        if let Replayed::Skipped { kind } = self.loading.replay(key, value)? {
            *self.unknown.entry(kind).or_default() += 1;
        }
        Ok(())
    }

    fn transaction_ended(
        &mut self,
        producer: ProducerId,
        marker: &LogRecord,
    ) -> anyhow::Result<()> {
        let Some(kind) = ControlType::of(marker)? else { return Ok(()) };
        let changes = self.open.remove(&producer).unwrap_or_default();
        if kind == ControlType::Commit {
            for (key, (offset, value)) in changes {
                self.record(offset, &key, value.as_deref())?;
            }
        } else {
            self.aborted += changes.len();
        }
        Ok(())
    }

    fn finish(self, partition: &Partition) -> Loading {
        let (topic, index) = (&*partition.topic, partition.id.index);
        let unfinished: usize = self.open.values().map(BTreeMap::len).sum();
        if self.aborted + unfinished > 0 {
            let aborted = self.aborted;
            warn!(
                topic,
                partition = index,
                aborted,
                unfinished,
                "left out what transactions did not commit"
            );
        }
        if !self.unknown.is_empty() {
            let kinds = &self.unknown;
            warn!(
                topic,
                partition = index,
                ?kinds,
                "left out records of kinds unknown here, by kind"
            );
        }
        self.loading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_batch::{Codec, EndTxnMarker};
    use flowstone_coordinators::{
        Answer, Config, Effect, Groups, Input, Now, OffsetFetch, Request, RequestId,
    };
    use flowstone_types::Instant;

    const NOW: Timestamp = Timestamp(1_000);

    /// An OffsetCommit record of group "g" for "t"-`partition`, as Kafka writes it (key version 1,
    /// value version 3).
    fn offset(partition: i32, offset: i64) -> Record {
        let mut key = vec![0, 1, 0, 1, b'g', 0, 1, b't'];
        key.extend(partition.to_be_bytes());
        let mut value = vec![0, 3];
        value.extend(offset.to_be_bytes());
        value.extend((-1_i32).to_be_bytes());
        value.extend([0, 0]);
        value.extend(5_i64.to_be_bytes());
        Record { key: key.into(), value: Some(value.into()) }
    }

    /// What a log's batches come to: offsets by partition of "t".
    fn loaded(log: impl IntoIterator<Item = Bytes>) -> Vec<(i32, i64)> {
        let mut replay = Replay::default();
        for batch in log {
            replay.batches(&batch).unwrap();
        }
        let now = Now { clock: Instant::default(), wall: NOW };
        let mut effects = Vec::new();
        let mut groups: Groups = replay.loading.finish(Config::default(), now, &mut effects);
        let request =
            Request::Fetch(OffsetFetch { group: "g".into(), topics: None, require_stable: false });
        groups.handle(now, Input::Request { id: RequestId(0), request }, &mut effects);
        let Some(Effect::Answer { answer: Answer::Fetch(Ok(topics)), .. }) = effects.pop() else {
            panic!("no answer in {effects:?}");
        };
        let found = topics.iter().flat_map(|topic| &topic.partitions);
        found.map(|found| (found.partition, found.offset)).collect()
    }

    fn plain(at: i64, record: &Record) -> Bytes {
        let mut builder = BatchBuilder::new(Offset(at));
        builder.push(NOW, Some(&record.key), record.value.as_deref(), &[]);
        builder.build()
    }

    fn in_transaction(at: i64, producer: i64, record: &Record) -> Bytes {
        let builder = BatchBuilder::new(Offset(at));
        let mut builder = builder.producer(ProducerId(producer), 0, 0).transactional();
        builder.push(NOW, Some(&record.key), record.value.as_deref(), &[]);
        builder.build()
    }

    fn marker(at: i64, producer: i64, kind: ControlType) -> Bytes {
        let builder = BatchBuilder::new(Offset(at));
        let mut builder = builder.producer(ProducerId(producer), 0, -1).transactional();
        builder.push_control(NOW, kind, &EndTxnMarker { coordinator_epoch: 0 }.value());
        builder.build()
    }

    #[test]
    fn offsets_of_transactions_count_once_they_are_committed() {
        use ControlType::{Abort, Commit};
        let log = [
            plain(0, &offset(0, 10)),
            in_transaction(1, 7, &offset(0, 20)),
            in_transaction(2, 8, &offset(1, 30)),
            in_transaction(3, 9, &offset(2, 40)),
            marker(4, 7, Commit),
            marker(5, 8, Abort),
            // Producer 9's transaction has no end.
        ];
        assert_eq!(loaded(log), [(0, 20)]);
    }

    /// "We always keep the most recent committed offset when we have a mix of transactional and
    /// regular offset commits" (Kafka's `OffsetMetadataManager.replayEndTransactionMarker`).
    #[test]
    fn a_later_commit_is_not_undone_by_a_transaction_that_ends_late() {
        let log = [
            in_transaction(0, 7, &offset(0, 20)),
            plain(1, &offset(0, 21)),
            marker(2, 7, ControlType::Commit),
        ];
        assert_eq!(loaded(log), [(0, 21)]);
    }

    #[test]
    fn compressed_batches_are_read() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
            for record in [offset(0, 1), offset(1, 2), offset(0, 3)] {
                builder.push(NOW, Some(&record.key), record.value.as_deref(), &[]);
            }
            assert_eq!(loaded([builder.build()]), [(0, 3), (1, 2)], "{codec:?}");
        }
    }

    #[test]
    fn records_are_split_where_a_batch_would_be_too_large() {
        let records: Vec<Record> = (0..100).map(|index| offset(index, 1)).collect();
        let batches: Vec<Bytes> = split(&records, 1_000, NOW).collect();
        assert!(batches.len() > 1);
        assert!(batches.iter().all(|batch| batch.len() <= 1_000));
        let want: Vec<_> = (0..100).map(|index| (index, 1)).collect();
        assert_eq!(loaded(batches), want, "all of them, in order");
        // One that fits no batch has its own, and is refused for its size.
        assert_eq!(split(&records[..3], 10, NOW).count(), 3);
    }
}
