//! S13 and S21: a disk that fills up, is full, and has space again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flowstone_wire::ErrorCode;

use super::power::rolling;
use crate::client::{
    ANSWER_WITHIN, Client, ClientError, Wanted, create_topic, fetch, offsets, topic_names,
};
use crate::load::{Load, Plan};
use crate::stage::{Daemon, FileSystem, Kind, Launch, Stage};

const MIB: u64 = 1 << 20;
const IMAGE_BYTES: u64 = 256 * MIB;
/// How long it may take until a full disk shows, and until writes go on once there is space.
const SHOWS_WITHIN: Duration = Duration::from_mins(1);
const RESUMES_WITHIN: Duration = Duration::from_secs(10);

/// Topics whose creation fits into what the metadata log has allocated ahead, and many more.
const FULL_TOPICS_MAX: u32 = 2_000;

/// What takes the space away from the daemon.
struct Ballast(PathBuf);

impl Ballast {
    /// Leaves so many bytes free.
    fn leaving(disk: &FileSystem, bytes: u64) -> anyhow::Result<Self> {
        let mut ballast = Self(disk.path().join("ballast"));
        let take = disk.free_bytes()?.saturating_sub(bytes);
        ballast.grow(take)?;
        Ok(ballast)
    }

    /// Takes so much more, or all that there is.
    fn grow(&mut self, bytes: u64) -> anyhow::Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.0)?;
        let block = vec![0; 64 << 10];
        for _ in 0..bytes / block.len() as u64 {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("the ballast"),
            }
        }
        // What is allocated late would leave the daemon space that is not there.
        match file.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn drop_it(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(&self.0)?)
    }
}

fn start(stage: &Stage, disk: &FileSystem) -> anyhow::Result<(Launch, Daemon)> {
    let mut launch = stage.launch_on(disk.path().join("data"));
    launch
        .set("flowstone.journal.bytes", &(16 * MIB).to_string())
        .set("log.retention.check.interval.ms", "200")
        .set("log.segment.delete.delay.ms", "0")
        .set("log.segment.bytes", &MIB.to_string())
        .set("offsets.topic.num.partitions", "1");
    let daemon = launch.start()?;
    Ok((launch, daemon))
}

/// S13: producers fill the disk; then there is space again. Twice.
pub fn full(stage: &mut Stage) -> anyhow::Result<()> {
    let disk = FileSystem::make(stage.folder(), Kind::Ext4, IMAGE_BYTES)?;
    let (launch, mut daemon) = start(stage, &disk)?;
    let plan = Plan {
        topic: "filling".to_owned(),
        partitions: 3,
        value_bytes_max: 8_000,
        pause: Duration::from_millis(2),
        ..Plan::default()
    };
    let load = Load::start(launch.address(), plan)?;
    load.wait_for_more(500, SHOWS_WITHIN)?;
    for _ in 0..2 {
        let ballast = Ballast::leaving(&disk, 8 * MIB)?;
        let until = Instant::now() + SHOWS_WITHIN;
        let mut before = load.acknowledged();
        loop {
            sleep(Duration::from_secs(1));
            load.check()?;
            let now = load.acknowledged();
            if now == before {
                break;
            }
            before = now;
            ensure!(Instant::now() < until, "the disk does not become full");
        }
        let refusals = load.refusals();
        let told = refusals.iter().any(|it| it.starts_with("produce: ") && it.contains("STORAGE"));
        ensure!(told, "producers were not told of a full disk, but {refusals:?}");
        daemon.must_run()?;
        must_read(&launch, "filling", 3)?;
        stage.count("times_full", 1);
        ballast.drop_it()?;
        let after = load.wait_for_more(100, RESUMES_WITHIN)?;
        stage.at_most("resumed_after_seconds_max", after.as_secs_f64());
    }
    all_is_there(stage, &launch, daemon, load)
}

