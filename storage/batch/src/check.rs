//! What a leader checks before it appends a batch (Kafka's UnifiedLog.append and LogValidator).
//!
//! Separate because it is the gate: what passes is right and final but for base offset and leader
//! epoch. The crate's documentation has the table of what is checked when.

use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::fmt;
use flowstone_types::{Offset, Timestamp};
use thiserror::Error;

use crate::builder::finish;
use crate::compress::{Limits, inflate};
use crate::error::{BatchError, Malformed};
use crate::header::{BatchHeader, Codec, HEADER_LEN, TimestampType, crc_of, stamp_time};
use crate::record::{RECORD_LEN_MIN, RawRecord, Survey, survey};
use crate::varint::Cursor;

/// Who hands in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// A produce request: nothing is believed.
    Client,
    /// One of this broker's coordinators: control batches and any sequence are its right.
    Coordinator,
}

/// `compression.type` of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Compression {
    /// As the producer sent it.
    #[default]
    Producer,
    /// Always this codec; `level` by the codec's own scale, `None` for its default.
    Fixed {
        /// The codec; `None` is Kafka's `uncompressed`.
        codec: Codec,
        /// `compression.<codec>.level`.
        level: Option<i32>,
    },
}

/// What a topic, and the request, ask of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// `max.message.bytes`: of the batch, before and after conversion.
    pub max_message_bytes: usize,
    /// `segment.bytes`: a batch lies in one segment.
    pub segment_bytes: usize,
    /// `compression.type` with its level.
    pub compression: Compression,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how old a record may claim to be.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far ahead of us.
    pub timestamp_after_max_ms: i64,
    /// Whether `cleanup.policy` has `compact`: records need keys.
    pub compacted: bool,
    /// Who hands it in.
    pub origin: Origin,
    /// Whether the request's version knows zstd (Produce v7 on).
    pub zstd_allowed: bool,
    /// Inflate every compressed batch and check its records, as Kafka does. Costs the
    /// decompression (1 to 5 GB/s); see the crate's documentation for what it buys.
    pub inspect_compressed: bool,
    /// How far inflation may go.
    pub limits: Limits,
}

impl Default for Rules {
    /// A topic of Kafka 4.3 with no config of its own, written to by a client of today.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            compression: Compression::Producer,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            origin: Origin::Client,
            zstd_allowed: true,
            inspect_compressed: false,
            limits: Limits::default(),
        }
    }
}

/// One batch that may be appended: final but for base offset and leader epoch ([`crate::stamp`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The whole batch, CRC right.
    pub bytes: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// The time of the append on a LogAppendTime topic, for the answer; `None` for create time.
    pub log_append_time: Option<Timestamp>,
    /// Whether its records were compressed anew (Kafka's conversion count).
    pub converted: bool,
}

