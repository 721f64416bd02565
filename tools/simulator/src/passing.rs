//! A client whose topics come and go: each is filled, read, shortened, deleted, and made anew under
//! the same name.
//!
//! What a topic must hold is what was sent to it: nothing of the one before, and nothing that
//! DeleteRecords took away. One client, one request at a time, so that it knows at each moment what
//! must be there. A produce that was not answered may be carried out late, and by name: a topic to
//! which one was sent is kept, not deleted.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use flowstone_batch::BatchBuilder;
use flowstone_runtime::sim::Control;
use flowstone_runtime::{random_u64, wall_clock};
use flowstone_types::Offset;
use flowstone_wire::messages::create_topics_request::CreatableTopic;
use flowstone_wire::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use flowstone_wire::messages::delete_topics_request::DeleteTopicState;
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::metadata_request::MetadataRequestTopic;
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, MetadataRequest,
    ProduceRequest,
};
use flowstone_wire::{ErrorCode, topic_name, uuid_from_wire, uuid_to_wire};

use crate::workload::{Link, code, pause, read_all};
use flowstone_history::{PartitionHistory, RecordId};

const TOPIC: &str = "passing";
/// Records of it are told apart from those of the ledger, and from those of the topic before.
const PRODUCER_MIN: u32 = 1_000;
/// One whose fate is uncertain is never deleted: it grows to this, as all of it is read each time.
const RECORDS_MAX: u32 = 200;

/// What the client does and knows.
pub struct Passing {
    control: Control,
    address: SocketAddr,
    stopping: Cell<bool>,
    ended: Cell<bool>,
    topics: Cell<u32>,
}

/// One topic under the name.
struct Life {
    producer: u32,
    history: RefCell<PartitionHistory>,
    next: u32,
    /// Below this, all was taken away by DeleteRecords.
    start: i64,
    /// Every produce was answered.
    is_certain: bool,
}

impl Passing {
    /// A client of the broker at `address`.
    pub fn new(control: Control, address: SocketAddr) -> Rc<Self> {
        let (stopping, ended, topics) = (Cell::new(false), Cell::new(false), Cell::new(0));
        Rc::new(Self { control, address, stopping, ended, topics })
    }

    /// Asks it to finish what it has begun, and waits for it; returns how many topics there were.
    pub async fn stop(&self) -> u32 {
        self.stopping.set(true);
        while !self.ended.get() {
            pause(10).await;
        }
        self.topics.get()
    }

    /// The client's life: to be spawned on a machine of its own.
    pub async fn run(self: Rc<Self>) {
        let mut link = Link::new(self.address);
        while !self.stopping.get() {
            let number = self.topics.get();
            self.topics.set(number + 1);
            let id = self.create(&mut link).await;
            let mut life = Life {
                producer: PRODUCER_MIN + number,
                history: RefCell::default(),
                next: 0,
                start: 0,
                is_certain: true,
            };
            loop {
                for _ in 0..random_u64() % 6 {
                    if life.next >= RECORDS_MAX {
                        break;
                    }
                    self.produce(&mut link, &mut life).await;
                    pause(10).await;
                }
                self.judge(&mut link, &life).await;
                if random_u64().is_multiple_of(3) {
                    self.shorten(&mut link, &mut life).await;
                }
                if self.stopping.get() || (life.is_certain && random_u64().is_multiple_of(2)) {
                    break;
                }
            }
            if life.is_certain {
                self.delete(&mut link, id).await;
            }
        }
        self.ended.set(true);
    }

    /// Whether an answer is final; a panic where it should not be.
    fn is_done(&self, what: &str, number: i16, fine: &[ErrorCode]) -> bool {
        match code(number) {
            ErrorCode::None => true,
            code if fine.contains(&code) => true,
            code if code.is_retriable() => {
                self.control.note(format_args!("{what}: {code:?}"));
                false
            }
            code => panic!("{TOPIC}: {what}: {code:?}"),
        }
    }

    /// Makes the topic; returns its id. One that a late request made will do.
    async fn create(&self, link: &mut Link) -> flowstone_types::Uuid {
        let mut topic = CreatableTopic::default();
        topic.name = topic_name(TOPIC);
        topic.num_partitions = 1;
        topic.replication_factor = 1;
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = 3_000;
        let mut named = MetadataRequestTopic::default();
        named.name = Some(topic_name(TOPIC));
        let mut metadata = MetadataRequest::default();
        metadata.topics = Some(vec![named]);
        let fine = [ErrorCode::TopicAlreadyExists];
        loop {
            if let Some(response) = link.ask(5, &request).await
                && self.is_done("create", response.topics[0].error_code, &fine)
                && let Some(response) = link.ask(12, &metadata).await
                && self.is_done("metadata", response.topics[0].error_code, &[])
            {
                return uuid_from_wire(response.topics[0].topic_id);
            }
            pause(50).await;
        }
    }

    /// By id: one that is carried out late does not meet the next topic.
    async fn delete(&self, link: &mut Link, id: flowstone_types::Uuid) {
        let mut topic = DeleteTopicState::default();
        topic.name = None;
        topic.topic_id = uuid_to_wire(id);
        let mut request = DeleteTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = 3_000;
        let fine = [ErrorCode::UnknownTopicId, ErrorCode::UnknownTopicOrPartition];
        loop {
            if let Some(response) = link.ask(6, &request).await
                && self.is_done("delete", response.responses[0].error_code, &fine)
            {
                return;
            }
            pause(50).await;
        }
    }

