//! A cluster to decide on, and the least that config rules can be.

use flowstone_controller::{ConfigRules, Decision, Random};
use flowstone_metadata::records::{FeatureLevelRecord, RegisterBrokerRecord};
use flowstone_metadata::{ConfigResource, Delta, Image, MetadataRecord, ResourceKind, features};
use flowstone_types::{NodeId, Uuid};
use std::collections::BTreeMap;

/// Knows `cleanup.policy` (a list) and any key that starts with `good`.
pub struct Rules;

impl ConfigRules for Rules {
    fn check(&self, _: &ConfigResource, configs: &BTreeMap<String, String>) -> Result<(), String> {
        let known = |key: &String| {
            key.starts_with("good")
                || key.ends_with("cleanup.policy")
                || key == "min.insync.replicas"
        };
        match configs.keys().find(|key| !known(key)) {
            Some(key) => Err(format!("Unknown topic config name: {key}")),
            None => Ok(()),
        }
    }

    fn is_list(&self, _: ResourceKind, key: &str) -> bool {
        key.ends_with("cleanup.policy") || key == "good.list"
    }

    fn default_of(&self, _: ResourceKind, key: &str) -> Option<String> {
        key.ends_with("cleanup.policy").then(|| "delete".into())
    }
}

pub fn apply(image: &mut Image, records: impl IntoIterator<Item = MetadataRecord>) {
    let mut delta = Delta::default();
    for record in records {
        image.apply(record, &mut delta).unwrap();
    }
}

/// An image after what was decided.
pub fn after<R>(image: &Image, decision: &Decision<R>) -> Image {
    let mut image = image.clone();
    apply(&mut image, decision.records.clone());
    image
}

pub fn broker(id: i32, fenced: bool) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: id,
        broker_epoch: 10 + i64::from(id),
        fenced,
        features: features::supported(),
        log_dirs: vec![Uuid(1000 + id as u128)],
        ..Default::default()
    }
    .into()
}

/// A formatted cluster with unfenced brokers.
pub fn cluster(brokers: &[i32]) -> Image {
    let mut image = Image::default();
    let levels =
        features::bootstrap_records(flowstone_metadata::MetadataVersion::LATEST, &[]).unwrap();
    apply(&mut image, levels.into_iter().map(FeatureLevelRecord::into));
    apply(&mut image, brokers.iter().map(|id| broker(*id, false)));
    image
}

/// Decides with numbers that count up.
pub fn with_random<R>(decide: impl FnOnce(&mut Random<'_>) -> R) -> R {
    let mut count = 0;
    decide(&mut Random(&mut || {
        count += 1;
        count
    }))
}

pub fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}
