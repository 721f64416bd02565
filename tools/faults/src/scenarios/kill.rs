//! S2 on one node: SIGKILL under load, cycle after cycle.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::power::{rolling, small};
use crate::load::Load;
use crate::stage::Stage;

const CYCLES: u32 = 20;
const CYCLES_QUICK: u32 = 4;
/// From the start to the daemon's word that it is ready, and as long again for each 2 GB of active log,
/// of which there are never as many here.
const READY_MAX: Duration = Duration::from_secs(5);
/// How long the first acknowledgement after a start may take.
const FIRST_WITHIN: Duration = Duration::from_mins(1);

/// See the file.
pub fn under_load(stage: &mut Stage) -> anyhow::Result<()> {
    let mut launch = stage.launch("data");
    launch
        .set("log.retention.check.interval.ms", "300")
        .set("log.segment.delete.delay.ms", "0")
        .set("offsets.topic.num.partitions", "4");
    let mut daemon = launch.start()?;
    // One load over all kills, whose producers must be known again after each; and a fresh one in each
    // cycle, which is read whole at its end.
    let lasting = Load::start(launch.address(), rolling("rolling".to_owned(), 2_000))?;
    for cycle in 0..stage.rounds(CYCLES_QUICK, CYCLES) {
        let fresh = Load::start(launch.address(), small(cycle))?;
        fresh.wait_for_more(1, FIRST_WITHIN)?;
        let most = if stage.random.one_in(3) { 100 } else { 1_500 };
        sleep(Duration::from_millis(stage.random.between(0, most)));
        daemon.kill()?;
        daemon = launch.start()?;
        let ready = daemon.ready_after;
        ensure!(ready < READY_MAX, "ready after {ready:?} only, in cycle {}", cycle + 1);
        stage.at_most("ready_seconds_max", ready.as_secs_f64());
        let totals = fresh.verdict().with_context(|| format!("cycle {}", cycle + 1))?;
        lasting.check()?;
        stage.count("kills", 1);
        stage.count("acknowledged", totals.acknowledged);
    }
    stage.count("acknowledged", lasting.verdict()?.acknowledged);
    stage.count("lost", 0); // Anything lost is a failure, and does not come here.
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}
