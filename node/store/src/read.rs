//! Reading: the tail from memory, older batches from disk, whole and checked before they are served.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use flowstone_log::{
    Active, CorruptIndex, CutEnd, FileKind, Located, OffsetIndex, Scanner, TimeIndex, Wanted, cut,
};
use flowstone_runtime::{Buffer, PAGE_BYTES, fs, spawn};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use crate::error::{Action, ReadError, StorageError};
use crate::log::{Health, Inner, Log, Pending};
use crate::scan::SegmentScan;

/// Least and most that one read from disk asks for: enough to be worth its cost, and the largest
/// pooled buffer. A single batch may need more.
const READ_BYTES_MIN: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// Whole batches, in order; a part may hold many, a batch may span parts.
#[derive(Clone, Debug, Default)]
pub struct ReadOut {
    /// The bytes.
    pub parts: Vec<Bytes>,
    /// How many they are.
    pub bytes: usize,
}

impl ReadOut {
    fn of(parts: Vec<Bytes>) -> Self {
        let bytes = parts.iter().map(Bytes::len).sum();
        Self { parts, bytes }
    }

    /// All of it in one piece, for whoever looks into batches; copied where there are several parts.
    fn joined(mut self) -> Bytes {
        if self.parts.len() == 1 { self.parts.remove(0) } else { self.parts.concat().into() }
    }
}

/// The indexes of a sealed segment.
pub(crate) struct Indexes {
    pub index: OffsetIndex,
    pub times: TimeIndex,
}

/// Where to look on disk.
struct Place {
    base: Offset,
    /// Bytes of the segment that are written.
    limit: u64,
    next: Option<Offset>,
    position: u64,
    /// The position is from an index file.
    is_indexed: bool,
}

impl Place {
    /// The offsets that the segment may hold.
    fn segment(&self) -> Range<Offset> {
        self.base..self.next.unwrap_or(Offset(i64::MAX))
    }
}

/// Bytes of a segment that follow what a reader was given.
pub(crate) struct Ahead {
    /// The segment, from its base up to the next one's.
    pub segment: Range<Offset>,
    pub position: u64,
    pub window: Bytes,
}

/// Whether a window at a position from the index starts as it must: with a batch at or before what
/// is wanted.
fn is_indexed_at(window: &[u8], from: Offset) -> bool {
    flowstone_batch::BatchHeader::parse(window).is_ok_and(|header| header.base_offset <= from)
}

impl Log {
    /// Whole batches from the one that holds `from` (or follows it, where compaction left a gap),
    /// below `below`: at most `bytes_max` bytes, yet at least one batch if `at_least_one`. Nothing
    /// at the log's end. May return less than there is.
    pub async fn read(
        &self,
        from: Offset,
        below: Offset,
        bytes_max: usize,
        at_least_one: bool,
    ) -> Result<ReadOut, ReadError> {
        let wanted = {
            let state = self.0.state.borrow();
            match &state.health {
                Health::Online | Health::Full => {}
                Health::Failed(error) => return Err(error.clone().into()),
                Health::Closed => return Err(ReadError::Closed),
            }
            let (start, end) = (state.core.start(), state.readable());
            if from < start || from > end {
                return Err(ReadError::OutOfRange { offset: from, start, end });
            }
            let wanted = Wanted { from, below: below.min(end), bytes_max, at_least_one };
            if from >= wanted.below {
                return Ok(ReadOut::default());
            }
            let active = state.core.active();
            if let Some(parts) = state.tail.read(wanted, active.base, &active.index) {
                let memory = state.tail.memory();
                drop(state);
                self.0.shard.tail_used(self.0.id, memory);
                return Ok(ReadOut::of(parts));
            }
            if from >= state.written {
                return Ok(ReadOut::of(waiting(&state.pending, wanted)));
            }
            // Behind `written`, the disk has nothing yet.
            Wanted { below: wanted.below.min(state.written), ..wanted }
        };
        self.0.read_disk(wanted).await
    }

