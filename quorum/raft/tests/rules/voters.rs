//! Voters that come, go and move (KIP-853).

use crate::harness::*;
use flowstone_raft::control::{ControlRecord, KraftVersion, KraftVersionRange, control_batch};
use flowstone_raft::messages::*;
use flowstone_raft::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset, Timestamp, Uuid};

fn add(id: i32) -> AddRaftVoterRequest {
    AddRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        timeout_ms: 1_000,
        voter_id: id,
        voter_directory_id: key(id).directory,
        listeners: voter(id).endpoints,
        ..AddRaftVoterRequest::default()
    }
}

fn remove(id: i32) -> Request {
    Request::RemoveRaftVoter(RemoveRaftVoterRequest {
        voter_id: id,
        voter_directory_id: key(id).directory,
        ..RemoveRaftVoterRequest::default()
    })
}

fn update(id: i32, epoch: i32, port: u16) -> UpdateRaftVoterRequest {
    let mut listeners = voter(id).endpoints;
    listeners[0].port = port;
    UpdateRaftVoterRequest {
        current_leader_epoch: epoch,
        voter_id: id,
        voter_directory_id: key(id).directory,
        listeners,
        kraft_version_feature: voter(id).kraft_version_feature,
        ..UpdateRaftVoterRequest::default()
    }
}

/// The code of the one answer to a change of voters.
fn code(effects: &[Effect]) -> Code {
    Code::of(match response(effects) {
        Response::AddRaftVoter(response) => response.error_code,
        Response::RemoveRaftVoter(response) => response.error_code,
        Response::UpdateRaftVoter(response) => response.error_code,
        other => panic!("{other:?}"),
    })
}

fn ids(raft: &Raft) -> Vec<i32> {
    raft.quorum().keys().map(|voter| voter.id.0).collect()
}

/// The request among the effects that asks a new voter what it supports.
fn asks_versions(effects: &[Effect]) -> RequestId {
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Send { id, request: Request::ApiVersions, .. } => Some(*id),
        _ => None,
    });
    asked.unwrap_or_else(|| panic!("{effects:#?}"))
}

fn supports(id: RequestId, range: Option<(i16, i16)>) -> Input {
    let response = Ok(Response::ApiVersions { error: Code::None, kraft_version: range });
    Input::Response { id, response }
}

/// The preconditions, and the codes that tell them (reference section 2.2, AddRaftVoter).
#[test]
fn changes_of_voters_have_preconditions() {
    let (mut follows, _) = follower(formatted(&[1, 2, 3]), 4);
    assert_eq!(code(&follows.request(Request::AddRaftVoter(add(4)))), Code::NotLeaderOrFollower);
    let (mut new, _) = One::start(formatted(&[1, 2, 3]));
    new.elect();
    let refused = code(&new.request(Request::AddRaftVoter(add(4))));
    assert_eq!(refused, Code::RequestTimedOut, "nothing is committed in its epoch");
    let mut one = leader();
    let mut asked = |request| code(&one.request(request));
    assert_eq!(asked(Request::AddRaftVoter(add(2))), Code::DuplicateVoter);
    let no_listener = AddRaftVoterRequest { listeners: vec![], ..add(4) };
    assert_eq!(asked(Request::AddRaftVoter(no_listener)), Code::InvalidRequest);
    let other = AddRaftVoterRequest { cluster_id: Some("another".into()), ..add(4) };
    assert_eq!(asked(Request::AddRaftVoter(other)), Code::InconsistentClusterId);
    assert_eq!(asked(remove(4)), Code::VoterNotFound);
    let stored =
        Stored { quorum: QuorumHistory::configured(static_quorum(&[1])), ..formatted(&[1]) };
    let (mut old, _) = One::start(stored);
    assert_eq!(code(&old.request(remove(1))), Code::UnsupportedVersion, "kraft.version 0");
    assert_eq!(code(&old.request(Request::AddRaftVoter(add(4)))), Code::UnsupportedVersion);
    let (mut alone, _) = One::start(formatted(&[1]));
    assert_eq!(code(&alone.request(remove(1))), Code::InvalidRequest, "the last voter stays");
}

