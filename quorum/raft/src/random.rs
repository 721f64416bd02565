//! Chance that comes from a seed: the same seed and the same inputs give the same effects.

use core::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): enough to keep voters from standing at the same time.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Less than `limit`; zero where that is zero.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(if nanos == 0 { 0 } else { self.draw() % nanos })
    }

    /// One of `count`, which is not zero.
    pub const fn index(&mut self, count: usize) -> usize {
        (self.draw() % count as u64) as usize
    }
}
