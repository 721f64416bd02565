//! A shard: one core's part of the node, and everything that part owns.
//!
//! A partition belongs to one shard, with its log, its waits and, for `__consumer_offsets`, its
//! groups. Nothing here is locked: one thread, and no borrow outlives the call that made it. What a
//! shard knows of the cluster is the last image it was given.

use crate::budget::Budget;
use crate::complaints::Complaints;
use crate::connection::Handle;
use crate::controller::{Controller, ProducerIds};
use crate::creation::Creations;
use crate::groups::Coordinators;
use crate::life::Life;
use crate::listener::Door;
use crate::metrics::ShardMetrics;
use crate::node::Node;
use crate::partition::Partition;
use crate::peers::Peers;
use crate::reading::Tickets;
use crate::refusal::Refusal;
use crate::settings::TopicSettings;
use flowstone_config::Config;
use flowstone_metadata::Image;
use flowstone_store::Store;
use flowstone_types::{Offset, PartitionId, Uuid};
use flowstone_wire::ErrorCode;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// One shard of this node.
pub struct Shard {
    /// Its number, from 0.
    pub index: usize,
    /// What all shards know from the start.
    pub node: Arc<Node>,
    /// The way to the others.
    pub peers: Peers,
    /// Its logs' files.
    pub store: Store,
    /// The connections that live here.
    pub connections: Connections,
    /// Bytes of large requests of which a part has arrived. Apart from the next, so that who sends
    /// slowly holds up nobody else.
    pub arriving_budget: Rc<Budget>,
    /// Bytes of requests that are being worked on.
    pub request_budget: Rc<Budget>,
    /// Fetches that wait for another shard.
    pub tickets: Tickets,
    /// The groups whose partition lives here.
    pub coordinators: Coordinators,
    /// What it counts.
    pub metrics: ShardMetrics,
    /// Lines about peers.
    pub complaints: Complaints,
    /// Who is connected; shard 0's counts.
    pub door: Door,
    /// The metadata log; shard 0 has it once it is open.
    pub controller: OnceCell<Controller>,
    /// Producer ids that it may hand out.
    pub producer_ids: ProducerIds,
    /// Topics that it is creating because clients asked for them.
    pub creations: Creations,
    /// How far it is in its life.
    pub life: Life,
    /// The configuration, with what is set for this broker in the metadata log.
    config: RefCell<Rc<Config>>,
    image: RefCell<(Arc<Image>, Offset)>,
    settings: RefCell<HashMap<Uuid, Rc<TopicSettings>>>,
    /// Asked in every request. No defence against chosen keys is needed: topic ids are random numbers of our controller.
    partitions: RefCell<HashMap<PartitionId, Rc<Partition>, foldhash::fast::FixedState>>,
    /// Partitions that are ours and whose logs could not be opened; whether to try again.
    pub offline: RefCell<BTreeMap<PartitionId, bool>>,
    /// Logs in another directory than the metadata has them in, and which: to be told.
    pub untold: RefCell<BTreeMap<PartitionId, Uuid>>,
    next_session: Cell<i32>,
    generation: Cell<u64>,
}

/// The shard that owns `id` among `count`: a topic's partitions follow each other round all shards,
/// each topic from another first one.
pub fn owner_of(id: PartitionId, count: usize) -> usize {
    let folded = (id.topic.0 ^ (id.topic.0 >> 64)) as u64;
    (folded.wrapping_add(id.index as u64) % count as u64) as usize
}

impl Shard {
    /// A shard that owns nothing yet.
    pub fn new(index: usize, node: Arc<Node>, peers: Peers, store: Store) -> Rc<Self> {
        let shards = node.shards;
        let memory = node.memory;
        Rc::new(Self {
            index,
            peers,
            store,
            connections: Connections::default(),
            arriving_budget: Budget::new(memory.arriving_bytes),
            request_budget: Budget::new(memory.request_bytes),
            tickets: Tickets::default(),
            coordinators: Coordinators::default(),
            metrics: ShardMetrics::default(),
            complaints: Complaints::default(),
            door: Door::new(shards),
            controller: OnceCell::new(),
            producer_ids: ProducerIds::default(),
            creations: Creations::default(),
            life: Life::default(),
            config: RefCell::new(Rc::new(node.config.clone())),
            image: RefCell::default(),
            settings: RefCell::default(),
            partitions: RefCell::default(),
            offline: RefCell::default(),
            untold: RefCell::default(),
            next_session: Cell::new(0),
            generation: Cell::new(0),
            node,
        })
    }

    /// The shard that owns a partition.
    pub fn owner_of(&self, id: PartitionId) -> usize {
        owner_of(id, self.node.shards)
    }

    /// The configuration in force.
    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// The configuration changed.
    pub fn set_config(&self, config: Config) {
        *self.config.borrow_mut() = Rc::new(config);
    }

