//! The store on real files: append, commit, read, roll, recover, retain.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use flowstone_runtime::{sleep, spawn, wall_clock};
use flowstone_store::{Durability, LogConfig, LogDir, ReadError, Store, StoreConfig};
use flowstone_types::{LeaderEpoch, Offset, Timestamp, Uuid};

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 64 << 10, ..LogConfig::default() }
}

#[test]
fn what_is_appended_is_durable_and_read_back_in_every_mode() {
    for durability in [Durability::Flushed, Durability::Written, Durability::Memory] {
        live(&Folder::new("modes"), move |path| async move {
            let (_, store) = store_in(&path).await;
            let (log, ear) = open(&store, LogConfig { durability, ..LogConfig::default() }).await;
            for number in 0..100 {
                let appended = append(&log, batch(number, 1000));
                assert_eq!(appended.base_offset, Offset(number as i64));
            }
            if durability == Durability::Memory {
                assert_eq!(log.durable_end(), Offset(100));
                assert_eq!(numbers(&read_all(&log, 10_000).await), (0..100).collect::<Vec<_>>());
            }
            ear.until_durable(100).await;
            assert_eq!(numbers(&read_all(&log, 10_000).await), (0..100).collect::<Vec<_>>());
            let at_start = log.read(Offset(0), Offset(5), 1 << 20, true).await.unwrap();
            assert_eq!(numbers(&at_start.parts.concat()), [0, 1, 2, 3, 4], "below 5");
            assert_eq!(log.read(Offset(0), Offset(100), 10, false).await.unwrap().bytes, 0);
            let error = log.read(Offset(101), Offset(200), 10, true).await.unwrap_err();
            assert!(matches!(error, ReadError::OutOfRange { .. }));
        });
    }
}

#[test]
fn flush_messages_holds_acks_back_in_the_weaker_modes() {
    for durability in [Durability::Written, Durability::Memory] {
        live(&Folder::new("flush"), move |path| async move {
            let (_, store) = store_in(&path).await;
            let config = LogConfig { durability, flush_messages: 1, ..LogConfig::default() };
            let (log, ear) = open(&store, config).await;
            for number in 0..20 {
                append(&log, batch(number, 1000));
                assert_eq!(log.durable_end(), Offset(number as i64), "not before its flush");
                ear.until_durable(number as i64 + 1).await;
            }
            assert!(store.usage().commits.flushes >= 20);
        });
    }
}

#[test]
fn segments_roll_and_are_read_across_from_disk_as_from_memory() {
    let folder = Folder::new("roll");
    live(&folder, |path| async move {
        let (dir, store) = store_in(&path).await;
        let (log, ear) = open(&store, small_segments()).await;
        for number in 0..200 {
            append(&log, batch(number, 3000));
        }
        ear.until_durable(200).await;
        let from_memory = read_all(&log, 100_000).await;
        assert_eq!(numbers(&from_memory), (0..200).collect::<Vec<_>>());
        store.shutdown().await.unwrap();
        dir.close(-1).await.unwrap();
        std::fs::write(path.join("want"), from_memory).unwrap();
    });
    live(&folder, |path| async move {
        let from_memory = std::fs::read(path.join("want")).unwrap();
        let (_, store) = store_in(&path).await;
        let (log, _) = open(&store, small_segments()).await;
        assert_eq!(log.log_end(), Offset(200));
        for bytes_max in [1, 5000, 1 << 20] {
            assert_eq!(read_all(&log, bytes_max).await, from_memory, "{bytes_max}");
        }
    });
}

#[test]
fn a_kill_loses_nothing_and_recovery_twice_gives_the_same_bytes() {
    let folder = Folder::new("kill");
    live(&folder, |path| async move {
        let (_, store) = store_in(&path).await;
        let (log, ear) = open(&store, small_segments()).await;
        for number in 0..123 {
            append(&log, batch(number, 2000));
        }
        ear.until_durable(123).await;
    });
    let mut before = None;
    for _ in 0..2 {
        live(&folder, |path| async move {
            let (dir, store) = store_in(&path).await;
            assert!(!dir.was_clean());
            let (log, _) = open(&store, small_segments()).await;
            assert_eq!(numbers(&read_all(&log, 50_000).await), (0..123).collect::<Vec<_>>());
        });
        let files = folder.files();
        assert!(before.is_none_or(|before| before == files));
        before = Some(files);
    }
}

