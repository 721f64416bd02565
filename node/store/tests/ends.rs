//! How logs end: clean stops, stops that are none, deletions; and what the next life makes of it.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use flowstone_batch::Origin;
use flowstone_runtime::sim::{Control, DiskFaults, DiskOperation, MachineId, World};
use flowstone_runtime::{fs, now, sleep, spawn, wall_clock};
use flowstone_store::{AppendError, Log, LogConfig, LogSpec, Store, Whereabouts};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Timestamp, Uuid};

const DATA: &str = "/data";

fn small() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 1000, ..LogConfig::default() }
}

/// Runs `life` to its end on a machine.
fn live_on<F, Fut>(world: &World, machine: MachineId, life: F)
where
    F: Fn() -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    world.boot(machine, 1, move |_| life());
    let control = world.control();
    world.run(async move { control.ended(machine).await });
}

/// Appends batches `from..to`, and waits until they are durable.
async fn fill(log: &Log, ear: &Ear, from: u64, to: u64) {
    for number in from..to {
        append(log, batch_of(number, 3_000, wall_clock().0));
    }
    ear.until_durable(to as i64).await;
}

/// Stops a store, leaves the marker of a clean shutdown where it is one; whether it is.
async fn stop(dir: &flowstone_store::LogDir, store: &Store) -> bool {
    let clean = store.shutdown().await.is_ok();
    if clean {
        dir.close(-1).await.unwrap();
    }
    clean
}

/// Every segment's file ends with its last batch; returns how many files there are.
fn assert_trimmed(control: &Control, machine: MachineId, why: &str) -> usize {
    let files = control.files(machine);
    let logs = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log"));
    let check = |(path, bytes): (&std::path::PathBuf, &Vec<u8>)| {
        let mut end = 0;
        for batch in flowstone_batch::batches(bytes) {
            let Ok((at, _, whole)) = batch else { break };
            end = at + whole.len();
        }
        assert_eq!(bytes.len(), end, "{why}: {} is longer than its batches", path.display());
    };
    logs.map(check).count()
}

#[test]
fn a_file_longer_than_its_batches_opens_after_a_clean_stop() {
    let world = World::new(1);
    let machine = world.machine("node");
    live_on(&world, machine, || async {
        let (dir, store) = store_in(Path::new(DATA)).await;
        let (log, ear) = open(&store, LogConfig::default()).await;
        fill(&log, &ear, 0, 5).await;
        assert!(stop(&dir, &store).await);
        // Without it, the batches are read for their producers, up to the file's end.
        fs::remove_file("/data/topic-0/00000000000000000005.snapshot".as_ref()).await.unwrap();
    });
    let path = Path::new("/data/topic-0/00000000000000000000.log");
    world.corrupt(machine, path, 40_000, &[0; 960]);
    live_on(&world, machine, || async {
        let (dir, store) = store_in(Path::new(DATA)).await;
        let (log, ear) = open(&store, LogConfig::default()).await;
        assert_eq!(log.log_end(), Offset(5));
        fill(&log, &ear, 5, 6).await;
        assert!(stop(&dir, &store).await);
    });
    assert_eq!(assert_trimmed(&world, machine, "at last"), 1);
}

/// Recovery writes whole pages anew; the file ends with its last batch all the same, sealed or not.
#[test]
fn recovery_of_files_that_end_with_their_last_batch_leaves_them_so() {
    let world = World::new(2);
    let machine = world.machine("node");
    live_on(&world, machine, || async {
        let (dir, store) = store_in(Path::new(DATA)).await;
        let (log, ear) = open(&store, small()).await;
        fill(&log, &ear, 0, 16).await;
        assert!(stop(&dir, &store).await);
    });
    let before = assert_trimmed(&world, machine, "stopped");
    assert!(before > 2, "several segments");
    for path in world.files(machine).into_keys() {
        if path.extension().is_some_and(|extension| extension == "index") {
            // Not a size that an index has: all of the segments are read again.
            world.corrupt(machine, &path, 0, &[0; 3]);
            world.corrupt(machine, &path, world.files(machine)[&path].len() as u64, &[0; 3]);
        }
    }
    for killed in [true, false] {
        live_on(&world, machine, move || async move {
            let (dir, store) = store_in(Path::new(DATA)).await;
            let (log, _) = open(&store, small()).await;
            assert_eq!(log.log_end(), Offset(16));
            assert!(killed || stop(&dir, &store).await);
        });
        assert_eq!(assert_trimmed(&world, machine, "read again"), before);
    }
}

