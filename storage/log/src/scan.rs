//! Walks over the batches of a segment: whole and right ones for recovery, whole ones for reading.
//!
//! Pure: windows of bytes come in, decisions go out. Invariant: nothing counts as a batch unless
//! its bytes are all there, its offsets follow those before it and (where asked) its CRC is right.

use core::ops::Range;

use flowstone_batch::{BatchHeader, HEADER_LEN, LOG_OVERHEAD, crc_ok};
use flowstone_types::Offset;

/// Why a segment's batches end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// At the file's end, or where zeros that were never written begin.
    Clean,
    /// In the middle of a batch: a write that did not finish.
    Torn,
    /// At bytes that are no batch of this log.
    Invalid,
    /// At a batch whose CRC is wrong.
    Crc,
}

impl End {
    /// In words, for the operator.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Clean => "end of data",
            Self::Torn => "a batch that was not written whole",
            Self::Invalid => "bytes that are no batch",
            Self::Crc => "a batch with a wrong checksum",
        }
    }
}

/// What a [`Scanner`] says of the bytes at its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A batch; the scanner is behind it now.
    Batch(BatchHeader),
    /// A window of at least this many bytes from the scanner's position is needed.
    More(usize),
    /// There are no more batches.
    End(End),
}

/// Goes through one segment from front to back.
#[derive(Clone, Debug)]
pub struct Scanner {
    base: Offset,
    position: u64,
    next: Offset,
    file_bytes: u64,
    check_crc: bool,
}

impl Scanner {
    /// Starts at `position` of the segment at `base`, whose file has `file_bytes`; a batch there
    /// must not start before `next`.
    pub const fn new(
        base: Offset,
        position: u64,
        next: Offset,
        file_bytes: u64,
        check_crc: bool,
    ) -> Self {
        Self { base, position, next, file_bytes, check_crc }
    }

    /// Where the next batch would start. After the end: how much of the file is good.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Length of the file.
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The offset after the last batch seen.
    pub const fn next(&self) -> Offset {
        self.next
    }

    /// Looks at `window`, the file's bytes from [`Scanner::position`] on.
    pub fn step(&mut self, window: &[u8]) -> Step {
        let left = self.file_bytes - self.position;
        if left == 0 {
            return Step::End(End::Clean);
        }
        if left < HEADER_LEN as u64 {
            // Shorter than any batch: a torn one, or the zeros of a page that was written whole.
            return match window.get(..left as usize) {
                None => Step::More(left as usize),
                Some(rest) if rest.iter().all(|byte| *byte == 0) => Step::End(End::Clean),
                Some(_) => Step::End(End::Torn),
            };
        }
        let Some(start) = window.first_chunk::<HEADER_LEN>() else {
            return Step::More(HEADER_LEN);
        };
        if start[..LOG_OVERHEAD].iter().all(|byte| *byte == 0) && start[16] == 0 {
            return Step::End(End::Clean); // Allocated, never written.
        }
        let Ok(header) = BatchHeader::parse(start) else { return Step::End(End::Invalid) };
        let bytes = header.total_len();
        let relative_last = header.last_offset().0.wrapping_sub(self.base.0);
        if header.last_offset_delta < 0
            || header.base_offset < self.next
            || !(0..=i64::from(i32::MAX)).contains(&relative_last)
            || header.last_offset() == Offset(i64::MAX)
        // No offset follows it: the log could not end.
        {
            return Step::End(End::Invalid);
        }
        if bytes as u64 > left {
            return Step::End(End::Torn);
        }
        let Some(batch) = window.get(..bytes) else { return Step::More(bytes) };
        if self.check_crc {
            if !crc_ok(batch) {
                return Step::End(End::Crc);
            }
            // The base offset is outside of the CRC. Compaction leaves gaps, but what follows a gap
            // goes on behind it: where it does not, the offset is damaged.
            if header.base_offset != self.next && left >= (bytes + HEADER_LEN) as u64 {
                let Some(after) = window.get(bytes..bytes + HEADER_LEN) else {
                    return Step::More(bytes + HEADER_LEN);
                };
                let goes_on = |after: BatchHeader| after.base_offset > header.last_offset();
                if BatchHeader::parse(after).is_ok_and(|after| !goes_on(after)) {
                    return Step::End(End::Invalid);
                }
            }
        }
        self.position += bytes as u64;
        self.next = header.last_offset().plus(1);
        Step::Batch(header)
    }
}

/// What a reader asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The first offset wanted: the batch that holds it comes first.
    pub from: Offset,
    /// No batch that reaches this offset.
    pub below: Offset,
    /// At most so many bytes...
    pub bytes_max: usize,
    /// ...but one whole batch in any case.
    pub at_least_one: bool,
}

/// Why a [`cut`] ends where it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutEnd {
    /// As much as was wanted, or the next batch is above `below`.
    Enough,
    /// The window ends first: from `Cut::range.end` on, this many bytes are needed to go on.
    Window(usize),
    /// The bytes there are no batch: the end of the data, or damage.
    NoBatch,
}

