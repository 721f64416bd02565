//! From one generation to the next: who is waited for, for how long, and who leaves on the way.

use crate::error::Error;
use crate::group::{Group, Preparing, State};
use crate::groups::{Effect, Turn};
use crate::member::Waiting;
use crate::records;
use crate::request::{Answer, JoinRefused, Text};
use crate::writes::Then;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::Instant;

impl Group {
    /// Begins a rebalance, or, where one is on, ends it if nobody is missing any more.
    pub fn rebalance_or_complete(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Empty | State::Completing { .. } | State::Stable { .. } => {
                self.prepare_rebalance(turn);
            }
            State::Preparing(_) => self.complete_join_if_all_are_here(turn),
            State::Dead => {}
        }
    }

    /// All members must join again. An empty group first waits for more of them (KIP-134).
    pub fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Completing { .. }) {
            self.fail_syncs(Error::RebalanceInProgress, turn);
        }
        let now = turn.now;
        let rebalance_timeout = self.roster.rebalance_timeout();
        let preparing = if matches!(self.state, State::Empty) {
            let step = turn.config.initial_delay();
            Preparing::Initial {
                until: now.clock.after(step),
                step,
                remaining: rebalance_timeout.saturating_sub(step),
                grew: false,
            }
        } else {
            Preparing::Rejoining { until: now.clock.after(rebalance_timeout) }
        };
        let over = match preparing {
            Preparing::Initial { step, .. } => step.is_zero(),
            Preparing::Rejoining { .. } => self.all_joined(),
        };
        self.enter(State::Preparing(preparing), now.wall);
        if over {
            self.complete_join(turn);
        }
    }

    /// Ends the joining where nobody is missing; the first rebalance of a group takes its time.
    pub fn complete_join_if_all_are_here(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            State::Preparing(Preparing::Rejoining { .. }) if self.all_joined() => {
                self.complete_join(turn);
            }
            State::Preparing(_)
            | State::Empty
            | State::Completing { .. }
            | State::Stable { .. }
            | State::Dead => {}
        }
    }

    /// As above, where a time-out took somebody out: then the first rebalance ends early, too.
    fn complete_join_after_loss(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.state, State::Preparing(_)) && self.all_joined() {
            self.complete_join(turn);
        }
    }

    /// The next generation begins with those who joined and with static members that have not.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let missing =
            |m: &crate::member::Member| !matches!(m.waiting, Waiting::Join(_)) && !m.is_static();
        for id in self.roster.ids_where(missing) {
            self.remove(&id);
        }
        if !self.elect_leader() {
            // Static members only, and none is back: their sessions decide.
            let until = now.clock.after(self.roster.rebalance_timeout().max(RETRY_MIN));
            self.wake_by(until);
            self.state = State::Preparing(Preparing::Rejoining { until });
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.roster.is_empty() {
            self.protocol = None;
            self.subscribed = self.find_subscribed();
            self.enter(State::Empty, now.wall);
            let record = records::group(self, |_, member| member.assignment.clone());
            turn.append([record].into(), Then::Emptied);
            return;
        }
        let protocol = self.roster.vote().expect("each member was checked when it joined");
        self.protocol = Some(protocol);
        self.subscribed = self.find_subscribed();
        let sync_by = now.clock.after(self.roster.rebalance_timeout());
        self.enter(State::Completing { sync_by, storing: None }, now.wall);
        let ids: Vec<Text> = self.roster.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            let waiting = self.roster.take_join(&id);
            let member = self.roster.member_mut(&id).expect("just listed");
            member.synced = false;
            member.newcomer = false;
            self.hear_from(&id, now.clock);
            if let Some(request) = waiting {
                turn.answer(request, Answer::Join(Ok(self.joined(&id))));
            }
        }
    }

    /// The leader leads on if it joined; else one who did. Whether there is one, or no need.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &Text| {
            self.roster.member(id).is_some_and(|m| matches!(m.waiting, Waiting::Join(_)))
        };
        if self.roster.is_empty() || self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.roster.ids_where(|m| matches!(m.waiting, Waiting::Join(_))).into_iter();
        let next = next.take(1).next();
        let found = next.is_some();
        if found {
            self.leader = next;
        }
        found
    }

    /// Acts on every time-out of this group that has come.
    pub fn time_out(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.clock;
        match self.state {
            State::Preparing(Preparing::Initial { until, step, remaining, grew })
                if until <= now =>
            {
                if grew && !remaining.is_zero() {
                    let next = turn.config.initial_delay().min(remaining);
                    self.state = State::Preparing(Preparing::Initial {
                        until: now.after(next),
                        step: next,
                        remaining: remaining.saturating_sub(step),
                        grew: false,
                    });
                } else {
                    self.complete_join(turn);
                }
            }
            State::Preparing(Preparing::Rejoining { until }) if until <= now => {
                self.complete_join(turn);
            }
            State::Completing { sync_by, .. } | State::Stable { sync_by } if sync_by <= now => {
                self.lose_those_without_sync(turn);
            }
            State::Empty
            | State::Preparing(_)
            | State::Completing { .. }
            | State::Stable { .. }
            | State::Dead => {}
        }
        let due = |(id, until): (&Text, &Instant)| (*until <= now).then(|| id.clone());
        for id in self.roster.invited().iter().filter_map(due).collect::<Vec<_>>() {
            self.remove(&id);
            self.complete_join_after_loss(turn);
        }
        for id in self.roster.ids_where(|member| member.deadline <= now) {
            self.session_over(&id, turn);
        }
        self.wake = self.earliest_deadline();
    }

    /// Those who joined but never asked for their assignment leave.
    fn lose_those_without_sync(&mut self, turn: &mut Turn<'_>) {
        let missing = self.roster.ids_where(|member| !member.synced);
        if missing.is_empty() {
            // All have; a stable group need not look again. In Completing the log is slow.
            match &mut self.state {
                State::Completing { sync_by, .. } | State::Stable { sync_by } => {
                    *sync_by = Instant::NEVER;
                }
                State::Empty | State::Preparing(_) | State::Dead => {}
            }
            return;
        }
        for id in missing {
            self.answer_lost(&id, turn);
            self.remove(&id);
        }
        self.prepare_rebalance(turn);
    }

    fn session_over(&mut self, id: &Text, turn: &mut Turn<'_>) {
        let Some(member) = self.roster.member_mut(id) else { return };
        if member.deadline > turn.now.clock {
            return; // Something in this very turn gave it more time.
        }
        if member.may_be_silent() {
            member.deadline = Instant::NEVER; // Set anew when it is answered.
            return;
        }
        self.answer_lost(id, turn);
        self.remove(id);
        match self.state {
            State::Completing { .. } | State::Stable { .. } => self.prepare_rebalance(turn),
            State::Preparing(_) => self.complete_join_after_loss(turn),
            State::Empty | State::Dead => {}
        }
    }

    /// A member that is about to be removed still waits: it may be alive, so it is told to join anew.
    pub fn answer_lost(&mut self, id: &str, turn: &mut Turn<'_>) {
        match self.roster.wait(id, Waiting::Nothing) {
            Waiting::Nothing => {}
            Waiting::Join(request) => {
                let refused = JoinRefused { error: Error::UnknownMemberId, member: Text::from("") };
                turn.answer(request, Answer::Join(Err(refused)));
            }
            Waiting::Sync(request) => {
                turn.answer(request, Answer::Sync(Err(Error::UnknownMemberId)));
            }
        }
    }

    /// All who wait for an assignment get `error` instead, and nobody has one.
    pub fn fail_syncs(&mut self, error: Error, turn: &mut Turn<'_>) {
        let ids: Vec<Text> = self.roster.iter().map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.roster.member_mut(&id).expect("just listed").assignment.clear();
            if let Some(request) = self.roster.take_sync(&id) {
                turn.answer(request, Answer::Sync(Err(error)));
                self.hear_from(&id, turn.now.clock);
            }
        }
    }

    /// The coordinator goes away.
    pub fn answer_all_waiting(&mut self, error: Error, effects: &mut Vec<Effect>) {
        for (member, known) in self.roster.iter() {
            match known.waiting {
                Waiting::Nothing => {}
                Waiting::Join(id) => {
                    let refused = JoinRefused { error, member: member.clone() };
                    effects.push(Effect::Answer { id, answer: Answer::Join(Err(refused)) });
                }
                Waiting::Sync(id) => {
                    effects.push(Effect::Answer { id, answer: Answer::Sync(Err(error)) });
                }
            }
        }
    }

    /// A group that begins is written down, so that it is known after a restart.
    pub fn write_beginning(&mut self, turn: &mut Turn<'_>) {
        let record = records::beginning(&self.id, turn.now.wall);
        turn.append([record].into(), Then::Created { group: self.id.clone() });
    }
}

/// A rebalance that nobody joined is looked at again no sooner than this, whatever time-out its
/// members chose: with zero there would be nothing else to do.
const RETRY_MIN: Duration = Duration::from_secs(1);
