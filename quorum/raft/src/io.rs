//! What goes into [`Raft`](crate::Raft) and what comes out of it.
//!
//! Separate because the shell and the simulator are written against this page alone.
//!
//! Invariants: effects are performed in the order in which they come, and none is left out. Nothing that
//! must survive a crash counts before an input says that it is on stable storage. A
//! [`SaveState`](Effect::SaveState) holds every effect behind it back, inside Raft, until
//! [`StateSaved`](Input::StateSaved): what is performed never runs ahead of the vote on disk. A request is
//! answered at most once; one whose token is never answered was superseded by a stop of this node.

use crate::code::Code;
use crate::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, BeginQuorumEpochRequest, BeginQuorumEpochResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, EndQuorumEpochRequest, EndQuorumEpochResponse,
    FetchRequest, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse,
    RemoveRaftVoterRequest, RemoveRaftVoterResponse, UpdateRaftVoterRequest,
    UpdateRaftVoterResponse, VoteRequest, VoteResponse,
};
use crate::quorum_state::QuorumState;
use crate::snapshot::SnapshotId;
use crate::voters::Quorum;
use alloc::string::String;
use bytes::Bytes;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset, Timestamp};

/// The time, by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock: every deadline is by it.
    pub clock: Instant,
    /// The wall clock: what is written in batches and told to operators.
    pub wall: Timestamp,
}

/// The shell's name for a request that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// Raft's name for a request that it sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Where a request goes. There is at most one in flight to each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Destination {
    /// A replica, at the address that it was last known by.
    Node {
        /// Its node id.
        id: NodeId,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// One of `controller.quorum.bootstrap.servers`, by its place in the list.
    Bootstrap(usize),
}

/// A request of the quorum's protocol.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// See [`VoteRequest`].
    Vote(VoteRequest),
    /// See [`BeginQuorumEpochRequest`].
    BeginQuorumEpoch(BeginQuorumEpochRequest),
    /// See [`EndQuorumEpochRequest`].
    EndQuorumEpoch(EndQuorumEpochRequest),
    /// See [`FetchRequest`].
    Fetch(FetchRequest),
    /// See [`FetchSnapshotRequest`].
    FetchSnapshot(FetchSnapshotRequest),
    /// See [`DescribeQuorumRequest`].
    DescribeQuorum(DescribeQuorumRequest),
    /// See [`AddRaftVoterRequest`].
    AddRaftVoter(AddRaftVoterRequest),
    /// See [`RemoveRaftVoterRequest`].
    RemoveRaftVoter(RemoveRaftVoterRequest),
    /// See [`UpdateRaftVoterRequest`].
    UpdateRaftVoter(UpdateRaftVoterRequest),
    /// An ApiVersions request, of which only the answer's range of `kraft.version` matters here: a
    /// leader asks it of a node before it makes that a voter (KIP-853).
    ApiVersions,
}

/// The answer to a [`Request`] of the same name.
#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// See [`VoteResponse`].
    Vote(VoteResponse),
    /// See [`BeginQuorumEpochResponse`].
    BeginQuorumEpoch(BeginQuorumEpochResponse),
    /// See [`EndQuorumEpochResponse`].
    EndQuorumEpoch(EndQuorumEpochResponse),
    /// See [`FetchResponse`].
    Fetch(FetchResponse),
    /// See [`FetchSnapshotResponse`].
    FetchSnapshot(FetchSnapshotResponse),
    /// See [`DescribeQuorumResponse`].
    DescribeQuorum(DescribeQuorumResponse),
    /// See [`AddRaftVoterResponse`].
    AddRaftVoter(AddRaftVoterResponse),
    /// See [`RemoveRaftVoterResponse`].
    RemoveRaftVoter(RemoveRaftVoterResponse),
    /// See [`UpdateRaftVoterResponse`].
    UpdateRaftVoter(UpdateRaftVoterResponse),
    /// What the ApiVersions response says of `kraft.version`.
    ApiVersions {
        /// The response's error.
        error: Code,
        /// Lowest and highest level supported; `None` where the feature is not listed.
        kraft_version: Option<(i16, i16)>,
    },
}

