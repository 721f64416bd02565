//! The newest batches of a log, as they were written: served without a copy and without a read.
//!
//! A run is what one write wrote: whole batches, in memory that starts with the page in which the
//! write began. So its first bytes repeat the end of the run before it, and a small run inside one
//! page is swallowed by the next. Runs are immutable: a page under DMA never changes.

use std::collections::VecDeque;

use bytes::Bytes;
use flowstone_log::{CutEnd, OffsetIndex, Wanted, cut};
use flowstone_runtime::{Buffer, PAGE_BYTES};
use flowstone_types::{LeaderEpoch, Offset};

/// A batch that has its place and waits for its write.
pub struct Waiting {
    pub bytes: Bytes,
    pub base: Offset,
    pub last: Offset,
    pub epoch: LeaderEpoch,
}

/// What one write writes.
#[derive(Clone)]
pub struct Run {
    /// Base of its segment.
    pub segment: Offset,
    /// First offset.
    pub first: Offset,
    /// The offset after its last.
    pub next: Offset,
    /// Position of its first batch.
    pub start: u64,
    /// Position after its last batch.
    pub end: u64,
    /// Position of the first byte of `pages`: `start`, rounded down to a page.
    pub pages_at: u64,
    /// Whole pages: what was there before `start`, the batches, zeros.
    pub pages: Bytes,
}

impl Run {
    /// Copies batches into pages, stamped with their offsets and epochs. `before` is what the first
    /// page holds in front of `start`. The zeros at the end make sure that recovery finds nothing
    /// behind the last batch, whatever the disk held there.
    pub fn build(segment: Offset, start: u64, before: &[u8], batches: &[Waiting]) -> Self {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else {
            unreachable!("a write has something to write");
        };
        let bytes = before.len() + batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        let mut pages = Buffer::lasting(bytes);
        pages.extend_from_slice(before);
        for batch in batches {
            let at = pages.len();
            pages.extend_from_slice(&batch.bytes);
            flowstone_batch::stamp(&mut pages[at..], batch.base, batch.epoch);
        }
        pages.extend_with_zeros(bytes.next_multiple_of(PAGE_BYTES));
        let pages_at = start - before.len() as u64;
        assert!(pages_at.is_multiple_of(PAGE_BYTES as u64));
        let (first, next) = (first.base, last.last.plus(1));
        let end = pages_at + bytes as u64;
        Self { segment, first, next, start, end, pages_at, pages: pages.freeze() }
    }

    /// The run's batches.
    pub fn batches(&self) -> &[u8] {
        &self.pages[self.range()]
    }

    /// Their bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    fn range(&self) -> std::ops::Range<usize> {
        let at = |position: u64| (position - self.pages_at) as usize;
        at(self.start)..at(self.end)
    }

    /// Memory it holds.
    fn memory(&self) -> usize {
        self.pages.len()
    }
}

/// Runs that one write takes.
const WRITE_RUNS_MAX: usize = 512;

/// What one write brings to a segment.
pub struct Unwritten {
    /// Base of the segment.
    pub segment: Offset,
    /// Position of the first byte: of a page.
    pub at: u64,
    /// Whole pages that follow each other.
    pub parts: Vec<Bytes>,
    /// Position after the last batch.
    pub end: u64,
    /// The offset after it.
    pub next: Offset,
}

/// The runs of one log that are kept.
#[derive(Default)]
pub struct Tail {
    runs: VecDeque<Run>,
    memory: usize,
}

impl Tail {
    /// Memory all runs hold, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Adds what is being written now. Runs whose bytes it repeats whole are let go.
    pub fn push(&mut self, mut run: Run) {
        while let Some(last) = self.runs.back()
            && last.segment == run.segment
            && last.start >= run.pages_at
        {
            assert_eq!(last.end, run.start, "runs follow each other");
            (run.start, run.first) = (last.start, last.first);
            self.memory -= last.memory();
            self.runs.pop_back();
        }
        self.memory += run.memory();
        self.runs.push_back(run);
    }

    /// Lets the oldest run go, if its segment has it: `written` is where that ends. Returns whether it
    /// could.
    pub fn drop_oldest(&mut self, written: Offset) -> bool {
        let dropped = self.runs.pop_front_if(|run| run.next <= written);
        self.memory -= dropped.as_ref().map_or(0, Run::memory);
        dropped.is_some()
    }

    /// What is not in its segment, where that ends at `written`: as much as one write takes. All of it
    /// is of one segment: the next one is begun only once this one is whole.
    pub fn unwritten(&self, written: Offset) -> Option<Unwritten> {
        let from = self.runs.partition_point(|run| run.next <= written);
        let to = self.runs.len().min(from + WRITE_RUNS_MAX);
        let (first, last) = (self.runs.get(from)?, &self.runs[to - 1]);
        let mut parts = Vec::with_capacity(to - from);
        for (run, next) in self.runs.range(from..to).zip(self.runs.range(from + 1..to)) {
            assert_eq!(
                (run.segment, run.end),
                (next.segment, next.start),
                "runs follow each other"
            );
            // The page in which the next run begins is whole only there.
            let pages = (next.pages_at - run.pages_at) as usize;
            parts.extend((pages > 0).then(|| run.pages.slice(..pages)));
        }
        parts.push(last.pages.clone());
        let Run { segment, next, end, .. } = *last;
        Some(Unwritten { segment, at: first.pages_at, parts, end, next })
    }

    /// Forgets what is not below `end`.
    pub fn truncate(&mut self, end: Offset) {
        while let Some(run) = self.runs.pop_back_if(|run| run.first >= end) {
            self.memory -= run.memory();
        }
    }

    /// The bytes of the page that holds `position` of `segment`, up to it, if the last run has them.
    pub fn page_before(&self, segment: Offset, position: u64) -> Option<Bytes> {
        let last = self.runs.back()?;
        if last.segment != segment || last.end != position {
            return None;
        }
        let page = position - position % PAGE_BYTES as u64;
        Some(last.pages.slice((page - last.pages_at) as usize..(position - last.pages_at) as usize))
    }

    /// Whether the batch with `offset` is here.
    pub fn covers(&self, offset: Offset) -> bool {
        self.runs.front().is_some_and(|run| run.first <= offset)
            && self.runs.back().is_some_and(|run| offset < run.next)
    }

    /// The batches wanted, if the first of them is here. `index` is that of the segment at `active`.
    pub fn read(&self, wanted: Wanted, active: Offset, index: &OffsetIndex) -> Option<Vec<Bytes>> {
        if !self.covers(wanted.from) {
            return None;
        }
        let at = self.runs.partition_point(|run| run.first <= wanted.from) - 1;
        let (mut parts, mut left) = (Vec::new(), wanted.bytes_max);
        for run in self.runs.range(at..) {
            let mut batches = run.pages.slice(run.range());
            if parts.is_empty() && run.segment == active {
                let indexed = u64::from(index.floor(wanted.from));
                if (run.start..run.end).contains(&indexed) {
                    batches = batches.slice((indexed - run.start) as usize..);
                }
            }
            let at_least_one = wanted.at_least_one && parts.is_empty();
            let found = cut(&batches, Wanted { bytes_max: left, at_least_one, ..wanted }, None);
            left = left.saturating_sub(found.range.len());
            if !found.range.is_empty() {
                parts.push(batches.slice(found.range));
            }
            match found.end {
                CutEnd::Enough => break,
                CutEnd::Window(_) => {} // All of this run: on with the next.
                CutEnd::NoBatch => {
                    unreachable!("a run holds what was checked before it was appended")
                }
            }
        }
        Some(parts)
    }
}
