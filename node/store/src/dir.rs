//! A log directory: what belongs to all partitions in it, whichever shard owns them.
//!
//! Kafka keeps one file per directory for the offsets of all its partitions, so this is the one
//! thing that shards share: a table behind a mutex that is held for a map operation, never across
//! an await. One shard writes it out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flowstone_log::{
    Offsets, decode_clean_shutdown, decode_offsets, encode_clean_shutdown, encode_offsets, names,
};
use flowstone_runtime::{fs, sleep, spawn};
use flowstone_types::{Offset, Uuid};
use tracing::{error, info, warn};

use crate::error::{Action, StorageError};
use crate::open::remove;
use crate::redo::{drop_journal, redo};

/// One of `log.dirs`. Clones are the same directory; any shard may hold one.
#[derive(Clone)]
pub struct LogDir(Arc<Shared>);

struct Shared {
    path: PathBuf,
    directory_id: Uuid,
    clean: bool,
    /// A write or flush failed here in an earlier run, and no clean stop came since.
    distrusted: bool,
    broker_epoch: Option<i64>,
    /// Whether [`Table::failure`] is there, for those who ask often.
    failed: AtomicBool,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    recovery_points: Offsets,
    starts: Offsets,
    high_watermarks: Offsets,
    partitions: BTreeSet<(String, i32)>,
    /// Those that were not shut down cleanly and are not recovered yet.
    unrecovered: BTreeSet<(String, i32)>,
    dirty: bool,
    writing: bool,
    /// Something was forgotten that the files may still hold.
    forgot: bool,
    /// The write or flush that failed, after which nothing here is believed or written any more.
    failure: Option<StorageError>,
}

impl Table {
    fn held(&mut self, topic: String, index: i32, end: Offset) {
        let known = self.recovery_points.entry((topic, index)).or_insert(Offset::ZERO);
        self.dirty |= *known < end;
        *known = end.max(*known);
    }
}

/// A partition's directory that was found at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundPartition {
    /// Its topic's name.
    pub topic: String,
    /// Its index.
    pub index: i32,
    /// Its topic's id, where `partition.metadata` is there and right.
    pub topic_id: Option<Uuid>,
}

