//! Damage at rest, on real files: never served; cut where it may be a torn tail, offline where it was on stable
//! storage once, reported where it is sealed.

mod common;

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use common::*;
use flowstone_store::{Durability, LogConfig, ReadError, StorageError};
use flowstone_types::{LeaderEpoch, Offset};
use proptest::prelude::*;

const COUNT: u64 = 60;
const BATCH_BYTES: usize = 3000;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 64 << 10, ..LogConfig::default() }
}

/// A log of 60 batches in three segments (21, 21 and 18), ended by a kill or cleanly.
fn written(name: &str, cleanly: bool) -> Folder {
    let folder = Folder::new(name);
    live(&folder, move |path| async move {
        let (dir, store) = store_in(&path).await;
        let (log, ear) = open(&store, config()).await;
        for number in 0..COUNT {
            append(&log, batch(number, BATCH_BYTES));
        }
        ear.until_durable(COUNT as i64).await;
        if cleanly {
            store.shutdown().await.unwrap();
            dir.close(-1).await.unwrap();
        }
    });
    folder
}

fn segments(folder: &Folder) -> Vec<std::path::PathBuf> {
    let paths = folder.files().into_iter().map(|(name, _)| folder.partition().join(name));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

fn change(path: &std::path::Path, at: u64, change: impl Fn(&mut [u8]), len: usize) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, at).unwrap();
}

/// Opens after a kill: so many batches are left, the first ones, and a second recovery agrees.
fn left_after_recovery(folder: &Folder, count: u64) {
    for _ in 0..2 {
        live(folder, move |path| async move {
            let (_, store) = store_in(&path).await;
            let (log, _) = open(&store, config()).await;
            assert_eq!(numbers(&read_all(&log, 100_000).await), (0..count).collect::<Vec<_>>());
        });
    }
    let files = folder.files();
    live(folder, |path| async move {
        let (_, store) = store_in(&path).await;
        open(&store, config()).await;
    });
    assert!(folder.files() == files, "recovery changes nothing the second time");
}

#[test]
fn torn_and_garbage_tails_are_cut() {
    let torn = written("torn", false);
    let last = segments(&torn).pop().unwrap();
    let batch = batch(0, BATCH_BYTES).bytes.len() as u64;
    change(&last, 18 * batch - 100, |bytes| bytes.fill(0), 100);
    left_after_recovery(&torn, COUNT - 1);

    let garbage = written("garbage", false);
    let last = segments(&garbage).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.write_all_at(&[0xa5; 9999], 18 * batch).unwrap();
    left_after_recovery(&garbage, COUNT);
}

#[test]
fn a_flipped_bit_ends_what_was_not_sealed_wherever_it_is() {
    let batch = batch(0, BATCH_BYTES).bytes.len() as u64;
    // First, middle and last batch; base offset, length, magic, CRC, attributes, count, payload. A
    // base offset that grew is seen by the batch after it.
    for (number, byte) in [(0, 8), (0, 61), (9, 3), (9, 16), (9, 17), (9, 22), (9, 60), (17, 2000)]
    {
        let folder = written("flip", false);
        let last = segments(&folder).pop().unwrap();
        change(&last, number * batch + byte, |bytes| bytes[0] ^= 0x10, 1);
        left_after_recovery(&folder, 42 + number);
    }
}

/// What opening the log is refused with, in a life of its own that is killed.
fn refusal(folder: &Folder) -> StorageError {
    let place = Arc::new(Mutex::new(None));
    let kept = place.clone();
    live(folder, move |path| {
        let kept = kept.clone();
        async move {
            let (_, store) = store_in(&path).await;
            let Err(error) = try_open(&store, "topic", 0, config()).await else { return };
            *kept.lock().unwrap() = Some(error);
        }
    });
    place.lock().unwrap().take().expect("the log was opened")
}

