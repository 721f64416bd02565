//! Fetching and truncating (KIP-101, KIP-279, KIP-595; faults.md's list of what went wrong before).

mod support;

use flowstone_partition::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset};
use std::time::Duration;
use support::*;

fn nothing(high_watermark: i64) -> Fetched {
    Fetched {
        diverging: None,
        high_watermark: Offset(high_watermark),
        log_start: Offset(0),
        batches: None,
    }
}

fn batches(base: i64, end: i64, high_watermark: i64) -> Fetched {
    let batches = Some(FetchedBatches { base: Offset(base), end: Offset(end) });
    Fetched { batches, ..nothing(high_watermark) }
}

fn diverging(epoch: i32, end: i64) -> Fetched {
    let diverging = Some(EpochEnd { epoch: LeaderEpoch(epoch), end: Offset(end) });
    Fetched { diverging, ..nothing(1000) }
}

fn append(epoch: i32) -> Effect<u32, char> {
    Effect::Append { leader_epoch: LeaderEpoch(epoch) }
}

#[test]
fn a_follower_asks_with_its_end_and_last_epoch() {
    let sut = Sut::following();
    assert_eq!(
        sut.position(),
        FetchPosition {
            leader: NodeId(2),
            leader_epoch: LeaderEpoch(5),
            offset: Offset(10),
            last_fetched_epoch: Some(LeaderEpoch(4)),
            log_start: Offset(0),
            high_watermark: Offset(5),
        }
    );
}

/// The leader counts the fetch offset as this replica's own, so it is asked for only once it is
/// durable.
#[test]
fn the_next_fetch_waits_for_the_flush() {
    let mut sut = Sut::following();
    assert_eq!(sut.fetched(&sut.position(), &batches(10, 15, 12)), [append(5)]);
    assert_eq!(sut.replica.fetch_position(), None, "while it appends");
    let mut effects = Vec::new();
    sut.replica.batches_appended(Offset(15), LeaderEpoch(5), &mut effects);
    assert_eq!(sut.fetching(), Fetching::Flushing);
    assert_eq!(effects, [Effect::HighWatermark(Offset(10))], "what is not flushed is not ours");
    assert_eq!(sut.durable(14), [Effect::HighWatermark(Offset(12))]);
    assert_eq!(sut.durable(15), [Effect::Fetch]);
    let asks = sut.position();
    assert_eq!((asks.offset, asks.last_fetched_epoch), (Offset(15), Some(LeaderEpoch(5))));
}

