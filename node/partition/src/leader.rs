//! The leader of one partition: followers' fetches, the high watermark, the ISR's changes.
//!
//! Invariants: the high watermark is at most what every member of the maximal ISR has (KIP-497), this
//! replica's own flushed end included, and stands while the ISR is below the effective minimum (KIP-966); the
//! ISR is left and joined only through the controller, and joined from the high watermark and this epoch's start
//! on (KAFKA-7128) by who fetches as the broker that is registered (KIP-903) and neither fenced nor on its way out
//! (KIP-841).

use crate::effect::{Effect, NotCommitted, Refused};
use crate::isr::{AlterPartition, AlterPartitionError, Altered, ChangeId, Isr, IsrMember};
use crate::metadata::{Broker, Brokers, EpochCache, EpochEnd, LogEnds, Metadata, Rules};
use crate::progress::{LastFetch, Progress};
use crate::replica::{Replica, Role};
use crate::waits::On;
use alloc::vec::Vec;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};

/// How much a producer wants to be sure of; one that sends acks=0 waits for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// acks=1: the leader's own disk.
    Leader,
    /// acks=all: every in-sync replica.
    All,
}

/// What the leader's role has beside what every replica has.
#[derive(Clone, Debug)]
pub struct Leader {
    pub(crate) epoch_start: Offset,
    pub(crate) isr: Isr,
    pub(crate) followers: Vec<Progress>,
    /// This broker's registration in the latest image.
    me: Option<Broker>,
    /// An unclean election's leader: that it recovered is still to be said.
    must_report_recovery: bool,
    /// When followers are next looked at for shrinking.
    pub(crate) next_shrink_check: Instant,
}

/// A follower's fetch of this partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerFetch {
    /// Who.
    pub node: NodeId,
    /// ReplicaEpoch (KIP-903); -1 where it is not told.
    pub broker_epoch: i64,
    /// CurrentLeaderEpoch; `None` where it is not told.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Where it wants to read on, and so where its log ends.
    pub offset: Offset,
    /// The epoch of its last batch; `None` where it has none.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Its log start offset.
    pub log_start: Offset,
    /// Its high watermark (Fetch v18); `None` where it is not told.
    pub high_watermark: Option<Offset>,
}

/// What a follower gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowerAnswer {
    /// Its log parted from ours: DivergingEpoch (KIP-595).
    Diverging(EpochEnd),
    /// It may read on.
    Next(NextData),
}

/// What to answer a fetch with, and what may be read for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextData {
    /// Read from here,
    pub from: Offset,
    /// and only what is below.
    pub below: Offset,
    /// To be told in the answer.
    pub high_watermark: Offset,
    /// To be told in the answer.
    pub log_start: Offset,
    /// Whether to answer even if there are no bytes: the asker's high watermark is behind.
    pub has_news: bool,
}

impl Leader {
    pub(crate) fn new(
        told: &Metadata<'_>,
        me: NodeId,
        brokers: &impl Brokers,
        epoch_start: Offset,
        rules: &Rules,
        now: Instant,
    ) -> Self {
        let mut leader = Self {
            epoch_start,
            isr: Isr::new(told.isr),
            followers: Vec::new(),
            me: brokers.broker(me),
            must_report_recovery: told.recovering,
            next_shrink_check: Instant::NEVER,
        };
        leader.assign(told, me, brokers, rules, now);
        leader
    }

    /// Followers come and go with the assignment. Who is in the ISR has all the time of
    /// `replica.lag.time.max.ms` to fetch first; who is not does not hold the high watermark back.
    fn assign(
        &mut self,
        told: &Metadata<'_>,
        me: NodeId,
        brokers: &impl Brokers,
        rules: &Rules,
        now: Instant,
    ) {
        let is_follower = |node: &NodeId| *node != me && told.replicas.contains(node);
        self.followers.retain(|follower| is_follower(&follower.node));
        for node in told.replicas.iter().filter(|node| is_follower(node)) {
            if self.follower(*node).is_none() {
                let caught_up = told.isr.contains(node).then_some(now);
                self.followers.push(Progress::new(*node, brokers.broker(*node), caught_up));
            }
        }
        let check = now.after(rules.lag_time_max / 2);
        self.next_shrink_check = if self.followers.is_empty() {
            Instant::NEVER
        } else {
            self.next_shrink_check.min(check)
        };
    }

