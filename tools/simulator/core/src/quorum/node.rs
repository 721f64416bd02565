//! A replica of the metadata log in its simulated process: what the daemon's shell does around Raft, and no
//! decision of its own.
//!
//! Separate from the run, which has many of them. What the node must tell the checks of others is left in
//! `news`.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use flowstone_batch::BatchBuilder;
use flowstone_raft::control::{KraftVersionRange, KraftVoter, VoterEndpoint};
use flowstone_raft::messages::VoteResponse;
use flowstone_raft::snapshot::SnapshotWriter;
use flowstone_raft::{
    Destination, Effect, Failure, Input, Now, Raft, ReplicaKey, Request, RequestId, Response,
    Settings, SnapshotFile, SnapshotId, Token,
};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp, Uuid};

use super::disk::{LogBatch, RaftDisk, Snapshot, read};
use super::truth::Truth;
use crate::broken;
use crate::disk::Flush;
use crate::random::Random;
use crate::run::Violation;
use crate::story::Story;
use crate::tell;
use crate::world::{MILLI, Machine, Micros, SECOND, World};

/// The listener of the quorum.
pub const LISTENER: &str = "CONTROLLER";
/// The port of machine 0; the others follow.
const FIRST_PORT: u16 = 9000;

/// Twice the 3 s of check-quorum (a majority gathers over one period, and is missed over the next), by a slow
/// clock.
const LEADS_UNHEARD_MAX: Micros = 7 * SECOND;
/// Pieces are small here, so that a snapshot has several.
const PIECE_BYTES_MAX: u32 = 100;

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
struct Asked {
    from: Machine,
    life: u32,
    id: RequestId,
    /// Where it asks for a vote: the epoch, and for whom.
    vote: Option<(LeaderEpoch, NodeId)>,
}

