//! The world that the cores live in: virtual time, machines that stop and start, and the events that
//! are still to come.
//!
//! Separate from what happens in it: it knows neither Raft nor partitions, only that messages travel,
//! that disks answer, and that machines wake up. Invariants: time never goes back; events of one time
//! come in the order in which they were made; what belongs to an earlier life of a machine never
//! reaches a later one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::network::{Arrivals, Network};
use crate::random::Random;

/// A point of virtual time, in microseconds since the world began.
pub type Micros = u64;

/// A second of virtual time.
pub const SECOND: Micros = 1_000_000;

/// A millisecond of virtual time.
pub const MILLI: Micros = 1_000;

/// A machine: its number, from 0.
pub type Machine = u8;

/// Most machines a world has: sets of machines are bits of a `u32`.
pub const MACHINES_MAX: usize = 32;

/// What happens next: a message `M` arrives, a disk answers with `I`, ...
#[derive(Debug)]
pub enum Happening<M, I> {
    /// A message arrives.
    Message {
        /// Who sent it.
        from: Machine,
        /// Whom it reaches.
        to: Machine,
        /// What it says.
        message: M,
    },
    /// The disk of a machine (or something else of the machine's own) is done.
    Done {
        /// Whose.
        machine: Machine,
        /// With what.
        what: I,
    },
    /// A machine asked to be woken at about this time.
    Wake {
        /// Which.
        machine: Machine,
    },
    /// A machine starts (again).
    Start {
        /// Which.
        machine: Machine,
    },
    /// The plan's entry of this number is due.
    Planned(u32),
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Micros,
    sequence: u64,
    slot: u32,
}

enum Pending<M, I> {
    Free,
    Message { from: Machine, to: Machine, message: M },
    Done { machine: Machine, life: u32, what: I },
    Wake { machine: Machine, life: u32 },
    Start { machine: Machine, life: u32 },
    Planned(u32),
}

/// Whether a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Down,
    Running,
    /// It stands still, as under SIGSTOP: what reaches it waits.
    Paused {
        until: Micros,
    },
}

/// A machine's clocks: how far and how fast they are off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// How far the monotonic clock was ahead when the world began.
    pub ahead: Micros,
    /// How much too fast it goes; negative for too slow.
    pub drift_per_mille: i64,
    /// How far the wall clock is off, in milliseconds.
    pub wall_off_ms: i64,
}

struct Host {
    state: State,
    /// Counts the times it has stopped.
    life: u32,
    clock: Clock,
    /// When the earliest wake-up that is in the queue comes.
    wake_at: Micros,
}

/// Virtual time, machines and events. `M` are the messages, `I` what disks answer.
pub struct World<M, I> {
    now: Micros,
    events: u64,
    sequence: u64,
    due: BinaryHeap<Reverse<Due>>,
    pending: Vec<Pending<M, I>>,
    free: Vec<u32>,
    hosts: Vec<Host>,
    /// The network between the machines.
    pub network: Network,
    fingerprint: u64,
}

impl<M: Clone, I> World<M, I> {
    /// A world of so many machines, all of them down.
    pub fn new(machines: usize, network: Network) -> Self {
        assert!(machines <= MACHINES_MAX, "more machines than a set of them holds");
        let host =
            |_| Host { state: State::Down, life: 0, clock: Clock::default(), wake_at: Micros::MAX };
        Self {
            now: 0,
            events: 0,
            sequence: 0,
            due: BinaryHeap::with_capacity(256),
            pending: Vec::with_capacity(256),
            free: Vec::with_capacity(256),
            hosts: (0..machines).map(host).collect(),
            network,
            fingerprint: 0,
        }
    }

    /// The time.
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// How many events there were.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Stands for the path that this world took: two runs of a seed must come to the same.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Sets a machine's clocks.
    pub fn set_clock(&mut self, machine: Machine, clock: Clock) {
        self.hosts[usize::from(machine)].clock = clock;
    }

    /// Moves a machine's wall clock.
    pub fn turn_wall_clock(&mut self, machine: Machine, off_ms: i64) {
        self.hosts[usize::from(machine)].clock.wall_off_ms = off_ms;
    }

    /// What the machine's monotonic clock shows.
    pub fn monotonic(&self, machine: Machine) -> Micros {
        let Clock { ahead, drift_per_mille, .. } = self.hosts[usize::from(machine)].clock;
        let drift = self.now as i64 / 1000 * drift_per_mille;
        ahead + self.now.checked_add_signed(drift).expect("clocks do not run backwards")
    }

