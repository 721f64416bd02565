//! One segment: what is known of a sealed one, and the growing one with its indexes.
//!
//! The growing segment is built by the same function from appended batches and from batches that
//! recovery finds, so indexes rebuilt after a crash are those that would have been written.

use flowstone_batch::BatchHeader;
use flowstone_types::{Offset, Timestamp};

use crate::config::LogConfig;
use crate::index::{OffsetIndex, TimeIndex, TimestampOffset};

/// A segment that takes no more batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The offset in its file's name: no batch in it starts before.
    pub base: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// Its largest timestamp; outer `None` until the time index was looked at, inner `None` where
    /// no batch has one.
    pub largest: Option<Option<TimestampOffset>>,
    /// When its file was last written: stands in for a timestamp where no batch has one.
    pub modified: Timestamp,
}

impl Segment {
    /// What retention by time goes by, as Kafka's `largestTimestamp`.
    pub fn age_by(&self) -> Option<Timestamp> {
        self.largest.map(|largest| largest.map_or(self.modified, |l| l.timestamp))
    }
}

/// The segment that is written to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Active {
    /// As [`Segment::base`].
    pub base: Offset,
    /// Bytes of batches, those not yet written included.
    pub bytes: u64,
    /// Positions of batches by offset.
    pub index: OffsetIndex,
    /// Largest timestamps by offset.
    pub times: TimeIndex,
    /// The largest timestamp so far.
    pub largest: Option<TimestampOffset>,
    /// The first batch's largest timestamp: the segment's age counts from here.
    pub first_timestamp: Option<Timestamp>,
    /// When it was made: its age counts from here where batches have no timestamp.
    pub created: Timestamp,
    /// Position of the batch that was indexed last.
    last_indexed: u64,
}

impl Active {
    /// An empty segment.
    pub const fn new(base: Offset, created: Timestamp) -> Self {
        Self {
            base,
            bytes: 0,
            index: OffsetIndex::new(base),
            times: TimeIndex::new(base),
            largest: None,
            first_timestamp: None,
            created,
            last_indexed: 0,
        }
    }

    /// A segment that was closed cleanly and goes on: its indexes as stored, the rest as they say.
    /// `bytes` is where the last batch indexed starts; the caller adds the batches from there with
    /// [`Active::push`], which indexes none of them twice.
    pub fn reopened(
        index: OffsetIndex,
        times: TimeIndex,
        first: Timestamp,
        created: Timestamp,
    ) -> Self {
        let position = u64::from(index.last_position());
        let mut active = Self::new(times.base(), created);
        active.bytes = position;
        active.last_indexed = position;
        active.largest = times.last();
        active.first_timestamp = Some(first);
        active.index = index;
        active.times = times;
        active
    }

    /// Adds the batch with this header, whose offsets are final, at the segment's end.
    /// `interval` is `index.interval.bytes`.
    pub fn push(&mut self, header: &BatchHeader, interval: u32) {
        let last = header.last_offset();
        assert!(self.fits(last), "an offset that the indexes cannot hold");
        if self.bytes == 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if header.max_timestamp > self.largest.map_or(Timestamp::NONE, |l| l.timestamp) {
            self.largest = Some(TimestampOffset { timestamp: header.max_timestamp, offset: last });
        }
        if self.bytes - self.last_indexed > u64::from(interval) {
            self.index.push(last, self.bytes as u32);
            if let Some(largest) = self.largest {
                self.times.push(largest);
            }
            self.last_indexed = self.bytes;
        }
        self.bytes += header.total_len() as u64;
    }

    /// Whether a batch that ends with `last` can be in this segment: the indexes hold i32.
    pub fn fits(&self, last: Offset) -> bool {
        (0..=i64::from(i32::MAX)).contains(&(last.0 - self.base.0))
    }

    /// Section 3.4: whether a batch of `bytes`, `last` and `max_timestamp` must go to a new segment.
    /// `jitter_ms` is this segment's share of `segment.jitter.ms`.
    pub fn must_roll(
        &self,
        config: &LogConfig,
        jitter_ms: i64,
        now: Timestamp,
        bytes: usize,
        last: Offset,
        max_timestamp: Timestamp,
    ) -> bool {
        if self.bytes == 0 {
            return !self.fits(last);
        }
        let waited = match self.first_timestamp {
            Some(first) if first >= Timestamp(0) => max_timestamp.0.saturating_sub(first.0),
            _ => now.0.saturating_sub(self.created.0),
        };
        let index_bytes_max = config.segment_index_bytes as usize;
        self.bytes + bytes as u64 > u64::from(config.segment_bytes)
            || waited > config.segment_ms - jitter_ms
            || self.index.len() >= index_bytes_max / OffsetIndex::ENTRY_BYTES
            // One entry of the time index is kept for the seal.
            || self.times.len() + 1 >= index_bytes_max / TimeIndex::ENTRY_BYTES
            || !self.fits(last)
    }

    /// Ends the segment: its description, and its indexes as they are to be stored.
    pub fn seal(mut self, now: Timestamp) -> (Segment, OffsetIndex, TimeIndex) {
        if let Some(largest) = self.largest {
            self.times.push(largest);
        }
        let segment = self.describe(now);
        (segment, self.index, self.times)
    }

    /// What a sealed segment would be known by, were this one sealed now.
    pub fn describe(&self, modified: Timestamp) -> Segment {
        Segment { base: self.base, bytes: self.bytes, largest: Some(self.largest), modified }
    }
}
