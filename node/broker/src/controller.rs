//! The controller's shell: decisions one at a time, each committed before it is answered.
//!
//! A decision is pure (`flowstone_controller`): it sees the committed image and says which records
//! follow. This file commits them, applies them, and publishes the new image to every shard; whoever
//! asked is answered once all shards follow it.

use crate::disks;
use crate::metadata_log::MetadataLog;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_controller::{self as decide, ApiError, Decision};
use flowstone_metadata::{Image, Replay};
use flowstone_runtime::local::Semaphore;
use flowstone_types::{Offset, ProducerId};
use flowstone_wire::ErrorCode;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use tracing::error;

/// The shard that the controller runs on.
pub const CONTROLLER_SHARD: usize = 0;

/// The controller of this node.
pub struct Controller {
    /// The log of its decisions.
    pub log: MetadataLog,
    replay: RefCell<Replay>,
    /// Held from a decision to the end of its publication.
    turn: Semaphore,
}

impl Controller {
    /// Opens and replays the metadata log, and makes the cluster whole.
    pub async fn start(shard: &Rc<Shard>) -> anyhow::Result<()> {
        let (log, replay) = MetadataLog::open(&shard.node, &shard.store).await?;
        let kraft_version = log.kraft_version();
        shard.node.kraft_version.set(kraft_version).expect("a node starts once");
        let controller = Self { log, replay: RefCell::new(replay), turn: Semaphore::new(1) };
        assert!(shard.controller.set(controller).is_ok(), "a node has one controller");
        shard.controller().activate(shard).await
    }

    /// Tells every shard of what was committed; returns once all follow it.
    async fn publish(&self, shard: &Rc<Shard>) {
        let published = self.replay.borrow_mut().publish();
        let Some((image, delta)) = published else { return };
        let (image, delta, offset) = (Arc::new(image), Arc::new(delta), self.log.committed_end());
        let take_over = move |shard: Rc<Shard>| {
            let (image, delta) = (Arc::clone(&image), Arc::clone(&delta));
            async move { shard.take_over(image, offset, delta).await }
        };
        shard.on_all(take_over).await;
    }

    /// Lets `decide` see the committed image; commits and publishes what it decides.
    pub async fn decide<T>(
        &self,
        shard: &Rc<Shard>,
        decide: impl FnOnce(&Image, Offset) -> Decision<T>,
    ) -> Result<T, Refusal> {
        let _turn = self.turn.acquire().await;
        let image = shard.image();
        let decision = decide(&image, self.log.end());
        self.carry_out(shard, &image, decision).await
    }

    /// The same for what may be refused.
    pub async fn try_decide<T>(
        &self,
        shard: &Rc<Shard>,
        decide: impl FnOnce(&Image, Offset) -> Result<Decision<T>, ApiError>,
    ) -> Result<T, Refusal> {
        let _turn = self.turn.acquire().await;
        let image = shard.image();
        let decision = decide(&image, self.log.end())?;
        self.carry_out(shard, &image, decision).await
    }

    async fn carry_out<T>(
        &self,
        shard: &Rc<Shard>,
        image: &Image,
        decision: Decision<T>,
    ) -> Result<T, Refusal> {
        let Decision { records, atomic, response } = decision;
        if records.is_empty() {
            return Ok(response);
        }
        self.log.commit(&records, image.metadata_version(), atomic).await?;
        for record in records {
            // What the controller decides its own image takes: anything else is our bug.
            self.replay.borrow_mut().apply(record).expect("a decision follows from the image");
        }
        self.publish(shard).await;
        Ok(response)
    }

    /// Housekeeping: snapshots.
    pub async fn tick(&self, shard: &Shard) {
        let _turn = self.turn.acquire().await;
        if let Err(why) = self.log.tick(&shard.image()).await {
            error!("could not take a snapshot of the metadata log: {why:#}");
        }
    }
}

impl Shard {
    /// The controller; only its own shard has it.
    pub fn controller(&self) -> &Controller {
        self.controller.get().expect("asked on the controller's shard, after its start")
    }

    /// Has the controller decide what may be refused, wherever it runs.
    pub async fn try_decide<T, D>(self: &Rc<Self>, decide: D) -> Result<T, Refusal>
    where
        T: Send + 'static,
        D: FnOnce(&Image, Offset) -> Result<Decision<T>, ApiError> + Send + 'static,
    {
        let ask = move |shard: &Rc<Shard>| {
            let shard = Rc::clone(shard);
            async move {
                let controller = shard.controller.get().ok_or(ErrorCode::NotController)?;
                controller.try_decide(&shard, decide).await
            }
        };
        self.call(CONTROLLER_SHARD, ask).await
    }

    /// Has the controller decide, wherever it runs.
    pub async fn decide<T, D>(self: &Rc<Self>, decide: D) -> Result<T, Refusal>
    where
        T: Send + 'static,
        D: FnOnce(&Image, Offset) -> Decision<T> + Send + 'static,
    {
        let ask = move |shard: &Rc<Shard>| {
            let shard = Rc::clone(shard);
            async move {
                let controller = shard.controller.get().ok_or(ErrorCode::NotController)?;
                controller.decide(&shard, decide).await
            }
        };
        self.call(CONTROLLER_SHARD, ask).await
    }
}

impl Controller {
    /// Makes the cluster whole at start: the features it was formatted with, this node as its
    /// controller and broker, and this node's leaderships in new epochs.
    async fn activate(&self, shard: &Rc<Shard>) -> anyhow::Result<()> {
        let node = &shard.node;
        self.publish_replayed(shard);
        let bootstrap = disks::bootstrap_records(node).await?;
        let min_insync = node.config.topic(None).min_insync_replicas;
        let in_transaction = self.replay.borrow().in_transaction();
        self.decide(shard, |image, _| {
            decide::activate(image, in_transaction, bootstrap, min_insync)
        })
        .await?;
        self.decide(shard, |image, _| decide::register_controller(image, node.as_controller()))
            .await?;
        let epoch = self
            .try_decide(shard, |image, end| decide::register_broker(image, node.as_broker(), end.0))
            .await?;
        node.broker_epoch.set(epoch).expect("a node registers once");
        self.try_decide(shard, |image, _| decide::unfence_broker(image, node.id, epoch)).await?;
        disks::report_strays(node, &shard.image()).await;
        Ok(())
    }

    /// The image as it was before this start, for decisions only: its partitions are opened when
    /// this broker leads them.
    fn publish_replayed(&self, shard: &Shard) {
        if let Some((image, _)) = self.replay.borrow_mut().publish() {
            shard.set_image(Arc::new(image), self.log.committed_end());
        }
    }
}

/// The producer ids that a shard may hand out.
#[derive(Default)]
pub struct ProducerIds(RefCell<Range<i64>>);

impl Shard {
    /// A producer id that was never handed out before.
    pub async fn new_producer_id(self: &Rc<Self>) -> Result<ProducerId, Refusal> {
        loop {
            if let Some(id) = self.producer_ids.0.borrow_mut().next() {
                return Ok(ProducerId(id));
            }
            let (broker, epoch) = (self.node.id, self.node.broker_epoch());
            let allocate =
                move |image: &Image, _| decide::allocate_producer_ids(image, broker, epoch);
            // Two that ask at once both get a block; ids left over in one of them are lost, as they
            // are at every restart.
            let block = self.try_decide(allocate).await?;
            *self.producer_ids.0.borrow_mut() = block;
        }
    }
}
