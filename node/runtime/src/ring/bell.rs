//! How other threads wake a shard: a flag, and an eventfd that is written only while the shard sleeps.
//!
//! No foreign thread ever holds a task's waker (glommio's are not safe there): it rings, and the
//! shard looks what there is.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

pub(crate) struct Bell {
    eventfd: OwnedFd,
    rung: AtomicBool,
    sleeping: AtomicBool,
    ending: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a plain system call; a non-negative result is a descriptor that is ours alone.
        let eventfd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let off = || AtomicBool::new(false);
        Ok(Self { eventfd, rung: off(), sleeping: off(), ending: off() })
    }

    /// Any thread: there is something to look at. Costs a system call only if the shard sleeps.
    pub(crate) fn ring(&self) {
        // Each side writes its own flag, then reads the other's, all SeqCst: so either we see that
        // it sleeps, or it sees, before it sleeps, that we rang.
        self.rung.store(true, SeqCst);
        if self.sleeping.load(SeqCst) && self.sleeping.swap(false, SeqCst) {
            self.write();
        }
    }

    fn write(&self) {
        // A failure is EAGAIN, the counter at its limit, which is as readable as can be.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }

    /// The shard: rings one last time, to end the operation that waits for it.
    pub(super) fn ring_to_end(&self) {
        self.ending.store(true, SeqCst);
        self.write();
    }

    /// The shard: whether that was the last ring.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(SeqCst)
    }

    /// The shard: whether someone rang since the last call.
    pub(super) fn take(&self) -> bool {
        self.rung.load(SeqCst) && self.rung.swap(false, SeqCst)
    }

    /// The shard: announces that it will sleep; `false` if it must not, because someone rang.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, SeqCst);
        if self.rung.load(SeqCst) {
            self.sleeping.store(false, SeqCst);
            return false;
        }
        true
    }

    /// The shard: awake again.
    pub(super) fn wake_up(&self) {
        self.sleeping.store(false, SeqCst);
    }

    /// What becomes readable when the bell rings during sleep.
    pub(super) fn fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
