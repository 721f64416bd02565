//! A follower: what it fetches, where it truncates, what it takes the high watermark for.
//!
//! Invariants: it fetches from what is durable here, since the leader counts the fetch offset as this
//! replica's own; a response counts only for the epoch and offset that it was asked for
//! (KAFKA-18991); nothing of a response counts while it says to truncate (KAFKA-14704); the log is cut where the
//! epochs part, one after another where there were several (KIP-101, KIP-279), and at the high watermark only
//! where no epoch is known; epochs that begin at the cut are forgotten with it (KAFKA-10706).

use crate::effect::Effect;
use crate::metadata::{EpochCache, EpochEnd, LogEnds};
use crate::replica::{Replica, Role};
use crate::waits::On;
use alloc::vec::Vec;
use core::cmp::Ordering;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};

/// What the follower's role has beside what every replica has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Follower {
    pub(crate) leader: Option<NodeId>,
    pub(crate) fetching: Fetching,
    /// The epoch of the last batch here.
    last_epoch: Option<LeaderEpoch>,
    /// As the leader told with what we have; ours once we hold as much durably.
    leader_high_watermark: Offset,
    leader_log_start: Offset,
    /// How far behind the leader's high watermark the last response left us.
    lag: Option<u64>,
}

/// Where a follower stands with its leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetching {
    /// Nobody leads.
    NoLeader,
    /// The next Fetch may ask for this partition; or one is under way.
    Ready,
    /// After an error.
    BackingOff {
        /// Until then.
        until: Instant,
    },
    /// [`Effect::Append`] is under way.
    Appending,
    /// Not all that is here is durable here yet.
    Flushing,
    /// [`Effect::Truncate`] or [`Effect::StartAt`] is under way.
    Truncating,
    /// [`Effect::AskLeaderRange`] is under way.
    AskingRange,
    /// The leader knows a later epoch; its metadata will come here.
    Fenced,
}

/// What to ask the leader for; goes back with the response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchPosition {
    /// Whom to ask.
    pub leader: NodeId,
    /// CurrentLeaderEpoch.
    pub leader_epoch: LeaderEpoch,
    /// FetchOffset: everything below is here, durably.
    pub offset: Offset,
    /// LastFetchedEpoch; `None` where no batch here has one.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// LogStartOffset.
    pub log_start: Offset,
    /// HighWatermark (Fetch v18).
    pub high_watermark: Offset,
}

/// A Fetch response without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// DivergingEpoch: the rest says nothing then.
    pub diverging: Option<EpochEnd>,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start offset.
    pub log_start: Offset,
    /// What came; `None` where nothing did.
    pub batches: Option<FetchedBatches>,
}

/// The batches of a response; they stay with the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchedBatches {
    /// The first one's base offset.
    pub base: Offset,
    /// The offset after the last one.
    pub end: Offset,
}

/// Why a Fetch, or the question for the leader's range, brought nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchError {
    /// OFFSET_OUT_OF_RANGE.
    OffsetOutOfRange,
    /// FENCED_LEADER_EPOCH.
    FencedLeaderEpoch,
    /// Any other, a broken connection or unreadable batches included: ask again later.
    Other,
}

/// Where the leader's log starts and ends, as ListOffsets tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderRange {
    /// EARLIEST_LOCAL.
    pub start: Offset,
    /// LATEST, to a replica: the log's end.
    pub end: Offset,
}

impl Follower {
    pub(crate) fn new(leader: Option<NodeId>, last_epoch: Option<LeaderEpoch>) -> Self {
        Self {
            leader,
            fetching: Fetching::NoLeader,
            last_epoch,
            leader_high_watermark: Offset::ZERO,
            leader_log_start: Offset::ZERO,
            lag: None,
        }
    }

    /// Where it stands.
    pub const fn fetching(&self) -> Fetching {
        self.fetching
    }

    /// Records between the leader's high watermark and this replica's end; `None` before the first
    /// response. A follower without lag counts as in sync, and so is not throttled.
    pub const fn lag(&self) -> Option<u64> {
        self.lag
    }
}

/// Where to truncate, if the leader's log has `theirs` for the epoch that we asked with (KIP-101,
/// KIP-279). An epoch that only the leader knows is cut off together with all that follows the last
/// one below it; the next response then says how much more.
fn truncation(theirs: EpochEnd, ours: Option<EpochEnd>, end: Offset) -> Offset {
    match ours {
        None => theirs.end.min(end),
        Some(ours) if ours.epoch == theirs.epoch => theirs.end.min(ours.end).min(end),
        Some(ours) => ours.end.min(end),
    }
}

