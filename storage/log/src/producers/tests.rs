//! Rules of KIP-98, KIP-360 and Kafka's ProducerAppendInfo, each by its name.

use flowstone_batch::{BatchBuilder, ControlType, EndTxnMarker};

use super::*;

/// A batch of `count` records of `producer`, at offset 0.
fn batch((producer, epoch, sequence): (i64, i16, i32), count: usize) -> BatchHeader {
    let mut builder = BatchBuilder::new(Offset(0)).producer(ProducerId(producer), epoch, sequence);
    for _ in 0..count {
        builder.push(Timestamp(sequence.into()), None, Some(b"v"), &[]);
    }
    BatchHeader::parse(&builder.build()).unwrap()
}

/// A log that only counts offsets.
#[derive(Default)]
struct Log {
    state: ProducerState,
    end: i64,
    now: i64,
}

impl Log {
    fn append(&mut self, header: &BatchHeader) -> Result<Outcome, ProducerError> {
        let outcome = self.state.check(header, Origin::Client, Offset(self.end))?;
        if outcome == Outcome::Append {
            self.state.apply(header, Offset(self.end), Timestamp(self.now));
            self.end += i64::from(header.last_offset_delta) + 1;
        }
        Ok(outcome)
    }

    /// Appends one batch of `count` and says what came of it: "append", "duplicate 3-5", ...
    fn produce(&mut self, who: (i64, i16, i32), count: usize) -> String {
        match self.append(&batch(who, count)) {
            Ok(Outcome::Append) => "append".into(),
            Ok(Outcome::Duplicate { base_offset, last_offset, .. }) => {
                format!("duplicate {base_offset}-{last_offset}")
            }
            Err(ProducerError::Fenced { current, .. }) => format!("fenced by {current}"),
            Err(ProducerError::OutOfOrder { expected, .. }) => format!("expected {expected}"),
            Err(ProducerError::NoTransaction { .. }) => "no transaction".into(),
        }
    }
}

#[test]
fn a_gap_is_out_of_order_and_leaves_no_trace() {
    let mut log = Log::default();
    assert_eq!(log.produce((1, 0, 0), 3), "append");
    assert_eq!(log.produce((1, 0, 4), 1), "expected 3");
    assert_eq!(log.produce((1, 0, 3), 1), "append");
    assert_eq!(log.produce((2, 0, 0), 1), "append", "each producer counts for itself");
}

#[test]
fn the_last_five_batches_are_known_again() {
    let mut log = Log::default();
    for sequence in 0..6 {
        assert_eq!(log.produce((1, 0, sequence * 2), 2), "append");
    }
    for sequence in 1..6 {
        let offsets = format!("duplicate {}-{}", sequence * 2, sequence * 2 + 1);
        assert_eq!(log.produce((1, 0, sequence * 2), 2), offsets);
    }
    assert_eq!(log.produce((1, 0, 0), 2), "expected 12", "the sixth last is forgotten");
    // Only an exact range is a duplicate.
    assert_eq!(log.produce((1, 0, 10), 1), "expected 12");
    assert_eq!(log.produce((1, 0, 8), 4), "expected 12");
}

#[test]
fn sequences_wrap_to_zero() {
    let written = || Log { end: 1, ..Log::default() };
    let mut log = written();
    assert_eq!(log.produce((1, 0, i32::MAX - 2), 2), "append", "first sight: any sequence");
    assert_eq!(log.produce((1, 0, i32::MAX), 3), "append", "2^31-1, 0, 1");
    assert_eq!(log.produce((1, 0, 2), 1), "append");
    assert_eq!(log.produce((1, 0, i32::MAX), 3), "duplicate 3-5");
    let mut log = written();
    assert_eq!(log.produce((1, 0, i32::MAX), 1), "append");
    assert_eq!(log.produce((1, 0, 0), 1), "append");
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut log = Log { end: 1, ..Log::default() };
    assert_eq!(log.produce((1, 4, 7), 1), "append");
    assert_eq!(log.produce((1, 5, 8), 1), "expected 0", "KIP-360");
    assert_eq!(log.produce((1, 5, 0), 1), "append");
    assert_eq!(log.produce((1, 4, 8), 1), "fenced by 5");
    assert_eq!(log.produce((1, 4, 7), 1), "fenced by 5", "nor is it a duplicate any more");
    assert_eq!(log.produce((1, i16::MAX, 0), 1), "append");
}

