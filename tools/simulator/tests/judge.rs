//! The workload and its judge against a toy broker: an honest one passes, each lie is found.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flowstone_batch::{BatchHeader, stamp};
use flowstone_runtime::sim::{Control, MachineId, World};
use flowstone_runtime::{Buffer, Connection, Listener, sleep, spawn};
use flowstone_simulator::nemesis::{Kinds, Victim};
use flowstone_simulator::seeds::{Scenario, Stats, run};
use flowstone_simulator::workload::{Plan, Workload};
use flowstone_types::{LeaderEpoch, Offset};
use flowstone_wire::messages::{
    CreateTopicsResponse, FetchResponse, InitProducerIdResponse, OffsetCommitResponse,
    OffsetFetchResponse, ProduceResponse, create_topics_response::CreatableTopicResult,
    fetch_response::FetchableTopicResponse, fetch_response::PartitionData,
    offset_commit_response::OffsetCommitResponsePartition,
    offset_commit_response::OffsetCommitResponseTopic,
    offset_fetch_response::OffsetFetchResponsePartition,
    offset_fetch_response::OffsetFetchResponseTopic, produce_response::PartitionProduceResponse,
    produce_response::TopicProduceResponse,
};
use flowstone_wire::{RequestBody, ResponseBody, decode};

/// What the toy does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// A crash takes what came last.
    Forgets,
    /// A retry is appended again.
    Repeats,
    /// Commits are lost in a crash.
    ForgetsCommits,
    /// A byte changes.
    Rots,
}

/// The toy's disk: it survives crashes by living outside of the machine.
#[derive(Default)]
struct Kept {
    logs: BTreeMap<i32, Vec<(i64, i64, Bytes)>>, // First offset, end, batch.
    commits: BTreeMap<i32, i64>,
    producers: i64,
}

impl Kept {
    fn end(&self, partition: i32) -> i64 {
        self.logs.get(&partition).and_then(|log| log.last()).map_or(0, |batch| batch.1)
    }

    fn append(&mut self, partition: i32, records: &[u8], lie: Lie) -> i64 {
        let header = BatchHeader::parse(records).unwrap();
        let log = self.logs.entry(partition).or_default();
        let same = |batch: &&(i64, i64, Bytes)| {
            let old = BatchHeader::parse(&batch.2).unwrap();
            header.producer_id.0 >= 0
                && (old.producer_id, old.base_sequence)
                    == (header.producer_id, header.base_sequence)
        };
        if let Some(old) = log.iter().find(same)
            && lie != Lie::Repeats
        {
            return old.0;
        }
        let base = log.last().map_or(0, |batch| batch.1);
        let mut bytes = BytesMut::from(records);
        stamp(&mut bytes, Offset(base), LeaderEpoch(0));
        log.push((base, base + i64::from(header.count), bytes.freeze()));
        base
    }
}

fn answer(kept: &mut Kept, body: RequestBody, lie: Lie) -> ResponseBody {
    match body {
        RequestBody::CreateTopics(_) => {
            let mut response = CreateTopicsResponse::default();
            response.topics = vec![CreatableTopicResult::default()];
            response.into()
        }
        RequestBody::InitProducerId(_) => {
            let mut response = InitProducerIdResponse::default();
            response.producer_id = kept.producers.into();
            kept.producers += 1;
            response.into()
        }
        RequestBody::Produce(request) => {
            let data = &request.topic_data[0].partition_data[0];
            let mut partition = PartitionProduceResponse::default();
            partition.base_offset = kept.append(data.index, data.records.as_ref().unwrap(), lie);
            let mut topic = TopicProduceResponse::default();
            topic.partition_responses = vec![partition];
            let mut response = ProduceResponse::default();
            response.responses = vec![topic];
            response.into()
        }
        RequestBody::Fetch(request) => {
            let wanted = &request.topics[0].partitions[0];
            let mut partition = PartitionData::default();
            partition.high_watermark = kept.end(wanted.partition);
            if wanted.fetch_offset > partition.high_watermark {
                partition.error_code = 1;
            }
            let log = kept.logs.get(&wanted.partition).map(Vec::as_slice).unwrap_or_default();
            let batch = log.iter().find(|batch| batch.1 > wanted.fetch_offset);
            partition.records = batch.map(|batch| batch.2.clone());
            let mut topic = FetchableTopicResponse::default();
            topic.partitions = vec![partition];
            let mut response = FetchResponse::default();
            response.responses = vec![topic];
            response.into()
        }
        RequestBody::OffsetCommit(request) => {
            let place = &request.topics[0].partitions[0];
            kept.commits.insert(place.partition_index, place.committed_offset);
            let mut topic = OffsetCommitResponseTopic::default();
            topic.partitions = vec![OffsetCommitResponsePartition::default()];
            let mut response = OffsetCommitResponse::default();
            response.topics = vec![topic];
            response.into()
        }
        RequestBody::OffsetFetch(request) => {
            let partition = request.topics.unwrap()[0].partition_indexes[0];
            let mut place = OffsetFetchResponsePartition::default();
            place.committed_offset = kept.commits.get(&partition).copied().unwrap_or(-1);
            let mut topic = OffsetFetchResponseTopic::default();
            topic.partitions = vec![place];
            let mut response = OffsetFetchResponse::default();
            response.topics = vec![topic];
            response.into()
        }
        other => panic!("the workload does not ask {:?}", other.api()),
    }
}

