//! A scenario's random source: SplitMix64, the same choices for the same seed on every machine.

/// See the file.
pub struct Random(u64);

impl Random {
    /// The source of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `from..to`, which is not empty.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        assert!(from < to, "{from}..{to} is empty");
        from + self.bits() % (to - from)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.between(0, n) == 0
    }

    /// One of these, which are some.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() as u64) as usize]
    }

    /// A source of its own for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}