#[test]
fn whom_we_forgot_may_go_on_anywhere() {
    let mut log = Log::default();
    assert_eq!(log.produce((1, 3, 0), 1), "append");
    assert_eq!(log.state.expire(Timestamp(99), 100), 0);
    assert_eq!(log.state.expire(Timestamp(100), 100), 1);
    assert_eq!(log.produce((1, 3, 500), 1), "append", "KIP-360: no state, any sequence");
    assert_eq!(log.produce((1, 3, 502), 1), "expected 501");
}

#[test]
fn the_first_batch_of_a_new_log_is_nobodys_second() {
    // KAFKA-15591: taken, it would leave the one it overtook out of order for ever, and so lost.
    let mut log = Log::default();
    assert_eq!(log.produce((1, 0, 2), 1), "expected 0");
    assert_eq!(log.produce((1, 0, 0), 2), "append");
    assert_eq!(log.produce((1, 0, 2), 1), "append");
    assert_eq!(log.produce((2, 0, 2), 1), "append", "records were here: it may be forgotten");
}

#[test]
fn old_records_do_not_age_their_producer() {
    // Kafka expires by record time: a producer of last year's records is forgotten while it writes.
    let mut log = Log { now: 1_000_000, ..Log::default() };
    assert_eq!(log.produce((1, 0, 0), 1), "append");
    assert_eq!(log.state.expire(Timestamp(1_000_050), 100), 0);
}

#[test]
fn coordinators_number_nothing_but_have_epochs() {
    let mut state = ProducerState::new();
    let from = |epoch| batch((9, epoch, NO_SEQUENCE), 1);
    assert_eq!(state.check(&from(2), Origin::Coordinator, Offset(0)), Ok(Outcome::Append));
    state.apply(&from(2), Offset(0), Timestamp(0));
    assert_eq!(
        state.check(&from(2), Origin::Coordinator, Offset(0)),
        Ok(Outcome::Append),
        "no duplicate"
    );
    assert_eq!(
        state.check(&from(1), Origin::Coordinator, Offset(1)),
        Err(ProducerError::Fenced { producer: 9, epoch: 1, current: 2 })
    );
}

#[test]
fn plain_batches_are_none_of_its_business() {
    let mut log = Log::default();
    let mut plain = BatchBuilder::new(Offset(0));
    plain.push(Timestamp(1), None, None, &[]);
    let plain = BatchHeader::parse(&plain.build()).unwrap();
    assert_eq!(log.append(&plain), Ok(Outcome::Append));
    assert!(log.state.is_empty());
}

#[test]
fn transactions_are_refused_until_there_are_any() {
    let mut builder = BatchBuilder::new(Offset(0)).producer(ProducerId(1), 0, 0).transactional();
    builder.push(Timestamp(1), None, None, &[]);
    let header = BatchHeader::parse(&builder.build()).unwrap();
    let refused = Err(ProducerError::NoTransaction { producer: 1 });
    assert_eq!(ProducerState::new().check(&header, Origin::Client, Offset(0)), refused);
}

/// A transaction of two records at offset 10 and its commit at 12, as in a log that Kafka wrote.
fn with_transaction() -> ProducerState {
    let mut state = ProducerState::new();
    let mut data = BatchBuilder::new(Offset(10)).producer(ProducerId(1), 0, 0).transactional();
    data.push(Timestamp(5), None, None, &[]);
    data.push(Timestamp(6), None, None, &[]);
    state.apply(&BatchHeader::parse(&data.build()).unwrap(), Offset(10), Timestamp(0));
    assert_eq!(state.active().next().unwrap().transaction_start, Some(Offset(10)));
    assert_eq!(state.expire(Timestamp(i64::MAX), 1), 0, "an open transaction stays");
    let mut marker =
        BatchBuilder::new(Offset(12)).producer(ProducerId(1), 0, NO_SEQUENCE).transactional();
    let value = EndTxnMarker { coordinator_epoch: 3 }.value();
    marker.push_control(Timestamp(7), ControlType::Commit, &value);
    let marker = BatchHeader::parse(&marker.build()).unwrap();
    state.end_transaction(&marker, Offset(12), 3, Timestamp(0));
    state
}

#[test]
fn kafkas_transactions_are_carried_along() {
    let state = with_transaction();
    let producer = state.active().next().unwrap();
    assert_eq!(producer.transaction_start, None);
    assert_eq!((producer.coordinator_epoch, producer.last_sequence), (3, 1));
    assert_eq!(ProducerState::load(&state.snapshot(), Offset(13), Timestamp(0)).unwrap().len(), 1);
    let mut cut = with_transaction();
    assert!(!cut.truncate(Offset(12)), "open again since when? Only the log knows");
    assert!(cut.is_empty());
}

