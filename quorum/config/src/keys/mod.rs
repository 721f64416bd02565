//! The table of configuration keys: every fact about a key, once.
//!
//! Parsing, checks, `DescribeConfigs`, the reference and the typed structs come from it. All 360 keys
//! that Apache Kafka 4.3.1 defines for its server are here, so that a real `server.properties` is
//! understood: each is used, or accepted because it has nothing to do here, or refused because
//! ignoring it would be wrong.

mod not_needed;
mod refused;
mod server;
mod topic_and_group;

use alloc::format;
use alloc::string::String;
pub use server::Settings;
pub use topic_and_group::TopicConfig;

use crate::value::{
    ANY, CLIENT_MATCH, CleanupPolicy, CompressedCheck, CompressionType, Durability, GZIP_LEVEL,
    Kind, List, LogFormat, NON_EMPTY, OFFSET_RESET, Range, THROTTLED, TimestampType, Value,
    at_least, between, real,
};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What holds where it is not set.
    pub default: Fallback,
    /// Which values it takes.
    pub range: Range,
    /// How it can be changed while the broker runs. (A topic's and a group's always can.)
    pub updates: Updates,
    /// What we do with it.
    pub treatment: Treatment,
    /// For a topic's or group's key: the server's keys that give its default, the strongest first.
    pub synonyms: &'static [&'static str],
    /// A sentence.
    pub doc: &'static str,
}

/// What holds where a key is not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// The key must be set.
    Required,
    /// Nothing: Kafka's null.
    None,
    /// This text.
    Text(&'static str),
}

impl Fallback {
    /// The text, if there is one.
    pub const fn text(self) -> Option<&'static str> {
        match self {
            Self::Required | Self::None => None,
            Self::Text(text) => Some(text),
        }
    }
}

/// How a key can be changed while the broker runs (KIP-226).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Updates {
    /// Not at all.
    ReadOnly,
    /// For one broker.
    PerBroker,
    /// For one broker or for all.
    ClusterWide,
}

/// What we do with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Treatment {
    /// It has its effect.
    Used,
    /// Accepted and checked, but there is nothing for it to do; why.
    NotNeeded(&'static str),
    /// Refused unless it asks for nothing; why.
    Refused(&'static str),
    /// One of Kafka's internal keys: accepted, and not shown.
    Internal,
}

/// The server's keys, in no order that matters.
pub fn server_keys() -> impl Iterator<Item = &'static Key> {
    [server::SETTINGS, server::TOPIC_DEFAULTS, not_needed::NOT_NEEDED, refused::REFUSED]
        .into_iter()
        .flatten()
}

/// A topic's keys.
pub fn topic_keys() -> impl Iterator<Item = &'static Key> {
    [topic_and_group::TOPIC_SETTINGS, topic_and_group::TOPIC_OTHERS].into_iter().flatten()
}

/// A group's keys.
pub fn group_keys() -> impl Iterator<Item = &'static Key> {
    topic_and_group::GROUP_KEYS.iter()
}

/// The keys of a subscription to client metrics.
pub fn client_metrics_keys() -> impl Iterator<Item = &'static Key> {
    topic_and_group::CLIENT_METRICS_KEYS.iter()
}

/// The server's key with this name.
pub fn server_key(name: &str) -> Option<&'static Key> {
    server_keys().find(|key| key.name == name)
}

/// The topic's key with this name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    topic_keys().find(|key| key.name == name)
}

/// The group's key with this name.
pub fn group_key(name: &str) -> Option<&'static Key> {
    group_keys().find(|key| key.name == name)
}

/// The key of a subscription to client metrics with this name.
pub fn client_metrics_key(name: &str) -> Option<&'static Key> {
    client_metrics_keys().find(|key| key.name == name)
}

