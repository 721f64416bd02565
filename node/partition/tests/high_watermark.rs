//! The high watermark, the minimum ISR and acknowledgements (kafka-reference section 4).

mod support;

use flowstone_partition::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset};
use support::*;

fn with_min_isr(isr: &[i32], min_insync_replicas: usize) -> Sut {
    let mut sut = Sut::leading(isr);
    let rules = Rules { min_insync_replicas, ..*sut.replica.rules() };
    sut.replica.reconfigure(rules, &mut Vec::new());
    sut
}

/// "HW = min LEO over maximal ISR".
#[test]
fn it_is_what_every_in_sync_replica_has() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append(20);
    assert_eq!(sut.high_watermark(), 10, "nobody has fetched in this epoch");
    sut.fetch(2, 20);
    assert_eq!(sut.high_watermark(), 10);
    assert_eq!(sut.fetch(3, 15), [Effect::HighWatermark(Offset(15))]);
    sut.fetch(3, 20);
    assert_eq!(sut.high_watermark(), 20);
}

/// In `flushed` mode the leader's own end counts once it is on stable storage; a follower may have
/// flushed before.
#[test]
fn the_leader_counts_what_is_durable_here() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append_undurably(20);
    sut.fetch(2, 20);
    assert_eq!(sut.high_watermark(), 10);
    assert_eq!(sut.durable(18), [Effect::HighWatermark(Offset(18))]);
}

/// KIP-497: a wished member counts before the controller has it, and goes on counting while the
/// wish may have been applied.
#[test]
fn it_waits_for_the_maximal_isr() {
    let mut sut = Sut::leading(&[1, 2]);
    let wish = wished(&sut.fetch(3, 10));
    sut.append(20);
    sut.fetch(2, 20);
    assert_eq!(sut.high_watermark(), 10, "3 may be in the ISR by now");
    sut.answered(&wish, Err(AlterPartitionError::Retriable));
    sut.tick(LAG);
    assert_eq!(sut.high_watermark(), 10, "and still, however late it is");
}

/// "For PendingShrinkIsr the maximal ISR is the current ISR": the shrink may fail.
#[test]
fn a_wish_to_shrink_releases_nobody() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append(20);
    sut.now = sut.now.after(LAG);
    let wish = wished(&sut.tick(LAG));
    assert_eq!(isr_of(&wish), [1]);
    assert_eq!(sut.high_watermark(), 10);
    sut.applied(&wish);
    assert_eq!(sut.high_watermark(), 20, "now it did not");
}

/// "and over caught-up eligible replicas", so that who is about to join is not outrun; who could
/// not join holds nothing back.
#[test]
fn it_waits_for_who_is_about_to_join() {
    for (fenced, reached) in [(false, 12), (true, 20)] {
        let mut sut = Sut::leading(&[1, 2]);
        sut.append(12);
        sut.fetch(2, 12);
        sut.brokers.get_mut(&3).unwrap().fenced = fenced;
        sut.brokers_changed();
        let effects = sut.fetch(3, 12);
        if !fenced {
            let refusal = Err(AlterPartitionError::IneligibleReplica);
            sut.answered(&wished(&effects), refusal);
        }
        sut.append(20);
        sut.fetch(2, 20);
        assert_eq!(sut.high_watermark(), reached, "fenced: {fenced}");
    }
}

/// Who has waited for long enough does so no longer.
#[test]
fn a_straggler_outside_the_isr_holds_nothing_back() {
    let mut sut = Sut::leading(&[1, 2]);
    sut.append(12);
    sut.fetch(2, 12);
    let wish = wished(&sut.fetch(3, 12));
    sut.answered(&wish, Err(AlterPartitionError::OperationNotAttempted));
    sut.append(20);
    sut.tick(LAG);
    sut.fetch(2, 20);
    assert_eq!(sut.high_watermark(), 12);
    sut.tick(LAG);
    assert_eq!(sut.high_watermark(), 20);
}

/// KIP-966: "HW does not advance while ISR < effective min ISR, even for acks=1".
#[test]
fn it_stands_below_the_minimum() {
    let mut sut = with_min_isr(&[1], 2);
    sut.append(20);
    assert_eq!(sut.high_watermark(), 10);
    assert_eq!(sut.wait(Acks::Leader, 20, 1), Some(Ok(())), "acks=1 is about this disk only");
    assert_eq!(sut.wait(Acks::All, 20, 2), None);
    let wish = wished(&sut.fetch(2, 20));
    assert_eq!(sut.high_watermark(), 10, "a wish is no member");
    let effects = sut.applied(&wish);
    assert_eq!(acks(&effects), [(2, Ok(()))]);
}

