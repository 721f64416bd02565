//! What Kafka 4.3 says in versions that kafka-protocol does not know, in its messages all the same.
//!
//! Separate so that it can go once that crate has them. `table.rs` asks here for these versions only:
//! OffsetCommit and OffsetFetch requests by topic id (10, KIP-848), and the DescribeLogDirs response
//! with cordoned directories (5, KIP-1066). Requests are read with the schema macro, whose decoder
//! allocates no more than arrived.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flowstone_schema::{Message, schema};
use flowstone_types::Uuid;
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResponse;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest};
use kafka_protocol::protocol::Encodable;

use crate::{Api, shape, string, uuid_from_wire, uuid_to_wire};

schema! {
    /// OffsetCommit by topic id.
    message CommitById = 8, versions 10..=10, flexible 8 {
        /// The group.
        group_id: String,
        /// Its generation, or the member's epoch.
        generation: i32,
        /// The member.
        member_id: String,
        /// Its `group.instance.id`.
        group_instance_id: Option<String>,
        /// What to commit.
        topics: Vec<CommitTopicById>,
    }

    /// Offsets of one topic.
    struct CommitTopicById {
        /// The topic.
        topic_id: Uuid,
        /// By partition.
        partitions: Vec<CommitPartitionById>,
    }

    /// One offset.
    struct CommitPartitionById {
        /// The partition's index.
        index: i32,
        /// The next offset to read.
        offset: i64,
        /// Epoch of the last record read.
        leader_epoch: i32,
        /// The client's own note.
        metadata: Option<String>,
    }

    /// OffsetFetch by topic id.
    message FetchById = 9, versions 10..=10, flexible 6 {
        /// The groups.
        groups: Vec<FetchGroupById>,
        /// Whether offsets of open transactions are waited for.
        require_stable: bool,
    }

    /// One group.
    struct FetchGroupById {
        /// The group.
        group_id: String,
        /// The member that asks.
        member_id: Option<String>,
        /// Its epoch.
        member_epoch: i32,
        /// What to fetch; null for all.
        topics: Option<Vec<FetchTopicById>>,
    }

    /// Partitions of one topic.
    struct FetchTopicById {
        /// The topic.
        topic_id: Uuid,
        /// Their indexes.
        partition_indexes: Vec<i32>,
    }
}

/// Reads an OffsetCommit of version 10, whose shape was walked; topics have ids and no names.
pub(crate) fn offset_commit(version: i16, body: &mut Bytes) -> Result<OffsetCommitRequest, String> {
    let read: CommitById = read(Api::OffsetCommit, version, body)?;
    let partition = |one: CommitPartitionById| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(one.index)
            .with_committed_offset(one.offset)
            .with_committed_leader_epoch(one.leader_epoch)
            .with_committed_metadata(one.metadata.map(string))
    };
    let topic = |topic: CommitTopicById| {
        OffsetCommitRequestTopic::default()
            .with_topic_id(uuid_to_wire(topic.topic_id))
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    };
    Ok(OffsetCommitRequest::default()
        .with_group_id(GroupId(string(read.group_id)))
        .with_generation_id_or_member_epoch(read.generation)
        .with_member_id(string(read.member_id))
        .with_group_instance_id(read.group_instance_id.map(string))
        .with_topics(read.topics.into_iter().map(topic).collect()))
}

/// Reads an OffsetFetch of version 10, likewise.
pub(crate) fn offset_fetch(version: i16, body: &mut Bytes) -> Result<OffsetFetchRequest, String> {
    let read: FetchById = read(Api::OffsetFetch, version, body)?;
    let topic = |topic: FetchTopicById| {
        OffsetFetchRequestTopics::default()
            .with_topic_id(uuid_to_wire(topic.topic_id))
            .with_partition_indexes(topic.partition_indexes)
    };
    let group = |group: FetchGroupById| {
        let topics = group.topics.map(|topics| topics.into_iter().map(topic).collect());
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(string(group.group_id)))
            .with_member_id(group.member_id.map(string))
            .with_member_epoch(group.member_epoch)
            .with_topics(topics)
    };
    Ok(OffsetFetchRequest::default()
        .with_groups(read.groups.into_iter().map(group).collect())
        .with_require_stable(read.require_stable))
}

/// Writes an OffsetCommit of version 10.
pub(crate) fn put_offset_commit(
    request: &OffsetCommitRequest,
    version: i16,
    buffer: &mut BytesMut,
) -> Result<(), String> {
    let partition = |one: &OffsetCommitRequestPartition| CommitPartitionById {
        index: one.partition_index,
        offset: one.committed_offset,
        leader_epoch: one.committed_leader_epoch,
        metadata: one.committed_metadata.as_deref().map(str::to_owned),
        ..CommitPartitionById::default()
    };
    let topic = |topic: &OffsetCommitRequestTopic| CommitTopicById {
        topic_id: uuid_from_wire(topic.topic_id),
        partitions: topic.partitions.iter().map(partition).collect(),
        ..CommitTopicById::default()
    };
    let message = CommitById {
        group_id: request.group_id.to_string(),
        generation: request.generation_id_or_member_epoch,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.as_deref().map(str::to_owned),
        topics: request.topics.iter().map(topic).collect(),
        ..CommitById::default()
    };
    put(&message, version, buffer)
}

