//! Page-aligned memory for everything that does I/O: receive buffers, read buffers, tails of logs.
//!
//! Separate because both worlds need it, and because it is what `flowstone.memory.bytes` bounds: a shard
//! takes its buffers from address space that it reserved for its share of the limit ([`Region`]) and that it
//! divides itself ([`Pages`]), so that memory once touched is used again whatever size is asked for next, is
//! never zeroed twice, and resident memory stays at the limit, or half above it where the sizes are so many that
//! much of it lies between them. What finds no place there, or belongs to a thread that is no shard, comes from the
//! allocator and goes back to it.
//!
//! Buffers for a moment ([`Buffer::with_capacity`]) and those that stay ([`Buffer::lasting`]) are told
//! apart: the former are handed out again while the processor's cache still has them.

mod buffer;
mod pages;
mod region;

use std::cell::RefCell;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use self::pages::{PAGES_MAX, Pages};
use self::region::Region;

pub use self::buffer::Buffer;

/// Alignment and granularity of all buffers: a page, and the largest block size that O_DIRECT asks for.
pub const PAGE_BYTES: usize = 4096;

/// Sizes of buffers for a moment: 4 KiB << 0..=8, that is 4 KiB to 1 MiB; what is larger is made to measure.
const CLASS_COUNT: usize = 9;

/// Bytes of buffers that a shard keeps at hand for the next moment: half of a usual second-level cache.
const AT_HAND_BYTES_MAX: usize = 1 << 20;

/// Beside its share a shard reserves this part of it: of many sizes, what is free often fits no other. It is touched only
/// where nothing else does. Left to the allocator, the same buffers kept three times their size resident.
const GAPS_PART: usize = 2;

/// What a process's shards may take together unless [`set_memory_limit`] says otherwise.
const MEMORY_BYTES_DEFAULT: usize = 64 << 20;

/// Below this limit a process uses no large pages: of those that the allocator takes, most is never touched, and 20 MiB
/// of slack are too much for a host of 128 MiB.
const LARGE_PAGES_FROM_BYTES: usize = 64 << 20;

/// Memory of all buffers of the process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// In buffers that someone holds.
    pub used: u64,
    /// Touched once and ready for reuse, at most.
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

