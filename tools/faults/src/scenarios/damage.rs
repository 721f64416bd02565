//! S17 and S18: files that are not what was written: bits flipped, ends cut off, zeroed or extended.
//!
//! Each case damages a copy of one data directory, starts the daemon on it and reads. There is no replica
//! to repair anything from: what must hold is that no other bytes are served, that the damage shows, and
//! that the rest goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::known::{self, Served};
use crate::client::{Client, create_topic};
use crate::stage::{Daemon, Launch, Random, Stage, run};

const TOPIC: &str = "damaged";
/// Of each of two partitions; some 3 MB, in segments of 1 MiB.
const RECORDS: i64 = 1_600;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What must come of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Must {
    /// Everything is served.
    Whole,
    /// Fewer are served than there were, and the daemon says so: by an error or in its log.
    Show,
    /// One of the two, or the daemon refuses to start.
    ShowOrRefuse,
    /// Nothing is served of that partition, its files stay as they are, and the daemon says why.
    Offline,
    /// The same, but what the journal has of it is put in place first.
    OfflineRedone,
    /// Fewer are served than there were: what is last looks like an append that a power cut tore.
    Torn,
    /// The daemon refuses to start, and names the file.
    Refuse,
}

/// A data directory with two partitions, and the means to damage copies of it.
struct Bench {
    launch: Launch,
    image: PathBuf,
}

impl Bench {
    /// Filled, and stopped in order or killed.
    fn new(stage: &Stage, name: &str, journal: bool, clean: bool) -> anyhow::Result<Self> {
        let mut launch = stage.launch(name);
        if !journal {
            launch.set("flowstone.journal.bytes", "0");
        }
        let daemon = launch.start()?;
        let mut client = Client::connect(launch.address(), ANSWER_WITHIN)?;
        create_topic(&mut client, TOPIC, 2, &[("segment.bytes", (1 << 20).to_string())])?;
        for partition in [1, 0] {
            known::fill(&mut client, TOPIC, partition, RECORDS)?;
        }
        if clean {
            let status = daemon.stop()?;
            ensure!(status.success(), "the daemon ended with {status}");
        } else {
            daemon.kill()?;
        }
        let image = stage.folder().join(format!("{name}-image"));
        copy(launch.data(), &image)?;
        Ok(Self { launch, image })
    }

    /// The files of the first partition whose names end so, in order; or those of the whole directory.
    fn files(&self, suffix: &str) -> anyhow::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in [self.launch.data().join(format!("{TOPIC}-0")), self.launch.data().into()] {
            for entry in fs::read_dir(folder)?.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(suffix) && entry.path().is_file() {
                    found.push(entry.path());
                }
            }
        }
        found.sort();
        ensure!(!found.is_empty(), "there is no file {suffix}");
        Ok(found)
    }

    /// One case: what `damage` does to a fresh copy must show as `must` says.
    fn case(
        &self,
        stage: &mut Stage,
        name: &str,
        must: Must,
        damage: impl FnOnce(&Self, &mut Random) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        fs::remove_dir_all(self.launch.data())?;
        copy(&self.image, self.launch.data())?;
        damage(self, &mut stage.random).with_context(|| format!("{name}: cannot be damaged"))?;
        stage.count("cases", 1);
        let before = self.bytes_of(must)?;
        let came = self.what_comes(must).with_context(|| name.to_owned())?;
        ensure!(self.bytes_of(must)? == before, "{name}: files of a damaged log were changed");
        stage.say(&format!("{name}: {came}"));
        Ok(())
    }

    /// What the daemon must leave as it is: the segments and the identity of a log that it refuses.
    fn bytes_of(&self, must: Must) -> anyhow::Result<Vec<Vec<u8>>> {
        let folder = match must {
            Must::Offline => format!("{TOPIC}-0"),
            Must::Refuse => "__cluster_metadata-0".to_owned(),
            _ => return Ok(Vec::new()),
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(self.launch.data().join(folder))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_log = entry.path().extension().is_some_and(|extension| extension == "log");
            if is_log || name == "partition.metadata" {
                found.push((name, fs::read(entry.path())?));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, bytes)| bytes).collect())
    }

    fn what_comes(&self, must: Must) -> anyhow::Result<String> {
        let mut daemon = match self.launch.start() {
            Ok(daemon) => daemon,
            Err(why) if matches!(must, Must::ShowOrRefuse | Must::Refuse) => {
                let why = format!("{why:#}");
                ensure!(!why.contains("exit status: 101"), "it panics: {why}");
                let told = must != Must::Refuse || why.contains(" is damaged");
                ensure!(told, "it does not tell what is damaged: {why}");
                return Ok("refused to start".to_owned());
            }
            Err(why) => return Err(why),
        };
        let mut client = Client::connect(self.launch.address(), ANSWER_WITHIN)?;
        let Served { upto, refused } = known::served(&mut client, TOPIC, 0, 0, RECORDS)?;
        let shown = refused.is_some() || says_so(&daemon);
        let daemon_said = daemon.said();
        let is_offline = matches!(must, Must::Offline | Must::OfflineRedone);
        if is_offline {
            let sent = known::fill_from(&mut client, TOPIC, 0, RECORDS, 1);
            ensure!(sent.is_err(), "a damaged log takes records");
        }
        let other = known::served(&mut client, TOPIC, 1, 0, RECORDS)?;
        daemon.must_run()?;
        ensure!(other.upto == RECORDS, "the other partition is served to {} only", other.upto);
        known::fill_from(&mut client, TOPIC, 1, RECORDS, 10).context("the other partition")?;
        if refused.is_none() {
            // What is left of the log goes on where it ends.
            known::fill_from(&mut client, TOPIC, 0, upto, 10).context("behind what is left")?;
        }
        daemon.kill()?;
        match must {
            Must::Whole => ensure!(upto == RECORDS, "served to {upto} of {RECORDS}: {refused:?}"),
            Must::Show => {
                ensure!(upto < RECORDS, "the damaged record was served, or nothing was damaged");
                ensure!(shown, "served to {upto} of {RECORDS}, and nobody says why");
            }
            Must::ShowOrRefuse => {
                ensure!(upto == RECORDS || shown, "served to {upto}, and nobody says why");
            }
            Must::Torn => {
                ensure!(upto < RECORDS && refused.is_none(), "served to {upto}: {refused:?}");
            }
            Must::Offline | Must::OfflineRedone => {
                ensure!(upto == 0 && refused.is_some(), "served to {upto}: {refused:?}");
                let why = daemon_said.contains("is damaged") && daemon_said.contains("offline");
                ensure!(why, "the daemon does not say why the partition is offline");
            }
            Must::Refuse => bail!("it starts, and serves to {upto}"),
        }
        Ok(match refused {
            Some(code) => format!("served to {upto}, then {code}"),
            None => format!("served to {upto}"),
        })
    }
}

