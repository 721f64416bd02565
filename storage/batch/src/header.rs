//! The 61 bytes before a batch's records, and the few of them that a broker may change.
//!
//! Separate because everything that handles batches reads the header and almost nothing reads
//! records. Invariant: a parsed header's `length` covers at least the header itself, so slicing by
//! [`BatchHeader::total_len`] always moves forward.

use flowstone_types::{LeaderEpoch, Offset, ProducerId, Timestamp};

use crate::error::BatchError;

/// Bytes of a batch before its records.
pub const HEADER_LEN: usize = 61;
/// Bytes of base offset and length, which `length` does not count.
pub const LOG_OVERHEAD: usize = 12;
/// The only format that is written: v2, of Kafka 0.11 (KIP-98).
pub const MAGIC: i8 = 2;
/// Base sequence of a batch whose producer numbers nothing.
pub const NO_SEQUENCE: i32 = -1;
/// Producer epoch of a batch whose producer has none.
pub const NO_PRODUCER_EPOCH: i16 = -1;

/// Where each field starts. The CRC covers everything from `ATTRIBUTES` on, so base offset and
/// leader epoch can be stamped without computing it again.
pub(crate) mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = BASE_OFFSET + 8;
    pub const LEADER_EPOCH: usize = LENGTH + 4;
    pub const MAGIC: usize = LEADER_EPOCH + 4;
    pub const CRC: usize = MAGIC + 1;
    pub const ATTRIBUTES: usize = CRC + 4;
    pub const LAST_OFFSET_DELTA: usize = ATTRIBUTES + 2;
    pub const BASE_TIMESTAMP: usize = LAST_OFFSET_DELTA + 4;
    pub const MAX_TIMESTAMP: usize = BASE_TIMESTAMP + 8;
    pub const PRODUCER_ID: usize = MAX_TIMESTAMP + 8;
    pub const PRODUCER_EPOCH: usize = PRODUCER_ID + 8;
    pub const BASE_SEQUENCE: usize = PRODUCER_EPOCH + 2;
    pub const COUNT: usize = BASE_SEQUENCE + 4;
}
const _: () = assert!(at::LENGTH + 4 == LOG_OVERHEAD);
const _: () = assert!(at::COUNT + 4 == HEADER_LEN);

/// How a batch's record array is compressed. The numbers are those of the attributes' low bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw snappy blocks in snappy-java's ("xerial") framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// RFC 8878; from Produce v7 on (KIP-110).
    Zstd = 4,
}

impl Codec {
    /// Every codec, by its number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The name that `compression.type` and the tools use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Whose clock a batch's timestamps are from (`message.timestamp.type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    #[default]
    CreateTime,
    /// The broker's at append: all records have the batch's `max_timestamp`.
    LogAppendTime,
}

/// A batch's attribute bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const CODEC_MASK: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    /// The codec, or its number where there is none of that number.
    pub const fn codec(self) -> Result<Codec, u8> {
        match self.0 & Self::CODEC_MASK {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            unknown => Err(unknown as u8),
        }
    }

    /// Whose clock the timestamps are from.
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the records are for the log itself (transaction markers, Raft's), not for consumers.
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether `base_timestamp` is when tombstones may go (set by compaction only, KIP-534).
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// These bits with another codec.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Self {
        Self(self.0 & !Self::CODEC_MASK | codec as i16)
    }

    /// These bits with another timestamp type.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// These bits, and transactional.
    #[must_use]
    pub const fn transactional(self) -> Self {
        Self(self.0 | Self::TRANSACTIONAL)
    }

    /// These bits, and control.
    #[must_use]
    pub const fn control(self) -> Self {
        Self(self.0 | Self::CONTROL)
    }
}

