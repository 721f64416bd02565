//! How far a shard is in its life; others can wait for the end.

use flowstone_runtime::local::Notify;
use std::cell::Cell;

/// The stages of a shard's life, in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Stage {
    /// It opens its logs.
    #[default]
    Starting,
    /// It serves.
    Ready,
    /// It takes no new requests.
    Stopping,
    /// Its logs are closed.
    Ended,
}

/// A shard's stage.
#[derive(Default)]
pub struct Life {
    stage: Cell<Stage>,
    changed: Notify,
}

impl Life {
    /// The stage it is in.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Goes on to a later stage.
    pub fn set(&self, stage: Stage) {
        assert!(stage >= self.stage.get(), "a life goes one way");
        self.stage.set(stage);
        self.changed.notify_all();
    }

    /// Waits for the end.
    pub async fn ended(&self) {
        while self.stage.get() < Stage::Ended {
            self.changed.notified().await;
        }
    }
}
