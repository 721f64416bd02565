//! Snapshots: when they are due, what may go, and how one is taken from the leader (KIP-630).

use crate::harness::*;
use bytes::Bytes;
use flowstone_raft::messages::*;
use flowstone_raft::*;
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

fn id(end: i64, epoch: i32) -> SnapshotId {
    SnapshotId { end: Offset(end), epoch: LeaderEpoch(epoch) }
}

fn file(end: i64, epoch: i32, bytes: u64) -> SnapshotFile {
    SnapshotFile { id: id(end, epoch), bytes, last_timestamp: Timestamp(1_000_000) }
}

fn taken(effects: &[Effect]) -> Vec<SnapshotId> {
    let taken = |effect: &Effect| match effect {
        Effect::TakeSnapshot { id, .. } => Some(*id),
        _ => None,
    };
    effects.iter().filter_map(taken).collect()
}

fn alone(retention: Retention, stored: Stored) -> One {
    One::start_with(Settings { retention, ..settings() }, stored).0
}

/// KAFKA-14618, KAFKA-14619: at the high watermark, where a batch ends, with the epoch of the batch before.
#[test]
fn a_snapshot_is_due_by_size_at_the_high_watermark() {
    let retention = Retention { snapshot_after_bytes: 600, ..Retention::default() };
    let mut one = alone(retention, formatted(&[1]));
    one.flushes = false;
    assert_eq!(taken(&one.append(&["x"; 100])), [], "nothing of it is committed");
    assert_eq!(taken(&one.input(Input::Flushed { end: Offset(103) })), [id(103, 1)]);
    one.append(&["x"; 100]);
    assert_eq!(taken(&one.input(Input::Flushed { end: Offset(203) })), [], "one at a time");
    assert_eq!(taken(&one.input(Input::SnapshotTaken(file(103, 1, 10)))), [id(203, 1)]);
    assert_eq!(taken(&one.input(Input::SnapshotNotTaken(id(203, 1)))), [id(203, 1)]);
    assert_eq!(taken(&one.input(Input::SnapshotTaken(file(203, 1, 10)))), []);
}

/// A snapshot that ends behind the log's end after a crash would leave a gap.
#[test]
fn a_snapshot_waits_until_its_own_log_is_flushed() {
    let retention = Retention { snapshot_after_bytes: 100, ..Retention::default() };
    let (mut one, _) = One::start_with(Settings { retention, ..settings() }, formatted(&[1, 2, 3]));
    one.flushes = false;
    let id = asks_fetch(&one.request(begin(2, 4))).unwrap().0;
    let effects = one.input(answer(id, fetched(4, 100, &[batch(0, 4, &["x"; 100])])));
    assert_eq!((committed(&effects), taken(&effects)), (vec![100], vec![]));
    let flushed = one.input(Input::Flushed { end: Offset(100) });
    assert_eq!(taken(&flushed), [SnapshotId { end: Offset(100), epoch: LeaderEpoch(4) }]);
}

#[test]
fn a_snapshot_is_due_by_time_if_the_log_has_grown() {
    let retention = Retention { snapshot_after_ms: 60_000, ..Retention::default() };
    let mut one = alone(retention, formatted(&[1]));
    assert_eq!(taken(&one.after(ms(59_999))), []);
    assert_eq!(taken(&one.after(ms(1))), [id(3, 1)]);
    assert_eq!(taken(&one.input(Input::SnapshotTaken(file(3, 1, 10)))), []);
    assert_eq!(taken(&one.after(ms(120_000))), [], "nothing new");
    assert_eq!(taken(&one.append(&["a"])), [id(4, 1)]);
}

/// The newest stays; of the others, the oldest goes first, and its log with it.
#[test]
fn old_snapshots_go_by_size_and_by_age() {
    let stored = || Stored {
        snapshots: vec![file(10, 1, 100), file(20, 1, 100), file(30, 2, 100)],
        log_bytes: 50,
        ..with_log(&[1], &[(1, 0), (2, 25)], 40)
    };
    let dropped = |effects: &[Effect]| {
        let dropped = |effect: &Effect| match effect {
            Effect::DropBefore(id) => Some(*id),
            _ => None,
        };
        effects.iter().find_map(dropped)
    };
    let by_size = Retention { keep_bytes: 250, ..Retention::default() };
    let (mut one, effects) =
        One::start_with(Settings { retention: by_size, ..settings() }, stored());
    assert_eq!(dropped(&effects), Some(id(20, 1)));
    assert_eq!(one.raft.log_start(), Offset(20));
    assert_eq!(dropped(&one.after(ms(10))), None, "one at a time");
    assert_eq!(dropped(&one.input(Input::Dropped { log_bytes: 60 })), Some(id(30, 2)));
    assert_eq!(dropped(&one.input(Input::Dropped { log_bytes: 1_000 })), None, "the newest stays");
    let by_age = Retention { keep_bytes: -1, keep_ms: 1_000, ..Retention::default() };
    let mut one = alone(by_age, stored());
    assert_eq!(dropped(&one.after(ms(1_000))), None);
    assert_eq!(dropped(&one.after(ms(1))), Some(id(20, 1)));
}

