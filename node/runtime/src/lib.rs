//! Shards, tasks, timers, files, sockets and mailboxes on glommio and io_uring; and their simulated twin.
//!
//! Separate because it is the one place that touches the outside world: everything above it is the
//! same code in production and under a seed. Two back ends stand behind one small surface: `ring`
//! (a glommio executor and an io_uring of our own per shard) and, with the feature `sim`, `sim`
//! (one thread, a seed, virtual time, simulated sockets and disks).
//!
//! Invariants of both: a shard is one thread, and nothing that belongs to it leaves it except by
//! [`mailbox`] or [`Connection::detach`]; an operation owns its buffer until the kernel is done with
//! it, whatever becomes of the future; a write once begun is carried to its end; a spawned task is
//! never cancelled.
//!
//! Limits: one task may wait for some 32 000 things at once (glommio counts a task's wakers in an
//! `i16`, and panics beyond); spawn tasks instead.

/// Runs the first expression in the real world, the second inside a simulation.
macro_rules! world {
    ($ring:expr, $sim:expr) => {{
        #[cfg(feature = "sim")]
        if crate::sim::is_active() {
            return $sim;
        }
        $ring
    }};
}

/// Runs one expression on whichever back end a value came from.
macro_rules! each {
    ($inner:expr, $value:ident => $body:expr) => {
        match $inner {
            Inner::Ring($value) => $body,
            #[cfg(feature = "sim")]
            Inner::Sim($value) => $body,
        }
    };
}

mod file;
mod launch;
pub mod local;
mod mail;
mod memory;
mod net;
mod ring;
mod task;

#[cfg(feature = "sim")]
pub mod sim;

pub use file::{DirEntry, File, OpenOptions, Space, fs};
pub use launch::{Host, Limits, Plan, ProbeError, Topology, launch, probe};
pub use mail::{Mailbox, Mailer, mailbox};
pub use memory::{Buffer, Memory, PAGE_BYTES, memory, set_memory_limit};
pub use net::{Connection, Detached, Listener, SocketOptions, connect};
pub use task::{
    busy_nanos, deadline, now, offload, random_bytes, random_u64, shard_count, shard_index, sleep,
    sleep_until, spawn, termination, wall_clock, yield_now,
};
