//! The daemon's real code under one seed: crashes, torn writes, failing disks, cut connections.
//!
//! A scenario builds a world from a seed, lets clients and faults loose in it, and has a
//! [`flowstone_history`] judge what they saw. [`seeds`] runs many; a seed that fails is printed with the
//! command that replays it.

pub mod client;
pub mod crash_points;
pub mod members;
pub mod nemesis;
pub mod passing;
pub mod scenarios;
pub mod seeds;
pub mod workload;
