//! Membership in a classic consumer group, and its committed offsets.
//!
//! A member reads one topic. It offers the assignor `range`, so it can share a group with every
//! client's default, and assigns for all where it is the leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowstone_schema::{Message, Reader, schema};
use flowstone_wire::messages::join_group_request::JoinGroupRequestProtocol;
use flowstone_wire::messages::leave_group_request::MemberIdentity;
use flowstone_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use flowstone_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use flowstone_wire::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use flowstone_wire::{ErrorCode, StrBytes, string, topic_name};

use super::{Cluster, Connection, RETRY_EVERY, until};
use crate::failure::{Failure, check};

schema! {
    /// What a member tells its leader (`ConsumerProtocolSubscription`; later versions begin like it).
    message Subscription = -1, versions 0..=0, flexible never {
        /// The topics it reads.
        topics: Vec<String>,
        /// Its assignor's own data.
        user_data: Option<Bytes>,
    }
}

schema! {
    /// What the leader tells a member (`ConsumerProtocolAssignment`; later versions begin like it).
    message Assignment = -1, versions 0..=0, flexible never {
        /// The partitions it is to read.
        topics: Vec<AssignedTopic>,
        /// The assignor's own data.
        user_data: Option<Bytes>,
    }

    /// Partitions of one topic.
    struct AssignedTopic {
        /// The topic.
        topic: String,
        /// Their indices.
        partitions: Vec<i32>,
    }
}

const SESSION_TIMEOUT: Duration = Duration::from_secs(45); // Kafka's default.
const REBALANCE_TIMEOUT: Duration = Duration::from_mins(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3); // Kafka's default.
const ASSIGNOR: &str = "range";
const PROTOCOL_TYPE: &str = "consumer";

/// A member of a group.
pub struct Member {
    group: GroupId,
    topic: String,
    id: StrBytes,
    generation: i32,
    connection: Connection,
    last_heartbeat: Instant,
    /// The partitions of the topic that it is to read.
    pub assigned: Vec<i32>,
}

impl Member {
    /// Joins `group` to read `topic`; waits for the group's rebalance.
    pub fn join(cluster: &mut Cluster, group: &str, topic: &str) -> Result<Self, Failure> {
        let mut member = Self {
            group: GroupId(string(group)),
            topic: topic.to_owned(),
            id: StrBytes::default(),
            generation: -1,
            connection: coordinator(cluster, group)?,
            last_heartbeat: Instant::now(),
            assigned: Vec::new(),
        };
        member.rejoin(cluster)?;
        Ok(member)
    }

    /// Joins the group's next generation.
    pub fn rejoin(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let deadline = Instant::now() + REBALANCE_TIMEOUT + cluster.timeout;
        loop {
            let Err(failure) = self.rejoin_once(cluster) else { return Ok(()) };
            let again = joins_again(&failure) || failure.may_pass();
            if !again || Instant::now() > deadline {
                return Err(failure);
            }
            if failure.is(ErrorCode::UnknownMemberId) {
                self.id = StrBytes::default();
            }
            if !joins_again(&failure) {
                // The coordinator moved, is loading, or is gone.
                std::thread::sleep(RETRY_EVERY);
                self.connection = coordinator(cluster, &self.group)?;
            }
        }
    }

