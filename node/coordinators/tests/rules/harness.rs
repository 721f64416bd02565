//! A coordinator with a clock, a log and a list of answers; one place to change when the API does.

use bytes::Bytes;
use flowstone_coordinators::{
    Answer, Commit, CommitTopic, Config, Effect, Error, FetchTopic, Groups, Heartbeat, Input,
    JoinGroup, JoinRefused, Joined, LeaveGroup, Leaving, Left, Loading, Now, OffsetCommit,
    OffsetFetch, Protocol, Record, Refusal, Request, RequestId, SyncGroup, Synced, Text, WriteId,
};
use flowstone_types::{Instant, Timestamp, Uuid};
use std::collections::{BTreeMap, VecDeque};

pub const GROUP: &str = "g";
pub const TOPIC_ID: Uuid = Uuid(0x99);

pub struct Coordinator {
    pub groups: Groups,
    pub now_ms: u64,
    /// What the log has, durable.
    pub log: Vec<Record>,
    /// Whether each write is durable at once.
    pub prompt: bool,
    /// The newest write of a group's own record was refused.
    pub group_refused: bool,
    under_way: VecDeque<(WriteId, Vec<Record>)>,
    answers: BTreeMap<RequestId, Answer>,
    requests: u64,
    /// How often it wanted to be woken.
    pub ticks: u64,
}

/// A wall clock that has nothing to do with the monotonic one.
const WALL_START: i64 = 1_700_000_000_000;

