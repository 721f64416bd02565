//! JoinGroup: from no group to a generation, and on to the next.

use crate::harness::{Coordinator, join, sync};
use flowstone_coordinators::{Config, Error, Text};

/// KIP-394: a new member gets an id and must come back with it, so that a client that gives up
/// leaves no member behind.
#[test]
fn a_new_member_must_come_back_with_its_id() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").fresh(7).request());
    let refused = c.joined(id).unwrap_err();
    assert_eq!(refused.error, Error::MemberIdRequired);
    assert_eq!(&*refused.member, "c-00000000-0000-4000-8000-000000000007");
    assert_eq!(c.state(), "Empty");

    let id = c.ask(join(&refused.member).request());
    assert!(c.waits(id));
    c.pass(3_000);
    let joined = c.joined(id).unwrap();
    assert_eq!((joined.generation, &joined.leader), (1, &joined.member));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.protocol.as_deref(), Some("range"));
}

/// Before JoinGroup 4 a new member joins at once.
#[test]
fn old_clients_join_without_an_id() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").old().request());
    c.pass(3_000);
    assert_eq!(c.joined(id).unwrap().generation, 1);
}

/// KIP-394: an id that was handed out is good for one session time-out.
#[test]
fn an_id_that_nobody_comes_back_with_expires() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").request());
    let member = c.joined(id).unwrap_err().member;
    c.pass(10_000);
    let id = c.ask(join(&member).request());
    assert_eq!(c.join_error(id), Error::UnknownMemberId);
}

#[test]
fn a_member_of_a_group_that_is_not_there_is_unknown() {
    let mut c = Coordinator::new();
    let id = c.ask(join("stranger").request());
    assert_eq!(c.join_error(id), Error::UnknownMemberId);
    assert!(c.groups.is_empty());
}

/// KIP-134: members that come during the delay are in the first generation, and prolong it.
#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut c = Coordinator::new();
    let first = c.ask(join("").old().request());
    c.pass(2_000);
    let second = c.ask(join("").old().fresh(1).request());
    c.pass(1_000); // 3 s: somebody came, so once more.
    assert!(c.waits(first));
    c.pass(3_000);
    let leader = c.joined(first).unwrap();
    assert_eq!((leader.generation, leader.members.len()), (1, 2));
    assert_eq!(c.joined(second).unwrap().members, []);
}

/// KIP-134: the delay never grows past the members' rebalance time-out.
#[test]
fn the_first_rebalance_ends_with_the_rebalance_timeout() {
    let mut c = Coordinator::new();
    let quick = |i| join("").old().fresh(i).with(|j| j.rebalance_timeout_ms = 7_000).request();
    let first = c.ask(quick(0));
    for i in 1..=6 {
        c.pass(1_000);
        c.ask(quick(i));
    }
    assert!(c.waits(first));
    c.pass(1_000);
    assert_eq!(c.joined(first).unwrap().members.len(), 7);
}

/// `group.initial.rebalance.delay.ms=0`, as small installations set it.
#[test]
fn without_a_delay_the_first_member_starts_at_once() {
    let mut c = Coordinator::with(Config { initial_rebalance_delay_ms: 0, ..Config::default() });
    let id = c.ask(join("").old().request());
    assert_eq!(c.joined(id).unwrap().generation, 1);
}

/// Kafka protocol guide, JoinGroup: the protocol is one all support, and most prefer.
#[test]
fn members_vote_for_the_protocol() {
    for (members, want) in [
        (&[&["a", "b"][..], &["b", "a"], &["b", "a"]][..], "b"),
        (&[&["a", "b"], &["b"]], "b"),
        (&[&["a", "b"], &["b", "a"]], "a"), // A draw: what the first of them prefers.
        (&[&["a", "a", "b"], &["b", "a"], &["b", "a"]], "b"), // Named twice counts once.
    ] {
        let mut c = Coordinator::new();
        let joins: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(i, names)| c.ask(join("").old().fresh(i as u128).protocols(names).request()))
            .collect();
        c.pass(10_000);
        for id in joins {
            assert_eq!(c.joined(id).unwrap().protocol.as_deref(), Some(want), "{members:?}");
        }
    }
}

