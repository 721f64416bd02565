//! The state of a simulated world, and the way to it from code that runs inside.
//!
//! One world a thread. Free functions (`now`, `spawn`, ...) find it in a thread-local, together with
//! the machine and shard whose code is running. Invariant: the state is never borrowed while code of
//! a task runs or is dropped, so any of it may call back in.

use super::disk::Disk;
use super::executor::{Event, Task, clear_ready};
use super::faults::{DiskFaults, DiskOperation};
use super::moment::Moment;
use super::net::Net;
use super::rng::Rng;
use super::trace::{Kind, Trace};
use bytes::Bytes;
use flowstone_types::{Instant, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

/// The wall clock when a world begins: 2025-11-21 00:00 UTC.
const WALL_CLOCK_MS: i64 = 1_763_683_200_000;

/// The machine that the harness itself runs on.
pub const HARNESS: usize = 0;

/// Whose code is running.
#[derive(Clone, Copy)]
pub struct Here {
    pub machine: usize,
    /// The process on that machine; code of an earlier one is being dropped and does nothing.
    pub incarnation: u64,
    pub shard: usize,
    pub shards: usize,
}

/// A simulated machine: an address, a disk, and at most one process.
pub struct Machine {
    pub name: String,
    pub address: IpAddr,
    pub powered: bool,
    pub incarnation: u64,
    /// Shards whose `main` has not returned.
    pub mains: usize,
    pub busy: Vec<u64>,
    pub disk: Disk,
    pub disk_faults: DiskFaults,
    /// Failures to come, ordered by name: see `Control::fail_next`.
    pub planned: Vec<Planned>,
    /// Writes that the disk has and has not finished.
    pub writing: BTreeMap<u64, Writing>,
    pub terminated: bool,
    pub waiting_for_termination: Vec<Waker>,
    pub waiting_for_end: Vec<Waker>,
    pub wall_clock_skew_ms: i64,
    pub next_port: u16,
    /// What `Control::record` asked for.
    pub record: Option<Vec<Moment>>,
    /// See `Control::mark`.
    pub mark: u64,
}

/// The next `times` operations of a kind on files whose path contains `path` fail.
pub struct Planned {
    pub operation: DiskOperation,
    pub path: String,
    pub times: u32,
}

/// A write under way: at a crash, any sectors of it may have reached the disk.
#[derive(Clone)]
pub struct Writing {
    pub inode: u64,
    pub offset: u64,
    pub parts: Vec<Bytes>,
}

/// All there is.
pub struct State {
    pub seed: u64,
    pub rng: Rng,
    pub now: u64,
    pub sequence: u64,
    pub events: BTreeMap<(u64, u64), Event>,
    pub tasks: BTreeMap<u64, Task>,
    pub machines: Vec<Machine>,
    pub net: Net,
    pub trace: Trace,
    pub time_limit: u64,
}

impl State {
    pub fn new(seed: u64) -> Self {
        let mut state = Self {
            seed,
            rng: Rng::new(seed),
            now: 1, // Not 0: nothing that is due "at 0" should look as if it were due now.
            sequence: 0,
            events: BTreeMap::new(),
            tasks: BTreeMap::new(),
            machines: Vec::new(),
            net: Net::default(),
            trace: Trace::default(),
            time_limit: u64::MAX,
        };
        state.add_machine("harness");
        state
    }

    pub fn add_machine(&mut self, name: &str) -> usize {
        let index = self.machines.len();
        let host = u16::try_from(index + 1).expect("no more than 65,534 machines").to_be_bytes();
        self.machines.push(Machine {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 0, host[0], host[1]).into(),
            powered: true,
            incarnation: 0,
            mains: 0,
            busy: vec![0],
            disk: Disk::new(),
            disk_faults: DiskFaults::default(),
            planned: Vec::new(),
            writing: BTreeMap::new(),
            terminated: false,
            waiting_for_termination: Vec::new(),
            waiting_for_end: Vec::new(),
            wall_clock_skew_ms: 0,
            next_port: 32_768,
            record: None,
            mark: 0,
        });
        index
    }

    /// The machine's disk is about to change: the moment before it is recorded, if that was asked for.
    pub fn moment(&mut self, machine: usize) {
        let machine = &mut self.machines[machine];
        if let Some(record) = &mut machine.record {
            record.push(Moment::of(&machine.disk, machine.writing.values(), machine.mark));
        }
    }

    /// Takes down an event of `machine`.
    pub fn event(&mut self, machine: usize, kind: Kind, numbers: [u64; 3]) {
        self.trace.event(self.now, machine, kind, numbers);
    }

    /// Adds words to it, for who reads the trace.
    pub fn explain(&mut self, machine: usize, words: impl FnOnce() -> String) {
        self.trace.explain(self.now, machine, words);
    }

    /// A number that was not used before; larger for what came later.
    pub fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Lets `event` happen at `at`, after what was scheduled for then before.
    pub fn schedule(&mut self, at: u64, event: Event) -> (u64, u64) {
        let key = (at.max(self.now), self.number());
        self.events.insert(key, event);
        key
    }

    /// A duration from `low` to `high`.
    pub fn duration(&mut self, (low, high): (Duration, Duration)) -> u64 {
        self.rng.between(low.as_nanos() as u64, high.as_nanos() as u64)
    }

    pub fn wall_clock(&self, machine: usize) -> Timestamp {
        let skew = self.machines[machine].wall_clock_skew_ms;
        Timestamp(WALL_CLOCK_MS + (self.now / 1_000_000) as i64 + skew)
    }
}

