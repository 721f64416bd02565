//! The log's decisions, each against its rule (kafka-reference sections 3.4 and 3.5).

use std::sync::Arc;

use flowstone_batch::{BatchBuilder, BatchHeader, Origin};
use flowstone_log::{
    Active, Appended, Expired, Log, LogConfig, OffsetIndex, Opened, Placed, Refused, Sealed,
    TimeIndex,
};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

const NOW: Timestamp = Timestamp(1_000_000);

fn log(config: LogConfig) -> Log {
    Log::new(Arc::new(config), 1, Opened::empty(NOW))
}

fn header(bytes: usize, timestamp: i64) -> BatchHeader {
    let mut batch = BatchBuilder::new(Offset(0));
    batch.push(Timestamp(timestamp), None, Some(&vec![0; bytes]), &[]);
    BatchHeader::parse(&batch.build()).unwrap()
}

fn append_at(log: &mut Log, bytes: usize, timestamp: i64) -> Placed {
    match log.append(&header(bytes, timestamp), Origin::Client, LeaderEpoch(0), NOW).unwrap() {
        Appended::Placed(placed) => placed,
        Appended::Duplicate(_) => unreachable!("nothing numbered these"),
    }
}

fn append(log: &mut Log, bytes: usize) -> Option<Sealed> {
    append_at(log, bytes, NOW.0).sealed
}

#[test]
fn a_segment_rolls_before_it_exceeds_its_size() {
    let bytes = header(1000, 0).total_len() as u32;
    let mut log = log(LogConfig { segment_bytes: 3 * bytes, ..LogConfig::default() });
    let rolls: Vec<bool> = (0..7).map(|_| append(&mut log, 1000).is_some()).collect();
    assert_eq!(rolls, [false, false, false, true, false, false, true]);
    assert_eq!(log.sealed()[1].base, Offset(3), "named by the offset that comes first in it");
    assert_eq!(
        append(&mut log, 100_000).map(|s| s.next),
        Some(Offset(7)),
        "a batch larger than all"
    );
}

#[test]
fn a_segment_rolls_by_the_time_of_its_batches() {
    let mut log = log(LogConfig { segment_ms: 1000, ..LogConfig::default() });
    assert!(append_at(&mut log, 10, 5000).sealed.is_none());
    assert!(append_at(&mut log, 10, 6000).sealed.is_none());
    assert!(append_at(&mut log, 10, 6001).sealed.is_some(), "5000 + segment.ms has passed");
    assert!(append_at(&mut log, 10, 1).sealed.is_none(), "late records do not roll");
}

#[test]
fn full_indexes_and_far_offsets_roll() {
    let mut log =
        log(LogConfig { segment_index_bytes: 24, index_interval_bytes: 0, ..LogConfig::default() });
    // 24 bytes are two entries of the time index, the last of which is kept for the seal.
    let rolls: Vec<bool> =
        (0..4).map(|at| append_at(&mut log, 10, NOW.0 + at).sealed.is_some()).collect();
    assert_eq!(rolls, [false, false, true, false]);
    let far = Active::new(Offset(0), NOW);
    assert!(far.fits(Offset(i64::from(i32::MAX))));
    assert!(!far.fits(Offset(i64::from(i32::MAX) + 1)));
}

#[test]
fn indexes_rebuilt_from_batches_are_those_that_were_written() {
    let mut log = log(LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() });
    let (mut headers, mut sealed) = (Vec::new(), None);
    for at in 0.. {
        let header = header((at * 37) % 5000, NOW.0 + (at as i64 * 7919) % 1000);
        let Appended::Placed(placed) =
            log.append(&header, Origin::Client, LeaderEpoch(0), NOW).unwrap()
        else {
            unreachable!()
        };
        if placed.sealed.is_some() {
            sealed = placed.sealed;
            break;
        }
        headers.push(BatchHeader { base_offset: placed.base_offset, ..header });
    }
    let sealed = sealed.unwrap();
    let mut again = Active::new(Offset(0), Timestamp(7));
    for header in &headers {
        again.push(header, 4096);
    }
    let (segment, index, times) = again.seal(NOW);
    assert_eq!(
        (segment.bytes, &index, &times),
        (sealed.segment.bytes, &sealed.index, &sealed.times)
    );
    let stored = OffsetIndex::decode(Offset(0), &index.encode(), segment.bytes);
    assert_eq!(stored, Ok(index));
    assert_eq!(TimeIndex::decode(Offset(0), &times.encode()), Ok(times));
}

