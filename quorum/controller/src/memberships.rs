//! Which partitions a broker's coming or going touches, kept up with every change.
//!
//! Separate because a broker that is fenced must not cost a look at a million partitions. Invariant: what
//! stands here is what a scan of the image would find; [`Memberships::of`] is that scan.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use flowstone_metadata::{Delta, Image, Partition};
use flowstone_types::{NodeId, PartitionId, Uuid};

/// A set of partitions, by topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Partitions(BTreeMap<Uuid, BTreeSet<i32>>);

impl Partitions {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = PartitionId> {
        let of = |(topic, indexes): (&Uuid, &BTreeSet<i32>)| {
            let topic = *topic;
            indexes
                .iter()
                .map(move |index| PartitionId { topic, index: *index })
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of)
    }

    pub fn insert(&mut self, id: PartitionId) {
        self.0.entry(id.topic).or_default().insert(id.index);
    }

    fn remove(&mut self, id: PartitionId) {
        if let Some(indexes) = self.0.get_mut(&id.topic) {
            indexes.remove(&id.index);
            if indexes.is_empty() {
                self.0.remove(&id.topic);
            }
        }
    }

    fn set(&mut self, id: PartitionId, (before, after): (bool, bool)) {
        match (before, after) {
            (false, true) => self.insert(id),
            (true, false) => self.remove(id),
            (true, true) | (false, false) => {}
        }
    }
}

/// The partitions that matter, by why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Memberships {
    /// By broker: in whose ISR or among whose eligible replicas it is.
    in_sync: BTreeMap<NodeId, Partitions>,
    /// By broker: which it leads.
    led: BTreeMap<NodeId, Partitions>,
    /// Which nobody leads.
    pub leaderless: Partitions,
    /// Which another than the preferred replica leads, or nobody.
    pub imbalanced: Partitions,
    /// Which a reassignment is under way for.
    pub reassigning: Partitions,
}

impl Memberships {
    /// All that is in `image`.
    pub fn of(image: &Image) -> Self {
        let mut all = Self::default();
        for topic in image.topics.iter() {
            for (index, partition) in topic.partitions() {
                all.changed(PartitionId { topic: topic.id, index }, None, Some(partition));
            }
        }
        all
    }

    /// Follows from `before` to `after`, which `delta` lies between.
    pub fn follow(&mut self, before: &Image, after: &Image, delta: &Delta) {
        for id in delta.topics_deleted.keys() {
            for (index, gone) in before.topics.with_id(*id).iter().flat_map(|t| t.partitions()) {
                self.changed(PartitionId { topic: *id, index }, Some(gone), None);
            }
        }
        for (topic, index) in &delta.partitions {
            let id = PartitionId { topic: *topic, index: *index };
            let (old, new) = (before.topics.partition(id), after.topics.partition(id));
            self.changed(id, old.map(|p| &**p), new.map(|p| &**p));
        }
    }

    /// Where `broker` is in sync, or eligible.
    pub fn in_sync(&self, broker: NodeId) -> impl Iterator<Item = PartitionId> {
        self.in_sync.get(&broker).into_iter().flat_map(Partitions::iter)
    }

    /// Whether `broker` leads anything.
    pub fn leads(&self, broker: NodeId) -> bool {
        self.led.contains_key(&broker)
    }

    fn changed(&mut self, id: PartitionId, before: Option<&Partition>, after: Option<&Partition>) {
        let in_sync = |p: Option<&Partition>| -> Vec<NodeId> {
            p.map(|p| p.isr.iter().chain(&p.eligible).copied().collect()).unwrap_or_default()
        };
        let (was, is) = (in_sync(before), in_sync(after));
        for broker in was.iter().filter(|broker| !is.contains(broker)) {
            leave(&mut self.in_sync, *broker, id);
        }
        for broker in is.iter().filter(|broker| !was.contains(broker)) {
            self.in_sync.entry(*broker).or_default().insert(id);
        }
        let leader = |p: Option<&Partition>| p.map(|p| p.leader).filter(|id| *id != NodeId::NONE);
        let (led, leads) = (leader(before), leader(after));
        if led != leads {
            if let Some(broker) = led {
                leave(&mut self.led, broker, id);
            }
            if let Some(broker) = leads {
                self.led.entry(broker).or_default().insert(id);
            }
        }
        let both = |is: fn(&Partition) -> bool| (before.is_some_and(is), after.is_some_and(is));
        self.leaderless.set(id, both(|p| p.leader == NodeId::NONE));
        self.imbalanced.set(id, both(|p| p.replicas.first() != Some(&p.leader)));
        self.reassigning.set(id, both(|p| !p.adding.is_empty() || !p.removing.is_empty()));
    }
}

fn leave(brokers: &mut BTreeMap<NodeId, Partitions>, broker: NodeId, id: PartitionId) {
    if let Some(partitions) = brokers.get_mut(&broker) {
        partitions.remove(id);
        if partitions.is_empty() {
            brokers.remove(&broker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use flowstone_metadata::records::{PartitionChangeRecord, RemoveTopicRecord, TopicRecord};
    use flowstone_metadata::{MetadataRecord, MetadataVersion, Replay, raw};

    fn id(topic: u64, index: i32) -> PartitionId {
        PartitionId { topic: Uuid(topic.into()), index }
    }

    /// The invariant, after each of a thousand random changes.
    #[test]
    fn what_is_kept_up_is_what_a_scan_finds() {
        let mut state = 7_u64; // The seed.
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        let mut replay = Replay::default();
        let (mut image, mut members) = (Image::default(), Memberships::default());
        for _ in 0..1000 {
            let at = id(below(4), below(3) as i32);
            let first = NodeId(below(4) as i32);
            let pair = vec![first, NodeId(first.0 + 1)];
            let records: Vec<MetadataRecord> = match image.topics.with_id(at.topic) {
                None => {
                    let name = at.topic.0.to_string();
                    let topic = TopicRecord { name, topic_id: at.topic, ..Default::default() };
                    let partition = |index| {
                        let new = Partition::new(pair.clone(), vec![Uuid(0); 2], pair.clone());
                        let at = PartitionId { index, ..at };
                        new.to_record(at, MetadataVersion::LATEST).into()
                    };
                    core::iter::once(topic.into()).chain((0..3).map(partition)).collect()
                }
                Some(_) if below(8) == 0 => {
                    vec![RemoveTopicRecord { topic_id: at.topic, ..Default::default() }.into()]
                }
                Some(_) => {
                    let change = PartitionChangeRecord {
                        partition_id: at.index,
                        topic_id: at.topic,
                        isr: Some(raw(&pair[..below(3) as usize])),
                        eligible_leader_replicas: Some(raw(&pair[..below(2) as usize])),
                        adding_replicas: Some(raw(&pair[..below(2) as usize])),
                        leader: below(5) as i32 - 2,
                        ..Default::default()
                    };
                    vec![change.into()]
                }
            };
            for record in records {
                replay.apply(record).unwrap();
            }
            let (after, delta) = replay.publish().unwrap();
            members.follow(&image, &after, &delta);
            image = after;
            assert_eq!(members, Memberships::of(&image));
        }
    }
}
