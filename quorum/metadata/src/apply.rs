//! What each record does to the image.
//!
//! Invariant: a record that is refused leaves the image as it was.

use crate::delta::Delta;
use crate::features::{METADATA_VERSION, MetadataVersion};
use crate::image::{ConfigResource, Image, ResourceKind};
use crate::record::MetadataRecord;
#[allow(clippy::wildcard_imports, reason = "every record, each by its own name")]
use crate::records::*;
use crate::replay::ReplayError;
use crate::topics::{Partition, Topic, nodes};
use alloc::sync::Arc;
use alloc::vec;
use flowstone_types::{LeaderEpoch, NodeId, PartitionId, Uuid};

impl Image {
    /// Applies one record, and notes in `delta` what it changed.
    ///
    /// The records that bracket transactions do nothing here: see [`Replay`](crate::Replay).
    pub fn apply(&mut self, record: MetadataRecord, delta: &mut Delta) -> Result<(), ReplayError> {
        use MetadataRecord as R;
        match record {
            R::FeatureLevelRecord(record) => self.feature_level(*record, delta),
            R::RegisterBrokerRecord(mut record) => {
                let id = NodeId(record.broker_id);
                sort(&mut record.features);
                record.log_dirs.sort();
                self.brokers.insert(id, Arc::from(record));
                delta.brokers.insert(id);
                Ok(())
            }
            R::UnregisterBrokerRecord(record) => {
                let id = NodeId(record.broker_id);
                self.broker_mut(id, record.broker_epoch)?;
                self.brokers.remove(&id);
                delta.brokers.insert(id);
                Ok(())
            }
            R::FenceBrokerRecord(record) => self.fence(record.id, record.epoch, true, delta),
            R::UnfenceBrokerRecord(record) => self.fence(record.id, record.epoch, false, delta),
            R::BrokerRegistrationChangeRecord(record) => self.registration_change(*record, delta),
            R::RegisterControllerRecord(mut record) => {
                sort(&mut record.features);
                self.controllers.insert(NodeId(record.controller_id), Arc::from(record));
                delta.controllers = true;
                Ok(())
            }
            R::TopicRecord(record) => self.topic(&record, delta),
            R::PartitionRecord(record) => self.partition(*record, delta),
            R::PartitionChangeRecord(record) => self.partition_change(*record, delta),
            R::RemoveTopicRecord(record) => self.remove_topic(record.topic_id, delta),
            R::ClearElrRecord(record) => self.clear_elr(&record.topic_name, delta),
            R::ConfigRecord(record) => self.config_record(*record, delta),
            R::ClientQuotaRecord(record) => {
                self.client_quota(*record);
                delta.client_quotas = true;
                Ok(())
            }
            R::ProducerIdsRecord(record) => {
                if record.next_producer_id <= self.next_producer_id {
                    return Err(ReplayError::ProducerIdsGoBack {
                        next: record.next_producer_id,
                        before: self.next_producer_id,
                    });
                }
                self.next_producer_id = record.next_producer_id;
                delta.producer_ids = true;
                Ok(())
            }
            R::AccessControlEntryRecord(record) => {
                self.acls.insert(record.id, Arc::from(record));
                delta.acls = true;
                Ok(())
            }
            R::RemoveAccessControlEntryRecord(record) => {
                self.acls.remove(&record.id).ok_or(ReplayError::UnknownAcl(record.id))?;
                delta.acls = true;
                Ok(())
            }
            R::UserScramCredentialRecord(record) => {
                self.scram.insert((record.mechanism, record.name.clone()), Arc::from(record));
                delta.scram = true;
                Ok(())
            }
            R::RemoveUserScramCredentialRecord(record) => {
                let key = (record.mechanism, record.name);
                self.scram.remove(&key).ok_or(ReplayError::UnknownScramCredential(key.1))?;
                delta.scram = true;
                Ok(())
            }
            R::DelegationTokenRecord(record) => {
                self.delegation_tokens.insert(record.token_id.clone(), Arc::from(record));
                delta.delegation_tokens = true;
                Ok(())
            }
            R::RemoveDelegationTokenRecord(record) => {
                let removed = self.delegation_tokens.remove(&record.token_id);
                removed.ok_or(ReplayError::UnknownDelegationToken(record.token_id))?;
                delta.delegation_tokens = true;
                Ok(())
            }
            R::NoOpRecord(_)
            | R::ZkMigrationStateRecord(_)
            | R::BeginTransactionRecord(_)
            | R::EndTransactionRecord(_)
            | R::AbortTransactionRecord(_) => Ok(()),
        }
    }

    fn feature_level(
        &mut self,
        record: FeatureLevelRecord,
        delta: &mut Delta,
    ) -> Result<(), ReplayError> {
        let level = record.feature_level;
        if record.name == METADATA_VERSION && !MetadataVersion(level).is_known() {
            return Err(ReplayError::UnknownMetadataVersion(level));
        }
        if level == 0 {
            self.features.remove(&record.name);
        } else {
            self.features.insert(record.name, level);
        }
        delta.features = true;
        Ok(())
    }

