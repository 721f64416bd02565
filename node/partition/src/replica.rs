//! One replica: its role, and what every role has.
//!
//! Separate because metadata, the disk and the clock concern every role. Invariants: leader and
//! partition epochs never go back; `start <= high watermark <= durable <= end` once open, but for a
//! high watermark that was loaded and not reached yet; an offline replica never takes a wait.

use crate::effect::{Effect, NotCommitted, Refused};
use crate::follower::{Fetching, Follower};
use crate::leader::{Acks, Leader};
use crate::metadata::{Brokers, CurrentLeader, EpochCache, LogEnds, Metadata, Rules};
use crate::waits::{On, WaitKey, Waits};
use alloc::vec::Vec;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};

/// One partition's replica on this broker.
pub struct Replica<A, W> {
    pub(crate) me: NodeId,
    pub(crate) rules: Rules,
    pub(crate) role: Role,
    pub(crate) log: LogEnds,
    pub(crate) high_watermark: Offset,
    /// The leader by the latest metadata, for those who ask the wrong broker.
    pub(crate) leader: Option<NodeId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) partition_epoch: i32,
    pub(crate) waits: Waits<A, W>,
    pub(crate) next_change: u64,
    /// The latest time told: a follower counts as caught up a little longer where it is behind,
    /// which holds the high watermark back, and so is safe.
    pub(crate) now: Instant,
}

/// What a replica is to its partition.
#[derive(Clone, Debug)]
pub enum Role {
    /// Its log is not there: nothing can be done, whatever the controller says.
    Offline(WhyOffline),
    /// It leads.
    Leader(Leader),
    /// It follows a leader, or waits for one.
    Follower(Follower),
}

/// Why a replica is offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyOffline {
    /// Its log was not opened yet.
    NotOpen,
    /// Its log failed, for good.
    Failed,
    /// It was deleted, or taken away from this broker.
    Closed,
}

impl<A, W> Replica<A, W> {
    /// The replica on broker `me`, before its log is open.
    pub const fn new(me: NodeId, rules: Rules) -> Self {
        Self {
            me,
            rules,
            role: Role::Offline(WhyOffline::NotOpen),
            log: LogEnds { start: Offset::ZERO, end: Offset::ZERO, durable: Offset::ZERO },
            high_watermark: Offset::ZERO,
            leader: None,
            leader_epoch: LeaderEpoch::NONE,
            partition_epoch: -1,
            waits: Waits::new(),
            next_change: 0,
            now: Instant(0),
        }
    }

    /// Its log is open; `high_watermark` is the one that was stored. Until metadata is applied it
    /// follows nobody.
    pub fn opened(&mut self, log: LogEnds, high_watermark: Offset) {
        assert!(matches!(self.role, Role::Offline(WhyOffline::NotOpen)), "a log is opened once");
        assert!(log.start <= log.durable);
        assert!(log.durable <= log.end);
        self.log = log;
        self.high_watermark = high_watermark.max(log.start).min(log.durable);
        self.role = Role::Follower(Follower::new(None, None));
    }

    /// Its role, with what is true in it.
    pub const fn role(&self) -> &Role {
        &self.role
    }

    /// How far its log reaches.
    pub const fn log(&self) -> LogEnds {
        self.log
    }

    /// Consumers may read everything below this.
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The latest leader epoch.
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The latest partition epoch.
    pub const fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// Who leads (KIP-951).
    pub const fn current_leader(&self) -> CurrentLeader {
        CurrentLeader { leader: self.leader, epoch: self.leader_epoch }
    }

    /// The rules in force.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Puts other rules in force.
    pub fn reconfigure(&mut self, rules: Rules, effects: &mut Vec<Effect<A, W>>) {
        self.rules = rules;
        self.raise_high_watermark(effects);
    }

    /// The controller decided. What is older than what is known is ignored. `epochs` are those of
    /// the log as it is.
    pub fn apply(
        &mut self,
        told: &Metadata<'_>,
        brokers: &impl Brokers,
        epochs: &impl EpochCache,
        now: Instant,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        self.now = self.now.max(now);
        if told.partition_epoch < self.partition_epoch || told.leader_epoch < self.leader_epoch {
            return;
        }
        let is_new_epoch = told.leader_epoch > self.leader_epoch;
        self.leader = told.leader;
        self.leader_epoch = told.leader_epoch;
        let leads = told.leader == Some(self.me);
        if let Role::Leader(_) = &self.role
            && leads
            && !is_new_epoch
        {
            self.lead_on(told, brokers, effects);
            return;
        }
        if is_new_epoch {
            self.waits.ring_all(effects); // Who fetches in an earlier epoch is fenced now.
        }
        self.partition_epoch = told.partition_epoch;
        match &self.role {
            Role::Offline(_) => {}
            Role::Leader(_) | Role::Follower(_) if leads => {
                self.begin_to_lead(told, brokers, effects);
            }
            Role::Leader(_) => {
                self.waits.dismiss(NotCommitted::NotLeader, effects);
                self.begin_to_follow(told.leader, epochs, effects);
            }
            Role::Follower(follower) => {
                if is_new_epoch || follower.leader != told.leader {
                    self.begin_to_follow(told.leader, epochs, effects);
                }
            }
        }
    }

