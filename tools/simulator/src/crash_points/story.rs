//! The life of a store that is recorded: what it does, as the seed draws it, and what was promised.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flowstone_batch::Origin;
use flowstone_runtime::local::Notify;
use flowstone_runtime::sim::{Control, DiskFaults, DiskOperation, Image, MachineId, Moment, World};
use flowstone_runtime::{fs, random_u64, sleep, spawn, termination, wall_clock};
use flowstone_store::{
    AppendError, Log, LogConfig, LogDir, LogSpec, LogState, StorageError, Store, StoreConfig,
    Watcher, Whereabouts,
};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Uuid};

use super::judge::{self, Record};
use super::{Recorded, Seeds, Way};
use crate::seeds::Stats;

/// The one log directory.
pub const DATA: &str = "/data";
/// Makes ids that differ as random ones do.
const FAR_APART: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// Virtual time of each life; long enough for its writers.
const LIFE: Duration = Duration::from_secs(3);

/// How batches are sized.
#[derive(Clone, Copy, Debug)]
enum Sizes {
    /// Through the journal, many in a page.
    Small,
    /// Journaled in pages of their own.
    Medium,
    /// Written to their segments at once.
    Large,
    Mixed,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    CleanStop,
    Kill,
    PowerLoss,
}

/// What is played.
pub struct Plan {
    pub partitions: u32,
    sizes: Sizes,
    batches: u32,
    /// Batches of a partition under way at once.
    depth: i64,
    pub config: Arc<LogConfig>,
    pub direct_io: bool,
    pub journal_bytes: u64,
    lives: Vec<End>,
    /// Topics are deleted and made again.
    deletes: bool,
    /// A flush fails.
    fails: bool,
    /// Some operations of the disk take their time, so that what is done behind the writers, such as
    /// the storing of segments that ended, falls back while the journal turns over.
    slow: bool,
}

/// What is known of a partition.
#[derive(Clone, Default)]
pub struct Known {
    /// How often its topic was made.
    pub life: u32,
    /// Everything below was acknowledged, or found by a recovery.
    pub acknowledged: i64,
    /// Everything below was sent.
    pub sent: i64,
    /// The log does not start above.
    pub start: i64,
    /// From which offset on which boot of the node wrote.
    pub boots: Vec<(i64, u32)>,
}

impl Known {
    /// The record that was sent at `offset`.
    pub fn record(&self, partition: u32, offset: i64) -> Record {
        let boot = self.boots.iter().rev().find(|(from, _)| *from <= offset);
        let boot = boot.expect("sent by some boot").1;
        Record { life: self.life, boot, partition, number: offset as u32 }
    }
}

/// A life that was recorded.
pub struct Story {
    pub plan: Rc<Plan>,
    seeds: Seeds,
    /// What was known, by mark.
    marks: Vec<Vec<Known>>,
}

impl Recorded for Story {
    fn recover(&self, image: &Image, mark: u64, way: Way) -> Vec<Moment> {
        judge::recover(&self.plan, &self.marks[mark as usize], image, &self.seeds, way)
    }
}

/// What outlives the node while it is played.
struct Books {
    control: Control,
    machine: MachineId,
    plan: Rc<Plan>,
    boot: Cell<u32>,
    now: RefCell<Vec<Known>>,
    marks: RefCell<Vec<Vec<Known>>>,
    /// The open logs; and the mark since which retention may have moved their starts.
    logs: RefCell<Vec<Log>>,
    starts_known: Cell<usize>,
    acknowledged: Cell<u64>,
}

