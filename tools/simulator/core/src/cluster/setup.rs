//! What a run of a cluster is about, and what its plan has happen: drawn from the seed alone.
//!
//! Separate from the run, which carries it out: what is drawn never depends on what happens.

use std::time::Duration;

use flowstone_partition::Rules;
use flowstone_types::NodeId;

use super::invariants::UNCLEAN;
use crate::network::Weather;
use crate::plan::{Climate, Fault};
use crate::random::Random;
use crate::run::Asked;
use crate::world::{MILLI, Micros};

/// What a run is about, drawn once.
pub(super) struct Setup {
    /// What goes wrong, and how often.
    pub climate: Climate,
    /// How many there are.
    pub brokers: u8,
    /// Of each partition.
    pub replicas: usize,
    /// What replicas are ruled by.
    pub rules: Rules,
    /// How many there are.
    pub producers: u16,
    /// Between two batches of one.
    pub pause: Micros,
    /// Whether clients delete records.
    pub deletes_records: bool,
    /// Whether topics may allow unclean elections.
    pub may_lose: bool,
}

impl Setup {
    pub fn draw(asked: &Asked) -> Self {
        let mut random = Random::new(asked.seed, 1);
        let brokers = random.one_of(&[2, 3, 3, 3, 4, 5]);
        let replicas = random.between(1, 4).clamp(2, u64::from(brokers)) as usize;
        let mut climate = Climate::draw(&mut random);
        let lag_ms = random.one_of(&[500, 1_500, 5_000]);
        if asked.calm {
            climate.weather = Weather::CALM;
        }
        Self {
            climate,
            brokers,
            replicas,
            rules: Rules {
                min_insync_replicas: random.between(1, replicas as u64) as usize,
                lag_time_max: Duration::from_millis(lag_ms),
                fetch_backoff: Duration::from_millis(100),
            },
            producers: random.between(1, 4) as u16,
            pause: random.one_of(&[5 * MILLI, 20 * MILLI, 100 * MILLI]),
            deletes_records: random.chance(250),
            may_lose: random.chance(300),
        }
    }

    /// The plan's entry of this number.
    pub fn deed(&self, number: u32, random: &mut Random) -> Deed {
        if number == 0 {
            return Deed::Create { topic: 1, may_lose: false };
        }
        match random.below(100) {
            0..4 => Deed::Create {
                topic: u64::from(number) + 1,
                may_lose: self.may_lose && random.chance(500),
            },
            4..6 => Deed::Delete { place: random.bits() >> 32 },
            6..10 if self.deletes_records => Deed::DeleteRecords {
                place: random.bits() >> 32,
                part_per_mille: random.below(1001),
            },
            10..14 => Deed::Reassign {
                place: random.bits() >> 32,
                first: random.bits() >> 32,
                off: random.chance(250),
            },
            14..20 => Deed::StopInOrder(self.some_broker(random)),
            20..23 if self.may_lose => {
                const WISHES: [(&str, Option<&str>); 5] = [
                    (UNCLEAN, Some("true")),
                    (UNCLEAN, Some("false")),
                    (UNCLEAN, None),
                    ("retention.ms", Some("86400000")),
                    ("retention.ms", None),
                ];
                let (key, value) = random.one_of(&WISHES);
                Deed::Configure { place: random.bits() >> 32, key, value }
            }
            23..24 if self.may_lose => Deed::Elect { place: random.bits() >> 32 },
            24..27 => Deed::Disconnect(self.some_broker(random)),
            _ => {
                // Everybody but the clients.
                Deed::Fault(self.climate.fault(u64::from(self.brokers) + 1, random))
            }
        }
    }

    fn some_broker(&self, random: &mut Random) -> NodeId {
        NodeId(random.below(u64::from(self.brokers)) as i32)
    }
}

/// What the plan has happen.
pub(super) enum Deed {
    Fault(Fault),
    StopInOrder(NodeId),
    Create { topic: u64, may_lose: bool },
    Delete { place: u64 },
    Reassign { place: u64, first: u64, off: bool },
    DeleteRecords { place: u64, part_per_mille: u64 },
    Configure { place: u64, key: &'static str, value: Option<&'static str> },
    Elect { place: u64 },
    Disconnect(NodeId),
}
