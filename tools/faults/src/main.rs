//! `flowstone-faults`: does to the real daemon what machines, disks and networks do, and says whether
//! it kept its promises.
//!
//! Separate from the simulator, which plays the same code in a world of its own: here the kernel, its
//! file systems and its sockets are the real ones, and the daemon is the binary that ships. Invariant:
//! a scenario passes by its own criterion or fails; one that cannot run here says why, and counts as
//! skipped.

mod cgroup;
mod client;
mod load;
mod probe;
mod proxy;
mod report;
mod scenario;
mod scenarios;
mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};

use crate::report::{Outcome, Report, Run};
use crate::scenario::{SCENARIOS, Scenario};
use crate::stage::{Options, Stage};

/// Does to a real daemon what machines, disks and networks do, and says whether it kept its promises.
#[derive(Parser)]
#[command(name = "flowstone-faults", version, max_term_width = 100, after_help = EXAMPLES)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Prints every scenario: what is done, and what must hold.
    List,
    /// Runs scenarios, one after another.
    Run {
        /// Their ids, or `all`.
        #[arg(value_name = "ID", required_unless_present = "quick")]
        ids: Vec<String>,
        /// The quick ones, which take a minute together.
        #[arg(long, conflicts_with = "ids")]
        quick: bool,
        /// Repeats the choices of a run; without it, the clock's.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Rounds, where a scenario has rounds; without it, as many as its criterion asks for.
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// The daemon; without it, the one beside this program.
        #[arg(long, value_name = "FILE")]
        flowstoned: Option<PathBuf>,
        /// Where data are kept while a scenario runs; without it, a folder beside this program.
        #[arg(long, value_name = "DIR")]
        work: Option<PathBuf>,
        /// Writes the report there, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

const EXAMPLES: &str = "\
Examples:
  flowstone-faults list
  flowstone-faults run S2 --seed 7
  flowstone-faults run S10 --rounds 10
  flowstone-faults run all --json faults.json

A failed scenario keeps its folder, with the daemon's log. Exit status: 0 nothing failed, 1 something
did, 2 wrong command line.";

fn main() -> ExitCode {
    let outcome = match Command::parse().what {
        What::List => {
            for scenario in SCENARIOS {
                println!("{scenario}\n");
            }
            Ok(true)
        }
        What::Run { ids, quick, seed, rounds, flowstoned, work, json } => {
            run(&ids, quick, seed, rounds, flowstoned, work, json)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("flowstone-faults: {why:#}");
            ExitCode::from(2)
        }
    }
}

fn run(
    ids: &[String],
    quick: bool,
    seed: Option<u64>,
    rounds: Option<u32>,
    flowstoned: Option<PathBuf>,
    work: Option<PathBuf>,
    json: Option<PathBuf>,
) -> anyhow::Result<bool> {
    let chosen = choose(ids, quick)?;
    let beside = std::env::current_exe().context("where is this program?")?;
    let flowstoned = flowstoned.unwrap_or_else(|| beside.with_file_name("flowstoned"));
    if !flowstoned.is_file() {
        let shown = flowstoned.display();
        bail!(
            "no daemon at {shown}: build flowstone-broker (release), or name it with --flowstoned"
        );
    }
    // One run's folder: two runs at once must not meet.
    let work = work.unwrap_or_else(|| beside.with_file_name("faults-work"));
    let work = work.join(std::process::id().to_string());
    let seed = seed.unwrap_or_else(seed_of_the_clock);
    let mut report = Report::new(seed);
    for scenario in chosen {
        let folder = work.join(scenario.id);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let options = Options { seed, quick, rounds, flowstoned: flowstoned.clone(), folder };
        Report::begins(scenario);
        report.ended(play(scenario, options));
    }
    let _ = std::fs::remove_dir(&work); // Empty, unless something failed.
    if let Some(path) = json {
        std::fs::write(&path, report.json())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.all_well())
}

fn choose(ids: &[String], quick: bool) -> anyhow::Result<Vec<&'static Scenario>> {
    if quick {
        return Ok(SCENARIOS.iter().filter(|scenario| scenario.quick).collect());
    }
    if ids.iter().any(|id| id == "all") {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |id: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.id.eq_ignore_ascii_case(id));
        found.with_context(|| format!("there is no scenario {id:?}: see `flowstone-faults list`"))
    };
    ids.iter().map(find).collect()
}

/// Plays one scenario to its end, whatever that is.
fn play(scenario: &'static Scenario, options: Options) -> Run {
    let began = Instant::now();
    let folder = options.folder.clone();
    let mut stage = Stage::new(options);
    let played = match scenario.needs.missing() {
        Some(reason) => Outcome::Skipped(reason),
        None => match catch_unwind(AssertUnwindSafe(|| (scenario.play)(&mut stage))) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(why)) => Outcome::Failed(why),
            Err(panic) => Outcome::Failed(anyhow!("{}", said(panic.as_ref()))),
        },
    };
    let figures = stage.end();
    if !matches!(played, Outcome::Failed(_)) {
        let _ = std::fs::remove_dir_all(&folder);
    }
    Run { scenario, outcome: played, seconds: began.elapsed().as_secs_f64(), figures, folder }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "panicked".to_owned())
}

fn seed_of_the_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::from(since.unwrap_or(Duration::ZERO).subsec_micros())
}
