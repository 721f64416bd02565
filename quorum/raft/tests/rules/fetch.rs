//! Fetch from both sides, the high watermark, and where logs part.

use crate::harness::*;
use flowstone_raft::*;
use flowstone_types::{NodeId, Offset};

fn error_of(one: &mut One, request: messages::FetchRequest) -> Code {
    Code::of(answered_fetch(&one.request(Request::Fetch(request))).error_code)
}

/// Reference section 2.2, Fetch on the metadata partition.
#[test]
fn senseless_fetches_are_invalid() {
    let mut one = leader();
    let good = || fetch(key(2), 1, 3, 1);
    let mut waits = good();
    waits.max_wait_ms = -1;
    for bad in [waits, fetch(key(2), 1, -1, 1), fetch(key(2), 1, 3, -1), fetch(key(2), 1, 3, 2)] {
        assert_eq!(error_of(&mut one, bad), Code::InvalidRequest);
    }
    assert_eq!(error_of(&mut one, fetch(key(1), 1, 3, 1)), Code::InvalidRequest, "its own key");
    assert_eq!(error_of(&mut one, fetch(key(2), 0, 0, 0)), Code::FencedLeaderEpoch);
    assert_eq!(error_of(&mut one, fetch(key(2), 2, 3, 1)), Code::UnknownLeaderEpoch);
    let mut other = good();
    other.cluster_id = Some("another".into());
    let Response::Fetch(refused) = response(&one.request(Request::Fetch(other))) else { panic!() };
    assert_eq!(Code::of(refused.error_code), Code::InconsistentClusterId);
}

/// Every answer tells the leader and where it is: so nodes find it.
#[test]
fn answers_name_the_leader() {
    let (mut one, _) = follower(formatted(&[1, 2, 3]), 4);
    let Response::Fetch(told) = response(&one.fetch(3, 0, 0)) else { panic!() };
    let partition = &told.responses[0].partitions[0];
    assert_eq!(Code::of(partition.error_code), Code::NotLeaderOrFollower);
    assert_eq!((partition.current_leader.leader_id, partition.current_leader.leader_epoch), (2, 4));
    assert_eq!((&told.node_endpoints[0].host[..], told.node_endpoints[0].port), ("host2", 9093));
}

/// KIP-595: committed is what a majority of the voters has.
#[test]
fn the_high_watermark_is_what_a_majority_holds() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3, 4, 5]));
    one.elect();
    one.append(&["a"]);
    one.append(&["b"]);
    assert_eq!(committed(&one.fetch(2, 5, 1)), NONE, "two of five");
    assert_eq!(committed(&one.fetch(3, 3, 1)), [3]);
    assert_eq!(committed(&one.fetch(4, 4, 1)), [4]);
    assert_eq!(committed(&one.fetch(3, 3, 1)), NONE, "it never goes back");
    assert_eq!(committed(&one.fetch(4, 5, 1)), [5]);
}

/// Where a majority is one of an even number.
#[test]
fn of_four_voters_three_are_a_majority() {
    let (mut one, _) = One::start(formatted(&[1, 2, 3, 4]));
    one.elect();
    assert_eq!(committed(&one.fetch(2, 3, 1)), NONE);
    assert_eq!(committed(&one.fetch(3, 3, 1)), [3]);
}

/// KAFKA-17332, and the design: a controller flushes before it answers, the leader included.
#[test]
fn the_leaders_own_log_counts_once_it_is_flushed() {
    let mut one = leader();
    one.flushes = false;
    one.append(&["a"]);
    assert_eq!(committed(&one.fetch(2, 4, 1)), NONE);
    assert_eq!(committed(&one.input(Input::Flushed { end: Offset(4) })), [4]);
    one.append(&["b"]);
    one.fetch(2, 5, 1);
    assert_eq!(committed(&one.fetch(3, 5, 1)), [5], "two others are a majority without it");
}

/// Raft, 5.4.2: what older epochs left is committed only together with something of this one.
#[test]
fn nothing_is_committed_before_the_epochs_first_batch() {
    let (mut one, _) = One::start(with_log(&[1, 2, 3], &[(1, 0)], 9));
    one.elect();
    assert_eq!(committed(&one.fetch(2, 9, 1)), NONE);
    assert_eq!(one.raft.high_watermark(), None);
    assert_eq!(committed(&one.fetch(2, 10, 2)), [10]);
}

