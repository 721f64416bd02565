//! What goes wrong in a run, as data: so that it can be told, and so that a failing run can be made
//! smaller by leaving parts of it out.
//!
//! Separate from the runs: a plan follows from the seed alone, never from what happens. Each entry
//! carries its own end (a machine that goes down comes up again by itself), so any subset of a plan
//! is a plan.

use std::fmt;

use crate::network::Weather;
use crate::random::Random;
use crate::world::{Clock, MILLI, Machine, Micros, SECOND};

/// What goes wrong with machines and network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A process is killed: what it wrote stays, flushed or not.
    Kill {
        /// Which machine's.
        machine: Machine,
        /// How long it is down.
        down_for: Micros,
    },
    /// Machines lose power in the same instant: what was not flushed may be gone, or torn.
    PowerLoss {
        /// Which machines, as bits.
        machines: u32,
        /// How long they are down.
        down_for: Micros,
    },
    /// A process stands still, then goes on as if nothing had been.
    Pause {
        /// Which machine's.
        machine: Machine,
        /// How long.
        length: Micros,
    },
    /// One machine is not heard by another.
    Cut {
        /// Who is not heard.
        from: Machine,
        /// By whom.
        to: Machine,
        /// How long.
        length: Micros,
    },
    /// One machine is heard by nobody, but hears.
    Mute {
        /// Which.
        machine: Machine,
        /// How long.
        length: Micros,
    },
    /// The network falls into two parts.
    Partition {
        /// The machines of one part, as bits.
        side: u32,
        /// How long.
        length: Micros,
    },
    /// A wall clock jumps.
    Clock {
        /// Whose.
        machine: Machine,
        /// How far it is off from now on, in milliseconds.
        off_ms: i64,
    },
    /// A machine's disk takes long.
    SlowDisk {
        /// Whose.
        machine: Machine,
        /// How long it is slow.
        length: Micros,
    },
}

impl Fault {
    /// In words; `name` says who a machine is.
    pub fn told(&self, name: impl Fn(Machine) -> String) -> String {
        let set = |machines: u32| {
            let members = (0..32).filter(|n| (machines >> n) & 1 == 1).map(&name);
            members.collect::<Vec<_>>().join(", ")
        };
        match *self {
            Self::Kill { machine, down_for } => {
                format!("the process of {} is killed, for {}", name(machine), Seconds(down_for))
            }
            Self::PowerLoss { machines, down_for } => {
                format!("power is lost at {}, for {}", set(machines), Seconds(down_for))
            }
            Self::Pause { machine, length } => {
                format!("the process of {} stands still for {}", name(machine), Seconds(length))
            }
            Self::Cut { from, to, length } => {
                format!("{} does not hear {} for {}", name(to), name(from), Seconds(length))
            }
            Self::Mute { machine, length } => {
                format!("nobody hears {} for {}", name(machine), Seconds(length))
            }
            Self::Partition { side, length } => {
                format!("the network parts {} from the others for {}", set(side), Seconds(length))
            }
            Self::Clock { machine, off_ms } => {
                format!("the wall clock of {} is off by {off_ms} ms from now on", name(machine))
            }
            Self::SlowDisk { machine, length } => {
                format!("the disk of {} is slow for {}", name(machine), Seconds(length))
            }
        }
    }
}

/// A length of virtual time, for people.
pub struct Seconds(pub Micros);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0 as f64 / SECOND as f64)
    }
}

/// Which kinds of faults a run has, and how often. Each run draws its own: one in which everything
/// fails all the time finds less than many in which a few things do.
#[derive(Clone, Debug)]
pub struct Climate {
    kinds: Vec<Kind>,
    /// The usual time between two faults.
    gap: Micros,
    /// The usual length of one.
    length: Micros,
    /// The weather on the network.
    pub weather: Weather,
    /// Usual time that a flush takes.
    pub flush: Micros,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Kill,
    PowerLoss,
    AllPower,
    Pause,
    Cut,
    Mute,
    Isolate,
    Partition,
    Clock,
    SlowDisk,
}

