//! What is sent and how an answer is read: produce and fetch.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use flowstone_batch::{BatchBuilder, Codec, batches};
use flowstone_types::{Offset, Timestamp};
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{BrokerId, FetchRequest, ProduceRequest};
use flowstone_wire::{ErrorCode, client, topic_name};

use super::driver::{Answer, Load};
use crate::client::{Acks, CLIENT_ID, Topic};
use crate::failure::{Failure, check};

/// First version of Produce and Fetch that names topics by their id.
const TOPIC_IDS_SINCE: i16 = 13;
/// Where a request's correlation id stands: behind length, key and version.
const CORRELATION_AT: usize = 8;
/// Tagged fields of partition, topic and request, all none, that end a flexible produce request.
const FLEXIBLE_PRODUCE: i16 = 9;
const FLEXIBLE_TAIL: usize = 3;

/// A batch of about `batch_bytes`, of records with values of `record_bytes`. Letters and digits, so that
/// codecs have something to do.
pub fn build_batch(
    batch_bytes: usize,
    record_bytes: usize,
    codec: Codec,
    now_ms: i64,
) -> (Bytes, u64) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64; // Xorshift: the same bytes in every run.
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        LETTERS[(state >> 58) as usize]
    };
    let mut batch = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
    while batch.is_empty() || batch.len() + record_bytes + RECORD_OVERHEAD <= batch_bytes {
        let value: Vec<u8> = (0..record_bytes).map(|_| letter()).collect();
        batch.push(Timestamp(now_ms), None, Some(&value), &[]);
    }
    let count = batch.count() as u64;
    (batch.build(), count)
}

/// Bytes of a record beside its value, at the most.
const RECORD_OVERHEAD: usize = 14;

/// Produces the same batch to partitions in turn.
pub struct ProduceLoad {
    /// Of each partition: everything before the records.
    heads: Vec<Bytes>,
    batch: Bytes,
    tail: Bytes,
    version: i16,
    acks: Acks,
    records: u64,
    turn: usize,
}

impl ProduceLoad {
    /// For `partitions` of `topic`, in the version that the broker speaks.
    pub fn new(
        topic: &Topic,
        partitions: &[i32],
        version: i16,
        acks: Acks,
        (batch, records): (Bytes, u64),
    ) -> Result<Self, Failure> {
        let mut heads = Vec::new();
        let mut tail = Bytes::new();
        for index in partitions {
            let data = PartitionProduceData::default()
                .with_index(*index)
                .with_records(Some(batch.clone()));
            let data = TopicProduceData::default().with_partition_data(vec![data]);
            let data = if version >= TOPIC_IDS_SINCE {
                data.with_topic_id(topic.id)
            } else {
                data.with_name(topic_name(&topic.name))
            };
            let request = ProduceRequest::default()
                .with_transactional_id(None)
                .with_acks(acks.number())
                .with_timeout_ms(30_000)
                .with_topic_data(vec![data]);
            let frame = client::encode(&request, version, 0, Some(CLIENT_ID))
                .map_err(|error| Failure::Usage(error.to_string()))?;
            let tail_at = frame.len() - if version >= FLEXIBLE_PRODUCE { FLEXIBLE_TAIL } else { 0 };
            let batch_at = tail_at - batch.len();
            assert!(frame[batch_at..tail_at] == batch[..], "the records stand before the tail");
            heads.push(Bytes::copy_from_slice(&frame[..batch_at]));
            tail = Bytes::copy_from_slice(&frame[tail_at..]);
        }
        Ok(Self { heads, batch, tail, version, acks, records, turn: 0 })
    }
}

impl Load for ProduceLoad {
    fn is_ready(&self) -> bool {
        true
    }

    fn request(&mut self, correlation: i32, out: &mut VecDeque<Bytes>) {
        let mut head = BytesMut::from(&self.heads[self.turn % self.heads.len()][..]);
        head[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation.to_be_bytes());
        self.turn += 1;
        out.push_back(head.freeze());
        out.push_back(self.batch.clone());
        if !self.tail.is_empty() {
            out.push_back(self.tail.clone());
        }
    }

    fn is_answered(&self) -> bool {
        self.acks != Acks::None
    }

    fn unanswered(&self) -> Answer {
        Answer { records: self.records, bytes: self.batch.len() as u64, empty: false }
    }

    fn answer(&mut self, _: i32, frame: Bytes) -> Result<Answer, Failure> {
        let response = client::decode::<ProduceRequest>(self.version, frame)
            .map_err(|error| Failure::Damaged(error.to_string()))?;
        for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let what = || format!("produce to partition {}", partition.index);
            check(what, partition.error_code, partition.error_message.as_deref())?;
        }
        Ok(self.unanswered())
    }
}

/// Reads partitions in turn, from their start to their end and again.
pub struct FetchLoad {
    topic: Topic,
    version: i16,
    fetch_bytes: i32,
    /// Start and next offset of each partition.
    places: BTreeMap<i32, (i64, i64)>,
    /// Partitions that no request is under way for.
    idle: VecDeque<i32>,
    waiting: BTreeMap<i32, i32>,
}