#[test]
fn a_member_without_a_common_protocol_stays_out() {
    let mut c = Coordinator::new();
    c.stable(&[&["range"]]);
    let id = c.ask(join("").old().protocols(&["sticky"]).request());
    assert_eq!(c.join_error(id), Error::InconsistentGroupProtocol);
    let id = c.ask(join("").old().with(|j| j.protocol_type = "connect".into()).request());
    assert_eq!(c.join_error(id), Error::InconsistentGroupProtocol);
    assert_eq!(c.state(), "Stable");
    // Nor does a group begin with one that has none.
    let id = c.ask(join("").old().protocols(&[]).with(|j| j.group = "other".into()).request());
    assert_eq!(c.join_error(id), Error::InconsistentGroupProtocol);
    assert_eq!(c.groups.len(), 1);
}

#[test]
fn session_timeouts_have_bounds() {
    let mut c = Coordinator::new();
    for bad in [5_999, 1_800_001, -1] {
        let id = c.ask(join("").with(|j| j.session_timeout_ms = bad).request());
        assert_eq!(c.join_error(id), Error::InvalidSessionTimeout, "{bad}");
    }
    for good in [6_000, 1_800_000] {
        let request = join("").fresh(good as u128).with(|j| j.session_timeout_ms = good);
        let id = c.ask(request.request());
        assert_eq!(c.join_error(id), Error::MemberIdRequired, "{good}");
    }
}

#[test]
fn a_group_has_an_id() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").with(|j| j.group = "".into()).request());
    assert_eq!(c.join_error(id), Error::InvalidGroupId);
}

/// A follower that lost its answer joins again with the same metadata: no rebalance.
#[test]
fn rejoining_unchanged_is_answered_from_the_current_generation() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let id = c.ask(join(&members[1]).request());
    let joined = c.joined(id).unwrap();
    assert_eq!((joined.generation, &joined.leader), (1, &members[0]));
    assert_eq!(joined.members, []);
    assert_eq!(c.state(), "Stable");
}

/// The leader joins again where the topics it assigns have changed.
#[test]
fn a_leader_that_rejoins_starts_a_rebalance() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let leader = c.ask(join(&members[0]).request());
    assert_eq!(c.state(), "PreparingRebalance");
    assert_eq!(c.heartbeat(&members[1], 1), Err(Error::RebalanceInProgress));
    let follower = c.ask(join(&members[1]).request());
    assert_eq!(c.joined(leader).unwrap().generation, 2);
    assert_eq!(c.joined(follower).unwrap().generation, 2);
}

#[test]
fn a_follower_with_new_metadata_starts_a_rebalance() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    c.ask(join(&members[1]).protocols(&["range", "sticky"]).request());
    assert_eq!(c.state(), "PreparingRebalance");
}

/// KIP-62: who does not join again within the rebalance time-out is out.
#[test]
fn members_that_do_not_rejoin_leave() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let follower = c.ask(join(&members[1]).protocols(&["range", "x"]).request());
    for _ in 0..60 {
        // The leader lives, but never joins.
        assert_eq!(c.heartbeat(&members[0], 1), Err(Error::RebalanceInProgress));
        c.pass(5_000);
    }
    let joined = c.joined(follower).unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(joined.leader, members[1]);
    assert_eq!(c.heartbeat(&members[0], 1), Err(Error::UnknownMemberId));
}

/// A client that asks twice (a lost connection) is answered once for each, and joins once.
#[test]
fn a_second_join_takes_the_place_of_the_first() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let first = c.ask(join(&members[0]).request());
    let second = c.ask(join(&members[0]).request());
    assert_eq!(c.join_error(first), Error::RebalanceInProgress);
    let other = c.ask(join(&members[1]).request());
    assert_eq!(c.joined(second).unwrap().members.len(), 2);
    assert_eq!(c.joined(other).unwrap().generation, 2);
}

