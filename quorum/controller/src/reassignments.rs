//! Reassignments: the same partition on other brokers.
//!
//! Separate because one takes many changes: here it begins, or is called off; each later
//! [change](crate::change) of the partition looks whether it is done. What holds: while it is under way the
//! replicas are those that are to stay, and then those that go; without those that were added, however many
//! targets there were, they are those before it began, which calling off brings back; it is done once all that
//! are to stay are in sync.

use crate::Decision;
use crate::active::Active;
use crate::change::{Change, Mover};
use crate::error::{ApiError, ErrorKind};
use crate::partitions::{check_fits, check_replicas};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_metadata::Partition;
use flowstone_metadata::features::ELR_VERSION;
use flowstone_metadata::records::PartitionChangeRecord;
use flowstone_types::{NodeId, PartitionId};

/// Where a partition is to be; `None` calls off what is under way.
pub type Target = Option<Vec<NodeId>>;

/// The answers: topic, partition, and what became of it.
pub type Reassigned = Vec<(String, Vec<(i32, Result<(), ApiError>)>)>;

/// A reassignment that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reassignment {
    /// The partition.
    pub index: i32,
    /// All replicas, those that go among them.
    pub replicas: Vec<NodeId>,
    /// Those added.
    pub adding: Vec<NodeId>,
    /// Those that go.
    pub removing: Vec<NodeId>,
}

impl Active {
    /// Begins reassignments, changes or calls them off; all that can be take effect together. Where
    /// `may_change_factor` is false (AllowReplicationFactorChange, KIP-860), each keeps its number of
    /// replicas.
    pub fn alter_reassignments(
        &self,
        topics: &[(String, Vec<(i32, Target)>)],
        may_change_factor: bool,
    ) -> Result<Decision<Reassigned>, ApiError> {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(topics.len());
        for (name, partitions) in topics {
            let reassign = |(index, target): &(i32, Target)| {
                let record = self.reassign(name, *index, target.as_deref(), may_change_factor);
                (*index, record.map(|record| records.extend(record.map(Into::into))))
            };
            answers.push((name.clone(), partitions.iter().map(reassign).collect()));
            check_fits(records.len())?;
        }
        Ok(Decision::atomic(records, answers))
    }

    fn reassign(
        &self,
        name: &str,
        index: i32,
        target: Option<&[NodeId]>,
        may_change_factor: bool,
    ) -> Result<Option<PartitionChangeRecord>, ApiError> {
        let unknown = |what: String| ApiError::new(ErrorKind::UnknownTopicOrPartition, what);
        let topic = self.image.topics.named(name);
        let topic =
            topic.ok_or_else(|| unknown(format!("Unable to find a topic named {name}.")))?;
        let before = topic
            .partition(index)
            .ok_or_else(|| unknown(format!("Unable to find partition {name}:{index}.")))?;
        let id = PartitionId { topic: topic.id, index };
        let mut change = Change::new(&self.image, id, before, self.rules(topic.id), Mover::Nobody);
        match target {
            None => {
                change.isr = self.called_off(name, id, before)?;
                change.replicas.retain(|node| !before.adding.contains(node));
                change.removing = Vec::new();
                change.adding = Vec::new();
            }
            Some(target) => {
                check_replicas(&self.image, target)?;
                let stays = |node: &&NodeId| !before.removing.contains(node);
                let factor = before.replicas.iter().filter(stays).count();
                if !may_change_factor && target.len() != factor {
                    let message = format!(
                        "The replication factor is changed from {factor} to {}",
                        target.len()
                    );
                    return Err(ApiError::new(ErrorKind::InvalidReplicationFactor, message));
                }
                let sorted = |mut nodes: Vec<NodeId>| {
                    nodes.sort_unstable();
                    nodes
                };
                let goes = |node: &&NodeId| !target.contains(node);
                change.removing = sorted(before.replicas.iter().filter(goes).copied().collect());
                change.replicas = [target, &change.removing].concat();
                // What an earlier target added and this one does not is in sync, perhaps: it goes, like
                // others, once those that are to stay are. It counts as added until then (Apache forgets
                // it where the new target adds another one): else calling off would keep it for good.
                let is_new = |node: &&NodeId| {
                    !before.replicas.contains(node) || before.adding.contains(node)
                };
                change.adding = sorted(change.replicas.iter().filter(is_new).copied().collect());
            }
        }
        Ok(change.build())
    }

    /// The ISR without those that were added. Where only they hold what was committed, calling off may lose
    /// it: only where the topic allows that.
    fn called_off(
        &self,
        name: &str,
        id: PartitionId,
        before: &Partition,
    ) -> Result<Vec<NodeId>, ApiError> {
        if before.adding.is_empty() && before.removing.is_empty() {
            return Err(ErrorKind::NoReassignmentInProgress.into());
        }
        let old = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !before.adding.contains(node)).collect()
        };
        let isr = old(&before.isr);
        // Who holds all that was committed (KIP-966).
        let holders = [&before.isr, &before.eligible, &before.last_known];
        let holders = holders.into_iter().find(|holders| !holders.is_empty());
        if holders.is_none_or(|holders| !old(holders).is_empty()) {
            return Ok(isr);
        }
        if !self.rules(id.topic).unclean {
            let message = format!(
                "Unable to revert partition assignment for {name}:{} because it would require an unclean leader election.",
                id.index
            );
            return Err(ApiError::new(ErrorKind::InvalidReplicaAssignment, message));
        }
        // Whoever of the others may lead is elected, uncleanly. Apache puts the first of them into the ISR, be it
        // fenced (against KIP-841): here only where an ISR never runs out.
        let elr = self.image.feature(ELR_VERSION) > 0;
        Ok(old(&before.replicas).into_iter().take(usize::from(!elr)).collect())
    }

    /// The reassignments that are under way, by topic: of the partitions told, or all.
    pub fn reassignments(
        &self,
        told: Option<&[(String, Vec<i32>)]>,
    ) -> Vec<(String, Vec<Reassignment>)> {
        let mut found: Vec<(String, Vec<Reassignment>)> = Vec::new();
        let mut add = |name: &str, index, partition: &Partition| {
            if partition.adding.is_empty() && partition.removing.is_empty() {
                return;
            }
            let reassignment = Reassignment {
                index,
                replicas: partition.replicas.to_vec(),
                adding: partition.adding.to_vec(),
                removing: partition.removing.to_vec(),
            };
            match found.last_mut() {
                Some((last, of_topic)) if last == name => of_topic.push(reassignment),
                Some(_) | None => found.push((name.into(), [reassignment].into())),
            }
        };
        let topics = &self.image.topics;
        if let Some(told) = told {
            for (name, indexes) in told {
                let Some(topic) = topics.named(name) else { continue };
                for index in indexes {
                    if let Some(partition) = topic.partition(*index) {
                        add(name, *index, partition);
                    }
                }
            }
        } else {
            for id in self.members.reassigning.iter() {
                let topic = topics.with_id(id.topic).expect("a topic of the image");
                let partition = topic.partition(id.index).expect("a partition of the image");
                add(&topic.name, id.index, partition);
            }
        }
        found
    }
}
