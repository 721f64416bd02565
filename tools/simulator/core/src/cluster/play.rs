//! The layer `partition`: brokers with the shipped replicas under a simple controller.

use std::sync::Arc;

use flowstone_types::{NodeId, Offset, PartitionId};

use super::broker::Broker;
use super::cast::{Cast, Stage};
use super::chief::Chief;
use super::clients::Clients;
use super::message::{Io, Message, PartitionView, View};
use super::model::Model;
use super::setup::{Deed, Setup};
use super::shipped::Shipped;
use super::truth::{Name, Truth};
use crate::broken;
use crate::network::{Network, Weather};
use crate::plan::{Fault, draw_clock};
use crate::random::Random;
use crate::run::{Asked, Layer, Progress, Violation};
use crate::story::Story;
use crate::tell;
use crate::world::{Clock, Happening, Machine, Micros, SECOND, World};

/// Brokers, their partitions and their clients, under a simple controller.
pub const PARTITIONS: Layer = Layer {
    name: "partition",
    about: "leaders and followers of partitions, ISR, high watermarks, truncation, under a simple controller",
    play: |asked, progress, story| {
        let chief = |cast, _: &Setup| Box::new(Model::new(cast)) as Box<dyn Chief>;
        play(asked, progress, story, &chief)
    },
};

/// The same under the shipped controller: eligible leader replicas, reassignments, preferred leaders.
pub const CLUSTER: Layer = Layer {
    name: "cluster",
    about: "the shipped controller: sessions, elections, eligible leader replicas, reassignments, its brokers",
    play: |asked, progress, story| {
        let seed = asked.seed;
        let chief = |cast, setup: &Setup| {
            let Setup { rules, climate, .. } = setup;
            Box::new(Shipped::new(cast, *rules, climate.flush, seed)) as Box<dyn Chief>
        };
        play(asked, progress, story, &chief)
    },
};

/// Makes the controller of a run.
type MakeChief<'a> = &'a dyn Fn(Cast, &Setup) -> Box<dyn Chief>;

/// After the faults end everything has settled within this time, whatever happened.
const SETTLES_WITHIN: Micros = 90 * SECOND;
/// And within so many events.
const SETTLES_WITHIN_EVENTS: u64 = 20_000;
/// Partitions that there are at a time, at most.
const PARTITIONS_MAX: usize = 3;

struct Play<'a> {
    setup: Setup,
    cast: Cast,
    seed: u64,
    asked: &'a Asked,
    world: World<Message, Io>,
    story: &'a mut Story,
    truth: Truth,
    chief: Box<dyn Chief>,
    /// The metadata when the clients last looked.
    seen: Arc<View>,
    brokers: Vec<Broker>,
    clients: Clients,
    partitions: Vec<PartitionId>,
    faults: u64,
    planned: u32,
    /// Whether all faults are over.
    mended: bool,
}

fn play(
    asked: &Asked,
    progress: &mut Progress,
    story: &mut Story,
    chief: MakeChief<'_>,
) -> Result<(), Violation> {
    let setup = Setup::draw(asked);
    let cast =
        Cast { controller: 0, first_broker: 1, brokers: setup.brokers, clients: setup.brokers + 1 };
    let machines = usize::from(setup.brokers) + 2;
    let mut network = Network::new(machines, Weather::CALM, asked.seed);
    network.set_weather(setup.climate.weather);
    let mut world = World::new(machines, network);
    let mut random = Random::new(asked.seed, 2);
    for machine in 0..machines as Machine {
        let clock = draw_clock(&mut random);
        world.set_clock(machine, if asked.calm { Clock::default() } else { clock });
    }
    let flush = setup.climate.flush;
    let broker = |n: u8| Broker::new(NodeId(n.into()), cast, setup.rules, flush, asked.seed);
    let brokers = (0..setup.brokers).map(broker).collect();
    let clients = Clients::new(cast, setup.producers, setup.pause, asked.seed);
    let mut play = Play {
        chief: chief(cast, &setup),
        seen: Arc::default(),
        setup,
        cast,
        seed: asked.seed,
        asked,
        world,
        story,
        truth: Truth::default(),
        brokers,
        clients,
        partitions: Vec::new(),
        faults: 0,
        planned: 0,
        mended: false,
    };
    let result = play.run(progress);
    play.note(progress);
    result
}

