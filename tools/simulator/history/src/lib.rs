//! What clients sent, were told and read; and what must be true of it.
//!
//! The one judge of every scenario, after Jepsen's Kafka workload: no acknowledged record lost,
//! duplicated (where its producer is idempotent), reordered or changed; no offset with two values;
//! nothing served that nobody sent; no watermark and no committed offset that goes back.
//! Pure, and separate because the simulator and the faults against the real daemon have one judge.
//! Checks happen as early as they can, so that a trace ends where things went wrong.

#![no_std]
extern crate alloc;

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// One record: who made it, and its place in what that producer sent to the partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RecordId {
    /// The producer.
    pub producer: u32,
    /// Counts from 0, per producer and partition.
    pub number: u32,
}

impl RecordId {
    /// The record's value: its identity, then bytes that follow from it; each length is met.
    pub fn value(self, len_max: usize) -> Vec<u8> {
        let mut value = Vec::new();
        value.extend_from_slice(&self.producer.to_be_bytes());
        value.extend_from_slice(&self.number.to_be_bytes());
        let len = self.mixed(u64::MAX) as usize % (len_max + 1);
        let filler = (0_u64..).flat_map(|index| self.mixed(index).to_be_bytes());
        value.extend(filler.take(len));
        value
    }

    /// Which record a value is of; `None` if it is of none.
    pub fn of(value: &[u8]) -> Option<Self> {
        let (producer, rest) = value.split_first_chunk()?;
        let (number, filler) = rest.split_first_chunk()?;
        let (producer, number) = (u32::from_be_bytes(*producer), u32::from_be_bytes(*number));
        let id = Self { producer, number };
        let expected = (0_u64..).flat_map(|index| id.mixed(index).to_be_bytes());
        filler.iter().copied().eq(expected.take(filler.len())).then_some(id)
    }

    fn mixed(self, index: u64) -> u64 {
        let id = u64::from(self.producer) << 32 | u64::from(self.number);
        let mixed =
            (id ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}#{}", self.producer, self.number)
    }
}

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// One offset, two records.
    #[error("offset {offset} was {first} and is {second}")]
    TwoValues {
        /// Where.
        offset: i64,
        /// What was there, or was said to be.
        first: RecordId,
        /// What is there now.
        second: RecordId,
    },
    /// Bytes that nobody sent to this partition.
    #[error("offset {offset} holds {what} that nobody sent")]
    Phantom {
        /// Where.
        offset: i64,
        /// What it looks like.
        what: String,
    },
    /// A record that was acknowledged, or that a consumer was given, is gone.
    #[error("offset {offset}, {record}, is gone: the log ends at {end}")]
    Lost {
        /// Where it was.
        offset: i64,
        /// The record.
        record: RecordId,
        /// End of the log.
        end: i64,
    },
    /// More copies than were asked for.
    #[error("{record} is there {copies} times, was sent {attempts} times")]
    Duplicated {
        /// The record.
        record: RecordId,
        /// How often it is in the log.
        copies: u32,
        /// How often it may be.
        attempts: u32,
    },
    /// An idempotent producer's records in another order than it sent them in.
    #[error("{second} (offset {offset}) is behind {first}")]
    Reordered {
        /// Where it shows.
        offset: i64,
        /// What comes first in the log.
        first: RecordId,
        /// What comes after it.
        second: RecordId,
    },
    /// A reader asked for one offset and was given another.
    #[error("expected offset {expected}, read {got}")]
    Skipped {
        /// The next offset.
        expected: i64,
        /// The one that came.
        got: i64,
    },
    /// The log's end, the high watermark or a committed offset went back.
    #[error("{what} was at least {before} and is {after}")]
    WentBack {
        /// Which.
        what: &'static str,
        /// The highest value that anybody was told before this was asked.
        before: i64,
        /// What was told now.
        after: i64,
    },
    /// An idempotent producer that sends one batch at a time was told that it is out of order.
    #[error("{record}: the broker forgot what it knew of the producer ({answer})")]
    Forgotten {
        /// The first record of the batch.
        record: RecordId,
        /// What the broker said.
        answer: String,
    },
}

