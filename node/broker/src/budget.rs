//! How many bytes may be on their way at once: back-pressure by memory.

use flowstone_runtime::local::{Notify, Permit, Semaphore};
use std::cell::Cell;
use std::rc::Rc;

/// A count of bytes in use against a limit. Over the limit nobody gets more until some came back;
/// one request larger than the whole limit is let in alone, so that it cannot wait for ever.
pub struct Budget {
    limit: u64,
    used: Cell<u64>,
    freed: Notify,
    /// The right to go over the limit.
    overdraft: Semaphore,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Rc<Self> {
        let (used, freed) = (Cell::new(0), Notify::new());
        Rc::new(Self { limit, used, freed, overdraft: Semaphore::new(1) })
    }

    /// Bytes in use now.
    pub fn used(&self) -> u64 {
        self.used.get()
    }

    /// Takes `bytes`, waiting until they fit.
    pub async fn take(self: &Rc<Self>, bytes: u64) -> Held {
        while self.used.get() > 0 && self.used.get() + bytes > self.limit {
            self.freed.notified().await;
        }
        self.used.set(self.used.get() + bytes);
        Held { budget: Rc::clone(self), bytes }
    }
}

/// Bytes of one budget that become more, piece by piece; they go back when this is dropped.
///
/// Many that grow at once could fill the budget and all wait for each other. So one at a time may
/// go over the limit: it gets whole, and gives back.
pub struct Growing {
    held: Held,
    overdraft: Option<Permit>,
}

impl Growing {
    /// Nothing taken yet.
    pub fn new(budget: &Rc<Budget>) -> Self {
        Self { held: Held { budget: Rc::clone(budget), bytes: 0 }, overdraft: None }
    }

    /// Whether it is the one that may go over the limit.
    pub fn is_overdrawn(&self) -> bool {
        self.overdraft.is_some()
    }

    /// Takes what is missing to `bytes` in all, waiting until it may.
    pub async fn grow(&mut self, bytes: u64) {
        let budget = Rc::clone(&self.held.budget);
        let more = bytes - self.held.bytes;
        while self.overdraft.is_none() && budget.used.get() + more > budget.limit {
            let freed = budget.freed.notified();
            self.overdraft = budget.overdraft.try_acquire();
            if self.overdraft.is_none() {
                freed.await;
            }
        }
        budget.used.set(budget.used.get() + more);
        self.held.bytes = bytes;
    }
}

/// Bytes taken from a budget; they go back when this is dropped.
pub struct Held {
    budget: Rc<Budget>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.set(self.budget.used.get() - self.bytes);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn over_the_limit_others_wait_until_bytes_come_back() {
        let budget = Budget::new(10);
        let Poll::Ready(alone) = poll(pin!(budget.take(25))) else {
            panic!("one that is larger than the whole is let in alone")
        };
        let mut next = pin!(budget.take(1));
        assert!(poll(next.as_mut()).is_pending());
        drop(alone);
        assert!(poll(next).is_ready());
        assert_eq!(budget.used(), 0);
    }

    /// Three requests of which each has a part, and for which together there is no room.
    #[test]
    fn of_those_that_grow_one_gets_whole() {
        let budget = Budget::new(10);
        let mut all = [(); 3].map(|()| Growing::new(&budget));
        for growing in &mut all {
            assert!(poll(pin!(growing.grow(3))).is_ready());
        }
        let [mut first, mut second, third] = all;
        assert!(poll(pin!(first.grow(12))).is_ready(), "the first may go over the limit");
        assert!(first.is_overdrawn());
        let mut waiting = pin!(second.grow(12));
        assert!(poll(waiting.as_mut()).is_pending(), "the second has to wait for it");
        drop(third);
        assert!(poll(waiting.as_mut()).is_pending());
        drop(first);
        assert!(poll(waiting).is_ready());
        assert_eq!(budget.used(), 12);
    }
}