#[test]
fn an_epoch_that_passed_is_refused() {
    let mut log = log(LogConfig::default());
    let append = |log: &mut Log, epoch| {
        log.append(&header(10, NOW.0), Origin::Client, LeaderEpoch(epoch), NOW)
    };
    append(&mut log, 5).unwrap();
    append(&mut log, 7).unwrap();
    let refused = append(&mut log, 6).unwrap_err();
    assert_eq!(refused, Refused::Epoch { got: LeaderEpoch(6), latest: LeaderEpoch(7) });
    assert_eq!(log.epochs.end_of(LeaderEpoch(5), log.end()), (LeaderEpoch(5), Offset(1)));
}

#[test]
fn a_leader_without_batches_answers_for_its_epoch() {
    let mut log = log(LogConfig::default());
    append(&mut log, 10);
    log.lead(LeaderEpoch(4));
    assert_eq!(log.epochs.end_of(LeaderEpoch(4), log.end()), (LeaderEpoch(4), Offset(1)));
    assert_eq!(log.epochs.end_of(LeaderEpoch(0), log.end()), (LeaderEpoch(0), Offset(1)));
    log.lead(LeaderEpoch(2));
    assert_eq!(log.epochs.latest(), Some(LeaderEpoch(4)));
}

/// Ten batches, two to a segment; the timestamps are 0, 1, 2, ...
fn ten(mut config: LogConfig) -> Log {
    config.segment_bytes = 2 * header(1000, 0).total_len() as u32;
    let mut log = log(config);
    (0..10).for_each(|at| drop(append_at(&mut log, 1000, at)));
    assert_eq!(log.sealed().len(), 4);
    log
}

#[test]
fn retention_by_size_drops_while_what_is_left_is_enough() {
    let segment = 2 * header(1000, 0).total_len() as i64;
    for (limit, count) in
        [(-1, 0), (5 * segment, 0), (5 * segment - 1, 0), (4 * segment, 1), (1, 4)]
    {
        let log =
            ten(LogConfig { retention_bytes: limit, retention_ms: -1, ..LogConfig::default() });
        let want = if count == 0 { Expired::Nothing } else { Expired::Oldest(count) };
        assert_eq!(log.expired(NOW, log.end()), want, "{limit}");
    }
    let log = ten(LogConfig { retention_bytes: 0, retention_ms: -1, ..LogConfig::default() });
    assert_eq!(
        log.expired(NOW, log.end()),
        Expired::Active,
        "even the active one, once it is rolled"
    );
}

#[test]
fn retention_by_time_goes_by_the_newest_record_of_a_segment() {
    let log = ten(LogConfig { retention_ms: 100, ..LogConfig::default() });
    assert_eq!(log.expired(Timestamp(101), log.end()), Expired::Nothing, "segment 0..2 has 1");
    assert_eq!(log.expired(Timestamp(102), log.end()), Expired::Oldest(1));
    assert_eq!(log.expired(Timestamp(1000), log.end()), Expired::Active);
    let kept = ten(LogConfig { retention_ms: 100, delete: false, ..LogConfig::default() });
    assert_eq!(
        kept.expired(Timestamp(1000), kept.end()),
        Expired::Nothing,
        "cleanup.policy is empty"
    );
}

#[test]
fn nothing_goes_that_is_not_durable() {
    let log = ten(LogConfig { retention_ms: 100, ..LogConfig::default() });
    for (durable, want) in [(0, Expired::Nothing), (1, Expired::Nothing), (5, Expired::Oldest(2))] {
        assert_eq!(log.expired(Timestamp(1000), Offset(durable)), want, "{durable}");
    }
}

#[test]
fn delete_records_raises_the_start_and_frees_whole_segments() {
    let mut log = ten(LogConfig { retention_ms: -1, ..LogConfig::default() });
    assert_eq!(log.advance_start(Offset(5), Offset(10)), Offset(5));
    assert_eq!(log.advance_start(Offset(3), Offset(10)), Offset(5), "never back");
    assert_eq!(log.advance_start(Offset(9), Offset(7)), Offset(7), "never past what is durable");
    assert_eq!(log.expired(NOW, log.end()), Expired::Oldest(3));
    let gone: Vec<i64> = log.forget(3).iter().map(|segment| segment.base.0).collect();
    assert_eq!((gone, log.start()), (vec![0, 2, 4], Offset(7)));
    assert_eq!(log.locate(Offset(7)).base, Offset(6));
}