    fn rejoin_once(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let joined = self.join_group()?;
        self.generation = joined.generation_id;
        self.id = joined.member_id.clone();
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            assign_all(cluster, &joined)
        } else {
            Vec::new()
        };
        let (group, id, generation) = (self.group.clone(), self.id.clone(), self.generation);
        let response = self.connection.call(|version| {
            let request = SyncGroupRequest::default()
                .with_group_id(group)
                .with_generation_id(generation)
                .with_member_id(id)
                .with_assignments(assignments);
            if version >= 5 {
                request
                    .with_protocol_type(Some(string(PROTOCOL_TYPE)))
                    .with_protocol_name(joined.protocol_name.or(Some(string(ASSIGNOR))))
            } else {
                request
            }
        })?;
        check(|| self.what(), response.error_code, None)?;
        self.assigned = assigned_of(&response.assignment, &self.topic)
            .ok_or_else(|| Failure::Damaged(format!("{}: unreadable assignment", self.what())))?;
        self.last_heartbeat = Instant::now();
        Ok(())
    }

    /// KIP-394: a new member is refused once, with the id that it is to use.
    fn join_group(&mut self) -> Result<JoinGroupResponse, Failure> {
        let subscription =
            Subscription { topics: vec![self.topic.clone()], ..Subscription::default() };
        let metadata = versioned(&subscription);
        loop {
            let (group, id) = (self.group.clone(), self.id.clone());
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(string(ASSIGNOR))
                .with_metadata(metadata.clone());
            let response = self.connection.call(|version| {
                let request = JoinGroupRequest::default()
                    .with_group_id(group)
                    .with_session_timeout_ms(SESSION_TIMEOUT.as_millis() as i32)
                    .with_member_id(id)
                    .with_protocol_type(string(PROTOCOL_TYPE))
                    .with_protocols(vec![protocol]);
                let rebalance_ms = REBALANCE_TIMEOUT.as_millis() as i32;
                if version >= 1 { request.with_rebalance_timeout_ms(rebalance_ms) } else { request }
            })?;
            if response.error_code == ErrorCode::MemberIdRequired as i16 && self.id.is_empty() {
                self.id = response.member_id;
                continue;
            }
            check(|| self.what(), response.error_code, None)?;
            return Ok(response);
        }
    }

    /// Says "still here" where it is time to; returns whether the group rebalances, so that
    /// [`Member::rejoin`] is due.
    pub fn heartbeat(&mut self) -> Result<bool, Failure> {
        if self.last_heartbeat.elapsed() < HEARTBEAT_EVERY {
            return Ok(false);
        }
        let (group, id, generation) = (self.group.clone(), self.id.clone(), self.generation);
        let response = self.connection.call(|_| {
            HeartbeatRequest::default()
                .with_group_id(group)
                .with_generation_id(generation)
                .with_member_id(id)
        });
        self.last_heartbeat = Instant::now();
        let beat = response.and_then(|response| check(|| self.what(), response.error_code, None));
        match beat {
            Ok(()) => Ok(false),
            Err(failure) if joins_again(&failure) || failure.may_pass() => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    /// Commits the next offset of each partition.
    pub fn commit(&mut self, positions: &BTreeMap<i32, i64>) -> Result<(), Failure> {
        let topics = BTreeMap::from([(self.topic.clone(), positions.clone())]);
        let owner = (self.generation, self.id.clone());
        commit(&mut self.connection, &self.group, owner, &topics)
    }

    /// Leaves, so that the others need not wait for the session to end.
    pub fn leave(&mut self) -> Result<(), Failure> {
        let (group, id) = (self.group.clone(), self.id.clone());
        let response = self.connection.call(|version| {
            let request = LeaveGroupRequest::default().with_group_id(group);
            if version >= 3 {
                request.with_members(vec![MemberIdentity::default().with_member_id(id)])
            } else {
                request.with_member_id(id)
            }
        })?;
        check(|| self.what(), response.error_code, None)
    }

    fn what(&self) -> String {
        format!("group {}", self.group.as_str())
    }
}

/// The leader's work: who reads what.
fn assign_all(
    cluster: &mut Cluster,
    joined: &JoinGroupResponse,
) -> Vec<SyncGroupRequestAssignment> {
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in &joined.members {
        for topic in subscribed(&member.metadata).unwrap_or_default() {
            wanted.entry(topic).or_default().push(member.member_id.to_string());
        }
    }
    let mut counts = BTreeMap::new();
    for topic in wanted.keys() {
        // Another member's topic may not be there: its member gets nothing of it.
        let count = cluster.topic(topic).map_or(0, |topic| topic.partitions.len());
        counts.insert(topic.clone(), count as i32);
    }
    let assigned = range(&wanted, &counts);
    let members = joined.members.iter().map(|member| {
        let topics = assigned.get(member.member_id.as_str()).cloned().unwrap_or_default();
        let topics = topics.into_iter().map(|(topic, partitions)| AssignedTopic {
            topic,
            partitions,
            ..AssignedTopic::default()
        });
        let assignment = Assignment { topics: topics.collect(), ..Assignment::default() };
        SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(versioned(&assignment))
    });
    members.collect()
}

fn joins_again(failure: &Failure) -> bool {
    [ErrorCode::RebalanceInProgress, ErrorCode::IllegalGeneration, ErrorCode::UnknownMemberId]
        .into_iter()
        .any(|code| failure.is(code))
}

/// A connection to a group's coordinator that waits as long as a rebalance takes.
fn coordinator(cluster: &mut Cluster, group: &str) -> Result<Connection, Failure> {
    let node = cluster.coordinator(group)?;
    cluster.node(node)?; // Learns where it is.
    let connection = Connection::open(&cluster.brokers[&node].address, cluster.timeout)?;
    connection.wait_up_to(REBALANCE_TIMEOUT + cluster.timeout)?;
    Ok(connection)
}

/// The offsets that a group has committed: of `topics` the next offset of each partition.
pub fn committed(
    cluster: &mut Cluster,
    group: &str,
) -> Result<BTreeMap<String, BTreeMap<i32, i64>>, Failure> {
    let node = cluster.coordinator(group)?;
    let timeout = cluster.timeout;
    until(timeout, || {
        let response = cluster.call(node, |version| {
            let request = OffsetFetchRequest::default();
            let id = GroupId(string(group));
            if version >= 8 {
                let all = OffsetFetchRequestGroup::default().with_group_id(id).with_topics(None);
                request.with_groups(vec![all])
            } else {
                request.with_group_id(id).with_topics(None)
            }
        })?;
        let what = || format!("committed offsets of group {group}");
        check(what, response.error_code, None)?;
        let mut all: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        let mut note = |topic: &str, partition: i32, offset: i64, code: i16| {
            check(|| format!("committed offset of {topic}-{partition}"), code, None)?;
            if offset >= 0 {
                all.entry(topic.to_owned()).or_default().insert(partition, offset);
            }
            Ok(())
        };
        for topic in &response.topics {
            for p in &topic.partitions {
                note(&topic.name, p.partition_index, p.committed_offset, p.error_code)?;
            }
        }
        for group in &response.groups {
            check(what, group.error_code, None)?;
            for topic in &group.topics {
                for p in &topic.partitions {
                    note(&topic.name, p.partition_index, p.committed_offset, p.error_code)?;
                }
            }
        }
        Ok(all)
    })
}

/// Commits offsets for a group that has no members.
pub fn commit_without_member(
    cluster: &mut Cluster,
    group: &str,
    offsets: &BTreeMap<String, BTreeMap<i32, i64>>,
) -> Result<(), Failure> {
    let node = cluster.coordinator(group)?;
    let timeout = cluster.timeout;
    until(timeout, || {
        let connection = cluster.node(node)?;
        commit(connection, &GroupId(string(group)), (-1, StrBytes::default()), offsets)
    })
}

fn commit(
    connection: &mut Connection,
    group: &GroupId,
    (generation, member): (i32, StrBytes),
    offsets: &BTreeMap<String, BTreeMap<i32, i64>>,
) -> Result<(), Failure> {
    let topics = offsets.iter().map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|(index, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::default()))
        });
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.collect())
    });
    let topics: Vec<_> = topics.collect();
    let response = connection.call(|_| {
        OffsetCommitRequest::default()
            .with_group_id(group.clone())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(member)
            .with_topics(topics)
    })?;
    for topic in response.topics {
        for partition in topic.partitions {
            let place = (topic.name.as_str(), partition.partition_index);
            let what = || format!("commit of {}-{} by group {}", place.0, place.1, group.as_str());
            check(what, partition.error_code, None)?;
        }
    }
    Ok(())
}

