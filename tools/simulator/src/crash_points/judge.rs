//! What a recovery must find, and what it must leave.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use flowstone_batch::{
    BatchBuilder, Checked, Limits, Origin, Rules, batches, check, crc_ok, records,
};
use flowstone_runtime::sim::{Image, Moment, World};
use flowstone_runtime::wall_clock;
use flowstone_store::{Log, ReadError, StorageError};
use flowstone_types::{LeaderEpoch, Offset, ProducerId, Timestamp};

use super::story::{Known, Plan, Told, open_log, open_store};
use super::{Seeds, Way};

/// Batches that a recovered log takes where it lives on.
const GOES_ON_FOR: u32 = 2;
/// The boot that a judge is, above all that wrote.
const JUDGE: u32 = 1_000;

/// What a batch holds: who it is. Its size, its producer and its sequence follow from the partition and
/// the number alone, so a topic that is made again has the very same ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub life: u32,
    pub boot: u32,
    pub partition: u32,
    pub number: u32,
}

impl Record {
    /// The batch.
    pub fn batch(self, bytes: usize) -> Checked {
        let mut key = Vec::with_capacity(16);
        for part in [self.life, self.boot, self.partition, self.number] {
            key.extend_from_slice(&part.to_be_bytes());
        }
        let producer = ProducerId(i64::from(self.partition));
        let mut batch = BatchBuilder::new(Offset::ZERO).producer(producer, 0, self.number as i32);
        let value: Vec<u8> = key.iter().copied().cycle().take(bytes).collect();
        batch.push(Timestamp(1_763_683_200_000), Some(&key), Some(&value), &[]);
        let rules = Rules { segment_bytes: 1 << 30, ..Rules::default() };
        check(batch.build(), &rules, wall_clock()).expect("a good batch")
    }

    fn of(key: &[u8]) -> Option<Self> {
        let mut parts =
            key.chunks_exact(4).map(|part| u32::from_be_bytes(part.try_into().expect("4")));
        let mut next = || parts.next();
        Some(Self { life: next()?, boot: next()?, partition: next()?, number: next()? })
    }
}

/// What one recovery came to: where each log starts and ends.
type Ends = Vec<(i64, i64)>;

/// Recovers from `image`, and judges.
pub fn recover(
    plan: &Rc<Plan>,
    known: &[Known],
    image: &Image,
    seeds: &Seeds,
    way: Way,
) -> Vec<Moment> {
    let known: Rc<Vec<Known>> = Rc::new(known.to_vec());
    let (ends, left, moments) = once(plan, &known, image, seeds, way);
    match way {
        Way::Recorded => {}
        Way::Twice => {
            // Power fails at once: what a recovery says is there must stay.
            let questions = left.questions();
            let again = left.answered(&vec![0; questions.len()], None);
            let (ends_again, left_again, _) = once(plan, &known, &again, seeds, Way::Twice);
            assert_eq!(ends, ends_again, "a second recovery found other ends");
            let leaves = |image: &Image| segments(image, &ends);
            assert_same(&leaves(&left), &leaves(&left_again));
        }
        Way::GoesOn => {
            let longer = known.iter().zip(&ends).map(|(known, (start, end))| {
                let mut known = known.clone();
                known.boots.retain(|(from, _)| from < end);
                known.boots.push((*end, JUDGE));
                known.sent = end + i64::from(GOES_ON_FOR);
                (known.acknowledged, known.start) = (known.sent, *start);
                known
            });
            let longer = Rc::new(longer.collect::<Vec<_>>());
            let questions = left.questions();
            let again = left.answered(&vec![0; questions.len()], None);
            once(plan, &longer, &again, seeds, Way::Twice);
        }
    }
    moments
}

/// Boots on `image` and checks what is there; returns what was found, and the disk it leaves.
fn once(
    plan: &Rc<Plan>,
    known: &Rc<Vec<Known>>,
    image: &Image,
    seeds: &Seeds,
    way: Way,
) -> (Ends, Image, Vec<Moment>) {
    let world = World::new(seeds.next());
    let machine = world.machine("node");
    world.insert_disk(machine, image);
    if way == Way::Recorded {
        world.record(machine);
    }
    let found: Rc<RefCell<Option<Ends>>> = Rc::default();
    let (place, control) = (found.clone(), world.control());
    let (plan, known) = (plan.clone(), known.clone());
    world.boot(machine, 1, move |_| {
        let (place, plan, known) = (place.clone(), plan.clone(), known.clone());
        let control = control.clone();
        async move {
            let ends = look(&plan, &known, way).await;
            let ends = ends.unwrap_or_else(|error| panic!("the store does not open: {error}"));
            *place.borrow_mut() = Some(ends);
            control.crash(machine);
        }
    });
    let control = world.control();
    world.run(async move { control.ended(machine).await });
    let moments = if way == Way::Recorded { world.recorded(machine) } else { Vec::new() };
    let ends = found.take().expect("it looked");
    (ends, world.image(machine), moments)
}

