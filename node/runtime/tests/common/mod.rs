//! How tests get their shards.
#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;

use flowstone_runtime::{Plan, Topology, launch};

/// Runs `main` on `count` shards, over whatever cores there are.
pub fn on_shards<F, Fut>(count: usize, main: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cpus = Topology::read().unwrap().cpus;
    let cpus = (0..count).map(|shard| cpus[shard % cpus.len()]).collect();
    launch(Plan { cpus }, main).unwrap();
}

/// Runs `main` on one shard.
pub fn on_one_shard<F, Fut>(main: F)
where
    F: FnOnce() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    on_shards(1, move |_| (main.clone())());
}
