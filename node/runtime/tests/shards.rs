//! Shards, tasks, time and mail of the real back end, started as the daemon starts them.

mod common;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{on_one_shard, on_shards, poll_once};
use flowstone_runtime::{
    Mailbox, Plan, deadline, launch, mailbox, now, offload, random_bytes, random_u64, shard_count,
    shard_index, sleep, sleep_until, spawn, wall_clock, yield_now,
};
use flowstone_types::Instant;

#[test]
fn every_shard_runs_and_knows_itself() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_shards = Arc::clone(&seen);
    on_shards(3, move |index| {
        let seen = Arc::clone(&seen_by_shards);
        async move {
            assert_eq!((shard_index(), shard_count()), (index, 3));
            seen.lock().unwrap().push(index);
        }
    });
    seen.lock().unwrap().sort_unstable();
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn a_core_that_does_not_exist_is_an_error() {
    let error = launch(Plan { cpus: vec![1023] }, |_| async {}).unwrap_err();
    assert!(error.to_string().starts_with("shard 0: cannot use CPU 1023"), "{error}");
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    on_one_shard(|| async {
        let start = now();
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        for millis in [9, 3, 6] {
            let order = std::rc::Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                order.borrow_mut().push(millis);
            });
        }
        sleep_until(start.after(Duration::from_millis(15))).await;
        assert!(now().since(start) >= Duration::from_millis(15));
        assert_eq!(*order.borrow(), [3, 6, 9]);
        sleep_until(start).await; // Long past: returns at once.
    });
}

#[test]
fn a_deadline_drops_what_is_late_and_takes_what_is_there() {
    on_one_shard(|| async {
        let soon = now().after(Duration::from_millis(2));
        assert_eq!(deadline(soon, std::future::pending::<()>()).await, None);
        assert_eq!(deadline(soon, async { 7 }).await, Some(7), "ready, though it is past");
        assert_eq!(deadline(Instant::NEVER, async { 8 }).await, Some(8));
    });
}

#[test]
fn clocks_and_randomness() {
    on_one_shard(|| async {
        assert!(wall_clock().0 > 1_700_000_000_000, "milliseconds since 1970");
        assert_ne!(random_u64(), random_u64());
        assert_ne!(random_bytes::<1000>()[700..], [0; 300]);
    });
}

#[test]
fn a_busy_task_starves_no_one() {
    on_one_shard(|| async {
        spawn(async {
            loop {
                yield_now().await; // Always runnable: the shard never sleeps.
            }
        });
        let start = now();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(offload(|| 5).await, 5);
        assert!(now().since(start) < Duration::from_secs(1));
    });
}

#[test]
fn offloaded_work_comes_back_even_if_there_is_much_of_it() {
    let done = Arc::new(AtomicUsize::new(0));
    let in_shard = Arc::clone(&done);
    on_one_shard(move || async move {
        let (tell, mut told) = mailbox(200);
        for number in 0..200 {
            let (done, tell) = (Arc::clone(&in_shard), tell.clone());
            spawn(async move {
                let work = move || {
                    done.fetch_add(1, SeqCst);
                    number
                };
                assert_eq!(offload(work).await, number);
                tell.send(()).unwrap();
            });
        }
        for _ in 0..200 {
            told.recv().await;
        }
        // Dropped after its beginning, it is carried to its end all the same.
        let (let_go, gate) = std::sync::mpsc::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let work = move || sender.send(gate.recv());
        assert!(poll_once(pin!(offload(work))).await.is_none());
        let_go.send(7).unwrap();
        assert_eq!(receiver.recv(), Ok(Ok(7)));
    });
    assert_eq!(done.load(SeqCst), 200);
}

#[test]
fn a_full_mailbox_hands_the_mail_back() {
    on_one_shard(|| async {
        let (mailer, mut mailbox) = mailbox(2);
        assert_eq!((mailer.send(1), mailer.send(2), mailer.send(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(mailer.len(), 2);
        assert_eq!(mailbox.recv().await, 1);
        assert_eq!(mailer.send(4), Ok(()), "one was taken, one has room");
        assert_eq!(mailer.send(5), Err(5), "what was taken in one go counts until it is received");
        assert_eq!(
            (mailbox.recv().await, mailbox.try_recv(), mailbox.try_recv()),
            (2, Some(4), None)
        );
        assert!(mailer.is_empty());
        drop(mailbox);
        assert_eq!((mailer.send(6), mailer.len()), (Ok(()), 0), "no one reads it, no one keeps it");
    });
}

/// Mailboxes that are handed to the shard that will receive from them.
fn for_shards<T: Send + 'static>(boxes: Vec<Mailbox<T>>) -> impl Fn(usize) -> Mailbox<T> + Clone {
    let boxes: Vec<_> = boxes.into_iter().map(Some).collect();
    let boxes = Arc::new(Mutex::new(boxes));
    move |index| boxes.lock().unwrap()[index].take().expect("taken once")
}

#[test]
fn shards_play_ping_pong() {
    const ROUNDS: u64 = 20_000;
    let (to_first, first) = mailbox(1);
    let (to_second, second) = mailbox(1);
    let take = for_shards(vec![first, second]);
    on_shards(2, move |index| {
        let (mut own, to_first, to_second) = (take(index), to_first.clone(), to_second.clone());
        async move {
            for round in 0..ROUNDS {
                if index == 0 {
                    to_second.send(round).unwrap();
                    assert_eq!(own.recv().await, round);
                } else {
                    assert_eq!(own.recv().await, round);
                    to_first.send(round).unwrap();
                }
            }
        }
    });
}

#[test]
fn mail_from_many_threads_arrives_whole_and_in_the_order_of_each() {
    const EACH: usize = 20_000;
    let (mailer, mailbox) = mailbox(64);
    let take = for_shards(vec![mailbox]);
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let mailer = mailer.clone();
            std::thread::spawn(move || {
                for number in 0..EACH {
                    while mailer.send((sender, number)).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    on_one_shard(move || async move {
        let (mut mailbox, mut next) = (take(0), [0; 3]);
        for _ in 0..3 * EACH {
            let (sender, number) = mailbox.recv().await;
            assert_eq!(number, next[sender]);
            next[sender] += 1;
        }
    });
    for sender in senders {
        sender.join().unwrap();
    }
}
