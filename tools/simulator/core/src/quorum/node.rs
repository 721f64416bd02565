//! A replica of the metadata log in its simulated process: what the daemon's shell does around Raft, and no
//! decision of its own.
//!
//! Separate from the run, which has many of them. What the node must tell the checks of others is left in
//! `news`.

use std::collections::BTreeMap;

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_raft::control::{KraftVersionRange, KraftVoter, VoterEndpoint};
use flowstone_raft::{
    Effect, Failure, Input, Now, Raft, ReplicaKey, Request, RequestId, Response, Settings,
    SnapshotFile, SnapshotId, Token,
};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp, Uuid};

use super::disk::{RaftDisk, Snapshot, read};
use super::truth::Truth;
use crate::broken;
use crate::disk::Flush;
use crate::random::Random;
use crate::run::Violation;
use crate::story::Story;
use crate::tell;
use crate::world::{Machine, Micros, SECOND, World};

/// The listener of the quorum.
pub const LISTENER: &str = "CONTROLLER";
/// The port of machine 0; the others follow.
pub(super) const FIRST_PORT: u16 = 9000;

/// Twice the 3 s of check-quorum (a majority gathers over one period, and is missed over the next), by a slow
/// clock, and [`STOOD_STILL`] between the two.
const LEADS_UNHEARD_MAX: Micros = 11 * SECOND;
/// Who did nothing for so long stood still: what it gathered before counts when it goes on.
const STOOD_STILL: Micros = 4 * SECOND;
/// Pieces are small here, so that a snapshot has several.
pub(super) const PIECE_BYTES_MAX: u32 = 100;

/// What machines say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// A request, of this life of its sender.
    Request {
        /// How often the sender had started.
        life: u32,
        /// Its name for the request.
        id: RequestId,
        /// The request.
        request: Request,
    },
    /// The answer.
    Response {
        /// How often the asker had started when it asked.
        life: u32,
        /// To which request.
        id: RequestId,
        /// The answer.
        response: Response,
    },
}

/// What a machine hears of itself.
#[derive(Clone, Debug)]
pub enum Io {
    /// `quorum-state` is written.
    StateSaved,
    /// A flush is over.
    Flushed {
        /// What it covers.
        flush: Flush,
        /// Where the log ended.
        end: Offset,
        /// How many cuts there had been.
        cuts: u32,
    },
    /// A cut is on the disk.
    Truncated {
        /// With everything before it.
        flush: Flush,
    },
    /// A connection ended.
    Failed(RequestId),
    /// A snapshot is written.
    SnapshotTaken(Box<Snapshot>),
    /// None could be.
    SnapshotNotTaken(SnapshotId),
    /// A piece is written.
    PieceWritten {
        /// Of which snapshot.
        id: SnapshotId,
        /// Up to which byte.
        end: u64,
    },
    /// Old snapshots and their part of the log are gone.
    Dropped {
        /// Bytes of log that are left.
        log_bytes: u64,
    },
    /// A snapshot is ready to take the log's place.
    Install(SnapshotId),
    /// Somebody has something to append.
    Propose,
}

/// What the checks should look at.
#[derive(Clone, Copy, Debug)]
pub enum News {
    /// A leader committed up to here.
    Committed(Offset),
}

/// What everything that happens at a machine needs.
pub struct Stage<'a> {
    /// Where it happens.
    pub world: &'a mut World<Message, Io>,
    /// Where it is told.
    pub story: &'a mut Story,
    /// Against which it is checked.
    pub truth: &'a mut Truth,
}

/// A request that this node is to answer.
pub(super) struct Asked {
    pub(super) from: Machine,
    pub(super) life: u32,
    pub(super) id: RequestId,
    /// Where it asks for a vote: the epoch, and for whom.
    pub(super) vote: Option<(LeaderEpoch, NodeId)>,
}

/// A node.
pub struct Node {
    pub(super) machine: Machine,
    pub(super) key: ReplicaKey,
    pub(super) settings: Settings,
    pub(super) random: Random,
    /// What flushes take here.
    pub flush_takes: Micros,
    /// Until when the disk is slow.
    pub slow_until: Micros,
    /// What is on its disk.
    pub disk: RaftDisk,
    pub(super) life: u32,
    // Of the process:
    /// Raft, while it runs.
    pub raft: Option<Raft>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) next_token: u64,
    pub(super) flushing: bool,
    pub(super) cuts: u32,
    pub(super) cutting: u32,
    pub(super) part: Vec<u8>,
    pub(super) applied: Offset,
    pub(super) image: u64,
    pub(super) high_watermark: Offset,
    pub(super) effects: Vec<Effect>,
    /// When a Fetch of each other machine last came, while this one leads.
    pub(super) heard: BTreeMap<Machine, Micros>,
    /// Since when this node knows that it leads, and which epoch.
    pub(super) leads_since: (Micros, LeaderEpoch),
    /// When it last did something.
    pub(super) acted_at: Micros,
    /// How many voted then: with a change of voters the time begins anew.
    pub(super) voters: usize,
    /// For the checks.
    pub news: Vec<News>,
}