#[test]
fn truncation_forgets_exactly_what_is_cut() {
    let mut log = Log::default();
    for sequence in 0..3 {
        log.produce((1, 0, sequence), 1);
    }
    log.produce((2, 0, 0), 1); // At offset 3.
    let mut state = log.state.clone();
    assert!(state.truncate(Offset(4)), "nothing above");
    assert_eq!(state, log.state);
    assert!(!state.truncate(Offset(3)), "what producer 2 was before is not known");

    let mut log = Log::default();
    for sequence in 0..3 {
        log.produce((1, 0, sequence), 1);
    }
    assert!(log.state.truncate(Offset(2)));
    log.end = 2;
    assert_eq!(log.produce((1, 0, 1), 1), "duplicate 1-1");
    assert_eq!(log.produce((1, 0, 2), 1), "append");
    let mut loaded = ProducerState::load(&log.state.snapshot(), Offset(3), Timestamp(0)).unwrap();
    assert!(loaded.truncate(Offset(3)));
    assert!(!loaded.truncate(Offset(2)));
}

#[test]
fn memory_is_bounded_by_forgetting_the_silent() {
    let mut log = Log::default();
    for id in 0..=PRODUCERS_MAX as i64 {
        log.now = id;
        assert_eq!(log.produce((id, 0, 0), 1), "append");
        assert!(log.state.len() <= PRODUCERS_MAX);
    }
    let newest = PRODUCERS_MAX as i64;
    assert_eq!(log.produce((newest, 0, 2), 1), "expected 1", "the newest are known");
    assert_eq!(log.produce((0, 0, 77), 1), "append", "the oldest is not");
}

#[test]
fn snapshots_are_kafkas_to_the_byte() {
    // org.apache.kafka.server.common: ProducerSnapshot.json, version 1.
    let mut log = Log::default();
    log.state.apply(&batch((0x0102, 3, 4), 2), Offset(0), Timestamp(0));
    let snapshot = log.state.snapshot();
    let mut body = vec![0, 0, 0, 1]; // One entry
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]); // producer id
    body.extend_from_slice(&[0, 3]); // epoch
    body.extend_from_slice(&[0, 0, 0, 5]); // last sequence
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]); // last offset
    body.extend_from_slice(&[0, 0, 0, 1]); // offset delta
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 4]); // timestamp
    body.extend_from_slice(&[0xff; 4]); // coordinator epoch
    body.extend_from_slice(&[0xff; 8]); // current transaction's first offset
    assert_eq!(snapshot[..2], [0, 1]);
    assert_eq!(snapshot[2..6], crc_fast::crc32_iscsi(&body).to_be_bytes());
    assert_eq!(snapshot[6..], body);
    let loaded = ProducerState::load(&snapshot, Offset(2), Timestamp(0)).unwrap();
    assert_eq!(loaded.snapshot(), snapshot);
    let mut log = Log { state: loaded, end: 2, now: 0 };
    assert_eq!(log.produce((0x0102, 3, 4), 2), "duplicate 0-1", "over a restart too");
    assert_eq!(log.produce((0x0102, 3, 7), 1), "expected 6");
}

#[test]
fn kafkas_own_snapshot_goes_through_unchanged() {
    // Written by ProducerStateManager of 4.3.1: storage/batch/tests/golden/Golden.java.
    let file = include_bytes!("../../tests/golden/producers.snapshot");
    let state = ProducerState::load(file, Offset(46), Timestamp(0)).unwrap();
    assert_eq!(state.snapshot(), file);
    let producers: Vec<_> = state.active().collect();
    let row = |id, epoch, last_sequence, time, coordinator_epoch, start: Option<i64>| {
        let (id, last_timestamp) = (ProducerId(id), Timestamp(time));
        let transaction_start = start.map(Offset);
        ActiveProducer {
            id,
            epoch,
            last_sequence,
            last_timestamp,
            coordinator_epoch,
            transaction_start,
        }
    };
    assert_eq!(producers[0], row(77, 3, 0, 2000, 9, Some(42)));
    assert_eq!(producers[1], row(78, 0, 9, 5000, -1, None));
    assert_eq!(producers[2], row(79, 1, -1, 4000, 2, None), "only a marker is left of it");
    let mut log = Log { state, end: 46, now: 0 };
    assert_eq!(log.produce((78, 0, 0), 10), "duplicate 21-30");
    assert_eq!(log.produce((79, 1, 4), 1), "expected 0");
}