async fn serve(connection: Connection, kept: Rc<RefCell<Kept>>, lie: Lie) {
    loop {
        let (result, prefix) = connection.recv_exact(Buffer::with_capacity(4), 4).await;
        if result.is_err() {
            return;
        }
        let len = u32::from_be_bytes(prefix[..4].try_into().unwrap()) as usize;
        let (result, frame) = connection.recv_exact(Buffer::with_capacity(len), len).await;
        if result.is_err() {
            return;
        }
        let request = decode(frame.freeze()).unwrap();
        let reply = request.header.reply_to();
        let body = answer(&mut kept.borrow_mut(), request.body, lie);
        let mut parts = Vec::new();
        reply.encode(&body, &mut parts).unwrap();
        if connection.send(parts).await.is_err() {
            return;
        }
    }
}

fn boot(
    control: &Control,
    machine: MachineId,
    address: SocketAddr,
    kept: Rc<RefCell<Kept>>,
    lie: Lie,
) {
    let mut disk = kept.borrow_mut();
    match lie {
        Lie::Forgets => drop(disk.logs.values_mut().map(Vec::pop).collect::<Vec<_>>()),
        Lie::ForgetsCommits => disk.commits.clear(),
        Lie::Rots => {
            if let Some((_, _, batch)) = disk.logs.values_mut().find_map(|log| log.last_mut()) {
                let mut bytes = BytesMut::from(&batch[..]);
                *bytes.last_mut().unwrap() ^= 1;
                *batch = bytes.freeze();
            }
        }
        Lie::None | Lie::Repeats => {}
    }
    drop(disk);
    control.boot(machine, 1, move |_| {
        let kept = Rc::clone(&kept);
        async move {
            let listener = Listener::bind(address).await.unwrap();
            loop {
                let connection = listener.accept().await.unwrap();
                spawn(serve(connection, Rc::clone(&kept), lie));
            }
        }
    });
}

fn play(world: &World, lie: Lie) -> Stats {
    let (machine, control) = (world.machine("toy"), world.control());
    let address = SocketAddr::new(world.address(machine), 9092);
    let kept = Rc::new(RefCell::new(Kept::default()));
    let plan = Plan {
        partitions: 2,
        producers: 3,
        value_bytes_max: 2_000,
        pause_max: Duration::from_millis(10),
        configs: Vec::new(),
    };
    let workload = Workload::new(world.control(), plan, address);
    for client in workload.clients() {
        world.spawn_on(world.machine("client"), client);
    }
    world.run(async move {
        let again = control.clone();
        let boots = Cell::new(0);
        let start = move || {
            // The first time there is nothing to lie about.
            let lie = if boots.replace(1) == 0 { Lie::None } else { lie };
            boot(&again, machine, address, Rc::clone(&kept), lie);
        };
        start();
        workload.create_topic().await;
        let victim = Victim { control: &control, machine, others: &[], boot: &start, stops: false };
        let stats = victim.torment(3, Kinds::draw(&control)).await;
        workload.stop().await;
        sleep(Duration::from_secs(1)).await;
        workload.final_check().await;
        let (sent, acknowledged) = workload.counts();
        Stats { sent, acknowledged, ..stats }
    })
}

fn found(name: &'static str, play: fn(&World) -> Stats) -> String {
    let scenario = Scenario { name, about: "", play };
    let failure = run(&scenario, 0..100, 100).expect_err("a lie is found");
    assert!(!failure.trace.is_empty(), "seed {}: {}", failure.seed, failure.message);
    failure.message
}

#[test]
fn an_honest_broker_passes() {
    let scenario = Scenario { name: "honest", about: "", play: |world| play(world, Lie::None) };
    let stats = run(&scenario, 0..15, 100).unwrap_or_else(|failure| {
        panic!("seed {}: {}\n{}", failure.seed, failure.message, failure.trace)
    });
    assert!(stats.acknowledged > 500, "{stats:?}");
    assert!(stats.crashes > 2 && stats.power_losses > 10, "{stats:?}");
}

#[test]
fn lies_are_found() {
    let message = found("forgets", |world| play(world, Lie::Forgets));
    assert!(message.contains("gone") || message.contains("and is"), "{message}");
    let message = found("forgets commits", |world| play(world, Lie::ForgetsCommits));
    assert!(message.contains("committed offset"), "{message}");
    let message = found("rots", |world| play(world, Lie::Rots));
    assert!(message.contains("torn"), "{message}");
}

#[test]
fn a_repeated_record_is_found() {
    let message = found("repeats", |world| play(world, Lie::Repeats));
    assert!(message.contains("times") || message.contains("behind"), "{message}");
}
