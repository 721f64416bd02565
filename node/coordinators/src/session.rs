//! SyncGroup, Heartbeat and LeaveGroup: what members of a generation ask.

use crate::error::Error;
use crate::group::{Group, State};
use crate::groups::{Now, RequestId, Turn};
use crate::member::Waiting;
use crate::records;
use crate::request::{Answer, Heartbeat, Leaving, Left, SyncGroup, Synced, Text};
use crate::writes::Then;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

impl Group {
    pub fn sync(&mut self, id: RequestId, sync: SyncGroup, turn: &mut Turn<'_>) {
        if let Err(error) = self.may_sync(&sync) {
            turn.answer(id, Answer::Sync(Err(error)));
            return;
        }
        match self.state {
            State::Completing { storing, .. } => {
                self.let_wait(&sync.member, Waiting::Sync(id), turn);
                self.has_synced(&sync.member);
                // While one assignment is stored, a leader that asks again waits for that one: a
                // generation has one assignment.
                if self.is_leader(&sync.member) && storing.is_none() {
                    self.store_assignment(sync.assignments, turn);
                }
            }
            State::Stable { .. } => {
                self.has_synced(&sync.member);
                turn.answer(id, Answer::Sync(Ok(self.synced(&sync.member))));
            }
            State::Preparing(_) | State::Empty | State::Dead => {
                unreachable!("refused above, or without members")
            }
        }
    }

    /// Kafka's checks, in its order; KIP-559 for the protocol type and name.
    fn may_sync(&self, sync: &SyncGroup) -> Result<(), Error> {
        let differs = |theirs: &Option<Text>, ours: &Option<Text>| {
            theirs.is_some() && ours.is_some() && theirs != ours
        };
        match self.state {
            State::Dead => return Err(Error::CoordinatorNotAvailable),
            State::Empty => return Err(Error::UnknownMemberId),
            State::Preparing(_) | State::Completing { .. } | State::Stable { .. } => {}
        }
        self.validate(&sync.member, sync.instance.as_ref())?;
        if sync.generation != self.generation {
            Err(Error::IllegalGeneration)
        } else if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            Err(Error::InconsistentGroupProtocol)
        } else if matches!(self.state, State::Preparing(_)) {
            Err(Error::RebalanceInProgress)
        } else {
            Ok(())
        }
    }

    fn has_synced(&mut self, member: &str) {
        if let Some(member) = self.roster.member_mut(member) {
            member.synced = true;
        }
    }

    /// What `member` is told of its part.
    pub fn synced(&self, member: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self
                .roster
                .member(member)
                .map(|m| m.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// The leader has assigned: first to the log, then to the members.
    fn store_assignment(&mut self, assignments: Vec<(Text, Bytes)>, turn: &mut Turn<'_>) {
        // Copied, since a slice would keep the frame that it came in.
        let assignments: BTreeMap<Text, Bytes> = (assignments.into_iter())
            .filter(|(id, _)| self.roster.contains(id))
            .map(|(id, assignment)| (id, Bytes::copy_from_slice(&assignment)))
            .collect();
        let record = records::group(self, |id, _| assignments.get(id).cloned().unwrap_or_default());
        let then =
            Then::Assigned { group: self.id.clone(), generation: self.generation, assignments };
        let write = turn.append([record].into(), then);
        if let State::Completing { storing, .. } = &mut self.state {
            *storing = Some(write);
        }
    }

    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Now) -> Result<(), Error> {
        if matches!(self.state, State::Dead) {
            return Err(Error::CoordinatorNotAvailable);
        }
        self.validate(&heartbeat.member, heartbeat.instance.as_ref())?;
        if heartbeat.generation != self.generation {
            return Err(Error::IllegalGeneration);
        }
        self.hear_from(&heartbeat.member, now.clock);
        match self.state {
            State::Preparing(_) => Err(Error::RebalanceInProgress),
            State::Completing { .. } | State::Stable { .. } => Ok(()),
            State::Empty | State::Dead => Err(Error::UnknownMemberId),
        }
    }

    pub fn leave(&mut self, leaving: &[Leaving], turn: &mut Turn<'_>) -> Result<Vec<Left>, Error> {
        if matches!(self.state, State::Dead) {
            return Err(Error::CoordinatorNotAvailable);
        }
        let mut left = Vec::with_capacity(leaving.len());
        for one in leaving {
            let error = self.leave_one(one, turn).err();
            left.push(Left { member: one.member.clone(), instance: one.instance.clone(), error });
        }
        if left.iter().any(|one| one.error.is_none()) {
            match self.state {
                State::Completing { .. } | State::Stable { .. } => self.prepare_rebalance(turn),
                State::Preparing(_) => self.complete_join_if_all_are_here(turn),
                State::Empty | State::Dead => {}
            }
        }
        Ok(left)
    }

    fn leave_one(&mut self, leaving: &Leaving, turn: &mut Turn<'_>) -> Result<(), Error> {
        let member = if leaving.member.is_empty() {
            // An operator names the instance only (KIP-345).
            let instance = leaving.instance.as_ref().ok_or(Error::UnknownMemberId)?;
            self.roster.static_id(instance).ok_or(Error::UnknownMemberId)?.clone()
        } else if self.roster.is_invited(&leaving.member) {
            self.remove(&leaving.member);
            return Ok(());
        } else {
            self.validate(&leaving.member, leaving.instance.as_ref())?;
            leaving.member.clone()
        };
        self.answer_lost(&member, turn);
        self.remove(&member);
        Ok(())
    }
}
