//! S10 on one node: the power fails while everything is written to, again and again.
//!
//! A generation is one fresh file system and one way to configure the daemon; it ages over some rounds.
//! In each round topics are made, written to and read while others are (with segments that roll and
//! retention that deletes), and the power is cut at a random moment, sometimes once more while the daemon
//! recovers. Then nothing that was acknowledged may be missing: records, committed offsets, topics.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flowstone_wire::ErrorCode;

use crate::client::{ANSWER_WITHIN, Client, create_topic, delete_topic, offsets, topic_names};
use crate::load::{Load, Plan};
use crate::stage::{Daemon, FileSystem, Kind, Launch, Stage};

/// Rounds that the criterion asks for, on each file system.
const ROUNDS: u32 = 100;
/// In the run of the quick ones.
const ROUNDS_QUICK: u32 = 3;
/// Rounds that one file system and one configuration see.
const GENERATION_ROUNDS: u32 = 10;
const IMAGE_BYTES: u64 = 2 << 30;
/// Partitions of the topic with many: each gets a record now and then.
const MANY: i32 = 300;
/// How long the first acknowledgement after a start may take.
const FIRST_WITHIN: Duration = Duration::from_mins(1);

/// 100 rounds on ext4.
pub fn on_ext4(stage: &mut Stage) -> anyhow::Result<()> {
    play_on(stage, ROUNDS, |folder| FileSystem::make(folder, Kind::Ext4, IMAGE_BYTES))
}

/// 100 rounds on XFS.
pub fn on_xfs(stage: &mut Stage) -> anyhow::Result<()> {
    play_on(stage, ROUNDS, |folder| FileSystem::make(folder, Kind::Xfs, IMAGE_BYTES))
}

/// So many rounds, on file systems that are made so.
pub(super) fn play_on(
    stage: &mut Stage,
    rounds: u32,
    make: impl Fn(&Path) -> anyhow::Result<FileSystem>,
) -> anyhow::Result<()> {
    let rounds = stage.rounds(ROUNDS_QUICK, rounds);
    let mut played = 0;
    while played < rounds {
        let these = GENERATION_ROUNDS.min(rounds - played);
        generation(stage, make(stage.folder())?, played, these)
            .with_context(|| format!("in the rounds from {} on", played + 1))?;
        played += these;
    }
    Ok(())
}

