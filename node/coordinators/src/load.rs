//! Rebuilding the groups from their partition's records.
//!
//! Separate because until it is done there is nobody to ask: the shell answers
//! `COORDINATOR_LOAD_IN_PROGRESS` ([`Request::refused`](crate::Request::refused)) meanwhile.

use crate::config::{Config, millis};
use crate::group::{Group, State};
use crate::groups::{Effect, Groups, Now};
use crate::member::{Member, Waiting};
use crate::records::{
    GroupMetadataKey, GroupMetadataValue, LEGACY_OFFSET_COMMIT_KEY, MemberMetadata,
    OffsetCommitKey, OffsetCommitValue,
};
use crate::request::{Protocol, Text};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use flowstone_schema::{DecodeError, Message};
use flowstone_types::{Instant, Timestamp};

/// Groups as far as they have been read.
#[derive(Default, Debug)]
pub struct Loading {
    groups: BTreeMap<Text, Group>,
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// It is part of the groups now.
    Applied,
    /// It is of a kind that this release does not have, such as KIP-848's, and was left out.
    Skipped {
        /// The record's type.
        kind: i16,
    },
}

/// A record that cannot be read: the partition cannot be loaded without losing what it says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The key or value ends before its type or version.
    #[error("a group record has no type or version")]
    Unnamed,
    /// The key or value is not what its type and version say.
    #[error("a group record cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Two members have one id or instance id, or there are members without a protocol.
    #[error("group {group} has members that contradict each other")]
    Contradiction {
        /// The group.
        group: Text,
    },
}

impl Loading {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next record of the partition; `value` is `None` for a tombstone.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Replayed, ReplayError> {
        let (kind, key) = numbered(key)?;
        match kind {
            LEGACY_OFFSET_COMMIT_KEY | OffsetCommitKey::KEY => {
                let key = OffsetCommitKey::decode(0, key)?;
                let value = value.map(read::<OffsetCommitValue>).transpose()?;
                self.replay_offset(&key, value.as_ref());
            }
            GroupMetadataKey::KEY => {
                let key = GroupMetadataKey::decode(0, key)?;
                match value.map(read::<GroupMetadataValue>).transpose()? {
                    Some(value) => self.replay_group(&key.group, value)?,
                    None => self.replay_group_end(&key.group),
                }
            }
            kind => return Ok(Replayed::Skipped { kind }),
        }
        Ok(Replayed::Applied)
    }

    /// Everything is read: sessions begin anew, so that members have the time to find us.
    pub fn finish(self, config: Config, now: Now, effects: &mut Vec<Effect>) -> Groups {
        let ids: Vec<Text> = self.groups.keys().cloned().collect();
        let mut groups = Groups::new(config, self.groups, now);
        for id in ids {
            groups.with_group(now, &id, effects, |group, turn| {
                for member in group.roster.ids_where(|_| true) {
                    group.hear_from(&member, turn.now.clock);
                }
                // `group.max.size` was lowered: the members that come too late stay out (KIP-389).
                if group.roster.len() > turn.config.members_max() {
                    group.prepare_rebalance(turn);
                }
            });
        }
        groups
    }

    fn replay_offset(&mut self, key: &OffsetCommitKey, value: Option<&OffsetCommitValue>) {
        let topic = Text::from(key.topic.as_str());
        match value {
            Some(value) => {
                // A group without members has no record of its own.
                let group = self.group(&key.group);
                group.offsets.load(&topic, key.partition, value.committed());
            }
            None => {
                if let Some(group) = self.groups.get_mut(key.group.as_str()) {
                    group.offsets.unload(&topic, key.partition);
                }
            }
        }
    }

    fn replay_group(&mut self, id: &str, value: GroupMetadataValue) -> Result<(), ReplayError> {
        let contradiction = || ReplayError::Contradiction { group: Text::from(id) };
        let offsets = self.groups.remove(id).map(|group| group.offsets).unwrap_or_default();
        let mut group = Group::new(Text::from(id), Timestamp::NONE);
        group.offsets = offsets;
        group.generation = value.generation;
        let protocol_type = Text::from(value.protocol_type);
        group.protocol_type = Some(protocol_type).filter(|name| !name.is_empty());
        group.protocol = value.protocol.map(Text::from);
        group.leader = value.leader.map(Text::from);
        group.state_since = (value.current_state_timestamp != -1)
            .then_some(Timestamp(value.current_state_timestamp));
        for member in value.members {
            let protocol = group.protocol.clone().ok_or_else(contradiction)?;
            let taken = |instance: &str| group.roster.static_id(instance).is_some();
            if group.roster.contains(&member.member_id)
                || member.group_instance_id.as_deref().is_some_and(taken)
            {
                return Err(contradiction());
            }
            group.roster.add(Text::from(member.member_id.as_str()), loaded(member, protocol));
        }
        if !group.roster.is_empty() {
            group.state = State::Stable { sync_by: Instant::NEVER };
            if !group.leader.as_ref().is_some_and(|leader| group.roster.contains(leader)) {
                group.leader = group.roster.iter().next().map(|(id, _)| id.clone());
            }
        }
        group.subscribed = group.find_subscribed();
        self.groups.insert(group.id.clone(), group);
        Ok(())
    }

    /// The group's end. Its offsets had ends of their own; one that has not would else never expire,
    /// so it stays, in a group without members.
    fn replay_group_end(&mut self, id: &str) {
        let Some(group) = self.groups.remove(id) else { return };
        if !group.offsets.is_empty() {
            let rest = Group { offsets: group.offsets, ..Group::new(group.id, Timestamp::NONE) };
            self.groups.insert(rest.id.clone(), rest);
        }
    }

    fn group(&mut self, id: &str) -> &mut Group {
        let id = Text::from(id);
        self.groups.entry(id.clone()).or_insert_with(|| Group::new(id, Timestamp::NONE))
    }
}

/// A member as its generation was written.
fn loaded(member: MemberMetadata, protocol: Text) -> Member {
    let rebalance_ms = match member.rebalance_timeout {
        -1 => member.session_timeout, // Version 0 has none.
        other => other,
    };
    Member {
        instance: member.group_instance_id.map(Text::from),
        client_id: Text::from(member.client_id),
        client_host: Text::from(member.client_host),
        session_timeout: millis(member.session_timeout),
        rebalance_timeout: millis(rebalance_ms),
        protocols: [Protocol { name: protocol, metadata: member.subscription }].into(),
        assignment: member.assignment,
        waiting: Waiting::Nothing,
        newcomer: false,
        synced: true,
        deadline: Instant::NEVER, // Set when all is loaded.
    }
}

fn numbered(bytes: &[u8]) -> Result<(i16, &[u8]), ReplayError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(ReplayError::Unnamed)?;
    Ok((i16::from_be_bytes(*number), rest))
}

fn read<M: Message>(value: &[u8]) -> Result<M, ReplayError> {
    let (version, body) = numbered(value)?;
    Ok(M::decode(version, body)?)
}
