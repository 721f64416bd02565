//! The metadata quorum's rules: KRaft's Raft (KIP-595), its voters (KIP-853), pre-votes (KIP-996) and
//! snapshots (KIP-630).
//!
//! [`Raft`] decides: inputs in, effects out; [`messages`] are its RPCs. [`QuorumState`] is the
//! `quorum-state` file, [`control`] what the log says of the quorum, [`snapshot`] the frame of snapshot
//! files.
//!
//! Pure: no clock, no files, no chance of its own. A write is done only when an input says so.

#![no_std]

extern crate alloc;

mod change;
mod code;
pub mod control;
mod describe;
mod election;
mod epochs;
mod follow;
mod io;
mod leader;
mod links;
mod log;
mod membership;
pub mod messages;
mod quorum_state;
mod raft;
mod random;
mod rpc;
mod serve;
mod settings;
pub mod snapshot;
mod snapshots;
mod start;
mod state;
mod voters;

pub use code::Code;
pub use describe::{QuorumDescription, ReplicaState};
pub use io::{
    Destination, Effect, Failure, Fault, Input, Now, Request, RequestId, Response, SnapshotFile,
    Token,
};
pub use membership::UpgradeError;
pub use quorum_state::{QuorumState, QuorumStateError};
pub use raft::{AppendError, Raft};
pub use rpc::TOPIC;
pub use settings::{EpochStart, Retention, Role, Settings, StartError, Stored, Timers};
pub use snapshot::SnapshotId;
pub use voters::{Quorum, QuorumHistory, ReplicaKey};