/// One file system's life.
fn generation(
    stage: &mut Stage,
    mut disk: FileSystem,
    number: u32,
    rounds: u32,
) -> anyhow::Result<()> {
    let mut launch = stage.launch_on(disk.path().join("data"));
    let journal = *stage.random.pick(&[512 << 20, 16 << 20, 4 << 20, 0]);
    let shards = stage.random.between(1, 3);
    let checkpoints = *stage.random.pick(&[500, 60_000]);
    let delay = *stage.random.pick(&[0, 1_000]);
    stage.say(&format!(
        "{}: journal {} MiB, {shards} shards, checkpoints every {checkpoints} ms, files deleted \
         after {delay} ms",
        disk.kind(),
        journal >> 20
    ));
    launch
        .set("flowstone.journal.bytes", &journal.to_string())
        .set("flowstone.shards", &shards.to_string())
        .set("log.flush.offset.checkpoint.interval.ms", &checkpoints.to_string())
        .set("log.segment.delete.delay.ms", &delay.to_string())
        .set("log.retention.check.interval.ms", "300")
        .set("offsets.topic.num.partitions", "4");
    let mut daemon = launch.start()?;
    let address = launch.address();
    let mut lasting = vec![
        Load::start(address, many(number))?,
        Load::start(address, rolling(format!("rolling-{number}"), 2_000))?,
    ];
    let mut settled: Vec<Load> = Vec::new();
    let mut topics = Topics::default();
    for round in number..number + rounds {
        let mut fresh =
            vec![Load::start(address, small(round))?, Load::start(address, large(round))?];
        let making = Making::start(address, round);
        fresh[0].wait_for_more(1, FIRST_WITHIN)?;
        // Some rounds end with the first acknowledgements, on files that have just been made.
        let most = if stage.random.one_in(3) { 100 } else { 1_500 };
        sleep(Duration::from_millis(stage.random.between(0, most)));
        let acked: u64 = fresh.iter().chain(&lasting).map(Load::acknowledged).sum();
        cut(stage, &disk, daemon)?;
        topics.add(making.end()?);
        disk.power_on()?;
        recover_twice(stage, &launch, &mut disk, &topics)?;
        daemon = launch.start()?;
        stage.at_most("ready_seconds_max", daemon.ready_after.as_secs_f64());
        for load in &mut fresh {
            load.settle().with_context(|| format!("round {}", round + 1))?;
        }
        topics.check(address).with_context(|| format!("round {}", round + 1))?;
        // Of this round and of the last one, which has seen two power cuts now.
        for load in fresh.iter().chain(settled.iter().rev().take(2)) {
            load.audit().with_context(|| format!("round {}", round + 1))?;
        }
        settled.extend(fresh);
        for load in &lasting {
            load.check().with_context(|| format!("round {}", round + 1))?;
        }
        stage.count("rounds", 1);
        stage.say(&format!(
            "round {}: {acked} acknowledged, {} topics, ready after {:.2} s",
            round + 1,
            topics.made.len(),
            daemon.ready_after.as_secs_f64()
        ));
    }
    for load in &mut lasting {
        load.settle()?;
    }
    for load in settled.iter().chain(&lasting) {
        let totals = load.audit()?;
        stage.count("acknowledged", totals.acknowledged);
    }
    stage.count("topics_made_and_deleted", (topics.made.len() + topics.gone.len()) as u64);
    stage.count("lost", 0); // Anything lost is a failure, and does not come here.
    let status = daemon.stop()?;
    ensure!(status.success(), "the daemon ended with {status}");
    Ok(())
}

/// The power fails: with the daemon frozen in whatever it did, or (ext4) at work until the machine is gone.
/// XFS that goes down under a running `fdatasync` lets it return 0 where the log was not written: the
/// inode is no longer pinned, so nothing is left to wait for. After a true power loss nobody hears of that.
fn cut(stage: &mut Stage, disk: &FileSystem, daemon: Daemon) -> anyhow::Result<()> {
    let frozen = disk.kind() == Kind::Xfs || stage.random.one_in(2);
    if frozen {
        daemon.freeze()?;
    }
    disk.cut_power()?;
    if !frozen {
        sleep(Duration::from_millis(stage.random.between(0, 30)));
    }
    daemon.kill()
}

/// In some rounds: recovers where no client sees it, is killed or loses power then, even before it is
/// ready, and must come to the same log ends when it recovers again.
fn recover_twice(
    stage: &mut Stage,
    launch: &Launch,
    disk: &mut FileSystem,
    topics: &Topics,
) -> anyhow::Result<()> {
    let aside = launch.on_another_port();
    if stage.random.one_in(3) {
        let daemon = aside.begin()?;
        sleep(Duration::from_millis(stage.random.between(0, 200)));
        disk.cut_power()?;
        daemon.kill()?;
        disk.power_on()?;
        stage.count("cuts_in_recovery", 1);
    }
    if stage.random.one_in(3) {
        let daemon = aside.start()?;
        let first = ends(daemon.address())?;
        topics.check(daemon.address())?;
        if stage.random.one_in(2) {
            disk.cut_power()?;
            daemon.kill()?;
            disk.power_on()?;
        } else {
            daemon.kill()?;
        }
        let daemon = aside.start()?;
        let second = ends(daemon.address())?;
        daemon.kill()?;
        for (first, second) in first.iter().zip(&second) {
            ensure!(first == second, "recovered twice: first {first:?}, then {second:?}");
        }
        ensure!(first.len() == second.len(), "{} partitions, then {}", first.len(), second.len());
        stage.count("recoveries_compared", 1);
    }
    Ok(())
}

