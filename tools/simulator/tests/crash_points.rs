//! A few crash points of a store's life and of a broker's.

use flowstone_simulator::crash_points::play;

#[test]
fn some_moments_of_a_store_lose_nothing() {
    for seed in 0..3 {
        let stats = play(seed, 40);
        // At most 40: they are spread over the story in whole steps.
        assert!(stats.points >= 30, "{stats:?}");
        assert!(stats.acknowledged > 0, "{stats:?}");
    }
}

#[test]
fn some_moments_of_a_broker_lose_nothing() {
    let stats = play(5, 20);
    assert!(stats.points >= 20, "{stats:?}");
}

/// The seed that found a `partition.metadata` whose flush had failed beside others, and which no recovery wrote again.
#[test]
fn the_seed_that_found_something_loses_nothing() {
    let stats = play(2, 100);
    assert!(stats.points >= 80, "{stats:?}");
}
