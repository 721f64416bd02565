//! Who joins and leaves the ISR, and what becomes of the wish (kafka-reference section 4).

mod support;

use flowstone_partition::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset};
use std::time::Duration;
use support::*;

/// "Join ISR when follower LEO >= HW".
#[test]
fn a_follower_joins_at_the_high_watermark() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append(20);
    sut.fetch(2, 20);
    assert_eq!(sut.fetch(3, 19), []);
    let wish = wished(&sut.fetch(3, 20));
    assert_eq!((wish.leader_epoch, wish.partition_epoch), (LeaderEpoch(5), 20));
    let member = |node, broker_epoch| IsrMember { node: NodeId(node), broker_epoch };
    assert_eq!(wish.isr, [member(1, 101), member(2, 102), member(3, 103)]);
    sut.applied(&wish);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2, 3]));
    assert_eq!(sut.replica.partition_epoch(), 21);
}

/// "and >= leader-epoch start offset": what lies between high watermark and there may be committed.
#[test]
fn a_follower_joins_no_earlier_than_the_epochs_start() {
    let mut sut = Sut::new(10, 5, &[(4, 0)]);
    sut.apply(&told(1, 5, 20, &[1, 2, 3], &[1, 2]));
    assert_eq!(sut.fetch(3, 9), []);
    assert_eq!(isr_of(&wished(&sut.fetch(3, 10))), [1, 2, 3]);
}

/// KIP-841 (KAFKA-13916): neither fenced nor shutting down.
#[test]
fn a_fenced_or_leaving_broker_does_not_join() {
    let spoil: [fn(&mut Broker); 2] = [|b| b.fenced = true, |b| b.shutting_down = true];
    for spoil in spoil {
        let mut sut = Sut::leading(&[1, 2]);
        spoil(sut.brokers.get_mut(&3).unwrap());
        sut.brokers_changed();
        assert_eq!(sut.fetch(3, 10), []);
        sut.brokers.get_mut(&3).unwrap().fenced = false;
        sut.brokers.get_mut(&3).unwrap().shutting_down = false;
        sut.brokers_changed();
        wished(&sut.fetch(3, 10));
    }
    let mut sut = Sut::leading(&[1, 2]);
    sut.brokers.remove(&3);
    sut.brokers_changed();
    assert_eq!(sut.fetch(3, 10), [], "nor one that is not registered");
}

fn fetch_of(node: i32, broker_epoch: i64, offset: i64) -> FollowerFetch {
    FollowerFetch {
        node: NodeId(node),
        broker_epoch,
        leader_epoch: Some(LeaderEpoch(5)),
        offset: Offset(offset),
        last_fetched_epoch: None,
        log_start: Offset(0),
        high_watermark: None,
    }
}

/// KIP-903 (KAFKA-14617): "fetch ReplicaEpoch == registered broker epoch"; -1 is not checked.
#[test]
fn a_restarted_broker_does_not_join_by_its_old_fetches() {
    let mut sut = Sut::leading(&[1, 2]);
    let (_, effects) = sut.fetch_as(&fetch_of(3, 104, 10)).unwrap();
    assert_eq!(effects, [], "the image does not know this start of it yet");
    sut.brokers.get_mut(&3).unwrap().epoch = 104;
    sut.brokers_changed();
    let stale = sut.fetch_as(&fetch_of(3, 103, 10));
    assert!(matches!(stale, Err(Refused::NotLeader(_))), "{stale:?}");
    let (_, effects) = sut.fetch_as(&fetch_of(3, -1, 10)).unwrap();
    assert_eq!(wished(&effects).isr[2].broker_epoch, -1);
}

/// A stale fetch changes nothing: what the broker had before its restart may be gone.
#[test]
fn stale_fetches_do_not_raise_the_high_watermark() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append(20);
    sut.fetch(2, 10);
    sut.brokers.get_mut(&2).unwrap().epoch = 200;
    sut.brokers_changed();
    assert!(sut.fetch_as(&fetch_of(2, 102, 20)).is_err());
    assert_eq!(sut.high_watermark(), 10);
}

