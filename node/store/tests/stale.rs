//! Stale bytes: what an earlier use left in blocks that are used again never passes for what is new.
//!
//! Ours are used again in three places: a journal's files, which take turns; a topic's directory that
//! another topic of the same name gets; and a segment that recovery cut and that grows again over the
//! same positions. In each test the new batches have the very offsets, sizes, producers and sequences of
//! the old ones, and the power is cut at every moment, in many ways (what a disk may leave is written
//! down in tools/simulator/src/crash_points/mod.rs).

mod common;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use flowstone_batch::{BatchBuilder, Checked};
use flowstone_log::journal::{Content, FRAME_HEAD_BYTES, Place, Stamp, checksum, seal_frame};
use flowstone_log::names;
use flowstone_runtime::sim::{Image, MachineId, Moment, Rng, World};
use flowstone_runtime::{PAGE_BYTES, fs, random_u64, sleep, spawn};
use flowstone_store::{Log, LogConfig, LogSpec, Store};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, ProducerId, Timestamp, Uuid};

const DATA: &str = "/data";
const LOGS: i32 = 4;
const BYTES: usize = 900;
/// Makes ids that differ as random ones do.
const FAR_APART: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// Ways in which each moment is ended, besides all lost and nothing lost.
const DRAWN: u64 = 4;

/// The batch at `offset`, of the use `life` of it: all that differs between two lives is the value.
fn batch_at(offset: i64, life: u8) -> Checked {
    let mut batch = BatchBuilder::new(Offset::ZERO).producer(ProducerId(7), 0, offset as i32);
    let number = offset as u64 * 256 + u64::from(life);
    batch.push(
        Timestamp(1_763_683_200_000),
        Some(&number.to_be_bytes()),
        Some(&[life; BYTES]),
        &[],
    );
    checked(batch.build())
}

async fn store() -> Store {
    let change = |config: &mut flowstone_store::StoreConfig| {
        config.journal_bytes = 4 * (28 << 10); // Each file takes a few groups, and is used again.
        config.memory_bytes = 64 << 10;
    };
    store_with(Path::new(DATA), change).await.1
}

async fn open_life(store: &Store, index: i32, life: u8) -> (Log, Rc<Ear>) {
    let ear = Rc::new(Ear::default());
    let spec = LogSpec {
        topic: "topic".into(),
        id: PartitionId { topic: Uuid(u128::from(life).wrapping_mul(FAR_APART)), index },
        config: Arc::new(LogConfig::default()),
        leader_epoch: LeaderEpoch(0),
        whereabouts: flowstone_store::Whereabouts::Untold,
    };
    let log = store.open(spec, ear.clone()).await.unwrap();
    ear.durable.set(log.durable_end().0);
    (log, ear)
}

/// Boots, does it, and dies; `then` is told of the machine before it dies.
fn live_once<F: Future<Output = ()> + 'static>(
    world: &World,
    machine: MachineId,
    life: impl Fn() -> F + 'static,
) {
    let over = Rc::new(Cell::new(false));
    let told = over.clone();
    let life = Rc::new(life);
    world.boot(machine, 1, move |_| {
        let (told, life) = (told.clone(), life.clone());
        async move {
            life().await;
            told.set(true);
            std::future::pending::<()>().await;
        }
    });
    for _ in 0..10_000 {
        if over.get() {
            break;
        }
        world.run_for(Duration::from_millis(5));
    }
    assert!(over.get(), "it came to an end");
    world.crash(machine);
}

/// The disks that power cuts at this moment leave.
fn endings(moment: &Moment, rng: &mut Rng) -> Vec<Image> {
    let image = moment.image();
    let questions = image.questions();
    let mut all = vec![
        image.answered(&vec![0; questions.len()], None),
        image.answered(&questions.iter().map(|count| count - 1).collect::<Vec<_>>(), None),
    ];
    for _ in 0..DRAWN {
        let answers: Vec<u32> =
            questions.iter().map(|count| rng.below(u64::from(*count)) as u32).collect();
        let tear = rng.chance(0.5).then(|| rng.bits());
        all.push(image.answered(&answers, tear));
    }
    all
}

