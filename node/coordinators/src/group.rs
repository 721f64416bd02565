//! One classic group: its state, its members and its offsets.
//!
//! Separate from what drives it (`join`, `rebalance`, `session`, `commit`), which are further
//! `impl`s of [`Group`] by subject.

use crate::config::{Config, GROUP_MEMBERS_MAX};
use crate::error::Error;
use crate::offsets::Offsets;
use crate::request::{Joined, JoinedMember, Protocol, Text};
use crate::roster::Roster;
use crate::subscription::subscribed_topics;
use crate::writes::WriteId;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, Timestamp};

/// The protocol type of consumers: the only one whose metadata we look into, for its topics.
pub(crate) const CONSUMER_PROTOCOL: &str = "consumer";

#[derive(Debug)]
pub(crate) struct Group {
    pub id: Text,
    pub generation: i32,
    pub state: State,
    /// When `state` began; `None` in records from before Kafka 2.1.
    pub state_since: Option<Timestamp>,
    /// `None` in a group that only holds offsets (a simple group).
    pub protocol_type: Option<Text>,
    /// What all members use in this generation.
    pub protocol: Option<Text>,
    /// `None` only where there are no members.
    pub leader: Option<Text>,
    pub roster: Roster,
    /// What the members read; `None` where their metadata does not tell.
    pub subscribed: Option<BTreeSet<Text>>,
    pub offsets: Offsets,
    /// No time-out of this group is earlier. Later ones are looked for when this has come: a
    /// heartbeat only moves a deadline back, and need not look at the other members'.
    pub wake: Instant,
    /// What of the roster's bytes the coordinator's sum has.
    pub bytes_counted: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members join the next generation.
    Preparing(Preparing),
    /// Members wait for the leader's assignment.
    Completing {
        /// Who has not sent SyncGroup by then, leaves.
        sync_by: Instant,
        /// The assignment is on its way to the log.
        storing: Option<WriteId>,
    },
    /// Members read and send heartbeats.
    Stable {
        /// Who has not sent SyncGroup by then, leaves.
        sync_by: Instant,
    },
    /// The group's tombstone is on its way to the log.
    Dead,
}

#[derive(Clone, Debug)]
pub(crate) enum Preparing {
    /// The group was empty: give others the time to join, too (KIP-134).
    Initial {
        until: Instant,
        /// How long this step is.
        step: Duration,
        /// How much longer newcomers can make it.
        remaining: Duration,
        /// A member joined in this step.
        grew: bool,
    },
    /// Members that do not join by then leave.
    Rejoining { until: Instant },
}

impl State {
    /// Kafka's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing(_) => "PreparingRebalance",
            Self::Completing { .. } => "CompletingRebalance",
            Self::Stable { .. } => "Stable",
            Self::Dead => "Dead",
        }
    }

    fn deadline(&self) -> Instant {
        match self {
            Self::Empty | Self::Dead => Instant::NEVER,
            Self::Preparing(Preparing::Initial { until, .. } | Preparing::Rejoining { until }) => {
                *until
            }
            Self::Completing { sync_by, .. } | Self::Stable { sync_by } => *sync_by,
        }
    }
}

impl Group {
    pub fn new(id: Text, now: Timestamp) -> Self {
        Self {
            id,
            generation: 0,
            state: State::Empty,
            state_since: Some(now),
            protocol_type: None,
            protocol: None,
            leader: None,
            roster: Roster::default(),
            bytes_counted: 0,
            subscribed: None,
            offsets: Offsets::default(),
            wake: Instant::NEVER,
        }
    }

    pub fn enter(&mut self, state: State, now: Timestamp) {
        self.wake_by(state.deadline());
        self.state = state;
        self.state_since = Some(now);
    }

    /// Nobody is here, nobody was asked in, and nothing is kept: the group need not be held.
    pub fn is_vacant(&self) -> bool {
        self.roster.is_empty() && self.roster.invited().is_empty() && self.offsets.is_empty()
    }

    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL)
    }

    /// Whether a member reads `topic`; a consumer whose metadata we cannot read may read any.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Reads the members' topics from their metadata for the chosen protocol.
    pub fn find_subscribed(&self) -> Option<BTreeSet<Text>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for (_, member) in self.roster.iter() {
            topics.extend(subscribed_topics(member.metadata(self.protocol.as_deref()?)?)?);
        }
        Some(topics)
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Kafka's check of who speaks, in its order (KIP-345).
    pub fn validate(&self, member: &str, instance: Option<&Text>) -> Result<(), Error> {
        if let Some(instance) = instance {
            match self.roster.static_id(instance) {
                None => return Err(Error::UnknownMemberId),
                Some(current) if &**current != member => return Err(Error::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.roster.contains(member) { Ok(()) } else { Err(Error::UnknownMemberId) }
    }

    /// Whether one with these protocols could be a member.
    pub fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        match self.state {
            State::Empty => !protocol_type.is_empty() && !protocols.is_empty(),
            State::Preparing(_) | State::Completing { .. } | State::Stable { .. } | State::Dead => {
                self.protocol_type.as_deref() == Some(protocol_type)
                    && self.roster.shares_one_of(protocols)
            }
        }
    }

    /// Whether `group.max.size` leaves room (KIP-389). While members rejoin, those that wait count:
    /// so the last to come stay out where the limit was lowered.
    pub fn has_room_for(&self, member: &str, config: &Config) -> bool {
        let known = self.roster.member(member);
        let room = match self.state {
            State::Empty | State::Dead => true,
            State::Preparing(_) => {
                known.is_some_and(|m| matches!(m.waiting, crate::member::Waiting::Join(_)))
                    || self.roster.awaiting_join() < config.members_max()
            }
            State::Completing { .. } | State::Stable { .. } => {
                known.is_some() || self.roster.len() < config.members_max()
            }
        };
        let invited = self.roster.is_invited(member);
        room && (known.is_some()
            || invited
            || self.roster.len().max(self.roster.invited().len()) < GROUP_MEMBERS_MAX)
    }

    pub fn all_joined(&self) -> bool {
        self.roster.awaiting_join() == self.roster.len() && self.roster.invited().is_empty()
    }

    /// Takes out a member or an invited one; another member leads where it led.
    pub fn remove(&mut self, member: &str) {
        self.roster.remove(member);
        self.roster.uninvite(member);
        if self.is_leader(member) {
            self.leader = self.roster.iter().next().map(|(id, _)| id.clone());
        }
    }

    /// What a member is told of the current generation.
    pub fn joined(&self, member: &Text) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(|| Text::from("")),
            skip_assignment: false,
            member: member.clone(),
            members: if self.is_leader(member) { self.members_for_leader() } else { Vec::new() },
        }
    }

    fn members_for_leader(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or("");
        let member = |(id, member): (&Text, &crate::member::Member)| JoinedMember {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol).cloned().unwrap_or_default(),
        };
        self.roster.iter().map(member).collect()
    }

    /// The session of `member` lasts anew.
    pub fn hear_from(&mut self, member: &str, now: Instant) {
        if let Some(member) = self.roster.member_mut(member) {
            member.heard_from(now);
            let deadline = member.deadline;
            self.wake_by(deadline);
        }
    }

    /// There is a time-out at `deadline`.
    pub fn wake_by(&mut self, deadline: Instant) {
        self.wake = self.wake.min(deadline);
    }

    /// The earliest time-out there is.
    pub fn earliest_deadline(&self) -> Instant {
        let members = self.roster.iter().map(|(_, member)| member.deadline);
        let invited = self.roster.invited().values().copied();
        members.chain(invited).fold(self.state.deadline(), Instant::min)
    }
}
