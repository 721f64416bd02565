//! New partitions: where they go, and whether a client's own wish can be followed.

use crate::error::{ApiError, ErrorKind};
use crate::mutations::Allowance;
use crate::placement::{UsableBroker, place};
use crate::topics::named_twice;
use crate::{Decision, Random, repeated};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_metadata::log::BATCH_RECORDS_MAX;
use flowstone_metadata::records::RegisterBrokerRecord;
use flowstone_metadata::{Image, MetadataRecord, Partition};
use flowstone_types::{NodeId, PartitionId, Uuid};

/// A partition's replicas, and which of them are active.
pub(crate) struct Placed {
    pub replicas: Vec<NodeId>,
    pub isr: Vec<NodeId>,
}

/// More partitions for a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPartitions {
    /// The topic's name.
    pub name: String,
    /// How many partitions it is to have in all.
    pub count: i32,
    /// Which brokers hold each new one; `None` to have them placed.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// Adds partitions to topics; answers for each by name, in the request's order, those named twice last.
pub fn create_partitions(
    image: &Image,
    topics: &[NewPartitions],
    validate_only: bool,
    random: &mut Random<'_>,
) -> Decision<Vec<(String, Result<(), ApiError>)>> {
    create_partitions_within(image, topics, validate_only, random, &mut Allowance::unbounded())
}

/// The same under a quota (KIP-599), which every partition is charged to that could be added.
pub fn create_partitions_within(
    image: &Image,
    topics: &[NewPartitions],
    validate_only: bool,
    random: &mut Random<'_>,
    allowance: &mut Allowance<'_>,
) -> Decision<Vec<(String, Result<(), ApiError>)>> {
    let mut records = Vec::new();
    let mut answers = Vec::with_capacity(topics.len());
    let twice = repeated(topics.iter().map(|topic| topic.name.as_str()));
    for topic in topics.iter().filter(|topic| !twice.contains(topic.name.as_str())) {
        let added = add_partitions(image, topic, random, allowance, &mut records);
        answers.push((topic.name.clone(), added));
    }
    answers.extend(twice.into_iter().map(|name| (name.to_string(), Err(named_twice()))));
    if answers.iter().any(|(_, a)| a.as_ref().is_err_and(|e| e.kind == ErrorKind::PolicyViolation))
    {
        records.clear();
        for (_, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_ok()) {
            *answer = check_fits(usize::MAX);
        }
    }
    if validate_only {
        records.clear();
    }
    Decision::atomic(records, answers)
}

