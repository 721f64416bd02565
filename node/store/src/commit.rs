//! Group commit: one task per log directory writes for all logs of the shard, and flushes once.
//!
//! A cycle takes the logs that have something to write, submits one write for each, then one flush
//! for each file that needs it, and then tells the logs' watchers. What arrives meanwhile is the
//! next cycle: groups grow with the load by themselves. Invariants: one write in flight per log;
//! nothing is reported durable before its log's mode says so; a failed write or flush ends its log.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_log::{Durability, Sealed};
use flowstone_runtime::{Buffer, File, PAGE_BYTES, deadline, local::Notify, now, wall_clock};
use flowstone_types::Instant;

use crate::error::StorageError;
use crate::gather::gather;
use crate::log::{Health, Inner, Pending, Writer};
use crate::open::make_durable;
use crate::tail::{Run, Waiting};

/// Bytes of one log that one write takes, unless a single batch is larger: the largest pooled buffer.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// First piece of disk a segment takes, and the largest step in which it grows by doubling: little
/// for a log that trickles, few extents for one that streams.
const GROW_BYTES_MIN: u64 = 16 << 10;
const GROW_BYTES_MAX: u64 = 32 << 20;
/// How long until a write that found no space is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// The queue of one log directory's committer.
#[derive(Default)]
pub struct Committer {
    dirty: RefCell<Vec<Rc<Inner>>>,
    full: RefCell<Vec<Rc<Inner>>>,
    wake: Notify,
    stopped: Cell<bool>,
    /// Cycles so far, logs written and bytes written in them, and nanoseconds they took.
    pub stats: Cell<CommitStats>,
}

/// What the committers of a shard did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitStats {
    /// Groups written.
    pub groups: u64,
    /// Logs written to, summed over the groups.
    pub logs: u64,
    /// Bytes of batches written.
    pub bytes: u64,
    /// Files flushed.
    pub flushes: u64,
    /// Nanoseconds from taking a group to its last report, summed.
    pub nanos: u64,
    /// The same, of the slowest group.
    pub nanos_max: u64,
}

impl Committer {
    /// Notes that `log` has something to write or flush.
    pub fn queue(&self, log: Rc<Inner>) {
        self.dirty.borrow_mut().push(log);
        self.wake.notify_all();
    }

    /// Ends the task once its queue is empty.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.wake.notify_all();
    }

    /// The committer's life.
    pub async fn run(self: Rc<Self>) {
        loop {
            let woken = self.wake.notified();
            let logs = self.dirty.take();
            if !logs.is_empty() {
                self.cycle(logs).await;
                continue;
            }
            if self.stopped.get() {
                return;
            }
            let has_full = !self.full.borrow().is_empty();
            let retry_at = if has_full { now().after(FULL_RETRY) } else { Instant::NEVER };
            if deadline(retry_at, woken).await.is_none() {
                self.dirty.borrow_mut().append(&mut self.full.borrow_mut());
            }
        }
    }

    async fn cycle(&self, logs: Vec<Rc<Inner>>) {
        let began = now();
        for log in &logs {
            log.begin_commit();
        }
        let outcomes = gather(logs.clone(), |log| async move { log.write().await }).await;
        let mut to_flush = Vec::new();
        for (log, outcome) in logs.iter().zip(&outcomes) {
            match outcome {
                Ok(()) if log.wants_flush() => to_flush.push(log.clone()),
                Ok(()) => log.report(),
                Err(error) => log.trouble(error),
            }
        }
        let flushed = gather(to_flush.clone(), |log| async move { log.flush().await }).await;
        for (log, outcome) in to_flush.iter().zip(flushed) {
            match outcome {
                Ok(()) => log.report(),
                Err(error) => log.fail(&error),
            }
        }
        let mut bytes = 0;
        for log in &logs {
            bytes += log.end_commit();
            if log.is_full() {
                self.full.borrow_mut().push(log.clone());
            } else if log.wants_commit() {
                log.queue();
            }
        }
        let nanos = now().since(began).as_nanos() as u64;
        let mut stats = self.stats.get();
        stats.groups += 1;
        stats.logs += logs.len() as u64;
        stats.bytes += bytes as u64;
        stats.flushes += to_flush.len() as u64;
        stats.nanos += nanos;
        stats.nanos_max = stats.nanos_max.max(nanos);
        self.stats.set(stats);
    }
}

