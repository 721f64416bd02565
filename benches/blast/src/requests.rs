//! The requests that are sent, and how their replies are read: produce v13 and fetch v13 (topics by id, as Kafka 4.3's own clients
//! send them), Metadata v12, ListOffsets v7, CreateTopics v7, DeleteTopics v6.
//!
//! Pure: bytes in, bytes out. A produce frame is built once and sent as it is, again and again: its correlation id is its own
//! number, and replies come in order, so nothing in it changes from one sending to the next.

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::wire::{Reader, Writer};

pub type TopicId = [u8; 16];

/// Bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;
/// Bytes of a batch that its checksum does not cover: base offset, length, leader epoch, magic, the checksum.
const BATCH_UNSUMMED_BYTES: usize = 21;

fn request(api: i16, version: i16, correlation: i32, body: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::default();
    out.i32(0).i16(api).i16(version).i32(correlation);
    out.i16(5).raw(b"blast").tags(); // A client id is no compact string, even in flexible versions.
    body(&mut out);
    let len = i32::try_from(out.0.len() - 4).expect("a frame below 2 GiB");
    out.0[..4].copy_from_slice(&len.to_be_bytes());
    out.0.into()
}

/// What one batch holds.
#[derive(Clone, Copy, Debug)]
pub struct BatchShape {
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Records, however many bytes they come to.
    pub records: i32,
}

impl BatchShape {
    /// As many records as fit into a batch of `bytes`, one at least.
    pub fn filling(bytes: usize, value_bytes: usize) -> Self {
        // Lengths and deltas of a record are at most 3 + 1 + 3 + 3 + 1 + 3 + 1 bytes in batches up to 1 MB.
        let records = bytes.saturating_sub(BATCH_HEADER_BYTES) / (value_bytes + 15);
        Self { value_bytes, records: records.max(1) as i32 }
    }
}

/// An uncompressed batch whose every value begins with `stamp`, so that a record shows where it belongs.
pub fn batch(shape: BatchShape, stamp: &str, now_ms: i64) -> Vec<u8> {
    let mut records = Writer::default();
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    for at in 0..shape.records {
        let mut record = Writer::default();
        record.i8(0).varint(0).varint(i64::from(at)).varint(-1).varint(shape.value_bytes as i64);
        let end = record.0.len() + shape.value_bytes;
        record.raw(&stamp.as_bytes()[..stamp.len().min(shape.value_bytes)]);
        while record.0.len() < end {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            record.0.push(b' ' + (noise >> 57) as u8 % 95);
        }
        record.varint(0);
        records.varint(record.0.len() as i64).raw(&record.0);
    }
    let mut out = Writer::default();
    out.i64(0).i32((BATCH_HEADER_BYTES - 12 + records.0.len()) as i32).i32(-1).i8(2).i32(0);
    out.i16(0).i32(shape.records - 1).i64(now_ms).i64(now_ms);
    out.i64(-1).i16(-1).i32(-1).i32(shape.records).raw(&records.0);
    let crc =
        crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &out.0[BATCH_UNSUMMED_BYTES..]);
    out.0[17..21].copy_from_slice(&(crc as u32).to_be_bytes());
    out.0
}

/// A produce of one batch to one partition.
pub fn produce(correlation: i32, acks: i16, topic: TopicId, partition: i32, batch: &[u8]) -> Bytes {
    const TIMEOUT_MS: i32 = 30_000;
    request(0, 13, correlation, |out| {
        out.uvarint(0).i16(acks).i32(TIMEOUT_MS).uvarint(2).raw(&topic);
        out.uvarint(2).i32(partition).uvarint(batch.len() as u64 + 1).raw(batch);
        out.tags().tags().tags();
    })
}

/// The correlation id of a reply (without its length prefix), and its error code if it is to a produce of one batch.
pub fn produced(reply: &[u8]) -> Result<(i32, i16)> {
    let mut reader = Reader(reply);
    let correlation = reader.i32()?;
    reader.tags()?;
    one(reader.length()?)?;
    reader.raw(16)?;
    one(reader.length()?)?;
    reader.i32()?;
    Ok((correlation, reader.i16()?))
}

fn one(length: Option<usize>) -> Result<()> {
    if length != Some(1) {
        bail!("a reply about {length:?} topics or partitions, to a request about one");
    }
    Ok(())
}