/// The new voter is asked what it supports, must have the log, and counts as soon as it is in the log.
#[test]
fn a_voter_is_added() {
    let mut one = leader();
    let id = asks_versions(&one.request(Request::AddRaftVoter(add(4))));
    assert_eq!(code(&one.input(supports(id, Some((0, 0))))), Code::InvalidRequest);
    let id = asks_versions(&one.request(Request::AddRaftVoter(add(4))));
    assert_eq!(code(&one.input(supports(id, Some((0, 1))))), Code::RequestTimedOut, "no log yet");
    one.fetch(4, 3, 1);
    one.after(ms(500));
    let id = asks_versions(&one.request(Request::AddRaftVoter(add(4))));
    let effects = one.input(supports(id, Some((0, 1))));
    assert!(matches!(effects[..], [Effect::Append { .. }, ..]), "{effects:?}");
    assert_eq!(ids(&one.raft), [1, 2, 3, 4], "it counts at once");
    let refused = code(&one.request(remove(3)));
    assert_eq!(refused, Code::RequestTimedOut, "one change at a time");
    assert_eq!(committed(&one.fetch(2, 4, 1)), NONE, "two of four");
    let effects = one.fetch(4, 4, 1);
    assert_eq!(committed(&effects), [4]);
    let answered = |effect: &&Effect| matches!(effect, Effect::Respond { response: Response::AddRaftVoter(r), .. } if r.error_code == 0);
    assert_eq!(effects.iter().filter(answered).count(), 1);
}

/// `AckWhenCommitted` of version 1: a node that adds itself must fetch for its own commit.
#[test]
fn an_addition_may_be_answered_before_it_is_committed() {
    let mut one = leader();
    let mut fetches = fetch(key(4), 1, 3, 1);
    fetches.max_wait_ms = 0;
    one.request(Request::Fetch(fetches));
    let early = AddRaftVoterRequest { ack_when_committed: false, ..add(4) };
    let id = asks_versions(&one.request(Request::AddRaftVoter(early)));
    assert_eq!(code(&one.input(supports(id, Some((0, 1))))), Code::None);
    assert_eq!(one.raft.high_watermark(), Some(Offset(3)));
    let second = code(&one.request(Request::AddRaftVoter(add(5))));
    assert_eq!(second, Code::RequestTimedOut, "the voters before are not committed");
}

#[test]
fn a_new_voter_that_does_not_answer_is_not_added() {
    let mut one = leader();
    let id = asks_versions(&one.request(Request::AddRaftVoter(add(4))));
    let effects = one.input(Input::Response { id, response: Err(Failure::Disconnected) });
    assert_eq!(code(&effects), Code::RequestTimedOut);
    one.after(ms(20));
    one.request(Request::AddRaftVoter(add(4)));
    assert_eq!(code(&one.after(ms(1_000))), Code::RequestTimedOut, "its own time-out");
    assert_eq!(ids(&one.raft), [1, 2, 3]);
}

/// A leader that is removed leads on until that is committed, without counting itself.
#[test]
fn a_leader_that_is_removed_resigns_once_that_is_committed() {
    let mut one = leader();
    one.request(remove(1));
    assert_eq!((ids(&one.raft), one.raft.state_name()), (vec![2, 3], "leader"));
    assert_eq!(committed(&one.fetch(2, 4, 1)), NONE, "one of two");
    let effects = one.fetch(3, 4, 1);
    assert_eq!(committed(&effects), [4]);
    let answered = |e: &&Effect| matches!(e, Effect::Respond { response: Response::RemoveRaftVoter(r), .. } if r.error_code == 0);
    assert_eq!(effects.iter().filter(answered).count(), 1);
    assert_eq!(one.raft.state_name(), "resigned");
    one.after(ms(2_000));
    assert_eq!(one.raft.state_name(), "unattached-observer", "and never stands again");
}

/// Raft thesis, 4.2.2: "a server that is not part of its own latest configuration should still start new
/// elections, as it might still be needed until the Cnew entry is committed". Its vote does not count.
#[test]
fn a_leader_whose_removal_is_not_committed_stands_again() {
    for (voters, still_vote) in [(vec![1, 2], vec![2]), (vec![1, 2, 3, 4], vec![2, 3])] {
        let (mut one, _) = One::start(formatted(&voters));
        one.elect();
        let end = one.raft.log_end().0;
        for other in &voters[1..] {
            one.fetch(*other, end, 1);
        }
        one.request(remove(1));
        // Nobody fetches it: check-quorum has it resign, and nobody else can be elected.
        one.after(ms(3_000));
        assert_eq!(one.raft.state_name(), "resigned");
        let asks = one.after(ms(2_000));
        assert_eq!(one.raft.state_name(), "prospective");
        let some = &still_vote[1..];
        let early = one.grant(&asks, some);
        assert_eq!(one.raft.state_name(), "prospective", "its own vote does not count");
        let votes = one.grant(&asks, &still_vote);
        assert_eq!(one.raft.state_name(), "candidate", "{early:?}");
        let early = one.grant(&votes, some);
        assert_eq!(one.raft.state_name(), "candidate", "{early:?}");
        one.grant(&votes, &still_vote);
        assert_eq!(one.raft.state_name(), "leader");
        let (end, epoch) = (one.raft.log_end().0, one.raft.epoch().0);
        for other in &voters[1..] {
            one.fetch(*other, end, epoch);
        }
        assert_eq!(one.raft.high_watermark(), Some(Offset(end)));
        assert_eq!(one.raft.state_name(), "resigned", "it is committed");
        one.after(ms(10_000));
        assert_eq!(one.raft.state_name(), "unattached-observer", "and never stands again");
    }
}

