//! What is played: one file a scenario.

pub mod broker;
pub mod storage;

use crate::crash_points;
use crate::seeds::{Crashing, Scenario};

/// All of them, the cheapest first.
pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "storage",
        about: "the logs of one node, below its connections: recovery after every kind of end",
        play: storage::play,
    },
    Scenario { name: "broker", about: "the whole daemon, over its sockets", play: broker::play },
];

/// Every moment of a recorded life is a power cut.
pub const CRASH_POINTS: Crashing = Crashing {
    name: "crash-points",
    about: "power cuts between any two changes of the disk, in every way they may end, and in recoveries",
    play: crash_points::play,
};
