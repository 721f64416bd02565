//! One run: what it is asked for, and what it came to.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use crate::plan::Keep;
use crate::story::Story;

/// What a run is asked for: the same question has the same answer, always.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The seed.
    pub seed: u64,
    /// Events that happen at least, before the faults end and everything has to settle.
    pub events: u64,
    /// The entries of the plan that happen.
    pub keep: Keep,
    /// Whether the network and the clocks are good ones, whatever the seed says: stories read better.
    pub calm: bool,
}

impl Asked {
    /// The whole run of a seed.
    pub const fn whole(seed: u64, events: u64) -> Self {
        Self { seed, events, keep: Keep::ALL, calm: false }
    }
}

/// A rule that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule: a short name, or the place of an assertion of a core.
    pub rule: String,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// Ends a run with a violation: `broken!("one leader per epoch", "{a} and {b} both lead {epoch}")`.
#[macro_export]
macro_rules! broken {
    ($rule:expr, $($text:tt)+) => {
        return Err($crate::run::Violation { rule: $rule.to_owned(), text: format!($($text)+) })
    };
}

/// What happened in a run, or in many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Faults.
    pub faults: u64,
    /// Times that a leader of the quorum was elected.
    pub elections: u64,
    /// Records that were committed by the quorum.
    pub committed: u64,
    /// Records that clients were told are safe.
    pub acknowledged: u64,
    /// Times that a partition changed its leader.
    pub leaders: u64,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.faults += other.faults;
        self.elections += other.elections;
        self.committed += other.committed;
        self.acknowledged += other.acknowledged;
        self.leaders += other.leaders;
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What happened.
    pub stats: Stats,
    /// Stands for the path that the run took.
    pub fingerprint: u64,
    /// Entries of the plan that were due.
    pub planned: u32,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
}

/// Where a run notes how far it has come, so that it is known even where a core's assertion ends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// What happened.
    pub stats: Stats,
    /// Stands for the path.
    pub fingerprint: u64,
    /// Entries of the plan that were due.
    pub planned: u32,
}

/// A layer of the simulator: what is simulated, and the rules that must hold.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Plays one run.
    pub play: fn(&Asked, &mut Progress, &mut Story) -> Result<(), Violation>,
}

/// Plays one run. An assertion that fails in a core is a violation, too.
pub fn play(layer: &Layer, asked: &Asked, story: &mut Story) -> Outcome {
    let mut progress = Progress::default();
    let played = catch_unwind(AssertUnwindSafe(|| (layer.play)(asked, &mut progress, story)));
    let violation = match played {
        Ok(result) => result.err(),
        Err(panic) => Some(Violation { rule: PLACE.take(), text: text(&*panic) }),
    };
    let Progress { stats, fingerprint, planned } = progress;
    Outcome { stats, fingerprint, planned, violation }
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on a panic of this process is noted, not printed: [`play`] tells of it.
pub fn note_panics() {
    set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PLACE.set(place.unwrap_or_default());
    }));
}

fn text(panic: &(dyn Any + Send)) -> String {
    let plain = panic.downcast_ref::<&str>().map(ToString::to_string);
    plain.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}
