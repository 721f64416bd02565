//! Disks that fail, rot or live under a clock that jumps, on a simulated machine. One test for each
//! scenario of that number (S6, S14, S16, S17), with what must come of it.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use common::*;
use flowstone_batch::Origin;
use flowstone_runtime::sim::{DiskOperation, Image, World};
use flowstone_runtime::{now, sleep, wall_clock};
use flowstone_store::{AppendError, LogConfig, LogDir, LogState, ReadError, Store};
use flowstone_types::{LeaderEpoch, Offset, Uuid};

const DATA: &str = "/data";
const LOGS: i32 = 3;
/// Batches of each log.
const COUNT: i64 = 30;

async fn store() -> (LogDir, Store) {
    try_store().await.unwrap()
}

async fn try_store() -> Result<(LogDir, Store), flowstone_store::StorageError> {
    let dir = LogDir::open(DATA, Uuid(77)).await?;
    let mut config = flowstone_store::StoreConfig::new(vec![dir.clone()]);
    (config.memory_bytes, config.journal_bytes) = (64 << 10, 1 << 20);
    (config.retention_check_ms, config.checkpoint_ms) = (20, 20);
    Ok((dir, Store::new(config)))
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 8_000, index_interval_bytes: 1_000, ..LogConfig::default() }
}

/// One life on one shard: what it does, up to its end.
fn live_in<F: Future<Output = ()> + 'static>(world: &World, life: impl Fn(World2) -> F + 'static) {
    let machine = world.machine("node");
    let control = world.control();
    world.boot(machine, 1, move |_| life((control.clone(), machine)));
    let control = world.control();
    world.run(async move { control.ended(machine).await });
}

type World2 = (flowstone_runtime::sim::Control, flowstone_runtime::sim::MachineId);

async fn fill(store: &Store, index: i32) -> (flowstone_store::Log, Rc<Ear>) {
    let (log, ear) = open_at(store, "topic", index, config()).await;
    while log.log_end() < Offset(COUNT) {
        let number = log.log_end().0;
        append(&log, batch(number as u64, 600));
        ear.until_durable(number + 1).await;
    }
    (log, ear)
}

/// S14: a flush fails once and would say yes the next time (fsyncgate). What it was to cover is never
/// acknowledged, nor anything behind it, nor anything in the directory: what another log had written may be gone
/// with the disk's cache. All of it is offline, and a new log is, too; a second directory goes on.
#[test]
fn s14_after_a_flush_that_failed_once_its_directory_says_yes_to_nothing() {
    live_in(&World::new(1), |(control, machine)| async move {
        let (_, store) = store().await;
        let (log, ear) = fill(&store, 0).await;
        let (other, other_ear) = fill(&store, 1).await;
        let dir = LogDir::open("/second", Uuid(78)).await.unwrap();
        let second = Store::new(flowstone_store::StoreConfig::new(vec![dir.clone()]));
        let (elsewhere, elsewhere_ear) = fill(&second, 0).await;
        control.fail_next(machine, DiskOperation::Sync, "/data/topic-0/", 1);
        append(&log, batch(30, 300_000)); // Too large for the journal: its segment is flushed.
        append(&other, batch(30, 10));
        ear.until(|ear| ear.failed.borrow().is_some()).await;
        other_ear.until(|ear| ear.failed.borrow().is_some()).await;
        sleep(Duration::from_mins(2)).await;
        for (log, ear) in [(&log, &ear), (&other, &other_ear)] {
            assert_eq!((ear.durable.get(), log.durable_end()), (COUNT, Offset(COUNT)));
            assert!(matches!(log.state(), LogState::Failed(_)));
            let refused = log.append(batch(31, 10), Origin::Client, LeaderEpoch(0), wall_clock());
            assert!(matches!(refused, Err(AppendError::Offline(_))), "{refused:?}");
            let read = log.read(Offset(0), Offset(COUNT), 1 << 20, true).await;
            assert!(matches!(read, Err(ReadError::Storage(_))), "{read:?}");
        }
        assert!(try_open(&store, "topic", 2, config()).await.is_err());
        assert!(store.shutdown().await.is_err());
        append(&elsewhere, batch(30, 300_000));
        elsewhere_ear.until_durable(COUNT + 1).await;
        assert!(dir.failure().is_none());
    });
}