/// An observer's fetch commits nothing.
#[test]
fn observers_do_not_count() {
    let mut one = leader();
    one.append(&["a"]);
    assert_eq!(committed(&one.fetch(8, 4, 1)), NONE);
    let described = one.raft.describe(one.now).unwrap();
    assert_eq!(described.observers[0].replica, key(8));
    assert_eq!(described.voters.len(), 3);
    one.fetch(2, 4, 1);
    one.after(ms(2_000));
    one.fetch(2, 4, 1);
    one.after(ms(2_000));
    one.now.clock = one.now.clock.after(ms(300_000));
    assert_eq!(one.raft.describe(one.now).unwrap().observers, [], "not after 300 s");
}

/// KIP-836: caught up is who has what there was at its last fetch.
#[test]
fn a_replica_is_caught_up_while_it_keeps_pace() {
    let mut one = leader();
    let caught_up = |one: &One| one.raft.describe(one.now).unwrap().voters[1].last_caught_up.0;
    one.fetch(2, 3, 1);
    let first = one.now.wall.0;
    assert_eq!(caught_up(&one), first);
    one.append(&["a"]);
    one.after(ms(100));
    one.fetch(2, 3, 1);
    assert_eq!(caught_up(&one), first, "it had all at its fetch before");
    let second = one.now.wall.0;
    one.append(&["b"]);
    one.after(ms(100));
    one.fetch(2, 4, 1);
    assert_eq!(caught_up(&one), second);
    one.after(ms(100));
    one.fetch(2, 4, 1);
    assert_eq!(caught_up(&one), second, "it lags");
}

/// KIP-1166: a Fetch waits for records, or for a high watermark that it does not know.
#[test]
fn a_fetch_waits_for_news() {
    let mut one = leader();
    let mut knows = fetch(key(2), 1, 3, 1);
    knows.topics[0].partitions[0].high_watermark = 3;
    assert_eq!(one.request(Request::Fetch(knows.clone())), []);
    assert!(matches!(
        one.append(&["a"])[..],
        [Effect::Append { .. }, Effect::ReadAndRespond { from: Offset(3), .. }]
    ));
    knows.topics[0].partitions[0].fetch_offset = 4;
    let effects = one.request(Request::Fetch(knows.clone()));
    assert_eq!(answered_fetch(&effects).high_watermark, 4, "this very fetch committed it");
    knows.topics[0].partitions[0].high_watermark = 4;
    assert_eq!(one.request(Request::Fetch(knows.clone())), []);
    assert_eq!(one.after(ms(499)), []);
    assert_eq!(answered_fetch(&one.after(ms(1))).high_watermark, 4, "nothing new");
    let old = fetch(key(2), 1, 4, 1);
    assert_eq!(one.request(Request::Fetch(old)), [], "version 17 waits for records only");
}

/// A Fetch that is superseded is answered, and those that wait are bound by the replicas.
#[test]
fn one_fetch_of_a_replica_waits() {
    let mut one = leader();
    one.fetch(2, 3, 1);
    assert_eq!(one.fetch(2, 3, 1).len(), 1);
    assert_eq!(one.after(ms(500)).len(), 1);
}

/// KIP-101, KIP-279: logs part at epochs, not at the high watermark.
#[test]
fn a_leader_tells_where_logs_part() {
    let log = with_log(&[1, 2, 3], &[(1, 0), (2, 10), (5, 20)], 30);
    let (mut one, _) = One::start(log);
    one.elect();
    let told = |one: &mut One, at, epoch| {
        let ends = answered_fetch(&one.fetch(2, at, epoch)).diverging_epoch;
        (ends.epoch, ends.end_offset)
    };
    assert_eq!(told(&mut one, 30, 5), (-1, -1));
    assert_eq!(told(&mut one, 15, 1), (1, 10));
    assert_eq!(told(&mut one, 25, 2), (2, 20));
    assert_eq!(told(&mut one, 22, 3), (2, 20), "an epoch that it never had");
    assert_eq!(told(&mut one, 33, 6), (6, 31), "longer than its own");
    assert_eq!(told(&mut one, 20, 2), (-1, -1));
    assert_eq!(committed(&one.fetch(2, 33, 6)), NONE, "a log that parts counts for nothing");
}