/// KIP-389: `group.max.size`.
#[test]
fn a_full_group_takes_no_more() {
    let mut c = Coordinator::with(Config { group_size_max: 1, ..Config::default() });
    let members = c.stable(&[&["range"]]);
    let id = c.ask(join("").old().fresh(9).request());
    assert_eq!(c.join_error(id), Error::GroupMaxSizeReached);
    let id = c.ask(join(&members[0]).request());
    assert_eq!(c.joined(id).unwrap().generation, 2);
}

/// KIP-389: after a restart with a lower limit the group rebalances, and the last to come stay out.
#[test]
fn a_lowered_limit_takes_effect_after_a_restart() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    let mut c = c.reloaded(Config { group_size_max: 1, ..Config::default() });
    assert_eq!(c.heartbeat(&members[0], 1), Err(Error::RebalanceInProgress));
    let first = c.ask(join(&members[1]).request());
    let last = c.ask(join(&members[0]).request());
    assert_eq!(c.join_error(last), Error::GroupMaxSizeReached);
    assert_eq!(c.joined(first).unwrap().members.len(), 1);
}

/// KIP-394: a newcomer's JoinGroup is not held for ever, since nobody notices that it went away.
#[test]
fn a_newcomer_waits_five_minutes_at_most() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    let long = |m: &str| join(m).with(|j| j.rebalance_timeout_ms = 900_000);
    let leader = c.ask(long(&members[0]).request());
    let joined = c.joined(leader).unwrap();
    c.sync_all(&[joined]);
    let newcomer = c.ask(long("").old().fresh(3).request());
    for _ in 0..60 {
        assert!(c.waits(newcomer));
        assert_eq!(c.heartbeat(&members[0], 2), Err(Error::RebalanceInProgress));
        c.pass(5_000);
    }
    assert_eq!(c.join_error(newcomer), Error::UnknownMemberId);
}

/// A rebalance waits for who was told to come back, but not past the rebalance time-out.
#[test]
fn invited_members_are_waited_for() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    let invited = c.ask(join("").fresh(3).request());
    let invited = c.joined(invited).unwrap_err().member;
    let leader = c.ask(join(&members[0]).request());
    assert!(c.waits(leader));
    let second = c.ask(join(&invited).request());
    assert_eq!(c.joined(leader).unwrap().members.len(), 2);
    assert_eq!(c.joined(second).unwrap().generation, 2);
}

/// Version 0 has no rebalance time-out: the session's stands for it.
#[test]
fn without_a_rebalance_timeout_the_sessions_counts() {
    let mut c = Coordinator::new();
    let v0 = |member: &str, fresh| {
        join(member).version(0).fresh(fresh).with(|j| j.rebalance_timeout_ms = -1).request()
    };
    let (a, b) = (c.ask(v0("", 0)), c.ask(v0("", 1)));
    c.pass(6_000);
    let (a, b) = (c.joined(a).unwrap(), c.joined(b).unwrap());
    c.sync_all(&[a.clone(), b]);
    let again = c.ask(v0(&a.member, 0));
    c.pass(9_999);
    assert!(c.waits(again));
    c.pass(1);
    assert_eq!(c.joined(again).unwrap().members.len(), 1);
}

/// A generation that lost everybody while it joined is an empty group, and says so in the log.
#[test]
fn a_group_that_loses_everybody_is_empty() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    assert_eq!(c.leave(&[(&members[0], "")]), [None]);
    assert_eq!(c.state(), "Empty");
    let mut c = c.reloaded(Config::default());
    assert_eq!(c.state(), "Empty");
    let id = c.ask(sync(&members[0], 2, Vec::new()));
    assert_eq!(c.synced(id), Err(Error::UnknownMemberId));
    let id = c.ask(join("").old().fresh(5).request());
    c.pass(3_000);
    assert_eq!(c.joined(id).unwrap().generation, 3, "generations only grow");
}

#[test]
fn member_ids_name_the_client_or_the_instance() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").with(|j| j.client_id = Text::from("")).request());
    assert!(c.joined(id).unwrap_err().member.starts_with('-'));
    let id = c.ask(join("").instance("i1").request());
    c.pass(3_000);
    assert!(c.joined(id).unwrap().member.starts_with("i1-"));
}
