//! A replica on broker 1 with a log of its own, for rule tests: each call returns its effects.

#![allow(dead_code)] // Each test file uses its part.

use flowstone_log::Epochs;
use flowstone_partition::*;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};
use std::collections::BTreeMap;
use std::time::Duration;

pub const ME: NodeId = NodeId(1);
pub const LAG: Duration = Duration::from_secs(30);

pub type Effects = Vec<Effect<u32, char>>;

pub struct Cache<'a>(pub &'a Epochs, pub Offset);

impl EpochCache for Cache<'_> {
    fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let (epoch, end) = self.0.end_of(epoch, self.1);
        (epoch.0 >= 0 && end.0 >= 0).then_some(EpochEnd { epoch, end })
    }

    fn latest(&self) -> Option<LeaderEpoch> {
        self.0.latest()
    }
}

/// A partition as the controller has it.
#[derive(Clone)]
pub struct Told {
    pub leader: i32,
    pub epoch: i32,
    pub partition_epoch: i32,
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
    pub recovering: bool,
}

pub fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub fn told(leader: i32, epoch: i32, partition_epoch: i32, replicas: &[i32], isr: &[i32]) -> Told {
    let (replicas, isr) = (nodes(replicas), nodes(isr));
    Told { leader, epoch, partition_epoch, replicas, isr, recovering: false }
}

pub struct Sut {
    pub replica: Replica<u32, char>,
    pub epochs: Epochs,
    /// Every broker is registered with epoch `100 + id`, until a test says otherwise.
    pub brokers: BTreeMap<i32, Broker>,
    pub now: Instant,
}