/// Whether the daemon's log warns of anything.
fn says_so(daemon: &Daemon) -> bool {
    let said = daemon.said();
    said.contains("\"WARN\"") || said.contains("\"ERROR\"")
}

/// S17: one bit, in each kind of file.
pub fn bits(stage: &mut Stage) -> anyhow::Result<()> {
    use Must::{Offline, Refuse, Show, ShowOrRefuse, Whole};
    let bench = Bench::new(stage, "stopped", true, true)?;
    // Kafka's batch header: length at 8, magic at 16, CRC at 17, counts and producer to 61.
    for (name, range) in [
        ("first batch: its length", 8..12),
        ("first batch: its CRC", 17..21),
        ("first batch: its header", 21..61),
        ("first batch: a record", 61..20_000),
    ] {
        bench.case(stage, name, Show, |bench, random| {
            flip(&bench.files(".log")?[0], random.between(range.start, range.end), random)
        })?;
    }
    bench.case(stage, "a closed segment: anywhere", Show, |bench, random| {
        let file = &bench.files(".log")?[1];
        let bytes = fs::metadata(file)?.len();
        flip(file, random.between(0, bytes), random)
    })?;
    bench.case(stage, "last batch", Offline, |bench, random| {
        let logs = bench.files(".log")?;
        let last = logs.last().context("a log")?;
        let bytes = fs::metadata(last)?.len();
        flip(last, random.between(bytes - 10_000, bytes), random)
    })?;
    for suffix in [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"] {
        bench.case(stage, suffix, Whole, |bench, random| {
            for file in bench.files(suffix)? {
                flip_anywhere(&file, random)?;
            }
            Ok(())
        })?;
    }
    for suffix in [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
        ".kafka_cleanshutdown",
        "meta.properties",
    ] {
        bench.case(stage, suffix, ShowOrRefuse, |bench, random| {
            flip_anywhere(&bench.files(suffix)?[0], random)
        })?;
    }
    bench.case(stage, "partition.metadata", Offline, |bench, random| {
        flip_anywhere(&bench.files("partition.metadata")?[0], random)
    })?;
    for (suffix, must) in
        [("quorum-state", ShowOrRefuse), (".log", Refuse), (".checkpoint", ShowOrRefuse)]
    {
        let name = format!("metadata: {suffix}");
        bench.case(stage, &name, must, |bench, random| {
            let mut found = Vec::new();
            for entry in fs::read_dir(bench.launch.data().join("__cluster_metadata-0"))?.flatten() {
                if entry.file_name().to_string_lossy().ends_with(suffix) {
                    found.push(entry.path());
                }
            }
            // Not every node has taken a snapshot yet.
            found.iter().try_for_each(|file| flip_anywhere(file, random))
        })?;
    }
    journal_bits(stage)
}

