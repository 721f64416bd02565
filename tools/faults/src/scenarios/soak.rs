//! S37: half load through retention, for as long as one likes, with faults at random.
//!
//! In the first third the daemon is killed and stopped, too; behind it one process lives through all
//! other faults, so that a leak has the time to show. Leaves a chart and the samples behind.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::client::{Raw, header};
use crate::load::{Identity, Load, Plan};
use crate::probe::{Held, MIB, held};
use crate::proxy::{Answers, Proxy};
use crate::scenarios::chart;
use crate::stage::{Daemon, Launch, Random, Stage};

/// Minutes, where nobody says how many.
const MINUTES: (u32, u32) = (1, 5);
/// How long full load is measured, of which the soak's is about half.
const FULL_FOR: Duration = Duration::from_secs(5);
/// Time from one fault to the next, in seconds.
const FAULT_AFTER: (u64, u64) = (5, 15);
/// Share of what follows the kills that is warm-up.
const WARM_UP: f64 = 0.25;
/// What memory may grow by over the measured time, on a straight line through all samples: of its mean,
/// or, where that is more, what an allocator's pools come and go by.
const GROWTH_SHARE_MAX: f64 = 0.05;
const GROWTH_BYTES_MAX: f64 = 12.0 * MIB as f64;
/// Files and threads that the second half of the measured time may have more than the first, on the
/// average: clients that connect again, segments that are being deleted; workers of the kernel's rings.
const FILES_MORE_MAX: f64 = 32.0;
const THREADS_MORE_MAX: f64 = 8.0;
/// Bad connections of a fault.
const BAD: usize = 200;
const RESUMES_WITHIN: Duration = Duration::from_secs(30);
const TRY_FOR: Duration = Duration::from_secs(5);

/// One second of it.
pub(super) struct Sample {
    pub second: f64,
    pub held: Held,
}

