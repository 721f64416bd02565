//! The storage of one shard: its open logs, its memory, its files.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use flowstone_log::{Log as Core, OffsetIndex, Opened, Sealed, TimeIndex, names};
use flowstone_runtime::local::{Notify, Semaphore};
use flowstone_runtime::{File, OpenOptions, fs, random_bytes, random_u64, spawn, wall_clock};
use flowstone_types::{Offset, Timestamp};

use crate::commit::{CommitStats, Committer};
use crate::config::{LogSpec, StoreConfig, Whereabouts};
use crate::error::{Action, StorageError};
use crate::gather::gather_bounded;
use crate::home::{self, Owner};
use crate::journal::Journal;
use crate::log::{Health, Inner, Log, State, Watcher, Writer};
use crate::lru::Lru;
use crate::open;
use crate::read::{Ahead, Indexes};
use crate::room::Room;

/// Logs opened or closed at once: enough to keep a disk busy, few enough files and buffers.
const OPEN_AT_ONCE: usize = 32;

/// Reads of segments at once: what keeps a disk busy, and no more in front of a commit's write than that.
const READS_AT_ONCE: usize = 2;

/// What one window that was read ahead holds: the largest pooled buffer.
const READ_AHEAD_WEIGHT: usize = 1 << 20;

/// What is kept for a reader who goes on.
enum Slot {
    Ready(Ahead),
    Loading(Rc<Notify>),
}

/// The storage of one shard. Clones are the same store.
#[derive(Clone)]
pub struct Store(Rc<Shard>);

pub(crate) struct Shard {
    pub config: StoreConfig,
    pub committers: Vec<Rc<Committer>>,
    pub room: Room,
    /// Bytes that are built and not in their segments; logs that have some, by when that began; and how
    /// many are being written.
    pub unwritten: Cell<u64>,
    pub journaled: RefCell<VecDeque<Rc<Inner>>>,
    pub writing_back: Cell<usize>,
    pub indexes: RefCell<Lru<(u64, Offset), Rc<Indexes>>>,
    ahead: RefCell<Lru<(u64, Offset), Slot>>,
    /// Logs that could not store a sealed segment.
    pub unstored: RefCell<Vec<Rc<Inner>>>,
    pub checkpoint_due: Cell<bool>,
    pub logs: RefCell<BTreeMap<u64, Log>>,
    /// The directories of logs that are open or being opened.
    paths: RefCell<HashSet<PathBuf>>,
    /// Files and directories to be removed, and when.
    pub retired: RefCell<Vec<(Timestamp, PathBuf)>>,
    files: RefCell<Lru<(u64, Offset), File>>,
    tails: RefCell<Lru<u64, ()>>,
    opening: Semaphore,
    pub reading: Semaphore,
    next_id: Cell<u64>,
    pub next_retention: Cell<Timestamp>,
    pub next_checkpoint: Cell<Timestamp>,
    /// Shutting down: nothing is begun any more.
    pub closed: Cell<bool>,
}

/// What a store uses and does, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Open logs.
    pub logs: usize,
    /// Memory of tails, in bytes.
    pub tail_bytes: usize,
    /// Memory of sealed segments' indexes, in bytes.
    pub index_bytes: usize,
    /// Bytes of batches that are not durable yet.
    pub waiting_bytes: usize,
    /// Open segment files.
    pub files: usize,
    /// Group commits so far.
    pub commits: CommitStats,
}

impl Store {
    /// The store of this shard.
    pub fn new(config: StoreConfig) -> Self {
        let journal = |dir: &crate::dir::LogDir| {
            Journal::new(dir.clone(), config.direct_io, config.journal_bytes)
        };
        let committers: Vec<_> =
            config.dirs.iter().map(|dir| Rc::new(Committer::new(journal(dir)))).collect();
        for committer in &committers {
            spawn(committer.clone().run());
        }
        Self(Rc::new(Shard {
            committers,
            room: Room::new(config.waiting_bytes_max),
            unwritten: Cell::default(),
            journaled: RefCell::default(),
            writing_back: Cell::default(),
            indexes: RefCell::new(Lru::new(config.memory_bytes / 8)),
            ahead: RefCell::new(Lru::new(config.memory_bytes / 8)),
            unstored: RefCell::default(),
            checkpoint_due: Cell::new(false),
            logs: RefCell::default(),
            paths: RefCell::default(),
            retired: RefCell::default(),
            files: RefCell::new(Lru::new(config.open_files_max)),
            tails: RefCell::new(Lru::new(config.memory_bytes / 4 * 3)),
            opening: Semaphore::new(OPEN_AT_ONCE),
            reading: Semaphore::new(READS_AT_ONCE),
            next_id: Cell::new(0),
            next_retention: Cell::new(Timestamp(0)),
            next_checkpoint: Cell::new(Timestamp(0)),
            closed: Cell::new(false),
            config,
        }))
    }

