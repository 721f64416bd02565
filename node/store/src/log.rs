//! One open log: appending, and what can be said of it without I/O.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use flowstone_batch::{Checked, Origin};
use flowstone_log::{ActiveProducer, Durability, FileKind, Log as Core, LogConfig, Sealed, names};
use flowstone_runtime::local::Notify;
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Timestamp, Uuid};

use crate::error::{AppendError, StorageError};
use crate::store::Shard;
use crate::tail::{Tail, Waiting};

/// Who wants to know what becomes of a log. Called from the committer, outside of any borrow of the
/// log: a watcher may append and read.
pub trait Watcher {
    /// Everything below `end` meets the log's durability mode. Ends only grow.
    fn durable(&self, end: Offset);
    /// A write or flush failed in its directory: the log takes no more and serves no more.
    fn failed(&self, error: &StorageError);
    /// The disk is full. What waits to be durable is written once there is space; whoever cannot
    /// wait may be told of an unknown outcome.
    fn stalled(&self, _error: &StorageError) {}
}

/// Where an appended batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Its first offset.
    pub base_offset: Offset,
    /// Its last offset. Acknowledge once `durable_end` is above it.
    pub last_offset: Offset,
    /// The time of the append, on a LogAppendTime topic.
    pub log_append_time: Option<Timestamp>,
    /// The log's first offset.
    pub log_start: Offset,
    /// Whether it was in the log before: a retry of an idempotent producer.
    pub duplicate: bool,
}

/// Whether a log takes writes.
#[derive(Clone, Debug)]
pub enum LogState {
    /// It does.
    Online,
    /// Not until there is space.
    Full,
    /// Never again, until the process starts anew.
    Failed(StorageError),
    /// It was deleted, or its store shut down.
    Closed,
}

/// An open log. Clones are the same log.
#[derive(Clone)]
pub struct Log(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    pub id: u64,
    pub shard: Rc<Shard>,
    pub dir: usize,
    pub path: PathBuf,
    pub topic: Arc<str>,
    pub partition: PartitionId,
    pub watcher: Rc<dyn Watcher>,
    pub state: RefCell<State>,
    /// Told when a commit or a seal of this log ended.
    pub idle: Notify,
}

pub(crate) enum Pending {
    Batch(Waiting),
    Seal(Rc<Sealed>),
}

pub(crate) enum Health {
    Online,
    Full,
    Failed(StorageError),
    Closed,
}

/// Where the next write goes. Behind the core's active segment while a seal waits in the queue.
#[derive(Clone, Copy)]
pub(crate) struct Writer {
    /// The segment.
    pub base: Offset,
    /// Bytes written to it.
    pub position: u64,
    /// Bytes of disk it has.
    pub allocated: u64,
    /// Whether its file is there, durably.
    pub created: bool,
}

impl Writer {
    pub const fn new(base: Offset) -> Self {
        Self { base, position: 0, allocated: 0, created: false }
    }
}

pub(crate) struct State {
    pub core: Core,
    pub health: Health,
    pub pending: VecDeque<Pending>,
    pub tail: Tail,
    pub writer: Writer,
    /// Position in the writer's segment where the next run begins: behind it are runs that are built
    /// and perhaps journaled, but not written to the segment.
    pub built: u64,
    /// Segments that ended and are not stored yet, by base offset.
    pub sealing: BTreeMap<Offset, Rc<Sealed>>,
    /// A task stores them.
    pub storing: bool,
    /// Everything below is written to its segment; flushed there; on stable storage in the journal,
    /// together with what is flushed; durable by the log's mode.
    pub written: Offset,
    pub flushed: Offset,
    pub journaled: Offset,
    pub durable: Offset,
    /// The durable end that the watcher knows.
    pub told: Offset,
    /// In the weaker modes: from here on, nothing is durable before the next flush.
    pub barrier: Option<Offset>,
    /// The newest batch that asked for a flush.
    pub last_barrier: Option<Offset>,
    /// Records since the last flush.
    pub unflushed_records: i64,
    /// When the oldest write that is not flushed was made.
    pub unflushed_since: Option<Timestamp>,
    /// Flush in the next cycle.
    pub flush_now: bool,
    /// In the committer's queue.
    pub queued: bool,
    /// In its hands.
    pub busy: bool,
    /// Being written to its segment; its segment being flushed.
    pub writing: bool,
    pub flushing: bool,
    /// In the queue of those that are written to their segments where memory runs short.
    pub awaits_write_back: bool,
    /// The active segment is not stored as a clean shutdown stores it.
    pub touched: bool,
    /// Bytes that count in the shard's room: not yet in a write, and in one.
    pub room_waiting: usize,
    pub room_in_flight: usize,
    /// Bytes written in this cycle.
    pub in_flight_bytes: usize,
}