/// Sets how many bytes the buffers of all shards together may take and keep. Each shard has an equal share,
/// which it reserves when it starts. A process with little does without large pages from now on.
pub fn set_memory_limit(bytes: usize) {
    MEMORY_BYTES_MAX.store(bytes, Relaxed);
    if bytes < LARGE_PAGES_FROM_BYTES {
        // A kernel that cannot has none to give.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}

/// Gives this thread, one of `shard_count` shards, its share of the limit for as long as it lives. Other
/// threads keep nothing.
///
/// # Errors
/// The kernel's, where a limit of the process forbids so much address space.
pub(crate) fn reserve_for_shard(shard_count: usize) -> io::Result<()> {
    let share = MEMORY_BYTES_MAX.load(Relaxed) / shard_count;
    let arena = Arena::reserve(share + share / GAPS_PART)?;
    POOL.with_borrow_mut(|pool| pool.arena = Some(arena));
    Ok(())
}

static MEMORY_BYTES_MAX: AtomicUsize = AtomicUsize::new(MEMORY_BYTES_DEFAULT);
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
}

/// One thread's memory, and its figures.
struct Pool {
    arena: Option<Arena>,
    counters: Arc<Counters>,
}

impl Pool {
    fn new() -> Self {
        let counters = Arc::new(Counters::default());
        lock_all().push(Arc::clone(&counters));
        Self { arena: None, counters }
    }

    /// A place for `bytes`, whole pages; `None` where the allocator has to find one.
    fn take(&mut self, bytes: usize, lasting: bool) -> Option<(NonNull<u8>, Arc<Region>)> {
        self.counters.used(bytes as i64);
        let arena = self.arena.as_mut()?;
        let first = arena.take(bytes / PAGE_BYTES, lasting)?;
        self.counters.pooled.store(arena.pooled(), Relaxed);
        Some((arena.region.address_of(first), Arc::clone(&arena.region)))
    }

    /// Takes a buffer's place back.
    fn give(
        &mut self,
        start: NonNull<u8>,
        bytes: usize,
        lasting: bool,
        home: Option<&Arc<Region>>,
    ) {
        self.counters.used(-(bytes as i64));
        let Some(home) = home else { return };
        let (first, len) = (home.page_at(start), bytes / PAGE_BYTES);
        match &mut self.arena {
            Some(arena) if Arc::ptr_eq(&arena.region, home) => {
                arena.give(first, len, lasting);
                self.counters.pooled.store(arena.pooled(), Relaxed);
            }
            _ => home.give_from_afar(first, len),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Buffers born here may live on elsewhere: what this thread counted stays counted.
        let mut all = lock_all();
        all.retain(|counters| !Arc::ptr_eq(counters, &self.counters));
        let left = self.counters.used.load(Relaxed);
        if let Some(heir) = all.first() {
            heir.used.fetch_add(left, Relaxed);
        }
    }
}

/// A shard's own memory.
struct Arena {
    region: Arc<Region>,
    pages: Pages,
    /// First pages of buffers for a moment that ended last, by class: taken in `pages`.
    at_hand: [Vec<usize>; CLASS_COUNT],
    at_hand_bytes: usize,
}

impl Arena {
    fn reserve(bytes: usize) -> io::Result<Self> {
        let pages = Pages::new((bytes / PAGE_BYTES).min(PAGES_MAX));
        let region = Arc::new(Region::reserve(pages.count() * PAGE_BYTES)?);
        Ok(Self { region, pages, at_hand: Default::default(), at_hand_bytes: 0 })
    }

    fn take(&mut self, len: usize, lasting: bool) -> Option<usize> {
        for (first, len) in self.region.returned() {
            self.pages.give(first, len);
        }
        if let Some(class) = class_of(len).filter(|_| !lasting)
            && let Some(first) = self.at_hand[class].pop()
        {
            self.at_hand_bytes -= len * PAGE_BYTES;
            return Some(first);
        }
        self.pages.take(len)
    }

    fn give(&mut self, first: usize, len: usize, lasting: bool) {
        let bytes = len * PAGE_BYTES;
        match class_of(len) {
            Some(class) if !lasting && self.at_hand_bytes + bytes <= AT_HAND_BYTES_MAX => {
                self.at_hand[class].push(first);
                self.at_hand_bytes += bytes;
            }
            _ => self.pages.give(first, len),
        }
    }

    fn pooled(&self) -> i64 {
        let untaken = self.pages.reach() - self.pages.taken();
        (untaken * PAGE_BYTES + self.at_hand_bytes) as i64
    }
}

/// The class of buffers of `len` pages, if there is one.
fn class_of(len: usize) -> Option<usize> {
    let class = len.trailing_zeros() as usize;
    (len.is_power_of_two() && class < CLASS_COUNT).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `test` on a thread that is a shard with `bytes` of memory.
    fn on_a_shard(bytes: usize, test: impl FnOnce() + Send + 'static) {
        let run = move || {
            let arena = Arena::reserve(bytes).unwrap();
            POOL.with_borrow_mut(|pool| pool.arena = Some(arena));
            test();
        };
        std::thread::spawn(run).join().unwrap();
    }

    fn of_the_arena<T>(read: impl FnOnce(&Arena) -> T) -> T {
        POOL.with_borrow(|pool| read(pool.arena.as_ref().expect("a shard")))
    }

    #[test]
    fn what_was_used_a_moment_ago_is_used_next() {
        on_a_shard(8 << 20, || {
            let mut buffer = Buffer::with_capacity(8192);
            buffer.extend_from_slice(b"left over");
            let start = buffer.start();
            let lasting = Buffer::lasting(8192);
            drop(buffer);
            drop(lasting);
            assert_eq!(Buffer::with_capacity(8000).start(), start);
            let many: Vec<_> = (0..4).map(|_| Buffer::with_capacity(1 << 20)).collect();
            drop(many);
            assert!(of_the_arena(|arena| arena.at_hand_bytes) <= AT_HAND_BYTES_MAX);
        });
    }

    #[test]
    fn memory_of_one_size_serves_another_and_the_limit_stands() {
        on_a_shard(8 << 20, || {
            for bytes in [4096, 16 << 10, 69_632, 1 << 20, 3 << 20, 4096] {
                let all: Vec<_> = (0..(8 << 20) / bytes).map(|_| Buffer::lasting(bytes)).collect();
                assert!(all.iter().all(Buffer::is_at_home), "{bytes}");
            }
            assert_eq!(of_the_arena(|arena| arena.pages.taken()), 0);
            let beyond: Vec<_> = (0..3).map(|_| Buffer::lasting(4 << 20)).collect();
            assert_eq!(beyond.iter().filter(|buffer| buffer.is_at_home()).count(), 2);
        });
    }

    #[test]
    fn frozen_buffers_end_on_other_threads_and_come_home() {
        on_a_shard(8 << 20, || {
            let buffer = Buffer::lasting(1 << 20);
            let held = memory().used;
            assert!(held >= 1 << 20);
            let bytes = buffer.freeze();
            std::thread::spawn(move || drop(bytes)).join().unwrap();
            assert_eq!(of_the_arena(|arena| arena.pages.taken()), 256, "nobody asked yet");
            drop(Buffer::lasting(1));
            assert_eq!(of_the_arena(|arena| arena.pages.taken()), 0);
        });
    }

    /// As when a shard ends while a reply of its is on its way.
    #[test]
    fn a_buffer_outlives_its_shard() {
        let (send, receive) = std::sync::mpsc::channel();
        on_a_shard(8 << 20, move || {
            let mut buffer = Buffer::lasting(5000);
            buffer.extend_from_slice(b"still here");
            send.send(buffer.freeze()).unwrap();
        });
        assert_eq!(&receive.recv().unwrap()[..], b"still here");
    }

    #[test]
    fn who_is_no_shard_keeps_nothing() {
        assert!(!Buffer::with_capacity(8192).is_at_home());
    }
}
