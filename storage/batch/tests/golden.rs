//! Batches as Apache Kafka 4.3.1 wrote them: `golden/Golden.java` made the files.

mod common;

use bytes::Bytes;
use common::{Content, NOW, content, push_all};
use flowstone_batch::{
    BatchBuilder, BatchError, BatchHeader, Codec, Compression, ControlType, EndTxnMarker, Limits,
    Rules, batches, check, crc_ok, records,
};
use flowstone_types::{LeaderEpoch, Offset, ProducerId, Timestamp};

const NONE: &[u8] = include_bytes!("golden/none.bin");
const GZIP: &[u8] = include_bytes!("golden/gzip.bin");
const SNAPPY: &[u8] = include_bytes!("golden/snappy.bin");
const LZ4: &[u8] = include_bytes!("golden/lz4.bin");
const ZSTD: &[u8] = include_bytes!("golden/zstd.bin");
const TRANSACTIONAL: &[u8] = include_bytes!("golden/transactional.bin");
const COMMIT: &[u8] = include_bytes!("golden/commit.bin");
const APPEND_TIME: &[u8] = include_bytes!("golden/append-time.bin");
const V1: &[u8] = include_bytes!("golden/v1.bin");

/// What `data` in Golden.java puts in.
fn data(long_value: usize) -> Vec<Content> {
    let long: Vec<u8> = b"flowstone".iter().copied().cycle().take(long_value).collect();
    let headers = vec![
        ("h1".into(), Some(b"x".to_vec())),
        ("h2".into(), None),
        ("ü".into(), Some(Vec::new())),
    ];
    let mut records = vec![
        (1000, Some(b"k0".to_vec()), Some(b"v0".to_vec()), headers),
        (999, None, None, Vec::new()),
        (2000, Some(Vec::new()), Some(long), Vec::new()),
    ];
    for index in 3..133 {
        let key = format!("n{index}").into_bytes();
        records.push((1000 + index, Some(key), Some(Vec::new()), Vec::new()));
    }
    records
}

fn few() -> Vec<Content> {
    let record = |time, key: &[u8], value: &[u8]| {
        (time, Some(key.to_vec()), Some(value.to_vec()), Vec::new())
    };
    vec![record(1000, b"a", b"1"), record(2000, b"b", b"2"), record(1500, b"c", b"3")]
}

fn contents(batch: &Bytes) -> Vec<Content> {
    records(batch, &Limits::default()).unwrap().map(|record| content(&record.unwrap())).collect()
}

#[test]
fn every_codec_of_kafka_is_read() {
    let cases = [
        (NONE, Codec::None, 300),
        (GZIP, Codec::Gzip, 100_000),
        (SNAPPY, Codec::Snappy, 100_000),
        (LZ4, Codec::Lz4, 100_000),
        (ZSTD, Codec::Zstd, 100_000),
    ];
    for (file, codec, long_value) in cases {
        let batch = Bytes::from_static(file);
        let (at, header, whole) = batches(&batch).next().unwrap().unwrap();
        assert_eq!((at, whole, header.attributes.codec()), (0, file, Ok(codec)));
        assert!(crc_ok(whole), "{codec:?}");
        assert_eq!((header.count, header.max_timestamp.0), (133, 2000), "{codec:?}");
        assert_eq!(contents(&batch), data(long_value), "{codec:?}");

        for inspect_compressed in [false, true] {
            let rules = Rules { inspect_compressed, ..Rules::default() };
            let checked = check(batch.clone(), &rules, NOW).unwrap();
            assert_eq!(checked.bytes, batch, "{codec:?} comes out as it went in");
        }
        // And from each codec to each.
        for target in Codec::ALL {
            let compression = Compression::Fixed { codec: target, level: None };
            let rules = Rules { compression, ..Rules::default() };
            let checked = check(batch.clone(), &rules, NOW).unwrap();
            assert_eq!(checked.converted, target != codec);
            assert_eq!(checked.header.attributes.codec(), Ok(target));
            assert!(crc_ok(&checked.bytes));
            assert_eq!(contents(&checked.bytes), data(long_value), "{codec:?} to {target:?}");
        }
    }
}

#[test]
fn what_we_build_is_kafkas_to_the_byte() {
    let mut none = BatchBuilder::new(Offset::ZERO);
    push_all(&mut none, &data(300));
    assert_eq!(none.build(), NONE);

    let mut transactional = BatchBuilder::new(Offset(42))
        .producer(ProducerId(77), 3, i32::MAX - 1)
        .transactional()
        .leader_epoch(LeaderEpoch(5));
    push_all(&mut transactional, &few());
    assert_eq!(transactional.build(), TRANSACTIONAL);

    let mut append_time = BatchBuilder::new(Offset(7))
        .append_time(Timestamp(123_456_789))
        .leader_epoch(LeaderEpoch(4));
    push_all(&mut append_time, &few());
    assert_eq!(append_time.build(), APPEND_TIME);

    let mut commit = BatchBuilder::new(Offset(45))
        .producer(ProducerId(77), 3, -1)
        .transactional()
        .leader_epoch(LeaderEpoch(5));
    let marker = EndTxnMarker { coordinator_epoch: 9 };
    commit.push_control(Timestamp(3000), ControlType::Commit, &marker.value());
    assert_eq!(commit.build(), COMMIT);
}

#[test]
fn lz4_is_written_as_the_java_client_frames_it() {
    // Magic, independent blocks, 64 KiB, and the checksum that brokers before 0.10 got wrong.
    let mut ours = BatchBuilder::new(Offset::ZERO).compressed(Codec::Lz4, None);
    push_all(&mut ours, &data(100_000));
    assert_eq!(ours.build()[61..68], LZ4[61..68]);
}

#[test]
fn the_other_kinds_are_read() {
    let header = BatchHeader::parse(TRANSACTIONAL).unwrap();
    assert!(header.attributes.is_transactional() && !header.attributes.is_control());
    assert_eq!((header.last_offset(), header.last_sequence()), (Offset(44), 0));

    let batch = Bytes::from_static(APPEND_TIME);
    let mut times = records(&batch, &Limits::default()).unwrap().map(|r| r.unwrap().timestamp.0);
    assert!(times.all(|time| time == 123_456_789), "the broker's time hides the producer's");

    let batch = Bytes::from_static(COMMIT);
    let record = records(&batch, &Limits::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(ControlType::of(&record), Ok(Some(ControlType::Commit)));
    let marker = EndTxnMarker::parse(&record.value.unwrap());
    assert_eq!(marker, Ok(EndTxnMarker { coordinator_epoch: 9 }));
}

#[test]
fn a_segment_is_walked_batch_by_batch() {
    let segment = [TRANSACTIONAL, COMMIT, APPEND_TIME].concat();
    let places: Vec<_> = batches(&segment).map(|item| item.unwrap().0).collect();
    assert_eq!(places, [0, TRANSACTIONAL.len(), TRANSACTIONAL.len() + COMMIT.len()]);

    let mut torn = batches(&segment[..TRANSACTIONAL.len() + 70]);
    assert!(torn.next().unwrap().is_ok());
    assert_eq!(torn.next(), Some(Err(BatchError::Truncated { bytes: 70, needed: COMMIT.len() })));
    assert_eq!(torn.next(), None);
    assert_eq!(batches(V1).next(), Some(Err(BatchError::Magic(1))));
}
