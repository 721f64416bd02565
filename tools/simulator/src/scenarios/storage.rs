//! The logs of one node, without connections: `node/store` under crashes, power cuts and a bad disk.
//!
//! Writers and readers run inside the node's shards and die with it; what they know lives outside,
//! so that they go on where they were when the node is started again, as clients would.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flowstone_batch::{BatchBuilder, Origin, Rules, check};
use flowstone_runtime::local::Notify;
use flowstone_runtime::sim::{Control, MachineId, World};
use flowstone_runtime::{fs, random_u64, shard_count, sleep, spawn, termination, wall_clock};
use flowstone_store::{
    Action, AppendError, Log, LogConfig, LogDir, LogSpec, LogState, ReadError, StorageError, Store,
    StoreConfig, Watcher, Whereabouts,
};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, ProducerId, Uuid};

use crate::nemesis::{Kinds, Victim};
use crate::seeds::Stats;
use crate::workload::read_all;
use flowstone_history::{PartitionHistory, RecordId, Violation};

/// Rounds of faults.
const ROUNDS: u64 = 6;
/// Writers of each partition; the last one is without idempotence.
const WRITERS: u32 = 3;
/// How long a writer without idempotence tries.
const PLAIN_ATTEMPTS: u32 = 3;

/// What outlives the node.
struct Outside {
    control: Control,
    machine: MachineId,
    shards: usize,
    config: Arc<LogConfig>,
    direct_io: bool,
    value_bytes_max: usize,
    partitions: Vec<Partition>,
    boots: Cell<i32>,
    phase: Cell<Phase>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Writing,
    /// Writers finish what they have begun.
    Stopping,
    /// Everything is read back.
    Judging,
}

struct Partition {
    index: i32,
    history: RefCell<PartitionHistory>,
    writers: Vec<Writer>,
    judged: Cell<bool>,
}

struct Writer {
    producer: u32,
    idempotent: bool,
    next: Cell<u32>,
    /// What it has begun to send.
    under_way: RefCell<Vec<RecordId>>,
}

/// A log and those who wait for it.
struct Open {
    log: Log,
    store: Store,
    told: Rc<Told>,
}

#[derive(Default)]
struct Told(Notify);

impl Watcher for Told {
    fn durable(&self, _end: Offset) {
        self.0.notify_all();
    }

    fn failed(&self, _error: &StorageError) {
        self.0.notify_all();
    }
}

/// Plays it.
pub fn play(world: &World) -> Stats {
    play_with(world, Kinds::draw(world))
}

/// Plays it on a disk that answers flushes which it does not do: for the judge's own test.
pub fn play_on_a_lying_disk(world: &World) -> Stats {
    play_with(world, Kinds::draw(world).with_sync_lies())
}

fn play_with(world: &World, kinds: Kinds) -> Stats {
    let control = world.control();
    let draw = |bound: u64| control.random() % bound;
    let machine = world.machine("node");
    let partition = |index: i32| Partition {
        index,
        history: RefCell::default(),
        writers: (0..WRITERS)
            .map(|number| Writer {
                producer: index as u32 * WRITERS + number,
                idempotent: number + 1 < WRITERS,
                next: Cell::new(0),
                under_way: RefCell::default(),
            })
            .collect(),
        judged: Cell::new(false),
    };
    let outside = Rc::new(Outside {
        control: control.clone(),
        machine,
        shards: 1 + draw(3) as usize,
        config: Arc::new(LogConfig {
            segment_bytes: 4_096 << draw(5),
            index_interval_bytes: 512 << draw(4),
            ..LogConfig::default()
        }),
        direct_io: draw(4) > 0,
        value_bytes_max: 100 << draw(7),
        partitions: (0..=draw(4) as i32).map(partition).collect(),
        boots: Cell::new(0),
        phase: Cell::new(Phase::Writing),
    });
    control.note(format_args!(
        "{kinds:?}, {} shards, {} partitions, {:?}, direct {}",
        outside.shards,
        outside.partitions.len(),
        outside.config,
        outside.direct_io
    ));
    world.run(async move {
        let all = Rc::clone(&outside);
        let boot = move || start(&all);
        boot();
        let victim =
            Victim { control: &outside.control, machine, others: &[], boot: &boot, stops: true };
        let mut stats = victim.torment(ROUNDS, kinds).await;
        outside.phase.set(Phase::Stopping);
        outside.until("the writers are done", Outside::is_idle).await;
        outside.phase.set(Phase::Judging);
        stats += victim.torment(0, kinds).await; // Once more from the disk.
        let judged = |all: &Outside| all.partitions.iter().all(|one| one.judged.get());
        outside.until("everything was read", judged).await;
        for partition in &outside.partitions {
            let (sent, acknowledged) = partition.history.borrow().counts();
            stats.sent += sent as u64;
            stats.acknowledged += acknowledged as u64;
        }
        stats
    })
}