impl Key {
    /// Whether its value is a secret, never shown and never logged.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// Checks type and range; the error is Kafka's sentence about it.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let wrong = self.kind.check(text).and_then(|()| self.range.check(text)).err();
        match wrong {
            None => Ok(()),
            Some(why) => {
                let shown = if self.is_sensitive() { "[hidden]" } else { text };
                Err(format!("Invalid value {shown} for configuration {}: {why}", self.name))
            }
        }
    }

    /// Whether this value asks for nothing beyond the default.
    pub(crate) fn asks_for_nothing(&self, text: &str) -> bool {
        let text = text.trim();
        text.is_empty() || self.default.text().is_some_and(|default| default == text)
    }
}

// Why a key has nothing to do here, or is refused.
const ONE_NODE: &str = "a single node has no other to talk to";
const POOLS: &str = "each shard is one thread; there are no pools to size";
const MEMORY: &str = "flowstone.memory.bytes bounds what waits and what is cached";
const METADATA_FIXED: &str = "snapshots keep the metadata log short";
const NOT_LIMITED: &str = "connections are bounded by number, not by rate";
const ONE_CHECKPOINT: &str =
    "all checkpoints are written together, see log.flush.offset.checkpoint.interval.ms";
const OWN_SESSION: &str = "each connection has one fetch session, which ends with it";
const ONE_DIR: &str = "a failed or full directory takes only its own partitions offline";
const SECURITY_OFF: &str = "authentication and ACLs are off";
const COMPACTION: &str = "nothing is compacted yet";
const COORDINATOR: &str = "each group lives on one shard, which writes at once";
const PLAIN_OFFSETS: &str = "offsets are kept uncompressed";
const KIP_714: &str = "clients are not asked for metrics; kept for brokers that ask";
const KIP_848: &str = "consumer groups of the new protocol are not served yet";
const SHARE: &str = "share groups are not served yet";
const STREAMS: &str = "streams groups are not served yet";
const TRANSACTIONS: &str = "transactions are not served yet";
const QUOTAS: &str = "quotas are not enforced yet";
const METRICS: &str = "metrics are served as Prometheus text, see flowstone.metrics.listener";
const TIERED_OFF: &str = "remote storage is off";
const PREALLOCATE: &str = "flowstone.durability decides how segments are laid out";
const POLICY: &str = "Java policies cannot be loaded";
const JAVA: &str = "Java classes cannot be loaded";
const REPORTERS: &str = "Java classes cannot be loaded; metrics are at flowstone.metrics.listener";
const ACCESS: &str = "access control is not there yet, and leaving it out would open the broker";
const TLS: &str = "TLS is not there yet, and leaving it out would send everything in clear";
const SASL: &str = "authentication is not there yet, and leaving it out would let everyone in";
const TOKENS: &str = "delegation tokens are not there yet";
const TIERED: &str = "remote storage is not there yet";
const TWO_PHASE: &str = "transactions are not served yet";

macro_rules! fallback {
    (required) => {
        Fallback::Required
    };
    (none) => {
        Fallback::None
    };
    ($text:literal) => {
        Fallback::Text($text)
    };
}

/// Rows with a typed field each: a struct, and the rows.
macro_rules! typed_keys {
    (
        $(#[$about:meta])* $struct:ident, $rows:ident;
        $(
            $name:literal $field:ident: $type:ty = $default:tt, $range:expr,
            $updates:ident $(by [$($synonym:literal),*])?, $doc:literal;
        )+
    ) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $struct {
            $( #[doc = concat!("`", $name, "`: ", $doc)] pub $field: $type, )+
        }

        impl $struct {
            /// Reads every field by its key's name; the texts have been checked.
            pub(crate) fn read<'a>(text: impl Fn(&'static str) -> Option<&'a str>) -> Self {
                Self { $( $field: Value::of($name, text($name)), )+ }
            }
        }

        pub(super) const $rows: &[Key] = &[$( Key {
            name: $name,
            kind: <$type as Value>::KIND,
            default: fallback!($default),
            range: $range,
            updates: Updates::$updates,
            treatment: Treatment::Used,
            synonyms: &[$($($synonym),*)?],
            doc: $doc,
        }, )+];
    };
}

