//! A cluster to decide on.

use flowstone_config::Config;
use flowstone_controller::{Decision, Random};
use flowstone_metadata::records::{FeatureLevelRecord, RegisterBrokerRecord};
use flowstone_metadata::{Delta, Image, MetadataRecord, features};
use flowstone_types::{NodeId, Uuid};

/// The node's own configuration: the defaults.
pub fn config() -> Config {
    Config::dev("data", 9092, &[]).unwrap().config
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
