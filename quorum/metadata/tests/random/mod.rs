//! Random records that fit together: of few topics, brokers and names, so that they meet, and as a cluster at
//! some metadata.version writes them.

use flowstone_metadata::records::*;
use flowstone_metadata::{Delta, Image, MetadataRecord, MetadataVersion};
use flowstone_schema::Message;
use flowstone_types::{NodeId, PartitionId, Uuid};

/// A generator that a seed starts.
pub struct Draw(pub u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 33 ^ self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of a few names.
    fn name(&mut self) -> String {
        ["a", "b.c", "b_c", "d"][self.below(4) as usize].into()
    }

    fn topic(&mut self) -> Uuid {
        Uuid(1000 + u128::from(self.below(5)))
    }
}

/// The image after `count` more records that fit; what they changed is noted in `delta`.
pub fn grown(image: &mut Image, delta: &mut Delta, count: usize, draw: &mut Draw) {
    let mut fitting = 0;
    while fitting < count {
        let record = record(image, draw);
        fitting += usize::from(image.apply(record, delta).is_ok());
    }
}

/// An image at `version`, of `count` records.
pub fn image(version: MetadataVersion, count: usize, draw: &mut Draw) -> Image {
    let (mut image, mut delta) = (Image::default(), Delta::default());
    let level = FeatureLevelRecord {
        name: flowstone_metadata::features::METADATA_VERSION.into(),
        feature_level: version.0,
        ..Default::default()
    };
    image.apply(level.into(), &mut delta).unwrap();
    grown(&mut image, &mut delta, count, draw);
    image
}

fn record(image: &Image, draw: &mut Draw) -> MetadataRecord {
    use MetadataRecord as R;
    let at = image.metadata_version();
    loop {
        let types = MetadataRecord::TYPES;
        // Every other one is of topics, whose records need most company.
        let nth =
            if draw.below(2) == 0 { draw.below(types.len() as u64) } else { 2 + draw.below(4) };
        let key = types[nth as usize].0;
        let version = match key {
            RegisterBrokerRecord::KEY => R::from(RegisterBrokerRecord::default()).version_at(at),
            PartitionRecord::KEY | PartitionChangeRecord::KEY => {
                R::from(PartitionRecord::default()).version_at(at)
            }
            BrokerRegistrationChangeRecord::KEY if at.has_cordoned_directories() => 3,
            BrokerRegistrationChangeRecord::KEY if at.has_directories() => 2,
            BrokerRegistrationChangeRecord::KEY => 1,
            UserScramCredentialRecord::KEY if !at.has_scram() => continue,
            DelegationTokenRecord::KEY if !at.has_delegation_tokens() => continue,
            RegisterControllerRecord::KEY if !at.has_controller_registration() => continue,
            _ => 0,
        };
        let example = MetadataRecord::example(key, version, &mut || draw.next());
        return narrowed(example.expect("it is declared"), image, draw);
    }
}

/// The record, of something that is there, or may well be.
fn narrowed(mut record: MetadataRecord, image: &Image, draw: &mut Draw) -> MetadataRecord {
    use MetadataRecord as R;
    let at = image.metadata_version();
    let broker = draw.below(4) as i32;
    let epoch = image.brokers.get(&NodeId(broker)).map_or(0, |broker| broker.broker_epoch);
    let topic = draw.topic();
    let count = image.topics.with_id(topic).map_or(0, |topic| topic.partition_count()) as i32;
    let index = draw.below(count.max(1) as u64) as i32;
    let mut directories = |replicas: usize| {
        let told = if at.has_directories() { replicas } else { 0 };
        (0..told).map(|_| Uuid(draw.next().into())).collect()
    };
    match &mut record {
        R::RegisterBrokerRecord(r) => r.broker_id = broker,
        R::UnregisterBrokerRecord(r) => (r.broker_id, r.broker_epoch) = (broker, epoch),
        R::FenceBrokerRecord(r) => (r.id, r.epoch) = (broker, epoch),
        R::UnfenceBrokerRecord(r) => (r.id, r.epoch) = (broker, epoch),
        R::BrokerRegistrationChangeRecord(r) => {
            (r.broker_id, r.broker_epoch) = (broker, epoch);
            r.fenced = r.fenced.signum();
            r.in_controlled_shutdown &= 1;
        }
        R::RegisterControllerRecord(r) => r.controller_id = broker,
        R::TopicRecord(r) => (r.topic_id, r.name) = (topic, draw.name()),
        R::RemoveTopicRecord(r) => r.topic_id = topic,
        R::ClearElrRecord(r) => r.topic_name = draw.name(),
        R::PartitionRecord(r) => {
            (r.topic_id, r.partition_id) = (topic, count);
            r.directories = directories(r.replicas.len());
            r.leader_recovery_state &= 1;
            (r.leader_epoch, r.partition_epoch) = (broker, 0);
        }
        R::PartitionChangeRecord(r) => {
            (r.topic_id, r.partition_id) = (topic, index);
            let held = image.topics.partition(PartitionId { topic, index });
            let replicas = r.replicas.as_ref().map(Vec::len);
            let replicas = replicas.or(held.map(|partition| partition.replicas.len())).unwrap_or(0);
            r.directories = at.has_directories().then(|| directories(replicas));
            r.leader_recovery_state = (r.leader_recovery_state & 3).min(2) - 1;
        }
        R::ConfigRecord(r) => {
            r.resource_type = [2, 4, 16, 32][draw.below(4) as usize];
            (r.resource_name, r.name) = (draw.name(), draw.name());
        }
        R::FeatureLevelRecord(r) => (r.name, r.feature_level) = (draw.name(), r.feature_level & 3),
        R::ClientQuotaRecord(r) => {
            r.entity.truncate(1);
            r.entity.iter_mut().for_each(|part| part.entity_type = draw.name());
            (r.key, r.value) = (draw.name(), broker.into());
        }
        R::ProducerIdsRecord(r) => r.next_producer_id = image.next_producer_id + 1,
        R::AccessControlEntryRecord(r) => r.id = topic,
        R::RemoveAccessControlEntryRecord(r) => r.id = topic,
        R::UserScramCredentialRecord(r) => {
            (r.mechanism, r.name) = (1 + (r.mechanism & 1), draw.name());
        }
        R::RemoveUserScramCredentialRecord(r) => {
            (r.mechanism, r.name) = (1 + (r.mechanism & 1), draw.name());
        }
        R::DelegationTokenRecord(r) => r.token_id = draw.name(),
        R::RemoveDelegationTokenRecord(r) => r.token_id = draw.name(),
        _ => {} // Of nothing that is in the image.
    }
    record
}