/// What Kafka knows of a snapshot: its count and entries.
fn kafkas_part(snapshot: &[u8]) -> Vec<u8> {
    let count = u32::from_be_bytes(snapshot[6..10].try_into().unwrap()) as usize;
    snapshot[6..10 + 46 * count].to_vec()
}

/// Bytes behind a snapshot, under a CRC that is right.
fn with_section(snapshot: &[u8], section: &[u8]) -> Vec<u8> {
    let mut out = [snapshot, section].concat();
    let crc = crc_fast::crc32_iscsi(&out[6..]);
    out[2..6].copy_from_slice(&crc.to_be_bytes());
    out
}

#[test]
fn what_was_in_flight_is_known_again_over_a_restart() {
    // KIP-98: a client has up to five batches unanswered, and retries all of them.
    let mut log = Log { end: 1, ..Log::default() };
    let sequence_of = |number: i64| sequence_plus(i32::MAX - 5, number as i32 * 2); // Runs over.
    for number in 0..6 {
        assert_eq!(log.produce((1, 7, sequence_of(number)), 2), "append");
        assert_eq!(log.produce((2, 0, number as i32), 1), "append");
    }
    let snapshot = log.state.snapshot();
    let loaded = ProducerState::load(&snapshot, Offset(log.end), Timestamp(0)).unwrap();
    assert_eq!(loaded, ProducerState { loaded_at: Offset(log.end), ..log.state });
    assert_eq!(loaded.snapshot(), snapshot);
    log.state = loaded;
    for number in 1..6 {
        let base = 1 + number * 3;
        let offsets = format!("duplicate {base}-{}", base + 1);
        assert_eq!(log.produce((1, 7, sequence_of(number)), 2), offsets);
        let offsets = format!("duplicate {0}-{0}", base + 2);
        assert_eq!(log.produce((2, 0, number as i32), 1), offsets);
    }
    assert_eq!(log.produce((1, 7, sequence_of(0)), 2), "expected 6", "the sixth last is not");
}

#[test]
fn earlier_batches_stand_behind_kafkas_entries() {
    let mut log = Log::default();
    for sequence in [0, 2] {
        log.append(&batch((1, 0, sequence), 2)).unwrap();
    }
    log.append(&batch((3, 0, 0), 1)).unwrap();
    let snapshot = log.state.snapshot();
    let entries_end = 10 + 2 * 46;
    let mut section = b"FSpb".to_vec();
    section.extend_from_slice(&[0, 1]); // version
    section.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1]); // producer id, one batch
    section.extend_from_slice(&[0, 0, 0, 1]); // last sequence
    section.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]); // last offset
    section.extend_from_slice(&[0, 0, 0, 1]); // offset delta
    section.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]); // timestamp
    assert_eq!(snapshot[entries_end..], section);
    assert_eq!(snapshot[2..6], crc_fast::crc32_iscsi(&snapshot[6..]).to_be_bytes());

    let kafkas = &snapshot[..entries_end];
    let load = |section: &[u8]| {
        let file = with_section(kafkas, section);
        ProducerState::load(&file, Offset(5), Timestamp(0)).map(|state| state.snapshot() == file)
    };
    assert_eq!(load(&section), Ok(true));
    assert_eq!(load(&[]), Ok(true), "as Kafka writes it");
    for cut in (1..section.len()).filter(|cut| *cut != 6) {
        assert!(matches!(load(&section[..cut]), Err(SnapshotError::Length { .. })), "{cut} bytes");
    }
    let bent = |at: usize, value: u8| {
        let mut section = section.clone();
        section[at] = value;
        load(&section)
    };
    assert!(matches!(bent(0, b'f'), Err(SnapshotError::Length { .. })), "not ours");
    assert_eq!(bent(5, 2), Err(SnapshotError::SectionVersion(2)));
    assert_eq!(bent(13, 2), Err(SnapshotError::Earlier(2)), "no such producer");
    assert_eq!(bent(14, 0), Err(SnapshotError::Earlier(1)), "none at all");
    assert_eq!(bent(14, 5), Err(SnapshotError::Earlier(1)), "six with the last");
    assert!(matches!(bent(14, 4), Err(SnapshotError::Length { .. })), "four that are not there");
    assert_eq!(bent(18, 2), Err(SnapshotError::Earlier(1)), "its next sequence is 3, not 2");
    assert_eq!(bent(15, 0xff), Err(SnapshotError::Earlier(1)), "a sequence below 0");
    assert_eq!(bent(26, 2), Err(SnapshotError::Earlier(1)), "it ends where the last one begins");
    assert_eq!(bent(26, 0), Err(SnapshotError::Earlier(1)), "it begins below 0");
    assert_eq!(bent(27, 0xff), Err(SnapshotError::Earlier(1)), "a delta below 0");
    let twice = [&section[..], &section[6..]].concat();
    assert_eq!(load(&twice), Err(SnapshotError::Earlier(1)), "told twice");
}