impl<A, W> Replica<A, W> {
    /// This replica follows `leader`, in an epoch that it has not followed before: whatever it knew
    /// of the leader's log is void (KAFKA-7164).
    pub(crate) fn begin_to_follow(
        &mut self,
        leader: Option<NodeId>,
        epochs: &impl EpochCache,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        let is_truncating =
            matches!(&self.role, Role::Follower(Follower { fetching: Fetching::Truncating, .. }));
        let mut follower = Follower::new(leader, epochs.latest());
        if is_truncating {
            follower.fetching = Fetching::Truncating;
        }
        // Without an epoch the leader cannot tell where the logs part; what is committed is safe.
        let cut = follower.last_epoch.is_none() && self.log.end > self.high_watermark;
        self.role = Role::Follower(follower);
        if leader.is_some() && cut {
            self.truncate(self.high_watermark, effects);
        } else if !is_truncating {
            self.fetch_on(effects);
        }
    }

    fn set_fetching(&mut self, fetching: Fetching) {
        let Role::Follower(follower) = &mut self.role else { return };
        follower.fetching = fetching;
    }

    /// Ready, or as soon as all that is here is durable.
    fn fetch_on(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let Role::Follower(follower) = &self.role else { return };
        if follower.leader.is_none() {
            self.set_fetching(Fetching::NoLeader);
        } else if self.log.durable < self.log.end {
            self.set_fetching(Fetching::Flushing);
        } else {
            self.set_fetching(Fetching::Ready);
            effects.push(Effect::Fetch);
        }
    }