/// What the log of this life holds after a recovery from `image`: offsets, and lives.
fn found(image: &Image, index: i32, life: u8) -> Vec<(i64, u8)> {
    let world = World::new(1);
    let machine = world.machine("node");
    world.insert_disk(machine, image);
    let place = Rc::new(std::cell::RefCell::new(Vec::new()));
    let kept = place.clone();
    live_once(&world, machine, move || {
        let kept = kept.clone();
        async move {
            let store = store().await;
            let (log, _) = open_life(&store, index, life).await;
            let read = numbers(&read_all(&log, 1 << 20).await);
            *kept.borrow_mut() =
                read.iter().map(|number| ((number >> 8) as i64, *number as u8)).collect();
        }
    });
    place.take()
}

/// Appends up to `end` to every log, a group at a time, and tells how many all of them have.
async fn fill(logs: &[(Log, Rc<Ear>)], life: u8, end: i64, mark: impl Fn(i64)) {
    while logs[0].0.log_end().0 < end {
        for (log, _) in logs {
            append(log, batch_at(log.log_end().0, life));
        }
        for (log, ear) in logs {
            ear.until_durable(log.log_end().0).await;
        }
        mark(logs[0].0.log_end().0);
    }
}

/// A journal's files are used again, by a topic with the name, the offsets, the sizes and the producers of
/// one that was deleted: the frames that its uses left behind the new ones are not taken for them.
#[test]
fn a_topic_made_again_gets_nothing_of_the_first_from_segments_or_journal() {
    let world = World::new(3);
    let machine = world.machine("node");
    let control = world.control();
    live_once(&world, machine, move || {
        let control = control.clone();
        async move {
            let store = store().await;
            let mut logs = Vec::new();
            for index in 0..LOGS {
                logs.push(open_life(&store, index, 1).await);
            }
            fill(&logs, 1, 60, |_| ()).await;
            assert!(store.usage().commits.journaled > 30, "the journal turned over");
            control.record(machine);
            control.mark(machine, 1_000); // Being deleted: the old one may be there, or nothing.
            for (log, _) in logs.drain(..) {
                store.delete(log).await.unwrap();
            }
            for index in 0..LOGS {
                logs.push(open_life(&store, index, 2).await);
            }
            let before = store.usage().commits.journaled;
            fill(&logs, 2, 12, |end| control.mark(machine, end as u64)).await;
            assert!(store.usage().commits.journaled > before, "through the same files");
        }
    });
    let moments = world.recorded(machine);
    drop(world); // Another one begins.
    let mut rng = Rng::new(5);
    let (mut tried, mut most) = (0, 0);
    for moment in moments.iter().step_by(3) {
        let acknowledged = if moment.mark == 1_000 { 0 } else { moment.mark as i64 };
        for image in endings(moment, &mut rng) {
            let read = found(&image, 1, 2);
            assert!(read.len() as i64 >= acknowledged, "{read:?}, {acknowledged} acknowledged");
            assert!(
                read.iter().all(|(_, life)| *life == 2),
                "an old batch for a new one: {read:?}"
            );
            (tried, most) = (tried + 1, most.max(read.len()));
        }
    }
    assert!(tried > 300 && most == 12, "{tried} disks, at most {most} batches");
}