/// "replica.lag.time.max.ms": not caught up for longer leaves.
#[test]
fn who_lags_leaves() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append(20);
    sut.fetch(2, 20);
    sut.fetch(3, 19);
    assert_eq!(sut.tick(LAG), [], "3 had all until the append");
    sut.fetch(3, 19);
    let wish = wished(&sut.tick(Duration::from_secs(15)));
    assert_eq!(isr_of(&wish), [1, 2], "2 has all, though it did not fetch for long");
}

/// "lastCaughtUpTime: the fetch before reached what the leader had then": a follower of a busy
/// leader never is at its end, and still in sync.
#[test]
fn a_follower_that_keeps_pace_stays() {
    let mut sut = Sut::leading(&[1, 2]);
    let mut end = 10;
    for _ in 0..10 {
        sut.append(end + 10);
        sut.fetch(2, end);
        end += 10;
        assert_eq!(sut.tick(LAG / 2), []);
    }
    sut.append(end + 10);
    sut.fetch(2, end - 1);
    assert_eq!(isr_of(&wished(&sut.tick(LAG / 2))), [1], "it fell behind");
}

/// A check every half of `replica.lag.time.max.ms`, and no deadline for an only replica.
#[test]
fn shrinking_is_looked_at_twice_in_the_lag_time() {
    let sut = Sut::leading(&[1, 2]);
    assert_eq!(sut.replica.next_deadline(), sut.now.after(LAG / 2));
}

/// "One AlterPartition in flight".
#[test]
fn one_change_at_a_time() {
    let mut sut = Sut::leading(&[1]);
    let wish = wished(&sut.fetch(2, 10));
    assert_eq!(sut.fetch(3, 10), [], "2 first");
    assert_eq!(sut.tick(10 * LAG), []);
    sut.applied(&wish);
    assert_eq!(isr_of(&wished(&sut.fetch(3, 10))), [1, 2, 3]);
}

/// "INELIGIBLE_REPLICA (reset to committed state)"; OPERATION_NOT_ATTEMPTED likewise.
#[test]
fn an_ineligible_replica_resets_the_wish() {
    for error in
        [AlterPartitionError::IneligibleReplica, AlterPartitionError::OperationNotAttempted]
    {
        let mut sut = Sut::leading(&[1, 2]);
        let wish = wished(&sut.fetch(3, 10));
        assert_eq!(sut.answered(&wish, Err(error)), []);
        assert!(sut.leader().isr().is_settled());
        assert_eq!(sut.leader().isr().maximal_len(), 2);
        assert_ne!(wished(&sut.fetch(3, 10)).id, wish.id, "its next fetch asks anew");
    }
}

/// FENCED_LEADER_EPOCH, INVALID_UPDATE_VERSION, INVALID_REQUEST, unknown topic, and
/// NEW_LEADER_ELECTED ("applied, but you lost leadership"): the wish may stand, so its member counts
/// until the metadata says.
#[test]
fn a_refused_wish_waits_for_metadata() {
    for error in [
        AlterPartitionError::FencedLeaderEpoch,
        AlterPartitionError::InvalidUpdateVersion,
        AlterPartitionError::InvalidRequest,
        AlterPartitionError::UnknownTopic,
        AlterPartitionError::NewLeaderElected,
    ] {
        let mut sut = Sut::leading(&[1, 2]);
        let wish = wished(&sut.fetch(3, 10));
        assert_eq!(sut.answered(&wish, Err(error)), []);
        sut.append(20);
        sut.fetch(2, 20);
        assert_eq!(sut.high_watermark(), 10, "{error:?}");
        assert_eq!(sut.tick(2 * LAG), [], "nothing is sent again");
        let effects = sut.apply(&told(1, 5, 21, &[1, 2, 3], &[1, 2]));
        assert_eq!(effects, [Effect::HighWatermark(Offset(20))]);
    }
}

/// NOT_CONTROLLER, STALE_BROKER_EPOCH, a broken connection: the same wish again, a little later.
#[test]
fn a_wish_that_did_not_arrive_is_sent_again() {
    let mut sut = Sut::leading(&[1, 2]);
    let wish = wished(&sut.fetch(3, 10));
    sut.answered(&wish, Err(AlterPartitionError::Retriable));
    let pause = Duration::from_millis(50);
    assert_eq!(sut.replica.next_deadline(), sut.now.after(pause));
    assert_eq!(wished(&sut.tick(pause)), wish);
    assert_eq!(sut.tick(pause), [], "once");
}