impl State {
    pub fn new(core: Core, writer: Writer, is_stored: bool) -> Self {
        let end = core.end();
        Self {
            core,
            health: Health::Online,
            pending: VecDeque::new(),
            tail: Tail::default(),
            built: writer.position,
            writer,
            sealing: BTreeMap::new(),
            storing: false,
            written: end,
            flushed: end,
            journaled: end,
            durable: end,
            told: end,
            barrier: None,
            last_barrier: None,
            unflushed_records: 0,
            unflushed_since: None,
            flush_now: false,
            queued: false,
            busy: false,
            writing: false,
            flushing: false,
            awaits_write_back: false,
            touched: !is_stored,
            room_waiting: 0,
            room_in_flight: 0,
            in_flight_bytes: 0,
        }
    }

    /// Up to where batches may be served.
    pub fn readable(&self) -> Offset {
        match self.health {
            Health::Online | Health::Full => self.core.end(),
            Health::Failed(_) | Health::Closed => self.durable,
        }
    }

    /// Everything below is flushed, and its sealed segments are stored with their indexes.
    pub fn recovery_point(&self) -> Offset {
        self.sealing.first_key_value().map_or(self.flushed, |(base, _)| *base)
    }

    /// What meets the log's mode now.
    fn durable_now(&self) -> Offset {
        let end = match self.core.config().durability {
            Durability::Flushed => self.stable(),
            Durability::Written => self.written,
            Durability::Memory => self.core.end(),
        };
        end.min(self.barrier.unwrap_or(end)).max(self.stable())
    }

    /// Everything below is on stable storage, in its segment or in the journal.
    fn stable(&self) -> Offset {
        self.flushed.max(self.journaled)
    }

    /// Counts what is built and not written as lost; returns how many bytes it is.
    pub fn give_up_built(&mut self) -> u64 {
        let bytes = self.unwritten_bytes();
        self.built = self.writer.position;
        bytes
    }
}

