//! The store on a simulated disk: kills and power cuts at any step, failing flushes, full disks.
//! `SEEDS=n` runs more seeds, `SEED=n` one.

mod common;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use flowstone_runtime::sim::{Control, DiskFaults, DiskOperation, MachineId, World};
use flowstone_runtime::{sleep, spawn, wall_clock};
use flowstone_store::{AppendError, Durability, Log, LogConfig, LogState};
use flowstone_types::{LeaderEpoch, Offset};

const DATA: &str = "/data";
const LOGS: usize = 3;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let read = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match read("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("SEEDS").unwrap_or(default),
    }
}

type Opened = (Log, Rc<Ear>);

/// What was promised, across the lives of the machine: per log, everything below is acknowledged.
type Promised = Rc<[Cell<i64>; LOGS]>;

/// One life: opens the logs, checks what is promised, then appends until something ends it.
async fn life(control: Control, promised: Promised, config: LogConfig) {
    let (dir, store) = store_with(Path::new(DATA), |config| {
        config.memory_bytes = 1 << 20;
        config.open_files_max = 4;
        // Small, so that its files take turns; or none.
        config.journal_bytes = (control.random() % 4) << 18;
    })
    .await;
    let mut logs = Vec::new();
    for index in 0..LOGS {
        let opened = try_open(&store, "topic", index as i32, config.clone()).await;
        let Ok((log, ear)) = opened else { return }; // The disk failed: no broker, until the next life.
        check(&log, promised[index].get()).await;
        logs.push((log, ear));
    }
    for (index, (log, ear)) in logs.iter().enumerate() {
        let (log, ear, promised, control) =
            (log.clone(), ear.clone(), promised.clone(), control.clone());
        spawn(async move {
            loop {
                let chance = control.random();
                let count = 1 + chance % 4;
                for _ in 0..count {
                    let number = log.log_end().0 as u64;
                    let bytes = (control.random() % 6000) as usize;
                    let batch = batch_of(number, bytes, wall_clock().0);
                    if log
                        .append(
                            batch,
                            flowstone_batch::Origin::Client,
                            LeaderEpoch(0),
                            wall_clock(),
                        )
                        .is_err()
                    {
                        return;
                    }
                }
                let end = log.log_end().0;
                ear.until(|ear| ear.durable.get() >= end || ear.failed.borrow().is_some()).await;
                promised[index].set(promised[index].get().max(ear.durable.get()));
                if chance % 32 == 0 {
                    check(&log, promised[index].get()).await;
                }
                sleep(Duration::from_micros(chance % 3000)).await;
            }
        });
    }
    let stop_after = control.random() % 400;
    for _ in 0..20 {
        sleep(Duration::from_millis(20)).await;
        store.tick(wall_clock()).await;
    }
    if stop_after.is_multiple_of(3) {
        if store.shutdown().await.is_ok() {
            dir.close(-1).await.unwrap();
        }
        return;
    }
    std::future::pending::<()>().await;
}

/// The log holds whole, right batches from 0 on without a gap, and all that was promised.
async fn check(log: &Log, promised: i64) {
    let end = log.durable_end().0;
    assert!(end >= promised, "{promised} were acknowledged, {end} are there");
    assert!(end <= log.log_end().0);
    let Some(bytes) = read_all_below(log, Offset(end)).await else { return };
    assert_eq!(numbers(&bytes), (0..end as u64).collect::<Vec<_>>());
}

/// All below an offset; nothing where the log is offline meanwhile.
async fn read_all_below(log: &Log, below: Offset) -> Option<Vec<u8>> {
    let (mut all, mut next) = (Vec::new(), log.log_start());
    while next < below {
        let out = match log.read(next, below, 20_000, true).await {
            Err(_) if matches!(log.state(), LogState::Failed(_)) => return None,
            out => out.unwrap(),
        };
        assert!(out.bytes > 0, "something is at {next}");
        let bytes = out.parts.concat();
        for found in flowstone_batch::batches(&bytes) {
            let (_, header, whole) = found.unwrap();
            assert!(flowstone_batch::crc_ok(whole), "a corrupt batch was served");
            assert_eq!(header.base_offset, next);
            next = header.last_offset().plus(1);
        }
        all.extend(bytes);
    }
    Some(all)
}

fn lives(seed: u64, config: &LogConfig, end: fn(&Control, MachineId, u64)) {
    let world = World::new(seed);
    let machine = world.machine("node");
    let promised: Promised = Rc::default();
    for _ in 0..6 {
        let (control, kept, config) = (world.control(), promised.clone(), config.clone());
        world.boot(machine, 1, move |_| life(control.clone(), kept.clone(), config.clone()));
        world.run_for(Duration::from_micros(world.random() % 500_000));
        end(&world, machine, world.random());
    }
}

fn small(durability: Durability) -> LogConfig {
    LogConfig {
        segment_bytes: 40_000,
        index_interval_bytes: 1000,
        durability,
        ..LogConfig::default()
    }
}

#[test]
fn flushed_logs_survive_kills_and_power_cuts() {
    for seed in seeds(25) {
        lives(seed, &small(Durability::Flushed), |world, machine, chance| {
            if chance % 2 == 0 { world.power_loss(machine) } else { world.crash(machine) }
        });
    }
}

#[test]
fn written_logs_survive_kills() {
    for seed in seeds(10) {
        lives(seed, &small(Durability::Written), |world, machine, _| world.crash(machine));
    }
}

