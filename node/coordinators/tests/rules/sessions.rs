//! SyncGroup, Heartbeat, LeaveGroup, and silence.

use crate::harness::{Coordinator, GROUP, join, sync};
use bytes::Bytes;
use flowstone_coordinators::{Answer, Error, LeaveGroup, Leaving, Request, SyncGroup};

/// Two members of generation 1, the first the leader, before any SyncGroup.
fn joined() -> (Coordinator, Vec<flowstone_coordinators::Joined>) {
    let mut c = Coordinator::new();
    let (a, b) = (c.ask(join("").old().request()), c.ask(join("").old().fresh(1).request()));
    c.pass(6_000);
    let members = vec![c.joined(a).unwrap(), c.joined(b).unwrap()];
    (c, members)
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let (mut c, members) = joined();
    let follower = c.ask(sync(&members[1].member, 1, Vec::new()));
    assert!(c.waits(follower));
    let assignments = vec![(members[1].member.clone(), Bytes::from_static(b"all"))];
    let leader = c.ask(sync(&members[0].member, 1, assignments));
    assert_eq!(c.synced(leader).unwrap().assignment, b""[..], "not assigned anything");
    let synced = c.synced(follower).unwrap();
    assert_eq!(synced.assignment, b"all"[..]);
    assert_eq!(synced.protocol.as_deref(), Some("range"));
    assert_eq!(synced.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(c.state(), "Stable");
}

/// The assignment is in the log before anybody acts on it: a restart must not bring back another.
#[test]
fn an_assignment_is_durable_before_it_is_known() {
    let (mut c, members) = joined();
    c.prompt = false;
    let leader = c.ask(sync(&members[0].member, 1, Vec::new()));
    let follower = c.ask(sync(&members[1].member, 1, Vec::new()));
    assert!(c.waits(leader) && c.waits(follower));
    assert_eq!(c.state(), "CompletingRebalance");
    c.flush();
    assert!(c.synced(leader).is_ok() && c.synced(follower).is_ok());
}

/// A generation has one assignment, even if its leader sends two.
#[test]
fn a_leader_that_assigns_twice_is_given_its_first() {
    let (mut c, members) = joined();
    c.prompt = false;
    let assign = |text: &'static [u8]| {
        let assignments = vec![(members[0].member.clone(), Bytes::from_static(text))];
        sync(&members[0].member, 1, assignments)
    };
    let first = c.ask(assign(b"one"));
    let second = c.ask(assign(b"two"));
    assert_eq!(c.writes_under_way(), 1);
    assert_eq!(c.synced(first), Err(Error::RebalanceInProgress), "given up by its client");
    c.flush();
    assert_eq!(c.synced(second).unwrap().assignment, b"one"[..]);
    let later = c.ask(assign(b"three"));
    assert_eq!(c.synced(later).unwrap().assignment, b"one"[..]);
}

#[test]
fn sync_is_for_members_of_the_generation() {
    let (mut c, members) = joined();
    for (member, generation, want) in [
        ("stranger", 1, Error::UnknownMemberId),
        (&*members[0].member, 0, Error::IllegalGeneration),
        (&*members[0].member, 2, Error::IllegalGeneration),
    ] {
        let id = c.ask(sync(member, generation, Vec::new()));
        assert_eq!(c.synced(id), Err(want));
    }
    c.ask(join("").old().fresh(5).request());
    let id = c.ask(sync(&members[0].member, 1, Vec::new()));
    assert_eq!(c.synced(id), Err(Error::RebalanceInProgress));
}

/// KIP-559: a member that thinks of another protocol is told.
#[test]
fn sync_checks_protocol_type_and_name() {
    let (mut c, members) = joined();
    for (protocol_type, protocol, want) in [
        ("connect", "range", Some(Error::InconsistentGroupProtocol)),
        ("consumer", "sticky", Some(Error::InconsistentGroupProtocol)),
        ("consumer", "range", None),
    ] {
        let id = c.ask(Request::Sync(SyncGroup {
            group: GROUP.into(),
            generation: 1,
            member: members[0].member.clone(),
            instance: None,
            protocol_type: Some(protocol_type.into()),
            protocol: Some(protocol.into()),
            assignments: Vec::new(),
        }));
        assert_eq!(c.synced(id).err(), want);
    }
}

/// Members that joined but never sync are removed after the rebalance time-out (KAFKA-13214).
#[test]
fn members_that_never_sync_leave() {
    let (mut c, members) = joined();
    let leader = c.ask(sync(&members[0].member, 1, Vec::new()));
    assert!(c.synced(leader).is_ok());
    for _ in 0..60 {
        assert_eq!(c.heartbeat(&members[0].member, 1), Ok(()));
        assert_eq!(c.heartbeat(&members[1].member, 1), Ok(()));
        c.pass(5_000);
    }
    assert_eq!(c.heartbeat(&members[1].member, 1), Err(Error::UnknownMemberId));
    assert_eq!(c.state(), "PreparingRebalance");
}

/// A leader that dies before it assigns must not hold the others for ever.
#[test]
fn a_leader_that_never_assigns_is_replaced() {
    let (mut c, members) = joined();
    let follower = c.ask(sync(&members[1].member, 1, Vec::new()));
    c.pass(10_000); // The leader's session.
    assert_eq!(c.synced(follower), Err(Error::RebalanceInProgress));
    let again = c.ask(join(&members[1].member).request());
    let joined = c.joined(again).unwrap();
    assert_eq!((joined.generation, &joined.leader), (2, &members[1].member));
}

