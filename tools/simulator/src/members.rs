//! Consumers of one classic group: they join, share the partitions, commit, fall silent and leave.
//!
//! Separate from the workload, whose groups have no members: here a commit belongs to a generation.
//! What is judged: a generation that somebody was given is never undone, gives each partition to
//! one member, and fences every commit of an older one, whatever broke in between.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flowstone_runtime::sim::Control;
use flowstone_runtime::{random_u64, sleep};
use flowstone_wire::messages::join_group_request::JoinGroupRequestProtocol;
use flowstone_wire::messages::join_group_response::JoinGroupResponseMember;
use flowstone_wire::messages::leave_group_request::MemberIdentity;
use flowstone_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use flowstone_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use flowstone_wire::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use flowstone_wire::{ErrorCode, StrBytes, string, topic_name};

use crate::workload::{Link, TOPIC, code, pause};
use flowstone_history::Commits;

const GROUP: &str = "crew";
/// How long the group believes in a silent member: short, as runs are.
const SESSION: Duration = Duration::from_secs(1);
/// How long the others are waited for: less than a member waits for an answer.
const REBALANCE: Duration = Duration::from_millis(500);
/// Errors by which a member learns that it is none any more, or that it must join anew.
const OUT: [ErrorCode; 4] = [
    ErrorCode::UnknownMemberId,
    ErrorCode::IllegalGeneration,
    ErrorCode::RebalanceInProgress,
    ErrorCode::MemberIdRequired,
];

/// What all members share, and what was seen of the group.
pub struct Members {
    control: Control,
    address: SocketAddr,
    partitions: i32,
    /// Who was given each partition, by generation.
    owners: RefCell<BTreeMap<i32, BTreeMap<i32, StrBytes>>>,
    commits: RefCell<BTreeMap<i32, Commits>>,
    stopping: Cell<bool>,
    running: Cell<u32>,
}

/// A place in a generation.
struct Place {
    generation: i32,
    partitions: Vec<i32>,
}

impl Members {
    /// A group for a topic of so many partitions, at the broker at `address`.
    pub fn new(control: Control, address: SocketAddr, partitions: i32) -> Rc<Self> {
        let commits = (0..partitions).map(|partition| (partition, Commits::default())).collect();
        Rc::new(Self {
            control,
            address,
            partitions,
            owners: RefCell::default(),
            commits: RefCell::new(commits),
            stopping: Cell::new(false),
            running: Cell::new(0),
        })
    }

    /// Asks the members to end, and waits for them; returns how many generations there were.
    pub async fn stop(&self) -> usize {
        self.stopping.set(true);
        while self.running.get() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        self.owners.borrow().len()
    }

    /// One member's life, over and over: to be spawned on a machine of its own.
    pub async fn run(self: Rc<Self>) {
        self.running.set(self.running.get() + 1);
        let (mut link, mut id) = (Link::new(self.address), StrBytes::default());
        while !self.stopping.get() {
            if let Some(place) = self.enter(&mut link, &mut id).await {
                self.work(&mut link, &id, &place).await;
            }
            match random_u64() % 6 {
                0 => self.leave(&mut link, &mut id).await,
                1 => sleep(SESSION + SESSION / 2).await, // It is thrown out, and does not know.
                _ => pause(200).await,
            }
        }
        self.running.set(self.running.get() - 1);
    }

    /// Whether an answer is one of success; a panic where it makes no sense. `id` is forgotten
    /// where the group has.
    fn is_done(&self, what: &str, number: i16, id: Option<&mut StrBytes>) -> bool {
        let code = code(number);
        if code == ErrorCode::None {
            return true;
        }
        self.control.note(format_args!("{what}: {code:?}"));
        assert!(code.is_retriable() || OUT.contains(&code), "{what}: {code:?}");
        if let (ErrorCode::UnknownMemberId, Some(id)) = (code, id) {
            *id = StrBytes::default();
        }
        false
    }

    /// Joins and is given partitions; `None` where that failed.
    async fn enter(&self, link: &mut Link, id: &mut StrBytes) -> Option<Place> {
        self.find_coordinator(link).await;
        let mut join = JoinGroupRequest::default();
        join.group_id = group();
        join.session_timeout_ms = SESSION.as_millis() as i32;
        join.rebalance_timeout_ms = REBALANCE.as_millis() as i32;
        join.member_id = id.clone();
        join.protocol_type = string("consumer");
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = string("any");
        join.protocols = vec![protocol];
        let floor = self.newest();
        let joined = link.ask(5, &join).await?;
        if code(joined.error_code) == ErrorCode::MemberIdRequired {
            *id = joined.member_id;
            return None;
        }
        if !self.is_done("join", joined.error_code, Some(id)) {
            return None;
        }
        *id = joined.member_id;
        let generation = joined.generation_id;
        assert!(generation >= floor, "generation {generation} after {floor}");
        let mut sync = SyncGroupRequest::default();
        sync.group_id = group();
        sync.generation_id = generation;
        sync.member_id = id.clone();
        if joined.leader == *id {
            sync.assignments = self.share(&joined.members);
        }
        let synced = link.ask(3, &sync).await?;
        if !self.is_done("sync", synced.error_code, Some(id)) {
            return None;
        }
        let mut partitions = Vec::new();
        let mut assignment = synced.assignment;
        while assignment.has_remaining() {
            partitions.push(assignment.get_i32());
        }
        let mut owners = self.owners.borrow_mut();
        let owners = owners.entry(generation).or_default();
        for partition in &partitions {
            let other = owners.insert(*partition, id.clone());
            assert!(
                other.is_none_or(|other| other == *id),
                "generation {generation} gives partition {partition} to two"
            );
        }
        Some(Place { generation, partitions })
    }