/// Topic, partition, and where its log ends; where it begins is for retention to say, at any moment.
fn ends(address: SocketAddr) -> anyhow::Result<Vec<(String, i32, i64)>> {
    let mut client = Client::connect(address, ANSWER_WITHIN)?;
    let mut ends = Vec::new();
    for (name, partitions) in topic_names(&mut client)? {
        for partition in 0..partitions {
            let until = Instant::now() + FIRST_WITHIN;
            loop {
                match offsets(&mut client, &name, partition)? {
                    Ok((_, end)) => {
                        ends.push((name.clone(), partition, end));
                        break;
                    }
                    Err(code) if Instant::now() > until => bail!("{name}-{partition}: {code}"),
                    Err(_) => sleep(Duration::from_millis(5)),
                }
            }
        }
    }
    Ok(ends)
}

/// Small batches: they go through the journal.
pub(super) fn small(round: u32) -> Plan {
    Plan { topic: format!("small-{round}"), producers: 2, pause: Duration::ZERO, ..Plan::default() }
}

/// Large ones: they go to their segments, which roll.
pub(super) fn large(round: u32) -> Plan {
    Plan {
        producers: 1,
        in_flight: 3,
        batch_records_max: 8,
        pause: Duration::from_millis(20),
        ..rolling(format!("large-{round}"), 100_000)
    }
}

/// Segments of the smallest size, and retention that keeps few of them.
pub(super) fn rolling(topic: String, value_bytes_max: usize) -> Plan {
    let configs =
        vec![("segment.bytes", (1 << 20).to_string()), ("retention.bytes", (4 << 20).to_string())];
    Plan { topic, partitions: 2, configs, producers: 2, value_bytes_max, ..Plan::default() }
}

/// A record for some of many partitions at a time.
pub(super) fn many(number: u32) -> Plan {
    Plan {
        topic: format!("many-{number}"),
        partitions: MANY,
        producers: 2,
        readers: 0,
        pause: Duration::ZERO,
        ..Plan::default()
    }
}

/// What must be true of the topics' names.
#[derive(Default)]
struct Topics {
    /// Made, as was acknowledged, and nobody asked to delete them.
    made: BTreeSet<String>,
    /// Deleted, as was acknowledged.
    gone: BTreeSet<String>,
}

impl Topics {
    fn add(&mut self, more: Self) {
        self.made.extend(more.made);
        self.gone.extend(more.gone);
    }

    fn check(&self, address: SocketAddr) -> anyhow::Result<()> {
        let mut client = Client::connect(address, ANSWER_WITHIN)?;
        let there: BTreeSet<String> =
            topic_names(&mut client)?.into_iter().map(|(name, _)| name).collect();
        if let Some(lost) = self.made.difference(&there).next() {
            bail!("topic {lost} was made, as was acknowledged, and is lost");
        }
        if let Some(back) = self.gone.intersection(&there).next() {
            bail!("topic {back} was deleted, as was acknowledged, and is back");
        }
        Ok(())
    }
}

/// Makes topics and deletes some, one after another, until the broker is gone.
struct Making {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Topics>>,
}

impl Making {
    fn start(address: SocketAddr, round: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut topics = Topics::default();
            let mut client = Client::connect(address, ANSWER_WITHIN)?;
            for number in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("made-{round}-{number}");
                let Ok(code) = create_topic(&mut client, &name, 1, &[]) else { break };
                if code == ErrorCode::None {
                    topics.made.insert(name.clone());
                }
                // The last of every three goes again; what is not answered may be there or not.
                if number % 3 == 2 {
                    topics.made.remove(&name);
                    match delete_topic(&mut client, &name) {
                        Ok(ErrorCode::None) => drop(topics.gone.insert(name)),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                sleep(Duration::from_millis(20));
            }
            Ok(topics)
        });
        Self { stop, thread }
    }

    fn end(self) -> anyhow::Result<Topics> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