/// Whoever appends while the store shuts down is told `Closed`, or what it appended is in the log.
#[test]
fn a_clean_stop_trims_every_file_whatever_was_appended_meanwhile() {
    for seed in 0..60 {
        let world = World::new(seed);
        let machine = world.machine("node");
        let promised = Rc::new(Cell::new(0_i64));
        for round in 0..4_u64 {
            let (control, kept) = (world.control(), Rc::clone(&promised));
            world.boot(machine, 1, move |_| writes_until_stopped(control.clone(), kept.clone()));
            world.run_for(Duration::from_micros(world.random() % 90_000));
            if round % 2 == 0 && world.is_running(machine) {
                world.power_loss(machine);
                continue;
            }
            world.run_for(Duration::from_secs(5));
            assert!(!world.is_running(machine), "seed {seed}: it stops");
            assert_trimmed(&world, machine, &format!("seed {seed}"));
        }
    }
}

async fn writes_until_stopped(control: Control, promised: Rc<Cell<i64>>) {
    let (dir, store) = store_in(Path::new(DATA)).await;
    let (log, ear) = open(&store, small()).await;
    assert!(log.durable_end().0 >= promised.get());
    let stop_after = control.random() % 80_000;
    // Now and then nothing is appended: what a recovery left is trimmed all the same.
    let writers = control.random() % 3;
    for _ in 0..writers {
        let (control, log, promised, ear) =
            (control.clone(), log.clone(), Rc::clone(&promised), Rc::clone(&ear));
        spawn(async move {
            loop {
                let batch = batch_of(control.random(), 1_000, wall_clock().0);
                match log.append(batch, Origin::Client, LeaderEpoch(0), wall_clock()) {
                    Ok(_) => {}
                    Err(AppendError::Closed) => return,
                    Err(error) => panic!("{error}"),
                }
                promised.set(promised.get().max(ear.durable.get()));
                sleep(Duration::from_micros(control.random() % 2_000)).await;
            }
        });
    }
    sleep(Duration::from_micros(stop_after)).await;
    assert!(stop(&dir, &store).await, "a healthy disk");
    promised.set(promised.get().max(ear.durable.get()));
    let late = log.append(batch(0, 10), Origin::Client, LeaderEpoch(0), wall_clock());
    assert!(matches!(late, Err(AppendError::Closed)));
}

#[test]
fn a_stop_ends_on_a_disk_that_keeps_failing() {
    for failing in [".index", ".timeindex", ".snapshot", ".log"] {
        let world = World::new(3);
        let machine = world.machine("node");
        let control = world.control();
        live_on(&world, machine, move || {
            let control = control.clone();
            async move {
                let (_, store) = store_in(Path::new(DATA)).await;
                let (log, ear) = open(&store, small()).await;
                fill(&log, &ear, 0, 5).await;
                control.fail_next(machine, DiskOperation::Write, failing, u32::MAX);
                let next = batch_of(5, 9_000, wall_clock().0); // Ends the segment.
                append(&log, next);
                let began = now();
                assert!(store.shutdown().await.is_err(), "{failing}: not clean");
                assert!(now().since(began) < Duration::from_secs(1), "{failing}: and soon");
            }
        });
        // The next start, on a disk that is well, finds all that was acknowledged.
        world.set_disk_faults(machine, DiskFaults::default());
        world.fail_next(machine, DiskOperation::Write, failing, 0);
        live_on(&world, machine, move || async move {
            let (dir, store) = store_in(Path::new(DATA)).await;
            assert!(!dir.was_clean());
            let (log, _) = open(&store, small()).await;
            assert!(log.durable_end() >= Offset(5));
            assert!(stop(&dir, &store).await, "{failing}: clean again");
        });
    }
}

