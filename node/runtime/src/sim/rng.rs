//! The one source of chance in a simulated world: whatever happens follows from the seed.
//!
//! `SplitMix64`: eight bytes of state, passes BigCrush, and every seed (0 too) is a good one.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds are the common case (0..1000): the multiplication moves them apart.
        Self(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        // The high half of the product: as even as the multiplication allows, and no division.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of the closed range `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "a range goes up");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.bits(),
        }
    }

    /// An index of a collection of `len` things, which is not empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True with `probability` (0 to 1). Draws nothing where the answer is known.
    pub fn chance(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        ((self.bits() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

#[test]
fn stays_within_bounds_and_reaches_them() {
    let mut rng = Rng::new(0);
    let mut seen = [0_u32; 5];
    for _ in 0..1_000 {
        seen[rng.between(1, 4) as usize] += 1;
    }
    assert_eq!(seen[0], 0);
    assert!(seen[1..].iter().all(|count| *count > 150), "{seen:?}");
    assert!(!rng.chance(0.0));
    assert!(rng.chance(1.0));
}
