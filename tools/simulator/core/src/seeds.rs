//! Runs many seeds on all cores, and says how to see a failure again.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::run::{Asked, Layer, Outcome, Stats, Violation, play};
use crate::shrink::shrink;
use crate::story::Story;

/// Every how many seeds one is run twice: both runs must take the same path.
const TWICE_EVERY: u64 = 64;

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// The run.
    pub asked: Asked,
    /// How much of its plan was due by then.
    pub planned: u32,
    /// What went wrong.
    pub violation: Violation,
}

/// Runs the seeds, on so many threads. Of those that fail, the lowest that was met is returned; what
/// lies behind a failure may not have been run.
pub fn run(
    layer: &Layer,
    seeds: Range<u64>,
    events: u64,
    threads: usize,
) -> Result<Stats, Box<Failure>> {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Stats::default());
    let failed: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut sum = Stats::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match one(layer, seed, events) {
                        Ok(stats) => sum += stats,
                        Err(failure) => {
                            next.fetch_max(seeds.end, Ordering::Relaxed);
                            let mut failed = failed.lock().expect("no thread panics");
                            if failed.as_ref().is_none_or(|other| other.asked.seed > seed) {
                                *failed = Some(failure);
                            }
                        }
                    }
                }
                *total.lock().expect("no thread panics") += sum;
            });
        }
    });
    match failed.into_inner().expect("no thread panics") {
        Some(failure) => Err(failure),
        None => Ok(total.into_inner().expect("no thread panics")),
    }
}

fn one(layer: &Layer, seed: u64, events: u64) -> Result<Stats, Box<Failure>> {
    let asked = Asked::whole(seed, events);
    let Outcome { stats, fingerprint, planned, violation } =
        play(layer, &asked, &mut Story::silent());
    if let Some(violation) = violation {
        return Err(Box::new(Failure { asked, planned, violation }));
    }
    if seed.is_multiple_of(TWICE_EVERY) {
        let again = play(layer, &asked, &mut Story::silent());
        if (again.fingerprint, again.stats) != (fingerprint, stats) {
            let rule = "a seed decides everything".to_owned();
            let text = "two runs of it took different paths".to_owned();
            return Err(Box::new(Failure { asked, planned, violation: Violation { rule, text } }));
        }
    }
    Ok(stats)
}

/// Runs and prints: for the command line; a failure with its story, unless it is to be `brief`. Whether
/// all went well.
pub fn report(layer: &Layer, seeds: Range<u64>, events: u64, threads: usize, brief: bool) -> bool {
    let begun = Instant::now();
    let count = seeds.end - seeds.start;
    let result = run(layer, seeds, events, threads);
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(stats) => {
            println!(
                "{}: {count} seeds in {seconds:.1} s, {} events ({:.0} k/s on {threads} threads), {} faults, \
                 {} elections, {} records committed, {} acknowledged, {} new partition leaders: no rule broken",
                layer.name,
                stats.events,
                stats.events as f64 / seconds / 1e3,
                stats.faults,
                stats.elections,
                stats.committed,
                stats.acknowledged,
                stats.leaders,
            );
            true
        }
        Err(failure) => {
            println!("{}: seed {} failed: {}", layer.name, failure.asked.seed, failure.violation);
            if brief {
                return false;
            }
            println!("the whole run: {}", command(layer, &failure.asked));
            let small = shrink(layer, &failure.asked, failure.planned, &failure.violation);
            println!("made smaller:  {}", command(layer, &small));
            tell(layer, &small, STORY_LINES);
            false
        }
    }
}

/// Lines that are shown of a story, unless all are asked for.
const STORY_LINES: usize = 150;

/// Plays one run and prints its story, or the last lines of it. Whether all went well.
pub fn tell(layer: &Layer, asked: &Asked, lines_max: usize) -> bool {
    let mut story = Story::told();
    let outcome = play(layer, asked, &mut story);
    let lines = story.lines();
    if lines.len() > lines_max {
        println!("({} lines before: --lines {})", lines.len() - lines_max, lines.len());
    }
    for line in &lines[lines.len().saturating_sub(lines_max)..] {
        println!("{line}");
    }
    if let Some(violation) = outcome.violation {
        println!("broken after {} events: {violation}", outcome.stats.events);
        return false;
    }
    println!("no rule broken in {} events", outcome.stats.events);
    true
}

/// The command that plays this run again.
fn command(layer: &Layer, asked: &Asked) -> String {
    let Asked { seed, events, keep, calm } = asked;
    let calm = if *calm { " --calm" } else { "" };
    let kept = match keep.entries() {
        None => String::new(),
        Some([]) => " --keep none".to_owned(),
        Some(entries) => {
            let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
            format!(" --keep {}", entries.join(","))
        }
    };
    format!("core-sim --layer {} --seed {seed} --events {events}{calm}{kept}", layer.name)
}
