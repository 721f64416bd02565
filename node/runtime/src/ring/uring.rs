//! The shard's io_uring: entries in, completions out, one system call for both.
//!
//! Separate because it is the one file that knows the crate `io-uring` and its flags. No opcode here
//! or in `op.rs`'s users is younger than Linux 6.1.

use std::collections::VecDeque;
use std::io;
use std::mem::size_of;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};

/// Entries submitted with one call at most; what goes beyond it within a turn costs a second call.
const SUBMISSIONS: u32 = 1024;
/// Completions that fit at once. More are kept by the kernel (IORING_FEAT_NODROP) until we make room.
const COMPLETIONS: u32 = 4 * SUBMISSIONS;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
/// Linux 6.15: a shard that waits for the network is idle, and should not look like one that waits for
/// a disk. Without it, an idle broker shows as 100 % iowait.
const ENTER_NO_IOWAIT: u32 = 1 << 7;

pub(super) struct Uring {
    ring: IoUring,
    /// Entries that found the submission queue full while the kernel would take none; in order.
    backlog: VecDeque<squeue::Entry>,
    wait_flags: u32,
}

/// Opens a ring as every shard has one: completions are run only when its one thread asks for them,
/// so nothing interrupts a task, and the kernel needs no locks for it.
pub(crate) fn open_ring() -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .dontfork()
        .build(SUBMISSIONS)
}

impl Uring {
    pub(super) fn new() -> io::Result<Self> {
        let ring = open_ring()?;
        let no_iowait = ring.params().is_feature_no_iowait();
        let wait_flags =
            ENTER_GETEVENTS | ENTER_EXT_ARG | if no_iowait { ENTER_NO_IOWAIT } else { 0 };
        Ok(Self { ring, backlog: VecDeque::new(), wait_flags })
    }

    /// Queues an entry for the next [`Uring::enter`].
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion was reaped.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on to our caller.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what there is. A refusal (EAGAIN, EBUSY) leaves it to a later turn.
            let _ = self.ring.submit();
            // SAFETY: passed on to our caller.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Whether so much is queued that handing it over should not wait.
    pub(super) fn is_crowded(&mut self) -> bool {
        !self.backlog.is_empty() || self.ring.submission().len() > SUBMISSIONS as usize / 2
    }

    /// Whether a call would do anything: entries to hand over, or completions to be run.
    pub(super) fn wants_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow() || !self.backlog.is_empty()
    }

    /// Submits everything and runs what completed; with `wait`, sleeps until something has, at most
    /// that long.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.refill();
        let has_completions = !self.ring.completion().is_empty();
        let wait =
            wait.filter(|wait| !wait.is_zero() && !has_completions && self.backlog.is_empty());
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let entered = match wait {
            // SAFETY: no argument is passed, and the flags need none.
            None => unsafe { submitter.enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) },
            Some(wait) => {
                let timeout = Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
                let args = SubmitArgs::new().timespec(&timeout);
                // SAFETY: EXT_ARG announces `args`, whose timeout outlives the call.
                unsafe { submitter.enter(queued, 1, self.wait_flags, Some(&args)) }
            }
        };
        const { assert!(size_of::<SubmitArgs<'_, '_>>() == 24) } // struct io_uring_getevents_arg.
        match entered {
            Ok(_) => Ok(()),
            // The time is up; a signal; or the kernel is short of memory or of room for completions,
            // which goes away as we reap. The entries stay queued for the next turn.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn refill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: who gave us the entry promised that it stays valid until it is reaped.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Takes the completions that are there into `into` (emptied first).
    pub(super) fn reap(&mut self, into: &mut Vec<cqueue::Entry>) {
        into.clear();
        into.extend(self.ring.completion());
    }
}
