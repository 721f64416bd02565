//! One log's way to its segments: batches into pages, pages to disk, and the end of a segment.
//!
//! Separate from the group commit, which decides what goes when. Invariants: one write of a log at a
//! time; pages are built in the order of the log and stay in the tail until they are in their segment;
//! disk is taken before a batch is acknowledged, so that a full disk refuses and never forgets.

use std::rc::Rc;

use bytes::Bytes;
use flowstone_log::journal::checksum;
use flowstone_log::{Durability, Sealed};
use flowstone_runtime::{Buffer, File, PAGE_BYTES, wall_clock};
use flowstone_types::Offset;

use crate::error::{Action, StorageError};
use crate::home::make_durable;
use crate::log::{Health, Inner, Pending, State, Writer};
use crate::tail::{Run, Waiting};

/// Bytes of one log that one group takes, unless a single batch is larger: the largest pooled buffer.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// Bytes of one log from which on a group of it goes to its segment at once: a write of its own costs
/// little then, and the journal would only double it.
const DIRECT_BYTES_MIN: usize = 256 << 10;
/// First piece of disk a segment takes, and the largest step in which it grows by doubling: little
/// for a log that trickles, few extents for one that streams.
const GROW_BYTES_MIN: u64 = 16 << 10;
const GROW_BYTES_MAX: u64 = 32 << 20;

/// The pages of one log in a group.
pub struct Built {
    pub run: Run,
    /// Where it may go to the journal, the checksum that its batches have there.
    pub journaled: Option<u32>,
}

/// What a log's next write is.
enum Next {
    Nothing,
    Seal(Rc<Sealed>),
    /// So many batches, so many bytes.
    Batches(usize, usize),
}

impl State {
    fn next(&self) -> Next {
        if !matches!(self.health, Health::Online | Health::Full) {
            return Next::Nothing;
        }
        let (mut count, mut bytes) = (0, 0);
        for pending in &self.pending {
            match pending {
                Pending::Seal(sealed) if count == 0 => return Next::Seal(sealed.clone()),
                Pending::Seal(_) => break,
                Pending::Batch(batch) => {
                    if count > 0 && bytes + batch.bytes.len() > WRITE_BYTES_MAX - PAGE_BYTES {
                        break;
                    }
                    (count, bytes) = (count + 1, bytes + batch.bytes.len());
                }
            }
        }
        if count == 0 { Next::Nothing } else { Next::Batches(count, bytes) }
    }

    /// Takes `count` batches that [`State::next`] saw; fewer where the log was given up meanwhile.
    fn take(&mut self, count: usize) -> Vec<Waiting> {
        let mut batches = Vec::with_capacity(count);
        while batches.len() < count
            && let Some(Pending::Batch(_)) = self.pending.front()
            && let Some(Pending::Batch(batch)) = self.pending.pop_front()
        {
            batches.push(batch);
        }
        batches
    }

    /// Bytes that are built and not in their segment.
    pub fn unwritten_bytes(&self) -> u64 {
        self.built - self.writer.position
    }

    /// Whether a group of so many bytes may go to the journal.
    fn may_journal(&self, bytes: usize) -> bool {
        let mode = self.core.config().durability;
        // What a weaker mode wrote before is flushed first: in the journal, all below is durable.
        let is_flushed = self.flushed.max(self.journaled) >= self.written;
        bytes < DIRECT_BYTES_MIN && mode == Durability::Flushed && is_flushed
    }

    /// Whether what is written has to be flushed, as the log's mode wants it.
    pub fn wants_flush(&self) -> bool {
        let always = self.core.config().durability == Durability::Flushed;
        self.flushed < self.written
            && (always || self.flush_now || self.barrier.is_some_and(|at| at < self.written))
    }
}

impl Inner {
    /// Builds the pages of what waits, where that needs no disk.
    pub fn build_now(&self) -> Option<Built> {
        let mut state = self.state.borrow_mut();
        let Next::Batches(count, bytes) = state.next() else { return None };
        if !state.writer.created || state.built + bytes as u64 > state.writer.allocated {
            return None;
        }
        let before = state.page_in_memory()?;
        let batches = state.take(count);
        Some(self.built(&mut state, &before, &batches))
    }

    /// Builds the pages of what waits, at most one write's worth; ends segments that come before it.
    pub async fn build(self: Rc<Self>) -> Result<Option<Built>, StorageError> {
        loop {
            let next = self.state.borrow().next();
            let (count, bytes) = match next {
                Next::Nothing => return Ok(None),
                Next::Seal(sealed) => {
                    self.end_segment(&sealed).await?;
                    continue;
                }
                Next::Batches(count, bytes) => (count, bytes),
            };
            self.take_disk(bytes as u64).await?;
            let before = self.state.borrow().page_in_memory();
            let before = match before {
                Some(before) => before,
                None => self.read_page().await?,
            };
            let mut state = self.state.borrow_mut();
            let batches = state.take(count);
            if !batches.is_empty() {
                return Ok(Some(self.built(&mut state, &before, &batches)));
            }
        }
    }

