//! The life of a broker that is recorded: its metadata log, its topics, its groups' offsets.
//!
//! One client does one thing after the other, and each is answered before the next begins. So at each
//! moment some have happened and at most one may have, and a broker that is started from there must
//! show just that.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use flowstone_batch::BatchBuilder;
use flowstone_history::RecordId;
use flowstone_runtime::sim::{Control, Image, Moment, World};
use flowstone_runtime::{sleep, wall_clock};
use flowstone_types::Offset;
use flowstone_wire::messages::create_topics_request::CreatableTopic;
use flowstone_wire::messages::delete_topics_request::DeleteTopicState;
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest, GroupId,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};
use flowstone_wire::{ErrorCode, string, topic_name};

use super::{Recorded, Seeds, Way};
use crate::scenarios::broker::start;
use crate::seeds::Stats;
use crate::workload::{Link, code, read_all};

const PORT: u16 = 9092;
const MEMORY_BYTES: u64 = 64 << 20;
/// Topics that come and go.
const TOPICS: u64 = 3;
/// Things done between two stops.
const DEEDS: u64 = 25;
/// How long a broker may take to be there, and to answer, in virtual time.
const ANSWERS_WITHIN: Duration = Duration::from_mins(5);

/// One thing that a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deed {
    /// Makes a topic of one partition.
    Create(u64),
    Delete(u64),
    /// Appends to it a record that tells this deed's number.
    Produce(u64),
    /// Commits the topic's end for the group of its name.
    Commit(u64),
}

/// What a client can see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Shown {
    /// The numbers that a topic's records tell.
    topics: BTreeMap<u64, Vec<u64>>,
    /// What groups have committed, of topics that are there.
    commits: BTreeMap<u64, i64>,
}

impl Shown {
    fn after(deeds: &[Deed]) -> Self {
        let mut shown = Self::default();
        for (number, deed) in (0..).zip(deeds) {
            shown.does(*deed, number);
        }
        shown
    }

    fn does(&mut self, deed: Deed, number: u64) {
        match deed {
            Deed::Create(topic) => {
                self.topics.insert(topic, Vec::new());
            }
            Deed::Delete(topic) => {
                self.topics.remove(&topic);
                self.commits.remove(&topic);
            }
            Deed::Produce(topic) => {
                self.topics.get_mut(&topic).expect("it is there").push(number);
            }
            Deed::Commit(topic) => {
                self.commits.insert(topic, self.topics[&topic].len() as i64);
            }
        }
    }
}

/// A life that was recorded. A mark is twice the number of deeds that were answered, and one more while
/// the next is under way.
pub struct Life {
    seeds: Seeds,
    shards: usize,
    deeds: Vec<Deed>,
}

impl Life {
    /// Plays the life of `seed`.
    pub fn play(seed: u64, stats: &mut Stats) -> (Self, Vec<Moment>) {
        let world = World::new(seed);
        let (control, machine, other) =
            (world.control(), world.machine("broker"), world.machine("client"));
        let address = SocketAddr::new(world.address(machine), PORT);
        let shards = 1 + (world.random() % 2) as usize;
        let deeds: Rc<RefCell<Vec<Deed>>> = Rc::default();
        let done = deeds.clone();
        world.record(machine);
        world.run(async move {
            for _ in 0..3 {
                start(&control, machine, shards, MEMORY_BYTES);
                let (deeds, all, over) = (done.clone(), control.clone(), Rc::new(Cell::new(false)));
                let told = over.clone();
                control.spawn_on(other, async move {
                    let mut asker = Asker { link: Link::new(address) };
                    for _ in 0..DEEDS {
                        let shown = Shown::after(&deeds.borrow());
                        let deed = draw(&all, &shown);
                        let number = deeds.borrow().len() as u64;
                        deeds.borrow_mut().push(deed);
                        all.mark(machine, 2 * number + 1);
                        asker.does(deed, number, &shown).await;
                        all.mark(machine, 2 * number + 2);
                        sleep(Duration::from_millis(all.random() % 30)).await;
                    }
                    told.set(true);
                });
                while !over.get() {
                    sleep(Duration::from_millis(5)).await;
                }
                match control.random() % 3 {
                    0 => {
                        control.terminate(machine);
                        control.ended(machine).await;
                    }
                    1 => control.crash(machine),
                    _ => control.power_loss(machine),
                }
            }
        });
        let moments = world.recorded(machine);
        let deeds = deeds.take();
        stats.acknowledged += deeds.len() as u64;
        stats.events += world.events();
        (Self { seeds: Seeds::after(seed), shards, deeds }, moments)
    }

