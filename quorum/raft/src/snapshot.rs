//! Snapshots: their names, and the frame of their files.
//!
//! A file is control batch (header, `kraft.version`, voters), data batches, control batch (footer),
//! with offsets from 0 and the snapshot's epoch throughout (reference section 2.3). What is in the data
//! batches is the state machine's business.

use crate::control::{
    ControlError, ControlRecord, KraftVersion, KraftVoters, SnapshotFooter, SnapshotHeader,
    control_batch, read_control_batch,
};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use flowstone_batch::{BatchBuilder, BatchError, BatchHeader, Limits, batches, crc_ok, records};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

/// Which part of the log a snapshot stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotId {
    /// The first offset that it does not cover.
    pub end: Offset,
    /// The epoch of the last record that it covers.
    pub epoch: LeaderEpoch,
}

impl SnapshotId {
    /// The snapshot that a formatted node starts from. It is never served to others.
    pub const BOOTSTRAP: Self = Self { end: Offset::ZERO, epoch: LeaderEpoch(0) };

    /// The id in a file's name; `None` where it is no snapshot's (a part, a deleted one).
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (end, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
        let digits =
            |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(end, 20) || !digits(epoch, 10) {
            return None;
        }
        Some(Self { end: Offset(end.parse().ok()?), epoch: LeaderEpoch(epoch.parse().ok()?) })
    }
}

impl fmt::Display for SnapshotId {
    /// The file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:010}.checkpoint", self.end.0, self.epoch.0)
    }
}

/// Most bytes of records in one batch of a snapshot, as Kafka's raft client has it.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Writes a snapshot, piece by piece: a large one never stands in memory whole.
#[derive(Debug)]
pub struct SnapshotWriter {
    epoch: LeaderEpoch,
    now: Timestamp,
    next: Offset,
    batch: BatchBuilder,
}

impl SnapshotWriter {
    /// Starts a snapshot at `epoch`; returns the file's first bytes, too.
    /// `last` is when the last record that it covers was appended.
    pub fn new(
        epoch: LeaderEpoch,
        last: Timestamp,
        quorum: Option<(i16, &KraftVoters)>,
        now: Timestamp,
    ) -> (Self, Bytes) {
        let header =
            SnapshotHeader { last_contained_log_timestamp: last.0, ..SnapshotHeader::default() };
        let mut first = alloc::vec![ControlRecord::SnapshotHeader(header)];
        if let Some((kraft_version, voters)) = quorum {
            let version = KraftVersion { kraft_version, ..KraftVersion::default() };
            first.push(ControlRecord::KraftVersion(version));
            first.push(ControlRecord::KraftVoters(voters.clone()));
        }
        let next = Offset(first.len() as i64);
        let bytes = control_batch(Offset::ZERO, epoch, now, &first);
        let batch = BatchBuilder::new(next).leader_epoch(epoch);
        (Self { epoch, now, next, batch }, bytes)
    }

    /// Adds a record's value; returns a batch where one is full.
    pub fn push(&mut self, value: &[u8]) -> Option<Bytes> {
        let full = !self.batch.is_empty() && self.batch.len() + value.len() > BATCH_BYTES_MAX;
        let done = full.then(|| self.cut());
        self.batch.push(self.now, None, Some(value), &[]);
        done
    }

    /// The file's last bytes.
    pub fn finish(mut self) -> Vec<Bytes> {
        let mut last = Vec::new();
        if !self.batch.is_empty() {
            last.push(self.cut());
        }
        let footer = ControlRecord::SnapshotFooter(SnapshotFooter::default());
        last.push(control_batch(self.next, self.epoch, self.now, &[footer]));
        last
    }

    fn cut(&mut self) -> Bytes {
        self.next = self.next.plus(self.batch.count().into());
        let next = BatchBuilder::new(self.next).leader_epoch(self.epoch);
        core::mem::replace(&mut self.batch, next).build()
    }
}

/// What a snapshot's file says of itself and of the quorum.
#[derive(Clone, PartialEq, Debug)]
pub struct SnapshotHead {
    /// When the last record that it covers was appended.
    pub last_contained_log_timestamp: Timestamp,
    /// The level of `kraft.version`; 0 where it is not told.
    pub kraft_version: i16,
    /// The voters, where they are told.
    pub voters: Option<KraftVoters>,
}

