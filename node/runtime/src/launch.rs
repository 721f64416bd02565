//! From a process to its shards: may we run here, on which cores, and then run.

mod probe;
pub(crate) mod topology;

use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;

pub use probe::{Host, Limits, ProbeError, probe};
pub use topology::Topology;

use crate::ring;

/// Which cores to use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// One shard for each, pinned to it. A number may come twice (tests do that).
    pub cpus: Vec<usize>,
}

/// Starts one pinned thread per shard, runs `main(shard index)` on each, and returns when all have
/// returned. An error: a shard could not start; those that could are left to the process's end.
///
/// A panic on any shard ends the process at once, with status 101: never a half-dead broker.
pub fn launch<F, Fut>(plan: Plan, main: F) -> io::Result<()>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let count = plan.cpus.len();
    assert!(count > 0, "a plan without a shard");
    topology::note_allowed()?;
    let (report, reports) = mpsc::channel();
    for (index, cpu) in plan.cpus.into_iter().enumerate() {
        let (main, report) = (main.clone(), report.clone());
        thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            let _end = ring::EndOnPanic::on_this_thread();
            let ended = topology::pin_to(cpu)
                .and_then(|()| ring::run_shard(index, count, main))
                .map_err(|error| io::Error::new(error.kind(), format!("shard {index}: {error}")));
            // No one listens where another shard could not start.
            let _ = report.send(ended);
        })?;
    }
    drop(report);
    reports.iter().collect()
}
