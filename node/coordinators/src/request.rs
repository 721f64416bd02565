//! Requests and answers, one to one with Kafka's messages, without what only the wire needs.
//!
//! Separate so that an API file maps fields and nothing else. Authorisation, throttling, old
//! versions' missing fields and the check that a topic exists are the API file's.

use crate::error::Error;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::Uuid;

/// An id or name: held in many places, stored once.
pub type Text = Arc<str>;

/// What a client asks of the coordinator.
#[derive(Clone, Debug)]
pub enum Request {
    /// Key 11.
    Join(JoinGroup),
    /// Key 14.
    Sync(SyncGroup),
    /// Key 12.
    Heartbeat(Heartbeat),
    /// Key 13.
    Leave(LeaveGroup),
    /// Key 8.
    Commit(OffsetCommit),
    /// Key 9, one of its groups.
    Fetch(OffsetFetch),
    /// Key 47.
    DeleteOffsets(OffsetDelete),
    /// Key 42, the groups of this partition.
    DeleteGroups(DeleteGroups),
    /// Key 15, the groups of this partition.
    Describe(DescribeGroups),
    /// Key 16, this partition's part of the answer.
    List(ListGroups),
}

/// The answer to the [`Request`] of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To [`Request::Join`].
    Join(Result<Joined, JoinRefused>),
    /// To [`Request::Sync`].
    Sync(Result<Synced, Error>),
    /// To [`Request::Heartbeat`].
    Heartbeat(Result<(), Error>),
    /// To [`Request::Leave`].
    Leave(Result<Vec<Left>, Error>),
    /// To [`Request::Commit`].
    Commit(Vec<TopicResult>),
    /// To [`Request::Fetch`].
    Fetch(Result<Vec<FetchedTopic>, Error>),
    /// To [`Request::DeleteOffsets`].
    DeleteOffsets(Result<Vec<TopicResult>, Error>),
    /// To [`Request::DeleteGroups`].
    DeleteGroups(Vec<(Text, Option<Error>)>),
    /// To [`Request::Describe`].
    Describe(Vec<DescribedGroup>),
    /// To [`Request::List`].
    List(Result<Vec<ListedGroup>, Error>),
}

/// JoinGroup, versions 0 to 9.
#[derive(Clone, Debug)]
pub struct JoinGroup {
    /// The API version: from 4 on a new member must come back with its id, from 9 on a leader can be
    /// told to skip the assignment.
    pub version: i16,
    /// The group.
    pub group: Text,
    /// The id this member was given; empty for a new one.
    pub member: Text,
    /// `group.instance.id` (KIP-345).
    pub instance: Option<Text>,
    /// `session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `max.poll.interval.ms`; -1 (as version 0 has it) means the session time-out.
    pub rebalance_timeout_ms: i32,
    /// "consumer", "connect", ...
    pub protocol_type: Text,
    /// What the member supports, most wanted first.
    pub protocols: Vec<Protocol>,
    /// From the request's header; empty where there is none.
    pub client_id: Text,
    /// The peer as Kafka prints it: "/192.0.2.7".
    pub client_host: Text,
    /// 122 random bits and 6 fixed ones, should this member need an id: a version 4 UUID.
    pub fresh: u128,
}

/// A protocol that a member supports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// The assignor's name.
    pub name: Text,
    /// What the leader should know; the coordinator does not look inside, but for topics.
    pub metadata: Bytes,
}

/// A JoinGroup that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// The group's generation.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Text>,
    /// The protocol all members use in this generation.
    pub protocol: Option<Text>,
    /// Who assigns.
    pub leader: Text,
    /// The leader need not assign: the group has an assignment (KIP-814).
    pub skip_assignment: bool,
    /// The member's id.
    pub member: Text,
    /// All members, for the leader; else empty.
    pub members: Vec<JoinedMember>,
}

/// A JoinGroup that was not accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRefused {
    /// Why.
    pub error: Error,
    /// The id to come back with, where the error is `MEMBER_ID_REQUIRED`.
    pub member: Text,
}

/// A member as the leader is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// SyncGroup, versions 0 to 5.
#[derive(Clone, Debug)]
pub struct SyncGroup {
    /// The group.
    pub group: Text,
    /// The generation that was joined.
    pub generation: i32,
    /// The member's id.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
    /// From version 5 on, where it must not be missing (KIP-559).
    pub protocol_type: Option<Text>,
    /// From version 5 on, where it must not be missing (KIP-559).
    pub protocol: Option<Text>,
    /// From the leader: who gets what.
    pub assignments: Vec<(Text, Bytes)>,
}

