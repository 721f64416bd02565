//! The table of scenarios: each is declared once, with its fault, its criterion and its function.
//!
//! The ids are those of the catalogue of faults that Flowstone is held to; what is done to several
//! brokers there is done to one node here, and `pass` says what is checked then.

use std::fmt;

use crate::scenarios::{answers, kill, power, space, swapped, weaker};
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
        id: "S21",
        title: "retention against a disk that fills up",
        fault: "a file system 80 % full takes six times what is free, under retention; then another process takes the rest",
        pass: "at 80 % no write is refused for space; at 100 % no flush or deletion takes the log offline; writes resume within 10 s of free space; nothing acknowledged and not expired is lost",
        quick: false,
        needs: Needs::FileSystems(&[Kind::Ext4]),
        play: space::retention,
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
];

const POWER_FAULT: &str = "the file system goes down without a flush of its log, under load, at a random moment; in some rounds once more during recovery";
const POWER_PASS: &str = "flushed mode, 100 rounds: no acknowledged record, committed offset, topic or deletion of a topic is lost; no record changed, doubled or out of order; recovered twice, every log has the same start and end";

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