/// S14, S16: the page in which a log goes on cannot be read. That log takes no more; but a read that fails says nothing
/// of what others wrote, and its directory stays online.
#[test]
fn s16_a_read_that_fails_on_the_way_of_a_write_takes_no_directory_offline() {
    live_in(&World::new(1), |(control, machine)| async move {
        let (dir, store) = store().await;
        fill(&store, 0).await;
        fill(&store, 1).await;
        store.shutdown().await.unwrap();
        dir.close(-1).await.unwrap();
        let (dir, store) = self::store().await;
        let (log, ear) = open_at(&store, "topic", 0, config()).await;
        let (other, other_ear) = open_at(&store, "topic", 1, config()).await;
        control.fail_next(machine, DiskOperation::Read, "/data/topic-0/", 1);
        append(&log, batch(30, 10));
        ear.until(|ear| ear.failed.borrow().is_some()).await;
        append(&other, batch(30, 10));
        other_ear.until_durable(COUNT + 1).await;
        assert!(dir.failure().is_none());
    });
}

/// S16: a cold segment cannot be read once. That fetch fails, with an error that names the file; the
/// other partitions' and the next one of this go on, and the log takes writes.
#[test]
fn s16_a_cold_segment_that_cannot_be_read_fails_that_fetch_only() {
    live_in(&World::new(2), |(control, machine)| async move {
        let (_, store) = store().await;
        let (log, ear) = fill(&store, 0).await;
        let (other, _) = fill(&store, 1).await;
        assert!(log.segment_count() > 2);
        sleep(Duration::from_secs(1)).await;
        let end = log.log_end();
        control.fail_next(machine, DiskOperation::Read, "topic-0/00000000000000000000", 1);
        let failed = log.read(Offset(2), end, 1, true).await;
        let Err(ReadError::Storage(error)) = failed else { panic!("it was read: {failed:?}") };
        assert!(error.to_string().contains("topic-0/00000000000000000000"), "{error}");
        assert_eq!(numbers(&read_all(&other, 2_000).await).len() as i64, COUNT);
        assert_eq!(numbers(&log.read(Offset(2), end, 1, true).await.unwrap().parts.concat()), [2]);
        append(&log, batch(30, 10));
        ear.until_durable(COUNT + 1).await;
    });
}

/// A disk with three logs, ended by a kill (with a journal) or cleanly.
fn written(cleanly: bool) -> Image {
    let world = World::new(3);
    let machine = world.machine("node");
    world.boot(machine, 1, move |_| async move {
        let (dir, store) = store().await;
        // In turns, so that their groups go to the journal.
        let mut logs = Vec::new();
        for index in 0..LOGS {
            logs.push(open_at(&store, "topic", index, config()).await);
        }
        for number in 0..COUNT {
            for (log, _) in &logs {
                append(log, batch(number as u64, 600));
            }
            for (_, ear) in &logs {
                ear.until_durable(number + 1).await;
            }
        }
        store.tick(wall_clock()).await;
        if cleanly {
            store.shutdown().await.unwrap();
            dir.close(-1).await.unwrap();
        }
    });
    let control = world.control();
    world.run_for(Duration::from_secs(1));
    if control.is_running(machine) {
        world.crash(machine);
    }
    let image = world.image(machine);
    let kept = image.questions().iter().map(|count| count - 1).collect::<Vec<_>>();
    image.answered(&kept, None)
}

