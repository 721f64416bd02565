//! AssignReplicasToDirs: a broker tells which log directory each of its replicas lies in (KIP-858).
//!
//! Separate because it is told after the fact: by brokers with more than one directory, or whose disks
//! were moved. What holds: a replica whose broker put it where nothing is online any more leaves the ISR,
//! as if that directory failed just now.

use crate::Decision;
use crate::active::Active;
use crate::change::{Change, Mover, is_known};
use crate::error::{ApiError, ErrorKind};
use crate::ids::check_epoch;
use alloc::vec::Vec;
use flowstone_metadata::records::PartitionChangeRecord;
use flowstone_metadata::{Image, Partition};
use flowstone_types::{NodeId, PartitionId, Uuid};

/// The answers, as the request has them: by directory, each partition and what became of it.
pub type Assigned = Vec<(Uuid, Vec<(PartitionId, Result<(), ErrorKind>)>)>;

/// The directory that a broker's replica of a partition is told to lie in, if one is.
pub fn told_directory(partition: &Partition, broker: NodeId) -> Option<Uuid> {
    let place = partition.replicas.iter().position(|replica| *replica == broker)?;
    Some(partition.directories[place]).filter(|directory| is_known(*directory))
}

/// Notes where replicas of a broker lie that decides alone: its own leaderships stay as they are. Each takes effect
/// alone; what is gone meanwhile, or told already, is passed over.
pub fn note_directories(
    image: &Image,
    broker: NodeId,
    found: &[(PartitionId, Uuid)],
) -> Decision<()> {
    if !image.metadata_version().has_directories() {
        return Decision::each(Vec::new(), ());
    }
    let change = |(id, directory): &(PartitionId, Uuid)| {
        let before = image.topics.partition(*id)?;
        let place = before.replicas.iter().position(|replica| *replica == broker)?;
        let mut directories = before.directories.to_vec();
        let told = core::mem::replace(&mut directories[place], *directory);
        let record = PartitionChangeRecord {
            partition_id: id.index,
            topic_id: id.topic,
            directories: Some(directories),
            ..PartitionChangeRecord::default()
        };
        (told != *directory).then(|| record.into())
    };
    Decision::each(found.iter().filter_map(change).collect(), ())
}

impl Active {
    /// Notes where the broker's replicas lie.
    pub fn assign_to_directories(
        &self,
        broker: NodeId,
        broker_epoch: i64,
        assignments: &[(Uuid, Vec<PartitionId>)],
    ) -> Result<Decision<Assigned>, ApiError> {
        if !self.image.metadata_version().has_directories() {
            let message = "Directory assignment is not supported yet.";
            return Err(ApiError::new(ErrorKind::UnsupportedVersion, message));
        }
        check_epoch(&self.image, broker, broker_epoch)?;
        let mut records = Vec::new();
        let mut assign = |directory, id| {
            let record = self.assign(broker, directory, id)?;
            records.extend(record.map(Into::into));
            Ok(())
        };
        let of_directory = |(directory, partitions): &(Uuid, Vec<PartitionId>)| {
            let answers = partitions.iter().map(|id| (*id, assign(*directory, *id))).collect();
            (*directory, answers)
        };
        let answers = assignments.iter().map(of_directory).collect();
        Ok(Decision::each(records, answers))
    }

    fn assign(
        &self,
        broker: NodeId,
        directory: Uuid,
        id: PartitionId,
    ) -> Result<Option<PartitionChangeRecord>, ErrorKind> {
        let topic = self.image.topics.with_id(id.topic).ok_or(ErrorKind::UnknownTopicId)?;
        let before = topic.partition(id.index).ok_or(ErrorKind::UnknownTopicOrPartition)?;
        if !before.replicas.contains(&broker) {
            return Err(ErrorKind::NotLeaderOrFollower);
        }
        let online = self.image.brokers[&broker].log_dirs.contains(&directory);
        let mover = if online { Mover::Nobody } else { Mover::Leaves(broker) };
        let mut change = Change::new(&self.image, id, before, self.rules(id.topic), mover);
        change.directory = Some((broker, directory));
        Ok(change.build())
    }
}