/// A SyncGroup that was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<Text>,
    /// The generation's protocol.
    pub protocol: Option<Text>,
    /// What this member got.
    pub assignment: Bytes,
}

/// Heartbeat, versions 0 to 4.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The group.
    pub group: Text,
    /// The member's generation.
    pub generation: i32,
    /// The member's id.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
}

/// LeaveGroup, versions 0 to 5; before version 3 with one member.
#[derive(Clone, Debug)]
pub struct LeaveGroup {
    /// The group.
    pub group: Text,
    /// Who leaves.
    pub members: Vec<Leaving>,
}

/// One that leaves: by id, or (an operator's removal, KIP-345) by instance id with an empty id.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The member's id, or empty.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
}

/// What became of one [`Leaving`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// As it was asked for.
    pub member: Text,
    /// As it was asked for.
    pub instance: Option<Text>,
    /// Why it did not leave.
    pub error: Option<Error>,
}

/// OffsetCommit, versions 2 to 9 (and 10, by topic id, once the API file resolved the names).
#[derive(Clone, Debug)]
pub struct OffsetCommit {
    /// The API version: from 9 on an unknown group is `GROUP_ID_NOT_FOUND`.
    pub version: i16,
    /// The group.
    pub group: Text,
    /// The member's generation; -1 from one that manages its partitions itself.
    pub generation: i32,
    /// The member's id, or empty.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
    /// Versions 2 to 4: how long to keep these offsets; -1 is the broker's retention.
    pub retention_ms: i64,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// Offsets of one topic.
#[derive(Clone, Debug)]
pub struct CommitTopic {
    /// The topic's name.
    pub name: Text,
    /// Its id; zero where it is not known.
    pub id: Uuid,
    /// Offsets, by partition.
    pub partitions: Vec<Commit>,
}

/// One offset to commit.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The partition's index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the last record read; -1 unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: Option<String>,
}

/// Results by partition of one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicResult {
    /// The topic's name.
    pub name: Text,
    /// The id that came with the request.
    pub id: Uuid,
    /// One per partition asked for, in that order.
    pub partitions: Vec<PartitionResult>,
}

/// What became of one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionResult {
    /// The partition's index.
    pub partition: i32,
    /// Why it failed.
    pub error: Option<Error>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug)]
pub struct OffsetFetch {
    /// The group.
    pub group: Text,
    /// What to look up; `None` for all there is.
    pub topics: Option<Vec<FetchTopic>>,
    /// Wait for commits that are under way (KIP-447).
    pub require_stable: bool,
}

/// Partitions of one topic to look up.
#[derive(Clone, Debug)]
pub struct FetchTopic {
    /// The topic's name.
    pub name: Text,
    /// Its id; zero where the request has none (before version 10).
    pub id: Uuid,
    /// Partition indexes.
    pub partitions: Vec<i32>,
}

/// Offsets found in one topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedTopic {
    /// The topic's name.
    pub name: Text,
    /// The id that came with the request.
    pub id: Uuid,
    /// One per partition.
    pub partitions: Vec<FetchedOffset>,
}

/// One committed offset; -1 with no metadata where there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedOffset {
    /// The partition's index.
    pub partition: i32,
    /// The next offset to read, or -1.
    pub offset: i64,
    /// Epoch of the last record read, or -1.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: String,
}

/// OffsetDelete, version 0.
#[derive(Clone, Debug)]
pub struct OffsetDelete {
    /// The group.
    pub group: Text,
    /// Topics, and the partitions of each whose offsets are to go.
    pub topics: Vec<(Text, Vec<i32>)>,
}

/// DeleteGroups, versions 0 to 2.
#[derive(Clone, Debug)]
pub struct DeleteGroups {
    /// The groups of this partition.
    pub groups: Vec<Text>,
}

/// DescribeGroups, versions 0 to 6.
#[derive(Clone, Debug)]
pub struct DescribeGroups {
    /// The API version: from 6 on an unknown group is an error (KIP-1043).
    pub version: i16,
    /// The groups of this partition.
    pub groups: Vec<Text>,
}

