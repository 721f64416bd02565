//! What a simulated broker answers to followers, producers and consumers.
//!
//! Separate from `perform.rs`, which does what the core wants done: here others ask, and every request goes through
//! the core.

use flowstone_partition::{
    ConsumerAnswer, ConsumerRead, Effect, FetchError, FetchPosition, Fetched, FetchedBatches,
    FollowerAnswer, FollowerFetch, LeaderRange, NotCommitted, On, Refused, Role,
};
use flowstone_types::{Instant, NodeId, Offset, PartitionId};

use super::broker::{
    Ack, Broker, FETCH_BATCHES_MAX, FETCH_WAITS, PRODUCE_WAITS, Registration, Running, Stored,
    Waiting,
};
use super::cast::Stage;
use super::log::Batch;
use super::message::{Message, Produce, Produced};
use crate::run::Violation;
use crate::world::Machine;

impl Broker {
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
pub(super) fn answer(
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
pub(super) fn acknowledge(
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
pub(super) fn follower_fetch(
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