/// What a log's next write is.
enum Next {
    Nothing,
    Seal(Rc<Sealed>),
    Again(Run),
    Batches(Vec<Waiting>),
}

impl Inner {
    fn begin_commit(&self) {
        let mut state = self.state.borrow_mut();
        state.queued = false;
        state.busy = true;
        drop(state);
        self.report(); // In memory mode, what was appended since the last cycle.
    }

    /// Ends this log's part in the cycle; returns how many bytes it wrote.
    fn end_commit(&self) -> usize {
        let mut state = self.state.borrow_mut();
        state.busy = false;
        let written = std::mem::take(&mut state.in_flight_bytes);
        self.shard.room.give(std::mem::take(&mut state.room_in_flight));
        drop(state);
        self.idle.notify_all();
        written
    }

    fn is_full(&self) -> bool {
        matches!(self.state.borrow().health, Health::Full)
    }

    fn wants_commit(&self) -> bool {
        let state = self.state.borrow();
        let to_do = !state.pending.is_empty() || (state.flush_now && state.flushed < state.written);
        to_do && matches!(state.health, Health::Online)
    }

    fn wants_flush(&self) -> bool {
        let state = self.state.borrow();
        let always = state.core.config().durability == Durability::Flushed;
        state.flushed < state.written
            && (always || state.flush_now || state.barrier.is_some_and(|at| at < state.written))
    }

    fn next_write(&self) -> Next {
        let mut state = self.state.borrow_mut();
        if !matches!(state.health, Health::Online | Health::Full) {
            return Next::Nothing;
        }
        if let Some(run) = state.stuck.take() {
            return Next::Again(run);
        }
        let (mut batches, mut bytes) = (Vec::new(), 0);
        loop {
            match state.pending.front() {
                Some(Pending::Batch(batch)) => {
                    if bytes > 0 && bytes + batch.bytes.len() > WRITE_BYTES_MAX - PAGE_BYTES {
                        break;
                    }
                    bytes += batch.bytes.len();
                    if let Some(Pending::Batch(batch)) = state.pending.pop_front() {
                        batches.push(batch);
                    }
                }
                Some(Pending::Seal(sealed)) if batches.is_empty() => {
                    let sealed = sealed.clone();
                    state.pending.pop_front();
                    return Next::Seal(sealed);
                }
                Some(Pending::Seal(_)) | None => break,
            }
        }
        if batches.is_empty() { Next::Nothing } else { Next::Batches(batches) }
    }

    /// Writes what waits, at most one write's worth.
    async fn write(self: Rc<Self>) -> Result<(), StorageError> {
        loop {
            let run = match self.next_write() {
                Next::Nothing => return Ok(()),
                Next::Seal(sealed) => {
                    self.end_segment(&sealed).await?;
                    continue;
                }
                Next::Again(run) => run,
                Next::Batches(batches) => self.build(&batches).await?,
            };
            let result = self.write_run(&run).await;
            let mut state = self.state.borrow_mut();
            match result {
                Ok(()) => {
                    state.health = Health::Online;
                    state.written = run.next;
                    state.writer.position = run.end;
                    state.in_flight_bytes += (run.end - run.start) as usize;
                    state.unflushed_since.get_or_insert(wall_clock());
                    return Ok(());
                }
                Err(error) => {
                    // The same bytes go to the same place once there is space: no one was told yet
                    // that they are there.
                    state.stuck = Some(run);
                    return Err(error);
                }
            }
        }
    }

    /// Copies batches into the pages of their write.
    async fn build(&self, batches: &[Waiting]) -> Result<Run, StorageError> {
        let (writer, before) = {
            let state = self.state.borrow();
            (state.writer, state.tail.page_before(state.writer.base, state.writer.position))
        };
        let in_page = writer.position as usize % PAGE_BYTES;
        let before = match before {
            Some(before) => before,
            None if in_page == 0 => Bytes::new(),
            None => self.read_page(writer, in_page).await?,
        };
        let run = Run::build(writer.base, writer.position, &before, batches);
        let mut state = self.state.borrow_mut();
        let bytes = batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
        // What was appended before the disk was full is in no room any more.
        let bytes = bytes.min(state.room_waiting);
        state.room_waiting -= bytes;
        state.room_in_flight += bytes;
        state.tail.push(run.clone());
        let memory = state.tail.memory();
        drop(state);
        self.shard.tail_used(self.id, memory);
        Ok(run)
    }

