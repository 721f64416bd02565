//! How fast one shard appends and commits: `cargo run --release -p flowstone-store --example append
//! -- DIR [logs] [batch bytes] [in flight] [seconds] [flushed|written|memory]`.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowstone_batch::{BatchBuilder, Checked, Origin, Rules, check};
use flowstone_runtime::{Plan, launch, local::Notify, spawn, wall_clock};
use flowstone_store::{
    Durability, Log, LogConfig, LogDir, LogSpec, StorageError, Store, StoreConfig, Watcher,
    Whereabouts,
};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Timestamp, Uuid};

#[derive(Default)]
struct Acks {
    end: Cell<i64>,
    changed: Notify,
}

impl Watcher for Acks {
    fn durable(&self, end: Offset) {
        self.end.set(end.0);
        self.changed.notify_all();
    }

    fn failed(&self, error: &StorageError) {
        panic!("{error}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).map_or(default, |a| a.parse().expect("a number"))
    };
    let path = PathBuf::from(arguments.get(1).expect("a directory"));
    let (logs, bytes, in_flight) = (number(2, 1), number(3, 16_384), number(4, 32));
    let seconds = number(5, 5) as u64;
    let durability = match arguments.get(6).map(String::as_str) {
        Some("written") => Durability::Written,
        Some("memory") => Durability::Memory,
        _ => Durability::Flushed,
    };
    launch(Plan { cpus: vec![0] }, move |_| {
        run(path.clone(), logs, bytes, in_flight, seconds, durability)
    })
    .expect("a shard");
}

async fn run(
    path: PathBuf,
    logs: usize,
    bytes: usize,
    in_flight: usize,
    seconds: u64,
    durability: Durability,
) {
    let dir = LogDir::open(path, Uuid(7)).await.expect("a log directory");
    let store = Store::new(StoreConfig::new(vec![dir]));
    let mut batch = BatchBuilder::new(Offset(0));
    batch.push(wall_clock(), None, Some(&vec![7; bytes.saturating_sub(80)]), &[]);
    let batch = check(batch.build(), &Rules::default(), wall_clock()).expect("a batch");
    let (mut opened, opening) = (Vec::new(), Instant::now());
    for index in 0..logs {
        let acks = Rc::new(Acks::default());
        let spec = LogSpec {
            topic: "bench".into(),
            id: PartitionId { topic: Uuid(9), index: index as i32 },
            config: Arc::new(LogConfig { durability, ..LogConfig::default() }),
            leader_epoch: LeaderEpoch(0),
            whereabouts: Whereabouts::Untold,
        };
        let log = store.open(spec, acks.clone()).await.expect("a log");
        acks.end.set(log.durable_end().0);
        opened.push((log, acks));
    }
    println!("{logs} logs opened in {:.2} s", opening.elapsed().as_secs_f64());
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let until = began + Duration::from_secs(seconds);
    let latencies: Rc<std::cell::RefCell<Vec<u32>>> = Rc::default();
    let left = Rc::new(Cell::new(in_flight));
    let done = Rc::new(Notify::new());
    for client in 0..in_flight {
        let (log, acks) = opened[client % logs].clone();
        let (batch, store, latencies) = (batch.clone(), store.clone(), latencies.clone());
        let (left, done) = (left.clone(), done.clone());
        spawn(async move {
            while Instant::now() < until {
                store.room().await;
                let sent = Instant::now();
                one(&log, &acks, batch.clone()).await;
                latencies.borrow_mut().push(sent.elapsed().as_micros() as u32);
            }
            left.set(left.get() - 1);
            done.notify_all();
        });
    }
    while left.get() > 0 {
        done.notified().await;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    let total = latencies.len() as f64 * bytes as f64;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let commits = store.usage().commits;
    println!(
        "{logs} logs x {bytes} B, {in_flight} in flight, {durability:?}: {:.0} MB/s, {:.0}/s, p50 {} us, p99 {} us, \
         {:.2} CPU-s/GB, {} groups of {:.0} KiB, {} flushes",
        total / took / 1e6,
        latencies.len() as f64 / took,
        at(0.5),
        at(0.99),
        cpu / (total / 1e9),
        commits.groups,
        commits.bytes as f64 / commits.groups as f64 / 1024.0,
        commits.flushes,
    );
    store.shutdown().await.expect("a clean end");
}

async fn one(log: &Log, acks: &Acks, batch: Checked) {
    let appended =
        log.append(batch, Origin::Client, LeaderEpoch(0), Timestamp(1)).expect("appended");
    loop {
        let changed = acks.changed.notified();
        if acks.end.get() > appended.last_offset.0 {
            return;
        }
        changed.await;
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
