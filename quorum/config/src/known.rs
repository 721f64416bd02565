//! Whether a server's key is known, and what becomes of it.

use crate::keys::{Treatment, server_key, server_keys, topic_key};
use alloc::format;
use alloc::string::String;

/// What becomes of a key that is not refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It has its effect.
    Used,
    /// There is nothing for it to do; why.
    NotNeeded(&'static str),
}

/// Judges one setting; the error says what is wrong and what to do.
pub(crate) fn judge(name: &str, text: &str) -> Result<Verdict, String> {
    if let Some(key) = server_key(name) {
        let empty_and_null = text.trim().is_empty() && key.default.text().is_none();
        if let Treatment::Refused(why) = key.treatment {
            if key.asks_for_nothing(text) {
                return Ok(Verdict::NotNeeded(why));
            }
            return Err(format!("{name} cannot be set: {why}"));
        }
        if !empty_and_null || key.default == crate::keys::Fallback::Required {
            key.check(text)?;
        }
        return Ok(match key.treatment {
            Treatment::Used => Verdict::Used,
            Treatment::NotNeeded(why) => Verdict::NotNeeded(why),
            Treatment::Internal => Verdict::NotNeeded("one of Kafka's internal keys"),
            Treatment::Refused(_) => unreachable!("answered above"),
        });
    }
    if let Some(rest) = name.strip_prefix("listener.name.") {
        return Err(of_listener(name, rest));
    }
    if name.starts_with("rsm.config.") || name.starts_with("rlmm.config.") {
        return Ok(Verdict::NotNeeded("remote storage is off"));
    }
    if name.starts_with("config.providers.") {
        return Err(format!("{name} cannot be set: Java classes cannot be loaded"));
    }
    if let Some(why) = removed(name) {
        return Err(format!("{name} is gone since Kafka 4.0: {why}"));
    }
    if let Some(synonym) = topic_key(name).and_then(|key| key.synonyms.first()) {
        return Err(format!("{name} is a topic's config; its default for all topics is {synonym}"));
    }
    Err(match nearest(name) {
        Some(known) => format!("unknown key {name}; did you mean {known}?"),
        None => format!("unknown key {name}; flowstoned config --list shows all"),
    })
}

/// `listener.name.<listener>.<key>` or `listener.name.<listener>.<mechanism>.<key>`: none of the keys
/// that Kafka takes per listener can be had per listener yet.
fn of_listener(name: &str, rest: &str) -> String {
    let suffixes = rest.match_indices('.').map(|(dot, _)| &rest[dot + 1..]);
    let key = suffixes.into_iter().find_map(server_key);
    match key {
        Some(key) => match key.treatment {
            Treatment::Refused(why) => format!("{name} cannot be set: {why}"),
            Treatment::Used | Treatment::NotNeeded(_) | Treatment::Internal => {
                format!("{name} cannot be set for one listener; set {} for all", key.name)
            }
        },
        None => format!("unknown key {name}: no key of that name can be set per listener"),
    }
}

/// Keys that older files have and Kafka 4 no longer reads.
fn removed(name: &str) -> Option<&'static str> {
    if name.starts_with("zookeeper.") || name.starts_with("control.plane.") {
        return Some("there is no ZooKeeper; remove it, and set process.roles and node.id");
    }
    if name.starts_with("password.encoder.") {
        return Some("remove it");
    }
    Some(match name {
        "inter.broker.protocol.version" => {
            "metadata.version is a feature of the cluster; remove it"
        }
        "log.message.format.version" => "there is one record format; remove it",
        "log.message.timestamp.difference.max.ms" => {
            "use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms"
        }
        "delegation.token.master.key" => "it is called delegation.token.secret.key",
        "broker.id.generation.enable" | "reserved.broker.max.id" => "set node.id",
        "log.message.downconversion.enable"
        | "offsets.commit.required.acks"
        | "auto.include.jmx.reporter"
        | "group.coordinator.new.enable"
        | "leader.imbalance.per.broker.percentage"
        | "unstable.metadata.versions.enable"
        | "early.start.listener"
        | "port"
        | "host.name"
        | "advertised.host.name"
        | "advertised.port" => "remove it",
        _ => return None,
    })
}

/// The known key that looks most like `name`, if any does.
fn nearest(name: &str) -> Option<&'static str> {
    let length = name.chars().count();
    // Who differs in three letters of ten has nearly as many: a name of a megabyte is held against none.
    let as_long = |known: &&'static str| {
        let (shorter, longer) = (length.min(known.len()), length.max(known.len()));
        shorter * 10 >= longer * 7
    };
    let likeness =
        |known: &'static str| (strsim::normalized_damerau_levenshtein(name, known), known);
    let keys = server_keys().map(|key| key.name).filter(as_long).map(likeness);
    let (likeness, known) = keys.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= LIKE).then_some(known)
}

/// Three letters of ten may differ: less alike, a hint would mislead.
const LIKE: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_judged_by_its_row() {
        for key in server_keys() {
            let default = key.default.text().unwrap_or_default();
            let verdict = judge(key.name, default);
            match key.treatment {
                _ if key.default == crate::keys::Fallback::Required => {}
                Treatment::Used => assert_eq!(verdict, Ok(Verdict::Used), "{}", key.name),
                Treatment::NotNeeded(why) | Treatment::Refused(why) => {
                    assert_eq!(verdict, Ok(Verdict::NotNeeded(why)), "{}", key.name);
                }
                Treatment::Internal => assert!(verdict.is_ok(), "{}", key.name),
            }
        }
    }

    #[test]
    fn what_would_be_wrong_to_ignore_is_refused() {
        check(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "access control",
        );
        check("super.users", "User:admin", "access control");
        check("ssl.keystore.location", "/etc/ks.jks", "TLS is not there yet");
        check("ssl.keystore.password", "secret", "TLS is not there yet");
        check("sasl.enabled.mechanisms", "PLAIN", "authentication is not there yet");
        check("create.topic.policy.class.name", "com.acme.Policy", "Java policies");
        check("metric.reporters", "com.acme.Reporter", "flowstone.metrics.listener");
        check("remote.log.storage.system.enable", "true", "remote storage is not there yet");
        check("config.providers", "file", "Java classes");
        check(
            "listener.name.external.ssl.keystore.location",
            "/etc/ks.jks",
            "TLS is not there yet",
        );
        check("listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config", "x", "authentication");
        check("listener.name.external.max.connections", "5", "set max.connections for all");
        check("listener.name.external.nonsense", "5", "per listener");
    }

    /// Found by fuzzing: against every key, this takes minutes.
    #[test]
    fn a_name_of_any_length_is_refused_at_once() {
        let long = "log.dirs".repeat(100_000);
        assert!(judge(&long, "").unwrap_err().contains("shows all"));
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest() {
        check("log.segmnt.bytes", "1", "did you mean log.segment.bytes?");
        check("num.partition", "1", "did you mean num.partitions?");
        check("flowstone.shard", "1", "did you mean flowstone.shards?");
        check("colour", "red", "flowstoned config --list");
        check("retention.ms", "1", "its default for all topics is log.retention.ms");
        check("zookeeper.connect", "z:2181", "no ZooKeeper");
        check("inter.broker.protocol.version", "3.9", "gone since Kafka 4.0");
    }

    #[test]
    fn secrets_are_not_repeated() {
        let refused = judge("ssl.key.password", "hunter2").unwrap_err();
        assert!(!refused.contains("hunter2"));
    }

    fn check(name: &str, text: &str, want: &str) {
        let got = judge(name, text).unwrap_err();
        assert!(got.contains(want) && got.contains(name), "{got}");
    }
}