#[test]
fn a_follower_that_has_unflushed_records_flushes_them_first() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append_undurably(12);
    sut.apply(&told(2, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(sut.fetching(), Fetching::Flushing);
    assert_eq!(sut.durable(12), [Effect::Fetch]);
}

#[test]
fn the_leaders_watermarks_are_followed() {
    let mut sut = Sut::following();
    sut.listen(On::HighWatermark, 'c');
    let answer = Fetched { log_start: Offset(7), ..nothing(8) };
    let effects = sut.fetched(&sut.position(), &answer);
    assert_eq!(
        effects,
        [
            Effect::HighWatermark(Offset(8)),
            Effect::Wake('c'),
            Effect::RaiseLogStart(Offset(7)),
            Effect::Fetch,
        ]
    );
    sut.fetched(&sut.position(), &nothing(3));
    assert_eq!(sut.high_watermark(), 8, "a new leader may know less; what is committed stays so");
}

/// KIP-101: truncate to what the leader has of our last epoch, not to the high watermark.
#[test]
fn a_diverging_epoch_truncates_to_its_end() {
    let mut sut = Sut::following();
    let effects = sut.fetched(&sut.position(), &diverging(4, 8));
    assert_eq!(effects, [Effect::Truncate(Offset(8))]);
    assert_eq!(sut.replica.fetch_position(), None);
    assert_eq!(sut.truncated(), [Effect::Fetch]);
    assert_eq!(sut.position().offset, Offset(8));
}

/// KIP-101 (KAFKA-1211): nothing is cut for being above the high watermark.
#[test]
fn what_is_not_committed_stays_until_the_leader_says_otherwise() {
    let mut sut = Sut::new(10, 5, &[(4, 0)]);
    assert_eq!(sut.apply(&told(2, 5, 20, &[1, 2], &[1, 2])), [Effect::Fetch]);
    assert_eq!(sut.position().offset, Offset(10));
}

/// KIP-279 (KAFKA-6361): "an epoch that is unknown to the follower": it cuts off all epochs above,
/// and asks again with the one that is left.
#[test]
fn fast_leader_changes_are_cut_epoch_by_epoch() {
    let mut sut = Sut::new(30, 5, &[(1, 0), (3, 10), (5, 20)]);
    sut.apply(&told(2, 8, 20, &[1, 2], &[1, 2]));
    assert_eq!(sut.position().last_fetched_epoch, Some(LeaderEpoch(5)));
    let effects = sut.fetched(&sut.position(), &diverging(4, 25));
    assert_eq!(effects, [Effect::Truncate(Offset(20))], "we have no 4: 3 ended at 20 here");
    sut.truncated();
    let asks = sut.position();
    assert_eq!((asks.offset, asks.last_fetched_epoch), (Offset(20), Some(LeaderEpoch(3))));
    let effects = sut.fetched(&asks, &diverging(3, 12));
    assert_eq!(effects, [Effect::Truncate(Offset(12))]);
}

/// "The follower has no epoch as old as that": the leader's offset has to do.
#[test]
fn an_epoch_below_all_of_ours_truncates_to_the_leaders_offset() {
    let mut sut = Sut::new(30, 5, &[(3, 10)]);
    sut.apply(&told(2, 8, 20, &[1, 2], &[1, 2]));
    let effects = sut.fetched(&sut.position(), &diverging(1, 7));
    assert_eq!(effects, [Effect::Truncate(Offset(7))]);
}

/// KAFKA-10706: back-to-back empty epochs. Nothing is cut, but the epoch that the leader does not
/// know is forgotten; otherwise the same answer would come for ever.
#[test]
fn an_empty_epoch_is_forgotten_though_no_record_goes() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.apply(&told(2, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(sut.position().last_fetched_epoch, Some(LeaderEpoch(5)), "led without a batch");
    let effects = sut.fetched(&sut.position(), &diverging(4, 10));
    assert_eq!(effects, [Effect::Truncate(Offset(10))]);
    sut.truncated();
    let asks = sut.position();
    assert_eq!((asks.offset, asks.last_fetched_epoch), (Offset(10), Some(LeaderEpoch(4))));
}

/// KAFKA-14704: "truncate before incrementing the high watermark".
#[test]
fn a_diverging_answer_says_nothing_else() {
    let mut sut = Sut::following();
    let answer = Fetched { log_start: Offset(9), ..diverging(4, 8) };
    sut.fetched(&sut.position(), &answer);
    assert_eq!(sut.high_watermark(), 5);
    assert_eq!(sut.replica.log().start, Offset(0));
}

/// KAFKA-18991: an answer counts for the epoch and offset that it was asked for.
#[test]
fn an_answer_from_an_earlier_epoch_is_ignored() {
    let mut sut = Sut::following();
    let asked = sut.position();
    sut.apply(&told(3, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(sut.fetched(&asked, &batches(10, 15, 12)), []);
    assert_eq!(sut.fetched(&asked, &diverging(4, 2)), []);
    assert_eq!(sut.high_watermark(), 5);
}

#[test]
fn an_answer_that_comes_twice_is_taken_once() {
    let mut sut = Sut::following();
    let asked = sut.position();
    sut.fetched(&asked, &batches(10, 15, 12));
    assert_eq!(sut.fetched(&asked, &batches(10, 15, 12)), []);
    sut.copied(15, 5);
    assert_eq!(sut.fetched(&asked, &batches(10, 15, 12)), []);
    assert_eq!(sut.fetched(&asked, &diverging(4, 2)), []);
}

/// The same offset of the same leader epoch can come again, with other batches below it.
#[test]
fn an_answer_from_before_a_truncation_is_ignored() {
    let mut sut = Sut::following();
    let asked = sut.position();
    sut.fetched(&asked, &diverging(4, 8));
    sut.truncated();
    sut.fetched(&sut.position(), &batches(8, 10, 8));
    sut.copied(10, 5);
    assert_eq!(sut.position().offset, asked.offset);
    assert_eq!(sut.fetched(&asked, &diverging(4, 8)), []);
}

/// KAFKA-7164: a follower that missed an epoch starts anew in the next, even with the same leader.
#[test]
fn every_new_epoch_is_followed_anew() {
    let mut sut = Sut::following();
    sut.fetched(&sut.position(), &batches(10, 15, 12));
    sut.copied(15, 5);
    assert_eq!(sut.apply(&told(2, 7, 22, &[1, 2, 3], &[2])), [Effect::Fetch]);
    let asks = sut.position();
    assert_eq!(
        (asks.leader_epoch, asks.last_fetched_epoch),
        (LeaderEpoch(7), Some(LeaderEpoch(5)))
    );
}

/// Without any epoch the leader cannot find where the logs part: back to what is committed.
#[test]
fn a_log_without_epochs_goes_back_to_the_high_watermark() {
    let mut sut = Sut::new(10, 5, &[]);
    let effects = sut.apply(&told(2, 5, 20, &[1, 2], &[1, 2]));
    assert_eq!(effects, [Effect::Truncate(Offset(5))]);
}

/// A record that comes while the disk truncates does not let it fetch before.
#[test]
fn a_truncation_is_finished_in_the_next_epoch() {
    let mut sut = Sut::following();
    sut.fetched(&sut.position(), &diverging(4, 8));
    sut.apply(&told(-1, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    sut.apply(&told(3, 7, 22, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(sut.replica.fetch_position(), None);
    assert_eq!(sut.truncated(), [Effect::Fetch]);
    assert_eq!(sut.position().leader, NodeId(3));
}

/// An unclean leader ends below what was committed here: that is lost, and said so.
#[test]
fn an_unclean_leader_takes_the_high_watermark_back() {
    let mut sut = Sut::following();
    let effects = sut.fetched(&sut.position(), &diverging(4, 3));
    assert_eq!(effects, [Effect::Truncate(Offset(3)), Effect::HighWatermark(Offset(3))]);
}

/// "OFFSET_OUT_OF_RANGE": the leader's log ends before ours, begins behind ours, or moved meanwhile.
#[test]
fn out_of_range_asks_for_the_leaders_range() {
    for (start, end, want) in [
        (0, 8, vec![Effect::Truncate(Offset(8))]),
        (
            20,
            30,
            vec![
                Effect::StartAt { base: Offset(20), log_start: Offset(20) },
                Effect::HighWatermark(Offset(20)),
            ],
        ),
        (3, 30, vec![Effect::Fetch]),
    ] {
        let mut sut = Sut::following();
        let (asked, mut effects) = (sut.position(), Vec::new());
        let out_of_range = FetchError::OffsetOutOfRange;
        sut.replica.fetch_failed(&asked, out_of_range, sut.now, &mut effects);
        assert_eq!(effects, [Effect::AskLeaderRange(LeaderEpoch(5))]);
        sut.replica.fetch_failed(&asked, out_of_range, sut.now, &mut effects);
        assert_eq!(effects.len(), 1, "asked once");
        let (range, mut effects) =
            (LeaderRange { start: Offset(start), end: Offset(end) }, Vec::new());
        sut.replica.leader_range(LeaderEpoch(4), range, &mut effects);
        assert_eq!(effects, [], "an answer of another epoch");
        sut.replica.leader_range(LeaderEpoch(5), range, &mut effects);
        assert_eq!(effects, want);
    }
}

/// UnifiedLog.truncateTo: a log that starts behind where it is cut begins anew there. The simulator's story:
/// records were deleted up to 64, then one was elected uncleanly whose log ended at 49; the cut left a log that
/// began at 64, which never got what the leader wrote from 49 on.
#[test]
fn a_cut_below_the_logs_start_begins_anew() {
    let mut sut = Sut::following();
    let deleted = Fetched { log_start: Offset(4), ..nothing(5) };
    assert!(sut.fetched(&sut.position(), &deleted).contains(&Effect::RaiseLogStart(Offset(4))));
    let begin = Effect::StartAt { base: Offset(2), log_start: Offset(2) };
    assert_eq!(sut.leader_range(0, 2), [begin, Effect::HighWatermark(Offset(2))]);
    let log = sut.replica.log();
    assert_eq!((log.start, log.end, log.durable), (Offset(2), Offset(2), Offset(2)));
}

/// DeleteRecords may leave the leader's log to start within a batch, which a new follower takes
/// whole.
#[test]
fn an_empty_log_takes_a_batch_that_starts_earlier() {
    let mut sut = Sut::following();
    sut.leader_range(20, 30);
    sut.truncated();
    assert_eq!(sut.position().last_fetched_epoch, None);
    let effects = sut.fetched(&sut.position(), &batches(18, 25, 22));
    let begin = Effect::StartAt { base: Offset(18), log_start: Offset(20) };
    assert_eq!(effects, [begin, append(5)]);
    sut.copied(25, 5);
    let log = sut.replica.log();
    assert_eq!((log.start, log.end, sut.high_watermark()), (Offset(20), Offset(25), 22));
}

/// Batches that overlap what is here, or end in it, come from a leader that is out of its mind.
#[test]
fn batches_that_do_not_follow_are_not_taken() {
    for (base, end) in [(8, 15), (5, 9), (10, 10)] {
        let mut sut = Sut::following();
        assert_eq!(sut.fetched(&sut.position(), &batches(base, end, 9)), []);
        assert!(matches!(sut.fetching(), Fetching::BackingOff { .. }), "{base}..{end}");
        assert_eq!(sut.high_watermark(), 5);
    }
    let mut sut = Sut::following();
    assert_eq!(sut.fetched(&sut.position(), &batches(12, 15, 9)), [append(5)], "compacted between");
}

/// "replica.fetch.backoff.ms".
#[test]
fn an_error_pauses_the_fetching() {
    let mut sut = Sut::following();
    let mut effects = Vec::new();
    sut.replica.fetch_failed(&sut.position(), FetchError::Other, sut.now, &mut effects);
    let pause = Duration::from_secs(1);
    assert_eq!(sut.replica.next_deadline(), sut.now.after(pause));
    assert_eq!(sut.replica.fetch_position(), None);
    assert_eq!(sut.tick(pause), [Effect::Fetch]);
    sut.fetched(&sut.position(), &batches(10, 15, 12));
    sut.replica.append_failed(sut.now);
    assert!(matches!(sut.fetching(), Fetching::BackingOff { .. }), "unreadable batches, too");
    assert_eq!(sut.replica.log().end, Offset(10));
}

/// KAFKA-18723: batches of an epoch above the one asked in are not taken. If none is left, the
/// follower asks again a little later, and a log that was begun anew for them is begun anew again.
#[test]
fn batches_of_a_later_epoch_only_are_none() {
    let mut sut = Sut::following();
    sut.fetched(&sut.position(), &batches(10, 15, 12));
    let mut effects = Vec::new();
    sut.replica.batches_appended(Offset(10), LeaderEpoch::NONE, &mut effects);
    assert_eq!(effects, []);
    assert!(matches!(sut.fetching(), Fetching::BackingOff { .. }));
    assert_eq!(sut.high_watermark(), 5, "nothing of that answer counts");
    let mut sut = Sut::following();
    sut.leader_range(20, 30);
    sut.truncated();
    sut.fetched(&sut.position(), &batches(18, 25, 22));
    sut.replica.batches_appended(Offset(18), LeaderEpoch::NONE, &mut effects);
    assert_eq!(effects, [Effect::StartAt { base: Offset(20), log_start: Offset(20) }]);
}

/// FENCED_LEADER_EPOCH: "will await the new LeaderAndIsr state before resuming fetching"; but an
/// answer to an older epoch is no news.
#[test]
fn a_fenced_follower_waits_for_metadata() {
    let mut sut = Sut::following();
    let (asked, mut effects) = (sut.position(), Vec::new());
    let fenced = FetchError::FencedLeaderEpoch;
    sut.replica.fetch_failed(&asked, fenced, sut.now, &mut effects);
    assert_eq!(sut.fetching(), Fetching::Fenced);
    assert_eq!(sut.tick(LAG), []);
    assert_eq!(sut.apply(&told(2, 6, 21, &[1, 2, 3], &[1, 2, 3])), [Effect::Fetch]);
    sut.replica.fetch_failed(&asked, fenced, sut.now, &mut effects);
    assert_eq!(sut.fetching(), Fetching::Ready);
}

/// A partition without a leader is followed as soon as there is one.
#[test]
fn without_a_leader_nothing_is_fetched() {
    let mut sut = Sut::following();
    assert_eq!(sut.apply(&told(-1, 6, 21, &[1, 2, 3], &[1])), []);
    assert_eq!(sut.fetching(), Fetching::NoLeader);
    assert_eq!(sut.apply(&told(3, 7, 22, &[1, 2, 3], &[3])), [Effect::Fetch]);
}

/// A broker that restarts as a replica learns its role from metadata; before its log is open, and
/// once it failed, that is noted only, for those who ask who leads.
#[test]
fn an_offline_replica_still_knows_who_leads() {
    let mut sut = Sut::following();
    sut.replica.failed(&mut Vec::new());
    assert_eq!(sut.apply(&told(1, 6, 21, &[1, 2, 3], &[1])), []);
    let leader = CurrentLeader { leader: Some(NodeId(1)), epoch: LeaderEpoch(6) };
    assert_eq!(sut.replica.current_leader(), leader);
    assert_eq!(sut.replica.may_append(None), Err(Refused::Offline));
}
