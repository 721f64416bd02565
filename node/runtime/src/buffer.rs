//! Page-aligned memory that a shard uses again and again: receive buffers, read buffers, tail blocks.
//!
//! Separate because everything that does I/O needs it, in both worlds. Invariants: every byte of a
//! buffer is initialised from the day it is allocated (so no length can expose foreign memory), its
//! address and capacity are multiples of 4096 (so it can always be used for O_DIRECT), and a pool
//! keeps no more than its share of the limit.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Alignment and granularity of all buffers: a page, and the largest block size that O_DIRECT asks for.
pub const PAGE_BYTES: usize = 4096;

/// Pooled sizes are 4 KiB << 0..=8, that is 4 KiB to 1 MiB; what is larger is allocated to measure.
const CLASS_COUNT: usize = 9;

/// What a process keeps for reuse unless [`set_pool_limit`] says otherwise: 64 buffers of 1 MiB.
const POOL_BYTES_DEFAULT: usize = 64 << 20;

/// A page-aligned region of memory with a length, owned. Dereferences to its first `len` bytes.
pub struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: a buffer owns its memory alone and has no interior mutability, as `Vec<u8>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer with room for at least `bytes`: from this shard's pool up to 1 MiB (rounded up
    /// to a power of two), else allocated to measure (rounded up to 4 KiB).
    pub fn with_capacity(bytes: usize) -> Self {
        let class = class_of(bytes);
        let capacity = class.map_or_else(|| bytes.next_multiple_of(PAGE_BYTES), class_bytes);
        let pooled = class.and_then(|class| POOL.with_borrow_mut(|pool| pool.take(class)));
        let start = pooled.unwrap_or_else(|| {
            POOL.with_borrow_mut(|pool| pool.give_way(capacity));
            allocate(capacity)
        });
        // A thread that is ending has no pool any more, and no one who reads its figures.
        let _ = POOL.try_with(|pool| pool.borrow().counters.used(capacity as i64));
        Self { start, capacity, len: 0 }
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length. Bytes that come to light hold whatever an earlier user left there, or zeros:
    /// write them before anyone reads them.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "{len} bytes in a buffer of {}", self.capacity);
        self.len = len;
    }

    /// Shortens to `len` bytes, if it is longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `bytes`, which must fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let from = self.len;
        self.set_len(from + bytes.len());
        self[from..].copy_from_slice(bytes);
    }

    /// Appends zeros until it is `len` bytes long (does nothing where it is longer).
    pub fn extend_with_zeros(&mut self, len: usize) {
        let from = self.len;
        if len > from {
            self.set_len(len);
            self[from..].fill(0);
        }
    }

    /// The bytes, shared and immutable from now on, without a copy. The memory goes back to a pool
    /// with the last clone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Where the kernel may write: `capacity` bytes from here.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let kept = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.counters.used(-(self.capacity as i64));
            pool.keep(self.start, self.capacity)
        });
        if kept != Ok(true) {
            release(self.start, self.capacity);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes from `start` are ours and were initialised by `allocate`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes us the only one who looks.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity)
    }
}

/// Memory of all buffers of the process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// In buffers that someone holds.
    pub used: u64,
    /// In pools, touched and ready for reuse.
    pub pooled: u64,
}

/// What the process's buffers hold now.
pub fn memory() -> Memory {
    let all = lock_all();
    let sum = |of: fn(&Counters) -> &AtomicI64| {
        // A buffer may die on another thread than it was born on: one thread's figure can be
        // negative, the sum only for a moment.
        all.iter().map(|counters| of(counters).load(Relaxed)).sum::<i64>().max(0) as u64
    };
    Memory { used: sum(|c| &c.used), pooled: sum(|c| &c.pooled) }
}

/// Sets how many bytes all pools together may keep for reuse. Each shard has an equal share.
pub fn set_pool_limit(bytes: usize) {
    POOL_BYTES_MAX.store(bytes, Relaxed);
}

/// Gives this thread a pool for as long as it lives: for shards. Other threads keep nothing.
pub(crate) fn pool_on_this_thread(shard_count: usize) {
    POOL.with_borrow_mut(|pool| pool.share_of = shard_count);
}

static POOL_BYTES_MAX: AtomicUsize = AtomicUsize::new(POOL_BYTES_DEFAULT);
static ALL: Mutex<Vec<Arc<Counters>>> = Mutex::new(Vec::new());

fn lock_all() -> std::sync::MutexGuard<'static, Vec<Arc<Counters>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::new());
}

/// One thread's figures: written by it alone, read by all, so that no buffer costs a shared write.
#[derive(Default)]
struct Counters {
    used: AtomicI64,
    pooled: AtomicI64,
}

impl Counters {
    fn used(&self, bytes: i64) {
        self.used.store(self.used.load(Relaxed) + bytes, Relaxed);
    }

    fn pooled(&self, bytes: i64) {
        self.pooled.store(self.pooled.load(Relaxed) + bytes, Relaxed);
    }
}

struct Pool {
    free: [Vec<NonNull<u8>>; CLASS_COUNT],
    kept_bytes: usize,
    share_of: usize, // The number of shards that share the limit; 0 where this thread is none.
    counters: Arc<Counters>,
}

impl Pool {
    fn new() -> Self {
        let counters = Arc::new(Counters::default());
        lock_all().push(Arc::clone(&counters));
        Self { free: Default::default(), kept_bytes: 0, share_of: 0, counters }
    }

    fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        // The one used last: it is still in the cache.
        let start = self.free[class].pop()?;
        self.kept_bytes -= class_bytes(class);
        self.counters.pooled(-(class_bytes(class) as i64));
        Some(start)
    }

    /// Whether the pool took the memory; if not, it is the caller's to release. What is kept of other
    /// sizes goes for it: a pool full of what nobody asks for any more would have every buffer allocated
    /// anew, and zeroed.
    fn keep(&mut self, start: NonNull<u8>, capacity: usize) -> bool {
        let Some(class) = class_of(capacity).filter(|class| class_bytes(*class) == capacity) else {
            return false;
        };
        while self.kept_bytes + capacity > self.share() {
            if !self.release_one(Some(class)) {
                return false;
            }
        }
        self.free[class].push(start);
        self.kept_bytes += capacity;
        self.counters.pooled(capacity as i64);
        true
    }

    /// Releases what is kept where it would stand beside new memory above the share.
    fn give_way(&mut self, bytes: usize) {
        let used = self.counters.used.load(Relaxed).max(0) as usize;
        while self.kept_bytes > 0 && used + self.kept_bytes + bytes > self.share() {
            self.release_one(None);
        }
    }

    /// Bytes that this thread may keep.
    fn share(&self) -> usize {
        POOL_BYTES_MAX.load(Relaxed).checked_div(self.share_of).unwrap_or(0)
    }

    /// Releases a buffer of the size that takes the most, `but` is left alone; whether there was one.
    fn release_one(&mut self, but: Option<usize>) -> bool {
        let most = (0..CLASS_COUNT)
            .filter(|class| Some(*class) != but && !self.free[*class].is_empty())
            .max_by_key(|class| self.free[*class].len() * class_bytes(*class));
        let Some((class, start)) = most.and_then(|class| Some((class, self.take(class)?))) else {
            return false;
        };
        release(start, class_bytes(class));
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for class in 0..CLASS_COUNT {
            while let Some(start) = self.take(class) {
                release(start, class_bytes(class));
            }
        }
        // Buffers born here may live on elsewhere: what this thread counted stays counted.
        let mut all = lock_all();
        all.retain(|counters| !Arc::ptr_eq(counters, &self.counters));
        let left = self.counters.used.load(Relaxed);
        if let Some(heir) = all.first() {
            heir.used.fetch_add(left, Relaxed);
        }
    }
}

/// The pooled class that holds `bytes`, if they are not too many.
fn class_of(bytes: usize) -> Option<usize> {
    let pages = bytes.div_ceil(PAGE_BYTES).max(1);
    let class = pages.next_power_of_two().trailing_zeros() as usize;
    (class < CLASS_COUNT).then_some(class)
}

fn class_bytes(class: usize) -> usize {
    PAGE_BYTES << class
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, PAGE_BYTES).expect("a capacity that fits the address space")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    // SAFETY: the layout is not empty: a class is at least a page, and the rest is over 1 MiB.
    let start = unsafe { alloc_zeroed(layout) };
    NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout))
}

fn release(start: NonNull<u8>, capacity: usize) {
    // SAFETY: `start` came from `allocate(capacity)`, and its only owner gives it up.
    unsafe { dealloc(start.as_ptr(), layout(capacity)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_classes_then_pages() {
        for (asked, got) in [(0, 4096), (1, 4096), (4097, 8192), (1 << 20, 1 << 20)] {
            assert_eq!(Buffer::with_capacity(asked).capacity(), got);
        }
        assert_eq!(Buffer::with_capacity((1 << 20) + 1).capacity(), (1 << 20) + 4096);
        assert_eq!(Buffer::with_capacity(1).start() as usize % PAGE_BYTES, 0);
    }

    #[test]
    fn a_shard_reuses_and_keeps_no_more_than_its_share() {
        std::thread::spawn(|| {
            let before = Buffer::with_capacity(8192).start();
            assert_eq!(POOL.with_borrow(|pool| pool.kept_bytes), 0, "no shard, no pool");
            pool_on_this_thread(POOL_BYTES_DEFAULT / (2 << 20)); // A share of 2 MiB.
            let mut buffer = Buffer::with_capacity(8192);
            buffer.extend_from_slice(b"left over");
            let start = buffer.start();
            drop(buffer);
            assert_eq!(Buffer::with_capacity(8000).start(), start);
            let three: Vec<_> = (0..3).map(|_| Buffer::with_capacity(1 << 20)).collect();
            drop(three);
            assert_eq!(POOL.with_borrow(|pool| pool.kept_bytes), 2 << 20);
            let _ = before;
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_nobody_asks_for_any_more_goes_for_what_is_used_now() {
        std::thread::spawn(|| {
            let kept = || POOL.with_borrow(|pool| pool.kept_bytes);
            pool_on_this_thread(POOL_BYTES_DEFAULT / (1 << 20)); // A share of 1 MiB.
            drop((0..256).map(|_| Buffer::with_capacity(4096)).collect::<Vec<_>>());
            assert_eq!(kept(), 1 << 20);
            let large: Vec<_> = (0..4).map(|_| Buffer::with_capacity(256 << 10)).collect();
            assert_eq!(kept(), 0, "what is used and kept together is no more than the share");
            let starts: Vec<_> = large.iter().map(|buffer| buffer.start).collect();
            drop(large);
            let again: Vec<_> = (0..4).map(|_| Buffer::with_capacity(256 << 10)).collect();
            assert!(again.iter().all(|buffer| starts.contains(&buffer.start)));
            drop(again);
            // One of another size comes back when all is taken by the former.
            let small = Buffer::with_capacity(4096);
            assert_eq!(kept(), 3 << 18, "one of the largest went, for a page");
            drop(small);
            assert_eq!(kept(), (3 << 18) + 4096);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn zeros_cover_what_was_left_there() {
        let mut buffer = Buffer::with_capacity(100);
        buffer.extend_from_slice(&[7; 100]);
        buffer.truncate(10);
        buffer.extend_with_zeros(100);
        assert_eq!((&buffer[..10], &buffer[10..]), (&[7; 10][..], &[0; 90][..]));
        assert_eq!(buffer.freeze().len(), 100);
    }

    #[test]
    fn frozen_buffers_end_on_other_threads_and_the_figures_stay_right() {
        let bytes = Buffer::with_capacity(1 << 20).freeze();
        let held = memory().used;
        assert!(held >= 1 << 20);
        std::thread::spawn(move || drop(bytes)).join().unwrap();
    }
}
