//! What changed between two images, told by the records that made the change, or by the images themselves.

use crate::image::{ConfigResource, Image};
use crate::topics::Topic;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use flowstone_types::{NodeId, Uuid};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// What changed. Its size is that of the change, whatever the size of the image.
///
/// Invariant: what was created and deleted again in between leaves no trace.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Delta {
    /// Topics that are new.
    pub topics_created: BTreeSet<Uuid>,
    /// Topics that are gone, as they last were.
    pub topics_deleted: BTreeMap<Uuid, Arc<Topic>>,
    /// Partitions that are new or changed, by topic and index; none of a topic that is gone.
    pub partitions: BTreeSet<(Uuid, i32)>,
    /// Resources a config of which was set or removed, be it to the same value (KAFKA-14136: that
    /// asks brokers to load what the config points to again).
    pub configs: BTreeSet<ConfigResource>,
    /// Brokers that came, went or changed.
    pub brokers: BTreeSet<NodeId>,
    /// Whether a controller registered.
    pub controllers: bool,
    /// Whether a feature's level changed.
    pub features: bool,
    /// Whether a client quota changed.
    pub client_quotas: bool,
    /// Whether a SCRAM credential changed.
    pub scram: bool,
    /// Whether an ACL changed.
    pub acls: bool,
    /// Whether a delegation token changed.
    pub delegation_tokens: bool,
    /// Whether producer ids were handed out.
    pub producer_ids: bool,
}

impl Delta {
    /// What changed from one image to a later one, for who did not see the deltas in between. Images share
    /// what did not change, and this passes over it: it costs what the change does.
    ///
    /// Not told is what only records can tell: that something was set to what it was (a config, a
    /// registration), or changed and changed back. A deleted topic stands as it was in `before`.
    pub fn between(before: &Image, after: &Image) -> Self {
        let mut delta = Self {
            configs: keys(&before.configs, &after.configs).cloned().collect(),
            brokers: keys(&before.brokers, &after.brokers).copied().collect(),
            controllers: keys(&before.controllers, &after.controllers).next().is_some(),
            features: keys(&before.features, &after.features).next().is_some(),
            client_quotas: keys(&before.client_quotas, &after.client_quotas).next().is_some(),
            scram: keys(&before.scram, &after.scram).next().is_some(),
            acls: keys(&before.acls, &after.acls).next().is_some(),
            delegation_tokens: keys(&before.delegation_tokens, &after.delegation_tokens)
                .next()
                .is_some(),
            producer_ids: before.next_producer_id != after.next_producer_id,
            ..Self::default()
        };
        for change in after.topics.since(&before.topics) {
            match change {
                DiffItem::Add(id, topic) => {
                    delta.topics_created.insert(*id);
                    delta.partitions.extend(topic.partitions().map(|(index, _)| (*id, index)));
                }
                DiffItem::Update { old: (id, before), new: (_, after) } => {
                    delta.partitions.extend(after.since(before).into_iter().map(|at| (*id, at)));
                }
                DiffItem::Remove(id, topic) => {
                    delta.topics_deleted.insert(*id, Arc::clone(topic));
                }
            }
        }
        delta
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn topic_deleted(&mut self, topic: Arc<Topic>) {
        let mut behind = self.partitions.split_off(&(topic.id, 0));
        if let Some(next) = behind.iter().find(|(id, _)| *id != topic.id).copied() {
            self.partitions.append(&mut behind.split_off(&next));
        }
        if !self.topics_created.remove(&topic.id) {
            self.topics_deleted.insert(topic.id, topic);
        }
    }
}

/// The keys under which the two maps differ.
fn keys<'a, K: Ord, V: PartialEq>(
    before: &'a OrdMap<K, V>,
    after: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(after).map(|change| match change {
        DiffItem::Add(key, _)
        | DiffItem::Update { new: (key, _), .. }
        | DiffItem::Remove(key, _) => key,
    })
}
