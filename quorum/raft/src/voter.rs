//! A quorum of one: this node votes for itself, leads, and commits by flushing.
//!
//! Separate from the shell so that what must hold across a crash can be tested without one.
//! Invariants: an epoch is on disk before anything is appended in it; epochs and the high watermark
//! never go back; nothing is committed that is not flushed; nothing is dropped that no kept snapshot
//! covers.
//!
//! The way of a start: [`Effect::SaveState`], `StateSaved`, [`Effect::Append`], `Flushed`,
//! [`Effect::Committed`]. From the append on, the controller may append batches of its own.

use crate::control::{
    ControlRecord, KraftVersion, KraftVoter, KraftVoters, LeaderChange, Voter, control_batch,
};
use crate::quorum_state::QuorumState;
use crate::snapshot::SnapshotId;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Timestamp, Uuid};

/// A replica of the metadata log: a disk that was replaced is another one (KIP-853).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaKey {
    /// Its node id.
    pub id: NodeId,
    /// The id of its metadata log directory; zero where `kraft.version` is 0.
    pub directory: Uuid,
}

/// What a node has on disk when it starts.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The `quorum-state` file, if there is one.
    pub state: Option<QuorumState>,
    /// The epoch of the log's last batch; of the latest snapshot where the log is empty.
    pub last_epoch: LeaderEpoch,
    /// The log's end.
    pub log_end: Offset,
    /// The level of `kraft.version`, by the last control record or configured voters (0).
    pub kraft_version: i16,
    /// The voters: the last ones told, by log or snapshot, or the configured ones.
    pub voters: KraftVoters,
    /// Whether `voters` stand in the log, or in a snapshot of it; not so for those of the 0-0 one.
    pub voters_in_log: bool,
    /// The newest snapshot beside the 0-0 one, and how many bytes of log follow it.
    pub snapshot: Option<SnapshotId>,
    /// Bytes of log behind `snapshot`.
    pub log_bytes_behind_snapshot: u64,
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

/// A snapshot on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// Which.
    pub id: SnapshotId,
    /// Its size.
    pub bytes: u64,
    /// When the last record that it covers was appended.
    pub last_timestamp: Timestamp,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The `quorum-state` of [`Effect::SaveState`] is on disk, its directory entry flushed, too.
    StateSaved {
        /// The time.
        now: Timestamp,
    },
    /// A batch of ours was appended; the log now ends at `end`.
    Appended {
        /// The log's end.
        end: Offset,
        /// The batch's size.
        bytes: u64,
        /// The batch's time.
        now: Timestamp,
    },
    /// Everything below `end` is on stable storage.
    Flushed {
        /// The first offset that may not be.
        end: Offset,
    },
    /// The snapshot of [`Effect::TakeSnapshot`] is on disk.
    SnapshotTaken {
        /// Which.
        id: SnapshotId,
        /// The time.
        now: Timestamp,
    },
    /// Time passed. Decides on snapshots and on what may go.
    Tick {
        /// The time.
        now: Timestamp,
        /// Snapshots on disk beside the 0-0 one, the oldest first.
        snapshots: Vec<SnapshotFile>,
        /// The log's size.
        log_bytes: u64,
    },
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Write `quorum-state`, flush it, then say [`Input::StateSaved`].
    SaveState(QuorumState),
    /// Append this control batch, and flush it. From here on this node leads `epoch`.
    Append {
        /// The batch, offset and epoch in place.
        batch: Bytes,
        /// The epoch.
        epoch: LeaderEpoch,
    },
    /// Everything below is committed: apply it, answer for it.
    Committed(Offset),
    /// Write a snapshot of the image at `id.end`. No transaction of records is open there: the
    /// controller aborts what it finds, and writes none that ends in a later batch.
    TakeSnapshot {
        /// Which.
        id: SnapshotId,
        /// When the last record that it covers was appended.
        last_timestamp: Timestamp,
    },
    /// Snapshots older than this one may go, and the log below its end.
    DropBefore(SnapshotId),
}

/// The voter.
#[derive(Clone, Debug)]
pub struct Raft {
    me: ReplicaKey,
    retention: Retention,
    kraft_version: i16,
    voters: KraftVoters,
    phase: Phase,
    log_end: Offset,
    last_append: Timestamp,
    snapshot: Snapshots,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The epoch is being written to `quorum-state`.
    Voting { epoch: LeaderEpoch, tell_voters: bool },
    /// This node leads. `committed` is `None` until the epoch's first batch is flushed.
    Leading { epoch: LeaderEpoch, start: Offset, committed: Option<Offset> },
}

#[derive(Clone, Debug)]
struct Snapshots {
    bytes_behind: u64,
    /// When the newest one was taken; of the first tick where that is not known.
    last: Option<Timestamp>,
    newest: Option<SnapshotId>,
    taking: bool,
}

