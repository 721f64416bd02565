//! The disk under a log: what was written, what of it is on stable storage, what a power loss leaves.
//!
//! Separate so that "flushed" means one thing in the whole simulator. A kill leaves everything that was
//! written. A power loss undoes, from the last one back, any number of the writes that no finished flush
//! covers, truncations included: a torn write is one that a check of its CRC undoes at the next start.

use std::collections::VecDeque;

use crate::random::Random;

/// A log of `T` on a disk.
#[derive(Clone, Debug)]
pub struct Disk<T> {
    entries: VecDeque<T>,
    /// What no finished flush covers, oldest first: how to undo it.
    unflushed: VecDeque<Write<T>>,
    /// How many writes there were before those.
    flushed: u64,
}

#[derive(Clone, Debug)]
enum Write<T> {
    Append,
    /// These were cut off the end, and came in this order.
    Truncate(Vec<T>),
}

/// What a flush that is under way covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flush(u64);

impl<T> Default for Disk<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), unflushed: VecDeque::new(), flushed: 0 }
    }
}

impl<T> Disk<T> {
    /// What stands in the log.
    pub const fn entries(&self) -> &VecDeque<T> {
        &self.entries
    }

    /// Writes an entry at the end.
    pub fn append(&mut self, entry: T) {
        self.entries.push_back(entry);
        self.unflushed.push_back(Write::Append);
    }

    /// Cuts the log down to its first `len` entries.
    pub fn truncate(&mut self, len: usize) {
        if len < self.entries.len() {
            let cut = self.entries.split_off(len).into();
            self.unflushed.push_back(Write::Truncate(cut));
        }
    }

    /// Drops the first `count` entries, for good. What is dropped need not have been flushed.
    pub fn drop_front(&mut self, count: usize) {
        self.entries.drain(..count);
        // Everything that is dropped counts as flushed, so that nothing brings it back: those who drop
        // it have a snapshot instead.
        if self.entries.is_empty() {
            self.all_flushed();
        }
    }

    /// Drops everything: the log goes on elsewhere.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.all_flushed();
    }

    fn all_flushed(&mut self) {
        self.flushed += self.unflushed.len() as u64;
        self.unflushed.clear();
    }

    /// A flush begins; it covers everything that was written so far.
    pub fn flush(&self) -> Flush {
        Flush(self.flushed + self.unflushed.len() as u64)
    }

    /// Whether anything is not covered by a finished flush.
    pub fn has_unflushed(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// A flush is over.
    pub fn flush_done(&mut self, Flush(covers): Flush) {
        while self.flushed < covers && self.unflushed.pop_front().is_some() {
            self.flushed += 1;
        }
    }

    /// How many entries, from the first one on, any power loss leaves in place.
    pub fn stable_len(&self) -> usize {
        let mut len = self.entries.len();
        let mut least = len;
        for write in self.unflushed.iter().rev() {
            match write {
                Write::Append => len -= 1,
                Write::Truncate(cut) => len += cut.len(),
            }
            least = least.min(len);
        }
        least
    }

    /// Power is lost: some of what was not flushed is gone. Returns how many writes were undone.
    pub fn lose_power(&mut self, random: &mut Random) -> usize {
        // All or nothing is as likely as something between.
        let most = self.unflushed.len() as u64;
        let lost = match random.below(3) {
            0 => most,
            1 => 0,
            _ => random.below(most + 1),
        };
        for _ in 0..lost {
            match self.unflushed.pop_back() {
                Some(Write::Append) => drop(self.entries.pop_back()),
                Some(Write::Truncate(cut)) => self.entries.extend(cut),
                None => unreachable!("no more than there is"),
            }
        }
        // What is left came back from the disk, so there it is.
        self.all_flushed();
        lost as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every outcome of a power loss that 200 tries show.
    fn outcomes(disk: &Disk<u8>) -> Vec<Vec<u8>> {
        let mut random = Random::new(1, 1);
        let mut all: Vec<Vec<u8>> = (0..200)
            .map(|_| {
                let mut disk = disk.clone();
                disk.lose_power(&mut random);
                disk.entries.into()
            })
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn a_power_loss_undoes_only_what_no_flush_covers() {
        let mut disk = Disk::default();
        disk.append(1);
        let flush = disk.flush();
        disk.append(2); // Written while the flush was under way: not covered.
        disk.flush_done(flush);
        assert_eq!(outcomes(&disk), [vec![1], vec![1, 2]]);
    }

    #[test]
    fn a_truncation_that_was_not_flushed_may_come_undone() {
        let mut disk = Disk::default();
        disk.append(1);
        disk.append(2);
        disk.flush_done(disk.flush());
        disk.truncate(1);
        disk.append(3);
        assert_eq!(outcomes(&disk), [vec![1], vec![1, 2], vec![1, 3]]);
    }
}
