//! Images of 1,000,000 partitions with three replicas each on 100 brokers: many topics, or large ones.
//!
//! `cargo bench -p flowstone-metadata`. Beside the times it tells the resident memory of a process that reads
//! the snapshot (with the daemon's allocator), and fails where that passes its bound.

use std::hint::black_box;
use std::{fs, time::Duration};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use flowstone_metadata::records::{
    FeatureLevelRecord, PartitionChangeRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord,
};
use flowstone_metadata::{
    Delta, Image, MetadataRecord, MetadataVersion, Replay, features, snapshot_file,
};
use flowstone_raft::snapshot::SnapshotWriter;
use flowstone_types::{LeaderEpoch, PartitionId, Timestamp, Uuid};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Count of topics, and of partitions of each.
const SHAPES: [(u64, i32); 2] = [(20_000, 50), (10, 100_000)];
const BROKERS: i32 = 100;
/// Most resident memory while the snapshot is read, its file included.
const RESIDENT_MIB_MAX: u64 = 600;

/// Ids as they are drawn: spread over the whole range.
fn id(of: u64) -> Uuid {
    let spread = u128::from(of + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Uuid(spread)
}

fn directory(broker: i32) -> Uuid {
    id(1 << 32 | broker as u64)
}

fn records((topics, partitions): (u64, i32)) -> impl Iterator<Item = MetadataRecord> {
    let level = FeatureLevelRecord {
        name: features::METADATA_VERSION.into(),
        feature_level: MetadataVersion::LATEST.0,
        ..Default::default()
    };
    let brokers = (0..BROKERS).map(|broker_id| {
        let log_dirs = vec![directory(broker_id)];
        RegisterBrokerRecord { broker_id, log_dirs, fenced: false, ..Default::default() }.into()
    });
    let topics = (0..topics).flat_map(move |topic| {
        let name = format!("orders.of.region.{topic}");
        let created = TopicRecord { name, topic_id: id(topic), ..Default::default() }.into();
        let partitions = (0..partitions).map(move |partition_id| {
            let first = topic as i32 + partition_id;
            let replicas: Vec<i32> = (0..3).map(|nth| (first + nth * 7) % BROKERS).collect();
            PartitionRecord {
                partition_id,
                topic_id: id(topic),
                directories: replicas.iter().map(|broker| directory(*broker)).collect(),
                isr: replicas.clone(),
                leader: replicas[0],
                leader_epoch: 0,
                partition_epoch: 0,
                replicas,
                ..Default::default()
            }
            .into()
        });
        std::iter::once(created).chain(partitions)
    });
    std::iter::once(level.into()).chain(brokers).chain(topics)
}

fn snapshot(shape: (u64, i32)) -> Bytes {
    let mut file = Vec::with_capacity(256 << 20);
    let (mut writer, first) = SnapshotWriter::new(LeaderEpoch(1), Timestamp(0), None, Timestamp(0));
    file.extend_from_slice(&first);
    for record in records(shape) {
        let value = record.encode(record.version_at(MetadataVersion::LATEST)).expect("it is whole");
        file.extend(writer.push(&value).into_iter().flatten());
    }
    file.extend(writer.finish().into_iter().flatten());
    file.into()
}

/// The partition shrinks to two replicas in sync, or grows to three again.
fn change((topics, partitions): (u64, i32), nth: u64) -> MetadataRecord {
    let (topic, partition_id) = (nth * 7_919 % topics, (nth * 31 % partitions as u64) as i32);
    let first = topic as i32 + partition_id;
    let left = if nth.is_multiple_of(2) { 2 } else { 3 };
    PartitionChangeRecord {
        partition_id,
        topic_id: id(topic),
        isr: Some((0..left).map(|nth| (first + nth * 7) % BROKERS).collect()),
        ..Default::default()
    }
    .into()
}

/// Most memory that was resident since the peak was last reset, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the line is there");
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib / 1024
}

fn read(file: &Bytes) -> Image {
    snapshot_file::read(file).expect("our own snapshot").1
}

fn scale(criterion: &mut Criterion) {
    for shape in SHAPES {
        of_shape(criterion, shape);
    }
}

fn of_shape(criterion: &mut Criterion, shape: (u64, i32)) {
    let (topics, partitions) = shape;
    let file = snapshot(shape);
    fs::write("/proc/self/clear_refs", "5").expect("the peak is counted from here");
    let image = read(&file);
    let peak = peak_mib();
    println!("{topics} topics of {partitions}: file {} MiB, resident {peak} MiB", file.len() >> 20);
    assert!(peak < RESIDENT_MIB_MAX, "{peak} MiB resident");
    assert_eq!(image.topics.len() as u64, topics);
    let last = PartitionId { topic: id(topics - 1), index: partitions - 1 };
    assert!(image.topics.partition(last).is_some());

    let mut group = criterion.benchmark_group(format!("{topics} topics of {partitions}"));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function("image from a snapshot", |b| {
        b.iter_with_large_drop(|| read(black_box(&file)));
    });
    drop(file);
    group.sample_size(50).sampling_mode(SamplingMode::Auto);
    group.bench_function("delta of one partition published", |b| {
        let mut replay = Replay::from_image(image.clone());
        let mut published = replay.publish();
        let mut nth = 0;
        b.iter(|| {
            nth += 1;
            replay.apply(change(shape, nth)).expect("the partition is there");
            published = replay.publish();
        });
        assert!(published.is_some_and(|(_, delta)| delta.partitions.len() == 1));
    });
    for changes in [1, 1_000] {
        let (mut after, mut delta) = (image.clone(), Delta::default());
        for nth in 0..changes {
            after.apply(change(shape, nth), &mut delta).expect("the partition is there");
        }
        group.bench_function(format!("delta between images, {changes} changed"), |b| {
            b.iter(|| Delta::between(black_box(&image), black_box(&after)));
        });
        assert_eq!(Delta::between(&image, &after), delta);
    }
    group.finish();
}

criterion_group!(benches, scale);
criterion_main!(benches);
