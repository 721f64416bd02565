//! The shipped controller of a simulated cluster, on a metadata log that commits after a while, and loses
//! what was not committed when its process ends.
//!
//! Separate from the shipped quorum, which the layer `raft` plays: here one process after another is the
//! active controller, as if each had been elected. Every decision is committed, or undone by its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flowstone_config::Config;
use flowstone_controller::{
    ApiError, BrokerRegistration, Controller, Decision, Effect, ErrorKind, Heartbeat,
    IsrAlteration, NewTopic, Random as Draw, Settings, TopicChoice, TopicDefaults, activate,
    create_topics, delete_topics,
};
use flowstone_metadata::{Image, MetadataRecord, Partition, Replay, features};
use flowstone_partition::{AlterPartitionError, Altered, Broker, ChangeId, Rules};
use flowstone_types::{Instant, NodeId, Offset, PartitionId, Uuid};

use super::broker::{Cast, Stage};
use super::chief::Chief;
use super::message::{Io, Message, PartitionView, View};
use super::truth::Name;
use crate::broken;
use crate::random::Random;
use crate::run::Violation;
use crate::tell;
use crate::world::{Machine, Micros};

/// What is answered once a decision is committed.
enum Answer {
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
    cast: Cast,
    rules: Rules,
    random: Random,
    flush_takes: Micros,
    // What is on the disks of the quorum:
    committed: Image,
    committed_end: Offset,
    uncommitted: VecDeque<Vec<MetadataRecord>>,
    // Of the process:
    controller: Option<Controller<Answer>>,
    end: Offset,
    committing: bool,
    waiting: BTreeMap<Machine, u64>,
    // For the checks:
    view: Arc<View>,
    changed: Vec<PartitionId>,
    factors: BTreeMap<Uuid, usize>,
    /// The epoch in which each broker says that it stopped in an orderly way, when it registered last.
    stopped_in: BTreeMap<NodeId, i64>,
}