/// A node.
pub struct Node {
    machine: Machine,
    key: ReplicaKey,
    settings: Settings,
    random: Random,
    /// What flushes take here.
    pub flush_takes: Micros,
    /// Until when the disk is slow.
    pub slow_until: Micros,
    /// What is on its disk.
    pub disk: RaftDisk,
    life: u32,
    // Of the process:
    /// Raft, while it runs.
    pub raft: Option<Raft>,
    asked: BTreeMap<u64, Asked>,
    next_token: u64,
    flushing: bool,
    cuts: u32,
    cutting: u32,
    part: Vec<u8>,
    applied: Offset,
    image: u64,
    high_watermark: Offset,
    effects: Vec<Effect>,
    /// When a Fetch of each other machine last came, while this one leads.
    heard: BTreeMap<Machine, Micros>,
    /// Since when this node knows that it leads, and which epoch.
    leads_since: (Micros, LeaderEpoch),
    /// How many voted then: with a change of voters the time begins anew.
    voters: usize,
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
        if self.voters != raft.quorum().len() {
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

    fn takes(&mut self, stage: &Stage<'_>) -> Micros {
        let slow = if self.slow_until > stage.world.now() { 20 } else { 1 };
        1 + slow * self.random.below(2 * self.flush_takes)
    }

    /// Starts a flush where none is under way and something is to be flushed.
    fn flush(&mut self, stage: &mut Stage<'_>) {
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

    /// Does what Raft wants done, in its order.
    fn perform(
        &mut self,
        mut effects: Vec<Effect>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        for effect in effects.drain(..) {
            self.perform_one(effect, stage)?;
        }
        self.effects = effects;
        if let Some(at) = self.raft.as_ref().and_then(Raft::next_deadline) {
            stage.world.wake_at(self.machine, at.0.div_ceil(1000));
        }
        Ok(())
    }

    fn perform_one(&mut self, effect: Effect, stage: &mut Stage<'_>) -> Result<(), Violation> {
        match effect {
            Effect::SaveState(state) => {
                self.disk.save(state);
                let takes = self.takes(stage);
                stage.world.done_after(self.machine, takes, Io::StateSaved);
            }
            Effect::Append { batches, end } => {
                self.one_change_at_a_time(&batches)?;
                self.disk.append(&batches);
                assert_eq!(self.disk.end(), end, "raft says where the log ends");
                self.flush(stage);
            }
            Effect::Truncate { end } => {
                tell!(
                    stage.story,
                    stage.world.now(),
                    "{} cuts its log from {} to {end}",
                    self.machine,
                    self.disk.end()
                );
                stage.truth.cuts(self.key.id, end, &self.disk)?;
                self.disk.truncate(end);
                self.cuts += 1;
                self.cutting += 1;
                let (flush, _) = self.disk.flush();
                let takes = self.takes(stage);
                stage.world.done_after(self.machine, takes, Io::Truncated { flush });
            }
            Effect::Send { id, to, request } => self.send(id, &to, request, stage)?,
            Effect::Respond { token, response } => self.respond(token, response, stage)?,
            Effect::ReadAndRespond { token, from, bytes_max, mut response } => {
                let records = self.read(from, bytes_max);
                response.responses[0].partitions[0].records = Some(records);
                self.respond(token, Response::Fetch(response), stage)?;
            }
            Effect::ReadPieceAndRespond { token, id, position, bytes_max, mut response } => {
                let snapshot = self.disk.snapshots().iter().find(|snapshot| snapshot.file.id == id);
                let Some(snapshot) = snapshot else { return Ok(()) };
                let from = position as usize;
                let to = snapshot.bytes.len().min(from + bytes_max.min(PIECE_BYTES_MAX) as usize);
                response.topics[0].partitions[0].unaligned_records = snapshot.bytes.slice(from..to);
                self.respond(token, Response::FetchSnapshot(response), stage)?;
            }
            Effect::WritePiece { id, position, bytes } => {
                self.part.truncate(position as usize);
                assert_eq!(self.part.len() as u64, position, "pieces follow each other");
                self.part.extend_from_slice(&bytes);
                let io = Io::PieceWritten { id, end: self.part.len() as u64 };
                let takes = self.takes(stage);
                stage.world.done_after(self.machine, takes, io);
            }
            Effect::InstallSnapshot { id } => {
                let takes = self.takes(stage);
                stage.world.done_after(self.machine, takes, Io::Install(id));
            }
            Effect::TakeSnapshot { id, last_timestamp } => self.take(id, last_timestamp, stage),
            Effect::DropBefore(id) => {
                let log_bytes = self.disk.drop_before(id);
                tell!(stage.story, stage.world.now(), "{} drops what is before {id}", self.machine);
                // The answer comes behind the other effects of this turn.
                stage.world.done_after(self.machine, 1, Io::Dropped { log_bytes });
            }
            Effect::Committed(end) => self.committed(end, stage)?,
            Effect::LeaderChanged { epoch, leader } => {
                if let Some(leader) = leader {
                    stage.truth.leads(epoch, leader)?;
                    if leader == self.key.id {
                        tell!(
                            stage.story,
                            stage.world.now(),
                            "{leader} leads epoch {epoch}, its log ends at {}",
                            self.disk.end()
                        );
                        self.leads_since = (stage.world.now(), epoch);
                        stage.truth.leader_has_all(leader, epoch, &self.disk)?;
                    }
                }
            }
            Effect::Fault(fault) => broken!("no fault is found", "{}: {fault}", self.machine),
        }
        Ok(())
    }

    /// An epoch is on the disk before anybody hears of it: so no crash takes it back.
    fn speaks(&self, epoch: Option<i32>) -> Result<(), Violation> {
        let saved = self.disk.saved().map_or(0, |saved| saved.epoch.0);
        if let Some(epoch) = epoch.filter(|epoch| *epoch > saved) {
            broken!(
                "an epoch is on the disk before it is spoken of",
                "{} speaks of epoch {epoch}, its quorum-state holds {saved}",
                self.machine
            );
        }
        Ok(())
    }

    /// A leader writes new voters only once those before are committed (KIP-853).
    fn one_change_at_a_time(&self, batches: &Bytes) -> Result<(), Violation> {
        let Some(raft) = self.raft.as_ref().filter(|raft| raft.leading().is_some()) else {
            return Ok(());
        };
        let changes = |batch: &LogBatch| batch.is_control && batch.changes_voters();
        if !LogBatch::parse(batches).iter().any(changes) {
            return Ok(());
        }
        let committed = raft.high_watermark().unwrap_or(Offset::ZERO);
        let pending = self.disk.batches().iter().rev().take_while(|batch| batch.base >= committed);
        if let Some(before) = pending.into_iter().find(|batch| changes(batch)) {
            broken!(
                "one change of voters at a time (KIP-853)",
                "{} changes the voters while those of offset {} are not committed",
                self.machine,
                before.base
            );
        }
        Ok(())
    }

    fn send(
        &mut self,
        id: RequestId,
        to: &Destination,
        request: Request,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        self.speaks(epoch_asked(&request))?;
        let to = match to {
            Destination::Node { port, .. } => (port - FIRST_PORT) as Machine,
            Destination::Bootstrap(place) => *place as Machine,
        };
        if !stage.world.is_up(to) && self.random.chance(500) {
            stage.world.done_after(self.machine, MILLI, Io::Failed(id));
            return Ok(());
        }
        let message = Message::Request { life: self.life, id, request };
        stage.world.send(self.machine, to, message);
        Ok(())
    }

    fn respond(
        &mut self,
        token: Token,
        response: Response,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        if let Response::Vote(answer) = &response {
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            self.speaks(partition.map(|partition| partition.leader_epoch))?;
        }
        let Some(asked) = self.asked.remove(&token.0) else {
            broken!("a request is answered once", "{} answers {token:?} again", self.machine);
        };
        if let (Some((epoch, candidate)), Response::Vote(answer)) = (asked.vote, &response)
            && grants(answer)
        {
            let saved = self.disk.saved();
            let stands = saved.is_some_and(|saved| {
                saved.epoch == epoch && (saved.voted == candidate || saved.leader == candidate)
            });
            if !stands {
                broken!(
                    "a vote is on the disk before it is told",
                    "{} votes for {candidate} in epoch {epoch}, its quorum-state holds {saved:?}",
                    self.machine
                );
            }
        }
        let message = Message::Response { life: asked.life, id: asked.id, response };
        stage.world.send(self.machine, asked.from, message);
        Ok(())
    }

    fn read(&self, from: Offset, bytes_max: u32) -> Bytes {
        let batches = self.disk.batches();
        let first = batches.partition_point(|batch| batch.base < from);
        let mut all = BytesMut::new();
        // Few at a time, so that followers are often half way.
        for batch in batches.range(first..).take(4) {
            if !all.is_empty() && all.len() + batch.bytes.len() > bytes_max as usize {
                break;
            }
            all.extend_from_slice(&batch.bytes);
        }
        all.freeze()
    }

    fn take(&mut self, id: SnapshotId, last_timestamp: Timestamp, stage: &mut Stage<'_>) {
        let takes = self.takes(stage) + self.takes(stage);
        if self.applied != id.end || self.random.chance(100) {
            stage.world.done_after(self.machine, takes, Io::SnapshotNotTaken(id));
            return;
        }
        let raft = self.raft.as_ref().expect("it asked");
        let quorum = raft.quorum_at(id.end);
        let now = Timestamp(stage.world.wall_ms(self.machine));
        let told = (quorum.kraft_version >= 1).then_some((quorum.kraft_version, &quorum.voters));
        let (mut writer, first) = SnapshotWriter::new(id.epoch, last_timestamp, told, now);
        let mut bytes = first.to_vec();
        bytes.extend(writer.push(&self.image.to_be_bytes()).into_iter().flatten());
        bytes.extend(writer.finish().into_iter().flatten());
        let bytes = Bytes::from(bytes);
        let file = SnapshotFile { id, bytes: bytes.len() as u64, last_timestamp };
        tell!(stage.story, stage.world.now(), "{} writes the snapshot {id}", self.machine);
        let io = Io::SnapshotTaken(Box::new(Snapshot { file, bytes }));
        stage.world.done_after(self.machine, takes, io);
    }

    fn committed(&mut self, end: Offset, stage: &mut Stage<'_>) -> Result<(), Violation> {
        if end < self.high_watermark {
            broken!(
                "the high watermark never goes back",
                "{} had {}, and now has {end}",
                self.machine,
                self.high_watermark
            );
        }
        self.high_watermark = end;
        if end > self.disk.end() {
            broken!(
                "what is committed is in the log",
                "{} commits {end} of {}",
                self.machine,
                self.disk.end()
            );
        }
        let batches = self.disk.batches();
        let first = batches.partition_point(|batch| batch.end <= self.applied);
        let news = batches.range(first..).take_while(|batch| batch.end <= end);
        let by = self.raft.as_ref().map_or(LeaderEpoch(0), Raft::epoch);
        self.image = stage.truth.commits(self.key.id, by, self.image, news)?;
        self.applied = self.applied.max(end);
        let leads = self.raft.as_ref().is_some_and(|raft| raft.leading().is_some());
        if leads {
            self.news.push(News::Committed(end));
        }
        Ok(())
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

/// The epoch that a request speaks of, where that is the sender's own.
fn epoch_asked(request: &Request) -> Option<i32> {
    match request {
        Request::Vote(vote) => {
            let asks = vote.topics.first()?.partitions.first()?;
            (!asks.pre_vote).then_some(asks.replica_epoch)
        }
        Request::BeginQuorumEpoch(begin) => {
            Some(begin.topics.first()?.partitions.first()?.leader_epoch)
        }
        Request::Fetch(fetch) => {
            Some(fetch.topics.first()?.partitions.first()?.current_leader_epoch)
        }
        _ => None,
    }
}

fn grants(answer: &VoteResponse) -> bool {
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    partition.is_some_and(|partition| partition.vote_granted)
}
