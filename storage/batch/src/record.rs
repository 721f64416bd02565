//! Records: one pass that proves a record array's framing, and an iterator over it.
//!
//! Separate because both must agree on what a record is: `RawRecord::read` is the only decoder.
//! Invariant: a record's fields fill exactly the record, and records fill exactly the array.
#![expect(
    clippy::inline_always,
    reason = "each append decodes every record: 16 ns a record left to the compiler, 12 so"
)]

use bytes::Bytes;
use flowstone_types::{Offset, Timestamp};

use crate::compress::{Limits, inflate};
use crate::error::{BatchError, Malformed};
use crate::header::{BatchHeader, Codec, HEADER_LEN, TimestampType};
use crate::varint::{Cursor, ReadError};

/// Fewest bytes a record can have: its length, attributes, two deltas, two lengths, header count.
pub(crate) const RECORD_LEN_MIN: usize = 7;

/// A record of a batch; slices share the batch's memory (or that of its decompressed form).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its offset, by the batch's base offset.
    pub offset: Offset,
    /// Its own time, or the batch's append time (bit 3).
    pub timestamp: Timestamp,
    /// Key; `None` is Kafka's null.
    pub key: Option<Bytes>,
    /// Value; `None` is Kafka's null, a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in the order they were written.
    pub headers: Headers,
}

/// A record's headers, decoded as they are walked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    bytes: Bytes, // Proven by `RawRecord::read`.
    count: i32,
}

impl Headers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys (UTF-8 by contract, unchecked as in Kafka) and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut cursor = Cursor::new(&self.bytes);
        (0..self.count).map_while(move |_| {
            let key = field(&mut cursor).ok()??;
            Some((key, field(&mut cursor).ok()?))
        })
    }
}

/// One record where it lies.
pub(crate) struct RawRecord<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [u8],
    pub header_count: i32,
}

enum Fault {
    Read(ReadError),
    NegativeLength,
    Slack,
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl<'a> RawRecord<'a> {
    /// Reads and proves the record at the cursor; `index` is for the error only.
    #[inline(always)]
    pub(crate) fn read(cursor: &mut Cursor<'a>, index: i32) -> Result<Self, Malformed> {
        Self::read_fields(cursor).map_err(|fault| match fault {
            Fault::Read(ReadError::End) => Malformed::Overrun(index),
            Fault::Read(ReadError::TooLong) => Malformed::Varint(index),
            Fault::NegativeLength => Malformed::NegativeLength(index),
            Fault::Slack => Malformed::Slack(index),
        })
    }

    #[inline(always)]
    fn read_fields(cursor: &mut Cursor<'a>) -> Result<Self, Fault> {
        let len = usize::try_from(cursor.varint()?).map_err(|_| Fault::NegativeLength)?;
        let mut body = Cursor::new(cursor.take(len)?);
        body.byte()?; // Attributes: none are defined.
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = field(&mut body)?;
        let value = field(&mut body)?;
        let header_count = body.varint()?;
        let headers = body.rest();
        if header_count < 0 {
            return Err(Fault::NegativeLength);
        }
        for _ in 0..header_count {
            field(&mut body)?.ok_or(Fault::NegativeLength)?; // A header's key is never null.
            field(&mut body)?;
        }
        if !body.rest().is_empty() {
            return Err(Fault::Slack);
        }
        Ok(Self { timestamp_delta, offset_delta, key, value, headers, header_count })
    }
}

/// Bytes behind their length, or null (-1). Kafka takes any negative length for null; nobody
/// writes another, so here it is a lie.
#[inline(always)]
fn field<'a>(cursor: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, Fault> {
    match cursor.varint()? {
        -1 => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) => Ok(Some(cursor.take(len)?)),
            Err(_) => Err(Fault::NegativeLength),
        },
    }
}

/// What one pass over an appended batch's records tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Survey {
    pub timestamp_min: i64,
    pub timestamp_max: i64,
    pub keyless: bool,
}