/// What was acknowledged is there, now and after a kill: what is on the disk is what a start finds, too.
fn all_is_there(
    stage: &mut Stage,
    launch: &Launch,
    daemon: Daemon,
    mut load: Load,
) -> anyhow::Result<()> {
    load.settle()?;
    stage.count("acknowledged", load.audit()?.acknowledged);
    daemon.kill()?;
    let daemon = launch.start()?;
    load.audit().context("after a kill")?;
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// Every partition from its first record on, while the disk is full.
fn must_read(launch: &Launch, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
    for partition in 0..partitions {
        let range = offsets(&mut client, topic, partition)?;
        let Ok((start, end)) = range else { bail!("no offsets on a full disk: {range:?}") };
        for offset in [start, end - 1] {
            let wanted = Wanted { partition, offset, bytes_max: 1 << 20, wait: Duration::ZERO };
            let found = fetch(&mut client, topic, wanted)?;
            let read = found.code == ErrorCode::None && !found.records.is_empty();
            ensure!(read, "{topic}-{partition} cannot be read at {offset}: {}", found.code);
        }
    }
    Ok(())
}

/// S13 below the metadata log: topics are made until there is no space.
pub fn full_under_metadata(stage: &mut Stage) -> anyhow::Result<()> {
    let disk = FileSystem::make(stage.folder(), Kind::Ext4, IMAGE_BYTES)?;
    let (launch, mut daemon) = start(stage, &disk)?;
    let mut made = make_topics(&launch, "before", 5)?;
    ensure!(made.len() == 5, "only {} of 5 topics were made with space", made.len());
    let ballast = Ballast::leaving(&disk, 0)?;
    let squeezed = make_topics(&launch, "full", FULL_TOPICS_MAX)?;
    stage.count("made_while_full", squeezed.len() as u64);
    let refused = squeezed.len() < FULL_TOPICS_MAX as usize;
    ensure!(refused, "the disk was full, and {FULL_TOPICS_MAX} topics were made all the same");
    made.extend(squeezed);
    daemon.must_run()?;
    must_have(&launch, &made).context("while the disk is full")?;
    ballast.drop_it()?;
    let began = Instant::now();
    while make_topics(&launch, "after", 1)?.is_empty() {
        ensure!(began.elapsed() < RESUMES_WITHIN, "topics cannot be made, though there is space");
        sleep(Duration::from_millis(100));
    }
    stage.at_most("resumed_after_seconds_max", began.elapsed().as_secs_f64());
    made.push("after-0".to_owned());
    must_have(&launch, &made).context("with space again")?;
    daemon.kill()?;
    let daemon = launch.start()?;
    must_have(&launch, &made).context("after a kill")?;
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// Asks for topics, one after another; which of them were made, as was acknowledged.
fn make_topics(launch: &Launch, name: &str, count: u32) -> anyhow::Result<Vec<String>> {
    let mut made = Vec::new();
    let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
    for number in 0..count {
        let name = format!("{name}-{number}");
        match create_topic(&mut client, &name, 1, &[]) {
            Ok(ErrorCode::None | ErrorCode::TopicAlreadyExists) => made.push(name),
            // Where it waits for space that is as good an answer as a refusal; whether it is made is open.
            Ok(_) | Err(ClientError::Io(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(made)
}

fn must_have(launch: &Launch, made: &[String]) -> anyhow::Result<()> {
    let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
    let there = topic_names(&mut client)?;
    match made.iter().find(|name| !there.iter().any(|(it, _)| it == *name)) {
        None => Ok(()),
        Some(lost) => bail!("topic {lost} was made, as was acknowledged, and is lost"),
    }
}

/// S21: little more space than retention leaves, for several times as much as fits; then none at all.
pub fn retention(stage: &mut Stage) -> anyhow::Result<()> {
    let disk = FileSystem::make(stage.folder(), Kind::Ext4, IMAGE_BYTES)?;
    let (launch, mut daemon) = start(stage, &disk)?;
    // Retention leaves 4 MiB in each of 2 partitions, and what a segment is long.
    let plan = Plan { pause: Duration::from_millis(10), ..rolling("racing".to_owned(), 8_000) };
    let load = Load::start(launch.address(), plan)?;
    load.wait_for_more(1_000, SHOWS_WITHIN)?;
    let free = disk.all_bytes()? / 5;
    let mut ballast = Ballast::leaving(&disk, free)?;
    let used = |disk: &FileSystem| anyhow::Ok(bytes_below(&disk.path().join("data"))?);
    // A record is some 4 KB: six times what is free.
    let records = 6 * free / 4_000;
    let until = Instant::now() + Duration::from_mins(3);
    let goal = load.acknowledged() + records;
    while load.acknowledged() < goal {
        load.check()?;
        stage.at_most("log_mib_max", (used(&disk)? / MIB) as f64);
        ensure!(Instant::now() < until, "writes do not go on: {:?}", load.refusals());
        sleep(Duration::from_millis(100));
    }
    let refusals = load.refusals();
    let storage = refusals.iter().find(|it| it.contains("STORAGE"));
    ensure!(storage.is_none(), "retention did not free space in time: {refusals:?}");
    stage.count("written_while_80_percent_full", records);
    // From 80 to 100 %, with segments deleted and flushed all the while.
    for _ in 0..10 {
        ballast.grow(free / 10)?;
        sleep(Duration::from_millis(300));
        load.check()?;
        daemon.must_run()?;
    }
    ballast.grow(free)?;
    sleep(Duration::from_secs(2));
    daemon.must_run()?;
    load.check()?;
    ballast.drop_it()?;
    let after = load.wait_for_more(500, RESUMES_WITHIN)?;
    stage.at_most("resumed_after_seconds_max", after.as_secs_f64());
    all_is_there(stage, &launch, daemon, load)
}

/// Bytes of all files below a folder; files that go meanwhile count nothing.
fn bytes_below(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => bytes += bytes_below(&entry.path()).unwrap_or(0),
            Ok(found) => bytes += found.len(),
            Err(_) => {}
        }
    }
    Ok(bytes)
}