/// The same of a follower that was voted out: its log may reach further than those of all who vote.
#[test]
fn a_follower_whose_removal_is_not_committed_stands() {
    let (mut one, id) = follower(with_log(&[1, 2, 3, 4], &[(1, 0)], 9), 4);
    let told = [ControlRecord::KraftVoters(quorum(&[2, 3, 4]).voters)];
    let told = control_batch(Offset(9), LeaderEpoch(4), Timestamp(1), &told);
    let effects = one.input(answer(id, fetched(4, 9, &[told])));
    assert_eq!((ids(&one.raft), one.raft.state_name()), (vec![2, 3, 4], "observer"));
    let mut committed = one.raft.clone();
    one.after(ms(2_000));
    assert_eq!(one.raft.state_name(), "prospective");
    // Once it knows that its removal is committed, it waits for a leader like any observer.
    let id = asks_fetch(&effects).unwrap().0;
    core::mem::swap(&mut one.raft, &mut committed);
    one.input(answer(id, fetched(4, 10, &[])));
    one.after(ms(10_000));
    assert_eq!(one.raft.state_name(), "observer");
}

/// Voters count when appended; cutting the log brings those before back.
#[test]
fn voters_that_are_cut_off_count_no_more() {
    let (mut one, id) = follower(with_log(&[1, 2, 3], &[(1, 0)], 9), 4);
    let told = [ControlRecord::KraftVoters(quorum(&[1, 2, 3, 4]).voters)];
    let told = control_batch(Offset(9), LeaderEpoch(4), Timestamp(1), &told);
    let effects = one.input(answer(id, fetched(4, 9, &[told])));
    assert_eq!(ids(&one.raft), [1, 2, 3, 4]);
    assert_eq!(ids_at(&one.raft, 9), [1, 2, 3], "a snapshot of before tells those before");
    let id = asks_fetch(&effects).unwrap().0;
    one.input(answer(id, diverging(4, (1, 9))));
    assert_eq!(ids(&one.raft), [1, 2, 3]);
}

fn ids_at(raft: &Raft, end: i64) -> Vec<i32> {
    raft.quorum_at(Offset(end)).keys().map(|voter| voter.id.0).collect()
}

/// UpdateRaftVoter: another endpoint goes into the log; what is known already needs no batch.
#[test]
fn a_voter_that_moves_is_told_to_all() {
    let mut one = leader();
    assert_eq!(code(&one.request(Request::UpdateRaftVoter(update(2, 1, 9093)))), Code::None);
    assert_eq!(one.raft.log_end(), Offset(3));
    let old = Request::UpdateRaftVoter(update(2, 0, 9999));
    assert_eq!(code(&one.request(old)), Code::FencedLeaderEpoch);
    let unknown = Request::UpdateRaftVoter(update(7, 1, 9999));
    assert_eq!(code(&one.request(unknown)), Code::VoterNotFound);
    let mut too_old = update(2, 1, 9999);
    too_old.kraft_version_feature = KraftVersionRange::default();
    assert_eq!(code(&one.request(Request::UpdateRaftVoter(too_old))), Code::InvalidRequest);
    one.request(Request::UpdateRaftVoter(update(2, 1, 9999)));
    assert_eq!(one.raft.log_end(), Offset(4));
    assert_eq!(one.raft.quorum().voters.voters[1].endpoints[0].port, 9999);
    assert_eq!(code(&one.fetch(3, 4, 1)), Code::None);
}

