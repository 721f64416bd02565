//! The journal on a simulated disk: what it brings, that its failure costs nothing, what it leaves.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use flowstone_runtime::sim::{DiskOperation, MachineId, World};
use flowstone_runtime::{sleep, wall_clock};
use flowstone_store::{LogConfig, Store};
use flowstone_types::Offset;

const DATA: &str = "/data";
const LOGS: usize = 8;

/// How far every log is acknowledged, and how many groups went to the journal.
#[derive(Default)]
struct Told {
    acknowledged: Cell<i64>,
    journaled: Cell<u64>,
}

async fn store() -> (flowstone_store::LogDir, Store) {
    store_with(Path::new(DATA), |config| config.journal_bytes = 1 << 20).await
}

/// One batch for each log at a time, acknowledged before the next.
async fn append_rounds(store: &Store, told: &Told, rounds: i64) {
    let mut logs = Vec::new();
    for index in 0..LOGS {
        let opened = open_at(store, "topic", index as i32, LogConfig::default()).await;
        assert!(opened.0.durable_end().0 >= told.acknowledged.get(), "acknowledged, and gone");
        let bytes = opened.0.read(Offset::ZERO, opened.0.log_end(), 16 << 20, true).await;
        let found = numbers(&bytes.unwrap().parts.concat());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        logs.push(opened);
    }
    for _ in 0..rounds {
        for (log, _) in &logs {
            append(log, batch_of(log.log_end().0 as u64, 500, wall_clock().0));
        }
        for (log, ear) in &logs {
            let end = log.log_end().0;
            ear.until(|ear| ear.durable.get() >= end || ear.failed.borrow().is_some()).await;
            if ear.failed.borrow().is_some() {
                return;
            }
        }
        let least = logs.iter().map(|(log, _)| log.durable_end().0).min();
        told.acknowledged.set(least.unwrap_or(0));
        told.journaled.set(store.usage().commits.journaled);
        sleep(Duration::from_millis(1)).await;
    }
}

fn journals(world: &World, machine: MachineId) -> usize {
    let is_journal = |path: &Path| path.to_string_lossy().contains("flowstone-journal-");
    world.files(machine).keys().filter(|path| is_journal(path)).count()
}

/// A life of so many rounds, which goes on until something ends it.
fn boot(world: &World, machine: MachineId, told: &Rc<Told>, rounds: i64) {
    let told = told.clone();
    world.boot(machine, 1, move |_| {
        let told = told.clone();
        async move {
            let (_, store) = store().await;
            append_rounds(&store, &told, rounds).await;
            std::future::pending::<()>().await;
        }
    });
}

/// The same, with time to come to the end of its rounds.
fn live_on(world: &World, machine: MachineId, told: &Rc<Told>, rounds: i64) {
    boot(world, machine, told, rounds);
    world.run_for(Duration::from_secs(5));
}

/// A life of so many rounds, and a clean stop.
fn live_and_stop(world: &World, machine: MachineId, told: &Rc<Told>, rounds: i64) {
    let told = told.clone();
    world.boot(machine, 1, move |_| {
        let told = told.clone();
        async move {
            let (dir, store) = store().await;
            append_rounds(&store, &told, rounds).await;
            store.shutdown().await.unwrap();
            dir.close(-1).await.unwrap();
        }
    });
    world.run_for(Duration::from_secs(5));
}

#[test]
fn groups_of_many_logs_are_durable_with_one_write_before_their_segments_are() {
    for seed in 0..10 {
        let (world, told) = (World::new(seed), Rc::new(Told::default()));
        let machine = world.machine("node");
        live_on(&world, machine, &told, 60);
        assert_eq!(told.acknowledged.get(), 60);
        assert!(told.journaled.get() > 30, "{} groups were journaled", told.journaled.get());
        assert!(journals(&world, machine) > 0);
        // Some of it is in no segment: a power cut must not take it.
        world.power_loss(machine);
        live_on(&world, machine, &told, 0);
        assert_eq!(journals(&world, machine), 0, "all of it is in the segments");
        // Doing it twice, or half: the same.
        world.crash(machine);
        live_on(&world, machine, &told, 60);
        world.power_loss(machine);
        boot(&world, machine, &told, 0);
        world.run_for(Duration::from_micros(world.random() % 20_000));
        world.power_loss(machine);
        live_on(&world, machine, &told, 1);
        assert_eq!(told.acknowledged.get(), 121);
    }
}

/// A synchronous write is a flush, too.
#[test]
fn a_journal_write_that_fails_ends_the_directory_and_what_was_acknowledged_stays() {
    for seed in 0..10 {
        let (world, told) = (World::new(seed), Rc::new(Told::default()));
        let machine = world.machine("node");
        boot(&world, machine, &told, 200);
        while told.journaled.get() < 20 {
            world.run_for(Duration::from_millis(1));
        }
        world.fail_next(machine, DiskOperation::Write, "flowstone-journal-", 1);
        world.run_for(Duration::from_secs(1));
        assert!(told.acknowledged.get() < 200, "a directory that failed is not believed again");
        world.power_loss(machine);
        live_on(&world, machine, &told, 0);
    }
}

#[test]
fn a_clean_stop_leaves_no_journal() {
    let world = World::new(7);
    let (machine, told) = (world.machine("node"), Rc::new(Told::default()));
    live_and_stop(&world, machine, &told, 60);
    assert!(told.journaled.get() > 30);
    assert!(!world.is_running(machine));
    assert_eq!(journals(&world, machine), 0);
    live_on(&world, machine, &told, 1);
    assert_eq!(told.acknowledged.get(), 61);
}

/// A clean stop moves the recovery point to the log's end, into the midst of the active segment: what
/// is journaled of that segment afterwards is redone all the same.
#[test]
fn what_is_journaled_behind_a_clean_stop_survives_a_power_cut() {
    for seed in 0..10 {
        let (world, told) = (World::new(seed), Rc::new(Told::default()));
        let machine = world.machine("node");
        live_and_stop(&world, machine, &told, 60);
        let before = told.journaled.replace(0);
        assert!(before > 30);
        live_on(&world, machine, &told, 60);
        assert!(told.journaled.get() > 30, "{} groups were journaled", told.journaled.get());
        assert_eq!(told.acknowledged.get(), 120);
        world.power_loss(machine);
        live_on(&world, machine, &told, 1);
        assert_eq!(told.acknowledged.get(), 121);
    }
}
