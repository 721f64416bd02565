//! JoinGroup: who becomes a member, and what follows.

use crate::config::{
    Config, GROUP_BYTES_MAX, JOIN_BYTES_MAX, NEW_MEMBER_JOIN_TIMEOUT_MS, PROTOCOLS_MAX, millis,
};
use crate::error::Error;
use crate::group::{Group, Preparing, State};
use crate::groups::{RequestId, Turn};
use crate::member::{Member, Waiting};
use crate::records;
use crate::request::{Answer, JoinGroup, JoinRefused, Protocol, Text};
use crate::writes::{Replacement, Then};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;

/// First version in which a new member must come back with the id it got (KIP-394).
const ID_REQUIRED_SINCE: i16 = 4;
/// First version in which a leader can be told that nothing is to be assigned (KIP-814).
pub(crate) const SKIP_ASSIGNMENT_SINCE: i16 = 9;

/// What is wrong with a JoinGroup, whatever the state of its group.
pub(crate) fn problem_of(join: &JoinGroup, config: &Config) -> Option<Error> {
    let timeouts = config.session_timeout_ms_min..=config.session_timeout_ms_max;
    if !timeouts.contains(&join.session_timeout_ms) {
        Some(Error::InvalidSessionTimeout)
    } else if join.protocols.len() > PROTOCOLS_MAX || bytes_of(join) > JOIN_BYTES_MAX {
        Some(Error::InvalidRequest)
    } else {
        None
    }
}

impl Group {
    /// Takes a JoinGroup in which there is no [`problem_of`] its own.
    pub fn join(&mut self, id: RequestId, mut join: JoinGroup, turn: &mut Turn<'_>) {
        join.protocols = kept(&join.protocols);
        let refuse = |turn: &mut Turn<'_>, error, member: &str| {
            let member = Text::from(member);
            turn.answer(id, Answer::Join(Err(JoinRefused { error, member })));
        };
        if !self.has_room_for(&join.member, turn.config) {
            self.remove(&join.member);
            refuse(turn, Error::GroupMaxSizeReached, "");
            self.complete_join_if_all_are_here(turn);
        } else if self.roster.bytes() + bytes_of(&join) > GROUP_BYTES_MAX {
            refuse(turn, Error::GroupMaxSizeReached, &join.member);
        } else if matches!(self.state, State::Dead) {
            refuse(turn, Error::CoordinatorNotAvailable, &join.member);
        } else if !self.supports(&join.protocol_type, &join.protocols) {
            refuse(turn, Error::InconsistentGroupProtocol, &join.member);
        } else if join.member.is_empty() {
            self.join_new(id, join, turn);
        } else if self.roster.is_invited(&join.member) {
            if join.instance.is_some() {
                // Only dynamic members are asked to come back; Kafka fails here, too.
                refuse(turn, Error::UnknownServerError, &join.member);
            } else {
                let member = join.member.clone();
                self.add_member(id, member, join, turn);
            }
        } else if let Err(error) = self.validate(&join.member, join.instance.as_ref()) {
            refuse(turn, error, &join.member);
        } else {
            self.join_known(id, join, turn);
        }
    }

    fn join_new(&mut self, id: RequestId, join: JoinGroup, turn: &mut Turn<'_>) {
        let name = join.instance.as_ref().unwrap_or(&join.client_id);
        let member = Text::from(format!("{name}-{}", HyphenatedUuid(join.fresh)));
        assert!(!self.roster.contains(&member), "122 random bits do not come twice");
        match &join.instance {
            Some(instance) => match self.roster.static_id(instance).cloned() {
                Some(old) => self.replace_static(id, &old, &member, join, turn),
                None => self.add_member(id, member, join, turn),
            },
            None if join.version >= ID_REQUIRED_SINCE => {
                let until = turn.now.clock.after(millis(join.session_timeout_ms));
                self.roster.invite(member.clone(), until);
                self.wake_by(until);
                let refused = JoinRefused { error: Error::MemberIdRequired, member };
                turn.answer(id, Answer::Join(Err(refused)));
            }
            None => self.add_member(id, member, join, turn),
        }
    }

    fn join_known(&mut self, id: RequestId, join: JoinGroup, turn: &mut Turn<'_>) {
        let member = join.member.clone();
        let known = self.roster.member(&member).expect("validated by the caller");
        let same = known.protocols == join.protocols;
        let rejoins = match self.state {
            State::Preparing(_) => true,
            // It may not have got the answer to its first JoinGroup.
            State::Completing { .. } => !same,
            // A leader that joins again wants a rebalance: topics it reads may have changed.
            State::Stable { .. } => !same || self.is_leader(&member),
            State::Empty | State::Dead => unreachable!("a group with members is neither"),
        };
        if rejoins {
            self.update_member(id, &member, join, turn);
            self.rebalance_or_complete(turn);
        } else {
            let mut joined = self.joined(&member);
            if matches!(self.state, State::Stable { .. }) {
                joined.members.clear(); // Never the leader here.
            }
            turn.answer(id, Answer::Join(Ok(joined)));
        }
    }

    fn add_member(&mut self, id: RequestId, member: Text, join: JoinGroup, turn: &mut Turn<'_>) {
        if let State::Preparing(Preparing::Initial { grew, .. }) = &mut self.state {
            *grew = true;
        }
        if self.roster.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.roster.uninvite(&member);
        let deadline = turn.now.clock.after(millis(NEW_MEMBER_JOIN_TIMEOUT_MS));
        let (session_timeout, rebalance_timeout) = timeouts_of(&join);
        let new = Member {
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout,
            rebalance_timeout,
            protocols: join.protocols,
            assignment: Bytes::new(),
            waiting: Waiting::Join(id),
            newcomer: true,
            synced: false,
            deadline,
        };
        self.roster.add(member.clone(), new);
        self.leader.get_or_insert(member);
        self.wake_by(deadline);
        self.rebalance_or_complete(turn);
    }

    /// Takes over what a member says of itself, and lets it wait for the next generation.
    fn update_member(&mut self, id: RequestId, member: &str, join: JoinGroup, turn: &mut Turn<'_>) {
        let (session_timeout, rebalance_timeout) = timeouts_of(&join);
        self.roster.set_protocols(member, join.protocols);
        let known = self.roster.member_mut(member).expect("the caller found it");
        known.session_timeout = session_timeout;
        known.rebalance_timeout = rebalance_timeout;
        self.let_wait(member, Waiting::Join(id), turn);
    }

    /// `member` waits on a new request; one it waited on before will not be answered otherwise (the
    /// client gave it up: its connection carries one request at a time).
    pub fn let_wait(&mut self, member: &str, waiting: Waiting, turn: &mut Turn<'_>) {
        match self.roster.wait(member, waiting) {
            Waiting::Nothing => {}
            Waiting::Join(id) => {
                let member = Text::from(member);
                let refused = JoinRefused { error: Error::RebalanceInProgress, member };
                turn.answer(id, Answer::Join(Err(refused)));
            }
            Waiting::Sync(id) => turn.answer(id, Answer::Sync(Err(Error::RebalanceInProgress))),
        }
    }

    /// A static member came back without an id, as after a restart (KIP-345). It takes its place
    /// under a new id; whoever uses the old one is fenced. A stable group stays as it is.
    fn replace_static(
        &mut self,
        id: RequestId,
        old_id: &Text,
        new_id: &Text,
        join: JoinGroup,
        turn: &mut Turn<'_>,
    ) {
        let instance = join.instance.clone().expect("the caller found it by its instance id");
        let old_leader = self.leader.clone().unwrap_or_else(|| old_id.clone());
        let version = join.version;
        if let Some(waiting) = self.roster.take_join(old_id) {
            let member = old_id.clone();
            let refused = JoinRefused { error: Error::FencedInstanceId, member };
            turn.answer(waiting, Answer::Join(Err(refused)));
        }
        if let Some(waiting) = self.roster.take_sync(old_id) {
            turn.answer(waiting, Answer::Sync(Err(Error::FencedInstanceId)));
        }
        let old = self.roster.remove(old_id).expect("the caller found it");
        self.roster.add(new_id.clone(), Member { newcomer: false, ..old.clone() });
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.hear_from(new_id, turn.now.clock);
        self.update_member(id, new_id, join, turn);
        match self.state {
            State::Stable { .. } if self.roster.vote() == self.protocol => {
                let record = records::group(self, |_, member| member.assignment.clone());
                let then = Then::Replaced(Box::new(Replacement {
                    group: self.id.clone(),
                    generation: self.generation,
                    instance,
                    old_id: old_id.clone(),
                    old,
                    new_id: new_id.clone(),
                    old_leader,
                    version,
                }));
                turn.append([record].into(), then);
            }
            // The leader may have been told of the old id, and would assign to it.
            State::Completing { .. } | State::Stable { .. } => self.prepare_rebalance(turn),
            State::Preparing(_) => self.complete_join_if_all_are_here(turn),
            State::Empty | State::Dead => unreachable!("a group with members is neither"),
        }
    }
}

