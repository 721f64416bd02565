//! A load generator that costs little itself, so that what it shows is the broker.
//!
//! Open loop: requests have an intended send time, and latency counts from it, so a broker that stalls
//! cannot hide the requests it kept waiting (coordinated omission). Batches are built before the start;
//! a request differs from the one before in a few bytes. A thread drives many connections with one
//! `poll`, several requests in flight on each.

mod driver;
mod load;
mod pace;
mod process;
mod report;

pub use driver::{Lane, Load, Outcome, Progress, Run, drive};
pub use load::{FetchLoad, ProduceLoad, build_batch};
pub use pace::Pace;
pub use process::{Cpu, listening_on, resident_bytes};
pub use report::Report;
