//! One partition on the shard that owns it: its log, who leads it, and who waits.
//!
//! The thin shell of `flowstone_partition::Leader`: the store says what became durable, the leader
//! decides whom that concerns, and this file tells them.

use crate::refusal::Refusal;
use flowstone_batch::{Checked, Origin};
use flowstone_partition::{Leader, Moved, WaitKey};
use flowstone_runtime::{local, wall_clock};
use flowstone_store::{AppendError, Appended, Log, StorageError, Watcher};
use flowstone_types::{LeaderEpoch, Offset, PartitionId};
use flowstone_wire::ErrorCode;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// A produce waits for this: `Ok` once what it appended is committed, `Err` if it never will be.
pub type Committed = local::Receiver<Result<(), Uncommitted>>;

/// Why what was appended is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncommitted {
    /// The disk is full: it is committed once there is space, and its producer should not wait.
    Stalled,
    /// The log failed or went: whether the records survive is unknown.
    Lost,
}

/// Called when a waiting fetch should look again; may lead to another shard.
pub type Wake = Box<dyn FnOnce()>;

/// What happened to one partition since this node started, for the metrics of its topic.
#[derive(Default)]
pub struct Traffic {
    /// Records appended.
    pub messages_in: Cell<u64>,
    /// Bytes of batches appended.
    pub bytes_in: Cell<u64>,
    /// Bytes of batches sent to consumers.
    pub bytes_out: Cell<u64>,
    /// Produce requests that touched it, and those of them that failed.
    pub produce_requests: Cell<u64>,
    /// See `produce_requests`.
    pub produce_failed: Cell<u64>,
    /// Fetch requests that touched it, and those of them that failed.
    pub fetch_requests: Cell<u64>,
    /// See `fetch_requests`.
    pub fetch_failed: Cell<u64>,
}

/// The same, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Records appended.
    pub messages_in: u64,
    /// Bytes of batches appended.
    pub bytes_in: u64,
    /// Bytes of batches sent to consumers.
    pub bytes_out: u64,
    /// Produce requests, and those of them that failed.
    pub produce_requests: u64,
    /// See `produce_requests`.
    pub produce_failed: u64,
    /// Fetch requests, and those of them that failed.
    pub fetch_requests: u64,
    /// See `fetch_requests`.
    pub fetch_failed: u64,
}

impl Traffic {
    /// The counters as they are now.
    pub fn totals(&self) -> Totals {
        Totals {
            messages_in: self.messages_in.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            produce_requests: self.produce_requests.get(),
            produce_failed: self.produce_failed.get(),
            fetch_requests: self.fetch_requests.get(),
            fetch_failed: self.fetch_failed.get(),
        }
    }
}

impl Totals {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            messages_in: self.messages_in + other.messages_in,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            produce_requests: self.produce_requests + other.produce_requests,
            produce_failed: self.produce_failed + other.produce_failed,
            fetch_requests: self.fetch_requests + other.fetch_requests,
            fetch_failed: self.fetch_failed + other.fetch_failed,
        }
    }
}

/// A partition this shard owns.
pub struct Partition {
    /// Its identity.
    pub id: PartitionId,
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its log.
    pub log: Log,
    /// Counters for metrics.
    pub traffic: Traffic,
    waits: Rc<Waits>,
}

/// What the store's committer reaches: the leader's state, apart from the log itself.
pub struct Waits(RefCell<Leader<local::Sender<Result<(), Uncommitted>>, Wake>>);

impl Waits {
    /// Before the log is open: nothing is durable yet, as far as anybody knows.
    pub fn new(epoch: LeaderEpoch) -> Rc<Self> {
        Rc::new(Self(RefCell::new(Leader::new(epoch, Offset::ZERO))))
    }
}

/// Tells those whom a move concerns. Who is gone need not hear: the append is done all the same.
fn tell(moved: Moved<local::Sender<Result<(), Uncommitted>>, Wake>, fate: Result<(), Uncommitted>) {
    for ack in moved.acks {
        let _ = ack.send(fate);
    }
    for wake in moved.wakes {
        wake();
    }
}

impl Watcher for Waits {
    fn durable(&self, end: Offset) {
        let moved = self.0.borrow_mut().durable(end);
        tell(moved, Ok(()));
    }

    fn stalled(&self, _error: &StorageError) {
        // The disk is full: what waits may be written later. Its producers are told to try again,
        // and a retry of an idempotent one is recognised.
        let moved = self.0.borrow_mut().give_up();
        tell(moved, Err(Uncommitted::Stalled));
    }

    fn failed(&self, _error: &StorageError) {
        let moved = self.0.borrow_mut().give_up();
        tell(moved, Err(Uncommitted::Lost));
    }
}

impl Partition {
    /// A partition whose log is open; `waits` is the watcher it was opened with.
    pub fn new(id: PartitionId, topic: Arc<str>, log: Log, waits: Rc<Waits>) -> Self {
        waits.durable(log.durable_end());
        Self { id, topic, log, traffic: Traffic::default(), waits }
    }

    /// The epoch of this leadership.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.waits.0.borrow().epoch()
    }

    /// A new leadership of this broker begins.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) {
        self.waits.0.borrow_mut().begin_epoch(epoch);
    }

    /// Consumers may read below this.
    pub fn high_watermark(&self) -> Offset {
        self.waits.0.borrow().high_watermark()
    }

    /// Appends a batch under this leadership; it is committed later.
    pub fn append(&self, batch: Checked, origin: Origin) -> Result<Appended, AppendError> {
        let traffic = &self.traffic;
        let (bytes, count) = (batch.bytes.len() as u64, batch.header.count);
        add(&traffic.produce_requests, 1);
        match self.log.append(batch, origin, self.leader_epoch(), wall_clock()) {
            Ok(appended) => {
                if !appended.duplicate {
                    add(&traffic.bytes_in, bytes);
                    add(&traffic.messages_in, u64::try_from(count).unwrap_or(0));
                }
                Ok(appended)
            }
            Err(error) => {
                add(&traffic.produce_failed, 1);
                Err(error)
            }
        }
    }

    /// Whether a client that believes in leader epoch `known` may go on; -1 asks for nothing
    /// (KIP-320).
    pub fn check_epoch(&self, known: i32) -> Result<(), Refusal> {
        let current = self.leader_epoch().0;
        match known {
            -1 => Ok(()),
            _ if known < current => Err(ErrorCode::FencedLeaderEpoch.into()),
            _ if known > current => Err(ErrorCode::UnknownLeaderEpoch.into()),
            _ => Ok(()),
        }
    }

    /// Resolves once everything below `end` is committed.
    pub fn committed(&self, end: Offset) -> Committed {
        let (ack, committed) = local::oneshot();
        if let Some(ready) = self.waits.0.borrow_mut().await_commit(end, ack) {
            let _ = ready.send(Ok(())); // Its receiver is the one made above.
        }
        committed
    }

    /// Calls `wake` at the next move of the high watermark, or when the partition fails or goes.
    pub fn await_data(&self, wake: Wake) -> WaitKey {
        self.waits.0.borrow_mut().await_data(wake)
    }

    /// The fetch that waited with `key` was answered.
    pub fn forget(&self, key: WaitKey) {
        self.waits.0.borrow_mut().forget(key);
    }

    /// The topic was deleted: nobody gets what they wait for.
    pub fn close(&self) {
        let moved = self.waits.0.borrow_mut().give_up();
        tell(moved, Err(Uncommitted::Lost));
    }
}

/// Counts.
pub fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