/// The voter that this machine is.
pub fn voter(machine: Machine, directory: Uuid) -> KraftVoter {
    let port = FIRST_PORT + u16::from(machine);
    let endpoint = VoterEndpoint {
        name: LISTENER.into(),
        host: "sim".into(),
        port,
        ..VoterEndpoint::default()
    };
    KraftVoter {
        voter_id: machine.into(),
        voter_directory_id: directory,
        endpoints: vec![endpoint],
        kraft_version_feature: KraftVersionRange {
            max_supported_version: 1,
            ..KraftVersionRange::default()
        },
        ..KraftVoter::default()
    }
}

/// The directory id of this machine.
pub const fn directory(machine: Machine) -> Uuid {
    Uuid(1000 + machine as u128)
}

impl Node {
    /// A node that never ran.
    pub fn new(
        machine: Machine,
        settings: Settings,
        disk: RaftDisk,
        flush_takes: Micros,
        seed: u64,
    ) -> Self {
        const PURPOSE: u64 = 5 << 32;
        Self {
            machine,
            key: ReplicaKey { id: NodeId(machine.into()), directory: directory(machine) },
            settings,
            random: Random::new(seed, PURPOSE + u64::from(machine)),
            flush_takes,
            slow_until: 0,
            disk,
            life: 0,
            raft: None,
            asked: BTreeMap::new(),
            next_token: 0,
            flushing: false,
            cuts: 0,
            cutting: 0,
            part: Vec::new(),
            applied: Offset::ZERO,
            image: 0,
            high_watermark: Offset::ZERO,
            effects: Vec::new(),
            heard: BTreeMap::new(),
            leads_since: (0, LeaderEpoch::NONE),
            acted_at: 0,
            voters: 0,
            news: Vec::new(),
        }
    }

    fn now(&self, stage: &Stage<'_>) -> Now {
        Now {
            clock: Instant(stage.world.monotonic(self.machine) * 1000),
            wall: Timestamp(stage.world.wall_ms(self.machine)),
        }
    }

    /// The process starts.
    pub fn start(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.life += 1;
        let (stored, applied, image) = self.disk.recover();
        self.asked.clear();
        self.flushing = false;
        self.cuts = 0;
        self.cutting = 0;
        self.part.clear();
        self.applied = applied;
        self.image = image;
        self.high_watermark = applied;
        tell!(
            stage.story,
            stage.world.now(),
            "{} starts with a log {}..{}, {:?}",
            self.machine,
            stored.log_start,
            stored.log_end,
            stored.state.as_ref().map(|state| (state.epoch.0, state.leader.0, state.voted.0))
        );
        let now = self.now(stage);
        let myself = voter(self.machine, self.key.directory);
        let mut effects = std::mem::take(&mut self.effects);
        let settings = self.settings.clone();
        let seed = self.random.bits();
        let raft = Raft::start(settings, self.key, myself, stored, seed, now, &mut effects);
        match raft {
            Ok(raft) => self.raft = Some(raft),
            Err(error) => broken!("a node starts", "{}: {error}", self.machine),
        }
        self.perform(effects, stage)
    }

    /// The process is gone; with the power, maybe.
    pub fn ended(&mut self, with_power: bool) {
        self.raft = None;
        if with_power {
            self.disk.killed(&mut self.random);
        } else {
            self.disk.lose_power(&mut self.random);
        }
    }

    fn input(&mut self, input: Input, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = self.now(stage);
        let Some(raft) = &mut self.raft else { return Ok(()) };
        let before = raft.epoch();
        let mut effects = std::mem::take(&mut self.effects);
        raft.handle(now, input, &mut effects);
        let stood_still = self.acted_at + STOOD_STILL < stage.world.now();
        self.acted_at = stage.world.now();
        if self.voters != raft.quorum().len() || stood_still {
            self.voters = raft.quorum().len();
            self.leads_since.0 = stage.world.now();
        }
        if let Some(silent) = silent_majority(raft, self.machine, &self.heard)
            && self.leads_since.1 == raft.epoch()
            && stage.world.now() > silent.max(self.leads_since.0).saturating_add(LEADS_UNHEARD_MAX)
        {
            broken!(
                "a leader resigns without fetches of a majority",
                "{} still leads epoch {}",
                self.machine,
                raft.epoch()
            );
        }
        if raft.epoch() < before {
            broken!(
                "epochs never go back",
                "{} was in epoch {before}, is in {}",
                self.machine,
                raft.epoch()
            );
        }
        self.perform(effects, stage)
    }

    /// Its time has come.
    pub fn wake(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        self.input(Input::Tick, stage)
    }