/// Why a batch may not be appended. Each variant names Kafka's error code.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Rejected {
    /// Not exactly one whole v2 batch: CORRUPT_MESSAGE where the bytes are none, INVALID_RECORD where they are an old
    /// format, nothing, or more than one.
    #[error("not exactly one record batch: {0}")]
    Framing(#[from] BatchError),
    /// CORRUPT_MESSAGE: the bytes are not those that the producer wrote.
    #[error("record batch is corrupt: its CRC is {stored:#010x}, its bytes give {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// MESSAGE_TOO_LARGE: above `max.message.bytes`.
    #[error("record batch of {bytes} bytes, max.message.bytes is {limit}")]
    TooLarge {
        /// The batch, converted if it had to be.
        bytes: usize,
        /// `max.message.bytes`.
        limit: usize,
    },
    /// RECORD_LIST_TOO_LARGE: no segment can hold it.
    #[error("record batch of {bytes} bytes, segment.bytes is {limit}")]
    LargerThanSegment {
        /// The batch, converted if it had to be.
        bytes: usize,
        /// `segment.bytes`.
        limit: usize,
    },
    /// UNSUPPORTED_COMPRESSION_TYPE: a codec number that means nothing.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// UNSUPPORTED_COMPRESSION_TYPE: zstd in a request older than zstd.
    #[error("zstd needs Produce v7 or later")]
    ZstdTooEarly,
    /// INVALID_RECORD: the batch as a whole contradicts itself or the rules.
    #[error("record batch is invalid: {0}")]
    Invalid(#[from] Invalid),
    /// INVALID_TIMESTAMP if `timestamps`, else INVALID_RECORD: single records break the topic's
    /// rules. The first [`RECORD_ERRORS_MAX`] of them.
    #[error("{} records of the batch break the topic's rules, first: {}", errors.len(), errors[0])]
    Records {
        /// Whether any of them is for its timestamp: that code wins, as in Kafka.
        timestamps: bool,
        /// Which and why; never empty.
        errors: Vec<RecordError>,
    },
}

/// What is wrong with a batch as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Invalid {
    /// Offsets are the leader's to give, and a log ends below 2^63 - 1.
    #[error("base offset is {0}: a producer sends 0, a coordinator what a log can hold")]
    BaseOffset(Offset),
    /// Only the log itself writes control records.
    #[error("clients cannot write control records")]
    Control,
    /// Only compaction sets it.
    #[error("clients cannot set a delete horizon")]
    DeleteHorizon,
    /// Sequences start at 0.
    #[error("producer id {producer_id} with epoch {epoch} and base sequence {sequence}")]
    Sequence {
        /// The identity it claims.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// Its base sequence.
        sequence: i32,
    },
    /// A transaction belongs to a producer.
    #[error("transactional without a producer id")]
    NoProducer,
    /// Records or counts do not fit each other.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The records do not decompress, or to too much.
    #[error(transparent)]
    Compression(BatchError),
}

/// A record that breaks a rule of its topic; its [`fmt::Display`] is Kafka's
/// `batch_index_error_message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordError {
    /// Which record of the batch, from 0.
    pub index: i32,
    /// Why.
    pub fault: RecordFault,
}

/// Which rule it breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordFault {
    /// INVALID_RECORD: no key, in a compacted topic.
    NoKey,
    /// INVALID_TIMESTAMP: outside the topic's window, both ends included.
    Timestamp {
        /// What it claims.
        timestamp: Timestamp,
        /// `now - message.timestamp.before.max.ms`.
        earliest: Timestamp,
        /// `now + message.timestamp.after.max.ms`.
        latest: Timestamp,
    },
    /// INVALID_TIMESTAMP: the batch claims the broker's time.
    LogAppendTime,
}

/// Record errors kept of one batch: a million bad records must not become a reply of 100 MB.
pub const RECORD_ERRORS_MAX: usize = 100;

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            RecordFault::NoKey => {
                write!(f, "record {} has no key, in a compacted topic", self.index)
            }
            RecordFault::Timestamp { timestamp, earliest, latest } => write!(
                f,
                "timestamp {timestamp} of record {} is not within {earliest} to {latest}",
                self.index
            ),
            RecordFault::LogAppendTime => {
                write!(f, "record {} claims log-append time, the broker's to set", self.index)
            }
        }
    }
}

/// About how many bytes [`check`] would have to compress anew, for who must not be held up by it: 0
/// where the codec stays. A compressed batch is taken for some times its size.
pub fn conversion_bytes(records: &[u8], rules: &Rules) -> usize {
    let Ok(header) = BatchHeader::parse(records) else { return 0 };
    match (header.attributes.codec(), rules.compression) {
        (Ok(codec), Compression::Fixed { codec: target, .. }) if codec != target => {
            let ratio = if codec == Codec::None { 1 } else { COMPRESSED_RATIO };
            records.len().saturating_mul(ratio)
        }
        _ => 0,
    }
}

/// JSON lines compress to a tenth, and who guesses too much only pays for a change of threads.
const COMPRESSED_RATIO: usize = 10;

