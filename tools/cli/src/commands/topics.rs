//! `flowstone topics`: what kafka-topics does.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use flowstone_wire::messages::create_partitions_request::CreatePartitionsTopic;
use flowstone_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use flowstone_wire::messages::delete_topics_request::DeleteTopicState;
use flowstone_wire::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
};
use flowstone_wire::{ErrorCode, string, topic_name, uuid_from_wire};
use serde_json::json;

use super::configs::{self, ResourceKind};
use super::{for_each, key_value};
use crate::Common;
use crate::client::{Cluster, Topic};
use crate::failure::{Failure, check};
use crate::output::{Table, done, print_json, say};

const CREATE_EXAMPLES: &str = "\
Examples:
  flowstone topics create orders --partitions 6
  flowstone topics create audit -r 3 -c retention.ms=604800000 -c min.insync.replicas=2
  flowstone topics create placed --replica-assignment 1:2,2:3
  flowstone topics create orders --if-not-exists";
const LIST_EXAMPLES: &str = "\
Examples:
  flowstone topics list
  flowstone topics list --internal --json";
const DESCRIBE_EXAMPLES: &str = "\
Examples:
  flowstone topics describe orders
  flowstone topics describe orders --json | jq '.[].partitions[] | select(.isr != .replicas)'";
const ALTER_EXAMPLES: &str = "\
Examples:
  flowstone topics alter orders --partitions 12

Partitions can be added, never removed; records with a key may go elsewhere then.
Configs of a topic are changed with `flowstone configs set --topic orders KEY=VALUE`.";
const DELETE_EXAMPLES: &str = "\
Examples:
  flowstone topics delete orders
  flowstone topics delete old-1 old-2 --if-exists";

/// `flowstone topics`.
#[derive(Subcommand, Debug)]
pub enum Topics {
    /// Create a topic
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// List topics
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// The cluster's own topics, too
        #[arg(long)]
        internal: bool,
    },
    /// Show topics with their partitions and what is configured for them
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// The topics; all without any
        topics: Vec<String>,
    },
    /// Add partitions to a topic
    #[command(after_help = ALTER_EXAMPLES)]
    Alter {
        /// The topic
        topic: String,
        /// How many partitions it is to have
        #[arg(short, long)]
        partitions: i32,
        /// Only check whether it could be done
        #[arg(long)]
        validate_only: bool,
    },
    /// Delete topics and all that is in them
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// The topics
        #[arg(required = true)]
        topics: Vec<String>,
        /// A topic that is not there is no error
        #[arg(long)]
        if_exists: bool,
    },
}

/// `flowstone topics create`.
#[derive(Args, Debug)]
pub struct Create {
    /// The topic
    topic: String,
    /// How many partitions; the broker's num.partitions without
    #[arg(short, long, conflicts_with = "replica_assignment")]
    partitions: Option<i32>,
    /// How many replicas of each; the broker's default.replication.factor without
    #[arg(short, long, conflicts_with = "replica_assignment")]
    replication_factor: Option<i16>,
    /// Brokers of each partition: partitions separated by commas, their replicas by colons
    #[arg(long, value_name = "1:2,2:3", value_parser = assignment)]
    replica_assignment: Option<Assignments>,
    /// A topic config
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    config: Vec<(String, String)>,
    /// A topic of that name is no error
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be done
    #[arg(long)]
    validate_only: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Assignments(Vec<Vec<i32>>);

impl Topics {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<()> {
        let mut cluster = common.connect()?;
        match self {
            Self::Create(create) => create.run(common, &mut cluster),
            Self::List { internal } => list(common, &mut cluster, internal),
            Self::Describe { topics } => describe(common, &mut cluster, &topics),
            Self::Alter { topic, partitions, validate_only } => {
                add_partitions(&mut cluster, &topic, partitions, validate_only)?;
                let answer = json!({ "topic": topic, "partitions": partitions, "validate_only": validate_only });
                let verb = if validate_only { "could have" } else { "has" };
                Ok(done(
                    common.json,
                    &answer,
                    format_args!("{topic} {verb} {partitions} partitions"),
                )?)
            }
            Self::Delete { topics, if_exists } => for_each(&topics, |topic| {
                let deleted = delete(&mut cluster, topic, if_exists)?;
                let answer = json!({ "topic": topic, "deleted": deleted });
                let words = if deleted { "deleted" } else { "was not there" };
                Ok(done(common.json, &answer, format_args!("{topic} {words}"))?)
            }),
        }
    }
}

impl Create {
    fn run(&self, common: &Common, cluster: &mut Cluster) -> anyhow::Result<()> {
        let created = self.create(cluster);
        match created {
            Err(failure) if self.if_not_exists && failure.is(ErrorCode::TopicAlreadyExists) => {
                let answer = json!({ "topic": self.topic, "created": false });
                Ok(done(common.json, &answer, format_args!("{} is there already", self.topic))?)
            }
            Err(failure) => Err(failure.into()),
            Ok(answer) => {
                let verb = if self.validate_only { "could be created" } else { "created" };
                let line = format!(
                    "{} {verb}: {} partitions, {} replicas",
                    self.topic, answer["partitions"], answer["replication_factor"]
                );
                Ok(done(common.json, &answer, line)?)
            }
        }
    }

