//! Who waits is told once, in order, with the right outcome, and without a scan.

mod support;

use flowstone_partition::*;
use flowstone_types::{Instant, LeaderEpoch, Offset};
use std::time::Duration;
use support::*;

/// Leads alone, from offset 10 on.
fn alone() -> Sut {
    let mut sut = Sut::new(10, 10, &[(4, 0)]);
    sut.apply(&told(1, 5, 20, &[1], &[1]));
    sut
}

#[test]
fn acks_leave_in_log_order_once_durable() {
    let mut sut = alone();
    sut.append_undurably(15);
    assert_eq!(sut.wait(Acks::All, 12, 1), None);
    assert_eq!(sut.wait(Acks::All, 15, 2), None);
    assert_eq!(acks(&sut.durable(14)), [(1, Ok(()))]);
    assert_eq!(sut.high_watermark(), 14);
    assert_eq!(acks(&sut.durable(15)), [(2, Ok(()))]);
}

#[test]
fn a_duplicate_waits_for_its_own_batch_only() {
    let mut sut = alone();
    sut.append_undurably(15);
    assert_eq!(sut.wait(Acks::All, 10, 0), Some(Ok(())), "acknowledged before");
    sut.wait(Acks::All, 15, 2);
    sut.wait(Acks::All, 12, 1);
    assert_eq!(acks(&sut.durable(12)), [(1, Ok(()))]);
}

#[test]
fn the_high_watermark_never_moves_back() {
    let mut sut = alone();
    sut.append(20);
    assert_eq!(sut.durable(15), []);
    assert_eq!(sut.high_watermark(), 20);
}

#[test]
fn fetches_wake_once_and_forget_hits_only_its_own() {
    let mut sut = alone();
    let gone = sut.listen(On::HighWatermark, 'a');
    sut.replica.forget(gone);
    let woken = sut.listen(On::HighWatermark, 'b');
    assert_eq!(wakes(&sut.append(11)), "b");
    sut.listen(On::HighWatermark, 'c');
    sut.replica.forget(woken);
    assert_eq!(wakes(&sut.append(12)), "c", "a late forget is harmless");
}

#[test]
fn forgetting_in_any_order_leaves_the_others() {
    let mut sut = alone();
    let keys: Vec<_> = ('a'..='j').map(|wake| sut.listen(On::HighWatermark, wake)).collect();
    for forgotten in [1, 0, 9, 4, 5, 3, 6, 4] {
        sut.replica.forget(keys[forgotten]);
    }
    assert_eq!(wakes(&sut.append(11)), "chi");
}

/// A follower's fetch waits for the log's end, a consumer's for the high watermark.
#[test]
fn each_waits_for_its_own_move() {
    let mut sut = alone();
    sut.listen(On::HighWatermark, 'c');
    sut.listen(On::LogEnd, 'f');
    assert_eq!(wakes(&sut.append_undurably(11)), "f");
    assert_eq!(wakes(&sut.durable(11)), "c");
}

/// DelayedProduce and DelayedFetch: REQUEST_TIMED_OUT, and another look.
#[test]
fn a_deadline_ends_a_wait() {
    let mut sut = alone();
    sut.append_undurably(15);
    let (soon, later) = (Duration::from_secs(1), Duration::from_secs(2));
    sut.wait_until(12, sut.now.after(later), 1);
    sut.wait_until(13, sut.now.after(soon), 2);
    let deadline = sut.now.after(soon);
    sut.replica.await_move(On::HighWatermark, deadline, 'a').unwrap();
    assert_eq!(sut.replica.next_deadline(), deadline);
    let effects = sut.tick(soon);
    assert_eq!(acks(&effects), [(2, Err(NotCommitted::TimedOut))]);
    assert_eq!(wakes(&effects), "a");
    assert_eq!(sut.replica.next_deadline(), deadline.after(soon));
    assert_eq!(acks(&sut.durable(15)), [(1, Ok(()))], "told once, and the other still waits");
    assert_eq!(sut.replica.next_deadline(), Instant::NEVER);
}

#[test]
fn who_comes_after_the_log_failed_is_told_at_once() {
    let mut sut = alone();
    sut.append_undurably(12);
    sut.wait(Acks::All, 12, 1);
    sut.listen(On::HighWatermark, 'a');
    let mut effects = Vec::new();
    sut.replica.failed(&mut effects);
    assert_eq!(acks(&effects), [(1, Err(NotCommitted::Offline))]);
    assert_eq!(wakes(&effects), "a");
    assert_eq!(sut.wait(Acks::All, 12, 2), Some(Err(NotCommitted::Offline)));
    assert_eq!(sut.wait(Acks::Leader, 5, 3), Some(Err(NotCommitted::Offline)));
    assert_eq!(sut.replica.await_move(On::HighWatermark, Instant::NEVER, 'b'), Err('b'));
    assert_eq!(sut.replica.may_append(None), Err(Refused::Offline));
    assert_eq!(sut.durable(12), [], "nothing more is committed");
}

/// What waits is committed once there is space: a second wait is a wait again.
#[test]
fn a_full_disk_dismisses_who_waits_and_no_one_else() {
    let mut sut = alone();
    sut.append_undurably(12);
    sut.wait(Acks::All, 12, 1);
    let mut effects = Vec::new();
    sut.replica.stalled(&mut effects);
    assert_eq!(acks(&effects), [(1, Err(NotCommitted::Stalled))]);
    assert_eq!(sut.wait(Acks::All, 12, 2), None);
    assert_eq!(acks(&sut.durable(12)), [(2, Ok(()))]);
}