    /// Where this leadership began: the log's end then.
    pub const fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// The in-sync replicas.
    pub const fn isr(&self) -> &Isr {
        &self.isr
    }

    /// What is known of `node`.
    pub fn follower(&self, node: NodeId) -> Option<&Progress> {
        self.followers.iter().find(|follower| follower.node == node)
    }

    /// What is known of each.
    pub fn followers(&self) -> &[Progress] {
        &self.followers
    }

    /// `min.insync.replicas`, or all replicas where there are fewer.
    pub fn effective_min_isr(&self, rules: &Rules) -> usize {
        rules.min_insync_replicas.min(self.followers.len() + 1)
    }

    /// Whether the committed ISR is below the minimum.
    pub fn is_under_min_isr(&self, rules: &Rules) -> bool {
        self.isr.committed().len() < self.effective_min_isr(rules)
    }

    /// What an acknowledgement of committed records says.
    pub(crate) fn outcome(&self, rules: &Rules) -> Result<(), NotCommitted> {
        if self.isr.maximal_len() < self.effective_min_isr(rules) {
            return Err(NotCommitted::NotEnoughReplicasAfterAppend);
        }
        Ok(())
    }

    /// How far everything is committed; `None` where that cannot be said.
    pub(crate) fn committed_end(
        &self,
        log: &LogEnds,
        rules: &Rules,
        now: Instant,
    ) -> Option<Offset> {
        if self.is_under_min_isr(rules) {
            return None;
        }
        let mut lowest = log.durable;
        for follower in &self.followers {
            // A follower that is about to join holds the high watermark back, too: otherwise it
            // would run after it for ever.
            if self.isr.is_maximal_member(follower.node)
                || (follower.is_caught_up(log.end, now, rules.lag_time_max)
                    && follower.is_eligible())
            {
                lowest = lowest.min(follower.end()?);
            }
        }
        Some(lowest)
    }

    /// The least log start offset of all live replicas; `None` before all of them have told theirs.
    pub(crate) fn low_watermark(&self, log: &LogEnds) -> Option<Offset> {
        let mut lowest = log.start;
        for follower in self.followers.iter().filter(|follower| follower.is_alive()) {
            lowest = lowest.min(follower.last?.log_start);
        }
        Some(lowest)
    }

    fn members(&self, me: NodeId, nodes: impl Iterator<Item = NodeId>) -> Vec<IsrMember> {
        let epoch_of = |node| {
            if node == me {
                return self.me.map_or(-1, |broker| broker.epoch);
            }
            // One that never fetched may stand with -1: if it crashed, the controller has taken it
            // out, and refuses this request for its partition epoch.
            self.follower(node)
                .and_then(|follower| follower.last)
                .map_or(-1, |last| last.broker_epoch)
        };
        nodes.map(|node| IsrMember { node, broker_epoch: epoch_of(node) }).collect()
    }
}

impl<A, W> Replica<A, W> {
    /// Whether a batch may be appended now, and under which epoch. `acks` is `None` for acks=0. The
    /// append, and `appended` after it, come before any other input.
    pub fn may_append(&self, acks: Option<Acks>) -> Result<LeaderEpoch, Refused> {
        let leader = self.leader_or_refused()?;
        if acks == Some(Acks::All) && leader.is_under_min_isr(&self.rules) {
            return Err(Refused::NotEnoughReplicas);
        }
        Ok(self.leader_epoch)
    }

    /// What `may_append` allowed is in the log, which now ends at `end`.
    pub fn appended(&mut self, epoch: LeaderEpoch, end: Offset, effects: &mut Vec<Effect<A, W>>) {
        assert!(matches!(self.role, Role::Leader(_)), "only a leader appends");
        assert!(epoch == self.leader_epoch, "appends are made under the current leader epoch");
        assert!(end >= self.log.end, "an append does not shorten a log");
        self.log.end = end;
        self.waits.ring(On::LogEnd, effects);
    }

