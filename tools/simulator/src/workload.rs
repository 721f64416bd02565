//! Clients of a simulated broker: producers, consumers, commits; each tells the history what it saw.
//!
//! A client never gives up while faults last, except a producer without idempotence, which stops
//! after a few tries so as not to write one record for ever. What breaks a promise is a panic: the
//! trace ends there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Limits, batches, crc_ok, records};
use flowstone_runtime::sim::Control;
use flowstone_runtime::{random_u64, sleep, wall_clock};
use flowstone_types::{Offset, ProducerId};
use flowstone_wire::client::Request;
use flowstone_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{
    CreateTopicsRequest, FetchRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};
use flowstone_wire::{ErrorCode, string, topic_name};

use crate::client::Client;
use flowstone_history::{Commits, PartitionHistory, RecordId, Violation};

/// The topic that all clients use.
pub(crate) const TOPIC: &str = "ledger";
/// How long a client waits for an answer before it takes another connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Tries of a producer without idempotence.
const PLAIN_ATTEMPTS: u32 = 3;
/// Records of a batch, at most.
const BATCH_RECORDS_MAX: u64 = 5;

/// How much there is to do, and with what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Partitions of the topic.
    pub partitions: i32,
    /// Producers; every third one is without idempotence.
    pub producers: u32,
    /// Bytes of a record's value, at most (and a head of 8).
    pub value_bytes_max: usize,
    /// A client's pause between two requests, at most.
    pub pause_max: Duration,
    /// The topic's configs.
    pub configs: Vec<(&'static str, String)>,
}

/// What all clients share.
pub struct Workload {
    control: Control,
    plan: Plan,
    address: SocketAddr,
    partitions: RefCell<BTreeMap<i32, PartitionHistory>>,
    commits: RefCell<BTreeMap<i32, Commits>>,
    stopping: Cell<bool>,
    running: Cell<u32>,
}

impl Workload {
    /// Nothing done yet, against the broker at `address`.
    pub fn new(control: Control, plan: Plan, address: SocketAddr) -> Rc<Self> {
        let partitions = (0..plan.partitions).map(|p| (p, PartitionHistory::default())).collect();
        let commits = (0..plan.partitions).map(|p| (p, Commits::default())).collect();
        Rc::new(Self {
            control,
            plan,
            address,
            partitions: RefCell::new(partitions),
            commits: RefCell::new(commits),
            stopping: Cell::new(false),
            running: Cell::new(0),
        })
    }

