//! `flowstone-instructions`: how many instructions the pure part of a produce request takes, held against a budget.
//!
//! A count is repeatable where a time is not. Each shape runs twice under callgrind, with few and with many requests, and the
//! difference divided by the requests between is what one of them takes: start and inputs cancel out. More than the budget and
//! its margin fails; far less asks for a new budget, so that the guard stays close. To renew it, put the lines that this prints into
//! `benches/micro/budget.txt`, in the commit that changed the count, with the reason.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use flowstone_batch::Rules;
use flowstone_micro::{batch, log, produce_frame, produce_path};

/// Lines of `records value_bytes instructions`.
const BUDGET: &str = include_str!("../budget.txt");
/// What compilers of other days and processors with other instructions may differ by.
const MARGIN_PERCENT: u64 = 8;
/// Requests of the two runs.
const FEW: u64 = 100;
const MANY: u64 = 600;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.as_slice() {
        [] => guard(),
        [run, records, value_bytes, requests] if run == "run" => {
            run_path(records, value_bytes, requests)
        }
        _ => Err(anyhow::anyhow!("no arguments, please: the budget says what is counted")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("flowstone-instructions: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// Counts every shape of the budget.
fn guard() -> Result<()> {
    let mut misses = Vec::new();
    for line in BUDGET.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [records, value_bytes, budget] = words.as_slice() else {
            bail!("budget.txt: {line:?}")
        };
        let budget: u64 = budget.parse().context("budget.txt")?;
        let few = count(records, value_bytes, FEW)?;
        let many = count(records, value_bytes, MANY)?;
        let each = (many - few) / (MANY - FEW);
        println!("{records} {value_bytes} {each}");
        if each.abs_diff(budget) * 100 > budget * MARGIN_PERCENT {
            misses.push(format!(
                "{records} records of {value_bytes} bytes: {each}, the budget is {budget}"
            ));
        }
    }
    if !misses.is_empty() {
        bail!(
            "instructions of a produce request left their budget by more than {MARGIN_PERCENT} %:\n  {}",
            misses.join("\n  ")
        );
    }
    Ok(())
}

/// Instructions of one run of ourselves under callgrind.
fn count(records: &str, value_bytes: &str, requests: u64) -> Result<u64> {
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", records, value_bytes, &requests.to_string()])
        .output()
        .context("valgrind is needed: tools/clients/setup.sh valgrind")?;
    let told = String::from_utf8_lossy(&done.stderr);
    let line = told.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = line.with_context(|| format!("callgrind counted nothing:\n{told}"))?;
    Ok(count.trim().parse()?)
}

/// What is counted.
fn run_path(records: &str, value_bytes: &str, requests: &str) -> Result<()> {
    let frame = produce_frame(&batch(records.parse()?, value_bytes.parse()?));
    let (mut log, rules) = (log(), Rules::default());
    let mut bytes = 0;
    for _ in 0..requests.parse::<u64>()? {
        bytes += produce_path(&frame, &mut log, &rules);
    }
    println!("{bytes} bytes of responses");
    Ok(())
}