    /// The cluster as this shard last heard of it.
    pub fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.borrow().0)
    }

    /// The same, with the offset of the metadata log below which it is true.
    pub fn image_at(&self) -> (Arc<Image>, Offset) {
        self.image.borrow().clone()
    }

    /// Takes over a newer image.
    pub fn set_image(&self, image: Arc<Image>, offset: Offset) {
        *self.image.borrow_mut() = (image, offset);
        self.outdate();
    }

    /// The id of a partition that a request names: by topic id where it has one, else by name.
    pub fn resolve(&self, name: &str, id: Uuid, index: i32) -> Result<PartitionId, Refusal> {
        let (image, _) = &*self.image.borrow();
        let (topic, unknown) = if id.is_zero() {
            (image.topics.named(name), ErrorCode::UnknownTopicOrPartition)
        } else {
            (image.topics.with_id(id), ErrorCode::UnknownTopicId)
        };
        let topic = topic.ok_or(unknown)?;
        topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        Ok(PartitionId { topic: topic.id, index })
    }

    /// A partition that this shard owns.
    pub fn partition(&self, id: PartitionId) -> Result<Rc<Partition>, Refusal> {
        let partition = self.partitions.borrow().get(&id).cloned();
        if partition.is_none() && self.offline.borrow().contains_key(&id) {
            return Err(ErrorCode::KafkaStorageError.into());
        }
        // Known to the image and not here: its log could not be opened, or is not yet.
        partition.ok_or_else(|| ErrorCode::NotLeaderOrFollower.into())
    }

    /// All partitions that this shard owns, in no order.
    pub fn partitions(&self) -> Vec<Rc<Partition>> {
        let mut all: Vec<_> = self.partitions.borrow().values().cloned().collect();
        all.sort_unstable_by_key(|partition| partition.id); // One order, whatever the map's.
        all
    }

    /// This shard owns one more partition.
    pub fn add_partition(&self, partition: Rc<Partition>) {
        self.partitions.borrow_mut().insert(partition.id, partition);
        self.outdate();
    }

    /// A partition is gone.
    pub fn remove_partition(&self, id: PartitionId) -> Option<Rc<Partition>> {
        let gone = self.partitions.borrow_mut().remove(&id)?;
        self.outdate();
        self.metrics.departed(gone.traffic.totals());
        Some(gone)
    }

    /// Grows whenever a partition that was looked up may be another one now, or gone.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    fn outdate(&self) {
        self.generation.set(self.generation.get() + 1);
    }

    /// What a topic's configs come to.
    pub fn settings(&self, topic: Uuid) -> Result<Rc<TopicSettings>, Refusal> {
        if let Some(settings) = self.settings.borrow().get(&topic) {
            return Ok(Rc::clone(settings));
        }
        let (image, _) = &*self.image.borrow();
        let topic = image.topics.with_id(topic).ok_or(ErrorCode::UnknownTopicId)?;
        let settings = Rc::new(TopicSettings::resolve(&self.config.borrow(), image, &topic.name));
        self.settings.borrow_mut().insert(topic.id, Rc::clone(&settings));
        Ok(settings)
    }

    /// Configs changed: what they come to is worked out anew when it is next asked for.
    pub fn forget_settings(&self) {
        self.settings.borrow_mut().clear();
    }

    /// An id for a fetch session: positive, and told apart from other shards' by its remainder.
    pub fn new_session_id(&self) -> i32 {
        let shards = self.node.shards as i32;
        let next = self.next_session.get();
        self.next_session.set(if next >= i32::MAX / shards - 1 { 0 } else { next + 1 });
        (next + 1) * shards - shards + self.index as i32 + 1
    }
}

/// The connections that live on a shard.
#[derive(Default)]
pub struct Connections {
    /// By key, so that all are told in one order: a simulated run repeats itself.
    open: RefCell<BTreeMap<u64, Rc<Handle>>>,
    next: Cell<u64>,
}

impl Connections {
    /// Enters a connection; the key takes it out again.
    pub fn enter(&self, handle: Rc<Handle>) -> u64 {
        let key = self.next.get();
        self.next.set(key + 1);
        self.open.borrow_mut().insert(key, handle);
        key
    }

    /// Takes a connection out.
    pub fn leave(&self, key: u64) {
        self.open.borrow_mut().remove(&key);
    }

    /// How many live here.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Calls `each` for every connection.
    pub fn for_each(&self, each: impl FnMut(&Rc<Handle>)) {
        let open: Vec<_> = self.open.borrow().values().cloned().collect();
        open.iter().for_each(each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_partitions_are_spread_evenly() {
        let mut per_shard = [0; 3];
        for index in 0..30 {
            per_shard[owner_of(PartitionId { topic: Uuid(0xfeed_0000_0000_0001), index }, 3)] += 1;
        }
        assert_eq!(per_shard, [10, 10, 10]);
    }
}
