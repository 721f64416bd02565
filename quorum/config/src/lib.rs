//! Every configuration key, declared once: Kafka's name, type, default, range, scope and documentation.
//!
//! A file and flags become a [`Config`], or a list of [`Problems`] that names each line; topics,
//! groups and dynamic changes are checked and read over it; `DescribeConfigs` and the reference are
//! derived. Pure: the caller reads the file.
//!
//! Precedence, the strongest first (KIP-226): what is set for the topic or group, for this broker, for
//! all brokers (all three in the metadata log), `--set`, the file, the table's default.

// Tests print and panic like any other: they have std.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod config;
mod describe;
mod keys;
mod known;
mod layers;
mod listeners;
mod problem;
pub mod properties;
pub mod reference;
mod rules;
mod topic;
mod value;

pub use config::{Config, File, Loaded, Roles};
pub use describe::{Described, Synonym, is_list};
pub use keys::{
    Fallback, Key, Settings, TopicConfig, Treatment, Updates, client_metrics_key,
    client_metrics_keys, group_key, group_keys, server_key, server_keys, topic_key, topic_keys,
};
pub use layers::{Overrides, Source};
pub use listeners::Endpoint;
pub use problem::{Place, Problem, Problems};
pub use value::{
    CleanupPolicy, CompressedCheck, CompressionType, Durability, Kind, List, LogFormat, Range,
    TimestampType, Value,
};