/// Kafka does not even look after a clean stop, and serves what it finds. Cutting would be worse: what was
/// acknowledged, and is there behind the damage, would be gone.
#[test]
fn a_flipped_bit_behind_a_clean_stop_takes_the_log_offline_and_nothing_from_it() {
    let batch = batch(0, BATCH_BYTES).bytes.len() as u64;
    for (number, byte, has_checkpoint) in
        [(0, 8, true), (9, 16, true), (9, 22, false), (17, 2000, true), (17, 2000, false)]
    {
        let folder = written("offline", true);
        let last = segments(&folder).pop().unwrap();
        let flip = || change(&last, number * batch + byte, |bytes| bytes[0] ^= 0x10, 1);
        flip();
        if !has_checkpoint {
            // Not even that says how far it reached: the clean stop does, which cuts files to their batches.
            std::fs::remove_file(folder.0.join("recovery-point-offset-checkpoint")).unwrap();
        }
        let files = folder.files();
        for start in ["after the clean stop", "after a kill"] {
            let error = refusal(&folder);
            let StorageError::DamagedLog { path, position, offset, known, .. } = &error else {
                panic!("{start}: {error}")
            };
            assert_eq!((path, *position), (&last, number * batch), "{start}");
            assert_eq!(*offset, Offset(42 + number as i64), "{start}");
            let least = if has_checkpoint { COUNT as i64 } else { 43 + number as i64 };
            assert_eq!(*known, Offset(least), "{start}");
            assert!(error.to_string().contains("flowstone-cut-allowed"), "{error}");
            assert!(folder.files() == files, "{start}: its files changed");
        }
        if number == 9 {
            // Mended, it is whole.
            flip();
            left_after_recovery(&folder, COUNT);
            continue;
        }
        // Given up, it is cut, once.
        std::fs::write(folder.partition().join("flowstone-cut-allowed"), "").unwrap();
        left_after_recovery(&folder, 42 + number);
        assert!(!folder.partition().join("flowstone-cut-allowed").exists());
    }
}

/// Below a recovery point that a checkpoint tells, after a kill; and segments that are gone altogether.
#[test]
fn what_was_flushed_once_is_never_cut_off_nor_taken_for_an_empty_log() {
    let batch = batch(0, BATCH_BYTES).bytes.len() as u64;
    let folder = written("checkpointed", true);
    left_after_recovery(&folder, COUNT); // A kill behind the clean stop.
    let last = segments(&folder).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.set_len(17 * batch).unwrap(); // Whole batches are left.
    let error = refusal(&folder);
    assert!(
        matches!(error, StorageError::DamagedLog { offset: Offset(59), known: Offset(60), .. }),
        "{error}"
    );
    file.set_len(18 * batch - 100).unwrap();
    assert!(matches!(refusal(&folder), StorageError::DamagedLog { .. }), "the end is zeros now");
    for segment in segments(&folder) {
        std::fs::remove_file(segment).unwrap();
    }
    let error = refusal(&folder);
    assert!(error.to_string().contains("no segment is left"), "{error}");
}

/// A bent id must not pass for another topic's: its data would be put aside, and an empty log served.
#[test]
fn a_flipped_bit_in_partition_metadata_leaves_the_log_where_it_is_and_offline() {
    for cleanly in [false, true] {
        let folder = written("identity", cleanly);
        let file = folder.partition().join("partition.metadata");
        let right = std::fs::read(&file).unwrap();
        for (at, bit) in (0..right.len()).map(|at| (at, 1 << (at % 7))) {
            let mut bent = right.clone();
            bent[at] ^= bit;
            std::fs::write(&file, &bent).unwrap();
            let files = folder.files();
            let error = refusal(&folder);
            assert!(matches!(error, StorageError::Damaged { .. }), "byte {at}: {error}");
            assert!(error.to_string().contains("topic_id: EjRWeJq83vASNFZ4mrze8A"), "{error}");
            assert!(folder.files() == files, "byte {at}: its files changed");
        }
        std::fs::write(&file, &right).unwrap();
        left_after_recovery(&folder, COUNT);
    }
}

/// Found by fuzzing: a log that is begun anew forgot its epochs at the second start only.
#[test]
fn a_log_that_is_begun_anew_has_no_epochs_of_what_it_was() {
    let weaker = || LogConfig { durability: Durability::Memory, ..config() };
    let folder = written("anew", false);
    std::fs::write(folder.0.join("log-start-offset-checkpoint"), "0\n1\ntopic 0 100\n").unwrap();
    for _ in 0..2 {
        live(&folder, move |path| async move {
            let (_, store) = store_in(&path).await;
            let spec = flowstone_store::LogSpec {
                topic: "topic".into(),
                id: flowstone_types::PartitionId { topic: TOPIC, index: 0 },
                config: Arc::new(weaker()),
                leader_epoch: LeaderEpoch::NONE,
                whereabouts: flowstone_store::Whereabouts::Untold,
            };
            let log = store.open(spec, std::rc::Rc::new(Ear::default())).await.unwrap();
            assert_eq!((log.log_start(), log.log_end()), (Offset(100), Offset(100)));
            assert_eq!(log.latest_epoch(), None);
        });
    }
}

