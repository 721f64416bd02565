//! Static members: `group.instance.id` (KIP-345, KIP-814).

use crate::harness::{Coordinator, join, sync};
use flowstone_coordinators::{Config, Error, Joined, Refusal, RequestId, Text};

/// A stable group of static members `i0`, `i1`, ..., the first the leader.
fn stable(count: usize) -> (Coordinator, Vec<Text>) {
    let mut c = Coordinator::new();
    let joins: Vec<RequestId> = (0..count)
        .map(|i| {
            let name = format!("i{i}");
            c.ask(
                join("")
                    .instance(&name)
                    .fresh(i as u128)
                    .with(|j| j.session_timeout_ms = 60_000)
                    .request(),
            )
        })
        .collect();
    c.pass(6_000);
    let joined: Vec<Joined> = joins.into_iter().map(|id| c.joined(id).unwrap()).collect();
    c.sync_all(&joined);
    (c, joined.into_iter().map(|joined| joined.member).collect())
}

/// KIP-345: a static member that restarts keeps its assignment, and nobody rebalances.
#[test]
fn a_returning_static_member_sets_off_no_rebalance() {
    let (mut c, members) = stable(2);
    c.prompt = false;
    let id = c.ask(join("").instance("i1").fresh(10).request());
    assert!(c.waits(id), "its new id must be durable first");
    c.flush();
    let joined = c.joined(id).unwrap();
    assert_ne!(joined.member, members[1]);
    assert_eq!((joined.generation, &joined.leader), (1, &members[0]));
    assert_eq!(c.state(), "Stable");
    let id = c.ask(sync(&joined.member, 1, Vec::new()));
    assert_eq!(c.synced(id).unwrap().assignment, [1_u8][..]);
    // The restart's log knows the new id.
    let mut c = c.reloaded(Config::default());
    assert_eq!(c.heartbeat_as(&joined.member, Some("i1"), 1), Ok(()));
}

/// KIP-345: whoever still uses the old id is fenced.
#[test]
fn the_old_id_of_a_static_member_is_fenced() {
    let (mut c, members) = stable(1);
    let id = c.ask(join("").instance("i0").fresh(10).request());
    let new = c.joined(id).unwrap().member;
    assert_eq!(c.heartbeat_as(&members[0], Some("i0"), 1), Err(Error::FencedInstanceId));
    assert_eq!(c.heartbeat_as(&members[0], None, 1), Err(Error::UnknownMemberId));
    assert_eq!(c.heartbeat_as(&new, Some("i9"), 1), Err(Error::UnknownMemberId));
    assert_eq!(c.leave(&[(&members[0], "i0")]), [Some(Error::FencedInstanceId)]);
    let id = c.ask(join(&members[0]).instance("i0").request());
    assert_eq!(c.join_error(id), Error::FencedInstanceId);
    assert_eq!(c.heartbeat_as(&new, Some("i0"), 1), Ok(()));
}

/// Before JoinGroup 9 a returning leader is told of its old id as the leader, so that it does not
/// assign; from 9 on it is told to skip that (KIP-814).
#[test]
fn a_returning_static_leader_does_not_assign() {
    let (mut c, members) = stable(2);
    let id = c.ask(join("").version(8).instance("i0").fresh(10).request());
    let old_way = c.joined(id).unwrap();
    assert_eq!((&old_way.leader, old_way.members.len()), (&members[0], 0));
    assert!(!old_way.skip_assignment);

    let id = c.ask(join("").version(9).instance("i0").fresh(11).request());
    let new_way = c.joined(id).unwrap();
    assert_eq!((&new_way.leader, new_way.members.len()), (&new_way.member, 2));
    assert!(new_way.skip_assignment);
    let id = c.ask(join("").version(9).instance("i1").fresh(12).request());
    assert!(!c.joined(id).unwrap().skip_assignment, "a follower has nothing to skip");
}

/// Another choice of protocol needs a rebalance, static or not.
#[test]
fn a_returning_static_member_that_changes_the_protocol_sets_off_a_rebalance() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").instance("i0").protocols(&["a", "b"]).request());
    c.pass(3_000);
    let joined = c.joined(id).unwrap();
    c.sync_all(&[joined]);
    let id = c.ask(join("").instance("i0").fresh(1).protocols(&["b"]).request());
    let joined = c.joined(id).unwrap(); // Alone, so the next generation begins at once.
    assert_eq!((joined.generation, joined.protocol.as_deref()), (2, Some("b")));
}

