//! A controller as simple as one can be: it never forgets, and knows neither eligible leader replicas nor
//! reassignments.
//!
//! Separate from the shipped one, so that what replicas decide is tried thousands of times a second without
//! a quorum beside them. Rules: KIP-497 (partition epochs), KIP-841 and KIP-903 (who may be in the ISR). The
//! last member of an ISR stays in it, and the partition waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowstone_partition::{AlterPartition, AlterPartitionError, Altered, Broker};
use flowstone_types::{LeaderEpoch, NodeId, PartitionId, Uuid};

use super::cast::{Cast, Stage};
use super::chief::Chief;
use super::message::{Io, Message, PartitionView, View};
use super::truth::Name;
use crate::run::Violation;
use crate::tell;
use crate::world::{Machine, Micros, SECOND};

/// How long a broker may be silent.
pub const SESSION: Micros = 3 * SECOND;

/// The controller.
pub struct Model {
    cast: Cast,
    // Never lost:
    view: Arc<View>,
    version: u64,
    incarnations: BTreeMap<NodeId, u64>,
    /// Up to which version a broker must have come before it is unfenced.
    registered_at: BTreeMap<NodeId, u64>,
    next_epoch: i64,
    changed: Vec<PartitionId>,
    // Of the process:
    heard: BTreeMap<NodeId, Micros>,
    waiting: BTreeMap<Machine, u64>,
}

