//! What may be set for a topic, a group or a broker while it runs: the controller asks here.
//!
//! The sentences are Kafka's where clients show them to people.

use crate::config::Config;
use crate::keys::{Key, Treatment, Updates, group_key, server_key, topic_key};
use crate::layers::Overrides;
use crate::value::Value;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

impl Config {
    /// Checks the configs set for a topic, all of them together (so after an incremental change has
    /// been applied). The error is the sentence for INVALID_CONFIG. Whether a topic may ask for
    /// compaction is the controller's to say, since the cluster's own topics do.
    pub fn check_topic(&self, set: &Overrides) -> Result<(), String> {
        for (name, text) in set {
            let key =
                topic_key(name).ok_or_else(|| format!("Unknown topic config name: {name}"))?;
            check_allowed(key, text)?;
        }
        let text = |name| self.topic_text(name, Some(set));
        let number = |name| text(name).and_then(|text| i64::parse(text.trim())).unwrap_or_default();
        let (min, max) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
        if min > max {
            return Err(format!(
                "conflict topic config setting min.compaction.lag.ms ({min}) > \
                 max.compaction.lag.ms ({max})"
            ));
        }
        Ok(())
    }

    /// Checks the configs set for a group, all of them together.
    pub fn check_group(&self, set: &Overrides) -> Result<(), String> {
        for (name, text) in set {
            let key =
                group_key(name).ok_or_else(|| format!("Unknown group config name: {name}"))?;
            check_allowed(key, text)?;
            self.check_group_bounds(name, text)?;
        }
        let ms = |name: &str| {
            let own = set.get(name).cloned();
            i64::parse(own.or_else(|| self.layers.inherited(group_key(name)?))?.trim())
        };
        for protocol in ["consumer", "share", "streams"] {
            let session = format!("{protocol}.session.timeout.ms");
            let heartbeat = format!("{protocol}.heartbeat.interval.ms");
            if ms(&session) <= ms(&heartbeat) {
                return Err(format!("{session} must be greater than {heartbeat}"));
            }
        }
        Ok(())
    }

    /// Checks the configs set for one broker, or for all of them, while they run, all of them
    /// together (DynamicBrokerConfig.validate). Unknown keys pass, as in Kafka.
    pub fn check_broker(&self, set: &Overrides, for_all_brokers: bool) -> Result<(), String> {
        let known = || set.iter().filter_map(|(name, text)| Some((server_key(name)?, text)));
        let naming = |wrong: &dyn Fn(&Key) -> bool, why: &str| {
            let wrong = known().map(|(key, _)| key).filter(|key| wrong(key));
            let names: Vec<&str> = wrong.map(|key| key.name).collect();
            if names.is_empty() { Ok(()) } else { Err(format!("{why}: {}", names.join(", "))) }
        };
        naming(&|key| key.updates == Updates::ReadOnly, "Cannot update these configs dynamically")?;
        naming(
            &|key| for_all_brokers && key.updates == Updates::PerBroker,
            "Cannot update these configs at default cluster level, broker id must be specified",
        )?;
        if let Some(name) = set.keys().find(|name| name.starts_with("listener.name.")) {
            return Err(format!("{name} cannot be set for one listener yet"));
        }
        for (key, text) in known() {
            check_allowed(key, text)?;
        }
        self.check_dynamic(set, for_all_brokers)
    }

    /// GroupConfig.validate: a group's value is between the server's `min` and `max` for it.
    fn check_group_bounds(&self, name: &str, text: &str) -> Result<(), String> {
        let Some(value) = i64::parse(text.trim()) else { return Ok(()) };
        let (protocol, rest) = name.split_once('.').unwrap_or((name, ""));
        let bound = |which: &str| {
            // group.streams.max.standby.replicas is the one whose name drops a word.
            let rest = rest.strip_prefix("num.").unwrap_or(rest);
            let bound = format!("group.{protocol}.{which}.{rest}");
            let value = self.layers.effective(&bound).and_then(i64::parse)?;
            Some((bound, value))
        };
        match (bound("min"), bound("max")) {
            (Some((key, min)), _) if value < min => {
                Err(format!("{name} must be greater than or equal to {key}"))
            }
            (_, Some((key, max))) if value > max => {
                Err(format!("{name} must be less than or equal to {key}"))
            }
            _ => Ok(()),
        }
    }
}