/// Checks what a producer sent for one partition against `rules`, at time `now`.
pub fn check(records: Bytes, rules: &Rules, now: Timestamp) -> Result<Checked, Rejected> {
    let header = BatchHeader::parse(&records)?;
    if records.len() != header.total_len() {
        return Err(not_one_batch(records.len(), &header));
    }
    let codec = header.attributes.codec().map_err(Rejected::Codec)?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(Rejected::ZstdTooEarly);
    }
    let client = rules.origin == Origin::Client;
    let offset_fits = match rules.origin {
        Origin::Client => header.base_offset == Offset::ZERO,
        Origin::Coordinator => {
            header.base_offset >= Offset::ZERO && header.last_offset() < Offset(i64::MAX)
        }
    };
    if !offset_fits {
        return Err(Invalid::BaseOffset(header.base_offset).into());
    }
    fits_message(records.len(), rules)?;
    let computed = crc_of(&records);
    if computed != header.crc {
        return Err(Rejected::Crc { stored: header.crc, computed });
    }
    check_claims(&header, client)?;

    // Control batches of a coordinator stay as they are, even where the topic names a codec.
    let target = match rules.compression {
        Compression::Fixed { codec, .. } if !header.attributes.is_control() => codec,
        Compression::Fixed { .. } | Compression::Producer => codec,
    };
    let window = Window::new(rules, now);
    let array = &records[HEADER_LEN..];
    let inflated = if codec == Codec::None {
        None
    } else if target != codec || must_inflate(&header, rules, &window) {
        Some(inflate(codec, array, &rules.limits).map_err(Invalid::Compression)?)
    } else {
        check_plausible_count(&header, array.len(), &rules.limits)?;
        None
    };
    let surveyed = match (&inflated, codec) {
        (Some(array), _) => Some(&array[..]),
        (None, Codec::None) => Some(array),
        (None, _) => None,
    };
    let max_timestamp = match surveyed {
        None => header.max_timestamp,
        Some(array) => {
            let survey =
                survey(array, header.count, header.base_timestamp).map_err(Invalid::from)?;
            if breaks_a_rule(&survey, rules, &window) {
                record_errors(array, &header, rules, &window)?;
            }
            Timestamp(survey.timestamp_max).max(Timestamp::NONE)
        }
    };

    let log_append_time = match rules.timestamp_type {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(now),
    };
    let max_timestamp = log_append_time.unwrap_or(max_timestamp);
    let converted = target != codec;
    let bytes = if converted {
        let level = match rules.compression {
            Compression::Fixed { level, .. } => level,
            Compression::Producer => None,
        };
        let attributes = header.attributes.with_timestamp_type(rules.timestamp_type);
        let header = BatchHeader { attributes, max_timestamp, ..header };
        let mut with_header = Vec::with_capacity(HEADER_LEN + array.len());
        with_header.extend_from_slice(&[0; HEADER_LEN]);
        with_header.extend_from_slice(surveyed.unwrap_or(array));
        finish(header, target, level, with_header)
    } else if header.max_timestamp != max_timestamp
        || header.attributes.timestamp_type() != rules.timestamp_type
    {
        let mut bytes = records.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        stamp_time(&mut bytes, rules.timestamp_type, max_timestamp);
        bytes.freeze()
    } else {
        fits_segment(records.len(), rules)?;
        return Ok(Checked { bytes: records, header, log_append_time, converted });
    };
    fits_message(bytes.len(), rules)?;
    fits_segment(bytes.len(), rules)?;
    let header = BatchHeader::parse(&bytes).expect("we wrote it");
    Ok(Checked { bytes, header, log_append_time, converted })
}

/// The error for bytes that are more or less than the batch they start with.
#[cold]
fn not_one_batch(len: usize, header: &BatchHeader) -> Rejected {
    Rejected::Framing(match len.checked_sub(header.total_len()) {
        Some(more) => Malformed::TrailingBytes(more).into(),
        None => BatchError::Truncated { bytes: len, needed: header.total_len() },
    })
}

fn fits_message(bytes: usize, rules: &Rules) -> Result<(), Rejected> {
    if bytes > rules.max_message_bytes {
        return Err(Rejected::TooLarge { bytes, limit: rules.max_message_bytes });
    }
    Ok(())
}

fn fits_segment(bytes: usize, rules: &Rules) -> Result<(), Rejected> {
    if bytes > rules.segment_bytes {
        return Err(Rejected::LargerThanSegment { bytes, limit: rules.segment_bytes });
    }
    Ok(())
}

