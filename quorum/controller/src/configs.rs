//! Changing configs (reference section 7.2): of topics, brokers, all brokers, groups, and subscriptions
//! to client metrics.
//!
//! A resource's changes take effect together or not at all; resources are answered one by one.

use crate::error::{ApiError, ErrorKind};
use crate::min_isr::{check_min_isr, clear_elr_for_config_change};
use crate::partitions::check_fits;
use crate::topics::INTERNAL_TOPICS;
use crate::{Decision, repeated};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_config::{
    CleanupPolicy, Config, Kind, Value, client_metrics_key, group_key, is_list, server_key,
    topic_key,
};
use flowstone_metadata::records::ConfigRecord;
use flowstone_metadata::{ConfigResource, Image, MetadataRecord, ResourceKind};
use flowstone_types::{NodeId, valid_topic_name};

/// What is done to a config.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigOp {
    /// It is set.
    Set,
    /// It goes back to its default.
    Delete,
    /// Values are appended to its list.
    Append,
    /// Values are taken out of its list.
    Subtract,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigChange {
    /// The key.
    pub key: String,
    /// What is done.
    pub op: ConfigOp,
    /// The value; means nothing to [`ConfigOp::Delete`].
    pub value: Option<String>,
}

/// All configs that a resource is to have; a null value is refused.
pub type NewConfigs = Vec<(String, Option<String>)>;

type Answers = Vec<(ConfigResource, Result<(), ApiError>)>;

/// Longest value that Kafka stores.
const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// Applies changes (IncrementalAlterConfigs).
pub fn alter_configs(
    image: &Image,
    requests: &[(ConfigResource, Vec<ConfigChange>)],
    validate_only: bool,
    config: &Config,
) -> Decision<Answers> {
    alter(image, requests, validate_only, config, |resource, changes| {
        check_changes(
            changes.iter().map(|c| (&c.key, c.op != ConfigOp::Delete && c.value.is_none())),
        )?;
        changes
            .iter()
            .map(|change| Ok((change.key.clone(), changed(image, resource, change)?)))
            .collect()
    })
}

/// Puts these configs in place of all that a resource has (AlterConfigs, deprecated by KIP-339).
pub fn replace_configs(
    image: &Image,
    requests: &[(ConfigResource, NewConfigs)],
    validate_only: bool,
    config: &Config,
) -> Decision<Answers> {
    alter(image, requests, validate_only, config, |resource, configs| {
        check_changes(configs.iter().map(|(key, value)| (key, value.is_none())))?;
        let mut after: BTreeMap<String, Option<String>> = configs.iter().cloned().collect();
        for key in image.configs.get(resource).iter().flat_map(|configs| configs.keys()) {
            after.entry(key.clone()).or_insert(None);
        }
        Ok(after)
    })
}

/// What both have in common; `wish` gives the new value of each key that a request touches.
fn alter<C>(
    image: &Image,
    requests: &[(ConfigResource, C)],
    validate_only: bool,
    config: &Config,
    wish: impl Fn(&ConfigResource, &C) -> Result<BTreeMap<String, Option<String>>, ApiError>,
) -> Decision<Answers> {
    let mut records = Vec::new();
    let mut answers = Vec::with_capacity(requests.len());
    let twice = repeated(requests.iter().map(|(resource, _)| resource));
    for (resource, changes) in requests {
        let answer = if twice.contains(resource) {
            Err(ApiError::new(ErrorKind::InvalidRequest, "Each resource must appear at most once."))
        } else {
            wish(resource, changes)
                .and_then(|wish| alter_one(image, resource, wish, config, &mut records))
        };
        answers.push((resource.clone(), answer));
    }
    records.extend(clear_elr_for_config_change(image, &records));
    if let Err(too_large) = check_fits(records.len()) {
        records.clear();
        for (_, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
    }
    if validate_only {
        records.clear();
    }
    Decision::atomic(records, answers)
}

fn check_changes<'a>(changes: impl Iterator<Item = (&'a String, bool)>) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(ErrorKind::InvalidRequest, message));
    let (mut keys, mut null) = (BTreeSet::new(), Vec::new());
    for (key, is_null) in changes {
        if !keys.insert(key) {
            return invalid("Error due to duplicate config keys".into());
        }
        if is_null {
            null.push(key.as_str());
        }
    }
    if null.is_empty() {
        return Ok(());
    }
    invalid(format!("Null value not supported for : {}", null.join(", ")))
}