/// Where a fetch of one partition begins.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub partition: i32,
    pub offset: i64,
}

/// How a fetch waits, and how much it takes.
#[derive(Clone, Copy, Debug)]
pub struct FetchShape {
    pub max_wait_ms: i32,
    pub partition_bytes: i32,
}

/// A fetch without a session.
pub fn fetch(correlation: i32, topic: TopicId, from: &[Position], shape: FetchShape) -> Bytes {
    const FETCH_BYTES_MAX: i32 = 50 << 20; // As consumers have it.
    request(1, 13, correlation, |out| {
        out.i32(-1).i32(shape.max_wait_ms).i32(1).i32(FETCH_BYTES_MAX).i8(0).i32(0).i32(-1);
        out.uvarint(2).raw(&topic).uvarint(from.len() as u64 + 1);
        for Position { partition, offset } in from {
            out.i32(*partition)
                .i32(-1)
                .i64(*offset)
                .i32(-1)
                .i64(-1)
                .i32(shape.partition_bytes)
                .tags();
        }
        out.tags().uvarint(1).string("").tags();
    })
}

/// What a fetch brought of one partition.
#[derive(Debug)]
pub struct Fetched<'a> {
    pub partition: i32,
    pub error: i16,
    pub high_watermark: i64,
    pub records: &'a [u8],
}

/// Reads a reply to [`fetch`] and tells each partition; an error of the whole request fails it.
pub fn fetched(reply: &[u8], mut each: impl FnMut(Fetched<'_>) -> Result<()>) -> Result<()> {
    let mut reader = Reader(reply);
    reader.i32()?;
    reader.tags()?;
    reader.i32()?;
    let error = reader.i16()?;
    if error != 0 {
        bail!("fetch: error code {error}");
    }
    reader.i32()?;
    for _ in 0..reader.length()?.unwrap_or(0) {
        reader.raw(16)?;
        for _ in 0..reader.length()?.unwrap_or(0) {
            let (partition, error, high_watermark) = (reader.i32()?, reader.i16()?, reader.i64()?);
            reader.raw(16)?; // Last stable offset, log start.
            for _ in 0..reader.length()?.unwrap_or(0) {
                reader.raw(16)?;
                reader.tags()?;
            }
            reader.i32()?; // Preferred replica.
            let records = reader.bytes()?;
            reader.tags()?;
            each(Fetched { partition, error, high_watermark, records })?;
        }
        reader.tags()?;
    }
    Ok(())
}

/// One whole batch among what was fetched.
#[derive(Debug)]
pub struct Batch<'a> {
    pub base_offset: i64,
    pub records: i32,
    pub bytes: &'a [u8],
}

impl Batch<'_> {
    /// The offset after its last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.records)
    }

    /// Whether its checksum is right and every record's value begins with `stamp`.
    pub fn is_sound(&self, stamp: &str) -> Result<bool> {
        let crc = crc_fast::checksum(
            crc_fast::CrcAlgorithm::Crc32Iscsi,
            &self.bytes[BATCH_UNSUMMED_BYTES..],
        );
        if (crc as u32).to_be_bytes() != self.bytes[17..21] {
            return Ok(false);
        }
        let mut reader = Reader(&self.bytes[BATCH_HEADER_BYTES..]);
        let unzigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
        for _ in 0..self.records {
            let len = usize::try_from(unzigzag(reader.uvarint()?))?;
            let mut record = Reader(reader.raw(len)?);
            record.raw(1)?;
            for _ in 0..3 {
                record.uvarint()?; // Timestamp and offset deltas; no key.
            }
            let len = usize::try_from(unzigzag(record.uvarint()?))?;
            let value = record.raw(len)?;
            if !value.starts_with(&stamp.as_bytes()[..stamp.len().min(len)]) {
                return Ok(false);
            }
        }
        Ok(reader.0.is_empty())
    }
}