impl Coordinator {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        Self::load(config, &[], 0)
    }

    pub fn load(config: Config, log: &[Record], now_ms: u64) -> Self {
        let mut loading = Loading::new();
        for record in log {
            loading.replay(&record.key, record.value.as_deref()).expect("our own record");
        }
        let mut effects = Vec::new();
        let groups = loading.finish(config, now(now_ms), &mut effects);
        let mut this = Self {
            groups,
            now_ms,
            log: log.to_vec(),
            prompt: true,
            group_refused: false,
            under_way: VecDeque::new(),
            answers: BTreeMap::new(),
            requests: 0,
            ticks: 0,
        };
        this.perform(effects);
        this
    }

    /// What a restart finds.
    pub fn reloaded(&self, config: Config) -> Self {
        Self::load(config, &self.log, self.now_ms)
    }

    pub fn input(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.groups.handle(now(self.now_ms), input, &mut effects);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { write, records } => {
                    assert!(!records.is_empty());
                    self.group_refused &= !is_of_group(&records);
                    self.under_way.push_back((write, records));
                }
                Effect::Answer { id, answer } => {
                    assert_eq!(self.answers.insert(id, answer), None, "one answer a request");
                }
            }
        }
        if self.prompt {
            self.flush();
        }
    }

    /// All writes under way become durable.
    pub fn flush(&mut self) {
        if let Some((through, _)) = self.under_way.back() {
            let through = *through;
            self.log.extend(self.under_way.drain(..).flat_map(|(_, records)| records));
            self.input(Input::Durable { through });
        }
    }

    /// The oldest write under way becomes durable.
    pub fn flush_one(&mut self) {
        if let Some((through, records)) = self.under_way.pop_front() {
            self.log.extend(records);
            self.input(Input::Durable { through });
        }
    }

    /// The newest write under way is refused.
    pub fn refuse(&mut self, refusal: Refusal) {
        let (write, records) = self.under_way.pop_back().expect("a write to refuse");
        self.group_refused |= is_of_group(&records);
        self.input(Input::Refused { write, refusal });
    }

    pub fn writes_under_way(&self) -> usize {
        self.under_way.len()
    }

    pub fn ask(&mut self, request: Request) -> RequestId {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.input(Input::Request { id, request });
        id
    }

    /// Lets time pass, waking the coordinator whenever it wants to be woken.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        loop {
            let due = self.groups.next_deadline().0.div_ceil(1_000_000);
            if due > end {
                break;
            }
            self.now_ms = self.now_ms.max(due);
            self.input(Input::Tick);
            self.ticks += 1;
        }
        self.now_ms = end;
    }

    pub fn waits(&self, id: RequestId) -> bool {
        !self.answers.contains_key(&id)
    }

    pub fn take(&mut self, id: RequestId) -> Option<Answer> {
        self.answers.remove(&id)
    }

    pub fn joined(&mut self, id: RequestId) -> Result<Joined, JoinRefused> {
        match self.take(id) {
            Some(Answer::Join(result)) => result,
            other => panic!("no answer to a JoinGroup: {other:?}"),
        }
    }

    pub fn join_error(&mut self, id: RequestId) -> Error {
        self.joined(id).expect_err("should be refused").error
    }

    pub fn synced(&mut self, id: RequestId) -> Result<Synced, Error> {
        match self.take(id) {
            Some(Answer::Sync(result)) => result,
            other => panic!("no answer to a SyncGroup: {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), Error> {
        self.heartbeat_as(member, None, generation)
    }

    pub fn heartbeat_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Error> {
        let id = self.ask(Request::Heartbeat(Heartbeat {
            group: GROUP.into(),
            generation,
            member: member.into(),
            instance: instance.map(Text::from),
        }));
        match self.take(id) {
            Some(Answer::Heartbeat(result)) => result,
            other => panic!("no answer to a Heartbeat: {other:?}"),
        }
    }

    /// Lets the members `(id, instance)` leave; empty ids and instances stand for none.
    pub fn leave(&mut self, members: &[(&str, &str)]) -> Vec<Option<Error>> {
        let some = |text: &str| (!text.is_empty()).then(|| Text::from(text));
        let id = self.ask(Request::Leave(LeaveGroup {
            group: GROUP.into(),
            members: members
                .iter()
                .map(|(member, instance)| Leaving {
                    member: (*member).into(),
                    instance: some(instance),
                })
                .collect(),
        }));
        match self.take(id) {
            Some(Answer::Leave(Ok(left))) => left.into_iter().map(|one: Left| one.error).collect(),
            Some(Answer::Leave(Err(error))) => vec![Some(error); members.len()],
            other => panic!("no answer to a LeaveGroup: {other:?}"),
        }
    }

    pub fn commit(&mut self, commit: OffsetCommit) -> Option<Error> {
        let id = self.ask(Request::Commit(commit));
        self.committed(id)
    }

    pub fn committed(&mut self, id: RequestId) -> Option<Error> {
        match self.take(id) {
            Some(Answer::Commit(topics)) => topics[0].partitions[0].error,
            other => panic!("no answer to an OffsetCommit: {other:?}"),
        }
    }

    /// The durable offset of partition 0 of `topic`; -1 for none.
    pub fn offset(&mut self, group: &str, topic: &str) -> i64 {
        let id = self.ask(Request::Fetch(fetch(group, topic, false)));
        match self.take(id) {
            Some(Answer::Fetch(Ok(topics))) => topics[0].partitions[0].offset,
            other => panic!("no answer to an OffsetFetch: {other:?}"),
        }
    }

    /// A stable group of one dynamic member per entry of `protocols`, the first the leader; gives
    /// their ids. Each gets its index as its assignment.
    pub fn stable(&mut self, protocols: &[&[&str]]) -> Vec<Text> {
        let joins: Vec<RequestId> = protocols
            .iter()
            .enumerate()
            .map(|(i, names)| self.ask(join("").old().protocols(names).fresh(i as u128).request()))
            .collect();
        // The second to join prolongs the wait, once.
        self.pass(3_000 + 3_000 * u64::from(joins.len() > 1));
        let joined: Vec<Joined> =
            joins.into_iter().map(|id| self.joined(id).expect("joins")).collect();
        self.sync_all(&joined);
        joined.into_iter().map(|joined| joined.member).collect()
    }

    /// All of one generation sync; each gets its index as its assignment.
    pub fn sync_all(&mut self, joined: &[Joined]) {
        let assignments: Vec<(Text, Bytes)> = joined
            .iter()
            .enumerate()
            .map(|(i, one)| (one.member.clone(), Bytes::from(vec![i as u8])))
            .collect();
        let syncs: Vec<RequestId> = joined
            .iter()
            .map(|one| {
                let leads = one.leader == one.member;
                let assignments = if leads { assignments.clone() } else { Vec::new() };
                self.ask(sync(&one.member, one.generation, assignments))
            })
            .collect();
        self.flush();
        for (i, id) in syncs.into_iter().enumerate() {
            assert_eq!(self.synced(id).expect("synced").assignment, [i as u8][..]);
        }
    }

    pub fn state(&mut self) -> &'static str {
        self.state_of(GROUP)
    }

    pub fn state_of(&mut self, group: &str) -> &'static str {
        self.describe(group).state
    }

    pub fn describe(&mut self, group: &str) -> flowstone_coordinators::DescribedGroup {
        let groups = vec![group.into()];
        let id = self
            .ask(Request::Describe(flowstone_coordinators::DescribeGroups { version: 5, groups }));
        match self.take(id) {
            Some(Answer::Describe(mut groups)) => groups.remove(0),
            other => panic!("no answer to a DescribeGroups: {other:?}"),
        }
    }
}