impl Raft {
    /// Starts in a new epoch: a node that led before its crash does not know what it had promised, so
    /// it never goes on in the old one. `endpoints` is this voter as it is reached now.
    pub fn start(
        me: ReplicaKey,
        endpoints: KraftVoter,
        stored: Stored,
        retention: Retention,
        effects: &mut Vec<Effect>,
    ) -> Result<Self, StartError> {
        let Stored { state, last_epoch, log_end, kraft_version, voters, .. } = stored;
        let is_me = |voter: &KraftVoter| {
            voter.voter_id == me.id.0
                && (kraft_version == 0 || voter.voter_directory_id == me.directory)
        };
        match &voters.voters[..] {
            [] => return Err(StartError::NoVoters),
            [only] if is_me(only) => {}
            [only] => {
                let voter =
                    ReplicaKey { id: NodeId(only.voter_id), directory: only.voter_directory_id };
                return Err(StartError::OtherVoter { voter, me });
            }
            many => return Err(StartError::ManyVoters(many.len())),
        }
        let moved = kraft_version >= 1 && voters.voters[0] != endpoints;
        let tell_voters = kraft_version >= 1 && (moved || !stored.voters_in_log);
        let voters = if moved {
            KraftVoters { voters: vec![endpoints], ..KraftVoters::default() }
        } else {
            voters
        };
        let epoch = state.map_or(LeaderEpoch(0), |state| state.epoch).max(last_epoch);
        let epoch = LeaderEpoch(epoch.0.checked_add(1).ok_or(StartError::NoEpochsLeft)?);
        effects.push(Effect::SaveState(QuorumState {
            epoch,
            leader: me.id,
            voted: NodeId::NONE,
            voted_directory: Uuid::ZERO,
        }));
        Ok(Self {
            me,
            retention,
            kraft_version,
            voters,
            phase: Phase::Voting { epoch, tell_voters },
            log_end,
            last_append: Timestamp::NONE,
            snapshot: Snapshots {
                bytes_behind: stored.log_bytes_behind_snapshot,
                last: None,
                newest: stored.snapshot,
                taking: false,
            },
        })
    }

