//! `flowstone-simulator`: plays scenarios for many seeds, or one of them again.

use std::process::ExitCode;

use clap::Parser;
use flowstone_simulator::scenarios::{CRASH_POINTS, SCENARIOS};
use flowstone_simulator::seeds::{TRACE_LINES, report, report_crashes};

/// Where all scenarios are played for many seeds, one in so many is a life whose moments are tried.
const CRASHING_EVERY: u64 = 25;

/// Plays the broker's code in a simulated world: crashes, power cuts, torn writes, failing disks,
/// broken connections. A seed that fails is printed with its events and the command to play it
/// again; the exit code is 1 then.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Only this scenario (default: all).
    #[arg(long, value_parser = names())]
    scenario: Option<String>,
    /// How many crash points to try in the life of each seed of `crash-points`.
    #[arg(long, default_value_t = 100)]
    points: u64,
    /// How many of the last events to print of a seed that fails.
    #[arg(long, default_value_t = TRACE_LINES)]
    trace: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.from..arguments.from + arguments.seeds,
    };
    let wanted = |name: &str| arguments.scenario.as_deref().is_none_or(|only| only == name);
    let mut chosen = SCENARIOS.iter().filter(|scenario| wanted(scenario.name));
    let mut passed = chosen.all(|scenario| report(scenario, seeds.clone(), arguments.trace));
    if passed && wanted(CRASH_POINTS.name) {
        let seeds = match arguments.scenario {
            Some(_) => seeds,
            None => seeds.start..seeds.start + (seeds.end - seeds.start).div_ceil(CRASHING_EVERY),
        };
        passed = report_crashes(&CRASH_POINTS, seeds, arguments.points);
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name).chain([CRASH_POINTS.name]).collect()
}
