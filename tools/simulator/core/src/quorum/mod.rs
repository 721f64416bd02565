//! The metadata quorum: voters and observers as quorum/raft decides them, on simulated disks.

pub mod disk;
pub mod node;
mod perform;
mod play;
pub mod truth;

pub use play::QUORUM;