/// Apache Kafka, `LogDirFailureChannel`: the directory goes offline. A disk may drop its cache when a flush fails, and
/// with it what other files had written: their own flushes then succeed, and prove nothing.
#[test]
fn a_failed_write_or_flush_ends_its_directory_and_loses_nothing() {
    let mut failed = 0;
    for seed in seeds(25) {
        let world = World::new(seed);
        let machine = world.machine("node");
        let promised: Promised = Rc::default();
        for round in 0..4 {
            let (control, kept) = (world.control(), promised.clone());
            let config = small(Durability::Flushed);
            world.boot(machine, 1, move |_| life(control.clone(), kept.clone(), config.clone()));
            world.run_for(Duration::from_millis(40));
            let kind = if seed % 2 == 0 { DiskOperation::Sync } else { DiskOperation::Write };
            world.fail_next(machine, kind, "topic-1/", 1);
            world.run_for(Duration::from_millis(100));
            let all = || promised.iter().map(Cell::get).collect::<Vec<_>>();
            let before = all();
            world.run_for(Duration::from_millis(50));
            assert_eq!(all(), before, "nothing is acknowledged in the directory after the failure");
            failed += u32::from(world.is_running(machine));
            if (seed + round) % 3 == 0 { world.crash(machine) } else { world.power_loss(machine) }
        }
    }
    assert!(failed > 0);
}

/// One log: what is there is served, and must stay; then some more, until it fails.
async fn serves_what_it_finds(control: Control, served: Promised) {
    let (_, store) = store_in(Path::new(DATA)).await;
    let opened = try_open(&store, "topic", 0, small(Durability::Flushed)).await;
    let Ok((log, _)) = opened else { return }; // It failed at once.
    check(&log, served[0].get()).await;
    served[0].set(log.durable_end().0);
    for _ in 0..10 + control.random() % 8 {
        let bytes = (control.random() % 6_000) as usize;
        append(&log, batch_of(log.log_end().0 as u64, bytes, wall_clock().0));
        sleep(Duration::from_millis(2)).await;
        if !matches!(log.state(), LogState::Online) {
            break;
        }
        served[0].set(served[0].get().max(log.durable_end().0));
    }
    std::future::pending::<()>().await;
}

/// A disk that fails a flush may refuse the marker that says so, too. A kill leaves what was not
/// flushed readable; a power cut after it must not take what the life between was told is there.
#[test]
fn a_failed_flush_is_not_believed_after_a_kill_even_where_its_marker_was_refused() {
    for seed in seeds(20) {
        let world = World::new(seed);
        let machine = world.machine("node");
        let promised: Promised = Rc::default();
        let boot = || {
            let (control, kept) = (world.control(), promised.clone());
            world.boot(machine, 1, move |_| serves_what_it_finds(control.clone(), kept.clone()));
            world.run_for(Duration::from_millis(20)); // Time to recover.
        };
        boot();
        world.crash(machine);
        world.fail_next(machine, DiskOperation::Write, "flowstone-distrusted", u32::MAX);
        boot();
        world.fail_next(machine, DiskOperation::Sync, ".log", 1);
        world.run_for(Duration::from_millis(40));
        world.crash(machine);
        boot();
        world.power_loss(machine);
        boot();
        world.run_for(Duration::from_millis(40));
    }
}

#[test]
fn slow_and_failing_disks_lose_nothing() {
    for seed in seeds(10) {
        let world = World::new(seed);
        let machine = world.machine("node");
        let promised: Promised = Rc::default();
        for _ in 0..5 {
            world.set_disk_faults(machine, DiskFaults::default());
            let (control, kept) = (world.control(), promised.clone());
            let config = small(Durability::Flushed);
            world.boot(machine, 1, move |_| life(control.clone(), kept.clone(), config.clone()));
            world.run_for(Duration::from_millis(30));
            let faults = DiskFaults {
                write_error: 0.001,
                sync_error: 0.002,
                slow: 0.02,
                ..DiskFaults::default()
            };
            world.set_disk_faults(machine, faults);
            world.run_for(Duration::from_millis(200));
            world.power_loss(machine);
        }
    }
}

#[test]
fn a_full_disk_stops_writes_and_space_brings_them_back() {
    for seed in seeds(10) {
        let world = World::new(seed);
        let machine = world.machine("node");
        let state: Rc<RefCell<Option<Opened>>> = Rc::default();
        let kept = state.clone();
        world.boot(machine, 1, move |_| {
            let kept = kept.clone();
            async move {
                let (_, store) = store_in(Path::new(DATA)).await;
                *kept.borrow_mut() = Some(open(&store, small(Durability::Flushed)).await);
                std::future::pending::<()>().await;
            }
        });
        world.run_for(Duration::from_millis(50));
        let (log, ear) = state.take().unwrap();
        world.set_capacity(machine, Some(world.disk_used(machine) + 60_000));
        let control = world.control();
        world.spawn_on(machine, async move {
            let mut end = 0;
            let refused = loop {
                let batch = batch_of(end, 3000, wall_clock().0);
                match log.append(
                    batch,
                    flowstone_batch::Origin::Client,
                    LeaderEpoch(0),
                    wall_clock(),
                ) {
                    Ok(_) => end += 1,
                    Err(error) => break error,
                }
                sleep(Duration::from_millis(1)).await;
            };
            assert!(matches!(refused, AppendError::DiskFull), "{refused}");
            assert!(matches!(log.state(), LogState::Full));
            assert!(ear.stalled.get());
            let durable = log.durable_end();
            assert!(durable > Offset(0));
            let read = read_all_below(&log, durable).await.unwrap();
            assert_eq!(numbers(&read).len() as i64, durable.0, "reading goes on");
            control.set_capacity(machine, None);
            ear.until_durable(end as i64).await;
            assert!(matches!(log.state(), LogState::Online));
            append(&log, batch_of(end, 100, wall_clock().0));
            ear.until_durable(end as i64 + 1).await;
            check(&log, end as i64 + 1).await;
        });
        world.run_for(Duration::from_secs(5));
        world.power_loss(machine);
    }
}
