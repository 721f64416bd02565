//! Stores what belongs to a segment that ended: cut to size, indexes, producer snapshot, epochs.
//!
//! The recovery point moves behind the segment only when all of it is on stable storage; until then
//! a crash has the segment scanned again. Nothing acknowledged depends on it, so what fails here is
//! tried again with the next tick. One segment of a log at a time, in order.

use std::rc::Rc;

use flowstone_log::{FileKind, Sealed, names};
use flowstone_runtime::{fs, spawn};
use flowstone_types::Offset;

use crate::error::{Action, StorageError};
use crate::log::{Health, Inner};

/// How often a shutdown tries to store what a log has left to store.
const LAST_ATTEMPTS: u32 = 3;

impl Inner {
    /// Starts to store the segments that the writer has left, unless that is under way.
    pub fn store_sealed(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if state.storing || state.next_to_store().is_none() {
            return;
        }
        state.storing = true;
        drop(state);
        let log = self.clone();
        spawn(async move {
            if let Err(error) = log.store_left().await {
                let log_dir = log.path.display();
                tracing::warn!(log = %log_dir, %error, "a sealed segment is not stored yet");
                log.shard.fail_dir(log.dir, &error);
                log.shard.unstored.borrow_mut().push(log.clone());
            }
            log.state.borrow_mut().storing = false;
            log.idle.notify_all();
        });
    }

    /// Stores them here and now, at the end of a log that nobody writes to: a disk that is asked
    /// for the last time is asked a few times.
    pub async fn store_sealed_at_last(self: &Rc<Self>) -> Result<(), StorageError> {
        let mut attempts = 0;
        loop {
            self.quiet(|state| !state.storing).await;
            self.state.borrow_mut().storing = true;
            let result = self.store_left().await;
            self.state.borrow_mut().storing = false;
            self.idle.notify_all();
            attempts += 1;
            if result.is_ok() || attempts == LAST_ATTEMPTS {
                return result;
            }
        }
    }

    /// Stores what the writer has left, up to the first that fails. For whoever set `storing`.
    async fn store_left(self: &Rc<Self>) -> Result<(), StorageError> {
        loop {
            let Some(sealed) = self.state.borrow().next_to_store() else { return Ok(()) };
            self.store_segment(&sealed).await?;
            let base = sealed.segment.base;
            self.shard.keep_indexes(self.id, base, sealed.index.clone(), sealed.times.clone());
            self.state.borrow_mut().sealing.remove(&base);
            self.note();
            self.shard.checkpoint_due.set(true);
        }
    }

    pub async fn store_segment(self: &Rc<Self>, sealed: &Sealed) -> Result<(), StorageError> {
        let base = sealed.segment.base;
        self.cut_file(base, sealed.segment.bytes).await?;
        if let Some(text) = &sealed.epochs {
            self.write_epochs(text.clone()).await?;
        }
        // The indexes last: a segment below the recovery point that has them is not read again.
        self.write_file(FileKind::Snapshot, sealed.next, sealed.snapshot.clone()).await?;
        self.write_file(FileKind::OffsetIndex, base, sealed.index.encode()).await?;
        self.write_file(FileKind::TimeIndex, base, sealed.times.encode()).await
    }

    /// Cuts a segment's file to its batches, durably.
    pub async fn cut_file(self: &Rc<Self>, base: Offset, bytes: u64) -> Result<(), StorageError> {
        let path = self.log_path(base);
        let file = self.shard.file(self, base, false).await?;
        file.set_len(bytes).await.map_err(StorageError::io(Action::Cut, &path))?;
        file.sync().await.map_err(StorageError::io(Action::Flush, &path))
    }

    /// Replaces one of a segment's small files.
    pub async fn write_file(
        &self,
        kind: FileKind,
        base: Offset,
        bytes: Vec<u8>,
    ) -> Result<(), StorageError> {
        let path = self.file_path(base, kind);
        fs::write_atomic(&path, bytes).await.map_err(StorageError::io(Action::Write, &path))
    }

    /// Replaces the leader epoch checkpoint.
    pub async fn write_epochs(&self, text: String) -> Result<(), StorageError> {
        let path = self.path.join(names::EPOCHS);
        let result = fs::write_atomic(&path, text.into_bytes()).await;
        if result.is_err() {
            self.state.borrow_mut().core.epochs.mark_dirty();
        }
        result.map_err(StorageError::io(Action::Write, &path))
    }
}

impl crate::log::State {
    /// The oldest segment that is flushed and not stored.
    fn next_to_store(&self) -> Option<Rc<Sealed>> {
        if matches!(self.health, Health::Failed(_) | Health::Closed) {
            return None;
        }
        let (base, sealed) = self.sealing.first_key_value()?;
        (*base < self.writer.base).then(|| sealed.clone())
    }
}
