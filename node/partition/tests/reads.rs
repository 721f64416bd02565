//! What those get who read: followers, consumers, and who asks for an epoch's end.

mod support;

use flowstone_partition::*;
use flowstone_types::{LeaderEpoch, NodeId, Offset};
use support::*;

fn fetch(offset: i64, last_fetched_epoch: Option<i32>) -> FollowerFetch {
    FollowerFetch {
        node: NodeId(2),
        broker_epoch: 102,
        leader_epoch: Some(LeaderEpoch(5)),
        offset: Offset(offset),
        last_fetched_epoch: last_fetched_epoch.map(LeaderEpoch),
        log_start: Offset(0),
        high_watermark: None,
    }
}

/// Leads in epoch 5 from 20 on, to 30; before, epoch 2 to 10 and epoch 4 to 20.
fn leading() -> Sut {
    let mut sut = Sut::new(20, 20, &[(2, 0), (4, 10)]);
    sut.apply(&told(1, 5, 20, &[1, 2, 3], &[1, 2, 3]));
    sut.append(30);
    sut
}

/// KIP-595: "leader answers DivergingEpoch {epoch, endOffset}" where the follower's last epoch ended
/// earlier here, or never was here.
#[test]
fn a_follower_that_parted_is_told_where() {
    for (offset, last_epoch, want) in [
        (25, 4, Some((4, 20))),
        (18, 3, Some((2, 10))),
        (8, 3, Some((2, 10))),
        (20, 4, None),
        (15, 4, None),
        (30, 5, None),
        (8, 0, Some((0, 0))),
    ] {
        let mut sut = leading();
        let (answer, _) = sut.fetch_as(&fetch(offset, Some(last_epoch))).unwrap();
        let got = match answer {
            FollowerAnswer::Diverging(parted) => Some((parted.epoch.0, parted.end.0)),
            FollowerAnswer::Next(next) => {
                assert_eq!((next.from, next.below), (Offset(offset), Offset(30)));
                None
            }
        };
        assert_eq!(got, want, "{offset} after epoch {last_epoch}");
    }
}

/// "Update the fetch state unless the answer diverges": what it has beyond is not ours.
#[test]
fn a_follower_that_parted_counts_for_nothing() {
    let mut sut = leading();
    sut.fetch_as(&fetch(25, Some(4))).unwrap();
    assert_eq!(sut.leader().follower(NodeId(2)).unwrap().end(), None);
    assert_eq!(sut.fetch_as(&fetch(31, None)).unwrap_err(), Refused::OffsetOutOfRange);
    assert_eq!(sut.leader().follower(NodeId(2)).unwrap().end(), None);
}

/// "Could not determine the end offset of the last fetched epoch": an epoch above all of ours.
#[test]
fn an_epoch_that_never_was_here_is_out_of_range() {
    let mut sut = leading();
    assert_eq!(sut.fetch_as(&fetch(25, Some(9))).unwrap_err(), Refused::OffsetOutOfRange);
}

/// KIP-320: FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH, and who leads beside the first (KIP-951).
#[test]
fn epochs_fence() {
    let mut sut = leading();
    let leader = CurrentLeader { leader: Some(NodeId(1)), epoch: LeaderEpoch(5) };
    let of = |epoch| FollowerFetch { leader_epoch: Some(LeaderEpoch(epoch)), ..fetch(30, None) };
    assert_eq!(sut.fetch_as(&of(4)).unwrap_err(), Refused::FencedLeaderEpoch(leader));
    assert_eq!(sut.fetch_as(&of(6)).unwrap_err(), Refused::UnknownLeaderEpoch);
    let epoch = Some(LeaderEpoch(4));
    assert_eq!(sut.replica.latest_offset(epoch), Err(Refused::FencedLeaderEpoch(leader)));
}

