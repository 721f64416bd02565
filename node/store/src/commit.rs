//! Group commit: one task per log directory writes for all logs of the shard.
//!
//! A cycle takes the logs that have something to write. Small groups go to the journal: one write for
//! all of them, after which they are durable; their segments are written later, in larger pieces.
//! Large groups, and those of logs that need no flush, go to their segments: one write each, in one
//! submission, and then one flush for each that needs it. Then the logs' watchers are told. What
//! arrives meanwhile is the next cycle: groups grow with the load by themselves. Invariants: nothing is
//! reported durable before its log's mode says so; a failed write or flush ends its directory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use flowstone_runtime::{deadline, local::Notify, now, spawn};
use flowstone_types::{Instant, Offset};

use crate::error::{Action, StorageError};
use crate::gather::gather;
use crate::journal::{Journal, Piece};
use crate::log::{Health, Inner};
use crate::write::Built;

/// Journaled bytes of one log at which they are written to its segment.
const WRITE_BACK_BYTES: u64 = 1 << 20;
/// Logs that are written back at once where memory runs short.
const WRITE_BACK_AT_ONCE: usize = 16;
/// How long until a write that found no space is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);

/// The queue of one log directory's committer.
pub struct Committer {
    pub journal: Rc<Journal>,
    dirty: RefCell<Vec<Rc<Inner>>>,
    full: RefCell<Vec<Rc<Inner>>>,
    wake: Notify,
    stopped: Cell<bool>,
    /// What it did so far.
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
    /// Groups that went to the journal, whole or in part.
    pub journaled: u64,
    /// Segments flushed.
    pub flushes: u64,
    /// Nanoseconds from taking a group to its last report, summed.
    pub nanos: u64,
    /// The same, of the slowest group.
    pub nanos_max: u64,
}

impl Committer {
    /// A committer with its journal.
    pub fn new(journal: Rc<Journal>) -> Self {
        Self {
            journal,
            dirty: RefCell::default(),
            full: RefCell::default(),
            wake: Notify::new(),
            stopped: Cell::new(false),
            stats: Cell::default(),
        }
    }

    /// Notes that `log` has something to write or flush.
    pub fn queue(&self, log: Rc<Inner>) {
        self.dirty.borrow_mut().push(log);
        self.wake.notify_all();
    }

    /// Notes that `log` found no space, and tries again later.
    pub fn retry(&self, log: Rc<Inner>) {
        self.full.borrow_mut().push(log);
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
                self.cycle(&logs).await;
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

    async fn cycle(&self, logs: &[Rc<Inner>]) {
        let began = now();
        for log in logs {
            log.begin_commit();
        }
        let (small, large) = self.build(logs).await;
        let mut stats = self.stats.get();
        let direct = if !small.is_empty() && self.journaled(&small).await {
            stats.journaled += 1;
            large
        } else {
            small.into_iter().map(|piece| piece.log).chain(large).collect()
        };
        let written = gather(direct.clone(), Inner::write_through).await;
        for (log, outcome) in direct.iter().zip(written) {
            match outcome {
                Ok(flushed) => {
                    stats.flushes += u64::from(flushed);
                    log.report();
                }
                Err(error) => log.trouble(&error),
            }
        }
        for log in logs {
            stats.bytes += log.end_commit() as u64;
            if log.wants_commit() {
                log.queue();
            }
        }
        let nanos = now().since(began).as_nanos() as u64;
        stats.groups += 1;
        stats.logs += logs.len() as u64;
        stats.nanos += nanos;
        stats.nanos_max = stats.nanos_max.max(nanos);
        self.stats.set(stats);
    }

    /// Builds the pages of a group: what may go to the journal, and which logs are to be written
    /// directly.
    async fn build(&self, logs: &[Rc<Inner>]) -> (Vec<Piece>, Vec<Rc<Inner>>) {
        let (mut small, mut large) = (Vec::with_capacity(logs.len()), Vec::new());
        let mut sort = |log: &Rc<Inner>, Built { run, journaled }: Built| {
            let log = log.clone();
            match journaled {
                Some(checksum) => small.push(Piece { log, run, checksum }),
                None => large.push(log),
            }
        };
        let mut left = Vec::new();
        for log in logs {
            match log.build_now() {
                Some(built) => sort(log, built),
                None => left.push(log.clone()),
            }
        }
        let built = gather(left.clone(), Inner::build).await;
        for (log, built) in left.iter().zip(built) {
            match built {
                Ok(Some(built)) => sort(log, built),
                Ok(None) => {}
                Err(error) => log.trouble(&error),
            }
        }
        // Nothing new, but something to be written again, or flushed.
        large.extend(left.into_iter().filter(|log| log.is_due()));
        (small, large)
    }

    /// Makes a group durable by the journal, if it takes it.
    async fn journaled(&self, pieces: &[Piece]) -> bool {
        if !self.journal.has_room(pieces) {
            return false;
        }
        if let Err(error) = self.journal.append(pieces).await {
            tracing::error!(%error, "a write to the journal failed");
            let Piece { log, .. } = &pieces[0];
            log.shard
                .fail_dir(log.dir, &StorageError::io(Action::Write, self.journal.dir())(error));
            return false; // Where it was for want of space, segments are written directly from now on.
        }
        for Piece { log, run, .. } in pieces {
            log.journaled(run.next);
            log.report();
            log.write_back_if_large();
        }
        if let Some(Piece { log, .. }) = pieces.first() {
            log.shard.write_back_if_short();
        }
        true
    }
}

impl crate::store::Shard {
    /// Where what is not in its segments takes too much memory: what was journaled first is written.
    fn write_back_if_short(&self) {
        while self.unwritten.get() > (self.config.memory_bytes / 4) as u64
            && self.writing_back.get() < WRITE_BACK_AT_ONCE
        {
            let Some(log) = self.journaled.borrow_mut().pop_front() else { return };
            log.state.borrow_mut().awaits_write_back = false;
            log.write_back();
        }
    }
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
        let memory = state.tail.memory();
        drop(state);
        self.shard.tail_used(self.id, memory);
        self.idle.notify_all();
        written
    }

    fn wants_commit(&self) -> bool {
        let state = self.state.borrow();
        let to_do = !state.pending.is_empty() || (state.flush_now && state.flushed < state.written);
        to_do && matches!(state.health, Health::Online)
    }

    fn is_due(&self) -> bool {
        let state = self.state.borrow();
        match state.health {
            Health::Online => state.wants_flush() && state.journaled < state.written,
            Health::Full => state.unwritten_bytes() > 0,
            Health::Failed(_) | Health::Closed => false,
        }
    }

    /// Notes that everything below `end` is on stable storage in the journal.
    fn journaled(self: &Rc<Self>, end: Offset) {
        let mut state = self.state.borrow_mut();
        state.journaled = end;
        state.health.has_space();
        if !std::mem::replace(&mut state.awaits_write_back, true) {
            self.shard.journaled.borrow_mut().push_back(self.clone());
        }
    }

    fn write_back_if_large(self: &Rc<Self>) {
        let state = self.state.borrow();
        if state.unwritten_bytes() >= WRITE_BACK_BYTES && !state.writing {
            drop(state);
            self.write_back();
        }
    }

    /// Starts to write what is journaled to its segment.
    pub fn write_back(self: &Rc<Self>) {
        let (log, shard) = (self.clone(), self.shard.clone());
        shard.writing_back.set(shard.writing_back.get() + 1);
        spawn(async move {
            if let Err(error) = log.write().await {
                log.trouble(&error);
            }
            shard.writing_back.set(shard.writing_back.get() - 1);
        });
    }
}