    /// What a follower's fetch may read now. For a fetch that waited and looks again: it was noted
    /// when it came, and says nothing about now.
    pub fn follower_reads(
        &self,
        fetch: &FollowerFetch,
        epochs: &impl EpochCache,
    ) -> Result<FollowerAnswer, Refused> {
        self.check_leader_epoch(fetch.leader_epoch)?;
        let (leader, log) = (self.leader_or_refused()?, &self.log);
        let Some(follower) = leader.follower(fetch.node) else {
            // With an epoch that is ours, it knows of an assignment that we will come to know.
            return Err(match fetch.leader_epoch {
                Some(_) => Refused::UnknownLeaderEpoch,
                None => self.not_leader(),
            });
        };
        if follower.is_stale(fetch.broker_epoch) {
            return Err(self.not_leader());
        }
        if let Some(parted) = log.diverging(fetch.last_fetched_epoch, fetch.offset, epochs)? {
            return Ok(FollowerAnswer::Diverging(parted));
        }
        if fetch.offset < log.start || fetch.offset > log.end {
            return Err(Refused::OffsetOutOfRange);
        }
        Ok(FollowerAnswer::Next(NextData {
            from: fetch.offset,
            below: log.end,
            high_watermark: self.high_watermark,
            log_start: log.start,
            has_news: fetch.high_watermark.is_some_and(|known| known < self.high_watermark),
        }))
    }

    /// A follower fetches: notes how far it is, and says what it gets.
    pub fn follower_fetched(
        &mut self,
        fetch: &FollowerFetch,
        epochs: &impl EpochCache,
        now: Instant,
        effects: &mut Vec<Effect<A, W>>,
    ) -> Result<FollowerAnswer, Refused> {
        self.now = self.now.max(now);
        let answer = self.follower_reads(fetch, epochs)?;
        let (Role::Leader(leader), FollowerAnswer::Next(_)) = (&mut self.role, answer) else {
            return Ok(answer); // What it has beyond ours says nothing of what it has of ours.
        };
        let follower = leader.followers.iter_mut().find(|known| known.node == fetch.node);
        let follower = follower.expect("who may read is a follower");
        let before = follower.last;
        follower.fetched(LastFetch {
            at: now,
            end: fetch.offset,
            log_start: fetch.log_start,
            broker_epoch: fetch.broker_epoch,
            leader_end: self.log.end,
        });
        if before.map(|last| last.log_start) != Some(fetch.log_start) {
            self.waits.ring(On::LowWatermark, effects);
        }
        self.expand_isr(fetch.node, effects);
        if before.map(|last| last.end) != Some(fetch.offset) {
            self.raise_high_watermark(effects);
        }
        self.follower_reads(fetch, epochs) // The high watermark may be another one by now.
    }

    /// A replica joins the ISR once its log reaches the high watermark and the start of this epoch
    /// (what lies between the two may be committed already), if the controller would take it.
    fn expand_isr(&mut self, node: NodeId, effects: &mut Vec<Effect<A, W>>) {
        let (me, high_watermark) = (self.me, self.high_watermark);
        let Role::Leader(leader) = &mut self.role else { return };
        let may_join = leader.follower(node).is_some_and(|follower| {
            follower.is_eligible()
                && follower.end().is_some_and(|end| end >= high_watermark.max(leader.epoch_start))
        });
        if may_join && leader.isr.is_settled() && !leader.isr.committed().contains(&node) {
            let wished = leader.isr.committed().iter().copied().chain([node]);
            let members = leader.members(me, wished);
            self.propose(members, effects);
        }
    }

    /// Who is in the ISR and was not caught up for `replica.lag.time.max.ms` leaves it.
    fn shrink_isr(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let (me, end, now, lag) = (self.me, self.log.end, self.now, self.rules.lag_time_max);
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.isr.is_settled() {
            return;
        }
        let stays = |node: &NodeId| {
            *node == me
                || leader.follower(*node).is_some_and(|known| known.is_caught_up(end, now, lag))
        };
        let staying = leader.isr.committed().iter().copied().filter(stays);
        if staying.clone().count() < leader.isr.committed().len() {
            let members = leader.members(me, staying);
            self.propose(members, effects);
        }
    }

    fn propose(&mut self, isr: Vec<IsrMember>, effects: &mut Vec<Effect<A, W>>) {
        let request = AlterPartition {
            id: ChangeId(self.next_change),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr,
        };
        self.next_change += 1;
        let Role::Leader(leader) = &mut self.role else { return };
        leader.isr.propose(request.clone());
        effects.push(Effect::AlterPartition(request));
    }

