//! Anything at all: what we build is read back, and no bytes make us panic.
//! `PROPTEST_CASES` and `PROPTEST_RNG_SEED` repeat and extend a run.

#![allow(clippy::disallowed_methods)] // Reads the corpus; the crate itself must not read files.

mod common;

use bytes::Bytes;
use common::*;
use flowstone_batch::{
    BatchBuilder, BatchHeader, Codec, Compression, Limits, Rules, TimestampType, batches, check,
    crc_ok, records, stamp,
};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn any_codec() -> impl Strategy<Value = Codec> {
    (0..Codec::ALL.len()).prop_map(|index| Codec::ALL[index])
}

fn any_record() -> impl Strategy<Value = Content> {
    (
        -1..NOW.0,
        option::of(vec(any::<u8>(), 0..20)),
        option::of(vec(any::<u8>(), 0..300)),
        vec(("[a-zü]{0,5}", option::of(vec(any::<u8>(), 0..9))), 0..3),
    )
}

/// Everything a broker does with bytes; only that it returns counts.
fn handle(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let limits = Limits { ratio_max: 100, floor_bytes: 1 << 20, bytes_max: 1 << 20 };
    for item in batches(&bytes) {
        let Ok((at, header, batch)) = item else { break };
        assert_eq!(batch.len(), header.total_len());
        let _ = (header.last_offset(), header.last_sequence(), crc_ok(batch));
        if let Ok(records) = records(&bytes.slice(at..), &limits) {
            for record in records.take(10_000).map_while(Result::ok) {
                assert_eq!(record.headers.iter().count(), record.headers.len());
            }
        }
    }
    for inspect_compressed in [false, true] {
        for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
            let rules = Rules { inspect_compressed, timestamp_type, limits, ..Rules::default() };
            if let Ok(checked) = check(bytes.clone(), &rules, NOW) {
                assert!(crc_ok(&checked.bytes));
                assert_eq!(checked.bytes.len(), checked.header.total_len());
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        written in vec(any_record(), 1..40),
        codec in any_codec(),
        target in any_codec(),
        base in 0..i64::MAX / 2,
    ) {
        let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
        push_all(&mut builder, &written);
        let batch = builder.build();
        let compression = Compression::Fixed { codec: target, level: None };
        let rules = Rules { compression, ..Rules::default() };
        let checked = check(batch, &rules, NOW).unwrap();
        let mut stored = checked.bytes.to_vec();
        stamp(&mut stored, Offset(base), LeaderEpoch(7));
        prop_assert!(crc_ok(&stored));
        let header = BatchHeader::parse(&stored).unwrap();
        prop_assert_eq!(header.leader_epoch, LeaderEpoch(7));
        let newest = written.iter().map(|record| record.0).max().unwrap();
        prop_assert_eq!(header.max_timestamp, Timestamp(newest));
        let read: Vec<_> = records(&stored.into(), &Limits::default()).unwrap().map(Result::unwrap).collect();
        for (index, record) in read.iter().enumerate() {
            prop_assert_eq!(record.offset, Offset(base + index as i64));
            prop_assert_eq!(&content(record), &written[index]);
        }
        prop_assert_eq!(read.len(), written.len());
    }

    #[test]
    fn noise_is_survived(bytes in vec(any::<u8>(), 0..300)) {
        handle(&bytes);
        // And as the record array of a sound batch, in each codec.
        for codec in Codec::ALL {
            handle(&of_array(codec, 3, &bytes));
        }
    }

    #[test]
    fn damage_under_a_right_crc_is_survived(
        written in vec(any_record(), 1..10),
        codec in any_codec(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
        push_all(&mut builder, &written);
        let mut batch = builder.build().to_vec();
        for (at, byte) in damage {
            let at = ATTRIBUTES + at.index(batch.len() - ATTRIBUTES);
            batch[at] = byte;
        }
        if let Some(cut) = cut {
            batch.truncate(RECORDS + cut.index(batch.len() - RECORDS));
        }
        handle(&seal(batch));
    }
}

/// Each golden file, cut and damaged at each place: the fuzzers' corpus, run as a test.
#[test]
fn the_corpus_is_survived() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        files += 1;
        let file = std::fs::read(&path).unwrap();
        let step = file.len() / 150 + 1; // About 150 places of each file, all of the small ones'.
        handle(&file);
        for at in (0..file.len()).step_by(step) {
            handle(&file[..at]);
            let mut damaged = file.clone();
            damaged[at] ^= 0x21;
            handle(&damaged);
            if at > RECORDS {
                handle(&seal(damaged));
                handle(&seal(file[..at].to_vec()));
            }
        }
    }
    assert_eq!(files, 9);
}
