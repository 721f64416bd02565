//! What a simulated broker does for the core of a replica.
//!
//! Separate from `broker.rs`, which has the life of the process, and from `answers.rs`, where others ask: here every
//! effect is performed.

use flowstone_partition::{Effect, FetchError, FetchPosition, Fetched, Role};
use flowstone_types::{LeaderEpoch, Offset, PartitionId};

use super::answers::{acknowledge, answer, follower_fetch};
use super::broker::{ANSWER_WITHIN, Ack, Broker, Registration, Running, Stored};
use super::cast::Stage;
use super::log::Batch;
use super::message::{Io, Message};
use super::truth::Name;
use crate::broken;
use crate::run::Violation;
use crate::tell;
use crate::world::MILLI;

impl Broker {
    /// Lets the core of one replica do something, and does what it wants done.
    pub(super) fn with(
        &mut self,
        id: PartitionId,
        stage: &mut Stage<'_>,
        input: impl FnOnce(&mut Running, &mut Stored, &mut Stage<'_>, &mut Vec<Effect<Ack, u64>>),
    ) -> Result<(), Violation> {
        let Some(running) = self.running.get_mut(&id) else { return Ok(()) };
        let stored = self.stored.get_mut(&id).expect("what runs is stored");
        let mut effects = std::mem::take(&mut self.effects);
        input(running, stored, stage, &mut effects);
        self.perform(id, &mut effects, &mut Vec::new(), stage)?;
        self.effects = effects;
        Ok(())
    }

    /// Does what the core wants done, in order. `batches` are those of a Fetch response just given.
    pub(super) fn perform(
        &mut self,
        id: PartitionId,
        effects: &mut Vec<Effect<Ack, u64>>,
        batches: &mut Vec<Batch>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let mut at = 0;
        while at < effects.len() {
            let effect = std::mem::replace(&mut effects[at], Effect::Fetch);
            at += 1;
            let running = self.running.get_mut(&id).expect("it has effects");
            let stored = self.stored.get_mut(&id).expect("what runs is stored");
            match effect {
                Effect::Acknowledge { ack, outcome } => {
                    acknowledge((self.id, self.machine), &ack, outcome, stage)?;
                }
                Effect::Wake(number) => {
                    if let Some(waiting) = running.waiting.remove(&number) {
                        for key in &waiting.keys {
                            running.replica.forget(*key);
                        }
                        answer(self.machine, id, &waiting, running, stored, stage);
                    }
                }
                Effect::HighWatermark(to) => self.watermark(id, to, stage)?,
                Effect::AlterPartition(change) => {
                    tell!(
                        stage.story,
                        stage.world.now(),
                        "broker {} asks for ISR {:?} of {} at {}",
                        self.id,
                        change.isr.iter().map(|m| m.node.0).collect::<Vec<_>>(),
                        Name(id),
                        change.partition_epoch
                    );
                    let (partition, change_id) = (id, change.id);
                    let broker_epoch = match self.registration {
                        Registration::Asking { .. } => -1,
                        Registration::Registered { epoch, .. } => epoch,
                    };
                    self.to_controller(stage, Message::Alter { partition, broker_epoch, change });
                    let io = Io::AlterTimedOut { partition, id: change_id };
                    stage.world.done_after(self.machine, ANSWER_WITHIN, io);
                }
                Effect::BeginEpoch(epoch) => stored.log.begin_epoch(epoch),
                Effect::RaiseLogStart(to) => stored.log.raise_start(to),
                Effect::Fetch => {
                    let Some(asked) = running.replica.fetch_position() else { continue };
                    let fetch = follower_fetch(self.id, self.registration, &asked);
                    let leader = self.cast.machine(asked.leader);
                    stage.world.send(
                        self.machine,
                        leader,
                        Message::Fetch { partition: id, asked, fetch },
                    );
                    let io = Io::FetchTimedOut { partition: id, asked };
                    stage.world.done_after(self.machine, ANSWER_WITHIN, io);
                }
                Effect::Append { leader_epoch } => {
                    let mut last = LeaderEpoch::NONE;
                    for batch in batches.drain(..).filter(|batch| batch.epoch <= leader_epoch) {
                        stored.log.append(batch);
                        last = batch.epoch;
                    }
                    running.replica.batches_appended(stored.log.ends().end, last, effects);
                }
                Effect::Truncate(to) => {
                    tell!(
                        stage.story,
                        stage.world.now(),
                        "broker {} truncates {} from {} to {to}",
                        self.id,
                        Name(id),
                        stored.log.ends().end
                    );
                    stored.log.truncate(to);
                    let takes = self.random.below(2 * MILLI);
                    stage.world.done_after(self.machine, takes, Io::Truncated { partition: id });
                }
                Effect::StartAt { base, log_start } => {
                    stored.log.start_at(base, log_start);
                    if batches.is_empty() {
                        stage.world.done_after(
                            self.machine,
                            MILLI,
                            Io::Truncated { partition: id },
                        );
                    }
                }
                Effect::AskLeaderRange(_) => {
                    // The question goes to whoever leads by the latest metadata.
                    let leader = running.replica.current_leader();
                    if let Some(node) = leader.leader {
                        let asked = FetchPosition {
                            leader: node,
                            leader_epoch: leader.epoch,
                            offset: stored.log.ends().end,
                            last_fetched_epoch: None,
                            log_start: stored.log.ends().start,
                            high_watermark: running.replica.high_watermark(),
                        };
                        let message = Message::AskRange { partition: id, asked };
                        stage.world.send(self.machine, self.cast.machine(node), message);
                        let io = Io::RangeTimedOut { partition: id, asked };
                        stage.world.done_after(self.machine, ANSWER_WITHIN, io);
                    }
                }
            }
        }
        effects.clear();
        self.flush_if_needed(id, stage);
        self.sleep(stage);
        Ok(())
    }

    /// Starts a flush where something is not durable and none is under way.
    fn flush_if_needed(&mut self, id: PartitionId, stage: &mut Stage<'_>) {
        let (Some(running), Some(stored)) = (self.running.get_mut(&id), self.stored.get(&id))
        else {
            return;
        };
        let ends = stored.log.ends();
        if !running.flushing && ends.durable < ends.end {
            running.flushing = true;
            let (flush, end) = stored.log.flush();
            let slow = if self.slow_until > stage.world.now() { 20 } else { 1 };
            let takes = 1 + slow * self.random.below(2 * self.flush_takes);
            stage.world.done_after(self.machine, takes, Io::Flushed { partition: id, flush, end });
        }
    }

    /// The high watermark of a replica moved.
    fn watermark(
        &mut self,
        id: PartitionId,
        to: Offset,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let running = self.running.get_mut(&id).expect("it has effects");
        let stored = self.stored.get_mut(&id).expect("what runs is stored");
        let before = std::mem::replace(&mut running.high_watermark, to);
        // Stored now and then, as in Kafka: what is stored may be behind.
        if self.random.chance(100) {
            stored.high_watermark = to;
        }
        match running.replica.role() {
            Role::Leader(leader) => {
                let epoch = running.replica.leader_epoch();
                let in_sync = leader.isr().committed().len();
                let least = self.rules.min_insync_replicas.min(leader.followers().len() + 1);
                if in_sync < least && to > before {
                    broken!(
                        "the high watermark stands below min.insync.replicas (KIP-966)",
                        "broker {} moves it to {to} in {} with {in_sync} in sync, and {least} wanted",
                        self.id,
                        Name(id)
                    );
                }
                stage.truth.leader_watermark(id, self.id, epoch, to, &stored.log)
            }
            Role::Follower(_) | Role::Offline(_) if to > before => {
                // Where the leader's log starts later, what is here before that is nobody's any more: the
                // order to delete it comes next.
                let from = before.max(running.replica.log().start);
                stage.truth.follower_watermark(id, self.id, from, to, &stored.log)
            }
            Role::Follower(_) | Role::Offline(_) => Ok(()),
        }
    }

    /// The answer to a Fetch is here.
    pub(super) fn fetched(
        &mut self,
        id: PartitionId,
        asked: &FetchPosition,
        result: Result<(Fetched, Vec<Batch>), FetchError>,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let now = self.now(stage);
        let (Some(running), Some(stored)) = (self.running.get_mut(&id), self.stored.get(&id))
        else {
            return Ok(());
        };
        let mut effects = std::mem::take(&mut self.effects);
        let mut batches = Vec::new();
        match result {
            Ok((answer, data)) => {
                batches = data;
                running.replica.fetched(asked, &answer, &stored.log, now, &mut effects);
            }
            Err(error) => {
                tell!(
                    stage.story,
                    stage.world.now(),
                    "broker {} fetches {} from {} at {} in epoch {}: {error:?}",
                    self.id,
                    Name(id),
                    asked.leader,
                    asked.offset,
                    asked.leader_epoch
                );
                running.replica.fetch_failed(asked, error, now, &mut effects);
            }
        }
        self.perform(id, &mut effects, &mut batches, stage)?;
        self.effects = effects;
        Ok(())
    }
}
