//! How a replica starts (reference section 2.1), and how it is bootstrapped (KIP-853).

use crate::harness::*;
use flowstone_raft::control::ControlRecord;
use flowstone_raft::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Uuid};

fn state_after(state: Option<QuorumState>, epochs: &[(i32, i64)], end: i64) -> (&'static str, i32) {
    let (one, _) = One::start(Stored { state, ..with_log(&[1, 2, 3], epochs, end) });
    (one.raft.state_name(), one.raft.epoch().0)
}

/// Reference section 2.1: was leader -> resigned in the same epoch, voted for itself -> candidate, file
/// behind the log -> unattached at the log's epoch.
#[test]
fn a_start_goes_by_quorum_state() {
    assert_eq!(state_after(None, &[], 0), ("unattached", 0));
    assert_eq!(state_after(Some(saved(4, 1, -1)), &[(3, 0)], 9), ("resigned", 4));
    assert_eq!(state_after(Some(saved(4, -1, 1)), &[(3, 0)], 9), ("candidate", 4));
    assert_eq!(state_after(Some(saved(4, -1, 2)), &[(3, 0)], 9), ("unattached-voted", 4));
    assert_eq!(state_after(Some(saved(4, 2, -1)), &[(3, 0)], 9), ("follower", 4));
    assert_eq!(state_after(Some(saved(4, 1, -1)), &[(3, 0), (5, 4)], 9), ("unattached", 5));
}

/// A leader that restarted does not know what it promised: it votes for nobody in its old epoch.
#[test]
fn a_leader_that_restarts_is_none() {
    let state = Some(saved(4, 1, -1));
    let (mut one, _) = One::start(Stored { state, ..with_log(&[1, 2, 3], &[(4, 0)], 9) });
    assert_eq!(one.raft.leading(), None);
    let asked = one.request(Request::Vote(vote(2, 4, (3, 99), false)));
    assert_eq!(answered_vote(&asked), (Code::None, false));
}

/// `--standalone`: the first batch tells leader, version and voters, as Apache 4.3.1's does.
#[test]
fn the_only_voter_leads_at_once() {
    let (one, effects) = One::start(formatted(&[1]));
    assert_eq!(saves(&effects), [saved(1, 1, -1)], "one write holds vote and leadership");
    assert_eq!(one.raft.leading(), Some((LeaderEpoch(1), Offset(0))));
    assert_eq!(committed(&effects), [3]);
    let [
        ControlRecord::LeaderChange(change),
        ControlRecord::KraftVersion(version),
        ControlRecord::KraftVoters(voters),
    ] = &one.told[..]
    else {
        panic!("{:?}", one.told)
    };
    assert_eq!((change.version, change.leader_id, version.kraft_version), (0, 1, 1));
    assert_eq!(voters.voters, [voter(1)]);
}

#[test]
fn every_start_of_the_only_voter_is_a_new_epoch() {
    let check = |state, epochs: &[_], want| {
        let (one, _) = One::start(Stored { state, ..with_log(&[1], epochs, 40) });
        assert_eq!(one.raft.leading(), Some((LeaderEpoch(want), Offset(40))));
    };
    check(None, &[(3, 0)], 4);
    check(Some(saved(4, 1, -1)), &[(4, 0)], 5);
    check(Some(saved(4, 1, -1)), &[(7, 0)], 8);
    check(Some(saved(9, 1, -1)), &[(7, 0)], 10);
}

/// Reference section 2.3: voters are told where the log does not name them yet, or this one has moved.
#[test]
fn voters_are_told_once_and_again_when_the_leader_moves() {
    let told = |quorum: QuorumHistory| {
        let (one, _) = One::start(Stored { quorum, ..with_log(&[1], &[(3, 0)], 40) });
        one.told.len()
    };
    assert_eq!(told(QuorumHistory::of_snapshot(quorum(&[1]))), 1);
    let mut moved = quorum(&[1]);
    moved.voters.voters[0].endpoints[0].port = 9999;
    assert_eq!(told(QuorumHistory::of_snapshot(moved)), 3);
    assert_eq!(told(QuorumHistory::configured(static_quorum(&[1]))), 1, "kraft.version 0");
}

/// A voter that forgets its vote votes twice: nothing leaves before it is on disk.
#[test]
fn nothing_is_said_before_the_epoch_is_on_disk() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    one.saves = false;
    let asked = one.request(Request::Vote(vote(2, 5, (0, 0), false)));
    assert_eq!(saves(&asked), [saved(5, -1, -1)]);
    assert_eq!(asked.len(), 1, "{asked:?}");
    let vote_on_disk = one.input(Input::StateSaved);
    assert_eq!(saves(&vote_on_disk), [saved(5, -1, 2)], "{vote_on_disk:?}");
    assert!(!vote_on_disk.iter().any(|effect| matches!(effect, Effect::Respond { .. })));
    assert_eq!(answered_vote(&one.input(Input::StateSaved)), (Code::None, true));
}

#[test]
fn starts_that_cannot_be_are_refused() {
    let start = |me: ReplicaKey, settings: Settings, stored: Stored| {
        let now = Now::default();
        Raft::start(settings, me, voter(1), stored, 1, now, &mut vec![]).unwrap_err()
    };
    assert_eq!(start(key(1), settings(), formatted(&[])), StartError::NoVoters);
    let no_directory = ReplicaKey { id: NodeId(1), directory: Uuid::ZERO };
    assert_eq!(start(no_directory, settings(), formatted(&[1])), StartError::NoDirectory);
    let other = Settings { listener: "INTERNAL".into(), ..settings() };
    assert_eq!(start(key(1), other, formatted(&[1])), StartError::NoEndpoint("INTERNAL".into()));
    let cut = Stored { log_start: Offset(5), ..with_log(&[1], &[(1, 5)], 9) };
    assert!(matches!(start(key(1), settings(), cut), StartError::Gap { .. }));
    let last = Stored { state: Some(saved(i32::MAX, 1, -1)), ..formatted(&[1]) };
    assert_eq!(start(key(1), settings(), last), StartError::NoEpochsLeft);
}

/// KIP-853: a node without voters asks its bootstrap servers who leads, and never stands.
#[test]
fn a_node_without_voters_asks_its_bootstrap_servers() {
    let settings = Settings { bootstrap_servers: 2, ..settings() };
    let (mut one, effects) = One::start_with(settings, formatted(&[]));
    assert!(matches!(
        &effects[..],
        [.., Effect::Send { to: Destination::Bootstrap(_), request: Request::Fetch(_), .. }]
    ));
    one.after(ms(10_000));
    assert_eq!(one.raft.state_name(), "unattached-observer");
}
