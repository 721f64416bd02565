//! A broker of a simulated cluster: what the daemon's shell does around the partitions' core, and no
//! decision of its own.
//!
//! Separate from the world, which delivers what happens. What lies on its disk outlives its process: the
//! logs, the high watermarks that were stored, and the epoch in which it stopped in an orderly way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flowstone_partition::{
    AlterPartitionError, Effect, FetchError, FetchPosition, Fetching, Replica, Role, Rules, WaitKey,
};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, PartitionId};

use super::cast::{Cast, Stage};
use super::log::PartitionLog;
use super::message::{Io, Message, Produce, View};
use super::truth::Name;
use crate::random::Random;
use crate::run::Violation;
use crate::tell;
use crate::world::{MILLI, Machine, Micros, SECOND};

/// Batches of one Fetch response at most: few, so that followers are often half way.
pub(super) const FETCH_BATCHES_MAX: usize = 4;
/// How long a leader keeps a Fetch that has nothing to read.
pub(super) const FETCH_WAITS: Duration = Duration::from_millis(500);
/// How long a follower waits for an answer, and a leader for the controller's.
pub(super) const ANSWER_WITHIN: Micros = 2 * SECOND;
/// How long a produce request waits to be committed.
pub(super) const PRODUCE_WAITS: Duration = Duration::from_secs(3);
/// Between two heartbeats.
const HEARTBEAT: Micros = 500 * MILLI;

/// Who waits for an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    pub(super) request: Produce,
    pub(super) client: Machine,
    pub(super) base: Offset,
}

/// A fetch that waits for something to read.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) follower: Machine,
    pub(super) asked: FetchPosition,
    pub(super) from: Offset,
    pub(super) keys: Vec<WaitKey>,
}

/// What lies on the disk of one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) log: PartitionLog,
    /// As last stored; it may be behind.
    pub(super) high_watermark: Offset,
}

/// A replica that runs.
pub(super) struct Running {
    pub(super) replica: Replica<Ack, u64>,
    /// Whether a flush is under way.
    pub(super) flushing: bool,
    /// Fetches that wait here, by number.
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) next_wait: u64,
    /// The leader and partition epochs that were applied last.
    pub(super) applied: (LeaderEpoch, i32),
    /// Its high watermark when it was last looked at.
    pub(super) high_watermark: Offset,
}

/// How far a broker has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Registration {
    /// It asks to be registered.
    Asking { again: Micros },
    /// It is.
    Registered { epoch: i64, heartbeat: Micros },
}

/// A broker.
pub struct Broker {
    pub(super) id: NodeId,
    pub(super) machine: Machine,
    pub(super) cast: Cast,
    pub(super) random: Random,
    /// What flushes take here.
    pub flush_takes: Micros,
    /// Until when the disk is slow.
    pub slow_until: Micros,
    pub(super) rules: Rules,
    pub(super) stored: BTreeMap<PartitionId, Stored>,
    clean_epoch: i64,
    // What a process has, and loses:
    pub(super) running: BTreeMap<PartitionId, Running>,
    pub(super) registration: Registration,
    incarnation: u64,
    version: u64,
    pub(super) view: Arc<View>,
    view_again: Micros,
    stopping: bool,
    pub(super) effects: Vec<Effect<Ack, u64>>,
}

impl Broker {
    /// A broker that never ran.
    pub fn new(id: NodeId, cast: Cast, rules: Rules, flush_takes: Micros, seed: u64) -> Self {
        const PURPOSE: u64 = 2 << 32;
        Self {
            id,
            machine: cast.machine(id),
            cast,
            random: Random::new(seed, PURPOSE + id.0 as u64),
            flush_takes,
            slow_until: 0,
            rules,
            stored: BTreeMap::new(),
            clean_epoch: -1,
            running: BTreeMap::new(),
            registration: Registration::Asking { again: 0 },
            incarnation: 0,
            version: 0,
            view: Arc::default(),
            view_again: 0,
            stopping: false,
            effects: Vec::new(),
        }
    }

