//! Builds batches: the coordinators', the metadata log's, the tools', and tests'.

use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::{LeaderEpoch, Offset, ProducerId, Timestamp};

use crate::compress::deflate;
use crate::control::ControlType;
use crate::header::{
    Attributes, BatchHeader, Codec, HEADER_LEN, LOG_OVERHEAD, MAGIC, NO_PRODUCER_EPOCH,
    NO_SEQUENCE, TimestampType, seal,
};
use crate::varint::{put_varint, put_varlong, varint_len, varlong_len};

/// A batch that grows record by record. Either data or control records, never both.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    level: Option<i32>,
    append_time: Option<Timestamp>,
    bytes: Vec<u8>, // Room for the header, then the uncompressed records.
}

impl BatchBuilder {
    /// An empty batch at `base_offset` (0 in a produce request): uncompressed, create time, of no
    /// producer and no leader epoch.
    pub fn new(base_offset: Offset) -> Self {
        let header = BatchHeader {
            base_offset,
            length: 0,
            leader_epoch: LeaderEpoch::NONE,
            magic: MAGIC,
            crc: 0,
            attributes: Attributes::default(),
            last_offset_delta: -1,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            count: 0,
        };
        Self { header, level: None, append_time: None, bytes: vec![0; HEADER_LEN] }
    }

    /// Compresses the records; `level` by the codec's own scale, `None` for its default.
    #[must_use]
    pub fn compressed(mut self, codec: Codec, level: Option<i32>) -> Self {
        self.header.attributes = self.header.attributes.with_codec(codec);
        self.level = level;
        self
    }

    /// Stamps the epoch of the leader that writes this batch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.header.leader_epoch = epoch;
        self
    }

    /// Makes it an idempotent producer's batch.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes it part of the producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes = self.header.attributes.transactional();
        self
    }

    /// Gives all records the time of their append (`message.timestamp.type=LogAppendTime`).
    #[must_use]
    pub fn append_time(mut self, now: Timestamp) -> Self {
        self.header.attributes =
            self.header.attributes.with_timestamp_type(TimestampType::LogAppendTime);
        self.append_time = Some(now);
        self
    }

    /// Appends a record. `key` and `value` of `None` are Kafka's nulls.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        assert!(!self.header.attributes.is_control(), "a control batch holds control records");
        self.push_record(timestamp, key, value, headers);
    }

    /// Appends a control record, which makes this a control batch.
    pub fn push_control(&mut self, timestamp: Timestamp, control: ControlType, value: &[u8]) {
        let attributes = &mut self.header.attributes;
        assert!(attributes.is_control() || self.header.count == 0, "a data batch holds data");
        *attributes = attributes.control();
        self.push_record(timestamp, Some(&control.key()), Some(value), &[]);
    }

    fn push_record(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let header = &mut self.header;
        if header.count == 0 {
            header.base_timestamp = timestamp;
        }
        header.max_timestamp = header.max_timestamp.max(timestamp);
        let offset_delta = header.count;
        let timestamp_delta = timestamp.0 - header.base_timestamp.0;
        header.count += 1;
        header.last_offset_delta = offset_delta;

        let headers_len =
            headers.iter().map(|(k, v)| field_len(Some(k.as_bytes())) + field_len(*v));
        let body_len = 1
            + varlong_len(timestamp_delta)
            + varint_len(offset_delta)
            + field_len(key)
            + field_len(value)
            + varint_len(headers.len() as i32)
            + headers_len.sum::<usize>();
        let out = &mut self.bytes;
        put_varint(out, i32::try_from(body_len).expect("a record is below 2 GiB"));
        let start = out.len();
        out.push(0); // Attributes: none are defined.
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_field(out, key);
        put_field(out, value);
        put_varint(out, headers.len() as i32);
        for (key, value) in headers {
            put_field(out, Some(key.as_bytes()));
            put_field(out, *value);
        }
        assert_eq!(out.len() - start, body_len);
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.header.count
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// The whole batch. It has records: there is no use for a new batch without.
    pub fn build(self) -> Bytes {
        assert!(self.header.count > 0, "a batch without records is never written");
        let mut header = self.header;
        if let Some(now) = self.append_time {
            header.max_timestamp = now;
        }
        let codec = header.attributes.codec().expect("set by its name");
        finish(header, codec, self.level, self.bytes)
    }
}

/// Puts `header` with right length and CRC before the records at `bytes[HEADER_LEN..]`, which are
/// compressed with `codec` on the way.
pub(crate) fn finish(
    header: BatchHeader,
    codec: Codec,
    level: Option<i32>,
    bytes: Vec<u8>,
) -> Bytes {
    let mut bytes = bytes;
    if codec != Codec::None {
        let array = deflate(codec, level, &bytes[HEADER_LEN..]);
        bytes.truncate(HEADER_LEN);
        bytes.extend_from_slice(&array);
    }
    let length = i32::try_from(bytes.len() - LOG_OVERHEAD).expect("a batch is below 2 GiB");
    let attributes = header.attributes.with_codec(codec);
    bytes[..HEADER_LEN].copy_from_slice(&BatchHeader { length, attributes, ..header }.encode());
    seal(&mut bytes);
    bytes.into()
}

fn field_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varint_len(bytes.len() as i32) + bytes.len())
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
