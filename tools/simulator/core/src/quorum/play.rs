//! The layer `raft`: voters and observers of the metadata log.

use flowstone_raft::control::KraftVoters;
use flowstone_raft::messages::{AddRaftVoterRequest, RemoveRaftVoterRequest};
use flowstone_raft::{Quorum, Request, RequestId, Retention, Role, Settings, Timers};
use flowstone_types::{LeaderEpoch, NodeId, Uuid};

use super::disk::RaftDisk;
use super::node::{Io, LISTENER, Message, News, Node, Stage, directory, voter};
use super::truth::Truth;
use crate::broken;
use crate::network::{Network, Weather};
use crate::plan::{Climate, Fault, draw_clock};
use crate::random::Random;
use crate::run::{Asked, Layer, Progress, Violation};
use crate::story::Story;
use crate::tell;
use crate::world::{Clock, Happening, MILLI, Machine, Micros, SECOND, World};

/// Voters and observers of the metadata log.
pub const QUORUM: Layer = Layer {
    name: "raft",
    about: "elections, replication, voters that come and go, snapshots of the metadata quorum",
    play,
};

/// After the faults end everything has settled within this time, whatever happened.
const SETTLES_WITHIN: Micros = 90 * SECOND;
/// And within so many events.
const SETTLES_WITHIN_EVENTS: u64 = 50_000;
/// The cluster's id.
const CLUSTER: &str = "simulated";

/// What a run is about, drawn once.
struct Setup {
    climate: Climate,
    voters: u8,
    /// Controllers that do not vote at first.
    spares: u8,
    brokers: u8,
    kraft_version: i16,
    auto_join: bool,
    retention: Retention,
    pause: Micros,
}

impl Setup {
    fn draw(asked: &Asked) -> Self {
        let mut random = Random::new(asked.seed, 1);
        let mut climate = Climate::draw(&mut random);
        if asked.calm {
            climate.weather = Weather::CALM;
        }
        let kraft_version = i16::from(random.chance(800));
        let snapshots = random.chance(600);
        Self {
            climate,
            voters: random.one_of(&[1, 2, 3, 3, 3, 3, 5, 5, 7]),
            spares: random.below(3) as u8,
            brokers: random.below(3) as u8,
            kraft_version,
            auto_join: kraft_version == 1 && random.chance(200),
            retention: Retention {
                snapshot_after_bytes: if snapshots { random.between(300, 3_000) } else { 1 << 30 },
                snapshot_after_ms: if snapshots { random.one_of(&[0, 5_000]) } else { 0 },
                keep_bytes: random.one_of(&[500, 2_000, 1 << 30]),
                keep_ms: random.one_of(&[-1, 3_000]),
            },
            pause: random.one_of(&[5 * MILLI, 20 * MILLI, 100 * MILLI]),
        }
    }

    const fn nodes(&self) -> u8 {
        self.voters + self.spares + self.brokers
    }

    fn settings(&self, machine: Machine) -> Settings {
        let controller = machine < self.voters + self.spares;
        Settings {
            cluster_id: CLUSTER.into(),
            role: if controller { Role::Controller } else { Role::Broker },
            listener: LISTENER.into(),
            bootstrap_servers: usize::from(self.voters + self.spares),
            auto_join: self.auto_join,
            timers: Timers::default(),
            retention: self.retention,
        }
    }

    /// The quorum as configured, or as `format` wrote it down.
    fn formatted(&self) -> Quorum {
        let known = |machine| if self.kraft_version == 0 { Uuid::ZERO } else { directory(machine) };
        let voters = (0..self.voters).map(|machine| voter(machine, known(machine))).collect();
        let voters = KraftVoters { voters, ..KraftVoters::default() };
        Quorum { kraft_version: self.kraft_version, voters }
    }
}

/// What the plan has happen.
enum Deed {
    Fault(Fault),
    Add(Machine),
    Remove(Machine),
}

struct Play<'a> {
    setup: Setup,
    asked: &'a Asked,
    world: World<Message, Io>,
    story: &'a mut Story,
    truth: Truth,
    nodes: Vec<Node>,
    random: Random,
    faults: u64,
    planned: u32,
    requests: u64,
    acknowledged: u64,
    mended: bool,
}

