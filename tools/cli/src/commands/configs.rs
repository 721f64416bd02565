//! `flowstone configs`: what kafka-configs does for topics, brokers and groups.

use clap::{Args, Subcommand};
use flowstone_wire::messages::describe_configs_request::DescribeConfigsResource;
use flowstone_wire::messages::describe_configs_response::DescribeConfigsResourceResult;
use flowstone_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use flowstone_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use flowstone_wire::string;
use serde_json::{Value, json};

use super::key_value;
use crate::Common;
use crate::client::Cluster;
use crate::failure::{Failure, check};
use crate::output::{Table, done};

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  flowstone configs describe --topic orders          what is set for the topic
  flowstone configs describe --topic orders --all    defaults, too, and where each value is from
  flowstone configs describe --broker 1 --all log.retention.hours
  flowstone configs describe --brokers               what is set for all brokers";
const SET_EXAMPLES: &str = "\
Examples:
  flowstone configs set --topic orders retention.ms=86400000 compression.type=zstd
  flowstone configs set --brokers log.retention.ms=604800000
  flowstone configs set --topic orders segment.bytes=1 --validate-only";
const DELETE_EXAMPLES: &str = "\
Examples:
  flowstone configs delete --topic orders retention.ms

The value of the broker, or the default, holds again then.";

/// `flowstone configs`.
#[derive(Subcommand, Debug)]
pub enum Configs {
    /// Show configs
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe {
        #[command(flatten)]
        resource: Resource,
        /// Only these keys
        keys: Vec<String>,
        /// Values that nobody set, too
        #[arg(short, long)]
        all: bool,
        /// What each key is for
        #[arg(long)]
        documentation: bool,
    },
    /// Set configs
    #[command(after_help = SET_EXAMPLES)]
    Set {
        #[command(flatten)]
        resource: Resource,
        /// What to set
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
        /// Only check whether it could be done
        #[arg(long)]
        validate_only: bool,
    },
    /// Take back what was set
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        #[command(flatten)]
        resource: Resource,
        /// The keys
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
        /// Only check whether it could be done
        #[arg(long)]
        validate_only: bool,
    },
}

/// Whose configs.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Resource {
    /// Of a topic
    #[arg(short, long)]
    topic: Option<String>,
    /// Of one broker, by its node id
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Of all brokers: what holds where a broker has nothing of its own
    #[arg(long)]
    brokers: bool,
    /// Of a group
    #[arg(short, long)]
    group: Option<String>,
}

/// The kinds of resources that have configs; the numbers are Kafka's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ResourceKind {
    /// A topic.
    Topic = 2,
    /// A broker, or all of them where the name is empty.
    Broker = 4,
    /// A group.
    Group = 32,
}

/// `config_source` of what was set for a topic.
const SOURCE_TOPIC: i8 = 1;
/// Kafka's names of `config_source`, by number.
const SOURCES: [&str; 9] = [
    "unknown",
    "topic",
    "broker",
    "all brokers",
    "file",
    "default",
    "broker logger",
    "client metrics",
    "group",
];
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

impl Resource {
    fn kind_and_name(&self) -> (ResourceKind, String) {
        match self {
            Self { topic: Some(topic), .. } => (ResourceKind::Topic, topic.clone()),
            Self { broker: Some(id), .. } => (ResourceKind::Broker, id.to_string()),
            Self { group: Some(group), .. } => (ResourceKind::Group, group.clone()),
            Self { .. } => (ResourceKind::Broker, String::new()), // --brokers: clap requires one.
        }
    }
}

impl Configs {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<()> {
        let mut cluster = common.connect()?;
        match self {
            Self::Describe { resource, keys, all, documentation } => {
                let (kind, name) = resource.kind_and_name();
                let keys = (!keys.is_empty()).then_some(&*keys);
                let configs = describe(&mut cluster, kind, &name, keys, documentation)?;
                print(
                    common,
                    &configs,
                    if all { None } else { Some(own_source(kind, &name)) },
                    documentation,
                )
            }
            Self::Set { resource, configs, validate_only } => {
                let configs = configs.into_iter().map(|(key, value)| (key, Some(value))).collect();
                alter(common, &mut cluster, &resource, configs, validate_only)
            }
            Self::Delete { resource, keys, validate_only } => {
                let configs = keys.into_iter().map(|key| (key, None)).collect();
                alter(common, &mut cluster, &resource, configs, validate_only)
            }
        }
    }
}

