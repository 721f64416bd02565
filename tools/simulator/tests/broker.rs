//! A few seeds of the broker scenario: the whole daemon, in `cargo test`.

use flowstone_simulator::scenarios::broker::play;
use flowstone_simulator::seeds::{Scenario, run};

#[test]
fn the_first_seeds_pass() {
    let stats = run(&Scenario { name: "broker", about: "", play }, 0..20, 200);
    let stats = stats.unwrap_or_else(|failure| {
        panic!("{}seed {}: {}", failure.trace, failure.seed, failure.message)
    });
    assert!(stats.acknowledged > 2_000, "{stats:?}");
}

/// 315: a full disk refuses a batch of the metadata log that Raft had counted already.
#[test]
fn the_seeds_that_found_something_pass() {
    let stats = run(&Scenario { name: "broker", about: "", play }, 315..316, 200);
    stats.unwrap_or_else(|failure| panic!("{}{}", failure.trace, failure.message));
}