/// One group, described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    /// The group.
    pub group: Text,
    /// Why it is not described.
    pub error: Option<Error>,
    /// From version 6 on: the error in words.
    pub message: Option<String>,
    /// Kafka's name of the state; empty with an error other than `GROUP_ID_NOT_FOUND`.
    pub state: &'static str,
    /// The protocol type, or empty.
    pub protocol_type: Text,
    /// The chosen protocol of a stable group, else empty.
    pub protocol: Text,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// One member, described.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    /// Its id.
    pub member: Text,
    /// Its `group.instance.id`.
    pub instance: Option<Text>,
    /// Its client id.
    pub client_id: Text,
    /// Its host.
    pub client_host: Text,
    /// Its metadata for the chosen protocol, of a stable group only.
    pub metadata: Bytes,
    /// What it was assigned.
    pub assignment: Bytes,
}

/// ListGroups, versions 0 to 5.
#[derive(Clone, Debug)]
pub struct ListGroups {
    /// States to list, in any case; empty for all (KIP-518).
    pub states: Vec<Text>,
    /// Group types to list, in any case; empty for all (KIP-848).
    pub types: Vec<Text>,
}

/// One group of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// The group.
    pub group: Text,
    /// The protocol type, or empty.
    pub protocol_type: Text,
    /// Kafka's name of the state.
    pub state: &'static str,
    /// Kafka's name of the group type.
    pub group_type: &'static str,
}

impl Request {
    /// The answer where this broker does not coordinate the group (`NOT_COORDINATOR`), is still
    /// loading it (`COORDINATOR_LOAD_IN_PROGRESS`), or has no coordinator to ask.
    pub fn refused(&self, error: Error) -> Answer {
        match self {
            Self::Join(join) => {
                Answer::Join(Err(JoinRefused { error, member: join.member.clone() }))
            }
            Self::Sync(_) => Answer::Sync(Err(error)),
            // While we load, a member can do nothing better than to go on.
            Self::Heartbeat(_) if error == Error::CoordinatorLoadInProgress => {
                Answer::Heartbeat(Ok(()))
            }
            Self::Heartbeat(_) => Answer::Heartbeat(Err(error)),
            Self::Leave(_) => Answer::Leave(Err(error)),
            Self::Commit(commit) => Answer::Commit(commit.all_failed(error)),
            Self::Fetch(_) => Answer::Fetch(Err(error)),
            Self::DeleteOffsets(_) => Answer::DeleteOffsets(Err(error)),
            Self::DeleteGroups(delete) => Answer::DeleteGroups(
                delete.groups.iter().map(|group| (group.clone(), Some(error))).collect(),
            ),
            Self::Describe(describe) => Answer::Describe(
                describe.groups.iter().map(|id| DescribedGroup::failed(id, error)).collect(),
            ),
            Self::List(_) => Answer::List(Err(error)),
        }
    }
}

impl OffsetCommit {
    pub(crate) fn all_failed(&self, error: Error) -> Vec<TopicResult> {
        let topic = |topic: &CommitTopic| TopicResult {
            name: topic.name.clone(),
            id: topic.id,
            partitions: (topic.partitions.iter())
                .map(|p| PartitionResult { partition: p.partition, error: Some(error) })
                .collect(),
        };
        self.topics.iter().map(topic).collect()
    }
}

impl DescribedGroup {
    pub(crate) fn failed(group: &Text, error: Error) -> Self {
        Self {
            group: group.clone(),
            error: Some(error),
            message: None,
            state: "",
            protocol_type: Text::from(""),
            protocol: Text::from(""),
            members: Vec::new(),
        }
    }
}

impl Answer {
    /// This answer, promised before its write was durable, now that the write has failed.
    pub(crate) fn failed(self, error: Error) -> Self {
        let fail = |mut topics: Vec<TopicResult>| {
            for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.error = Some(error); // Kafka fails the whole request, too.
            }
            topics
        };
        match self {
            Self::Join(Ok(Joined { member, .. }) | Err(JoinRefused { member, .. })) => {
                Self::Join(Err(JoinRefused { error, member }))
            }
            Self::Sync(_) => Self::Sync(Err(error)),
            Self::Heartbeat(_) => Self::Heartbeat(Err(error)),
            Self::Leave(_) => Self::Leave(Err(error)),
            Self::Commit(topics) => Self::Commit(fail(topics)),
            Self::Fetch(_) => Self::Fetch(Err(error)),
            Self::DeleteOffsets(_) => Self::DeleteOffsets(Err(error)),
            Self::DeleteGroups(groups) => {
                Self::DeleteGroups(groups.into_iter().map(|(id, _)| (id, Some(error))).collect())
            }
            Self::Describe(groups) => Self::Describe(
                groups.iter().map(|group| DescribedGroup::failed(&group.group, error)).collect(),
            ),
            Self::List(_) => Self::List(Err(error)),
        }
    }
}
