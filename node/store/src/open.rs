//! Opening a partition's directory: made new, loaded after a clean shutdown, or recovered.
//!
//! Recovery reads only what was not sealed, cuts at the first batch that is torn or corrupt, drops
//! the segments behind it, builds indexes, epochs and producer state again, and says what it
//! dropped. What it leaves is flushed before anyone may build on it; doing it twice changes nothing.
//! Never cut is what was on stable storage once, as the recovery point and the marker of a clean
//! shutdown tell: a log that ends before that is damaged, not torn, and stays as it is, offline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_batch::{BatchHeader, Limits};
use flowstone_log::{
    Active, Durability, End, Epochs, FileKind, LogConfig, OffsetIndex, Opened, ProducerState,
    Scanner, Segment, TimeIndex, names, recovery,
};
use flowstone_runtime::{Buffer, File, OpenOptions, PAGE_BYTES, fs, now, wall_clock};
use flowstone_types::Offset;
use tracing::{info, warn};

use crate::error::{Action, StorageError, how_to_give_up};
use crate::log::Writer;
use crate::scan::SegmentScan;
use crate::write::WRITE_BYTES_MAX;

/// A segment up to this size is read whole rather than by its indexes: one read instead of three.
const READ_WHOLE_BYTES: u64 = 128 << 10;
/// How much is written anew at once, where that is needed.
const REWRITE_BYTES: usize = 1 << 20;
/// After how long recovery begins to tell how far it is.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// What recovery needs to know.
pub(crate) struct Found<'a> {
    pub path: &'a Path,
    pub direct: bool,
    pub clean: bool,
    /// A write or flush failed in its log directory.
    pub distrusted: bool,
    /// Everything below was on stable storage, and sealed segments below with their indexes; `None` where no
    /// checkpoint says.
    pub recovery_point: Option<Offset>,
    pub start: Offset,
    pub config: &'a Arc<LogConfig>,
}

/// What recovery gave up, for the operator.
#[derive(Default)]
struct Dropped {
    bytes: u64,
    segments: usize,
    why: Option<(End, Offset)>,
}

/// A partition's log, as it was found or mended.
pub(crate) struct Loaded {
    pub opened: Opened,
    pub writer: Writer,
    /// Its last segment is stored as a clean shutdown stores it.
    pub is_stored: bool,
    /// An operator gave up what was damaged: to be noted before [`names::CUT_ALLOWED`] goes.
    pub gave_up: bool,
}

/// Loads a partition's directory.
pub(crate) async fn load(found: &Found<'_>) -> Result<Loaded, StorageError> {
    let Found { path, .. } = *found;
    let listing = fs::read_dir(path).await.map_err(StorageError::io(Action::List, path))?;
    let files: Vec<recovery::Found> = listing
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| recovery::Found {
            name: entry.name,
            bytes: entry.len,
            modified: entry.modified,
        })
        .collect();
    let is_distrusted = found.distrusted || files.iter().any(|file| file.name == names::DISTRUSTED);
    // An operator gives up what is damaged: it is read again from the start, and cut.
    let may_cut = files.iter().any(|file| file.name == names::CUT_ALLOWED);
    let is_clean = found.clean && !is_distrusted && !may_cut;
    let known = if may_cut { None } else { found.recovery_point };
    let recovery_point = known.unwrap_or(Offset::ZERO);
    let mut plan = recovery::plan(&files, is_clean, recovery_point);
    if plan.interrupted_compaction {
        return Err(StorageError::InterruptedCompaction(path.to_owned()));
    }
    remove(path, &plan.remove).await?;
    if is_distrusted {
        warn!(log = %path.display(), "a write or flush failed here, or a recovery did not end: all that is not sealed is written anew");
        // The log's identity, too: its flush may have failed beside the others, and is not tried again.
        let file = path.join(names::PARTITION_METADATA);
        let text = fs::read(&file).await.map_err(StorageError::io(Action::Read, &file))?;
        fs::write_atomic(&file, text).await.map_err(StorageError::io(Action::Write, &file))?;
        plan.segments.iter_mut().for_each(|segment| segment.scan |= segment.base >= recovery_point);
    }
    let mut loader = Loader {
        found,
        is_clean,
        is_distrusted,
        may_cut,
        known,
        epochs: Epochs::default(),
        producers: ProducerState::default(),
        sealed: Vec::new(),
        dropped: Dropped::default(),
        scanned_bytes: 0,
        began: now(),
        told: now(),
    };
    if files.iter().any(|file| file.name == names::EPOCHS) {
        match loader.read_epochs().await? {
            Ok(epochs) => loader.epochs = epochs,
            Err(error) => {
                warn!(log = %path.display(), %error, "leader epochs are read from the batches");
                plan.segments.iter_mut().for_each(|segment| segment.scan = true);
            }
        }
    }
    let (active, end) = loader.segments(&mut plan).await?;
    loader.finish(&plan, active, end).await
}

