//! What configuration comes to, in the words of the parts that obey it.

use flowstone_batch::{Codec, Compression, Origin, Rules, TimestampType};
use flowstone_config::{self as config, Config, Settings, TopicConfig};
use flowstone_coordinators as coordinators;
use flowstone_log::{Durability, LogConfig};
use flowstone_metadata::{ConfigResource, Image};
use flowstone_types::NodeId;
use std::sync::Arc;

/// The topic of groups and their offsets.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// The topic of transactions.
const TRANSACTION_STATE: &str = "__transaction_state";
/// The topic of share groups' state.
const SHARE_GROUP_STATE: &str = "__share_group_state";

/// Whether a topic is the cluster's own: clients may read it, not write it.
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, CONSUMER_OFFSETS | TRANSACTION_STATE | SHARE_GROUP_STATE)
}

/// What a topic's configs come to.
pub struct TopicSettings {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Whether it is the cluster's own.
    pub is_internal: bool,
    /// What its logs are asked for.
    pub log: Arc<LogConfig>,
    rules: Rules,
}

impl TopicSettings {
    /// From the configs of the topic over those of this broker.
    pub fn resolve(config: &Config, image: &Image, topic: &Arc<str>) -> Self {
        let config = topic_config(config, image, topic);
        let internal = is_internal(topic);
        let rules = Rules {
            max_message_bytes: config.max_message_bytes as usize,
            segment_bytes: config.segment_bytes as usize,
            compression: compression(&config),
            timestamp_type: match config.timestamp_type {
                config::TimestampType::CreateTime => TimestampType::CreateTime,
                config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: config.timestamp_before_ms_max,
            timestamp_after_max_ms: config.timestamp_after_ms_max,
            compacted: config.cleanup_policy.compact,
            inspect_compressed: config.compressed_check == config::CompressedCheck::Full,
            ..Rules::default()
        };
        let log = LogConfig {
            segment_bytes: config.segment_bytes as u32,
            segment_ms: config.segment_ms,
            segment_jitter_ms: config.segment_jitter_ms,
            segment_index_bytes: config.segment_index_bytes as u32,
            index_interval_bytes: config.index_interval_bytes as u32,
            delete: config.cleanup_policy.delete,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
            flush_messages: config.flush_messages,
            flush_ms: config.flush_ms,
            file_delete_delay_ms: config.file_delete_delay_ms,
            // A group's member is told that its offset is kept: that has one meaning.
            durability: if internal { Durability::Flushed } else { durability(config.durability) },
        };
        Self { topic: Arc::clone(topic), is_internal: internal, log: Arc::new(log), rules }
    }

    /// What a batch from a producer must be.
    pub fn rules(&self, zstd_allowed: bool) -> Rules {
        Rules { zstd_allowed, ..self.rules.clone() }
    }

    /// What a batch from a coordinator of ours must be: whole, and not larger than the topic takes.
    pub fn coordinator_rules(&self) -> Rules {
        Rules { origin: Origin::Coordinator, ..self.rules.clone() }
    }
}

/// A topic's configs, over this broker's.
pub fn topic_config(config: &Config, image: &Image, topic: &str) -> TopicConfig {
    config.topic(image.configs.get(&ConfigResource::topic(topic)).map(|set| &**set))
}

/// This broker's configuration with what the metadata log has for it over it; the second says what
/// of that cannot hold.
pub fn dynamic(fixed: &Config, image: &Image, broker: NodeId) -> (Config, Vec<String>) {
    let set = |resource: &ConfigResource| image.configs.get(resource).map(|set| &**set);
    fixed.with_dynamic(set(&ConfigResource::all_brokers()), set(&ConfigResource::broker(broker)))
}

fn durability(chosen: config::Durability) -> Durability {
    match chosen {
        config::Durability::Flushed => Durability::Flushed,
        config::Durability::Written => Durability::Written,
        config::Durability::Memory => Durability::Memory,
    }
}

fn compression(topic: &TopicConfig) -> Compression {
    use config::CompressionType as Type;
    let fixed = |codec, level| Compression::Fixed { codec, level };
    match topic.compression_type {
        Type::Producer => Compression::Producer,
        Type::Uncompressed => fixed(Codec::None, None),
        Type::Gzip => fixed(Codec::Gzip, Some(topic.compression_gzip_level).filter(|l| *l >= 0)),
        Type::Snappy => fixed(Codec::Snappy, None),
        Type::Lz4 => fixed(Codec::Lz4, Some(topic.compression_lz4_level)),
        Type::Zstd => fixed(Codec::Zstd, Some(topic.compression_zstd_level)),
    }
}

/// What the group coordinators are asked for.
pub fn group_config(settings: &Settings) -> coordinators::Config {
    coordinators::Config {
        session_timeout_ms_min: settings.group_session_timeout_ms_min,
        session_timeout_ms_max: settings.group_session_timeout_ms_max,
        initial_rebalance_delay_ms: settings.group_initial_rebalance_delay_ms,
        group_size_max: settings.group_size_max,
        offset_metadata_max: settings.offset_metadata_bytes_max,
        offsets_retention_ms: i64::from(settings.offsets_retention_minutes) * 60_000,
        cleanup_interval_ms: settings.offsets_retention_check_interval_ms,
    }
}