/// A crash between dropping a snapshot and dropping its log.
#[test]
fn a_start_finishes_what_a_drop_began() {
    let stored = Stored {
        log_start: Offset(10),
        snapshots: vec![file(30, 2, 100)],
        ..with_log(&[1], &[(1, 10), (2, 25)], 40)
    };
    let (one, effects) = One::start(stored);
    assert!(effects.contains(&Effect::DropBefore(id(30, 2))));
    assert_eq!(one.raft.log_start(), Offset(30));
}

fn with_snapshot() -> One {
    let stored = Stored {
        log_start: Offset(30),
        snapshots: vec![file(30, 2, 100), file(40, 2, 200)],
        ..with_log(&[1, 2, 3], &[(2, 30), (3, 45)], 50)
    };
    let (mut one, _) = One::start(stored);
    one.elect();
    one
}

/// Reference section 2.2: an empty replica, one before the log's start, or one of an older epoch takes the
/// latest snapshot.
#[test]
fn replicas_that_are_too_far_behind_are_told_a_snapshot() {
    let mut one = with_snapshot();
    let mut told = |at, epoch| {
        let snapshot = answered_fetch(&one.fetch(2, at, epoch)).snapshot_id;
        (snapshot.end_offset, snapshot.epoch)
    };
    assert_eq!(told(0, 0), (40, 2));
    assert_eq!(told(29, 2), (40, 2));
    assert_eq!(told(30, 1), (40, 2), "the batch before the start is of another epoch");
    assert_eq!(told(35, 1), (40, 2));
    assert_eq!(told(30, 2), (-1, -1));
}

/// KIP-630: the 0-0 snapshot is never told of.
#[test]
fn an_empty_replica_of_a_whole_log_fetches_it() {
    assert_eq!(answered_fetch(&leader().fetch(2, 0, 0)).snapshot_id.end_offset, -1);
}

fn piece(epoch: i32, snapshot: SnapshotId, position: i64) -> Request {
    let partition = PieceRequestPartition {
        current_leader_epoch: epoch,
        snapshot_id: PieceId {
            end_offset: snapshot.end.0,
            epoch: snapshot.epoch.0,
            ..PieceId::default()
        },
        position,
        replica_directory_id: key(2).directory,
        ..PieceRequestPartition::default()
    };
    let topic = PieceRequestTopic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..PieceRequestTopic::default()
    };
    let topics = vec![topic];
    Request::FetchSnapshot(FetchSnapshotRequest {
        replica_id: 2,
        topics,
        ..FetchSnapshotRequest::default()
    })
}

/// Reference section 2.2, FetchSnapshot.
#[test]
fn snapshots_are_served_in_ranges() {
    let mut one = with_snapshot();
    let epoch = one.raft.epoch().0;
    let mut asked = |epoch, id, position| match &one.request(piece(epoch, id, position))[..] {
        [Effect::ReadPieceAndRespond { position, response, .. }] => {
            Ok((*position, response.topics[0].partitions[0].size))
        }
        effects => {
            let Response::FetchSnapshot(refused) = response(effects) else { panic!() };
            Err(Code::of(refused.topics[0].partitions[0].error_code))
        }
    };
    assert_eq!(asked(epoch, id(40, 2), 0), Ok((0, 200)));
    assert_eq!(asked(epoch, id(40, 2), 199), Ok((199, 200)));
    assert_eq!(asked(epoch, id(40, 2), 200), Err(Code::PositionOutOfRange));
    assert_eq!(asked(epoch, id(40, 2), -1), Err(Code::PositionOutOfRange));
    assert_eq!(asked(epoch, id(41, 2), 0), Err(Code::SnapshotNotFound));
    assert_eq!(asked(epoch, id(0, 0), 0), Err(Code::SnapshotNotFound));
    assert_eq!(asked(epoch - 1, id(40, 2), 0), Err(Code::FencedLeaderEpoch));
    assert_eq!(asked(epoch + 1, id(40, 2), 0), Err(Code::UnknownLeaderEpoch));
}

/// A voter that takes a snapshot follows: check-quorum counts it.
#[test]
fn taking_a_snapshot_counts_as_following() {
    let mut one = leader();
    for _ in 0..4 {
        one.after(ms(1_000));
        one.request(piece(1, id(40, 2), 0));
    }
    assert_eq!(one.raft.state_name(), "resigned", "a snapshot that is not there is not taken");
    let mut one = with_snapshot();
    let epoch = one.raft.epoch().0;
    for _ in 0..4 {
        one.after(ms(1_000));
        one.request(piece(epoch, id(40, 2), 0));
    }
    assert_eq!(one.raft.state_name(), "leader");
}