impl Log {
    /// Gives a checked batch its place and queues it for the next group. Synchronous: batches are in
    /// the log in the order of the calls. `epoch` is the leader's.
    pub fn append(
        &self,
        batch: Checked,
        origin: Origin,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Appended, AppendError> {
        self.takes()?;
        let mut state = self.0.state.borrow_mut();
        let Checked { bytes, header, log_append_time, .. } = batch;
        let placed = match state.core.append(&header, origin, epoch, now)? {
            flowstone_log::Appended::Placed(placed) => placed,
            flowstone_log::Appended::Duplicate(known) => {
                return Ok(Appended {
                    base_offset: known.base_offset,
                    last_offset: known.last_offset,
                    log_append_time: log_append_time.map(|_| known.timestamp),
                    log_start: state.core.start(),
                    duplicate: true,
                });
            }
        };
        if let Some(sealed) = placed.sealed {
            state.seal(sealed);
        }
        let (base_offset, last_offset) = (placed.base_offset, placed.last_offset);
        state.room_waiting += bytes.len();
        self.0.shard.room.take(bytes.len());
        state.pending.push_back(Pending::Batch(Waiting {
            bytes,
            base: base_offset,
            last: last_offset,
            epoch,
        }));
        state.touched = true;
        state.unflushed_records += i64::from(header.last_offset_delta) + 1;
        let config = state.core.config();
        if config.durability != Durability::Flushed
            && state.unflushed_records >= config.flush_messages
        {
            state.last_barrier = Some(base_offset);
            state.barrier.get_or_insert(base_offset);
        }
        let durable = state.durable_now();
        state.durable = state.durable.max(durable);
        let log_start = state.core.start();
        drop(state);
        self.0.queue();
        Ok(Appended { base_offset, last_offset, log_append_time, log_start, duplicate: false })
    }

    /// Whether it would take a batch now, as far as its disk is concerned.
    pub fn takes(&self) -> Result<(), AppendError> {
        if self.0.shard.closed.get() {
            return Err(AppendError::Closed); // What is stored now is all that there will be.
        }
        if let Some(error) = self.0.dir_failure() {
            return Err(AppendError::Offline(error));
        }
        match &self.0.state.borrow().health {
            Health::Online => Ok(()),
            Health::Full => Err(AppendError::DiskFull),
            Health::Failed(error) => Err(AppendError::Offline(error.clone())),
            Health::Closed => Err(AppendError::Closed),
        }
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.0.state.borrow().core.start()
    }

    /// The offset the next record gets; of a failed log, where what was durable ends.
    pub fn log_end(&self) -> Offset {
        self.0.state.borrow().readable()
    }

    /// Everything below meets the log's durability mode.
    pub fn durable_end(&self) -> Offset {
        self.0.state.borrow().durable
    }

    /// Bytes of batches.
    pub fn size(&self) -> u64 {
        self.0.state.borrow().core.bytes()
    }

    /// How many segments it has, the active one included.
    pub fn segment_count(&self) -> usize {
        self.0.state.borrow().core.sealed().len() + 1
    }

    /// Whether it takes writes.
    pub fn state(&self) -> LogState {
        match &self.0.state.borrow().health {
            Health::Online => LogState::Online,
            Health::Full => LogState::Full,
            Health::Failed(error) => LogState::Failed(error.clone()),
            Health::Closed => LogState::Closed,
        }
    }

    /// Kafka's `endOffsetFor`: the largest epoch not above `epoch` and where it ended.
    pub fn epoch_end_offset(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let state = self.0.state.borrow();
        state.core.epochs.end_of(epoch, state.core.end())
    }

    /// The epoch in which the batch at `offset` was written; -1 if unknown.
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        self.0.state.borrow().core.epochs.of(offset)
    }

    /// The epoch of the newest batch; `None` in an empty log.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.0.state.borrow().core.epochs.latest()
    }

    /// Puts other configs in force.
    pub fn reconfigure(&self, config: Arc<LogConfig>) {
        self.0.state.borrow_mut().core.reconfigure(config);
        self.0.queue(); // A stronger mode may ask for a flush.
    }

    /// The configs in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.0.state.borrow().core.config().clone()
    }

    /// The idempotent producers that are remembered.
    pub fn producers(&self) -> Vec<ActiveProducer> {
        self.0.state.borrow().core.producers.active().collect()
    }

    /// The id of the log directory it is in.
    pub fn directory_id(&self) -> Uuid {
        self.0.shard.config.dirs[self.0.dir].directory_id()
    }

    /// Its own directory.
    pub fn path(&self) -> &std::path::Path {
        &self.0.path
    }

    /// Its topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.0.topic
    }

    /// Its partition.
    pub fn id(&self) -> PartitionId {
        self.0.partition
    }

    /// Raises the log's start to `to` (DeleteRecords), at most to what is durable; returns where it
    /// is now. On stable storage when it returns, which Kafka's is not.
    pub async fn advance_log_start(&self, to: Offset) -> Result<Offset, StorageError> {
        let start = {
            let mut state = self.0.state.borrow_mut();
            if matches!(state.health, Health::Closed) || self.0.shard.closed.get() {
                return Err(StorageError::Closed);
            }
            let durable = state.durable;
            state.core.advance_start(to, durable)
        };
        self.0.note();
        self.0.shard.config.dirs[self.0.dir].checkpoint().await?;
        Ok(start)
    }
}

