//! Performs what storage/log decides: files, group commit, cache, recovery of a shard's logs.
//!
//! Separate because it is the only code that touches the files of logs, through the runtime alone,
//! so that the same code runs in simulation. One [`Store`] per shard; a [`LogDir`] is what shards
//! share. The way of a batch: [`Log::append`] gives it a place, `commit.rs` makes it durable with its
//! group (small ones by `journal.rs`), the [`Watcher`] hears of it, `write.rs` brings it to its segment,
//! [`Log::read`] serves it from the pages it was written from, later from disk.

mod commit;
mod config;
mod dir;
mod error;
mod gather;
mod home;
mod journal;
mod log;
mod lru;
mod open;
mod read;
mod redo;
mod room;
mod scan;
mod seal;
mod store;
mod tail;
mod tick;
mod write;

pub use commit::CommitStats;
pub use config::{LogSpec, StoreConfig, Whereabouts};
pub use dir::{FoundPartition, LogDir};
pub use error::{Action, AppendError, ReadError, StorageError};
pub use flowstone_log::{Durability, LogConfig};
pub use log::{Appended, Log, LogState, Watcher};
pub use read::ReadOut;
pub use store::{Store, Usage};
