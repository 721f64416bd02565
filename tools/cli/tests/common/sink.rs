//! A broker that stores nothing: it answers at once, so that what a run costs is the tool's own work.
//!
//! Takes produce requests unread, and gives every fetch the same batch. One thread a connection.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_types::{Offset, Timestamp};
use flowstone_wire::messages::create_topics_response::CreatableTopicResult;
use flowstone_wire::messages::delete_topics_response::DeletableTopicResult;
use flowstone_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use flowstone_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use flowstone_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use flowstone_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use flowstone_wire::messages::{
    BrokerId, CreateTopicsResponse, DeleteTopicsResponse, FetchResponse, ListOffsetsResponse,
    MetadataResponse, ProduceResponse,
};
use flowstone_wire::{
    Api, ReplyTo, RequestBody, ResponseBody, VersionsAnswer, api_versions_response, string,
};

/// Partitions of every topic.
pub const PARTITIONS: i32 = 4;
/// Batches that every partition seems to have.
const BATCHES: i64 = 100;
/// Records of each.
const RECORDS: i64 = 100;
const RECORD_BYTES: usize = 10_000;
/// Who asks for so many waits for them: a broker with nothing new.
pub const SLOW_FETCH_BYTES: i32 = 12_345;
/// Bytes of a frame that are looked at before it is known what it is: key, version, correlation id.
const FIXED: usize = 8;

/// Starts it on a port of its own; it ends with the process.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream, address.port()));
        }
    });
    address
}

fn serve(mut stream: TcpStream, port: u16) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let batch = batch();
    let mut buffer = Vec::new();
    loop {
        let mut start = [0; 4 + FIXED];
        stream.read_exact(&mut start)?;
        let word = |at: usize| [start[at], start[at + 1], start[at + 2], start[at + 3]];
        let length = i32::from_be_bytes(word(0)) as usize;
        buffer.resize(buffer.len().max(length), 0);
        buffer[..FIXED].copy_from_slice(&start[4..]);
        stream.read_exact(&mut buffer[FIXED..length])?;
        let (reply, body) = if start[4..6] == [0, 0] {
            let version = i16::from_be_bytes([start[6], start[7]]);
            let correlation_id = i32::from_be_bytes(word(8));
            if acks(&buffer, version) == 0 {
                continue;
            }
            (ReplyTo { api: Api::Produce, version, correlation_id }, produced())
        } else {
            let request = flowstone_wire::decode(Bytes::copy_from_slice(&buffer[..length]));
            let request = request.map_err(io::Error::other)?;
            let body = answer(&request.header, &request.body, port, &batch);
            (request.header.reply_to(), body)
        };
        let mut parts = Vec::new();
        reply.encode(&body, &mut parts).map_err(io::Error::other)?;
        send(&mut stream, &parts)?;
    }
}

/// The acks of a produce request: behind client id, tags and transactional id (null).
fn acks(request: &[u8], version: i16) -> i16 {
    let client_id = i16::from_be_bytes([request[FIXED], request[FIXED + 1]]);
    let at = FIXED + 2 + client_id.max(0) as usize + 2; // Flexible: a byte of tags, a byte of null.
    assert!(version >= 9, "the tool takes the newest");
    i16::from_be_bytes([request[at], request[at + 1]])
}

fn send(stream: &mut TcpStream, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        let written = stream.write_vectored(slices)?;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

fn produced() -> ResponseBody {
    let topic = TopicProduceResponse::default()
        .with_partition_responses(vec![PartitionProduceResponse::default()]);
    ProduceResponse::default().with_responses(vec![topic]).into()
}

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    for _ in 0..RECORDS {
        batch.push(Timestamp(1), None, Some(&[b'x'; RECORD_BYTES]), &[]);
    }
    batch.build()
}

fn answer(
    header: &flowstone_wire::RequestHeader,
    body: &RequestBody,
    port: u16,
    batch: &Bytes,
) -> ResponseBody {
    match body {
        RequestBody::ApiVersions(request) => {
            let answer = VersionsAnswer {
                on_controller_listener: false,
                supported: &[],
                finalized: &[],
                finalized_epoch: -1,
                throttle_time_ms: 0,
            };
            api_versions_response(header, request, &answer).into()
        }
        RequestBody::Metadata(request) => {
            let partition = |index| {
                MetadataResponsePartition::default()
                    .with_partition_index(index)
                    .with_leader_id(BrokerId(1))
            };
            let topics = request.topics.iter().flatten().map(|topic| {
                MetadataResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions((0..PARTITIONS).map(partition).collect())
            });
            let broker = MetadataResponseBroker::default()
                .with_node_id(BrokerId(1))
                .with_host(string("127.0.0.1"))
                .with_port(port.into());
            MetadataResponse::default()
                .with_brokers(vec![broker])
                .with_topics(topics.collect())
                .into()
        }
        RequestBody::CreateTopics(request) => {
            let topic = |name| CreatableTopicResult::default().with_name(name);
            let topics = request.topics.iter().map(|asked| topic(asked.name.clone()));
            CreateTopicsResponse::default().with_topics(topics.collect()).into()
        }
        RequestBody::DeleteTopics(_) => DeleteTopicsResponse::default()
            .with_responses(vec![DeletableTopicResult::default()])
            .into(),
        RequestBody::ListOffsets(request) => {
            let topics = request.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|asked| {
                    let end = if asked.timestamp == -1 { BATCHES * RECORDS } else { 0 };
                    ListOffsetsPartitionResponse::default()
                        .with_partition_index(asked.partition_index)
                        .with_offset(end)
                });
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            ListOffsetsResponse::default().with_topics(topics.collect()).into()
        }
        RequestBody::Fetch(request) => {
            let asked = &request.topics[0];
            let partition = &asked.partitions[0];
            if partition.partition_max_bytes == SLOW_FETCH_BYTES {
                thread::sleep(Duration::from_millis(50));
            }
            let mut batch = batch.to_vec();
            batch[..8].copy_from_slice(&partition.fetch_offset.to_be_bytes()); // Its base offset.
            let partition = PartitionData::default()
                .with_partition_index(partition.partition)
                .with_high_watermark(BATCHES * RECORDS)
                .with_records(Some(batch.into()));
            let topic = FetchableTopicResponse::default()
                .with_topic(asked.topic.clone())
                .with_topic_id(asked.topic_id)
                .with_partitions(vec![partition]);
            FetchResponse::default().with_responses(vec![topic]).into()
        }
        other => panic!("the tool asked for {:?}", other.api()),
    }
}
