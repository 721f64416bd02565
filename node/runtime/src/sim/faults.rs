//! What may go wrong, and how often: the knobs of a simulated world.
//!
//! Probabilities are per operation (or per segment on the wire), from 0 to 1. The defaults are a
//! healthy machine on a healthy network: latency varies, nothing fails.

use std::time::Duration;

/// What one machine's disk does.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskFaults {
    /// A read fails with EIO.
    pub read_error: f64,
    /// A write fails with EIO, after none, some or all of it reached the disk.
    pub write_error: f64,
    /// A flush of a file fails with EIO. What it should have made durable never becomes so by a
    /// later flush, as with Linux's page cache ("fsyncgate").
    pub sync_error: f64,
    /// A flush of a file is answered and not done. No program survives that: it is here to test
    /// those who look for lost data.
    pub sync_lie: f64,
    /// Once an operation of a kind failed on a file, all later ones of that kind fail there too.
    pub sticky: f64,
    /// An operation takes up to [`DiskFaults::slow_max`].
    pub slow: f64,
    /// See [`DiskFaults::slow`].
    pub slow_max: Duration,
    /// An operation hangs for [`DiskFaults::stuck_for`].
    pub stuck: f64,
    /// See [`DiskFaults::stuck`].
    pub stuck_for: Duration,
    /// Latency of a healthy read or write, from and to.
    pub latency: (Duration, Duration),
    /// Latency of a healthy flush, from and to.
    pub sync_latency: (Duration, Duration),
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            read_error: 0.0,
            write_error: 0.0,
            sync_error: 0.0,
            sync_lie: 0.0,
            sticky: 0.0,
            slow: 0.0,
            slow_max: Duration::from_millis(500),
            stuck: 0.0,
            stuck_for: Duration::from_mins(1),
            latency: (Duration::from_micros(20), Duration::from_micros(200)),
            sync_latency: (Duration::from_micros(100), Duration::from_millis(3)),
        }
    }
}

/// What the network between all machines does.
#[derive(Clone, Debug, PartialEq)]
pub struct NetFaults {
    /// Latency of a segment, from and to. Within a connection, order is kept.
    pub latency: (Duration, Duration),
    /// A segment takes up to [`NetFaults::slow_max`].
    pub slow: f64,
    /// See [`NetFaults::slow`].
    pub slow_max: Duration,
    /// A send is cut into pieces of random size (else: pieces of up to 64 KiB).
    pub split: f64,
    /// A connection is reset, per segment.
    pub reset: f64,
    /// A connection falls silent for good: neither end is told (half-open), per segment.
    pub silence: f64,
    /// A connection attempt is refused although somebody listens.
    pub refuse: f64,
}

impl Default for NetFaults {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(20), Duration::from_micros(300)),
            slow: 0.0,
            slow_max: Duration::from_millis(500),
            split: 0.2,
            reset: 0.0,
            silence: 0.0,
            refuse: 0.0,
        }
    }
}

/// Kinds of disk operations that [`super::Control::fail_next`] can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Reading a file.
    Read,
    /// Writing, allocating or resizing a file.
    Write,
    /// Flushing a file or a directory.
    Sync,
}
