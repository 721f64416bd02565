//! Times of the pure hot parts: `cargo bench -p flowstone-micro`. Compare two states of the code with criterion's
//! `--save-baseline` and `--baseline`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use flowstone_batch::{BatchBuilder, Rules, check, crc_ok, records};
use flowstone_log::{Active, LogConfig};
use flowstone_micro::{NOW, batch, log, produce_frame, produce_path};
use flowstone_types::{Offset, Timestamp};
use flowstone_wire::decode;

/// Records of 1000 bytes in a batch: a single one, the default batch.size, and the largest.
const SHAPES: [(&str, i32); 3] = [("1 record", 1), ("16 KiB", 16), ("1 MB", 985)];

fn batches(criterion: &mut Criterion) {
    let rules = Rules::default();
    for (name, count) in SHAPES {
        let batch = batch(count, 1000);
        let mut group = criterion.benchmark_group("batch");
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(format!("check/{name}"), |bench| {
            bench.iter(|| check(black_box(batch.clone()), &rules, NOW).unwrap());
        });
        group.bench_function(format!("crc/{name}"), |bench| {
            bench.iter(|| crc_ok(black_box(&batch)));
        });
        group.bench_function(format!("read/{name}"), |bench| {
            bench.iter(|| {
                let records = records(black_box(&batch), &rules.limits).unwrap();
                records.map(|record| record.unwrap().offset.0).sum::<i64>()
            });
        });
        let value = vec![b'v'; 1000];
        group.bench_function(format!("build/{name}"), |bench| {
            bench.iter(|| {
                let mut builder = BatchBuilder::new(Offset::ZERO);
                for at in 0..count {
                    builder.push(
                        Timestamp(NOW.0 + i64::from(at)),
                        None,
                        Some(black_box(&value)),
                        &[],
                    );
                }
                builder.build()
            });
        });
    }
}

fn frames(criterion: &mut Criterion) {
    for (name, count) in SHAPES {
        let frame = produce_frame(&batch(count, 1000));
        criterion.bench_function(&format!("frame/decode produce/{name}"), |bench| {
            bench.iter(|| decode(black_box(frame.clone())).unwrap());
        });
    }
}

/// A whole segment of 16 KiB batches, one index entry each.
fn index(criterion: &mut Criterion) {
    let header = flowstone_batch::BatchHeader::parse(&batch(16, 1000)).unwrap();
    let mut active = Active::new(Offset::ZERO, NOW);
    let mut end = 0;
    for _ in 0..65_000 {
        let header = flowstone_batch::BatchHeader { base_offset: Offset(end), ..header };
        active.push(&header, LogConfig::default().index_interval_bytes);
        end += 16;
    }
    let (_segment, index, _times) = active.seal(NOW);
    let mut offset = 0;
    criterion.bench_function("index/floor in 65,000 entries", |bench| {
        bench.iter(|| {
            offset = (offset + 7_919 * 16) % end;
            index.floor(black_box(Offset(offset)))
        });
    });
}

fn whole(criterion: &mut Criterion) {
    let rules = Rules::default();
    for (name, count) in SHAPES {
        let frame = produce_frame(&batch(count, 1000));
        criterion.bench_function(&format!("produce path/{name}"), |bench| {
            bench.iter_batched_ref(
                log,
                |log| produce_path(black_box(&frame), log, &rules),
                BatchSize::NumIterations(10_000),
            );
        });
    }
}

criterion_group!(hot, batches, frames, index, whole);
criterion_main!(hot);