const KINDS: [Kind; 10] = [
    Kind::Kill,
    Kind::PowerLoss,
    Kind::AllPower,
    Kind::Pause,
    Kind::Cut,
    Kind::Mute,
    Kind::Isolate,
    Kind::Partition,
    Kind::Clock,
    Kind::SlowDisk,
];

impl Climate {
    /// Some climate.
    pub fn draw(random: &mut Random) -> Self {
        let mut kinds: Vec<_> = KINDS.into_iter().filter(|_| random.chance(400)).collect();
        if kinds.is_empty() {
            kinds.push(random.one_of(&KINDS));
        }
        let weather = Weather {
            delay_min: random.one_of(&[100, 500, 2 * MILLI, 20 * MILLI]),
            jitter: random.one_of(&[0, 200, 2 * MILLI, 20 * MILLI, 200 * MILLI]),
            loss_per_mille: random.one_of(&[0, 0, 1, 10, 50, 200]),
            twice_per_mille: random.one_of(&[0, 0, 1, 20, 100]),
        };
        Self {
            kinds,
            gap: random.one_of(&[SECOND, 3 * SECOND, 8 * SECOND, 20 * SECOND]),
            length: random.one_of(&[100 * MILLI, SECOND, 3 * SECOND, 10 * SECOND]),
            weather,
            flush: random.one_of(&[50, MILLI, 10 * MILLI, 100 * MILLI]),
        }
    }

    /// The time to the next fault.
    pub fn gap(&self, random: &mut Random) -> Micros {
        // Faults come in bursts: the second while the first is not over is what finds things.
        if random.chance(300) { random.below(50 * MILLI) } else { random.below(2 * self.gap) }
    }

    /// Some fault that befalls one of `machines`.
    pub fn fault(&self, machines: u64, random: &mut Random) -> Fault {
        let length = MILLI + random.below(2 * self.length);
        let machine = random.below(machines) as Machine;
        let all = ((1_u64 << machines) - 1) as u32;
        match random.one_of(&self.kinds) {
            Kind::Kill => Fault::Kill { machine, down_for: length },
            Kind::PowerLoss => {
                let machines = 1 << machine | (random.bits() as u32 & all & random.bits() as u32);
                Fault::PowerLoss { machines, down_for: length }
            }
            Kind::AllPower => Fault::PowerLoss { machines: all, down_for: length },
            Kind::Pause => Fault::Pause { machine, length },
            Kind::Cut => {
                let other = random.below(machines) as Machine;
                Fault::Cut { from: machine, to: other, length }
            }
            Kind::Mute => Fault::Mute { machine, length },
            Kind::Isolate => Fault::Partition { side: 1 << machine, length },
            Kind::Partition => Fault::Partition { side: random.bits() as u32 & all, length },
            Kind::Clock => {
                const HOUR_MS: u64 = 3_600_000;
                let off_ms = random.below(2 * HOUR_MS) as i64 - HOUR_MS as i64;
                Fault::Clock { machine, off_ms }
            }
            Kind::SlowDisk => Fault::SlowDisk { machine, length },
        }
    }
}

/// Clocks of a machine: most are good, some are far off.
pub fn draw_clock(random: &mut Random) -> Clock {
    Clock {
        ahead: random.below(100 * SECOND),
        drift_per_mille: random.one_of(&[0, 0, 0, 1, -1, 30, -30, 100]),
        wall_off_ms: random.one_of(&[0, 0, 5, -5, 60_000, -60_000]),
    }
}

/// Which entries of a plan happen: all, or those that a shrunk story keeps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keep(Option<Vec<u32>>);

impl Keep {
    /// Everything happens.
    pub const ALL: Self = Self(None);

    /// Only these entries do.
    pub fn only(mut entries: Vec<u32>) -> Self {
        entries.sort_unstable();
        Self(Some(entries))
    }

    /// Whether the entry of this number happens.
    pub fn keeps(&self, number: u32) -> bool {
        self.0.as_ref().is_none_or(|entries| entries.binary_search(&number).is_ok())
    }

    /// The entries, where only some happen.
    pub fn entries(&self) -> Option<&[u32]> {
        self.0.as_deref()
    }
}
