//! BeginQuorumEpoch, EndQuorumEpoch, and how a leader ceases to be one.

use crate::harness::*;
use flowstone_raft::*;
use flowstone_types::LeaderEpoch;

fn began(effects: &[Effect]) -> Code {
    let Response::BeginQuorumEpoch(response) = response(effects) else { panic!("{effects:?}") };
    Code::of(response.topics[0].partitions[0].error_code)
}

fn sends(effects: &[Effect], wanted: fn(&Request) -> bool) -> usize {
    let sent = |effect: &&Effect| matches!(effect, Effect::Send { request, .. } if wanted(request));
    effects.iter().filter(sent).count()
}

/// KIP-595: BeginQuorumEpoch makes its receiver a follower, on disk first.
#[test]
fn a_new_leader_is_followed() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    let effects = one.request(begin(2, 4));
    assert_eq!(saves(&effects), [saved(4, 2, -1)]);
    assert_eq!((began(&effects), one.raft.state_name()), (Code::None, "follower"));
    assert_eq!(began(&one.request(begin(3, 3))), Code::FencedLeaderEpoch);
    assert_eq!(
        began(&one.request(begin(1, 5))),
        Code::InvalidRequest,
        "this node leads no epoch 5"
    );
}

/// Two leaders of one epoch are a defect that must not be hidden.
#[test]
fn two_leaders_of_an_epoch_are_a_fault() {
    let (mut one, _) = follower(formatted(&[1, 2, 3]), 4);
    let effects = one.request(begin(3, 4));
    assert!(effects.iter().any(|e| matches!(e, Effect::Fault(Fault::TwoLeaders { .. }))));
    assert_eq!(one.raft.leader().unwrap().0, 2);
}

/// Reference section 2.2: the leader tells every voter again that has not fetched for half a fetch
/// time-out.
#[test]
fn voters_that_do_not_fetch_are_told_again_who_leads() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    let is_begin = |request: &Request| matches!(request, Request::BeginQuorumEpoch(_));
    let effects = one.elect();
    assert_eq!(sends(&effects, is_begin), 2);
    for effect in effects {
        if let Effect::Send { id, .. } = effect {
            one.input(Input::Response { id, response: Err(Failure::Disconnected) });
        }
    }
    one.fetch(2, 3, 1);
    assert_eq!(sends(&one.after(ms(999)), is_begin), 0);
    assert_eq!(sends(&one.after(ms(1)), is_begin), 2);
}

/// KAFKA-15489: a leader that a majority does not fetch from for 1.5 x fetch time-out resigns.
#[test]
fn a_leader_without_followers_resigns() {
    let mut one = leader();
    one.after(ms(2_999));
    one.fetch(2, 3, 1);
    one.after(ms(2_999));
    assert_eq!(one.raft.state_name(), "leader", "each fetch of a majority starts it anew");
    let effects = one.after(ms(1));
    assert_eq!(one.raft.state_name(), "resigned");
    assert!(effects.iter().any(|e| matches!(e, Effect::LeaderChanged { leader: None, .. })));
    one.after(ms(2_000));
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("prospective", 2), "a new epoch");
}

/// Of five voters, two beside the leader.
#[test]
fn one_follower_of_four_is_no_majority() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3, 4, 5]));
    one.elect();
    one.after(ms(2_000));
    one.fetch(2, 3, 1);
    one.fetch(2, 3, 1);
    one.after(ms(1_000));
    assert_eq!(one.raft.state_name(), "resigned");
}

/// The only voter has nobody to wait for.
#[test]
fn the_only_voter_never_resigns() {
    let (mut one, _) = One::start(formatted(&[1]));
    one.after(ms(100_000));
    assert_eq!(one.raft.state_name(), "leader");
}

/// A leader that stops names its successors, the furthest first; who waits is told.
#[test]
fn a_leader_that_stops_says_so() {
    let mut one = leader();
    one.append(&["a"]);
    one.fetch(3, 4, 1);
    let waits = one.fetch(2, 3, 1);
    assert_eq!(waits.len(), 1, "there is something for it");
    one.fetch(2, 4, 1);
    let effects = one.input(Input::Shutdown);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Respond { .. })).count(), 2);
    let is_end = |request: &Request| matches!(request, Request::EndQuorumEpoch(_));
    assert_eq!(sends(&effects, is_end), 2);
    one.after(ms(5_000));
    assert_ne!(one.raft.state_name(), "prospective", "it does not stand again");
}

/// Of an epoch that is over, a controller's wish to resign means nothing.
#[test]
fn a_controller_resigns_its_own_epoch_only() {
    let mut one = leader();
    one.input(Input::Resign(LeaderEpoch(0)));
    assert_eq!(one.raft.state_name(), "leader");
    one.input(Input::Resign(LeaderEpoch(1)));
    assert_eq!(one.raft.state_name(), "resigned");
}

/// Reference section 2.2: the first successor stands at once, the others back off by their place.
#[test]
fn successors_stand_in_order() {
    let state_after = |successors: &[i32], delay| {
        let (mut one, fetch) = follower(with_log(&[1, 2, 3, 4], &[(1, 0)], 9), 3);
        one.input(answer(fetch, fetched(3, 9, &[])));
        one.request(end(2, 3, successors));
        one.after(ms(delay));
        one.raft.state_name()
    };
    assert_eq!(state_after(&[1, 3, 4], 0), "prospective");
    assert_eq!(state_after(&[3, 1, 4], 249), "follower");
    assert_eq!(state_after(&[3, 1, 4], 250), "prospective");
    assert_eq!(state_after(&[3, 4, 1], 499), "follower");
    assert_eq!(state_after(&[3, 4, 1], 500), "prospective");
}
