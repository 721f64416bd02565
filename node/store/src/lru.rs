//! Things kept while they are used: open files, indexes, read-ahead, and the order of the tails.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// A map that forgets what was used longest ago once its weights pass a limit.
pub struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    order: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    limit: usize,
}

struct Entry<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Hash + Eq + Copy, V> Lru<K, V> {
    /// An empty map whose weights may sum up to `limit`.
    pub fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, weight: 0, limit }
    }

    /// Sum of all weights.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The value at `key`, now the one used last.
    pub fn get(&mut self, key: K) -> Option<&mut V> {
        let entry = self.entries.get_mut(&key)?;
        self.order.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.order.insert(self.clock, key);
        Some(&mut entry.value)
    }

    /// Puts `value` at `key`, in place of what was there, as the one used last.
    pub fn put(&mut self, key: K, value: V, weight: usize) {
        self.remove(key);
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.entries.insert(key, Entry { value, weight, used: self.clock });
        self.weight += weight;
    }

    /// Gives an entry another weight, without counting it as used.
    pub fn reweigh(&mut self, key: K, weight: usize) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.weight = self.weight - entry.weight + weight;
            entry.weight = weight;
        }
    }

    /// Takes the value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let entry = self.entries.remove(&key)?;
        self.order.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Takes out what was used longest ago while the weights are above the limit; the last entry
    /// stays, however heavy: someone is about to use it.
    pub fn excess(&mut self) -> Option<(K, V)> {
        if self.weight <= self.limit || self.entries.len() <= 1 {
            return None;
        }
        let key = *self.order.first_key_value()?.1;
        self.remove(key).map(|value| (key, value))
    }

    /// The key used longest ago, if the weights are above the limit.
    pub fn oldest_in_excess(&self) -> Option<K> {
        if self.weight <= self.limit {
            return None;
        }
        self.order.first_key_value().map(|(_, key)| *key)
    }

    /// Forgets every key that `gone` names.
    pub fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        let keys: Vec<K> = self.entries.keys().filter(|key| gone(key)).copied().collect();
        for key in keys {
            self.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(10);
        for key in 0..4 {
            lru.put(key, (), 4);
        }
        assert!(lru.get(0).is_some());
        assert_eq!(
            (lru.excess(), lru.excess(), lru.excess()),
            (Some((1, ())), Some((2, ())), None)
        );
        assert_eq!(lru.weight(), 8);
        lru.put(0, (), 100);
        assert_eq!((lru.excess(), lru.excess()), (Some((3, ())), None), "the last one stays");
        lru.forget(|_| true);
        assert_eq!(lru.weight(), 0);
    }
}