    /// The log of a partition, if there is one on this broker's disk.
    pub fn log(&self, id: PartitionId) -> Option<&PartitionLog> {
        self.stored.get(&id).map(|stored| &stored.log)
    }

    /// The replica of a partition, where it runs.
    pub fn replica(&self, id: PartitionId) -> Option<&Replica<Ack, u64>> {
        self.running.get(&id).map(|running| &running.replica)
    }

    /// Where a replica stands, for people.
    pub fn state(&self, id: PartitionId) -> String {
        let Some(replica) = self.replica(id) else { return "no replica".to_owned() };
        let log = replica.log();
        let role = match replica.role() {
            Role::Offline(why) => format!("offline ({why:?})"),
            Role::Leader(_) => "leader".to_owned(),
            Role::Follower(follower) => format!("follower, {:?}", follower.fetching()),
        };
        format!(
            "{role}, epoch {}, log {}..{}, durable {}",
            replica.leader_epoch(),
            log.start,
            log.end,
            log.durable
        )
    }

    /// The process starts.
    pub fn start(&mut self, stage: &mut Stage<'_>) {
        self.running.clear();
        self.incarnation = self.random.bits();
        self.registration = Registration::Asking { again: 0 };
        self.version = 0;
        self.view = Arc::default();
        self.view_again = 0;
        self.stopping = false;
        for stored in self.stored.values_mut() {
            stored.log.recover();
        }
        self.beat(stage);
    }

    /// The process is gone, in an orderly way or not; then the power, maybe.
    pub fn ended(&mut self, with_power: bool) {
        self.running.clear();
        if !with_power {
            for stored in self.stored.values_mut() {
                stored.log.lose_power(&mut self.random);
            }
        }
    }

    /// Asks to be let go: leaderships move first.
    pub fn stop_in_order(&mut self, stage: &mut Stage<'_>) {
        self.stopping = true;
        if let Registration::Registered { heartbeat, .. } = &mut self.registration {
            *heartbeat = 0;
        }
        self.beat(stage);
    }

    /// Whether it asks to be let go.
    pub const fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(super) fn now(&self, stage: &Stage<'_>) -> Instant {
        Instant(stage.world.monotonic(self.machine) * 1000)
    }

    pub(super) fn to_controller(&self, stage: &mut Stage<'_>, message: Message) {
        stage.world.send(self.machine, self.cast.controller, message);
    }