#[test]
fn earlier_batches_that_nobody_retries_are_not_written() {
    let mut state = ProducerState::new();
    for offset in 0..3 {
        state.apply(&batch((9, 0, NO_SEQUENCE), 1), Offset(offset), Timestamp(0)); // A coordinator's.
    }
    // Recovery takes a log as it is: here its batch of sequence 1 is gone.
    for (sequence, offset) in [(0, 3), (2, 5), (3, 6)] {
        state.apply(&batch((10, 0, sequence), 1), Offset(offset), Timestamp(0));
    }
    let snapshot = state.snapshot();
    assert_eq!(snapshot.len(), 10 + 2 * 46 + 6 + 9 + 24, "one earlier batch in all");
    let loaded = ProducerState::load(&snapshot, Offset(7), Timestamp(0)).unwrap();
    assert_eq!(loaded.snapshot(), snapshot);
    let mut log = Log { state: loaded, end: 7, now: 0 };
    assert_eq!(log.produce((10, 0, 2), 1), "duplicate 5-5");
    assert_eq!(log.produce((10, 0, 0), 1), "expected 4");
}

/// Batches of three producers, some skipping ahead, some again: whatever a truncation answers, it
/// must agree with a replay of what is left.
#[test]
fn truncation_agrees_with_a_replay() {
    for seed in 0..300_u64 {
        let mut random = seed;
        let mut draw = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut log = Log::default();
        let mut written = Vec::new();
        let mut next = [0; 3];
        for _ in 0..20 {
            let id = draw(3) as usize;
            let (epoch, sequence) = if draw(10) == 0 { (1, 0) } else { (0, next[id]) };
            let header = batch((id as i64, epoch, sequence), draw(3) as usize + 1);
            let base = log.end;
            if log.append(&header) == Ok(Outcome::Append) {
                written.push((header, base));
                next[id] = sequence + header.last_offset_delta + 1;
            }
        }
        let end = draw(log.end as u64 + 1) as i64;
        let kept =
            |(header, base): &&(BatchHeader, i64)| base + i64::from(header.last_offset_delta) < end;
        let mut replayed = ProducerState::new();
        for (header, base) in written.iter().filter(kept) {
            replayed.apply(header, Offset(*base), Timestamp(0));
        }
        let mut cut = log.state.clone();
        if !cut.truncate(Offset(end)) {
            assert!(cut.is_empty(), "seed {seed}");
            continue;
        }
        let [entries, want] = [&cut, &replayed].map(|state| kafkas_part(&state.snapshot()));
        assert_eq!(entries, want, "seed {seed}");
        for (header, _) in &written {
            let (after, want) = [&cut, &replayed]
                .map(|state| state.check(header, Origin::Client, Offset(end)))
                .into();
            // A replay knows up to five batches again; a cut one only those it still had.
            if !matches!(want, Ok(Outcome::Duplicate { .. })) {
                assert_eq!(after, want, "seed {seed}");
            }
        }
    }
}

#[test]
fn damaged_snapshots_are_refused() {
    let mut log = Log::default();
    for id in 0..3 {
        log.produce((id, 0, 0), 1);
        log.produce((id, 0, 1), 1);
    }
    let good = log.state.snapshot();
    let load = |bytes: &[u8]| ProducerState::load(bytes, Offset(3), Timestamp(0));
    for cut in 0..good.len() {
        assert!(load(&good[..cut]).is_err(), "{cut} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(load(&bad).is_err(), "byte {at}");
    }
    assert_eq!(load(&[0, 2, 0, 0, 0, 0]), Err(SnapshotError::Version(2)));
    // A right CRC over a count that lies allocates nothing.
    let mut lie = vec![0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let crc = crc_fast::crc32_iscsi(&lie[6..]);
    lie[2..6].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(load(&lie), Err(SnapshotError::Length { bytes: 10, entries: i32::MAX }));
}
