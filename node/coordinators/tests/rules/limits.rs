//! Bounds on what a client can make us hold.

use crate::harness::{Coordinator, GROUP, commit, join, protocols};
use bytes::Bytes;
use flowstone_coordinators::{
    Config, Error, GROUP_BYTES_MAX, GROUP_ID_BYTES_MAX, GROUP_MEMBERS_MAX, GROUPS_MAX,
    JOIN_BYTES_MAX, OffsetCommit, PROTOCOLS_MAX, Protocol,
};

/// A record's key holds the group id as a string with a 16-bit length.
#[test]
fn group_ids_fit_a_record() {
    let mut c = Coordinator::new();
    assert_eq!(c.commit(commit(&"g".repeat(GROUP_ID_BYTES_MAX), "t", 1)), None);
    let error = c.commit(commit(&"g".repeat(GROUP_ID_BYTES_MAX + 1), "t", 1));
    assert_eq!(error, Some(Error::InvalidGroupId));
}

/// `offset.metadata.max.bytes` may be set so high that the record could not hold it.
#[test]
fn metadata_fits_a_record_with_an_expiry() {
    let mut c = Coordinator::with(Config { offset_metadata_max: i32::MAX, ..Config::default() });
    for (chars, want) in [(10_922, None), (10_923, Some(Error::OffsetMetadataTooLarge))] {
        let mut request = OffsetCommit { version: 2, retention_ms: 1_000, ..commit(GROUP, "t", 1) };
        request.topics[0].partitions[0].metadata = Some("€".repeat(chars)); // 3 bytes each.
        assert_eq!(c.commit(request), want);
    }
}

#[test]
fn a_join_is_bounded_in_protocols_and_bytes() {
    let mut c = Coordinator::new();
    let names: Vec<String> = (0..=PROTOCOLS_MAX).map(|i| i.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = c.ask(join("").protocols(&names).request());
    assert_eq!(c.join_error(id), Error::InvalidRequest);
    let id = c.ask(join("").protocols(&names[1..]).request());
    assert_eq!(c.join_error(id), Error::MemberIdRequired);
    let metadata = Bytes::from(vec![0; JOIN_BYTES_MAX]);
    let large = vec![Protocol { metadata, ..protocols(&["range"]).remove(0) }];
    let id = c.ask(join("").with(|j| j.protocols = large).request());
    assert_eq!(c.join_error(id), Error::InvalidRequest);
}

/// Ids that nobody comes back with are bounded, too.
#[test]
fn invitations_are_bounded() {
    let mut c = Coordinator::new();
    for i in 0..GROUP_MEMBERS_MAX {
        let id = c.ask(join("").fresh(i as u128).request());
        assert_eq!(c.join_error(id), Error::MemberIdRequired);
    }
    let id = c.ask(join("").fresh(u128::MAX).request());
    assert_eq!(c.join_error(id), Error::GroupMaxSizeReached);
}

/// What members say of themselves is bounded in sum, and given back when they leave.
#[test]
fn a_groups_members_are_bounded_in_bytes() {
    let mut c = Coordinator::new();
    let large = |fresh: u128| {
        join("").old().fresh(fresh).with(|j| {
            j.protocols[0].metadata = Bytes::from(vec![0; JOIN_BYTES_MAX / 2]);
        })
    };
    let fit = GROUP_BYTES_MAX / (JOIN_BYTES_MAX / 2);
    let waits: Vec<_> = (0..fit).map(|i| c.ask(large(i as u128).request())).collect();
    let id = c.ask(large(u128::MAX).request());
    assert_eq!(c.join_error(id), Error::GroupMaxSizeReached);
    c.pass(6_000);
    let member = c.joined(waits[0]).unwrap().member;
    assert_eq!(c.leave(&[(&member, "")]), [None]);
    let id = c.ask(large(u128::MAX).request());
    assert!(c.waits(id));
}

/// A rebalance time-out of zero must not keep the coordinator busy: static members that do not
/// rejoin are asked for once a second until their sessions end.
#[test]
fn a_rebalance_that_nobody_joins_is_patient() {
    let mut c = Coordinator::new();
    let static_join = |instance: &str, fresh| join("").instance(instance).fresh(fresh);
    let ids = ["a", "b"].map(|i| c.ask(static_join(i, i.as_bytes()[0].into()).request()));
    c.pass(6_000);
    let joined = ids.map(|id| c.joined(id).unwrap());
    c.sync_all(&joined);
    for instance in ["a", "b"] {
        // Back after a restart, and with another time-out.
        let id = c.ask(static_join(instance, 0).with(|j| j.rebalance_timeout_ms = 0).request());
        assert_eq!(c.joined(id).unwrap().generation, 1);
    }
    assert_eq!(c.leave(&[("", "a")]), [None]);
    let ticks = c.ticks;
    c.pass(9_000);
    assert_eq!(c.state(), "PreparingRebalance");
    assert!(c.ticks - ticks <= 10, "{} ticks", c.ticks - ticks);
    c.pass(1_000);
    assert_eq!(c.state(), "Empty");
}

#[test]
fn groups_are_bounded() {
    let mut c = Coordinator::new();
    for i in 0..GROUPS_MAX {
        assert_eq!(c.commit(commit(&i.to_string(), "t", 1)), None);
    }
    assert_eq!(c.commit(commit("more", "t", 1)), Some(Error::CoordinatorNotAvailable));
    let id = c.ask(join("").request());
    assert_eq!(c.join_error(id), Error::CoordinatorNotAvailable);
    assert_eq!(c.commit(commit("0", "t", 2)), None, "those that are there go on");
}

/// Names and numbers that no partition has never reach the log.
#[test]
fn commits_of_impossible_partitions_are_refused() {
    let mut c = Coordinator::new();
    assert_eq!(c.commit(commit(GROUP, "", 1)), Some(Error::InvalidRequest));
    assert_eq!(c.commit(commit(GROUP, &"t".repeat(40_000), 1)), Some(Error::InvalidRequest));
    let mut request = commit(GROUP, "t", 1);
    request.topics[0].partitions[0].partition = -1;
    assert_eq!(c.commit(request), Some(Error::InvalidRequest));
    assert!(c.groups.is_empty());
}
