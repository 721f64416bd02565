//! What a simulated broker does for the core of a replica, and what it answers to those who ask.
//!
//! Separate from `broker.rs`, which has the life of the process: here every effect is performed, and every
//! request of followers, producers and consumers goes through the core.

use flowstone_partition::{
    ConsumerAnswer, ConsumerRead, Effect, FetchError, FetchPosition, Fetched, FetchedBatches,
    FollowerAnswer, FollowerFetch, LeaderRange, NotCommitted, On, Refused, Role,
};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, PartitionId};

use super::broker::{
    ANSWER_WITHIN, Ack, Broker, FETCH_BATCHES_MAX, FETCH_WAITS, PRODUCE_WAITS, Registration,
    Running, Stage, Stored, Waiting,
};
use super::log::Batch;
use super::message::{Io, Message, Produce, Produced};
use super::truth::Name;
use crate::broken;
use crate::run::Violation;
use crate::tell;
use crate::world::{MILLI, Machine};

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

    /// A follower fetches here.
    pub(super) fn serve(
        &mut self,
        follower: Machine,
        id: PartitionId,
        asked: FetchPosition,
        fetch: &FollowerFetch,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let now = self.now(stage);
        if !self.running.contains_key(&id) {
            let result = Err(FetchError::Other);
            stage.world.send(
                self.machine,
                follower,
                Message::Fetched { partition: id, asked, result },
            );
            return Ok(());
        }
        let machine = self.machine;
        self.with(id, stage, |running, stored, stage, effects| {
            let said = running.replica.follower_fetched(fetch, &stored.log, now, effects);
            let result = match said {
                Err(refused) => Err(fetch_error(refused)),
                Ok(FollowerAnswer::Diverging(parted)) => {
                    let ends = stored.log.ends();
                    let answer = Fetched {
                        diverging: Some(parted),
                        high_watermark: running.replica.high_watermark(),
                        log_start: ends.start,
                        batches: None,
                    };
                    Ok((answer, Vec::new()))
                }
                Ok(FollowerAnswer::Next(next)) => {
                    let nothing = next.from >= next.below && !next.has_news;
                    if nothing {
                        wait(follower, asked, next.from, now, running);
                        return;
                    }
                    Ok(read_for(next.from, running, stored))
                }
            };
            stage.world.send(machine, follower, Message::Fetched { partition: id, asked, result });
        })
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

    /// Where the log of a leader starts and ends, for a follower of the same epoch.
    pub(super) fn range(
        &self,
        id: PartitionId,
        asked: &FetchPosition,
    ) -> Result<LeaderRange, FetchError> {
        let running = self.running.get(&id).ok_or(FetchError::Other)?;
        let leads = matches!(running.replica.role(), Role::Leader(_));
        if !leads || running.replica.leader_epoch() != asked.leader_epoch {
            return Err(FetchError::Other);
        }
        let ends = running.replica.log();
        Ok(LeaderRange { start: ends.start, end: ends.end })
    }

    /// A producer writes.
    pub(super) fn produce(
        &mut self,
        client: Machine,
        request: Produce,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let id = request.partition;
        let now = self.now(stage);
        let machine = self.machine;
        let mut refused = None;
        if !self.running.contains_key(&id) {
            refused = Some(None);
        }
        self.with(id, stage, |running, stored, stage, effects| {
            let epoch = match running.replica.may_append(Some(request.acks)) {
                Ok(epoch) => epoch,
                Err(why) => {
                    refused = Some(hint(why));
                    return;
                }
            };
            let own = stored.log.batches().iter().rev().find(|b| b.producer == request.producer);
            let (base, end) = match own {
                // A retry of what is here: it waits for its own batch.
                Some(batch) if batch.sequence == request.sequence => (batch.base, batch.end()),
                Some(batch) if batch.sequence + 1 != request.sequence => {
                    refused = Some(None); // OUT_OF_ORDER_SEQUENCE_NUMBER: a leader that is none any more.
                    return;
                }
                None if request.sequence != 0 && stored.log.ends().start == Offset::ZERO => {
                    refused = Some(None);
                    return;
                }
                Some(_) | None => {
                    let base = stored.log.ends().end;
                    let Produce { count, producer, sequence, .. } = request;
                    stored.log.append(Batch { base, count, epoch, producer, sequence });
                    let end = stored.log.ends().end;
                    running.replica.appended(epoch, end, effects);
                    (base, end)
                }
            };
            let ack = Ack { request, client, base };
            let deadline = now.after(PRODUCE_WAITS);
            if let Some((ack, outcome)) =
                running.replica.await_acks(request.acks, end, deadline, ack)
            {
                effects.push(Effect::Acknowledge { ack, outcome });
            }
            let _ = stage;
        })?;
        if let Some(leader) = refused {
            let result = Produced::Not { leader };
            stage.world.send(machine, client, Message::Produced { request, result });
        }
        Ok(())
    }

    /// A consumer reads.
    pub(super) fn read(
        &mut self,
        client: Machine,
        id: PartitionId,
        offset: Offset,
        anywhere: bool,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let (Some(running), Some(stored)) = (self.running.get(&id), self.stored.get(&id)) else {
            return Ok(());
        };
        let rack = anywhere.then_some("");
        let read = ConsumerRead { leader_epoch: None, offset, last_fetched_epoch: None, rack };
        if let Ok(ConsumerAnswer::Next(next)) = running.replica.consumer_reads(&read, &stored.log) {
            let batches = stored.log.read(next.from, next.below, FETCH_BATCHES_MAX);
            stage.truth.read(id, &batches)?;
            if !batches.is_empty() {
                stage.world.send(
                    self.machine,
                    client,
                    Message::ReadData { partition: id, batches },
                );
            }
        }
        Ok(())
    }
}

