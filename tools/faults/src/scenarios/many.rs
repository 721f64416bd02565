//! S36: ten thousand partitions, killed and started again.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::ensure;
use flowstone_wire::ErrorCode;

use crate::client::{Client, MUCH_WITHIN, create_topic};
use crate::load::{Load, Plan};
use crate::probe::{MIB, cpu, held};
use crate::stage::Stage;

const PARTITIONS: i32 = 10_000;
/// A load's own partitions among them: each holds records when the daemon dies.
const WRITTEN: i32 = 500;
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Open files of a partition, on the average: its log.
const FILES_PER_PARTITION: u64 = 2;
const MEMORY_BYTES_MAX: u64 = 300 * MIB;
/// CPU of an idle broker: 5 % of one core.
const IDLE_SHARE_MAX: f64 = 0.05;
const IDLE_FOR: Duration = Duration::from_secs(10);

/// See the file.
pub fn partitions(stage: &mut Stage) -> anyhow::Result<()> {
    let launch = stage.launch("data");
    let daemon = launch.start()?;
    let mut client = Client::connect(daemon.address(), MUCH_WITHIN)?;
    let began = Instant::now();
    let code = create_topic(&mut client, "many", PARTITIONS - WRITTEN, &[])?;
    ensure!(code == ErrorCode::None, "cannot create the topic: {code}");
    stage.at_most("seconds to create", began.elapsed().as_secs_f64());
    let plan = Plan {
        partitions: WRITTEN,
        producers: 8,
        pause: Duration::ZERO,
        answer_within: MUCH_WITHIN,
        ..Plan::default()
    };
    let load = Load::start(daemon.address(), plan)?;
    load.wait_for_more(20_000, Duration::from_mins(1))?;
    daemon.kill()?;

    let daemon = launch.start()?;
    let (pid, ready) = (daemon.pid(), daemon.ready_after);
    stage.at_most("seconds to ready", ready.as_secs_f64());
    let resumed = load.wait_for_more(500, READY_WITHIN)?;
    stage.at_most("seconds to writes after that", resumed.as_secs_f64());
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    ensure!(ready <= READY_WITHIN, "ready only after {ready:?}");

    let now = held(pid)?;
    stage.at_most("files", now.files as f64);
    stage.at_most("MiB resident", (now.bytes / MIB) as f64);
    let files_max = PARTITIONS as u64 * FILES_PER_PARTITION;
    ensure!(now.files <= files_max, "{} files are open", now.files);
    ensure!(now.bytes <= MEMORY_BYTES_MAX, "{} MiB resident", now.bytes / MIB);
    sleep(Duration::from_secs(5)); // What follows a start and a load (flushes) is not idleness.
    let before = cpu(pid)?;
    sleep(IDLE_FOR);
    let share = cpu(pid)?.saturating_sub(before).as_secs_f64() / IDLE_FOR.as_secs_f64();
    stage.at_most("% of a core, idle", share * 100.0);
    ensure!(share <= IDLE_SHARE_MAX, "{:.1} % of a core with nothing to do", share * 100.0);
    Ok(())
}
