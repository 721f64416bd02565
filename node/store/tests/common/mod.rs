//! What store tests share: a shard on real files in a folder of its own, batches, and a watcher.
#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Checked, Origin, Rules, check};
use flowstone_runtime::{Plan, launch, local::Notify, wall_clock};
use flowstone_store::{
    Appended, Log, LogConfig, LogDir, LogSpec, StorageError, Store, StoreConfig, Watcher,
    Whereabouts,
};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, ProducerId, Timestamp, Uuid};

/// A folder that goes with its test; on the disk of the build, since /tmp may be memory.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = root.join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn partition(&self) -> PathBuf {
        self.0.join("topic-0")
    }

    /// Names and bytes of the partition's files.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.partition())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `life` on a shard of its own, with a folder. Whatever it leaves open ends with it, as by a
/// kill.
pub fn live<F, Fut>(folder: &Folder, life: F)
where
    F: Fn(PathBuf) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let path = folder.0.clone();
    launch(Plan { cpus: vec![0] }, move |_| life(path.clone())).unwrap();
}

/// Waits for what the store reports.
#[derive(Default)]
pub struct Ear {
    pub durable: Cell<i64>,
    pub failed: RefCell<Option<StorageError>>,
    pub stalled: Cell<bool>,
    pub changed: Notify,
}

impl Watcher for Ear {
    fn durable(&self, end: Offset) {
        assert!(end.0 > self.durable.get(), "durable ends grow");
        self.durable.set(end.0);
        self.changed.notify_all();
    }

    fn failed(&self, error: &StorageError) {
        *self.failed.borrow_mut() = Some(error.clone());
        self.changed.notify_all();
    }

    fn stalled(&self, _error: &StorageError) {
        self.stalled.set(true);
        self.changed.notify_all();
    }
}

impl Ear {
    pub async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            if reached(self) {
                return;
            }
            changed.await;
        }
    }

    pub async fn until_durable(&self, end: i64) {
        self.until(|ear| ear.durable.get() >= end || ear.failed.borrow().is_some()).await;
        assert!(self.durable.get() >= end, "{:?}", self.failed.borrow());
    }
}

pub const TOPIC: Uuid = Uuid(0x1234_5678_9abc_def0_1234_5678_9abc_def0);

pub async fn store_in(folder: &Path) -> (LogDir, Store) {
    store_with(folder, |_| {}).await
}

pub async fn store_with(folder: &Path, change: impl Fn(&mut StoreConfig)) -> (LogDir, Store) {
    let dir = LogDir::open(folder, Uuid(77)).await.unwrap();
    let mut config = StoreConfig::new(vec![dir.clone()]);
    config.memory_bytes = 16 << 20;
    change(&mut config);
    (dir, Store::new(config))
}

pub async fn open(store: &Store, config: LogConfig) -> (Log, Rc<Ear>) {
    open_at(store, "topic", 0, config).await
}

pub async fn open_at(store: &Store, topic: &str, index: i32, config: LogConfig) -> (Log, Rc<Ear>) {
    try_open(store, topic, index, config).await.unwrap()
}

pub async fn try_open(
    store: &Store,
    topic: &str,
    index: i32,
    config: LogConfig,
) -> Result<(Log, Rc<Ear>), StorageError> {
    let ear = Rc::new(Ear::default());
    let spec = LogSpec {
        topic: topic.into(),
        id: PartitionId { topic: TOPIC, index },
        config: Arc::new(config),
        leader_epoch: LeaderEpoch(0),
        whereabouts: Whereabouts::Untold,
    };
    let log = store.open(spec, ear.clone()).await?;
    ear.durable.set(log.durable_end().0);
    Ok((log, ear))
}

/// One record of `bytes` that are told apart by `number`.
pub fn batch_of(number: u64, bytes: usize, timestamp: i64) -> Checked {
    let mut value = vec![0; bytes];
    let mut state = number.wrapping_add(1);
    for byte in &mut value {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    let mut batch = BatchBuilder::new(Offset(0));
    batch.push(Timestamp(timestamp), Some(&number.to_be_bytes()), Some(&value), &[]);
    checked(batch.build())
}

pub fn batch(number: u64, bytes: usize) -> Checked {
    batch_of(number, bytes, wall_clock().0)
}

/// A batch of an idempotent producer.
pub fn batch_from(producer: i64, sequence: i32) -> Checked {
    let mut batch = BatchBuilder::new(Offset(0)).producer(ProducerId(producer), 0, sequence);
    batch.push(wall_clock(), None, Some(b"value"), &[]);
    checked(batch.build())
}

pub fn checked(bytes: Bytes) -> Checked {
    check(bytes, &Rules::default(), wall_clock()).unwrap()
}

pub fn append(log: &Log, batch: Checked) -> Appended {
    log.append(batch, Origin::Client, LeaderEpoch(0), wall_clock()).unwrap()
}

/// Everything in the log, read as a consumer would; checks that it is whole batches in order.
pub async fn read_all(log: &Log, bytes_max: usize) -> Vec<u8> {
    let (mut all, mut next) = (Vec::new(), log.log_start());
    loop {
        let out = log.read(next, Offset(i64::MAX), bytes_max, true).await.unwrap();
        if out.bytes == 0 {
            assert_eq!(next, log.log_end(), "reading ends at the log's end");
            return all;
        }
        let bytes: Vec<u8> = out.parts.iter().flatten().copied().collect();
        assert_eq!(bytes.len(), out.bytes);
        for found in flowstone_batch::batches(&bytes) {
            let (_, header, whole) = found.unwrap();
            assert!(flowstone_batch::crc_ok(whole));
            assert!(header.base_offset >= next);
            next = header.last_offset().plus(1);
        }
        all.extend(bytes);
    }
}

/// The numbers of the batches of [`batch`] in these bytes.
pub fn numbers(bytes: &[u8]) -> Vec<u64> {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut numbers = Vec::new();
    for found in flowstone_batch::batches(&bytes) {
        let (at, _, whole) = found.unwrap();
        let records = flowstone_batch::records(
            &bytes.slice(at..at + whole.len()),
            &flowstone_batch::Limits::default(),
        );
        for record in records.unwrap() {
            let key = record.unwrap().key.unwrap();
            numbers.push(u64::from_be_bytes(key[..].try_into().unwrap()));
        }
    }
    numbers
}