struct Loader<'a> {
    found: &'a Found<'a>,
    is_clean: bool,
    is_distrusted: bool,
    may_cut: bool,
    known: Option<Offset>,
    epochs: Epochs,
    producers: ProducerState,
    sealed: Vec<Segment>,
    dropped: Dropped,
    scanned_bytes: u64,
    began: flowstone_types::Instant,
    told: flowstone_types::Instant,
}

impl Loader<'_> {
    async fn read_epochs(
        &self,
    ) -> Result<Result<Epochs, flowstone_log::CorruptCheckpoint>, StorageError> {
        let file = self.found.path.join(names::EPOCHS);
        let bytes = fs::read(&file).await.map_err(StorageError::io(Action::Read, &file))?;
        Ok(Epochs::decode(&String::from_utf8_lossy(&bytes)))
    }

    /// Goes through the segments; returns the last one and the log's end.
    async fn segments(
        &mut self,
        plan: &mut recovery::Plan,
    ) -> Result<(Option<Active>, Offset), StorageError> {
        let Some(last) = plan.segments.last() else {
            let start = self.found.start;
            return match self.known {
                Some(known) if known > start => Err(self.damaged(self.found.path, None, start)),
                _ => Ok((None, Offset::ZERO)),
            };
        };
        let scan_from =
            plan.segments.iter().find(|segment| segment.scan).map(|segment| segment.base);
        if let Some(from) = scan_from {
            self.producers_at(plan, from).await?;
        }
        let (mut active, mut end) = (None, last.base);
        for at in 0..plan.segments.len() {
            let (planned, is_last) = (plan.segments[at], at + 1 == plan.segments.len());
            if scan_from.is_none_or(|from| planned.base < from) && !is_last {
                self.sealed.push(Segment {
                    base: planned.base,
                    bytes: planned.file_bytes,
                    largest: None,
                    modified: planned.modified,
                });
                continue;
            }
            // From the first segment to be scanned on, all are: producer state needs their batches.
            let (segment, next, ended) = if scan_from.is_none() {
                self.reopen(&mut plan.segments[at]).await?
            } else {
                let next = plan.segments.get(at + 1).map(|next| next.base);
                self.scan(&mut plan.segments[at], next).await?
            };
            end = next;
            if ended != End::Clean {
                self.dropped.bytes += planned.file_bytes.saturating_sub(segment.bytes);
                self.dropped.why = Some((ended, next));
            }
            if is_last {
                active = Some(segment);
            } else if ended == End::Clean {
                self.seal(segment, next, plan.segments[at + 1].base).await?;
            } else {
                self.drop_after(&plan.segments[at + 1..]).await?;
                active = Some(segment);
                break;
            }
        }
        Ok((active, end))
    }

    fn open_options(&self) -> OpenOptions {
        OpenOptions { write: true, direct: self.found.direct, ..OpenOptions::default() }
    }

    async fn open(&self, base: Offset) -> Result<(File, PathBuf), StorageError> {
        let path = self.found.path.join(names::segment_file(base, FileKind::Log));
        let file = File::open(&path, self.open_options())
            .await
            .map_err(StorageError::io(Action::Open, &path))?;
        Ok((file, path))
    }

    /// Reads a segment from front to back, checks all of it and takes its epochs and producers. Its file
    /// ends with its last good batch then.
    async fn scan(
        &mut self,
        planned: &mut recovery::PlannedSegment,
        next_base: Option<Offset>,
    ) -> Result<(Active, Offset, End), StorageError> {
        let (base, is_last) = (planned.base, next_base.is_none());
        let (file, path) = self.open(base).await?;
        let scanner = Scanner::new(base, 0, base, planned.file_bytes, true);
        let mut newest_bytes = 0;
        let mut scan = SegmentScan::open(file.clone(), path.clone(), scanner);
        let mut segment = Active::new(base, planned.modified);
        while let Some((header, bytes)) = scan.next().await? {
            segment.push(&header, self.found.config.index_interval_bytes);
            if self.epochs.latest().is_none_or(|latest| header.leader_epoch > latest) {
                self.epochs.assign(header.leader_epoch, header.base_offset);
            }
            self.apply(&header, &bytes);
            self.tell(bytes.len());
            newest_bytes = bytes.len() as u64;
        }
        self.must_be_whole(planned, next_base, &scan, &path)?;
        // It may have been written and not flushed: no one may build on it before it is. Where a
        // flush failed, the next one is no proof (fsyncgate), and the disk that refused the one may
        // have refused the marker that says so: the last write, at most, was then not flushed.
        let doubtful = match (self.is_distrusted, is_last) {
            (true, _) => segment.bytes,
            (false, true) => newest_bytes.max(WRITE_BYTES_MAX as u64),
            (false, false) => 0,
        };
        if doubtful > 0 {
            let from = segment.bytes.saturating_sub(doubtful);
            rewrite(&file, from, segment.bytes)
                .await
                .map_err(StorageError::io(Action::Write, &path))?;
        }
        if doubtful > 0 || segment.bytes < planned.file_bytes {
            // Whole pages were written: the file may even be longer now than it was. And where a flush
            // failed, the file's size may be lost: the next flush speaks of it only if it changed.
            let resize = async {
                if segment.bytes == planned.file_bytes && segment.bytes > 0 {
                    file.set_len(segment.bytes + 1).await?;
                }
                file.set_len(segment.bytes).await
            };
            resize.await.map_err(StorageError::io(Action::Cut, &path))?;
            planned.file_bytes = segment.bytes;
        }
        file.datasync().await.map_err(StorageError::io(Action::Flush, &path))?;
        Ok((segment, scan.next_offset(), scan.ended().0))
    }

    /// Whether what a scan found in a segment is all that is known to have been there: if not, the segment is
    /// damaged, and nobody may cut it.
    fn must_be_whole(
        &self,
        planned: &recovery::PlannedSegment,
        next_base: Option<Offset>,
        scan: &SegmentScan,
        path: &Path,
    ) -> Result<(), StorageError> {
        let (end, (ended, good)) = (scan.next_offset(), scan.ended());
        let is_whole = ended == End::Clean && good == planned.file_bytes;
        let lacks = match (self.known, next_base) {
            // Compaction leaves gaps, at a segment's end too, but no bytes that are no batch.
            (Some(known), Some(next)) if ended == End::Clean => !is_whole && end < known.min(next),
            (Some(known), _) => end < known, // The log would end here.
            // A clean shutdown cuts each file to its batches.
            (None, _) => self.is_clean && !is_whole,
        };
        if lacks { Err(self.damaged(path, Some((ended, good)), end)) } else { Ok(()) }
    }

    fn damaged(&self, path: &Path, at: Option<(End, u64)>, offset: Offset) -> StorageError {
        let (ended, position) = at.unwrap_or((End::Clean, 0));
        let why = if at.is_none() { "no segment is left" } else { ended.describe() };
        // Where nothing tells how much there was, it was more than this.
        let known = self.known.unwrap_or(offset.plus(1));
        StorageError::DamagedLog { path: path.to_owned(), position, offset, known, why }
    }

    /// Opens the last segment after a clean shutdown: by its indexes where it is large.
    async fn reopen(
        &mut self,
        planned: &mut recovery::PlannedSegment,
    ) -> Result<(Active, Offset, End), StorageError> {
        let base = planned.base;
        let (file, path) = self.open(base).await?;
        let interval = self.found.config.index_interval_bytes;
        let mut segment = Active::new(base, planned.modified);
        if planned.file_bytes > READ_WHOLE_BYTES
            && let Some((index, times)) = self.read_indexes(planned).await
        {
            let first = Scanner::new(base, 0, base, planned.file_bytes, true);
            if let Some((first, _)) =
                SegmentScan::open(file.clone(), path.clone(), first).next().await?
            {
                segment = Active::reopened(index, times, first.max_timestamp, planned.modified);
            }
        }
        let mut from = segment.bytes;
        loop {
            let scanner = Scanner::new(base, from, base, planned.file_bytes, true);
            let mut scan = SegmentScan::open(file.clone(), path.clone(), scanner);
            while let Some((header, _)) = scan.next().await? {
                segment.push(&header, interval);
            }
            let (ended, good) = scan.ended();
            if from > 0 && good == from {
                // No batch where the index says there is one: the index is not believed.
                warn!(log = %self.found.path.display(), %base, "index does not fit its segment: built again");
                (segment, from) = (Active::new(base, planned.modified), 0);
                continue;
            }
            self.must_be_whole(planned, None, &scan, &path)?;
            if segment.bytes < planned.file_bytes {
                file.set_len(segment.bytes).await.map_err(StorageError::io(Action::Cut, &path))?;
                file.sync().await.map_err(StorageError::io(Action::Flush, &path))?;
                planned.file_bytes = segment.bytes;
            }
            return Ok((segment, scan.next_offset(), ended));
        }
    }

    async fn read_indexes(
        &self,
        planned: &recovery::PlannedSegment,
    ) -> Option<(OffsetIndex, TimeIndex)> {
        let name = |kind| self.found.path.join(names::segment_file(planned.base, kind));
        let index = fs::read(&name(FileKind::OffsetIndex)).await.ok()?;
        let times = fs::read(&name(FileKind::TimeIndex)).await.ok()?;
        let index = OffsetIndex::decode(planned.base, &index, planned.file_bytes).ok()?;
        Some((index, TimeIndex::decode(planned.base, &times).ok()?))
    }

    /// Stores a segment that a crash kept from being sealed.
    async fn seal(
        &mut self,
        segment: Active,
        next: Offset,
        next_base: Offset,
    ) -> Result<(), StorageError> {
        if next != next_base {
            warn!(log = %self.found.path.display(), from = %next, to = %next_base, "offsets are missing");
        }
        let (described, index, times) = segment.seal(wall_clock());
        // Before the indexes, which keep the next recovery from reading the segment.
        if let Some(text) = self.epochs.take_dirty() {
            let file = self.found.path.join(names::EPOCHS);
            let written = fs::write_atomic(&file, text.into_bytes()).await;
            written.map_err(StorageError::io(Action::Write, &file))?;
        }
        let write = async |kind, at: Offset, bytes: Vec<u8>| {
            let file = self.found.path.join(names::segment_file(at, kind));
            fs::write_atomic(&file, bytes).await.map_err(StorageError::io(Action::Write, &file))
        };
        write(FileKind::OffsetIndex, described.base, index.encode()).await?;
        write(FileKind::TimeIndex, described.base, times.encode()).await?;
        write(FileKind::Snapshot, next_base, self.producers.snapshot()).await?;
        self.sealed.push(described);
        Ok(())
    }

    /// Removes the segments behind a damaged one.
    async fn drop_after(&mut self, later: &[recovery::PlannedSegment]) -> Result<(), StorageError> {
        let mut gone = Vec::new();
        for planned in later {
            self.dropped.segments += 1;
            self.dropped.bytes += planned.file_bytes;
            gone.extend(FileKind::ALL.map(|kind| names::segment_file(planned.base, kind)));
        }
        remove(self.found.path, &gone).await
    }

    /// Producer state as it was before the batches from `at` on: the newest snapshot that can be
    /// read, and the batches between.
    async fn producers_at(
        &mut self,
        plan: &recovery::Plan,
        at: Offset,
    ) -> Result<(), StorageError> {
        let path = self.found.path;
        let mut snapshots = plan.snapshots.clone();
        let mut from = None;
        while let Some(newest) = recovery::snapshot_for(&snapshots, at) {
            let file = path.join(names::segment_file(newest, FileKind::Snapshot));
            let bytes = fs::read(&file).await.map_err(StorageError::io(Action::Read, &file))?;
            match ProducerState::load(&bytes, newest, wall_clock()) {
                Ok(state) => {
                    (self.producers, from) = (state, Some(newest));
                    break;
                }
                Err(error) => {
                    warn!(file = %file.display(), %error, "producer snapshot ignored");
                    snapshots.retain(|snapshot| *snapshot < newest);
                }
            }
        }
        let from = from.unwrap_or(Offset::ZERO);
        for (position, planned) in plan.segments.iter().enumerate() {
            let next = plan.segments.get(position + 1).map_or(at, |next| next.base);
            if planned.base >= at || next <= from {
                continue;
            }
            let (file, log_path) = self.open(planned.base).await?;
            let scanner = Scanner::new(planned.base, 0, planned.base, planned.file_bytes, false);
            let mut scan = SegmentScan::open(file, log_path, scanner);
            while let Some((header, bytes)) = scan.next().await? {
                if header.base_offset >= from && header.base_offset < at {
                    self.apply(&header, &bytes);
                }
                self.tell(bytes.len());
            }
        }
        Ok(())
    }

    /// Tells the producer state of a batch found in the log.
    fn apply(&mut self, header: &BatchHeader, bytes: &Bytes) {
        if !header.attributes.is_control() {
            self.producers.apply(header, header.base_offset, wall_clock());
            return;
        }
        let marker = flowstone_batch::records(bytes, &Limits::default())
            .ok()
            .and_then(|mut records| records.next()?.ok())
            .and_then(|record| flowstone_batch::EndTxnMarker::parse(record.value.as_deref()?).ok());
        if let Some(marker) = marker {
            self.producers.end_transaction(
                header,
                header.base_offset,
                marker.coordinator_epoch,
                wall_clock(),
            );
        }
    }

    fn tell(&mut self, bytes: usize) {
        self.scanned_bytes += bytes as u64;
        if self.scanned_bytes % (64 << 20) < bytes as u64 && now().since(self.told) > TELL_AFTER {
            self.told = now();
            let mebibytes = self.scanned_bytes >> 20;
            info!(log = %self.found.path.display(), mebibytes, "recovering");
        }
    }

    async fn finish(
        mut self,
        plan: &recovery::Plan,
        active: Option<Active>,
        end: Offset,
    ) -> Result<Loaded, StorageError> {
        let (path, mut start) = (self.found.path, self.found.start);
        if let Some((why, at)) = self.dropped.why {
            warn!(
                log = %path.display(), offset = %at, bytes = self.dropped.bytes,
                later_segments = self.dropped.segments, why = why.describe(),
                "the log was cut: nothing from this offset on was acknowledged, or the disk lost it"
            );
        }
        let first = self.sealed.first().map(|segment| segment.base);
        let first = first.or(active.as_ref().map(|active| active.base));
        start = start.max(first.unwrap_or(start));
        let (active, end) = match active {
            Some(active) if end >= start => (active, end),
            // What is deleted or expired was on stable storage before, in this mode.
            Some(_) if !self.may_cut && self.found.config.durability == Durability::Flushed => {
                let what = format!(
                    "the log at {} ends at {end}, its start is said to be {start}: {}",
                    path.display(),
                    how_to_give_up()
                );
                let path = path.with_file_name(names::LOG_STARTS);
                return Err(StorageError::Damaged { path, what });
            }
            Some(_) => {
                warn!(log = %path.display(), %end, %start, "the log ends below its start: begun anew there");
                self.drop_after(&plan.segments).await?;
                self.sealed.clear();
                self.producers = ProducerState::default();
                self.epochs = Epochs::default();
                remove(path, &[names::EPOCHS.to_owned()]).await?;
                (Active::new(start, wall_clock()), start)
            }
            None => (Active::new(start, wall_clock()), start),
        };
        let is_stored = plan.segments.iter().all(|segment| !segment.scan);
        if is_stored {
            self.producers_at(plan, end).await?;
        }
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(start);
        remove(path, &recovery::stray_snapshots(&plan.snapshots, &plan.segments, end)).await?;
        if self.is_distrusted {
            remove(path, &[names::DISTRUSTED.to_owned()]).await?;
        }
        let seconds = now().since(self.began).as_secs_f64();
        if seconds > 1.0 {
            let mebibytes = self.scanned_bytes >> 20;
            info!(log = %path.display(), mebibytes, seconds, "recovered");
        }
        let writer = Writer {
            base: active.base,
            position: active.bytes,
            allocated: active.bytes,
            created: active.bytes > 0,
        };
        let (epochs, producers) = (self.epochs, self.producers);
        let opened = Opened { sealed: self.sealed, active, start, end, epochs, producers };
        Ok(Loaded { opened, writer, is_stored, gave_up: self.may_cut })
    }
}

/// Writes a file's bytes from `from` (rounded down to a page) up to `bytes` over themselves, so that
/// the next flush speaks of them.
async fn rewrite(file: &File, from: u64, bytes: u64) -> std::io::Result<()> {
    let mut at = from - from % PAGE_BYTES as u64;
    while at < bytes {
        // No more than there is: the kernel zeroes what a direct read asks for behind a file's end.
        let left = REWRITE_BYTES.min((bytes - at) as usize);
        let (result, mut buffer) = file.read_at(Buffer::with_capacity(left), at).await;
        let read = result?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_with_zeros(read.next_multiple_of(PAGE_BYTES));
        file.write_at(vec![buffer.freeze()], at).await?;
        at += read as u64;
    }
    Ok(())
}

/// Removes files of a directory, those that are there.
pub(crate) async fn remove(path: &Path, names: &[String]) -> Result<(), StorageError> {
    for name in names {
        let file = path.join(name);
        match fs::remove_file(&file).await {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::io(Action::Remove, &file)(error)),
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    fs::sync_dir(path).await.map_err(StorageError::io(Action::Flush, path))
}
