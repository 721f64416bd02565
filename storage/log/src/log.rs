//! One log as a whole: where a batch goes, when a segment ends, what may be forgotten.
//!
//! Pure: the shell keeps the bytes and the files, and does what is returned here. Invariants: base
//! offsets grow from segment to segment; `log_start <= log_end`; a segment is only given up when
//! all of it is below what the caller says is durable.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use flowstone_batch::{BatchHeader, Origin};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use crate::config::LogConfig;
use crate::epochs::Epochs;
use crate::index::{OffsetIndex, TimeIndex};
use crate::producers::{Outcome, ProducerError, ProducerState};
use crate::segment::{Active, Segment};

/// One partition's log.
pub struct Log {
    config: Arc<LogConfig>,
    jitter_seed: u64,
    sealed: Vec<Segment>,
    active: Active,
    start: Offset,
    end: Offset,
    /// Which leader epoch began where.
    pub epochs: Epochs,
    /// What idempotent producers wrote.
    pub producers: ProducerState,
}

/// What recovery (or nothing, for a new log) found.
pub struct Opened {
    /// Sealed segments, by base offset.
    pub sealed: Vec<Segment>,
    /// The last segment, which goes on.
    pub active: Active,
    /// The first offset that may be read.
    pub start: Offset,
    /// The offset the next record gets.
    pub end: Offset,
    /// Leader epochs.
    pub epochs: Epochs,
    /// Producers.
    pub producers: ProducerState,
}

impl Opened {
    /// A log in which nothing was ever written.
    pub fn empty(now: Timestamp) -> Self {
        Self {
            sealed: Vec::new(),
            active: Active::new(Offset::ZERO, now),
            start: Offset::ZERO,
            end: Offset::ZERO,
            epochs: Epochs::default(),
            producers: ProducerState::default(),
        }
    }
}

/// Where an appended batch went.
#[derive(Debug)]
pub struct Placed {
    /// Its first offset.
    pub base_offset: Offset,
    /// Its last offset.
    pub last_offset: Offset,
    /// Position in the segment that is active now.
    pub position: u64,
    /// The segment that ended before it, to be stored.
    pub sealed: Option<Sealed>,
}

/// A batch that was appended before, by the same producer with the same sequence numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duplicate {
    /// The first offset it got then.
    pub base_offset: Offset,
    /// The last offset it got then.
    pub last_offset: Offset,
    /// Its largest timestamp then.
    pub timestamp: Timestamp,
}

/// What became of an append.
#[derive(Debug)]
pub enum Appended {
    /// It has its place now.
    Placed(Placed),
    /// It has had its place before; nothing is to be written.
    Duplicate(Duplicate),
}

/// Why a batch is not appended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The rules of idempotent producers.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// It was sent in a leader epoch that has passed.
    #[error("leader epoch {got} is over, the log is in {latest}")]
    Epoch {
        /// The epoch of the append.
        got: LeaderEpoch,
        /// The log's latest epoch.
        latest: LeaderEpoch,
    },
}

/// A segment that ended, and all that is to be stored of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Its description; `bytes` is what its file is to be cut to.
    pub segment: Segment,
    /// Its offset index.
    pub index: OffsetIndex,
    /// Its time index.
    pub times: TimeIndex,
    /// Base of the segment after it, to which the producer snapshot belongs.
    pub next: Offset,
    /// The producer snapshot at `next`.
    pub snapshot: Vec<u8>,
    /// The leader epoch checkpoint, where it changed.
    pub epochs: Option<String>,
}

/// What retention wants next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expired {
    /// Nothing is too old or too much.
    Nothing,
    /// To judge the segment at this base, its time index must be looked at: see [`Log::dated`].
    Undated(Offset),
    /// All of the active segment is: it must end first, see [`Log::roll`].
    Active,
    /// So many segments, the oldest ones: see [`Log::forget`].
    Oldest(usize),
}

/// Where a segment with a wanted offset is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// The segment.
    pub base: Offset,
    /// Bytes of batches in it, those not yet written included.
    pub bytes: u64,
    /// Base of the segment after it; `None` for the active one.
    pub next: Option<Offset>,
}

impl Log {
    /// A log as found. `jitter_seed` spreads `segment.jitter.ms`.
    pub fn new(config: Arc<LogConfig>, jitter_seed: u64, opened: Opened) -> Self {
        let Opened { sealed, active, start, end, epochs, producers } = opened;
        assert!(sealed.is_sorted_by(|a, b| a.base < b.base));
        assert!(sealed.last().is_none_or(|last| last.base < active.base));
        assert!(start <= end);
        assert!(active.base <= end);
        Self { config, jitter_seed, sealed, active, start, end, epochs, producers }
    }

    /// The configs in force.
    pub fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    /// Puts other configs in force.
    pub fn reconfigure(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// The first offset that may be read.
    pub const fn start(&self) -> Offset {
        self.start
    }

    /// The offset the next record gets.
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// The segment that is written to.
    pub const fn active(&self) -> &Active {
        &self.active
    }

    /// The segments that are not, by base offset.
    pub fn sealed(&self) -> &[Segment] {
        &self.sealed
    }

    /// Bytes of batches in all segments.
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.active.bytes
    }

    /// This node leads from here on: `epoch` begins at the log's end, though no batch is in it yet
    /// (Kafka's `maybeAssignEpochStartOffset`). Nothing where it is known.
    pub fn lead(&mut self, epoch: LeaderEpoch) {
        if self.epochs.latest().is_none_or(|latest| latest < epoch) {
            self.epochs.assign(epoch, self.end);
        }
    }

