//! The Fetch response as byte slices, so that records go from the log to the socket uncopied.
//!
//! Separate because kafka-protocol can only copy records into one buffer. Everything but the
//! records is written by its own encoders where they can be had, field by field otherwise; a test
//! holds the result against its encoder for every version.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData, SnapshotId,
};
use kafka_protocol::protocol::Encodable;

use crate::client::patch_length;

/// Records shorter than this are copied: a slice of their own costs more (an iovec, a count) than
/// moving a few cache lines.
const COPIED_BELOW: usize = 512;

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;

/// Appends the frame whose first bytes `head` already has to `parts`; returns its length in bytes.
/// `records` has the slices of each partition in turn; where it ends, those of the response count.
pub(crate) fn encode(
    response: &FetchResponse,
    records: Vec<Vec<Bytes>>,
    version: i16,
    head: BytesMut,
    parts: &mut Vec<Bytes>,
) -> Result<usize, String> {
    let records = records.into_iter();
    let mut frame = Frame { version, first: None, buffer: head, done: Vec::new(), records };
    frame.response(response)?;
    let Frame { first, mut buffer, mut done, .. } = frame;
    let rest = done.iter().map(Bytes::len).sum::<usize>();
    let bytes = match first {
        None => {
            patch_length(&mut buffer, 0)?;
            buffer.len()
        }
        Some(mut first) => {
            patch_length(&mut first, rest + buffer.len())?;
            let bytes = first.len() + rest + buffer.len();
            parts.push(first.freeze());
            bytes
        }
    };
    done.push(buffer.freeze());
    parts.append(&mut done);
    Ok(bytes)
}

struct Frame {
    version: i16,
    /// What stands before the first records, if any did: the frame's length is patched into it.
    first: Option<BytesMut>,
    /// What has been written since the last records.
    buffer: BytesMut,
    /// Everything between.
    done: Vec<Bytes>,
    /// The slices of the partitions to come.
    records: std::vec::IntoIter<Vec<Bytes>>,
}

