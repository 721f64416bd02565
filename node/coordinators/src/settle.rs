//! What follows a write: durable, or refused by the log.
//!
//! Kafka's rule, and ours: what was decided in memory stands at once, and what was promised with it
//! waits for the log. Where the log refuses, an offset is as it was before; a deleted group is back;
//! a group that only began is gone; a static member has its old id; members without a stored
//! assignment join again. That a group lost its last member is true all the same: at worst a restart
//! finds the generation before, whose members then time out.

use crate::error::{Error, Refusal};
use crate::group::{Group, Preparing, State};
use crate::groups::{Effect, Groups, Now, Turn};
use crate::join::SKIP_ASSIGNMENT_SINCE;
use crate::member::Waiting;
use crate::offsets::OffsetKey;
use crate::request::{Answer, JoinRefused, Joined, Text};
use crate::writes::{Replacement, Then, WriteId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::Instant;

impl Groups {
    pub(crate) fn durable(&mut self, now: Now, through: WriteId, effects: &mut Vec<Effect>) {
        while let Some((write, then)) = self.writes.take_oldest(through) {
            match then {
                Then::Created { .. } | Then::Emptied => {}
                Then::Assigned { group, generation, assignments } => {
                    self.with_group(now, &group, effects, |group, turn| {
                        group.assigned(write, generation, &assignments, turn);
                    });
                }
                Then::Replaced(replacement) => {
                    let group = replacement.group.clone();
                    self.with_group(now, &group, effects, |group, turn| {
                        group.replaced(&replacement, turn);
                    });
                }
                Then::Offsets { keys, deleted, answer } => {
                    self.settle_offsets(&keys, write, false);
                    for group in deleted {
                        self.delete_now(&group);
                    }
                    effects.extend(answer.map(|(id, answer)| Effect::Answer { id, answer }));
                }
            }
        }
        self.release_fetches(effects);
    }

    pub(crate) fn refused(
        &mut self,
        now: Now,
        write: WriteId,
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        let error = Error::from(refusal);
        match self.writes.take(write) {
            Some(Then::Emptied) | None => {} // None: settled before, the shell told twice.
            Some(Then::Created { group }) => {
                self.with_group(now, &group, effects, |group, turn| group.not_begun(error, turn));
                self.forget_if_vacant(&group);
            }
            Some(Then::Assigned { group, generation, .. }) => {
                self.with_group(now, &group, effects, |group, turn| {
                    group.not_assigned(write, generation, error, turn);
                });
            }
            Some(Then::Replaced(replacement)) => {
                let group = replacement.group.clone();
                self.with_group(now, &group, effects, |group, turn| {
                    group.not_replaced(*replacement, error, turn);
                });
            }
            Some(Then::Offsets { keys, deleted, answer }) => {
                self.settle_offsets(&keys, write, true);
                for group in &deleted {
                    if let Some(group) = self.by_id.get_mut(group) {
                        assert!(matches!(group.state, State::Dead), "it was to be deleted");
                        group.state = State::Empty;
                    }
                }
                if answer.is_none() {
                    self.rest_from_cleanup(now); // Nobody asked: try again later.
                }
                for key in &keys {
                    self.forget_if_vacant(&key.group);
                }
                effects.extend(
                    answer.map(|(id, answer)| Effect::Answer { id, answer: answer.failed(error) }),
                );
            }
        }
        self.release_fetches(effects);
    }

    fn settle_offsets(&mut self, keys: &[OffsetKey], write: WriteId, refused: bool) {
        for key in keys {
            if let Some(group) = self.by_id.get_mut(&key.group) {
                group.offsets.settle(&key.topic, key.partition, write, refused);
            }
        }
    }

    /// The log has the group's tombstone.
    fn delete_now(&mut self, id: &Text) {
        if let Some(group) = self.forget(id) {
            assert!(matches!(group.state, State::Dead), "it was to be deleted");
            assert!(group.offsets.is_empty(), "they were dropped with it, and none came since");
        }
    }

    /// A group that only a refused write brought about.
    fn forget_if_vacant(&mut self, id: &Text) {
        let unwritten = |group: &Group| {
            group.is_vacant() && group.generation == 0 && group.protocol_type.is_none()
        };
        if self.by_id.get(id).is_some_and(unwritten) {
            self.forget(id);
        }
    }
}

impl Group {
    /// The group's first record was refused: whoever waits to join it is told so, and who was
    /// invited comes to a group that is not there. Once it has a generation, the next record says
    /// all that this one did.
    fn not_begun(&mut self, error: Error, turn: &mut Turn<'_>) {
        match self.state {
            State::Empty | State::Preparing(Preparing::Initial { .. }) if self.generation == 0 => {}
            State::Empty
            | State::Preparing(_)
            | State::Completing { .. }
            | State::Stable { .. }
            | State::Dead => return,
        }
        for id in self.roster.ids_where(|_| true) {
            if let Some(request) = self.roster.take_join(&id) {
                let refused = JoinRefused { error, member: id.clone() };
                turn.answer(request, Answer::Join(Err(refused)));
            }
            self.remove(&id);
        }
        for id in self.roster.invited().keys().cloned().collect::<Vec<_>>() {
            self.roster.uninvite(&id);
        }
        self.state = State::Empty;
        self.protocol_type = None;
        self.wake = Instant::NEVER;
    }

    /// The assignment is stored. Where the group has moved on meanwhile, it is void.
    fn assigned(
        &mut self,
        write: WriteId,
        generation: i32,
        assignments: &BTreeMap<Text, Bytes>,
        turn: &mut Turn<'_>,
    ) {
        if !self.is_storing(write, generation) {
            return;
        }
        for (id, member) in self.roster.iter_mut() {
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
        }
        let State::Completing { sync_by, .. } = self.state else { unreachable!("it is storing") };
        self.enter(State::Stable { sync_by }, turn.now.wall);
        for id in self.roster.ids_where(|member| matches!(member.waiting, Waiting::Sync(_))) {
            // The session stood still while the member waited for us.
            self.hear_from(&id, turn.now.clock);
            if let Some(request) = self.roster.take_sync(&id) {
                turn.answer(request, Answer::Sync(Ok(self.synced(&id))));
            }
        }
    }

    fn not_assigned(&mut self, write: WriteId, generation: i32, error: Error, turn: &mut Turn<'_>) {
        if self.is_storing(write, generation) {
            self.fail_syncs(error, turn);
            self.prepare_rebalance(turn);
        }
    }

    fn is_storing(&self, write: WriteId, generation: i32) -> bool {
        let storing = match self.state {
            State::Completing { storing, .. } => storing,
            State::Empty | State::Preparing(_) | State::Stable { .. } | State::Dead => None,
        };
        storing == Some(write) && self.generation == generation
    }

    /// The static member's new id is stored: it has its place back without a rebalance.
    fn replaced(&mut self, replacement: &Replacement, turn: &mut Turn<'_>) {
        if !self.stands_as_replaced(replacement) {
            return; // It waits for the next generation, or another took its place.
        }
        let new_id = &replacement.new_id;
        let Some(request) = self.roster.take_join(new_id) else { return };
        let joined = self.joined(new_id);
        let joined = if replacement.version >= SKIP_ASSIGNMENT_SINCE {
            Joined { skip_assignment: self.is_leader(new_id), ..joined }
        } else {
            // Told that it leads it would assign; told of the old id it takes itself for a follower.
            Joined { leader: replacement.old_leader.clone(), members: Vec::new(), ..joined }
        };
        self.hear_from(new_id, turn.now.clock);
        turn.answer(request, Answer::Join(Ok(joined)));
    }

    fn not_replaced(&mut self, replacement: Replacement, error: Error, turn: &mut Turn<'_>) {
        if !self.stands_as_replaced(&replacement) {
            return;
        }
        let Replacement { new_id, old_id, old, .. } = replacement;
        if let Some(request) = self.roster.take_join(&new_id) {
            let refused = JoinRefused { error, member: Text::from("") };
            turn.answer(request, Answer::Join(Err(refused)));
        }
        self.roster.remove(&new_id);
        self.roster.add(old_id.clone(), old);
        if self.is_leader(&new_id) {
            self.leader = Some(old_id.clone());
        }
        self.hear_from(&old_id, turn.now.clock);
    }

    fn stands_as_replaced(&self, replacement: &Replacement) -> bool {
        matches!(self.state, State::Stable { .. })
            && self.generation == replacement.generation
            && self.roster.static_id(&replacement.instance) == Some(&replacement.new_id)
    }
}