    /// The tasks of all clients: to be spawned on machines of their own.
    pub fn clients(self: &Rc<Self>) -> Vec<impl Future<Output = ()> + 'static> {
        let producers = (0..self.plan.producers).map(|number| (Some(number), 0));
        let consumers = (0..self.plan.partitions).map(|partition| (None, partition));
        let clients: Vec<_> = producers.chain(consumers).collect();
        self.running.set(clients.len() as u32);
        let run = |(producer, partition)| {
            let all = Rc::clone(self);
            async move {
                match producer {
                    Some(number) => all.produce(number).await,
                    None => all.consume(partition).await,
                }
                all.running.set(all.running.get() - 1);
            }
        };
        clients.into_iter().map(run).collect()
    }

    /// Asks the clients to finish what they have begun, and waits for them.
    pub async fn stop(&self) {
        self.stopping.set(true);
        while self.running.get() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Records sent, and records acknowledged.
    pub fn counts(&self) -> (u64, u64) {
        let partitions = self.partitions.borrow();
        let counts = partitions.values().map(PartitionHistory::counts);
        counts.fold((0, 0), |all, one| (all.0 + one.0 as u64, all.1 + one.1 as u64))
    }

    /// Makes the topic; it is there afterwards.
    pub async fn create_topic(&self) {
        let mut topic = CreatableTopic::default();
        topic.name = topic_name(TOPIC);
        topic.num_partitions = self.plan.partitions;
        topic.replication_factor = 1;
        let config = |(name, value): &(&'static str, String)| {
            let mut config = CreatableTopicConfig::default();
            config.name = string(*name);
            config.value = Some(string(value.clone()));
            config
        };
        topic.configs = self.plan.configs.iter().map(config).collect();
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = 3_000;
        let mut link = Link::new(self.address);
        loop {
            if let Some(response) = link.ask(5, &request).await {
                let result = &response.topics[0];
                match code(result.error_code) {
                    ErrorCode::None | ErrorCode::TopicAlreadyExists => return,
                    code if code.is_retriable() => {
                        self.control.note(format_args!("create: {code:?}"));
                    }
                    code => panic!("cannot create the topic: {code:?}, {:?}", result.error_message),
                }
            }
            pause(100).await;
        }
    }

    async fn produce(&self, number: u32) {
        let idempotent = number % 3 != 2;
        let mut link = Link::new(self.address);
        let identity = if idempotent { Some(self.identity(&mut link).await) } else { None };
        let mut next = vec![0_u32; self.plan.partitions as usize];
        while !self.stopping.get() {
            let partition = (random_u64() % self.plan.partitions as u64) as i32;
            let first = next[partition as usize];
            let count = 1 + (random_u64() % BATCH_RECORDS_MAX) as u32;
            let ids = (first..first + count).map(|n| RecordId { producer: number, number: n });
            self.send(&mut link, partition, ids.collect(), identity).await;
            next[partition as usize] += count;
            pause(self.plan.pause_max.as_millis() as u64).await;
        }
    }

    async fn identity(&self, link: &mut Link) -> (i64, i16) {
        let mut request = InitProducerIdRequest::default();
        request.transactional_id = None;
        request.transaction_timeout_ms = 60_000;
        loop {
            if let Some(response) = link.ask(1, &request).await {
                match code(response.error_code) {
                    ErrorCode::None => return (response.producer_id.0, response.producer_epoch),
                    code if code.is_retriable() => {
                        self.control.note(format_args!("identity: {code:?}"));
                    }
                    code => panic!("no producer id: {code:?}"),
                }
            }
            pause(100).await;
        }
    }

    /// Sends one batch until its fate is known, or until a producer without identity gives up.
    async fn send(
        &self,
        link: &mut Link,
        partition: i32,
        ids: Vec<RecordId>,
        identity: Option<(i64, i16)>,
    ) {
        let request = self.batch(partition, &ids, identity);
        let mut attempts = 0;
        loop {
            attempts += 1;
            for id in &ids {
                self.with(partition, |history| history.sending(*id, identity.is_some()));
            }
            if let Some(response) = link.ask(8, &request).await {
                let answer = &response.responses[0].partition_responses[0];
                match code(answer.error_code) {
                    ErrorCode::None => {
                        for (id, offset) in ids.iter().zip(answer.base_offset..) {
                            self.check(partition, |history| history.acknowledged(*id, offset));
                        }
                        return;
                    }
                    // An old duplicate: it is in the log, and nobody knows where any more.
                    ErrorCode::DuplicateSequenceNumber if attempts > 1 => return,
                    code @ (ErrorCode::OutOfOrderSequenceNumber
                    | ErrorCode::UnknownProducerId
                    | ErrorCode::InvalidProducerEpoch) => {
                        let answer = format!("{code:?}");
                        let record = ids[0];
                        self.check(partition, |_| {
                            Err::<(), _>(Violation::Forgotten { record, answer })
                        });
                    }
                    code if code.is_retriable() => {
                        self.control.note(format_args!("produce: {code:?}"));
                    }
                    code => panic!("produce: {code:?}, {:?}", answer.error_message),
                }
            }
            if identity.is_none() && attempts == PLAIN_ATTEMPTS {
                return;
            }
            pause(100).await;
        }
    }

    fn batch(
        &self,
        partition: i32,
        ids: &[RecordId],
        identity: Option<(i64, i16)>,
    ) -> ProduceRequest {
        let mut builder = BatchBuilder::new(Offset::ZERO);
        if let Some((id, epoch)) = identity {
            builder = builder.producer(ProducerId(id), epoch, ids[0].number as i32);
        }
        for id in ids {
            let value = id.value(self.plan.value_bytes_max);
            builder.push(wall_clock(), None, Some(&value), &[]);
        }
        let mut data = PartitionProduceData::default();
        data.index = partition;
        data.records = Some(builder.build());
        let mut topic = TopicProduceData::default();
        topic.name = topic_name(TOPIC);
        topic.partition_data = vec![data];
        let mut request = ProduceRequest::default();
        request.acks = -1;
        request.timeout_ms = 3_000;
        request.topic_data = vec![topic];
        request
    }

    async fn consume(&self, partition: i32) {
        let mut link = Link::new(self.address);
        let mut position = 0;
        while !self.stopping.get() {
            let before = position;
            if let Some(read) = self.fetch(&mut link, partition, position, 50).await {
                position += read.len() as i64;
            }
            match random_u64() % 8 {
                0 => self.commit(&mut link, partition, position).await,
                1 => self.committed(&mut link, partition).await,
                2 if position == before => position = random_u64() as i64 % (position + 1),
                _ => {}
            }
            position = position.max(0);
            pause(self.plan.pause_max.as_millis() as u64).await;
        }
    }

    /// What is at `position` and behind it; `None` where there was no answer.
    async fn fetch(
        &self,
        link: &mut Link,
        partition: i32,
        position: i64,
        max_wait_ms: i32,
    ) -> Option<Vec<(i64, RecordId)>> {
        let mut wanted = FetchPartition::default();
        wanted.partition = partition;
        wanted.current_leader_epoch = -1;
        wanted.fetch_offset = position;
        wanted.partition_max_bytes = [1, 5_000, 1 << 20][(random_u64() % 3) as usize];
        let mut topic = FetchTopic::default();
        topic.topic = topic_name(TOPIC);
        topic.partitions = vec![wanted];
        let mut request = FetchRequest::default();
        request.replica_id = (-1).into();
        request.max_wait_ms = max_wait_ms;
        request.min_bytes = 1;
        request.max_bytes = 1 << 20;
        request.session_epoch = -1;
        request.topics = vec![topic];
        let floor = self.with(partition, |history| history.watermark());
        let response = link.ask(11, &request).await?;
        if response.error_code != 0 {
            return None;
        }
        let answer = &response.responses.first()?.partitions[0];
        match code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                let (what, after) = ("the end of the log", answer.high_watermark);
                let went_back = Violation::WentBack { what, before: position, after };
                self.check(partition, |_| Err::<(), _>(went_back));
            }
            code if code.is_retriable() => {
                self.control.note(format_args!("fetch: {code:?}"));
                return None;
            }
            code => panic!("fetch: {code:?}"),
        }
        self.check(partition, |history| history.watermark_is(floor, answer.high_watermark));
        let bytes = answer.records.clone().unwrap_or_default();
        let read = read_all(&bytes, position, |offset, value| {
            self.check(partition, |history| history.read(offset, value))
        });
        let end = position + read.len() as i64;
        assert!(end <= answer.high_watermark, "served above the high watermark");
        Some(read)
    }

    async fn commit(&self, link: &mut Link, partition: i32, position: i64) {
        if position <= self.commits.borrow()[&partition].floor() {
            return;
        }
        let mut place = OffsetCommitRequestPartition::default();
        place.partition_index = partition;
        place.committed_offset = position;
        place.committed_leader_epoch = -1;
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = topic_name(TOPIC);
        topic.partitions = vec![place];
        let mut request = OffsetCommitRequest::default();
        request.group_id = group(partition);
        request.generation_id_or_member_epoch = -1;
        request.topics = vec![topic];
        loop {
            self.with_commits(partition, |commits| commits.committing(position));
            if let Some(response) = link.ask(7, &request).await {
                match code(response.topics[0].partitions[0].error_code) {
                    ErrorCode::None => break,
                    code if code.is_retriable() => {
                        self.control.note(format_args!("commit: {code:?}"));
                        self.find_coordinator(link, partition).await;
                    }
                    code => panic!("commit: {code:?}"),
                }
            } else {
                self.with_commits(partition, |commits| commits.unanswered(position));
            }
            pause(100).await;
        }
        self.with_commits(partition, |commits| commits.committed(position));
    }

    /// Asks who coordinates the group: that makes the topic of offsets, where there is none.
    async fn find_coordinator(&self, link: &mut Link, partition: i32) {
        let mut request = FindCoordinatorRequest::default();
        request.key = group(partition).0;
        link.ask(3, &request).await;
    }

    async fn committed(&self, link: &mut Link, partition: i32) {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = topic_name(TOPIC);
        topic.partition_indexes = vec![partition];
        let mut request = OffsetFetchRequest::default();
        request.group_id = group(partition);
        request.topics = Some(vec![topic]);
        let floor = self.with_commits(partition, |commits| commits.floor());
        let Some(response) = link.ask(5, &request).await else { return };
        let place = response.topics.first().map(|topic| &topic.partitions[0]);
        if response.error_code != 0 || place.is_none_or(|place| place.error_code != 0) {
            self.control.note(format_args!("fetch of a commit: {response:?}"));
            return; // The coordinator is still loading.
        }
        let offset = place.map_or(-1, |place| place.committed_offset);
        let checked = self.with_commits(partition, |commits| commits.is(floor, offset));
        if let Err(violation) = checked {
            panic!("group of partition {partition}: {violation}");
        }
    }

    /// The clients are done and the broker is well: reads everything and judges it.
    pub async fn final_check(&self) {
        let mut link = Link::new(self.address);
        for partition in 0..self.plan.partitions {
            let mut log = Vec::new();
            loop {
                let position = log.len() as i64;
                match self.fetch(&mut link, partition, position, 0).await {
                    Some(read) if read.is_empty() => break,
                    Some(read) => log.extend(read),
                    None => pause(100).await,
                }
            }
            self.check(partition, |history| history.is_all(&log));
            self.committed(&mut link, partition).await;
        }
    }

    fn with<T>(&self, partition: i32, f: impl FnOnce(&mut PartitionHistory) -> T) -> T {
        let mut partitions = self.partitions.borrow_mut();
        f(partitions.get_mut(&partition).expect("a partition of the topic"))
    }

    fn with_commits<T>(&self, partition: i32, f: impl FnOnce(&mut Commits) -> T) -> T {
        f(self.commits.borrow_mut().get_mut(&partition).expect("a partition of the topic"))
    }

    fn check<T>(
        &self,
        partition: i32,
        f: impl FnOnce(&mut PartitionHistory) -> Result<T, Violation>,
    ) -> T {
        self.with(partition, f)
            .unwrap_or_else(|violation| panic!("{TOPIC}-{partition}: {violation}"))
    }
}

