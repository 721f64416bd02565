//! What a node is told at its start: settings, and what its disks hold.

use crate::io::SnapshotFile;
use crate::quorum_state::QuorumState;
use crate::voters::QuorumHistory;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_types::{LeaderEpoch, Offset};

/// Whether a node may ever vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A controller: it votes, or may be made a voter. What it fetched is flushed before it fetches on.
    Controller,
    /// A broker: it only follows, and need not flush.
    Broker,
}

/// A node's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether this node may vote.
    pub role: Role,
    /// The first of `controller.listener.names`: by it nodes of the quorum reach each other.
    pub listener: String,
    /// How many `controller.quorum.bootstrap.servers` there are.
    pub bootstrap_servers: usize,
    /// `controller.quorum.auto.join.enable`: whether this controller makes itself a voter (KIP-853).
    pub auto_join: bool,
    /// Time-outs.
    pub timers: Timers,
    /// When snapshots are taken, and go.
    pub retention: Retention,
}

/// Time-outs, under Kafka's names in `controller.quorum.*.ms`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// `election.timeout`: at least this long without a leader, and less than twice, before an election.
    pub election_timeout: Duration,
    /// `fetch.timeout`: without a successful fetch, a voter stands for election; without fetches of a
    /// majority for 1.5 times as long, a leader resigns.
    pub fetch_timeout: Duration,
    /// `election.backoff.max`: most that a candidate that lost, or a successor that is not the first,
    /// holds back.
    pub election_backoff_max: Duration,
    /// `request.timeout`: when an answer is waited for no more.
    pub request_timeout: Duration,
    /// `retry.backoff`: how long a peer that answered with an error, or not, is left alone.
    pub retry_backoff: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_secs(1),
            fetch_timeout: Duration::from_secs(2),
            election_backoff_max: Duration::from_secs(1),
            request_timeout: Duration::from_secs(2),
            retry_backoff: Duration::from_millis(20),
        }
    }
}

/// When snapshots are taken, and when old ones go (`metadata.log.*` and `metadata.max.*` keys).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Bytes of new log that make a snapshot.
    pub snapshot_after_bytes: u64,
    /// Milliseconds since the last snapshot that make one, if the log has grown; 0 for never.
    pub snapshot_after_ms: i64,
    /// Bytes of log and snapshots above which the oldest go; negative for no limit.
    pub keep_bytes: i64,
    /// Milliseconds for which old snapshots stay; negative for ever.
    pub keep_ms: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            snapshot_after_bytes: 20 << 20,
            snapshot_after_ms: 3_600_000,
            keep_bytes: 100 << 20,
            keep_ms: 7 * 86_400_000,
        }
    }
}

/// Where an epoch starts in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The base offset of its first batch.
    pub start: Offset,
}

/// What a node has on disk when it starts. All of it is on stable storage: what recovery could not prove
/// is cut off, and what it could is flushed before Raft is told.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The `quorum-state` file, if there is one.
    pub state: Option<QuorumState>,
    /// The epochs of the log's batches, in order.
    pub epochs: Vec<EpochStart>,
    /// Where the log starts: 0, or the end of a snapshot that is among `snapshots`.
    pub log_start: Offset,
    /// Where it ends.
    pub log_end: Offset,
    /// Its bytes, all, and those behind the newest snapshot.
    pub log_bytes: u64,
    /// See `log_bytes`.
    pub log_bytes_behind_snapshot: u64,
    /// Who votes.
    pub quorum: QuorumHistory,
    /// Snapshots beside the 0-0 one, the oldest first.
    pub snapshots: Vec<SnapshotFile>,
}

/// A start that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing tells who votes, nor whom to ask.
    #[error(
        "nothing tells who votes in the metadata quorum: format this node with --standalone or \
         --initial-controllers, or set controller.quorum.bootstrap.servers"
    )]
    NoVoters,
    /// A replica needs a directory id (KIP-853).
    #[error("the metadata log directory has no directory.id: format it")]
    NoDirectory,
    /// No voter can reach this one.
    #[error("no endpoint of this node is for the listener {0}")]
    NoEndpoint(String),
    /// The last epoch was 2^31 - 1.
    #[error("there is no epoch left")]
    NoEpochsLeft,
    /// The newest snapshot neither ends within the log nor begins it.
    #[error("the log holds {log_start} to {log_end}, its newest snapshot ends at {snapshot}")]
    Gap {
        /// Where the log starts.
        log_start: Offset,
        /// Where it ends.
        log_end: Offset,
        /// Where the snapshot ends.
        snapshot: Offset,
    },
}