    /// The first record at or after `timestamp`: its offset, its timestamp, and the epoch of its
    /// batch. Looks below `below` only.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: Timestamp,
        below: Offset,
    ) -> Result<Option<(Offset, Timestamp, LeaderEpoch)>, ReadError> {
        let log = &self.0;
        let mut from = log.state.borrow().core.start();
        loop {
            // The first segment that holds such a timestamp, and where in it to start.
            let (located, start) = {
                let state = log.state.borrow();
                (state.core.locate(from), state.core.start())
            };
            let times = log.times_of(located).await?;
            let largest = times.last();
            if largest.is_none_or(|largest| largest.timestamp < timestamp) {
                match located.next {
                    Some(next) => from = next,
                    None => return Ok(None),
                }
                continue;
            }
            let mut at = times.floor(timestamp).max(start);
            while at < below {
                let found = self.read(at, below, READ_BYTES_MAX, true).await?;
                if found.bytes == 0 {
                    return Ok(None);
                }
                match record_at(&found.joined(), timestamp, start) {
                    Some(Ok(hit)) => return Ok(Some(hit)),
                    Some(Err(next)) => at = next,
                    None => return Err(log.corrupt(located.base, 0, at)),
                }
            }
            return Ok(None);
        }
    }

    /// The record with the largest timestamp (the first of them): its offset, timestamp and epoch.
    pub async fn offset_of_max_timestamp(
        &self,
        below: Offset,
    ) -> Result<Option<(Offset, Timestamp, LeaderEpoch)>, ReadError> {
        let mut from = self.0.state.borrow().core.start();
        let mut best: Option<flowstone_log::TimestampOffset> = None;
        loop {
            let located = self.0.state.borrow().core.locate(from);
            if let Some(largest) = self.0.times_of(located).await?.last()
                && best.is_none_or(|best| largest.timestamp > best.timestamp)
            {
                best = Some(largest);
            }
            match located.next {
                Some(next) => from = next,
                None => break,
            }
        }
        match best {
            Some(best) => self.offset_for_timestamp(best.timestamp, below).await,
            None => Ok(None),
        }
    }
}

/// Looks through whole batches for the first record at or after `timestamp` and not before `start`:
/// the record, or the offset after the last batch; `None` where records do not decode.
fn record_at(
    batches: &Bytes,
    timestamp: Timestamp,
    start: Offset,
) -> Option<Result<(Offset, Timestamp, LeaderEpoch), Offset>> {
    let mut next = start;
    for batch in flowstone_batch::batches(batches) {
        let (position, header, bytes) = batch.ok()?;
        next = header.last_offset().plus(1);
        if header.max_timestamp < timestamp || next <= start || header.attributes.is_control() {
            continue;
        }
        let whole = batches.slice(position..position + bytes.len());
        for record in flowstone_batch::records(&whole, &flowstone_batch::Limits::default()).ok()? {
            let record = record.ok()?;
            if record.timestamp >= timestamp && record.offset >= start {
                return Some(Ok((record.offset, record.timestamp, header.leader_epoch)));
            }
        }
    }
    Some(Err(next))
}

/// Batches that wait for their write: what `memory` mode may serve before it is on disk.
fn waiting(pending: &std::collections::VecDeque<Pending>, wanted: Wanted) -> Vec<Bytes> {
    let (mut parts, mut left) = (Vec::new(), wanted.bytes_max);
    for item in pending {
        let Pending::Batch(batch) = item else { continue };
        if batch.last < wanted.from {
            continue;
        }
        let fits = batch.bytes.len() <= left || (parts.is_empty() && wanted.at_least_one);
        if batch.last >= wanted.below || !fits {
            break;
        }
        let mut stamped = Buffer::with_capacity(batch.bytes.len());
        stamped.extend_from_slice(&batch.bytes);
        flowstone_batch::stamp(&mut stamped, batch.base, batch.epoch);
        left = left.saturating_sub(stamped.len());
        parts.push(stamped.freeze());
    }
    parts
}

impl Inner {
    async fn read_disk(self: &Rc<Self>, wanted: Wanted) -> Result<ReadOut, ReadError> {
        if let Some(out) = self.read_ahead(wanted).await? {
            return Ok(out);
        }
        let mut place = self.place(wanted.from).await?;
        let mut read_bytes = (wanted.bytes_max + PAGE_BYTES).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        let mut is_index_believed = true;
        loop {
            if place.position >= place.limit {
                // A gap at the segment's end: what is wanted comes first in the next one.
                let Some(next) = place.next else { return Ok(ReadOut::default()) };
                place = self.place(next).await?;
                continue;
            }
            let window = self.window(&place, read_bytes).await?;
            if place.is_indexed && !is_indexed_at(&window, wanted.from) {
                // The index leads into the middle of a batch, or past what is wanted.
                if !std::mem::take(&mut is_index_believed) {
                    return Err(self.corrupt(place.base, place.position, wanted.from));
                }
                self.rebuild_indexes(place.base, place.limit).await?;
                place = self.place(wanted.from).await?;
                continue;
            }
            let found = cut(&window, wanted, Some(&place.segment()));
            let at = place.position + found.range.end as u64;
            if !found.range.is_empty() {
                let rest = Ahead {
                    segment: place.segment(),
                    position: at,
                    window: window.slice(found.range.end..),
                };
                self.shard.keep_ahead(self.id, found.next, rest);
                return Ok(ReadOut::of(vec![window.slice(found.range)]));
            }
            match found.end {
                CutEnd::Enough => return Ok(ReadOut::default()),
                CutEnd::Window(bytes) if at == place.limit || at + bytes as u64 <= place.limit => {
                    (place.position, place.is_indexed) = (at, false);
                    read_bytes = read_bytes.max(bytes + PAGE_BYTES);
                }
                CutEnd::Window(_) | CutEnd::NoBatch => {
                    return Err(self.corrupt(place.base, at, wanted.from));
                }
            }
        }
    }