    /// Opens a log: makes its directory, or loads or recovers what is there. A directory of another
    /// topic of this name is put aside. Any number of opens may run at once; a few do.
    pub async fn open(&self, spec: LogSpec, watcher: Rc<dyn Watcher>) -> Result<Log, StorageError> {
        let shard = &self.0;
        let _permit = shard.opening.acquire().await;
        if shard.closed.get() {
            return Err(StorageError::Closed);
        }
        let at = shard.dir_of(&spec).await?;
        if let Some(error) = shard.config.dirs[at].failure() {
            return Err(error);
        }
        let dir = shard.config.dirs[at].path();
        let path = dir.join(names::partition_dir(&spec.topic, spec.id.index));
        if !shard.paths.borrow_mut().insert(path.clone()) {
            return Err(StorageError::AlreadyOpen(path));
        }
        let opened = self.open_at(at, path.clone(), spec, watcher).await;
        if opened.is_err() {
            shard.paths.borrow_mut().remove(&path);
        }
        opened
    }

    async fn open_at(
        &self,
        at: usize,
        path: PathBuf,
        spec: LogSpec,
        watcher: Rc<dyn Watcher>,
    ) -> Result<Log, StorageError> {
        let (shard, dir) = (&self.0, &self.0.config.dirs[at]);
        let LogSpec { topic, id, config, leader_epoch, whereabouts: _ } = spec;
        // Even where none is known: a deletion may have failed, and left its directory.
        let mut exists = fs::exists(&path).await.map_err(StorageError::io(Action::Find, &path))?;
        if exists {
            match home::owner(&path, id.topic).await? {
                Owner::This => {}
                Owner::Bent(error) => return Err(error),
                Owner::Nobody => home::write_partition_metadata(&path, id.topic).await?,
                Owner::Other(found) => {
                    let unique = u128::from_be_bytes(random_bytes());
                    let stray = names::retired_dir(&topic, id.index, unique, names::STRAY_DIR);
                    tracing::warn!(path = %path.display(), %found, wanted = %id.topic, %stray, "put aside");
                    fs::rename(&path, &dir.path().join(stray))
                        .await
                        .map_err(StorageError::io(Action::Rename, &path))?;
                    exists = false;
                }
            }
        }
        let open::Loaded { opened, writer, is_stored, gave_up } = if exists {
            let (recovery_point, start) = dir.offsets(&topic, id.index);
            let found = open::Found {
                path: &path,
                direct: shard.config.direct_io,
                clean: dir.was_clean(),
                distrusted: dir.is_distrusted(),
                recovery_point,
                start,
                config: &config,
            };
            let loaded = open::load(&found).await;
            if let Err(StorageError::DamagedLog { known, .. }) = loaded {
                dir.held(&topic, id.index, known);
                if let Err(error) = dir.checkpoint().await {
                    tracing::warn!(%error, "checkpoint not written, tried again later");
                }
            }
            loaded?
        } else {
            home::create(dir, &path, &topic, id.index, id.topic).await?;
            let (opened, writer) = (Opened::empty(wall_clock()), Writer::new(Offset::ZERO));
            open::Loaded { opened, writer, is_stored: true, gave_up: false }
        };
        dir.recovered(&topic, id.index);
        if let Some(error) = dir.failure() {
            return Err(error);
        }
        if shard.closed.get() {
            return Err(StorageError::Closed);
        }
        let mut core = Core::new(config, random_u64(), opened);
        core.lead(leader_epoch);
        let number = shard.next_id.get();
        shard.next_id.set(number + 1);
        let log = Log(Rc::new(Inner {
            id: number,
            shard: shard.clone(),
            dir: at,
            path,
            topic,
            partition: id,
            watcher,
            state: RefCell::new(State::new(core, writer, is_stored)),
            idle: Notify::new(),
        }));
        log.0.note();
        if gave_up {
            dir.checkpoint().await?;
            open::remove(log.path(), &[names::CUT_ALLOWED.to_owned()]).await?;
        }
        shard.logs.borrow_mut().insert(number, log.clone());
        Ok(log)
    }