/// The whole batches of a window that answer a [`Wanted`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The bytes of the window to hand out; empty ranges end where looking further should start.
    pub range: Range<usize>,
    /// The offset after the last batch in `range`; `from` where it is empty.
    pub next: Offset,
    /// Why it ends there.
    pub end: CutEnd,
}

/// Finds the batches wanted in `window`, which starts with a batch. What comes from a disk is checked against its
/// `segment`'s offsets, from its base up to the next one's: a batch whose CRC is wrong is no batch then, nor is one whose
/// offsets (the first is outside of the CRC) are not the segment's or do not follow those before it.
pub fn cut(window: &[u8], wanted: Wanted, segment: Option<&Range<Offset>>) -> Cut {
    let (mut start, mut at, mut next) = (0, 0, wanted.from);
    let mut follows = segment.map(|segment| segment.start);
    let end = loop {
        let rest = &window[at..];
        if rest.len() < HEADER_LEN {
            break CutEnd::Window(HEADER_LEN);
        }
        let Ok(header) = BatchHeader::parse(rest) else { break CutEnd::NoBatch };
        let bytes = header.total_len();
        let last = header.last_offset();
        if follows.is_some_and(|follows| header.base_offset < follows)
            || segment.is_some_and(|segment| last >= segment.end)
        {
            break CutEnd::NoBatch;
        }
        follows = segment.map(|_| last.plus(1));
        if last < wanted.from {
            if bytes > rest.len() {
                break CutEnd::Window(bytes);
            }
            at += bytes; // Before what is wanted: stepped over, not looked into.
            start = at;
            continue;
        }
        let first = start == at;
        let fits = at + bytes - start <= wanted.bytes_max || (first && wanted.at_least_one);
        if last >= wanted.below || !fits {
            break CutEnd::Enough;
        }
        if bytes > rest.len() {
            break CutEnd::Window(bytes);
        }
        if header.last_offset_delta < 0 || (segment.is_some() && !crc_ok(&rest[..bytes])) {
            break CutEnd::NoBatch;
        }
        // Behind a gap, which compaction leaves, the batch after it tells whether this one is where it belongs.
        if segment.is_some()
            && header.base_offset > next
            && BatchHeader::parse(&rest[bytes..]).is_ok_and(|after| after.base_offset <= last)
        {
            break CutEnd::NoBatch;
        }
        at += bytes;
        next = last.plus(1);
    };
    Cut { range: start..at, next, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use flowstone_batch::BatchBuilder;
    use flowstone_types::{LeaderEpoch, Timestamp};

    /// A segment of batches with two records each, the first at `base`.
    fn segment(base: i64, count: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for at in 0..count {
            let mut batch = BatchBuilder::new(Offset(base + 2 * at)).leader_epoch(LeaderEpoch(3));
            for _ in 0..2 {
                batch.push(Timestamp(1000 + at), Some(b"key"), Some(b"value"), &[]);
            }
            bytes.extend_from_slice(&batch.build());
        }
        bytes
    }

    /// How many batches a scan finds, how it ends, and where.
    fn scan(bytes: &[u8], base: i64) -> (usize, End, u64) {
        let mut scanner = Scanner::new(Offset(base), 0, Offset(base), bytes.len() as u64, true);
        let (mut count, mut window) = (0, 0);
        loop {
            let at = scanner.position() as usize;
            match scanner.step(&bytes[at..(at + window).min(bytes.len())]) {
                Step::Batch(_) => count += 1,
                Step::More(wanted) => {
                    assert!(wanted > window, "asks for more than it was given");
                    window = wanted;
                }
                Step::End(end) => return (count, end, scanner.position()),
            }
        }
    }

    /// Found by fuzzing: the log's end would be an offset below all others.
    #[test]
    fn no_batch_ends_with_the_last_offset_there_is() {
        let near = i64::MAX - 10;
        assert_eq!(scan(&segment(near, 5), near), (5, End::Clean, segment(near, 5).len() as u64));
        let over = segment(near + 1, 5);
        let four = segment(near + 1, 4).len() as u64;
        assert_eq!(scan(&over, near + 1), (4, End::Invalid, four));
    }

    #[test]
    fn whole_batches_are_found_whatever_the_window() {
        let mut bytes = segment(100, 5);
        let len = bytes.len() as u64;
        assert_eq!(scan(&bytes, 100), (5, End::Clean, len));
        bytes.resize(bytes.len() + 10_000, 0);
        assert_eq!(scan(&bytes, 100), (5, End::Clean, len), "zeros were never written");
        bytes.truncate(len as usize + 17);
        assert_eq!(scan(&bytes, 100), (5, End::Clean, len));
    }

    #[test]
    fn no_cut_no_flip_and_no_garbage_gives_a_wrong_batch() {
        let whole = segment(0, 4);
        let batch = whole.len() / 4;
        for cut in 1..batch {
            let (count, end, at) = scan(&whole[..whole.len() - cut], 0);
            assert_eq!((count, at as usize), (3, 3 * batch));
            // What is left of it may be zeros, the first bytes of a small offset.
            let is_zeros = whole[3 * batch..whole.len() - cut].iter().all(|byte| *byte == 0);
            assert_eq!(end, if is_zeros { End::Clean } else { End::Torn }, "{cut}");
        }
        // Bytes 12..16 are the leader epoch, which nothing protects (nor does Kafka).
        for bit in (0..batch * 8).filter(|bit| !(12..16).contains(&(bit / 8))) {
            let mut flipped = whole.clone();
            flipped[2 * batch + bit / 8] ^= 1 << (bit % 8);
            let (count, end, at) = scan(&flipped, 0);
            assert_eq!((count, at as usize), (2, 2 * batch), "bit {bit}");
            assert_ne!(end, End::Clean, "bit {bit}");
        }
        let mut garbage = whole.clone();
        garbage.extend((0..999_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8));
        let (count, end, at) = scan(&garbage, 0);
        assert_eq!((count, at as usize), (4, whole.len()));
        assert_ne!(end, End::Clean);
    }

    #[test]
    fn an_older_batch_never_passes_for_the_next() {
        let mut bytes = segment(10, 2);
        bytes.extend(segment(10, 1));
        assert_eq!(scan(&bytes, 10).0, 2);
        assert_eq!(scan(&segment(9, 1), 10), (0, End::Invalid, 0), "before its segment");
    }

    #[test]
    fn gaps_that_compaction_left_are_no_damage() {
        let mut bytes = segment(0, 2);
        bytes.extend(segment(1000, 2));
        assert_eq!(scan(&bytes, 0).0, 4);
    }

    #[test]
    fn a_cut_hands_out_whole_batches_only() {
        let bytes = segment(0, 5);
        let batch = bytes.len() / 5;
        let wanted =
            Wanted { from: Offset(3), below: Offset(8), bytes_max: 1 << 20, at_least_one: true };
        let got = cut(&bytes, wanted, Some(&ALL));
        assert_eq!((got.range, got.next, got.end), (batch..4 * batch, Offset(8), CutEnd::Enough));
        let small = Wanted { bytes_max: 1, ..wanted };
        assert_eq!(cut(&bytes, small, Some(&ALL)).range, batch..2 * batch, "one in any case");
        assert!(cut(&bytes, Wanted { at_least_one: false, ..small }, Some(&ALL)).range.is_empty());
        assert_eq!(
            cut(&bytes, Wanted { below: Offset(3), ..wanted }, Some(&ALL)).range.len(),
            0,
            "batch 2..4 reaches 3"
        );
        let window = cut(&bytes[..2 * batch + 70], wanted, Some(&ALL));
        assert_eq!((window.range, window.end), (batch..2 * batch, CutEnd::Window(batch)));
        let mut flipped = bytes.clone();
        flipped[2 * batch + 65] ^= 1;
        assert_eq!(cut(&flipped, wanted, Some(&ALL)).range, batch..2 * batch);
        assert_eq!(cut(&flipped, wanted, Some(&ALL)).end, CutEnd::NoBatch);
    }

    /// The base offset is outside of the CRC. Found by fuzzing: what a bit made of it was served as it stood.
    #[test]
    fn a_batch_whose_offset_was_bent_is_not_handed_out() {
        let bytes = segment(10, 5); // 10, 12, 14, 16, 18
        let batch = bytes.len() / 5;
        let wanted =
            Wanted { from: Offset(10), below: Offset(99), bytes_max: 1 << 20, at_least_one: true };
        let bent = |number: usize, base: i64, from: i64| {
            let mut bytes = bytes.clone();
            bytes[number * batch..][..8].copy_from_slice(&base.to_be_bytes());
            let got = cut(&bytes, Wanted { from: Offset(from), ..wanted }, Some(&OF));
            (got.range.end / batch, got.end)
        };
        assert_eq!(bent(4, 18, 10), (5, CutEnd::Window(HEADER_LEN)), "as it was");
        for (base, why) in [
            (2, "before its segment"),
            (12, "not behind the one before"),
            (15, "onto the next"),
            (30, "behind its segment"),
        ] {
            assert_eq!(bent(2, base, 10), (2, CutEnd::NoBatch), "{base}: {why}");
            assert_eq!(bent(2, base, 14), (2, CutEnd::NoBatch), "{base}, asked for: {why}");
        }
        assert_eq!(bent(0, 15, 10), (0, CutEnd::NoBatch), "the first of a window");
    }

    const OF: Range<Offset> = Offset(10)..Offset(20);
    const ALL: Range<Offset> = Offset(0)..Offset(i64::MAX);
}