    /// Boots from `image`; returns what it shows and the disk that it leaves once it is killed, after
    /// these deeds.
    fn once(&self, image: &Image, more: &[Deed], record: bool) -> (Shown, Image, Vec<Moment>) {
        let world = World::new(self.seeds.next());
        let (control, machine, other) =
            (world.control(), world.machine("broker"), world.machine("client"));
        let address = SocketAddr::new(world.address(machine), PORT);
        world.insert_disk(machine, image);
        if record {
            world.record(machine);
        }
        world.set_time_limit(world.now().after(ANSWERS_WITHIN));
        let place: Rc<RefCell<Option<Shown>>> = Rc::default();
        let (found, shards, more) = (place.clone(), self.shards, more.to_vec());
        let done = self.deeds.len() as u64;
        world.run(async move {
            start(&control, machine, shards, MEMORY_BYTES);
            let told = place.clone();
            control.spawn_on(other, async move {
                let mut asker = Asker { link: Link::new(address) };
                let before = asker.look().await;
                let mut shown = before.clone();
                for (number, deed) in (done..).zip(more) {
                    asker.does(deed, number, &shown).await;
                    shown.does(deed, number);
                }
                *told.borrow_mut() = Some(before);
            });
            while place.borrow().is_none() {
                assert!(control.is_running(machine), "the broker does not start");
                sleep(Duration::from_millis(5)).await;
            }
            control.crash(machine);
        });
        let moments = if record { world.recorded(machine) } else { Vec::new() };
        (found.take().expect("it was there"), world.image(machine), moments)
    }
}

impl Recorded for Life {
    fn recover(&self, image: &Image, mark: u64, way: Way) -> Vec<Moment> {
        let done = (mark / 2) as usize;
        let mut may_be = vec![Shown::after(&self.deeds[..done])];
        if mark % 2 == 1 {
            may_be.push(Shown::after(&self.deeds[..=done]));
        }
        let more = if way == Way::GoesOn {
            // As many deeds as there were, and two more.
            vec![Deed::Create(TOPICS), Deed::Produce(TOPICS), Deed::Commit(TOPICS)]
        } else {
            Vec::new()
        };
        let (shown, left, moments) = self.once(image, &more, way == Way::Recorded);
        assert!(may_be.contains(&shown), "it shows {shown:?}, and should show one of {may_be:?}");
        if way != Way::Recorded {
            let mut expected = shown;
            for (number, deed) in (self.deeds.len() as u64..).zip(more) {
                expected.does(deed, number);
            }
            let questions = left.questions();
            let again = left.answered(&vec![0; questions.len()], None);
            let (again, ..) = self.once(&again, &[], false);
            assert_eq!(again, expected, "a second start shows something else");
        }
        moments
    }
}

fn draw(control: &Control, shown: &Shown) -> Deed {
    let topic = control.random() % TOPICS;
    let Some(records) = shown.topics.get(&topic) else { return Deed::Create(topic) };
    match control.random() % 12 {
        0 => Deed::Delete(topic),
        1..4 if !records.is_empty() => Deed::Commit(topic),
        _ => Deed::Produce(topic),
    }
}

fn name(topic: u64) -> String {
    format!("topic-{topic}")
}

/// A client who asks until it is answered.
struct Asker {
    link: Link,
}

