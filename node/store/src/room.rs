//! The bound on bytes that are written or wait to be: what keeps a group small enough to be fast.

use std::cell::Cell;

use flowstone_runtime::local::Notify;

/// Bytes of batches of one shard that are not durable yet.
pub struct Room {
    limit: usize,
    used: Cell<usize>,
    freed: Notify,
}

impl Room {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Cell::new(0), freed: Notify::new() }
    }

    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub fn has_room(&self) -> bool {
        self.used.get() < self.limit
    }

    /// Returns once there is room. A caller may then overshoot by what it holds: one request.
    pub async fn wait(&self) {
        loop {
            let freed = self.freed.notified();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }

    pub fn take(&self, bytes: usize) {
        self.used.set(self.used.get() + bytes);
    }

    pub fn give(&self, bytes: usize) {
        let had_room = self.has_room();
        self.used.set(self.used.get() - bytes);
        if !had_room && self.has_room() {
            self.freed.notify_all();
        }
    }
}