/// `kraft.version` 0 to 1: every voter must have told who it is (reference section 2.2, UpdateRaftVoter).
#[test]
fn kraft_version_rises_once_every_voter_has_told_who_it_is() {
    let stored = Stored {
        quorum: QuorumHistory::configured(static_quorum(&[1, 2, 3])),
        ..formatted(&[1, 2, 3])
    };
    let (mut one, _) = One::start(stored);
    one.elect();
    assert_eq!(one.told.len(), 1, "voters are configured, not told");
    let upgrade = |one: &mut One, only: bool| {
        let mut effects = vec![];
        one.raft.upgrade_kraft_version(one.now, only, &mut effects)
    };
    assert_eq!(upgrade(&mut one, false), Err(UpgradeError::NotReady));
    one.fetch(2, 1, 1);
    one.after(ms(500));
    assert_eq!(code(&one.request(Request::UpdateRaftVoter(update(2, 1, 9093)))), Code::None);
    assert_eq!(upgrade(&mut one, false), Err(UpgradeError::Unknown(NodeId(3))));
    one.request(Request::UpdateRaftVoter(update(3, 1, 9093)));
    assert_eq!(upgrade(&mut one, true), Ok(None));
    assert_eq!(one.raft.quorum().kraft_version, 0);
    assert_eq!(upgrade(&mut one, false), Ok(Some(Offset(3))));
    assert_eq!(one.raft.quorum(), &quorum(&[1, 2, 3]));
    assert_eq!(upgrade(&mut one, false), Ok(None), "it is there already");
}

/// A voter tells each new leader who it is, at `kraft.version` 0 always, at 1 where the log is wrong.
#[test]
fn a_voter_tells_its_leader_who_it_is() {
    let tells = |history: QuorumHistory| {
        let stored = Stored { quorum: history, ..formatted(&[1, 2, 3]) };
        let (mut one, id) = follower(stored, 4);
        one.after(ms(1_000));
        let id = asks_fetch(&one.input(answer(id, fetched(4, 0, &[])))).unwrap().0;
        one.after(ms(1_000));
        let effects = one.input(answer(id, fetched(4, 0, &[])));
        effects
            .iter()
            .any(|e| matches!(e, Effect::Send { request: Request::UpdateRaftVoter(_), .. }))
    };
    assert!(tells(QuorumHistory::configured(static_quorum(&[1, 2, 3]))));
    assert!(!tells(QuorumHistory::configured(quorum(&[1, 2, 3]))));
    let mut moved = quorum(&[1, 2, 3]);
    moved.voters.voters[0].endpoints[0].host = "elsewhere".into();
    assert!(tells(QuorumHistory::configured(moved)));
}

/// `controller.quorum.auto.join.enable`: a controller makes itself a voter; where its disk was replaced,
/// the old one goes first.
#[test]
fn a_controller_joins_by_itself() {
    let joins = |auto_join, role, quorum: Quorum| {
        let settings = Settings { auto_join, role, ..settings() };
        let stored = Stored { quorum: QuorumHistory::of_snapshot(quorum), ..formatted(&[]) };
        let (mut one, _) = One::start_with(settings, stored);
        let id = asks_fetch(&one.request(begin(2, 4))).unwrap().0;
        one.after(ms(1_000));
        let id = asks_fetch(&one.input(answer(id, fetched(4, 0, &[])))).unwrap().0;
        one.after(ms(1_000));
        let effects = one.input(answer(id, fetched(4, 0, &[])));
        effects.into_iter().find_map(|effect| match effect {
            Effect::Send { request: Request::AddRaftVoter(add), .. } => {
                Some(("add", add.voter_directory_id))
            }
            Effect::Send { request: Request::RemoveRaftVoter(remove), .. } => {
                Some(("remove", remove.voter_directory_id))
            }
            _ => None,
        })
    };
    assert_eq!(joins(true, Role::Controller, quorum(&[2, 3])), Some(("add", key(1).directory)));
    let mut replaced = quorum(&[1, 2, 3]);
    replaced.voters.voters[0].voter_directory_id = Uuid(0x99);
    assert_eq!(joins(true, Role::Controller, replaced), Some(("remove", Uuid(0x99))));
    assert_eq!(joins(false, Role::Controller, quorum(&[2, 3])), None);
    assert_eq!(joins(true, Role::Broker, quorum(&[2, 3])), None);
}

/// A new leader tells `kraft.version` with the voters, in its first batch.
#[test]
fn a_leader_of_a_formatted_quorum_tells_its_voters() {
    let one = leader();
    assert!(matches!(
        &one.told[..],
        [ControlRecord::LeaderChange(change), ControlRecord::KraftVersion(KraftVersion { kraft_version: 1, .. }), ControlRecord::KraftVoters(voters)]
            if voters == &quorum(&[1, 2, 3]).voters && change.granting_voters.len() == 2
    ));
}