fn check_allowed(key: &Key, text: &str) -> Result<(), String> {
    match key.treatment {
        Treatment::Refused(why) if !key.asks_for_nothing(text) => {
            return Err(format!("{} cannot be set: {why}", key.name));
        }
        Treatment::Used | Treatment::NotNeeded(_) | Treatment::Refused(_) | Treatment::Internal => {
        }
    }
    key.check(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{CompressionType, Durability, TimestampType};

    #[test]
    fn a_topic_without_configs_is_kafkas() {
        let topic = config(&[]).topic(None);
        assert_eq!((topic.retention_ms, topic.retention_bytes), (604_800_000, -1));
        assert_eq!((topic.segment_bytes, topic.segment_ms), (1 << 30, 604_800_000));
        assert_eq!((topic.flush_ms, topic.flush_messages), (i64::MAX, i64::MAX));
        assert_eq!(topic.compression_type, CompressionType::Producer);
        assert_eq!(topic.timestamp_type, TimestampType::CreateTime);
        assert_eq!(topic.max_message_bytes, 1_048_588);
        assert_eq!(topic.durability, Durability::Flushed);
        assert!(topic.cleanup_policy.delete && !topic.cleanup_policy.compact);
    }

    /// kafka-reference 7.3: "log.retention.{ms,minutes,hours}, log.roll.{ms,hours}".
    #[test]
    fn defaults_come_from_the_servers_keys_in_their_order() {
        let ms = |set: &[(&str, &str)]| config(set).topic(None).retention_ms;
        assert_eq!(ms(&[("log.retention.hours", "1")]), 3_600_000);
        assert_eq!(ms(&[("log.retention.hours", "1"), ("log.retention.minutes", "1")]), 60_000);
        assert_eq!(ms(&[("log.retention.minutes", "1"), ("log.retention.ms", "7")]), 7);
        assert_eq!(ms(&[("log.retention.hours", "-1")]), -1);
        let topic = config(&[("log.roll.hours", "2"), ("log.roll.jitter.hours", "1")]).topic(None);
        assert_eq!((topic.segment_ms, topic.segment_jitter_ms), (7_200_000, 3_600_000));
        let topic = config(&[("log.flush.scheduler.interval.ms", "5")]).topic(None);
        assert_eq!(topic.flush_ms, 5);
        let topic = config(&[("flowstone.durability", "written")]).topic(None);
        assert_eq!(topic.durability, Durability::Written);
    }

    #[test]
    fn a_topics_own_config_is_strongest() {
        let config = config(&[("log.retention.ms", "7")]);
        let own = overrides(&[("retention.ms", "9"), ("segment.bytes", "not a number")]);
        let (changed, complaints) = config.with_dynamic(
            Some(&overrides(&[("log.retention.ms", "8"), ("log.segment.bytes", "2000000")])),
            Some(&overrides(&[("log.segment.bytes", "3000000"), ("log.roll.ms", "x")])),
        );
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert_eq!(changed.topic(Some(&own)).retention_ms, 9);
        assert_eq!(changed.topic(None).retention_ms, 8);
        assert_eq!(
            changed.topic(Some(&own)).segment_bytes,
            3_000_000,
            "what is no number counts not"
        );
        assert_eq!(config.topic(None).retention_ms, 7);
    }

    #[test]
    fn a_topics_configs_are_checked() {
        for (set, want) in [
            (&[("retention.ms", "1"), ("cleanup.policy", "delete")][..], ""),
            (&[("flowstone.durability", "memory")], ""),
            (&[("cleanup.policy", "")], ""),
            (&[("preallocate", "true")], ""),
            (&[("colour", "red")], "Unknown topic config name: colour"),
            (
                &[("segment.bytes", "5")],
                "Invalid value 5 for configuration segment.bytes: Value must be at least 1048576",
            ),
            (
                &[("retention.ms", "x")],
                "Invalid value x for configuration retention.ms: Not a number of type LONG",
            ),
            (
                &[("cleanup.policy", "keep")],
                "Invalid value keep for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                &[("remote.storage.enable", "true")],
                "remote.storage.enable cannot be set: remote storage is not there yet",
            ),
            (&[("remote.storage.enable", "false")], ""),
            (
                &[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "8")],
                "conflict topic config setting min.compaction.lag.ms (9) > max.compaction.lag.ms (8)",
            ),
        ] {
            assert_eq!(config(&[]).check_topic(&overrides(set)).err().unwrap_or_default(), want);
        }
    }

    #[test]
    fn a_groups_configs_are_within_the_servers_bounds() {
        for (name, text, good) in [
            ("consumer.session.timeout.ms", "50000", true),
            ("consumer.session.timeout.ms", "44999", false),
            ("consumer.session.timeout.ms", "60001", false),
            ("streams.num.standby.replicas", "2", true),
            ("streams.num.standby.replicas", "3", false),
            ("share.auto.offset.reset", "by_duration:PT1H", true),
            ("share.auto.offset.reset", "never", false),
            ("share.colour", "red", false),
        ] {
            let checked = config(&[]).check_group(&overrides(&[(name, text)]));
            assert_eq!(checked.is_ok(), good, "{name}={text}: {checked:?}");
        }
    }

    /// kafka-reference 7.2: what KIP-226 refuses.
    #[test]
    fn a_brokers_dynamic_configs_are_checked() {
        for (name, text, all, want) in [
            ("log.retention.ms", "5", true, ""),
            ("somebodys.own", "x", true, ""),
            ("node.id", "5", false, "Cannot update these configs dynamically: node.id"),
            (
                "ssl.keystore.location",
                "/x",
                true,
                "Cannot update these configs at default cluster level, broker id must be specified: ssl.keystore.location",
            ),
            (
                "log.retention.ms",
                "x",
                false,
                "Invalid value x for configuration log.retention.ms: Not a number of type LONG",
            ),
            (
                "log.cleanup.policy",
                "compact",
                true,
                "cleanup.policy compact is not there yet: Flowstone does not compact logs; use delete",
            ),
        ] {
            let checked = config(&[]).check_broker(&overrides(&[(name, text)]), all);
            assert_eq!(checked.err().unwrap_or_default(), want);
        }
        assert!(
            config(&[])
                .check_broker(&overrides(&[("ssl.keystore.location", "/x")]), false)
                .is_err()
        );
        assert!(
            config(&[])
                .check_broker(&overrides(&[("listener.name.a.ssl.keystore.location", "/x")]), false)
                .is_err()
        );
    }

    fn config(set: &[(&str, &str)]) -> Config {
        let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::dev("/data", 9092, &set).unwrap().config
    }

    fn overrides(set: &[(&str, &str)]) -> Overrides {
        set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }
}
