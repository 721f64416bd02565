//! The real back end: a glommio executor that only schedules, and an io_uring of our own that does
//! everything else: sockets, files, timers and the wake-ups from other threads.
//!
//! The file to read first is `shard.rs`: the loop that all the rest hangs on.

pub(crate) mod bell;
mod file;
pub(crate) mod fs;
mod mail;
mod net;
mod offload;
mod op;
mod panic;
mod parts;
mod shard;
#[cfg(test)]
mod shim;
mod signal;
mod timer;
mod uring;

pub(crate) use file::File;
pub(crate) use mail::{Mailbox, Mailer, mailbox};
pub(crate) use net::{Connection, Detached, Listener, connect};
pub(crate) use offload::offload;
pub(crate) use panic::EndOnPanic;
pub(crate) use shard::{
    busy_nanos, fill_random, now, run_shard, shard_count, shard_index, spawn, wall_clock,
};
pub(crate) use signal::termination;
pub(crate) use timer::sleep_until;
pub(crate) use uring::open_ring;