impl Plan {
    fn draw(control: &Control) -> Self {
        let draw = |bound: u64| control.random() % bound;
        let sizes = [Sizes::Small, Sizes::Small, Sizes::Medium, Sizes::Mixed, Sizes::Large];
        let sizes = sizes[draw(5) as usize];
        let (partitions, batches) = match sizes {
            Sizes::Small => [(3, 30), (16, 8), (1, 60)][draw(3) as usize],
            Sizes::Medium => [(2, 20), (6, 8)][draw(2) as usize],
            Sizes::Mixed => (4, 8),
            Sizes::Large => (2, 4),
        };
        let segments = match sizes {
            Sizes::Small => [2_000, 6_000, 1 << 20],
            Sizes::Medium => [30_000, 100_000, 1 << 20],
            Sizes::Mixed | Sizes::Large => [400_000, 1 << 20, 4 << 20],
        };
        let segment_bytes = segments[draw(3) as usize];
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes: 512 << draw(4),
            retention_bytes: if draw(3) == 0 { 2 * i64::from(segment_bytes) } else { -1 },
            file_delete_delay_ms: [0, 20][draw(2) as usize],
            ..LogConfig::default()
        };
        // None, four files that turn over, or more than is needed. Where segments are small: mostly files
        // that are used again while the segments that ended are still being stored.
        let journals: [u64; 5] = match segment_bytes {
            ..10_000 => [0, 64 << 10, 64 << 10, 128 << 10, 1 << 20],
            _ => [0, 128 << 10, 256 << 10, 1 << 20, 4 << 20],
        };
        let end = |number| [End::CleanStop, End::Kill, End::PowerLoss][number as usize];
        Self {
            partitions,
            sizes,
            batches,
            depth: [1, 1, 3, 8][draw(4) as usize],
            config: Arc::new(config),
            direct_io: draw(4) > 0,
            journal_bytes: journals[draw(5) as usize],
            lives: (0..=draw(3)).map(|_| end(draw(3))).collect(),
            deletes: draw(3) == 0,
            fails: draw(5) == 0,
            slow: draw(3) == 0,
        }
    }

    /// Bytes of the value of a batch.
    fn bytes(&self, partition: u32, number: i64) -> usize {
        let mixed =
            (u64::from(partition) << 32 | number as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let at = |low: u64, high: u64| (low + (mixed >> 20) % (high - low)) as usize;
        match self.sizes {
            Sizes::Small => at(10, 1_500),
            Sizes::Medium => at(5_000, 40_000),
            Sizes::Large => at(250_000, 400_000),
            Sizes::Mixed => match mixed >> 60 {
                0..4 => at(10, 500),
                4..12 => at(3_000, 20_000),
                _ => at(200_000, 300_000),
            },
        }
    }
}

impl Story {
    /// Plays the story of `seed`.
    pub fn play(seed: u64, stats: &mut Stats) -> (Self, Vec<Moment>) {
        let world = World::new(seed);
        let (control, machine) = (world.control(), world.machine("node"));
        let plan = Rc::new(Plan::draw(&control));
        let known = vec![Known::default(); plan.partitions as usize];
        let books = Rc::new(Books {
            control,
            machine,
            plan: plan.clone(),
            boot: Cell::new(0),
            now: RefCell::new(known.clone()),
            marks: RefCell::new(vec![known]),
            logs: RefCell::default(),
            starts_known: Cell::new(0),
            acknowledged: Cell::new(0),
        });
        if plan.slow {
            let slow_max = Duration::from_millis(20);
            world.set_disk_faults(
                machine,
                DiskFaults { slow: 0.2, slow_max, ..DiskFaults::default() },
            );
        }
        world.record(machine);
        for end in &plan.lives {
            books.boot.set(books.boot.get() + 1);
            let all = books.clone();
            world.boot(machine, 1, move |_| {
                let books = all.clone();
                async move {
                    if let Err(error) = run(&books).await {
                        books.control.note(format_args!("the node gives up: {error}"));
                        books.control.crash(books.machine);
                    }
                }
            });
            if plan.fails {
                // After what opening takes.
                world.run_for(Duration::from_millis(60 + world.random() % 100));
                world.fail_next(machine, DiskOperation::Sync, "topic-0-0/", 1);
            }
            match end {
                End::CleanStop => {
                    world.run_for(LIFE);
                    books.note_starts();
                    world.terminate(machine);
                    world.run_for(LIFE);
                }
                End::Kill | End::PowerLoss => {
                    world.run_for(Duration::from_micros(20_000 + world.random() % 400_000));
                    books.note_starts();
                    if *end == End::Kill { world.crash(machine) } else { world.power_loss(machine) }
                }
            }
            books.logs.take();
            if world.is_running(machine) {
                world.crash(machine);
            }
        }
        let moments = world.recorded(machine);
        stats.acknowledged += books.acknowledged.get();
        stats.events += world.events();
        let marks = books.marks.borrow().clone();
        (Self { plan, seeds: Seeds::after(seed), marks }, moments)
    }
}

