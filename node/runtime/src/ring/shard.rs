//! The shard's loop, and what belongs to one shard.
//!
//! glommio is the scheduler and nothing else: it keeps the run queue, polls tasks and makes wakers.
//! Its rings, timers and sockets are not used. Instead one task of ours, the pump, goes round with
//! the others: each time it is polled, all that was runnable has run once since. When nothing ran
//! in between, everyone waits for the outside, and the pump itself sleeps, in the one system call
//! that also submits all that the turn queued. So a turn costs one call, a sleep costs none more,
//! and glommio's own parking, which can lose a wake-up (it may sleep on a full run queue), does not
//! take place; should it after all, its heartbeat timer wakes it within [`HEARTBEAT`].

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowstone_types::{Instant, Timestamp};
use glommio::{LocalExecutorBuilder, Placement};
use io_uring::{cqueue, opcode, squeue, types};

use super::bell::Bell;
use super::mail::Letterboxes;
use super::op::{After, Key, Operation, Ops, Orphan, Step, cancellation, submit_detached};
use super::signal;
use super::timer::Timers;
use super::uring::Uring;
use crate::local::Notify;
use crate::memory::reserve_for_shard;
use crate::task::yield_now;

/// Bounds a sleep of glommio's own (defect 1 of 0.9.0). Costs nothing: its timer is looked at only
/// when glommio parks, and then it is what should wake it.
const HEARTBEAT: Duration = Duration::from_millis(5);

/// Timers 5, 10, ... ms ahead: should the defect strike again before the first is armed anew, there
/// is a second, and so on.
const HEARTBEATS: u32 = 8;

/// glommio's own time slice, which our pump makes moot. Long, because the defect needs it to fire.
const PREEMPT_TIMER: Duration = Duration::from_hours(1);

/// Entries that were queued are submitted after this long even if tasks keep each other busy.
const SUBMIT_DELAY_MAX: Duration = Duration::from_micros(100);

/// Longest sleep: only so that no arithmetic overflows.
const SLEEP_MAX: Duration = Duration::from_hours(1);

/// How long the end of a shard waits for operations that only the device can end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// All that belongs to one shard. Made once per shard and never freed: timers, operations and
/// mailboxes point to it, some of them longer than their shard runs.
pub(super) struct Shard {
    index: usize,
    count: usize,
    uring: RefCell<ManuallyDrop<Uring>>,
    pub(super) ops: RefCell<Ops>,
    pub(super) timers: Timers,
    pub(super) letterboxes: Letterboxes,
    pub(super) bell: Arc<Bell>,
    /// Told once a signal came; and whether the listener for signals knows our bell.
    pub(super) terminated: Notify,
    pub(super) hears_signals: Cell<bool>,
    /// Tasks polled so far, the pump not counted.
    polls: Cell<u64>,
    /// Set when `main` has returned: no task is polled any more.
    has_ended: Cell<bool>,
}

thread_local! {
    static SHARD: Cell<Option<&'static Shard>> = const { Cell::new(None) };
}

/// The shard that runs on this thread.
pub(super) fn shard() -> &'static Shard {
    SHARD.get().expect("I/O, time and tasks belong to a shard: this thread is none")
}

/// Whether `shard` is the one that runs on this thread.
pub(super) fn is_current(shard: &Shard) -> bool {
    SHARD.get().is_some_and(|here| std::ptr::eq(here, shard))
}

/// Whether this thread runs a shard.
pub(super) fn on_a_shard() -> bool {
    SHARD.get().is_some()
}

pub(crate) fn shard_index() -> usize {
    shard().index
}

pub(crate) fn shard_count() -> usize {
    shard().count
}