/// The whole batches in fetched records; a last one that was cut off is left out, as Kafka lets a broker do.
pub fn batches(mut records: &[u8]) -> impl Iterator<Item = Batch<'_>> {
    std::iter::from_fn(move || {
        let int = |at: usize| Some(i32::from_be_bytes(*records.get(at..)?.first_chunk()?));
        let bytes = records.get(..12 + usize::try_from(int(8)?).ok()?)?;
        let base_offset = i64::from_be_bytes(*records.first_chunk()?);
        let batch = Batch { base_offset, records: int(23)? + 1, bytes };
        records = &records[bytes.len()..];
        Some(batch)
    })
}

/// Asks for one topic.
pub fn metadata(topic: &str) -> Bytes {
    request(3, 12, 1, |out| {
        out.uvarint(2).raw(&[0; 16]).string(topic).tags().i8(0).i8(0).tags();
    })
}

/// What Metadata says of one topic.
#[derive(Debug)]
pub struct Topic {
    pub id: TopicId,
    pub partitions: i32,
    /// The first error among the topic's and its partitions', if not 0.
    pub error: i16,
}

/// Reads a reply to [`metadata`].
pub fn topic(reply: &[u8]) -> Result<Topic> {
    let mut reader = Reader(reply);
    reader.i32()?;
    reader.tags()?;
    reader.i32()?;
    for _ in 0..reader.length()?.unwrap_or(0) {
        reader.i32()?;
        reader.bytes()?;
        reader.i32()?;
        reader.bytes()?;
        reader.tags()?;
    }
    reader.bytes()?;
    reader.i32()?;
    one(reader.length()?)?;
    let mut error = reader.i16()?;
    reader.bytes()?;
    let id = *reader.raw(16)?.first_chunk().context("an id")?;
    reader.raw(1)?;
    let partitions = reader.length()?.unwrap_or(0);
    for _ in 0..partitions {
        let own = reader.i16()?;
        error = if error == 0 { own } else { error };
        reader.raw(12)?;
        for _ in 0..3 {
            let count = reader.length()?.unwrap_or(0);
            reader.raw(4 * count)?;
        }
        reader.tags()?;
    }
    Ok(Topic { id, partitions: partitions as i32, error })
}

/// Asks for the end offset of each of a topic's partitions.
pub fn list_ends(topic: &str, partitions: i32) -> Bytes {
    const LATEST: i64 = -1;
    request(2, 7, 1, |out| {
        out.i32(-1).i8(0).uvarint(2).string(topic).uvarint(partitions as u64 + 1);
        for partition in 0..partitions {
            out.i32(partition).i32(-1).i64(LATEST).tags();
        }
        out.tags().tags();
    })
}

/// The sum of the end offsets in a reply to [`list_ends`].
pub fn ends(reply: &[u8]) -> Result<i64> {
    let mut reader = Reader(reply);
    reader.i32()?;
    reader.tags()?;
    reader.i32()?;
    one(reader.length()?)?;
    reader.bytes()?;
    let mut sum = 0;
    for _ in 0..reader.length()?.unwrap_or(0) {
        let (partition, error) = (reader.i32()?, reader.i16()?);
        if error != 0 {
            bail!("the end of partition {partition}: error code {error}");
        }
        reader.i64()?;
        sum += reader.i64()?;
        reader.i32()?;
        reader.tags()?;
    }
    Ok(sum)
}

/// How long the broker may take over topics.
const TOPICS_TIMEOUT_MS: i32 = 60_000;

/// Creates topics with one replica.
pub fn create_topics(topics: &[String], partitions: i32, configs: &[(String, String)]) -> Bytes {
    request(19, 7, 1, |out| {
        out.uvarint(topics.len() as u64 + 1);
        for topic in topics {
            out.string(topic).i32(partitions).i16(1).uvarint(1).uvarint(configs.len() as u64 + 1);
            for (key, value) in configs {
                out.string(key).string(value).tags();
            }
            out.tags();
        }
        out.i32(TOPICS_TIMEOUT_MS).i8(0).tags();
    })
}

/// Fails where a topic was not created.
pub fn created(reply: &[u8]) -> Result<()> {
    let mut reader = Reader(reply);
    reader.i32()?;
    reader.tags()?;
    reader.i32()?;
    for _ in 0..reader.length()?.unwrap_or(0) {
        let name = String::from_utf8_lossy(reader.bytes()?).into_owned();
        reader.raw(16)?;
        let error = reader.i16()?;
        let message = String::from_utf8_lossy(reader.bytes()?).into_owned();
        if error != 0 {
            bail!("creating {name}: error code {error} {message}");
        }
        reader.raw(6)?;
        for _ in 0..reader.length()?.unwrap_or(0) {
            reader.bytes()?;
            reader.bytes()?;
            reader.raw(3)?;
            reader.tags()?;
        }
        reader.tags()?;
    }
    Ok(())
}