impl State {
    /// Queues a segment that ended for storing.
    pub fn seal(&mut self, sealed: Sealed) {
        let sealed = Rc::new(sealed);
        self.sealing.insert(sealed.segment.base, sealed.clone());
        self.pending.push_back(Pending::Seal(sealed));
        self.touched = true;
    }
}

impl Inner {
    /// The file of the segment at `base`.
    pub fn log_path(&self, base: Offset) -> PathBuf {
        self.file_path(base, FileKind::Log)
    }

    pub fn file_path(&self, base: Offset, kind: FileKind) -> PathBuf {
        self.path.join(names::segment_file(base, kind))
    }

    /// Puts the log in its committer's queue, if it has something to do there.
    pub fn queue(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.queued || state.busy || !matches!(state.health, Health::Online) {
            return;
        }
        state.queued = true;
        drop(state);
        self.shard.committers[self.dir].queue(self.clone());
    }

    /// Why its directory is offline, if it is.
    pub fn dir_failure(&self) -> Option<StorageError> {
        self.shard.config.dirs[self.dir].failure()
    }

    /// Tells the watcher if the durable end moved.
    pub fn report(&self) {
        if let Some(error) = self.dir_failure() {
            self.go_offline(&error); // Another shard's write failed, or another file's.
        }
        let mut state = self.state.borrow_mut();
        if matches!(state.health, Health::Failed(_) | Health::Closed) {
            return;
        }
        let durable = state.durable_now().max(state.durable);
        state.durable = durable;
        if durable <= state.told {
            return;
        }
        state.told = durable;
        drop(state);
        self.watcher.durable(durable);
    }

    /// The end of a log, and of its directory where a write or flush failed there.
    pub fn fail(&self, error: &StorageError) {
        self.shard.fail_dir(self.dir, error);
        self.go_offline(error);
    }

    /// The end of a log: what the disk holds is not known any more. What was not durable is forgotten.
    pub fn go_offline(&self, error: &StorageError) {
        let mut state = self.state.borrow_mut();
        if matches!(state.health, Health::Failed(_) | Health::Closed) {
            return;
        }
        if self.dir_failure().is_none() {
            tracing::error!(log = %self.path.display(), %error, "the log goes offline");
        }
        let durable = state.stable().max(match state.core.config().durability {
            Durability::Flushed => Offset::ZERO,
            Durability::Written | Durability::Memory => state.written,
        });
        state.durable = state.durable.min(durable);
        state.tail.truncate(durable);
        state.pending.clear();
        let unwritten = state.give_up_built();
        state.health = Health::Failed(error.clone());
        let waiting =
            std::mem::take(&mut state.room_waiting) + std::mem::take(&mut state.room_in_flight);
        drop(state);
        self.shard.room.give(waiting);
        self.shard.unwritten.set(self.shard.unwritten.get().saturating_sub(unwritten));
        self.watcher.failed(error);
    }

    /// Notes this log's offsets for the next checkpoint; of one that was deleted meanwhile, nothing: they
    /// would be those of the next topic of its name.
    pub fn note(&self) {
        let state = self.state.borrow();
        if matches!(state.health, Health::Closed) {
            return;
        }
        self.shard.config.dirs[self.dir].note(
            &self.topic,
            self.partition.index,
            state.recovery_point(),
            state.core.start(),
            state.durable,
        );
    }
}