/// Kafka's range assignor: of each topic, members in the order of their ids get equal runs of
/// partitions, the first ones one more where it does not divide.
fn range(
    wanted: &BTreeMap<String, Vec<String>>,
    counts: &BTreeMap<String, i32>,
) -> BTreeMap<String, Vec<(String, Vec<i32>)>> {
    let mut all: BTreeMap<String, Vec<(String, Vec<i32>)>> = BTreeMap::new();
    for (topic, members) in wanted {
        let mut members = members.clone();
        members.sort();
        let (count, among) = (counts.get(topic).copied().unwrap_or(0), members.len() as i32);
        let (each, more) = (count / among, count % among);
        let mut next = 0;
        for (at, member) in members.into_iter().enumerate() {
            let end = next + each + i32::from((at as i32) < more);
            if end > next {
                all.entry(member).or_default().push((topic.clone(), (next..end).collect()));
            }
            next = end;
        }
    }
    all
}

fn versioned<M: Message>(message: &M) -> Bytes {
    let mut bytes = 0_i16.to_be_bytes().to_vec();
    message.encode(0, &mut bytes).expect("version 0 has all that we set");
    bytes.into()
}

/// The topics of a member's subscription.
pub fn subscribed(metadata: &[u8]) -> Option<Vec<String>> {
    Some(begin::<Subscription>(metadata)?.topics)
}