    fn built(&self, state: &mut State, before: &[u8], batches: &[Waiting]) -> Built {
        let run = Run::build(state.writer.base, state.built, before, batches);
        // Now, while the processor's cache still has them.
        let journaled = state.may_journal(run.len()).then(|| checksum(run.batches()));
        // What was appended before the disk was full is in no room any more.
        let bytes = run.len().min(state.room_waiting);
        state.room_waiting -= bytes;
        state.room_in_flight += bytes;
        state.in_flight_bytes += run.len();
        state.built = run.end;
        state.tail.push(run.clone());
        self.shard.unwritten.set(self.shard.unwritten.get() + run.len() as u64);
        Built { run, journaled }
    }

    /// The start of the page in which the next run begins, of a log whose tail was let go.
    async fn read_page(&self) -> Result<Bytes, StorageError> {
        let (base, position) = {
            let state = self.state.borrow();
            (state.writer.base, state.built)
        };
        let in_page = position as usize % PAGE_BYTES;
        let file = self.shard.file(self, base, false).await?;
        let page = position - in_page as u64;
        let (result, buffer) = file.read_at(Buffer::with_capacity(PAGE_BYTES), page).await;
        let path = self.log_path(base);
        result.map_err(StorageError::io(Action::Read, &path))?;
        if buffer.len() < in_page {
            return Err(StorageError::Damaged {
                path,
                what: "shorter than what was written".into(),
            });
        }
        Ok(buffer.freeze().slice(..in_page))
    }

    /// Takes disk for `bytes` more of the segment, and for some beyond; makes its file where there is
    /// none.
    async fn take_disk(&self, bytes: u64) -> Result<(), StorageError> {
        let (base, from, end) = {
            let state = self.state.borrow();
            (state.writer.base, state.writer.allocated, state.built + bytes)
        };
        let path = self.log_path(base);
        let file = self.shard.file(self, base, true).await?;
        if !self.state.borrow().writer.created {
            // The file's name must be there before anything in it is acknowledged: nothing that is
            // journaled is put into a directory that a later topic of this name may have.
            make_durable(&self.shard.config.dirs[self.dir], &self.path).await?;
            self.state.borrow_mut().writer.created = true;
        }
        if end <= from {
            return Ok(());
        }
        let page = PAGE_BYTES as u64;
        let end = end.next_multiple_of(page);
        let segment_bytes = u64::from(self.state.borrow().core.config().segment_bytes);
        let step = from.clamp(GROW_BYTES_MIN, GROW_BYTES_MAX);
        let target = (from + step).min(segment_bytes.next_multiple_of(page)).max(end);
        let allocated = match allocate(&file, from, target).await {
            // Little space left: just what is needed, then.
            Err(error) if crate::error::out_of_space(&error) && target > end => {
                allocate(&file, from, end).await
            }
            allocated => allocated,
        };
        let allocated = allocated.map_err(StorageError::io(Action::Allocate, &path))?;
        self.state.borrow_mut().writer.allocated = allocated;
        Ok(())
    }

    /// Writes all that is built to its segment.
    pub async fn write(self: &Rc<Self>) -> Result<(), StorageError> {
        self.quiet(|state| !state.writing).await;
        self.state.borrow_mut().writing = true;
        let result = self.write_built().await;
        self.state.borrow_mut().writing = false;
        self.idle.notify_all();
        if result.is_ok() {
            let memory = self.state.borrow().tail.memory();
            self.shard.tail_used(self.id, memory);
        }
        result
    }

    async fn write_built(&self) -> Result<(), StorageError> {
        loop {
            let unwritten = {
                let state = self.state.borrow();
                if !matches!(state.health, Health::Online | Health::Full) {
                    return Ok(());
                }
                state.tail.unwritten(state.written)
            };
            let Some(unwritten) = unwritten else { return Ok(()) };
            let path = self.log_path(unwritten.segment);
            let file = self.shard.file(self, unwritten.segment, false).await?;
            let written = file.write_at(unwritten.parts, unwritten.at).await;
            written.map_err(StorageError::io(Action::Write, &path))?;
            let mut state = self.state.borrow_mut();
            if let Health::Failed(error) = &state.health {
                return Err(error.clone()); // Meanwhile: what was built is given up.
            }
            let bytes = unwritten.end - state.writer.position;
            self.shard.unwritten.set(self.shard.unwritten.get().saturating_sub(bytes));
            state.health.has_space();
            state.written = unwritten.next;
            state.writer.position = unwritten.end;
            state.unflushed_since.get_or_insert(wall_clock());
        }
    }