/// What the header alone must not claim (LogValidator.validateBatch).
fn check_claims(header: &BatchHeader, client: bool) -> Result<(), Rejected> {
    let BatchHeader { count, last_offset_delta, attributes, .. } = *header;
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(Invalid::from(Malformed::Count { count, last_offset_delta }).into());
    }
    if !client {
        return Ok(());
    }
    if attributes.is_control() {
        return Err(Invalid::Control.into());
    }
    if attributes.has_delete_horizon() {
        return Err(Invalid::DeleteHorizon.into());
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        let fault = RecordFault::LogAppendTime;
        let kept = count.min(RECORD_ERRORS_MAX as i32);
        let errors = (0..kept).map(|index| RecordError { index, fault: fault.clone() }).collect();
        return Err(Rejected::Records { timestamps: true, errors });
    }
    if header.has_producer() && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(Invalid::Sequence {
            producer_id: header.producer_id.0,
            epoch: header.producer_epoch,
            sequence: header.base_sequence,
        }
        .into());
    }
    if attributes.is_transactional() && !header.has_producer() {
        return Err(Invalid::NoProducer.into());
    }
    Ok(())
}

/// Keeps a batch that nobody inflates from claiming 2^31 offsets for a few bytes.
fn check_plausible_count(
    header: &BatchHeader,
    compressed_len: usize,
    limits: &Limits,
) -> Result<(), Rejected> {
    let BatchHeader { count, last_offset_delta, .. } = *header;
    if count as usize > limits.inflated_max(compressed_len) / RECORD_LEN_MIN {
        return Err(Invalid::from(Malformed::Count { count, last_offset_delta }).into());
    }
    Ok(())
}

/// The timestamps that a record may have, both ends included. Everything where the broker's clock
/// counts, and "none" (-1) always.
struct Window {
    earliest: i64,
    latest: i64,
}

impl Window {
    fn new(rules: &Rules, now: Timestamp) -> Self {
        match rules.timestamp_type {
            TimestampType::LogAppendTime => Self { earliest: i64::MIN, latest: i64::MAX },
            TimestampType::CreateTime => Self {
                earliest: now.0.saturating_sub(rules.timestamp_before_max_ms),
                latest: now.0.saturating_add(rules.timestamp_after_max_ms),
            },
        }
    }

    fn holds(&self, timestamp: i64) -> bool {
        timestamp == Timestamp::NONE.0 || (self.earliest..=self.latest).contains(&timestamp)
    }
}

/// Whether the records of a compressed batch must be seen though its codec stays.
fn must_inflate(header: &BatchHeader, rules: &Rules, window: &Window) -> bool {
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let bounded_below = create_time && rules.timestamp_before_max_ms != i64::MAX;
    // Out of range: its records' errors are wanted. Below the base: no greatest of anything.
    let doubtful = create_time
        && (!window.holds(header.max_timestamp.0)
            || header.max_timestamp < header.base_timestamp.max(Timestamp::NONE));
    rules.inspect_compressed || rules.compacted || bounded_below || doubtful
}

fn breaks_a_rule(survey: &Survey, rules: &Rules, window: &Window) -> bool {
    (rules.compacted && survey.keyless)
        || !window.holds(survey.timestamp_min)
        || !window.holds(survey.timestamp_max)
        // With "none" among them the least timestamp hides the others.
        || (survey.timestamp_min == Timestamp::NONE.0 && window.earliest > Timestamp::NONE.0)
}

/// Says which records break the rules; none may, where only "none" looked out of range.
#[cold]
fn record_errors(
    array: &[u8],
    header: &BatchHeader,
    rules: &Rules,
    window: &Window,
) -> Result<(), Rejected> {
    let mut cursor = Cursor::new(array);
    let (mut errors, mut timestamps) = (Vec::new(), false);
    for index in 0..header.count {
        let record = RawRecord::read(&mut cursor, index).map_err(Invalid::from)?;
        let timestamp = header.base_timestamp.0.wrapping_add(record.timestamp_delta);
        let fault = if rules.compacted && record.key.is_none() {
            RecordFault::NoKey
        } else if window.holds(timestamp) {
            continue;
        } else {
            timestamps = true;
            RecordFault::Timestamp {
                timestamp: Timestamp(timestamp),
                earliest: Timestamp(window.earliest),
                latest: Timestamp(window.latest),
            }
        };
        if errors.len() < RECORD_ERRORS_MAX {
            errors.push(RecordError { index, fault });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Rejected::Records { timestamps, errors }) }
}
