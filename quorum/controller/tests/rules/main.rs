//! The controller's rules, each in a short test that names where it comes from.

mod brokers;
mod client_quotas;
mod common;
mod configs;
mod node;
mod topics;
