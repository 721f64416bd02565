//! Creating and deleting topics.
//!
//! A request is one batch: the topics that are refused are answered, the others take effect together.

use crate::configs::check_topic_configs;
use crate::error::{ApiError, ErrorKind};
use crate::mutations::Allowance;
use crate::partitions::{
    Placed, check_assignment, check_fits, check_room, new_partition, place_partitions,
};
use crate::{Decision, Random, repeated};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_config::Config;
use flowstone_metadata::records::{ConfigRecord, RemoveTopicRecord, TopicRecord};
use flowstone_metadata::{Image, MetadataRecord, ResourceKind};
use flowstone_types::{NodeId, PartitionId, TOPIC_NAME_BYTES_MAX, Uuid, valid_topic_name};

/// The topics that brokers keep their own state in: compacted, and not to be written by clients.
pub const INTERNAL_TOPICS: [&str; 3] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// The log of the metadata quorum: no topic to anyone.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// A topic to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the default, or where `assignments` tells.
    pub partitions: i32,
    /// How many replicas each; -1 for the default, or where `assignments` tells.
    pub replication_factor: i16,
    /// Which brokers hold which partition; empty to have them placed.
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    /// Configs; a null value is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// What -1 stands for: the controller's `num.partitions` and `default.replication.factor`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicDefaults {
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each.
    pub replication_factor: i16,
}

/// A topic that is created, or would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedTopic {
    /// Its id.
    pub id: Uuid,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas each.
    pub replication_factor: i16,
    /// The configs that were set.
    pub configs: BTreeMap<String, String>,
}

/// Creates topics; answers for each by name, in the request's order, those named twice last.
pub fn create_topics(
    image: &Image,
    topics: &[NewTopic],
    defaults: TopicDefaults,
    validate_only: bool,
    config: &Config,
    random: &mut Random<'_>,
) -> Decision<Vec<(String, Result<CreatedTopic, ApiError>)>> {
    let unbounded = &mut Allowance::unbounded();
    create_topics_within(image, topics, defaults, validate_only, config, random, unbounded)
}