/// Starts the node.
fn start(outside: &Rc<Outside>) {
    outside.boots.set(outside.boots.get() + 1);
    let all = Rc::clone(outside);
    outside.control.boot(outside.machine, outside.shards, move |shard| {
        let outside = Rc::clone(&all);
        async move {
            if let Err(error) = run(&outside, shard).await {
                outside.control.note(format_args!("the node gives up: {error}"));
                outside.control.crash(outside.machine);
            }
        }
    });
}

async fn run(outside: &Rc<Outside>, shard: usize) -> Result<(), StorageError> {
    // A directory a shard: what several shards share of one is the broker's scenario.
    let path = std::path::PathBuf::from(format!("/data-{shard}"));
    if !fs::exists(&path).await.is_ok_and(|exists| exists) {
        let io = |source| StorageError::Io {
            action: Action::Make,
            path: path.clone(),
            source: Arc::new(source),
        };
        fs::create_dir_all(&path).await.map_err(io)?;
        fs::sync_dir("/".as_ref()).await.map_err(io)?;
    }
    let dir = LogDir::open(path, Uuid(7 + shard as u128)).await?;
    let mut config = StoreConfig::new(vec![dir.clone()]);
    config.direct_io = outside.direct_io;
    config.memory_bytes = 256 << 10; // Most reads go to the disk.
    config.waiting_bytes_max = 64 << 10;
    config.open_files_max = 4;
    config.checkpoint_ms = 150;
    config.journal_bytes = (random_u64() % 3) << 19; // None, or small.
    let store = Store::new(config);
    for (index, partition) in outside.partitions.iter().enumerate() {
        if index % shard_count() != shard {
            continue;
        }
        let told = Rc::new(Told::default());
        let spec = LogSpec {
            topic: "ledger".into(),
            id: PartitionId { topic: Uuid(42), index: partition.index },
            config: Arc::clone(&outside.config),
            leader_epoch: LeaderEpoch(outside.boots.get()),
            whereabouts: Whereabouts::Untold,
        };
        let log = store.open(spec, told.clone()).await?;
        partition.recovered(&log);
        let open = Rc::new(Open { log, store: store.clone(), told });
        if outside.phase.get() == Phase::Judging {
            partition.judge(&open).await?;
            continue;
        }
        for writer in 0..partition.writers.len() {
            let (outside, open) = (Rc::clone(outside), Rc::clone(&open));
            spawn(async move { outside.write(index, writer, &open).await });
        }
        let (outside, open) = (Rc::clone(outside), Rc::clone(&open));
        spawn(async move { outside.partitions[index].read(&open).await });
    }
    let ticking = store.clone();
    spawn(async move {
        loop {
            ticking.tick(wall_clock()).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    termination().await;
    if store.shutdown().await.is_ok() {
        dir.close(-1).await?;
    }
    Ok(())
}

impl Outside {
    /// Waits until `reached`; the node is started again where it gave up.
    async fn until(self: &Rc<Self>, what: &str, reached: impl Fn(&Self) -> bool) {
        let end = self.control.now().after(Duration::from_mins(10));
        while !reached(self) {
            assert!(
                self.control.now() < end,
                "not within ten minutes on a healthy machine: {what}"
            );
            if !self.control.is_running(self.machine) {
                start(self);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_idle(&self) -> bool {
        let mut writers = self.partitions.iter().flat_map(|partition| &partition.writers);
        writers.all(|writer| writer.under_way.borrow().is_empty())
    }

    /// A writer: one batch at a time, again and again until it is durable.
    async fn write(&self, partition: usize, writer: usize, open: &Open) {
        let partition = &self.partitions[partition];
        let writer = &partition.writers[writer];
        let mut attempts = 0;
        loop {
            if writer.under_way.borrow().is_empty() {
                if self.phase.get() != Phase::Writing {
                    return;
                }
                attempts = 0;
                pause(20).await;
                writer.begin();
            }
            let ids = writer.under_way.borrow().clone();
            attempts += 1;
            let done = partition.attempt(writer, &ids, self.value_bytes_max, open).await;
            if done || (!writer.idempotent && attempts == PLAIN_ATTEMPTS) {
                writer.under_way.borrow_mut().clear();
            } else {
                pause(100).await;
            }
        }
    }
}

impl Writer {
    fn begin(&self) {
        let first = self.next.get();
        let count = 1 + (random_u64() % 5) as u32;
        self.next.set(first + count);
        let id = |number| RecordId { producer: self.producer, number };
        *self.under_way.borrow_mut() = (first..first + count).map(id).collect();
    }
}

impl Partition {
    /// Whether `ids` are in the log for good.
    async fn attempt(
        &self,
        writer: &Writer,
        ids: &[RecordId],
        value_bytes_max: usize,
        open: &Open,
    ) -> bool {
        let mut builder = BatchBuilder::new(Offset::ZERO);
        if writer.idempotent {
            let producer = ProducerId(i64::from(writer.producer));
            builder = builder.producer(producer, 0, ids[0].number as i32);
        }
        for id in ids {
            builder.push(wall_clock(), None, Some(&id.value(value_bytes_max)), &[]);
        }
        let rules = Rules { segment_bytes: 1 << 30, ..Rules::default() };
        let checked = check(builder.build(), &rules, wall_clock()).expect("a good batch");
        open.store.room().await;
        for id in ids {
            self.history.borrow_mut().sending(*id, writer.idempotent);
        }
        let epoch = open.log.latest_epoch().unwrap_or(LeaderEpoch(0));
        let appended = match open.log.append(checked, Origin::Client, epoch, wall_clock()) {
            Ok(appended) => appended,
            Err(AppendError::Refused(refused)) => {
                let (record, answer) = (ids[0], refused.to_string());
                self.check(Err(Violation::Forgotten { record, answer }))
            }
            Err(AppendError::DiskFull | AppendError::Offline(_) | AppendError::Closed) => {
                return false;
            }
        };
        loop {
            let told = open.told.0.notified();
            if open.log.durable_end() > appended.last_offset {
                break;
            }
            if let LogState::Failed(_) | LogState::Closed = open.log.state() {
                return false;
            }
            told.await;
        }
        for (id, offset) in ids.iter().zip(appended.base_offset.0..) {
            self.check(self.history.borrow_mut().acknowledged(*id, offset));
        }
        true
    }

    /// A log was opened: all that anybody was told of is there.
    fn recovered(&self, log: &Log) {
        let mut history = self.history.borrow_mut();
        let floor = history.watermark();
        self.check(history.watermark_is(floor, log.durable_end().0));
    }

    /// A reader: from anywhere, as much as it likes, for ever.
    async fn read(&self, open: &Open) {
        let mut position = 0;
        loop {
            pause(20).await;
            match self.read_at(open, position).await {
                Ok(0) => position = (random_u64() % (position as u64 + 1)) as i64,
                Ok(count) => position += count as i64,
                Err(ReadError::Storage(_) | ReadError::Closed) => {}
                Err(error) => panic!("ledger-{}: {error}", self.index),
            }
        }
    }

    async fn read_at(&self, open: &Open, position: i64) -> Result<usize, ReadError> {
        let floor = self.history.borrow().watermark();
        let end = open.log.durable_end();
        self.check(self.history.borrow_mut().watermark_is(floor, end.0));
        let bytes_max = [1, 3_000, 100_000][(random_u64() % 3) as usize];
        let read = open.log.read(Offset(position), end, bytes_max, true).await?;
        let mut bytes = BytesMut::with_capacity(read.bytes);
        read.parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let bytes: Bytes = bytes.freeze();
        let read = read_all(&bytes, position, |offset, value| {
            self.check(self.history.borrow_mut().read(offset, value))
        });
        assert!(position + read.len() as i64 <= end.0, "read above what is durable");
        assert!(position >= end.0 || !read.is_empty(), "nothing read, and there is more");
        Ok(read.len())
    }

    /// Reads everything and judges it.
    async fn judge(&self, open: &Open) -> Result<(), StorageError> {
        let mut log = Vec::new();
        while (log.len() as i64) < open.log.durable_end().0 {
            let position = log.len() as i64;
            let result = open.log.read(Offset(position), open.log.durable_end(), 1 << 20, true);
            let read = match result.await {
                Ok(read) => read,
                Err(ReadError::Storage(error)) => return Err(error),
                Err(error) => panic!("ledger-{}: {error}", self.index),
            };
            let bytes: Bytes = read.parts.concat().into();
            log.extend(read_all(&bytes, position, |offset, value| {
                self.check(self.history.borrow_mut().read(offset, value))
            }));
        }
        self.check(self.history.borrow().is_all(&log));
        self.judged.set(true);
        Ok(())
    }

    fn check<T>(&self, result: Result<T, Violation>) -> T {
        result.unwrap_or_else(|violation| panic!("ledger-{}: {violation}", self.index))
    }
}

async fn pause(ms_max: u64) {
    sleep(Duration::from_micros(random_u64() % (ms_max * 1_000))).await;
}
