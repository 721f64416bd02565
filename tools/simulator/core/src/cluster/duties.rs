//! What the shipped controller of a simulated cluster is asked for, by brokers, operators and its own clock.
//!
//! Separate from `shipped.rs`, which has its log: here a message becomes a decision. What is checked here is what
//! only the one who asks can know: who was heard when.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flowstone_config::Config;
use flowstone_controller::{
    BrokerRegistration, ConfigChange, ConfigOp, Controller, Decision, ElectionType, ErrorKind,
    Heartbeat, IsrAlteration, NewTopic, Random as Draw, Settings, TopicChoice, TopicDefaults,
    activate, alter_configs, create_topics, delete_topics,
};
use flowstone_metadata::{ConfigResource, Image, features};
use flowstone_partition::{AlterPartitionError, Altered};
use flowstone_types::{NodeId, Offset, PartitionId, Uuid};

use super::cast::Stage;
use super::chief::Chief;
use super::invariants::UNCLEAN;
use super::message::{Io, Message, View};
use super::shipped::{Answer, Shipped};
use super::truth::Name;
use crate::broken;
use crate::random::Random;
use crate::run::Violation;
use crate::tell;
use crate::world::Machine;

/// How long a broker may be silent.
const SESSION: Duration = Duration::from_secs(3);
/// And how long once its connections are gone.
const GRACE: Duration = Duration::from_secs(1);
/// Names of topics that there are.
const NAMES: u64 = 7;

/// The configuration that topics are checked by: the defaults.
fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| Config::dev("data", 9092, &[]).expect("the defaults are valid").config)
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
        self.heard.clear();
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
            session_timeout: SESSION,
            disconnect_grace: GRACE,
            min_insync_replicas: self.rules.min_insync_replicas as i32,
            balance_interval: Some(Duration::from_secs(5)),
            unclean_interval: Duration::from_secs(5),
            idle_interval: None,
            ..Settings::new(NodeId(3000))
        };
        let now = self.now(stage);
        let image = self.committed.clone();
        self.controller = Some(Controller::new(now, image, false, self.end, settings));
        let least = self.rules.min_insync_replicas as i32;
        self.decide(stage, |active| {
            activate(active.image(), false, Vec::new(), least).map(|()| Answer::Nothing)
        })
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
                let lives = self.lives(node, incarnation, stage);
                let mut may_come = false;
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
                    let decided = active.register(registration, previous);
                    may_come = decided.is_ok();
                    Decision::of(decided).map(|result| Answer::Registered {
                        to: from,
                        incarnation,
                        result,
                    })
                })?;
                if lives && may_come {
                    broken!(
                        "while one process of a broker lives, no other is registered",
                        "broker {node} was heard at {:?}",
                        self.heard.get(&node)
                    );
                }
            }
            Message::Heartbeat { epoch, version, stopping } => {
                let mut current = false;
                self.decide(stage, |active| {
                    let heartbeat = Heartbeat {
                        id: node,
                        epoch,
                        metadata_offset: Offset(version as i64 - 1),
                        want_fence: false,
                        want_shut_down: stopping,
                        offline_log_dirs: Vec::new(),
                        cordoned_log_dirs: None,
                    };
                    let decided = active.heartbeat(&heartbeat);
                    current = decided.is_ok();
                    Decision::of(decided).map(|result| Answer::Heard {
                        to: from,
                        epoch,
                        stale: result.is_err(),
                        may_stop: result.is_ok_and(|answer| answer.should_shut_down),
                    })
                })?;
                if current {
                    let now = self.now(stage);
                    self.heard.insert(node, (epoch, now));
                }
            }
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
                })?;
            }
            _ => unreachable!("no broker says that to a controller"),
        }
        Ok(())
    }

    fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = self.now(stage);
        let Some(controller) = &mut self.controller else { return Ok(()) };
        let mut effects = Vec::new();
        let unfenced = |image: &Image| -> Vec<NodeId> {
            let open = image.brokers.iter().filter(|(_, broker)| !broker.fenced);
            open.map(|(id, _)| *id).collect()
        };
        let before = unfenced(controller.image());
        controller.tick(now, self.end, &mut effects);
        let after = unfenced(controller.image());
        for node in before.iter().filter(|node| !after.contains(node)) {
            if let Some((_, heard)) = self.heard.get(node)
                && now < heard.after(GRACE)
            {
                broken!(
                    "a broker that was just heard is not fenced",
                    "broker {node}, heard at {heard:?}, is fenced at {now:?}"
                );
            }
        }
        self.perform(effects, stage)
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
        may_lose: bool,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        // Names come again, as people's do; where there is one already, nothing is created.
        let topic = NewTopic {
            name: format!("t{}", topic % NAMES),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, replicas.to_vec())],
            configs: if may_lose {
                vec![(UNCLEAN.into(), Some("true".into()))]
            } else {
                Vec::new()
            },
        };
        let mut random = Random::new(self.random.bits(), 1);
        self.decide(stage, |active| {
            let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
            let draw = &mut Draw(&mut || random.bits());
            create_topics(active.image(), &[topic], defaults, false, config(), draw)
                .map(|_| Answer::Nothing)
        })
    }

    fn delete(&mut self, id: PartitionId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.decide(stage, |active| {
            let choice = TopicChoice { name: None, id: id.topic };
            delete_topics(active.image(), &[choice]).map(|_| Answer::Nothing)
        })
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
        })
    }

    fn configure(
        &mut self,
        id: PartitionId,
        key: &str,
        value: Option<&str>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let Some(topic) = self.committed.topics.with_id(id.topic) else { return Ok(()) };
        let resource = ConfigResource::topic(&topic.name);
        tell!(stage.story, stage.world.now(), "{} gets {key}={value:?}", Name(id));
        let op = if value.is_some() { ConfigOp::Set } else { ConfigOp::Delete };
        let change = ConfigChange { key: key.into(), op, value: value.map(Into::into) };
        self.decide(stage, |active| {
            let wanted = [(resource, vec![change])];
            alter_configs(active.image(), &wanted, false, config()).map(|_| Answer::Nothing)
        })
    }

    fn elect(&mut self, id: PartitionId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let Some(topic) = self.committed.topics.with_id(id.topic) else { return Ok(()) };
        let wanted = [(topic.name.to_string(), vec![id.index])];
        tell!(stage.story, stage.world.now(), "anybody is to lead {} if nobody does", Name(id));
        stage.truth.partition(id).may_lose = true;
        self.decide(stage, |active| {
            active.elect_leaders(ElectionType::Unclean, Some(&wanted)).map(|_| Answer::Nothing)
        })
    }

    fn disconnected(&mut self, node: NodeId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.decide(stage, |active| {
            active.cut_off(node);
            Decision { records: Vec::new(), atomic: true, response: Answer::Nothing }
        })
    }
}

impl Shipped {
    /// Whether another process of this broker was heard so lately that it counts as alive. Where the shell
    /// said that its connections are gone, it does so no longer than the grace.
    fn lives(&self, node: NodeId, incarnation: u64, stage: &Stage<'_>) -> bool {
        let known = self.controller.as_ref().and_then(|c| c.image().brokers.get(&node));
        let (Some(known), Some((epoch, heard))) = (known, self.heard.get(&node)) else {
            return false;
        };
        !known.fenced
            && known.incarnation_id != Uuid(u128::from(incarnation))
            && known.broker_epoch == *epoch
            && self.now(stage) < heard.after(GRACE)
    }
}