/// The leader may have been told of the old id already.
#[test]
fn a_static_member_that_returns_before_the_assignment_sets_off_a_rebalance() {
    let mut c = Coordinator::new();
    let (a, b) = (
        c.ask(join("").instance("i0").request()),
        c.ask(join("").instance("i1").fresh(1).request()),
    );
    c.pass(10_000);
    let (a, b) = (c.joined(a).unwrap(), c.joined(b).unwrap());
    let waiting = c.ask(sync(&b.member, 1, Vec::new()));
    let back = c.ask(join("").instance("i1").fresh(2).request());
    assert_eq!(c.synced(waiting), Err(Error::FencedInstanceId));
    assert_eq!(c.state(), "PreparingRebalance");
    let leader = c.ask(join(&a.member).instance("i0").request());
    assert_eq!(c.joined(leader).unwrap().members.len(), 2);
    assert_eq!(c.joined(back).unwrap().generation, 2);
}

/// KIP-345: a duplicate instance id is fenced where it waits.
#[test]
fn a_waiting_duplicate_is_fenced() {
    let mut c = Coordinator::new();
    let first = c.ask(join("").instance("i0").request());
    let second = c.ask(join("").instance("i0").fresh(1).request());
    assert_eq!(c.join_error(first), Error::FencedInstanceId);
    c.pass(10_000);
    assert_eq!(c.joined(second).unwrap().members.len(), 1);
}

/// KIP-345: static members that do not rejoin stay in the generation until their session ends.
#[test]
fn static_members_need_not_rejoin_in_time() {
    let (mut c, members) = stable(2);
    let leader =
        c.ask(join(&members[0]).instance("i0").with(|j| j.rebalance_timeout_ms = 20_000).request());
    // The other one's rebalance time-out of 300 s is the group's; heartbeats keep it a member.
    for _ in 0..6 {
        c.pass(50_000);
        let _ = c.heartbeat_as(&members[1], Some("i1"), 1);
    }
    let joined = c.joined(leader).unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
}

#[test]
fn a_silent_static_member_leaves_with_its_session() {
    let (mut c, members) = stable(2);
    c.pass(59_999);
    assert_eq!(c.heartbeat_as(&members[0], Some("i0"), 1), Ok(()));
    c.pass(1);
    assert_eq!(c.heartbeat_as(&members[1], Some("i1"), 1), Err(Error::UnknownMemberId));
    assert_eq!(c.state(), "PreparingRebalance");
}

/// KIP-345: an operator removes a static member by its instance id alone.
#[test]
fn an_operator_removes_a_static_member() {
    let (mut c, _) = stable(2);
    assert_eq!(c.leave(&[("", "i1"), ("", "i7")]), [None, Some(Error::UnknownMemberId)]);
    assert_eq!(c.describe("g").members.len(), 1);
}

/// The log did not take the new id: the old one is the member's again (as Kafka does it).
#[test]
fn a_refused_replacement_is_taken_back() {
    let (mut c, members) = stable(2);
    c.prompt = false;
    let id = c.ask(join("").instance("i0").fresh(10).request());
    c.refuse(Refusal::Unavailable);
    assert_eq!(c.join_error(id), Error::CoordinatorNotAvailable);
    assert_eq!(c.heartbeat_as(&members[0], Some("i0"), 1), Ok(()));
    assert_eq!(c.state(), "Stable");
    let id = c.ask(sync(&members[0], 1, Vec::new()));
    assert_eq!(c.synced(id).unwrap().assignment, [0_u8][..]);
}

/// A rebalance that begins before the new id is stored: the member is in it already.
#[test]
fn a_rebalance_overtakes_a_replacement() {
    let (mut c, members) = stable(2);
    c.prompt = false;
    let back = c.ask(join("").instance("i0").fresh(10).request());
    let other = c.ask(join(&members[1]).instance("i1").protocols(&["range", "x"]).request());
    let (back, other) = (c.joined(back).unwrap(), c.joined(other).unwrap());
    assert_eq!((back.generation, other.generation), (2, 2));
    c.flush();
    assert_eq!(c.state(), "CompletingRebalance");
}
