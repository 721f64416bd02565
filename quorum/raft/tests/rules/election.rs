//! Vote and its answers.

use crate::harness::*;
use flowstone_raft::*;

fn asked(one: &mut One, from: i32, epoch: i32, last: (i32, i64), pre_vote: bool) -> (Code, bool) {
    answered_vote(&one.request(Request::Vote(vote(from, epoch, last, pre_vote))))
}

fn voter_with_log() -> One {
    One::start(with_log(&[1, 2, 3], &[(1, 0), (3, 5)], 9)).0
}

/// Reference section 2.2, Vote.
#[test]
fn senseless_votes_are_invalid() {
    let mut one = voter_with_log();
    for (epoch, last) in [(5, (2, -1)), (5, (-1, 9)), (5, (5, 9)), (5, (6, 9))] {
        assert_eq!(asked(&mut one, 2, epoch, last, false), (Code::InvalidRequest, false));
    }
    assert_eq!(asked(&mut one, 2, 3, (4, 9), true), (Code::InvalidRequest, false));
    assert_eq!(
        asked(&mut one, 2, 3, (3, 9), true),
        (Code::None, true),
        "a pre-vote's may be equal"
    );
    assert_eq!(asked(&mut one, -2, 5, (3, 9), false), (Code::InvalidRequest, false));
    assert_eq!(asked(&mut one, 2, 2, (1, 99), false), (Code::FencedLeaderEpoch, false));
}

#[test]
fn votes_of_other_clusters_and_topics_change_nothing() {
    let mut one = voter_with_log();
    let mut other = vote(2, 8, (3, 9), false);
    other.cluster_id = Some("another".into());
    let answer = answered_vote(&one.request(Request::Vote(other)));
    assert_eq!(answer, (Code::InconsistentClusterId, false));
    let mut twice = vote(2, 8, (3, 9), false);
    twice.topics.push(twice.topics[0].clone());
    assert_eq!(answered_vote(&one.request(Request::Vote(twice))), (Code::InvalidRequest, false));
    assert_eq!(one.raft.epoch().0, 3);
    let mut unknown = vote(2, 8, (3, 9), false);
    unknown.cluster_id = None;
    assert_eq!(answered_vote(&one.request(Request::Vote(unknown))), (Code::None, true));
}

/// KIP-595: the log decides by (epoch, offset), and there is one vote an epoch.
#[test]
fn a_vote_goes_to_the_first_whose_log_reaches_as_far() {
    for (last, granted) in [((3, 9), true), ((3, 8), false), ((2, 99), false), ((4, 0), true)] {
        assert_eq!(
            asked(&mut voter_with_log(), 2, 7, last, false),
            (Code::None, granted),
            "{last:?}"
        );
    }
    let mut one = voter_with_log();
    assert_eq!(asked(&mut one, 2, 7, (3, 9), false), (Code::None, true));
    assert_eq!(asked(&mut one, 3, 7, (3, 99), false), (Code::None, false));
    assert_eq!(asked(&mut one, 2, 7, (3, 9), false), (Code::None, true), "asked again, told again");
    assert_eq!(asked(&mut one, 3, 8, (3, 9), false), (Code::None, true), "another epoch");
}

/// KIP-853: any replica may be granted, not only known voters; but it must mean this one.
#[test]
fn votes_are_for_whom_they_mean() {
    let mut one = voter_with_log();
    let mut wrong = vote(2, 7, (3, 9), false);
    wrong.topics[0].partitions[0].voter_directory_id = key(3).directory;
    assert_eq!(answered_vote(&one.request(Request::Vote(wrong))), (Code::InvalidVoterKey, false));
    assert_eq!(one.raft.epoch().0, 7, "its epoch counts");
    assert_eq!(asked(&mut one, 8, 7, (3, 9), false), (Code::None, true));
}

/// KIP-996: a pre-vote leaves nothing on disk, is no vote, and its higher epoch counts all the same.
#[test]
fn a_pre_vote_is_no_vote() {
    let mut one = voter_with_log();
    let effects = one.request(Request::Vote(vote(2, 3, (3, 9), true)));
    assert_eq!((answered_vote(&effects), saves(&effects)), ((Code::None, true), vec![]));
    assert_eq!(asked(&mut one, 3, 3, (3, 9), true), (Code::None, true), "any number of them");
    assert_eq!(asked(&mut one, 3, 3, (3, 8), true), (Code::None, false));
    let effects = one.request(Request::Vote(vote(2, 6, (3, 9), true)));
    assert_eq!(saves(&effects), [saved(6, -1, -1)], "reference section 2.8, 2");
}

