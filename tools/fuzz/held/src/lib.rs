//! How much memory something takes, by an allocator that counts.
//!
//! Separate because tests of several crates, and both drivers of the fuzz targets, hold readers of hostile bytes to a
//! bound with it. Invariant: only what the measuring thread asks for is counted. A binary must install it
//! (`#[global_allocator]`).
#![expect(unsafe_code, reason = "a GlobalAlloc is unsafe to write; this one counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread holds, and the most it held since it was set.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST_HELD: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor panic, and a
// thread whose counters are gone is not counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        MOST_HELD.with(|most| most.set(most.get().max(held.get())));
    });
}

/// The most bytes that this thread held while `run` ran, beyond what it held before.
pub fn most_held(run: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST_HELD.set(before);
    run();
    usize::try_from(MOST_HELD.get() - before).expect("the most is never less")
}