    fn create(&self, cluster: &mut Cluster) -> Result<serde_json::Value, Failure> {
        let timeout_ms = cluster.timeout.as_millis() as i32;
        let configs = self.config.iter().map(|(key, value)| {
            CreatableTopicConfig::default().with_name(string(key)).with_value(Some(string(value)))
        });
        let assignments = self.replica_assignment.iter().flat_map(|all| all.0.iter().enumerate());
        let assignments = assignments.map(|(index, brokers)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(index as i32)
                .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(&self.topic))
            .with_num_partitions(self.partitions.unwrap_or(-1))
            .with_replication_factor(self.replication_factor.unwrap_or(-1))
            .with_assignments(assignments.collect())
            .with_configs(configs.collect());
        let response = cluster.call_any(|_| {
            CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(timeout_ms)
                .with_validate_only(self.validate_only)
        })?;
        let mut answer = json!({ "topic": self.topic, "created": !self.validate_only });
        for topic in response.topics {
            let what = || format!("topic {}", self.topic);
            check(what, topic.error_code, topic.error_message.as_deref())?;
            answer["id"] = json!(uuid_from_wire(topic.topic_id).to_string());
            answer["partitions"] = json!(topic.num_partitions);
            answer["replication_factor"] = json!(topic.replication_factor);
        }
        if !self.validate_only {
            cluster.topic_soon(&self.topic)?; // So that whoever comes next can use it.
        }
        Ok(answer)
    }
}

/// Creates a topic of so many partitions, for `bench`.
pub fn create_plain(cluster: &mut Cluster, topic: &str, partitions: i32) -> Result<(), Failure> {
    let create = Create {
        topic: topic.to_owned(),
        partitions: Some(partitions),
        replication_factor: None,
        replica_assignment: None,
        config: Vec::new(),
        if_not_exists: false,
        validate_only: false,
    };
    create.create(cluster).map(|_| ())
}

fn list(common: &Common, cluster: &mut Cluster, internal: bool) -> anyhow::Result<()> {
    cluster.refresh(None)?;
    let mut table = Table::new(&["topic", "partitions", "replication_factor", "internal", "id"]);
    for topic in cluster.topics().values().filter(|topic| internal || !topic.internal) {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        let id = uuid_from_wire(topic.id).to_string();
        table.push([
            json!(topic.name),
            json!(topic.partitions.len()),
            json!(replicas),
            json!(topic.internal),
            json!(id),
        ]);
    }
    Ok(table.print(common.json)?)
}

fn describe(common: &Common, cluster: &mut Cluster, names: &[String]) -> anyhow::Result<()> {
    cluster.refresh((!names.is_empty()).then_some(names))?;
    let wanted = |topic: &&Topic| {
        if names.is_empty() { !topic.internal } else { names.contains(&topic.name) }
    };
    let topics: Vec<Topic> = cluster.topics().values().filter(wanted).cloned().collect();
    let mut all = Vec::new();
    for (at, topic) in topics.iter().enumerate() {
        let indices = topic.indices();
        // A partition without a leader has no offsets to tell; the rest of the table stands.
        let led = topic.partitions.iter().all(|partition| partition.leader >= 0);
        let (starts, ends) = if led {
            (
                cluster.offsets(&topic.name, &indices, -2)?,
                cluster.offsets(&topic.name, &indices, -1)?,
            )
        } else {
            (BTreeMap::new(), BTreeMap::new())
        };
        let set = configs::set_values(cluster, ResourceKind::Topic, &topic.name)?;
        let mut table =
            Table::new(&["partition", "leader", "epoch", "replicas", "isr", "start", "end"]);
        for partition in &topic.partitions {
            table.push([
                json!(partition.index),
                json!(partition.leader),
                json!(partition.epoch),
                json!(partition.replicas),
                json!(partition.isr),
                json!(starts.get(&partition.index)),
                json!(ends.get(&partition.index)),
            ]);
        }
        let id = uuid_from_wire(topic.id).to_string();
        if common.json {
            let configs: serde_json::Map<_, _> =
                set.into_iter().map(|(key, value)| (key, json!(value))).collect();
            all.push(json!({ "topic": topic.name, "id": id, "internal": topic.internal, "configs": configs, "partitions": table.to_json() }));
        } else {
            let gap = if at == 0 { "" } else { "\n" };
            say(format_args!("{gap}{}  id {id}, {} partitions", topic.name, indices.len()))?;
            for (key, value) in set {
                say(format_args!("  {key}={value}"))?;
            }
            table.print(false)?;
        }
    }
    if common.json { Ok(print_json(&all.into())?) } else { Ok(()) }
}

fn add_partitions(
    cluster: &mut Cluster,
    topic: &str,
    count: i32,
    validate_only: bool,
) -> Result<(), Failure> {
    let timeout_ms = cluster.timeout.as_millis() as i32;
    let wanted = CreatePartitionsTopic::default()
        .with_name(topic_name(topic))
        .with_count(count)
        .with_assignments(None);
    let response = cluster.call_any(|_| {
        CreatePartitionsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(timeout_ms)
            .with_validate_only(validate_only)
    })?;
    response.results.iter().try_for_each(|result| {
        check(|| format!("topic {topic}"), result.error_code, result.error_message.as_deref())
    })
}

/// Deletes a topic; returns whether it was there.
pub fn delete(cluster: &mut Cluster, topic: &str, if_exists: bool) -> Result<bool, Failure> {
    let timeout_ms = cluster.timeout.as_millis() as i32;
    let response = cluster.call_any(|version| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
        if version >= 6 {
            let state = DeleteTopicState::default().with_name(Some(topic_name(topic)));
            request.with_topics(vec![state])
        } else {
            request.with_topic_names(vec![topic_name(topic)])
        }
    })?;
    cluster.forget(topic);
    for result in response.responses {
        let unknown = result.error_code == ErrorCode::UnknownTopicOrPartition as i16;
        if unknown && if_exists {
            return Ok(false);
        }
        check(|| format!("topic {topic}"), result.error_code, result.error_message.as_deref())?;
    }
    Ok(true)
}

fn assignment(text: &str) -> Result<Assignments, String> {
    let wrong = || "expected broker ids, such as 1:2,2:3 (partition 0 on 1 and 2, ...)".to_owned();
    let partitions = text.split(',').map(|partition| {
        let brokers = partition.split(':').map(|id| id.trim().parse().map_err(|_| wrong()));
        brokers.collect::<Result<Vec<i32>, _>>()
    });
    partitions.collect::<Result<_, _>>().map(Assignments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_kafkas() {
        assert_eq!(assignment("1:2,2:3"), Ok(Assignments(vec![vec![1, 2], vec![2, 3]])));
        assert!(assignment("1:,2").is_err() && assignment("a").is_err());
    }
}
