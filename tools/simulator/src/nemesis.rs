//! Breaks things, as the seed says, and mends them again.
//!
//! Each run draws which kinds of faults it has at all: a run in which everything fails all the time
//! finds less than many in which a few things do.

use std::time::Duration;

use flowstone_runtime::sim::{Control, DiskFaults, MachineId, NetFaults};
use flowstone_runtime::{deadline, sleep};

use crate::seeds::Stats;

/// How long a program may take to stop when it is asked to, be its disk well or not: many times
/// [`STUCK_FOR`], since a slow disk leaves hundreds of small segments to store (storage, seed 3356).
const STOPS_WITHIN: Duration = Duration::from_mins(3);

/// How long a stuck disk hangs: longer than any client waits.
const STUCK_FOR: Duration = Duration::from_secs(7);

/// Which kinds of faults a run has.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    crash: bool,
    power_loss: bool,
    restart: bool,
    disk_errors: bool,
    slow_disk: bool,
    disk_full: bool,
    network: bool,
    one_way_cuts: bool,
    sync_lies: bool,
}

impl Kinds {
    /// Some, by chance.
    pub fn draw(control: &Control) -> Self {
        let mut bits = control.random();
        let mut next = || {
            bits >>= 1;
            bits & 1 == 1
        };
        Self {
            crash: next(),
            power_loss: next(),
            restart: next(),
            disk_errors: next(),
            slow_disk: next(),
            disk_full: next(),
            network: next(),
            one_way_cuts: next() && next(),
            sync_lies: false,
        }
    }

    /// These, and a disk that answers flushes which it does not do.
    #[must_use]
    pub fn with_sync_lies(self) -> Self {
        Self { sync_lies: true, ..self }
    }
}

/// What is tormented: a machine, and how its program is started.
pub struct Victim<'a> {
    /// The world.
    pub control: &'a Control,
    /// The machine.
    pub machine: MachineId,
    /// Those that talk to it over the network.
    pub others: &'a [MachineId],
    /// Starts the program, where none runs.
    pub boot: &'a dyn Fn(),
    /// Whether the program ends by itself when it is asked to.
    pub stops: bool,
}

impl Victim<'_> {
    /// Does `rounds` bad things, one after the other, then mends everything: the program runs anew.
    pub async fn torment(&self, rounds: u64, kinds: Kinds) -> Stats {
        let mut stats = Stats::default();
        for _ in 0..rounds {
            if !self.control.is_running(self.machine) {
                (self.boot)(); // It gave up: its disk failed while it started.
            }
            self.wait(300).await;
            self.disturb(kinds);
            self.wait(300).await;
            match self.control.random() % 3 {
                0 if kinds.crash => self.crash(&mut stats).await,
                1 if kinds.power_loss => self.power_loss(&mut stats).await,
                2 if kinds.restart && self.stops => self.stop().await,
                _ => {}
            }
        }
        self.mend();
        if self.stops && self.control.random().is_multiple_of(2) {
            self.stop().await;
        } else {
            self.power_loss(&mut stats).await;
        }
        stats
    }

    fn disturb(&self, kinds: Kinds) {
        let chance = |probability: f64| if self.coin() { probability } else { 0.0 };
        let errors = |probability| if kinds.disk_errors { chance(probability) } else { 0.0 };
        let slow = |probability| if kinds.slow_disk { chance(probability) } else { 0.0 };
        let faults = DiskFaults {
            read_error: errors(0.01),
            write_error: errors(0.003),
            sync_error: errors(0.003),
            sync_lie: if kinds.sync_lies { 0.1 } else { 0.0 },
            sticky: errors(0.5),
            slow: slow(0.05),
            stuck: slow(0.001),
            stuck_for: STUCK_FOR,
            ..DiskFaults::default()
        };
        self.control.note(format_args!("{faults:?}"));
        self.control.set_disk_faults(self.machine, faults);
        let full = kinds.disk_full && self.coin();
        let room = self.control.random() % (256 << 10);
        let capacity = full.then(|| self.control.disk_used(self.machine) + room);
        self.control.note(format_args!("capacity {capacity:?}"));
        self.control.set_capacity(self.machine, capacity);
        let network = |probability| if kinds.network { chance(probability) } else { 0.0 };
        self.control.set_net_faults(NetFaults {
            slow: network(0.02),
            split: 0.2 + network(0.5),
            reset: network(0.005),
            silence: network(0.001),
            refuse: network(0.1),
            ..NetFaults::default()
        });
        for way in self.ways() {
            let cut = kinds.one_way_cuts && self.control.random().is_multiple_of(8);
            self.set_cut(way, cut);
        }
    }

    /// Each direction between it and another.
    fn ways(&self) -> impl Iterator<Item = (MachineId, MachineId)> {
        self.others.iter().flat_map(|other| [(self.machine, *other), (*other, self.machine)])
    }

    /// While it is cut nothing gets through in this direction; afterwards all of it arrives, late.
    fn set_cut(&self, (from, to): (MachineId, MachineId), cut: bool) {
        if cut {
            self.control.cut(from, to);
        } else {
            self.control.heal(from, to);
        }
    }

    fn mend(&self) {
        self.control.set_disk_faults(self.machine, DiskFaults::default());
        self.control.set_capacity(self.machine, None);
        self.control.set_net_faults(NetFaults::default());
        self.ways().for_each(|way| self.set_cut(way, false));
    }

    async fn crash(&self, stats: &mut Stats) {
        self.control.crash(self.machine);
        stats.crashes += 1;
        self.wait(50).await;
        (self.boot)();
    }

    async fn power_loss(&self, stats: &mut Stats) {
        self.control.power_loss(self.machine);
        stats.power_losses += 1;
        self.wait(50).await;
        (self.boot)();
    }

    async fn stop(&self) {
        if !self.control.is_running(self.machine) {
            return (self.boot)();
        }
        self.control.terminate(self.machine);
        let end = self.control.now().after(STOPS_WITHIN);
        let stopped = deadline(end, self.control.ended(self.machine)).await;
        assert!(stopped.is_some(), "asked to stop, and does not");
        self.wait(50).await;
        (self.boot)();
    }

    fn coin(&self) -> bool {
        self.control.random().is_multiple_of(2)
    }

    async fn wait(&self, ms_max: u64) {
        sleep(Duration::from_micros(self.control.random() % (ms_max * 1_000))).await;
    }
}
