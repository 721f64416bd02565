//! The hot path of an only replica allocates nothing once its queues have their room, and what it
//! costs does not grow with who waits for later offsets.
#![expect(unsafe_code, reason = "a GlobalAlloc is unsafe to write; this one counts in test builds")]

use flowstone_partition::*;
use flowstone_types::{Instant, LeaderEpoch, NodeId, Offset};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter neither allocates nor
// panics, and a thread whose counter is gone is not counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

struct NoEpochs;

impl EpochCache for NoEpochs {
    fn end_of(&self, _: LeaderEpoch) -> Option<EpochEnd> {
        None
    }

    fn latest(&self) -> Option<LeaderEpoch> {
        None
    }
}

type Effects = Vec<Effect<u64, u64>>;

fn alone() -> (Replica<u64, u64>, Effects) {
    let mut replica = Replica::new(NodeId(1), Rules::default());
    replica.opened(LogEnds::default(), Offset::ZERO);
    let all = [NodeId(1)];
    let told = Metadata {
        leader: Some(NodeId(1)),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        replicas: &all,
        isr: &all,
        recovering: false,
    };
    let mut effects = Vec::new();
    replica.apply(&told, &|_| None, &NoEpochs, Instant::default(), &mut effects);
    effects.clear();
    (replica, effects)
}

/// One produce and one consumer that waits for it; returns how many were told.
fn round(replica: &mut Replica<u64, u64>, effects: &mut Effects) -> usize {
    let epoch = replica.may_append(Some(Acks::All)).expect("it leads alone");
    let end = replica.log().end.plus(1);
    replica.appended(epoch, end, effects);
    assert!(replica.await_acks(Acks::All, end, Instant::NEVER, 1).is_none());
    let gone = replica.await_move(On::HighWatermark, Instant::NEVER, 2).expect("open");
    replica.await_move(On::HighWatermark, Instant::NEVER, 3).expect("open");
    replica.forget(gone);
    replica.durable(end, effects);
    let told = effects.len();
    effects.clear();
    told
}

#[test]
fn a_produce_and_a_fetch_allocate_nothing() {
    let (mut replica, mut effects) = alone();
    round(&mut replica, &mut effects);
    let before = ALLOCATIONS.get();
    let began = time::Instant::now();
    for _ in 0..ROUNDS {
        let told = round(&mut replica, &mut effects);
        assert_eq!(told, 3, "the high watermark, the acknowledgement, the wake-up");
    }
    let (took, after) = (began.elapsed(), ALLOCATIONS.get());
    println!("{:?} a round", took / ROUNDS);
    assert_eq!(after, before);
}

const ROUNDS: u32 = 10_000;

/// With 100,000 requests in the queue, each commit looks at those that it concerns.
#[test]
fn a_commit_looks_only_at_whom_it_concerns() {
    let (mut replica, mut effects) = alone();
    let epoch = replica.may_append(Some(Acks::All)).expect("it leads alone");
    replica.appended(epoch, Offset(WAITING), &mut effects);
    for end in 1..=WAITING {
        assert!(replica.await_acks(Acks::All, Offset(end), Instant::NEVER, 1).is_none());
    }
    let before = ALLOCATIONS.get();
    let began = time::Instant::now();
    for end in 1..=WAITING {
        replica.durable(Offset(end), &mut effects);
        assert_eq!(effects.len(), 2, "the high watermark and one acknowledgement");
        effects.clear();
    }
    // A scan of all who wait would be 5,000,000,000 looks: many seconds, not some milliseconds.
    assert!(began.elapsed() < time::Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ALLOCATIONS.get(), before);
}

const WAITING: i64 = 100_000;