fn told_snapshot(epoch: i32) -> FetchResponse {
    let mut response = fetched(epoch, 100, &[]);
    response.responses[0].partitions[0].snapshot_id =
        FetchedSnapshotId { end_offset: 40, epoch: 3, ..FetchedSnapshotId::default() };
    response
}

fn piece_answer(position: i64, bytes: &'static [u8], size: i64) -> Response {
    let partition = PiecePartition {
        snapshot_id: PieceId { end_offset: 40, epoch: 3, ..PieceId::default() },
        current_leader: PieceLeader { leader_id: 2, leader_epoch: 4, ..PieceLeader::default() },
        size,
        position,
        unaligned_records: Bytes::from_static(bytes),
        ..PiecePartition::default()
    };
    let topic =
        PieceTopic { name: TOPIC.into(), partitions: vec![partition], ..PieceTopic::default() };
    Response::FetchSnapshot(FetchSnapshotResponse {
        topics: vec![topic],
        ..FetchSnapshotResponse::default()
    })
}

/// The id and position of the FetchSnapshot among the effects.
fn asks_piece(effects: &[Effect]) -> Option<(RequestId, i64)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Send { id, request: Request::FetchSnapshot(asks), .. } => {
            Some((*id, asks.topics[0].partitions[0].position))
        }
        _ => None,
    })
}

#[test]
fn a_follower_takes_a_snapshot_piece_by_piece() {
    let (mut one, fetch) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 4);
    let effects = one.input(answer(fetch, told_snapshot(4)));
    let (piece, 0) = asks_piece(&effects).unwrap() else { panic!("{effects:?}") };
    let response = Ok(piece_answer(0, b"abc", 5));
    let effects = one.input(Input::Response { id: piece, response });
    assert!(matches!(effects[..], [Effect::WritePiece { position: 0, .. }]));
    let (piece, 3) = asks_piece(&one.input(Input::PieceWritten { id: id(40, 3), end: 3 })).unwrap()
    else {
        panic!()
    };
    one.input(Input::Response { id: piece, response: Ok(piece_answer(3, b"de", 5)) });
    let effects = one.input(Input::PieceWritten { id: id(40, 3), end: 5 });
    assert_eq!(effects, [Effect::InstallSnapshot { id: id(40, 3) }]);
    one.after(ms(3_000));
    assert_eq!(one.raft.state_name(), "follower", "whose log is being replaced does not stand");
    let installed =
        Input::SnapshotInstalled { file: file(40, 3, 5), quorum: Some(quorum(&[1, 2])) };
    let effects = one.input(installed);
    assert_eq!(committed(&effects), [40]);
    assert_eq!((one.raft.log_start(), one.raft.log_end()), (Offset(40), Offset(40)));
    assert_eq!(one.raft.quorum(), &quorum(&[1, 2]));
    // Reference section 2.8, 5: the epoch of an empty log is its snapshot's.
    let request = Request::Vote(vote(3, 9, (3, 39), false));
    assert_eq!(answered_vote(&one.request(request)), (Code::None, false));
}

/// KAFKA-14240: what proves to be no snapshot leaves the log as it was.
#[test]
fn a_snapshot_that_is_refused_is_fetched_anew() {
    let (mut one, fetch) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 4);
    let (piece, _) = asks_piece(&one.input(answer(fetch, told_snapshot(4)))).unwrap();
    one.input(Input::Response { id: piece, response: Ok(piece_answer(0, b"abc", 3)) });
    one.input(Input::PieceWritten { id: id(40, 3), end: 3 });
    let effects = one.input(Input::SnapshotRefused(id(40, 3)));
    assert_eq!(asks_fetch(&effects).unwrap().1, 9);
    assert_eq!(one.raft.log_end(), Offset(9));
}

/// A piece of another snapshot, or of another place, is not taken.
#[test]
fn a_piece_that_was_not_asked_for_is_not_written() {
    for wrong in [piece_answer(1, b"abc", 5), piece_answer(0, b"", 5), piece_answer(0, b"abc", 2)] {
        let (mut one, fetch) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 4);
        let (piece, _) = asks_piece(&one.input(answer(fetch, told_snapshot(4)))).unwrap();
        let effects = one.input(Input::Response { id: piece, response: Ok(wrong) });
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::WritePiece { .. })));
    }
}

/// What is committed is not replaced by a snapshot of less.
#[test]
fn a_snapshot_behind_the_high_watermark_is_refused() {
    let (mut one, id) = follower(with_log(&[1, 2, 3], &[(1, 0)], 60), 4);
    let id = asks_fetch(&one.input(answer(id, fetched(4, 50, &[])))).unwrap().0;
    let effects = one.input(answer(id, told_snapshot(4)));
    assert!(matches!(effects[0], Effect::Fault(Fault::TruncationOfCommitted { .. })));
}
