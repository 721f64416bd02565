//! The pure cores under one seed: a quorum and a cluster, joined by a simulated network and simulated
//! disks, in one thread, without any runtime.
//!
//! Beside `flowstone-simulator`, which plays the daemon's shipped code: this one plays only what decides,
//! thousands of times faster, and checks what must hold after every step. It is a package of its own so
//! that it builds in seconds and joins no features with the daemon.
//!
//! A [`Layer`] says what is simulated and which rules hold; [`world`], [`network`] and [`disk`]
//! are what it lives in; [`plan`] is what goes wrong, as data; [`seeds`] runs many, [`shrink`] makes what
//! fails small, and [`story`] tells it.

pub mod cluster;
pub mod disk;
pub mod network;
pub mod plan;
pub mod quorum;
pub mod random;
pub mod run;
pub mod seeds;
pub mod shrink;
pub mod story;
pub mod world;

use run::Layer;

/// Everything that is simulated.
pub const LAYERS: [Layer; 3] = [quorum::QUORUM, cluster::PARTITIONS, cluster::CLUSTER];
