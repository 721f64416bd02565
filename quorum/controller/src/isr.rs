//! AlterPartition: a leader asks for another ISR.
//!
//! Separate because the order of its checks is what leaders rely on. What holds: an ISR changes only from
//! the state that its leader knows (leader and partition epoch); nobody enters it who is fenced, on its way
//! out, or another incarnation than the leader saw fetching (KIP-841, KIP-903).

use crate::Decision;
use crate::active::Active;
use crate::change::{Change, Mover};
use crate::error::{ApiError, ErrorKind};
use crate::ids::check_epoch;
use alloc::vec::Vec;
use flowstone_metadata::Partition;
use flowstone_metadata::records::PartitionChangeRecord;
use flowstone_types::{LeaderEpoch, NodeId, PartitionId};

/// What a leader asks for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrAlteration {
    /// The partition.
    pub id: PartitionId,
    /// The leader epoch that the leader is in.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that it knows.
    pub partition_epoch: i32,
    /// The new ISR, with the broker epoch that each fetched with; `None` (-1) where it is not known.
    pub isr: Vec<(NodeId, Option<i64>)>,
    /// Whether the leader has yet to recover from an unclean election.
    pub recovering: bool,
}

/// A partition as it is then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlteredIsr {
    /// Its leader.
    pub leader: NodeId,
    /// Its leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Its ISR.
    pub isr: Vec<NodeId>,
    /// Whether its leader has yet to recover.
    pub recovering: bool,
    /// Its partition epoch.
    pub partition_epoch: i32,
}

impl Active {
    /// Changes ISRs as the leader `broker` asks; answers for each in the request's order. The error is of
    /// the whole request: the broker is not registered, or in another epoch.
    ///
    /// [`ErrorKind::NewLeaderElected`] beside a change that is carried out: it completed a reassignment
    /// that takes the leader away.
    pub fn alter_partitions(
        &self,
        broker: NodeId,
        broker_epoch: i64,
        alterations: &[IsrAlteration],
    ) -> Result<Decision<Vec<Result<AlteredIsr, ApiError>>>, ApiError> {
        check_epoch(&self.image, broker, broker_epoch)?;
        let mut records = Vec::new();
        let alter = |alteration| {
            let (record, answer) = self.alter_partition(broker, alteration)?;
            records.extend(record.map(Into::into));
            answer
        };
        let answers = alterations.iter().map(alter).collect();
        Ok(Decision::each(records, answers))
    }

    fn alter_partition(
        &self,
        broker: NodeId,
        alteration: &IsrAlteration,
    ) -> Result<(Option<PartitionChangeRecord>, Result<AlteredIsr, ApiError>), ErrorKind> {
        let id = alteration.id;
        let topic = self.image.topics.with_id(id.topic).ok_or(ErrorKind::UnknownTopicId)?;
        let before = topic.partition(id.index).ok_or(ErrorKind::UnknownTopicOrPartition)?;
        self.check(broker, before, alteration)?;
        let mut change = Change::new(&self.image, id, before, self.rules(id.topic), Mover::Nobody);
        change.isr = alteration.isr.iter().map(|(id, _)| *id).collect();
        change.recovering = alteration.recovering;
        let record = change.build();
        let after = match &record {
            Some(record) => {
                before.changed(record.clone()).expect("a change follows from its partition")
            }
            None => Partition::clone(before),
        };
        let answer = if after.leader == broker {
            Ok(AlteredIsr {
                leader: after.leader,
                leader_epoch: after.leader_epoch,
                isr: after.isr.to_vec(),
                recovering: after.recovering,
                partition_epoch: after.partition_epoch,
            })
        } else {
            Err(ErrorKind::NewLeaderElected.into())
        };
        Ok((record, answer))
    }

    /// In the order of reference section 2.2.
    fn check(
        &self,
        broker: NodeId,
        before: &Partition,
        alteration: &IsrAlteration,
    ) -> Result<(), ErrorKind> {
        let ahead = alteration.leader_epoch > before.leader_epoch
            || alteration.partition_epoch > before.partition_epoch;
        if ahead {
            return Err(ErrorKind::NotController); // It knows of a newer one.
        }
        if alteration.leader_epoch < before.leader_epoch {
            return Err(ErrorKind::FencedLeaderEpoch);
        }
        if broker != before.leader {
            return Err(ErrorKind::InvalidRequest);
        }
        if alteration.partition_epoch < before.partition_epoch {
            return Err(ErrorKind::InvalidUpdateVersion);
        }
        let isr = &alteration.isr;
        let repeated = |place: usize, id| isr[..place].iter().any(|(other, _)| *other == id);
        let bad = |(place, (id, _)): (usize, &(NodeId, Option<i64>))| {
            !before.replicas.contains(id) || repeated(place, *id)
        };
        let without_leader = !isr.iter().any(|(id, _)| *id == before.leader);
        let recovers_with_others = alteration.recovering && isr.len() > 1;
        let loses_again = alteration.recovering && !before.recovering;
        if isr.iter().enumerate().any(bad) || without_leader || recovers_with_others || loses_again
        {
            return Err(ErrorKind::InvalidRequest);
        }
        let ineligible = |(id, epoch): &(NodeId, Option<i64>)| {
            let registered = self.image.brokers.get(id);
            let same = registered.is_some_and(|b| epoch.is_none_or(|told| told == b.broker_epoch));
            !same || !self.image.is_active(*id)
        };
        if isr.iter().any(ineligible) {
            return Err(ErrorKind::IneligibleReplica);
        }
        Ok(())
    }
}
