//! A list of byte strings as the kernel wants it: I/O vectors over memory that we hold.

use bytes::Bytes;

/// Vectors per submission at most (UIO_MAXIOV).
const VECTORS_MAX: usize = 1024;

/// What is left to write or send, and who holds the memory.
pub(super) struct Parts {
    held: Vec<Bytes>,
    vectors: Vec<libc::iovec>,
    first: usize, // Those before it are done.
    bytes_max: usize,
    /// A piece of the first one, where a test has the kernel fall short.
    #[cfg(test)]
    short: [libc::iovec; 1],
}

impl Parts {
    /// Parts of which one submission takes no more than `bytes_max` bytes.
    pub(super) fn new(parts: Vec<Bytes>, bytes_max: usize) -> Self {
        let mut held = Vec::with_capacity(parts.len());
        for mut part in parts {
            while part.len() > bytes_max {
                held.push(part.split_to(bytes_max));
            }
            if !part.is_empty() {
                held.push(part);
            }
        }
        let vector =
            |part: &Bytes| libc::iovec { iov_base: part.as_ptr() as *mut _, iov_len: part.len() };
        let vectors = held.iter().map(vector).collect();
        Self {
            held,
            vectors,
            first: 0,
            bytes_max,
            #[cfg(test)]
            short: [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }],
        }
    }

    /// Whether all is done.
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.vectors.len()
    }

    /// The next vectors to submit, and how many. They stay where they are for the life of `self`.
    pub(super) fn vectors(&mut self) -> (*mut libc::iovec, usize) {
        let left = &mut self.vectors[self.first..];
        #[cfg(test)]
        if super::op::at_once(left[0].iov_len) < left[0].iov_len {
            self.short[0] = left[0];
            self.short[0].iov_len = super::op::at_once(left[0].iov_len);
            return (self.short.as_mut_ptr(), 1);
        }
        let mut bytes = 0;
        let fits = |vector: &&libc::iovec| {
            bytes += vector.iov_len;
            bytes <= self.bytes_max
        };
        let count = left.iter().take(VECTORS_MAX).take_while(fits).count();
        (left.as_mut_ptr(), count)
    }

    /// Takes note that the kernel took `bytes`.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let vector = &mut self.vectors[self.first];
            if bytes < vector.iov_len {
                // SAFETY: still within the part that it points into, which `held` keeps.
                vector.iov_base = unsafe { vector.iov_base.byte_add(bytes) };
                vector.iov_len -= bytes;
                return;
            }
            bytes -= vector.iov_len;
            self.held[self.first].clear(); // Done with: give the memory back.
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_writes_leave_the_rest() {
        let part = Bytes::from_static;
        let abc = || vec![part(b"abc"), part(b""), part(b"de"), part(b"f")];
        let mut parts = Parts::new(abc(), usize::MAX);
        let left = |parts: &mut Parts| {
            let (start, count) = parts.vectors();
            // SAFETY: `count` vectors from `start`, all of them over what `parts` holds.
            let vectors = unsafe { std::slice::from_raw_parts(start, count) };
            vectors.iter().map(|v| v.iov_len).collect::<Vec<_>>()
        };
        assert_eq!(left(&mut parts), [3, 2, 1]);
        parts.advance(2);
        assert_eq!(left(&mut parts), [1, 2, 1]);
        parts.advance(2);
        assert_eq!(left(&mut parts), [1, 1]);
        parts.advance(2);
        assert!(parts.is_empty());

        let mut parts = Parts::new(abc(), 2); // ab c de f
        for submitted in [vec![2], vec![1], vec![2], vec![1]] {
            assert_eq!(left(&mut parts), submitted);
            parts.advance(submitted.iter().sum());
        }
        assert!(parts.is_empty());
    }
}
