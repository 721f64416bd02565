//! On which brokers new partitions go: striped over racks, and over the brokers of each rack.
//!
//! What holds: no broker twice in a partition, and the first replica is on an unfenced broker. What is
//! wished for, in this order: replicas of a partition on different racks; all brokers used evenly;
//! fenced brokers only where the others run out. With racks A, B, C of three brokers each, and no random
//! offsets: A0 B0 C0, then B1 C1 A1, then C2 A2 B2.

use crate::Random;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_types::NodeId;

/// A broker that can take replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsableBroker {
    /// Its node id.
    pub id: NodeId,
    /// Its rack.
    pub rack: Option<String>,
    /// Whether it is fenced: it cannot be the first replica.
    pub fenced: bool,
}

/// Places `partitions` partitions of `replicas` replicas; or says why that cannot be.
pub fn place(
    brokers: &[UsableBroker],
    partitions: usize,
    replicas: usize,
    random: &mut Random<'_>,
) -> Result<Vec<Vec<NodeId>>, String> {
    if replicas == 0 {
        return Err("the replication factor must be positive.".into());
    }
    if brokers.iter().all(|broker| broker.fenced) {
        return Err("All brokers are currently fenced.".into());
    }
    if replicas > brokers.len() {
        return Err(format!(
            "The target replication factor of {replicas} cannot be reached because only {} broker(s) are registered.",
            brokers.len()
        ));
    }
    let mut stripes = Stripes::new(brokers, random);
    Ok((0..partitions).map(|_| stripes.place_one(replicas, random)).collect())
}

struct Stripes {
    racks: Vec<Rack>,
    unfenced: usize,
    /// The rack that the next partition starts with.
    first: usize,
    /// Partitions placed since the racks were shuffled.
    turn: usize,
}

struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

/// Brokers taken one after the other, from another one at each turn.
struct Ring {
    brokers: Vec<NodeId>,
    start: usize,
    taken: usize,
    turn: usize,
}

impl Ring {
    fn new(mut brokers: Vec<NodeId>, random: &mut Random<'_>) -> Self {
        brokers.sort_unstable();
        let start = if brokers.is_empty() { 0 } else { random.below(brokers.len()) };
        Self { brokers, start, taken: 0, turn: 0 }
    }

    /// The next broker of this turn; `None` once all were taken.
    fn next(&mut self, turn: usize) -> Option<NodeId> {
        let count = self.brokers.len();
        if self.turn != turn {
            self.turn = turn;
            self.taken = 0;
            self.start = (self.start + 1) % count.max(1);
        }
        if self.taken == count {
            return None;
        }
        self.taken += 1;
        Some(self.brokers[(self.start + self.taken - 1) % count])
    }
}

impl Stripes {
    fn new(brokers: &[UsableBroker], random: &mut Random<'_>) -> Self {
        let mut names: Vec<&Option<String>> = brokers.iter().map(|broker| &broker.rack).collect();
        names.sort();
        names.dedup();
        let mut ring = |rack: &Option<String>, fenced: bool| {
            let fits = |b: &&UsableBroker| b.rack == *rack && b.fenced == fenced;
            Ring::new(brokers.iter().filter(fits).map(|broker| broker.id).collect(), random)
        };
        let racks: Vec<_> = names
            .into_iter()
            .map(|rack| Rack { fenced: ring(rack, true), unfenced: ring(rack, false) })
            .collect();
        let unfenced = brokers.iter().filter(|broker| !broker.fenced).count();
        let first = random.below(racks.len());
        Self { racks, unfenced, first, turn: 0 }
    }

