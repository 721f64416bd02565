//! The records of `__consumer_offsets` that classic groups have, byte for byte Kafka's.
//!
//! Separate because this is a disk format: a key is its type (i16) and a body of version 0, a value
//! its version (i16) and a body; no value is a tombstone. Written as Kafka 4.3 does, read from
//! version 0 on.

use crate::group::Group;
use crate::member::Member;
use crate::offsets::{Committed, OffsetKey};
use crate::request::Text;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_schema::{Message, schema};
use flowstone_types::{Timestamp, Uuid};

/// A record to append; a tombstone without a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Type and key.
    pub key: Bytes,
    /// Version and value.
    pub value: Option<Bytes>,
}

schema! {
    /// Whose offset.
    message OffsetCommitKey = 1, versions 0..=0, flexible never {
        /// The group.
        group: String,
        /// The topic's name.
        topic: String,
        /// The partition's index.
        partition: i32,
    }
}

schema! {
    /// A committed offset.
    message OffsetCommitValue = 1, versions 0..=4, flexible 4 {
        /// The next offset to read.
        offset: i64,
        /// Epoch of the last record read.
        leader_epoch: i32 [since(3).ignorable()] = -1,
        /// The client's note.
        metadata: String,
        /// When it was committed.
        commit_timestamp: i64,
        /// Until when it is kept.
        expire_timestamp: i64 [since(1).until(1).ignorable()] = -1,
        /// The topic's id.
        topic_id: Uuid [since(4).tag(0).ignorable()],
    }
}

schema! {
    /// Which group.
    message GroupMetadataKey = 2, versions 0..=0, flexible never {
        /// The group.
        group: String,
    }
}

schema! {
    /// A classic group's generation.
    message GroupMetadataValue = 2, versions 0..=4, flexible 4 {
        /// The protocol type, or empty.
        protocol_type: String,
        /// The generation.
        generation: i32,
        /// The protocol that all members use.
        protocol: Option<String>,
        /// The leader's id.
        leader: Option<String>,
        /// When the state began.
        current_state_timestamp: i64 [since(2).ignorable()] = -1,
        /// The members.
        members: Vec<MemberMetadata>,
    }

    /// One member of a generation.
    struct MemberMetadata {
        /// Its id.
        member_id: String,
        /// Its `group.instance.id`.
        group_instance_id: Option<String> [since(3).ignorable()],
        /// Its client id.
        client_id: String,
        /// Its host.
        client_host: String,
        /// How long a rebalance waits for it, in milliseconds; -1 in old records.
        rebalance_timeout: i32 [since(1).ignorable()] = -1,
        /// How long it may be silent, in milliseconds.
        session_timeout: i32,
        /// Its metadata for the protocol.
        subscription: Bytes,
        /// What it was assigned.
        assignment: Bytes,
    }
}

/// `OffsetCommitKey` of releases before Kafka 0.9, with the same body.
pub(crate) const LEGACY_OFFSET_COMMIT_KEY: i16 = 0;

/// Version written where the client chose a retention time: the only one that can say so.
const OFFSET_VERSION_WITH_EXPIRY: i16 = 1;

/// The group with its generation, as `assignment` has it.
pub(crate) fn group(group: &Group, mut assignment: impl FnMut(&Text, &Member) -> Bytes) -> Record {
    let protocol = group.protocol.as_deref();
    let member = |(id, member): (&Text, &Member)| MemberMetadata {
        member_id: id.to_string(),
        group_instance_id: member.instance.as_deref().map(String::from),
        client_id: member.client_id.to_string(),
        client_host: member.client_host.to_string(),
        rebalance_timeout: member.rebalance_timeout.as_millis() as i32, // Was an i32 on the wire.
        session_timeout: member.session_timeout.as_millis() as i32,
        subscription: protocol.and_then(|p| member.metadata(p)).cloned().unwrap_or_default(),
        assignment: assignment(id, member),
        ..MemberMetadata::default()
    };
    let value = GroupMetadataValue {
        protocol_type: group.protocol_type.as_deref().unwrap_or("").to_string(),
        generation: group.generation,
        protocol: protocol.map(String::from),
        leader: group.leader.as_deref().map(String::from),
        current_state_timestamp: group.state_since.unwrap_or(Timestamp::NONE).0,
        members: group.roster.iter().map(member).collect(),
        ..GroupMetadataValue::default()
    };
    Record { key: group_key(&group.id), value: Some(versioned(&value, 4)) }
}

/// A group that just began.
pub(crate) fn beginning(id: &Text, now: Timestamp) -> Record {
    let value =
        GroupMetadataValue { current_state_timestamp: now.0, ..GroupMetadataValue::default() };
    Record { key: group_key(id), value: Some(versioned(&value, 4)) }
}

/// The end of a group.
pub(crate) fn group_tombstone(id: &Text) -> Record {
    Record { key: group_key(id), value: None }
}

/// An offset.
pub(crate) fn offset(key: &OffsetKey, committed: &Committed) -> Record {
    let value = OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: committed.metadata.to_string(),
        commit_timestamp: committed.at.0,
        expire_timestamp: committed.expires_at.unwrap_or(Timestamp::NONE).0,
        topic_id: committed.topic_id,
        ..OffsetCommitValue::default()
    };
    let version = if committed.expires_at.is_some() { OFFSET_VERSION_WITH_EXPIRY } else { 4 };
    Record { key: offset_key(key), value: Some(versioned(&value, version)) }
}

/// The end of an offset.
pub(crate) fn offset_tombstone(key: &OffsetKey) -> Record {
    Record { key: offset_key(key), value: None }
}

fn offset_key(key: &OffsetKey) -> Bytes {
    typed(&OffsetCommitKey {
        group: key.group.to_string(),
        topic: key.topic.to_string(),
        partition: key.partition,
        ..OffsetCommitKey::default()
    })
}

fn group_key(id: &Text) -> Bytes {
    typed(&GroupMetadataKey { group: id.to_string(), ..GroupMetadataKey::default() })
}

fn typed<M: Message>(key: &M) -> Bytes {
    let mut out = M::KEY.to_be_bytes().to_vec();
    key.encode(0, &mut out).expect("ids are bounded where they come in");
    out.into()
}

fn versioned<M: Message>(value: &M, version: i16) -> Bytes {
    let mut out = version.to_be_bytes().to_vec();
    value.encode(version, &mut out).expect("texts are bounded where they come in");
    out.into()
}

impl OffsetCommitValue {
    pub(crate) fn committed(&self) -> Committed {
        Committed {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.as_str().into(),
            at: Timestamp(self.commit_timestamp),
            expires_at: (self.expire_timestamp != -1).then_some(Timestamp(self.expire_timestamp)),
            topic_id: self.topic_id,
        }
    }
}