struct Sent {
    attempts: u32,
    idempotent: bool,
}

/// What is known of one partition.
#[derive(Default)]
pub struct PartitionHistory {
    sent: BTreeMap<RecordId, Sent>,
    /// What somebody was told is at an offset: by an acknowledgement or a read.
    known: BTreeMap<i64, RecordId>,
    acknowledged: BTreeMap<RecordId, i64>,
    watermark: i64,
    /// Where the log begins: what was below it is gone by right, and forgotten here.
    start: i64,
    forgotten: usize,
}

impl PartitionHistory {
    /// A producer begins to send a record (again, for a retry).
    pub fn sending(&mut self, record: RecordId, idempotent: bool) {
        self.sent.entry(record).or_insert(Sent { attempts: 0, idempotent }).attempts += 1;
    }

    /// A producer was told that its record is at `offset`.
    pub fn acknowledged(&mut self, record: RecordId, offset: i64) -> Result<(), Violation> {
        let earlier = self.acknowledged.range(..record).next_back();
        if let Some((&first, &place)) = earlier
            && first.producer == record.producer
            && place >= offset
        {
            return Err(Violation::Reordered { offset, first: record, second: first });
        }
        self.acknowledged.insert(record, offset);
        self.know(offset, record)
    }

    /// A consumer was given `value` at `offset`.
    pub fn read(&mut self, offset: i64, value: &[u8]) -> Result<RecordId, Violation> {
        let record = RecordId::of(value).filter(|record| self.sent.contains_key(record));
        let Some(record) = record else {
            let what = RecordId::of(value).map_or(format!("{value:02x?}"), |id| id.to_string());
            return Err(Violation::Phantom { offset, what });
        };
        self.know(offset, record)?;
        Ok(record)
    }

    fn know(&mut self, offset: i64, second: RecordId) -> Result<(), Violation> {
        match self.known.insert(offset, second) {
            Some(first) if first != second => Err(Violation::TwoValues { offset, first, second }),
            Some(_) | None => Ok(()),
        }
    }

    /// Where the log begins, as far as is known.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The log begins at `start` now (retention, or somebody deleted records): what is known of the
    /// offsets below it is forgotten, so that a long run's history does not grow without end.
    pub fn starts_at(&mut self, start: i64) -> Result<(), Violation> {
        if start < self.start {
            let what = "the start of the log";
            return Err(Violation::WentBack { what, before: self.start, after: start });
        }
        self.start = start;
        let kept = self.known.split_off(&start);
        for record in core::mem::replace(&mut self.known, kept).into_values() {
            // A second copy of a record that is sent again may lie above: then it is not forgotten.
            if self.acknowledged.get(&record).is_some_and(|offset| *offset < start) {
                self.acknowledged.remove(&record);
                self.sent.remove(&record);
                self.forgotten += 1;
            }
        }
        Ok(())
    }

    /// What a question about the watermark that is asked now must at least be answered.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// The answer to a question that was asked when [`PartitionHistory::watermark`] was `floor`.
    pub fn watermark_is(&mut self, floor: i64, watermark: i64) -> Result<(), Violation> {
        self.watermark = self.watermark.max(watermark);
        if watermark < floor {
            let what = "the high watermark";
            return Err(Violation::WentBack { what, before: floor, after: watermark });
        }
        Ok(())
    }

    /// Nothing is under way any more and `log` is the whole partition, from its first offset on
    /// (0, or what [`PartitionHistory::starts_at`] was told).
    pub fn is_all(&self, log: &[(i64, RecordId)]) -> Result<(), Violation> {
        let mut copies = BTreeMap::<RecordId, u32>::new();
        let mut newest = BTreeMap::<u32, RecordId>::new();
        for (&(offset, record), expected) in log.iter().zip(self.start..) {
            if offset != expected {
                return Err(Violation::Skipped { expected, got: offset });
            }
            let count = copies.entry(record).or_default();
            *count += 1;
            let Sent { attempts, idempotent } = self.sent[&record];
            let attempts = if idempotent { 1 } else { attempts };
            if *count > attempts {
                return Err(Violation::Duplicated { record, copies: *count, attempts });
            }
            if idempotent
                && let Some(first) = newest.insert(record.producer, record)
                && first > record
            {
                return Err(Violation::Reordered { offset, first, second: record });
            }
        }
        let end = self.start + log.len() as i64;
        for (&offset, &record) in &self.known {
            let there =
                usize::try_from(offset - self.start).ok().and_then(|offset| log.get(offset));
            match there {
                None => return Err(Violation::Lost { offset, record, end }),
                Some((_, second)) if *second != record => {
                    return Err(Violation::TwoValues { offset, first: record, second: *second });
                }
                Some(_) => {}
            }
        }
        if end < self.watermark {
            let what = "the end of the log";
            return Err(Violation::WentBack { what, before: self.watermark, after: end });
        }
        Ok(())
    }

