//! What is played: one file a scenario.

pub mod broker;
pub mod storage;

use crate::seeds::Scenario;

/// All of them, the cheapest first.
pub const SCENARIOS: [Scenario; 2] = [
    Scenario {
        name: "storage",
        about: "the logs of one node, below its connections: recovery after every kind of end",
        play: storage::play,
    },
    Scenario { name: "broker", about: "the whole daemon, over its sockets", play: broker::play },
];