    /// What the machine's wall clock shows, in milliseconds since 1970.
    pub fn wall_ms(&self, machine: Machine) -> i64 {
        const BEGINNING_MS: i64 = 1_700_000_000_000;
        let off = self.hosts[usize::from(machine)].clock.wall_off_ms;
        BEGINNING_MS + (self.now / MILLI) as i64 + off
    }

    /// Whether the machine is up, paused or not.
    pub fn is_up(&self, machine: Machine) -> bool {
        self.hosts[usize::from(machine)].state != State::Down
    }

    /// Whether the machine is up and does not stand still.
    pub fn is_running(&self, machine: Machine) -> bool {
        self.hosts[usize::from(machine)].state == State::Running
    }

    /// Marks a machine as running; the caller starts what runs on it.
    pub fn mark_started(&mut self, machine: Machine) {
        let host = &mut self.hosts[usize::from(machine)];
        assert_eq!(host.state, State::Down, "a machine starts once");
        host.state = State::Running;
        host.wake_at = Micros::MAX;
    }

    /// Stops a machine at once: whatever was to reach this life of it does not. It starts again after
    /// `down_for`. Returns whether it ran.
    pub fn stop(&mut self, machine: Machine, down_for: Micros) -> bool {
        let host = &mut self.hosts[usize::from(machine)];
        if host.state == State::Down {
            return false;
        }
        host.state = State::Down;
        host.life += 1;
        let life = host.life;
        self.push(self.now + down_for, Pending::Start { machine, life });
        true
    }

    /// Lets a machine stand still. Returns whether it ran.
    pub fn pause(&mut self, machine: Machine, length: Micros) -> bool {
        let until = self.now + length;
        let host = &mut self.hosts[usize::from(machine)];
        let ran = host.state == State::Running;
        if ran {
            host.state = State::Paused { until };
        }
        ran
    }

    /// Ends all pauses, and starts at once what is down.
    pub fn mend(&mut self) {
        self.network.mend();
        for machine in 0..self.hosts.len() as Machine {
            let host = &mut self.hosts[usize::from(machine)];
            match host.state {
                State::Running => {}
                State::Paused { .. } => host.state = State::Running,
                State::Down => {
                    host.life += 1; // Whatever start is still to come is void.
                    let life = host.life;
                    self.push(self.now, Pending::Start { machine, life });
                }
            }
        }
    }

    /// Sends a message: it may arrive late, twice, or never.
    pub fn send(&mut self, from: Machine, to: Machine, message: M) {
        match self.network.arrivals(from, to, self.now) {
            Arrivals::Lost => {}
            Arrivals::Once(delay) => {
                self.push(self.now + delay, Pending::Message { from, to, message });
            }
            Arrivals::Twice(first, second) => {
                let again = message.clone();
                self.push(self.now + first, Pending::Message { from, to, message });
                self.push(self.now + second, Pending::Message { from, to, message: again });
            }
        }
    }

    /// Reports `what` to the machine after `delay`, if it still lives then.
    pub fn done_after(&mut self, machine: Machine, delay: Micros, what: I) {
        let life = self.hosts[usize::from(machine)].life;
        self.push(self.now + delay, Pending::Done { machine, life, what });
    }

    /// Wakes the machine once its monotonic clock shows `at`, or a little before; it must ask again
    /// then.
    pub fn wake_at(&mut self, machine: Machine, at: Micros) {
        let shows = self.monotonic(machine);
        let drift = self.hosts[usize::from(machine)].clock.drift_per_mille;
        // Where the machine's clock is slow the wait is longer; never shorter than a microsecond.
        let wait = at.saturating_sub(shows).saturating_mul(1000) / (1000 + drift) as u64;
        let at = self.now.saturating_add(wait.max(1));
        let host = &mut self.hosts[usize::from(machine)];
        if at < host.wake_at {
            host.wake_at = at;
            let life = host.life;
            self.push(at, Pending::Wake { machine, life });
        }
    }

    /// Has the plan's entry `number` happen at `at`.
    pub fn plan(&mut self, at: Micros, number: u32) {
        self.push(at.max(self.now), Pending::Planned(number));
    }

    fn push(&mut self, at: Micros, pending: Pending<M, I>) {
        let slot = if let Some(slot) = self.free.pop() {
            self.pending[slot as usize] = pending;
            slot
        } else {
            self.pending.push(pending);
            (self.pending.len() - 1) as u32
        };
        self.sequence += 1;
        self.due.push(Reverse(Due { at, sequence: self.sequence, slot }));
    }