/// The same under a quota (KIP-599), which every topic is charged to that could be created.
pub fn create_topics_within(
    image: &Image,
    topics: &[NewTopic],
    defaults: TopicDefaults,
    validate_only: bool,
    config: &Config,
    random: &mut Random<'_>,
    allowance: &mut Allowance<'_>,
) -> Decision<Vec<(String, Result<CreatedTopic, ApiError>)>> {
    let mut records = Vec::new();
    let mut answers = Vec::with_capacity(topics.len());
    // Of topics named twice, none is created; the name is answered once.
    let twice = repeated(topics.iter().map(|topic| topic.name.as_str()));
    for topic in topics.iter().filter(|topic| !twice.contains(topic.name.as_str())) {
        let created = create_topic(image, topic, defaults, config, random, allowance, &mut records);
        answers.push((topic.name.clone(), created));
    }
    answers.extend(twice.into_iter().map(|name| (name.to_string(), Err(named_twice()))));
    // What goes over the bound fails as a whole: it cannot take effect at once.
    if let Some((_, Err(too_large))) = answers
        .iter()
        .find(|(_, a)| a.as_ref().is_err_and(|e| e.kind == ErrorKind::PolicyViolation))
    {
        let too_large = too_large.clone();
        for (_, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
        records.clear();
    }
    if validate_only {
        records.clear();
    }
    Decision::atomic(records, answers)
}

pub(crate) fn named_twice() -> ApiError {
    ApiError::new(ErrorKind::InvalidRequest, "Duplicate topic name.")
}

/// Appends the records of one topic, all or none.
fn create_topic(
    image: &Image,
    topic: &NewTopic,
    defaults: TopicDefaults,
    config: &Config,
    random: &mut Random<'_>,
    allowance: &mut Allowance<'_>,
    records: &mut Vec<MetadataRecord>,
) -> Result<CreatedTopic, ApiError> {
    check_name(image, &topic.name)?;
    let configs = creation_configs(topic)?;
    check_topic_configs(&topic.name, &configs, config)?;
    let placed = if topic.assignments.is_empty() {
        placed_by_us(image, topic, defaults, random, records.len() + configs.len())?
    } else {
        check_room(records.len() + configs.len(), topic.assignments.len())?;
        assigned(image, topic)?
    };
    allowance.take(placed.len())?;
    let id = random.id();
    let created = CreatedTopic {
        id,
        partitions: placed.len() as i32,
        replication_factor: placed[0].replicas.len() as i16,
        configs,
    };
    let name = topic.name.clone();
    records.push(TopicRecord { name, topic_id: id, ..TopicRecord::default() }.into());
    // Configs come before partitions: who opens a partition must know them.
    records.extend(created.configs.iter().map(|(key, value)| {
        let record = ConfigRecord {
            resource_type: ResourceKind::Topic.number(),
            resource_name: topic.name.clone(),
            name: key.clone(),
            value: Some(value.clone()),
            ..ConfigRecord::default()
        };
        record.into()
    }));
    let version = image.metadata_version();
    records.extend((0..).zip(placed).map(|(index, placed)| {
        let partition = new_partition(image, placed);
        partition.to_record(PartitionId { topic: id, index }, version).into()
    }));
    Ok(created)
}

/// Reference section 4: `[a-zA-Z0-9._-]{1,249}`, and `.` collides with `_` in metric names.
fn check_name(image: &Image, name: &str) -> Result<(), ApiError> {
    let invalid = |what: String| Err(ApiError::new(ErrorKind::InvalidTopic, what));
    if name == METADATA_TOPIC {
        let message = format!("Creation of internal topic {METADATA_TOPIC} is prohibited.");
        return Err(ApiError::new(ErrorKind::InvalidRequest, message));
    }
    if !valid_topic_name(name) {
        let what = match name {
            "" => "the empty string is not allowed".to_string(),
            "." | ".." => format!("'{name}' is not allowed"),
            long if long.len() > TOPIC_NAME_BYTES_MAX => {
                format!("its length is more than {TOPIC_NAME_BYTES_MAX}")
            }
            _ => format!(
                "'{name}' holds a character other than ASCII alphanumerics, '.', '_' and '-'"
            ),
        };
        return invalid(format!("Topic name is invalid: {what}"));
    }
    if image.topics.named(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(ApiError::new(ErrorKind::TopicAlreadyExists, message));
    }
    if let Some(other) = image.topics.colliding(name) {
        return invalid(format!("Topic '{name}' collides with existing topic: {other}"));
    }
    Ok(())
}

fn creation_configs(topic: &NewTopic) -> Result<BTreeMap<String, String>, ApiError> {
    let null: Vec<&str> =
        topic.configs.iter().filter(|(_, v)| v.is_none()).map(|(key, _)| key.as_str()).collect();
    if !null.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", null.join(","));
        return Err(ApiError::new(ErrorKind::InvalidConfig, message));
    }
    let set = topic.configs.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
    Ok(set.collect())
}

fn placed_by_us(
    image: &Image,
    topic: &NewTopic,
    defaults: TopicDefaults,
    random: &mut Random<'_>,
    records: usize,
) -> Result<Vec<Placed>, ApiError> {
    let replication_factor = match topic.replication_factor {
        -1 => defaults.replication_factor,
        told if told > 0 => told,
        _ => {
            let message =
                "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(ApiError::new(ErrorKind::InvalidReplicationFactor, message));
        }
    };
    let partitions = match topic.partitions {
        -1 => defaults.partitions,
        told if told > 0 => told,
        _ => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return Err(ApiError::new(ErrorKind::InvalidPartitions, message));
        }
    };
    check_room(records, partitions as usize)?;
    place_partitions(image, partitions as usize, replication_factor as usize, random)
}