    /// Closes a log and gives its directory up: renamed at once, removed after `file.delete.delay.ms`.
    pub async fn delete(&self, log: Log) -> Result<(), StorageError> {
        let (shard, inner) = (&self.0, &log.0);
        let delay = log.config().file_delete_delay_ms;
        inner.close().await;
        shard.logs.borrow_mut().remove(&inner.id);
        shard.paths.borrow_mut().remove(&inner.path);
        let dir = &shard.config.dirs[inner.dir];
        dir.forget(&inner.topic, inner.partition.index);
        let unique = u128::from_be_bytes(random_bytes());
        let name =
            names::retired_dir(&inner.topic, inner.partition.index, unique, names::DELETE_DIR);
        let retired = dir.path().join(name);
        if let Err(error) = fs::rename(&inner.path, &retired).await {
            dir.adopt(&inner.topic, inner.partition.index); // The next of its name finds it, and puts it aside.
            return Err(StorageError::io(Action::Rename, &inner.path)(error));
        }
        if let Err(error) = fs::sync_dir(dir.path()).await {
            let error = StorageError::io(Action::Flush, dir.path())(error);
            shard.fail_dir(inner.dir, &error);
            return Err(error);
        }
        shard.checkpoint_due.set(true);
        shard.retired.borrow_mut().push((Timestamp(wall_clock().0.saturating_add(delay)), retired));
        Ok(())
    }

    /// Flushes and closes every log: files cut to size, indexes, producer snapshots and epochs
    /// stored. From the call on nothing is appended. A disk that keeps failing is an error, soon. After `Ok` on every shard, [`crate::LogDir::close`] may mark the shutdown as clean.
    pub async fn shutdown(&self) -> Result<(), StorageError> {
        let shard = &self.0;
        shard.closed.set(true);
        let logs: Vec<Log> = shard.logs.borrow().values().cloned().collect();
        let results =
            gather_bounded(
                logs.clone(),
                OPEN_AT_ONCE,
                |log| async move { log.0.close_cleanly().await },
            )
            .await;
        for (at, committer) in shard.committers.iter().enumerate() {
            committer.stop();
            let mut of_dir = logs.iter().zip(&results).filter(|(log, _)| log.0.dir == at);
            committer.journal.close(of_dir.all(|(_, result)| result.is_ok())).await;
        }
        shard.logs.borrow_mut().clear();
        shard.paths.borrow_mut().clear();
        shard.files.borrow_mut().forget(|_| true);
        results.into_iter().collect()
    }

    /// Returns once the shard's bytes that wait to be durable are below their bound: wait for it
    /// before each produce request is taken up.
    pub async fn room(&self) {
        self.0.room.wait().await;
    }

    /// Whether [`Store::room`] would return at once.
    pub fn has_room(&self) -> bool {
        self.0.room.has_room()
    }

    /// What the store uses and does.
    pub fn usage(&self) -> Usage {
        let shard = &self.0;
        let mut commits = CommitStats::default();
        for committer in &shard.committers {
            let one = committer.stats.get();
            commits.groups += one.groups;
            commits.logs += one.logs;
            commits.bytes += one.bytes;
            commits.journaled += one.journaled;
            commits.flushes += one.flushes;
            commits.nanos += one.nanos;
            commits.nanos_max = commits.nanos_max.max(one.nanos_max);
        }
        Usage {
            logs: shard.logs.borrow().len(),
            tail_bytes: shard.tails.borrow().weight(),
            index_bytes: shard.indexes.borrow().weight(),
            waiting_bytes: shard.room.used(),
            files: shard.files.borrow().weight(),
            commits,
        }
    }

    /// The open logs.
    pub fn logs(&self) -> Vec<Log> {
        self.0.logs.borrow().values().cloned().collect()
    }

    pub(crate) fn shard(&self) -> &Rc<Shard> {
        &self.0
    }
}

impl Shard {
    /// A write or flush in a log directory failed, unless it was for want of space: all its logs go offline, those of
    /// the other shards as soon as they look.
    pub fn fail_dir(&self, at: usize, error: &StorageError) {
        if error.is_failed_write() {
            self.config.dirs[at].fail(error);
        }
        self.follow_dir(at);
    }

    /// Takes this shard's logs of a directory that is offline with it.
    pub fn follow_dir(&self, at: usize) {
        let Some(error) = self.config.dirs[at].failure() else { return };
        let logs: Vec<Log> = self.logs.borrow().values().cloned().collect();
        for log in logs.iter().filter(|log| log.0.dir == at) {
            log.0.go_offline(&error);
        }
    }

