//! What the daemon costs while things are done to it: memory, files, threads, CPU; and its answers.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flowstone_wire::ErrorCode;
use hdrhistogram::Histogram;
use rustix::process::Pid;

use crate::client::{Client, create_topic, plain_batch, produce};

/// A MiB, in bytes.
pub const MIB: u64 = 1 << 20;
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Fewer requests show no p99: on a slow machine they take longer than was asked for.
const SAMPLES_MIN: u64 = 100;
/// A patient client's pause between two requests.
const PATIENT_PAUSE: Duration = Duration::from_millis(5);
/// A p99 up to this is the machine's, not the fault's: a few turns of a busy scheduler.
const P99_FLOOR_US: u64 = 10_000;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Resident memory.
    pub bytes: u64,
    /// Open files and sockets.
    pub files: u64,
    /// Threads.
    pub threads: u64,
}

/// What it holds now.
pub fn held(pid: Pid) -> anyhow::Result<Held> {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let status = fs::read_to_string(format!("{folder}/status")).context("the daemon is gone")?;
    let number = |name: &str| -> anyhow::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        Ok(word.with_context(|| format!("no {name} of the daemon"))?.parse()?)
    };
    Ok(Held {
        bytes: number("VmRSS:")? * 1024,
        files: fs::read_dir(format!("{folder}/fd"))?.count() as u64,
        threads: number("Threads:")?,
    })
}

/// CPU time that it used so far.
pub fn cpu(pid: Pid) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    // Behind the name, which may hold anything but the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    ensure!(ticks.len() == 2, "no CPU time of the daemon: {stat}");
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis((ticks[0] + ticks[1]) * 1000 / per_second))
}

/// The most memory it held while this was watched.
pub struct Watch {
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<u64>>,
}

impl Watch {
    /// Begins.
    pub fn begin(pid: Pid) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let watcher = std::thread::spawn(move || {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(held(pid).map_or(0, |held| held.bytes));
                sleep(Duration::from_millis(20));
            }
            most
        });
        Self { over, watcher: Some(watcher) }
    }

    /// The most bytes since then.
    pub fn end(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.watcher.take().and_then(|watcher| watcher.join().ok()).unwrap_or(0)
    }
}

/// A well-meaning client that writes one small record after another and notes how long each takes.
pub struct Patient {
    client: Client,
    topic: String,
}

impl Patient {
    /// Connects, and makes a topic of its own.
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Client::connect(address, Duration::from_secs(30))?;
        let topic = "patient".to_owned();
        let code = create_topic(&mut client, &topic, 1, &[])?;
        let there = matches!(code, ErrorCode::None | ErrorCode::TopicAlreadyExists);
        ensure!(there, "cannot create the patient's topic: {code}");
        Ok(Self { client, topic })
    }

    /// Writes until the time is over; the p99 in microseconds.
    pub fn p99_us(&mut self, for_time: Duration) -> anyhow::Result<u64> {
        let until = Instant::now() + for_time;
        self.p99_us_while(|| Instant::now() < until)
    }

    /// Writes as long as `go_on` says so; the p99 in microseconds.
    pub fn p99_us_while(&mut self, mut go_on: impl FnMut() -> bool) -> anyhow::Result<u64> {
        let mut latency: Histogram<u64> = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?;
        while go_on() || latency.len() < SAMPLES_MIN {
            let began = Instant::now();
            let answer = produce(&mut self.client, &self.topic, 0, plain_batch(&[b"beside"]))
                .context("a client beside the fault was cut off")?;
            ensure!(answer.code == ErrorCode::None, "a client beside met {}", answer.code);
            latency.record(began.elapsed().as_micros().max(1) as u64)?;
            sleep(PATIENT_PAUSE);
        }
        Ok(latency.value_at_quantile(0.99))
    }
}

/// Whether clients beside a fault did as well as without it: at most twice their p99 before or after, or
/// no more than [`P99_FLOOR_US`].
pub fn p99_holds(before: u64, during: u64, after: u64) -> anyhow::Result<()> {
    let limit = P99_FLOOR_US.max(2 * before.max(after));
    ensure!(
        during <= limit,
        "p99 beside the fault is {during} us; before and after it is {before} and {after} us"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_p99_that_a_fault_doubles_is_seen() {
        p99_holds(900, P99_FLOOR_US, 1_100).unwrap();
        p99_holds(900, P99_FLOOR_US + 1, 1_100).unwrap_err();
        p99_holds(9_000, 18_000, 1_000).unwrap();
        p99_holds(1_000, 18_000, 9_000).unwrap();
        p99_holds(9_000, 18_001, 9_000).unwrap_err();
    }
}
