//! The layers a value may come from, the strongest first (KIP-226).

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::keys::{Key, server_key};

/// What was set for a topic, broker or group: keys with their texts.
pub type Overrides = BTreeMap<String, String>;

/// Where a value comes from; as a number, that of `DescribeConfigs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum Source {
    /// Set for the topic.
    Topic = 1,
    /// Set for this broker, while it ran.
    DynamicBroker = 2,
    /// Set for all brokers, while they ran.
    DynamicDefaultBroker = 3,
    /// The configuration file or the command line.
    StaticBroker = 4,
    /// The table.
    Default = 5,
    /// Set for the subscription to client metrics.
    ClientMetrics = 7,
    /// Set for the group.
    Group = 8,
}

/// The server's layers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layers {
    pub fixed: Overrides,
    pub dynamic_default: Overrides,
    pub dynamic_broker: Overrides,
}

impl Layers {
    /// The text that holds for a server's key; `None` is Kafka's null.
    pub fn effective(&self, name: &str) -> Option<&str> {
        let set = [&self.dynamic_broker, &self.dynamic_default, &self.fixed];
        let set = set.into_iter().find_map(|layer| layer.get(name)).map(String::as_str);
        set.or_else(|| server_key(name)?.default.text())
    }

    /// The text that is a topic's or group's default, in its own unit: the first of its synonyms
    /// that is not null, hours and minutes turned into milliseconds; the key's own default without.
    pub fn inherited(&self, key: &'static Key) -> Option<String> {
        let from_server = key.synonyms.iter().find_map(|synonym| {
            let text = self.effective(synonym)?.trim();
            let ms_each: i64 = match synonym.rsplit('.').next() {
                Some("hours") => 3_600_000,
                Some("minutes") => 60_000,
                _ => return Some(text.to_owned()),
            };
            let count: i64 = text.parse().expect("hours and minutes are checked to be numbers");
            Some((count * ms_each).to_string()) // At most 2^31 hours, which fits.
        });
        let text = from_server.or_else(|| key.default.text().map(str::to_owned))?;
        // LogRetentionTimeMillis: any negative time is "for ever".
        let forever = key.name == "retention.ms" && text.starts_with('-');
        Some(if forever { "-1".to_owned() } else { text })
    }

    /// Every layer that says something about `names`, the strongest first: name, text, source.
    /// `names` are a key and those that stand in for it, the strongest first.
    pub fn all<'a>(&'a self, names: &'a [&'static str]) -> Vec<(&'static str, &'a str, Source)> {
        let mut found = Vec::new();
        for (layer, source) in [
            (&self.dynamic_broker, Source::DynamicBroker),
            (&self.dynamic_default, Source::DynamicDefaultBroker),
            (&self.fixed, Source::StaticBroker),
        ] {
            let set = names.iter().filter_map(|name| Some((*name, layer.get(*name)?, source)));
            found.extend(set.map(|(name, text, source)| (name, text.as_str(), source)));
        }
        let defaults =
            names.iter().filter_map(|name| Some((*name, server_key(name)?.default.text()?)));
        found.extend(defaults.map(|(name, text)| (name, text, Source::Default)));
        found
    }
}