/// Reads a snapshot's file, and gives each record's value to `each`. A file without its footer, with a
/// wrong CRC or with a gap is refused, though `each` may have seen its start.
pub fn read_snapshot<E: From<SnapshotError>>(
    file: &Bytes,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<SnapshotHead, E> {
    let mut head: Option<SnapshotHead> = None;
    let mut whole = false;
    let mut next = Offset::ZERO;
    for batch in batches(file) {
        let (_, header, bytes) = batch.map_err(SnapshotError::from)?;
        let batch = file.slice_ref(bytes);
        if !crc_ok(&batch) {
            return Err(SnapshotError::Crc(header.base_offset).into());
        }
        if header.base_offset != next || whole {
            return Err(SnapshotError::Order(header.base_offset).into());
        }
        next = header.last_offset().plus(1);
        if header.attributes.is_control() {
            for record in read_control_batch(&batch).map_err(SnapshotError::from)? {
                whole |= apply_control(&mut head, record)?;
            }
        } else {
            head.as_ref().ok_or(SnapshotError::NoHeader)?;
            data_values(&batch, &header, &mut each)?;
        }
    }
    match head {
        None => Err(SnapshotError::NoHeader.into()),
        Some(_) if !whole => Err(SnapshotError::NoFooter.into()),
        Some(head) => Ok(head),
    }
}

/// Notes what a control record says; returns whether it was the footer.
fn apply_control(
    head: &mut Option<SnapshotHead>,
    record: ControlRecord,
) -> Result<bool, SnapshotError> {
    let known = head.as_mut().ok_or(SnapshotError::NoHeader);
    match record {
        ControlRecord::SnapshotHeader(record) => {
            let last_contained_log_timestamp = Timestamp(record.last_contained_log_timestamp);
            *head =
                Some(SnapshotHead { last_contained_log_timestamp, kraft_version: 0, voters: None });
        }
        ControlRecord::KraftVersion(record) => known?.kraft_version = record.kraft_version,
        ControlRecord::KraftVoters(record) => known?.voters = Some(record),
        ControlRecord::SnapshotFooter(_) => return known.map(|_| true),
        ControlRecord::LeaderChange(_) | ControlRecord::Other => {}
    }
    Ok(false)
}

/// The values of a data batch, as the metadata log allows them: no keys, no headers, no nulls.
pub fn data_values<E: From<SnapshotError>>(
    batch: &Bytes,
    header: &BatchHeader,
    each: &mut impl FnMut(Bytes) -> Result<(), E>,
) -> Result<(), E> {
    for record in records(batch, &Limits::default()).map_err(SnapshotError::from)? {
        let record = record.map_err(SnapshotError::from)?;
        let plain = record.key.is_none() && record.headers.is_empty();
        match record.value {
            Some(value) if plain && record.timestamp == header.base_timestamp => each(value)?,
            _ => return Err(SnapshotError::Record(record.offset).into()),
        }
    }
    Ok(())
}

/// A file that is no whole snapshot, or a batch that no metadata log has.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A control record is damaged.
    #[error("a control record: {0}")]
    Control(String),
    /// A batch's checksum is wrong.
    #[error("the batch at offset {0} has a wrong CRC")]
    Crc(Offset),
    /// A batch does not follow the one before it, or the footer.
    #[error("the batch at offset {0} is out of order")]
    Order(Offset),
    /// The first record is no header.
    #[error("there is no snapshot header")]
    NoHeader,
    /// The file ends before its footer.
    #[error("there is no snapshot footer: the file is not whole")]
    NoFooter,
    /// A data record with a key, headers, a time of its own, or without a value.
    #[error("the record at offset {0} is no metadata record")]
    Record(Offset),
}

impl From<ControlError> for SnapshotError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Batch(error) => Self::Batch(error),
            ControlError::Record(error) => Self::Control(alloc::format!("{error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        let id = SnapshotId { end: Offset(60), epoch: LeaderEpoch(1) };
        assert_eq!(alloc::format!("{id}"), "00000000000000000060-0000000001.checkpoint");
        assert_eq!(
            SnapshotId::from_file_name("00000000000000000060-0000000001.checkpoint"),
            Some(id)
        );
        for other in [
            "bootstrap.checkpoint",
            "00000000000000000060-0000000001.checkpoint.deleted",
            "00000000000000000060-0000000001-123.checkpoint.part",
            "60-1.checkpoint",
            "0000000000000000006x-0000000001.checkpoint",
        ] {
            assert_eq!(SnapshotId::from_file_name(other), None, "{other}");
        }
    }

    fn file(values: &[&[u8]], quorum: Option<(i16, &KraftVoters)>) -> Bytes {
        let (mut writer, first) =
            SnapshotWriter::new(LeaderEpoch(3), Timestamp(7), quorum, Timestamp(9));
        let mut file = first.to_vec();
        for value in values {
            file.extend(writer.push(value).into_iter().flatten());
        }
        file.extend(writer.finish().into_iter().flatten());
        file.into()
    }

    fn read(file: &Bytes) -> Result<(SnapshotHead, Vec<Bytes>), SnapshotError> {
        let mut values = Vec::new();
        let head = read_snapshot::<SnapshotError>(file, |value| {
            values.push(value);
            Ok(())
        })?;
        Ok((head, values))
    }

    #[test]
    fn files_go_there_and_back() {
        let voters = KraftVoters::default();
        let (head, values) = read(&file(&[b"a", b"b"], Some((1, &voters)))).unwrap();
        assert_eq!((head.kraft_version, head.voters), (1, Some(voters)));
        assert_eq!(head.last_contained_log_timestamp, Timestamp(7));
        assert_eq!(values, [Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert!(read(&file(&[], None)).unwrap().1.is_empty());
    }

    #[test]
    fn full_batches_are_cut() {
        let half = alloc::vec![1; BATCH_BYTES_MAX / 2];
        let file = file(&[&half, &half, &half], None);
        assert_eq!(batches(&file).count(), 5, "a value each, header and footer");
        assert_eq!(read(&file).unwrap().1.len(), 3);
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_is_refused() {
        let whole = file(&[b"a"], None);
        let mut parts = Vec::new();
        for batch in batches(&whole) {
            parts.push(whole.slice_ref(batch.unwrap().2));
        }
        let [header, data, footer] = &parts[..] else { panic!("three batches") };
        let joined = |parts: &[&Bytes]| {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            read(&bytes.into()).unwrap_err()
        };
        assert_eq!(joined(&[header, data]), SnapshotError::NoFooter);
        assert_eq!(joined(&[header, footer]), SnapshotError::Order(Offset(2)));
        assert_eq!(joined(&[data, footer]), SnapshotError::Order(Offset(1)));
        assert_eq!(joined(&[]), SnapshotError::NoHeader);
        let mut bad = data.to_vec();
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(joined(&[header, &bad.into(), footer]), SnapshotError::Crc(Offset(1)));
        let cut = whole.slice(..whole.len() - 1);
        assert!(matches!(read(&cut), Err(SnapshotError::Batch(BatchError::Truncated { .. }))));
    }
}
