//! Producers and consumers of a simulated cluster.
//!
//! A producer has one batch under way, and retries it until it is told that it is safe: what it was told
//! must be true for ever. Some producers want less (acks=1), and are told less. A consumer reads here and
//! there.

use std::collections::BTreeMap;

use flowstone_partition::Acks;
use flowstone_types::{NodeId, Offset, PartitionId};

use super::cast::{Cast, Stage};
use super::message::{Io, Message, Produce, Produced};
use crate::random::Random;
use crate::world::{MILLI, Micros};

/// Producers from this number on use acks=1, and do not retry.
pub const WITHOUT_RETRIES: u16 = 1000;
/// How long a producer waits for an answer.
const ANSWER_WITHIN: Micros = 4_000 * MILLI;
/// Its pause after a refusal.
const RETRY_AFTER: Micros = 100 * MILLI;

struct Producer {
    number: u16,
    /// The batch under way, and how often it was sent.
    request: Option<Produce>,
    attempts: u32,
    sequences: BTreeMap<PartitionId, u32>,
    leaders: BTreeMap<PartitionId, NodeId>,
}

/// All clients, on one machine.
pub struct Clients {
    cast: Cast,
    random: Random,
    producers: Vec<Producer>,
    partitions: Vec<PartitionId>,
    pause: Micros,
    /// Whether new batches are made.
    pub writing: bool,
}

impl Clients {
    /// So many producers, with about this pause between two batches.
    pub fn new(cast: Cast, count: u16, pause: Micros, seed: u64) -> Self {
        let producer = |number: u16| Producer {
            number: if number % 4 == 3 { WITHOUT_RETRIES + number } else { number },
            request: None,
            attempts: 0,
            sequences: BTreeMap::new(),
            leaders: BTreeMap::new(),
        };
        let producers = (0..count).map(producer).collect();
        let random = Random::new(seed, 3 << 32);
        Self { cast, random, producers, partitions: Vec::new(), pause, writing: true }
    }

    /// They begin.
    pub fn start(&mut self, stage: &mut Stage<'_>) {
        for place in 0..self.producers.len() {
            self.next(place, stage);
        }
    }

    /// A partition is there to be written to.
    pub fn created(&mut self, id: PartitionId) {
        self.partitions.push(id);
    }

    /// A partition is gone: what was under way for it is given up.
    pub fn deleted(&mut self, id: PartitionId, stage: &mut Stage<'_>) {
        self.partitions.retain(|other| *other != id);
        for place in 0..self.producers.len() {
            if self.producers[place].request.is_some_and(|request| request.partition == id) {
                self.producers[place].request = None;
                self.next(place, stage);
            }
        }
    }

    /// Whether nothing is under way, but for partitions that are `lost`.
    pub fn are_idle(&self, lost: impl Fn(PartitionId) -> bool) -> bool {
        let mut requests = self.producers.iter().filter_map(|producer| producer.request);
        requests.all(|request| lost(request.partition))
    }

    fn next(&mut self, place: usize, stage: &mut Stage<'_>) {
        let pause = 1 + self.random.below(2 * self.pause);
        let io = Io::ProduceNow { producer: place, attempt: self.producers[place].attempts };
        stage.world.done_after(self.cast.clients, pause, io);
    }

    /// A message arrives.
    pub fn message(&mut self, message: &Message, stage: &mut Stage<'_>) {
        let Message::Produced { request, result } = message else { return };
        let under_way = |producer: &Producer| producer.request == Some(*request);
        let Some(place) = self.producers.iter().position(under_way) else { return };
        let producer = &mut self.producers[place];
        producer.attempts += 1;
        match result {
            Produced::Safe { by } => {
                producer.leaders.insert(request.partition, *by);
                *producer.sequences.entry(request.partition).or_insert(0) += 1;
                producer.request = None;
                self.next(place, stage);
            }
            Produced::Not { leader } => {
                match leader {
                    Some(leader) => producer.leaders.insert(request.partition, *leader),
                    None => producer.leaders.remove(&request.partition),
                };
                self.retry(place, RETRY_AFTER, stage);
            }
        }
    }

    fn retry(&mut self, place: usize, after: Micros, stage: &mut Stage<'_>) {
        let producer = &mut self.producers[place];
        if producer.number >= WITHOUT_RETRIES {
            // It does not know what became of the batch, and goes on with the next one.
            let request = producer.request.take().expect("it was under way");
            *producer.sequences.entry(request.partition).or_insert(0) += 1;
            self.next(place, stage);
            return;
        }
        let io = Io::ProduceNow { producer: place, attempt: producer.attempts };
        stage.world.done_after(self.cast.clients, after, io);
    }

    /// A producer's time has come: to send, to send again, or to wait no longer.
    pub fn produce(&mut self, place: usize, attempt: u32, stage: &mut Stage<'_>) {
        let producer = &mut self.producers[place];
        if attempt != producer.attempts {
            return; // An answer was faster.
        }
        if producer.request.is_none() {
            if !self.writing {
                return;
            }
            if self.partitions.is_empty() {
                self.next(place, stage);
                return;
            }
            let partition = self.random.one_of(&self.partitions);
            let number = producer.number;
            let sequence = producer.sequences.get(&partition).copied().unwrap_or(0);
            let acks = if number >= WITHOUT_RETRIES { Acks::Leader } else { Acks::All };
            let count = self.random.between(1, 3) as i64;
            producer.request = Some(Produce { partition, producer: number, sequence, count, acks });
        } else {
            // No answer, or a refusal: somewhere else, maybe.
            producer.attempts += 1;
        }
        let request = producer.request.expect("just made, or still there");
        let brokers = u64::from(self.cast.brokers);
        let some = NodeId(self.random.below(brokers) as i32);
        // Known for one attempt: where nothing comes back, another one is asked.
        let leader = producer.leaders.remove(&request.partition).unwrap_or(some);
        stage.world.send(self.cast.clients, self.cast.machine(leader), Message::Produce(request));
        let io = Io::ProduceNow { producer: place, attempt: producer.attempts };
        stage.world.done_after(self.cast.clients, ANSWER_WITHIN, io);
        if self.random.chance(300) {
            self.read(request.partition, stage);
        }
    }

    fn read(&mut self, partition: PartitionId, stage: &mut Stage<'_>) {
        let end = stage.truth.partition(partition).high_watermark();
        let offset = Offset(self.random.between(0, end.0 as u64) as i64);
        let brokers = u64::from(self.cast.brokers);
        let broker = NodeId(self.random.below(brokers) as i32);
        let anywhere = self.random.chance(500);
        let message = Message::Read { partition, offset, anywhere };
        stage.world.send(self.cast.clients, self.cast.machine(broker), message);
    }
}