    /// How many records were sent, and how many acknowledged.
    pub fn counts(&self) -> (usize, usize) {
        (self.forgotten + self.sent.len(), self.forgotten + self.acknowledged.len())
    }
}

/// What one consumer group committed for one partition, by one member at a time.
#[derive(Default)]
pub struct Commits {
    attempted: BTreeSet<i64>,
    /// Attempts that were not answered: one may be carried out long after, behind a later commit.
    unanswered: BTreeSet<i64>,
    committed: i64,
}

impl Commits {
    /// A member begins to commit `offset`.
    pub fn committing(&mut self, offset: i64) {
        self.attempted.insert(offset);
    }

    /// It was told that this is done.
    pub fn committed(&mut self, offset: i64) {
        self.committed = self.committed.max(offset);
    }

    /// It was told nothing, and will try again.
    pub fn unanswered(&mut self, offset: i64) {
        self.unanswered.insert(offset);
    }

    /// A member that asks now must be told at least this (0: nothing was committed).
    pub fn floor(&self) -> i64 {
        self.committed
    }

    /// The answer to a question that was asked when [`Commits::floor`] was `floor`; -1 for none.
    pub fn is(&mut self, floor: i64, offset: i64) -> Result<(), Violation> {
        let after = offset.max(0);
        if after < floor && !self.unanswered.contains(&after) {
            let what = "a committed offset";
            return Err(Violation::WentBack { what, before: floor, after });
        }
        if after > 0 && !self.attempted.contains(&after) {
            return Err(Violation::Phantom { offset: after, what: "a commit".to_owned() });
        }
        self.committed = self.committed.max(after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(producer: u32, number: u32) -> RecordId {
        RecordId { producer, number }
    }

    /// Records that were sent (all by idempotent producers), and acknowledged at their place.
    fn history(acknowledged: &[RecordId]) -> PartitionHistory {
        let mut history = PartitionHistory::default();
        for (record, offset) in acknowledged.iter().zip(0..) {
            history.sending(*record, true);
            history.acknowledged(*record, offset).unwrap();
        }
        history
    }

    fn check(history: &PartitionHistory, log: &[RecordId]) -> Result<(), Violation> {
        let log: Vec<_> = (0..).zip(log.iter().copied()).collect();
        history.is_all(&log)
    }

    #[test]
    fn values_say_who_they_are() {
        for number in 0..100 {
            let value = id(7, number).value(100);
            assert_eq!(RecordId::of(&value), Some(id(7, number)));
            let mut other = value.clone();
            *other.last_mut().unwrap() ^= 1;
            assert_ne!(RecordId::of(&other), Some(id(7, number)));
        }
        assert_eq!(RecordId::of(b"short"), None);
    }

    #[test]
    fn a_faithful_log_passes() {
        let mut history = history(&[id(1, 0), id(2, 0), id(1, 1)]);
        history.sending(id(2, 1), true); // Never acknowledged: there or not.
        assert_eq!(check(&history, &[id(1, 0), id(2, 0), id(1, 1)]), Ok(()));
        assert_eq!(check(&history, &[id(1, 0), id(2, 0), id(1, 1), id(2, 1)]), Ok(()));
    }

    #[test]
    fn what_is_lost_changed_or_swapped_is_found() {
        let mut history = history(&[id(1, 0), id(1, 1)]);
        history.sending(id(3, 0), true);
        let lost = Violation::Lost { offset: 1, record: id(1, 1), end: 1 };
        assert_eq!(check(&history, &[id(1, 0)]), Err(lost));
        let other = Violation::TwoValues { offset: 1, first: id(1, 1), second: id(3, 0) };
        assert_eq!(check(&history, &[id(1, 0), id(3, 0)]), Err(other));
        let swapped = Violation::Reordered { offset: 1, first: id(1, 1), second: id(1, 0) };
        assert_eq!(check(&history, &[id(1, 1), id(1, 0)]), Err(swapped));
        assert_eq!(
            history.is_all(&[(0, id(1, 0)), (2, id(1, 1))]),
            Err(Violation::Skipped { expected: 1, got: 2 })
        );
    }

    #[test]
    fn copies_are_those_that_were_asked_for() {
        let mut history = history(&[id(1, 0)]);
        let twice = Violation::Duplicated { record: id(1, 0), copies: 2, attempts: 1 };
        assert_eq!(check(&history, &[id(1, 0), id(1, 0)]), Err(twice));
        history.sending(id(2, 0), false);
        history.sending(id(2, 0), false);
        assert_eq!(check(&history, &[id(1, 0), id(2, 0), id(2, 0)]), Ok(()));
        assert!(check(&history, &[id(1, 0), id(2, 0), id(2, 0), id(2, 0)]).is_err());
    }

    #[test]
    fn what_was_served_stays() {
        let mut history = history(&[id(1, 0)]);
        history.sending(id(1, 1), true);
        history.read(1, &id(1, 1).value(9)).unwrap();
        assert!(matches!(check(&history, &[id(1, 0)]), Err(Violation::Lost { offset: 1, .. })));
        assert!(matches!(history.read(1, &id(1, 0).value(9)), Err(Violation::TwoValues { .. })));
        assert!(matches!(history.read(2, b"torn"), Err(Violation::Phantom { .. })));
        assert!(matches!(history.read(2, &id(9, 9).value(9)), Err(Violation::Phantom { .. })));
    }

    #[test]
    fn what_retention_took_is_not_lost() {
        let records = [id(1, 0), id(2, 0), id(1, 1), id(2, 1)];
        let mut history = history(&records);
        history.starts_at(2).unwrap();
        let rest = |log: &[RecordId]| (2..).zip(log.iter().copied()).collect::<Vec<_>>();
        assert_eq!(history.is_all(&rest(&records[2..])), Ok(()));
        let lost = Violation::Lost { offset: 3, record: id(2, 1), end: 3 };
        assert_eq!(history.is_all(&rest(&records[2..3])), Err(lost));
        assert!(matches!(history.read(4, &id(1, 0).value(9)), Err(Violation::Phantom { .. })));
        assert_eq!(history.counts(), (4, 4));
        assert!(matches!(history.starts_at(1), Err(Violation::WentBack { .. })));
    }

    #[test]
    fn acknowledgements_come_in_order() {
        let mut history = history(&[id(1, 0), id(2, 0)]);
        history.sending(id(1, 1), false);
        assert!(matches!(history.acknowledged(id(1, 1), 0), Err(Violation::Reordered { .. })));
    }

    #[test]
    fn watermarks_and_commits_never_go_back() {
        let mut history = PartitionHistory::default();
        let early = history.watermark();
        history.watermark_is(early, 5).unwrap();
        history.watermark_is(early, 3).unwrap(); // Asked before the other was told.
        assert!(history.watermark_is(history.watermark(), 4).is_err());
        assert!(matches!(history.is_all(&[]), Err(Violation::WentBack { .. })));

        let mut commits = Commits::default();
        commits.is(0, -1).unwrap();
        commits.committing(5);
        commits.is(0, 5).unwrap(); // Done, though nobody was told.
        assert!(commits.is(commits.floor(), -1).is_err());
        assert!(commits.is(commits.floor(), 6).is_err());
        commits.committing(7);
        commits.committed(7);
        assert!(commits.is(7, 5).is_err());
        commits.unanswered(5);
        commits.is(7, 5).unwrap();
    }
}
