//! Log lines that a peer can cause, so many a second and no more.

use flowstone_runtime::now;
use flowstone_types::Instant;
use std::cell::Cell;
use std::time::Duration;

/// Lines that one shard writes about its peers within a window; the next window's first line says
/// how many were left out.
const LINES_MAX: u32 = 10;
/// The window.
const WINDOW: Duration = Duration::from_secs(10);

/// A shard's allowance of lines about what its peers did wrong.
#[derive(Default)]
pub struct Complaints {
    since: Cell<Instant>,
    written: Cell<u32>,
    left_out: Cell<u64>,
    all: Cell<u64>,
}

impl Complaints {
    /// Calls `write` with the number of lines left out since the last one, or counts one more.
    pub fn complain(&self, write: impl FnOnce(u64)) {
        self.all.set(self.all.get() + 1);
        let now = now();
        if now.since(self.since.get()) >= WINDOW {
            self.since.set(now);
            self.written.set(0);
        }
        if self.written.get() < LINES_MAX {
            self.written.set(self.written.get() + 1);
            write(self.left_out.take());
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    /// Complaints so far, those included that were left out.
    pub fn count(&self) -> u64 {
        self.all.get()
    }
}
