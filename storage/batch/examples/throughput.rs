//! How fast `check` is, in GB of batch per second of one core:
//! `cargo run --release -p flowstone-batch --example throughput`.
#![allow(clippy::disallowed_types)] // Reads the clock; the crate itself must not.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use flowstone_batch::{
    BatchBuilder, Codec, Compression, Rules, TimestampType, check, crc_ok, records,
};
use flowstone_types::{Offset, Timestamp};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const BATCH_BYTES: usize = 16 << 10;

fn main() {
    let producer = Rules::default();
    let append_time = Rules { timestamp_type: TimestampType::LogAppendTime, ..Rules::default() };
    let inspect = Rules { inspect_compressed: true, ..Rules::default() };
    let to = |codec| Rules {
        compression: Compression::Fixed { codec, level: None },
        ..Rules::default()
    };
    for record_bytes in [1024, 100] {
        println!("batches of 16 KiB, records of {record_bytes} B:");
        let plain = batch(Codec::None, record_bytes);
        measure("CRC alone", &plain, || {
            black_box(crc_ok(black_box(&plain)));
        });
        measure_check("check, as is", &plain, &producer);
        measure_check("check, log-append time", &plain, &append_time);
        measure("iterate", &plain, || {
            let records = records(black_box(&plain), &producer.limits).unwrap();
            black_box(records.map(|record| record.unwrap().offset.0).sum::<i64>());
        });
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let batch = batch(codec, record_bytes);
            let name = codec.name();
            measure_check(&format!("check, {name} as is"), &batch, &producer);
            measure_check(&format!("check, {name} inflated"), &batch, &inspect);
            measure_check(&format!("convert to {name}"), &plain, &to(codec));
        }
    }
}

/// JSON-like values, so that codecs do as they do.
fn batch(codec: Codec, record_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
    let mut state: u64 = 7;
    while builder.len() + record_bytes < BATCH_BYTES {
        let mut value = String::new();
        while value.len() < record_bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            write!(value, "{{\"user\":{},\"state\":\"active\"}},", state >> 40).expect("a string");
        }
        value.truncate(record_bytes);
        builder.push(
            Timestamp(NOW.0 + i64::from(builder.count())),
            Some(b"key"),
            Some(value.as_bytes()),
            &[],
        );
    }
    builder.build()
}

fn measure_check(what: &str, batch: &Bytes, rules: &Rules) {
    measure(what, batch, || {
        black_box(check(black_box(batch.clone()), rules, NOW).unwrap());
    });
}

fn measure(what: &str, batch: &Bytes, mut step: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let (start, mut steps) = (Instant::now(), 0_u32);
            while start.elapsed().as_millis() < 60 {
                (0..16).for_each(|_| step());
                steps += 16;
            }
            start.elapsed().as_secs_f64() / f64::from(steps)
        })
        .fold(f64::MAX, f64::min);
    let gb = batch.len() as f64 / best / 1e9;
    println!("  {what:<26} {:>9.0} ns a batch of {:>5} B, {gb:>7.2} GB/s", best * 1e9, batch.len());
}