impl Frame {
    fn response(&mut self, response: &FetchResponse) -> Result<(), String> {
        self.buffer.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.buffer.put_i16(response.error_code);
            self.buffer.put_i32(response.session_id);
        } else if response.session_id != 0 {
            return Err("session_id is set, which this version does not have".to_owned());
        }
        self.count(response.responses.len())?;
        for topic in &response.responses {
            self.topic(topic)?;
        }
        let mut tags = Tags::default();
        if self.version >= 16 && !response.node_endpoints.is_empty() {
            let field = tags.field(0);
            put_varint(field, length_plus_one(response.node_endpoints.len())?);
            for endpoint in &response.node_endpoints {
                put(endpoint, field, self.version)?;
            }
        }
        self.tags(&tags)
    }

    fn topic(&mut self, topic: &FetchableTopicResponse) -> Result<(), String> {
        match self.version {
            ..FLEXIBLE => {
                let length = i16::try_from(topic.topic.len()).map_err(|_| TOO_LONG)?;
                self.buffer.put_i16(length);
                self.buffer.put_slice(topic.topic.as_bytes());
            }
            FLEXIBLE => {
                put_varint(&mut self.buffer, length_plus_one(topic.topic.len())?);
                self.buffer.put_slice(topic.topic.as_bytes());
            }
            _ => self.buffer.put_slice(topic.topic_id.as_bytes()),
        }
        self.count(topic.partitions.len())?;
        for partition in &topic.partitions {
            self.partition(partition)?;
        }
        self.tags(&Tags::default())
    }

    fn partition(&mut self, partition: &PartitionData) -> Result<(), String> {
        self.buffer.put_i32(partition.partition_index);
        self.buffer.put_i16(partition.error_code);
        self.buffer.put_i64(partition.high_watermark);
        self.buffer.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.buffer.put_i64(partition.log_start_offset);
        }
        match &partition.aborted_transactions {
            Some(aborted) => {
                self.count(aborted.len())?;
                for transaction in aborted {
                    put(transaction, &mut self.buffer, self.version)?;
                }
            }
            None if self.version >= FLEXIBLE => self.buffer.put_u8(0),
            None => self.buffer.put_i32(-1),
        }
        if self.version >= 11 {
            self.buffer.put_i32(partition.preferred_read_replica.0);
        } else if partition.preferred_read_replica.0 != -1 {
            return Err("preferred_read_replica is set before version 11".to_owned());
        }
        match (self.records.next(), &partition.records) {
            (Some(slices), _) => self.records(Some(slices))?,
            (None, records) => self.records(records.clone().map(|records| vec![records]))?,
        }
        let mut tags = Tags::default();
        if self.version >= FLEXIBLE {
            if partition.diverging_epoch != EpochEndOffset::default() {
                put(&partition.diverging_epoch, tags.field(0), self.version)?;
            }
            if partition.current_leader != LeaderIdAndEpoch::default() {
                put(&partition.current_leader, tags.field(1), self.version)?;
            }
            if partition.snapshot_id != SnapshotId::default() {
                put(&partition.snapshot_id, tags.field(2), self.version)?;
            }
        }
        self.tags(&tags)
    }

    fn records(&mut self, records: Option<Vec<Bytes>>) -> Result<(), String> {
        let flexible = self.version >= FLEXIBLE;
        let Some(slices) = records else {
            if flexible {
                self.buffer.put_u8(0);
            } else {
                self.buffer.put_i32(-1);
            }
            return Ok(());
        };
        let len = slices.iter().map(Bytes::len).sum();
        if flexible {
            put_varint(&mut self.buffer, length_plus_one(len)?);
        } else {
            self.buffer.put_i32(i32::try_from(len).map_err(|_| TOO_LONG)?);
        }
        for slice in slices {
            if slice.len() < COPIED_BELOW {
                self.buffer.put_slice(&slice);
                continue;
            }
            let before = self.buffer.split();
            match self.first {
                None => self.first = Some(before),
                Some(_) => self.done.extend((!before.is_empty()).then(|| before.freeze())),
            }
            self.done.push(slice);
        }
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), String> {
        if self.version >= FLEXIBLE {
            put_varint(&mut self.buffer, length_plus_one(count)?);
        } else {
            self.buffer.put_i32(i32::try_from(count).map_err(|_| TOO_LONG)?);
        }
        Ok(())
    }

    fn tags(&mut self, tags: &Tags) -> Result<(), String> {
        if self.version < FLEXIBLE {
            return Ok(()); // The fields are ignorable: older versions go without.
        }
        put_varint(&mut self.buffer, tags.fields.len() as u32);
        for (tag, field) in &tags.fields {
            put_varint(&mut self.buffer, *tag);
            put_varint(&mut self.buffer, u32::try_from(field.len()).map_err(|_| TOO_LONG)?);
            self.buffer.put_slice(field);
        }
        Ok(())
    }
}

/// Tagged fields, each encoded aside because its length stands before it. Rare: an error, a leader
/// that moved.
#[derive(Default)]
struct Tags {
    fields: Vec<(u32, BytesMut)>,
}

impl Tags {
    fn field(&mut self, tag: u32) -> &mut BytesMut {
        self.fields.push((tag, BytesMut::new()));
        &mut self.fields.last_mut().expect("just pushed").1
    }
}

fn put(value: &impl Encodable, buffer: &mut BytesMut, version: i16) -> Result<(), String> {
    value.encode(buffer, version).map_err(|error| format!("{error:#}"))
}