/// "effective min ISR = min(min.insync.replicas, RF)".
#[test]
fn a_minimum_above_the_replicas_means_all_of_them() {
    let mut sut = Sut::new(10, 10, &[(4, 0)]);
    sut.replica.reconfigure(Rules { min_insync_replicas: 2, ..Rules::default() }, &mut Vec::new());
    sut.apply(&told(1, 5, 20, &[1], &[1]));
    sut.append(20);
    assert_eq!(sut.high_watermark(), 20);
}

/// A lower minimum lets it go on at once.
#[test]
fn a_new_minimum_counts_at_once() {
    let mut sut = with_min_isr(&[1], 2);
    sut.append(20);
    let mut effects = Vec::new();
    sut.replica.reconfigure(Rules::default(), &mut effects);
    assert_eq!(effects, [Effect::HighWatermark(Offset(20))]);
}

/// "acks=all with ISR<min => NOT_ENOUGH_REPLICAS"; acks=1 and 0 go on.
#[test]
fn too_few_replicas_refuse_only_acks_all() {
    let sut = with_min_isr(&[1], 2);
    assert_eq!(sut.replica.may_append(Some(Acks::All)), Err(Refused::NotEnoughReplicas));
    assert_eq!(sut.replica.may_append(Some(Acks::Leader)), Ok(LeaderEpoch(5)));
    assert_eq!(sut.replica.may_append(None), Ok(LeaderEpoch(5)));
}

/// "after append NOT_ENOUGH_REPLICAS_AFTER_APPEND": committed, but too few since.
#[test]
fn too_few_replicas_after_the_append_are_told() {
    let mut sut = with_min_isr(&[1, 2], 2);
    sut.append(12);
    sut.fetch(2, 12);
    assert_eq!(sut.wait(Acks::All, 12, 1), Some(Ok(())));
    sut.apply(&told(1, 5, 21, &[1, 2, 3], &[1]));
    let too_few = Err(NotCommitted::NotEnoughReplicasAfterAppend);
    assert_eq!(sut.wait(Acks::All, 12, 2), Some(too_few));
}

/// acks=1: the leader's own disk, whatever the followers do.
#[test]
fn acks_one_waits_for_this_disk() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append_undurably(20);
    assert_eq!(sut.wait(Acks::Leader, 20, 1), None);
    assert_eq!(acks(&sut.durable(19)), []);
    assert_eq!(acks(&sut.durable(20)), [(1, Ok(()))]);
    assert_eq!(sut.high_watermark(), 10);
}

/// What a follower had in an earlier leadership of ours says nothing: it may have truncated under a
/// leader in between whom we never saw.
#[test]
fn nothing_is_known_of_followers_in_a_new_epoch() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append(20);
    sut.fetch(2, 20);
    sut.apply(&told(1, 7, 22, &[1, 2, 3], &[1, 2]));
    assert_eq!(sut.high_watermark(), 10, "2 must fetch in epoch 7 first");
    sut.fetch(2, 20);
    assert_eq!(sut.high_watermark(), 20);
}

/// KIP-207: "OFFSET_NOT_AVAILABLE" while the high watermark may be behind what was told before.
#[test]
fn the_latest_offset_waits_for_a_new_leaders_high_watermark() {
    let mut sut = Sut::new(10, 5, &[(4, 0)]);
    sut.apply(&told(1, 5, 20, &[1, 2], &[1, 2]));
    assert_eq!(sut.replica.latest_offset(None), Err(Refused::OffsetNotAvailable));
    sut.fetch(2, 10);
    assert_eq!(sut.replica.latest_offset(Some(LeaderEpoch(5))), Ok(Offset(10)));
}

/// Only the leader appends, and only under its epoch; others say who leads (KIP-951).
#[test]
fn appends_need_the_leadership() {
    let sut = Sut::following();
    let leader = CurrentLeader { leader: Some(NodeId(2)), epoch: LeaderEpoch(5) };
    assert_eq!(sut.replica.may_append(None), Err(Refused::NotLeader(leader)));
}

#[test]
#[should_panic(expected = "under the current leader epoch")]
fn an_append_of_an_earlier_epoch_is_our_bug() {
    let mut sut = Sut::leading(&[1]);
    sut.replica.appended(LeaderEpoch(4), Offset(11), &mut Vec::new());
}

/// "Append under a leader epoch": its start is in the epoch cache before its first batch (KIP-279).
#[test]
fn a_leadership_begins_its_epoch() {
    let mut sut = Sut::new(10, 10, &[(4, 0)]);
    let effects = sut.apply(&told(1, 5, 20, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(effects, [Effect::BeginEpoch(LeaderEpoch(5))]);
    assert_eq!(sut.leader().epoch_start(), Offset(10));
}

/// "Partition epoch increments on every change": an older record changes nothing.
#[test]
fn older_metadata_is_ignored() {
    let mut sut = Sut::leading(&[1, 2]);
    assert_eq!(sut.apply(&told(2, 5, 19, &[1, 2, 3], &[2])), []);
    assert_eq!(sut.leader().isr().committed(), nodes(&[1, 2]));
}
