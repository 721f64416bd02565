//! The table of scenarios: each is declared once, with its fault, its criterion and its function.
//!
//! The ids are those of the catalogue of faults that Flowstone is held to; what is done to several
//! brokers there is done to one node here, and `pass` says what is checked then.

use std::fmt;

use crate::scenarios::{answers, power, swapped};
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
