//! The rules of the quorum, one short test each, and a few small clusters by script.

mod cluster;
mod election;
mod epochs;
mod fetch;
mod harness;
mod messages;
mod network;
mod snapshots;
mod start;
mod voters;