/// Proves that `records` are exactly `count` records with offset deltas 0, 1, 2 and so on.
/// Allocates nothing.
pub(crate) fn survey(records: &[u8], count: i32, base: Timestamp) -> Result<Survey, Malformed> {
    let mut cursor = Cursor::new(records);
    let (mut delta_min, mut delta_max) = (i64::MAX, i64::MIN);
    let mut keyless = false;
    for index in 0..count {
        let record = RawRecord::read(&mut cursor, index)?;
        if record.offset_delta != index {
            return Err(Malformed::OffsetDelta(index, record.offset_delta));
        }
        delta_min = delta_min.min(record.timestamp_delta);
        delta_max = delta_max.max(record.timestamp_delta);
        keyless |= record.key.is_none();
    }
    match cursor.rest().len() {
        0 => {}
        bytes => return Err(Malformed::TrailingBytes(bytes)),
    }
    let at = |delta: i64| base.0.checked_add(delta).ok_or(Malformed::Timestamp);
    Ok(Survey { timestamp_min: at(delta_min)?, timestamp_max: at(delta_max)?, keyless })
}

/// The records of one whole batch (`batch` as [`crate::batches`] cuts it, from a `Bytes`).
///
/// Decompresses first where it must, within `limits`; an uncompressed batch is read where it lies.
pub fn records(batch: &Bytes, limits: &Limits) -> Result<Records, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if batch.len() < header.total_len() {
        return Err(BatchError::Truncated { bytes: batch.len(), needed: header.total_len() });
    }
    if header.count < 0 || header.last_offset_delta < 0 {
        let BatchHeader { count, last_offset_delta, .. } = header;
        return Err(Malformed::Count { count, last_offset_delta }.into());
    }
    let array = batch.slice(HEADER_LEN..header.total_len());
    let array = match header.attributes.codec().map_err(BatchError::Codec)? {
        _ if header.count == 0 => Bytes::new(), // Emptied by compaction.
        Codec::None => array,
        codec => inflate(codec, &array, limits)?.into(),
    };
    Ok(Records { array, header, index: 0, last_offset_delta: -1 })
}

/// Iterator of [`records`]; ends after the first error.
#[derive(Clone, Debug)]
pub struct Records {
    array: Bytes, // What is still to be read.
    header: BatchHeader,
    index: i32,
    last_offset_delta: i32,
}

impl Records {
    fn read(&mut self) -> Result<Record, Malformed> {
        let mut cursor = Cursor::new(&self.array);
        let raw = RawRecord::read(&mut cursor, self.index)?;
        let header = &self.header;
        // Compaction leaves gaps, never disorder.
        if raw.offset_delta <= self.last_offset_delta || raw.offset_delta > header.last_offset_delta
        {
            return Err(Malformed::OffsetDelta(self.index, raw.offset_delta));
        }
        let offset = header.base_offset.0.checked_add(i64::from(raw.offset_delta));
        let offset = Offset(offset.ok_or(Malformed::OffsetDelta(self.index, raw.offset_delta))?);
        let timestamp = match header.attributes.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => Timestamp(
                header
                    .base_timestamp
                    .0
                    .checked_add(raw.timestamp_delta)
                    .ok_or(Malformed::Timestamp)?,
            ),
        };
        let share = |slice: &[u8]| self.array.slice_ref(slice);
        let record = Record {
            offset,
            timestamp,
            key: raw.key.map(share),
            value: raw.value.map(share),
            headers: Headers { bytes: share(raw.headers), count: raw.header_count },
        };
        let last = self.index + 1 == header.count;
        let rest = cursor.rest();
        if last && !rest.is_empty() {
            return Err(Malformed::TrailingBytes(rest.len()));
        }
        self.last_offset_delta = raw.offset_delta;
        self.array = self.array.slice_ref(rest);
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.count {
            return None;
        }
        let record = self.read();
        self.index = if record.is_ok() { self.index + 1 } else { self.header.count };
        Some(record.map_err(BatchError::from))
    }
}
