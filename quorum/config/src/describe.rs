//! What `DescribeConfigs` says: values with their sources, in the table's order.

use crate::config::Config;
use crate::keys::{
    Key, Treatment, Updates, client_metrics_key, client_metrics_keys, group_key, group_keys,
    server_key, server_keys, topic_key, topic_keys,
};
use crate::layers::{Overrides, Source};
use crate::value::Kind;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// One config as `DescribeConfigs` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// The key.
    pub name: String,
    /// The text that holds; `None` where there is none, or it is a secret.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether its value is kept back.
    pub sensitive: bool,
    /// Its type; `None` for a key that is not ours.
    pub kind: Option<Kind>,
    /// A sentence about it; empty for a key that is not ours.
    pub doc: &'static str,
    /// Every layer that says something about it, the strongest first.
    pub synonyms: Vec<Synonym>,
}

/// What one layer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synonym {
    /// The key in that layer; a topic's default has another name there.
    pub name: String,
    /// Its text; `None` for a secret.
    pub value: Option<String>,
    /// Which layer.
    pub source: Source,
}

impl Config {
    /// A topic's configs.
    pub fn describe_topic(&self, set: Option<&Overrides>) -> Vec<Described> {
        let keys = topic_keys().filter(|key| key.treatment != Treatment::Internal);
        keys.map(|key| self.describe_inheriting(key, set, Source::Topic)).collect()
    }

    /// A group's configs.
    pub fn describe_group(&self, set: Option<&Overrides>) -> Vec<Described> {
        group_keys().map(|key| self.describe_inheriting(key, set, Source::Group)).collect()
    }

    /// The configs of a subscription to client metrics.
    pub fn describe_client_metrics(&self, set: Option<&Overrides>) -> Vec<Described> {
        let own = Source::ClientMetrics;
        client_metrics_keys().map(|key| self.describe_inheriting(key, set, own)).collect()
    }

    /// This broker's configs.
    pub fn describe_broker(&self) -> Vec<Described> {
        let keys = server_keys().filter(|key| key.treatment != Treatment::Internal);
        let known = keys.map(|key| self.describe_server(key, |_| true));
        let dynamic = self.layers.dynamic_broker.keys().chain(self.layers.dynamic_default.keys());
        let mut unknown: Vec<&String> = dynamic.filter(|name| server_key(name).is_none()).collect();
        unknown.sort();
        unknown.dedup();
        known.chain(unknown.into_iter().map(|name| unknown_key(name))).collect()
    }

    /// What is set for all brokers (the resource with the empty name).
    pub fn describe_all_brokers(&self) -> Vec<Described> {
        let set = self.layers.dynamic_default.keys();
        set.map(|name| match server_key(name) {
            Some(key) => self.describe_server(key, |source| source == Source::DynamicDefaultBroker),
            None => unknown_key(name),
        })
        .collect()
    }

    fn describe_server(&self, key: &'static Key, wanted: impl Fn(Source) -> bool) -> Described {
        let layers = self.layers.all(stand_ins(key));
        let layers = layers.into_iter().filter(|(.., source)| wanted(*source));
        let synonyms = synonyms(key, key.name, layers);
        let value = self.layers.effective(key.name).map(str::to_owned);
        describe(key, value, synonyms, key.updates == Updates::ReadOnly)
    }

    /// ConfigHelper.createTopicConfigEntry: first what is set for the resource, then the layers of
    /// the server's key that gives the default.
    fn describe_inheriting(
        &self,
        key: &'static Key,
        set: Option<&Overrides>,
        own: Source,
    ) -> Described {
        let inherited = match key.synonyms.first() {
            None => Vec::new(),
            Some(first) => synonyms(key, first, self.layers.all(key.synonyms).into_iter()),
        };
        let set = set.and_then(|set| set.get(key.name));
        let value = set.cloned().or_else(|| self.layers.inherited(key));
        let set = set.map(|text| Synonym {
            name: key.name.to_owned(),
            value: Some(text.clone()),
            source: own,
        });
        describe(key, value, set.into_iter().chain(inherited).collect(), false)
    }
}

/// A server's key and those that stand in for it where it is not set.
fn stand_ins(key: &'static Key) -> &'static [&'static str] {
    let topic = topic_keys().find(|topic| topic.synonyms.first() == Some(&key.name));
    topic.map_or(core::slice::from_ref(&key.name), |topic| topic.synonyms)
}

/// As in Kafka, layers of stand-ins that come before the first of the key itself are left out: they
/// are in another unit.
fn synonyms<'a>(
    key: &Key,
    first: &str,
    layers: impl Iterator<Item = (&'static str, &'a str, Source)>,
) -> Vec<Synonym> {
    let from_first = layers.skip_while(|(name, ..)| *name != first);
    from_first
        .map(|(name, text, source)| Synonym {
            name: name.to_owned(),
            value: (!key.is_sensitive()).then(|| text.to_owned()),
            source,
        })
        .collect()
}