impl Sut {
    /// A log that ends at `end`, all durable, with batches of the epochs that began at `epochs`.
    pub fn new(end: i64, high_watermark: i64, epochs: &[(i32, i64)]) -> Self {
        let mut cache = Epochs::default();
        for (epoch, start) in epochs {
            cache.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        let mut replica = Replica::new(ME, Rules { lag_time_max: LAG, ..Rules::default() });
        let ends = LogEnds { start: Offset(0), end: Offset(end), durable: Offset(end) };
        replica.opened(ends, Offset(high_watermark));
        let broker =
            |id| Broker { epoch: 100 + i64::from(id), fenced: false, shutting_down: false };
        let brokers = (1..=5).map(|id| (id, broker(id))).collect();
        Self { replica, epochs: cache, brokers, now: Instant::default().after(10 * LAG) }
    }

    /// Leads partition `[1, 2, 3]` with `isr` in epoch 5 from offset 10 on.
    pub fn leading(isr: &[i32]) -> Self {
        let mut sut = Self::new(10, 10, &[(4, 0)]);
        sut.apply(&told(1, 5, 20, &[1, 2, 3], isr));
        sut
    }

    /// Follows 2 in epoch 5; its own log has epoch 4 and ends at 10.
    pub fn following() -> Self {
        let mut sut = Self::new(10, 5, &[(4, 0)]);
        sut.apply(&told(2, 5, 20, &[1, 2, 3], &[1, 2, 3]));
        sut
    }

    pub fn apply(&mut self, told: &Told) -> Effects {
        let metadata = Metadata {
            leader: (told.leader >= 0).then_some(NodeId(told.leader)),
            leader_epoch: LeaderEpoch(told.epoch),
            partition_epoch: told.partition_epoch,
            replicas: &told.replicas,
            isr: &told.isr,
            recovering: told.recovering,
        };
        let mut effects = Vec::new();
        let cache = Cache(&self.epochs, self.replica.log().end);
        let brokers = |id: NodeId| self.brokers.get(&id.0).copied();
        self.replica.apply(&metadata, &brokers, &cache, self.now, &mut effects);
        self.perform(effects)
    }

    /// What a log would do: the epoch cache follows.
    fn perform(&mut self, effects: Effects) -> Effects {
        for effect in &effects {
            match effect {
                Effect::BeginEpoch(epoch) => self.epochs.assign(*epoch, self.replica.log().end),
                Effect::Truncate(to) => self.epochs.truncate_from_end(*to),
                Effect::StartAt { .. } => self.epochs = Epochs::default(),
                _ => {}
            }
        }
        effects
    }

    pub fn brokers_changed(&mut self) -> Effects {
        let mut effects = Vec::new();
        let brokers = |id: NodeId| self.brokers.get(&id.0).copied();
        self.replica.brokers_changed(&brokers, &mut effects);
        effects
    }

    /// Appends up to `end` as the leader, durably.
    pub fn append(&mut self, end: i64) -> Effects {
        let mut effects = self.append_undurably(end);
        effects.extend(self.durable(end));
        effects
    }

    pub fn append_undurably(&mut self, end: i64) -> Effects {
        let epoch = self.replica.may_append(None).expect("it leads");
        self.epochs.assign(epoch, self.replica.log().end);
        let mut effects = Vec::new();
        self.replica.appended(epoch, Offset(end), &mut effects);
        effects
    }

    pub fn durable(&mut self, end: i64) -> Effects {
        let mut effects = Vec::new();
        self.replica.durable(Offset(end), &mut effects);
        effects
    }

    pub fn tick(&mut self, later: Duration) -> Effects {
        self.now = self.now.after(later);
        let mut effects = Vec::new();
        self.replica.tick(self.now, &mut effects);
        effects
    }

    /// `node` fetches at `offset` in this leader's epoch, as the broker that is registered.
    pub fn fetch(&mut self, node: i32, offset: i64) -> Effects {
        let broker_epoch = self.brokers.get(&node).map_or(-1, |broker| broker.epoch);
        self.fetch_as(&FollowerFetch {
            node: NodeId(node),
            broker_epoch,
            leader_epoch: Some(self.replica.leader_epoch()),
            offset: Offset(offset),
            last_fetched_epoch: None,
            log_start: Offset(0),
            high_watermark: None,
        })
        .expect("it may fetch")
        .1
    }

    pub fn fetch_as(
        &mut self,
        fetch: &FollowerFetch,
    ) -> Result<(FollowerAnswer, Effects), Refused> {
        let mut effects = Vec::new();
        let cache = Cache(&self.epochs, self.replica.log().end);
        let answer = self.replica.follower_fetched(fetch, &cache, self.now, &mut effects)?;
        Ok((answer, effects))
    }

    pub fn answered(
        &mut self,
        request: &AlterPartition,
        answer: Result<Altered, AlterPartitionError>,
    ) -> Effects {
        let mut effects = Vec::new();
        self.replica.alter_partition_answered(request.id, answer, self.now, &mut effects);
        effects
    }

    /// As the controller answers that applies the request.
    pub fn applied(&mut self, request: &AlterPartition) -> Effects {
        let altered = Altered {
            leader_epoch: request.leader_epoch,
            partition_epoch: request.partition_epoch + 1,
            isr: request.isr.iter().map(|member| member.node).collect(),
        };
        self.answered(request, Ok(altered))
    }

    pub fn fetched(&mut self, asked: &FetchPosition, answer: &Fetched) -> Effects {
        let mut effects = Vec::new();
        let cache = Cache(&self.epochs, self.replica.log().end);
        self.replica.fetched(asked, answer, &cache, self.now, &mut effects);
        self.perform(effects)
    }

    /// Out of range, and told the leader's.
    pub fn leader_range(&mut self, start: i64, end: i64) -> Effects {
        let (asked, mut effects) = (self.position(), Vec::new());
        self.replica.fetch_failed(&asked, FetchError::OffsetOutOfRange, self.now, &mut effects);
        effects.clear();
        let range = LeaderRange { start: Offset(start), end: Offset(end) };
        self.replica.leader_range(asked.leader_epoch, range, &mut effects);
        self.perform(effects)
    }

    /// The batches that were asked for are in the log, durably.
    pub fn copied(&mut self, end: i64, epoch: i32) -> Effects {
        self.epochs.assign(LeaderEpoch(epoch), self.replica.log().end);
        let mut effects = Vec::new();
        self.replica.batches_appended(Offset(end), LeaderEpoch(epoch), &mut effects);
        effects.extend(self.durable(end));
        effects
    }

    pub fn truncated(&mut self) -> Effects {
        let mut effects = Vec::new();
        let cache = Cache(&self.epochs, self.replica.log().end);
        self.replica.truncated(&cache, &mut effects);
        effects
    }

    pub fn position(&self) -> FetchPosition {
        self.replica.fetch_position().expect("it fetches")
    }

    pub fn leader(&self) -> &Leader {
        match self.replica.role() {
            Role::Leader(leader) => leader,
            role => panic!("no leader: {role:?}"),
        }
    }

    pub fn fetching(&self) -> Fetching {
        match self.replica.role() {
            Role::Follower(follower) => follower.fetching(),
            role => panic!("no follower: {role:?}"),
        }
    }

    pub fn high_watermark(&self) -> i64 {
        self.replica.high_watermark().0
    }

    /// `ack` waits; what it is told at once, if anything.
    pub fn wait(&mut self, acks: Acks, end: i64, ack: u32) -> Option<Result<(), NotCommitted>> {
        let told = self.replica.await_acks(acks, Offset(end), Instant::NEVER, ack);
        told.map(|(_, outcome)| outcome)
    }

    pub fn wait_until(&mut self, end: i64, deadline: Instant, ack: u32) {
        let told = self.replica.await_acks(Acks::All, Offset(end), deadline, ack);
        assert!(told.is_none());
    }

    pub fn listen(&mut self, on: On, wake: char) -> WaitKey {
        self.replica.await_move(on, Instant::NEVER, wake).expect("it is open")
    }
}

/// The one AlterPartition among the effects.
pub fn wished(effects: &Effects) -> AlterPartition {
    let mut found = effects.iter().filter_map(|effect| match effect {
        Effect::AlterPartition(request) => Some(request.clone()),
        _ => None,
    });
    let request = found.next().expect("a wish");
    assert!(found.next().is_none(), "one at a time");
    request
}

pub fn isr_of(request: &AlterPartition) -> Vec<i32> {
    request.isr.iter().map(|member| member.node.0).collect()
}

/// Who was acknowledged.
pub fn acks(effects: &Effects) -> Vec<(u32, Result<(), NotCommitted>)> {
    let told = |effect: &Effect<u32, char>| match effect {
        Effect::Acknowledge { ack, outcome } => Some((*ack, *outcome)),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

/// Who was woken.
pub fn wakes(effects: &Effects) -> String {
    let woken = |effect: &Effect<u32, char>| match effect {
        Effect::Wake(wake) => Some(*wake),
        _ => None,
    };
    effects.iter().filter_map(woken).collect()
}
