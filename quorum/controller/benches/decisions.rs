//! What the largest decisions cost in a cluster of a million partitions, each replicated to 3 of 300
//! brokers: a CreateTopics of 10,000 partitions, and a broker with 10,000 leaderships fenced. Each is to
//! take less than 100 ms, what it does to the controller's own state included.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use flowstone_config::Config;
use flowstone_controller::{
    Controller, Effect, Heartbeat, NewTopic, Random, Settings, TopicDefaults, create_topics,
};
use flowstone_metadata::records::{FeatureLevelRecord, RegisterBrokerRecord, TopicRecord};
use flowstone_metadata::{Delta, Image, MetadataRecord, MetadataVersion, Partition, features};
use flowstone_types::{Instant, NodeId, Offset, PartitionId, Uuid};
use std::hint::black_box;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc; // As in the daemon.

const BROKERS: i32 = 300;
const TOPICS: i32 = 10_000;
const PARTITIONS: i32 = 100;
/// Leads the first 10,000 partitions, one of each topic.
const LEADER: i32 = 0;
const END: Offset = Offset(1 << 21);
const NOW: Instant = Instant(0);

fn cluster() -> Image {
    let (mut image, mut delta) = (Image::default(), Delta::default());
    let mut apply = |record: MetadataRecord| image.apply(record, &mut delta).expect("it fits");
    let levels = features::bootstrap_records(MetadataVersion::LATEST, &[]).expect("known");
    levels.into_iter().map(FeatureLevelRecord::into).for_each(&mut apply);
    for id in 0..BROKERS {
        let broker = RegisterBrokerRecord {
            broker_id: id,
            broker_epoch: 1,
            fenced: false,
            rack: Some(format!("rack-{}", id % 3)),
            log_dirs: vec![Uuid(1000 + id as u128)],
            ..RegisterBrokerRecord::default()
        };
        apply(broker.into());
    }
    for nth in 0..TOPICS {
        let topic = Uuid((nth as u128) << 64);
        let name = format!("topic-{nth}");
        apply(TopicRecord { name, topic_id: topic, ..TopicRecord::default() }.into());
        for index in 0..PARTITIONS {
            // The first partitions are led by one broker, and all others by the rest.
            let first =
                if index == 0 { LEADER } else { 1 + (nth * PARTITIONS + index) % (BROKERS - 3) };
            let replicas = vec![NodeId(first), NodeId(first + 1), NodeId(first + 2)];
            let directories = replicas.iter().map(|id| Uuid(1000 + id.0 as u128)).collect();
            let partition = Partition::new(replicas.clone(), directories, replicas);
            let id = PartitionId { topic, index };
            apply(partition.to_record(id, MetadataVersion::LATEST).into());
        }
    }
    image
}

fn controller(image: &Image) -> Controller<()> {
    Controller::new(NOW, image.clone(), false, END, Settings::new(NodeId(3000)))
}

fn appended(effects: &[Effect<()>]) -> usize {
    let count = |effect: &Effect<()>| match effect {
        Effect::Append(append) => append.records.len(),
        Effect::Answer(()) | Effect::NotController(()) => 0,
    };
    effects.iter().map(count).sum()
}

fn decisions(criterion: &mut Criterion) {
    let image = cluster();
    let mut group = criterion.benchmark_group("a million partitions");
    group.sample_size(10);
    group.bench_function("a controller becomes active", |b| {
        b.iter_with_large_drop(|| controller(black_box(&image)));
    });
    let config = Config::dev("data", 9092, &[]).expect("defaults").config;
    let topic = NewTopic {
        name: "large".into(),
        partitions: 9_999, // And the topic itself: 10,000 records.
        replication_factor: 3,
        assignments: vec![],
        configs: vec![],
    };
    let create = |controller: &mut Controller<()>| {
        let mut effects = Vec::new();
        let mut drawn = 0_u64;
        let mut draw = || {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            drawn >> 8
        };
        let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
        let decide = |active: &mut flowstone_controller::Active| {
            let random = &mut Random(&mut draw);
            let topics = std::slice::from_ref(&topic);
            create_topics(active.image(), topics, defaults, false, &config, random).map(drop)
        };
        controller.decide(NOW, END, decide, &mut effects);
        assert_eq!(appended(&effects), 10_000);
        effects
    };
    let once = || controller(&image);
    group.bench_function("CreateTopics of 10,000 partitions", |b| {
        b.iter_batched_ref(once, create, BatchSize::PerIteration);
    });
    let fence = |controller: &mut Controller<()>| {
        let mut effects = Vec::new();
        let heartbeat = Heartbeat {
            id: NodeId(LEADER),
            epoch: 1,
            metadata_offset: END,
            want_fence: true,
            want_shut_down: false,
            offline_log_dirs: vec![],
            cordoned_log_dirs: None,
        };
        let decide = |active: &mut flowstone_controller::Active| {
            active.heartbeat(&heartbeat).expect("it is registered").map(drop)
        };
        controller.decide(NOW, END, decide, &mut effects);
        assert_eq!(appended(&effects), 10_001);
        effects
    };
    group.bench_function("a broker with 10,000 leaderships fenced", |b| {
        b.iter_batched_ref(once, fence, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