/// A follower's next Fetch says what it holds: not before it is flushed (reference section 2.2).
#[test]
fn a_follower_flushes_before_it_fetches_on() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    one.flushes = false;
    let effects = one.input(answer(id, fetched(4, 1, &[batch(0, 3, &["a"]), batch(1, 4, &["b"])])));
    assert_eq!(asks_fetch(&effects), None);
    assert_eq!(committed(&effects), [1]);
    assert_eq!(asks_fetch(&one.input(Input::Flushed { end: Offset(1) })), None);
    let (_, at, epoch) = asks_fetch(&one.input(Input::Flushed { end: Offset(2) })).unwrap();
    assert_eq!((at, epoch), (2, 4));
}

/// A candidate keeps its votes over a crash: what they were given for must outlive it, too.
#[test]
fn who_has_not_flushed_its_log_does_not_stand() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    one.flushes = false;
    one.input(answer(id, fetched(4, 0, &[batch(0, 4, &["a"])])));
    one.after(ms(5_000));
    assert_eq!(one.raft.state_name(), "follower");
    one.input(Input::Flushed { end: Offset(1) });
    assert_eq!(one.raft.state_name(), "prospective");
}

/// A broker never votes: it need not flush.
#[test]
fn a_broker_fetches_on_at_once() {
    let settings = Settings { role: Role::Broker, ..settings() };
    let (mut one, _) = One::start_with(settings, formatted(&[2, 3]));
    one.flushes = false;
    let id = asks_fetch(&one.request(begin(2, 4))).unwrap().0;
    let effects = one.input(answer(id, fetched(4, 1, &[batch(0, 4, &["a"])])));
    assert_eq!(asks_fetch(&effects).unwrap().1, 1);
    one.after(ms(10_000));
    assert_eq!(one.raft.state_name(), "observer");
}

/// A peer may know a high watermark beyond what this log has.
#[test]
fn a_follower_commits_no_more_than_it_has() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    let effects = one.input(answer(id, fetched(4, 99, &[batch(0, 4, &["a", "b"])])));
    assert_eq!(committed(&effects), [2]);
}

/// KAFKA-7164, KAFKA-10706: cut where the leader's epochs end, epochs without a batch left included.
#[test]
fn a_follower_cuts_what_its_leader_does_not_have() {
    let log = with_log(&[1, 2, 3], &[(1, 0), (2, 10), (4, 15)], 20);
    let cut = |ends| {
        let (mut one, id) = follower(log.clone(), 6);
        let effects = one.input(answer(id, diverging(6, ends)));
        assert_eq!(
            committed(&effects),
            NONE,
            "KAFKA-14704: nothing is committed by such an answer"
        );
        let (_, at, epoch) = asks_fetch(&effects).unwrap();
        (at, epoch)
    };
    assert_eq!(cut((2, 12)), (12, 2));
    assert_eq!(cut((2, 99)), (15, 2));
    assert_eq!(cut((3, 12)), (15, 2), "it never had epoch 3");
    assert_eq!(cut((1, 10)), (10, 1));
    assert_eq!(cut((0, 0)), (0, 0));
}

/// Reference section 2.8, 1: what is committed is never cut.
#[test]
fn nothing_committed_is_cut() {
    let (mut one, id) = follower(with_log(&[1, 2, 3], &[(1, 0), (2, 10)], 20), 6);
    let id = asks_fetch(&one.input(answer(id, fetched(6, 12, &[])))).unwrap().0;
    let effects = one.input(answer(id, diverging(6, (1, 10))));
    assert!(matches!(
        effects[..],
        [
            Effect::Fault(Fault::TruncationOfCommitted {
                to: Offset(10),
                high_watermark: Offset(12),
                ..
            }),
            ..
        ]
    ));
    assert_eq!(one.raft.log_end(), Offset(20));
}