#[test]
fn appending_goes_on_after_restart_clean_or_not() {
    let folder = Folder::new("goes-on");
    for round in 0..6 {
        live(&folder, move |path| async move {
            let (dir, store) = store_in(&path).await;
            assert_eq!(dir.was_clean(), round % 2 == 1);
            let (log, ear) = open(&store, small_segments()).await;
            let first = round * 37;
            assert_eq!(log.log_end(), Offset(first as i64));
            for number in first..first + 37 {
                append(&log, batch(number, 1500));
            }
            ear.until_durable(first as i64 + 37).await;
            assert_eq!(
                numbers(&read_all(&log, 1 << 20).await),
                (0..first + 37).collect::<Vec<_>>()
            );
            if round % 2 == 0 {
                store.shutdown().await.unwrap();
                dir.close(-1).await.unwrap();
            }
        });
    }
}

#[test]
fn producers_are_known_after_a_restart() {
    let folder = Folder::new("producers");
    for round in 0..3 {
        live(&folder, move |path| async move {
            let (dir, store) = store_in(&path).await;
            let (log, ear) = open(&store, LogConfig::default()).await;
            let next = round * 3;
            for sequence in next..next + 3 {
                assert!(!append(&log, batch_from(7, sequence)).duplicate);
            }
            let again = append(&log, batch_from(7, next));
            assert!(again.duplicate);
            assert_eq!(again.base_offset, Offset(next.into()));
            ear.until_durable((next + 3).into()).await;
            assert_eq!(log.producers()[0].last_sequence, next + 2);
            if round == 1 {
                store.shutdown().await.unwrap();
                dir.close(-1).await.unwrap();
            }
        });
    }
}

/// KIP-98: a client has up to five batches in flight, and retries every one that was not answered. Each of them is known
/// again over a clean stop, and over a kill behind a segment that was sealed meanwhile.
#[test]
fn what_was_in_flight_is_known_after_a_restart() {
    for clean in [true, false] {
        let folder = Folder::new("in-flight");
        live(&folder, move |path| async move {
            let (dir, store) = store_in(&path).await;
            let (log, ear) = open(&store, small_segments()).await;
            append(&log, batch(0, 1000));
            for sequence in 0..5 {
                append(&log, batch_from(7, sequence));
            }
            if clean {
                ear.until_durable(6).await;
                store.shutdown().await.unwrap();
                dir.close(-1).await.unwrap();
                return;
            }
            append(&log, batch(6, 63 << 10)); // Full: this begins the next segment.
            ear.until_durable(7).await;
            let snapshot = path.join("topic-0/00000000000000000006.snapshot");
            while !snapshot.exists() {
                sleep(Duration::from_millis(1)).await;
            }
        });
        live(&folder, move |path| async move {
            let (dir, store) = store_in(&path).await;
            assert_eq!(dir.was_clean(), clean);
            let (log, _) = open(&store, small_segments()).await;
            for sequence in 0..5 {
                let again = append(&log, batch_from(7, sequence));
                assert!(again.duplicate, "sequence {sequence}");
                assert_eq!(again.base_offset, Offset(i64::from(sequence) + 1));
            }
            assert!(!append(&log, batch_from(7, 5)).duplicate);
        });
    }
}

#[test]
fn retention_and_delete_records_free_whole_segments() {
    let folder = Folder::new("retention");
    let config = LogConfig { retention_ms: 1_000_000, file_delete_delay_ms: 0, ..small_segments() };
    let again = config.clone();
    live(&folder, move |path| {
        let config = config.clone();
        async move {
            let (_, store) = store_in(&path).await;
            let (log, ear) = open(&store, config).await;
            let now = wall_clock();
            for number in 0..100 {
                append(&log, batch_of(number, 3000, now.0));
            }
            ear.until_durable(100).await;
            assert_eq!(log.advance_log_start(Offset(50)).await.unwrap(), Offset(50));
            let below = log.read(Offset(49), Offset(100), 1, true).await;
            assert!(matches!(below, Err(ReadError::OutOfRange { .. })));
            // Segments below the start go, once they are stored.
            while log.size() > 60 * 3100 {
                store.retain(now).await;
                flowstone_runtime::yield_now().await;
            }
            assert_eq!(log.log_start(), Offset(50));
            // Past its age even the active segment goes, and the log's end stays what it was.
            while log.size() > 0 {
                store.retain(Timestamp(now.0 + 1_000_001)).await;
                flowstone_runtime::yield_now().await;
            }
            store.tick(Timestamp(now.0 + 1_000_002)).await;
            assert_eq!((log.log_start(), log.log_end(), log.size()), (Offset(100), Offset(100), 0));
        }
    });
    let names: Vec<String> = folder.files().into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.ends_with(".deleted")), "{names:?}");
    live(&folder, move |path| {
        let config = again.clone();
        async move {
            let (_, store) = store_in(&path).await;
            let (log, ear) = open(&store, config).await;
            assert_eq!((log.log_start(), log.log_end()), (Offset(100), Offset(100)));
            append(&log, batch(100, 10));
            ear.until_durable(101).await;
        }
    });
}

