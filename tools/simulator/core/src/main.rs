//! `core-sim`: plays the cores for many seeds, or one of them again.

use std::ops::Range;
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use flowstone_core_simulator::LAYERS;
use flowstone_core_simulator::plan::Keep;
use flowstone_core_simulator::run::{Asked, note_panics};
use flowstone_core_simulator::seeds::{report, tell};

/// Plays quorum, controller and partitions in a simulated world: crashes, power losses, torn and lost
/// writes, cut and slow networks, pauses, wrong clocks. A seed that breaks a rule is made smaller and
/// told as a story, with the command that plays it again; the exit code is 1 then.
#[derive(Parser)]
struct Arguments {
    /// Which seeds: 500, or 0..500.
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Only this seed; its story is printed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Events of each seed at least, before the faults end and everything has to settle.
    #[arg(long, default_value_t = 2_000)]
    events: u64,
    /// Only this layer (default: all).
    #[arg(long, value_parser = LAYERS.map(|layer| layer.name))]
    layer: Option<String>,
    /// Only these entries of the plan happen, by number, or none.
    #[arg(long, requires = "seed", value_parser = keep)]
    keep: Option<Keep>,
    /// With a good network and good clocks, whatever the seed says.
    #[arg(long, requires = "seed")]
    calm: bool,
    /// Lines to print of a story, from its end.
    #[arg(long, default_value_t = 400)]
    lines: usize,
    /// Only says which seed failed, and which rule was broken: no story.
    #[arg(long)]
    brief: bool,
    /// Threads to run on (default: as many as there are cores).
    #[arg(long)]
    threads: Option<usize>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
    match text.split_once("..") {
        Some((from, to)) => Ok(number(from)?..number(to)?),
        None => Ok(0..number(text)?),
    }
}

fn keep(text: &str) -> Result<Keep, String> {
    if text == "none" {
        return Ok(Keep::only(Vec::new()));
    }
    let numbers =
        text.split(',').map(|text| text.parse().map_err(|_| format!("{text} is no number")));
    numbers.collect::<Result<_, _>>().map(Keep::only)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    note_panics();
    let wanted = |name: &str| arguments.layer.as_deref().is_none_or(|only| only == name);
    let mut chosen = LAYERS.iter().filter(|layer| wanted(layer.name));
    let threads = arguments.threads.or_else(|| available_parallelism().ok().map(usize::from));
    let threads = threads.unwrap_or(1);
    let passed = chosen.all(|layer| {
        if let Some(seed) = arguments.seed {
            let keep = arguments.keep.clone().unwrap_or_default();
            let asked = Asked { seed, events: arguments.events, keep, calm: arguments.calm };
            return tell(layer, &asked, arguments.lines);
        }
        report(layer, arguments.seeds.clone(), arguments.events, threads, arguments.brief)
    });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
