use super::*;
use crate::control::{KraftVersionRange, VoterEndpoint, read_control_batch};
use flowstone_batch::BatchHeader;

const ME: ReplicaKey = ReplicaKey { id: NodeId(1), directory: Uuid(0x77) };
const NOW: Timestamp = Timestamp(1_000);

fn voter(port: u16) -> KraftVoter {
    let endpoint = VoterEndpoint {
        name: "CONTROLLER".into(),
        host: "localhost".into(),
        port,
        ..VoterEndpoint::default()
    };
    KraftVoter {
        voter_id: ME.id.0,
        voter_directory_id: ME.directory,
        endpoints: vec![endpoint],
        kraft_version_feature: KraftVersionRange {
            max_supported_version: 1,
            ..KraftVersionRange::default()
        },
        ..KraftVoter::default()
    }
}

fn formatted() -> Stored {
    Stored {
        state: None,
        last_epoch: LeaderEpoch(0),
        log_end: Offset(0),
        kraft_version: 1,
        voters: KraftVoters { voters: vec![voter(9093)], ..KraftVoters::default() },
        voters_in_log: false,
        snapshot: None,
        log_bytes_behind_snapshot: 0,
    }
}

fn start(stored: Stored) -> (Raft, Vec<Effect>) {
    let mut effects = Vec::new();
    let raft = Raft::start(ME, voter(9093), stored, Retention::default(), &mut effects).unwrap();
    (raft, effects)
}

fn handle(raft: &mut Raft, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    raft.handle(input, &mut effects);
    effects
}

fn lead(raft: &mut Raft) -> Bytes {
    let mut effects = handle(raft, Input::StateSaved { now: NOW });
    let Some(Effect::Append { batch, .. }) = effects.pop() else { panic!("{effects:?}") };
    batch
}

fn leading(stored: Stored) -> Raft {
    let (mut raft, _) = start(stored);
    lead(&mut raft);
    let end = raft.log_end;
    assert_eq!(handle(&mut raft, Input::Flushed { end }), [Effect::Committed(end)]);
    raft
}