    /// Asks who coordinates the group: that makes the topic of offsets, where there is none.
    async fn find_coordinator(&self, link: &mut Link) {
        let mut request = FindCoordinatorRequest::default();
        request.key = string(GROUP);
        link.ask(3, &request).await;
    }

    /// The newest generation that somebody was given a place in.
    fn newest(&self) -> i32 {
        self.owners.borrow().last_key_value().map_or(0, |(generation, _)| *generation)
    }

    /// As a leader: each partition to one of the members.
    fn share(&self, members: &[JoinGroupResponseMember]) -> Vec<SyncGroupRequestAssignment> {
        let shift = random_u64() as usize % members.len();
        let of = |at: usize| {
            let mut assignment = BytesMut::new();
            (0..self.partitions)
                .filter(|partition| (*partition as usize + shift) % members.len() == at)
                .for_each(|partition| assignment.put_i32(partition));
            assignment.freeze()
        };
        let one = |(at, member): (usize, &JoinGroupResponseMember)| {
            let assignment: Bytes = of(at);
            SyncGroupRequestAssignment::default()
                .with_member_id(member.member_id.clone())
                .with_assignment(assignment)
        };
        members.iter().enumerate().map(one).collect()
    }

    /// Keeps its place, and commits for its partitions, until it has to join anew or goes.
    async fn work(&self, link: &mut Link, id: &StrBytes, place: &Place) {
        let mut positions = BTreeMap::new();
        for _ in 0..random_u64() % 10 {
            pause(60).await;
            let mut heartbeat = HeartbeatRequest::default();
            heartbeat.group_id = group();
            heartbeat.generation_id = place.generation;
            heartbeat.member_id = id.clone();
            match link.ask(3, &heartbeat).await {
                None => continue,
                Some(answer) if !self.is_done("heartbeat", answer.error_code, None) => {
                    // A member that does not listen: its commits must be refused.
                    if random_u64().is_multiple_of(2) {
                        return;
                    }
                }
                Some(_) => {}
            }
            for partition in &place.partitions {
                if !positions.contains_key(partition) {
                    let Some(position) = self.committed(link, *partition).await else { continue };
                    positions.insert(*partition, position.max(0));
                }
                let position = positions.get_mut(partition).expect("it was fetched");
                *position += 1 + (random_u64() % 9) as i64;
                if !self.commit(link, id, place, *partition, *position).await {
                    return;
                }
            }
        }
    }

    /// Whether the member may go on.
    async fn commit(
        &self,
        link: &mut Link,
        id: &StrBytes,
        place: &Place,
        partition: i32,
        position: i64,
    ) -> bool {
        let mut one = OffsetCommitRequestPartition::default();
        one.partition_index = partition;
        one.committed_offset = position;
        one.committed_leader_epoch = -1;
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = topic_name(TOPIC);
        topic.partitions = vec![one];
        let mut request = OffsetCommitRequest::default();
        request.group_id = group();
        request.generation_id_or_member_epoch = place.generation;
        request.member_id = id.clone();
        request.topics = vec![topic];
        let newest = self.newest();
        self.with(partition, |commits| commits.committing(position));
        let Some(answer) = link.ask(7, &request).await else {
            self.with(partition, |commits| commits.unanswered(position));
            return true;
        };
        if !self.is_done("commit", answer.topics[0].partitions[0].error_code, None) {
            // It may have been written, and its disk too slow to say so in time.
            self.with(partition, |commits| commits.unanswered(position));
            return false;
        }
        let generation = place.generation;
        assert!(generation >= newest, "a commit of generation {generation} passed in {newest}");
        self.with(partition, |commits| commits.committed(position));
        true
    }

    /// What is committed for a partition, -1 for nothing; `None` where that is not to be had now.
    async fn committed(&self, link: &mut Link, partition: i32) -> Option<i64> {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = topic_name(TOPIC);
        topic.partition_indexes = vec![partition];
        let mut request = OffsetFetchRequest::default();
        request.group_id = group();
        request.topics = Some(vec![topic]);
        let floor = self.with(partition, |commits| commits.floor());
        let response = link.ask(5, &request).await?;
        let found = &response.topics.first()?.partitions[0];
        if !self.is_done("fetch of a commit", response.error_code, None)
            || !self.is_done("fetch of a commit", found.error_code, None)
        {
            return None;
        }
        let offset = found.committed_offset;
        self.with(partition, |commits| commits.is(floor, offset))
            .unwrap_or_else(|violation| panic!("{GROUP}, partition {partition}: {violation}"));
        Some(offset)
    }

    /// Everything is well: what was committed is there.
    pub async fn final_check(&self) {
        let mut link = Link::new(self.address);
        for partition in 0..self.partitions {
            while self.committed(&mut link, partition).await.is_none() {
                self.find_coordinator(&mut link).await;
                pause(100).await;
            }
        }
    }

    async fn leave(&self, link: &mut Link, id: &mut StrBytes) {
        let mut member = MemberIdentity::default();
        member.member_id = std::mem::take(id);
        let mut request = LeaveGroupRequest::default();
        request.group_id = group();
        request.members = vec![member];
        if let Some(answer) = link.ask(3, &request).await {
            self.is_done("leave", answer.error_code, None);
        }
    }

    fn with<T>(&self, partition: i32, f: impl FnOnce(&mut Commits) -> T) -> T {
        f(self.commits.borrow_mut().get_mut(&partition).expect("a partition of the topic"))
    }
}

fn group() -> GroupId {
    GroupId(string(GROUP))
}
