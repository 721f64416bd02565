//! What must hold of the image that a controller decides and commits, change by change.
//!
//! Separate from the controller that is checked, and from `truth.rs`, which knows what lies in the logs: this needs
//! nothing but images.

use flowstone_metadata::{ConfigResource, Delta, Image, Partition, Replay, ResourceKind};
use flowstone_types::{NodeId, PartitionId};

use super::message::View;
use super::truth::Name;
use crate::broken;
use crate::run::Violation;

/// The config by which a topic's partitions may lose what was committed.
pub(super) const UNCLEAN: &str = "unclean.leader.election.enable";

/// Whether a topic allows unclean elections.
pub(super) fn allows_unclean(image: &Image, topic: &str) -> bool {
    image.config(&ConfigResource::topic(topic), UNCLEAN) == Some("true")
}

/// What holds of one step from image to image: the delta tells all that changed, and an unclean election
/// leaves its leader alone, in sync and eligible (KIP-966).
pub(super) fn check_change(before: &Image, after: &Image, told: &Delta) -> Result<(), Violation> {
    const RULE: &str = "a delta tells all that changed";
    let found = Delta::between(before, after);
    let partitions = found.partitions.iter().all(|partition| told.partitions.contains(partition));
    let brokers = found.brokers.iter().all(|broker| told.brokers.contains(broker));
    let configs = found.configs.iter().all(|resource| told.configs.contains(resource));
    let topics = found.topics_created == told.topics_created
        && found.topics_deleted.keys().eq(told.topics_deleted.keys());
    if !(partitions && brokers && configs && topics) || (found.features && !told.features) {
        broken!(RULE, "{found:?} changed, and it tells {told:?}");
    }
    for (topic, index) in &told.partitions {
        let id = PartitionId { topic: *topic, index: *index };
        let (Some(old), Some(new)) = (before.topics.partition(id), after.topics.partition(id))
        else {
            continue;
        };
        if new.recovering
            && !old.recovering
            && (*new.isr != [new.leader] || !new.eligible.is_empty())
        {
            broken!(
                "after an unclean election only its leader counts (KIP-966)",
                "{}: {old:?} became {new:?}",
                Name(id)
            );
        }
    }
    Ok(())
}

/// No config is of a topic that is gone.
pub(super) fn check_names(image: &Image) -> Result<(), Violation> {
    let of_topics = image.configs.keys().filter(|resource| resource.kind == ResourceKind::Topic);
    for resource in of_topics {
        if image.topics.named(&resource.name).is_none() {
            broken!("no dangling ids", "{resource} has configs, and there is no such topic");
        }
    }
    Ok(())
}

/// The records that make an image make it again.
pub(super) fn check_snapshot(image: &Image) -> Result<(), Violation> {
    const RULE: &str = "a snapshot is the image";
    let mut replay = Replay::default();
    for record in image.to_records() {
        if let Err(error) = replay.apply(record) {
            broken!(RULE, "{error}");
        }
    }
    let Some((again, _)) = replay.publish() else { broken!(RULE, "it ends in a transaction") };
    if again != *image {
        broken!(RULE, "{:?} differs", Delta::between(image, &again));
    }
    Ok(())
}

/// What holds of every partition: its leader is in sync or there is none, each list names replicas, nobody
/// stands twice, and there are as many as were asked for, unless a reassignment is under way.
pub(super) fn check_partition(
    id: PartitionId,
    partition: &Partition,
    view: &View,
    factor: usize,
) -> Result<(), Violation> {
    const RULE: &str = "controller invariants";
    let Partition { replicas, isr, adding, removing, eligible, last_known, leader, .. } = partition;
    let name = Name(id);
    if *leader != NodeId::NONE && !isr.contains(leader) {
        broken!(RULE, "{name}: the leader is not in sync: {partition:?}");
    }
    for (what, list) in
        [("isr", isr), ("adding", adding), ("removing", removing), ("eligible", eligible)]
    {
        if list.iter().any(|node| !replicas.contains(node)) {
            broken!(RULE, "{name}: {what} names no replica: {partition:?}");
        }
        if list.iter().enumerate().any(|(at, node)| list[..at].contains(node)) {
            broken!(RULE, "{name}: {what} names one twice: {partition:?}");
        }
    }
    if eligible.iter().any(|node| isr.contains(node)) || last_known.len() > 1 {
        broken!(RULE, "{name}: in sync and eligible at once, or two last leaders: {partition:?}");
    }
    if last_known.iter().any(|node| !replicas.contains(node)) {
        broken!(RULE, "{name}: the last known leader is no replica: {partition:?}");
    }
    if replicas.iter().any(|node| !view.brokers.contains_key(node)) {
        broken!(RULE, "{name}: a replica is no broker's: {partition:?}");
    }
    if adding.is_empty() && removing.is_empty() && replicas.len() != factor {
        broken!(RULE, "{name}: {} replicas, not {factor}: {partition:?}", replicas.len());
    }
    // Eligible leader replicas are on: an ISR may be empty, so it keeps nobody for want of another.
    let is_fenced = |node: &NodeId| view.brokers.get(node).is_some_and(|broker| broker.fenced);
    if isr.iter().any(is_fenced) {
        broken!(RULE, "{name}: one that is fenced is in sync (KIP-841): {partition:?}");
    }
    Ok(())
}
