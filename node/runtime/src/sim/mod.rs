//! The simulated twin: one thread, a seed, virtual time, and machines whose disks and network fail.
//!
//! A [`World`] is made on the thread that uses it; from then on the crate's functions act inside it.
//! A harness adds machines, boots programs on them (with the closure that `launch` would get), runs
//! client tasks on others, and crashes, cuts and slows what it likes. Everything that happens
//! follows from the seed, so a run is repeated by its number: two runs of a seed have equal
//! [`Control::trace_hash`]es.
//!
//! What a crash does is written down where it is done: bytes in `content`, names in `disk`,
//! operations under way in `file`, connections in `net`. Real time, threads and the kernel are not
//! reached from here, and there is no unsafe code.
#![forbid(unsafe_code)]

mod content;
mod control;
mod disk;
mod executor;
mod faults;
mod file;
mod mail;
mod moment;
mod net;
mod rng;
mod trace;
mod world;

pub use control::{Control, MachineId, World};
pub use executor::Sleep;
pub use faults::{DiskFaults, DiskOperation, NetFaults};
pub use file::{File, fs};
pub use mail::{Mailbox, Mailer, mailbox};
pub use moment::{Image, Moment};
pub use net::{Connection, Detached, Listener, connect};
pub use rng::Rng;

pub(crate) use executor::{offload, sleep_until, spawn, termination};
pub(crate) use world::{
    busy_nanos, fill_random, is_active, now, shard_count, shard_index, wall_clock,
};
