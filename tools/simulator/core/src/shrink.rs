//! Makes a failing run smaller: leaves out what it does not need to fail in the same way.
//!
//! Works on the plan's entries by number (delta debugging), so it knows no layer. The order is: half
//! of the entries, a quarter, ... single ones, until nothing more can go; then good weather.

use crate::plan::Keep;
use crate::run::{Asked, Layer, Violation, play};
use crate::story::Story;

/// Most runs that are tried: some seconds' worth.
const TRIES_MAX: usize = 3_000;

/// The smallest run found that breaks the same rule as `asked`, which broke `violation` after
/// `planned` entries of its plan.
pub fn shrink(layer: &Layer, asked: &Asked, planned: u32, violation: &Violation) -> Asked {
    let mut tries = 0;
    let mut fails = |candidate: &Asked| {
        tries += 1;
        let outcome = play(layer, candidate, &mut Story::silent());
        let same = outcome.violation.is_some_and(|found| found.rule == violation.rule);
        (same && tries <= TRIES_MAX).then_some(outcome.planned)
    };
    let all: Vec<u32> = match asked.keep.entries() {
        Some(entries) => entries.to_vec(),
        None => (0..planned).collect(),
    };
    let with =
        |entries: &[u32], calm| Asked { keep: Keep::only(entries.to_vec()), calm, ..asked.clone() };
    let mut best = asked.clone();
    for calm in [asked.calm, true] {
        let entries = best.keep.entries().map_or(all.clone(), <[u32]>::to_vec);
        if fails(&with(&entries, calm)).is_none() {
            continue; // It needs the bad weather.
        }
        let mut entries = entries;
        let mut piece = entries.len().div_ceil(2);
        while piece > 0 {
            let mut at = 0;
            let mut smaller = false;
            while at < entries.len() {
                let mut fewer = entries.clone();
                fewer.drain(at..(at + piece).min(entries.len()));
                if let Some(planned) = fails(&with(&fewer, calm)) {
                    fewer.retain(|number| *number < planned);
                    entries = fewer;
                    smaller = true;
                } else {
                    at += piece;
                }
            }
            // Single entries are tried until none can go: what one needed may be gone now.
            piece = if piece == 1 { usize::from(smaller) } else { piece.div_ceil(2) };
        }
        best = with(&entries, calm);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Progress;

    /// Fails where 3 and 17 both happen; at 20, in another way, where 5 does not.
    fn toy(asked: &Asked, progress: &mut Progress, _: &mut Story) -> Result<(), Violation> {
        let mut seen = 0;
        for number in 0..30 {
            progress.planned = number + 1;
            seen += u32::from(asked.keep.keeps(number) && (number == 3 || number == 17));
            if seen == 2 {
                return Err(Violation { rule: "two".to_owned(), text: String::new() });
            }
            if number == 20 && !asked.keep.keeps(5) {
                return Err(Violation { rule: "other".to_owned(), text: String::new() });
            }
        }
        Ok(())
    }

    #[test]
    fn what_a_failure_does_not_need_goes() {
        let layer = Layer { name: "toy", about: "", play: toy };
        let violation = Violation { rule: "two".to_owned(), text: String::new() };
        let small = shrink(&layer, &Asked::whole(0, 0), 18, &violation);
        assert_eq!(small.keep.entries(), Some(&[3, 17][..]));
        assert!(small.calm, "the weather did not matter");
    }
}
