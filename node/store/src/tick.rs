//! What is done now and then: retention, late flushes, checkpoints, removal of what was given up.

use std::rc::Rc;

use flowstone_log::{Durability, Expired, FileKind, names};
use flowstone_runtime::fs;
use flowstone_types::{Offset, Timestamp};
use tracing::{info, warn};

use crate::error::{Action, ReadError, StorageError};
use crate::log::{Health, Inner};
use crate::store::Store;

/// How long until what could not be removed is tried again.
const REMOVE_RETRY_MS: i64 = 60_000;

impl Store {
    /// Does what is due; the shard calls it about once a second.
    pub async fn tick(&self, now: Timestamp) {
        let shard = self.shard();
        for at in 0..shard.config.dirs.len() {
            shard.follow_dir(at);
        }
        let logs = self.logs();
        for log in &logs {
            log.0.flush_if_late(now);
        }
        for log in shard.unstored.take() {
            log.store_sealed();
        }
        self.remove_retired(now).await;
        if now >= shard.next_retention.get() {
            shard
                .next_retention
                .set(Timestamp(now.0.saturating_add(shard.config.retention_check_ms)));
            self.retain(now).await;
        }
        if now >= shard.next_checkpoint.get() || shard.checkpoint_due.take() {
            shard.next_checkpoint.set(Timestamp(now.0.saturating_add(shard.config.checkpoint_ms)));
            for log in &logs {
                log.0.note();
            }
            self.checkpoint().await;
        }
    }

    /// Applies retention to all logs now.
    pub async fn retain(&self, now: Timestamp) {
        let mut gone = Vec::new();
        for log in self.logs() {
            let expiration = self.shard().config.producer_expiration_ms;
            log.0.state.borrow_mut().core.producers.expire(now, expiration);
            match log.0.retain(now).await {
                Ok(bases) if bases.is_empty() => {}
                Ok(bases) => gone.push((log, bases)),
                Err(error) => {
                    warn!(log = %log.0.path.display(), %error, "retention failed, tried again later");
                }
            }
        }
        if gone.is_empty() {
            return;
        }
        // The log starts first: a crash in the midst of the removal must not find a log without
        // segments and believe that it never had any.
        self.checkpoint().await;
        for (log, bases) in gone {
            let delay = log.config().file_delete_delay_ms;
            for base in bases {
                if let Err(error) = log.0.retire(base, Timestamp(now.0.saturating_add(delay))).await
                {
                    warn!(log = %log.0.path.display(), %base, %error, "segment not removed");
                }
            }
        }
    }

    async fn checkpoint(&self) {
        // Of one that is offline, its failure was told.
        let dirs = self.shard().config.dirs.iter();
        for dir in dirs.filter(|dir| dir.failure().is_none()) {
            if let Err(error) = dir.checkpoint().await {
                warn!(%error, "checkpoint not written, tried again later");
            }
        }
    }

    async fn remove_retired(&self, now: Timestamp) {
        let due: Vec<_> =
            self.shard().retired.borrow_mut().extract_if(.., |(at, _)| *at <= now).collect();
        for (_, path) in due {
            let is_dir = path
                .extension()
                .is_none_or(|extension| extension.to_string_lossy().ends_with("-delete"));
            let removed =
                if is_dir { fs::remove_dir_all(&path).await } else { fs::remove_file(&path).await };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                warn!(path = %path.display(), %error, "not removed, tried again later");
                let again = Timestamp(now.0.saturating_add(REMOVE_RETRY_MS));
                self.shard().retired.borrow_mut().push((again, path));
            }
        }
    }
}

impl Inner {
    /// `flush.ms`, in the modes that do not flush each group.
    fn flush_if_late(self: &Rc<Self>, now: Timestamp) {
        let mut state = self.state.borrow_mut();
        let config = state.core.config();
        if config.durability == Durability::Flushed {
            return;
        }
        let limit = config.flush_ms;
        if state.unflushed_since.is_some_and(|since| now.0.saturating_sub(since.0) >= limit) {
            state.flush_now = true;
            drop(state);
            self.queue();
        }
    }

