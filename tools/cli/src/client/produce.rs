//! Appends records to a topic, once each: with acks=all as an idempotent producer (KIP-98), so that a
//! retry after a lost connection does not store a batch twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Codec, sequence_plus};
use flowstone_types::{Offset, ProducerId, Timestamp};
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{self, InitProducerIdRequest, ProduceRequest};
use flowstone_wire::{ErrorCode, topic_name};

use super::{Cluster, Topic, until};
use crate::failure::{Failure, check};

/// First version that names topics by their id.
const TOPIC_IDS_SINCE: i16 = 13;

/// Who must have a batch before it counts as sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Acks {
    /// Nobody: the broker does not even answer.
    #[value(name = "0")]
    None,
    /// The leader.
    #[value(name = "1")]
    Leader,
    /// Every replica in sync.
    #[value(name = "all", alias = "-1")]
    All,
}

impl Acks {
    /// Its number on the wire.
    pub const fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// A record to send.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outgoing {
    /// Its key; `None` is Kafka's null.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Sends to one topic.
pub struct Producer {
    topic: String,
    acks: Acks,
    codec: Codec,
    identity: Option<(ProducerId, i16)>,
    sequences: BTreeMap<i32, i32>,
}

impl Producer {
    /// A producer; with acks=all it takes a producer id, where the broker has any.
    pub fn new(
        cluster: &mut Cluster,
        topic: &str,
        acks: Acks,
        codec: Codec,
    ) -> Result<Self, Failure> {
        let mut identity = None;
        if acks == Acks::All && cluster.any()?.speaks::<InitProducerIdRequest>() {
            let timeout = cluster.timeout;
            identity = Some(until(timeout, || {
                let response = cluster.call_any(|_| {
                    InitProducerIdRequest::default()
                        .with_transactional_id(None)
                        .with_transaction_timeout_ms(i32::MAX)
                })?;
                check(|| "producer id".to_owned(), response.error_code, None)?;
                Ok((ProducerId(response.producer_id.0), response.producer_epoch))
            })?);
        }
        Ok(Self { topic: topic.to_owned(), acks, codec, identity, sequences: BTreeMap::new() })
    }

    /// Sends a batch to each partition and waits until they count as sent. Returns where each began
    /// (-1 with acks=0).
    pub fn send(
        &mut self,
        cluster: &mut Cluster,
        records: &BTreeMap<i32, Vec<Outgoing>>,
    ) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut waiting: BTreeMap<i32, Bytes> = records
            .iter()
            .filter(|(_, records)| !records.is_empty())
            .map(|(partition, records)| (*partition, self.batch(*partition, records)))
            .collect();
        let mut done = BTreeMap::new();
        let timeout = cluster.timeout;
        until(timeout, || {
            let attempt = self.attempt(cluster, &mut waiting, &mut done);
            if attempt.as_ref().is_err_and(Failure::may_pass) {
                cluster.forget(&self.topic);
            }
            attempt
        })?;
        Ok(done)
    }

    /// Sends what is waiting; what was acknowledged goes from there to `done`. The error is that of
    /// the last partition that failed.
    fn attempt(
        &self,
        cluster: &mut Cluster,
        waiting: &mut BTreeMap<i32, Bytes>,
        done: &mut BTreeMap<i32, i64>,
    ) -> Result<(), Failure> {
        let topic = cluster.topic(&self.topic)?;
        let partitions: Vec<i32> = waiting.keys().copied().collect();
        let mut result = Ok(());
        for (leader, indices) in topic.by_leader(&partitions)? {
            let build = |version| self.request(version, &topic, &indices, waiting);
            if self.acks == Acks::None {
                let connection = cluster.node(leader)?;
                let version = connection.version::<ProduceRequest>()?;
                connection.send(&build(version), version)?;
                for index in indices {
                    waiting.remove(&index);
                    done.insert(index, -1);
                }
                continue;
            }
            let response = cluster.call(leader, build)?;
            for partition in response.responses.into_iter().flat_map(|t| t.partition_responses) {
                let index = partition.index;
                // What is already there was sent by us before the connection was lost.
                let duplicate = partition.error_code == ErrorCode::DuplicateSequenceNumber as i16;
                let code = if duplicate { 0 } else { partition.error_code };
                let what = || format!("produce to {}-{index}", self.topic);
                match check(what, code, partition.error_message.as_deref()) {
                    Ok(()) => {
                        waiting.remove(&index);
                        done.insert(index, partition.base_offset);
                    }
                    Err(failure) => result = Err(failure),
                }
            }
        }
        result
    }

    fn batch(&mut self, partition: i32, records: &[Outgoing]) -> Bytes {
        let mut batch = BatchBuilder::new(Offset::ZERO).compressed(self.codec, None);
        if let Some((id, epoch)) = self.identity {
            let sequence = self.sequences.entry(partition).or_insert(0);
            batch = batch.producer(id, epoch, *sequence);
            *sequence = sequence_plus(*sequence, records.len() as i32);
        }
        for record in records {
            let headers: Vec<_> =
                record.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            batch.push(Timestamp(record.timestamp), key, value, &headers);
        }
        batch.build()
    }

    fn request(
        &self,
        version: i16,
        topic: &Topic,
        indices: &[i32],
        batches: &BTreeMap<i32, Bytes>,
    ) -> ProduceRequest {
        let data = indices.iter().map(|index| {
            let records = batches[index].clone();
            PartitionProduceData::default().with_index(*index).with_records(Some(records))
        });
        let data = TopicProduceData::default().with_partition_data(data.collect());
        let data = if version >= TOPIC_IDS_SINCE {
            data.with_topic_id(topic.id)
        } else {
            data.with_name(topic_name(&topic.name))
        };
        ProduceRequest::default()
            .with_transactional_id(None::<messages::TransactionalId>)
            .with_acks(self.acks.number())
            .with_timeout_ms(30_000)
            .with_topic_data(vec![data])
    }
}
