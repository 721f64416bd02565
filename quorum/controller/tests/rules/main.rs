//! The controller's rules, each in a short test that names where it comes from.

mod acls;
mod active;
mod brokers;
mod client_quotas;
mod common;
mod configs;
mod delegation_tokens;
mod features;
mod lifecycle;
mod mutations;
mod node;
mod reassignments;
mod replicas;
mod scram;
mod topics;
mod transactions;