/// The value that a change leads to; `None` for the default.
fn changed(
    image: &Image,
    resource: &ConfigResource,
    change: &ConfigChange,
) -> Result<Option<String>, ApiError> {
    let ConfigChange { key, op, value } = change;
    let value = value.as_deref().unwrap_or_default();
    let verb = match op {
        ConfigOp::Set => return Ok(Some(value.to_string())),
        ConfigOp::Delete => return Ok(None),
        ConfigOp::Append => "APPEND",
        ConfigOp::Subtract => "SUBTRACT",
    };
    if !is_list(key) {
        let message = format!("Can't {verb} to key {key} because its type is not LIST.");
        return Err(ApiError::new(ErrorKind::InvalidConfig, message));
    }
    let set = image.config(resource, key).map(ToString::to_string);
    let before = set.or_else(|| default_of(resource.kind, key)).unwrap_or_default();
    let mut parts: Vec<&str> = before.split(',').filter(|part| !part.is_empty()).collect();
    for part in value.split(',') {
        let at = parts.iter().position(|known| *known == part);
        match (op, at) {
            (ConfigOp::Append, None) => parts.push(part),
            (ConfigOp::Subtract, Some(at)) => {
                parts.remove(at);
            }
            _ => {}
        }
    }
    Ok(Some(parts.join(",")))
}

/// Appends the records of one resource, all or none.
fn alter_one(
    image: &Image,
    resource: &ConfigResource,
    wish: BTreeMap<String, Option<String>>,
    config: &Config,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    check_resource(image, resource)?;
    let before = image.configs.get(resource).map(|configs| &**configs);
    let mut after = before.cloned().unwrap_or_default();
    let mut changes = Vec::new();
    for (key, value) in wish {
        let same = before.and_then(|configs| configs.get(&key)) == value.as_ref();
        check_min_isr(image, resource, &key, value.as_deref())?;
        check_cordoned(image, resource, &key)?;
        match &value {
            Some(value) => after.insert(key.clone(), value.clone()),
            None => after.remove(&key),
        };
        // KAFKA-14136: brokers are told even what stays, to load anew what it points to.
        if !same || resource.kind == ResourceKind::Broker {
            let record = ConfigRecord {
                resource_type: resource.kind.number(),
                resource_name: resource.name.clone(),
                name: key,
                value,
                ..ConfigRecord::default()
            };
            changes.push(record.into());
        }
    }
    let refuse = |kind| move |what| ApiError::new(kind, what);
    match resource.kind {
        ResourceKind::Topic => check_topic_configs(&resource.name, &after, config)?,
        ResourceKind::Broker => {
            check_sizes(&after)?;
            // KAFKA-13609: what brokers refuse is an invalid request, and stays so for compatibility.
            let for_all = resource.name.is_empty();
            config.check_broker(&after, for_all).map_err(refuse(ErrorKind::InvalidRequest))?;
        }
        ResourceKind::Group => {
            check_sizes(&after)?;
            config.check_group(&after).map_err(refuse(ErrorKind::InvalidConfig))?;
        }
        ResourceKind::ClientMetrics => {
            check_sizes(&after)?;
            check_client_metrics(&after)?;
        }
    }
    records.append(&mut changes);
    Ok(())
}

