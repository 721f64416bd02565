//! S10 in the modes that promise less: what `written` and `memory` lose when the power fails.
//!
//! `flushed` is measured beside them, and must lose nothing. And the judge is judged: what `memory` loses
//! must be found by the very checks that find nothing in `flushed`.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use flowstone_wire::ErrorCode;

use super::power::small;
use crate::client::{ANSWER_WITHIN, Client, offsets, plain_batch, produce};
use crate::load::{Load, Plan};
use crate::stage::{FileSystem, Kind, Launch, Stage};

const ROUNDS: u32 = 10;
const ROUNDS_QUICK: u32 = 1;
const IMAGE_BYTES: u64 = 1 << 30;
const PARTITIONS: i32 = 4;
/// Records of a batch, and bytes of each.
const BATCH_RECORDS: usize = 10;
const RECORD_BYTES: usize = 100;
const LOAD: Duration = Duration::from_millis(1_500);
const SETTLES_WITHIN: Duration = Duration::from_mins(1);

/// One acknowledged batch.
struct Acked {
    partition: i32,
    base_offset: i64,
    at: Instant,
}

/// Measures the three modes under the same load and the same cuts.
pub fn measured(stage: &mut Stage) -> anyhow::Result<()> {
    const MODES: [(&str, [&str; 4]); 3] = [
        (
            "flushed",
            ["flushed_acked", "flushed_lost", "flushed_lost_in_one_cut_max", "flushed_ms_max"],
        ),
        (
            "written",
            ["written_acked", "written_lost", "written_lost_in_one_cut_max", "written_ms_max"],
        ),
        ("memory", ["memory_acked", "memory_lost", "memory_lost_in_one_cut_max", "memory_ms_max"]),
    ];
    for (mode, [acked, lost, most, window]) in MODES {
        let mut disk = FileSystem::make(stage.folder(), Kind::Ext4, IMAGE_BYTES)?;
        let mut launch = stage.launch_on(disk.path().join("data"));
        launch.set("flowstone.durability", mode);
        let mut all_lost = 0;
        for round in 0..stage.rounds(ROUNDS_QUICK, ROUNDS) {
            let cut = one_cut(&launch, &mut disk, round)?;
            stage.count(acked, cut.acked);
            stage.count(lost, cut.lost);
            all_lost += cut.lost;
            stage.at_most(most, cut.lost as f64);
            stage.at_most(window, cut.window.as_secs_f64() * 1e3);
            ensure!(mode != "flushed" || cut.lost == 0, "flushed lost {} records", cut.lost);
        }
        // A cut that nothing is lost by shows nothing of `flushed`.
        ensure!(mode != "memory" || all_lost > 0, "memory lost nothing: is the power cut?");
    }
    Ok(())
}

/// What one cut did: records acknowledged and lost, and how long before it the first lost one was
/// acknowledged.
struct Cut {
    acked: u64,
    lost: u64,
    window: Duration,
}

fn one_cut(launch: &Launch, disk: &mut FileSystem, round: u32) -> anyhow::Result<Cut> {
    let daemon = launch.start()?;
    let address = launch.address();
    let topic = format!("weaker-{round}");
    let mut client = Client::connect(address, ANSWER_WITHIN)?;
    let made = crate::client::create_topic(&mut client, &topic, PARTITIONS, &[])?;
    ensure!(made == ErrorCode::None, "cannot make {topic}: {made}");
    let writers = (0..PARTITIONS).map(|partition| {
        let topic = topic.clone();
        std::thread::spawn(move || write(address, &topic, partition))
    });
    let writers: Vec<_> = writers.collect();
    sleep(LOAD);
    daemon.freeze()?;
    let at = Instant::now();
    disk.cut_power()?;
    daemon.kill()?;
    let mut acked = Vec::new();
    for writer in writers {
        acked.extend(writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    disk.power_on()?;
    let daemon = launch.start()?;
    let mut client = Client::connect(address, ANSWER_WITHIN)?;
    let mut ends = Vec::new();
    for partition in 0..PARTITIONS {
        ends.push(end_of(&mut client, &topic, partition)?);
    }
    daemon.kill()?;
    let lost: Vec<_> =
        acked.iter().filter(|it| it.base_offset >= ends[it.partition as usize]).collect();
    let first = lost.iter().map(|it| it.at).min();
    Ok(Cut {
        acked: (acked.len() * BATCH_RECORDS) as u64,
        lost: (lost.len() * BATCH_RECORDS) as u64,
        window: first.map_or(Duration::ZERO, |first| at.saturating_duration_since(first)),
    })
}

/// One batch after another to one partition, until there is no answer.
fn write(address: SocketAddr, topic: &str, partition: i32) -> anyhow::Result<Vec<Acked>> {
    let mut client = Client::connect(address, ANSWER_WITHIN)?;
    let value = [b'w'; RECORD_BYTES];
    let batch = plain_batch(&[&value[..]; BATCH_RECORDS]);
    let mut acked = Vec::new();
    while let Ok(answer) = produce(&mut client, topic, partition, batch.clone()) {
        match answer.code {
            ErrorCode::None => {
                let (base_offset, at) = (answer.base_offset, Instant::now());
                acked.push(Acked { partition, base_offset, at });
            }
            code if code.is_retriable() => sleep(Duration::from_millis(5)),
            code => bail!("a produce was refused: {code}"),
        }
    }
    Ok(acked)
}

fn end_of(client: &mut Client, topic: &str, partition: i32) -> anyhow::Result<i64> {
    let until = Instant::now() + SETTLES_WITHIN;
    loop {
        match offsets(client, topic, partition)? {
            Ok((_, end)) => return Ok(end),
            // The topic itself was lost: its creation is metadata, which is always flushed.
            Err(code) if Instant::now() > until => bail!("{topic}-{partition}: {code}"),
            Err(_) => sleep(Duration::from_millis(10)),
        }
    }
}

/// The judge must find what `memory` loses: a check that cannot fail would show nothing.
pub fn judged(stage: &mut Stage) -> anyhow::Result<()> {
    let mut disk = FileSystem::make(stage.folder(), Kind::Ext4, IMAGE_BYTES)?;
    let mut launch = stage.launch_on(disk.path().join("data"));
    launch.set("flowstone.durability", "memory");
    let daemon = launch.start()?;
    let plan = Plan { pause: Duration::ZERO, ..small(0) };
    let mut load = Load::start(launch.address(), plan)?;
    load.wait_for_more(1_000, SETTLES_WITHIN)?;
    daemon.freeze()?;
    disk.cut_power()?;
    daemon.kill()?;
    disk.power_on()?;
    let daemon = launch.start()?;
    let judged = load.settle().and_then(|()| load.audit());
    daemon.kill()?;
    match judged {
        Ok(_) => bail!("memory mode lost its tail to a power cut, and nobody noticed"),
        Err(found) => {
            stage.say(&format!("found, as it must be: {found:#}"));
            Ok(())
        }
    }
}
