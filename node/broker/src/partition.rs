//! One partition on the shard that owns it: its log, who leads it, and who waits.
//!
//! The thin shell of `flowstone_partition::Replica`: the store says what became durable, the replica
//! decides whom that concerns, and this file tells them. This broker is the only replica of each of
//! its partitions.

use crate::refusal::Refusal;
use flowstone_batch::{Checked, Origin};
use flowstone_partition::{
    Acks, Effect, EpochCache, EpochEnd, LogEnds, Metadata, NotCommitted, On, Replica, Rules,
    WaitKey,
};
use flowstone_runtime::{local, now, wall_clock};
use flowstone_store::{AppendError, Appended, Log, LogState, StorageError, Watcher};
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, PartitionId};
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

/// A fetch that waits.
pub trait Woken {
    /// It should look again; may lead to another shard.
    fn wake(self: Rc<Self>);
}

/// Told when a waiting fetch should look again.
pub type Wake = Rc<dyn Woken>;

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

type Ack = local::Sender<Result<(), Uncommitted>>;

/// What the store's committer reaches: the replica, apart from the log itself.
pub struct Waits {
    me: NodeId,
    replica: RefCell<Replica<Ack, Wake>>,
    /// Between two inputs empty; kept for its room.
    effects: RefCell<Vec<Effect<Ack, Wake>>>,
}

impl Waits {
    /// Before the log is open.
    pub fn new(me: NodeId) -> Rc<Self> {
        let replica = RefCell::new(Replica::new(me, Rules::default()));
        Rc::new(Self { me, replica, effects: RefCell::default() })
    }

    /// One input, and what comes of it. Who is told may come back with the next input.
    fn tell<T>(
        &self,
        input: impl FnOnce(&mut Replica<Ack, Wake>, &mut Vec<Effect<Ack, Wake>>) -> T,
    ) -> T {
        let mut effects = self.effects.take();
        let answer = input(&mut self.replica.borrow_mut(), &mut effects);
        for effect in effects.drain(..) {
            match effect {
                // Who is gone need not hear: the append is done all the same.
                Effect::Acknowledge { ack, outcome } => {
                    let _ = ack.send(outcome.map_err(Uncommitted::from));
                }
                Effect::Wake(wake) => wake.wake(),
                // The replica is asked for it; the store began the epoch when it opened the log.
                Effect::HighWatermark(_) | Effect::BeginEpoch(_) => {}
                Effect::AlterPartition(_)
                | Effect::RaiseLogStart(_)
                | Effect::Fetch
                | Effect::Append { .. }
                | Effect::Truncate(_)
                | Effect::StartAt { .. }
                | Effect::AskLeaderRange(_) => panic!("the only replica has nobody to talk to"),
            }
        }
        self.effects.replace(effects);
        answer
    }

    fn lead(&self, epoch: LeaderEpoch, log: &Log) {
        let all = [self.me];
        let told = Metadata {
            leader: Some(self.me),
            leader_epoch: epoch,
            partition_epoch: epoch.0, // Nothing else of such a partition ever changes.
            replicas: &all,
            isr: &all,
            recovering: false,
        };
        self.tell(|replica, effects| {
            replica.apply(&told, &|_| None, &EpochsOf(log), now(), effects);
        });
    }
}

/// The epochs of a log, as the replica asks for them.
struct EpochsOf<'a>(&'a Log);

impl EpochCache for EpochsOf<'_> {
    fn end_of(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let (epoch, end) = self.0.epoch_end_offset(epoch);
        (epoch.0 >= 0 && end.0 >= 0).then_some(EpochEnd { epoch, end })
    }

    fn latest(&self) -> Option<LeaderEpoch> {
        self.0.latest_epoch()
    }
}

impl From<NotCommitted> for Uncommitted {
    fn from(why: NotCommitted) -> Self {
        match why {
            NotCommitted::Stalled => Self::Stalled,
            NotCommitted::NotEnoughReplicasAfterAppend
            | NotCommitted::TimedOut
            | NotCommitted::NotLeader
            | NotCommitted::Offline => Self::Lost,
        }
    }
}

impl Watcher for Waits {
    fn durable(&self, end: Offset) {
        self.tell(|replica, effects| replica.durable(end, effects));
    }

    fn stalled(&self, _error: &StorageError) {
        // The disk is full: what waits may be written later. Its producers are told to try again,
        // and a retry of an idempotent one is recognised.
        self.tell(Replica::stalled);
    }

    fn failed(&self, _error: &StorageError) {
        self.tell(Replica::failed);
    }
}

impl Partition {
    /// A partition whose log is open, led in `epoch`; `waits` is the watcher it was opened with.
    pub fn new(
        id: PartitionId,
        topic: Arc<str>,
        log: Log,
        waits: Rc<Waits>,
        epoch: LeaderEpoch,
    ) -> Self {
        let durable = log.durable_end();
        let ends = LogEnds { start: log.log_start(), end: log.log_end(), durable };
        waits.tell(|replica, _| replica.opened(ends, durable));
        waits.lead(epoch, &log);
        Self { id, topic, log, traffic: Traffic::default(), waits }
    }

    /// The epoch of this leadership.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.waits.replica.borrow().leader_epoch()
    }

    /// A new leadership of this broker begins.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) {
        self.waits.lead(epoch, &self.log);
    }

    /// Consumers may read below this.
    pub fn high_watermark(&self) -> Offset {
        self.waits.replica.borrow().high_watermark()
    }

    /// Appends a batch under this leadership; it is committed later.
    pub fn append(&self, batch: Checked, origin: Origin) -> Result<Appended, AppendError> {
        let traffic = &self.traffic;
        let (bytes, count) = (batch.bytes.len() as u64, batch.header.count);
        add(&traffic.produce_requests, 1);
        let may_append = self.waits.replica.borrow().may_append(None);
        let appended = match may_append {
            Ok(epoch) => self.log.append(batch, origin, epoch, wall_clock()),
            Err(_) => Err(match self.log.state() {
                LogState::Failed(error) => AppendError::Offline(error),
                LogState::Online | LogState::Full | LogState::Closed => AppendError::Closed,
            }),
        };
        match appended {
            Ok(appended) => {
                if !appended.duplicate {
                    self.appended(appended.last_offset.plus(1));
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

    /// The log ends here after an append under this leadership.
    pub fn appended(&self, end: Offset) {
        self.waits.tell(|replica, effects| replica.appended(replica.leader_epoch(), end, effects));
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

    /// Resolves once everything below `end` is committed, or never will be.
    pub fn committed(&self, end: Offset) -> Committed {
        let (ack, committed) = local::oneshot();
        let mut replica = self.waits.replica.borrow_mut();
        if let Some((ack, outcome)) = replica.await_acks(Acks::All, end, Instant::NEVER, ack) {
            let _ = ack.send(outcome.map_err(Uncommitted::from)); // Its receiver is made above.
        }
        committed
    }

    /// Calls `wake` at the next move of the high watermark, or when the partition fails or goes.
    /// `None` where it did: nothing will ever move again.
    pub fn await_data(&self, wake: Wake) -> Option<WaitKey> {
        let mut replica = self.waits.replica.borrow_mut();
        replica.await_move(On::HighWatermark, Instant::NEVER, wake).ok()
    }

    /// The fetch that waited with `key` was answered.
    pub fn forget(&self, key: WaitKey) {
        self.waits.replica.borrow_mut().forget(key);
    }

    /// The topic was deleted: nobody gets what they wait for.
    pub fn close(&self) {
        self.waits.tell(Replica::close);
    }
}

/// Counts.
pub fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}