fn describe(
    key: &'static Key,
    value: Option<String>,
    synonyms: Vec<Synonym>,
    read_only: bool,
) -> Described {
    Described {
        name: key.name.to_owned(),
        value: value.filter(|_| !key.is_sensitive()).map(|text| key.kind.shown(&text)),
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        read_only,
        sensitive: key.is_sensitive(),
        kind: Some(key.kind),
        doc: key.doc,
        synonyms,
    }
}

/// A dynamic key that we do not know: it may be a secret, so its value is kept back.
fn unknown_key(name: &str) -> Described {
    Described {
        name: name.to_owned(),
        value: None,
        source: Source::DynamicBroker,
        read_only: false,
        sensitive: true,
        kind: None,
        doc: "",
        synonyms: Vec::new(),
    }
}

/// Whether APPEND and SUBTRACT apply to a key: only lists take them (KIP-339). No two resources have
/// a key of one name and different types.
pub fn is_list(name: &str) -> bool {
    let of_group = || group_key(name).or_else(|| client_metrics_key(name));
    let key = topic_key(name).or_else(|| server_key(name)).or_else(of_group);
    key.is_some_and(|key| key.kind == Kind::List)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let config = config(&[]);
        let topic = config.describe_topic(None);
        assert_eq!(topic.len(), 35, "Kafka's 34 without the internal one, and our two");
        assert!(topic.iter().all(|entry| !entry.read_only && entry.value.is_some()));
        let broker = config.describe_broker();
        assert!(broker.len() > 340);
        for entry in &broker {
            let key = server_key(&entry.name).unwrap();
            assert_eq!(entry.sensitive, key.kind == Kind::Password);
            assert_eq!(entry.read_only, key.updates == Updates::ReadOnly);
            if entry.synonyms.is_empty() {
                assert_eq!(entry.source, Source::Default, "{}", entry.name);
            }
        }
        assert_eq!(config.describe_group(None).len(), 17);
    }

    /// kafka-configs --describe --all: "segment.bytes=... synonyms={STATIC_BROKER_CONFIG:
    /// log.segment.bytes=..., DEFAULT_CONFIG:log.segment.bytes=...}".
    #[test]
    fn layers_are_the_synonyms() {
        use Source::{Default, DynamicBroker, DynamicDefaultBroker, StaticBroker, Topic};
        let config = config(&[("log.segment.bytes", "2000000")]);
        let (config, _) = config.with_dynamic(
            Some(&overrides(&[("log.segment.bytes", "3000000")])),
            Some(&overrides(&[("log.segment.bytes", "4000000")])),
        );
        let own = overrides(&[("segment.bytes", "5000000")]);
        let entry = find(config.describe_topic(Some(&own)), "segment.bytes");
        let sources: Vec<_> = entry.synonyms.iter().map(|s| (&*s.name, s.source)).collect();
        let server = "log.segment.bytes";
        let want = [
            ("segment.bytes", Topic),
            (server, DynamicBroker),
            (server, DynamicDefaultBroker),
            (server, StaticBroker),
            (server, Default),
        ];
        assert_eq!(sources, want);
        assert_eq!((entry.value.as_deref(), entry.source), (Some("5000000"), Topic));
        let entry = find(config.describe_broker(), server);
        assert_eq!((entry.value.as_deref(), entry.source), (Some("4000000"), DynamicBroker));
        assert_eq!(entry.synonyms.len(), 4);
        let all = config.describe_all_brokers();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].source, DynamicDefaultBroker);
    }

    /// As Kafka shows it: retention.ms from log.retention.hours has the value, but no synonyms.
    #[test]
    fn stand_ins_in_another_unit_are_left_out() {
        let config = config(&[("log.retention.hours", "1")]);
        let entry = find(config.describe_topic(None), "retention.ms");
        assert_eq!(entry.value.as_deref(), Some("3600000"));
        assert_eq!((entry.source, entry.synonyms.len()), (Source::Default, 0));
    }

    #[test]
    fn unknown_dynamic_keys_keep_their_value_back() {
        let (config, _) =
            config(&[]).with_dynamic(None, Some(&overrides(&[("their.secret", "x")])));
        let entry = find(config.describe_broker(), "their.secret");
        assert!(entry.sensitive && entry.value.is_none());
    }

    #[test]
    fn lists_are_lists() {
        assert!(is_list("cleanup.policy") && is_list("log.cleanup.policy") && is_list("listeners"));
        assert!(!is_list("retention.ms") && !is_list("colour"));
    }

    fn find(entries: Vec<Described>, name: &str) -> Described {
        entries.into_iter().find(|entry| entry.name == name).unwrap()
    }

    fn config(set: &[(&str, &str)]) -> Config {
        let set: Vec<_> = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::dev("/data", 9092, &set).unwrap().config
    }

    fn overrides(set: &[(&str, &str)]) -> Overrides {
        set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }
}