/// What came of a flipped bit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// All is served.
    Whole,
    /// The start is refused.
    Refused,
    /// A log is offered from a later start, or up to an earlier end.
    Less,
    /// A read is refused.
    ReadRefused,
    /// A read is answered with nothing, where there is something.
    Nothing,
}

fn start_on(image: &Image, path: &Path, at: u64, byte: u8) -> Outcome {
    let world = World::new(4);
    let machine = world.machine("node");
    world.insert_disk(machine, image);
    world.corrupt(machine, path, at, &[byte]);
    let place = Rc::new(RefCell::new(None));
    let kept = place.clone();
    world.boot(machine, 1, move |_| {
        let kept = kept.clone();
        async move {
            let outcome = look().await;
            *kept.borrow_mut() = Some(outcome);
        }
    });
    let control = world.control();
    world.run(async move { control.ended(machine).await });
    place.take().unwrap_or_else(|| panic!("{} byte {at} is {byte}: a panic", path.display()))
}

/// Opens all, and reads all: what is served is what was sent, at its offset, or nothing is.
async fn look() -> Outcome {
    let Ok((_, store)) = try_store().await else { return Outcome::Refused };
    let mut outcome = Outcome::Whole;
    for index in 0..LOGS {
        let Ok((log, _)) = try_open(&store, "topic", index, config()).await else {
            return Outcome::Refused;
        };
        let (mut next, end) = (log.log_start(), log.log_end());
        if next > Offset::ZERO || end < Offset(COUNT) {
            outcome = outcome.max(Outcome::Less);
        }
        while next < end {
            match log.read(next, end, 1, true).await {
                Ok(read) => {
                    let numbers = numbers(&read.parts.concat());
                    if numbers.is_empty() {
                        outcome = outcome.max(Outcome::Nothing);
                    } else {
                        assert_eq!(numbers, [next.0 as u64], "served as good");
                    }
                }
                Err(_) => outcome = outcome.max(Outcome::ReadRefused),
            }
            next = next.plus(1);
        }
    }
    outcome
}

/// S17: one bit of one file turned, before a start. It is never served as good. What the node does:
///
/// - a batch of the last segment after a clean stop, or below the recovery point: the log is offline, as it is;
/// - after a kill, one behind the recovery point: its log is cut there, and says so;
/// - a batch that is sealed: the reads of it fail; the first of a segment, whose base offset is not under its CRC,
///   may read as nothing;
/// - indexes, producer snapshots, leader epochs, the clean-stop marker: built again, nothing is lost;
/// - `partition.metadata`: that partition is offline, as it is, though the bit may have made another id of it;
/// - a journal's frame: its log is offline, or nothing is started where nobody knows whose it was; in the last
///   append, what only that had is not there, as if it had been torn;
/// - the checkpoints of offsets are Kafka's, without a checksum: one that does not parse is ignored and
///   more is read; a recovery point that parses is only a hint; a log start that parses is believed.
#[test]
fn s17_a_flipped_bit_at_rest_is_never_served_as_good() {
    let mut seen: BTreeMap<(bool, String, Outcome), u32> = BTreeMap::new();
    for cleanly in [false, true] {
        let image = written(cleanly);
        let mut done: BTreeMap<String, u32> = BTreeMap::new();
        for (path, bytes) in image.files() {
            let name = kind(&path);
            // Some files of each kind, some bits of each file.
            let files = done.entry(name.clone()).or_default();
            *files += 1;
            if *files > 3 {
                continue;
            }
            // Most of a journal's file is zeros that were never written over.
            let used = bytes.iter().rposition(|byte| *byte > 0).map_or(bytes.len(), |at| at + 1);
            let step = (used / 12).max(1);
            for at in (0..used).step_by(step) {
                let at = if at == 0 { 0 } else { at - at % 2 + (at / step) % 2 }.min(used - 1);
                let byte = bytes[at] ^ (1 << (at % 8));
                let outcome = start_on(&image, &path, at as u64, byte);
                *seen.entry((cleanly, name.clone(), outcome)).or_default() += 1;
            }
        }
    }
    let may_be = |cleanly: bool, name: &str| -> &[Outcome] {
        use Outcome::{Less, Nothing, ReadRefused, Refused, Whole};
        match name {
            "log" if cleanly => &[Whole, ReadRefused, Nothing, Refused],
            "log" => &[Whole, Less, ReadRefused, Nothing, Refused],
            "partition.metadata" | "recovery-point-offset-checkpoint" => &[Whole, Refused],
            "log-start-offset-checkpoint" | "journal" => &[Whole, Less, Refused],
            _ => &[Whole],
        }
    };
    for ((cleanly, name, outcome), count) in &seen {
        let expected = may_be(*cleanly, name).contains(outcome);
        assert!(expected, "clean {cleanly}, {name}: {outcome:?}, {count} times; {seen:#?}");
    }
    for name in ["log", "index", "timeindex", "snapshot", "journal", "leader-epoch-checkpoint"] {
        assert!(seen.keys().any(|(_, seen, _)| seen == name), "no {name} was tried: {seen:#?}");
    }
    let came = |name: &str, outcome| seen.keys().any(|(_, seen, o)| seen == name && *o == outcome);
    assert!(came("log", Outcome::Refused) && came("log", Outcome::ReadRefused), "{seen:#?}");
    assert!(
        came("journal", Outcome::Refused)
            && came("journal", Outcome::Less)
            && came("partition.metadata", Outcome::Refused),
        "{seen:#?}"
    );
}

fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    if name.starts_with("flowstone-journal-") {
        return "journal".into();
    }
    match PathBuf::from(&name).extension() {
        Some(end) if name.starts_with("0000") => end.to_string_lossy().into_owned(),
        _ => name,
    }
}

/// S6: the wall clock jumps by an hour, forth and back, and strobes. Acknowledgements, timers and
/// recovery go on; retention deletes nothing that is younger than it says, as the clock that stamped
/// it counts, and in the end what is left is whole.
#[test]
fn s6_no_jump_of_the_wall_clock_loses_or_stops_anything() {
    const HOUR_MS: i64 = 3_600_000;
    for seed in 0..5 {
        let world = World::new(seed);
        live_in(&world, |(control, machine)| async move {
            let kept = LogConfig { retention_ms: 3 * HOUR_MS, ..config() };
            let (dir, store) = store().await;
            let (log, ear) = open_at(&store, "topic", 0, kept.clone()).await;
            for number in 0..200 {
                let skew = match number % 40 {
                    0..20 => [0, HOUR_MS, -HOUR_MS][number as usize / 5 % 3],
                    at => [HOUR_MS, -HOUR_MS][at as usize % 2], // A strobe.
                };
                control.set_wall_clock_skew(machine, skew);
                let before = now();
                append(&log, batch(number, 300));
                ear.until_durable(number as i64 + 1).await;
                sleep(Duration::from_millis(100)).await;
                store.tick(wall_clock()).await;
                let took = now().since(before);
                assert!(took < Duration::from_secs(2), "{took:?}: a timer followed the wall clock");
            }
            assert_eq!(log.log_start(), Offset::ZERO, "retention took what is new");
            assert_eq!(numbers(&read_all(&log, 1 << 20).await), (0..200).collect::<Vec<_>>());
            control.set_wall_clock_skew(machine, -HOUR_MS);
            store.shutdown().await.unwrap();
            dir.close(-1).await.unwrap();
            // The next start is in the past of what it finds.
            let (_, store) = self::store().await;
            let (log, _) = open_at(&store, "topic", 0, kept).await;
            store.tick(wall_clock()).await;
            assert_eq!(numbers(&read_all(&log, 1 << 20).await), (0..200).collect::<Vec<_>>());
        });
    }
}