impl Asker {
    /// Does it, for certain: an answer that leaves it open is asked again.
    async fn does(&mut self, deed: Deed, number: u64, shown: &Shown) {
        loop {
            let answer = match deed {
                Deed::Create(topic) => self.create(topic).await,
                Deed::Delete(topic) => self.delete(topic).await,
                Deed::Produce(topic) => self.produce(topic, number).await,
                Deed::Commit(topic) => self.commit(topic, shown.topics[&topic].len()).await,
            };
            match answer {
                Some(ErrorCode::None) => return,
                // The broker is not there yet, or not that far.
                None => {}
                Some(code) => assert!(
                    code.is_retriable() || code == ErrorCode::UnknownTopicOrPartition,
                    "{deed:?}: {code:?}"
                ),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn create(&mut self, topic: u64) -> Option<ErrorCode> {
        let mut wanted = CreatableTopic::default();
        wanted.name = topic_name(&name(topic));
        (wanted.num_partitions, wanted.replication_factor) = (1, 1);
        let mut request = CreateTopicsRequest::default();
        (request.topics, request.timeout_ms) = (vec![wanted], 3_000);
        Some(code(self.link.ask(5, &request).await?.topics[0].error_code))
    }

    async fn delete(&mut self, topic: u64) -> Option<ErrorCode> {
        let mut wanted = DeleteTopicState::default();
        wanted.name = Some(topic_name(&name(topic)));
        let mut request = DeleteTopicsRequest::default();
        (request.topics, request.timeout_ms) = (vec![wanted], 3_000);
        Some(code(self.link.ask(6, &request).await?.responses[0].error_code))
    }

    async fn produce(&mut self, topic: u64, number: u64) -> Option<ErrorCode> {
        let mut builder = BatchBuilder::new(Offset::ZERO);
        let id = RecordId { producer: 0, number: number as u32 };
        builder.push(wall_clock(), None, Some(&id.value(3_000)), &[]);
        let mut data = PartitionProduceData::default();
        data.records = Some(builder.build());
        let mut of_topic = TopicProduceData::default();
        (of_topic.name, of_topic.partition_data) = (topic_name(&name(topic)), vec![data]);
        let mut request = ProduceRequest::default();
        (request.acks, request.timeout_ms, request.topic_data) = (-1, 3_000, vec![of_topic]);
        let response = self.link.ask(8, &request).await?;
        Some(code(response.responses[0].partition_responses[0].error_code))
    }

    async fn commit(&mut self, topic: u64, position: usize) -> Option<ErrorCode> {
        let group = GroupId(string(name(topic)));
        let mut place = OffsetCommitRequestPartition::default();
        (place.committed_offset, place.committed_leader_epoch) = (position as i64, -1);
        let mut of_topic = OffsetCommitRequestTopic::default();
        (of_topic.name, of_topic.partitions) = (topic_name(&name(topic)), vec![place]);
        let mut request = OffsetCommitRequest::default();
        (request.group_id, request.generation_id_or_member_epoch) = (group.clone(), -1);
        request.topics = vec![of_topic];
        let response = self.link.ask(7, &request).await?;
        let code = code(response.topics[0].partitions[0].error_code);
        if code != ErrorCode::None {
            // Asking who coordinates makes the topic of offsets, where there is none.
            let mut request = FindCoordinatorRequest::default();
            request.key = group.0;
            self.link.ask(3, &request).await;
        }
        Some(code)
    }

    /// All that there is to see.
    async fn look(&mut self) -> Shown {
        let mut shown = Shown::default();
        let topics = self.topics().await;
        for topic in topics {
            let records = self.records(topic).await;
            shown.topics.insert(topic, records);
            let committed = self.committed(topic).await;
            shown.commits.extend((committed >= 0).then_some((topic, committed)));
        }
        shown
    }

    async fn topics(&mut self) -> BTreeSet<u64> {
        let request = MetadataRequest::default().with_topics(None);
        loop {
            if let Some(response) = self.link.ask(12, &request).await {
                let names = response.topics.iter().filter_map(|topic| topic.name.as_ref());
                let numbers = names.filter_map(|name| name.strip_prefix("topic-")?.parse().ok());
                return numbers.collect();
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn records(&mut self, topic: u64) -> Vec<u64> {
        let mut all = Vec::new();
        loop {
            let mut wanted = FetchPartition::default();
            (wanted.current_leader_epoch, wanted.fetch_offset) = (-1, all.len() as i64);
            wanted.partition_max_bytes = 1 << 20;
            let mut of_topic = FetchTopic::default();
            (of_topic.topic, of_topic.partitions) = (topic_name(&name(topic)), vec![wanted]);
            let mut request = FetchRequest::default();
            (request.replica_id, request.max_bytes) = ((-1).into(), 1 << 20);
            (request.session_epoch, request.topics) = (-1, vec![of_topic]);
            if let Some(response) = self.link.ask(11, &request).await
                && let Some(answer) = response.responses.first().map(|topic| &topic.partitions[0])
            {
                if code(answer.error_code) == ErrorCode::None {
                    let bytes = answer.records.clone().unwrap_or_default();
                    let read = read_all(&bytes, all.len() as i64, |_, value| {
                        RecordId::of(value).expect("one of ours, whole")
                    });
                    if read.is_empty() {
                        assert_eq!(answer.high_watermark, all.len() as i64, "{topic} is short");
                        return all;
                    }
                    all.extend(read.iter().map(|(_, id)| u64::from(id.number)));
                    continue;
                }
                assert!(code(answer.error_code).is_retriable(), "{:?}", code(answer.error_code));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn committed(&mut self, topic: u64) -> i64 {
        let mut of_topic = OffsetFetchRequestTopic::default();
        (of_topic.name, of_topic.partition_indexes) = (topic_name(&name(topic)), vec![0]);
        let mut request = OffsetFetchRequest::default();
        request.group_id = GroupId(string(name(topic)));
        request.topics = Some(vec![of_topic]);
        for _ in 0..200 {
            if let Some(response) = self.link.ask(5, &request).await {
                match code(response.error_code) {
                    ErrorCode::None => {
                        let place = &response.topics[0].partitions[0];
                        assert_eq!(place.error_code, 0);
                        return place.committed_offset;
                    }
                    code => assert!(code.is_retriable(), "offsets of {topic}: {code:?}"),
                }
                let mut request = FindCoordinatorRequest::default();
                request.key = string(name(topic));
                self.link.ask(3, &request).await;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("no coordinator for {topic}");
    }
}