    /// After an unclean election the controller waits to hear that the leader recovered, with the
    /// ISR as it is, before anybody joins it (KIP-704).
    fn report_recovery(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let me = self.me;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.must_report_recovery && leader.isr.is_settled() {
            let members = leader.members(me, leader.isr.committed().iter().copied());
            self.propose(members, effects);
        }
    }

    /// The controller answered an [`AlterPartition`]; or it could not be asked.
    pub fn alter_partition_answered(
        &mut self,
        id: ChangeId,
        answer: Result<Altered, AlterPartitionError>,
        now: Instant,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        self.now = self.now.max(now);
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.isr.awaits(id) {
            return; // The metadata was faster.
        }
        match answer {
            Ok(altered) => {
                // Another epoch than ours is about another leadership, whose metadata will come.
                if altered.leader_epoch == self.leader_epoch
                    && altered.partition_epoch >= self.partition_epoch
                {
                    self.partition_epoch = altered.partition_epoch;
                    leader.must_report_recovery = false;
                    leader.isr.commit(&altered.isr);
                    self.raise_high_watermark(effects);
                }
            }
            Err(error) => {
                leader.isr.failed(error, now);
                self.raise_high_watermark(effects);
            }
        }
    }

    /// New metadata of a leadership that goes on.
    pub(crate) fn lead_on(
        &mut self,
        told: &Metadata<'_>,
        brokers: &impl Brokers,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        let (me, now) = (self.me, self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.assign(told, me, brokers, &self.rules, now);
        // At the same partition epoch this is what the controller answered before: a change that
        // was proposed since is still under way, and may be applied.
        if told.partition_epoch > self.partition_epoch {
            self.partition_epoch = told.partition_epoch;
            leader.must_report_recovery = told.recovering;
            leader.isr.commit(told.isr);
        }
        self.raise_high_watermark(effects);
        self.report_recovery(effects);
    }

    /// This replica begins to lead.
    pub(crate) fn begin_to_lead(
        &mut self,
        told: &Metadata<'_>,
        brokers: &impl Brokers,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        let leader = Leader::new(told, self.me, brokers, self.log.end, &self.rules, self.now);
        self.role = Role::Leader(leader);
        effects.push(Effect::BeginEpoch(told.leader_epoch));
        self.raise_high_watermark(effects);
        self.report_recovery(effects);
    }

    /// The image's brokers changed: who may join the ISR, and who counts as live.
    pub fn brokers_changed(&mut self, brokers: &impl Brokers, effects: &mut Vec<Effect<A, W>>) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.me = brokers.broker(self.me);
        for follower in &mut leader.followers {
            follower.broker = brokers.broker(follower.node);
        }
        self.waits.ring(On::LowWatermark, effects);
        self.raise_high_watermark(effects);
    }

    pub(crate) fn tick_leader(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let (now, half_lag) = (self.now, self.rules.lag_time_max / 2);
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(request) = leader.isr.retry(now) {
            effects.push(Effect::AlterPartition(request));
        }
        if now >= leader.next_shrink_check {
            leader.next_shrink_check = now.after(half_lag);
            self.report_recovery(effects);
            self.shrink_isr(effects);
            // Somebody may have waited long enough for who was about to join.
            self.raise_high_watermark(effects);
        }
    }

    /// DeleteRecords up to `before` (`None`: all that is committed). Returns where the log starts
    /// now; done once the low watermark is there.
    pub fn delete_records(
        &mut self,
        before: Option<Offset>,
        effects: &mut Vec<Effect<A, W>>,
    ) -> Result<Offset, Refused> {
        self.leader_or_refused()?;
        let before = before.unwrap_or(self.high_watermark);
        if before > self.high_watermark {
            return Err(Refused::OffsetOutOfRange);
        }
        if before > self.log.start {
            effects.push(Effect::RaiseLogStart(before));
            self.log_start_raised(before, effects);
        }
        Ok(self.log.start)
    }

    /// The least log start offset of all live replicas; `None` before each has told its own.
    pub fn low_watermark(&self) -> Result<Option<Offset>, Refused> {
        Ok(self.leader_or_refused()?.low_watermark(&self.log))
    }
}