/// A batch was damaged and those behind it were not, and an operator gave them up, so recovery cut them off. What
/// is appended then has their sizes: they do not come back behind it. Nor do they out of a journal that the
/// first process removed before it was killed, which a power cut may undo.
#[test]
fn batches_behind_a_cut_do_not_come_back_when_the_segment_grows_over_them() {
    let world = World::new(4);
    let machine = world.machine("node");
    live_once(&world, machine, || async {
        let store = store().await;
        let logs = [open_life(&store, 0, 1).await];
        fill(&logs, 1, 40, |_| ()).await;
        store.shutdown().await.unwrap(); // All of it is in the segment.
        let allowed = Path::new("/data/topic-0").join(names::CUT_ALLOWED);
        fs::write_atomic(&allowed, Vec::new()).await.unwrap();
    });
    let path = Path::new("/data/topic-0/00000000000000000000.log");
    let batch = batch_at(0, 1).bytes.len() as u64;
    world.corrupt(machine, path, 20 * batch + 100, b"torn");
    let control = world.control();
    world.record(machine);
    live_once(&world, machine, move || {
        let control = control.clone();
        async move {
            let store = store().await;
            let mut opened = open_life(&store, 0, 1).await;
            assert_eq!(opened.0.log_end(), Offset(20));
            control.mark(machine, 20);
            // What is new says so; it is in the same topic.
            for end in 21..26 {
                append(&opened.0, batch_at(end - 1, 2));
                opened.1.until_durable(end).await;
                control.mark(machine, end as u64);
            }
            opened.1 = Rc::default();
        }
    });
    let moments = world.recorded(machine);
    drop(world);
    let mut rng = Rng::new(6);
    let mut tried = 0;
    for moment in &moments {
        for image in endings(moment, &mut rng) {
            let read = found(&image, 0, 1);
            let right = (0..).map(|offset| (offset, if offset < 20 { 1 } else { 2 }));
            assert!(read.len() >= moment.mark.max(20) as usize, "{read:?}");
            assert!(read.len() <= 25, "{read:?}");
            assert!(read.iter().copied().eq(right.take(read.len())), "{read:?}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried} disks");
}

/// A tick that began before a topic was deleted ended after it was made again, and wrote the old one's
/// log start into the checkpoints under the new one's name: a power cut then had recovery drop what was
/// acknowledged.
#[test]
fn a_tick_that_a_deletion_overtakes_does_not_bring_back_the_old_offsets() {
    for seed in 0..20 {
        let world = World::new(seed);
        let machine = world.machine("node");
        live_once(&world, machine, || async {
            let store = store().await;
            let mut logs = vec![open_life(&store, 0, 1).await];
            fill(&logs, 1, 10, |_| ()).await;
            logs[0].0.advance_log_start(Offset(5)).await.unwrap();
            let ticking = store.clone();
            spawn(async move {
                for second in 0.. {
                    ticking.tick(Timestamp(second * 100_000)).await; // All is due.
                    sleep(Duration::from_micros(50)).await;
                }
            });
            sleep(Duration::from_micros(random_u64() % 3_000)).await;
            store.delete(logs.pop().unwrap().0).await.unwrap();
            logs.push(open_life(&store, 0, 2).await);
            fill(&logs, 2, 3, |_| ()).await;
        });
        let image = world.image(machine);
        drop(world);
        let read = found(&image, 0, 2);
        assert!(read.len() >= 3 && read[0] == (0, 2), "seed {seed}: {read:?}");
    }
}

/// What an earlier use of a journal's file left behind the frames of the newest one is not redone, though
/// it is whole, follows them, and has the number that would be next.
///
/// No history shows this: an earlier use's pieces are all in their segments before the file is used again,
/// where redoing them changes nothing. Whoever once rewrites segments (compaction) will need it.
#[test]
fn a_frame_of_an_earlier_use_is_not_redone() {
    for (second, expected) in [(7, 2), (8, 1)] {
        let world = World::new(6);
        let machine = world.machine("node");
        live_once(&world, machine, move || async move {
            drop(open_life(&store().await, 0, 1).await);
            let path = Path::new(DATA).join("topic-0").join("00000000000000000000.log");
            fs::write_atomic(&path, Vec::new()).await.unwrap();
            let (mut journal, mut position) = (Vec::new(), 0);
            for (offset, generation) in [(0, 7), (1, second)] {
                let mut batch = batch_at(offset, 1).bytes.to_vec();
                batch[..8].copy_from_slice(&offset.to_be_bytes()); // The base offset,
                batch[12..16].copy_from_slice(&0_i32.to_be_bytes()); // and the leader's epoch.
                let place = Place {
                    topic_id: Uuid(FAR_APART),
                    topic: "topic",
                    index: 0,
                    segment: Offset::ZERO,
                    position,
                };
                let mut frame = vec![0; FRAME_HEAD_BYTES];
                let from = FRAME_HEAD_BYTES + place.head_bytes();
                let (bytes, end) = (from..from + batch.len(), Offset(offset + 1));
                let content = Content { bytes, checksum: checksum(&batch), end };
                place.write_head(&content, |part| frame.extend_from_slice(part));
                let stamp = Stamp { generation, number: offset as u64, settled: 0 };
                seal_frame(&mut frame, from + batch.len(), stamp, 1);
                frame.extend_from_slice(&batch);
                frame.resize(frame.len().next_multiple_of(PAGE_BYTES), 0);
                position += batch.len() as u64;
                journal.append(&mut frame);
            }
            let name = Path::new(DATA).join(names::journal(1));
            fs::write_atomic(&name, journal).await.unwrap();
        });
        let image = world.image(machine);
        drop(world); // Another one begins.
        let read = found(&image, 0, 1);
        assert_eq!(read.len(), expected, "frames of the uses 7 and {second}: {read:?}");
    }
}