    /// A message arrives.
    pub fn message(
        &mut self,
        from: Machine,
        message: Message,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        match message {
            Message::Request { life, id, request } => {
                let vote = match &request {
                    Request::Vote(vote) => {
                        let asks = vote.topics.first().and_then(|topic| topic.partitions.first());
                        asks.filter(|asks| !asks.pre_vote)
                            .map(|asks| (LeaderEpoch(asks.replica_epoch), NodeId(asks.replica_id)))
                    }
                    _ => None,
                };
                if matches!(request, Request::Fetch(_) | Request::FetchSnapshot(_)) {
                    self.heard.insert(from, stage.world.now());
                }
                let token = Token(self.next_token);
                self.next_token += 1;
                self.asked.insert(token.0, Asked { from, life, id, vote });
                self.input(Input::Request { token, listener: LISTENER.into(), request }, stage)
            }
            Message::Response { life, id, response } if life == self.life => {
                self.input(Input::Response { id, response: Ok(response) }, stage)
            }
            Message::Response { .. } => Ok(()), // The connection ended with the process that asked.
        }
    }

    /// Something of this machine's own is done.
    pub fn done(&mut self, what: Io, stage: &mut Stage<'_>) -> Result<(), Violation> {
        match what {
            Io::StateSaved => {
                self.disk.save_done();
                self.input(Input::StateSaved, stage)
            }
            Io::Flushed { flush, end, cuts } => {
                self.flushing = false;
                self.disk.flush_done(flush);
                // What it says of offsets that were cut off since means nothing.
                let counts = cuts == self.cuts && self.cutting == 0;
                self.flush(stage);
                if counts { self.input(Input::Flushed { end }, stage) } else { Ok(()) }
            }
            Io::Truncated { flush } => {
                self.disk.flush_done(flush);
                self.cutting -= 1;
                self.flush(stage);
                self.input(Input::Truncated, stage)
            }
            Io::Failed(id) => {
                self.input(Input::Response { id, response: Err(Failure::Disconnected) }, stage)
            }
            Io::SnapshotTaken(snapshot) => {
                let file = snapshot.file;
                if self.disk.snapshots().iter().all(|other| other.file.id < file.id) {
                    self.disk.add_snapshot(*snapshot);
                }
                self.input(Input::SnapshotTaken(file), stage)
            }
            Io::SnapshotNotTaken(id) => self.input(Input::SnapshotNotTaken(id), stage),
            Io::PieceWritten { id, end } => self.input(Input::PieceWritten { id, end }, stage),
            Io::Dropped { log_bytes } => self.input(Input::Dropped { log_bytes }, stage),
            Io::Install(id) => self.install(id, stage),
            Io::Propose => self.propose(stage),
        }
    }

    fn install(&mut self, id: SnapshotId, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let bytes = Bytes::from(std::mem::take(&mut self.part));
        let Some(contents) = read(&bytes) else {
            return self.input(Input::SnapshotRefused(id), stage);
        };
        let file =
            SnapshotFile { id, bytes: bytes.len() as u64, last_timestamp: contents.last_timestamp };
        tell!(stage.story, stage.world.now(), "{} takes the snapshot {id}", self.machine);
        if stage.truth.image(id.end) != Some(contents.image) {
            broken!(
                "images are equal at equal offsets",
                "{} took a snapshot {id} of another one",
                self.machine
            );
        }
        self.disk.install(Snapshot { file, bytes });
        self.applied = id.end;
        self.image = contents.image;
        self.high_watermark = self.high_watermark.max(id.end);
        self.cuts += 1;
        self.input(Input::SnapshotInstalled { file, quorum: contents.quorum }, stage)
    }

    /// A controller appends a batch, if this node leads.
    fn propose(&mut self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = self.now(stage);
        let Some(raft) = &mut self.raft else { return Ok(()) };
        let Some((epoch, _)) = raft.leading() else { return Ok(()) };
        let mut batch = BatchBuilder::new(raft.log_end()).leader_epoch(epoch);
        for _ in 0..self.random.between(1, 3) {
            batch.push(now.wall, None, Some(&self.random.bits().to_be_bytes()), &[]);
        }
        let mut effects = std::mem::take(&mut self.effects);
        // Refused where too much is uncommitted: the controller would try again later.
        let _ = raft.append(now, epoch, batch.build(), &mut effects);
        self.perform(effects, stage)
    }

    pub(super) fn takes(&mut self, stage: &Stage<'_>) -> Micros {
        let slow = if self.slow_until > stage.world.now() { 20 } else { 1 };
        1 + slow * self.random.below(2 * self.flush_takes)
    }

    /// Starts a flush where none is under way and something is to be flushed.
    pub(super) fn flush(&mut self, stage: &mut Stage<'_>) {
        let (flush, end) = self.disk.flush();
        if !self.flushing && self.cutting == 0 && self.disk.has_unflushed() {
            self.flushing = true;
            let takes = self.takes(stage);
            stage.world.done_after(
                self.machine,
                takes,
                Io::Flushed { flush, end, cuts: self.cuts },
            );
        }
    }
}

/// Since when no majority has fetched from this leader; `None` where it does not lead, or needs nobody.
fn silent_majority(raft: &Raft, me: Machine, heard: &BTreeMap<Machine, Micros>) -> Option<Micros> {
    raft.leading()?;
    let quorum = raft.quorum();
    let mut times: Vec<_> = quorum
        .keys()
        .map(|key| key.id.0 as Machine)
        .map(
            |voter| if voter == me { Micros::MAX } else { heard.get(&voter).copied().unwrap_or(0) },
        )
        .collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(quorum.majority() - 1).copied()
}