    /// What was read ahead for whoever read up to `wanted.from`, if it is enough for an answer. The
    /// next piece is then read while this one is consumed.
    async fn read_ahead(self: &Rc<Self>, wanted: Wanted) -> Result<Option<ReadOut>, ReadError> {
        let Some(ahead) = self.shard.take_ahead(self.id, wanted.from).await else {
            return Ok(None);
        };
        let found = cut(&ahead.window, wanted, Some(&ahead.segment));
        if found.range.is_empty() {
            return Ok(None); // A piece of a batch, or damage: looked at again with what follows.
        }
        let part = ahead.window.slice(found.range.clone());
        let rest = Ahead {
            segment: ahead.segment,
            position: ahead.position + found.range.end as u64,
            window: ahead.window.slice(found.range.end..),
        };
        let limit = self.limit(rest.segment.start);
        if rest.window.len() >= wanted.bytes_max
            || rest.position + rest.window.len() as u64 >= limit
        {
            self.shard.keep_ahead(self.id, found.next, rest);
        } else {
            let loading = self.shard.begin_ahead(self.id, found.next);
            let (log, next) = (self.clone(), found.next);
            spawn(async move {
                let place = Place {
                    base: rest.segment.start,
                    limit,
                    next: None,
                    position: rest.position,
                    is_indexed: false,
                };
                let window = log.window(&place, READ_BYTES_MAX - PAGE_BYTES).await;
                let ahead = window.ok().map(|window| Ahead { window, ..rest });
                log.shard.end_ahead(log.id, next, ahead, &loading);
            });
        }
        Ok(Some(ReadOut::of(vec![part])))
    }

    fn is_closed(&self) -> bool {
        matches!(self.state.borrow().health, Health::Closed)
    }

    /// Bytes of a segment that are written.
    fn limit(&self, base: Offset) -> u64 {
        let state = self.state.borrow();
        if base == state.writer.base {
            state.writer.position
        } else {
            state.core.locate(base).bytes
        }
    }

    /// Where on disk to start looking for `offset`.
    async fn place(self: &Rc<Self>, offset: Offset) -> Result<Place, ReadError> {
        let (Located { base, bytes, next }, known) = {
            let state = self.state.borrow();
            let mut located = state.core.locate(offset);
            if located.base == state.writer.base {
                located.bytes = state.writer.position;
            }
            let known = if offset <= located.base {
                Some(0)
            } else if located.base == state.core.active().base {
                Some(state.core.active().index.floor(offset))
            } else {
                state.sealing.get(&located.base).map(|sealed| sealed.index.floor(offset))
            };
            (located, known)
        };
        let position = match known {
            Some(position) => position,
            None => self.indexes(base, bytes).await?.index.floor(offset),
        };
        let is_indexed = known.is_none() && position > 0;
        Ok(Place { base, limit: bytes, next, position: u64::from(position), is_indexed })
    }

    /// Up to `bytes` of a segment from a position on.
    async fn window(self: &Rc<Self>, place: &Place, bytes: usize) -> Result<Bytes, ReadError> {
        let file = self.shard.file(self, place.base, false).await?;
        let page = place.position - place.position % PAGE_BYTES as u64;
        let skip = (place.position - page) as usize;
        let wanted = (skip + bytes).min((place.limit - page) as usize);
        let turn = self.shard.reading.acquire().await;
        let (result, buffer) = file.read_at(Buffer::lasting(wanted), page).await;
        drop(turn);
        if self.is_closed() {
            return Err(ReadError::Closed); // Its path may be another log's by now.
        }
        result.map_err(StorageError::io(Action::Read, &self.log_path(place.base)))?;
        let end = buffer.len().min((place.limit - page) as usize);
        if end <= skip {
            return Err(self.corrupt(place.base, place.position, Offset(-1)));
        }
        Ok(buffer.freeze().slice(skip..end))
    }