fn add_partitions(
    image: &Image,
    wish: &NewPartitions,
    random: &mut Random<'_>,
    allowance: &mut Allowance<'_>,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    let topic = image.topics.named(&wish.name).ok_or(ErrorKind::UnknownTopicOrPartition)?;
    let before = topic.partition_count() as i32;
    let invalid = |message: String| Err(ApiError::new(ErrorKind::InvalidPartitions, message));
    if wish.count == before {
        return invalid(format!("Topic already has {before} partition(s)."));
    }
    if wish.count < before {
        return invalid(format!(
            "The topic {} currently has {before} partition(s); {} would not be an increase.",
            wish.name, wish.count
        ));
    }
    let added = (wish.count - before) as usize;
    let first = topic.partition(0).ok_or(ErrorKind::UnknownServer)?;
    let replication_factor = first.replicas.len();
    let placed = match &wish.assignments {
        Some(assignments) if assignments.len() != added => {
            let message = format!(
                "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(ApiError::new(ErrorKind::InvalidReplicaAssignment, message));
        }
        Some(assignments) => {
            check_room(records.len(), added)?;
            let checked = (before..).zip(assignments).map(|(index, replicas)| {
                check_assignment(image, index, replicas, Some(replication_factor))
            });
            checked.collect::<Result<Vec<_>, _>>()?
        }
        None => {
            check_room(records.len(), added)?;
            place_partitions(image, added, replication_factor, random)?
        }
    };
    allowance.take(added)?;
    let version = image.metadata_version();
    records.extend((before..).zip(placed).map(|(index, placed)| {
        let partition = new_partition(image, placed);
        partition.to_record(PartitionId { topic: topic.id, index }, version).into()
    }));
    Ok(())
}

/// Whether `partitions` more records fit beside `records` into what takes effect at once. Asked before
/// anything is built: a request of a few bytes may name 2^31 partitions.
pub(crate) fn check_room(records: usize, partitions: usize) -> Result<(), ApiError> {
    let with_topic = records.saturating_add(partitions).saturating_add(1);
    check_fits(with_topic)
}

pub(crate) fn check_fits(records: usize) -> Result<(), ApiError> {
    if records > BATCH_RECORDS_MAX {
        let message = format!(
            "The request is too large: it takes more than {BATCH_RECORDS_MAX} metadata records at once."
        );
        return Err(ApiError::new(ErrorKind::PolicyViolation, message));
    }
    Ok(())
}

/// Places partitions over the brokers that take any: not those on their way out.
pub(crate) fn place_partitions(
    image: &Image,
    partitions: usize,
    replication_factor: usize,
    random: &mut Random<'_>,
) -> Result<Vec<Placed>, ApiError> {
    let refuse = |why: String| {
        let message =
            format!("Unable to replicate the partition {replication_factor} time(s): {why}");
        ApiError::new(ErrorKind::InvalidReplicationFactor, message)
    };
    let stays =
        |broker: &&RegisterBrokerRecord| !broker.in_controlled_shutdown && !all_cordoned(broker);
    let brokers: Vec<UsableBroker> =
        image.brokers.values().map(|broker| &**broker).filter(stays).map(usable).collect();
    let placed = place(&brokers, partitions, replication_factor, random).map_err(refuse)?;
    let with_isr = |replicas: Vec<NodeId>| Placed { isr: active(image, &replicas), replicas };
    Ok(placed.into_iter().map(with_isr).collect()) // The first replica is active: no ISR is empty.
}

/// Whether none of the broker's directories takes a new replica (KIP-1066).
fn all_cordoned(broker: &RegisterBrokerRecord) -> bool {
    let cordoned = broker.cordoned_log_dirs.as_deref().unwrap_or_default();
    !broker.log_dirs.is_empty() && broker.log_dirs.iter().all(|id| cordoned.contains(id))
}

fn usable(broker: &RegisterBrokerRecord) -> UsableBroker {
    UsableBroker { id: NodeId(broker.broker_id), rack: broker.rack.clone(), fenced: broker.fenced }
}

fn active(image: &Image, replicas: &[NodeId]) -> Vec<NodeId> {
    replicas.iter().copied().filter(|id| image.is_active(*id)).collect()
}

fn invalid_assignment(what: &str) -> ApiError {
    let message = format!("The manual partition assignment {what}");
    ApiError::new(ErrorKind::InvalidReplicaAssignment, message)
}

/// Whether these can be a partition's replicas: registered, each once.
pub(crate) fn check_replicas(image: &Image, replicas: &[NodeId]) -> Result<(), ApiError> {
    if replicas.is_empty() {
        return Err(invalid_assignment("includes an empty replica list."));
    }
    for (place, id) in replicas.iter().enumerate() {
        if !image.brokers.contains_key(id) {
            let what = format!("includes broker {id}, but no such broker is registered.");
            return Err(invalid_assignment(&what));
        }
        if replicas[..place].contains(id) {
            let what = format!("includes the broker {id} more than once.");
            return Err(invalid_assignment(&what));
        }
    }
    Ok(())
}

/// Whether a client's wish for a new partition's replicas can be followed.
pub(crate) fn check_assignment(
    image: &Image,
    index: i32,
    replicas: &[NodeId],
    replication_factor: Option<usize>,
) -> Result<Placed, ApiError> {
    check_replicas(image, replicas)?;
    if let Some(factor) = replication_factor
        && factor != replicas.len()
    {
        return Err(invalid_assignment(&format!(
            "includes a partition with {} replica(s), but this is not consistent with previous partitions, which have {factor} replica(s).",
            replicas.len()
        )));
    }
    let isr = active(image, replicas);
    if isr.is_empty() {
        let message = format!(
            "All brokers specified in the manual partition assignment for partition {index} are fenced or in controlled shutdown."
        );
        return Err(ApiError::new(ErrorKind::InvalidReplicaAssignment, message));
    }
    Ok(Placed { replicas: replicas.to_vec(), isr })
}

pub(crate) fn new_partition(image: &Image, placed: Placed) -> Partition {
    let directories = placed.replicas.iter().map(|id| default_directory(image, *id)).collect();
    Partition::new(placed.replicas, directories, placed.isr)
}

/// Where a broker has one log directory, there is no choice; where it has more, it tells later
/// (KIP-858). "Unassigned" has the number 1, like the metadata topic's id.
pub(crate) fn default_directory(image: &Image, id: NodeId) -> Uuid {
    const UNASSIGNED: Uuid = Uuid::METADATA_TOPIC;
    match image.brokers.get(&id).map(|broker| &broker.log_dirs[..]) {
        Some([]) => Uuid::ZERO,
        Some([only]) => *only,
        Some(_) | None => UNASSIGNED,
    }
}