    /// Gives a checked batch its place. The caller stamps and writes it there.
    pub fn append(
        &mut self,
        header: &BatchHeader,
        origin: Origin,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Appended, Refused> {
        if let Some(latest) = self.epochs.latest()
            && epoch < latest
        {
            return Err(Refused::Epoch { got: epoch, latest });
        }
        match self.producers.check(header, origin, self.end)? {
            Outcome::Append => {}
            Outcome::Duplicate { base_offset, last_offset, timestamp } => {
                return Ok(Appended::Duplicate(Duplicate { base_offset, last_offset, timestamp }));
            }
        }
        let base_offset = self.end;
        let header = BatchHeader { base_offset, leader_epoch: epoch, ..*header };
        let last_offset = header.last_offset();
        let must_roll = self.active.must_roll(
            &self.config,
            self.jitter_ms(),
            now,
            header.total_len(),
            last_offset,
            header.max_timestamp,
        );
        let sealed = must_roll.then(|| self.roll(now));
        self.producers.apply(&header, base_offset, now);
        self.epochs.assign(epoch, base_offset);
        let position = self.active.bytes;
        self.active.push(&header, self.config.index_interval_bytes);
        self.end = last_offset.plus(1);
        Ok(Appended::Placed(Placed { base_offset, last_offset, position, sealed }))
    }

    /// Ends the active segment and begins one at the log's end.
    pub fn roll(&mut self, now: Timestamp) -> Sealed {
        assert!(self.active.bytes > 0, "an empty segment has nothing to seal");
        let ended = core::mem::replace(&mut self.active, Active::new(self.end, now));
        let (segment, index, times) = ended.seal(now);
        self.sealed.push(segment);
        let (snapshot, epochs) = (self.producers.snapshot(), self.epochs.take_dirty());
        Sealed { segment, index, times, next: self.end, snapshot, epochs }
    }

    /// This segment's share of `segment.jitter.ms`.
    fn jitter_ms(&self) -> i64 {
        // splitmix64's finish: neighbours differ in all bits.
        let mut bits = self.jitter_seed ^ self.active.base.0 as u64;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let range = self.config.segment_jitter_ms.min(self.config.segment_ms).max(0) as u64;
        ((bits ^ (bits >> 31)) % (range + 1)) as i64
    }

    /// The segment in which to look for `offset`; the first one for what is before it.
    pub fn locate(&self, offset: Offset) -> Located {
        if offset >= self.active.base {
            return Located { base: self.active.base, bytes: self.active.bytes, next: None };
        }
        let after = self.sealed.partition_point(|segment| segment.base <= offset);
        let at = after.saturating_sub(1);
        let Some(segment) = self.sealed.get(at) else {
            return Located { base: self.active.base, bytes: self.active.bytes, next: None };
        };
        let next = self.sealed.get(at + 1).map_or(self.active.base, |next| next.base);
        Located { base: segment.base, bytes: segment.bytes, next: Some(next) }
    }

    /// Raises the log's start (DeleteRecords), to `durable` at most; returns where it is now.
    pub fn advance_start(&mut self, to: Offset, durable: Offset) -> Offset {
        self.start = self.start.max(to.min(durable).min(self.end));
        self.epochs.truncate_from_start(self.start);
        self.start
    }

    /// Section 3.5: what may go, by log start, then by size, then by age; only from the front, and
    /// only what is below `durable`.
    pub fn expired(&self, now: Timestamp, durable: Offset) -> Expired {
        let next_of =
            |at: usize| self.sealed.get(at + 1).map_or(self.active.base, |next| next.base);
        let mut count = 0;
        while count < self.sealed.len() && next_of(count) <= self.start {
            count += 1;
        }
        if self.config.delete {
            let limit = self.config.retention_bytes;
            let left: u64 =
                self.sealed[count..].iter().map(|s| s.bytes).sum::<u64>() + self.active.bytes;
            let mut excess = if limit < 0 { -1 } else { left as i64 - limit };
            while count < self.sealed.len() && excess >= self.sealed[count].bytes as i64 {
                excess -= self.sealed[count].bytes as i64;
                count += 1;
            }
            let too_old = |at: Timestamp| {
                let age = now.0.saturating_sub(at.0);
                self.config.retention_ms >= 0 && age > self.config.retention_ms
            };
            while let Some(segment) = self.sealed.get(count)
                && self.config.retention_ms >= 0
            {
                match segment.age_by() {
                    None => return Expired::Undated(segment.base),
                    Some(at) if too_old(at) => count += 1,
                    Some(_) => break,
                }
            }
            let active = self.active.describe(self.active.created);
            if count == self.sealed.len() && active.bytes > 0 && self.end <= durable {
                let by_size = limit >= 0 && excess >= active.bytes as i64;
                if by_size || active.age_by().is_some_and(too_old) {
                    return Expired::Active;
                }
            }
        }
        while count > 0 && next_of(count - 1) > durable {
            count -= 1;
        }
        if count == 0 { Expired::Nothing } else { Expired::Oldest(count) }
    }

    /// Tells what the time index of the segment at `base` ends with.
    pub fn dated(&mut self, base: Offset, largest: Option<crate::TimestampOffset>) {
        if let Ok(at) = self.sealed.binary_search_by_key(&base, |segment| segment.base) {
            self.sealed[at].largest = Some(largest);
        }
    }

    /// Gives up the `count` oldest segments; the log starts behind them.
    pub fn forget(&mut self, count: usize) -> Vec<Segment> {
        let gone: Vec<Segment> = self.sealed.drain(..count).collect();
        let first = self.sealed.first().map_or(self.active.base, |segment| segment.base);
        self.start = self.start.max(first);
        self.epochs.truncate_from_start(self.start);
        gone
    }
}
