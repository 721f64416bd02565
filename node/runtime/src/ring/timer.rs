//! Timers: a sorted list that the shard's loop looks at when it sleeps and when it wakes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use flowstone_types::Instant;

use super::shard::{Shard, now, shard};

/// The timers of a shard, soonest first; the number tells apart those of one moment.
#[derive(Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next: std::cell::Cell<u64>,
}

impl Timers {
    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes those that are due.
    pub(super) fn fire(&self, now: Instant) {
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some(first) = waiting.first_entry().filter(|entry| entry.key().0 <= now) else {
                return;
            };
            let waker = first.remove();
            drop(waiting);
            waker.wake();
        }
    }

    /// Drops all wakers without running anything.
    pub(super) fn forget(&self) {
        std::mem::forget(self.waiting.take());
    }
}

/// Returns at `at`.
pub(crate) fn sleep_until(at: Instant) -> impl Future<Output = ()> {
    Sleep { at, armed: None }
}

struct Sleep {
    at: Instant,
    armed: Option<(&'static Shard, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some((shard, number)) = self.armed else {
            if self.at <= now() {
                return Poll::Ready(());
            }
            let timers = &shard().timers;
            let number = timers.next.replace(timers.next.get() + 1);
            timers.waiting.borrow_mut().insert((self.at, number), context.waker().clone());
            self.armed = Some((shard(), number));
            return Poll::Pending;
        };
        match shard.timers.waiting.borrow_mut().get_mut(&(self.at, number)) {
            Some(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()), // It fired.
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((shard, number)) = self.armed {
            let waker = shard.timers.waiting.borrow_mut().remove(&(self.at, number));
            drop(waker); // After the borrow: dropping the last waker of a task may run code.
        }
    }
}