/// Why a request has no response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The connection could not be made, or ended first.
    Disconnected,
    /// The peer does not have the API in any version that can tell the request.
    UnsupportedVersion,
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
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// Time passed: [`Raft::next_deadline`](crate::Raft::next_deadline) is reached, or not.
    Tick,
    /// A request came, whole; it may be from a controller, a broker, a tool or a client gone wrong. The
    /// shell has checked its right to ask (CLUSTER_ACTION).
    Request {
        /// What the answer will name it by.
        token: Token,
        /// The name of the listener that it came in by.
        listener: String,
        /// The request.
        request: Request,
    },
    /// A request of [`Effect::Send`] was answered, or never will be.
    Response {
        /// Which.
        id: RequestId,
        /// The answer.
        response: Result<Response, Failure>,
    },
    /// The oldest [`Effect::SaveState`] is on disk, its directory entry flushed, too.
    StateSaved,
    /// The log below `end` is on stable storage: of [`Effect::Append`]. None comes between an
    /// [`Effect::Truncate`] (or [`Effect::InstallSnapshot`]) and its answer for what was cut off.
    Flushed {
        /// The first offset that may not be.
        end: Offset,
    },
    /// The oldest [`Effect::Truncate`] is done, and a crash does not bring back what it cut off.
    Truncated,
    /// The snapshot of [`Effect::TakeSnapshot`] is on stable storage.
    SnapshotTaken(SnapshotFile),
    /// It was not taken (a transaction of records is open there, or the image is elsewhere). The shell says
    /// so when there is one to be had: it is asked for at once, at what is committed by then.
    SnapshotNotTaken(SnapshotId),
    /// The piece of [`Effect::WritePiece`] is in its file; it need not be flushed yet.
    PieceWritten {
        /// Which snapshot.
        id: SnapshotId,
        /// The first byte behind the piece.
        end: u64,
    },
    /// The snapshot of [`Effect::InstallSnapshot`] is in force: flushed, named, the log empty behind it.
    SnapshotInstalled {
        /// The file.
        file: SnapshotFile,
        /// What its control records say of the quorum, if they do.
        quorum: Option<Quorum>,
    },
    /// It is no whole snapshot; its file is gone, and the log is as it was.
    SnapshotRefused(SnapshotId),
    /// [`Effect::DropBefore`] is done.
    Dropped {
        /// The log's bytes that are left.
        log_bytes: u64,
    },
    /// The controller cannot go on leading this epoch. Of an epoch that is over it means nothing.
    Resign(LeaderEpoch),
    /// This node stops: a leader says so to its successors, and nobody here stands for election again.
    Shutdown,
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Write `quorum-state`, flush it, then say [`Input::StateSaved`].
    SaveState(QuorumState),
    /// Append these whole batches, offsets and epochs in place, flush them, and say [`Input::Flushed`].
    Append {
        /// The batches.
        batches: Bytes,
        /// The log's end behind them.
        end: Offset,
    },
    /// Cut the log off at `end`, then say [`Input::Truncated`].
    Truncate {
        /// The log's end.
        end: Offset,
    },
    /// Send a request; answer with [`Input::Response`]. The peer's versions are learned first; Raft gives
    /// it up by itself after `controller.quorum.request.timeout.ms`, and the connection should end then.
    Send {
        /// What the answer will name it by.
        id: RequestId,
        /// Where to.
        to: Destination,
        /// The request, in the newest version; see [`messages`](crate::messages).
        request: Request,
    },
    /// Answer a request.
    Respond {
        /// Which.
        token: Token,
        /// The answer, in the newest version.
        response: Response,
    },
    /// Answer a Fetch with what the log holds from `from` on, once it is filled in as the records of the
    /// response's only partition: whole batches, one at least, else up to `bytes_max`.
    ReadAndRespond {
        /// Which.
        token: Token,
        /// The offset at which a batch starts.
        from: Offset,
        /// Most bytes.
        bytes_max: u32,
        /// The answer but for its records.
        response: FetchResponse,
    },
    /// Answer a FetchSnapshot with the file's bytes from `position` on, to be filled in as the response's
    /// only partition's `unaligned_records`.
    ReadPieceAndRespond {
        /// Which.
        token: Token,
        /// Which snapshot.
        id: SnapshotId,
        /// From which byte on.
        position: u64,
        /// Most bytes.
        bytes_max: u32,
        /// The answer but for its bytes.
        response: FetchSnapshotResponse,
    },
    /// Write a piece of a snapshot that is being taken from the leader, to its unfinished file; say
    /// [`Input::PieceWritten`]. At position 0 the file starts anew.
    WritePiece {
        /// Which snapshot.
        id: SnapshotId,
        /// From which byte on.
        position: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// The file is whole: read it (it may prove not to be), flush it, name it, replace image and log by
    /// it, the log then starting and ending at `id.end`. Say [`Input::SnapshotInstalled`] or
    /// [`Input::SnapshotRefused`].
    InstallSnapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Write a snapshot of the image at `id.end`, which is committed, with what
    /// [`Raft::quorum_at`](crate::Raft::quorum_at) says of the quorum there. Say
    /// [`Input::SnapshotTaken`] or [`Input::SnapshotNotTaken`].
    TakeSnapshot {
        /// Which.
        id: SnapshotId,
        /// When the last batch that it covers was appended.
        last_timestamp: Timestamp,
    },
    /// Snapshots older than this one may go, and the log below its end. Say [`Input::Dropped`].
    DropBefore(SnapshotId),
    /// Everything below is committed: apply it, answer for it.
    Committed(Offset),
    /// Another leader, or none that is known, or another epoch. Where it is this node, it may append; it
    /// knows everything that was committed before once something behind `start` is.
    LeaderChanged {
        /// The epoch.
        epoch: LeaderEpoch,
        /// Its leader.
        leader: Option<NodeId>,
    },
    /// What must not be was found: stop this node and tell its operator.
    Fault(Fault),
}

/// What no correct quorum does: a peer with a defect, or a disk that forgot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The leader's log lacks what was committed (reference section 2.8, 1).
    #[error(
        "the leader of epoch {epoch} would have the log cut at {to}, below the high watermark {high_watermark}"
    )]
    TruncationOfCommitted {
        /// The leader's epoch.
        epoch: LeaderEpoch,
        /// Where it would be cut.
        to: Offset,
        /// What is committed.
        high_watermark: Offset,
    },
    /// Two nodes lead one epoch.
    #[error("both {known} and {told} are said to lead epoch {epoch}")]
    TwoLeaders {
        /// The epoch.
        epoch: LeaderEpoch,
        /// The leader as known.
        known: NodeId,
        /// The other one.
        told: NodeId,
    },
    /// There is no epoch left: the last one was 2^31 - 1.
    #[error("there is no epoch left")]
    NoEpochsLeft,
}