/// KIP-996: a follower grants a pre-vote only if it has not fetched from its leader; a leader only before
/// it has committed.
#[test]
fn nobody_helps_to_depose_a_leader_that_works() {
    let (mut one, fetch) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 3);
    assert_eq!(asked(&mut one, 3, 3, (1, 9), true), (Code::None, true));
    one.input(answer(fetch, fetched(3, 9, &[])));
    assert_eq!(asked(&mut one, 3, 3, (1, 9), true), (Code::None, false));
    assert_eq!(asked(&mut one, 3, 3, (1, 9), false), (Code::None, false), "it has a leader");
    let mut leader = leader();
    let epoch = leader.raft.epoch().0;
    assert_eq!(asked(&mut leader, 3, epoch, (epoch, 99), true), (Code::None, false));
}

/// KIP-996: first asked whether, then asked for votes; the epoch moves with the second only.
#[test]
fn an_election_takes_a_majority_twice() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3, 4, 5]));
    let pre = one.after(ms(1_999));
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("prospective", 0));
    assert!(one.grant(&pre, &[2]).is_empty(), "two of five");
    let votes = one.grant(&pre, &[3]);
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("candidate", 1));
    assert_eq!(saves(&votes), [saved(1, -1, 1)]);
    one.grant(&votes, &[2]);
    assert_eq!(one.raft.state_name(), "candidate");
    let led = one.grant(&votes, &[4]);
    assert_eq!(saves(&led), [saved(1, 1, -1)]);
    assert_eq!(one.raft.leading().unwrap().0.0, 1);
}

/// The same voter's answer counts once, and only if it votes.
#[test]
fn a_voter_counts_once() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3, 4, 5]));
    let pre = one.after(ms(1_999));
    one.grant(&pre, &[2]);
    one.grant(&pre, &[2]);
    assert_eq!(one.raft.state_name(), "prospective");
}

/// Reference section 2.2: a peer older than KIP-996 makes the prospective a candidate.
#[test]
fn pre_votes_are_left_out_where_a_voter_does_not_know_them() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    let pre = one.after(ms(1_999));
    let Some(Effect::Send { id, .. }) = pre.last() else { panic!("{pre:?}") };
    one.input(Input::Response { id: *id, response: Err(Failure::UnsupportedVersion) });
    assert_eq!(one.raft.state_name(), "candidate");
}

/// KIP-996: who would not be elected goes back to the leader that it had.
#[test]
fn a_prospective_that_is_refused_follows_again() {
    let (mut one, fetch) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 3);
    one.input(answer(fetch, fetched(3, 9, &[])));
    let mut pre = one.after(ms(2_000));
    assert_eq!(one.raft.state_name(), "prospective");
    pre.extend(one.after(ms(20))); // Its leader did not answer, and is left alone first.
    for effect in &pre {
        if let Effect::Send { id, request: Request::Vote(_), .. } = effect {
            let response = Ok(Response::Vote(vote_response(3, 2, false)));
            one.input(Input::Response { id: *id, response });
        }
    }
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("follower", 3));
}

/// Two candidates that split the votes do not stand again together.
#[test]
fn a_candidate_that_lost_backs_off() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    let pre = one.after(ms(1_999));
    let votes = one.grant(&pre, &[2]);
    for effect in &votes {
        if let Effect::Send { id, request: Request::Vote(_), .. } = effect {
            let response = Ok(Response::Vote(vote_response(1, -1, false)));
            one.input(Input::Response { id: *id, response });
        }
    }
    assert_eq!(one.raft.state_name(), "candidate");
    one.after(ms(50));
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("prospective", 1));
}

/// Without a leader, within [1 s, 2 s).
#[test]
fn the_election_time_out_is_uniform_in_one_to_two_seconds() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3]));
    one.after(ms(999));
    assert_eq!(one.raft.state_name(), "unattached");
    one.after(ms(1_000));
    assert_eq!(one.raft.state_name(), "prospective");
}