/// The session's and the rebalance's time-out. Version 0 knows only the first.
fn timeouts_of(join: &JoinGroup) -> (Duration, Duration) {
    let session = millis(join.session_timeout_ms);
    let rebalance =
        if join.rebalance_timeout_ms == -1 { session } else { millis(join.rebalance_timeout_ms) };
    (session, rebalance)
}

/// The first of each name, since a name that comes twice would count as two members' support; copied,
/// since a slice would keep the frame that it came in.
fn kept(protocols: &[Protocol]) -> Vec<Protocol> {
    let mut kept: Vec<Protocol> = Vec::with_capacity(protocols.len());
    for Protocol { name, metadata } in protocols {
        if !kept.iter().any(|other| other.name == *name) {
            let metadata = Bytes::copy_from_slice(metadata);
            kept.push(Protocol { name: name.clone(), metadata });
        }
    }
    kept
}

pub(crate) fn bytes_of(join: &JoinGroup) -> usize {
    let protocols = join.protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum::<usize>();
    let instance = join.instance.as_ref().map_or(0, |instance| instance.len());
    protocols + instance + join.protocol_type.len() + join.client_id.len() + join.client_host.len()
}

/// 8-4-4-4-12 hexadecimal digits, as Java prints a UUID.
struct HyphenatedUuid(u128);

impl core::fmt::Display for HyphenatedUuid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Version 4, variant 1, whatever the caller drew.
        let bits = self.0 & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn member_ids_end_like_javas() {
        let text = HyphenatedUuid(u128::MAX).to_string();
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(HyphenatedUuid(1).to_string(), "00000000-0000-4000-8000-000000000001");
    }
}
