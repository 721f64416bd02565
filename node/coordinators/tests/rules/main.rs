//! The rules of classic groups, each against the pure core, each with the KIP it comes from.

mod admin;
mod expiry;
mod harness;
mod joining;
mod limits;
mod offsets;

mod random;
mod records;
mod refused_writes;
mod sessions;
mod static_members;
