//! Threads beside the shards, for what would block one: names in directories, and heavy computing.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::mail::mailbox;
use super::panic::EndOnPanic;
use crate::launch::topology::unpin;

/// Threads at most. The work is mostly a disk's, which does little in parallel; waiting is free.
const THREADS_MAX: usize = 8;

/// An idle thread ends after this long.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

static POOL: Pool = Pool {
    state: Mutex::new(State { queue: VecDeque::new(), threads: 0, idle: 0 }),
    more: Condvar::new(),
};

struct Pool {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    /// Bounded by the tasks that wait for it: each has one piece of work here at most.
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (mailer, mut answer) = mailbox(1);
    let before = answer.try_recv(); // From here on the mailbox is this shard's.
    assert!(before.is_none());
    POOL.run(Box::new(move || {
        let sent = mailer.send(work());
        assert!(sent.is_ok(), "one answer fits");
    }));
    answer.recv().await
}

impl Pool {
    fn run(&'static self, work: Work) {
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.idle >= state.queue.len() || state.threads == THREADS_MAX {
            drop(state);
            self.more.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let started = thread::Builder::new().name("offload".into()).spawn(|| self.serve());
        if started.is_err() {
            // Out of threads: one of those that exist takes it, or else we have to, here and now.
            let mut state = self.lock();
            state.threads -= 1;
            if state.threads == 0
                && let Some(work) = state.queue.pop_front()
            {
                drop(state);
                work();
            }
        }
    }

    fn serve(&self) {
        let _end = EndOnPanic::on_this_thread();
        unpin();
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (again, waited) =
                self.more.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