/// Group metadata has records of type 2.
fn is_of_group(records: &[Record]) -> bool {
    records.iter().any(|record| record.key[..2] == [0, 2])
}

pub fn now(ms: u64) -> Now {
    Now { clock: Instant(ms * 1_000_000), wall: Timestamp(WALL_START + ms as i64) }
}

/// A JoinGroup to be refined.
pub struct Join(JoinGroup);

pub fn join(member: &str) -> Join {
    Join(JoinGroup {
        version: 5,
        group: GROUP.into(),
        member: member.into(),
        instance: None,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: protocols(&["range"]),
        client_id: "c".into(),
        client_host: "/127.0.0.1".into(),
        fresh: 0,
    })
}

impl Join {
    /// Before KIP-394: no id is asked for.
    pub fn old(mut self) -> Self {
        self.0.version = 3;
        self
    }

    pub fn version(mut self, version: i16) -> Self {
        self.0.version = version;
        self
    }

    pub fn fresh(mut self, fresh: u128) -> Self {
        self.0.fresh = fresh;
        self
    }

    pub fn instance(mut self, instance: &str) -> Self {
        self.0.instance = Some(instance.into());
        self
    }

    pub fn protocols(mut self, names: &[&str]) -> Self {
        self.0.protocols = protocols(names);
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut JoinGroup)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn request(self) -> Request {
        Request::Join(self.0)
    }
}

/// Protocols whose metadata is a subscription to topic "t".
pub fn protocols(names: &[&str]) -> Vec<Protocol> {
    let subscription = Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff]);
    names
        .iter()
        .map(|name| Protocol { name: (*name).into(), metadata: subscription.clone() })
        .collect()
}

pub fn sync(member: &str, generation: i32, assignments: Vec<(Text, Bytes)>) -> Request {
    Request::Sync(SyncGroup {
        group: GROUP.into(),
        generation,
        member: member.into(),
        instance: None,
        protocol_type: None,
        protocol: None,
        assignments,
    })
}

/// A commit of partition 0 of `topic` by nobody in particular.
pub fn commit(group: &str, topic: &str, offset: i64) -> OffsetCommit {
    OffsetCommit {
        version: 9,
        group: group.into(),
        generation: -1,
        member: "".into(),
        instance: None,
        retention_ms: -1,
        topics: vec![CommitTopic {
            name: topic.into(),
            id: TOPIC_ID,
            partitions: vec![Commit { partition: 0, offset, leader_epoch: -1, metadata: None }],
        }],
    }
}

pub fn commit_by(member: &str, generation: i32, topic: &str, offset: i64) -> OffsetCommit {
    OffsetCommit { member: member.into(), generation, ..commit(GROUP, topic, offset) }
}

pub fn fetch(group: &str, topic: &str, require_stable: bool) -> OffsetFetch {
    let topics = vec![FetchTopic { name: topic.into(), id: Uuid::ZERO, partitions: vec![0] }];
    OffsetFetch { group: group.into(), topics: Some(topics), require_stable }
}
