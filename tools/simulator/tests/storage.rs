//! A few seeds of the storage scenario, and the proof that it would find lost data.

use flowstone_simulator::scenarios::storage::{play, play_on_a_lying_disk};
use flowstone_simulator::seeds::{Scenario, run};

#[test]
fn the_first_seeds_pass() {
    let stats = run(&Scenario { name: "storage", about: "", play }, 0..6, 200);
    let stats = stats.unwrap_or_else(|failure| {
        panic!("{}seed {}: {}", failure.trace, failure.seed, failure.message)
    });
    assert!(stats.acknowledged > 2_000, "{stats:?}");
}

/// Seeds that found something: 18, two flushes of a log at once, of which one failed and the other said
/// yes; 185, a failed flush whose marker failed too; 582, zeros behind a file that recovery wrote anew;
/// 3356, a stop that had hundreds of segments to store on a slow disk, and was given a minute.
#[test]
fn the_seeds_that_found_something_pass() {
    for seed in [18, 185, 582, 3356] {
        let stats = run(&Scenario { name: "storage", about: "", play }, seed..seed + 1, 200);
        stats.unwrap_or_else(|failure| panic!("{}{}", failure.trace, failure.message));
    }
}

#[test]
fn a_disk_that_lies_is_found() {
    let scenario = Scenario { name: "lies", about: "", play: play_on_a_lying_disk };
    let failure = run(&scenario, 0..50, 0).expect_err("data was lost");
    let message = failure.message;
    let lost =
        ["gone", "went back", "and is", "damaged", "ends below", "not within", "skipped", "forgot"];
    assert!(lost.iter().any(|word| message.contains(word)), "{message}");
}