#[test]
fn heartbeats_keep_a_session_alive() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    for _ in 0..10 {
        c.pass(9_999);
        assert_eq!(c.heartbeat(&members[0], 1), Ok(()));
    }
    c.pass(10_000);
    assert_eq!(c.heartbeat(&members[0], 1), Err(Error::UnknownMemberId));
    assert_eq!(c.state(), "Empty");
}

#[test]
fn heartbeats_are_for_members_of_the_generation() {
    let mut c = Coordinator::new();
    assert_eq!(c.heartbeat("m", 1), Err(Error::UnknownMemberId), "no such group");
    let members = c.stable(&[&["range"]]);
    assert_eq!(c.heartbeat("m", 1), Err(Error::UnknownMemberId));
    assert_eq!(c.heartbeat(&members[0], 0), Err(Error::IllegalGeneration));
    assert_eq!(c.heartbeat(&members[0], 1), Ok(()));
}

/// A member that waits for our answer cannot send heartbeats, and need not.
#[test]
fn waiting_members_need_no_heartbeats() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let leader = c.ask(join(&members[0]).request());
    for _ in 0..10 {
        c.pass(5_000);
        let _ = c.heartbeat(&members[1], 1);
    }
    assert!(c.waits(leader));
    let follower = c.ask(join(&members[1]).request());
    assert_eq!(c.joined(leader).unwrap().members.len(), 2);
    assert!(c.joined(follower).is_ok());
    c.pass(9_999);
    assert_eq!(c.heartbeat(&members[0], 2), Ok(()), "its session began with the answer");
}

/// Its session stands still while it waits for the assignment, and goes on with the answer.
#[test]
fn a_follower_that_waited_has_a_session_again() {
    let (mut c, members) = joined();
    let follower = c.ask(sync(&members[1].member, 1, Vec::new()));
    for _ in 0..3 {
        c.pass(5_000);
        assert_eq!(c.heartbeat(&members[0].member, 1), Ok(()));
    }
    c.ask(sync(&members[0].member, 1, Vec::new()));
    assert!(c.synced(follower).is_ok());
    c.pass(9_999);
    assert_eq!(c.heartbeat(&members[0].member, 1), Ok(()));
    c.pass(1);
    assert_eq!(c.state(), "PreparingRebalance", "the follower is gone");
}

#[test]
fn one_that_leaves_sets_off_a_rebalance() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    assert_eq!(c.leave(&[(&members[0], "")]), [None]);
    assert_eq!(c.state(), "PreparingRebalance");
    let id = c.ask(join(&members[1]).request());
    assert_eq!(c.joined(id).unwrap().leader, members[1]);
}

/// LeaveGroup 3 (KIP-345): many at once, each with its own result.
#[test]
fn leaving_is_answered_member_by_member() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let invited = c.ask(join("").fresh(9).request());
    let invited = c.joined(invited).unwrap_err().member;
    let left = c.leave(&[
        (&members[0], ""),
        ("stranger", ""),
        (&invited, ""),
        ("", "no-instance"),
        (&members[1], "no-instance"),
        ("", ""),
    ]);
    let unknown = Some(Error::UnknownMemberId);
    assert_eq!(left, [None, unknown, None, unknown, unknown, unknown]);
}

/// Before LeaveGroup 3, and since: an unknown group is told member by member.
#[test]
fn leaving_an_unknown_group() {
    let mut c = Coordinator::new();
    assert_eq!(c.leave(&[("m", "")]), [Some(Error::UnknownMemberId)]);
    let id = c.ask(Request::Leave(LeaveGroup {
        group: "".into(),
        members: vec![Leaving { member: "m".into(), instance: None }],
    }));
    assert_eq!(c.take(id), Some(Answer::Leave(Err(Error::InvalidGroupId))));
}

/// Sessions begin anew after a restart: members need time to find the coordinator again.
#[test]
fn a_restart_gives_members_a_whole_session() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    c.pass(9_000);
    let mut c = c.reloaded(flowstone_coordinators::Config::default());
    assert_eq!(c.state(), "Stable");
    c.pass(9_999);
    assert_eq!(c.heartbeat(&members[0], 1), Ok(()));
    let id = c.ask(sync(&members[1], 1, Vec::new()));
    assert_eq!(c.synced(id).unwrap().assignment, [1_u8][..]);
    c.pass(1);
    assert_eq!(c.heartbeat(&members[1], 1), Err(Error::UnknownMemberId));
}

/// While the groups load, a heartbeat is answered as if all were well; the rest must come again.
#[test]
fn loading_and_elsewhere_are_said_in_kafkas_words() {
    let heartbeat = Request::Heartbeat(flowstone_coordinators::Heartbeat {
        group: GROUP.into(),
        generation: 1,
        member: "m".into(),
        instance: None,
    });
    let loading = Error::CoordinatorLoadInProgress;
    assert_eq!(heartbeat.refused(loading), Answer::Heartbeat(Ok(())));
    let elsewhere = Error::NotCoordinator;
    assert_eq!(heartbeat.refused(elsewhere), Answer::Heartbeat(Err(elsewhere)));
    assert_eq!(sync("m", 1, Vec::new()).refused(loading), Answer::Sync(Err(loading)));
}