/// S17: one bit, in the journal of a daemon that was killed: what only the journal has of the partition.
fn journal_bits(stage: &mut Stage) -> anyhow::Result<()> {
    let bench = Bench::new(stage, "killed", true, false)?;
    bench.case(stage, "journal: untouched", Must::Whole, |_, _| Ok(()))?;
    for (name, behind, at, must) in [
        (
            "journal: a record in the middle",
            2,
            2 * HEADS_BYTES..4 * HEADS_BYTES,
            Must::OfflineRedone,
        ),
        ("journal: heads in the middle", 2, 8..HEADS_BYTES / 64, Must::Refuse),
        ("journal: a record of the last append", 0, 2 * HEADS_BYTES..4 * HEADS_BYTES, Must::Torn),
        ("journal: heads of the last append", 0, 8..HEADS_BYTES / 64, Must::Torn),
    ] {
        bench.case(stage, name, must, |bench, random| {
            let (file, frame) = bench.journaled(behind)?;
            flip(&file, frame + random.between(at.start, at.end), random)
        })?;
    }
    Ok(())
}

/// A frame of the journal has its heads in a first page, and then the pages of a large batch; the first of those has
/// the end of the batch before, too.
const HEADS_BYTES: u64 = 4096;
/// What it begins with; and where in its first entry the partition and the topic's name are.
const FRAME: &[u8] = b"FSJRNL\0\x02";
const PARTITION_AT: usize = 48 + 16;
const TOPIC_AT: usize = 48 + 58;

/// S18: ends that are cut off, zeroed or extended, after a kill, where nothing but the segment has them.
pub fn ends(stage: &mut Stage) -> anyhow::Result<()> {
    use Must::{Show, Whole};
    let bench = Bench::new(stage, "data", false, false)?;
    bench.case(stage, "untouched", Whole, |_, _| Ok(()))?;
    bench.case(stage, "garbage behind the end", Whole, |bench, random| {
        let last = bench.last_log()?;
        let garbage: Vec<u8> = (0..3_000).map(|_| random.bits() as u8 | 1).collect();
        Ok(File::options().write(true).open(&last)?.write_all_at(&garbage, end_of(&last)?)?)
    })?;
    bench.case(stage, "zeros behind the end", Whole, |bench, _| {
        let last = bench.last_log()?;
        let bytes = fs::metadata(&last)?.len();
        Ok(File::options().write(true).open(&last)?.set_len(bytes + 1_000_000)?)
    })?;
    bench.case(stage, "cut within the last batch", Show, |bench, random| {
        let last = bench.last_log()?;
        let end = end_of(&last)? - random.between(1, 10_000);
        Ok(File::options().write(true).open(&last)?.set_len(end)?)
    })?;
    bench.case(stage, "the last 10,000 bytes are zeros", Show, |bench, _| {
        let last = bench.last_log()?;
        let end = end_of(&last)?;
        Ok(File::options().write(true).open(&last)?.write_all_at(&[0; 10_000], end - 10_000)?)
    })?;
    Ok(())
}

impl Bench {
    /// Where the frame of the first partition is that has so many of them behind it.
    fn journaled(&self, behind: usize) -> anyhow::Result<(PathBuf, u64)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.launch.data())?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with("flowstone-journal-") {
                continue;
            }
            for (at, page) in fs::read(entry.path())?.chunks(HEADS_BYTES as usize).enumerate() {
                let is_ours = page.starts_with(FRAME)
                    && page[PARTITION_AT..].starts_with(&0_i32.to_be_bytes())
                    && page[TOPIC_AT..].starts_with(TOPIC.as_bytes());
                if is_ours {
                    found.push((entry.path(), at as u64 * HEADS_BYTES));
                }
            }
        }
        ensure!(found.len() > behind, "the journal has {} frames of it", found.len());
        Ok(found.swap_remove(found.len() - 1 - behind))
    }

    fn last_log(&self) -> anyhow::Result<PathBuf> {
        self.files(".log")?.pop().context("a log")
    }
}

/// Where a segment's batches end: behind its last byte that is not zero. Values end in none.
fn end_of(log: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(log)?;
    let last = bytes.iter().rposition(|byte| *byte != 0).context("only zeros")?;
    // A record without headers ends with their count, a zero.
    Ok(last as u64 + 2)
}

fn flip_anywhere(file: &Path, random: &mut Random) -> anyhow::Result<()> {
    match fs::metadata(file)?.len() {
        0 => Ok(()), // An index of nothing.
        bytes => flip(file, random.between(0, bytes), random),
    }
}

fn flip(file: &Path, at: u64, random: &mut Random) -> anyhow::Result<()> {
    let open = File::options().read(true).write(true).open(file)?;
    let mut byte = [0];
    open.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << random.between(0, 8);
    Ok(open.write_all_at(&byte, at)?)
}

/// A copy of a folder.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    match run("cp", &["-a", &from, &to]) {
        Ok(_) => Ok(()),
        Err(why) => bail!("cannot copy: {why:#}"),
    }
}