/// The configuration that topics are checked by: the defaults.
fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config::dev("data", 9092, &[]).expect("the defaults are valid").config)
}

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
            controller: None,
            end: Offset::ZERO,
            committing: false,
            waiting: BTreeMap::new(),
            view: Arc::default(),
            changed: Vec::new(),
            factors: BTreeMap::new(),
            stopped_in: BTreeMap::new(),
        }
    }

    fn now(&self, stage: &Stage<'_>) -> Instant {
        Instant(stage.world.monotonic(self.cast.controller) * 1000)
    }

    fn decide(
        &mut self,
        stage: &mut Stage<'_>,
        decide: impl FnOnce(&mut flowstone_controller::Active) -> Decision<Answer>,
    ) {
        let now = self.now(stage);
        let Some(controller) = &mut self.controller else { return };
        let mut effects = Vec::new();
        controller.decide(now, self.end, decide, &mut effects);
        self.perform(effects, stage);
    }

    fn perform(&mut self, effects: Vec<Effect<Answer>>, stage: &mut Stage<'_>) {
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
                Effect::Answer(answer) => self.answer(answer, stage),
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
    }

    fn answer(&self, answer: Answer, stage: &mut Stage<'_>) {
        let (to, message) = match answer {
            Answer::Nothing => return,
            Answer::Registered { to, incarnation, result } => match result {
                Ok(epoch) => {
                    tell!(
                        stage.story,
                        stage.world.now(),
                        "{} is registered with epoch {epoch}",
                        self.cast.name(to)
                    );
                    (to, Message::Registered { incarnation, epoch })
                }
                Err(_) => return, // It asks again.
            },
            Answer::Heard { to, epoch, stale, may_stop } => {
                (to, Message::Heard { epoch, stale, may_stop })
            }
            Answer::Altered { to, partition, id, result } => {
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
    }

    /// The log is committed up to here: answers leave, and brokers see it.
    fn commit(&mut self, end: Offset, stage: &mut Stage<'_>) -> Result<(), Violation> {
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
        }
        let in_transaction = replay.in_transaction();
        if let Some((image, _)) = replay.publish() {
            self.committed = image;
        } else if in_transaction {
            broken!(
                "a transaction ends in the decision that begins it",
                "the log ends in one at {end}"
            );
        }
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
        self.perform(effects, stage);
        Ok(())
    }

    fn publish(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let mut view = View::default();
        for (id, broker) in &self.committed.brokers {
            let (epoch, fenced) = (broker.broker_epoch, broker.fenced);
            let shutting_down = broker.in_controlled_shutdown;
            view.brokers.insert(*id, Broker { epoch, fenced, shutting_down });
        }
        for topic in self.committed.topics.iter() {
            for (index, partition) in topic.partitions() {
                let id = PartitionId { topic: topic.id, index };
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

    fn tell_view(&self, to: Machine, stage: &mut Stage<'_>) {
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

/// What holds of every partition: its leader is in sync or there is none, each list names replicas, nobody
/// stands twice, and there are as many as were asked for, unless a reassignment is under way.
fn check_partition(
    id: PartitionId,
    partition: &Partition,
    view: &View,
    factor: usize,
) -> Result<(), Violation> {
    const RULE: &str = "controller invariants";
    let Partition { replicas, isr, adding, removing, eligible, last_known, leader, .. } = partition;
    let name = Name(id);
    if *leader != NodeId::NONE && !isr.contains(leader) {
        broken!(RULE, "{name}: the leader is not in sync: {partition:?}");
    }
    for (what, list) in
        [("isr", isr), ("adding", adding), ("removing", removing), ("eligible", eligible)]
    {
        if list.iter().any(|node| !replicas.contains(node)) {
            broken!(RULE, "{name}: {what} names no replica: {partition:?}");
        }
        if list.iter().enumerate().any(|(at, node)| list[..at].contains(node)) {
            broken!(RULE, "{name}: {what} names one twice: {partition:?}");
        }
    }
    if eligible.iter().any(|node| isr.contains(node)) || last_known.len() > 1 {
        broken!(RULE, "{name}: in sync and eligible at once, or two last leaders: {partition:?}");
    }
    if replicas.iter().any(|node| !view.brokers.contains_key(node)) {
        broken!(RULE, "{name}: a replica is no broker's: {partition:?}");
    }
    if adding.is_empty() && removing.is_empty() && replicas.len() != factor {
        broken!(RULE, "{name}: {} replicas, not {factor}: {partition:?}", replicas.len());
    }
    // Eligible leader replicas are on: an ISR may be empty, so it keeps nobody for want of another.
    let is_fenced = |node: &NodeId| view.brokers.get(node).is_some_and(|broker| broker.fenced);
    if isr.iter().any(is_fenced) {
        broken!(RULE, "{name}: one that is fenced is in sync (KIP-841): {partition:?}");
    }
    Ok(())
}

const fn alter_error(kind: ErrorKind) -> AlterPartitionError {
    use AlterPartitionError as E;
    match kind {
        ErrorKind::FencedLeaderEpoch => E::FencedLeaderEpoch,
        ErrorKind::InvalidUpdateVersion => E::InvalidUpdateVersion,
        ErrorKind::InvalidRequest => E::InvalidRequest,
        ErrorKind::UnknownTopicId | ErrorKind::UnknownTopicOrPartition => E::UnknownTopic,
        ErrorKind::NewLeaderElected => E::NewLeaderElected,
        ErrorKind::IneligibleReplica => E::IneligibleReplica,
        _ => E::Retriable,
    }
}

impl Chief for Shipped {
    fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn take_changed(&mut self) -> Vec<PartitionId> {
        std::mem::take(&mut self.changed)
    }

    fn start(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.committing = false;
        self.waiting.clear();
        let end = self
            .uncommitted
            .iter()
            .fold(self.committed_end, |end, records| end.plus(records.len() as i64));
        // What the new leader of the quorum has in its log, it commits first.
        self.controller = None;
        self.commit(end, stage)?;
        self.end = self.committed_end.plus(1); // Its LeaderChange record.
        self.committed_end = self.end;
        let settings = Settings {
            session_timeout: Duration::from_secs(3),
            min_insync_replicas: self.rules.min_insync_replicas as i32,
            balance_interval: Some(Duration::from_secs(5)),
            idle_interval: None,
            ..Settings::new(NodeId(3000))
        };
        let now = self.now(stage);
        let image = self.committed.clone();
        self.controller = Some(Controller::new(now, image, false, self.end, settings));
        let least = self.rules.min_insync_replicas as i32;
        self.decide(stage, |active| {
            activate(active.image(), false, Vec::new(), least).map(|()| Answer::Nothing)
        });
        Ok(())
    }

    fn ended(&mut self) {
        if let Some(controller) = self.controller.take() {
            controller.resign(&mut Vec::new());
        }
        // A batch that no majority has may be gone, with all behind it.
        let kept = self.random.below(self.uncommitted.len() as u64 + 1);
        self.uncommitted.truncate(kept as usize);
    }

    fn message(
        &mut self,
        from: Machine,
        message: Message,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let Some(node) = self.cast.broker(from) else { return Ok(()) };
        match message {
            Message::Register { incarnation, previous_epoch } => {
                self.stopped_in.insert(node, previous_epoch);
                self.decide(stage, |active| {
                    let registration = BrokerRegistration {
                        id: node,
                        incarnation: Uuid(u128::from(incarnation)),
                        end_points: Vec::new(),
                        features: features::supported(),
                        rack: None,
                        log_dirs: vec![Uuid(1000 + node.0 as u128)],
                    };
                    let previous = (previous_epoch >= 0).then_some(previous_epoch);
                    Decision::of(active.register(registration, previous))
                        .map(|result| Answer::Registered { to: from, incarnation, result })
                });
            }
            Message::Heartbeat { epoch, version, stopping } => self.decide(stage, |active| {
                let heartbeat = Heartbeat {
                    id: node,
                    epoch,
                    metadata_offset: Offset(version as i64 - 1),
                    want_fence: false,
                    want_shut_down: stopping,
                    offline_log_dirs: Vec::new(),
                    cordoned_log_dirs: None,
                };
                Decision::of(active.heartbeat(&heartbeat)).map(|result| Answer::Heard {
                    to: from,
                    epoch,
                    stale: result.is_err(),
                    may_stop: result.is_ok_and(|answer| answer.should_shut_down),
                })
            }),
            Message::FetchView { version } => {
                if version < self.committed_end.0 as u64 {
                    self.tell_view(from, stage);
                } else {
                    self.waiting.insert(from, version);
                }
            }
            Message::Alter { partition, broker_epoch, change } => {
                let known = |epoch: i64| (epoch >= 0).then_some(epoch);
                let alteration = IsrAlteration {
                    id: partition,
                    leader_epoch: change.leader_epoch,
                    partition_epoch: change.partition_epoch,
                    isr: change
                        .isr
                        .iter()
                        .map(|member| (member.node, known(member.broker_epoch)))
                        .collect(),
                    recovering: false,
                };
                self.decide(stage, |active| {
                    let decided = active.alter_partitions(node, broker_epoch, &[alteration]);
                    Decision::of(decided).map(|result| {
                        let result = match result {
                            Ok(mut answers) => answers.pop().expect("one was asked for"),
                            Err(error) => Err(error),
                        };
                        let result = result
                            .map(|altered| Altered {
                                leader_epoch: altered.leader_epoch,
                                partition_epoch: altered.partition_epoch,
                                isr: altered.isr,
                            })
                            .map_err(|error| alter_error(error.kind));
                        Answer::Altered { to: from, partition, id: change.id, result }
                    })
                });
            }
            _ => unreachable!("no broker says that to a controller"),
        }
        Ok(())
    }

    fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = self.now(stage);
        let Some(controller) = &mut self.controller else { return Ok(()) };
        let mut effects = Vec::new();
        controller.tick(now, self.end, &mut effects);
        self.perform(effects, stage);
        Ok(())
    }

    fn done(&mut self, what: Io, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let Io::MetadataCommitted { end } = what else { unreachable!("a controller has one disk") };
        self.committing = false;
        self.commit(end, stage)
    }

    fn create(
        &mut self,
        topic: u64,
        replicas: &[NodeId],
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let topic = NewTopic {
            name: format!("t{topic}"),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, replicas.to_vec())],
            configs: Vec::new(),
        };
        let mut random = Random::new(self.random.bits(), 1);
        self.decide(stage, |active| {
            let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
            let draw = &mut Draw(&mut || random.bits());
            create_topics(active.image(), &[topic], defaults, false, config(), draw)
                .map(|_| Answer::Nothing)
        });
        Ok(())
    }

    fn delete(&mut self, id: PartitionId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.decide(stage, |active| {
            let choice = TopicChoice { name: None, id: id.topic };
            delete_topics(active.image(), &[choice]).map(|_| Answer::Nothing)
        });
        Ok(())
    }

    fn reassign(
        &mut self,
        id: PartitionId,
        replicas: Option<Vec<NodeId>>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let Some(topic) = self.committed.topics.with_id(id.topic) else { return Ok(()) };
        let name = topic.name.to_string();
        tell!(stage.story, stage.world.now(), "{} is to be on {replicas:?}", Name(id));
        self.decide(stage, |active| {
            let wanted = [(name, vec![(id.index, replicas)])];
            Decision::of(active.alter_reassignments(&wanted, false)).map(|_| Answer::Nothing)
        });
        Ok(())
    }
}
