//! When a snapshot is due, and when old ones and their part of the log may go (KIP-630).
//!
//! Invariants: a snapshot ends where a batch ends, and at the high watermark at most (KAFKA-14618,
//! KAFKA-14619); one is taken at a time; the newest always stays; nothing is dropped that no kept snapshot
//! covers.

use crate::io::{Now, SnapshotFile};
use crate::settings::Retention;
use crate::snapshot::SnapshotId;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{Instant, Offset, Timestamp};

/// The snapshots on disk, beside the 0-0 one, which is never served.
#[derive(Clone, Debug)]
pub struct Snapshots {
    retention: Retention,
    files: Vec<SnapshotFile>,
    log_bytes: u64,
    bytes_behind: u64,
    /// When the newest was taken, or this node started.
    last: Instant,
    /// The one being taken, and the bytes behind the newest when it began.
    taking: Option<(SnapshotId, u64)>,
    dropping: bool,
    /// Batches above the high watermark: end, bytes, when appended. As many as a leader may have.
    uncommitted: VecDeque<(Offset, u64, Timestamp)>,
    /// When the last committed batch was appended.
    last_append: Timestamp,
}

impl Snapshots {
    /// Starts with those on disk.
    pub const fn new(
        retention: Retention,
        files: Vec<SnapshotFile>,
        log_bytes: u64,
        bytes_behind: u64,
        now: Instant,
    ) -> Self {
        Self {
            retention,
            files,
            log_bytes,
            bytes_behind,
            last: now,
            taking: None,
            dropping: false,
            uncommitted: VecDeque::new(),
            last_append: Timestamp::NONE,
        }
    }

    /// The oldest and the newest one.
    pub fn range(&self) -> Option<(SnapshotId, SnapshotId)> {
        Some((self.files.first()?.id, self.files.last()?.id))
    }

    /// The file of a snapshot.
    pub fn file(&self, id: SnapshotId) -> Option<&SnapshotFile> {
        self.files.iter().find(|file| file.id == id)
    }

    /// Notes that the log has grown to `end`.
    pub fn appended(&mut self, end: Offset, bytes: u64, timestamp: Timestamp) {
        self.log_bytes += bytes;
        self.uncommitted.push_back((end, bytes, timestamp));
    }

    /// Notes that the log was cut.
    pub fn truncated(&mut self, to: Offset) {
        while let Some((_, bytes, _)) = self.uncommitted.pop_back_if(|(end, ..)| *end > to) {
            self.log_bytes -= bytes;
        }
    }

    /// Notes what is committed: only that goes into a snapshot, and makes one due.
    pub fn committed(&mut self, high_watermark: Offset) {
        while let Some((_, bytes, timestamp)) =
            self.uncommitted.pop_front_if(|(end, ..)| *end <= high_watermark)
        {
            self.bytes_behind += bytes;
            self.last_append = timestamp;
        }
    }

    /// Whether one is due at the high watermark, and the timestamp that goes into it.
    pub fn due(&self, high_watermark: Offset, now: Instant) -> Option<Timestamp> {
        let deadline = self.next_deadline(high_watermark)?;
        (deadline <= now).then_some(self.last_append)
    }

    /// When one will be due; in the past where it is by size.
    pub fn next_deadline(&self, high_watermark: Offset) -> Option<Instant> {
        let grown = self.files.last().is_none_or(|file| file.id.end < high_watermark);
        if self.taking.is_some() || !grown {
            return None;
        }
        if self.bytes_behind >= self.retention.snapshot_after_bytes {
            return Some(Instant::default());
        }
        let after = u64::try_from(self.retention.snapshot_after_ms).ok().filter(|ms| *ms > 0)?;
        Some(self.last.after(Duration::from_millis(after)))
    }

    /// Notes that one is being taken.
    pub fn take(&mut self, id: SnapshotId) {
        assert!(self.taking.is_none(), "one at a time");
        self.taking = Some((id, self.bytes_behind));
    }

    /// It is on disk.
    pub fn taken(&mut self, file: SnapshotFile, now: Instant) {
        // One that was installed meanwhile may be newer: then this one is of no use.
        let covered = self.taking.take_if(|(id, _)| *id == file.id);
        let Some((_, covered)) = covered else { return };
        self.files.push(file);
        self.bytes_behind = self.bytes_behind.saturating_sub(covered);
        self.last = now;
    }

    /// It could not be taken: another may be asked for.
    pub fn not_taken(&mut self, id: SnapshotId) {
        self.taking.take_if(|(taking, _)| *taking == id);
    }

    /// One of the leader's has replaced the log.
    pub fn installed(&mut self, file: SnapshotFile, now: Instant) {
        self.files.retain(|old| old.id < file.id);
        self.files.push(file);
        (self.log_bytes, self.bytes_behind) = (0, 0);
        self.uncommitted.clear();
        self.last = now;
        self.taking = None;
    }

    /// What may go: everything before the snapshot returned. The oldest goes where it is too old, or where
    /// all together are too large; one at a time.
    pub fn drop_due(&mut self, now: Now) -> Option<SnapshotId> {
        let [oldest, next, ..] = &self.files[..] else { return None };
        let Retention { keep_bytes, keep_ms, .. } = self.retention;
        let total = self.log_bytes + self.files.iter().map(|file| file.bytes).sum::<u64>();
        let too_old = keep_ms >= 0 && now.wall.0.saturating_sub(oldest.last_timestamp.0) > keep_ms;
        let too_large = u64::try_from(keep_bytes).is_ok_and(|keep| total > keep);
        if self.dropping || !(too_old || too_large) {
            return None;
        }
        let next = next.id;
        self.drop_before(next);
        Some(next)
    }

    /// Lets go of those before `id`.
    pub fn drop_before(&mut self, id: SnapshotId) {
        self.files.retain(|file| file.id >= id);
        self.dropping = true;
    }

    /// They are gone from the disk.
    pub const fn dropped(&mut self, log_bytes: u64) {
        self.dropping = false;
        self.log_bytes = log_bytes;
    }
}
