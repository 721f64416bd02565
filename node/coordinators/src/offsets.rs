//! The committed offsets of one group, as the log will have them and as it surely has them.
//!
//! Separate because a commit counts for deciding at once and for reading once it is durable. Each
//! partition keeps its durable value and the values under way, in log order: a refused one is taken
//! out again, and a reader never sees what a crash could take back.

use crate::request::Text;
use crate::writes::WriteId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use flowstone_types::{Timestamp, Uuid};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Committed {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Box<str>,
    /// When it was committed.
    pub at: Timestamp,
    /// Set by clients before OffsetCommit 5, which chose how long to keep an offset (KIP-211).
    pub expires_at: Option<Timestamp>,
    /// Zero in records from before Kafka 4.1.
    pub topic_id: Uuid,
}

/// Whose offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OffsetKey {
    pub group: Text,
    pub topic: Text,
    pub partition: i32,
}

#[derive(Default, Debug)]
pub(crate) struct Offsets {
    topics: BTreeMap<Text, BTreeMap<i32, Slot>>,
    len: usize,
}

#[derive(Default, Debug)]
struct Slot {
    durable: Option<Committed>,
    under_way: Vec<(WriteId, Option<Committed>)>,
}

impl Slot {
    fn newest(&self) -> Option<&Committed> {
        self.under_way.last().map_or(self.durable.as_ref(), |(_, value)| value.as_ref())
    }

    fn is_free(&self) -> bool {
        self.durable.is_none() && self.under_way.is_empty()
    }
}

impl Offsets {
    /// How many partitions have an offset or one under way.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The offset of a partition that no crash can take back.
    pub fn durable(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)?.durable.as_ref()
    }

    /// All offsets that no crash can take back, by topic.
    pub fn all_durable(&self) -> impl Iterator<Item = (&Text, Vec<(i32, &Committed)>)> {
        self.topics.iter().filter_map(|(topic, slots)| {
            let found: Vec<_> = slots
                .iter()
                .filter_map(|(partition, slot)| Some((*partition, slot.durable.as_ref()?)))
                .collect();
            (!found.is_empty()).then_some((topic, found))
        })
    }

    /// The offset of a partition as the log will have it.
    pub fn newest(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)?.newest()
    }

    /// All offsets as the log will have them.
    pub fn all_newest(&self) -> impl Iterator<Item = (&Text, i32, &Committed)> {
        self.topics.iter().flat_map(|(topic, slots)| {
            slots
                .iter()
                .filter_map(move |(partition, slot)| Some((topic, *partition, slot.newest()?)))
        })
    }

    /// The partitions of `topic` with their offsets as the log will have them.
    pub fn newest_of(&self, topic: &str) -> impl Iterator<Item = (i32, &Committed)> {
        let slots = self.topics.get(topic).into_iter().flatten();
        slots.filter_map(|(partition, slot)| Some((*partition, slot.newest()?)))
    }

    /// `write` sets (or with `None` drops) an offset.
    pub fn begin(
        &mut self,
        topic: &Text,
        partition: i32,
        write: WriteId,
        value: Option<Committed>,
    ) {
        self.slot(topic, partition).under_way.push((write, value));
    }

    /// `write` is durable (or `refused`, and never was).
    pub fn settle(&mut self, topic: &str, partition: i32, write: WriteId, refused: bool) {
        let Some(slots) = self.topics.get_mut(topic) else { return };
        let Some(slot) = slots.get_mut(&partition) else { return };
        // A request may name one partition twice: all values of this write are settled at once.
        let mut last = None;
        slot.under_way.retain_mut(|(other, value)| {
            if *other == write {
                last = Some(value.take());
            }
            *other != write
        });
        if let (Some(value), false) = (last, refused) {
            slot.durable = value;
        }
        if slot.is_free() {
            slots.remove(&partition);
            self.len -= 1;
            if slots.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Sets what a record read from the log says.
    pub fn load(&mut self, topic: &Text, partition: i32, value: Committed) {
        self.slot(topic, partition).durable = Some(value);
    }

    /// Drops what a tombstone read from the log says.
    pub fn unload(&mut self, topic: &str, partition: i32) {
        let Some(slots) = self.topics.get_mut(topic) else { return };
        if slots.remove(&partition).is_some() {
            self.len -= 1;
        }
        if slots.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn slot(&mut self, topic: &Text, partition: i32) -> &mut Slot {
        let slots = self.topics.entry(topic.clone()).or_default();
        slots.entry(partition).or_insert_with(|| {
            self.len += 1;
            Slot::default()
        })
    }
}