    /// The caller has checked that there is an unfenced broker, and that there are enough.
    fn place_one(&mut self, replicas: usize, random: &mut Random<'_>) -> Vec<NodeId> {
        // Every broker has been first about once: go on in another order, lest the same groups of
        // brokers come again. One broker alone has no other order.
        if self.turn == self.unfenced && self.unfenced > 1 {
            self.shuffle(random);
            self.turn = 0;
        }
        let (turn, count) = (self.turn, self.racks.len());
        self.first %= count;
        let mut placed = Vec::with_capacity(replicas);
        let mut leading = self.first;
        loop {
            if let Some(broker) = self.racks[leading].unfenced.next(turn) {
                placed.push(broker);
                break;
            }
            leading = (leading + 1) % count;
        }
        // The rack of the first replica is passed over once; it may be another than the first of all.
        let mut skip = Some(leading);
        let mut next = self.first;
        while placed.len() < replicas {
            if skip == Some(next) {
                skip = None;
            } else {
                let rack = &mut self.racks[next];
                placed.extend(rack.unfenced.next(turn).or_else(|| rack.fenced.next(turn)));
            }
            next = (next + 1) % count;
        }
        self.turn += 1;
        self.first += 1;
        placed
    }

    fn shuffle(&mut self, random: &mut Random<'_>) {
        random.shuffle(&mut self.racks);
        for rack in &mut self.racks {
            random.shuffle(&mut rack.unfenced.brokers);
            random.shuffle(&mut rack.fenced.brokers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec;

    fn broker(id: i32, rack: &str, fenced: bool) -> UsableBroker {
        UsableBroker { id: NodeId(id), rack: (!rack.is_empty()).then(|| rack.into()), fenced }
    }

    fn placed(brokers: &[UsableBroker], partitions: usize, replicas: usize) -> Vec<Vec<i32>> {
        let mut zero = || 0;
        let all = place(brokers, partitions, replicas, &mut Random(&mut zero)).unwrap();
        all.iter().map(|replicas| replicas.iter().map(|id| id.0).collect()).collect()
    }

    /// The example at this file's head.
    #[test]
    fn stripes_run_over_racks_and_brokers() {
        let brokers: Vec<_> =
            (0..9).map(|id| broker(id, ["A", "B", "C"][id as usize / 3], false)).collect();
        assert_eq!(placed(&brokers, 3, 3), [[0, 3, 6], [4, 7, 1], [8, 2, 5]]);
    }

    #[test]
    fn one_broker_takes_every_partition() {
        assert_eq!(placed(&[broker(5, "", false)], 4, 1), vec![vec![5]; 4]);
    }

    #[test]
    fn fenced_brokers_come_last_and_never_lead() {
        let brokers = [broker(0, "", true), broker(1, "", false), broker(2, "", false)];
        for replicas in placed(&brokers, 20, 3) {
            assert_ne!(replicas[0], 0);
            assert_eq!(replicas[2], 0);
        }
        assert!(placed(&brokers, 20, 2).iter().all(|replicas| !replicas.contains(&0)));
    }

    #[test]
    fn random_placements_are_even_and_never_double() {
        let brokers: Vec<_> =
            (0..7).map(|id| broker(id, if id % 2 == 0 { "A" } else { "B" }, id == 6)).collect();
        let mut state = 42_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let mut led = BTreeMap::new();
        for replicas in place(&brokers, 600, 3, &mut Random(&mut draw)).unwrap() {
            let racks: Vec<_> = replicas.iter().map(|id| id.0 % 2).collect();
            assert!(racks.contains(&0) && racks.contains(&1), "both racks");
            let mut unique = replicas.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), 3);
            *led.entry(replicas[0]).or_insert(0) += 1;
        }
        assert!(led.len() == 6 && led.values().all(|count| (60..=140).contains(count)), "{led:?}");
    }

    #[test]
    fn what_cannot_be_placed_is_refused() {
        let refused = |brokers: &[UsableBroker], replicas| {
            place(brokers, 1, replicas, &mut Random(&mut || 0)).unwrap_err()
        };
        assert!(refused(&[broker(1, "", false)], 2).contains("only 1 broker(s) are registered"));
        assert_eq!(refused(&[broker(1, "", true)], 1), "All brokers are currently fenced.");
        assert_eq!(refused(&[], 1), "All brokers are currently fenced.");
        assert!(refused(&[broker(1, "", false)], 0).contains("positive"));
    }
}