    /// The registration of `broker`, provided that it is of `epoch`.
    fn broker_mut(
        &mut self,
        id: NodeId,
        epoch: i64,
    ) -> Result<&mut RegisterBrokerRecord, ReplayError> {
        let broker = self.brokers.get_mut(&id).ok_or(ReplayError::UnknownBroker(id))?;
        if broker.broker_epoch != epoch {
            let current = broker.broker_epoch;
            return Err(ReplayError::OtherBrokerEpoch { broker: id, epoch, current });
        }
        Ok(Arc::make_mut(broker))
    }

    fn fence(
        &mut self,
        id: i32,
        epoch: i64,
        fenced: bool,
        delta: &mut Delta,
    ) -> Result<(), ReplayError> {
        self.broker_mut(NodeId(id), epoch)?.fenced = fenced;
        delta.brokers.insert(NodeId(id));
        Ok(())
    }

    fn registration_change(
        &mut self,
        mut change: BrokerRegistrationChangeRecord,
        delta: &mut Delta,
    ) -> Result<(), ReplayError> {
        let id = NodeId(change.broker_id);
        let bad = |field, value: i8| ReplayError::BadValue { field, value: value.into() };
        if !(-1..=1).contains(&change.fenced) {
            return Err(bad("BrokerRegistrationChangeRecord.fenced", change.fenced));
        }
        if !(0..=1).contains(&change.in_controlled_shutdown) {
            let field = "BrokerRegistrationChangeRecord.in_controlled_shutdown";
            return Err(bad(field, change.in_controlled_shutdown));
        }
        let broker = self.broker_mut(id, change.broker_epoch)?;
        match change.fenced {
            0 => {}
            fenced => broker.fenced = fenced == 1,
        }
        broker.in_controlled_shutdown |= change.in_controlled_shutdown == 1;
        if !change.log_dirs.is_empty() {
            change.log_dirs.sort(); // As at the registration: a snapshot tells them there.
            broker.log_dirs = change.log_dirs;
        }
        if change.cordoned_log_dirs.is_some() {
            broker.cordoned_log_dirs = change.cordoned_log_dirs;
        }
        delta.brokers.insert(id);
        Ok(())
    }

    fn topic(&mut self, record: &TopicRecord, delta: &mut Delta) -> Result<(), ReplayError> {
        let id = record.topic_id;
        if self.topics.with_id(id).is_some() || self.topics.named(&record.name).is_some() {
            return Err(ReplayError::TopicExists { id, name: record.name.clone() });
        }
        let name = Arc::from(record.name.as_str());
        self.topics.insert(Arc::new(Topic { id, name, partitions: imbl::Vector::new() }));
        delta.topics_created.insert(id);
        Ok(())
    }

    fn partition(&mut self, record: PartitionRecord, delta: &mut Delta) -> Result<(), ReplayError> {
        let id = PartitionId { topic: record.topic_id, index: record.partition_id };
        let partition = partition_from(record)?;
        let topic = self.topics.topic_mut(id.topic).ok_or(ReplayError::UnknownTopic(id.topic))?;
        // Controllers write a topic's partitions from 0 on, and so do snapshots.
        let count = topic.partitions.len();
        if id.index as usize != count {
            return Err(ReplayError::PartitionOutOfOrder { id, count });
        }
        topic.partitions.push_back(Arc::new(partition));
        delta.partitions.insert((id.topic, id.index));
        Ok(())
    }

    fn partition_change(
        &mut self,
        change: PartitionChangeRecord,
        delta: &mut Delta,
    ) -> Result<(), ReplayError> {
        let id = PartitionId { topic: change.topic_id, index: change.partition_id };
        let before = self.topics.partition(id).ok_or(ReplayError::UnknownPartition(id))?;
        let after = Arc::new(before.changed(change)?);
        let topic = self.topics.topic_mut(id.topic).expect("its partition was found");
        topic.partitions.set(id.index as usize, after);
        delta.partitions.insert((id.topic, id.index));
        Ok(())
    }

    fn remove_topic(&mut self, id: Uuid, delta: &mut Delta) -> Result<(), ReplayError> {
        let topic = self.topics.remove(id).ok_or(ReplayError::UnknownTopic(id))?;
        let resource = ConfigResource::topic(&topic.name);
        if self.configs.remove(&resource).is_some() {
            delta.configs.insert(resource);
        }
        delta.topic_deleted(topic);
        Ok(())
    }

    fn clear_elr(&mut self, name: &str, delta: &mut Delta) -> Result<(), ReplayError> {
        let ids = if name.is_empty() {
            self.topics.ids()
        } else {
            let topic = self.topics.named(name);
            vec![topic.ok_or_else(|| ReplayError::UnknownTopicName(name.into()))?.id]
        };
        for id in ids {
            let topic = self.topics.with_id(id).expect("the id is of a topic");
            let holders = topic.partitions().filter(|(_, p)| p.has_eligible());
            let holders: vec::Vec<i32> = holders.map(|(index, _)| index).collect();
            for partition_id in holders {
                let change = PartitionChangeRecord {
                    partition_id,
                    topic_id: id,
                    eligible_leader_replicas: Some(vec![]),
                    last_known_elr: Some(vec![]),
                    ..PartitionChangeRecord::default()
                };
                self.partition_change(change, delta)?;
            }
        }
        Ok(())
    }