/// DelayedFetch: "the requested epoch is now fenced", "a diverging epoch was found".
#[test]
fn a_new_epoch_or_a_truncation_wakes_every_fetch() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.listen(On::HighWatermark, 'c');
    sut.listen(On::LogEnd, 'f');
    assert_eq!(wakes(&sut.apply(&told(1, 6, 21, &[1, 2, 3], &[1, 2, 3]))), "cf");
    sut.listen(On::HighWatermark, 'd');
    assert_eq!(wakes(&sut.apply(&told(2, 7, 22, &[1, 2, 3], &[1, 2, 3]))), "d");
    sut.listen(On::HighWatermark, 'e');
    assert_eq!(wakes(&sut.apply(&told(3, 8, 23, &[1, 2, 3], &[1, 2, 3]))), "e");
    sut.listen(On::HighWatermark, 'g');
    let diverging = Some(EpochEnd { epoch: LeaderEpoch(4), end: Offset(10) });
    let answer =
        Fetched { diverging, high_watermark: Offset(0), log_start: Offset(0), batches: None };
    assert_eq!(wakes(&sut.fetched(&sut.position(), &answer)), "g");
}

#[test]
fn a_leader_that_becomes_a_follower_dismisses_its_producers() {
    let mut sut = Sut::leading(&[1, 2, 3]);
    sut.append(12);
    sut.wait(Acks::All, 12, 1);
    sut.listen(On::LogEnd, 'f');
    let effects = sut.apply(&told(2, 6, 21, &[1, 2, 3], &[1, 2, 3]));
    assert_eq!(acks(&effects), [(1, Err(NotCommitted::NotLeader))]);
    assert_eq!(wakes(&effects), "f");
    assert_eq!(sut.wait(Acks::All, 12, 2), Some(Err(NotCommitted::NotLeader)));
    assert_eq!(sut.replica.log().end, Offset(12));
}

/// Against a model that looks at all who wait each time: whatever comes in whatever order, the same are
/// told, in the same order, with the same outcome.
#[test]
fn random_waits_are_told_as_a_plain_list_tells_them() {
    for seed in 0..1_000 {
        let mut random = Random(seed);
        let mut sut = alone();
        let mut end = 10;
        let mut waiting: Vec<(i64, Instant, u32)> = Vec::new();
        let mut listening: Vec<(WaitKey, Instant, char)> = Vec::new();
        for number in 0..60 {
            let deadline = sut.now.after(Duration::from_secs(random.below(20)));
            match random.below(8) {
                0 | 1 => {
                    end += 1 + random.below(3).cast_signed();
                    assert_eq!(sut.append_undurably(end), []);
                }
                2 | 3 => {
                    let wanted = end - random.below(5).cast_signed();
                    let told = sut.replica.await_acks(Acks::All, Offset(wanted), deadline, number);
                    if wanted <= sut.high_watermark() {
                        assert_eq!(told, Some((number, Ok(()))), "seed {seed}");
                    } else {
                        assert_eq!(told, None, "seed {seed}");
                        waiting.push((wanted, deadline, number));
                        waiting.sort_by_key(|(wanted, ..)| *wanted);
                    }
                }
                4 => {
                    let wake = char::from_u32(0x100 + number).unwrap();
                    let key = sut.replica.await_move(On::HighWatermark, deadline, wake).unwrap();
                    listening.push((key, deadline, wake));
                }
                5 if !listening.is_empty() => {
                    let place = random.below(listening.len() as u64) as usize;
                    sut.replica.forget(listening.remove(place).0);
                }
                5 | 6 => {
                    let effects = sut.tick(Duration::from_secs(random.below(5)));
                    let is_late = |deadline: &Instant| *deadline <= sut.now;
                    let late = waiting.extract_if(.., |(_, deadline, _)| is_late(deadline));
                    let late: Vec<_> =
                        late.map(|(.., number)| (number, Err(NotCommitted::TimedOut))).collect();
                    assert_eq!(acks(&effects), late, "seed {seed}");
                    let late = listening.extract_if(.., |(_, deadline, _)| is_late(deadline));
                    let late: String = late.map(|(.., wake)| wake).collect();
                    assert_eq!(wakes(&effects), late, "seed {seed}");
                    let next = waiting.iter().map(|(_, deadline, _)| *deadline);
                    let next = next.chain(listening.iter().map(|(_, deadline, _)| *deadline)).min();
                    assert!(sut.replica.next_deadline() <= next.unwrap_or(Instant::NEVER));
                }
                _ => {
                    let before = sut.high_watermark();
                    let effects = sut.durable(end - random.below(3).cast_signed());
                    let reached = sut.high_watermark();
                    let done = waiting.extract_if(.., |(wanted, ..)| *wanted <= reached);
                    let done: Vec<_> = done.map(|(.., number)| (number, Ok(()))).collect();
                    assert_eq!(acks(&effects), done, "seed {seed}");
                    let woken = if reached > before { listening.split_off(0) } else { Vec::new() };
                    let woken: String = woken.iter().map(|(.., wake)| wake).collect();
                    assert_eq!(wakes(&effects), woken, "seed {seed}");
                }
            }
        }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}