    /// The start of the page in which the next write begins, of a log whose tail was let go.
    async fn read_page(&self, writer: Writer, in_page: usize) -> Result<Bytes, StorageError> {
        let file = self.shard.file(self, writer.base, false).await?;
        let page = writer.position - in_page as u64;
        let (result, buffer) = file.read_at(Buffer::with_capacity(PAGE_BYTES), page).await;
        let path = self.log_path(writer.base);
        result.map_err(StorageError::io("read", &path))?;
        if buffer.len() < in_page {
            return Err(StorageError::Damaged {
                path,
                what: "shorter than what was written".into(),
            });
        }
        Ok(buffer.freeze().slice(..in_page))
    }

    async fn write_run(&self, run: &Run) -> Result<(), StorageError> {
        let path = self.log_path(run.segment);
        let writer = self.state.borrow().writer;
        let file = self.shard.file(self, run.segment, true).await?;
        if !writer.created {
            // The file's name must be there before anything in it is acknowledged.
            make_durable(&self.shard.config.dirs[self.dir], &self.path).await?;
            self.state.borrow_mut().writer.created = true;
        }
        let end = run.pages_at + run.pages.len() as u64;
        if end > writer.allocated {
            let allocated = self.allocate(&file, &path, writer.allocated, end).await?;
            self.state.borrow_mut().writer.allocated = allocated;
        }
        file.write_at(vec![run.pages.clone()], run.pages_at)
            .await
            .map_err(StorageError::io("write", &path))
    }

    /// Takes disk for the segment up to `end` and beyond; returns how far it reaches now.
    async fn allocate(
        &self,
        file: &File,
        path: &std::path::Path,
        from: u64,
        end: u64,
    ) -> Result<u64, StorageError> {
        let page = PAGE_BYTES as u64;
        let segment_bytes = u64::from(self.state.borrow().core.config().segment_bytes);
        let step = from.clamp(GROW_BYTES_MIN, GROW_BYTES_MAX);
        let target = (from + step).min(segment_bytes.next_multiple_of(page)).max(end);
        match file.allocate(from, target - from).await {
            Ok(()) => Ok(target),
            // A file system without fallocate: writes extend the file, page by page, zeros included.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Ok(u64::MAX),
            // Little space left: just what is needed, then.
            Err(error) if crate::error::out_of_space(&error) && target > end => {
                file.allocate(from, end - from)
                    .await
                    .map_err(StorageError::io("allocate", path))?;
                Ok(end)
            }
            Err(error) => Err(StorageError::io("allocate", path)(error)),
        }
    }

    /// Flushes the segment that is written to.
    pub async fn flush(self: Rc<Self>) -> Result<(), StorageError> {
        let (base, written) = {
            let state = self.state.borrow();
            (state.writer.base, state.written)
        };
        let file = self.shard.file(&self, base, false).await?;
        file.datasync().await.map_err(StorageError::io("flush", &self.log_path(base)))?;
        self.flushed(written);
        Ok(())
    }

    /// Notes that everything below `end` is on stable storage.
    pub fn flushed(&self, end: flowstone_types::Offset) {
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
        let needs_flush = {
            let state = self.state.borrow();
            assert_eq!(state.writer.base, sealed.segment.base);
            assert_eq!(state.writer.position, sealed.segment.bytes);
            state.flushed < state.written
        };
        if needs_flush && let Err(error) = self.clone().flush().await {
            self.fail(&error);
            return Err(error);
        }
        self.state.borrow_mut().writer = Writer::new(sealed.next);
        self.store_sealed();
        Ok(())
    }

    /// A write did not happen: wait for space, or give the log up.
    fn trouble(self: &Rc<Self>, error: &StorageError) {
        if !error.is_disk_full() {
            self.fail(error);
            return;
        }
        let mut state = self.state.borrow_mut();
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