/// A batch's header as numbers, read without allocating. Only magic and length are known to be
/// sound; everything else says what the bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record (before compaction).
    pub base_offset: Offset,
    /// Bytes after this field; at least [`HEADER_LEN`] - [`LOG_OVERHEAD`].
    pub length: i32,
    /// Epoch of the leader that appended it; -1 from a producer.
    pub leader_epoch: LeaderEpoch,
    /// Always [`MAGIC`].
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type and kind.
    pub attributes: Attributes,
    /// Offset of the last record (before compaction) less `base_offset`.
    pub last_offset_delta: i32,
    /// What records' timestamps are relative to, or the delete horizon.
    pub base_timestamp: Timestamp,
    /// Greatest timestamp of the records, or the time of the append.
    pub max_timestamp: Timestamp,
    /// Identity of an idempotent producer.
    pub producer_id: ProducerId,
    /// Epoch of that identity.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Records that follow; fewer than offsets after compaction, even none.
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which need not hold the whole batch. Fails for
    /// fewer than 61 bytes, another format than v2, and a length that does not cover the header.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // The magic byte is at the same place in all formats; the older ones have shorter headers.
        match bytes.get(at::MAGIC).map(|magic| *magic as i8) {
            None | Some(MAGIC) => {}
            Some(magic) => return Err(BatchError::Magic(magic)),
        }
        let Some(raw) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { bytes: bytes.len(), needed: HEADER_LEN });
        };
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(raw, at::BASE_OFFSET))),
            length: i32::from_be_bytes(field(raw, at::LENGTH)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(raw, at::LEADER_EPOCH))),
            magic: raw[at::MAGIC] as i8,
            crc: u32::from_be_bytes(field(raw, at::CRC)),
            attributes: Attributes(i16::from_be_bytes(field(raw, at::ATTRIBUTES))),
            last_offset_delta: i32::from_be_bytes(field(raw, at::LAST_OFFSET_DELTA)),
            base_timestamp: Timestamp(i64::from_be_bytes(field(raw, at::BASE_TIMESTAMP))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(raw, at::MAX_TIMESTAMP))),
            producer_id: ProducerId(i64::from_be_bytes(field(raw, at::PRODUCER_ID))),
            producer_epoch: i16::from_be_bytes(field(raw, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(raw, at::BASE_SEQUENCE)),
            count: i32::from_be_bytes(field(raw, at::COUNT)),
        };
        if header.length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::Length(header.length));
        }
        Ok(header)
    }

    /// The header as it stands on disk and wire.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = [0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(at::BASE_OFFSET, &self.base_offset.0.to_be_bytes());
        put(at::LENGTH, &self.length.to_be_bytes());
        put(at::LEADER_EPOCH, &self.leader_epoch.0.to_be_bytes());
        put(at::MAGIC, &self.magic.to_be_bytes());
        put(at::CRC, &self.crc.to_be_bytes());
        put(at::ATTRIBUTES, &self.attributes.0.to_be_bytes());
        put(at::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(at::BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(at::MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(at::PRODUCER_ID, &self.producer_id.0.to_be_bytes());
        put(at::PRODUCER_EPOCH, &self.producer_epoch.to_be_bytes());
        put(at::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(at::COUNT, &self.count.to_be_bytes());
        raw
    }

    /// Bytes of the whole batch.
    pub const fn total_len(&self) -> usize {
        LOG_OVERHEAD + self.length as usize // Not negative: `parse` saw to it.
    }

    /// Offset of the last record.
    pub const fn last_offset(&self) -> Offset {
        // Saturates where a header from outside lies; an honest one stays far below.
        Offset(self.base_offset.0.saturating_add(self.last_offset_delta as i64))
    }

    /// Sequence number of the last record; -1 where the producer numbers nothing.
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            sequence_plus(self.base_sequence, self.last_offset_delta)
        }
    }

    /// Whether an idempotent or transactional producer wrote it.
    pub const fn has_producer(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }
}

/// The sequence number `delta` records after `sequence`: 2^31 - 1 is followed by 0 (KIP-98).
pub const fn sequence_plus(sequence: i32, delta: i32) -> i32 {
    (sequence as i64 + delta as i64).rem_euclid(1 << 31) as i32
}

