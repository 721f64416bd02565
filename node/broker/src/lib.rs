//! The daemon: config, connections, one handler for each Kafka API, controller, metrics.
//!
//! A library too, so that the simulator runs exactly this code: [`Boot`] is a node, [`Boot::run`] what
//! each of its shards does. Where to begin reading: `connection.rs`, then ARCHITECTURE.md's "A
//! request's way".

mod api;
mod budget;
mod client;
mod complaints;
mod connection;
mod controller;
mod creation;
mod disks;
mod fetch_session;
mod frames;
mod group_log;
mod groups;
mod http;
mod life;
mod listener;
mod metadata_log;
mod metrics;
mod node;
mod partition;
mod peers;
mod reading;
mod refusal;
mod replies;
mod settings;
mod shard;
mod standing;
mod start;
mod topics;

pub use start::{Boot, Served};