    /// Everything below `end` meets the log's durability mode. Ends only grow, unless the log is
    /// truncated between.
    pub fn durable(&mut self, end: Offset, effects: &mut Vec<Effect<A, W>>) {
        if end <= self.log.durable {
            return;
        }
        assert!(end <= self.log.end, "what is durable was appended");
        self.log.durable = end;
        match &self.role {
            Role::Offline(_) => {}
            Role::Leader(_) => {
                self.waits.durable.release(end, Ok(()), effects);
                self.raise_high_watermark(effects);
            }
            Role::Follower(_) => self.durable_at_follower(effects),
        }
    }

    /// Lets the high watermark follow what is committed.
    pub(crate) fn raise_high_watermark(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(committed) = leader.committed_end(&self.log, &self.rules, self.now) else {
            return;
        };
        if committed <= self.high_watermark {
            return;
        }
        let outcome = leader.outcome(&self.rules);
        self.high_watermark = committed;
        effects.push(Effect::HighWatermark(committed));
        self.waits.committed.release(committed, outcome, effects);
        self.waits.ring(On::HighWatermark, effects);
    }

    /// `ack` waits until what was appended up to `end` is as safe as its producer wants, or until
    /// `deadline`. Handed back with its outcome where there is nothing to wait for.
    pub fn await_acks(
        &mut self,
        acks: Acks,
        end: Offset,
        deadline: Instant,
        ack: A,
    ) -> Option<(A, Result<(), NotCommitted>)> {
        let leader = match &self.role {
            Role::Leader(leader) => leader,
            Role::Follower(_) => return Some((ack, Err(NotCommitted::NotLeader))),
            Role::Offline(_) => return Some((ack, Err(NotCommitted::Offline))),
        };
        let (reached, outcome, queue) = match acks {
            Acks::All => {
                (self.high_watermark, leader.outcome(&self.rules), &mut self.waits.committed)
            }
            Acks::Leader => (self.log.durable, Ok(()), &mut self.waits.durable),
        };
        if end <= reached {
            return Some((ack, outcome));
        }
        queue.push(end, deadline, ack);
        None
    }

    /// `wake` is handed out once, at the next move of `on` or at `deadline`; at once, by `Err`,
    /// where nothing will ever move again.
    pub fn await_move(&mut self, on: On, deadline: Instant, wake: W) -> Result<WaitKey, W> {
        if let Role::Offline(_) = self.role {
            return Err(wake);
        }
        Ok(self.waits.wait(on, deadline, wake))
    }

    /// Who waited with `key` has its answer; its wake-up, if still here, is dropped.
    pub fn forget(&mut self, key: WaitKey) {
        self.waits.forget(key);
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant, effects: &mut Vec<Effect<A, W>>) {
        self.now = self.now.max(now);
        self.waits.expire(self.now, effects);
        self.tick_leader(effects);
        self.tick_follower(effects);
    }

    /// When to `tick` at the latest.
    pub fn next_deadline(&self) -> Instant {
        let own = match &self.role {
            Role::Offline(_) => Instant::NEVER,
            Role::Leader(leader) => {
                leader.isr.retry_at().unwrap_or(Instant::NEVER).min(leader.next_shrink_check)
            }
            Role::Follower(follower) => match follower.fetching {
                Fetching::BackingOff { until } => until,
                _ => Instant::NEVER,
            },
        };
        own.min(self.waits.next_deadline())
    }

    /// Retention moved the log's start.
    pub fn log_start_raised(&mut self, to: Offset, effects: &mut Vec<Effect<A, W>>) {
        assert!(to <= self.high_watermark, "nothing is deleted that is not committed");
        if to > self.log.start {
            self.log.start = to;
            self.waits.ring(On::LowWatermark, effects);
        }
    }

    /// The disk is full: what waits may be committed later, but its producers should not wait.
    pub fn stalled(&mut self, effects: &mut Vec<Effect<A, W>>) {
        self.waits.dismiss(NotCommitted::Stalled, effects);
    }

    /// The log failed for good: nobody who waits, or comes to wait, will get what they wait for.
    pub fn failed(&mut self, effects: &mut Vec<Effect<A, W>>) {
        self.go_offline(WhyOffline::Failed, effects);
    }

    /// The partition was deleted, or taken away from this broker.
    pub fn close(&mut self, effects: &mut Vec<Effect<A, W>>) {
        self.go_offline(WhyOffline::Closed, effects);
    }

    fn go_offline(&mut self, why: WhyOffline, effects: &mut Vec<Effect<A, W>>) {
        self.role = Role::Offline(why);
        self.waits.dismiss(NotCommitted::Offline, effects);
    }

    pub(crate) const fn not_leader(&self) -> Refused {
        match self.role {
            Role::Offline(_) => Refused::Offline,
            Role::Leader(_) | Role::Follower(_) => Refused::NotLeader(self.current_leader()),
        }
    }

    pub(crate) const fn leader_or_refused(&self) -> Result<&Leader, Refused> {
        match &self.role {
            Role::Leader(leader) => Ok(leader),
            Role::Offline(_) | Role::Follower(_) => Err(self.not_leader()),
        }
    }
}