/// A fetch waits until there is something to read, or something to tell.
fn wait(
    follower: Machine,
    asked: FetchPosition,
    from: Offset,
    now: Instant,
    running: &mut Running,
) {
    let number = running.next_wait;
    running.next_wait += 1;
    let deadline = now.after(FETCH_WAITS);
    let keys = [On::LogEnd, On::HighWatermark]
        .into_iter()
        .filter_map(|on| running.replica.await_move(on, deadline, number).ok())
        .collect();
    running.waiting.insert(number, Waiting { follower, asked, from, keys });
}

/// A fetch that waited is answered with what there is now; it does not count as a fetch of now.
fn answer(
    machine: Machine,
    id: PartitionId,
    waiting: &Waiting,
    running: &Running,
    stored: &Stored,
    stage: &mut Stage<'_>,
) {
    let Waiting { follower, asked, from, .. } = waiting;
    let leads = matches!(running.replica.role(), Role::Leader(_));
    let result = if leads && running.replica.leader_epoch() == asked.leader_epoch {
        Ok(read_for(*from, running, stored))
    } else {
        Err(FetchError::Other)
    };
    stage.world.send(machine, *follower, Message::Fetched { partition: id, asked: *asked, result });
}

/// What a follower gets that reads on from here.
fn read_for(from: Offset, running: &Running, stored: &Stored) -> (Fetched, Vec<Batch>) {
    let batches = stored.log.read(from, stored.log.ends().end, FETCH_BATCHES_MAX);
    let told = batches.first().zip(batches.last());
    let told = told.map(|(first, last)| FetchedBatches { base: first.base, end: last.end() });
    let answer = Fetched {
        diverging: None,
        high_watermark: running.replica.high_watermark(),
        log_start: stored.log.ends().start,
        batches: told,
    };
    (answer, batches)
}

/// A producer hears what became of its batch.
fn acknowledge(
    (by, machine): (NodeId, Machine),
    ack: &Ack,
    outcome: Result<(), NotCommitted>,
    stage: &mut Stage<'_>,
) -> Result<(), Violation> {
    let Ack { request, client, base } = *ack;
    let result = match outcome {
        Ok(()) => {
            if request.acks == flowstone_partition::Acks::All {
                stage.truth.acknowledge(&request, base)?;
            }
            Produced::Safe { by }
        }
        Err(_) => Produced::Not { leader: None },
    };
    stage.world.send(machine, client, Message::Produced { request, result });
    Ok(())
}

/// What the leader's core is told of a fetch.
fn follower_fetch(
    node: NodeId,
    registration: Registration,
    asked: &FetchPosition,
) -> FollowerFetch {
    let broker_epoch = match registration {
        Registration::Asking { .. } => -1,
        Registration::Registered { epoch, .. } => epoch,
    };
    FollowerFetch {
        node,
        broker_epoch,
        leader_epoch: Some(asked.leader_epoch),
        offset: asked.offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        log_start: asked.log_start,
        high_watermark: Some(asked.high_watermark),
    }
}

/// As node/wire tells it.
const fn fetch_error(refused: Refused) -> FetchError {
    match refused {
        Refused::OffsetOutOfRange => FetchError::OffsetOutOfRange,
        Refused::FencedLeaderEpoch(_) => FetchError::FencedLeaderEpoch,
        Refused::NotLeader(_)
        | Refused::UnknownLeaderEpoch
        | Refused::NotEnoughReplicas
        | Refused::OffsetNotAvailable
        | Refused::Offline => FetchError::Other,
    }
}

/// Where a producer should go instead (KIP-951).
const fn hint(refused: Refused) -> Option<NodeId> {
    match refused {
        Refused::NotLeader(current) | Refused::FencedLeaderEpoch(current) => current.leader,
        Refused::OffsetOutOfRange
        | Refused::UnknownLeaderEpoch
        | Refused::NotEnoughReplicas
        | Refused::OffsetNotAvailable
        | Refused::Offline => None,
    }
}