fn put_varint(buffer: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

fn length_plus_one(length: usize) -> Result<u32, String> {
    u32::try_from(length + 1).map_err(|_| TOO_LONG.to_owned())
}

const TOO_LONG: &str = "more bytes or elements than a length can say";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::BrokerId;
    use crate::messages::fetch_response::{AbortedTransaction, NodeEndpoint};
    use crate::{Api, ReplyTo, topic_name};
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn every_version_is_as_kafka_protocol_writes_it() {
        let row = Api::Fetch.row();
        for version in row.lowest..=row.highest {
            for response in samples(version) {
                let mut parts = Vec::new();
                let reply = ReplyTo { api: Api::Fetch, version, correlation_id: 5 };
                let bytes = reply.encode(&response.clone().into(), &mut parts).unwrap();
                let ours = parts.concat();
                assert_eq!(ours.len(), bytes);
                assert_eq!(ours[..4], i32::to_be_bytes(bytes as i32 - 4));
                let mut theirs = BytesMut::new();
                theirs.put_i32(5);
                if version >= FLEXIBLE {
                    theirs.put_u8(0);
                }
                response.encode(&mut theirs, version).unwrap();
                assert_eq!(ours[4..], theirs, "version {version}");
            }
        }
    }

    #[test]
    fn long_records_are_not_copied() {
        let records = Bytes::from(vec![1u8; 100_000]);
        let response = response(vec![partition(&records), partition(&records)]);
        let mut parts = Vec::new();
        let reply = ReplyTo { api: Api::Fetch, version: 12, correlation_id: 5 };
        reply.encode(&response.into(), &mut parts).unwrap();
        let shared = parts.iter().filter(|part| part.as_ptr() == records.as_ptr());
        assert_eq!(shared.count(), 3);
        assert_eq!(parts.len(), 7, "a part before, between and after each of three records");
    }

    #[test]
    fn slices_of_the_log_are_sent_as_they_are() {
        let whole = Bytes::from((0..3000).map(|n| n as u8).collect::<Vec<_>>());
        let slices = vec![whole.slice(..1000), whole.slice(1000..1100), whole.slice(1100..)];
        let reply = ReplyTo { api: Api::Fetch, version: 17, correlation_id: 5 };
        let (mut parts, mut joined) = (Vec::new(), Vec::new());
        let empty = response(vec![partition(&Bytes::new()), partition(&Bytes::new())]);
        let records = vec![slices.clone(), Vec::new(), slices];
        reply.encode_fetch(&empty.into(), records, &mut parts).unwrap();
        let mut full = response(vec![partition(&whole), partition(&Bytes::new())]);
        full.responses[1].partitions[0].records = Some(whole.clone());
        reply.encode(&full.into(), &mut joined).unwrap();
        assert_eq!(parts.concat(), joined.concat());
        assert!(parts.iter().any(|part| part.as_ptr() == whole.as_ptr()), "not copied");
    }

    fn samples(version: i16) -> Vec<FetchResponse> {
        let mut whole = partition(&Bytes::from(vec![9; COPIED_BELOW]));
        whole.diverging_epoch.epoch = 3;
        whole.current_leader.leader_id = BrokerId(4);
        whole.snapshot_id.end_offset = 9;
        whole.log_start_offset = 2;
        whole.preferred_read_replica = BrokerId(if version >= 11 { 7 } else { -1 });
        let mut aborted = AbortedTransaction::default();
        aborted.first_offset = 77;
        whole.aborted_transactions = Some(vec![aborted.clone(), aborted]);
        let mut none = partition(&Bytes::new());
        (none.records, none.aborted_transactions) = (None, None);
        let mut short = partition(&Bytes::from_static(b"abc"));
        short.error_code = 6;
        let mut endpoints = response(vec![whole.clone(), none, short.clone()]);
        if version >= 7 {
            (endpoints.error_code, endpoints.session_id) = (70, 5);
        }
        if version >= 16 {
            let mut endpoint = NodeEndpoint::default();
            endpoint.host = StrBytes::from_static_str("there");
            endpoint.rack = Some(StrBytes::from_static_str("r"));
            endpoints.node_endpoints = vec![endpoint.clone(), endpoint];
        }
        let long = partition(&Bytes::from(vec![1; 70_000]));
        let many = (0..200).map(|_| short.clone()).collect();
        vec![
            FetchResponse::default(),
            endpoints,
            response(vec![long.clone(), long]),
            response(many),
        ]
    }

    fn response(partitions: Vec<PartitionData>) -> FetchResponse {
        let mut topic = FetchableTopicResponse::default();
        topic.topic = topic_name("a.topic");
        topic.topic_id = uuid::Uuid::from_u128(77 << 70);
        topic.partitions = partitions;
        let mut response = FetchResponse::default();
        response.throttle_time_ms = 1;
        response.responses = vec![topic.clone(), topic];
        response.responses[1].partitions.truncate(1);
        response
    }

    fn partition(records: &Bytes) -> PartitionData {
        let mut partition = PartitionData::default();
        partition.partition_index = 3;
        partition.high_watermark = 1 << 40;
        partition.last_stable_offset = 12;
        partition.records = Some(records.clone());
        partition
    }
}