/// All that was seen.
#[derive(Default)]
pub(super) struct Seen {
    pub samples: Vec<Sample>,
    /// p99 of each minute, in milliseconds.
    pub p99_ms: Vec<f64>,
    /// What was done, and in which second.
    pub faults: Vec<(f64, &'static str)>,
    /// The second from which on one process lives.
    pub steady: f64,
}

/// See the file.
pub fn soak(stage: &mut Stage) -> anyhow::Result<()> {
    let minutes = stage.rounds(MINUTES.0, MINUTES.1);
    let mut launch = stage.launch("data");
    launch.set("log.retention.check.interval.ms", "2000");
    // Caches are full soon, and what grows behind that is a leak.
    launch.set("flowstone.memory.bytes", &(64 * MIB).to_string());
    let mut daemon = launch.start()?;
    let proxy = Proxy::start(daemon.address())?;
    let plan = |topic: &str, pause| Plan {
        topic: topic.to_owned(),
        partitions: 8,
        configs: vec![
            ("segment.bytes", (1 << 20).to_string()),
            ("retention.bytes", (4 << 20).to_string()),
            ("file.delete.delay.ms", "1000".to_owned()),
        ],
        identity: Identity::Idempotent,
        pause,
        ..Plan::default()
    };
    let full = Load::start(proxy.address(), plan("full", Duration::ZERO))?;
    sleep(FULL_FOR);
    let (rate, mean) = (full.acknowledged(), full.take_latencies().mean());
    full.verdict()?;
    // Clients that pause as long as they wait make half the load.
    let load = Load::start(proxy.address(), plan("soak", Duration::from_micros(mean as u64)))?;
    stage.say(&format!(
        "full load {} records/s; {minutes} minutes of about half",
        rate / FULL_FOR.as_secs()
    ));

    let began = Instant::now();
    let all = Duration::from_mins(u64::from(minutes));
    let mut seen = Seen { steady: all.as_secs_f64() / 3.0, ..Seen::default() };
    let mut random = stage.random.fork();
    let mut fault_at = Duration::from_secs(FAULT_AFTER.0);
    while began.elapsed() < all {
        let now = began.elapsed();
        load.check()?;
        daemon.must_run()?;
        if now >= fault_at {
            let kills = now.as_secs_f64() < seen.steady;
            let (what, after) = fault(&mut random, kills, &launch, daemon, &proxy)?;
            daemon = after;
            load.wait_for_more(1, RESUMES_WITHIN).context(what)?;
            seen.faults.push((now.as_secs_f64(), what));
            fault_at =
                began.elapsed() + Duration::from_secs(random.between(FAULT_AFTER.0, FAULT_AFTER.1));
        }
        let second = began.elapsed().as_secs_f64();
        seen.samples.push(Sample { second, held: held(daemon.pid())? });
        if second >= 60.0 * (seen.p99_ms.len() + 1) as f64 {
            let p99 = load.take_latencies().value_at_quantile(0.99) as f64 / 1000.0;
            seen.p99_ms.push(p99);
            let minute = seen.p99_ms.len();
            let bytes = seen.samples.last().map_or(0, |sample| sample.held.bytes);
            stage.say(&format!("minute {minute}: p99 {p99:.1} ms, {} MiB", bytes / MIB));
        }
        sleep(Duration::from_secs(1).saturating_sub(began.elapsed().saturating_sub(now)));
    }
    seen.p99_ms.push(load.take_latencies().value_at_quantile(0.99) as f64 / 1000.0);
    leave(stage, &seen)?;

    daemon.kill()?;
    let _daemon = launch.start()?;
    proxy.answers(Answers::Pass);
    let totals = load.verdict()?;
    stage.count("faults", seen.faults.len() as u64);
    stage.count("records acknowledged", totals.acknowledged);
    ensure!(totals.there < totals.acknowledged, "retention took nothing: run it longer");
    let p99 = seen.p99_ms.iter().copied().fold(0.0, f64::max);
    stage.at_most("p99 of the worst minute, ms", p99);
    flat(stage, &seen)
}

/// Does one thing to the daemon or to its clients; returns its name, and the daemon that runs then.
fn fault(
    random: &mut Random,
    kills: bool,
    launch: &Launch,
    mut daemon: Daemon,
    proxy: &Proxy,
) -> anyhow::Result<(&'static str, Daemon)> {
    let what = match random.between(if kills { 0 } else { 2 }, 8) {
        0 => {
            daemon.kill()?;
            daemon = launch.start()?;
            "killed"
        }
        1 => {
            let status = daemon.stop()?;
            ensure!(status.success(), "it ended with {status}");
            daemon = launch.start()?;
            "restarted"
        }
        2 => {
            daemon.signal(Signal::STOP)?;
            sleep(Duration::from_millis(random.between(200, 3_000)));
            daemon.signal(Signal::CONT)?;
            "paused"
        }
        3 => {
            proxy.cut();
            "cut off"
        }
        4 => {
            proxy.answers(Answers::CutEvery(random.between(20, 500) as u32));
            "answers lost"
        }
        5 => {
            proxy.answers(Answers::Pass);
            "answers pass"
        }
        6 => {
            for _ in 0..BAD {
                let mut raw = Raw::connect(daemon.address(), TRY_FOR)?;
                let words = random.between(1, 64);
                let noise: Vec<u8> = (0..words).flat_map(|_| random.bits().to_be_bytes()).collect();
                let _ = raw.send(&noise, TRY_FOR); // It may be cut off while it sends.
            }
            "bad frames"
        }
        _ => {
            for _ in 0..BAD {
                let mut raw = Raw::connect(daemon.address(), TRY_FOR)?;
                raw.send_frame(&header(18, 0, 1, false), TRY_FOR)?;
                raw.reset()?;
            }
            "resets"
        }
    };
    Ok((what, daemon))
}

/// Whether memory, files and threads stay what they are.
fn flat(stage: &mut Stage, seen: &Seen) -> anyhow::Result<()> {
    let end = seen.samples.last().context("no samples")?.second;
    let from = seen.steady + (end - seen.steady) * WARM_UP;
    let measured: Vec<_> = seen.samples.iter().filter(|sample| sample.second >= from).collect();
    ensure!(measured.len() >= 10, "{} samples show nothing", measured.len());
    let points: Vec<_> = measured.iter().map(|it| (it.second, it.held.bytes as f64)).collect();
    let (mean, slope) = line(&points);
    let grown = slope * (end - from);
    stage.at_most("MiB resident, mean", (mean / MIB as f64).round());
    stage.at_most("MiB grown in the measured time", grown / MIB as f64);
    let limit = GROWTH_BYTES_MAX.max(mean * GROWTH_SHARE_MAX);
    ensure!(grown <= limit, "memory grew by {:.1} MiB", grown / MIB as f64);
    let (first, second) = measured.split_at(measured.len() / 2);
    for (what, more_max, of) in [
        ("files", FILES_MORE_MAX, (|held| held.files) as fn(&Held) -> u64),
        ("threads", THREADS_MORE_MAX, |held| held.threads),
    ] {
        let mean = |half: &[&Sample]| {
            half.iter().map(|it| of(&it.held) as f64).sum::<f64>() / half.len() as f64
        };
        let (first, second) = (mean(first), mean(second));
        stage.at_most(what, second);
        ensure!(second <= first + more_max, "{what}: {first:.1} on the average, then {second:.1}");
    }
    Ok(())
}

/// The mean of the points, and the slope of the straight line that fits them best.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    (y, covariance / variance.max(f64::MIN_POSITIVE))
}

/// The chart and the samples, beside the run's folder, which does not outlive a run that passes.
fn leave(stage: &mut Stage, seen: &Seen) -> anyhow::Result<()> {
    let folder = stage.folder().ancestors().nth(2).context("a folder for what is left")?.to_owned();
    let samples: Vec<_> = seen
        .samples
        .iter()
        .map(|it| json!([it.second, it.held.bytes, it.held.files, it.held.threads]))
        .collect();
    let all = json!({
        "columns": ["second", "resident_bytes", "files", "threads"],
        "samples": samples,
        "p99_ms_per_minute": seen.p99_ms,
        "faults": seen.faults,
        "one_process_from_second": seen.steady,
    });
    fs::write(folder.join("soak.json"), format!("{all}\n"))?;
    fs::write(folder.join("soak.svg"), chart::svg(seen))?;
    stage.say(&format!("chart and samples: {}/soak.svg, soak.json", folder.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found() {
        let points: Vec<_> = (0..10).map(|x| (f64::from(x), 5.0 + 2.0 * f64::from(x))).collect();
        let (mean, slope) = line(&points);
        assert!((mean - 14.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9, "{mean} {slope}");
    }
}
