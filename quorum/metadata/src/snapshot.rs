//! The image as the records that make it, in Kafka's order (reference section 2.3).

use crate::features::{METADATA_VERSION, MetadataVersion};
use crate::image::Image;
use crate::record::MetadataRecord;
use crate::records::{
    ClientQuotaRecord, ConfigRecord, EntityData, FeatureLevelRecord, ProducerIdsRecord,
    RegisterBrokerRecord, TopicRecord,
};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use flowstone_types::PartitionId;

impl Image {
    /// The records that make this image from an empty one: features (metadata.version first),
    /// cluster, topics, configs, quotas, producer ids, ACLs, SCRAM, delegation tokens.
    ///
    /// Lazy: an image of a million partitions never stands in memory twice.
    pub fn to_records(&self) -> impl Iterator<Item = MetadataRecord> + '_ {
        self.to_records_at(self.metadata_version())
    }

    /// The same for a cluster at `version`, without what that cannot tell ([`Image::losses_at`]).
    pub fn to_records_at(
        &self,
        version: MetadataVersion,
    ) -> impl Iterator<Item = MetadataRecord> + '_ {
        let broker = move |kept: &Arc<RegisterBrokerRecord>| {
            let mut broker = RegisterBrokerRecord::clone(kept);
            broker.is_migrating_zk_broker &= version.has_zk_migration();
            if !version.has_directories() {
                broker.log_dirs.clear();
            }
            if !version.has_cordoned_directories() {
                broker.cordoned_log_dirs = None;
            }
            broker.into()
        };
        let controllers =
            self.controllers.values().filter(move |_| version.has_controller_registration());
        let scram = self.scram.values().filter(move |_| version.has_scram());
        let tokens = self.delegation_tokens.values();
        let tokens = tokens.filter(move |_| version.has_delegation_tokens());
        let topics = self.topics.iter().flat_map(move |topic| {
            let created = TopicRecord {
                name: topic.name.to_string(),
                topic_id: topic.id,
                ..TopicRecord::default()
            };
            let partitions = topic.partitions().map(move |(index, partition)| {
                partition.to_record(PartitionId { topic: topic.id, index }, version).into()
            });
            core::iter::once(created.into()).chain(partitions)
        });
        self.feature_records(version)
            .chain(self.brokers.values().map(broker))
            .chain(controllers.map(record))
            .chain(topics)
            .chain(self.config_records())
            .chain(self.quota_records())
            .chain(self.producer_ids_record())
            .chain(self.acls.values().map(record))
            .chain(scram.map(record))
            .chain(tokens.map(record))
    }

    fn feature_records(&self, version: MetadataVersion) -> impl Iterator<Item = MetadataRecord> {
        let level = |name: &str, feature_level| {
            let name = name.to_string();
            FeatureLevelRecord { name, feature_level, ..FeatureLevelRecord::default() }.into()
        };
        let told = self.features.contains_key(METADATA_VERSION);
        let others = self.features.iter().filter(|(name, _)| *name != METADATA_VERSION);
        told.then(|| level(METADATA_VERSION, version.0))
            .into_iter()
            .chain(others.map(move |(name, at)| level(name, *at)))
    }

    fn config_records(&self) -> impl Iterator<Item = MetadataRecord> {
        self.configs.iter().flat_map(|(resource, configs)| {
            configs.iter().map(move |(name, value)| {
                let record = ConfigRecord {
                    resource_type: resource.kind.number(),
                    resource_name: resource.name.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                    ..ConfigRecord::default()
                };
                record.into()
            })
        })
    }

    fn quota_records(&self) -> impl Iterator<Item = MetadataRecord> {
        self.client_quotas.iter().flat_map(|(entity, quotas)| {
            let part = |(entity_type, entity_name): &(String, Option<String>)| EntityData {
                entity_type: entity_type.clone(),
                entity_name: entity_name.clone(),
                ..EntityData::default()
            };
            quotas.iter().map(move |(key, value)| {
                let record = ClientQuotaRecord {
                    entity: entity.iter().map(part).collect(),
                    key: key.clone(),
                    value: *value,
                    ..ClientQuotaRecord::default()
                };
                record.into()
            })
        })
    }

    fn producer_ids_record(&self) -> Option<MetadataRecord> {
        let next_producer_id = self.next_producer_id;
        let record = ProducerIdsRecord {
            broker_id: -1,
            broker_epoch: -1,
            next_producer_id,
            ..ProducerIdsRecord::default()
        };
        (next_producer_id > 0).then(|| record.into())
    }
}

fn record<T: Clone + Into<MetadataRecord>>(kept: &Arc<T>) -> MetadataRecord {
    T::clone(kept).into()
}