    /// Flushes the segment that is written to. One that fails ends the directory, before another can say yes:
    /// of two at once, the kernel tells one of the error, and the other lies (fsyncgate).
    pub async fn flush(self: &Rc<Self>) -> Result<(), StorageError> {
        self.quiet(|state| !state.flushing).await;
        let (base, written) = {
            let mut state = self.state.borrow_mut();
            if let Health::Failed(error) = &state.health {
                return Err(error.clone());
            }
            state.flushing = true;
            (state.writer.base, state.written)
        };
        let result = match self.shard.file(self, base, false).await {
            Ok(file) => {
                file.datasync().await.map_err(StorageError::io(Action::Flush, &self.log_path(base)))
            }
            Err(error) => Err(error),
        };
        // One that succeeded after another of its directory failed says nothing.
        let result = self.dir_failure().map_or(result, Err);
        match &result {
            Ok(()) => self.flushed(written),
            Err(error) => self.fail(error),
        }
        self.state.borrow_mut().flushing = false;
        self.idle.notify_all();
        result
    }

    /// Writes and, where the mode wants it, flushes.
    pub async fn write_through(self: Rc<Self>) -> Result<bool, StorageError> {
        self.write().await?;
        let wants_flush = self.state.borrow().wants_flush();
        if wants_flush {
            self.flush().await?;
        }
        Ok(wants_flush)
    }

    /// Returns once everything below `end` is flushed in its segment, or once the log is deleted. What
    /// fails is the log's trouble, too.
    pub async fn settle(self: Rc<Self>, end: Offset) -> Result<(), StorageError> {
        loop {
            {
                let state = self.state.borrow();
                match &state.health {
                    _ if state.flushed >= end => return Ok(()),
                    // At a shutdown, a log may be closed that failed before: the journal still has it.
                    Health::Closed if self.shard.closed.get() => return Err(StorageError::Closed),
                    Health::Closed => return Ok(()),
                    Health::Failed(error) => return Err(error.clone()),
                    Health::Online | Health::Full => {}
                }
            }
            let written = match self.write().await {
                Ok(()) => self.flush().await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.trouble(&error);
                return Err(error);
            }
        }
    }

    /// Notes that everything below `end` is flushed in its segment.
    pub fn flushed(&self, end: Offset) {
        let mut state = self.state.borrow_mut();
        state.flushed = state.flushed.max(end);
        state.unflushed_since = None;
        state.unflushed_records = state.core.end().0 - end.0;
        state.flush_now = false;
        // Batches behind `end` that asked for a flush still wait for theirs.
        state.barrier = state.last_barrier.filter(|at| *at >= end).map(|_| end);
    }

    /// The writer leaves a segment: flushed first in every mode, so that whatever is found in a
    /// later segment, this one is whole.
    async fn end_segment(self: &Rc<Self>, sealed: &Rc<Sealed>) -> Result<(), StorageError> {
        self.write().await?;
        let needs_flush = {
            let state = self.state.borrow();
            if !matches!(state.health, Health::Online | Health::Full) {
                return Ok(());
            }
            assert_eq!(state.writer.base, sealed.segment.base);
            assert_eq!(state.writer.position, sealed.segment.bytes);
            state.flushed < state.written
        };
        if needs_flush {
            self.flush().await?;
        }
        let mut state = self.state.borrow_mut();
        if matches!(state.pending.front(), Some(Pending::Seal(_))) {
            state.pending.pop_front();
            state.writer = Writer::new(sealed.next);
            state.built = 0;
            drop(state);
            self.store_sealed();
        }
        Ok(())
    }

    /// A write did not happen: wait for space, or give the log up.
    pub fn trouble(self: &Rc<Self>, error: &StorageError) {
        if !error.is_disk_full() {
            self.fail(error);
            return;
        }
        let mut state = self.state.borrow_mut();
        if !std::mem::replace(&mut state.queued, true) {
            self.shard.committers[self.dir].retry(self.clone());
        }
        if matches!(state.health, Health::Online) {
            tracing::warn!(log = %self.path.display(), "disk full: writing stops until there is space");
            state.health = Health::Full;
            // What waits here keeps no one else from writing.
            let waiting = state.room_waiting + state.room_in_flight;
            (state.room_waiting, state.room_in_flight) = (0, 0);
            drop(state);
            self.shard.room.give(waiting);
            self.watcher.stalled(error);
        }
    }
}

impl State {
    /// The start of the page in which the next run begins, if it is in memory.
    fn page_in_memory(&self) -> Option<Bytes> {
        let before = self.tail.page_before(self.writer.base, self.built);
        before.or_else(|| self.built.is_multiple_of(PAGE_BYTES as u64).then(Bytes::new))
    }
}

impl Health {
    /// A write found space.
    pub fn has_space(&mut self) {
        if matches!(self, Self::Full) {
            *self = Self::Online;
        }
    }
}

async fn allocate(file: &File, from: u64, to: u64) -> std::io::Result<u64> {
    match file.allocate(from, to - from).await {
        Ok(()) => Ok(to),
        // A file system without fallocate: writes extend the file, page by page, zeros included.
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(u64::MAX),
        Err(error) => Err(error),
    }
}