#[test]
fn offsets_are_found_by_time() {
    live(&Folder::new("times"), |path| async move {
        let (_, store) = store_in(&path).await;
        let (log, ear) = open(&store, small_segments()).await;
        let base = wall_clock().0 - 100_000;
        for number in 0..300 {
            append(&log, batch_of(number, 1000, base + number as i64 * 10));
        }
        ear.until_durable(300).await;
        let end = log.log_end();
        for (after, offset) in [(-base, 0), (0, 0), (1, 1), (2990, 299), (1234, 124)] {
            let found =
                log.offset_for_timestamp(Timestamp(base + after), end).await.unwrap().unwrap();
            assert_eq!(found, (Offset(offset), Timestamp(base + offset * 10), LeaderEpoch(0)));
        }
        assert_eq!(log.offset_for_timestamp(Timestamp(base + 2991), end).await.unwrap(), None);
        let latest = log.offset_of_max_timestamp(end).await.unwrap().unwrap();
        assert_eq!(latest.0, Offset(299));
    });
}

#[test]
fn a_deleted_log_leaves_no_trace_for_the_next_of_its_name() {
    let folder = Folder::new("delete");
    live(&folder, |path| async move {
        let config = LogConfig { file_delete_delay_ms: 0, ..small_segments() };
        let (_, store) = store_in(&path).await;
        let (log, ear) = open(&store, config.clone()).await;
        for number in 0..100 {
            append(&log, batch(number, 3000));
        }
        ear.until_durable(100).await;
        log.advance_log_start(Offset(90)).await.unwrap();
        store.delete(log).await.unwrap();
        let (log, ear) = open(&store, config.clone()).await;
        assert_eq!((log.log_start(), log.log_end()), (Offset(0), Offset(0)));
        append(&log, batch(0, 10));
        ear.until_durable(1).await;
        assert_eq!(std::fs::read_dir(&path).unwrap().filter(is_retired).count(), 1);
        store.tick(Timestamp(wall_clock().0 + 1)).await;
        assert_eq!(std::fs::read_dir(&path).unwrap().filter(is_retired).count(), 0);
    });
    live(&folder, |path| async move {
        let (_, store) = store_in(&path).await;
        let (log, _) = open(&store, small_segments()).await;
        assert_eq!((log.log_start(), log.log_end()), (Offset(0), Offset(1)));
    });
}

/// Kafka gives a new partition to the directory with the fewest; those of one topic are made together.
#[test]
fn partitions_that_are_made_at_once_are_spread_over_the_directories() {
    live(&Folder::new("spread"), |path| async move {
        let open_dir = |name: &str, id| LogDir::open(path.join(name), Uuid(id));
        let dirs = [open_dir("a", 1).await.unwrap(), open_dir("b", 2).await.unwrap()];
        let store = Store::new(StoreConfig::new(dirs.to_vec()));
        let opened = Rc::new(Cell::new(0));
        for index in 0..8 {
            let (store, opened) = (store.clone(), Rc::clone(&opened));
            spawn(async move {
                open_at(&store, "topic", index, LogConfig::default()).await;
                opened.set(opened.get() + 1);
            });
        }
        while opened.get() < 8 {
            sleep(Duration::from_millis(1)).await;
        }
        for dir in &dirs {
            assert_eq!(dir.partitions().await.unwrap().len(), 4, "{}", dir.path().display());
        }
    });
}

fn is_retired(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy().ends_with("-delete")
}

#[test]
fn a_thousand_logs_trickle() {
    live(&Folder::new("trickle"), |path| async move {
        let (_, store) = store_with(&path, |config| config.open_files_max = 100).await;
        let mut logs = Vec::new();
        for index in 0..1000 {
            logs.push(open_at(&store, "many", index, LogConfig::default()).await);
        }
        for round in 0..3 {
            for (log, _) in &logs {
                append(log, batch(round, 100));
            }
            for (_, ear) in &logs {
                ear.until_durable(round as i64 + 1).await;
            }
        }
        assert!(store.usage().files <= 100);
        store.shutdown().await.unwrap();
    });
}
