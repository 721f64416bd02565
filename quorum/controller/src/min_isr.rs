//! `min.insync.replicas` where eligible leader replicas are on (KIP-966).
//!
//! Separate because configs, features and elections all rest on it: who was eligible under another value
//! may lack what was committed since. Invariant: while the feature is on, the cluster has the one value
//! that the controller knows, no broker has its own, and no change of it leaves an eligible replica.

use crate::error::{ApiError, ErrorKind};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use flowstone_metadata::features::ELR_VERSION;
use flowstone_metadata::records::{ClearElrRecord, ConfigRecord};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord, ResourceKind};

const MIN_ISR: &str = "min.insync.replicas";

/// Whether a config may change so, as far as eligible leader replicas go.
pub(crate) fn check_min_isr(
    image: &Image,
    resource: &ConfigResource,
    key: &str,
    value: Option<&str>,
) -> Result<(), ApiError> {
    if key != MIN_ISR || resource.kind != ResourceKind::Broker || image.feature(ELR_VERSION) == 0 {
        return Ok(());
    }
    let refuse = |message: &str| Err(ApiError::new(ErrorKind::InvalidConfig, message));
    match value {
        _ if !resource.name.is_empty() => {
            refuse("Broker-level min.insync.replicas cannot be altered while ELR is enabled.")
        }
        None => refuse("Cluster-level min.insync.replicas cannot be removed while ELR is enabled."),
        Some(_) => Ok(()),
    }
}

/// The records that follow config changes among `records`: eligible replicas are forgotten wherever
/// `min.insync.replicas` is written.
pub fn clear_elr_for_config_change(
    image: &Image,
    records: &[MetadataRecord],
) -> Vec<MetadataRecord> {
    if image.feature(ELR_VERSION) == 0 {
        return Vec::new();
    }
    let clear = |topic_name| ClearElrRecord { topic_name, ..ClearElrRecord::default() }.into();
    let mut topics = BTreeSet::new();
    for record in records {
        if let MetadataRecord::ConfigRecord(record) = record
            && record.name == MIN_ISR
        {
            match ResourceKind::from_number(record.resource_type) {
                Some(ResourceKind::Topic) => {
                    topics.insert(record.resource_name.clone());
                }
                Some(ResourceKind::Broker) => return vec![clear(String::new())], // Every topic's.
                Some(ResourceKind::Group | ResourceKind::ClientMetrics) | None => {}
            }
        }
    }
    topics.into_iter().map(clear).collect()
}

/// The records that turning eligible leader replicas on takes before: the cluster gets the value that
/// the controller's own configuration says, unless it has one, and brokers lose theirs.
pub(crate) fn before_elr(image: &Image, min_insync_replicas: i32) -> Vec<MetadataRecord> {
    let write = |resource: &ConfigResource, value| {
        let record = ConfigRecord {
            resource_type: resource.kind.number(),
            resource_name: resource.name.clone(),
            name: MIN_ISR.to_string(),
            value,
            ..ConfigRecord::default()
        };
        record.into()
    };
    let cluster = ConfigResource::all_brokers();
    let missing = image.config(&cluster, MIN_ISR).is_none();
    let of_cluster = missing.then(|| write(&cluster, Some(min_insync_replicas.to_string())));
    let own = |resource: &&ConfigResource| {
        let of_broker = resource.kind == ResourceKind::Broker && !resource.name.is_empty();
        of_broker && image.config(resource, MIN_ISR).is_some()
    };
    let of_brokers = image.configs.keys().filter(own).map(|resource| write(resource, None));
    of_cluster.into_iter().chain(of_brokers).collect()
}
