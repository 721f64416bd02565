//! What a simulated replica of the metadata log does for Raft, effect by effect, and what is checked of it
//! on the way.
//!
//! Separate from `node.rs`, which has the life of the process and what reaches it.

use bytes::{Bytes, BytesMut};
use flowstone_raft::messages::VoteResponse;
use flowstone_raft::snapshot::SnapshotWriter;
use flowstone_raft::{
    Destination, Effect, Raft, Request, RequestId, Response, SnapshotFile, SnapshotId, Token,
};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use super::disk::{LogBatch, Snapshot};
use super::node::{FIRST_PORT, Io, Message, News, Node, PIECE_BYTES_MAX, Stage};
use crate::broken;
use crate::run::Violation;
use crate::tell;
use crate::world::{MILLI, Machine};

impl Node {
    /// Does what Raft wants done, in its order.
    pub(super) fn perform(
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