/// The records of `bytes` from offset `position` on, which must follow each other without a gap.
/// What `judge` is given is whole by its checksum.
pub fn read_all(
    bytes: &Bytes,
    position: i64,
    mut judge: impl FnMut(i64, &[u8]) -> RecordId,
) -> Vec<(i64, RecordId)> {
    let mut read = Vec::new();
    for batch in batches(bytes) {
        let (at, header, batch) = batch.expect("whole batches are served");
        assert!(crc_ok(batch), "a torn batch was served at offset {}", header.base_offset);
        let batch = bytes.slice(at..at + batch.len());
        for record in records(&batch, &Limits::default()).expect("a batch of records") {
            let record = record.expect("a record");
            let expected = position + read.len() as i64;
            if record.offset.0 < position {
                continue; // The batch begins before what was asked for.
            }
            assert_eq!(record.offset.0, expected, "an offset was skipped");
            let value = record.value.unwrap_or_default();
            read.push((record.offset.0, judge(record.offset.0, &value)));
        }
    }
    read
}

fn group(partition: i32) -> GroupId {
    GroupId(string(format!("readers-{partition}")))
}

pub(crate) fn code(number: i16) -> ErrorCode {
    ErrorCode::from_number(number).expect("one of Kafka's error codes")
}

pub(crate) async fn pause(ms_max: u64) {
    sleep(Duration::from_micros(random_u64() % (ms_max * 1_000 + 1))).await;
}

/// A connection that is made anew after a failure.
pub(crate) struct Link {
    address: SocketAddr,
    client: Option<Client>,
}

impl Link {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, client: None }
    }

    pub async fn ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        if self.client.is_none() {
            self.client = Client::connect(self.address, ANSWER_WITHIN).await.ok();
        }
        let answer = self.client.as_mut()?.ask(version, request).await;
        if answer.is_err() {
            self.client = None;
        }
        answer.ok()
    }
}