impl Books {
    /// Changes what is known of a partition, from the next change of the disk on.
    fn note(&self, partition: u32, change: impl FnOnce(&mut Known)) {
        let mut now = self.now.borrow_mut();
        change(&mut now[partition as usize]);
        let mut marks = self.marks.borrow_mut();
        self.control.mark(self.machine, marks.len() as u64);
        marks.push(now.clone());
    }

    /// Notes where the open logs start, for all moments since this was asked last.
    fn note_starts(&self) {
        let mut marks = self.marks.borrow_mut();
        let from = self.starts_known.replace(marks.len() - 1);
        let mut now = self.now.borrow_mut();
        for log in self.logs.borrow().iter() {
            let partition: usize = log.topic()["topic-".len()..].parse().expect("ours");
            let of = |known: &mut Vec<Known>| {
                let known = &mut known[partition];
                known.start = known.start.max(log.log_start().0);
            };
            marks[from..].iter_mut().for_each(of);
            of(&mut now);
        }
    }
}

/// Tells the books what is acknowledged.
pub struct Told {
    books: Option<Rc<Books>>,
    partition: u32,
    pub changed: Notify,
}

impl Watcher for Told {
    fn durable(&self, end: Offset) {
        if let Some(books) = &self.books {
            books.note(self.partition, |known| {
                books
                    .acknowledged
                    .set(books.acknowledged.get() + (end.0 - known.acknowledged) as u64);
                known.acknowledged = known.acknowledged.max(end.0);
            });
        }
        self.changed.notify_all();
    }

    fn failed(&self, _error: &StorageError) {
        self.changed.notify_all();
    }
}

impl Told {
    /// One that tells nobody.
    pub fn nobody(partition: u32) -> Rc<Self> {
        Rc::new(Self { books: None, partition, changed: Notify::new() })
    }
}

/// The store of a plan, and its directory.
pub async fn open_store(plan: &Plan) -> Result<(LogDir, Store), StorageError> {
    let path = PathBuf::from(DATA);
    if !fs::exists(&path).await.is_ok_and(|exists| exists) {
        fs::create_dir_all(&path).await.expect("no disk errors on names");
        fs::sync_dir("/".as_ref()).await.expect("no disk errors on names");
    }
    let dir = LogDir::open(path, Uuid(7)).await?;
    let mut config = StoreConfig::new(vec![dir.clone()]);
    config.direct_io = plan.direct_io;
    config.memory_bytes = 256 << 10; // Little: what is journaled is soon written back.
    config.waiting_bytes_max = 1 << 20;
    config.open_files_max = 8;
    config.checkpoint_ms = 40;
    config.retention_check_ms = 30;
    config.journal_bytes = plan.journal_bytes;
    Ok((dir, Store::new(config)))
}