impl Play<'_> {
    fn note(&self, progress: &mut Progress) {
        progress.stats.events = self.world.events();
        progress.stats.faults = self.faults;
        progress.stats.committed = self.truth.committed;
        progress.stats.acknowledged = self.truth.acknowledged;
        progress.stats.leaders = self.truth.leaderships();
        progress.fingerprint = self.world.fingerprint();
        progress.planned = self.planned;
    }

    fn run(&mut self, progress: &mut Progress) -> Result<(), Violation> {
        for machine in 0..=self.cast.clients {
            self.start(machine)?;
        }
        self.world.plan(SECOND, 0);
        while self.world.events() < self.asked.events {
            self.step(Micros::MAX)?;
            self.note(progress);
        }
        tell!(self.story, self.world.now(), "all faults end, and nothing more is written");
        self.mended = true;
        self.world.mend();
        self.clients.writing = false;
        for (machine, broker) in (self.cast.first_broker..).zip(&mut self.brokers) {
            broker.slow_until = 0;
            // Who is alone in an ISR may never be let go: an operator ends it, as Apache's broker does itself.
            if broker.is_stopping() && self.world.stop(machine, SECOND) {
                broker.ended(true);
            }
        }
        let (until, events) =
            (self.world.now() + SETTLES_WITHIN, self.world.events() + SETTLES_WITHIN_EVENTS);
        loop {
            for _ in 0..32 {
                self.step(until)?;
            }
            self.note(progress);
            match self.unsettled() {
                None => break,
                Some(what) if self.world.now() >= until || self.world.events() >= events => {
                    broken!("everything settles", "{what}");
                }
                Some(_) => {}
            }
        }
        self.truth.histories()
    }

    fn start(&mut self, machine: Machine) -> Result<(), Violation> {
        self.world.mark_started(machine);
        let Self { world, story, truth, .. } = self;
        let stage = &mut Stage { world, story, truth };
        if let Some(node) = self.cast.broker(machine) {
            tell!(stage.story, stage.world.now(), "broker {node} starts");
            self.brokers[node.0 as usize].start(stage);
        } else if machine == self.cast.controller {
            tell!(stage.story, stage.world.now(), "the controller starts");
            self.chief.start(stage)?;
        } else {
            self.clients.start(stage);
        }
        Ok(())
    }

    /// Lets the next thing happen, and checks what must hold.
    fn step(&mut self, until: Micros) -> Result<(), Violation> {
        let Some(happening) = self.world.next(until) else { return Ok(()) };
        let Self { world, story, truth, .. } = self;
        let stage = &mut Stage { world, story, truth };
        match happening {
            Happening::Start { machine } => self.start(machine)?,
            Happening::Planned(number) => self.planned(number)?,
            Happening::Wake { machine } => match self.cast.broker(machine) {
                Some(node) => self.brokers[node.0 as usize].wake(stage)?,
                None if machine == self.cast.controller => self.chief.wake(stage)?,
                None => {}
            },
            Happening::Message { from, to, message } => match self.cast.broker(to) {
                Some(node) => {
                    let broker = &mut self.brokers[node.0 as usize];
                    if broker.message(from, message, stage)? {
                        tell!(
                            stage.story,
                            stage.world.now(),
                            "broker {node} stops in an orderly way"
                        );
                        broker.ended(true);
                        stage.world.stop(to, SECOND);
                    }
                }
                None if to == self.cast.controller => self.chief.message(from, message, stage)?,
                None => self.clients.message(&message, stage),
            },
            Happening::Done { machine, what } => match (self.cast.broker(machine), what) {
                (_, Io::ProduceNow { producer, attempt }) => {
                    self.clients.produce(producer, attempt, stage);
                }
                (Some(node), what) => self.brokers[node.0 as usize].done(what, stage)?,
                (None, what) => self.chief.done(what, stage)?,
            },
        }
        self.check()
    }

    /// What must hold between those who took part.
    fn check(&mut self) -> Result<(), Violation> {
        let mut touched = std::mem::take(&mut self.truth.touched);
        touched.append(&mut self.chief.take_changed());
        self.follow_topics();
        for id in touched.drain(..) {
            let log_of = |node: NodeId| self.brokers[node.0 as usize].log(id);
            self.truth.in_sync(self.chief.view(), id, log_of)?;
        }
        self.truth.touched = touched;
        Ok(())
    }

    /// Clients learn of topics that came and went.
    fn follow_topics(&mut self) {
        if Arc::ptr_eq(&self.seen, self.chief.view()) {
            return;
        }
        let before = std::mem::replace(&mut self.seen, Arc::clone(self.chief.view()));
        let Self { world, story, truth, .. } = self;
        let stage = &mut Stage { world, story, truth };
        for id in before.partitions.keys().filter(|id| !self.seen.partitions.contains_key(id)) {
            self.clients.deleted(*id, stage);
        }
        for id in self.seen.partitions.keys().filter(|id| !before.partitions.contains_key(id)) {
            self.clients.created(*id);
        }
        self.partitions = self.seen.partitions.keys().copied().collect();
    }

    /// The plan's entry of this number is due, and the next one is announced.
    fn planned(&mut self, number: u32) -> Result<(), Violation> {
        if self.mended {
            return Ok(());
        }
        let mut random = Random::new(self.seed, (4 << 32) + u64::from(number));
        self.planned = number + 1;
        let now = self.world.now();
        self.world.plan(now + self.setup.climate.gap(&mut random), number + 1);
        let deed = self.setup.deed(number, &mut random);
        if !self.asked.keep.keeps(number) {
            return Ok(());
        }
        self.faults += 1;
        match deed {
            Deed::Fault(fault) => {
                self.fault(fault);
                if let Fault::Kill { machine, .. } = fault
                    && let Some(node) = self.cast.broker(machine)
                {
                    self.disconnected(node)?;
                }
            }
            Deed::StopInOrder(node) => {
                let Self { world, story, truth, .. } = self;
                if world.is_up(self.cast.machine(node)) {
                    self.brokers[node.0 as usize].stop_in_order(&mut Stage { world, story, truth });
                }
            }
            Deed::Create { topic, may_lose } => self.create(topic, may_lose, &mut random)?,
            Deed::Delete { place } => {
                if let Some(id) = self.some_partition(place).filter(|_| self.partitions.len() > 1) {
                    let Self { world, story, truth, chief, .. } = self;
                    chief.delete(id, &mut Stage { world, story, truth })?;
                }
            }
            Deed::Reassign { place, first, off } => {
                if let Some(id) = self.some_partition(place) {
                    let replicas = self.some_replicas(first);
                    let Self { world, story, truth, chief, .. } = self;
                    let target = (!off).then_some(replicas);
                    chief.reassign(id, target, &mut Stage { world, story, truth })?;
                }
            }
            Deed::Configure { place, key, value } => {
                if let Some(id) = self.some_partition(place) {
                    let Self { world, story, truth, chief, .. } = self;
                    chief.configure(id, key, value, &mut Stage { world, story, truth })?;
                }
            }
            Deed::Elect { place } => {
                if let Some(id) = self.some_partition(place) {
                    let Self { world, story, truth, chief, .. } = self;
                    chief.elect(id, &mut Stage { world, story, truth })?;
                }
            }
            Deed::Disconnect(node) => self.disconnected(node)?,
            Deed::DeleteRecords { place, part_per_mille } => {
                let Some(id) = self.some_partition(place) else { return Ok(()) };
                let truth = self.truth.partition(id);
                truth.has_deletions = true;
                let end = truth.high_watermark().0;
                let before = Offset(end * part_per_mille as i64 / 1000);
                tell!(self.story, now, "a client deletes records of {} before {before}", Name(id));
                for node in 0..self.setup.brokers {
                    let to = self.cast.machine(NodeId(node.into()));
                    let message = Message::DeleteRecords { partition: id, before };
                    self.world.send(self.cast.clients, to, message);
                }
            }
        }
        Ok(())
    }

    fn some_partition(&self, place: u64) -> Option<PartitionId> {
        self.partitions.get(place as usize % self.partitions.len().max(1)).copied()
    }

    fn some_replicas(&self, first: u64) -> Vec<NodeId> {
        let brokers = u64::from(self.setup.brokers);
        let replicas = 0..self.setup.replicas as u64;
        replicas.map(|n| NodeId(((first + n) % brokers) as i32)).collect()
    }

    /// The controller's shell sees that a broker's connections are gone.
    fn disconnected(&mut self, node: NodeId) -> Result<(), Violation> {
        if !self.world.is_running(self.cast.controller) {
            return Ok(());
        }
        tell!(self.story, self.world.now(), "broker {node} has no connection to the controller");
        let Self { world, story, truth, chief, .. } = self;
        chief.disconnected(node, &mut Stage { world, story, truth })
    }

    fn create(&mut self, topic: u64, may_lose: bool, random: &mut Random) -> Result<(), Violation> {
        if self.partitions.len() >= PARTITIONS_MAX {
            return Ok(());
        }
        let replicas = self.some_replicas(random.bits() >> 32);
        let Self { world, story, truth, chief, .. } = self;
        chief.create(topic, &replicas, may_lose, &mut Stage { world, story, truth })
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.world.now();
        let cast = self.cast;
        tell!(self.story, now, "{}", fault.told(|machine| cast.name(machine)));
        let network = &mut self.world.network;
        match fault {
            Fault::Cut { from, to, length } => network.cut(from, to, now + length),
            Fault::Mute { machine, length } => {
                for to in 0..=self.cast.clients {
                    network.cut(machine, to, now + length);
                }
            }
            Fault::Partition { side, length } => network.part(side, now + length),
            Fault::Kill { machine, down_for } => {
                self.stop(machine, down_for, true);
            }
            Fault::PowerLoss { machines, down_for } => {
                for machine in
                    (0..self.cast.clients).filter(|machine| (machines >> machine) & 1 == 1)
                {
                    self.stop(machine, down_for, false);
                }
            }
            Fault::Pause { machine, length } => {
                self.world.pause(machine, length);
            }
            Fault::Clock { machine, off_ms } => self.world.turn_wall_clock(machine, off_ms),
            Fault::SlowDisk { machine, length } => {
                if let Some(node) = self.cast.broker(machine) {
                    self.brokers[node.0 as usize].slow_until = now + length;
                }
            }
        }
    }

    fn stop(&mut self, machine: Machine, down_for: Micros, with_power: bool) {
        let ran = self.world.stop(machine, down_for);
        if let Some(node) = self.cast.broker(machine)
            && (ran || !with_power)
        {
            self.brokers[node.0 as usize].ended(with_power);
        }
        if machine == self.cast.controller && ran {
            self.chief.ended();
        }
    }

    /// What is not as it should be once nothing goes wrong any more.
    fn unsettled(&self) -> Option<String> {
        // Where every replica stopped without order, only an operator may say who is to lead (KIP-966).
        let lost = |partition: &PartitionView| {
            partition.leader.is_none() && partition.isr.is_empty() && partition.eligible.is_empty()
        };
        let View { partitions, brokers } = &**self.chief.view();
        for node in (0..self.setup.brokers).map(|node| NodeId(node.into())) {
            if brokers.get(&node).is_none_or(|broker| broker.fenced) {
                return Some(format!("broker {node} is fenced, or not even registered"));
            }
        }
        // Nor does an idempotent producer go on where its last batches were lost.
        let may_lose = |id| self.truth.known(id).is_some_and(|truth| truth.may_lose);
        if !self.clients.are_idle(|id| may_lose(id) || partitions.get(&id).is_none_or(lost)) {
            return Some("a producer has no answer".to_owned());
        }
        for (id, partition) in partitions.iter().filter(|(_, partition)| !lost(partition)) {
            let name = Name(*id);
            let Some(leader) = partition.leader else {
                return Some(format!("{name} has no leader"));
            };
            if partition.isr.len() != partition.replicas.len() {
                let out = partition.replicas.iter().filter(|node| !partition.isr.contains(node));
                let out: Vec<_> =
                    out.map(|node| (node.0, self.brokers[node.0 as usize].state(*id))).collect();
                return Some(format!(
                    "{name} has the ISR {:?}; outside are {out:?}",
                    partition.isr
                ));
            }
            let leader = &self.brokers[leader.0 as usize];
            let Some(ends) = leader.log(*id).map(super::log::PartitionLog::ends) else {
                return Some(format!("{name} is not on its leader's disk"));
            };
            for node in partition.replicas.iter() {
                let broker = &self.brokers[node.0 as usize];
                let equal = broker.log(*id).zip(leader.log(*id)).is_some_and(|(log, other)| {
                    let shared = log.batches().len().min(other.batches().len());
                    log.ends().end == ends.end
                        && log.ends().durable == ends.end
                        && log.batches().iter().rev().take(shared).eq(other
                            .batches()
                            .iter()
                            .rev()
                            .take(shared))
                });
                let reached = broker.replica(*id).is_some_and(|r| r.high_watermark() == ends.end);
                if !equal || !reached {
                    let has = broker.log(*id).map(super::log::PartitionLog::ends);
                    let watermark =
                        broker.replica(*id).map(flowstone_partition::Replica::high_watermark);
                    return Some(format!(
                        "{name} ends at {} on its leader, and broker {node} has {has:?}, high watermark {watermark:?}",
                        ends.end
                    ));
                }
            }
        }
        None
    }
}