impl Model {
    /// A controller of an empty cluster.
    pub fn new(cast: Cast) -> Self {
        Self {
            cast,
            view: Arc::default(),
            version: 0,
            incarnations: BTreeMap::new(),
            registered_at: BTreeMap::new(),
            next_epoch: 1,
            changed: Vec::new(),
            heard: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn is_active(&self, node: NodeId) -> bool {
        self.view.brokers.get(&node).is_some_and(|broker| !broker.fenced && !broker.shutting_down)
    }

    fn register(&mut self, node: NodeId, from: Machine, incarnation: u64, stage: &mut Stage<'_>) {
        let known = self.incarnations.get(&node) == Some(&incarnation);
        if !known {
            // Whatever ran there before is over.
            self.leaves(node, stage);
            let epoch = self.next_epoch;
            self.next_epoch += 1;
            self.incarnations.insert(node, incarnation);
            let broker = Broker { epoch, fenced: true, shutting_down: false };
            Arc::make_mut(&mut self.view).brokers.insert(node, broker);
            self.published(stage);
            self.registered_at.insert(node, self.version);
            tell!(stage.story, stage.world.now(), "broker {node} is registered with epoch {epoch}");
        }
        let now = stage.world.monotonic(self.cast.controller);
        self.heard.insert(node, now);
        let epoch = self.view.brokers[&node].epoch;
        stage.world.send(self.cast.controller, from, Message::Registered { incarnation, epoch });
    }

    fn heartbeat(
        &mut self,
        node: NodeId,
        epoch: i64,
        version: u64,
        stopping: bool,
        stage: &mut Stage<'_>,
    ) {
        let known = self.view.brokers.get(&node).copied();
        let stale = known.is_none_or(|broker| broker.epoch != epoch);
        let mut may_stop = false;
        if let Some(broker) = known.filter(|_| !stale) {
            let now = stage.world.monotonic(self.cast.controller);
            self.heard.insert(node, now);
            if stopping && !broker.shutting_down {
                tell!(stage.story, stage.world.now(), "broker {node} asks to stop");
                Arc::make_mut(&mut self.view)
                    .brokers
                    .insert(node, Broker { shutting_down: true, ..broker });
                self.leaves(node, stage);
                self.published(stage);
            } else if broker.fenced && !broker.shutting_down && version >= self.registered_at[&node]
            {
                self.unfence(node, broker, stage);
            }
            let leads = self.view.partitions.values().any(|partition| {
                partition.leader == Some(node)
                    && partition.isr.iter().any(|other| self.is_active(*other))
            });
            may_stop = stopping && !leads;
            if may_stop {
                self.leaves(node, stage);
                self.published(stage);
            }
        }
        let answer = Message::Heard { epoch, stale, may_stop };
        stage.world.send(self.cast.controller, self.cast.machine(node), answer);
    }

    fn unfence(&mut self, node: NodeId, broker: Broker, stage: &mut Stage<'_>) {
        tell!(stage.story, stage.world.now(), "broker {node} is unfenced");
        let view = Arc::make_mut(&mut self.view);
        view.brokers.insert(node, Broker { fenced: false, ..broker });
        for (id, partition) in &mut view.partitions {
            if partition.leader.is_none() && partition.isr.contains(&node) {
                partition.leader = Some(node);
                partition.leader_epoch.0 += 1;
                partition.partition_epoch += 1;
                self.changed.push(*id);
            }
        }
        self.published(stage);
    }

    /// A broker is fenced, stops, or came anew: it leaves the ISRs that others are in, and leads no more.
    fn leaves(&mut self, node: NodeId, stage: &mut Stage<'_>) {
        let view = Arc::make_mut(&mut self.view);
        for (id, partition) in &mut view.partitions {
            if !partition.isr.contains(&node) && partition.leader != Some(node) {
                continue;
            }
            let staying: Vec<_> =
                partition.isr.iter().copied().filter(|other| *other != node).collect();
            if !staying.is_empty() {
                partition.isr = staying.into();
            }
            if partition.leader == Some(node) {
                let alive = |other: &NodeId| {
                    *other != node
                        && partition.isr.contains(other)
                        && view.brokers.get(other).is_some_and(|b| !b.fenced && !b.shutting_down)
                };
                partition.leader = partition.replicas.iter().copied().find(alive);
                partition.leader_epoch.0 += 1;
                tell!(
                    stage.story,
                    stage.world.now(),
                    "{} is led by {:?} in epoch {}, ISR {:?}",
                    Name(*id),
                    partition.leader,
                    partition.leader_epoch,
                    partition.isr
                );
            }
            partition.partition_epoch += 1;
            self.changed.push(*id);
        }
    }

    /// Kafka's checks, in its order (kafka-reference, section 2.2).
    fn alter(
        &mut self,
        node: NodeId,
        id: PartitionId,
        broker_epoch: i64,
        change: &AlterPartition,
        stage: &mut Stage<'_>,
    ) -> Result<Altered, AlterPartitionError> {
        use AlterPartitionError as E;
        if self.view.brokers.get(&node).is_none_or(|broker| broker.epoch != broker_epoch) {
            return Err(E::Retriable); // STALE_BROKER_EPOCH
        }
        let partition = self.view.partitions.get(&id).ok_or(E::UnknownTopic)?;
        if change.leader_epoch > partition.leader_epoch
            || change.partition_epoch > partition.partition_epoch
        {
            return Err(E::Retriable); // NOT_CONTROLLER
        }
        if change.leader_epoch < partition.leader_epoch {
            return Err(E::FencedLeaderEpoch);
        }
        if partition.leader != Some(node) {
            return Err(E::InvalidRequest);
        }
        if change.partition_epoch < partition.partition_epoch {
            return Err(E::InvalidUpdateVersion);
        }
        if !change.isr.iter().any(|member| member.node == node) {
            return Err(E::InvalidRequest);
        }
        let eligible = change.isr.iter().all(|member| {
            self.view.brokers.get(&member.node).is_some_and(|broker| {
                let same = member.broker_epoch == -1 || member.broker_epoch == broker.epoch;
                same && !broker.fenced && !broker.shutting_down
            })
        });
        if !eligible {
            return Err(E::IneligibleReplica);
        }
        let partition =
            Arc::make_mut(&mut self.view).partitions.get_mut(&id).ok_or(E::UnknownTopic)?;
        partition.isr = change.isr.iter().map(|member| member.node).collect();
        partition.partition_epoch += 1;
        let altered = Altered {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: partition.isr.to_vec(),
        };
        self.changed.push(id);
        self.published(stage);
        Ok(altered)
    }

    fn published(&mut self, stage: &mut Stage<'_>) {
        self.version += 1;
        for (machine, _) in std::mem::take(&mut self.waiting) {
            self.tell_view(machine, stage);
        }
    }

    fn tell_view(&self, to: Machine, stage: &mut Stage<'_>) {
        let message = Message::View { version: self.version, view: Arc::clone(&self.view) };
        stage.world.send(self.cast.controller, to, message);
    }
}

impl Chief for Model {
    fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn take_changed(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.changed)
    }

    /// The process starts: every broker gets a whole session to be heard in.
    fn start(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.waiting.clear();
        let now = stage.world.monotonic(self.cast.controller);
        self.heard = self.view.brokers.keys().map(|id| (*id, now)).collect();
        stage.world.wake_at(self.cast.controller, now + SECOND);
        Ok(())
    }

    fn ended(&mut self) {}

    fn message(
        &mut self,
        from: Machine,
        message: Message,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let Some(node) = self.cast.broker(from) else { return Ok(()) };
        match message {
            Message::Register { incarnation, .. } => self.register(node, from, incarnation, stage),
            Message::Heartbeat { epoch, version, stopping } => {
                self.heartbeat(node, epoch, version, stopping, stage);
            }
            Message::FetchView { version } => {
                if version < self.version {
                    self.tell_view(from, stage);
                } else {
                    self.waiting.insert(from, version);
                }
            }
            Message::Alter { partition, broker_epoch, change } => {
                let result = self.alter(node, partition, broker_epoch, &change, stage);
                tell!(
                    stage.story,
                    stage.world.now(),
                    "controller answers broker {node} on {}: {result:?}",
                    Name(partition)
                );
                let answer = Message::Altered { partition, id: change.id, result };
                stage.world.send(self.cast.controller, from, answer);
            }
            _ => unreachable!("no broker says that to a controller"),
        }
        Ok(())
    }

    /// What is due by the clock: brokers that were silent for too long.
    fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = stage.world.monotonic(self.cast.controller);
        let silent: Vec<_> = self
            .heard
            .iter()
            .filter(|(_, at)| **at + SESSION <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            self.heard.remove(&node);
            if let Some(broker) =
                self.view.brokers.get(&node).copied().filter(|broker| !broker.fenced)
            {
                tell!(stage.story, stage.world.now(), "broker {node} is fenced: it was not heard");
                Arc::make_mut(&mut self.view)
                    .brokers
                    .insert(node, Broker { fenced: true, ..broker });
                self.leaves(node, stage);
                self.published(stage);
            }
        }
        stage.world.wake_at(self.cast.controller, now + SECOND / 2);
        Ok(())
    }