async fn look(plan: &Plan, known: &[Known], way: Way) -> Result<Ends, StorageError> {
    let (_dir, store) = open_store(plan).await?;
    let (mut ends, mut open) = (Ends::new(), Vec::new());
    for (partition, known) in (0..).zip(known) {
        let boot = if way == Way::GoesOn { JUDGE } else { JUDGE - 1 };
        let told = Told::nobody(partition);
        let log = open_log(&store, plan, partition, known.life, boot, told.clone()).await?;
        let (start, end) = (log.log_start().0, log.log_end().0);
        let name = format!("topic-{partition} of life {}", known.life);
        assert!(
            end >= known.acknowledged,
            "{name}: ends at {end}, {} were acknowledged",
            known.acknowledged
        );
        assert!(end <= known.sent.max(start), "{name}: ends at {end}, {} were sent", known.sent);
        let may_start = known.start.max(0);
        assert!(start <= may_start.min(end), "{name}: starts at {start}, not {may_start}");
        check_batches(&log, known, partition).await?;
        ends.push((start, end));
        open.push((log, told));
    }
    if way == Way::GoesOn {
        for ((log, _), partition) in open.iter().zip(0..) {
            let (end, known) = (log.log_end().0, &known[partition as usize]);
            for number in end..end + i64::from(GOES_ON_FOR) {
                let record =
                    Record { life: known.life, boot: JUDGE, partition, number: number as u32 };
                let epoch = LeaderEpoch(JUDGE as i32);
                let append = || log.append(record.batch(700), Origin::Client, epoch, wall_clock());
                let appended = append().expect("its producer goes on");
                assert_eq!(appended.base_offset.0, number);
                assert!(append().expect("a retry").duplicate, "the producer is not known");
            }
        }
        for (log, told) in &open {
            loop {
                let changed = told.changed.notified();
                if log.durable_end() == log.log_end() {
                    break;
                }
                changed.await;
            }
        }
    }
    Ok(ends)
}

/// Reads a log as a consumer would: whole batches, each the one that was sent at its offset.
async fn check_batches(log: &Log, known: &Known, partition: u32) -> Result<(), StorageError> {
    let (mut next, end) = (log.log_start().0, log.log_end().0);
    while next < end {
        let read = match log.read(Offset(next), Offset(end), 1 << 20, true).await {
            Ok(read) => read,
            Err(ReadError::Storage(error)) => return Err(error),
            Err(error) => panic!("topic-{partition}: {error}"),
        };
        let bytes: Bytes = read.parts.concat().into();
        assert!(!bytes.is_empty(), "topic-{partition}: nothing at {next}, the end is {end}");
        for found in batches(&bytes) {
            let (at, header, whole) = found.expect("whole batches are served");
            assert!(crc_ok(whole), "a torn batch was served at {}", header.base_offset);
            let batch = bytes.slice(at..at + whole.len());
            for record in records(&batch, &Limits::default()).expect("records") {
                let record = record.expect("a record");
                assert_eq!(record.offset.0, next, "topic-{partition}: an offset was skipped");
                let found = record.key.as_deref().and_then(Record::of);
                let sent = known.record(partition, next);
                assert_eq!(found, Some(sent), "topic-{partition}: another record at {next}");
                next += 1;
            }
        }
    }
    Ok(())
}

/// The segments: what a second recovery leaves as they are.
fn segments(image: &Image, ends: &Ends) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = image.files();
    // What was put aside has a name of its own each time, and is nobody's log; and a log that was never
    // written to is made again.
    let is_aside = |path: &Path| path.to_string_lossy().contains("-stray");
    files.retain(|path, bytes| {
        path.extension().is_some_and(|end| end == "log") && !is_aside(path) && !bytes.is_empty()
    });
    // A power cut undoes a size that was not flushed: the disk that was taken ahead is there again, zeros
    // behind the last batch.
    for bytes in files.values_mut() {
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    // A power cut undoes removals that were not flushed, so what retention took may be back: below the
    // log's start, where nobody reads it and retention finds it again.
    let all: Vec<PathBuf> = files.keys().cloned().collect();
    for (path, next) in all.iter().zip(&all[1.min(all.len())..]) {
        if path.parent() == next.parent() && base(next) <= ends[partition(path)].0 {
            files.remove(path);
        }
    }
    files
}

/// The first offset of a segment, and its partition.
fn base(segment: &Path) -> i64 {
    let stem = segment.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).expect("a segment's name")
}

fn partition(segment: &Path) -> usize {
    let topic = segment.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let number = topic.and_then(|topic| topic.strip_prefix("topic-")?.strip_suffix("-0"));
    number.and_then(|number| number.parse().ok()).expect("a partition's directory")
}

/// A second recovery leaves what the first one left, no segment less or more.
fn assert_same(first: &BTreeMap<PathBuf, Vec<u8>>, second: &BTreeMap<PathBuf, Vec<u8>>) {
    let names =
        |segments: &BTreeMap<PathBuf, Vec<u8>>| segments.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(first), names(second), "a second recovery left other segments");
    for (path, bytes) in first {
        let again = &second[path];
        let same = bytes.iter().zip(again).take_while(|(one, other)| one == other).count();
        assert!(
            bytes == again,
            "a second recovery changed {}: {} bytes, then {}, the same up to {same}",
            path.display(),
            bytes.len(),
            again.len()
        );
    }
}