/// KAFKA-18991: an answer of another epoch finds nobody.
#[test]
fn a_late_answer_changes_nothing() {
    let (mut one, late) = follower(formatted(&[1, 2, 3]), 4);
    one.request(begin(3, 5));
    one.input(answer(late, fetched(4, 1, &[batch(0, 4, &["a"])])));
    assert_eq!((one.raft.log_end(), one.raft.leader()), (Offset(0), Some(NodeId(3))));
}

/// A batch that does not belong at the log's end is not taken, and whoever sends it is no leader that
/// works.
#[test]
fn batches_that_do_not_belong_are_not_taken() {
    let mut damaged = batch(0, 4, &["a"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    for bad in [batch(5, 4, &["a"]), batch(0, 5, &["a"]), damaged.into()] {
        let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
        one.now.clock = one.now.clock.after(ms(1_000));
        one.input(answer(id, fetched(4, 1, &[bad])));
        assert_eq!((one.raft.log_end(), one.raft.high_watermark()), (Offset(0), None));
        one.after(ms(1_000));
        assert_eq!(one.raft.state_name(), "prospective");
    }
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    one.input(answer(id, fetched(4, 1, &[batch(0, 4, &["a"]), batch(0, 4, &["a"])])));
    assert_eq!(one.raft.log_end(), Offset(1), "what is good of it counts");
}

/// The size limit may cut the last batch.
#[test]
fn a_batch_that_is_cut_is_fetched_again() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    let cut = batch(1, 4, &["b"]);
    let cut = cut.slice(..cut.len() - 1);
    let effects = one.input(answer(id, fetched(4, 0, &[batch(0, 4, &["a"]), cut])));
    assert_eq!(asks_fetch(&effects).unwrap().1, 1);
}

/// A follower that cannot fetch for 2 s stands for election.
#[test]
fn a_follower_without_fetches_stands() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    one.after(ms(1_500));
    let (id, ..) = asks_fetch(&one.input(answer(id, fetched(4, 0, &[])))).unwrap();
    one.after(ms(1_999));
    assert_eq!(one.raft.state_name(), "follower");
    one.after(ms(1));
    assert_eq!(one.raft.state_name(), "prospective");
    one.input(answer(id, fetched(4, 0, &[])));
    assert_eq!(one.raft.state_name(), "prospective", "too late");
}

/// Without a leader, a voter asks the others who leads.
#[test]
fn an_unattached_voter_looks_for_the_leader() {
    let (mut one, effects) = One::start(formatted(&[1, 2, 3]));
    let (id, ..) = asks_fetch(&effects).unwrap();
    let mut told = fetched(4, -1, &[]);
    told.responses[0].partitions[0].error_code = Code::FencedLeaderEpoch.number();
    let effects = one.input(answer(id, told));
    assert_eq!((one.raft.state_name(), one.raft.epoch().0), ("follower", 4));
    assert!(asks_fetch(&effects).is_some());
}

/// Answers that make no sense are left alone for the retry back-off, not asked again at once.
#[test]
fn a_peer_that_fails_is_left_alone_for_a_while() {
    let (mut one, id) = follower(formatted(&[1, 2, 3]), 4);
    let effects = one.input(Input::Response { id, response: Err(Failure::Disconnected) });
    assert_eq!(asks_fetch(&effects), None);
    assert_eq!(asks_fetch(&one.after(ms(19))), None);
    assert!(asks_fetch(&one.after(ms(1))).is_some());
    assert_eq!(asks_fetch(&one.after(ms(1_900))), None, "one at a time");
}

/// What a controller decided in an epoch that is over is not appended.
#[test]
fn only_the_epochs_leader_appends() {
    let mut one = leader();
    let mut effects = vec![];
    let end = one.raft.log_end().0;
    let refused = |one: &mut One, epoch, effects: &mut Vec<Effect>| {
        one.raft.append(
            one.now,
            flowstone_types::LeaderEpoch(epoch),
            batch(end, epoch, &["a"]),
            effects,
        )
    };
    assert_eq!(refused(&mut one, 0, &mut effects), Err(AppendError::NotLeader));
    one.input(Input::Shutdown);
    assert_eq!(refused(&mut one, 1, &mut effects), Err(AppendError::NotLeader));
}