impl FetchLoad {
    /// For partitions with these start offsets.
    pub fn new(topic: Topic, starts: &BTreeMap<i32, i64>, version: i16, fetch_bytes: i32) -> Self {
        Self {
            topic,
            version,
            fetch_bytes,
            places: starts.iter().map(|(index, start)| (*index, (*start, *start))).collect(),
            idle: starts.keys().copied().collect(),
            waiting: BTreeMap::new(),
        }
    }
}

impl Load for FetchLoad {
    fn is_ready(&self) -> bool {
        !self.idle.is_empty()
    }

    fn request(&mut self, correlation: i32, out: &mut VecDeque<Bytes>) {
        let index = self.idle.pop_front().expect("it is ready");
        let (_, next) = self.places[&index];
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(next)
            .with_partition_max_bytes(self.fetch_bytes);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let topic = if self.version >= TOPIC_IDS_SINCE {
            topic.with_topic_id(self.topic.id)
        } else {
            topic.with_topic(topic_name(&self.topic.name))
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(self.fetch_bytes)
            .with_topics(vec![topic]);
        let request =
            if self.version <= 14 { request.with_replica_id(BrokerId(-1)) } else { request };
        let frame = client::encode(&request, self.version, correlation, Some(CLIENT_ID));
        out.push_back(frame.expect("every field is one of this version"));
        self.waiting.insert(correlation, index);
    }

    fn is_answered(&self) -> bool {
        true
    }

    fn unanswered(&self) -> Answer {
        Answer::default()
    }

    fn answer(&mut self, correlation: i32, frame: Bytes) -> Result<Answer, Failure> {
        let index = self.waiting.remove(&correlation);
        let index = index.ok_or_else(|| Failure::Damaged("an answer to nothing".to_owned()))?;
        self.idle.push_back(index);
        let response = client::decode::<FetchRequest>(self.version, frame)
            .map_err(|error| Failure::Damaged(error.to_string()))?;
        check(|| "fetch".to_owned(), response.error_code, None)?;
        let mut answer = Answer { empty: true, ..Answer::default() };
        let (start, next) = self.places.get_mut(&index).expect("only what was told is asked for");
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            if partition.error_code == ErrorCode::OffsetOutOfRange as i16 {
                *start = partition.log_start_offset.max(0); // Retention went on meanwhile.
                *next = *start;
                continue;
            }
            check(|| format!("fetch of partition {index}"), partition.error_code, None)?;
            let records = partition.records.unwrap_or_default();
            answer.bytes += records.len() as u64;
            for batch in batches(&records) {
                let Ok((_, header, _)) = batch else { break }; // The last one may be cut.
                answer.records += header.count as u64;
                *next = header.last_offset().0 + 1;
            }
            answer.empty &= records.is_empty();
            if *next >= partition.high_watermark {
                *next = *start;
            }
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_wire::{RequestBody, Uuid};

    #[test]
    fn batches_are_as_large_as_they_should_be() {
        for (batch_bytes, record_bytes) in [(16_384, 100), (1 << 20, 1024), (1 << 20, 1 << 20)] {
            let (batch, count) = build_batch(batch_bytes, record_bytes, Codec::None, 1);
            assert!(batch.len() <= batch_bytes.max(record_bytes + 100), "{}", batch.len());
            assert!(count == 1 || batch.len() + record_bytes + 20 > batch_bytes);
            assert!(flowstone_batch::crc_ok(&batch));
        }
        assert_eq!(build_batch(100, 1000, Codec::None, 1).1, 1, "never empty");
    }

    #[test]
    fn what_is_sent_is_a_request() {
        let topic = Topic {
            name: "t".to_owned(),
            id: Uuid::from_u128(7),
            internal: false,
            partitions: vec![],
        };
        for version in 3..=13 {
            let batch = build_batch(1000, 100, Codec::None, 1);
            let mut load =
                ProduceLoad::new(&topic, &[4, 5], version, Acks::All, batch.clone()).unwrap();
            for (correlation, partition) in [(77, 4), (78, 5), (79, 4)] {
                let mut parts = VecDeque::new();
                load.request(correlation, &mut parts);
                let frame = Bytes::from(parts.make_contiguous().concat());
                let request = flowstone_wire::decode(frame.slice(4..)).unwrap();
                assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
                assert_eq!(request.header.correlation_id, correlation);
                let RequestBody::Produce(body) = request.body else { panic!("produce") };
                let data = &body.topic_data[0].partition_data[0];
                assert_eq!((data.index, data.records.as_ref()), (partition, Some(&batch.0)));
            }
        }
    }

    #[test]
    fn one_fetch_a_partition_is_under_way() {
        let topic = Topic {
            name: "t".to_owned(),
            id: Uuid::from_u128(7),
            internal: false,
            partitions: vec![],
        };
        let mut load = FetchLoad::new(topic, &BTreeMap::from([(3, 10)]), 12, 1 << 20);
        let mut parts = VecDeque::new();
        assert!(load.is_ready());
        load.request(1, &mut parts);
        assert!(!load.is_ready());
        assert!(load.answer(2, Bytes::new()).is_err());
    }
}