fn assigned(image: &Image, topic: &NewTopic) -> Result<Vec<Placed>, ApiError> {
    let refuse = |kind, message: String| Err(ApiError::new(kind, message));
    if topic.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return refuse(ErrorKind::InvalidRequest, message.into());
    }
    if topic.partitions != -1 {
        let message =
            "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return refuse(ErrorKind::InvalidRequest, message.into());
    }
    let mut placed = BTreeMap::new();
    let mut replication_factor = None;
    for (index, replicas) in &topic.assignments {
        if placed.contains_key(index) {
            let message =
                format!("Found multiple manual partition assignments for partition {index}");
            return refuse(ErrorKind::InvalidReplicaAssignment, message);
        }
        placed.insert(*index, check_assignment(image, *index, replicas, replication_factor)?);
        replication_factor = Some(replicas.len());
    }
    if !placed.keys().copied().eq(0..placed.len() as i32) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return refuse(ErrorKind::InvalidReplicaAssignment, message.into());
    }
    Ok(placed.into_values().collect())
}

/// A topic as a request names it: by name, or by id (null name); never by both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicChoice {
    /// Its name.
    pub name: Option<String>,
    /// Its id; zero for none.
    pub id: Uuid,
}

/// The answer for one topic to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletedTopic {
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Its id, where it is known; else zero.
    pub id: Uuid,
    /// Whether it is deleted.
    pub result: Result<(), ApiError>,
}

/// Deletes topics; answers for each, in the request's order, those chosen twice last.
pub fn delete_topics(image: &Image, choices: &[TopicChoice]) -> Decision<Vec<DeletedTopic>> {
    delete_topics_within(image, choices, &mut Allowance::unbounded())
}

/// The same under a quota (KIP-599), which every partition is charged to that goes.
pub fn delete_topics_within(
    image: &Image,
    choices: &[TopicChoice],
    allowance: &mut Allowance<'_>,
) -> Decision<Vec<DeletedTopic>> {
    let mut records: Vec<MetadataRecord> = Vec::new();
    let mut deleted = BTreeSet::new();
    let mut answers = Vec::with_capacity(choices.len());
    let twice = repeated(choices);
    for choice in choices.iter().filter(|choice| !twice.contains(choice)) {
        let TopicChoice { name, id } = choice;
        let (name, id, result) = match choose(image, choice) {
            Err(error) => (name.clone(), *id, Err(error)),
            Ok((name, id)) if deleted.insert(id) => {
                let topic = image.topics.with_id(id).expect("a chosen topic is there");
                let result = allowance.take(topic.partition_count()).and_then(|()| {
                    let record = RemoveTopicRecord { topic_id: id, ..Default::default() };
                    records.push(record.into());
                    check_fits(records.len())
                });
                (Some(name), id, result)
            }
            Ok((name, id)) => {
                let message = "The provided topic name maps to an ID that was already supplied.";
                (Some(name), id, Err(ApiError::new(ErrorKind::InvalidRequest, message)))
            }
        };
        answers.push(DeletedTopic { name, id, result });
    }
    answers.extend(twice.into_iter().map(|TopicChoice { name, id }| {
        let what = if name.is_some() { "Duplicate topic name." } else { "Duplicate topic id." };
        let result = Err(ApiError::new(ErrorKind::InvalidRequest, what));
        DeletedTopic { name: name.clone(), id: *id, result }
    }));
    if answers
        .iter()
        .any(|a| a.result.as_ref().is_err_and(|e| e.kind == ErrorKind::PolicyViolation))
    {
        records.clear();
        for answer in &mut answers {
            if answer.result.is_ok() {
                answer.result = check_fits(usize::MAX);
            }
        }
    }
    Decision::atomic(records, answers)
}

/// The topic that is meant.
fn choose(image: &Image, choice: &TopicChoice) -> Result<(String, Uuid), ApiError> {
    let invalid = |message| Err(ApiError::new(ErrorKind::InvalidRequest, message));
    let found = match (&choice.name, choice.id.is_zero()) {
        (None, true) => return invalid("Neither topic name nor id were specified."),
        (Some(_), false) => return invalid("You may not specify both topic name and topic id."),
        (Some(name), true) => image.topics.named(name).ok_or(ErrorKind::UnknownTopicOrPartition)?,
        (None, false) => image.topics.with_id(choice.id).ok_or(ErrorKind::UnknownTopicId)?,
    };
    Ok((found.name.to_string(), found.id))
}