impl LogDir {
    /// Opens a directory, making it where it is missing: takes the clean-shutdown marker away, reads
    /// the checkpoints, and removes what waited for removal. Once per process, before any
    /// [`crate::Store`] uses it. A checkpoint that cannot be read counts as empty: then more is
    /// scanned, nothing is lost.
    pub async fn open(path: impl Into<PathBuf>, directory_id: Uuid) -> Result<Self, StorageError> {
        let path = path.into();
        if !fs::exists(&path).await.map_err(StorageError::io(Action::Find, &path))? {
            fs::create_dir_all(&path).await.map_err(StorageError::io(Action::Make, &path))?;
            for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                fs::sync_dir(parent).await.map_err(StorageError::io(Action::Flush, parent))?;
            }
        }
        let entries = fs::read_dir(&path).await.map_err(StorageError::io(Action::List, &path))?;
        let has = |name: &str| entries.iter().any(|entry| entry.name == name);
        let (mut clean, mut broker_epoch) = (false, None);
        if has(names::CLEAN_SHUTDOWN) {
            // Removed before anything is written: a crash from here on is not a clean shutdown.
            let marker = path.join(names::CLEAN_SHUTDOWN);
            let text = read_text(&marker).await?;
            broker_epoch = decode_clean_shutdown(&text).filter(|epoch| *epoch >= 0);
            fs::remove_file(&marker).await.map_err(StorageError::io(Action::Remove, &marker))?;
            fs::sync_dir(&path).await.map_err(StorageError::io(Action::Flush, &path))?;
            clean = true;
        }
        let mut table = Table::default();
        for (name, offsets) in [
            (names::RECOVERY_POINTS, &mut table.recovery_points),
            (names::LOG_STARTS, &mut table.starts),
            (names::HIGH_WATERMARKS, &mut table.high_watermarks),
        ] {
            if has(name) {
                let file = path.join(name);
                match decode_offsets(&read_text(&file).await?) {
                    Ok(read) => *offsets = read,
                    Err(error) => warn!(file = %file.display(), %error, "checkpoint ignored"),
                }
            }
        }
        let redone = redo(&path, &entries).await?;
        for ((topic, index), end) in redone.ends {
            table.held(topic, index, end);
        }
        if table.dirty {
            // Before the journal goes: from now on only this tells how far those logs reach.
            let text = encode_offsets(&table.recovery_points);
            if let Err(error) = write_text(&path, names::RECOVERY_POINTS, text).await {
                warn!(%error, "checkpoint not written, tried again later");
            }
        }
        drop_journal(&path, &redone.files).await?;
        if has(names::CUT_ALLOWED) {
            remove(&path, &[names::CUT_ALLOWED.to_owned()]).await?; // It was for that journal only.
        }
        let entries = fs::read_dir(&path).await.map_err(StorageError::io(Action::List, &path))?;
        for entry in entries.iter().filter(|entry| entry.is_dir) {
            if names::is_retired_dir(&entry.name) {
                let retired = path.join(&entry.name);
                if let Err(error) = fs::remove_dir_all(&retired).await {
                    warn!(path = %retired.display(), %error, "deleted partition not removed");
                }
            } else if let Some((topic, index)) = names::parse_partition_dir(&entry.name) {
                table.partitions.insert((topic.to_owned(), index));
            }
        }
        if !clean {
            table.unrecovered = table.partitions.clone();
        }
        info!(path = %path.display(), clean, partitions = table.partitions.len(), "log directory opened");
        Ok(Self(Arc::new(Shared {
            path,
            directory_id,
            clean,
            distrusted: has(names::DISTRUSTED),
            broker_epoch,
            failed: AtomicBool::new(false),
            table: Mutex::new(table),
        })))
    }

    /// One that cannot be opened: it is offline from the start, and nothing in it is touched. `directory_id` is zero
    /// where it could not be read.
    pub fn offline(path: impl Into<PathBuf>, directory_id: Uuid, error: StorageError) -> Self {
        let path = path.into();
        error!(dir = %path.display(), %error, "the log directory is offline, with all its partitions");
        Self(Arc::new(Shared {
            path,
            directory_id,
            clean: false,
            distrusted: false,
            broker_epoch: None,
            failed: AtomicBool::new(true),
            table: Mutex::new(Table { failure: Some(error), ..Table::default() }),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its own id (KIP-858); zero for one that was offline from the start and does not tell it.
    pub fn directory_id(&self) -> Uuid {
        self.0.directory_id
    }

    /// Whether it was shut down cleanly before it was opened.
    pub fn was_clean(&self) -> bool {
        self.0.clean
    }

    /// Whether nothing that is not sealed is believed here: see [`LogDir::fail`].
    pub(crate) fn is_distrusted(&self) -> bool {
        self.0.distrusted
    }

    /// Takes the directory offline, on all shards: a write or flush of it failed, and a disk that fails a flush may
    /// drop what other files had written, whose own flushes then succeed and lie (fsyncgate). Nothing here is
    /// acknowledged, written or served any more until the process starts anew.
    pub(crate) fn fail(&self, error: &StorageError) {
        let is_first = {
            let mut table = self.table();
            let is_first = table.failure.is_none();
            table.failure.get_or_insert_with(|| error.clone());
            is_first
        };
        self.0.failed.store(true, Ordering::Release);
        if !is_first {
            return;
        }
        error!(dir = %self.path().display(), %error, "the log directory goes offline, with all its partitions");
        let dir = self.clone();
        spawn(async move {
            if let Err(error) = distrust(dir.path()).await {
                warn!(dir = %dir.path().display(), %error, "not marked as distrusted");
            }
        });
    }

    /// Why it is offline, if it is.
    pub fn failure(&self) -> Option<StorageError> {
        if self.0.failed.load(Ordering::Acquire) { self.table().failure.clone() } else { None }
    }

    /// The broker epoch of that clean shutdown (KIP-966), where it was written.
    pub fn clean_broker_epoch(&self) -> Option<i64> {
        self.0.broker_epoch
    }

    /// The partitions that had a directory here when it was opened: to find those that no topic has
    /// any more.
    pub async fn partitions(&self) -> Result<Vec<FoundPartition>, StorageError> {
        let found: Vec<(String, i32)> = self.table().partitions.iter().cloned().collect();
        let mut partitions = Vec::with_capacity(found.len());
        for (topic, index) in found {
            let file = self
                .path()
                .join(names::partition_dir(&topic, index))
                .join(names::PARTITION_METADATA);
            let topic_id = match fs::read(&file).await {
                Ok(bytes) => {
                    flowstone_log::decode_partition_metadata(&String::from_utf8_lossy(&bytes)).ok()
                }
                Err(_) => None,
            };
            partitions.push(FoundPartition { topic, index, topic_id });
        }
        Ok(partitions)
    }

    /// Writes the checkpoints and the marker of a clean shutdown. The last thing a process does
    /// here: after every shard's [`crate::Store::shutdown`] returned `Ok`.
    pub async fn close(&self, broker_epoch: i64) -> Result<(), StorageError> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        self.table().dirty = true;
        self.checkpoint().await?;
        // The marker does not speak of what was not opened since the crash.
        let unrecovered = self.table().unrecovered.clone();
        for (topic, index) in unrecovered {
            let path = self.path().join(names::partition_dir(&topic, index));
            if fs::exists(&path).await.map_err(StorageError::io(Action::Find, &path))? {
                warn!(path = %path.display(), "not recovered yet: left to the next start");
                distrust(&path).await?;
            }
        }
        if self.is_distrusted() {
            remove(self.path(), &[names::DISTRUSTED.to_owned()]).await?;
        }
        let text = encode_clean_shutdown(broker_epoch);
        write_text(self.path(), names::CLEAN_SHUTDOWN, text).await
    }

    /// Writes the checkpoints if they changed. The recovery points last: they claim most.
    pub(crate) async fn checkpoint(&self) -> Result<(), StorageError> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let files = loop {
            match self.begin_checkpoint() {
                Begin::Clean => return Ok(()),
                Begin::Files(files) => break files,
                // Another task or shard is at it, perhaps with older offsets than ours.
                Begin::Busy => sleep(Duration::from_millis(1)).await,
            }
        };
        let mut result = Ok(());
        for (name, text) in files {
            result = write_text(self.path(), name, text).await;
            if result.is_err() {
                break;
            }
        }
        let mut table = self.table();
        table.writing = false;
        if let Err(error) = &result {
            (table.dirty, table.forgot) = (true, true);
            drop(table);
            if error.is_failed_write() {
                self.fail(error);
            }
        }
        result
    }

    fn begin_checkpoint(&self) -> Begin {
        let mut table = self.table();
        if table.writing {
            return Begin::Busy;
        }
        if !std::mem::take(&mut table.dirty) {
            return Begin::Clean;
        }
        table.writing = true;
        table.forgot = false;
        Begin::Files([
            (names::LOG_STARTS, encode_offsets(&table.starts)),
            (names::HIGH_WATERMARKS, encode_offsets(&table.high_watermarks)),
            (names::RECOVERY_POINTS, encode_offsets(&table.recovery_points)),
        ])
    }

    /// What the checkpoints say of a partition: recovery point, where they have one, and log start.
    pub(crate) fn offsets(&self, topic: &str, index: i32) -> (Option<Offset>, Offset) {
        let table = self.table();
        let key = (topic.to_owned(), index);
        let start = table.starts.get(&key).copied().unwrap_or(Offset::ZERO);
        (table.recovery_points.get(&key).copied(), start)
    }

    /// Notes that a partition's log is known to have held everything below `end`, whatever is there now: the next
    /// start must not take what is left for all.
    pub(crate) fn held(&self, topic: &str, index: i32, end: Offset) {
        self.table().held(topic.to_owned(), index, end);
    }

    /// Notes a partition's offsets for the next checkpoint.
    pub(crate) fn note(
        &self,
        topic: &str,
        index: i32,
        recovery_point: Offset,
        start: Offset,
        high_watermark: Offset,
    ) {
        let mut table = self.table();
        let key = (topic.to_owned(), index);
        let old = [
            table.recovery_points.insert(key.clone(), recovery_point),
            table.starts.insert(key.clone(), start),
            table.high_watermarks.insert(key, high_watermark),
        ];
        table.dirty |= old != [Some(recovery_point), Some(start), Some(high_watermark)];
    }

    /// Forgets a partition.
    pub(crate) fn forget(&self, topic: &str, index: i32) {
        self.forget_offsets(topic, index);
        let (mut table, key) = (self.table(), (topic.to_owned(), index));
        table.partitions.remove(&key);
        table.unrecovered.remove(&key);
    }

    /// Forgets the offsets of a partition: the next one of its name must not inherit them. See
    /// [`LogDir::is_forgotten`].
    pub(crate) fn forget_offsets(&self, topic: &str, index: i32) {
        let mut table = self.table();
        let key = (topic.to_owned(), index);
        let known = [
            table.recovery_points.remove(&key).is_some(),
            table.starts.remove(&key).is_some(),
            table.high_watermarks.remove(&key).is_some(),
        ];
        if known.contains(&true) {
            (table.dirty, table.forgot) = (true, true);
        }
    }

    /// Whether the files hold nothing either of what was forgotten; if not, a checkpoint is due.
    pub(crate) fn is_forgotten(&self) -> bool {
        let table = self.table();
        !table.forgot && !table.writing
    }

    /// Whether this partition had a directory here at start, or has one since.
    pub(crate) fn holds(&self, topic: &str, index: i32) -> bool {
        self.table().partitions.contains(&(topic.to_owned(), index))
    }

    /// Notes that it has one now, or is to have it when its log is made.
    pub fn adopt(&self, topic: &str, index: i32) {
        self.table().partitions.insert((topic.to_owned(), index));
    }

    /// Notes that its log is whole and flushed, whatever happened before the start.
    pub(crate) fn recovered(&self, topic: &str, index: i32) {
        self.table().unrecovered.remove(&(topic.to_owned(), index));
    }

    /// How many partitions are here.
    pub(crate) fn partition_count(&self) -> usize {
        self.table().partitions.len()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic ends the process; a poisoned table is only ever seen on the way out.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a checkpoint to write.
enum Begin {
    Busy,
    Clean,
    Files([(&'static str, String); 3]),
}

/// Has the next recovery of a partition, or of all of a log directory, believe nothing that is not sealed, and write
/// it anew.
pub(crate) async fn distrust(folder: &Path) -> Result<(), StorageError> {
    write_text(folder, names::DISTRUSTED, String::new()).await
}

/// Writes a file of a directory, so that after a crash it is the old one or the new one.
async fn write_text(folder: &Path, name: &str, text: String) -> Result<(), StorageError> {
    let file = folder.join(name);
    let written = fs::write_atomic(&file, text.into_bytes()).await;
    written.map_err(StorageError::io(Action::Write, &file))
}

async fn read_text(path: &Path) -> Result<String, StorageError> {
    let bytes = fs::read(path).await.map_err(StorageError::io(Action::Read, path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
