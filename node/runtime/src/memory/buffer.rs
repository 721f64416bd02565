//! A page-aligned region of memory with a length, owned.
//!
//! Invariants: every byte of a buffer is initialised from the day its memory came (so no length can expose foreign
//! memory), and its address and capacity are multiples of 4096 (so it can always be used for O_DIRECT).

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use super::region::Region;
use super::{PAGE_BYTES, POOL, class_of};

/// A page-aligned region of memory with a length, owned. Dereferences to its first `len` bytes.
pub struct Buffer {
    start: NonNull<u8>,
    capacity: usize,
    len: usize,
    lasting: bool,
    /// Where its memory is from; none: from the allocator.
    home: Option<Arc<Region>>,
}

// SAFETY: a buffer owns its memory alone and has no interior mutability, as `Vec<u8>` does.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer for a moment, with room for at least `bytes`: up to 1 MiB rounded up to a power of
    /// two, beyond to 4 KiB.
    pub fn with_capacity(bytes: usize) -> Self {
        let pages = pages_of(bytes);
        let rounded = pages.next_power_of_two();
        Self::new(if class_of(rounded).is_some() { rounded } else { pages }, false)
    }

    /// An empty buffer for what is kept, with room for at least `bytes`, rounded up to 4 KiB.
    pub fn lasting(bytes: usize) -> Self {
        Self::new(pages_of(bytes), true)
    }

    fn new(pages: usize, lasting: bool) -> Self {
        let capacity = pages * PAGE_BYTES;
        // A thread that is ending has no pool any more, and no one who reads its figures.
        let place = POOL.try_with(|pool| pool.borrow_mut().take(capacity, lasting));
        let (start, home) = match place.ok().flatten() {
            Some((start, home)) => (start, Some(home)),
            None => (allocate(capacity), None),
        };
        Self { start, capacity, len: 0, lasting, home }
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

    #[cfg(test)]
    pub(super) fn is_at_home(&self) -> bool {
        self.home.is_some()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Self { start, capacity, lasting, .. } = *self;
        let given = POOL.try_with(|pool| {
            pool.borrow_mut().give(start, capacity, lasting, self.home.as_ref());
        });
        match &self.home {
            None => release(start, capacity),
            Some(home) if given.is_err() => {
                home.give_from_afar(home.page_at(start), capacity / PAGE_BYTES);
            }
            Some(_) => {}
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len <= capacity` bytes from `start` are ours and were initialised by the kernel or `allocate`.
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

/// Pages that hold `bytes`, at least one.
fn pages_of(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES).max(1)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, PAGE_BYTES).expect("a capacity that fits the address space")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    // SAFETY: the layout is not empty: a buffer has a page at least.
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
        for (asked, got) in
            [(0, 4096), (1, 4096), (4097, 8192), (12_289, 16_384), (1 << 20, 1 << 20)]
        {
            assert_eq!(Buffer::with_capacity(asked).capacity(), got);
        }
        assert_eq!(Buffer::with_capacity((1 << 20) + 1).capacity(), (1 << 20) + 4096);
        assert_eq!(Buffer::lasting(8193).capacity(), 12_288);
        assert_eq!(Buffer::with_capacity(1).start() as usize % PAGE_BYTES, 0);
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
}
