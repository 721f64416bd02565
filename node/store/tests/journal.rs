//! The journal on a simulated disk: what it brings, that its failure costs nothing, what it leaves.

mod common;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use flowstone_log::journal::{Entry, FRAME_ALIGN_BYTES, Frame, checksum};
use flowstone_log::names;
use flowstone_runtime::sim::{DiskOperation, MachineId, World};
use flowstone_runtime::{fs, sleep, wall_clock};
use flowstone_store::{Durability, LogConfig, LogDir, StorageError, Store, StoreConfig};
use flowstone_types::Offset;

const DATA: &str = "/data";
const LOGS: usize = 8;

/// How far every log is acknowledged, and how many groups went to the journal.
#[derive(Default)]
struct Told {
    acknowledged: Cell<i64>,
    journaled: Cell<u64>,
}

async fn store() -> (LogDir, Store) {
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

/// How many batches a log has on the machine below: the last log ends before the others.
const fn batches_of(index: usize) -> i64 {
    if index + 1 < LOGS { 60 } else { 50 }
}

/// A machine that was killed with all of its logs in one journal: the journal's path, and its frames by position.
fn killed(world: &World, machine: MachineId) -> (PathBuf, Vec<(usize, Frame)>) {
    world.boot(machine, 1, |_| async {
        let large = |config: &mut StoreConfig| config.journal_bytes = 16 << 20;
        let (_, store) = store_with(Path::new(DATA), large).await;
        let mut logs = Vec::new();
        for index in 0..LOGS {
            logs.push(open_at(&store, "topic", index as i32, LogConfig::default()).await);
        }
        for round in 0..60 {
            let has_more = |index: usize| round < batches_of(index);
            let under_way = || logs.iter().enumerate().filter(|(index, _)| has_more(*index));
            under_way().for_each(|(_, (log, _))| {
                append(log, batch_of(round as u64, 500, wall_clock().0));
            });
            for (_, (_, ear)) in under_way() {
                ear.until_durable(round + 1).await;
            }
        }
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_secs(5));
    world.crash(machine);
    let is_journal = |path: &Path| path.to_string_lossy().contains(names::JOURNAL);
    let files = world.files(machine);
    let (path, bytes) = files.iter().find(|(path, _)| is_journal(path)).unwrap();
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(frame) = Frame::parse(&bytes[at..]) {
        let len = frame.len.next_multiple_of(FRAME_ALIGN_BYTES);
        frames.push((at, frame));
        at += len;
    }
    assert!(frames.len() > 30 && frames[0].1.entries.is_empty());
    (path.clone(), frames)
}

fn flip(world: &World, machine: MachineId, path: &Path, at: usize) {
    let byte = world.files(machine)[path][at] ^ 16;
    world.corrupt(machine, path, at as u64, &[byte]);
}

/// The next life, to its end: how far each log reaches, or why it is not opened; or why the directory is not.
fn next_life(
    world: &World,
    machine: MachineId,
) -> Result<Vec<Result<i64, StorageError>>, StorageError> {
    let found = Rc::new(RefCell::new(None));
    let place = found.clone();
    world.boot(machine, 1, move |_| {
        let place = place.clone();
        async move {
            let dir = match LogDir::open(DATA, flowstone_types::Uuid(77)).await {
                Ok(dir) => dir,
                Err(error) => {
                    *place.borrow_mut() = Some(Err(error));
                    return;
                }
            };
            let store = Store::new(StoreConfig::new(vec![dir]));
            let mut logs = Vec::new();
            for index in 0..LOGS {
                let opened = try_open(&store, "topic", index as i32, LogConfig::default()).await;
                logs.push(opened.map(|(log, _)| log.log_end().0));
            }
            *place.borrow_mut() = Some(Ok(logs));
        }
    });
    let control = world.control();
    world.run(async move { control.ended(machine).await });
    found.take().unwrap()
}

/// A bit in the bytes of one log: that one is offline, in this start and in the next, which finds no journal any more.
#[test]
fn damage_in_a_journal_takes_the_log_offline_that_lacks_what_it_had() {
    for number in [1, 12, 29, usize::MAX] {
        let world = World::new(3);
        let machine = world.machine("node");
        let (path, frames) = killed(&world, machine);
        let of_last_log = |(_, frame): &(usize, Frame)| frame.entries.len() == LOGS;
        // Or the last of its log's, where no later piece shows the hole.
        let number = number.min(frames.iter().rposition(of_last_log).unwrap());
        let (at, frame) = &frames[number];
        let hit =
            if number < 30 { &frame.entries[LOGS / 2] } else { frame.entries.last().unwrap() };
        flip(&world, machine, &path, at + hit.bytes.end - 1);
        for _ in 0..2 {
            for (index, log) in next_life(&world, machine).unwrap().into_iter().enumerate() {
                if index as i32 == hit.index {
                    let is_right = matches!(&log, Err(StorageError::DamagedLog { known, .. }) if *known >= hit.end.unwrap());
                    assert!(is_right, "frame {number}: {log:?}");
                } else {
                    assert_eq!(log.unwrap(), batches_of(index), "frame {number}, log {index}");
                }
            }
            assert_eq!(journals(&world, machine), 0);
            world.crash(machine);
        }
    }
}

/// A bit in the heads of a frame: any log may lack something. Nothing is opened or changed until an operator says so.
#[test]
fn damage_that_does_not_tell_whose_it_is_refuses_the_directory() {
    for number in [1, 12, 29] {
        let world = World::new(3);
        let machine = world.machine("node");
        let (path, frames) = killed(&world, machine);
        let (at, frame) = &frames[number];
        flip(&world, machine, &path, at + 60);
        let before = world.files(machine);
        for _ in 0..2 {
            match next_life(&world, machine) {
                Err(error @ StorageError::DamagedJournal { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains(&format!("at byte {at}")), "{said}");
                    assert!(said.contains("flowstone-cut-allowed"), "{said}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(world.files(machine), before);
            world.crash(machine);
        }
        world.boot(machine, 1, move |_| async move {
            fs::write_atomic(&Path::new(DATA).join(names::CUT_ALLOWED), Vec::new()).await.unwrap();
        });
        let control = world.control();
        world.run(async move { control.ended(machine).await });
        // What is whole is there; of the others it shows, since later frames had more of them.
        for (index, log) in next_life(&world, machine).unwrap().into_iter().enumerate() {
            if frame.entries.iter().any(|entry| entry.index == index as i32) {
                assert!(matches!(log, Err(StorageError::DamagedLog { .. })), "{log:?}");
            } else {
                assert_eq!(log.unwrap(), batches_of(index));
            }
        }
        assert!(!world.files(machine).contains_key(&Path::new(DATA).join(names::CUT_ALLOWED)));
    }
}

/// The append that was in flight when the power went looks the same: what it brought is not there, and nothing is refused.
#[test]
fn a_bit_in_the_last_frame_of_a_journal_reads_as_torn() {
    for in_heads in [true, false] {
        let world = World::new(3);
        let machine = world.machine("node");
        let (path, frames) = killed(&world, machine);
        let (at, frame) = frames.last().unwrap();
        let within = if in_heads { 60 } else { frame.entries[0].bytes.start };
        flip(&world, machine, &path, at + within);
        let logs = next_life(&world, machine).unwrap();
        let ends: Vec<i64> = logs.into_iter().map(Result::unwrap).collect();
        let expected = |index| batches_of(index) - i64::from(index + 1 < LOGS);
        assert!(ends.into_iter().eq((0..LOGS).map(expected)), "{} entries", frame.entries.len());
    }
}

/// In the journal, everything below what is acknowledged is durable: what a weaker mode left unflushed goes first.
#[test]
fn a_log_that_becomes_flushed_has_all_before_it_on_disk_when_it_acknowledges() {
    for seed in 0..10 {
        let (world, told) = (World::new(seed), Rc::new(Told::default()));
        let machine = world.machine("node");
        let acknowledged = told.clone();
        world.boot(machine, 1, move |_| {
            let told = acknowledged.clone();
            async move {
                let (_, store) = store().await;
                append_rounds(&store, &Told::default(), 20).await; // There is a journal now.
                let flushed = LogConfig::default();
                let written = LogConfig { durability: Durability::Written, ..flushed.clone() };
                let (log, ear) = open_at(&store, "weaker", 0, written).await;
                for number in 0..40 {
                    append(&log, batch_of(number, 500, wall_clock().0));
                    ear.until_durable(number as i64 + 1).await;
                }
                log.reconfigure(Arc::new(flushed));
                append(&log, batch_of(40, 500, wall_clock().0));
                ear.until_durable(41).await;
                told.acknowledged.set(41);
                std::future::pending::<()>().await;
            }
        });
        while told.acknowledged.get() == 0 {
            world.run_for(Duration::from_micros(100));
        }
        world.power_loss(machine);
        let found = Rc::new(Cell::new(0));
        let ends = found.clone();
        world.boot(machine, 1, move |_| {
            let found = ends.clone();
            async move {
                let (_, store) = store().await;
                let (log, _) = open_at(&store, "weaker", 0, LogConfig::default()).await;
                found.set(log.log_end().0);
                std::future::pending::<()>().await;
            }
        });
        world.run_for(Duration::from_secs(5));
        assert_eq!(found.get(), told.acknowledged.get(), "seed {seed}");
    }
}

/// What a frame brings, as builds before the second version of the format wrote it: whole pages.
fn first_version(frame: &Frame, bytes: &[u8], number: u64) -> Vec<u8> {
    let entry_bytes = |entry: &Entry| 46 + entry.topic.len();
    let mut at = 36 + frame.entries.iter().map(entry_bytes).sum::<usize>();
    let (mut heads, mut batches) = (Vec::new(), Vec::new());
    for entry in &frame.entries {
        heads.extend(entry.topic_id.to_bytes());
        heads.extend(entry.index.to_be_bytes());
        heads.extend(entry.segment.0.to_be_bytes());
        heads.extend(entry.position.to_be_bytes());
        heads.extend((at as u32).to_be_bytes());
        heads.extend((entry.bytes.len() as u32).to_be_bytes());
        heads.extend((entry.topic.len() as u16).to_be_bytes());
        heads.extend(entry.topic.as_bytes());
        batches.extend(&bytes[entry.bytes.clone()]);
        at += entry.bytes.len();
    }
    let mut covered = (at as u32).to_be_bytes().to_vec();
    covered.extend(frame.stamp.generation.to_be_bytes());
    covered.extend(number.to_be_bytes());
    covered.extend((frame.entries.len() as u32).to_be_bytes());
    covered.extend(heads.into_iter().chain(batches));
    let checksum = checksum(&covered).to_be_bytes();
    let mut whole = [&b"FSJRNL\0\x01"[..], &checksum, &covered].concat();
    assert_eq!(whole.len(), at);
    whole.resize(at.next_multiple_of(FRAME_ALIGN_BYTES), 0);
    whole
}

/// A daemon of an earlier build was killed, and this one starts on what it left.
#[test]
fn a_journal_of_the_first_version_is_redone() {
    let world = World::new(3);
    let machine = world.machine("node");
    let (path, frames) = killed(&world, machine);
    let journal = world.files(machine)[&path].clone();
    let old = (0..).zip(&frames[1..]).flat_map(|(number, (at, frame))| {
        first_version(frame, &journal[*at..*at + frame.len], number)
    });
    let mut old: Vec<u8> = old.collect();
    old.resize(journal.len(), 0);
    world.corrupt(machine, &path, 0, &old);
    for (index, log) in next_life(&world, machine).unwrap().into_iter().enumerate() {
        assert_eq!(log.unwrap(), batches_of(index));
    }
}
