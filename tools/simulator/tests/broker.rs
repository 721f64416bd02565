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
