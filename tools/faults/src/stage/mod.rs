//! What a scenario is given to play on: a seed, a folder, daemons, file systems, and a place for figures.

mod daemon;
mod disk;
mod filesystem;
mod random;

use std::path::PathBuf;
use std::time::Instant;

pub use daemon::{Daemon, Launch};
pub use disk::AfterFailure;
pub use filesystem::{FileSystem, Kind, run};
pub use random::Random;

use crate::cgroup::Cgroup;
use crate::report::Figures;

/// What the machine must offer for a scenario.
#[derive(Clone, Copy)]
pub enum Needs {
    /// An ordinary user's rights.
    Nothing,
    /// Root, loop devices, and the tools of these file systems.
    FileSystems(&'static [Kind]),
    /// Root, and this controller of control groups.
    Cgroup(&'static str),
    /// What this says is missing.
    That(fn() -> Option<String>),
    /// The same for ext4, and FUSE below it.
    FailingDisk,
}

impl Needs {
    /// Why a scenario cannot run here, if it cannot.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::FileSystems(kinds) => filesystem::missing(kinds),
            Self::Cgroup(controller) => Cgroup::missing(controller),
            Self::That(missing) => missing(),
            Self::FailingDisk => disk::missing().or_else(|| filesystem::missing(&[Kind::Ext4])),
        }
    }
}

/// What a stage is made from.
pub struct Options {
    /// Decides every choice of the scenario.
    pub seed: u64,
    /// Whether this is the run of the quick ones: fewer rounds.
    pub quick: bool,
    /// How many rounds, where the caller says.
    pub rounds: Option<u32>,
    /// The daemon's binary.
    pub flowstoned: PathBuf,
    /// The scenario's own folder; it is there, and empty.
    pub folder: PathBuf,
}

/// One scenario's stage.
pub struct Stage {
    /// The scenario's own random source.
    pub random: Random,
    options: Options,
    figures: Figures,
    began: Instant,
}

impl Stage {
    /// An empty stage.
    pub fn new(options: Options) -> Self {
        Self {
            random: Random::new(options.seed),
            options,
            figures: Figures::new(),
            began: Instant::now(),
        }
    }

    /// The scenario's folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.options.folder
    }

    /// How many rounds: as the caller says, else `quick` in the run of the quick ones, else `all`.
    pub fn rounds(&self, quick: u32, all: u32) -> u32 {
        self.options.rounds.unwrap_or(if self.options.quick { quick } else { all })
    }

    /// A daemon on the directory of this name in the scenario's folder, not yet started.
    pub fn launch(&self, name: &str) -> Launch {
        self.launch_on(self.options.folder.join(name))
    }

    /// A daemon on this data directory, not yet started; its log stays in the scenario's folder.
    pub fn launch_on(&self, data: PathBuf) -> Launch {
        Launch::new(&self.options.flowstoned, data, self.options.folder.join("flowstoned.log"))
    }

    /// Adds to a figure.
    pub fn count(&mut self, name: &'static str, more: u64) {
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, value)) => *value += more as f64,
            None => self.figures.push((name, more as f64)),
        }
    }

    /// Keeps the largest value of a figure.
    pub fn at_most(&mut self, name: &'static str, value: f64) {
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, most)) => *most = most.max(value),
            None => self.figures.push((name, value)),
        }
    }

    /// One line on the terminal about how it goes.
    pub fn say(&mut self, line: &str) {
        println!("   {:6.1} s  {line}", self.began.elapsed().as_secs_f64());
    }

    /// Its figures.
    pub fn end(self) -> Figures {
        self.figures
    }
}
