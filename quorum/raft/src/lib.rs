//! The metadata quorum's rules, as far as a single voter needs them: its epochs, what counts as
//! committed, when to take a snapshot and what may then go.
//!
//! [`Raft`] decides: inputs in, effects out. [`QuorumState`] is the `quorum-state` file, [`control`]
//! what the log says of the quorum, [`snapshot`] the frame of snapshot files.
//!
//! Pure: no clock, no files. A write is done only when an input says so.

#![no_std]

extern crate alloc;

pub mod code;
pub mod control;
pub mod io;
pub mod messages;
mod quorum_state;
pub mod settings;
pub mod snapshot;
mod voter;
pub mod voters;

pub use quorum_state::{QuorumState, QuorumStateError};
pub use snapshot::SnapshotId;
pub use voter::{
    Effect, Input, QuorumDescription, Raft, ReplicaKey, ReplicaState, Retention, SnapshotFile,
    StartError, Stored,
};
