//! What the tests of batches share.
#![allow(dead_code)] // Each test binary uses its part of it.

use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Codec, Record};
use flowstone_types::{Offset, Timestamp};

/// Where header fields start (Kafka's DefaultRecordBatch).
pub const LENGTH: usize = 8;
pub const MAGIC: usize = 16;
pub const CRC: usize = 17;
pub const ATTRIBUTES: usize = 21;
pub const LAST_OFFSET_DELTA: usize = 23;
pub const BASE_TIMESTAMP: usize = 27;
pub const MAX_TIMESTAMP: usize = 35;
pub const PRODUCER_ID: usize = 43;
pub const PRODUCER_EPOCH: usize = 51;
pub const BASE_SEQUENCE: usize = 53;
pub const COUNT: usize = 57;
pub const RECORDS: usize = 61;

/// Now, for all tests: late in 2026.
pub const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// A record's content, owned.
pub type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

pub fn content(record: &Record) -> Content {
    (
        record.timestamp.0,
        record.key.as_deref().map(<[u8]>::to_vec),
        record.value.as_deref().map(<[u8]>::to_vec),
        record
            .headers
            .iter()
            .map(|(key, value)| {
                (String::from_utf8(key.to_vec()).unwrap(), value.map(<[u8]>::to_vec))
            })
            .collect(),
    )
}

pub fn push(builder: &mut BatchBuilder, (timestamp, key, value, headers): &Content) {
    let headers: Vec<(&str, Option<&[u8]>)> =
        headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    builder.push(Timestamp(*timestamp), key.as_deref(), value.as_deref(), &headers);
}

pub fn push_all(builder: &mut BatchBuilder, records: &[Content]) {
    for record in records {
        push(builder, record);
    }
}

/// A produce request's batch of `count` records with keys, at `NOW`.
pub fn plain(count: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    for index in 0..count {
        let key = format!("key-{index}");
        builder.push(NOW, Some(key.as_bytes()), Some(b"a value"), &[]);
    }
    builder
}

pub fn compressed(count: usize, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
    for index in 0..count {
        let key = format!("key-{index}");
        builder.push(NOW, Some(key.as_bytes()), Some(b"a value"), &[]);
    }
    builder.build()
}

/// Makes length and CRC right again after a change: a liar computes them too.
pub fn seal(mut batch: Vec<u8>) -> Bytes {
    let length = (batch.len() - 12) as i32;
    batch[LENGTH..LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&batch[ATTRIBUTES..]);
    batch[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

/// `batch` with `bytes` written at `at`, and sealed.
pub fn with(batch: &[u8], at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    seal(batch)
}

/// A batch whose record array is `array`, of `count` records by its header.
pub fn of_array(codec: Codec, count: i32, array: &[u8]) -> Bytes {
    let mut batch = plain(1).build()[..RECORDS].to_vec();
    batch[ATTRIBUTES + 1] = codec as u8;
    batch[LAST_OFFSET_DELTA..LAST_OFFSET_DELTA + 4].copy_from_slice(&(count - 1).to_be_bytes());
    batch[COUNT..COUNT + 4].copy_from_slice(&count.to_be_bytes());
    batch.extend_from_slice(array);
    seal(batch)
}
