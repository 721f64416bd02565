//! Tasks, time, randomness and the shard's identity: what a program asks of the place it runs in.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use flowstone_types::{Instant, Timestamp};

use crate::ring;

/// Starts a task on this shard. It runs to its end: nothing can cancel it, so a task that should
/// stop watches a flag or a queue. (Cancelling a pending glommio task leaks it.)
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    world!(ring::spawn(task), crate::sim::spawn(task));
}

/// Returns once `delay` has passed. Cancel-safe.
pub async fn sleep(delay: Duration) {
    sleep_until(now().after(delay)).await;
}

/// Returns at `at`, at once if that has passed. Cancel-safe.
pub async fn sleep_until(at: Instant) {
    world!(ring::sleep_until(at).await, crate::sim::sleep_until(at).await);
}

/// Lets every other runnable task of this shard run once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The monotonic clock (virtual time in a simulation).
pub fn now() -> Instant {
    world!(ring::now(), crate::sim::now())
}

/// The wall clock, in milliseconds. It may jump; deadlines use [`now`].
pub fn wall_clock() -> Timestamp {
    world!(ring::wall_clock(), crate::sim::wall_clock())
}

/// Random bytes from the kernel (from the seed in a simulation).
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// A random number from the kernel (from the seed in a simulation).
pub fn random_u64() -> u64 {
    u64::from_le_bytes(random_bytes())
}

fn fill_random(bytes: &mut [u8]) {
    world!(ring::fill_random(bytes), crate::sim::fill_random(bytes));
}

/// This shard's index, from 0. Panics outside of a shard.
pub fn shard_index() -> usize {
    world!(ring::shard_index(), crate::sim::shard_index())
}

/// How many shards the process has. Panics outside of a shard.
pub fn shard_count() -> usize {
    world!(ring::shard_count(), crate::sim::shard_count())
}

/// Polls `task` until it is ready, or until `at` has come: then `None`, and `task` is dropped.
///
/// Only for what loses nothing when dropped: [`crate::local`], mailboxes, sleeps. Never for I/O.
pub async fn deadline<T>(at: Instant, task: impl Future<Output = T>) -> Option<T> {
    if at == Instant::NEVER {
        return Some(task.await);
    }
    First { task: pin!(task), alarm: pin!(sleep_until(at)) }.await
}

struct First<T, A> {
    task: T,
    alarm: A,
}

impl<T, F, A> Future for First<Pin<&mut F>, Pin<&mut A>>
where
    F: Future<Output = T>,
    A: Future<Output = ()>,
{
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // The task first: what is ready at the deadline is taken, not thrown away.
        if let Poll::Ready(value) = self.task.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        self.alarm.as_mut().poll(context).map(|()| None)
    }
}

/// Runs blocking or CPU-heavy work on a thread beside the shards (in place, in a simulation). It
/// runs to its end even if the returned future is dropped.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    world!(ring::offload(work).await, crate::sim::offload(work).await)
}

/// Returns once the process was asked to stop: SIGTERM or SIGINT (or, in a simulation, when the
/// harness says so). Any number of tasks on any shard may wait. Cancel-safe.
pub async fn termination() {
    world!(ring::termination().await, crate::sim::termination().await);
}

/// Nanoseconds this shard has spent working rather than waiting, since it started.
pub fn busy_nanos() -> u64 {
    world!(ring::busy_nanos(), crate::sim::busy_nanos())
}