    fn config_record(
        &mut self,
        record: ConfigRecord,
        delta: &mut Delta,
    ) -> Result<(), ReplayError> {
        let kind =
            ResourceKind::from_number(record.resource_type).ok_or(ReplayError::BadValue {
                field: "ConfigRecord.resource_type",
                value: record.resource_type.into(),
            })?;
        let resource = ConfigResource { kind, name: record.resource_name };
        let mut configs = self.configs.get(&resource).cloned().unwrap_or_default();
        match record.value {
            Some(value) => {
                Arc::make_mut(&mut configs).insert(record.name, value);
            }
            None => {
                Arc::make_mut(&mut configs).remove(&record.name);
            }
        }
        if configs.is_empty() {
            self.configs.remove(&resource);
        } else {
            self.configs.insert(resource.clone(), configs);
        }
        delta.configs.insert(resource);
        Ok(())
    }

    fn client_quota(&mut self, record: ClientQuotaRecord) {
        let mut entity: vec::Vec<_> =
            record.entity.into_iter().map(|part| (part.entity_type, part.entity_name)).collect();
        entity.sort();
        let mut quotas = self.client_quotas.get(&entity).cloned().unwrap_or_default();
        if record.remove {
            Arc::make_mut(&mut quotas).remove(&record.key);
        } else {
            Arc::make_mut(&mut quotas).insert(record.key, record.value);
        }
        if quotas.is_empty() {
            self.client_quotas.remove(&entity);
        } else {
            self.client_quotas.insert(entity, quotas);
        }
    }
}

/// A set to Kafka, which writes it in the order of a hash: images are compared, so they need one order.
fn sort(features: &mut [BrokerFeature]) {
    features.sort_by(|a, b| a.name.cmp(&b.name));
}

fn partition_from(record: PartitionRecord) -> Result<Partition, ReplayError> {
    let directories = directories(record.directories, record.replicas.len())?;
    Ok(Partition {
        replicas: nodes(record.replicas),
        directories,
        isr: nodes(record.isr),
        removing: nodes(record.removing_replicas),
        adding: nodes(record.adding_replicas),
        eligible: nodes(record.eligible_leader_replicas.unwrap_or_default()),
        last_known: nodes(record.last_known_elr.unwrap_or_default()),
        leader: NodeId(record.leader),
        leader_epoch: LeaderEpoch(record.leader_epoch),
        partition_epoch: record.partition_epoch,
        recovering: recovering(record.leader_recovery_state)?,
    })
}

/// No directories at all is what records had before MV 3.7-IV2.
fn directories(
    told: vec::Vec<Uuid>,
    replicas: usize,
) -> Result<alloc::boxed::Box<[Uuid]>, ReplayError> {
    match told.len() {
        0 => Ok(vec![Uuid::ZERO; replicas].into()),
        count if count == replicas => Ok(told.into()),
        directories => Err(ReplayError::DirectoryCount { directories, replicas }),
    }
}

fn recovering(state: i8) -> Result<bool, ReplayError> {
    match state {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ReplayError::BadValue { field: "leader_recovery_state", value: state.into() }),
    }
}

impl Partition {
    /// The partition after `change`: every change counts the partition epoch up, and every word about the
    /// leader the leader epoch (reference section 4).
    pub fn changed(&self, change: PartitionChangeRecord) -> Result<Self, ReplayError> {
        let mut after = self.clone();
        if let Some(replicas) = change.replicas {
            after.replicas = nodes(replicas);
        }
        if let Some(told) = change.directories {
            after.directories = directories(told, after.replicas.len())?;
        } else if after.directories.len() != after.replicas.len() {
            let known = after.directories.iter().copied().filter(|id| !id.is_zero()).collect();
            after.directories = directories(known, after.replicas.len())?; // All zero before MV 3.7-IV2.
        }
        let lists = [
            (change.isr, &mut after.isr),
            (change.removing_replicas, &mut after.removing),
            (change.adding_replicas, &mut after.adding),
            (change.eligible_leader_replicas, &mut after.eligible),
            (change.last_known_elr, &mut after.last_known),
        ];
        for (told, list) in lists {
            if let Some(told) = told {
                *list = nodes(told);
            }
        }
        if change.leader != NO_LEADER_CHANGE {
            after.leader = NodeId(change.leader);
            after.leader_epoch = LeaderEpoch(self.leader_epoch.0 + 1);
        }
        if change.leader_recovery_state != -1 {
            after.recovering = recovering(change.leader_recovery_state)?;
        }
        after.partition_epoch = self.partition_epoch + 1;
        Ok(after)
    }
}

/// "The leader did not change."
const NO_LEADER_CHANGE: i32 = -2;
