//! What a shard counts while it serves: its own, so without a lock.

use super::errors;
use crate::partition::Totals;
use flowstone_runtime::{busy_nanos, now};
use flowstone_types::Instant;
use flowstone_wire::{Api, ReplyTo, ResponseBody};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// Quantiles speak of the last one to two of these: Prometheus asks several times within one.
const WINDOW: Duration = Duration::from_mins(1);
/// Significant digits of a latency: 1 % is enough, and a histogram is some KiB.
const DIGITS: u8 = 2;
/// The share of the last look in the moving average of idleness, which is taken once a second:
/// about a minute's average, as Kafka's meters have.
const IDLE_SMOOTHING: f64 = 1.0 / 30.0;

/// What a shard counts.
pub struct ShardMetrics {
    /// By API; made when the first request of that API comes, so that idle costs nothing.
    requests: RefCell<BTreeMap<Api, OfApi>>,
    idle: Cell<Idle>,
    /// What happened to partitions that are gone (totals never go back), and what never got to one.
    apart: Cell<Totals>,
    /// Accepts that failed; shard 0's counts.
    pub accepts_failed: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Idle {
    looked: Instant,
    busy_nanos: u64,
    share: f64,
}

/// The requests of one API.
#[derive(Clone)]
pub struct OfApi {
    /// How many were answered, by version.
    pub by_version: BTreeMap<i16, u64>,
    /// How often each error code was answered.
    pub by_error: BTreeMap<i16, u64>,
    latency: Latency,
}

/// Microseconds from decoded to encoded, of the last one to two windows.
#[derive(Clone)]
struct Latency {
    since: Instant,
    newer: Histogram<u32>,
    older: Histogram<u32>,
}

impl Default for ShardMetrics {
    fn default() -> Self {
        let idle = Idle { looked: Instant::default(), busy_nanos: 0, share: 1.0 };
        Self {
            requests: RefCell::default(),
            idle: Cell::new(idle),
            apart: Cell::default(),
            accepts_failed: Cell::new(0),
        }
    }
}

impl ShardMetrics {
    /// A request that was taken up at `began` was answered.
    pub fn answered(&self, reply_to: ReplyTo, response: &ResponseBody, began: Instant) {
        let at = now();
        let mut requests = self.requests.borrow_mut();
        let of_api = requests.entry(reply_to.api).or_insert_with(|| OfApi::new(at));
        *of_api.by_version.entry(reply_to.version).or_default() += 1;
        errors::each(response, |code| *of_api.by_error.entry(code).or_default() += 1);
        of_api.latency.took(at, at.since(began));
    }

    /// A partition with these totals is gone.
    pub fn departed(&self, totals: Totals) {
        self.apart.set(self.apart.get().plus(totals));
    }

    /// A batch was refused before it got to its partition.
    pub fn batch_refused(&self) {
        let one = Totals { produce_requests: 1, produce_failed: 1, ..Totals::default() };
        self.apart.set(self.apart.get().plus(one));
    }

    /// Totals of no partition that is here.
    pub fn apart(&self) -> Totals {
        self.apart.get()
    }

    /// Requests by API, as they are now.
    pub fn requests(&self) -> BTreeMap<Api, OfApi> {
        let at = now();
        let mut requests = self.requests.borrow_mut();
        requests.values_mut().for_each(|of_api| of_api.latency.turn(at));
        requests.clone()
    }

    /// Looks how idle the shard was since the last look; the shard calls it about once a second.
    pub fn tick(&self) {
        let (before, at, busy) = (self.idle.get(), now(), busy_nanos());
        let passed = at.since(before.looked).as_nanos() as f64;
        if passed > 0.0 {
            let busy_share = busy.saturating_sub(before.busy_nanos) as f64 / passed;
            let idle = (1.0 - busy_share).clamp(0.0, 1.0);
            let share = before.share + (idle - before.share) * IDLE_SMOOTHING;
            self.idle.set(Idle { looked: at, busy_nanos: busy, share });
        }
    }

    /// The share of its time that the shard waits, averaged over about a minute.
    pub fn idle_share(&self) -> f64 {
        self.idle.get().share
    }
}

impl OfApi {
    fn new(at: Instant) -> Self {
        Self {
            by_version: BTreeMap::new(),
            by_error: BTreeMap::new(),
            latency: Latency { since: at, newer: histogram(), older: histogram() },
        }
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &Self) {
        for (version, count) in &other.by_version {
            *self.by_version.entry(*version).or_default() += count;
        }
        for (code, count) in &other.by_error {
            *self.by_error.entry(*code).or_default() += count;
        }
        add(&mut self.latency.newer, &other.latency.newer);
        add(&mut self.latency.older, &other.latency.older);
    }

    /// How many were answered.
    pub fn count(&self) -> u64 {
        self.by_version.values().sum()
    }

    /// Milliseconds within which each of these shares was answered lately.
    pub fn quantiles_ms<const N: usize>(&self, shares: [f64; N]) -> [f64; N] {
        let mut all = self.latency.newer.clone();
        add(&mut all, &self.latency.older);
        shares.map(|share| all.value_at_quantile(share) as f64 / 1000.0)
    }
}

impl Latency {
    fn took(&mut self, at: Instant, took: Duration) {
        self.turn(at);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(LONGEST_MICROS);
        self.newer.record(micros).expect("it grows up to the longest");
    }

    fn turn(&mut self, at: Instant) {
        let passed = at.since(self.since);
        if passed < WINDOW {
            return;
        }
        std::mem::swap(&mut self.newer, &mut self.older);
        self.newer.reset();
        if passed >= WINDOW * 2 {
            self.older.reset();
        }
        self.since = at;
    }
}

/// Longer ones count as this long: an hour, more than any request may wait.
const LONGEST_MICROS: u64 = 3_600_000_000;

fn histogram() -> Histogram<u32> {
    Histogram::new(DIGITS).expect("a fair number of digits")
}

fn add(to: &mut Histogram<u32>, from: &Histogram<u32>) {
    to.add(from).expect("it grows up to the longest");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn quantiles_speak_of_the_last_minutes() {
        let start = Instant::default();
        let mut of_api = OfApi::new(start);
        let took = Duration::from_millis(5);
        (0..100).for_each(|_| of_api.latency.took(start, took));
        let near = |got: f64, want: f64| (got - want).abs() <= want / 100.0;
        assert!(near(of_api.quantiles_ms([0.5])[0], 5.0));
        of_api.latency.turn(start.after(MINUTE));
        assert!(near(of_api.quantiles_ms([0.99])[0], 5.0), "the minute before still counts");
        of_api.latency.took(start.after(MINUTE), Duration::from_secs(10_000));
        assert!(near(of_api.quantiles_ms([1.0])[0], 3_600_000.0), "cut to the longest");
        of_api.latency.turn(start.after(MINUTE * 4));
        assert!(near(of_api.quantiles_ms([1.0])[0], 0.0), "all of it is too old");
    }

    #[test]
    fn an_api_costs_little_memory() {
        let latency = OfApi::new(Instant::default()).latency;
        let bytes = (latency.newer.distinct_values() + latency.older.distinct_values()) * 4;
        assert!(bytes <= 4096, "{bytes} bytes");
    }
}