    /// What the next Fetch asks for; `None` while it should not ask for this partition.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let Role::Follower(follower) = &self.role else { return None };
        if follower.fetching != Fetching::Ready {
            return None;
        }
        Some(FetchPosition {
            leader: follower.leader?,
            leader_epoch: self.leader_epoch,
            offset: self.log.end,
            last_fetched_epoch: follower.last_epoch,
            log_start: self.log.start,
            high_watermark: self.high_watermark,
        })
    }

    /// Whether `asked` is what this replica would ask now.
    fn still_asks(&self, asked: &FetchPosition) -> bool {
        self.fetch_position().is_some_and(|now| {
            now.leader_epoch == asked.leader_epoch
                && now.offset == asked.offset
                && now.last_fetched_epoch == asked.last_fetched_epoch
        })
    }

    /// The leader answered a Fetch.
    pub fn fetched(
        &mut self,
        asked: &FetchPosition,
        answer: &Fetched,
        epochs: &impl EpochCache,
        now: Instant,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        self.now = self.now.max(now);
        if !self.still_asks(asked) {
            return;
        }
        if let Some(theirs) = answer.diverging {
            if theirs.end < Offset::ZERO || theirs.epoch < LeaderEpoch(0) {
                return self.back_off();
            }
            let to = truncation(theirs, epochs.end_of(theirs.epoch), self.log.end);
            return self.truncate(to, effects);
        }
        let end = self.log.end;
        if let Some(batches) = answer.batches {
            // The leader's log may start within a batch: a log without records takes all of it.
            let starts_within = self.log.start == end && batches.base < end;
            if batches.end <= end || (batches.base < end && !starts_within) {
                return self.back_off();
            }
            if starts_within {
                let log_start = self.log.start;
                effects.push(Effect::StartAt { base: batches.base, log_start });
            }
        }
        let Role::Follower(follower) = &mut self.role else { return };
        follower.leader_high_watermark = answer.high_watermark;
        follower.leader_log_start = answer.log_start;
        let reached = answer.batches.map_or(end, |batches| batches.end);
        follower.lag = Some(u64::try_from(answer.high_watermark.0 - reached.0).unwrap_or(0));
        if answer.batches.is_some() {
            follower.fetching = Fetching::Appending;
            effects.push(Effect::Append { leader_epoch: asked.leader_epoch });
        } else {
            self.follow_watermarks(effects);
            effects.push(Effect::Fetch);
        }
    }

    /// [`Effect::Append`] is done: the log ends here, with a batch of this epoch.
    pub fn batches_appended(
        &mut self,
        end: Offset,
        last_epoch: LeaderEpoch,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        let Role::Follower(follower) = &mut self.role else { panic!("only a follower copies") };
        assert!(follower.fetching == Fetching::Appending, "an append was asked for");
        match end.cmp(&self.log.end) {
            Ordering::Greater => {
                follower.last_epoch = Some(last_epoch);
                self.log.end = end;
                self.follow_watermarks(effects);
                self.fetch_on(effects);
            }
            Ordering::Equal => self.back_off(), // All of them were of a later epoch.
            // So they were, and the log was begun anew for the first of them.
            Ordering::Less => self.begin_anew(self.log.end, effects),
        }
    }

    /// [`Effect::Append`] could not be done: the batches are unreadable, or break the log's rules.
    pub fn append_failed(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.back_off();
    }

    /// A Fetch, or the question for the leader's range, failed.
    pub fn fetch_failed(
        &mut self,
        asked: &FetchPosition,
        error: FetchError,
        now: Instant,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        self.now = self.now.max(now);
        let Role::Follower(follower) = &self.role else { return };
        let answers = match follower.fetching {
            Fetching::Ready => self.still_asks(asked),
            Fetching::AskingRange => {
                asked.leader_epoch == self.leader_epoch && error != FetchError::OffsetOutOfRange
            }
            _ => false,
        };
        if !answers {
            return;
        }
        match error {
            FetchError::OffsetOutOfRange => {
                self.set_fetching(Fetching::AskingRange);
                effects.push(Effect::AskLeaderRange(asked.leader_epoch));
            }
            FetchError::FencedLeaderEpoch => self.set_fetching(Fetching::Fenced),
            FetchError::Other => self.back_off(),
        }
    }

    fn back_off(&mut self) {
        let until = self.now.after(self.rules.fetch_backoff);
        self.set_fetching(Fetching::BackingOff { until });
    }

    /// The answer to [`Effect::AskLeaderRange`]. A leader that ends before us came from an unclean
    /// election: what it does not have is lost. One that starts behind our end has deleted what we
    /// lack: we begin anew there. Otherwise the range moved while we asked.
    pub fn leader_range(
        &mut self,
        epoch: LeaderEpoch,
        range: LeaderRange,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        let Role::Follower(follower) = &self.role else { return };
        if follower.fetching != Fetching::AskingRange || epoch != self.leader_epoch {
            return;
        }
        if range.end < self.log.end {
            self.truncate(range.end, effects);
        } else if range.start > self.log.end {
            self.begin_anew(range.start, effects);
            self.set_high_watermark(range.start, effects);
        } else {
            self.fetch_on(effects);
        }
    }

    fn begin_anew(&mut self, base: Offset, effects: &mut Vec<Effect<A, W>>) {
        self.log = LogEnds { start: base, end: base, durable: base };
        effects.push(Effect::StartAt { base, log_start: base });
        self.set_fetching(Fetching::Truncating);
    }

    fn truncate(&mut self, to: Offset, effects: &mut Vec<Effect<A, W>>) {
        if to < self.log.start {
            // Deleted here, and never written by a leader that was elected uncleanly: nothing is left, and the
            // log starts lower than before (as UnifiedLog.truncateTo).
            self.begin_anew(to, effects);
        } else {
            self.log.end = to;
            self.log.durable = self.log.durable.min(to);
            effects.push(Effect::Truncate(to));
            self.set_fetching(Fetching::Truncating);
        }
        if self.high_watermark > to {
            self.set_high_watermark(to, effects);
        } else {
            self.waits.ring(On::HighWatermark, effects); // Somebody may have read what is gone.
        }
    }

    /// Every [`Effect::Truncate`] and [`Effect::StartAt`] is done; `epochs` are those that are left.
    pub fn truncated(&mut self, epochs: &impl EpochCache, effects: &mut Vec<Effect<A, W>>) {
        let Role::Follower(follower) = &mut self.role else { return };
        if follower.fetching == Fetching::Truncating {
            follower.last_epoch = epochs.latest();
            self.fetch_on(effects);
        }
    }

    /// The leader's watermarks become ours as far as we hold them durably.
    fn follow_watermarks(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let Role::Follower(follower) = &self.role else { return };
        let (high, start) = (follower.leader_high_watermark, follower.leader_log_start);
        let high = high.min(self.log.durable);
        if high > self.high_watermark {
            self.set_high_watermark(high, effects);
        }
        let start = start.min(self.high_watermark);
        if start > self.log.start {
            self.log.start = start;
            effects.push(Effect::RaiseLogStart(start));
        }
    }

    fn set_high_watermark(&mut self, to: Offset, effects: &mut Vec<Effect<A, W>>) {
        self.high_watermark = to;
        effects.push(Effect::HighWatermark(to));
        self.waits.ring(On::HighWatermark, effects);
    }

    pub(crate) fn durable_at_follower(&mut self, effects: &mut Vec<Effect<A, W>>) {
        self.follow_watermarks(effects);
        let Role::Follower(follower) = &self.role else { return };
        if follower.fetching == Fetching::Flushing {
            self.fetch_on(effects);
        }
    }

    pub(crate) fn tick_follower(&mut self, effects: &mut Vec<Effect<A, W>>) {
        let Role::Follower(follower) = &self.role else { return };
        if let Fetching::BackingOff { until } = follower.fetching
            && until <= self.now
        {
            self.fetch_on(effects);
        }
    }
}
