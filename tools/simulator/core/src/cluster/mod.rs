//! A cluster of brokers: leaders and followers as node/partition decides them, their disks, a controller,
//! producers and consumers.

mod answers;
pub mod broker;
pub mod cast;
mod chief;
pub mod clients;
mod duties;
mod invariants;
pub mod log;
pub mod message;
mod model;
mod perform;
mod play;
mod setup;
mod shipped;
pub mod truth;

pub use play::{CLUSTER, PARTITIONS};
