//! Which pages of a region are free: runs of pages of any length, first served by what fits best.
//!
//! Separate because it is arithmetic alone: no address, no unsafe code. Free runs are kept in lists by length
//! with a bit for each list that is not empty (two-level segregated fit, Masmano 2004), so that taking and giving
//! back cost the same whatever is free; neighbours that are free become one. What was never touched is one run, the
//! longest, and serves only what no other can.
//!
//! Invariants: a page is free in exactly one run or in none; two free runs never touch; `free` pages are free.

/// Lists for each doubling of the length.
const STEPS: usize = 1 << STEP_BITS;
const STEP_BITS: u32 = 4;
/// Doublings: up to [`PAGES_MAX`].
const DOUBLINGS: usize = 28;
/// The most pages of a region: 8 TiB of memory.
pub const PAGES_MAX: usize = (1 << 31) - 1;

/// The free pages of a region.
pub struct Pages {
    /// For the first and the last page of a free run its length; 0 for all others, and for a page behind the end.
    runs: Vec<u32>,
    /// For the first page of a free run those of its list's next and previous, and 1; 0 where there is none.
    links: Vec<[u32; 2]>,
    /// First page of the first run of each list, and 1; 0 where it is empty.
    lists: [[u32; STEPS]; DOUBLINGS],
    /// Which lists of a doubling are not empty, and which doublings have one.
    steps: [u16; DOUBLINGS],
    doublings: u32,
    free: usize,
    reach: usize,
}

impl Pages {
    /// `count` free pages, at most [`PAGES_MAX`].
    pub fn new(count: usize) -> Self {
        assert!(count <= PAGES_MAX, "{count} pages");
        let (runs, links) = (vec![0; count + 1], vec![[0; 2]; count]);
        let (lists, steps) = ([[0; STEPS]; DOUBLINGS], [0; DOUBLINGS]);
        let mut pages = Self { runs, links, lists, steps, doublings: 0, free: 0, reach: 0 };
        pages.give(0, count);
        pages
    }

    /// All pages.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// Pages that somebody has.
    pub fn taken(&self) -> usize {
        self.count() - self.free
    }

    /// The page behind the last that anybody ever had.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// A run of `len` pages, at least 1: its first page; `None` where no free run is known to be so long.
    pub fn take(&mut self, len: usize) -> Option<usize> {
        assert!(len > 0, "a run of no pages");
        let first = self.like(len).or_else(|| self.longer(len))?;
        let had = self.runs[first] as usize;
        self.unlink(first, had);
        if had > len {
            self.link(first + len, had - len);
        }
        self.free -= len;
        self.reach = self.reach.max(first + len);
        Some(first)
    }

    /// Gives back the run of `len` pages from `first`.
    pub fn give(&mut self, mut first: usize, mut len: usize) {
        if len == 0 {
            return;
        }
        assert!(first + len <= self.count(), "pages of another region");
        let ends = [self.runs[first], self.runs[first + len - 1]];
        assert!(ends == [0; 2], "pages were given back twice");
        self.free += len;
        let behind = self.runs[first + len] as usize;
        if behind > 0 {
            self.unlink(first + len, behind);
            len += behind;
        }
        if let Some(before) = first.checked_sub(1).map(|last| self.runs[last] as usize)
            && before > 0
        {
            first -= before;
            self.unlink(first, before);
            len += before;
        }
        self.link(first, len);
    }

    /// The first run of the list that runs of `len` pages are in, if it is long enough: one that was given back
    /// just now is, where all are of one length.
    fn like(&self, len: usize) -> Option<usize> {
        let (doubling, step) = list_of(len);
        let first = (self.lists[doubling][step] as usize).checked_sub(1)?;
        (self.runs[first] as usize >= len).then_some(first)
    }

    /// A run of the shortest list whose runs are all longer than `len`.
    fn longer(&self, len: usize) -> Option<usize> {
        let (doubling, step) = list_of(len);
        let above = |from: usize| u32::MAX.checked_shl(from as u32).unwrap_or(0);
        let steps = u32::from(self.steps[doubling]) & above(step + 1);
        let (doubling, steps) = if steps != 0 {
            (doubling, steps)
        } else {
            let doublings = self.doublings & above(doubling + 1);
            let doubling = doublings.trailing_zeros() as usize;
            (doubling, u32::from(*self.steps.get(doubling)?))
        };
        Some(self.lists[doubling][steps.trailing_zeros() as usize] as usize - 1)
    }