/// The partitions of `topic` in a member's assignment; nothing where it has none.
pub fn assigned_of(assignment: &[u8], topic: &str) -> Option<Vec<i32>> {
    if assignment.is_empty() {
        return Some(Vec::new());
    }
    let topics = assigned(assignment)?;
    Some(topics.into_iter().filter(|(name, _)| name == topic).flat_map(|(_, list)| list).collect())
}

/// All partitions in a member's assignment.
pub fn assigned(assignment: &[u8]) -> Option<Vec<(String, Vec<i32>)>> {
    let topics = begin::<Assignment>(assignment)?.topics;
    Some(topics.into_iter().map(|topic| (topic.topic, topic.partitions)).collect())
}

/// Reads a message that any version begins with.
fn begin<M: Message>(bytes: &[u8]) -> Option<M> {
    let mut reader = Reader::new(bytes);
    let version = i16::from_be_bytes(reader.array().ok()?);
    if version < 0 {
        return None;
    }
    M::decode_from(0, &mut reader).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Kafka's RangeAssignor documents: "C0: t0p0, t0p1, t1p0, t1p1; C1: t0p2, t1p2".
    #[test]
    fn ranges_are_kafkas() {
        let members = vec!["C1".to_owned(), "C0".to_owned()];
        let wanted =
            BTreeMap::from([("t0".to_owned(), members.clone()), ("t1".to_owned(), members)]);
        let counts = BTreeMap::from([("t0".to_owned(), 3), ("t1".to_owned(), 3)]);
        let all = range(&wanted, &counts);
        assert_eq!(all["C0"], [("t0".to_owned(), vec![0, 1]), ("t1".to_owned(), vec![0, 1])]);
        assert_eq!(all["C1"], [("t0".to_owned(), vec![2]), ("t1".to_owned(), vec![2])]);
        let none = range(&wanted, &BTreeMap::new());
        assert!(none.is_empty());
    }

    #[test]
    fn what_members_tell_goes_there_and_back() {
        let topics = vec![AssignedTopic {
            topic: "t".to_owned(),
            partitions: vec![3, 4],
            ..AssignedTopic::default()
        }];
        let bytes = versioned(&Assignment { topics, ..Assignment::default() });
        assert_eq!(assigned_of(&bytes, "t"), Some(vec![3, 4]));
        assert_eq!(assigned_of(&bytes, "other"), Some(vec![]));
        assert_eq!(assigned_of(&[], "t"), Some(vec![]));
        assert_eq!(assigned_of(&[0], "t"), None);
        // As the Java client writes it, in version 1 with owned partitions behind.
        let v1 = [0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(subscribed(&v1), Some(vec!["t".to_owned()]));
    }
}