/// Writes an OffsetFetch of version 10.
pub(crate) fn put_offset_fetch(
    request: &OffsetFetchRequest,
    version: i16,
    buffer: &mut BytesMut,
) -> Result<(), String> {
    let topic = |topic: &OffsetFetchRequestTopics| FetchTopicById {
        topic_id: uuid_from_wire(topic.topic_id),
        partition_indexes: topic.partition_indexes.clone(),
        ..FetchTopicById::default()
    };
    let group = |group: &OffsetFetchRequestGroup| FetchGroupById {
        group_id: group.group_id.to_string(),
        member_id: group.member_id.as_deref().map(str::to_owned),
        member_epoch: group.member_epoch,
        topics: group.topics.as_ref().map(|topics| topics.iter().map(topic).collect()),
        ..FetchGroupById::default()
    };
    let message = FetchById {
        groups: request.groups.iter().map(group).collect(),
        require_stable: request.require_stable,
        ..FetchById::default()
    };
    put(&message, version, buffer)
}

fn put(message: &impl Message, version: i16, buffer: &mut BytesMut) -> Result<(), String> {
    buffer.put_slice(&message.to_vec(version).map_err(|error| error.to_string())?);
    Ok(())
}

fn read<M: Message>(api: Api, version: i16, body: &mut Bytes) -> Result<M, String> {
    let len = shape::walk(api.row().shape(version), body).map_err(|error| error.to_string())?;
    let message = M::decode(version, &body[..len]).map_err(|error| error.to_string());
    body.advance(len);
    message
}

/// Writes a DescribeLogDirs response of version 5: as version 4, and after each directory's sizes
/// whether it is cordoned, which none of ours can be.
pub(crate) fn describe_log_dirs(
    response: &DescribeLogDirsResponse,
    buffer: &mut BytesMut,
) -> Result<(), String> {
    const BEFORE: i16 = 4;
    buffer.put_i32(response.throttle_time_ms);
    buffer.put_i16(response.error_code);
    let count = u32::try_from(response.results.len() + 1).map_err(|error| error.to_string())?;
    let mut length = Vec::new();
    flowstone_schema::varint::write(count, &mut length);
    buffer.put_slice(&length);
    for result in &response.results {
        assert!(result.unknown_tagged_fields.is_empty(), "ours has none");
        let before = buffer.len();
        result.encode(buffer, BEFORE).map_err(|error| format!("{error:#}"))?;
        assert!(
            buffer.len() > before && buffer.last() == Some(&0),
            "it ends with no tagged fields"
        );
        buffer.truncate(buffer.len() - 1);
        buffer.put_slice(&[0, 0]); // Not cordoned; no tagged fields.
    }
    buffer.put_u8(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ReplyTo, RequestBody};
    use kafka_protocol::messages::describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    };

    fn bytes(hex: &str) -> Bytes {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (0..hex.len()).step_by(2).map(digit).collect::<Vec<u8>>().into()
    }

    /// Written by Apache Kafka 4.3.1's own classes.
    #[test]
    fn kafkas_own_bytes_are_read() {
        let id = uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let mut sent = bytes(
            "026700000003026d00020102030405060708090a0b0c0d0e0f100200000001000000000000002a\
             00000007026e000000",
        );
        let read = RequestBody::decode(Api::OffsetCommit, 10, &mut sent).unwrap();
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(1)
            .with_committed_offset(42)
            .with_committed_leader_epoch(7)
            .with_committed_metadata(Some(string("n")));
        let topic = OffsetCommitRequestTopic::default().with_topic_id(id);
        let want = OffsetCommitRequest::default()
            .with_group_id(GroupId(string("g")))
            .with_generation_id_or_member_epoch(3)
            .with_member_id(string("m"))
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        assert_eq!(read, RequestBody::OffsetCommit(want));

        let mut sent = bytes(
            "03026700ffffffff020102030405060708090a0b0c0d0e0f100300000001000000020000026800\
             ffffffff00000100",
        );
        let read = RequestBody::decode(Api::OffsetFetch, 10, &mut sent).unwrap();
        let topic = OffsetFetchRequestTopics::default()
            .with_topic_id(id)
            .with_partition_indexes(vec![1, 2]);
        let group = |name: &str, topics| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(string(name)))
                .with_member_id(None)
                .with_topics(topics)
        };
        let want = OffsetFetchRequest::default()
            .with_groups(vec![group("g", Some(vec![topic])), group("h", None)])
            .with_require_stable(true);
        assert_eq!(read, RequestBody::OffsetFetch(want));
    }

    /// Likewise, but for the frame's head.
    #[test]
    fn directories_are_told_as_kafka_tells_them() {
        let partition =
            DescribeLogDirsPartition::default().with_partition_index(1).with_partition_size(5);
        let topic = DescribeLogDirsTopic::default()
            .with_name(crate::topic_name("t"))
            .with_partitions(vec![partition]);
        let result = DescribeLogDirsResult::default()
            .with_log_dir(string("/d"))
            .with_topics(vec![topic])
            .with_total_bytes(9)
            .with_usable_bytes(8);
        let response = DescribeLogDirsResponse::default().with_results(vec![result]);
        let mut parts = Vec::new();
        let reply_to = ReplyTo { api: Api::DescribeLogDirs, version: 5, correlation_id: 1 };
        reply_to.encode(&response.into(), &mut parts).unwrap();
        let want = bytes(
            "000000000000020000032f64020274020000000100000000000000050000000000000000000000\
             00000000000000090000000000000008000000",
        );
        assert_eq!(parts[0].slice(9..), want); // Length, correlation id, no tagged fields.
    }
}