    fn link(&mut self, first: usize, len: usize) {
        (self.runs[first], self.runs[first + len - 1]) = (len as u32, len as u32);
        let (doubling, step) = list_of(len);
        let next = std::mem::replace(&mut self.lists[doubling][step], first as u32 + 1);
        self.links[first] = [next, 0];
        if next > 0 {
            self.links[next as usize - 1][1] = first as u32 + 1;
        }
        self.steps[doubling] |= 1 << step;
        self.doublings |= 1 << doubling;
    }

    fn unlink(&mut self, first: usize, len: usize) {
        (self.runs[first], self.runs[first + len - 1]) = (0, 0);
        let (doubling, step) = list_of(len);
        let [next, previous] = self.links[first];
        if next > 0 {
            self.links[next as usize - 1][1] = previous;
        }
        if previous > 0 {
            self.links[previous as usize - 1][0] = next;
            return;
        }
        self.lists[doubling][step] = next;
        if next == 0 {
            self.steps[doubling] &= !(1 << step);
            if self.steps[doubling] == 0 {
                self.doublings &= !(1 << doubling);
            }
        }
    }
}

/// Doubling and step of the list that holds free runs of `len` pages: each length its own up to 31 pages, from then
/// on 16 lists for each doubling.
fn list_of(len: usize) -> (usize, usize) {
    let Some(shift) = len.ilog2().checked_sub(STEP_BITS) else { return (0, len) };
    (shift as usize + 1, (len >> shift) - STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_run_takes_no_page_more_than_it_has() {
        let mut pages = Pages::new(1021);
        let runs = [5, 1, 2, 1000, 1, 12].map(|len| (pages.take(len).unwrap(), len));
        assert_eq!((pages.taken(), pages.take(1)), (1021, None));
        for (first, len) in runs {
            pages.give(first, len);
        }
        assert_eq!((pages.taken(), pages.take(1021)), (0, Some(0)));
    }

    #[test]
    fn what_was_used_before_is_used_again() {
        let mut pages = Pages::new(65_536);
        for round in 0..10_000 {
            let len = 1 + round * 7 % 40;
            let (one, other) = (pages.take(len).unwrap(), pages.take(3).unwrap());
            pages.give(one, len);
            pages.give(other, 3);
        }
        assert_eq!(pages.reach(), 43);
    }

    #[test]
    fn each_length_has_its_list() {
        let lists: Vec<_> = (1..100_000).map(list_of).collect();
        assert!(lists.is_sorted() && lists[..31].windows(2).all(|two| two[0] != two[1]));
        assert_eq!(list_of(PAGES_MAX), (DOUBLINGS - 1, STEPS - 1));
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn a_page_comes_back_once() {
        let mut pages = Pages::new(1024);
        let (first, _) = (pages.take(1).unwrap(), pages.take(1).unwrap());
        pages.give(first, 1);
        pages.give(first, 1);
    }

    /// Against a map of who has what: no run meets another, and all pages come back.
    #[test]
    fn runs_never_meet() {
        let (mut pages, mut held) = (Pages::new(3000), BTreeMap::new());
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let len = 1 + (random >> 33) as usize % [3, 40, 700][(random >> 60) as usize % 3];
            match pages.take(len) {
                Some(first) if random >> 63 == 0 || held.len() < 20 => {
                    let before = held.range(..first + len).next_back();
                    assert!(before.is_none_or(|(other, len)| other + len <= first));
                    held.insert(first, len);
                }
                Some(first) => pages.give(first, len),
                None => {
                    for (first, len) in std::mem::take(&mut held) {
                        pages.give(first, len);
                    }
                }
            }
            assert_eq!(pages.taken(), held.values().sum::<usize>());
        }
        for (first, len) in held {
            pages.give(first, len);
        }
        assert_eq!(pages.take(3000), Some(0));
    }
}
