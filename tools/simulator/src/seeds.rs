//! Runs scenarios for many seeds, and says how to see a failure again.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::time::Instant;

use flowstone_runtime::sim::World;

/// Every how many seeds one is run twice: both runs must take the same path.
const TWICE_EVERY: u64 = 50;
/// Events that are shown of a failed run, unless said otherwise.
pub const TRACE_LINES: usize = 400;

/// How often a seed that took two paths is played to see them.
const REPEATS_MAX: u32 = 50;

/// A world and what happens in it. Broken promises, and the program's own, are panics.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Plays it.
    pub play: fn(&World) -> Stats,
}

/// Many worlds for one seed: a life is recorded, and then ended at each of its moments.
#[derive(Clone, Copy)]
pub struct Crashing {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Plays a seed's life and tries up to so many crash points in it. Panics where one is wrong.
    pub play: fn(u64, u64) -> Stats,
}

/// What happened in a run, or in many.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Records that producers sent.
    pub sent: u64,
    /// Records that were acknowledged.
    pub acknowledged: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Machines that lost power.
    pub power_losses: u64,
    /// Crash points that were tried.
    pub points: u64,
    /// Events of the simulation.
    pub events: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.crashes += other.crashes;
        self.power_losses += other.power_losses;
        self.points += other.points;
        self.events += other.events;
    }
}

/// A seed that failed.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub message: String,
    /// The last events before.
    pub trace: String,
}

/// Runs `scenario` for each of `seeds`, up to the first failure, of which it keeps so many events.
pub fn run(scenario: &Scenario, seeds: Range<u64>, trace_lines: usize) -> Result<Stats, Failure> {
    let mut total = Stats::default();
    for seed in seeds {
        let (stats, hash) =
            once(scenario, seed, 0).map_err(|_| replay(scenario, seed, trace_lines))?;
        if seed.is_multiple_of(TWICE_EVERY) {
            let again = once(scenario, seed, 0).map_err(|_| replay(scenario, seed, trace_lines))?;
            if again != (stats, hash) {
                return Err(two_paths(scenario, seed));
            }
        }
        total += stats;
    }
    Ok(total)
}

/// Runs a seed that failed once more, with its trace.
fn replay(scenario: &Scenario, seed: u64, trace_lines: usize) -> Failure {
    once(scenario, seed, trace_lines).err().unwrap_or_else(|| {
        let message = "failed, and did not when it was run again: not deterministic".to_owned();
        Failure { seed, message, trace: String::new() }
    })
}

/// Runs a seed that took two paths until it does so again, and shows where they part.
fn two_paths(scenario: &Scenario, seed: u64) -> Failure {
    let message = "two runs take different paths".to_owned();
    let whole = |_| {
        let world = World::new(seed);
        world.keep_trace(usize::MAX);
        let _ = quietly(|| catch_unwind(AssertUnwindSafe(|| (scenario.play)(&world))));
        world.trace()
    };
    let first = whole(0);
    let other = (0..REPEATS_MAX).map(whole).find(|other| *other != first);
    let Some(second) = other else {
        return Failure { seed, message, trace: "and not again\n".to_owned() };
    };
    let (mut first, mut second) = (first.lines(), second.lines());
    let mut trace = VecDeque::new();
    loop {
        match (first.next(), second.next()) {
            (Some(one), Some(other)) if one == other => {
                trace.push_back(format!("{one}\n"));
                if trace.len() > TRACE_LINES / 10 {
                    trace.pop_front();
                }
            }
            (one, other) => {
                trace.push_back(format!("first:  {one:?}\nsecond: {other:?}\n"));
                return Failure { seed, message, trace: trace.into_iter().collect() };
            }
        }
    }
}

fn once(scenario: &Scenario, seed: u64, lines: usize) -> Result<(Stats, u64), Failure> {
    let world = World::new(seed);
    world.keep_trace(lines);
    let result = quietly(|| catch_unwind(AssertUnwindSafe(|| (scenario.play)(&world))));
    match result {
        Ok(stats) => Ok((Stats { events: world.events(), ..stats }, world.trace_hash())),
        Err(panic) => {
            let place = PLACE.take();
            let message = format!("{}{place}", text(&*panic));
            Err(Failure { seed, message, trace: world.trace() })
        }
    }
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `f` with a panic hook that only notes where it happened.
fn quietly<T>(f: impl FnOnce() -> T) -> T {
    let before = take_hook();
    set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
        PLACE.set(place.unwrap_or_default());
    }));
    let result = f();
    set_hook(before);
    result
}

fn text(panic: &(dyn Any + Send)) -> String {
    let plain = panic.downcast_ref::<&str>().map(ToString::to_string);
    plain.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs and prints: for the command line. Whether all went well.
pub fn report(scenario: &Scenario, seeds: Range<u64>, trace_lines: usize) -> bool {
    println!("{}: {}", scenario.name, scenario.about);
    let begun = Instant::now();
    let count = seeds.end - seeds.start;
    let result = run(scenario, seeds, trace_lines);
    let seconds = begun.elapsed().as_secs_f64();
    match result {
        Ok(stats) => {
            let rate = stats.events as f64 / seconds / 1e3;
            println!(
                "{}: {count} seeds in {seconds:.1} s, {} events ({rate:.0} k/s), {} records sent, \
                 {} acknowledged, {} crashes, {} power losses: nothing lost, duplicated, \
                 reordered or torn",
                scenario.name,
                stats.events,
                stats.sent,
                stats.acknowledged,
                stats.crashes,
                stats.power_losses,
            );
            true
        }
        Err(failure) => {
            print!("{}", failure.trace);
            println!("{}: seed {} failed: {}", scenario.name, failure.seed, failure.message);
            println!(
                "again: cargo run --release -p flowstone-simulator -- --scenario {} --seed {}",
                scenario.name, failure.seed
            );
            false
        }
    }
}

/// Tries up to `points` crash points in the lives of each of `seeds`, and prints: for the command line.
/// Whether all went well.
pub fn report_crashes(crashing: &Crashing, seeds: Range<u64>, points: u64) -> bool {
    println!("{}: {}", crashing.name, crashing.about);
    let (begun, count, mut total) = (Instant::now(), seeds.end - seeds.start, Stats::default());
    for seed in seeds {
        let played = quietly(|| catch_unwind(|| (crashing.play)(seed, points)));
        match played {
            Ok(stats) => total += stats,
            Err(panic) => {
                let (name, message, place) = (crashing.name, text(&*panic), PLACE.take());
                println!("{name}: seed {seed} failed: {message}{place}");
                println!("{name}: {} crash points in the seeds before it", total.points);
                println!(
                    "again: cargo run --release -p flowstone-simulator -- --scenario {name} --seed {seed} \
                     --points {points}"
                );
                return false;
            }
        }
    }
    println!(
        "{}: {count} seeds in {:.1} s, {} crash points, {} acknowledgements recorded: each recovery found \
         all of them, and the second one the same",
        crashing.name,
        begun.elapsed().as_secs_f64(),
        total.points,
        total.acknowledged,
    );
    true
}