/// Deletes topics by name.
pub fn delete_topics(topics: &[String]) -> Bytes {
    request(20, 6, 1, |out| {
        out.uvarint(topics.len() as u64 + 1);
        for topic in topics {
            out.string(topic).raw(&[0; 16]).tags();
        }
        out.i32(TOPICS_TIMEOUT_MS).tags();
    })
}

/// Fails where a topic was not deleted.
pub fn deleted(reply: &[u8]) -> Result<()> {
    let mut reader = Reader(reply);
    reader.i32()?;
    reader.tags()?;
    reader.i32()?;
    for _ in 0..reader.length()?.unwrap_or(0) {
        let name = String::from_utf8_lossy(reader.bytes()?).into_owned();
        reader.raw(16)?;
        let error = reader.i16()?;
        if error != 0 {
            bail!("deleting {name}: error code {error}");
        }
        reader.bytes()?;
        reader.tags()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: BatchShape = BatchShape { value_bytes: 100, records: 3 };

    #[test]
    fn a_batch_is_what_it_says() {
        let bytes = batch(SHAPE, "t-7 ", 1);
        let found: Vec<_> = batches(&bytes).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].base_offset, found[0].next_offset()), (0, 3));
        assert!(found[0].is_sound("t-7 ").unwrap());
        assert!(!found[0].is_sound("t-8 ").unwrap());
        let mut torn = bytes.clone();
        torn[70] ^= 1;
        assert!(!batches(&torn).next().unwrap().is_sound("t-7 ").unwrap());
        assert_eq!(batches(&bytes[..bytes.len() - 1]).count(), 0);
    }

    #[test]
    fn batches_fill_what_they_may() {
        for bytes in [16 << 10, 64 << 10, 1_000_000] {
            let len = batch(BatchShape::filling(bytes, 1000), "t", 1).len();
            assert!(len <= bytes && len > bytes - 1100 - bytes / 200, "{len} of {bytes}");
        }
        assert_eq!(BatchShape::filling(10, 1000).records, 1);
    }

    #[test]
    fn replies_are_read() {
        let mut reply = Writer::default();
        reply
            .i32(5)
            .tags()
            .uvarint(2)
            .raw(&[1; 16])
            .uvarint(2)
            .i32(0)
            .i16(6)
            .i64(-1)
            .i64(-1)
            .i64(-1);
        assert_eq!(produced(&reply.0).unwrap(), (5, 6));
        assert!(produced(&reply.0[..20]).is_err());
        let mut two = Writer::default();
        two.i32(5).tags().uvarint(3);
        assert!(produced(&two.0).is_err(), "two topics were not asked about");
    }

    #[test]
    fn ends_add_up() {
        let mut reply = Writer::default();
        reply.i32(1).tags().i32(0).uvarint(2).string("t").uvarint(3);
        for (partition, end) in [(0, 40), (1, 2)] {
            reply.i32(partition).i16(0).i64(-1).i64(end).i32(0).tags();
        }
        assert_eq!(ends(&reply.0).unwrap(), 42);
        reply.0[17..19].copy_from_slice(&6_i16.to_be_bytes());
        assert!(ends(&reply.0).is_err(), "a partition without its leader has no end");
    }

    #[test]
    fn fetched_partitions_are_told() {
        let records = batch(SHAPE, "x", 1);
        let mut reply = Writer::default();
        reply.i32(1).tags().i32(0).i16(0).i32(0).uvarint(2).raw(&[1; 16]).uvarint(2);
        reply.i32(4).i16(0).i64(9).i64(9).i64(0).uvarint(0).i32(-1);
        reply.uvarint(records.len() as u64 + 1).raw(&records).tags().tags().tags();
        let mut seen = Vec::new();
        fetched(&reply.0, |part| {
            seen.push((part.partition, part.high_watermark, batches(part.records).count()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(4, 9, 1)]);
    }
}
