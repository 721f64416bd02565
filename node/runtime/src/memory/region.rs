//! Address space of one shard's buffers, and the way back for those that end on another thread.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::PAGE_BYTES;

/// What one page-table entry of the kernel's large pages covers.
const HUGE_BYTES: usize = 2 << 20;

/// Reserved address space: a page of it takes memory from its first use on. Ends with the last buffer of it.
pub struct Region {
    mapped: NonNull<u8>,
    mapped_bytes: usize,
    start: NonNull<u8>,
    returned: Mutex<Vec<(usize, usize)>>,
    any_returned: AtomicBool,
}

// SAFETY: the addresses are only handed out; who has a run of pages owns them alone.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `bytes` of zeros that take no memory yet.
    ///
    /// # Errors
    /// The kernel's, where a limit (`ulimit -v`, vm.overcommit_memory=2) forbids so much address space.
    pub fn reserve(bytes: usize) -> io::Result<Self> {
        let mapped_bytes = bytes + HUGE_BYTES;
        let (access, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: the kernel chooses where: at no memory of ours.
        let mapped = unsafe { mmap_anonymous(ptr::null_mut(), mapped_bytes, access, flags)? };
        let mapped = NonNull::new(mapped.cast::<u8>()).expect("a mapping is not at 0");
        let skip = mapped.align_offset(HUGE_BYTES);
        // SAFETY: `skip` is less than a large page, which was added.
        let start = unsafe { mapped.add(skip) };
        // SAFETY: the range is the mapping's. Large pages only make it faster: a kernel without them says no.
        let _ = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        let (returned, any_returned) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { mapped, mapped_bytes, start, returned, any_returned })
    }

    /// Where page `first` is.
    pub fn address_of(&self, first: usize) -> NonNull<u8> {
        assert!(first * PAGE_BYTES < self.mapped_bytes, "a page of another region");
        // SAFETY: it is inside the mapping.
        unsafe { self.start.add(first * PAGE_BYTES) }
    }

    /// The page at `address`, which [`Region::address_of`] gave.
    pub fn page_at(&self, address: NonNull<u8>) -> usize {
        (address.addr().get() - self.start.addr().get()) / PAGE_BYTES
    }

    /// Takes `len` pages back from a thread that does not own the region.
    pub fn give_from_afar(&self, first: usize, len: usize) {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner).push((first, len));
        self.any_returned.store(true, Ordering::Release);
    }

    /// Runs of pages that other threads gave back.
    pub fn returned(&self) -> Vec<(usize, usize)> {
        if !self.any_returned.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.any_returned.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.returned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: every buffer holds the region: none is left.
        let ended = unsafe { munmap(self.mapped.as_ptr().cast(), self.mapped_bytes) };
        assert!(ended.is_ok(), "our own mapping ends");
    }
}