#[test]
fn damage_in_a_sealed_segment_is_reported_and_the_rest_is_served() {
    let folder = written("sealed", true);
    let batch = batch(0, BATCH_BYTES).bytes.len() as u64;
    change(&segments(&folder)[1], 5 * batch + 700, |bytes| bytes[0] ^= 1, 1);
    live(&folder, |path| async move {
        let (_, store) = store_in(&path).await;
        let (log, _) = open(&store, config()).await;
        let end = log.log_end();
        assert_eq!(end, Offset(COUNT as i64));
        let before = log.read(Offset(21), end, 1 << 20, true).await.unwrap();
        assert_eq!(numbers(&before.parts.concat()), (21..26).collect::<Vec<_>>());
        let error = log.read(Offset(26), end, 1 << 20, true).await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
        let after = log.read(Offset(27), end, 1 << 20, true).await.unwrap();
        assert_eq!(numbers(&after.parts.concat()), (27..42).collect::<Vec<_>>());
    });
}

#[test]
fn an_index_that_lies_is_built_again() {
    let folder = written("lies", true);
    let index = folder.partition().join("00000000000000000021.index");
    let right = std::fs::read(&index).unwrap();
    for harm in [[0, 0, 0, 1], [0, 0, 0x40, 0]] {
        let mut wrong = right.clone();
        for place in wrong.chunks_mut(8) {
            for (byte, harm) in place[4..].iter_mut().zip(harm) {
                *byte = byte.wrapping_add(harm);
            }
        }
        wrong.truncate(right.len() - 16); // Positions stay inside of the segment.
        std::fs::write(&index, wrong).unwrap();
        live(&folder, |path| async move {
            let (_, store) = store_in(&path).await;
            let (log, _) = open(&store, config()).await;
            for number in (21..42).rev() {
                // Backwards: nothing is read ahead.
                let out = log.read(Offset(number), Offset(42), 1, true).await.unwrap();
                assert_eq!(numbers(&out.parts.concat()), [number as u64]);
            }
        });
        assert_eq!(std::fs::read(&index).unwrap(), right, "{harm:?}");
        std::fs::write(folder.0.join(".kafka_cleanshutdown"), "{}").unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What memory serves is what the disk serves, whatever the sizes and questions.
    #[test]
    fn tail_and_disk_agree(
        sizes in proptest::collection::vec(0_usize..9000, 1..80),
        questions in proptest::collection::vec((0_usize..80, 0_usize..80, 1_usize..60_000, any::<bool>()), 20),
    ) {
        live(&Folder::new("model"), move |path| {
            let (sizes, questions) = (sizes.clone(), questions.clone());
            async move {
                let (_, hot) = store_in(&path).await;
                let (log, ear) = open(&hot, config()).await;
                let mut model = Vec::new();
                for (number, bytes) in sizes.iter().enumerate() {
                    let batch = batch(number as u64, *bytes);
                    model.push(batch.bytes.len());
                    append(&log, batch);
                    if number % 7 == 0 {
                        ear.until_durable(number as i64 + 1).await;
                    }
                }
                let end = model.len();
                ear.until_durable(end as i64).await;
                hot.shutdown().await.unwrap();
                let (_, cold) = store_in(&path).await;
                let (cold, _) = open(&cold, config()).await;
                let (_, warm) = store_in(&path).await;
                let (warm, ear) = open_at(&warm, "warm", 0, LogConfig::default()).await;
                for (number, bytes) in sizes.iter().enumerate() {
                    append(&warm, batch(number as u64, *bytes));
                }
                ear.until_durable(end as i64).await;
                for (from, below, bytes_max, at_least_one) in questions {
                    let (from, below) = (from.min(end), below.min(end));
                    let mut want = Vec::new();
                    let mut left = bytes_max;
                    for (number, bytes) in model.iter().enumerate().take(below).skip(from) {
                        if *bytes > left && !(want.is_empty() && at_least_one) {
                            break;
                        }
                        want.push(number as u64);
                        left = left.saturating_sub(*bytes);
                    }
                    let ask = (Offset(from as i64), Offset(below as i64), bytes_max, at_least_one);
                    let out = warm.read(ask.0, ask.1, ask.2, ask.3).await.unwrap();
                    assert_eq!(numbers(&out.parts.concat()), want, "from memory");
                    let out = cold.read(ask.0, ask.1, ask.2, ask.3).await.unwrap();
                    let got = numbers(&out.parts.concat());
                    // A read from disk ends with its segment, and says nothing else.
                    assert_eq!(got[..], want[..got.len()]);
                    assert!(!got.is_empty() || want.is_empty());
                }
            }
        });
    }
}