/// Whether a whole batch's bytes are those its CRC was computed from. False also for what is too
/// short to be a batch.
pub fn crc_ok(batch: &[u8]) -> bool {
    match batch.first_chunk::<HEADER_LEN>() {
        Some(raw) => u32::from_be_bytes(field(raw, at::CRC)) == crc_of(batch),
        None => false,
    }
}

/// What the CRC field of this batch should hold.
pub(crate) fn crc_of(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[at::ATTRIBUTES..])
}

/// Gives an appended batch its place: base offset and leader epoch, both outside the CRC.
/// `batch` starts with a batch (61 bytes or more).
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    assert!(batch.len() >= HEADER_LEN, "only a checked batch is stamped");
    put(batch, at::BASE_OFFSET, base_offset.0.to_be_bytes());
    put(batch, at::LEADER_EPOCH, leader_epoch.0.to_be_bytes());
}

/// Sets timestamp type and greatest timestamp of a batch, and its CRC to match.
pub(crate) fn stamp_time(batch: &mut [u8], timestamp_type: TimestampType, max: Timestamp) {
    let attributes =
        Attributes(i16::from_be_bytes([batch[at::ATTRIBUTES], batch[at::ATTRIBUTES + 1]]));
    put(batch, at::ATTRIBUTES, attributes.with_timestamp_type(timestamp_type).0.to_be_bytes());
    put(batch, at::MAX_TIMESTAMP, max.0.to_be_bytes());
    seal(batch);
}

/// Sets the CRC to what the bytes behind it say.
pub(crate) fn seal(batch: &mut [u8]) {
    put(batch, at::CRC, crc_of(batch).to_be_bytes());
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    batch[at..at + N].copy_from_slice(&value);
}

fn field<const N: usize>(raw: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    core::array::from_fn(|i| raw[at + i])
}

/// The batches of `bytes`, one after the other: position, header, and the whole batch's bytes.
///
/// Stops after the first error: bytes that end inside a batch, a length that cannot be, or another
/// format. Segments of Kafka before 0.11 (magic 0 and 1) are such another format: Flowstone does
/// not serve them, [`BatchError::Magic`] says so. CRCs are not checked, see [`crc_ok`].
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// Iterator of [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(usize, BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if rest.is_empty() {
            return None;
        }
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => return Some(Err(self.stop(error))),
        };
        let Some(batch) = rest.get(..header.total_len()) else {
            let error = BatchError::Truncated { bytes: rest.len(), needed: header.total_len() };
            return Some(Err(self.stop(error)));
        };
        let position = self.position;
        self.position += batch.len();
        Some(Ok((position, header, batch)))
    }
}

impl Batches<'_> {
    fn stop(&mut self, error: BatchError) -> BatchError {
        self.position = self.bytes.len();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_as_kafkas_do() {
        // DefaultRecordBatch.incrementSequence.
        assert_eq!(sequence_plus(0, 5), 5);
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 1, 3), 1);
        assert_eq!(sequence_plus(i32::MAX, i32::MAX), i32::MAX - 1);
        // And back, as decrementSequence.
        assert_eq!(sequence_plus(0, -1), i32::MAX);
        assert_eq!(sequence_plus(2, -5), i32::MAX - 2);
    }

    #[test]
    fn older_formats_are_named_not_misread() {
        let mut v1 = [0; 34];
        v1[at::MAGIC] = 1;
        assert_eq!(BatchHeader::parse(&v1), Err(BatchError::Magic(1)));
        let mut items = batches(&v1);
        assert_eq!(items.next(), Some(Err(BatchError::Magic(1))));
        assert_eq!(items.next(), None, "nothing after an error");
    }

    #[test]
    fn a_length_below_the_header_is_no_batch() {
        for length in [48, 0, -1, i32::MIN] {
            let mut raw = [0; HEADER_LEN];
            raw[at::MAGIC] = 2;
            raw[at::LENGTH..at::LENGTH + 4].copy_from_slice(&i32::to_be_bytes(length));
            assert_eq!(BatchHeader::parse(&raw), Err(BatchError::Length(length)));
        }
    }
}
