//! How many bytes may be on their way at once: back-pressure by memory.

use flowstone_runtime::local::Notify;
use std::cell::Cell;
use std::rc::Rc;

/// A count of bytes in use against a limit. Over the limit nobody gets more until some came back;
/// one request larger than the whole limit is let in alone, so that it cannot wait for ever.
pub struct Budget {
    limit: u64,
    used: Cell<u64>,
    freed: Notify,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Rc<Self> {
        Rc::new(Self { limit, used: Cell::new(0), freed: Notify::new() })
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