/// "This response is out of date so we ignore it."
#[test]
fn a_late_answer_is_ignored() {
    let mut sut = Sut::leading(&[1, 2]);
    let wish = wished(&sut.fetch(3, 10));
    sut.apply(&told(1, 6, 21, &[1, 2, 3], &[1, 2]));
    assert_eq!(sut.applied(&wish), []);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2]));
    assert_eq!(sut.replica.partition_epoch(), 21);
}

/// The metadata was faster than the answer, and another wish is under way since.
#[test]
fn an_answer_is_for_its_own_wish() {
    let mut sut = Sut::leading(&[1]);
    let first = wished(&sut.fetch(2, 10));
    sut.apply(&told(1, 5, 21, &[1, 2, 3], &[1, 2]));
    let second = wished(&sut.fetch(3, 10));
    sut.answered(&first, Err(AlterPartitionError::IneligibleReplica));
    assert_eq!(sut.leader().isr().maximal_len(), 3, "the second may have been applied");
    sut.applied(&first);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2]));
    sut.applied(&second);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2, 3]));
}

/// An answer can be here before its own metadata record. The record then must not undo the wish
/// that came after the answer: the controller may have applied it already.
#[test]
fn metadata_of_the_same_partition_epoch_leaves_the_wish() {
    let mut sut = Sut::leading(&[1]);
    let first = wished(&sut.fetch(2, 10));
    sut.applied(&first);
    let second = wished(&sut.fetch(3, 10));
    sut.apply(&told(1, 5, 21, &[1, 2, 3], &[1, 2]));
    assert_eq!(sut.leader().isr().maximal_len(), 3);
    sut.applied(&second);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2, 3]));
}

/// KIP-704: after an unclean election "RECOVERING until the leader reports RECOVERED with ISR of
/// one", before anybody joins.
#[test]
fn an_unclean_leader_reports_that_it_recovered() {
    let mut sut = Sut::new(10, 5, &[(4, 0)]);
    let unclean = Told { recovering: true, ..told(1, 5, 20, &[1, 2, 3], &[1]) };
    let wish = wished(&sut.apply(&unclean));
    assert_eq!(isr_of(&wish), [1]);
    assert_eq!(sut.fetch(2, 10), []);
    sut.applied(&wish);
    assert_eq!(isr_of(&wished(&sut.fetch(2, 10))), [1, 2]);
}

/// The report is repeated if the metadata goes on to say RECOVERING.
#[test]
fn a_lost_recovery_report_is_made_again() {
    let mut sut = Sut::new(10, 5, &[(4, 0)]);
    let unclean = Told { recovering: true, ..told(1, 5, 20, &[1, 2, 3], &[1]) };
    let wish = wished(&sut.apply(&unclean));
    sut.answered(&wish, Err(AlterPartitionError::InvalidUpdateVersion));
    let still = Told { partition_epoch: 21, ..unclean };
    assert_eq!(isr_of(&wished(&sut.apply(&still))), [1]);
}

/// A reassignment takes a replica away: it no longer holds anything back.
#[test]
fn replicas_come_and_go_with_the_assignment() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append(20);
    assert!(sut.leader().follower(NodeId(3)).is_some());
    let effects = sut.apply(&told(1, 5, 21, &[1, 4], &[1]));
    assert_eq!(effects, [Effect::HighWatermark(Offset(20))]);
    let known: Vec<_> = sut.leader().followers().iter().map(|known| known.node).collect();
    assert_eq!(known, nodes(&[4]));
}

/// Who is no replica here gets UNKNOWN_LEADER_EPOCH, and asks again: its metadata may be newer.
#[test]
fn a_stranger_is_asked_to_come_again() {
    let mut sut = Sut::leading(&[1, 2]);
    let stranger = fetch_of(4, 104, 10);
    assert_eq!(sut.fetch_as(&stranger).unwrap_err(), Refused::UnknownLeaderEpoch);
    let old = FollowerFetch { leader_epoch: None, ..stranger };
    assert!(matches!(sut.fetch_as(&old), Err(Refused::NotLeader(_))));
}
