//! Load on one topic, whose history is judged: producers, readers from the earliest offset, commits.
//!
//! Separate from the scenarios, which all need it. A record's value names its topic and partition, its
//! producer and its number there, and the bytes behind them follow from these, so whatever lands in
//! another place, or changes, shows. Clients never give up while faults last; a broken promise is kept
//! for [`Load::verdict`], and ends the client that saw it. About 100 bytes of memory a record, until
//! retention takes it.

mod produce;
mod read;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flowstone_history::{Commits, PartitionHistory, RecordId, Violation};
use flowstone_wire::ErrorCode;
use hdrhistogram::Histogram;

use crate::client::{Client, ClientError, create_topic};

/// A client that was cut off tries again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long the topic's creation, and the reading of everything, may meet with errors.
const SETTLE_MAX: Duration = Duration::from_mins(1);
/// Longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Which producers carry an identity (KIP-98), so that a retry is not stored twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// All.
    Idempotent,
    /// All but every third one.
    Mixed,
}

/// How much there is to do, and with what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The topic, which the load makes.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its configs.
    pub configs: Vec<(&'static str, String)>,
    /// Threads that produce, each with a connection of its own.
    pub producers: u32,
    /// Who of them is idempotent.
    pub identity: Identity,
    /// Requests that a producer has under way at once, at most.
    pub in_flight: u32,
    /// Records of a batch, at most.
    pub batch_records_max: u32,
    /// Bytes of a record's value, at most (and a head of some 20).
    pub value_bytes_max: usize,
    /// A producer's pause after its requests were answered.
    pub pause: Duration,
    /// Threads that read from the earliest offset on and commit how far they came.
    pub readers: u32,
    /// How long an answer may take before the client takes another connection.
    pub answer_within: Duration,
}

impl Default for Plan {
    /// A few hundred small requests a second.
    fn default() -> Self {
        Self {
            topic: "ledger".to_owned(),
            partitions: 4,
            configs: Vec::new(),
            producers: 4,
            identity: Identity::Mixed,
            in_flight: 5,
            batch_records_max: 10,
            value_bytes_max: 200,
            pause: Duration::from_millis(10),
            readers: 1,
            answer_within: Duration::from_secs(5),
        }
    }
}

/// What a load came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records in the log at the end.
    pub there: u64,
}

/// Clients at work. Dropped, they stop; their history goes with them.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    plan: Plan,
    partitions: Vec<Mutex<Partition>>,
    latency_us: Mutex<Histogram<u64>>,
    acknowledged: AtomicU64,
    refusals: Mutex<BTreeSet<String>>,
    stopping: AtomicBool,
    broken: Mutex<Option<String>>,
}

/// What is known of one partition.
#[derive(Default)]
struct Partition {
    history: PartitionHistory,
    commits: Commits,
}

impl Load {
    /// Makes the topic, and starts.
    pub fn start(address: SocketAddr, plan: Plan) -> anyhow::Result<Self> {
        make_topic(address, &plan)?;
        let histogram = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds in order");
        let shared = Arc::new(Shared {
            address,
            partitions: (0..plan.partitions).map(|_| Mutex::default()).collect(),
            latency_us: Mutex::new(histogram),
            acknowledged: AtomicU64::new(0),
            refusals: Mutex::default(),
            stopping: AtomicBool::new(false),
            broken: Mutex::new(None),
            plan,
        });
        let mut clients = Vec::new();
        for number in 0..shared.plan.producers {
            let shared = Arc::clone(&shared);
            clients.push(std::thread::spawn(move || produce::run(&shared, number)));
        }
        for number in 0..shared.plan.readers {
            let shared = Arc::clone(&shared);
            clients.push(std::thread::spawn(move || read::run(&shared, number)));
        }
        Ok(Self { shared, clients })
    }

    /// Records that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more records are acknowledged; an error after `at_most`.
    pub fn wait_for_more(&self, records: u64, at_most: Duration) -> anyhow::Result<Duration> {
        let (began, goal) = (Instant::now(), self.acknowledged() + records);
        while self.acknowledged() < goal {
            self.check()?;
            if began.elapsed() > at_most {
                bail!("writes do not go on: fewer than {records} records in {at_most:?}");
            }
            sleep(Duration::from_millis(2));
        }
        Ok(began.elapsed())
    }

    /// Latencies of answered produces since the last call, in microseconds: from the sending of the
    /// request that was answered, so that an outage counts once for each client and not for each
    /// record that it delayed.
    pub fn take_latencies(&self) -> Histogram<u64> {
        let mut latency = lock(&self.shared.latency_us);
        let taken = latency.clone();
        latency.reset();
        taken
    }

    /// Errors of which clients were told, and that they retried.
    pub fn refusals(&self) -> BTreeSet<String> {
        lock(&self.shared.refusals).clone()
    }

    /// The promise that is broken already, if one is.
    pub fn check(&self) -> anyhow::Result<()> {
        match &*lock(&self.shared.broken) {
            None => Ok(()),
            Some(broken) => bail!("{broken}"),
        }
    }