/// Rows without a field.
macro_rules! other_keys {
    (
        $(#[$about:meta])* $rows:ident;
        $( $treatment:expr => { $(
            $name:literal $kind:ident = $default:tt, $range:expr,
            $updates:ident $(by [$($synonym:literal),*])?, $doc:literal;
        )+ } )+
    ) => {
        $(#[$about])*
        pub(super) const $rows: &[Key] = &[$( $( Key {
            name: $name,
            kind: Kind::$kind,
            default: fallback!($default),
            range: $range,
            updates: Updates::$updates,
            treatment: $treatment,
            synonyms: &[$($($synonym),*)?],
            doc: $doc,
        }, )+ )+];
    };
}

use {fallback, other_keys, typed_keys};

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_row_is_whole() {
        let of_resources = topic_keys().chain(group_keys()).chain(client_metrics_keys());
        for key in server_keys().chain(of_resources) {
            let name = key.name;
            assert!(key.doc.ends_with('.') && key.doc.len() > 12, "{name} needs a sentence");
            if let Some(default) = key.default.text() {
                assert_eq!(key.check(default), Ok(()), "{name}: the default is in range");
            }
            for synonym in key.synonyms {
                assert!(server_key(synonym).is_some(), "{name}: synonym {synonym}");
            }
            let why = match key.treatment {
                Treatment::Used | Treatment::Internal => "",
                Treatment::NotNeeded(why) | Treatment::Refused(why) => why,
            };
            assert!(!why.ends_with('.'), "{name}: a reason is a phrase");
        }
    }

    #[test]
    fn the_keys_are_kafkas_and_ours() {
        let is_ours = |name: &&str| name.starts_with("flowstone.");
        let server: Vec<&str> = server_keys().map(|key| key.name).collect();
        let unique: BTreeSet<&str> = server.iter().copied().collect();
        assert_eq!(server.len(), unique.len(), "each key once");
        // Apache Kafka 4.3.1's KafkaConfig defines 360; these are defined elsewhere.
        let elsewhere = [
            "super.users",
            "allow.everyone.if.no.acl.found",
            "leader.replication.throttled.rate",
            "follower.replication.throttled.rate",
            "replica.alter.log.dirs.io.max.bytes.per.second",
        ];
        assert!(elsewhere.iter().all(|name| unique.contains(name)));
        assert_eq!(server.iter().filter(|name| !is_ours(name)).count(), 360 + elsewhere.len());
        let topic: Vec<&str> = topic_keys().map(|key| key.name).collect();
        assert_eq!(topic.iter().filter(|name| !is_ours(name)).count(), 34);
        assert_eq!((group_keys().count(), client_metrics_keys().count()), (17, 3));
        assert!(topic.iter().filter(|name| is_ours(name)).all(|name| unique.contains(name)));
    }

    #[test]
    fn a_topics_default_is_its_synonyms() {
        for key in topic_keys().chain(group_keys()) {
            let Some(synonym) = key.synonyms.first().and_then(|name| server_key(name)) else {
                continue;
            };
            assert_eq!(key.kind, synonym.kind, "{}", key.name);
            if let Some(default) = synonym.default.text() {
                assert_eq!(key.default.text(), Some(default), "{}", key.name);
            }
            assert_eq!(synonym.updates, expected_updates(synonym.name), "{}", synonym.name);
        }
    }

    /// KIP-226: every default of a topic can be changed cluster-wide; of a group's, the intervals.
    fn expected_updates(name: &str) -> Updates {
        let is_group = name.starts_with("group.");
        if is_group && !name.ends_with("assignment.interval.ms") {
            Updates::ReadOnly
        } else {
            Updates::ClusterWide
        }
    }
}
