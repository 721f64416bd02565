//! The table of scenarios: each is declared once, with its fault, its criterion and its function.
//!
//! The ids are those of the catalogue of faults that Flowstone is held to; what is done to several
//! brokers there is done to one node here, and `pass` says what is checked then.

use std::fmt;

use crate::scenarios::{
    answers, bad_disk, batches, breadth, clock, damage, frames, kill, limits, many, power, soak,
    space, swapped, vanish, weaker,
};
use crate::stage::{Kind, Needs, Stage};

/// One fault and what must hold under it.
pub struct Scenario {
    /// What it is called on the command line.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// What is done.
    pub fault: &'static str,
    /// What must hold.
    pub pass: &'static str,
    /// Whether `make test` runs it.
    pub quick: bool,
    /// What the machine must offer.
    pub needs: Needs,
    /// An error, or a panic, says which promise was broken.
    pub play: fn(&mut Stage) -> anyhow::Result<()>,
}

/// All of them, in the order in which `run all` plays them.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "S2",
        title: "SIGKILL under load",
        fault: "20 times SIGKILL at a random moment of producing, consuming and committing",
        pass: "no acknowledged record or committed offset lost, changed, doubled or out of order; ready within 5 s and 1 s for each 2 GB of active log",
        quick: true,
        needs: Needs::Nothing,
        play: kill::under_load,
    },
    Scenario {
        id: "S10-ext4",
        title: "power loss on ext4",
        fault: POWER_FAULT,
        pass: POWER_PASS,
        quick: true,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: power::on_ext4,
    },
    Scenario {
        id: "S10-xfs",
        title: "power loss on XFS",
        fault: POWER_FAULT,
        pass: POWER_PASS,
        quick: false,
        needs: Needs::FileSystems(&[Kind::Xfs]),
        play: power::on_xfs,
    },
    Scenario {
        id: "S10-modes",
        title: "what each durability mode loses to a power loss",
        fault: "ten power cuts in each of flushed, written and memory, under the same load",
        pass: "flushed loses nothing; what the others lose is measured",
        quick: false,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: weaker::measured,
    },
    Scenario {
        id: "S10-judge",
        title: "the judge of power losses finds one",
        fault: "a power cut in memory mode, which acknowledges what no disk has",
        pass: "the checks of S10 report a loss: they can fail",
        quick: true,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: weaker::judged,
    },
    Scenario {
        id: "S10-cache",
        title: "power loss with a disk that has a cache",
        fault: "as S10, on a disk that forgets what was not flushed to its medium",
        pass: "as S10, in 30 rounds",
        quick: false,
        needs: Needs::FailingDisk,
        play: bad_disk::cache_is_lost,
    },
    Scenario {
        id: "S13",
        title: "disk full under the logs",
        fault: "producers fill a small file system; space is freed; twice",
        pass: "producers get KAFKA_STORAGE_ERROR, reads go on, writes resume within 10 s of free space without a restart; nothing acknowledged is lost, also after a kill",
        quick: true,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: space::full,
    },
    Scenario {
        id: "S13-metadata",
        title: "disk full under the metadata log",
        fault: "topics are made while the file system has no byte left; then space is freed",
        pass: "the daemon lives and answers; topics are made again within 10 s of free space; every topic that was acknowledged is there, also after a kill",
        quick: true,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: space::full_under_metadata,
    },
    Scenario {
        id: "S14",
        title: "a flush fails once, then all is well",
        fault: "one flush of the disk fails, under ext4 without and with a journal; the disk keeps its cache for the next flush, or forgets it; the power is cut",
        pass: "the daemon, whose only directory it is, says why and ends with status 1; nothing that is acknowledged, in any log, is lost: no flush is tried again and believed (there is no replica to go to)",
        quick: true,
        needs: Needs::FailingDisk,
        play: bad_disk::flush_fails_once,
    },
    Scenario {
        id: "S16",
        title: "a block of a closed segment cannot be read",
        fault: "reads of one block fail, in the middle of a segment that no cache holds",
        pass: "fetches of it fail with an error; those behind it, of other partitions, and produces go on; healed, it is served (there is no replica to repair it from)",
        quick: true,
        needs: Needs::FailingDisk,
        play: bad_disk::read_fails,
    },
    Scenario {
        id: "S21",
        title: "retention against a disk that fills up",
        fault: "a file system 80 % full takes six times what is free, under retention; then another process takes the rest",
        pass: "at 80 % no write is refused for space; at 100 % no flush or deletion takes the log offline; writes resume within 10 s of free space; nothing acknowledged and not expired is lost",
        quick: false,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: space::retention,
    },
    Scenario {
        id: "S17",
        title: "a flipped bit",
        fault: "one bit of a file: batch header, CRC, record, first and last batch, indexes, snapshots, checkpoints, identity, metadata log; of a killed daemon, a frame of the journal in the middle and the last",
        pass: "no other bytes are served, the damage shows (error, log line, or a refusal to start), indexes are rebuilt, other partitions go on; where a log lacks what was on stable storage (its last segment after a clean stop, its identity) it is offline and its files stay as they are; of the metadata log, and of what a journal's frame tells of whose its bytes are, the daemon refuses to start (there is no replica to repair from); the last append of a journal may read as torn",
        quick: false,
        needs: Needs::Nothing,
        play: damage::bits,
    },
    Scenario {
        id: "S18",
        title: "a file's end is not what was written",
        fault: "after a kill the last segment has garbage or zeros behind its end, or its end is cut off or zeroed",
        pass: "what is behind the last whole batch is dropped; what is missing shows in the log; the log goes on from there, or is offline where that was known to be flushed (there is no replica to fetch it from)",
        quick: false,
        needs: Needs::Nothing,
        play: damage::ends,
    },
    Scenario {
        id: "S19",
        title: "data directories that are not this node's",
        fault: "a directory of another node, one of another cluster, a copy of the other one, and an empty one, in a node with two",
        pass: "each is refused by the name of what differs; with its own directories it starts again",
        quick: true,
        needs: Needs::Nothing,
        play: swapped::foreign,
    },
    Scenario {
        id: "S19-old",
        title: "old images of data directories",
        fault: "an image of both directories of a node, of the one with the metadata, or of the other, is put back after more was written",
        pass: "one that is older than the other shows in the log; what an image has is served, every record what it was; partitions that the metadata do not know are left alone; writes go on, also behind a kill (there is no replica to fetch what is missing from)",
        quick: true,
        needs: Needs::Nothing,
        play: swapped::restored,
    },
    Scenario {
        id: "S19-lock",
        title: "two brokers on one data directory",
        fault: "a second daemon is started on the directory of one that runs",
        pass: "the second refuses to start and names the directory; the first serves on",
        quick: true,
        needs: Needs::Nothing,
        play: swapped::second_daemon,
    },
    Scenario {
        id: "S26",
        title: "first batches swapped",
        fault: "the first two to five batches of an idempotent producer reach a new partition in another order",
        pass: "whatever is not next is refused as out of order and stored by its retry; nothing lost, doubled or moved",
        quick: true,
        needs: Needs::Nothing,
        play: answers::swapped,
    },
    Scenario {
        id: "S27",
        title: "answers lost behind the append",
        fault: "a proxy swallows the answers to up to five produces in flight, and cuts; then the same to a load",
        pass: "retries are answered with the same offsets; nothing doubled, lost or moved",
        quick: true,
        needs: Needs::Nothing,
        play: answers::unheard,
    },
    Scenario {
        id: "S38",
        title: "frames that nobody means well with",
        fault: "lengths that cannot be, 100 MiB declared and 1 byte sent, a byte now and then on 2,000 connections, random bytes, HTTP, TLS",
        pass: "memory grows by 20 KiB a connection and 48 MiB at most; a client beside keeps its p99 within a factor of 2, or 10 ms; the log stays short",
        quick: true,
        needs: Needs::Nothing,
        play: frames::attacks,
    },
    Scenario {
        id: "S39",
        title: "every request, with bodies that make no sense",
        fault: "every key from 0 to 99 and some others, in every version and some others, with 11 bodies each",
        pass: "an answer to that very request, or the end of the connection; 96 MiB at most; load beside loses nothing",
        quick: true,
        needs: Needs::Nothing,
        play: breadth::requests,
    },
    Scenario {
        id: "S40",
        title: "record batches that lie",
        fault: "right checksums over wrong counts, deltas, lengths, magics, codecs, headers; forged control batches; bombs in four codecs; writes to the offsets",
        pass: "each is refused with an error that names it; consumers are given nothing of it; 448 MiB at most; load beside loses nothing",
        quick: false,
        needs: Needs::Nothing,
        play: batches::lies,
    },
    Scenario {
        id: "S37",
        title: "soak",
        fault: "half load through retention for --rounds minutes; kills, pauses, cut connections, lost answers, bad frames, resets at random",
        pass: "nothing acknowledged is lost; behind the kills memory grows by less than 5 % or 12 MiB, files and threads stay what they are",
        quick: false,
        needs: Needs::Nothing,
        play: soak::soak,
    },
    Scenario {
        id: "S24-reset",
        title: "2,000 connections end with a RST",
        fault: "in the middle of a request, behind one, and before answers are read, several times over",
        pass: "files and memory come back to what they were; load beside goes on; nothing acknowledged is lost",
        quick: true,
        needs: Needs::Nothing,
        play: vanish::resets,
    },
    Scenario {
        id: "S24-gone",
        title: "2,000 peers and a group's member vanish without a word",
        fault: "their address is taken away while answers are on their way",
        pass: "connections and memory are given back within the idle timeout, the coordinator releases the member, load goes on",
        quick: false,
        needs: Needs::That(vanish::missing),
        play: vanish::half_open,
    },
    Scenario {
        id: "S8-files",
        title: "out of file descriptors",
        fault: "256 files at start; then the least that it starts with, 1,024, and 1,500 clients call",
        pass: "the first start is refused and says why; who is connected goes on, a topic can be made, callers wait, the log says so; when they have gone all is well",
        quick: true,
        needs: Needs::Nothing,
        play: limits::files,
    },
    Scenario {
        id: "S8-threads",
        title: "out of threads",
        fault: "a control group lets the daemon have no thread more than it has",
        pass: "no crash; an orderly stop works; started again, writes go on, and nothing acknowledged is lost",
        quick: true,
        needs: Needs::Cgroup("pids"),
        play: limits::threads,
    },
    Scenario {
        id: "S6",
        title: "the clock jumps",
        fault: "by an hour, there and back, then at random every 100 ms; then a kill, and a start an hour earlier",
        pass: "writes go on within 3 s of each jump; nothing acknowledged is lost, committed offsets included",
        quick: true,
        needs: Needs::That(clock::missing),
        play: clock::jumps,
    },
    Scenario {
        id: "S7-cpu",
        title: "starved of CPU",
        fault: "5 % of one CPU for half a minute, under load",
        pass: "no crash; writes resume within 5 s of its end; nothing acknowledged is lost",
        quick: true,
        needs: Needs::Cgroup("cpu"),
        play: limits::cpu,
    },
    Scenario {
        id: "S7-memory",
        title: "128 MiB of memory",
        fault: "a control group of 128 MiB, and 32 producers that send as fast as they can",
        pass: "back-pressure instead of the out-of-memory killer; nothing acknowledged is lost",
        quick: false,
        needs: Needs::Cgroup("memory"),
        play: limits::memory,
    },
    Scenario {
        id: "S36",
        title: "10,000 partitions, killed",
        fault: "SIGKILL of a broker of 10,000 partitions, 500 of them under load",
        pass: "ready in 10 s; at most two files a partition and 300 MiB; below 5 % of a core when idle; nothing acknowledged is lost",
        quick: false,
        needs: Needs::Nothing,
        play: many::partitions,
    },
];

const POWER_FAULT: &str = "the file system goes down without a flush of its log, under load, at a random moment; in some rounds once more during recovery";
const POWER_PASS: &str = "flushed mode, 100 rounds: no acknowledged record, committed offset, topic or deletion of a topic is lost; no record changed, doubled or out of order; recovered twice, every log ends at the same offset";

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quick = if self.quick { " (quick)" } else { "" };
        write!(
            f,
            "{}  {}{quick}\n  fault: {}\n  pass:  {}",
            self.id, self.title, self.fault, self.pass
        )
    }
}
