//! What changed between two images, told by the records that made the change.

use crate::image::ConfigResource;
use crate::topics::Topic;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use flowstone_types::{NodeId, Uuid};

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