/// Whether the resource may have configs at all. Groups and subscriptions need not exist yet.
fn check_resource(image: &Image, resource: &ConfigResource) -> Result<(), ApiError> {
    let invalid = |message: &str| Err(ApiError::new(ErrorKind::InvalidRequest, message));
    let name = resource.name.as_str();
    match resource.kind {
        ResourceKind::Topic if name.is_empty() => {
            invalid("Default topic resources are not allowed.")
        }
        ResourceKind::Topic if !valid_topic_name(name) => Err(ErrorKind::InvalidTopic.into()),
        ResourceKind::Topic if image.topics.named(name).is_none() => {
            let message = format!("The topic '{name}' does not exist.");
            Err(ApiError::new(ErrorKind::UnknownTopicOrPartition, message))
        }
        ResourceKind::Group if name.is_empty() => {
            invalid("Default group resources are not allowed.")
        }
        ResourceKind::ClientMetrics if name.is_empty() => {
            invalid("Subscription name can't be empty")
        }
        ResourceKind::Broker if !name.is_empty() => match name.parse() {
            Err(_) => invalid("Unable to parse broker name as a base 10 number."),
            Ok(id) if id < 0 => invalid("Invalid negative broker ID."),
            // A controller has configs too, whether it is a broker or not (KIP-919).
            Ok(id) if image.brokers.contains_key(&NodeId(id)) => Ok(()),
            Ok(id) if image.controllers.contains_key(&NodeId(id)) => Ok(()),
            Ok(id) => {
                let message = format!("No node with id {id} found.");
                Err(ApiError::new(ErrorKind::BrokerIdNotRegistered, message))
            }
        },
        ResourceKind::Topic
        | ResourceKind::Broker
        | ResourceKind::Group
        | ResourceKind::ClientMetrics => Ok(()),
    }
}

/// What a topic's configs must be, when it is created and when they change.
pub(crate) fn check_topic_configs(
    name: &str,
    configs: &BTreeMap<String, String>,
    config: &Config,
) -> Result<(), ApiError> {
    check_sizes(configs)?;
    let refuse = |what| ApiError::new(ErrorKind::InvalidConfig, what);
    config.check_topic(configs).map_err(refuse)?;
    // A topic that is to be compacted, and is not, grows for ever. The brokers' own are bounded by what
    // they hold, and carry Kafka's policy from the first day.
    let policy = configs.get("cleanup.policy").and_then(|text| CleanupPolicy::parse(text));
    if policy.is_some_and(|policy| policy.compact) && !INTERNAL_TOPICS.contains(&name) {
        return Err(refuse(NO_COMPACTION.to_string()));
    }
    Ok(())
}

const NO_COMPACTION: &str =
    "cleanup.policy compact is not there yet: Flowstone does not compact logs; use delete";

/// KIP-1066: before a registration can tell which directories are cordoned, nobody would heed it.
fn check_cordoned(image: &Image, resource: &ConfigResource, key: &str) -> Result<(), ApiError> {
    let version = image.metadata_version();
    if resource.kind != ResourceKind::Broker
        || key != "cordoned.log.dirs"
        || version.has_cordoned_directories()
    {
        return Ok(());
    }
    let message = format!("{key} cannot be set at metadata.version {version}: it needs 4.3-IV0.");
    Err(ApiError::new(ErrorKind::InvalidConfig, message))
}

/// ClientMetricsConfigs.validate (KIP-714), with its codes.
fn check_client_metrics(configs: &BTreeMap<String, String>) -> Result<(), ApiError> {
    for (name, text) in configs {
        let key = client_metrics_key(name).ok_or_else(|| {
            let message = format!("Unknown client metrics configuration: {name}");
            ApiError::new(ErrorKind::InvalidRequest, message)
        })?;
        let out_of_range = key.kind == Kind::Int && text.trim().parse::<i32>().is_ok();
        let kind = if out_of_range { ErrorKind::InvalidRequest } else { ErrorKind::InvalidConfig };
        key.check(text).map_err(|what| ApiError::new(kind, what))?;
    }
    Ok(())
}

/// A key's default by the table, to which values are appended where none is set.
fn default_of(kind: ResourceKind, key: &str) -> Option<String> {
    let key = match kind {
        ResourceKind::Topic => topic_key(key),
        ResourceKind::Broker => server_key(key),
        ResourceKind::Group => group_key(key),
        ResourceKind::ClientMetrics => client_metrics_key(key),
    };
    key?.default.text().map(ToString::to_string)
}

fn check_sizes(configs: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if configs.values().any(|value| value.len() > VALUE_BYTES_MAX) {
        let message = format!(
            "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_BYTES_MAX} bytes."
        );
        return Err(ApiError::new(ErrorKind::InvalidConfig, message));
    }
    Ok(())
}
