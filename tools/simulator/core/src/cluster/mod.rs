//! A cluster of brokers: leaders and followers as node/partition decides them, their disks, a controller,
//! producers and consumers.

pub mod broker;
mod chief;
pub mod clients;
mod duties;
mod invariants;
pub mod log;
pub mod message;
mod model;
mod perform;
mod play;
mod shipped;
pub mod truth;

pub use play::{CLUSTER, PARTITIONS};