    /// What happens next, up to and at `until`; `None` where nothing does. Time moves there.
    pub fn next(&mut self, until: Micros) -> Option<Happening<M, I>> {
        loop {
            if self.due.peek().is_none_or(|Reverse(due)| due.at > until) {
                self.now = self.now.max(until);
                return None;
            }
            let Reverse(Due { at, slot, .. }) = self.due.pop()?;
            self.now = at;
            let pending = std::mem::replace(&mut self.pending[slot as usize], Pending::Free);
            self.free.push(slot);
            if let Some(happening) = self.happens(pending) {
                self.events += 1;
                self.note(&happening);
                return Some(happening);
            }
        }
    }

    /// What is due happens, waits for its machine, or is void.
    fn happens(&mut self, pending: Pending<M, I>) -> Option<Happening<M, I>> {
        let (machine, life) = match &pending {
            Pending::Free => unreachable!("an event happens once"),
            Pending::Planned(number) => return Some(Happening::Planned(*number)),
            Pending::Start { machine, life } => {
                let host = &self.hosts[usize::from(*machine)];
                let due = host.life == *life && host.state == State::Down;
                return due.then_some(Happening::Start { machine: *machine });
            }
            Pending::Message { to, .. } => (*to, None),
            Pending::Done { machine, life, .. } | Pending::Wake { machine, life } => {
                (*machine, Some(*life))
            }
        };
        let host = &mut self.hosts[usize::from(machine)];
        if life.is_some_and(|life| life != host.life) {
            return None;
        }
        match host.state {
            State::Down => return None,
            State::Paused { until } if until > self.now => {
                self.push(until, pending);
                return None;
            }
            State::Paused { .. } => host.state = State::Running,
            State::Running => {}
        }
        Some(match pending {
            Pending::Message { from, to, message } => Happening::Message { from, to, message },
            Pending::Done { machine, what, .. } => Happening::Done { machine, what },
            Pending::Wake { machine, .. } => {
                if host.wake_at > self.now {
                    return None; // An earlier one took its place, and asked anew.
                }
                host.wake_at = Micros::MAX;
                Happening::Wake { machine }
            }
            Pending::Free | Pending::Start { .. } | Pending::Planned(_) => unreachable!(),
        })
    }

    fn note(&mut self, happening: &Happening<M, I>) {
        let what = match happening {
            Happening::Message { from, to, .. } => {
                1 + (u64::from(*from) << 8) + (u64::from(*to) << 16)
            }
            Happening::Done { machine, .. } => 2 + (u64::from(*machine) << 8),
            Happening::Wake { machine } => 3 + (u64::from(*machine) << 8),
            Happening::Start { machine } => 4 + (u64::from(*machine) << 8),
            Happening::Planned(number) => 5 + (u64::from(*number) << 8),
        };
        self.fingerprint = Random::new(self.fingerprint ^ self.now, what).bits();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World<char, u8> {
        let mut world = World::new(2, Network::quiet(2));
        world.mark_started(0);
        world.mark_started(1);
        world
    }

    fn order(world: &mut World<char, u8>) -> Vec<(Micros, u8)> {
        let mut order = Vec::new();
        while let Some(happening) = world.next(10 * SECOND) {
            if let Happening::Done { what, .. } = happening {
                order.push((world.now(), what));
            }
        }
        order
    }

    #[test]
    fn events_come_in_time_and_in_the_order_they_were_made() {
        let mut world = world();
        world.done_after(0, 20, 1);
        world.done_after(0, 10, 2);
        world.done_after(1, 10, 3);
        assert_eq!(order(&mut world), [(10, 2), (10, 3), (20, 1)]);
    }

    #[test]
    fn nothing_reaches_a_later_life() {
        let mut world = world();
        world.done_after(0, 20, 1);
        assert!(world.stop(0, 5));
        assert!(matches!(world.next(SECOND), Some(Happening::Start { machine: 0 })));
        world.mark_started(0);
        assert_eq!(order(&mut world), []);
    }

    #[test]
    fn what_reaches_a_paused_machine_waits() {
        let mut world = world();
        world.done_after(0, 20, 1);
        world.done_after(1, 30, 2);
        assert!(world.pause(0, 100));
        assert_eq!(order(&mut world), [(30, 2), (100, 1)]);
    }

    #[test]
    fn a_slow_clock_waits_longer() {
        let mut world = world();
        world.set_clock(0, Clock { ahead: 500, drift_per_mille: -100, wall_off_ms: 0 });
        world.wake_at(0, 500 + 9 * MILLI);
        assert!(matches!(world.next(SECOND), Some(Happening::Wake { machine: 0 })));
        assert_eq!(world.now(), 10 * MILLI);
        assert_eq!(world.monotonic(0), 500 + 9 * MILLI);
    }
}
