//! How offsets and groups end by themselves (KIP-211).

use crate::harness::{Coordinator, GROUP, commit, commit_by, join};
use flowstone_coordinators::{CLEANUP_RECORDS_MAX, Commit, Config, Input, OffsetCommit, Refusal};

const DAY: u64 = 24 * 60 * 60 * 1_000;
const CHECK: u64 = 600_000;

/// Keeps the sessions of `members` alive for `ms`.
fn stay(c: &mut Coordinator, members: &[flowstone_coordinators::Text], ms: u64) {
    for _ in 0..ms / 9_000 {
        for member in members {
            assert_eq!(c.heartbeat(member, 1), Ok(()));
        }
        c.pass(9_000);
    }
}

/// A short retention, so that a test need not send a week's heartbeats.
fn short() -> Config {
    Config { offsets_retention_ms: 2 * CHECK as i64, ..Config::default() }
}

#[test]
fn a_simple_consumers_offsets_expire_by_their_commit() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 1));
    c.pass(3 * DAY);
    c.commit(commit(GROUP, "u", 1));
    c.pass(4 * DAY + CHECK);
    assert_eq!((c.offset(GROUP, "t"), c.offset(GROUP, "u")), (-1, 1));
    c.pass(3 * DAY + CHECK);
    assert_eq!(c.offset(GROUP, "u"), -1);
    assert_eq!(c.groups.len(), 0, "and the group with its last offset");
    assert_eq!(c.reloaded(Config::default()).groups.len(), 0);
}

#[test]
fn a_groups_offsets_expire_when_it_was_empty_long_enough() {
    let mut c = Coordinator::with(short());
    let members = c.stable(&[&["range"]]);
    c.commit(commit_by(&members[0], 1, "t", 1));
    stay(&mut c, &members, 4 * CHECK);
    assert_eq!(c.offset(GROUP, "t"), 1, "it has a member, which reads this topic");
    c.leave(&[(&members[0], "")]);
    c.pass(2 * CHECK - 1);
    assert_eq!(c.offset(GROUP, "t"), 1);
    c.pass(CHECK + 1);
    assert_eq!(c.offset(GROUP, "t"), -1);
    assert_eq!(c.groups.len(), 0);
}

#[test]
fn a_live_groups_offsets_of_topics_it_no_longer_reads_expire() {
    let mut c = Coordinator::with(short());
    let members = c.stable(&[&["range"]]); // Reads "t".
    c.commit(commit_by(&members[0], 1, "t", 1));
    c.commit(commit_by(&members[0], 1, "u", 1));
    stay(&mut c, &members, 4 * CHECK);
    assert_eq!((c.offset(GROUP, "t"), c.offset(GROUP, "u")), (1, -1));
    assert_eq!(c.state(), "Stable");
}

/// We cannot tell what members read that are no consumers, or whose metadata is garbled.
#[test]
fn offsets_of_members_we_cannot_read_stay() {
    for change in [
        |j: &mut flowstone_coordinators::JoinGroup| j.protocol_type = "connect".into(),
        |j: &mut flowstone_coordinators::JoinGroup| j.protocols[0].metadata.truncate(5),
    ] {
        let mut c = Coordinator::with(short());
        let id = c.ask(join("").old().with(change).request());
        c.pass(3_000);
        let joined = c.joined(id).unwrap();
        let member = joined.member.clone();
        c.sync_all(&[joined]);
        c.commit(commit_by(&member, 1, "u", 1));
        stay(&mut c, &[member], 4 * CHECK);
        assert_eq!(c.offset(GROUP, "u"), 1);
    }
}

/// Before OffsetCommit 5 the client said how long to keep an offset.
#[test]
fn a_retention_chosen_by_the_client_counts() {
    let mut c = Coordinator::new();
    c.commit(OffsetCommit { version: 4, retention_ms: 1_000, ..commit(GROUP, "t", 1) });
    c.commit(OffsetCommit { version: 4, retention_ms: 30 * DAY as i64, ..commit(GROUP, "u", 1) });
    let mut c = c.reloaded(Config::default());
    c.pass(CHECK);
    assert_eq!((c.offset(GROUP, "t"), c.offset(GROUP, "u")), (-1, 1));
    c.pass(29 * DAY);
    assert_eq!(c.offset(GROUP, "u"), 1);
}

/// An empty group without offsets goes at the next look, unless somebody is about to join.
#[test]
fn an_empty_group_without_offsets_goes() {
    let mut c = Coordinator::new();
    c.ask(join("").with(|j| j.session_timeout_ms = 900_000).request());
    c.pass(CHECK);
    assert_eq!(c.groups.len(), 1);
    c.pass(CHECK);
    assert_eq!(c.groups.len(), 0);
    assert_eq!(c.log.last().unwrap().value, None);
}

/// A commit under way counts: it must not be overtaken by the tombstone of the offset before.
#[test]
fn a_commit_under_way_is_not_expired() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 1));
    c.pass(7 * DAY - 1_000);
    c.prompt = false;
    c.ask(flowstone_coordinators::Request::Commit(commit(GROUP, "t", 2)));
    c.pass(CHECK);
    c.flush();
    assert_eq!(c.offset(GROUP, "t"), 2);
    assert_eq!(c.reloaded(Config::default()).offset(GROUP, "t"), 2);
}

/// Much to expire is expired in steps, each of which fits a batch.
#[test]
fn the_clean_up_goes_in_steps() {
    let mut c = Coordinator::new();
    let count = 2 * CLEANUP_RECORDS_MAX as i32 + 10;
    let mut request = commit(GROUP, "t", 1);
    request.topics[0].partitions = (0..count)
        .map(|partition| Commit { partition, offset: 1, leader_epoch: -1, metadata: None })
        .collect();
    c.commit(request);
    c.prompt = false;
    c.pass(7 * DAY + CHECK);
    assert_eq!(c.writes_under_way(), 3);
    c.flush();
    assert_eq!(c.groups.len(), 0);
}

/// A log that takes nothing is not asked again and again.
#[test]
fn a_refused_clean_up_is_tried_after_the_interval() {
    for count in [1, CLEANUP_RECORDS_MAX as i32] {
        let mut c = Coordinator::new();
        let mut request = commit(GROUP, "t", 1);
        request.topics[0].partitions = (0..count)
            .map(|partition| Commit { partition, offset: 1, leader_epoch: -1, metadata: None })
            .collect();
        c.commit(request);
        c.prompt = false;
        c.pass(7 * DAY - 1);
        c.now_ms += 1;
        c.input(Input::Tick);
        c.refuse(Refusal::Unavailable);
        assert_eq!(c.state(), "Empty");
        assert_eq!(c.offset(GROUP, "t"), 1, "as before");
        c.pass(CHECK - 1);
        assert_eq!(c.writes_under_way(), 0);
        c.pass(1);
        c.flush();
        assert_eq!(c.groups.len(), 0);
    }
}