    fn done(&mut self, _: Io, _: &mut Stage<'_>) -> Result<(), Violation> {
        unreachable!("its disk takes no time")
    }

    /// Whoever is there is in sync.
    fn create(
        &mut self,
        topic: u64,
        replicas: &[NodeId],
        _: bool,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let id = PartitionId { topic: Uuid(u128::from(topic)), index: 0 };
        let alive: Vec<_> = replicas.iter().copied().filter(|node| self.is_active(*node)).collect();
        let Some(leader) = alive.first().copied() else { return Ok(()) };
        tell!(
            stage.story,
            stage.world.now(),
            "{} is created on {replicas:?}, in sync {alive:?}",
            Name(id)
        );
        let partition = PartitionView {
            leader: Some(leader),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            replicas: replicas.into(),
            isr: alive.into(),
            eligible: Arc::default(),
            recovering: false,
        };
        Arc::make_mut(&mut self.view).partitions.insert(id, partition);
        self.published(stage);
        Ok(())
    }

    fn delete(&mut self, id: PartitionId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        tell!(stage.story, stage.world.now(), "{} is deleted", Name(id));
        Arc::make_mut(&mut self.view).partitions.remove(&id);
        self.published(stage);
        Ok(())
    }

    fn reassign(
        &mut self,
        _: PartitionId,
        _: Option<Vec<NodeId>>,
        _: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        Ok(()) // It knows nothing of that.
    }
}