    /// The indexes of a sealed segment: kept, loaded, or (where the files are damaged) built again.
    pub async fn indexes(
        self: &Rc<Self>,
        base: Offset,
        bytes: u64,
    ) -> Result<Rc<Indexes>, ReadError> {
        if let Some(known) = self.shard.indexes.borrow_mut().get((self.id, base)) {
            return Ok(known.clone());
        }
        match self.load_indexes(base, bytes).await {
            Ok((index, times)) => Ok(self.shard.keep_indexes(self.id, base, index, times)),
            Err(_) if self.is_closed() => Err(ReadError::Closed),
            Err(error) => {
                tracing::warn!(log = %self.path.display(), %base, %error, "index is built again");
                self.rebuild_indexes(base, bytes).await
            }
        }
    }

    /// Builds the indexes of a sealed segment from its batches.
    async fn rebuild_indexes(
        self: &Rc<Self>,
        base: Offset,
        bytes: u64,
    ) -> Result<Rc<Indexes>, ReadError> {
        let (_, index, times) = self.scan_sealed(base, bytes).await?.seal(Timestamp::NONE);
        self.write_file(FileKind::OffsetIndex, base, index.encode()).await?;
        self.write_file(FileKind::TimeIndex, base, times.encode()).await?;
        Ok(self.shard.keep_indexes(self.id, base, index, times))
    }

    async fn load_indexes(
        &self,
        base: Offset,
        bytes: u64,
    ) -> Result<(OffsetIndex, TimeIndex), StorageError> {
        let read = async |kind| {
            let path = self.file_path(base, kind);
            fs::read(&path).await.map_err(StorageError::io(Action::Read, &path))
        };
        let damaged = |kind| {
            let path = self.file_path(base, kind);
            |error: CorruptIndex| StorageError::Damaged { path, what: error.to_string() }
        };
        let (offsets, times) = (FileKind::OffsetIndex, FileKind::TimeIndex);
        let index =
            OffsetIndex::decode(base, &read(offsets).await?, bytes).map_err(damaged(offsets))?;
        let times = TimeIndex::decode(base, &read(times).await?).map_err(damaged(times))?;
        Ok((index, times))
    }

    /// Reads a sealed segment from front to back, for its indexes.
    async fn scan_sealed(self: &Rc<Self>, base: Offset, bytes: u64) -> Result<Active, ReadError> {
        let interval = self.state.borrow().core.config().index_interval_bytes;
        let mut segment = Active::new(base, Timestamp::NONE);
        let file = self.shard.file(self, base, false).await?;
        let mut scan =
            SegmentScan::open(file, self.log_path(base), Scanner::new(base, 0, base, bytes, true));
        while let Some((header, _)) = scan.next().await? {
            segment.push(&header, interval);
        }
        if segment.bytes < bytes {
            return Err(self.corrupt(base, segment.bytes, base));
        }
        Ok(segment)
    }

    /// The time index of a located segment, with its largest timestamp as the last entry.
    async fn times_of(self: &Rc<Self>, located: Located) -> Result<TimeIndex, ReadError> {
        {
            let state = self.state.borrow();
            let active = state.core.active();
            if located.base == active.base {
                return Ok(active.clone().seal(Timestamp::NONE).2);
            }
            if let Some(sealed) = state.sealing.get(&located.base) {
                return Ok(sealed.times.clone());
            }
        }
        Ok(self.indexes(located.base, located.bytes).await?.times.clone())
    }

    pub fn corrupt(&self, base: Offset, position: u64, offset: Offset) -> ReadError {
        let path = self.log_path(base);
        tracing::error!(path = %path.display(), position, %offset, "corrupt batch: not served");
        ReadError::Corrupt { path, position, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_batch::BatchBuilder;

    #[test]
    fn a_record_is_found_by_its_time_in_a_batch_that_spans_parts() {
        let batch = |base: i64| {
            let mut batch = BatchBuilder::new(Offset(base));
            batch.push(Timestamp(base * 10), None, Some(b"first"), &[]);
            batch.push(Timestamp(base * 10 + 10), None, Some(b"second"), &[]);
            batch.build()
        };
        let bytes: Bytes = [batch(0), batch(2), batch(4)].concat().into();
        for at in [1, batch(0).len() + 61, bytes.len() - 1] {
            let out = ReadOut::of(vec![bytes.slice(..at), bytes.slice(at..)]);
            assert_eq!(out.bytes, bytes.len());
            let joined = out.joined();
            let found = record_at(&joined, Timestamp(35), Offset(0)).unwrap().unwrap();
            assert_eq!((found.0, found.1), (Offset(4), Timestamp(40)));
            assert_eq!(record_at(&joined, Timestamp(51), Offset(0)), Some(Err(Offset(6))));
        }
    }
}