/// A follower that says that its high watermark is behind (Fetch v18) is answered without bytes.
#[test]
fn a_higher_high_watermark_is_news() {
    let mut sut = leading();
    let cache = Cache(&sut.epochs, Offset(30));
    for (known, news) in
        [(None, false), (Some(19), true), (Some(20), false), (Some(i64::MAX), false)]
    {
        let fetch = FollowerFetch { high_watermark: known.map(Offset), ..fetch(30, Some(5)) };
        let answer =
            sut.replica.follower_fetched(&fetch, &cache, sut.now, &mut Vec::new()).unwrap();
        let FollowerAnswer::Next(next) = answer else { panic!("{answer:?}") };
        assert_eq!(next.has_news, news, "{known:?}");
    }
}

/// The high watermark that a fetch raises is told in its own answer.
#[test]
fn a_fetch_tells_the_high_watermark_that_it_raised() {
    let mut sut = leading();
    sut.fetch(3, 30);
    let (answer, _) = sut.fetch_as(&fetch(30, Some(5))).unwrap();
    let FollowerAnswer::Next(next) = answer else { panic!("{answer:?}") };
    assert_eq!(next.high_watermark, Offset(30));
}

/// A fetch that waited looks again, and counts as no fetch of now (Kafka's `readFromPurgatory`): it
/// neither keeps its follower in sync nor outlives its epoch.
#[test]
fn a_second_look_is_no_second_fetch() {
    let mut sut = leading();
    sut.fetch_as(&fetch(30, Some(5))).unwrap();
    let known = *sut.leader().follower(NodeId(2)).unwrap();
    sut.append(40);
    let look = |sut: &Sut| {
        sut.replica.follower_reads(&fetch(30, Some(5)), &Cache(&sut.epochs, sut.replica.log().end))
    };
    assert!(matches!(look(&sut), Ok(FollowerAnswer::Next(next)) if next.below == Offset(40)));
    assert_eq!(*sut.leader().follower(NodeId(2)).unwrap(), known);
    sut.apply(&told(1, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    assert!(matches!(look(&sut), Err(Refused::FencedLeaderEpoch(_))));
}

fn read(offset: i64, last_fetched_epoch: Option<i32>) -> ConsumerRead<'static> {
    ConsumerRead {
        leader_epoch: None,
        offset: Offset(offset),
        last_fetched_epoch: last_fetched_epoch.map(LeaderEpoch),
        rack: Some("a"),
    }
}

fn consume(sut: &Sut, read: &ConsumerRead<'_>) -> Result<ConsumerAnswer, Refused> {
    sut.replica.consumer_reads(read, &Cache(&sut.epochs, sut.replica.log().end))
}

/// Consumers read below the high watermark, of the leader and of a follower (KIP-392).
#[test]
fn consumers_read_what_is_committed() {
    for sut in [leading(), {
        let mut sut = Sut::new(30, 20, &[(2, 0), (4, 10)]);
        sut.apply(&told(2, 5, 20, &[1, 2, 3], &[1, 2, 3]));
        sut
    }] {
        let Ok(ConsumerAnswer::Next(next)) = consume(&sut, &read(15, Some(4))) else { panic!() };
        assert_eq!((next.from, next.below), (Offset(15), Offset(20)));
        let Ok(ConsumerAnswer::Next(next)) = consume(&sut, &read(25, None)) else { panic!() };
        assert_eq!((next.from, next.below), (Offset(25), Offset(25)), "nothing yet, no error");
        assert_eq!(consume(&sut, &read(31, None)), Err(Refused::OffsetOutOfRange));
        let parted = EpochEnd { epoch: LeaderEpoch(2), end: Offset(10) };
        assert_eq!(consume(&sut, &read(12, Some(3))), Ok(ConsumerAnswer::Diverging(parted)));
    }
}

/// "Fetch v11+": a consumer that tells no rack is for the leader only.
#[test]
fn a_follower_serves_only_consumers_that_know_of_it() {
    let sut = Sut::following();
    let old = ConsumerRead { rack: None, ..read(2, None) };
    let leader = CurrentLeader { leader: Some(NodeId(2)), epoch: LeaderEpoch(5) };
    assert_eq!(consume(&sut, &old), Err(Refused::NotLeader(leader)));
    assert!(consume(&sut, &read(2, None)).is_ok());
}

/// OffsetForLeaderEpoch: "the largest epoch less than or equal to the requested", of the leader.
#[test]
fn epochs_end_where_the_next_begins() {
    let sut = leading();
    let cache = Cache(&sut.epochs, Offset(30));
    for (epoch, want) in [(3, Some((2, 10))), (4, Some((4, 20))), (5, Some((5, 30))), (6, None)] {
        let found = sut.replica.offset_for_leader_epoch(None, LeaderEpoch(epoch), &cache).unwrap();
        assert_eq!(found.map(|end| (end.epoch.0, end.end.0)), want, "{epoch}");
    }
    let sut = Sut::following();
    let asked = sut.replica.offset_for_leader_epoch(None, LeaderEpoch(4), &cache);
    assert!(matches!(asked, Err(Refused::NotLeader(_))));
}

fn rack_of(node: NodeId) -> Option<&'static str> {
    match node.0 {
        1 => Some("a"),
        2 | 3 => Some("b"),
        _ => None,
    }
}