fn print(
    common: &Common,
    configs: &[DescribeConfigsResourceResult],
    only: Option<i8>,
    documentation: bool,
) -> anyhow::Result<()> {
    let source = |config: &DescribeConfigsResourceResult| {
        SOURCES.get(config.config_source as usize).copied().unwrap_or("unknown")
    };
    let shown =
        configs.iter().filter(|config| only.is_none_or(|only| config.config_source == only));
    let value = |config: &DescribeConfigsResourceResult| match &config.value {
        _ if config.is_sensitive => json!("(secret)"),
        value => json!(value.as_deref()),
    };
    if documentation {
        let mut table = Table::new(&["key", "value", "source", "documentation"]);
        for config in shown {
            let doc = config.documentation.as_deref();
            table.push([json!(&*config.name), value(config), json!(source(config)), json!(doc)]);
        }
        return Ok(table.print(common.json)?);
    }
    let mut table = Table::new(&["key", "value", "source", "read_only"]);
    for config in shown {
        let read_only = json!(config.read_only);
        table.push([json!(&*config.name), value(config), json!(source(config)), read_only]);
    }
    Ok(table.print(common.json)?)
}

/// `config_source` of what was set for the resource itself.
fn own_source(kind: ResourceKind, name: &str) -> i8 {
    match kind {
        ResourceKind::Topic => SOURCE_TOPIC,
        ResourceKind::Broker if name.is_empty() => 3,
        ResourceKind::Broker => 2,
        ResourceKind::Group => 8,
    }
}

/// What is set for a resource: keys and values.
pub fn set_values(
    cluster: &mut Cluster,
    kind: ResourceKind,
    name: &str,
) -> Result<Vec<(String, String)>, Failure> {
    let configs = describe(cluster, kind, name, None, false)?;
    let own = configs.into_iter().filter(|config| config.config_source == SOURCE_TOPIC);
    Ok(own
        .map(|config| (config.name.to_string(), config.value.as_deref().unwrap_or("").to_owned()))
        .collect())
}

fn describe(
    cluster: &mut Cluster,
    kind: ResourceKind,
    name: &str,
    keys: Option<&[String]>,
    documentation: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind as i8)
        .with_resource_name(string(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(string).collect()));
    let build = |version| {
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        if version >= 3 { request.with_include_documentation(documentation) } else { request }
    };
    let response = match owner(kind, name) {
        Some(broker) => cluster.call(broker, build)?, // Only a broker itself knows its file.
        None => cluster.call_any(build)?,
    };
    let mut all = Vec::new();
    for result in response.results {
        let what = || describe_name(kind, name);
        check(what, result.error_code, result.error_message.as_deref())?;
        all.extend(result.configs);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn alter(
    common: &Common,
    cluster: &mut Cluster,
    resource: &Resource,
    configs: Vec<(String, Option<String>)>,
    validate_only: bool,
) -> anyhow::Result<()> {
    let (kind, name) = resource.kind_and_name();
    let answer: serde_json::Map<String, Value> =
        configs.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let configs = configs.into_iter().map(|(key, value)| {
        let operation = if value.is_some() { OPERATION_SET } else { OPERATION_DELETE };
        AlterableConfig::default()
            .with_name(string(key))
            .with_config_operation(operation)
            .with_value(value.map(string))
    });
    let wanted = AlterConfigsResource::default()
        .with_resource_type(kind as i8)
        .with_resource_name(string(&name))
        .with_configs(configs.collect());
    let build = |_| {
        IncrementalAlterConfigsRequest::default()
            .with_resources(vec![wanted])
            .with_validate_only(validate_only)
    };
    let response = match owner(kind, &name) {
        Some(broker) => cluster.call(broker, build)?,
        None => cluster.call_any(build)?,
    };
    for result in response.responses {
        let what = || describe_name(kind, &name);
        check(what, result.error_code, result.error_message.as_deref())?;
    }
    let verb = if validate_only { "could be changed" } else { "changed" };
    let line = format!("{}: {} {verb}", describe_name(kind, &name), answer.len());
    let answer = json!({ "resource": describe_name(kind, &name), "validate_only": validate_only, "configs": answer });
    Ok(done(common.json, &answer, line)?)
}

/// The broker that must be asked.
fn owner(kind: ResourceKind, name: &str) -> Option<i32> {
    if kind == ResourceKind::Broker { name.parse().ok() } else { None }
}

fn describe_name(kind: ResourceKind, name: &str) -> String {
    match kind {
        ResourceKind::Topic => format!("configs of topic {name}"),
        ResourceKind::Broker if name.is_empty() => "configs of all brokers".to_owned(),
        ResourceKind::Broker => format!("configs of broker {name}"),
        ResourceKind::Group => format!("configs of group {name}"),
    }
}
