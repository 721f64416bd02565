//! What a new image means for a shard: logs to open, to reconfigure, to delete.
//!
//! The controller publishes an image to all shards and waits for each to have taken it over, so that
//! a topic that was created can be written to when its creator hears of it.

use crate::controller::CONTROLLER_SHARD;
use crate::partition::{Partition, Waits};
use crate::settings::{self, CONSUMER_OFFSETS};
use crate::shard::Shard;
use flowstone_controller::{note_directories, told_directory};
use flowstone_metadata::{Delta, Image, Topic};
use flowstone_runtime::local::Semaphore;
use flowstone_runtime::{now, spawn};
use flowstone_store::{LogSpec, Whereabouts};
use flowstone_types::{Offset, PartitionId, Uuid};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// Logs that one shard opens or deletes at a time: enough to keep a disk's queue full.
const LOGS_AT_ONCE: usize = 64;

/// Opening logs is told of when it takes longer than this, and each time that this passes again.
const TELL_AFTER: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes over the image that the metadata log makes below `offset`; returns once this shard's
    /// logs follow it. A log that cannot be opened is told of and left out: the others go on.
    pub async fn take_over(self: &Rc<Self>, image: Arc<Image>, offset: Offset, delta: Arc<Delta>) {
        self.set_image(Arc::clone(&image), offset);
        if !delta.configs.is_empty() {
            self.reconfigure(&image);
        }
        for topic in delta.topics_deleted.values() {
            self.delete_logs(topic).await;
        }
        let mine = delta.partitions.iter().filter_map(|(topic, index)| {
            let id = PartitionId { topic: *topic, index: *index };
            let partition = image.topics.partition(id)?;
            let here = self.owner_of(id) == self.index && partition.leader == self.node.id;
            here.then_some(id)
        });
        self.open_logs(&image, mine.collect()).await;
    }

    async fn open_logs(self: &Rc<Self>, image: &Arc<Image>, ids: Vec<PartitionId>) {
        let places = Semaphore::new(LOGS_AT_ONCE);
        let (began, mut told, count) = (now(), now(), ids.len());
        for (done, id) in ids.into_iter().enumerate() {
            let place = places.acquire().await;
            let (shard, image) = (Rc::clone(self), Arc::clone(image));
            spawn(async move {
                shard.lead(&image, id).await;
                drop(place);
            });
            if now().since(told) > TELL_AFTER {
                told = now();
                info!(shard = self.index, opened = done, of = count, "opening logs");
            }
        }
        let mut all = Vec::with_capacity(LOGS_AT_ONCE);
        while all.len() < LOGS_AT_ONCE {
            all.push(places.acquire().await); // Each comes back when its log is open.
        }
        if now().since(began) > TELL_AFTER {
            info!(shard = self.index, opened = count, took = ?now().since(began), "opened logs");
        }
    }

    /// Leads a partition: opens its log, if that is not open yet, or begins its new epoch.
    async fn lead(self: &Rc<Self>, image: &Image, id: PartitionId) {
        let Some(topic) = image.topics.with_id(id.topic) else { return };
        let Some(partition) = topic.partition(id.index) else { return };
        let epoch = partition.leader_epoch;
        if let Ok(open) = self.partition(id) {
            open.begin_epoch(epoch);
            return;
        }
        let told = told_directory(partition, self.node.id);
        let settings = self.settings(id.topic).expect("the topic is in the image");
        let spec = LogSpec {
            topic: Arc::clone(&topic.name),
            id,
            config: Arc::clone(&settings.log),
            leader_epoch: epoch,
            whereabouts: match told {
                Some(directory) => Whereabouts::In(directory),
                // Whatever was there when this node started has begun a new leadership since.
                None if partition.partition_epoch == 0 => Whereabouts::New,
                None => Whereabouts::Untold,
            },
        };
        let waits = Waits::new(self.node.id);
        match self.store.open(spec, waits.clone()).await {
            Ok(log) => {
                self.offline.borrow_mut().remove(&id);
                if told != Some(log.directory_id()) {
                    self.untold.borrow_mut().insert(id, log.directory_id());
                }
                let partition =
                    Rc::new(Partition::new(id, Arc::clone(&topic.name), log, waits, epoch));
                self.add_partition(Rc::clone(&partition));
                if &*topic.name == CONSUMER_OFFSETS {
                    self.coordinators.take_over(partition, settings, &self.config().settings);
                }
            }
            Err(why) => {
                // Only space comes back by itself; the rest waits for an operator.
                let known = self.offline.borrow_mut().insert(id, why.is_disk_full());
                if known.is_none() {
                    error!(
                        topic = &*topic.name,
                        partition = id.index,
                        "partition is offline: {why}"
                    );
                }
            }
        }
    }

    /// Tries again to open what found no space before.
    pub async fn retry_offline(self: &Rc<Self>) {
        let image = self.image();
        let again: Vec<PartitionId> = {
            let mut offline = self.offline.borrow_mut();
            offline.retain(|id, _| image.topics.partition(*id).is_some());
            offline.iter().filter(|(_, again)| **again).map(|(id, _)| *id).collect()
        };
        if !again.is_empty() {
            self.open_logs(&image, again).await;
        }
    }

    /// Tells the controller of logs that lie where the metadata does not have them (KIP-858). At the next start, it is
    /// what keeps a log from being begun anew while its directory is offline.
    pub fn tell_directories(self: &Rc<Self>) {
        let found: Vec<(PartitionId, Uuid)> = self.untold.take().into_iter().collect();
        if found.is_empty() {
            return;
        }
        let (shard, broker) = (Rc::clone(self), self.node.id);
        // The controller's turn may wait for space that this shard's retention makes.
        spawn(async move {
            let told = found.clone();
            let note = move |image: &Image, _| note_directories(image, broker, &told);
            if let Err(why) = shard.decide(note).await {
                warn!("cannot tell which directories logs are in, tried again later: {why}");
                shard.untold.borrow_mut().extend(found);
            }
        });
    }

    async fn delete_logs(self: &Rc<Self>, topic: &Topic) {
        for (index, _) in topic.partitions() {
            let id = PartitionId { topic: topic.id, index };
            let Some(partition) = self.remove_partition(id) else { continue };
            partition.close();
            if let Err(why) = self.store.delete(partition.log.clone()).await {
                error!(topic = &*topic.name, partition = index, "could not delete a log: {why}");
            }
        }
        self.coordinators.topic_deleted(&topic.name, topic.id);
    }

    fn reconfigure(&self, image: &Image) {
        let (config, complaints) = settings::dynamic(&self.node.config, image, self.node.id);
        if self.index == CONTROLLER_SHARD {
            for text in complaints {
                warn!("a dynamic broker config is left out: {text}");
            }
        }
        self.set_config(config);
        self.forget_settings();
        for partition in self.partitions() {
            if let Ok(settings) = self.settings(partition.id.topic) {
                partition.log.reconfigure(Arc::clone(&settings.log));
                self.coordinators.reconfigure(partition.id, &settings);
            }
        }
    }
}