    /// Gives up what retention says may go; returns the bases of the segments to be removed.
    async fn retain(self: &Rc<Self>, now: Timestamp) -> Result<Vec<Offset>, ReadError> {
        loop {
            let expired = {
                let state = self.state.borrow();
                let goes_on = matches!(state.health, Health::Online | Health::Full);
                if !goes_on || self.shard.closed.get() {
                    return Ok(Vec::new());
                }
                state.core.expired(now, state.flushed.min(state.durable))
            };
            match expired {
                Expired::Nothing => return Ok(Vec::new()),
                Expired::Undated(base) => {
                    let bytes = self.state.borrow().core.locate(base).bytes;
                    let times = self.indexes(base, bytes).await?;
                    self.state.borrow_mut().core.dated(base, times.times.last());
                }
                Expired::Active => {
                    let journaled = self.state.borrow().journaled;
                    self.clone().settle(journaled).await?;
                    {
                        let mut state = self.state.borrow_mut();
                        let is_flushed = state.flushed >= state.core.end();
                        if !state.pending.is_empty() || state.busy || !is_flushed {
                            return Ok(Vec::new()); // Someone writes: next time.
                        }
                        let sealed = state.core.roll(now);
                        state.seal(sealed);
                    }
                    self.queue();
                    // Not stored yet, for want of space: those before it can go all the same, and
                    // the next tick, which tries it again, must not wait for us.
                    let unstored =
                        || self.shard.unstored.borrow().iter().any(|log| Rc::ptr_eq(log, self));
                    self.quiet(|state| {
                        let online = matches!(state.health, Health::Online);
                        state.sealing.is_empty() || !online || unstored()
                    })
                    .await;
                }
                Expired::Oldest(count) => {
                    if count == self.state.borrow().core.sealed().len() {
                        self.make_active().await?;
                    }
                    let mut state = self.state.borrow_mut();
                    // A segment that is being stored is not taken from under its task (KAFKA-19571).
                    let first_sealing = state.sealing.keys().next().copied();
                    let free = |base: Offset| first_sealing.is_none_or(|first| base < first);
                    let count =
                        state.core.sealed()[..count].iter().take_while(|s| free(s.base)).count();
                    let gone: Vec<Offset> =
                        state.core.forget(count).iter().map(|s| s.base).collect();
                    let start = state.core.start();
                    drop(state);
                    self.note();
                    if !gone.is_empty() {
                        info!(log = %self.path.display(), segments = gone.len(), %start, "retention");
                    }
                    return Ok(gone);
                }
            }
        }
    }

    /// Makes the file of an empty active segment: its name holds the log's end, should all other
    /// segments go.
    async fn make_active(self: &Rc<Self>) -> Result<(), StorageError> {
        let base = {
            let state = self.state.borrow();
            if state.writer.created || state.busy {
                return Ok(()); // A busy writer makes it itself.
            }
            state.writer.base
        };
        self.shard.file(self, base, true).await?;
        fs::sync_dir(&self.path).await.map_err(StorageError::io(Action::Flush, &self.path))
    }

    /// Renames a segment's files, to be removed when `due`.
    async fn retire(&self, base: Offset, due: Timestamp) -> Result<(), StorageError> {
        self.shard.forget_file(self.id, base);
        for kind in FileKind::ALL {
            let path = self.file_path(base, kind);
            let mut retired = path.clone().into_os_string();
            retired.push(names::DELETED);
            match fs::rename(&path, retired.as_ref()).await {
                Ok(()) => self.shard.retired.borrow_mut().push((due, retired.into())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(StorageError::io(Action::Rename, &path)(error)),
            }
        }
        Ok(())
    }
}
