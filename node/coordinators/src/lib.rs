//! Group coordination, decided: classic groups, committed offsets, their records and replay.
//!
//! One [`Groups`] is the coordinator of all groups of one `__consumer_offsets` partition. The shell
//! feeds it requests, the time and the fate of what it wrote; it answers with records to append and
//! answers to send. [`Loading`] rebuilds it from the log. Which partition a group belongs to is
//! [`partition_for`].
//!
//! Separate because who may join, own and commit is decided from memory alone. Pure: time arrives
//! as a value, and so does randomness ([`JoinGroup::fresh`]); a waiting request is a token.
//!
//! Invariants: a group has at most one leader, each generation has one assignment, generations only
//! grow, and no answer that promises a write leaves before that write is durable.
//!
//! Where to find things: `groups` routes an input to its group; `join`, `rebalance` and `session`
//! are the classic protocol (KIP-62, 134, 211, 345, 394, 559, 814); `commit` and `cleanup` are
//! offsets and their end; `settle` is what happens when a write is durable or refused.

#![no_std]

extern crate alloc;

mod admin;
mod cleanup;
mod commit;
mod config;
mod error;
mod group;
mod groups;
mod join;
mod load;
mod member;
mod offsets;
mod partition;
mod rebalance;
mod records;
mod request;
mod roster;
mod session;
mod settle;
mod subscription;
mod writes;

pub use config::{
    CLEANUP_RECORDS_MAX, Config, GROUP_BYTES_MAX, GROUP_ID_BYTES_MAX, GROUP_MEMBERS_MAX,
    GROUPS_MAX, JOIN_BYTES_MAX, MEMBER_BYTES_MAX, NEW_MEMBER_JOIN_TIMEOUT_MS,
    OFFSET_METADATA_UNITS_MAX, OFFSETS_PER_GROUP_MAX, PROTOCOLS_MAX,
};
pub use error::{Error, Refusal, wire_code};
pub use groups::{Effect, Groups, Input, Now, RequestId};
pub use load::{Loading, ReplayError, Replayed};
pub use partition::partition_for;
pub use records::{
    GroupMetadataKey, GroupMetadataValue, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
    Record,
};
pub use request::{
    Answer, Commit, CommitTopic, DeleteGroups, DescribeGroups, DescribedGroup, DescribedMember,
    FetchTopic, FetchedOffset, FetchedTopic, Heartbeat, JoinGroup, JoinRefused, Joined,
    JoinedMember, LeaveGroup, Leaving, Left, ListGroups, ListedGroup, OffsetCommit, OffsetDelete,
    OffsetFetch, PartitionResult, Protocol, Request, SyncGroup, Synced, Text, TopicResult,
};
pub use writes::WriteId;
