//! Topics and their partitions in the image.

use crate::features::MetadataVersion;
use crate::records::PartitionRecord;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use flowstone_types::{LeaderEpoch, NodeId, PartitionId, Uuid};
use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet, Vector};

/// All topics, by id and by name.
///
/// Invariant: each topic is in both maps, under the id and the name that it carries.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Topics {
    by_id: OrdMap<Uuid, Arc<Topic>>,
    ids: OrdMap<Arc<str>, Uuid>,
    /// Names that hold `.` or `_`, behind what metric names make of them: `a.b` and `a_b` collide.
    collidable: OrdSet<(String, Arc<str>)>,
}

impl Topics {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The topic with this id.
    pub fn with_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// The topic with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.ids.get(name).and_then(|id| self.by_id.get(id))
    }

    /// The partition with this id.
    pub fn partition(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        self.with_id(id.topic).and_then(|topic| topic.partition(id.index))
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.ids.values().filter_map(|id| self.by_id.get(id))
    }

    /// The topics from `name` on, by name: for answers in pages.
    pub fn iter_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        let names = self
            .ids
            .range::<_, str>((core::ops::Bound::Included(name), core::ops::Bound::Unbounded));
        names.filter_map(|(_, id)| self.by_id.get(id))
    }

    /// Another topic whose name metric names cannot tell from `name`.
    pub fn colliding(&self, name: &str) -> Option<&Arc<str>> {
        let unified = unified(name)?;
        let mut behind = self.collidable.range((unified.clone(), Arc::from(""))..);
        behind.next().filter(|(found, _)| *found == unified).map(|(_, name)| name)
    }

    /// What became of the topics of `before`, by id.
    pub(crate) fn since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = DiffItem<'a, 'a, Uuid, Arc<Topic>>> {
        before.by_id.diff(&self.by_id)
    }

    pub(crate) fn insert(&mut self, topic: Arc<Topic>) {
        if let Some(unified) = unified(&topic.name) {
            self.collidable.insert((unified, topic.name.clone()));
        }
        self.ids.insert(topic.name.clone(), topic.id);
        self.by_id.insert(topic.id, topic);
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.ids.remove(&topic.name);
        if let Some(unified) = unified(&topic.name) {
            self.collidable.remove(&(unified, topic.name.clone()));
        }
        Some(topic)
    }

    /// The topic, alone: whoever holds an older image does not see what is done to it.
    pub(crate) fn topic_mut(&mut self, id: Uuid) -> Option<&mut Topic> {
        self.by_id.get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn ids(&self) -> Vec<Uuid> {
        self.by_id.keys().copied().collect()
    }
}

/// The name as metrics write it; `None` where it has nothing that could collide.
fn unified(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// A topic.
#[derive(Clone, Eq, Debug)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    pub(crate) partitions: Vector<Arc<Partition>>,
}

impl Topic {
    /// How many partitions it has.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// The partition at `index`.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index).ok().and_then(|index| self.partitions.get(index))
    }

    /// Indexes of the partitions that are new or other than in `before`, in order. What the two share is passed
    /// over 64 partitions at a time: a topic of 100,000 of which one changed takes some 1,600 looks.
    pub(crate) fn since(&self, before: &Self) -> Vec<i32> {
        let (mut old_chunks, mut new_chunks) =
            (before.partitions.leaves(), self.partitions.leaves());
        let (mut old, mut new): (&[Arc<Partition>], &[Arc<Partition>]) = (&[], &[]);
        let mut first = 0;
        let mut found = Vec::new();
        loop {
            if old.is_empty() {
                old = old_chunks.next().unwrap_or_default(); // Still empty where the old topic ended.
            }
            if new.is_empty() {
                match new_chunks.next() {
                    Some(chunk) => new = chunk,
                    None => return found,
                }
            }
            let count = if old.is_empty() { new.len() } else { new.len().min(old.len()) };
            if old.as_ptr() != new.as_ptr() {
                let changed = |at: &usize| old.get(*at) != Some(&new[*at]);
                found.extend((0..count).filter(changed).map(|at| (first + at) as i32));
            }
            (old, new) = (old.get(count..).unwrap_or_default(), &new[count..]);
            first += count;
        }
    }

    /// All partitions, from index 0 on.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Arc<Partition>)> {
        (0..).zip(&self.partitions)
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        let same_count = self.partitions.len() == other.partitions.len();
        same_count && self.id == other.id && self.name == other.name && self.since(other).is_empty()
    }
}

/// A partition, as the controller has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Brokers that hold it, the preferred leader first.
    pub replicas: Box<[NodeId]>,
    /// The log directory of each replica, in their order; zero where none is known.
    pub directories: Box<[Uuid]>,
    /// Replicas in sync.
    pub isr: Box<[NodeId]>,
    /// Replicas that a reassignment takes away.
    pub removing: Box<[NodeId]>,
    /// Replicas that a reassignment adds.
    pub adding: Box<[NodeId]>,
    /// Replicas outside the ISR that hold all that was committed (KIP-966).
    pub eligible: Box<[NodeId]>,
    /// The last known leader once ISR and eligible replicas ran out (KIP-966).
    pub last_known: Box<[NodeId]>,
    /// The leader; [`NodeId::NONE`] where there is none.
    pub leader: NodeId,
    /// Count of its leaderships.
    pub leader_epoch: LeaderEpoch,
    /// Count of its changes.
    pub partition_epoch: i32,
    /// Whether the leader came from an unclean election and has not recovered yet.
    pub recovering: bool,
}

impl Partition {
    /// A partition that is created: led by the first in-sync replica, in its first epochs.
    pub fn new(replicas: Vec<NodeId>, directories: Vec<Uuid>, isr: Vec<NodeId>) -> Self {
        assert_eq!(replicas.len(), directories.len(), "each replica has a directory");
        let none = Box::default;
        Self {
            leader: isr.first().copied().unwrap_or(NodeId::NONE),
            replicas: replicas.into(),
            directories: directories.into(),
            isr: isr.into(),
            removing: none(),
            adding: none(),
            eligible: none(),
            last_known: none(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            recovering: false,
        }
    }

    /// Whether it knows an eligible or last known leader outside its ISR (KIP-966).
    pub fn has_eligible(&self) -> bool {
        !self.eligible.is_empty() || !self.last_known.is_empty()
    }

    /// The record that creates this partition in a cluster at `version`, without what that cannot tell.
    pub fn to_record(&self, id: PartitionId, version: MetadataVersion) -> PartitionRecord {
        let some = |nodes: &[NodeId]| (!nodes.is_empty()).then(|| raw(nodes));
        let told = version.partition_version();
        PartitionRecord {
            partition_id: id.index,
            topic_id: id.topic,
            replicas: raw(&self.replicas),
            isr: raw(&self.isr),
            removing_replicas: raw(&self.removing),
            adding_replicas: raw(&self.adding),
            leader: self.leader.0,
            leader_recovery_state: i8::from(self.recovering),
            leader_epoch: self.leader_epoch.0,
            partition_epoch: self.partition_epoch,
            directories: if told >= 1 { self.directories.to_vec() } else { Vec::new() },
            eligible_leader_replicas: if told >= 2 { some(&self.eligible) } else { None },
            last_known_elr: if told >= 2 { some(&self.last_known) } else { None },
            ..PartitionRecord::default()
        }
    }
}

/// Node ids as records have them.
pub fn raw(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

/// Node ids from a record.
pub(crate) fn nodes(raw: Vec<i32>) -> Box<[NodeId]> {
    raw.into_iter().map(NodeId).collect()
}