    /// Which directory a partition is in or, if it is in none, should be in.
    async fn dir_of(&self, spec: &LogSpec) -> Result<usize, StorageError> {
        let (dirs, topic, id) = (&self.config.dirs, &*spec.topic, spec.id);
        let holding: Vec<usize> =
            (0..dirs.len()).filter(|at| dirs[*at].holds(topic, id.index)).collect();
        let Some(first) = holding.first() else {
            let at = self.dir_for_new(spec.whereabouts)?;
            if dirs[at].failure().is_none() {
                dirs[at].adopt(topic, id.index); // Now: a topic's partitions are opened at once.
            }
            return Ok(at);
        };
        // One of them may be of an older topic, whose deletion a crash undid.
        for at in &holding[1..] {
            let path = dirs[*at].path().join(names::partition_dir(topic, id.index));
            if matches!(home::owner(&path, id.topic).await, Ok(Owner::This | Owner::Bent(_))) {
                return Ok(*at);
            }
        }
        Ok(*first)
    }

    /// Which directory takes a log that none has: the one that it is told to be in, else the one with least.
    fn dir_for_new(&self, told: Whereabouts) -> Result<usize, StorageError> {
        let dirs = &self.config.dirs[..self.config.dirs_for_new];
        match told {
            Whereabouts::In(directory) => {
                let at = dirs.iter().position(|dir| dir.directory_id() == directory);
                return at.ok_or(StorageError::Missing { directory: Some(directory) });
            }
            Whereabouts::Untold if dirs.iter().any(|dir| dir.failure().is_some()) => {
                return Err(StorageError::Missing { directory: None });
            }
            Whereabouts::Untold | Whereabouts::New => {}
        }
        // Not where nothing can be written, unless it is so everywhere.
        let burden = |dir: &crate::dir::LogDir| (dir.failure().is_some(), dir.partition_count());
        let burdens = dirs.iter().map(burden).enumerate();
        Ok(burdens.min_by_key(|(_, burden)| *burden).map_or(0, |(at, _)| at))
    }

    /// A segment's file, open for reading and writing; made if `create`.
    pub async fn file(
        &self,
        log: &Inner,
        base: Offset,
        create: bool,
    ) -> Result<File, StorageError> {
        let key = (log.id, base);
        if let Some(file) = self.files.borrow_mut().get(key) {
            return Ok(file.clone());
        }
        let path = log.log_path(base);
        let options = OpenOptions {
            create,
            write: true,
            direct: self.config.direct_io,
            ..OpenOptions::default()
        };
        let file =
            File::open(&path, options).await.map_err(StorageError::io(Action::Open, &path))?;
        let mut files = self.files.borrow_mut();
        files.put(key, file.clone(), 1);
        while files.excess().is_some() {}
        Ok(file)
    }

    /// Lets a segment's file go.
    pub fn forget_file(&self, log: u64, base: Offset) {
        self.files.borrow_mut().remove((log, base));
        self.indexes.borrow_mut().remove((log, base));
    }

    /// Lets everything of a log go.
    pub fn forget_log(&self, log: u64) {
        self.files.borrow_mut().forget(|(owner, _)| *owner == log);
        self.indexes.borrow_mut().forget(|(owner, _)| *owner == log);
        self.ahead.borrow_mut().forget(|(owner, _)| *owner == log);
        self.tails.borrow_mut().remove(log);
    }

    /// Keeps the indexes of a sealed segment while there is memory for them.
    pub fn keep_indexes(
        &self,
        log: u64,
        base: Offset,
        index: OffsetIndex,
        times: TimeIndex,
    ) -> Rc<Indexes> {
        let weight = index.memory() + times.memory() + size_of::<Indexes>();
        let indexes = Rc::new(Indexes { index, times });
        let mut kept = self.indexes.borrow_mut();
        kept.put((log, base), indexes.clone(), weight);
        while kept.excess().is_some() {}
        indexes
    }

    /// Keeps what follows a read, for the reader who goes on at `next`.
    pub fn keep_ahead(&self, log: u64, next: Offset, ahead: Ahead) {
        if ahead.window.is_empty() {
            return;
        }
        let weight = READ_AHEAD_WEIGHT;
        let mut kept = self.ahead.borrow_mut();
        kept.put((log, next), Slot::Ready(ahead), weight);
        while kept.excess().is_some() {}
    }

    /// Takes what was kept for whoever goes on at `from`, waiting for it where it is being read.
    pub async fn take_ahead(&self, log: u64, from: Offset) -> Option<Ahead> {
        loop {
            let slot = self.ahead.borrow_mut().remove((log, from))?;
            match slot {
                Slot::Ready(ahead) => return Some(ahead),
                Slot::Loading(done) => {
                    let loaded = done.notified();
                    self.ahead.borrow_mut().put(
                        (log, from),
                        Slot::Loading(done.clone()),
                        READ_AHEAD_WEIGHT,
                    );
                    loaded.await;
                }
            }
        }
    }