    async fn produce(&self, link: &mut Link, life: &mut Life) {
        let count = 1 + (random_u64() % 4) as u32;
        let ids: Vec<RecordId> = (life.next..life.next + count)
            .map(|number| RecordId { producer: life.producer, number })
            .collect();
        life.next += count;
        let mut builder = BatchBuilder::new(Offset::ZERO);
        for id in &ids {
            builder.push(wall_clock(), None, Some(&id.value(2_000)), &[]);
        }
        let mut data = PartitionProduceData::default();
        data.records = Some(builder.build());
        let mut topic = TopicProduceData::default();
        topic.name = topic_name(TOPIC);
        topic.partition_data = vec![data];
        let mut request = ProduceRequest::default();
        request.acks = -1;
        request.timeout_ms = 3_000;
        request.topic_data = vec![topic];
        loop {
            for id in &ids {
                life.history.borrow_mut().sending(*id, false);
            }
            match link.ask(8, &request).await {
                Some(response) => {
                    let answer = &response.responses[0].partition_responses[0];
                    if self.is_done("produce", answer.error_code, &[]) {
                        for (id, offset) in ids.iter().zip(answer.base_offset..) {
                            let told = life.history.borrow_mut().acknowledged(*id, offset);
                            told.unwrap_or_else(|violation| panic!("{TOPIC}: {violation}"));
                        }
                        return;
                    }
                    // It may have been written, and its disk too slow to say so in time.
                    life.is_certain = false;
                }
                None => life.is_certain = false,
            }
            pause(100).await;
        }
    }

    /// What a fetch at `position` gives: records, or nothing where that is below the log's start.
    async fn fetch(
        &self,
        link: &mut Link,
        life: &Life,
        position: i64,
    ) -> Option<Vec<(i64, RecordId)>> {
        let mut wanted = FetchPartition::default();
        wanted.current_leader_epoch = -1;
        wanted.fetch_offset = position;
        wanted.partition_max_bytes = 1 << 20;
        let mut topic = FetchTopic::default();
        topic.topic = topic_name(TOPIC);
        topic.partitions = vec![wanted];
        let mut request = FetchRequest::default();
        request.replica_id = (-1).into();
        request.max_bytes = 1 << 20;
        request.session_epoch = -1;
        request.topics = vec![topic];
        loop {
            if let Some(response) = link.ask(11, &request).await
                && let Some(topic) = response.responses.first()
                && let answer = &topic.partitions[0]
                && self.is_done("fetch", answer.error_code, &[ErrorCode::OffsetOutOfRange])
            {
                if code(answer.error_code) == ErrorCode::OffsetOutOfRange {
                    return None;
                }
                assert!(answer.log_start_offset <= position, "served from below the log's start");
                let bytes = answer.records.clone().unwrap_or_default();
                return Some(read_all(&bytes, position, |offset, value| {
                    let read = life.history.borrow_mut().read(offset, value);
                    read.unwrap_or_else(|violation| panic!("{TOPIC}: {violation}"))
                }));
            }
            pause(50).await;
        }
    }

    /// Reads the topic from its start and judges it.
    async fn judge(&self, link: &mut Link, life: &Life) {
        if life.start > 0 {
            let gone = self.fetch(link, life, life.start - 1).await;
            assert!(gone.is_none(), "{TOPIC}: what was deleted up to {} is back", life.start);
        }
        let mut log = Vec::new();
        loop {
            let position = life.start + log.len() as i64;
            let read = self.fetch(link, life, position).await;
            let Some(read) = read else { panic!("{TOPIC}: {position} is out of range") };
            if read.is_empty() {
                break;
            }
            log.extend(read);
        }
        if life.start == 0 && life.is_certain {
            let judged = life.history.borrow().is_all(&log);
            judged.unwrap_or_else(|violation| panic!("{TOPIC}: {violation}"));
        }
        let end = life.start + log.len() as i64;
        let history = life.history.borrow();
        assert!(history.counts().1 as i64 <= end, "{TOPIC}: records are gone, it ends at {end}");
    }

    async fn shorten(&self, link: &mut Link, life: &mut Life) {
        let acknowledged = life.history.borrow().counts().1 as u64;
        let to = life.start.max((random_u64() % (acknowledged + 1)) as i64);
        let mut partition = DeleteRecordsPartition::default();
        partition.offset = to;
        let mut topic = DeleteRecordsTopic::default();
        topic.name = topic_name(TOPIC);
        topic.partitions = vec![partition];
        let mut request = DeleteRecordsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = 3_000;
        loop {
            if let Some(response) = link.ask(2, &request).await {
                let answer = &response.topics[0].partitions[0];
                if self.is_done("delete records", answer.error_code, &[]) {
                    assert_eq!(answer.low_watermark, to, "{TOPIC}: DeleteRecords to {to}");
                    life.start = to;
                    return;
                }
            }
            pause(50).await;
        }
    }
}