fn play(asked: &Asked, progress: &mut Progress, story: &mut Story) -> Result<(), Violation> {
    let setup = Setup::draw(asked);
    let machines = usize::from(setup.nodes()) + 1;
    let mut network = Network::new(machines, Weather::CALM, asked.seed);
    network.set_weather(setup.climate.weather);
    let mut world = World::new(machines, network);
    let mut random = Random::new(asked.seed, 2);
    for machine in 0..machines as Machine {
        let clock = draw_clock(&mut random);
        world.set_clock(machine, if asked.calm { Clock::default() } else { clock });
    }
    let formatted = setup.formatted();
    let node = |machine| {
        let disk = RaftDisk::new(formatted.clone());
        Node::new(machine, setup.settings(machine), disk, setup.climate.flush, asked.seed)
    };
    let nodes = (0..setup.nodes()).map(node).collect();
    let mut play = Play {
        setup,
        asked,
        world,
        story,
        truth: Truth::default(),
        nodes,
        random,
        faults: 0,
        planned: 0,
        requests: 0,
        acknowledged: 0,
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
        progress.stats.elections = self.truth.elections();
        progress.stats.committed = self.truth.end().0 as u64;
        progress.stats.acknowledged = self.acknowledged;
        progress.fingerprint = self.world.fingerprint();
        progress.planned = self.planned;
    }

    /// The machine of those who ask: it has no clock that matters, and nothing befalls it.
    const fn clients(&self) -> Machine {
        self.setup.nodes()
    }

    fn run(&mut self, progress: &mut Progress) -> Result<(), Violation> {
        for machine in 0..=self.clients() {
            self.start(machine)?;
        }
        self.world.plan(SECOND, 0);
        while self.world.events() < self.asked.events {
            self.step(Micros::MAX)?;
            self.note(progress);
        }
        tell!(self.story, self.world.now(), "all faults end");
        self.mended = true;
        self.world.mend();
        for node in &mut self.nodes {
            node.slow_until = 0;
        }
        let (until, events) =
            (self.world.now() + SETTLES_WITHIN, self.world.events() + SETTLES_WITHIN_EVENTS);
        loop {
            for _ in 0..32 {
                self.step(until)?;
            }
            self.note(progress);
            match self.unsettled() {
                None => return Ok(()),
                Some(what) if self.world.now() >= until || self.world.events() >= events => {
                    broken!("everything settles", "{what}");
                }
                Some(_) => {}
            }
        }
    }

    fn start(&mut self, machine: Machine) -> Result<(), Violation> {
        self.world.mark_started(machine);
        if machine == self.clients() {
            self.world.done_after(machine, self.setup.pause, Io::Propose);
            return Ok(());
        }
        let Self { world, story, truth, nodes, .. } = self;
        nodes[usize::from(machine)].start(&mut Stage { world, story, truth })
    }

    /// Lets the next thing happen, and checks what must hold.
    fn step(&mut self, until: Micros) -> Result<(), Violation> {
        let Some(happening) = self.world.next(until) else { return Ok(()) };
        let clients = self.clients();
        let Self { world, story, truth, nodes, .. } = self;
        let stage = &mut Stage { world, story, truth };
        let machine = match happening {
            Happening::Start { machine } => return self.start(machine),
            Happening::Planned(number) => {
                self.planned(number);
                return Ok(());
            }
            Happening::Done { machine, .. } if machine == clients => return self.propose(),
            Happening::Wake { machine } => {
                nodes[usize::from(machine)].wake(stage)?;
                machine
            }
            Happening::Message { to, .. } if to == clients => return Ok(()),
            Happening::Message { from, to, message } => {
                nodes[usize::from(to)].message(from, message, stage)?;
                to
            }
            Happening::Done { machine, what } => {
                nodes[usize::from(machine)].done(what, stage)?;
                machine
            }
        };
        self.check(machine)
    }

    /// Every leader gets something to append.
    fn propose(&mut self) -> Result<(), Violation> {
        let pause = 1 + self.random.below(2 * self.setup.pause);
        // Once all is mended, only now and then: so that it can settle between two.
        let pause = if self.mended { 10 * SECOND } else { pause };
        self.world.done_after(self.clients(), pause, Io::Propose);
        for machine in 0..self.setup.nodes() {
            let leads =
                |node: &Node| node.raft.as_ref().is_some_and(|raft| raft.leading().is_some());
            if self.world.is_running(machine) && leads(&self.nodes[usize::from(machine)]) {
                let Self { world, story, truth, nodes, .. } = self;
                nodes[usize::from(machine)]
                    .done(Io::Propose, &mut Stage { world, story, truth })?;
                self.check(machine)?;
            }
        }
        Ok(())
    }

    /// What must hold between the node that acted and the others.
    fn check(&mut self, machine: Machine) -> Result<(), Violation> {
        let node = &mut self.nodes[usize::from(machine)];
        let Some(raft) = &node.raft else { return Ok(()) };
        let quorum = if node.news.is_empty() { None } else { Some(raft.quorum().clone()) };
        for News::Committed(end) in std::mem::take(&mut node.news) {
            let Some(quorum) = &quorum else { continue };
            let Some(batch) = self.truth.batch(end) else { continue };
            let epoch =
                self.nodes[usize::from(machine)].raft.as_ref().map(flowstone_raft::Raft::epoch);
            if Some(batch.epoch) != epoch {
                broken!(
                    "a leader commits older epochs only with its own (Raft, 5.4.2)",
                    "{machine}, leader of {epoch:?}, commits up to {end}, a batch of {}",
                    batch.epoch
                );
            }
            let holds = |id: NodeId| self.nodes[id.0 as usize].disk.holds_durably(end, batch.crc);
            let holders = quorum.keys().filter(|key| holds(key.id)).count();
            if holders < quorum.majority() {
                broken!(
                    "committed is what a majority holds on its disks",
                    "{machine} commits {end}, which {holders} of {} voters hold durably",
                    quorum.len()
                );
            }
            self.acknowledged = self.acknowledged.max(end.0 as u64);
        }
        Ok(())
    }

    /// The plan's entry of this number is due, and the next one is announced.
    fn planned(&mut self, number: u32) {
        if self.mended {
            return;
        }
        let mut random = Random::new(self.asked.seed, (4 << 32) + u64::from(number));
        self.planned = number + 1;
        let now = self.world.now();
        self.world.plan(now + self.setup.climate.gap(&mut random), number + 1);
        let deed = self.deed(&mut random);
        if !self.asked.keep.keeps(number) {
            return;
        }
        self.faults += 1;
        match deed {
            Deed::Fault(fault) => self.fault(fault),
            Deed::Add(machine) => {
                tell!(self.story, now, "somebody asks that {machine} vote");
                let myself = voter(machine, directory(machine));
                self.ask(&Request::AddRaftVoter(AddRaftVoterRequest {
                    cluster_id: Some(CLUSTER.into()),
                    timeout_ms: 5_000,
                    voter_id: machine.into(),
                    voter_directory_id: directory(machine),
                    listeners: myself.endpoints,
                    ..AddRaftVoterRequest::default()
                }));
            }
            Deed::Remove(machine) => {
                tell!(self.story, now, "somebody asks that {machine} vote no more");
                self.ask(&Request::RemoveRaftVoter(RemoveRaftVoterRequest {
                    cluster_id: Some(CLUSTER.into()),
                    voter_id: machine.into(),
                    voter_directory_id: directory(machine),
                    ..RemoveRaftVoterRequest::default()
                }));
            }
        }
    }

    fn deed(&self, random: &mut Random) -> Deed {
        let controllers = u64::from(self.setup.voters + self.setup.spares);
        match random.below(100) {
            0..12 if self.setup.kraft_version == 1 => {
                Deed::Add(random.below(controllers) as Machine)
            }
            12..20 if self.setup.kraft_version == 1 => {
                Deed::Remove(random.below(controllers) as Machine)
            }
            _ => Deed::Fault(self.setup.climate.fault(u64::from(self.setup.nodes()), random)),
        }
    }

    /// Asks every node: the leader will do it.
    fn ask(&mut self, request: &Request) {
        for machine in 0..self.setup.nodes() {
            let id = RequestId(self.requests);
            self.requests += 1;
            let message = Message::Request { life: 0, id, request: request.clone() };
            self.world.send(self.clients(), machine, message);
        }
    }

    fn fault(&mut self, fault: Fault) {
        let now = self.world.now();
        tell!(self.story, now, "{}", fault.told(|machine| machine.to_string()));
        let network = &mut self.world.network;
        match fault {
            Fault::Cut { from, to, length } => network.cut(from, to, now + length),
            Fault::Mute { machine, length } => {
                for to in 0..self.setup.nodes() {
                    network.cut(machine, to, now + length);
                }
            }
            Fault::Partition { side, length } => network.part(side, now + length),
            Fault::Kill { machine, down_for } => self.stop(machine, down_for, true),
            Fault::PowerLoss { machines, down_for } => {
                for machine in
                    (0..self.setup.nodes()).filter(|machine| (machines >> machine) & 1 == 1)
                {
                    self.stop(machine, down_for, false);
                }
            }
            Fault::Pause { machine, length } => {
                self.world.pause(machine, length);
            }
            Fault::Clock { machine, off_ms } => self.world.turn_wall_clock(machine, off_ms),
            Fault::SlowDisk { machine, length } => {
                self.nodes[usize::from(machine)].slow_until = now + length;
            }
        }
    }

    fn stop(&mut self, machine: Machine, down_for: Micros, with_power: bool) {
        let ran = self.world.stop(machine, down_for);
        if ran || !with_power {
            self.nodes[usize::from(machine)].ended(with_power);
        }
    }

    /// What is not as it should be once nothing goes wrong any more.
    fn unsettled(&self) -> Option<String> {
        let mut leader: Option<(LeaderEpoch, &Node)> = None;
        for node in &self.nodes {
            let Some(raft) = &node.raft else { return Some("a node is down".to_owned()) };
            if let Some((epoch, _)) = raft.leading()
                && leader.is_none_or(|(other, _)| other < epoch)
            {
                leader = Some((epoch, node));
            }
        }
        let Some((epoch, leader)) = leader else { return Some("nobody leads".to_owned()) };
        let end = leader.disk.end();
        for (machine, node) in self.nodes.iter().enumerate() {
            let raft = node.raft.as_ref()?;
            if raft.epoch() != epoch || raft.leader().is_none() {
                return Some(format!(
                    "{machine} is {} in epoch {}, the leader's is {epoch}",
                    raft.state_name(),
                    raft.epoch()
                ));
            }
            if raft.high_watermark() != Some(end) || node.disk.end() != end {
                return Some(format!(
                    "{machine} ({}) has a log up to {} and the high watermark {:?}, the leader ends at {end}",
                    raft.state_name(),
                    node.disk.end(),
                    raft.high_watermark()
                ));
            }
        }
        None
    }
}
