//! Hostile bytes: one function for each thing that reads what came from outside, with what must hold of it.
//!
//! Separate from the crates that it tries because one list of targets serves two drivers: the corpus test, which any
//! compiler runs in seconds, and libFuzzer (`make fuzz`). A target panics where a property does not hold; beside
//! its own properties each is held to a bound of memory by [`Target::check`].
//!
//! Invariant: a target is a function of its input alone, so that what was found once is found again.

mod batches;
mod bytes_in;
mod config;
mod files;
mod groups;
mod mutate;
mod quorum;
mod store;
mod wire;

pub use bytes_in::pieces;
pub use flowstone_held::{Counting, most_held};
pub use mutate::{Random, mutate};

/// Something that reads bytes from outside.
#[derive(Debug)]
pub struct Target {
    /// Its name, and its corpus's folder.
    pub name: &'static str,
    /// What it reads.
    pub about: &'static str,
    /// Most bytes that it may hold for each byte of input, the properties' own work included.
    pub held_per_byte: usize,
    /// Most bytes that it may hold besides.
    pub held_always: usize,
    /// Largest input that is tried.
    pub bytes_max: usize,
    run: fn(&[u8]),
}

impl Target {
    /// Tries `data`: panics where a property does not hold, or more memory was taken than the bound.
    pub fn check(&self, data: &[u8]) {
        if data.len() > self.bytes_max {
            return;
        }
        let held = most_held(|| (self.run)(data));
        let allowed = self.held_per_byte * data.len() + self.held_always;
        assert!(
            held <= allowed,
            "{}: {held} bytes were held for an input of {}, {allowed} are allowed",
            self.name,
            data.len()
        );
    }
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

const fn target_of(
    name: &'static str,
    about: &'static str,
    (held_per_byte, held_always): (usize, usize),
    bytes_max: usize,
    run: fn(&[u8]),
) -> Target {
    Target { name, about, held_per_byte, held_always, bytes_max, run }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Where batches may be compressed: the floor of the default `flowstone_batch::Limits`, and a buffer that grows to it.
const INFLATED: usize = 32 * MIB;

/// All targets.
pub const TARGETS: &[Target] = &[
    target_of(
        "frame",
        "a length prefix, and what follows it",
        (512, 8 * KIB),
        64 * KIB,
        wire::frame,
    ),
    target_of(
        "request",
        "a request of any API and version",
        (512, 8 * KIB),
        64 * KIB,
        wire::request,
    ),
    target_of(
        "batch",
        "a record batch, checked as a produce checks it",
        (64, 2 * MIB),
        64 * KIB,
        batches::batch,
    ),
    target_of(
        "inflate",
        "a compressed record array, all four codecs",
        (64, 2 * MIB),
        64 * KIB,
        batches::inflate,
    ),
    target_of(
        "segment",
        "a segment's batches, scanned as recovery scans them",
        (64, 64 * KIB),
        64 * KIB,
        files::segment,
    ),
    target_of("journal", "a frame of the journal", (64, 8 * KIB), 64 * KIB, files::journal),
    target_of("index", "offset and time indexes", (64, 8 * KIB), 64 * KIB, files::index),
    target_of("producers", "a producer snapshot", (64, 64 * KIB), 64 * KIB, files::producers),
    target_of(
        "checkpoint",
        "checkpoints, meta.properties, quorum-state, names",
        (64, 16 * KIB),
        64 * KIB,
        files::checkpoint,
    ),
    target_of(
        "store",
        "a log directory, opened twice",
        (4 * KIB, 64 * MIB),
        32 * KIB,
        store::directory,
    ),
    target_of(
        "raft",
        "a message of the quorum, any kind and version",
        (128, 8 * KIB),
        64 * KIB,
        quorum::message,
    ),
    target_of(
        "control",
        "control batches of the metadata log",
        (128, INFLATED),
        64 * KIB,
        quorum::control,
    ),
    target_of(
        "metadata",
        "metadata records, replayed to an image and written again",
        (4 * KIB, MIB),
        64 * KIB,
        quorum::records,
    ),
    target_of(
        "snapshot",
        "a metadata log or snapshot file",
        (KIB, INFLATED),
        64 * KIB,
        quorum::snapshot,
    ),
    target_of("config", "server.properties", (KIB, MIB), 64 * KIB, config::properties),
    target_of(
        "group_records",
        "records of __consumer_offsets",
        (KIB, 64 * KIB),
        64 * KIB,
        groups::records,
    ),
    target_of(
        "group_requests",
        "requests to the group coordinator, with hostile values",
        (4 * KIB, 64 * KIB),
        16 * KIB,
        groups::requests,
    ),
];
