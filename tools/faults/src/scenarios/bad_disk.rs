//! S14 and S16: a disk whose flush fails once, and one that cannot read back a block.
//!
//! The flush that fails leaves what it should have flushed in the disk's cache, where the next one finds
//! it; or the disk resets itself and forgets its cache, and what other logs had written there is gone as well.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::known::{self, Served};
use super::power::{rolling, small};
use crate::client::{Client, create_topic};
use crate::load::{Load, Plan};
use crate::stage::{AfterFailure, FileSystem, Kind, Stage};

const DISK_BYTES: u64 = 512 << 20;
/// With room for a generation of power losses.
const CACHED_BYTES: u64 = 2 << 30;
const CACHE_ROUNDS: u32 = 30;
const ROUNDS: u32 = 10;
const ROUNDS_QUICK: u32 = 1;
/// How long the failure may take to be met.
const MET_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// S14: one flush fails, the next ones succeed, and the power is cut later.
pub fn flush_fails_once(stage: &mut Stage) -> anyhow::Result<()> {
    for round in 0..stage.rounds(ROUNDS_QUICK, ROUNDS) {
        // Without a journal the file system goes on as if nothing had been; with one it stops. Where its own
        // metadata are forgotten, one without a journal has no files to promise anything of.
        for (options, then) in [
            (&["-O", "^has_journal"][..], AfterFailure::Keeps),
            (&[], AfterFailure::Keeps),
            (&[], AfterFailure::Forgets),
        ] {
            one_failed_flush(stage, round, options, then).with_context(|| {
                let options = options.join(" ");
                format!("round {}, mkfs.ext4 {options}, the disk {then:?}", round + 1)
            })?;
        }
    }
    Ok(())
}

fn one_failed_flush(
    stage: &mut Stage,
    round: u32,
    options: &[&str],
    then: AfterFailure,
) -> anyhow::Result<()> {
    let mut disk = FileSystem::make_failing(stage.folder(), Kind::Ext4, DISK_BYTES, options)?;
    let mut launch = stage.launch_on(disk.path().join("data"));
    let journal = *stage.random.pick(&[0, 16 << 20]);
    launch.set("flowstone.journal.bytes", &journal.to_string());
    let mut daemon = launch.start()?;
    // Small batches, which the journal takes; and large ones, which are flushed in their segments.
    let plans = [small(round), Plan { value_bytes_max: 100_000, ..rolling("large".to_owned(), 0) }];
    let loads = plans.map(|plan| Load::start(launch.address(), plan));
    let mut loads = loads.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    loads[0].wait_for_more(100, MET_WITHIN)?;
    sleep(Duration::from_millis(stage.random.between(0, 500)));
    let before: u64 = loads.iter().map(Load::acknowledged).sum();
    disk.beneath().fail_next_flush(then);
    let until = Instant::now() + MET_WITHIN;
    while disk.beneath().flushes_failed() == 0 {
        ensure!(Instant::now() < until, "no flush reached the disk");
        sleep(Duration::from_millis(1));
    }
    // Its only directory is offline, as Apache Kafka would have it: it answers so, and ends.
    let status = daemon.ends(MET_WITHIN)?;
    let said = daemon.said();
    ensure!(status.code() == Some(1), "it ends with {status}");
    ensure!(said.contains("is offline: "), "it does not say why it ends:\n{said}");
    let after: u64 = loads.iter().map(Load::acknowledged).sum();
    stage.count("flushes_failed", 1);
    stage.count("acknowledged_before", before);
    stage.count("acknowledged_after", after - before);
    if options.is_empty() {
        // What only pages and the disk's cache still had is gone.
        disk.cut_power()?;
        disk.power_on()?;
    } else {
        // No file system without a journal survives a power loss.
        disk.repair()?;
    }
    let daemon = launch.start()?;
    for load in &mut loads {
        load.settle()?;
        load.audit()?;
    }
    daemon.kill()
}

/// S16: a block in the middle of a closed segment cannot be read.
pub fn read_fails(stage: &mut Stage) -> anyhow::Result<()> {
    const TOPIC: &str = "cold";
    const RECORDS: i64 = 4_000;
    let mut disk = FileSystem::make_failing(stage.folder(), Kind::Ext4, DISK_BYTES, &[])?;
    let launch = stage.launch_on(disk.path().join("data"));
    let daemon = launch.start()?;
    let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
    create_topic(&mut client, TOPIC, 2, &[("segment.bytes", (1 << 20).to_string())])?;
    for partition in 0..2 {
        known::fill(&mut client, TOPIC, partition, RECORDS)?;
    }
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    let broken = stage.random.between(200, RECORDS as u64 / 2) as i64;
    disk.power_on()?; // An orderly unmount: nothing of it is in memory.
    // Journals that are gone have left copies that nobody reads.
    let copies = disk.beneath().break_where(&known::value(TOPIC, 0, broken))?;
    ensure!(copies > 0, "record {broken} is nowhere");
    let mut daemon = launch.start()?;
    let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
    let bad = known::served(&mut client, TOPIC, 0, 0, RECORDS)?;
    let Served { upto, refused } = bad;
    ensure!(upto <= broken, "record {broken} was served, and cannot have been read");
    ensure!(refused.is_some(), "the fetch at {upto} says nothing of the disk's error");
    ensure!(disk.beneath().reads_failed() > 0, "nobody read the bad block");
    // The segments behind it, and the other partition, are as good as before.
    let behind = known::served(&mut client, TOPIC, 0, broken + 1_000, RECORDS)?;
    ensure!(behind.upto == RECORDS, "behind the bad segment: read to {} only", behind.upto);
    let other = known::served(&mut client, TOPIC, 1, 0, RECORDS)?;
    ensure!(other.upto == RECORDS, "the other partition: read to {} only", other.upto);
    known::fill_from(&mut client, TOPIC, 1, RECORDS, 100)?;
    daemon.must_run()?;
    // Where the disk can read it again, so can consumers.
    disk.beneath().heal();
    let healed = known::served(&mut client, TOPIC, 0, 0, RECORDS)?;
    ensure!(healed.upto == RECORDS, "healed, it is read to {} only", healed.upto);
    stage.count("reads_failed", u64::from(disk.beneath().reads_failed()));
    stage.count("records_before_the_bad_block", upto as u64);
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// S10 with a disk that forgets what its own cache held: flushes must reach it.
pub fn cache_is_lost(stage: &mut Stage) -> anyhow::Result<()> {
    super::power::play_on(stage, CACHE_ROUNDS, |folder: &Path| {
        FileSystem::make_failing(folder, Kind::Ext4, CACHED_BYTES, &[])
    })
}
