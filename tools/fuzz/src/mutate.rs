//! Bent copies of a known input, from a seed: what the corpus test tries where there is no libFuzzer.

/// splitmix64: small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }
}

/// Lengths, counts and offsets that decoders are wrong about.
const LIES: [&[u8]; 12] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xfe],
    &[0, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0, 0, 0, 0, 0],
    &[0x7f, 0xff],
    &[0],
    &[0xff],
];

/// `data` with one to six changes: bits, bytes, lies about lengths, cuts, repetitions, and pieces of `other`.
pub fn mutate(random: &mut Random, data: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bent = data.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bent.len() + 1);
        match random.below(8) {
            0 if at < bent.len() => bent[at] ^= 1 << random.below(8),
            1 if at < bent.len() => bent[at] = random.bits() as u8,
            2 => bent.insert(at, random.bits() as u8),
            3 => bent.truncate(at),
            4 => {
                let end = (at + 1 + random.below(16)).min(bent.len());
                bent.drain(at..end);
            }
            5 => {
                let piece = bent[at..(at + random.below(64)).min(bent.len())].to_vec();
                bent.splice(at..at, piece);
            }
            6 => {
                let from = random.below(other.len() + 1);
                let piece = &other[from..(from + random.below(64)).min(other.len())];
                bent.splice(at..at, piece.iter().copied());
            }
            _ => {
                let lie = LIES[random.below(LIES.len())];
                let end = (at + lie.len()).min(bent.len());
                bent.splice(at..end, lie.iter().copied());
            }
        }
    }
    bent
}