/// Reference section 2.3, and as Apache 4.3.1's first batch after `format --standalone`.
#[test]
fn a_formatted_nodes_first_batch_tells_leader_version_and_voters() {
    let (mut raft, effects) = start(formatted());
    let [Effect::SaveState(state)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((state.epoch, state.leader, state.voted), (LeaderEpoch(1), NodeId(1), NodeId::NONE));
    assert_eq!(raft.leading(), None, "nothing is appended before the epoch is on disk");
    let batch = lead(&mut raft);
    let header = BatchHeader::parse(&batch).unwrap();
    assert_eq!(
        (header.base_offset, header.leader_epoch, header.count),
        (Offset(0), LeaderEpoch(1), 3)
    );
    let records = read_control_batch(&batch).unwrap();
    assert!(
        matches!(&records[0], ControlRecord::LeaderChange(change) if change.version == 0 && change.leader_id == 1)
    );
    assert!(
        matches!(&records[1], ControlRecord::KraftVersion(version) if version.kraft_version == 1)
    );
    assert!(
        matches!(&records[2], ControlRecord::KraftVoters(voters) if voters.voters == [voter(9093)])
    );
}

#[test]
fn voters_are_told_once_and_again_when_the_node_moves() {
    let known = Stored { voters_in_log: true, ..formatted() };
    let (mut raft, _) = start(known.clone());
    assert_eq!(read_control_batch(&lead(&mut raft)).unwrap().len(), 1);
    let mut effects = Vec::new();
    let mut moved =
        Raft::start(ME, voter(9999), known, Retention::default(), &mut effects).unwrap();
    assert_eq!(read_control_batch(&lead(&mut moved)).unwrap().len(), 3);
    assert_eq!(moved.quorum().1.voters, [voter(9999)]);
    let configured = Stored { kraft_version: 0, voters_in_log: false, ..formatted() };
    let (mut raft, _) = start(configured);
    assert_eq!(read_control_batch(&lead(&mut raft)).unwrap().len(), 1, "kraft.version 0");
}

/// Reference section 2.1: a node that led never resumes; the log's epoch counts where it is higher.
#[test]
fn every_start_is_a_new_epoch() {
    let check = |in_file: Option<i32>, in_log, want| {
        let state = in_file.map(|epoch| QuorumState {
            epoch: LeaderEpoch(epoch),
            leader: NodeId(1),
            voted: NodeId::NONE,
            voted_directory: Uuid::ZERO,
        });
        let (_, effects) = start(Stored { state, last_epoch: LeaderEpoch(in_log), ..formatted() });
        assert!(
            matches!(&effects[..], [Effect::SaveState(state)] if state.epoch == LeaderEpoch(want))
        );
    };
    check(None, 0, 1);
    check(Some(4), 4, 5);
    check(Some(4), 7, 8);
    check(Some(9), 7, 10);
}

#[test]
fn foreign_disks_and_larger_quorums_are_refused() {
    let refused = |voters: Vec<KraftVoter>| {
        let stored =
            Stored { voters: KraftVoters { voters, ..KraftVoters::default() }, ..formatted() };
        Raft::start(ME, voter(9093), stored, Retention::default(), &mut Vec::new()).unwrap_err()
    };
    assert_eq!(refused(vec![]), StartError::NoVoters);
    assert_eq!(refused(vec![voter(1), voter(2)]), StartError::ManyVoters(2));
    let disk = KraftVoter { voter_directory_id: Uuid(0x78), ..voter(9093) };
    assert!(matches!(refused(vec![disk]), StartError::OtherVoter { .. }));
}

/// Raft 5.4.2, and the design's "a controller fsyncs before it answers".
#[test]
fn only_what_is_flushed_is_committed_and_only_past_the_epochs_start() {
    let (mut raft, _) = start(Stored { log_end: Offset(40), voters_in_log: true, ..formatted() });
    lead(&mut raft);
    assert_eq!(handle(&mut raft, Input::Flushed { end: Offset(40) }), []);
    assert_eq!(raft.committed(), None);
    assert_eq!(
        handle(&mut raft, Input::Flushed { end: Offset(41) }),
        [Effect::Committed(Offset(41))]
    );
    handle(&mut raft, Input::Appended { end: Offset(50), bytes: 100, now: NOW });
    assert_eq!(raft.committed(), Some(Offset(41)), "appended is not flushed");
    assert_eq!(
        handle(&mut raft, Input::Flushed { end: Offset(50) }),
        [Effect::Committed(Offset(50))]
    );
    assert_eq!(handle(&mut raft, Input::Flushed { end: Offset(45) }), [], "never back");
}

fn tick(raft: &mut Raft, now: i64, snapshots: Vec<SnapshotFile>, log_bytes: u64) -> Vec<Effect> {
    handle(raft, Input::Tick { now: Timestamp(now), snapshots, log_bytes })
}

/// Reference section 2.3: every 20 MiB of records or 1 h.
#[test]
fn snapshots_are_taken_by_bytes_and_by_time() {
    let mut raft = leading(formatted());
    assert_eq!(tick(&mut raft, 0, vec![], 0), []);
    let id = SnapshotId { end: Offset(3), epoch: LeaderEpoch(1) };
    let take = [Effect::TakeSnapshot { id, last_timestamp: NOW }];
    assert_eq!(tick(&mut raft, 3_600_000, vec![], 0), take);
    assert_eq!(tick(&mut raft, 3_600_001, vec![], 0), [], "one at a time");
    handle(&mut raft, Input::SnapshotTaken { id, now: Timestamp(3_600_002) });
    assert_eq!(tick(&mut raft, 9_000_000, vec![], 0), [], "the log has not grown");
    handle(&mut raft, Input::Appended { end: Offset(9), bytes: 20 << 20, now: NOW });
    assert_eq!(tick(&mut raft, 3_600_003, vec![], 0), [], "not flushed yet");
    handle(&mut raft, Input::Flushed { end: Offset(9) });
    let id = SnapshotId { end: Offset(9), epoch: LeaderEpoch(1) };
    assert_eq!(
        tick(&mut raft, 3_600_003, vec![], 0),
        [Effect::TakeSnapshot { id, last_timestamp: NOW }]
    );
}

/// Reference section 2.3: retention 100 MiB / 7 d; the log's start goes to a snapshot only.
#[test]
fn old_snapshots_go_but_never_the_newest() {
    let mut raft = leading(formatted());
    let file = |end, bytes| SnapshotFile {
        id: SnapshotId { end: Offset(end), epoch: LeaderEpoch(1) },
        bytes,
        last_timestamp: Timestamp(0),
    };
    let week = 7 * 86_400_000;
    let drop = |end| [Effect::DropBefore(file(end, 0).id)];
    assert_eq!(tick(&mut raft, 1, vec![file(1, 1), file(2, 1)], 1), []);
    assert_eq!(tick(&mut raft, 1, vec![file(1, 1), file(2, 1)], 100 << 20), drop(2));
    assert_eq!(tick(&mut raft, 1, vec![file(2, 1)], 100 << 20), []);
    raft.retention.snapshot_after_ms = 0;
    assert_eq!(tick(&mut raft, week + 1, vec![file(1, 1), file(2, 1), file(3, 1)], 1), drop(2));
    assert_eq!(tick(&mut raft, week + 1, vec![file(3, 1)], 1), []);
}

#[test]
fn the_leader_describes_itself() {
    let (mut raft, _) = start(formatted());
    assert_eq!(raft.describe(NOW), None);
    lead(&mut raft);
    assert_eq!(raft.describe(NOW).unwrap().high_watermark, -1);
    handle(&mut raft, Input::Flushed { end: Offset(3) });
    let told = raft.describe(NOW).unwrap();
    assert_eq!((told.leader, told.epoch, told.high_watermark), (NodeId(1), LeaderEpoch(1), 3));
    assert_eq!((told.voters[0].replica, told.voters[0].log_end), (ME, Offset(3)));
}
