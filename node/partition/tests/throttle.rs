//! Replication throttles (KIP-73, kafka-reference section 4).

use flowstone_partition::{ReplicationQuota, ThrottledReplicas};
use flowstone_types::{Instant, NodeId};
use std::time::Duration;

fn at(millis: u64) -> Instant {
    Instant::default().after(Duration::from_millis(millis))
}

/// `"p:b,..." or *`.
#[test]
fn replicas_are_listed_by_partition_and_broker() {
    let these = ThrottledReplicas::parse("1:2, 0:1,1:3").unwrap();
    let throttled = |partition, broker| these.contains(partition, NodeId(broker));
    assert!(throttled(0, 1) && throttled(1, 2) && throttled(1, 3));
    assert!(!throttled(0, 2) && !throttled(2, 1));
    assert!(ThrottledReplicas::parse("*").unwrap().contains(7, NodeId(7)));
    for none in ["", "none"] {
        assert_eq!(ThrottledReplicas::parse(none), Ok(ThrottledReplicas::None));
    }
    for bad in ["1", "1:", "a:1", "1:2,", "1:2:3"] {
        assert!(ThrottledReplicas::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_quota_is_a_rate_over_eleven_seconds() {
    let mut quota = ReplicationQuota::new(Some(1000));
    assert!(!quota.is_exceeded(at(0)));
    quota.record(1000, at(100));
    assert!(!quota.is_exceeded(at(200)), "just the rate");
    quota.record(1, at(300));
    assert!(quota.is_exceeded(at(999)));
    assert!(!quota.is_exceeded(at(1000)), "two seconds now");
    quota.record(20_000, at(1500));
    assert!(quota.is_exceeded(at(11_999)));
    assert!(!quota.is_exceeded(at(12_500)), "the second in which it was has left");
}

#[test]
fn no_rate_is_no_limit() {
    let mut quota = ReplicationQuota::new(None);
    quota.record(u64::from(u32::MAX), at(0));
    assert!(!quota.is_exceeded(at(0)));
    quota.set_rate(Some(10));
    assert!(quota.is_exceeded(at(0)));
}

/// "Leader returns empty data to throttled non-ISR followers", and to no others.
#[test]
fn only_throttled_replicas_out_of_sync_wait() {
    let mut quota = ReplicationQuota::new(Some(1));
    quota.record(1000, at(0));
    assert!(quota.holds_back(true, false, at(0)));
    assert!(!quota.holds_back(true, true, at(0)));
    assert!(!quota.holds_back(false, false, at(0)));
}