pub(crate) fn busy_nanos() -> u64 {
    // The thread's CPU time: what the kernel does for us in our one system call is work too.
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

pub(crate) fn now() -> Instant {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    // From 1, so that 0 can stand for "never happened" where someone wants that.
    Instant(START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64 + 1)
}

pub(crate) fn wall_clock() -> Timestamp {
    // A clock before 1970 is a machine without a clock: zero is as good as anything.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

pub(crate) fn fill_random(bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(256) {
        // Up to 256 bytes come whole and uninterrupted (getrandom(2)).
        // SAFETY: the kernel writes `piece.len()` bytes to where `piece` points.
        let got = unsafe { libc::getrandom(piece.as_mut_ptr().cast(), piece.len(), 0) };
        assert_eq!(got, piece.len() as isize, "getrandom: {}", io::Error::last_os_error());
    }
}

pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(Counted { task, shard: shard() }).detach();
}

/// A task that is counted each time it is polled.
struct Counted<F> {
    task: F,
    shard: &'static Shard,
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.shard.has_ended.get() {
            return Poll::Pending;
        }
        self.shard.polls.set(self.shard.polls.get() + 1);
        // SAFETY: `task` is pinned as `self` is: it is never moved out, and `Counted` has no `Drop`.
        unsafe { self.map_unchecked_mut(|counted| &mut counted.task) }.poll(context)
    }
}

/// Runs `main` as shard `index` of `count` on this thread, until it returns. Tasks that are still
/// there then are left where they are; what the kernel still does for them is ended first.
pub(crate) fn run_shard<Fut: Future<Output = ()> + 'static>(
    index: usize,
    count: usize,
    main: impl FnOnce(usize) -> Fut,
) -> io::Result<()> {
    run_shard_with(PREEMPT_TIMER, index, count, main)
}

fn run_shard_with<Fut: Future<Output = ()> + 'static>(
    preempt_timer: Duration,
    index: usize,
    count: usize,
    main: impl FnOnce(usize) -> Fut,
) -> io::Result<()> {
    let shard: &'static Shard = Box::leak(Box::new(Shard {
        index,
        count,
        uring: RefCell::new(ManuallyDrop::new(Uring::new()?)),
        ops: RefCell::default(),
        timers: Timers::default(),
        letterboxes: Letterboxes::default(),
        bell: Arc::new(Bell::new()?),
        terminated: Notify::new(),
        hears_signals: Cell::new(false),
        polls: Cell::new(0),
        has_ended: Cell::new(false),
    }));
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .name("flowstone")
        .io_memory(0) // glommio does no I/O: its least.
        .ring_depth(8)
        .preempt_timer(preempt_timer)
        .make()
        .map_err(|error| io::Error::other(format!("glommio: {error}")))?;
    SHARD.set(Some(shard));
    reserve_for_shard(count).map_err(|error| {
        io::Error::other(format!(
            "no address space for this shard's share of flowstone.memory.bytes: {error}; lower it, or \
             raise what forbids it (ulimit -v, vm.overcommit_memory=2)"
        ))
    })?;
    executor.run(async move {
        for heartbeat in 1..=HEARTBEATS {
            glommio::spawn_local(async move {
                loop {
                    glommio::timer::sleep(HEARTBEAT * heartbeat).await;
                }
            })
            .detach();
        }
        submit_detached(Doorbell { bell: Arc::clone(&shard.bell), rings: Box::new(0) });
        let main = main(index);
        spawn(async move {
            main.await;
            shard.has_ended.set(true);
        });
        pump(shard).await;
        shard.end();
    });
    Ok(())
}

async fn pump(shard: &'static Shard) {
    let mut completions = Vec::new();
    let mut polls = shard.polls.get();
    let mut entered = now();
    loop {
        yield_now().await; // All that is runnable runs once.
        if shard.has_ended.get() {
            return;
        }
        let ran = shard.polls.get() != polls;
        polls = shard.polls.get();
        if !ran {
            shard.turn(true, &mut completions);
            entered = now();
        } else if shard.uring.borrow_mut().is_crowded() || now().since(entered) >= SUBMIT_DELAY_MAX
        {
            shard.turn(false, &mut completions);
            entered = now();
        }
        // Otherwise those that just ran may have woken others: what these queue goes out with it.
    }
}

impl Shard {
    /// Submits what is queued, takes what has completed, wakes whom it concerns. If `idle`, sleeps
    /// until there is something.
    fn turn(&self, idle: bool, completions: &mut Vec<cqueue::Entry>) {
        let due = self.timers.next_at();
        if idle && self.bell.fall_asleep() {
            let sleep = due.map_or(SLEEP_MAX, |at| at.since(now()).min(SLEEP_MAX));
            self.enter(Some(sleep));
            self.bell.wake_up();
        } else if self.uring.borrow_mut().wants_enter() {
            self.enter(None);
        }
        self.uring.borrow_mut().reap(completions);
        for completion in &*completions {
            self.completed(completion.user_data(), completion.result());
        }
        if due.is_some() {
            self.timers.fire(now());
        }
        if self.bell.take() {
            self.letterboxes.wake_receivers();
            if signal::has_come() {
                self.terminated.notify_all();
            }
        }
    }

