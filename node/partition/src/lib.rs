//! Leader of one partition, decided: how far consumers may read, which produce requests may be
//! acknowledged, and which waiting fetches have something to look at.
//!
//! Separate because produce, fetch and the group commit all ask, and must agree. Pure: who waits
//! is an opaque value of the shell's (`A` for an acknowledgement, `W` for a wake-up), kept here and
//! handed back when its time has come. Nothing is scanned: acknowledgements leave from the front,
//! wake-ups leave all at once.
//!
//! Invariants: within one leader epoch the high watermark never moves back, and no
//! acknowledgement leaves before everything below its end is durable.

#![no_std]
extern crate alloc;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, Offset};

/// The only replica, and so the leader, of one partition.
pub struct Leader<A, W> {
    epoch: LeaderEpoch,
    high_watermark: Offset,
    /// In log order: the end of what was appended, and who waits for it.
    acks: VecDeque<(Offset, A)>,
    fetches: BTreeMap<WaitKey, W>,
    next_key: u64,
}

/// Names one waiting fetch; never used twice, so a late `forget` cannot hit another's wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaitKey(u64);

/// Whom a move of the high watermark concerns.
#[derive(Debug, PartialEq, Eq)]
pub struct Moved<A, W> {
    /// Requests that may be acknowledged, in log order.
    pub acks: Vec<A>,
    /// Fetches that should look again.
    pub wakes: Vec<W>,
}

impl<A, W> Leader<A, W> {
    /// Leads from `epoch` on; everything below `durable_end` is committed already.
    pub fn new(epoch: LeaderEpoch, durable_end: Offset) -> Self {
        Self {
            epoch,
            high_watermark: durable_end,
            acks: VecDeque::new(),
            fetches: BTreeMap::new(),
            next_key: 0,
        }
    }

    /// The epoch this leadership began with.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// A new leadership of the same replica begins: what it knows stays true, since the only
    /// replica has nobody to diverge from.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        assert!(epoch >= self.epoch, "leader epochs never go back");
        self.epoch = epoch;
    }

    /// Consumers may read everything below this.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// `ack` waits until everything below `end` is committed. Handed back where it already is: a
    /// duplicate of a batch that was acknowledged before waits for nothing.
    pub fn await_commit(&mut self, end: Offset, ack: A) -> Option<A> {
        if end <= self.high_watermark {
            return Some(ack);
        }
        // A duplicate may come after later batches: it must leave with its own end, not last.
        let place = self.acks.partition_point(|(other, _)| *other <= end);
        self.acks.insert(place, (end, ack));
        None
    }

    /// `wake` is handed out at the next move of the high watermark, once.
    pub fn await_data(&mut self, wake: W) -> WaitKey {
        let key = WaitKey(self.next_key);
        self.next_key += 1;
        self.fetches.insert(key, wake);
        key
    }

    /// The fetch of `key` was answered; its wake-up, if still here, is dropped.
    pub fn forget(&mut self, key: WaitKey) {
        self.fetches.remove(&key);
    }

    /// Everything below `end` meets the log's durability. The only in-sync replica is this one
    /// (KIP-966: a minimum of in-sync replicas above the replication factor counts as the factor),
    /// so that is the high watermark.
    pub fn durable(&mut self, end: Offset) -> Moved<A, W> {
        if end <= self.high_watermark {
            return Moved { acks: Vec::new(), wakes: Vec::new() };
        }
        self.high_watermark = end;
        let ready = self.acks.partition_point(|(wanted, _)| *wanted <= end);
        Moved {
            acks: self.acks.drain(..ready).map(|(_, ack)| ack).collect(),
            wakes: core::mem::take(&mut self.fetches).into_values().collect(),
        }
    }

    /// The log failed or this leadership ended: nobody who waits will get what they wait for.
    pub fn give_up(&mut self) -> Moved<A, W> {
        Moved {
            acks: self.acks.drain(..).map(|(_, ack)| ack).collect(),
            wakes: core::mem::take(&mut self.fetches).into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn leader() -> Leader<u32, char> {
        Leader::new(LeaderEpoch(3), Offset(10))
    }

    #[test]
    fn acks_leave_in_log_order_once_durable() {
        let mut leader = leader();
        assert_eq!(leader.await_commit(Offset(12), 1), None);
        assert_eq!(leader.await_commit(Offset(15), 2), None);
        assert_eq!(leader.durable(Offset(14)).acks, vec![1]);
        assert_eq!(leader.high_watermark(), Offset(14));
        assert_eq!(leader.durable(Offset(15)).acks, vec![2]);
    }

    #[test]
    fn a_duplicate_waits_for_its_own_batch_only() {
        let mut leader = leader();
        assert_eq!(leader.await_commit(Offset(10), 0), Some(0), "acknowledged before");
        leader.await_commit(Offset(15), 2);
        leader.await_commit(Offset(12), 1);
        assert_eq!(leader.durable(Offset(12)).acks, vec![1]);
    }

    #[test]
    fn the_high_watermark_never_moves_back() {
        let mut leader = leader();
        leader.durable(Offset(20));
        assert_eq!(leader.durable(Offset(15)), Moved { acks: vec![], wakes: vec![] });
        assert_eq!(leader.high_watermark(), Offset(20));
    }

    #[test]
    fn fetches_wake_once_and_forget_hits_only_its_own() {
        let mut leader = leader();
        let gone = leader.await_data('a');
        leader.forget(gone);
        let woken = leader.await_data('b');
        assert_eq!(leader.durable(Offset(11)).wakes, vec!['b']);
        leader.await_data('c');
        leader.forget(woken);
        assert_eq!(leader.durable(Offset(12)).wakes, vec!['c'], "a late forget is harmless");
    }

    #[test]
    fn giving_up_leaves_nobody_waiting() {
        let mut leader = leader();
        leader.await_commit(Offset(12), 1);
        leader.await_data('a');
        assert_eq!(leader.give_up(), Moved { acks: vec![1], wakes: vec!['a'] });
        assert_eq!(leader.durable(Offset(12)), Moved { acks: vec![], wakes: vec![] });
    }
}
