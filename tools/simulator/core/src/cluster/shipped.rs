//! The shipped controller of a simulated cluster, on a metadata log that commits after a while, and loses
//! what was not committed when its process ends.
//!
//! Separate from the shipped quorum, which the layer `raft` plays: here one process after another is the
//! active controller, as if each had been elected. What it is asked for is in `duties.rs`, what must hold of its
//! image in `invariants.rs`. Every decision is committed, or undone by its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flowstone_controller::{ApiError, Controller, Decision, Effect};
use flowstone_metadata::{Image, MetadataRecord, Partition, Replay};
use flowstone_partition::{AlterPartitionError, Altered, Broker, ChangeId, Rules};
use flowstone_types::{Instant, NodeId, Offset, PartitionId, Uuid};

use super::cast::{Cast, Stage};
use super::invariants::{
    allows_unclean, check_change, check_names, check_partition, check_snapshot,
};
use super::message::{Io, Message, PartitionView, View};
use super::truth::Name;
use crate::broken;
use crate::random::Random;
use crate::run::Violation;
use crate::tell;
use crate::world::{Machine, Micros};

/// What is answered once a decision is committed.
pub(super) enum Answer {
    Nothing,
    Registered {
        to: Machine,
        incarnation: u64,
        result: Result<i64, ApiError>,
    },
    Heard {
        to: Machine,
        epoch: i64,
        stale: bool,
        may_stop: bool,
    },
    Altered {
        to: Machine,
        partition: PartitionId,
        id: ChangeId,
        result: Result<Altered, AlterPartitionError>,
    },
}

/// The controller.
pub struct Shipped {
    pub(super) cast: Cast,
    pub(super) rules: Rules,
    pub(super) random: Random,
    flush_takes: Micros,
    // What is on the disks of the quorum:
    pub(super) committed: Image,
    pub(super) committed_end: Offset,
    pub(super) uncommitted: VecDeque<Vec<MetadataRecord>>,
    commits: u64,
    // Of the process:
    pub(super) controller: Option<Controller<Answer>>,
    pub(super) end: Offset,
    pub(super) committing: bool,
    pub(super) waiting: BTreeMap<Machine, u64>,
    // For the checks:
    pub(super) view: Arc<View>,
    pub(super) changed: Vec<PartitionId>,
    factors: BTreeMap<Uuid, usize>,
    /// The epoch in which each broker says that it stopped in an orderly way, when it registered last.
    pub(super) stopped_in: BTreeMap<NodeId, i64>,
    /// When this process heard each broker last, and in which epoch.
    pub(super) heard: BTreeMap<NodeId, (i64, Instant)>,
}

/// Every how many commits the image goes through a snapshot.
const SNAPSHOT_EVERY: u64 = 32;