    /// Announces that what follows `next` is being read.
    pub fn begin_ahead(&self, log: u64, next: Offset) -> Rc<Notify> {
        let done = Rc::new(Notify::new());
        let mut kept = self.ahead.borrow_mut();
        kept.put((log, next), Slot::Loading(done.clone()), READ_AHEAD_WEIGHT);
        while kept.excess().is_some() {}
        done
    }

    /// Puts in place what was announced, unless it was let go meanwhile.
    pub fn end_ahead(&self, log: u64, next: Offset, ahead: Option<Ahead>, done: &Notify) {
        let announced = self.ahead.borrow_mut().remove((log, next)).is_some();
        if announced && let Some(ahead) = ahead {
            self.keep_ahead(log, next, ahead);
        }
        done.notify_all();
    }

    /// Notes that a log's tail was used, and lets tails go that were used longest ago while all
    /// together hold too much. Of the last one, only its oldest runs.
    pub fn tail_used(&self, log: u64, memory: usize) {
        let mut tails = self.tails.borrow_mut();
        tails.put(log, (), memory);
        while let Some(oldest) = tails.oldest_in_excess() {
            let Some(Log(inner)) = self.logs.borrow().get(&oldest).cloned() else {
                tails.remove(oldest);
                continue;
            };
            let mut state = inner.state.borrow_mut();
            let written = state.written;
            let is_dropped = state.tail.drop_oldest(written);
            let (left, writing) = (state.tail.memory(), state.writing);
            drop(state);
            if is_dropped && left > 0 {
                tails.reweigh(oldest, left);
                continue;
            }
            // Empty, or not in its segment yet: it counts again once it is.
            tails.remove(oldest);
            if !is_dropped && left > 0 && !writing {
                inner.write_back();
            }
        }
    }
}

impl Inner {
    /// Takes no more, and returns once nothing of this log is under way.
    async fn close(&self) {
        {
            let mut state = self.state.borrow_mut();
            let waiting = std::mem::take(&mut state.room_waiting);
            state.health = Health::Closed;
            state.pending.clear();
            self.shard.room.give(waiting);
        }
        self.quiet(|state| !state.busy && !state.storing && !state.writing && !state.flushing)
            .await;
        let unwritten = self.state.borrow_mut().give_up_built();
        self.shard.unwritten.set(self.shard.unwritten.get().saturating_sub(unwritten));
        self.shard.journaled.borrow_mut().retain(|log| log.id != self.id);
        self.shard.forget_log(self.id);
        self.state.borrow_mut().tail = crate::tail::Tail::default();
    }

    /// Returns once `reached`.
    pub async fn quiet(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.idle.notified();
            if reached(&self.state.borrow()) {
                return;
            }
            changed.await;
        }
    }

    /// Writes and flushes what waits, stores all that a clean shutdown stores, and closes.
    async fn close_cleanly(self: Rc<Self>) -> Result<(), StorageError> {
        self.quiet(|state| {
            let done = state.pending.is_empty();
            let online = matches!(state.health, Health::Online);
            !state.busy && !state.storing && (done || !online)
        })
        .await;
        let result = match self.state.borrow().health {
            Health::Online => Ok(()),
            Health::Full => Err(StorageError::DiskFull(self.path.clone())),
            Health::Failed(ref error) => Err(error.clone()),
            Health::Closed => return Ok(()),
        };
        let result = match result {
            Ok(()) => self.write().await,
            Err(error) => Err(error),
        };
        let result = match result {
            Ok(()) => match self.store_sealed_at_last().await {
                Ok(()) => self.store_active().await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.shard.fail_dir(self.dir, error);
        }
        self.note();
        self.close().await;
        result
    }

    /// Stores the active segment as if it were sealed.
    async fn store_active(self: &Rc<Self>) -> Result<(), StorageError> {
        let (sealed, end, unflushed) = {
            let mut state = self.state.borrow_mut();
            if !state.touched {
                return Ok(()); // As it was opened: stored by the last shutdown, or never written.
            }
            let end = state.core.end();
            let (segment, index, times) = state.core.active().clone().seal(wall_clock());
            let (snapshot, epochs) =
                (state.core.producers.snapshot(), state.core.epochs.take_dirty());
            (
                Sealed { segment, index, times, next: end, snapshot, epochs },
                end,
                state.flushed < end,
            )
        };
        if sealed.segment.bytes > 0 {
            if unflushed {
                self.flush().await?;
            }
            self.store_segment(&sealed).await?;
        }
        let mut state = self.state.borrow_mut();
        state.flushed = end; // The recovery point: all is stored.
        Ok(())
    }
}
