//! The client that all commands share: connections, the cluster's layout, group membership.
//!
//! Blocking and single-threaded: a tool asks one thing at a time. Only `bench` has a path of its own
//! to the sockets.

mod cluster;
mod connection;
mod fetch;
mod group;
mod produce;

pub use cluster::{Cluster, Topic};
pub use connection::Connection;
pub use fetch::Fetcher;
pub use group::{Member, assigned, commit_without_member, committed, subscribed};
pub use produce::{Acks, Outgoing, Producer};

use std::time::{Duration, Instant};

use crate::failure::Failure;

/// Name under which brokers see this tool.
pub const CLIENT_ID: &str = "flowstone-cli";

/// How long to wait before a request is sent again.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Tries until it works, fails for good, or `timeout` has passed.
pub fn until<T>(
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Err(failure) if failure.may_pass() && Instant::now() < deadline => {
                std::thread::sleep(RETRY_EVERY);
            }
            done => return done,
        }
    }
}