#[test]
fn a_stop_in_the_midst_of_recovery_does_not_call_clean_what_was_not_looked_at() {
    let world = World::new(4);
    let machine = world.machine("node");
    let control = world.control();
    world.boot(machine, 1, |_| async {
        let (_, store) = store_in(Path::new(DATA)).await;
        for index in 0..2 {
            let (log, ear) = open_at(&store, "topic", index, small()).await;
            fill(&log, &ear, 0, 8).await;
        }
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_secs(1));
    world.crash(machine);
    // One of them is torn; the node is told to stop before it comes to it.
    let torn = Path::new("/data/topic-1/00000000000000000006.log");
    let (at, _, _) = flowstone_batch::batches(&world.files(machine)[torn]).nth(1).unwrap().unwrap();
    control.corrupt(machine, torn, at as u64 + 500, b"torn");
    live_on(&world, machine, || async {
        let (dir, store) = store_in(Path::new(DATA)).await;
        open_at(&store, "topic", 0, small()).await;
        assert!(stop(&dir, &store).await);
    });
    live_on(&world, machine, || async {
        let (dir, store) = store_in(Path::new(DATA)).await;
        assert!(dir.was_clean());
        assert_eq!(open_at(&store, "topic", 0, small()).await.0.log_end(), Offset(8));
        let (log, _) = open_at(&store, "topic", 1, small()).await;
        assert_eq!(log.log_end(), Offset(7), "cut where it is torn");
        assert!(stop(&dir, &store).await);
    });
    let left = world.files(machine).into_keys().any(|path| path.ends_with("flowstone-distrusted"));
    assert!(!left, "and that is the end of it");
}

/// Directories in the data directory that were given up.
async fn retired() -> usize {
    let entries = fs::read_dir(DATA.as_ref()).await.unwrap();
    entries.iter().filter(|entry| entry.name.ends_with("-delete")).count()
}

#[test]
fn what_was_deleted_goes_after_its_delay_or_with_the_next_start() {
    let world = World::new(5);
    let machine = world.machine("node");
    let config = LogConfig { file_delete_delay_ms: 60_000, ..small() };
    let first = config.clone();
    live_on(&world, machine, move || {
        let config = first.clone();
        async move {
            let (_, store) = store_in(Path::new(DATA)).await;
            let (log, ear) = open(&store, config).await;
            fill(&log, &ear, 0, 20).await;
            store.delete(log).await.unwrap();
            store.tick(Timestamp(wall_clock().0 + 59_000)).await;
            assert_eq!(retired().await, 1, "not before its time");
            store.tick(Timestamp(wall_clock().0 + 60_001)).await;
            assert_eq!(retired().await, 0);
        }
    });
    for killed in [true, false] {
        let config = config.clone();
        live_on(&world, machine, move || {
            let config = config.clone();
            async move {
                let (dir, store) = store_in(Path::new(DATA)).await;
                assert_eq!(retired().await, 0, "what a life before left");
                let (log, ear) = open(&store, config).await;
                fill(&log, &ear, 0, 20).await;
                store.delete(log).await.unwrap();
                assert_eq!(retired().await, 1);
                assert!(killed || stop(&dir, &store).await);
            }
        });
        assert!(!world.is_running(machine));
    }
    live_on(&world, machine, || async {
        let _store = store_in(Path::new(DATA)).await;
        assert_eq!(retired().await, 0, "after a kill and after a clean stop");
    });
}

/// What the controller knows, which a crash does not take: the topic's generation, which is its id,
/// and how much of it is acknowledged.
#[derive(Default)]
struct Topic {
    generation: Cell<u64>,
    acknowledged: Cell<i64>,
}

/// The number of a batch says to which generation it belongs.
fn number(generation: u64, offset: i64) -> u64 {
    generation << 32 | offset as u64
}

/// As far from the others' as random ids are.
fn id_of(generation: u64) -> Uuid {
    let half = |salt| generation.wrapping_add(salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Uuid(u128::from(half(1)) << 64 | u128::from(half(77)))
}

async fn open_generation(store: &Store, generation: u64) -> Option<(Log, Rc<Ear>)> {
    let ear = Rc::new(Ear::default());
    let spec = LogSpec {
        topic: "topic".into(),
        id: PartitionId { topic: id_of(generation), index: 0 },
        config: Arc::new(LogConfig { file_delete_delay_ms: 20, ..small() }),
        leader_epoch: LeaderEpoch(0),
        whereabouts: Whereabouts::Untold,
    };
    let log = store.open(spec, ear.clone()).await.ok()?;
    ear.durable.set(log.durable_end().0);
    Some((log, ear))
}

async fn lives_of_a_name(control: Control, topic: Rc<Topic>, dirs: usize) {
    let mut opened = Vec::new();
    for number in 0..dirs {
        let path = format!("{DATA}-{number}");
        let Ok(dir) = flowstone_store::LogDir::open(path, Uuid(7 + number as u128)).await else {
            return;
        };
        opened.push(dir);
    }
    let store = Store::new(flowstone_store::StoreConfig::new(opened.clone()));
    let stop_at = now().after(Duration::from_millis(100 + control.random() % 300));
    while now() < stop_at {
        let generation = topic.generation.get();
        let Some((log, ear)) = open_generation(&store, generation).await else { return };
        assert!(log.durable_end().0 >= topic.acknowledged.get(), "acknowledged, and gone");
        let all = numbers(&read_all(&log, 10_000).await);
        let expected: Vec<_> = (0..log.log_end().0).map(|at| number(generation, at)).collect();
        assert_eq!(all, expected, "batches of generation {generation} and no other");
        for _ in 0..control.random() % 20 {
            let next = number(generation, log.log_end().0);
            let batch = batch_of(next, (control.random() % 6_000) as usize, wall_clock().0);
            if log.append(batch, Origin::Client, LeaderEpoch(0), wall_clock()).is_err() {
                break;
            }
            let end = log.log_end().0;
            ear.until(|ear| ear.durable.get() >= end || ear.failed.borrow().is_some()).await;
            topic.acknowledged.set(topic.acknowledged.get().max(ear.durable.get()));
            store.tick(wall_clock()).await;
        }
        // Its deletion is in the metadata log before a file of it is touched.
        topic.generation.set(generation + 1);
        topic.acknowledged.set(0);
        let _ = store.delete(log).await;
    }
    if store.shutdown().await.is_ok() {
        for dir in opened {
            let _ = dir.close(-1).await;
        }
    }
}

#[test]
fn a_topic_never_mixes_with_the_one_of_its_name_before() {
    for seed in 0..25 {
        let world = World::new(seed);
        let machine = world.machine("node");
        let topic = Rc::new(Topic::default());
        let dirs = 1 + (seed % 2) as usize;
        for _ in 0..8 {
            let (control, kept) = (world.control(), Rc::clone(&topic));
            let errors = if world.random().is_multiple_of(2) { 0.01 } else { 0.0 };
            let faults =
                DiskFaults { sync_error: errors, write_error: errors, ..Default::default() };
            world.set_disk_faults(machine, faults);
            world.boot(machine, 1, move |_| lives_of_a_name(control.clone(), kept.clone(), dirs));
            world.run_for(Duration::from_micros(world.random() % 500_000));
            if world.random().is_multiple_of(2) {
                world.power_loss(machine);
            } else {
                world.crash(machine);
            }
        }
        assert!(topic.generation.get() > 3, "seed {seed}: topics came and went");
    }
}