/// KIP-392, RackAwareReplicaSelector: "ISR, offset within follower range, same rack, most caught
/// up"; the leader where it is in the rack, or nobody is.
#[test]
fn consumers_are_sent_to_their_rack() {
    let mut sut = leading();
    let choose = |sut: &Sut, rack: &str, offset| {
        let chosen = sut.replica.preferred_read_replica(rack, Offset(offset), rack_of, sut.now);
        chosen.map(|node| node.0)
    };
    assert_eq!(choose(&sut, "b", 15), None, "nobody fetched yet");
    sut.fetch(2, 25);
    sut.fetch(3, 28);
    assert_eq!(choose(&sut, "b", 15), Some(3), "the most caught up");
    assert_eq!(choose(&sut, "b", 29), None, "nobody has it");
    assert_eq!(choose(&sut, "a", 15), None, "the leader's own rack");
    assert_eq!(choose(&sut, "c", 15), None);
    assert_eq!(choose(&sut, "", 15), None);
    sut.fetch_as(&FollowerFetch {
        node: NodeId(3),
        broker_epoch: 103,
        log_start: Offset(16),
        ..fetch(28, None)
    })
    .unwrap();
    assert_eq!(choose(&sut, "b", 15), Some(2), "3 has deleted it");
    sut.apply(&told(1, 5, 21, &[1, 2, 3], &[1, 3]));
    assert_eq!(choose(&sut, "b", 15), None, "2 is not in sync");
}

/// DeleteRecords: up to the high watermark, done "once the low watermark, the least log start offset
/// of all live replicas, is there".
#[test]
fn records_are_deleted_on_all_live_replicas() {
    let mut sut = leading();
    let delete = |sut: &mut Sut, before: Option<i64>| {
        let mut effects = Vec::new();
        let start = sut.replica.delete_records(before.map(Offset), &mut effects);
        (start, effects)
    };
    assert_eq!(delete(&mut sut, Some(21)), (Err(Refused::OffsetOutOfRange), vec![]));
    sut.fetch(3, 20);
    let (start, effects) = delete(&mut sut, Some(15));
    assert_eq!(start, Ok(Offset(15)));
    assert_eq!(effects, [Effect::RaiseLogStart(Offset(15))]);
    assert_eq!(sut.replica.low_watermark(), Ok(None), "2 has not told its own");
    sut.listen(On::LowWatermark, 'd');
    let fetch_from = |log_start| FollowerFetch { log_start: Offset(log_start), ..fetch(20, None) };
    let (_, effects) = sut.fetch_as(&fetch_from(15)).unwrap();
    assert_eq!(wakes(&effects), "d");
    assert_eq!(sut.replica.low_watermark(), Ok(Some(Offset(0))), "3 has not deleted yet");
    sut.listen(On::LowWatermark, 'e');
    sut.brokers.get_mut(&3).unwrap().fenced = true;
    assert_eq!(wakes(&sut.brokers_changed()), "e");
    assert_eq!(sut.replica.low_watermark(), Ok(Some(Offset(15))), "3 is gone");
    assert_eq!(delete(&mut sut, None).0, Ok(Offset(20)), "all that is committed");
}