    /// Takes one input in.
    pub fn handle(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::StateSaved { now } => self.lead(now, effects),
            Input::Appended { end, bytes, now } => self.appended(end, bytes, now),
            Input::Flushed { end } => self.flushed(end, effects),
            Input::SnapshotTaken { id, now } => {
                self.snapshot.taking = false;
                self.snapshot.newest = Some(id);
                self.snapshot.last = Some(now);
                self.snapshot.bytes_behind = 0;
            }
            Input::Tick { now, snapshots, log_bytes } => {
                self.snapshot_if_due(now, effects);
                effects.extend(self.drop_if_due(now, &snapshots, log_bytes));
            }
        }
    }

    /// The epoch that this node leads; `None` until its first batch is to be appended.
    pub const fn leading(&self) -> Option<LeaderEpoch> {
        match self.phase {
            Phase::Voting { .. } => None,
            Phase::Leading { epoch, .. } => Some(epoch),
        }
    }

    /// The high watermark: everything below is committed. `None` until that is known.
    pub const fn committed(&self) -> Option<Offset> {
        match self.phase {
            Phase::Voting { .. } => None,
            Phase::Leading { committed, .. } => committed,
        }
    }

    /// The voters, and the level of `kraft.version`: what a snapshot tells of the quorum.
    pub const fn quorum(&self) -> (i16, &KraftVoters) {
        (self.kraft_version, &self.voters)
    }

    /// What DescribeQuorum answers; `None` where this node does not lead (NOT_LEADER_OR_FOLLOWER).
    pub fn describe(&self, now: Timestamp) -> Option<QuorumDescription> {
        let Phase::Leading { epoch, committed, .. } = self.phase else { return None };
        let voter = ReplicaState {
            replica: self.me,
            log_end: self.log_end,
            last_fetch: now,
            last_caught_up: now,
        };
        let high_watermark = committed.map_or(-1, |offset| offset.0);
        let endpoints = self.voters.voters.clone();
        Some(QuorumDescription {
            leader: self.me.id,
            epoch,
            high_watermark,
            voters: vec![voter],
            observers: vec![],
            endpoints,
        })
    }

    fn lead(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Phase::Voting { epoch, tell_voters } = self.phase else {
            panic!("quorum-state is written once a start");
        };
        let voter = |version| Voter {
            voter_id: self.me.id.0,
            voter_directory_id: if version >= 1 { self.me.directory } else { Uuid::ZERO },
            ..Voter::default()
        };
        let change = LeaderChange {
            leader_id: self.me.id.0,
            voters: vec![voter(0)],
            granting_voters: vec![voter(0)],
            ..LeaderChange::default()
        };
        let mut first = vec![ControlRecord::LeaderChange(change)];
        if tell_voters {
            let kraft_version = self.kraft_version;
            let version = KraftVersion { kraft_version, ..KraftVersion::default() };
            first.push(ControlRecord::KraftVersion(version));
            first.push(ControlRecord::KraftVoters(self.voters.clone()));
        }
        let batch = control_batch(self.log_end, epoch, now, &first);
        self.phase = Phase::Leading { epoch, start: self.log_end, committed: None };
        self.appended(self.log_end.plus(first.len() as i64), batch.len() as u64, now);
        effects.push(Effect::Append { batch, epoch });
    }

    fn appended(&mut self, end: Offset, bytes: u64, now: Timestamp) {
        assert!(self.leading().is_some(), "only a leader appends");
        assert!(end > self.log_end, "a batch has records");
        self.log_end = end;
        self.last_append = now;
        self.snapshot.bytes_behind += bytes;
    }

    fn flushed(&mut self, end: Offset, effects: &mut Vec<Effect>) {
        assert!(end <= self.log_end, "what is flushed was appended");
        let Phase::Leading { start, committed, .. } = &mut self.phase else { return };
        // A leader may commit what older epochs left only together with something of its own
        // (Raft, 5.4.2): the epoch's first batch does that.
        if end > *start && Some(end) > *committed {
            *committed = Some(end);
            effects.push(Effect::Committed(end));
        }
    }

    fn snapshot_if_due(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Phase::Leading { epoch, committed: Some(end), .. } = self.phase else { return };
        let last = *self.snapshot.last.get_or_insert(now);
        let grown = self.snapshot.newest.is_none_or(|newest| newest.end < end);
        let by_bytes = self.snapshot.bytes_behind >= self.retention.snapshot_after_bytes;
        let after_ms = self.retention.snapshot_after_ms;
        let by_time = after_ms > 0 && now.0 - last.0 >= after_ms;
        // Only what is committed goes into a snapshot; appended batches end where flushes end.
        if grown && !self.snapshot.taking && (by_bytes || by_time) {
            self.snapshot.taking = true;
            let id = SnapshotId { end, epoch };
            effects.push(Effect::TakeSnapshot { id, last_timestamp: self.last_append });
        }
    }

    /// Gives up the oldest snapshot where it is too old, or where all together are too large: then the
    /// log goes on from the next one. The newest always stays. One step a tick.
    fn drop_if_due(
        &self,
        now: Timestamp,
        files: &[SnapshotFile],
        log_bytes: u64,
    ) -> Option<Effect> {
        let [oldest, next, ..] = files else { return None };
        let Retention { keep_bytes, keep_ms, .. } = self.retention;
        let total = log_bytes + files.iter().map(|file| file.bytes).sum::<u64>();
        let too_old = keep_ms >= 0 && now.0 - oldest.last_timestamp.0 > keep_ms;
        let too_large = u64::try_from(keep_bytes).is_ok_and(|keep| total > keep);
        (too_old || too_large).then_some(Effect::DropBefore(next.id))
    }
}

/// What DescribeQuorum tells.
#[derive(Clone, PartialEq, Debug)]
pub struct QuorumDescription {
    /// The leader.
    pub leader: NodeId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// The high watermark, -1 where it is not known yet.
    pub high_watermark: i64,
    /// The voters, the leader among them.
    pub voters: Vec<ReplicaState>,
    /// Nodes that follow the log without a vote.
    pub observers: Vec<ReplicaState>,
    /// The voters as they are reached.
    pub endpoints: Vec<KraftVoter>,
}

/// How far a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// Which.
    pub replica: ReplicaKey,
    /// The end of its log.
    pub log_end: Offset,
    /// When it last fetched; the leader: now.
    pub last_fetch: Timestamp,
    /// When it last had everything; the leader: now.
    pub last_caught_up: Timestamp,
}

/// A start that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing tells who votes.
    #[error("the metadata quorum has no voters: format this node with --standalone")]
    NoVoters,
    /// The one voter is another node, or another disk of ours.
    #[error(
        "the metadata quorum's voter is node {} with directory {}, but this is node {} with directory {}: \
         these disks belong to another node, or the metadata directory was replaced",
        voter.id, voter.directory, me.id, me.directory
    )]
    OtherVoter {
        /// The voter.
        voter: ReplicaKey,
        /// This node.
        me: ReplicaKey,
    },
    /// More voters than this release can be one of.
    #[error("the metadata quorum has {0} voters; this release runs as the only one")]
    ManyVoters(usize),
    /// The last epoch was 2^31 - 1.
    #[error("there is no epoch left")]
    NoEpochsLeft,
}

#[cfg(test)]
mod tests;
