//! Which leader epoch began where: what OffsetForLeaderEpoch and diverging followers ask.
//!
//! Kept in memory, stored in `leader-epoch-checkpoint`. Invariant: epochs and start offsets both
//! grow strictly. The file may be behind: what it misses is in segments that recovery scans.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use flowstone_types::{LeaderEpoch, Offset};

use crate::checkpoint::{CorruptCheckpoint, Lines};

/// The leader epochs of one log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
    dirty: bool,
}

impl Epochs {
    /// Notes that the batch at `start` was written in `epoch`. An epoch that is known keeps its
    /// start; entries that contradict the new one are dropped, as Kafka drops them.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch < LeaderEpoch(0) {
            return; // Old batches without an epoch.
        }
        if self.entries.last().is_some_and(|(last, at)| *last == epoch && *at <= start) {
            return;
        }
        self.entries.retain(|(known, at)| *known < epoch && *at < start);
        self.entries.push((epoch, start));
        self.dirty = true;
    }

    /// The epoch of the newest batch; `None` for an empty log.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch in which the batch at `offset` was written; -1 where that is not known.
    pub fn of(&self, offset: Offset) -> LeaderEpoch {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map_or(LeaderEpoch::NONE, |at| self.entries[at].0)
    }

    /// Kafka's `endOffsetFor`: the largest epoch not above `epoch`, and where the next one began
    /// (`log_end` for the latest). (-1, -1) where nothing can be said.
    pub fn end_of(&self, epoch: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        let unknown = (LeaderEpoch::NONE, Offset(-1));
        if epoch == LeaderEpoch::NONE {
            return unknown;
        }
        if self.latest() == Some(epoch) {
            return (epoch, log_end);
        }
        let after = self.entries.partition_point(|(known, _)| *known <= epoch);
        match (after.checked_sub(1), self.entries.get(after)) {
            (_, None) => unknown, // Above every epoch we know.
            (None, Some((_, start))) => (epoch, *start),
            (Some(at), Some((_, start))) => (self.entries[at].0, *start),
        }
    }

    /// Forgets the epochs that began at or after `end`.
    pub fn truncate_from_end(&mut self, end: Offset) {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        self.dirty |= self.entries.len() != before;
    }

    /// Forgets the epochs that ended before `start`; the one that covers it now begins there.
    pub fn truncate_from_start(&mut self, start: Offset) {
        let after = self.entries.partition_point(|(_, at)| *at <= start);
        if let Some(covering) = after.checked_sub(1)
            && (covering > 0 || self.entries[0].1 < start)
        {
            self.entries.drain(..covering);
            self.entries[0].1 = start;
            self.dirty = true;
        }
    }

    /// The file's text, if it changed since the last call.
    pub fn take_dirty(&mut self) -> Option<String> {
        core::mem::take(&mut self.dirty).then(|| self.encode())
    }

    /// Says that the text last taken was not stored after all.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    fn encode(&self) -> String {
        let mut text = String::new();
        let _ = write!(text, "0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            let _ = writeln!(text, "{epoch} {start}");
        }
        text
    }

    /// Reads the file.
    pub fn decode(text: &str) -> Result<Self, CorruptCheckpoint> {
        let mut epochs = Self::default();
        for line in Lines::open(text)? {
            let line = line?;
            let (epoch, start) = line.split_once(' ').ok_or(CorruptCheckpoint::Line)?;
            let epoch: i32 = epoch.parse().map_err(|_| CorruptCheckpoint::Line)?;
            let start: i64 = start.parse().map_err(|_| CorruptCheckpoint::Line)?;
            if epoch < 0 || start < 0 {
                return Err(CorruptCheckpoint::Line);
            }
            epochs.assign(LeaderEpoch(epoch), Offset(start));
        }
        epochs.dirty = false;
        Ok(epochs)
    }

    /// Number of epochs known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no epoch is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            epochs.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        epochs
    }

    #[test]
    fn end_offsets_follow_kip_101() {
        let known = epochs(&[(2, 10), (4, 20), (7, 30)]);
        for (asked, (epoch, end)) in [
            (-1, (-1, -1)),
            (0, (0, 10)),
            (2, (2, 20)),
            (3, (2, 20)),
            (4, (4, 30)),
            (7, (7, 99)),
            (8, (-1, -1)),
        ] {
            assert_eq!(
                known.end_of(LeaderEpoch(asked), Offset(99)),
                (LeaderEpoch(epoch), Offset(end)),
                "{asked}"
            );
        }
        for (offset, epoch) in [(9, -1), (10, 2), (25, 4), (1000, 7)] {
            assert_eq!(known.of(Offset(offset)), LeaderEpoch(epoch));
        }
    }

    #[test]
    fn an_epoch_without_batches_gives_way() {
        let mut known = epochs(&[(1, 0), (2, 10)]);
        known.assign(LeaderEpoch(3), Offset(10));
        assert_eq!(known, {
            let mut e = epochs(&[(1, 0), (3, 10)]);
            e.dirty = true;
            e
        });
    }

    #[test]
    fn truncation_keeps_the_epoch_that_covers_the_start() {
        let mut known = epochs(&[(1, 0), (2, 10), (3, 20)]);
        known.truncate_from_start(Offset(15));
        assert_eq!(known.encode(), "0\n2\n2 15\n3 20\n");
        known.truncate_from_end(Offset(20));
        assert_eq!(known.encode(), "0\n1\n2 15\n");
        known.truncate_from_end(Offset(0));
        assert!(known.is_empty());
    }

    #[test]
    fn the_file_goes_there_and_back_and_lies_are_refused() {
        let mut known = epochs(&[(0, 0), (5, 1234)]);
        let text = known.take_dirty().unwrap();
        assert_eq!(text, "0\n2\n0 0\n5 1234\n");
        assert_eq!(Epochs::decode(&text), Ok(known));
        for bad in [
            "",
            "1\n0\n",
            "0\n2\n0 0\n",
            "0\n1\n0 0\n1 1\n",
            "0\n1\nx y\n",
            "0\n1\n\0\0\0\n",
            "0\n-1\n",
        ] {
            assert!(Epochs::decode(bad).is_err(), "{bad:?}");
        }
    }
}