/// Opens the log of a partition whose topic was made so often.
pub async fn open_log(
    store: &Store,
    plan: &Plan,
    partition: u32,
    life: u32,
    boot: u32,
    told: Rc<Told>,
) -> Result<Log, StorageError> {
    let spec = LogSpec {
        topic: format!("topic-{partition}").into(),
        id: PartitionId { topic: Uuid((100 + u128::from(life)).wrapping_mul(FAR_APART)), index: 0 },
        config: plan.config.clone(),
        leader_epoch: LeaderEpoch(boot as i32),
        whereabouts: Whereabouts::Untold,
    };
    store.open(spec, told).await
}

async fn run(books: &Rc<Books>) -> Result<(), StorageError> {
    let plan = &books.plan;
    let (dir, store) = open_store(plan).await?;
    for partition in 0..plan.partitions {
        let log = open(books, &store, partition).await?;
        let (books, store) = (books.clone(), store.clone());
        spawn(async move { write(&books, &store, partition, log).await });
    }
    let (ticking, all) = (store.clone(), books.clone());
    spawn(async move {
        loop {
            // Before the tick: a crash within it asks those that it may have moved.
            *all.logs.borrow_mut() = ticking.logs();
            ticking.tick(wall_clock()).await;
            all.note_starts();
            sleep(Duration::from_millis(10)).await;
        }
    });
    termination().await;
    if store.shutdown().await.is_ok() {
        dir.close(-1).await?;
    }
    Ok(())
}

async fn open(
    books: &Rc<Books>,
    store: &Store,
    partition: u32,
) -> Result<(Log, Rc<Told>), StorageError> {
    let (life, boot) = (books.now.borrow()[partition as usize].life, books.boot.get());
    let told = Told { books: Some(books.clone()), partition, changed: Notify::new() };
    let told = Rc::new(told);
    let log = open_log(store, &books.plan, partition, life, boot, told.clone()).await?;
    let (start, end) = (log.log_start().0, log.durable_end().0);
    books.note(partition, |known| {
        assert!(end >= known.acknowledged && end <= known.sent, "{end} while playing");
        (known.acknowledged, known.sent) = (end, end);
        known.start = known.start.max(start);
        known.boots.retain(|(from, _)| *from < end);
        known.boots.push((end, boot));
    });
    Ok((log, told))
}

/// A writer: up to `depth` batches under way, and now and then the topic anew.
async fn write(books: &Rc<Books>, store: &Store, partition: u32, opened: (Log, Rc<Told>)) {
    let plan = &books.plan;
    let (mut log, mut told) = opened;
    let mut left = plan.batches;
    while left > 0 {
        sleep(Duration::from_micros(random_u64() % 8_000)).await;
        if plan.deletes && random_u64().is_multiple_of(40) {
            // The controller's decision comes first; then the partition goes, and another comes.
            books.note(partition, |known| {
                *known = Known { life: known.life + 1, ..Known::default() };
            });
            if store.delete(log).await.is_err() {
                return;
            }
            match open(books, store, partition).await {
                Ok(opened) => (log, told) = opened,
                Err(_) => return,
            }
        }
        left -= 1;
        let number = log.log_end().0;
        let record = {
            let mut now = books.now.borrow_mut();
            let known = &mut now[partition as usize];
            // A log that goes offline forgets what was not durable; the disk may have it all the same.
            known.sent = known.sent.max(number + 1);
            known.record(partition, number)
        };
        books.note(partition, |_| ());
        let batch = record.batch(plan.bytes(partition, number));
        let epoch = LeaderEpoch(books.boot.get() as i32);
        match log.append(batch, Origin::Client, epoch, wall_clock()) {
            Ok(appended) => assert_eq!(appended.base_offset.0, number),
            Err(AppendError::Refused(refused)) => panic!("topic-{partition}: {refused}"),
            Err(AppendError::DiskFull | AppendError::Offline(_) | AppendError::Closed) => return,
        }
        loop {
            let changed = told.changed.notified();
            if !matches!(log.state(), LogState::Online) {
                return;
            }
            if log.durable_end().0 > number + 1 - plan.depth {
                break;
            }
            changed.await;
        }
    }
}
