//! The pure part of a produce request's way, and inputs for it: one definition for the clock (benches/hot.rs) and for the
//! instruction count (main.rs), so that both speak of the same code.

use std::sync::Arc;

use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Origin, Rules, check};
use flowstone_log::{Appended, Log, LogConfig, Opened};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use flowstone_wire::messages::{ProduceRequest, ProduceResponse};
use flowstone_wire::{RequestBody, Uuid, client, decode};

/// When everything here happens.
pub const NOW: Timestamp = Timestamp(1_795_000_000_000);
/// The version that Kafka 4.3's own clients send: topics by id.
const VERSION: i16 = 13;

/// A batch of `count` records with values of `value_bytes`.
pub fn batch(count: i32, value_bytes: usize) -> Bytes {
    let value: Vec<u8> = (0..value_bytes).map(|at| b'a' + (at % 23) as u8).collect();
    let mut builder = BatchBuilder::new(Offset::ZERO);
    for at in 0..count {
        builder.push(Timestamp(NOW.0 + i64::from(at)), None, Some(&value), &[]);
    }
    builder.build()
}

/// A produce of one batch, as it comes off the socket, without its length prefix.
pub fn produce_frame(batch: &Bytes) -> Bytes {
    let mut data = PartitionProduceData::default();
    data.index = 3;
    data.records = Some(batch.clone());
    let mut topic = TopicProduceData::default();
    topic.topic_id = Uuid::from_u128(7);
    topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 30_000;
    request.topic_data = vec![topic];
    let frame = client::encode(&request, VERSION, 1, Some("micro")).expect("a request of ours");
    frame.slice(4..)
}

/// A log that leads and is empty.
pub fn log() -> Log {
    let mut log = Log::new(Arc::new(LogConfig::default()), 1, Opened::empty(NOW));
    log.lead(LeaderEpoch(0));
    log
}

/// What is computed for one produce request, with no socket and no disk: frame to request, the batch's checks, its place in
/// the log, and the response's bytes. Returns their number.
pub fn produce_path(frame: &Bytes, log: &mut Log, rules: &Rules) -> usize {
    let request = decode(frame.clone()).expect("a frame of ours");
    let reply_to = request.header.reply_to();
    let RequestBody::Produce(body) = request.body else { unreachable!("a produce was built") };
    let mut response = ProduceResponse::default();
    for topic in body.topic_data {
        let mut answer = TopicProduceResponse::default();
        answer.topic_id = topic.topic_id;
        for data in topic.partition_data {
            let checked =
                check(data.records.unwrap_or_default(), rules, NOW).expect("a sound batch");
            let appended = log.append(&checked.header, Origin::Client, LeaderEpoch(0), NOW);
            let Ok(Appended::Placed(placed)) = appended else { unreachable!("it is no duplicate") };
            let mut partition = PartitionProduceResponse::default();
            partition.index = data.index;
            partition.base_offset = placed.base_offset.0;
            partition.log_start_offset = 0;
            answer.partition_responses.push(partition);
        }
        response.responses.push(answer);
    }
    let mut parts = Vec::new();
    reply_to.encode(&response.into(), &mut parts).expect("a response of ours")
}
