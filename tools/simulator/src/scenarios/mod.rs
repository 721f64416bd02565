//! What is played: one file a scenario.

pub mod storage;

use crate::seeds::Scenario;

/// All of them, the cheapest first.
pub const SCENARIOS: [Scenario; 1] = [Scenario {
    name: "storage",
    about: "the logs of one node, below its connections: recovery after every kind of end",
    play: storage::play,
}];
