//! What a connection's fetches leave standing between them: partitions that were looked up, and wake-ups.
//!
//! A consumer asks for the same partitions again and again. So each is looked up once, and a wake-up
//! that was left at one stays until it is rung: a fetch at the tail finds all of its own in place but
//! those of the partitions that brought it its last records. Belongs to a connection on one shard;
//! when the connection moves or ends, nothing of it stays at any partition.

use crate::api::fetch::Key;
use crate::client::Client;
use crate::partition::{Partition, Wake, Woken};
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_partition::WaitKey;
use flowstone_runtime::local::Notify;
use flowstone_types::PartitionId;
use std::cell::Cell;
use std::rc::{Rc, Weak};

/// Partitions that a connection keeps between two fetches: some 100 KiB of memory. One that asks for
/// more has them looked up each time.
pub const STANDING_PARTITIONS_MAX: usize = 512;

/// The partitions of a connection's last fetch.
#[derive(Default)]
pub struct Standing {
    places: Kept<Key, Result<Place, Refusal>>,
    /// The shard's generation when they were looked up.
    generation: u64,
    /// Rung where one of them moved.
    pub moved: Rc<Notify>,
}

/// One partition that a fetch names.
pub struct Place {
    /// Its identity.
    pub id: PartitionId,
    /// The shard that owns it.
    pub owner: usize,
    /// Where that is this one.
    pub here: Option<Here>,
}

/// A partition of this shard; not held, so that one that is deleted goes.
pub struct Here {
    partition: Weak<Partition>,
    standee: Rc<Standee>,
}

/// Who stands waiting at a partition.
struct Standee {
    moved: Rc<Notify>,
    /// Of the wake-up there; `None` once it was rung.
    key: Cell<Option<WaitKey>>,
}

impl Woken for Standee {
    fn wake(self: Rc<Self>) {
        self.key.set(None);
        self.moved.notify_all();
    }
}

impl Here {
    /// The partition, if this shard still has it.
    pub fn partition(&self) -> Option<Rc<Partition>> {
        self.partition.upgrade()
    }

    /// Leaves a wake-up at `partition`, which is this one's, if none stands.
    pub fn wait(&self, partition: &Partition) {
        if self.standee.key.get().is_none() {
            self.standee.key.set(partition.await_data(Rc::clone(&self.standee) as Wake));
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(key) = self.standee.key.take()
            && let Some(partition) = self.partition()
        {
            partition.forget(key);
        }
    }
}

impl Standing {
    /// The partitions that these keys name, in their order.
    pub fn take_up<'a>(
        &mut self,
        shard: &Shard,
        client: &Client,
        keys: impl ExactSizeIterator<Item = &'a Key>,
    ) {
        if self.generation != shard.generation() {
            self.places.truncate(0);
            self.generation = shard.generation();
        }
        let moved = &self.moved;
        self.places.take_up(keys, Result::is_ok, |key| Place::find(shard, key, moved));
        for place in self.places.values().flatten() {
            client.touches(place.owner);
        }
    }

    /// Whether what was looked up is still so.
    pub fn is_current(&self, shard: &Shard) -> bool {
        self.generation == shard.generation()
    }

    /// The partitions, in the order of their keys.
    pub fn places(&self) -> impl ExactSizeIterator<Item = &Result<Place, Refusal>> {
        self.places.values()
    }

    /// The fetch was answered.
    pub fn rest(&mut self) {
        if self.places.len() > STANDING_PARTITIONS_MAX {
            self.places.truncate(0);
        }
    }
}

impl Place {
    fn find(shard: &Shard, key: &Key, moved: &Rc<Notify>) -> Result<Self, Refusal> {
        let id = shard.resolve(&key.topic, key.topic_id, key.index)?;
        let owner = shard.owner_of(id);
        let here = if owner == shard.index {
            let standee = Standee { moved: Rc::clone(moved), key: Cell::new(None) };
            let partition = Rc::downgrade(&shard.partition(id)?);
            Some(Here { partition, standee: Rc::new(standee) })
        } else {
            None
        };
        Ok(Self { id, owner, here })
    }
}

/// What was made for each key of a list, kept for the next list as far as it is the same.
struct Kept<K, V>(Vec<(K, V)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Clone + PartialEq, V> Kept<K, V> {
    /// Follows `keys`: what is not there yet, or not `keeps` (in the place of its key; lists that were turned are
    /// turned back first), is made.
    fn take_up<'a>(
        &mut self,
        keys: impl ExactSizeIterator<Item = &'a K>,
        keeps: impl Fn(&V) -> bool,
        mut make: impl FnMut(&K) -> V,
    ) where
        K: 'a,
    {
        let entries = &mut self.0;
        let count = keys.len();
        for (at, key) in keys.enumerate() {
            if at == 0
                && let Some(turned) = entries.iter().position(|(kept, _)| kept == key)
            {
                entries.rotate_left(turned); // A session serves another partition first each time.
            }
            match entries.get_mut(at) {
                Some((kept, value)) if kept == key && keeps(value) => {}
                Some(entry) => *entry = (key.clone(), make(key)),
                None => entries.push((key.clone(), make(key))),
            }
        }
        entries.truncate(count);
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows `keys`; which were made for it. A value is its key; those of `refused` are not kept.
    fn made(kept: &mut Kept<char, char>, keys: &str, refused: &str) -> String {
        let (keys, mut made): (Vec<_>, _) = (keys.chars().collect(), String::new());
        let keeps = |value: &char| !refused.contains(*value);
        kept.take_up(keys.iter(), keeps, |key| {
            made.push(*key);
            *key
        });
        assert_eq!(kept.values().copied().collect::<Vec<_>>(), keys);
        made
    }

    #[test]
    fn what_is_asked_for_again_is_not_made_again() {
        let mut kept = Kept::default();
        assert_eq!(made(&mut kept, "abcd", ""), "abcd");
        assert_eq!(made(&mut kept, "abcd", ""), "");
        assert_eq!(made(&mut kept, "bcda", ""), "", "KIP-227 sessions turn their order");
        assert_eq!(made(&mut kept, "bcxa", ""), "x");
        assert_eq!(made(&mut kept, "bc", ""), "");
        assert_eq!(made(&mut kept, "bcde", ""), "de");
        assert_eq!(made(&mut kept, "", ""), "");
        assert_eq!(made(&mut kept, "aa", ""), "aa");
    }

    #[test]
    fn what_was_refused_is_tried_again() {
        let mut kept = Kept::default();
        assert_eq!(made(&mut kept, "abc", ""), "abc");
        assert_eq!(made(&mut kept, "abc", "b"), "b");
    }
}