impl Shipped {
    /// A controller of a cluster that was just formatted.
    pub fn new(cast: Cast, rules: Rules, flush_takes: Micros, seed: u64) -> Self {
        Self {
            cast,
            rules,
            random: Random::new(seed, 6 << 32),
            flush_takes,
            committed: Image::default(),
            committed_end: Offset::ZERO,
            uncommitted: VecDeque::new(),
            commits: 0,
            controller: None,
            end: Offset::ZERO,
            committing: false,
            waiting: BTreeMap::new(),
            view: Arc::default(),
            changed: Vec::new(),
            factors: BTreeMap::new(),
            stopped_in: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    pub(super) fn now(&self, stage: &Stage<'_>) -> Instant {
        Instant(stage.world.monotonic(self.cast.controller) * 1000)
    }

    pub(super) fn decide(
        &mut self,
        stage: &mut Stage<'_>,
        decide: impl FnOnce(&mut flowstone_controller::Active) -> Decision<Answer>,
    ) -> Result<(), Violation> {
        let now = self.now(stage);
        let Some(controller) = &mut self.controller else { return Ok(()) };
        let mut effects = Vec::new();
        controller.decide(now, self.end, decide, &mut effects);
        self.perform(effects, stage)
    }

    pub(super) fn perform(
        &mut self,
        effects: Vec<Effect<Answer>>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        for effect in effects {
            match effect {
                Effect::Append(append) => {
                    assert_eq!(append.base, self.end, "the controller says where the log ends");
                    self.end = self.end.plus(append.records.len() as i64);
                    if append.atomic {
                        self.uncommitted.push_back(append.records);
                    } else {
                        self.uncommitted
                            .extend(append.records.into_iter().map(|record| vec![record]));
                    }
                }
                Effect::Answer(answer) => self.answer(answer, stage)?,
                // Whoever asked hears nothing, and asks again.
                Effect::NotController(_) => {}
            }
        }
        if !self.committing && !self.uncommitted.is_empty() {
            self.committing = true;
            let takes = 1 + self.random.below(2 * self.flush_takes);
            let io = Io::MetadataCommitted { end: self.end };
            stage.world.done_after(self.cast.controller, takes, io);
        }
        if let Some(controller) = &self.controller {
            let at = controller.next_deadline().0.div_ceil(1000);
            stage.world.wake_at(self.cast.controller, at);
        }
        Ok(())
    }

    fn answer(&self, answer: Answer, stage: &mut Stage<'_>) -> Result<(), Violation> {
        const RULE: &str = "a decision is answered once it is committed";
        let (to, message) = match answer {
            Answer::Nothing => return Ok(()),
            Answer::Registered { to, incarnation, result } => match result {
                Ok(epoch) => {
                    let node = self.cast.broker(to).expect("only brokers register");
                    let known = self.committed.brokers.get(&node);
                    if known.is_none_or(|known| known.broker_epoch < epoch) {
                        broken!(
                            RULE,
                            "broker {node} is told that it is registered with epoch {epoch}"
                        );
                    }
                    tell!(
                        stage.story,
                        stage.world.now(),
                        "{} is registered with epoch {epoch}",
                        self.cast.name(to)
                    );
                    (to, Message::Registered { incarnation, epoch })
                }
                Err(_) => return Ok(()), // It asks again.
            },
            Answer::Heard { to, epoch, stale, may_stop } => {
                (to, Message::Heard { epoch, stale, may_stop })
            }
            Answer::Altered { to, partition, id, result } => {
                let known = self.committed.topics.partition(partition);
                if let (Some(known), Ok(altered)) = (known, &result)
                    && known.partition_epoch < altered.partition_epoch
                {
                    broken!(
                        RULE,
                        "{} is told {altered:?} of {}",
                        self.cast.name(to),
                        Name(partition)
                    );
                }
                tell!(
                    stage.story,
                    stage.world.now(),
                    "the controller answers {} on {}: {result:?}",
                    self.cast.name(to),
                    Name(partition)
                );
                (to, Message::Altered { partition, id, result })
            }
        };
        stage.world.send(self.cast.controller, to, message);
        Ok(())
    }

    /// The log is committed up to here: answers leave, and brokers see it.
    pub(super) fn commit(&mut self, end: Offset, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let mut replay = Replay::from_image(self.committed.clone());
        while self.committed_end < end
            && let Some(records) = self.uncommitted.pop_front()
        {
            self.committed_end = self.committed_end.plus(records.len() as i64);
            for record in records {
                if let Err(error) = replay.apply(record) {
                    broken!("what the controller decides fits the image", "{error}");
                }
            }
            if let Some((image, delta)) = replay.publish() {
                check_change(&self.committed, &image, &delta)?;
                self.committed = image;
            }
        }
        if replay.in_transaction() {
            broken!(
                "a transaction ends in the decision that begins it",
                "the log ends in one at {end}"
            );
        }
        check_names(&self.committed)?;
        if self.commits.is_multiple_of(SNAPSHOT_EVERY) {
            check_snapshot(&self.committed)?;
        }
        self.commits += 1;
        let mut effects = Vec::new();
        if let Some(controller) = &mut self.controller {
            controller.committed(self.committed_end, &mut effects);
            let (image, at) = controller.committed_image();
            if at == self.committed_end && *image != self.committed {
                broken!(
                    "images are equal at equal offsets",
                    "the controller's own differs at {at}"
                );
            }
        }
        self.publish(stage)?;
        self.perform(effects, stage)
    }

    fn publish(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let mut view = View::default();
        for (id, broker) in &self.committed.brokers {
            let (epoch, fenced) = (broker.broker_epoch, broker.fenced);
            let shutting_down = broker.in_controlled_shutdown;
            view.brokers.insert(*id, Broker { epoch, fenced, shutting_down });
        }
        for topic in self.committed.topics.iter() {
            let loses = allows_unclean(&self.committed, &topic.name);
            for (index, partition) in topic.partitions() {
                let id = PartitionId { topic: topic.id, index };
                stage.truth.partition(id).may_lose |= loses;
                let factor = *self.factors.entry(topic.id).or_insert(partition.replicas.len());
                check_partition(id, partition, &view, factor)?;
                let known = self.view.partitions.get(&id);
                if known.is_some_and(|known| known.partition_epoch > partition.partition_epoch) {
                    broken!("partition epochs never go back", "{} {partition:?}", Name(id));
                }
                if known.is_none_or(|known| known.partition_epoch != partition.partition_epoch) {
                    self.changed.push(id);
                    tell!(
                        stage.story,
                        stage.world.now(),
                        "{} at {}: leader {}, epoch {}, replicas {:?}, ISR {:?}, eligible {:?}, last known {:?}",
                        Name(id),
                        partition.partition_epoch,
                        partition.leader,
                        partition.leader_epoch,
                        ids(&partition.replicas),
                        ids(&partition.isr),
                        ids(&partition.eligible),
                        ids(&partition.last_known)
                    );
                }
                view.partitions.insert(id, view_of(partition));
            }
        }
        self.unclean_stops_count(&view)?;
        self.view = Arc::new(view);
        for (machine, _) in std::mem::take(&mut self.waiting) {
            self.tell_view(machine, stage);
        }
        Ok(())
    }

    /// Who comes back without having stopped in an orderly way may have lost anything: it is neither in sync
    /// nor eligible (KIP-966).
    fn unclean_stops_count(&self, view: &View) -> Result<(), Violation> {
        for (node, broker) in &view.brokers {
            let Some(before) = self.view.brokers.get(node) else { continue };
            if before.epoch == broker.epoch || self.stopped_in.get(node) == Some(&before.epoch) {
                continue;
            }
            let counts = |partition: &PartitionView| {
                partition.isr.contains(node) || partition.eligible.contains(node)
            };
            if let Some((id, partition)) = view.partitions.iter().find(|(_, p)| counts(p)) {
                broken!(
                    "who stopped without order is neither in sync nor eligible (KIP-966)",
                    "broker {node} of {}, which has {partition:?}",
                    Name(*id)
                );
            }
        }
        Ok(())
    }

    pub(super) fn tell_view(&self, to: Machine, stage: &mut Stage<'_>) {
        let version = self.committed_end.0 as u64;
        let message = Message::View { version, view: Arc::clone(&self.view) };
        stage.world.send(self.cast.controller, to, message);
    }
}

fn ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

fn view_of(partition: &Partition) -> PartitionView {
    PartitionView {
        leader: (partition.leader != NodeId::NONE).then_some(partition.leader),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: Arc::from(&partition.replicas[..]),
        isr: Arc::from(&partition.isr[..]),
        eligible: Arc::from(&partition.eligible[..]),
        recovering: partition.recovering,
    }
}
