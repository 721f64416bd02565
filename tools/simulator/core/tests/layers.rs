//! A few seeds of each layer, so that `cargo test` alone would see a broken core; `make test` plays more.

use flowstone_core_simulator::LAYERS;
use flowstone_core_simulator::run::Stats;
use flowstone_core_simulator::seeds::run;

const SEEDS: u64 = 20;
const EVENTS: u64 = 2_000;

#[test]
fn the_first_seeds_of_each_layer_pass() {
    for layer in &LAYERS {
        let played = run(layer, 0..SEEDS, EVENTS, 2);
        let Stats { events, committed, .. } = played.unwrap_or_else(|failure| {
            panic!("{}: seed {}: {}", layer.name, failure.asked.seed, failure.violation)
        });
        assert!(events >= SEEDS * EVENTS, "{}: {events} events", layer.name);
        assert!(
            committed > 0,
            "{}: a world in which nothing is ever committed shows nothing",
            layer.name
        );
    }
}
