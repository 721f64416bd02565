//! The network between machines: when a message arrives, whether twice, whether ever.
//!
//! Separate so that what a fault does to a message is said once. A cut is one-way: a machine may hear
//! others and not be heard.

use crate::random::Random;
use crate::world::{Machine, Micros};

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrivals {
    /// It never arrives.
    Lost,
    /// It arrives after this time.
    Once(Micros),
    /// It arrives twice.
    Twice(Micros, Micros),
}

/// How the network behaves while nothing in particular is wrong with it.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way.
    pub delay_min: Micros,
    /// What is added at most, usually; one message in 64 takes up to 16 times that.
    pub jitter: Micros,
    /// Messages of a thousand that are lost.
    pub loss_per_mille: u64,
    /// Messages of a thousand that arrive twice.
    pub twice_per_mille: u64,
}

impl Weather {
    /// A good network: nothing is lost, little is late.
    pub const CALM: Self =
        Self { delay_min: 200, jitter: 100, loss_per_mille: 0, twice_per_mille: 0 };
}

#[derive(Clone, Debug)]
struct Link {
    random: Random,
    cut_until: Micros,
}

/// All links, and the weather on them.
#[derive(Clone, Debug)]
pub struct Network {
    machines: usize,
    links: Vec<Link>,
    weather: Weather,
}

impl Network {
    /// A network of so many machines.
    pub fn new(machines: usize, weather: Weather, seed: u64) -> Self {
        const PURPOSE: u64 = 1 << 32;
        let link = |n: usize| Link { random: Random::new(seed, PURPOSE + n as u64), cut_until: 0 };
        Self { machines, links: (0..machines * machines).map(link).collect(), weather }
    }

    /// A network that only takes its time.
    pub fn quiet(machines: usize) -> Self {
        Self::new(machines, Weather::CALM, 0)
    }

    /// Changes the weather.
    pub const fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// Nothing that `from` sends reaches `to` until then.
    pub fn cut(&mut self, from: Machine, to: Machine, until: Micros) {
        let link = self.link(from, to);
        link.cut_until = link.cut_until.max(until);
    }

    /// Cuts all links between `side` (a set of bits) and the others, both ways.
    pub fn part(&mut self, side: u32, until: Micros) {
        for from in 0..self.machines as Machine {
            for to in 0..self.machines as Machine {
                if (side >> from) & 1 != (side >> to) & 1 {
                    self.cut(from, to, until);
                }
            }
        }
    }

    /// All links hold, in calm weather.
    pub fn mend(&mut self) {
        self.weather = Weather::CALM;
        for link in &mut self.links {
            link.cut_until = 0;
        }
    }

    /// What becomes of a message that is sent now.
    pub fn arrivals(&mut self, from: Machine, to: Machine, now: Micros) -> Arrivals {
        let weather = self.weather;
        let link = self.link(from, to);
        if link.cut_until > now || link.random.chance(weather.loss_per_mille) {
            return Arrivals::Lost;
        }
        let first = delay(weather, &mut link.random);
        if link.random.chance(weather.twice_per_mille) {
            return Arrivals::Twice(first, delay(weather, &mut link.random));
        }
        Arrivals::Once(first)
    }

    fn link(&mut self, from: Machine, to: Machine) -> &mut Link {
        &mut self.links[usize::from(from) * self.machines + usize::from(to)]
    }
}

fn delay(weather: Weather, random: &mut Random) -> Micros {
    let bits = random.bits();
    let longest = if bits.is_multiple_of(64) { weather.jitter * 16 } else { weather.jitter };
    weather.delay_min + (bits >> 8) % (longest + 1)
}