    /// Lets the clients finish what they have begun (the broker must be well), reads everything and
    /// judges it.
    pub fn verdict(mut self) -> anyhow::Result<Totals> {
        self.settle()?;
        let totals = self.audit()?;
        ensure!(totals.acknowledged > 0, "nothing was acknowledged: this shows nothing");
        Ok(totals)
    }

    /// Lets the clients finish what they have begun; the broker must be well.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.check()
    }

    /// Reads everything of a load that has settled, and judges it; as often as one likes.
    pub fn audit(&self) -> anyhow::Result<Totals> {
        let mut totals = Totals::default();
        for partition in 0..self.shared.plan.partitions {
            let log = read::whole(&self.shared, partition, SETTLE_MAX)?;
            let guard = self.shared.partition(partition);
            let judged = guard.history.is_all(&log);
            judged.with_context(|| self.shared.place(partition))?;
            let (sent, acknowledged) = guard.history.counts();
            totals.sent += sent as u64;
            totals.acknowledged += acknowledged as u64;
            totals.there += log.len() as u64;
        }
        Ok(totals)
    }

    /// Lets the clients finish what they have begun.
    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let until = Instant::now() + SETTLE_MAX;
        while !self.clients.iter().all(JoinHandle::is_finished) && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        if !self.clients.iter().all(JoinHandle::is_finished) {
            let refusals = self.refusals();
            self.shared.broken(format!("clients cannot finish in {SETTLE_MAX:?}: {refusals:?}"));
        }
        for client in self.clients.drain(..) {
            if let Err(panic) = client.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Without waiting: the broker may be gone, and the clients' time limits end them.
        self.shared.stopping.store(true, Ordering::Relaxed);
        *lock(&self.shared.broken) = Some("the load was dropped".to_owned());
    }
}

impl Shared {
    fn partition(&self, partition: i32) -> MutexGuard<'_, Partition> {
        lock(&self.partitions[partition as usize])
    }

    /// Whether clients begin nothing new.
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether clients give up what they have begun.
    fn over(&self) -> bool {
        lock(&self.broken).is_some()
    }

    /// Keeps the first broken promise.
    fn broken(&self, what: String) {
        lock(&self.broken).get_or_insert(what);
    }

    /// `None` where a promise was broken.
    fn judge<T>(&self, partition: i32, judged: Result<T, Violation>) -> Option<T> {
        judged
            .map_err(|violation| self.broken(format!("{}: {violation}", self.place(partition))))
            .ok()
    }

    /// Notes an error that is retried.
    fn refused(&self, what: &str, code: ErrorCode) {
        lock(&self.refusals).insert(format!("{what}: {code}"));
    }

    fn place(&self, partition: i32) -> String {
        format!("{}-{partition}", self.plan.topic)
    }

    /// What every value of the partition begins with.
    fn prefix(&self, partition: i32) -> Vec<u8> {
        format!("{}/{partition}/", self.plan.topic).into_bytes()
    }

    fn value(&self, partition: i32, record: RecordId) -> Vec<u8> {
        let mut value = self.prefix(partition);
        value.extend(record.value(self.plan.value_bytes_max));
        value
    }
}

/// A connection that comes back.
struct Link<'a> {
    shared: &'a Shared,
    client: Option<Client>,
}

impl<'a> Link<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, client: None }
    }

    /// What `ask` says over a connection; `None` where there is none, or it failed.
    fn with<T>(&mut self, ask: impl FnOnce(&mut Client) -> Result<T, ClientError>) -> Option<T> {
        let Shared { address, plan, .. } = self.shared;
        if self.client.is_none() {
            self.client = Client::connect(*address, plan.answer_within).ok();
        }
        let answer = self.client.as_mut().and_then(|client| match ask(client) {
            Ok(answer) => Some(answer),
            // No answer at all is a fault's doing; an answer that makes no sense is the broker's.
            Err(ClientError::Io(_)) => None,
            Err(error) => {
                self.shared.broken(error.to_string());
                None
            }
        });
        if answer.is_none() {
            self.client = None;
            sleep(AGAIN_AFTER);
        }
        answer
    }
}

fn make_topic(address: SocketAddr, plan: &Plan) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLE_MAX;
    loop {
        let made = Client::connect(address, plan.answer_within).map_err(ClientError::Io).and_then(
            |mut client| create_topic(&mut client, &plan.topic, plan.partitions, &plan.configs),
        );
        match made {
            Ok(ErrorCode::None | ErrorCode::TopicAlreadyExists) => return Ok(()),
            Ok(code) if code.is_retriable() && Instant::now() < until => {}
            Ok(code) => bail!("cannot create topic {}: {code}", plan.topic),
            Err(_) if Instant::now() < until => {}
            Err(error) => return Err(error).context(format!("cannot create topic {}", plan.topic)),
        }
        sleep(AGAIN_AFTER);
    }
}

/// What a thread that panicked left is still whole: every change of it is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