/// What the thread-local leads to.
struct Shared {
    state: RefCell<State>,
    here: Cell<Here>,
}

thread_local! {
    static WORLD: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

/// Makes `state` this thread's world.
pub fn enter(state: State) {
    let here = Cell::new(Here { machine: HARNESS, incarnation: 0, shard: 0, shards: 1 });
    let shared = Rc::new(Shared { state: RefCell::new(state), here });
    WORLD.with_borrow_mut(|world| {
        assert!(world.is_none(), "one world a thread, at a time");
        *world = Some(shared);
    });
}

/// Ends this thread's world.
pub fn leave() {
    let shared = WORLD.with_borrow_mut(Option::take);
    clear_ready();
    drop(shared); // Wakers and bytes only: the tasks went before.
}

/// Whether this thread is inside a world: the crate's functions act there and not on the kernel.
pub fn is_active() -> bool {
    WORLD.try_with(|world| world.borrow().is_some()).unwrap_or(false)
}

fn shared() -> Rc<Shared> {
    let shared = WORLD.with_borrow(Option::clone);
    shared.expect("inside of a simulated world")
}

/// Reads or changes the state. `f` runs no code of tasks and drops none.
pub fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    f(&mut shared().state.borrow_mut())
}

/// Whose code is running.
pub fn here() -> Here {
    shared().here.get()
}

/// Runs `f` as code of `here`.
pub fn at<T>(here: Here, f: impl FnOnce() -> T) -> T {
    struct Back(Rc<Shared>, Here);
    impl Drop for Back {
        fn drop(&mut self) {
            self.0.here.set(self.1);
        }
    }
    let shared = shared();
    let before = shared.here.replace(here);
    let _back = Back(shared, before);
    f()
}

/// Whether the process `incarnation` of `machine` still is (and the world with it).
pub fn is_alive(machine: usize, incarnation: u64) -> bool {
    is_active() && with(|state| state.machines[machine].incarnation == incarnation)
}

/// The virtual clock.
pub fn now() -> Instant {
    Instant(with(|state| state.now))
}

/// The machine's wall clock.
pub fn wall_clock() -> Timestamp {
    let machine = here().machine;
    with(|state| state.wall_clock(machine))
}

/// Random bytes, from the seed.
pub fn fill_random(bytes: &mut [u8]) {
    with(|state| {
        for eight in bytes.chunks_mut(8) {
            let random = state.rng.bits().to_le_bytes();
            eight.copy_from_slice(&random[..eight.len()]);
        }
    });
}

/// This shard's index.
pub fn shard_index() -> usize {
    here().shard
}

/// How many shards this process has.
pub fn shard_count() -> usize {
    here().shards
}

/// Virtual time that this shard spent working.
pub fn busy_nanos() -> u64 {
    let here = here();
    with(|state| state.machines[here.machine].busy[here.shard])
}