    /// What is due by the clock.
    pub fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.beat(stage);
        let now = self.now(stage);
        let due: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| running.replica.next_deadline() <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.with(id, stage, |running, _, _, effects| running.replica.tick(now, effects))?;
        }
        self.sleep(stage);
        Ok(())
    }

    /// Registration, heartbeats, metadata.
    fn beat(&mut self, stage: &mut Stage<'_>) {
        let now = stage.world.monotonic(self.machine);
        match &mut self.registration {
            Registration::Asking { again } if *again <= now => {
                *again = now + SECOND;
                let (incarnation, previous_epoch) = (self.incarnation, self.clean_epoch);
                self.to_controller(stage, Message::Register { incarnation, previous_epoch });
            }
            Registration::Registered { epoch, heartbeat } if *heartbeat <= now => {
                *heartbeat = now + HEARTBEAT;
                let (epoch, version, stopping) = (*epoch, self.version, self.stopping);
                self.to_controller(stage, Message::Heartbeat { epoch, version, stopping });
            }
            Registration::Asking { .. } | Registration::Registered { .. } => {}
        }
        if self.view_again <= now {
            self.view_again = now + ANSWER_WITHIN;
            self.to_controller(stage, Message::FetchView { version: self.version });
        }
        self.sleep(stage);
    }

    /// Asks to be woken when something is due.
    pub(super) fn sleep(&self, stage: &mut Stage<'_>) {
        let beat = match self.registration {
            Registration::Asking { again } => again,
            Registration::Registered { heartbeat, .. } => heartbeat,
        };
        let deadlines = self.running.values().map(|running| running.replica.next_deadline());
        let replicas = deadlines.min().unwrap_or(Instant::NEVER);
        let at = beat.min(self.view_again).min(replicas.0.div_ceil(1000));
        stage.world.wake_at(self.machine, at);
    }

    /// A message arrives. Returns whether the process ends now, in an orderly way.
    pub fn message(
        &mut self,
        from: Machine,
        message: Message,
        stage: &mut Stage<'_>,
    ) -> Result<bool, Violation> {
        let now = self.now(stage);
        match message {
            Message::Registered { incarnation, epoch } => {
                if incarnation == self.incarnation
                    && matches!(self.registration, Registration::Asking { .. })
                {
                    self.registration = Registration::Registered { epoch, heartbeat: 0 };
                    self.clean_epoch = -1;
                    self.view_again = 0;
                    self.beat(stage);
                }
            }
            Message::Heard { epoch, stale, may_stop } => {
                let current = matches!(self.registration, Registration::Registered { epoch: mine, .. } if mine == epoch);
                if current && stale {
                    self.registration = Registration::Asking { again: 0 };
                    self.incarnation = self.random.bits();
                    self.beat(stage);
                } else if current && may_stop && self.stopping {
                    self.clean_epoch = epoch;
                    return Ok(true);
                }
            }
            Message::View { version, view } => self.apply(version, view, stage)?,
            Message::Altered { partition, id, result } => {
                self.with(partition, stage, |running, _, _, effects| {
                    running.replica.alter_partition_answered(id, result, now, effects);
                })?;
            }
            Message::Fetch { partition, asked, fetch } => {
                self.serve(from, partition, asked, &fetch, stage)?;
            }
            Message::Fetched { partition, asked, result } => {
                self.fetched(partition, &asked, result, stage)?;
            }
            Message::AskRange { partition, asked } => {
                let range = self.range(partition, &asked);
                stage.world.send(self.machine, from, Message::Range { partition, asked, range });
            }
            Message::Range { partition, asked, range } => {
                self.with(partition, stage, |running, _, _, effects| match range {
                    Ok(range) => running.replica.leader_range(asked.leader_epoch, range, effects),
                    Err(error) => running.replica.fetch_failed(&asked, error, now, effects),
                })?;
            }
            Message::Produce(request) => self.produce(from, request, stage)?,
            Message::Read { partition, offset, anywhere } => {
                self.read(from, partition, offset, anywhere, stage)?;
            }
            Message::DeleteRecords { partition, before } => {
                self.with(partition, stage, |running, _, _, effects| {
                    let before = before.min(running.replica.high_watermark());
                    // Refused where it leads no more: the client would ask elsewhere.
                    let _ = running.replica.delete_records(Some(before), effects);
                })?;
            }
            Message::Register { .. }
            | Message::Heartbeat { .. }
            | Message::FetchView { .. }
            | Message::Alter { .. }
            | Message::Produced { .. }
            | Message::ReadData { .. } => unreachable!("these go to controllers and clients"),
        }
        Ok(false)
    }

    /// Something of this machine's own is done.
    pub fn done(&mut self, what: Io, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = self.now(stage);
        match what {
            Io::Flushed { partition, flush, end } => {
                self.with(partition, stage, |running, stored, _, effects| {
                    running.flushing = false;
                    stored.log.flush_done(flush, end);
                    running.replica.durable(stored.log.ends().durable, effects);
                })
            }
            Io::Truncated { partition } => {
                self.with(partition, stage, |running, stored, _, effects| {
                    running.replica.truncated(&stored.log, effects);
                })
            }
            Io::FetchTimedOut { partition, asked } => {
                self.with(partition, stage, |running, _, _, effects| {
                    if running.replica.fetch_position() == Some(asked) {
                        running.replica.fetch_failed(&asked, FetchError::Other, now, effects);
                    }
                })
            }
            Io::RangeTimedOut { partition, asked } => {
                self.with(partition, stage, |running, _, _, effects| {
                    if let Role::Follower(follower) = running.replica.role()
                        && follower.fetching() == Fetching::AskingRange
                    {
                        running.replica.fetch_failed(&asked, FetchError::Other, now, effects);
                    }
                })
            }
            Io::AlterTimedOut { partition, id } => {
                self.with(partition, stage, |running, _, _, effects| {
                    let answer = Err(AlterPartitionError::Retriable);
                    running.replica.alter_partition_answered(id, answer, now, effects);
                })
            }
            Io::ProduceNow { .. } | Io::MetadataCommitted { .. } => {
                unreachable!("these are the clients' and the controller's")
            }
        }
    }

    /// Newer metadata is here.
    fn apply(
        &mut self,
        version: u64,
        view: Arc<View>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        // Before it knows itself in it, metadata may say that this process leads what an earlier one led:
        // the epoch would go on in which that one may have lost what followers have.
        let mine = match self.registration {
            Registration::Asking { .. } => None,
            Registration::Registered { epoch, .. } => Some(epoch),
        };
        let known = mine.is_some() && view.brokers.get(&self.id).map(|broker| broker.epoch) == mine;
        if version <= self.version || !known {
            return Ok(());
        }
        let now = self.now(stage);
        let brokers_changed = self.view.brokers != view.brokers;
        self.version = version;
        self.view = view;
        self.view_again = 0;
        let view = Arc::clone(&self.view);
        let gone: Vec<_> = self
            .stored
            .keys()
            .filter(|id| view.partitions.get(id).is_none_or(|p| !p.replicas.contains(&self.id)))
            .copied()
            .collect();
        for id in gone {
            self.with(id, stage, |running, _, _, effects| running.replica.close(effects))?;
            self.running.remove(&id);
            self.stored.remove(&id);
            tell!(stage.story, stage.world.now(), "broker {} drops {}", self.id, Name(id));
        }
        let me = self.id;
        for (id, partition) in view.partitions.iter().filter(|(_, p)| p.replicas.contains(&me)) {
            let stored = self.stored.entry(*id).or_default();
            let rules = self.rules;
            let running = self.running.entry(*id).or_insert_with(|| {
                let mut replica = Replica::new(me, rules);
                replica.opened(stored.log.ends(), stored.high_watermark);
                let high_watermark = replica.high_watermark();
                let applied = (LeaderEpoch::NONE, -1);
                let waiting = BTreeMap::new();
                Running { replica, flushing: false, waiting, next_wait: 0, applied, high_watermark }
            });
            let epochs = (partition.leader_epoch, partition.partition_epoch);
            let news = running.applied != epochs;
            let new_epoch = running.applied.0 != epochs.0;
            running.applied = epochs;
            self.with(*id, stage, |running, stored, stage, effects| {
                if news {
                    let led = matches!(running.replica.role(), Role::Leader(_));
                    running.replica.apply(&partition.metadata(), &*view, &stored.log, now, effects);
                    let leads = matches!(running.replica.role(), Role::Leader(_));
                    if led != leads || (leads && new_epoch) {
                        let verb = if leads { "leads" } else { "leads no more" };
                        let ends = stored.log.ends();
                        tell!(
                            stage.story,
                            stage.world.now(),
                            "broker {me} {verb} {} (epoch {}, log {}..{}, durable {})",
                            Name(*id),
                            epochs.0,
                            ends.start,
                            ends.end,
                            ends.durable
                        );
                    }
                }
                if brokers_changed {
                    running.replica.brokers_changed(&*view, effects);
                }
            })?;
        }
        self.beat(stage);
        Ok(())
    }
}