    fn enter(&self, wait: Option<Duration>) {
        let entered = self.uring.borrow_mut().enter(wait);
        // Not the fault of any operation: the ring itself is broken, and with it the shard.
        entered.unwrap_or_else(|error| panic!("io_uring_enter: {error}"));
    }

    fn completed(&self, user_data: u64, result: i32) {
        let after = self.ops.borrow_mut().completed(user_data, result);
        match after {
            After::Nothing => {}
            After::Wake(waker) => waker.wake(),
            After::Resubmit(key) => self.push_op(key),
            After::Drop(operation) => drop(operation),
        }
    }

    /// Queues the next submission of an operation.
    pub(super) fn push_op(&self, key: Key) {
        let entry = self.ops.borrow_mut().entry(key);
        // SAFETY: an operation owns what its entries point to, and stays in its slot until its last
        // completion was taken (see `op.rs`).
        unsafe { self.uring.borrow_mut().push(entry) }
    }

    /// Queues the cancellation of an operation.
    pub(super) fn push_cancel(&self, key: Key) {
        // SAFETY: a cancellation points to nothing.
        unsafe { self.uring.borrow_mut().push(cancellation(key)) }
    }

    /// The end: cancels what waits for the world, carries to its end what writes, closes the ring.
    fn end(&self) {
        let mut completions = Vec::new();
        let until = now().after(DRAIN_MAX);
        // The doorbell is an operation as well; it ends because someone rings.
        for key in self.ops.borrow().cancellable() {
            self.push_cancel(key);
        }
        self.bell.ring_to_end();
        while self.ops.borrow().in_flight() > 0 && now() < until {
            self.enter(Some(Duration::from_millis(10)));
            self.uring.borrow_mut().reap(&mut completions);
            for completion in &completions {
                self.completed(completion.user_data(), completion.result());
            }
        }
        // Wakers must not be dropped when the executor is gone. Tasks that are pending now stay so.
        self.timers.forget();
        self.letterboxes.forget();
        if self.ops.borrow().in_flight() == 0 {
            // SAFETY: the shard's thread is the only one that uses the ring, and does not any more.
            unsafe { ManuallyDrop::drop(&mut self.uring.borrow_mut()) };
        }
        std::mem::forget(self.ops.take());
        SHARD.set(None); // What is dropped from here on finds no shard to submit to.
    }
}

/// Waits, again and again, for another thread to ring.
struct Doorbell {
    bell: Arc<Bell>,
    rings: Box<u64>,
}

impl Operation for Doorbell {
    const ORPHAN: Orphan = Orphan::Finish;

    fn entry(&mut self) -> squeue::Entry {
        let to = (&raw mut *self.rings).cast();
        opcode::Read::new(types::Fd(self.bell.fd()), to, size_of::<u64>() as u32).build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        result.unwrap_or_else(|error| panic!("the eventfd of a shard: {error}"));
        if self.bell.is_ending() { Step::Done } else { Step::Again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mailbox, sleep};

    /// Defect 1 of glommio 0.9.0: where its preempt timer fires before the first task of a round,
    /// the executor parks although tasks are runnable, until something outside happens. A timer
    /// that is always about to fire makes it do so often: without the heartbeats this hangs in 9 of
    /// 12 runs.
    #[test]
    fn a_parked_executor_with_runnable_tasks_goes_on() {
        let (done, was_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            run_shard_with(Duration::from_micros(50), 0, 1, |_| async move {
                let (mailer, mut mailbox) = mailbox(1);
                for round in 0..5000 {
                    let mailer = mailer.clone();
                    spawn(async move {
                        yield_now().await;
                        mailer.send(round).unwrap();
                    });
                    assert_eq!(mailbox.recv().await, round);
                    sleep(Duration::from_micros(10)).await;
                }
            })
            .unwrap();
            done.send(()).unwrap();
        });
        let in_time = was_done.recv_timeout(Duration::from_secs(20));
        assert_eq!(in_time, Ok(()), "the shard hangs");
    }
}
