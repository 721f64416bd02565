//! The first records of a cluster, and a broker's way in: registration, then leaderships.

use crate::Decision;
use crate::error::{ApiError, ErrorKind};
use crate::transactions::in_transaction;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use flowstone_metadata::features::{self, ELR_VERSION, METADATA_VERSION, MetadataVersion};
use flowstone_metadata::records::{
    AbortTransactionRecord, BrokerEndpoint, BrokerFeature, BrokerRegistrationChangeRecord,
    ConfigRecord, PartitionChangeRecord, RegisterBrokerRecord, RegisterControllerRecord,
};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord, Partition, ResourceKind, raw};
use flowstone_types::{NodeId, PartitionId, Uuid};

/// What a new active controller writes first.
///
/// A dangling transaction is aborted. On an empty log, the records that `format` left (`bootstrap`, from
/// `bootstrap.checkpoint`; the defaults where there is none) become the cluster's features, and where
/// eligible leader replicas are on, `min.insync.replicas` is written down for the cluster (KIP-966).
pub fn activate(
    image: &Image,
    in_transaction: bool,
    bootstrap: Vec<MetadataRecord>,
    min_insync_replicas: i32,
) -> Decision<()> {
    let mut records = Vec::new();
    if in_transaction {
        let reason = Some("A new controller became active.".to_string());
        records.push(AbortTransactionRecord { reason, ..AbortTransactionRecord::default() }.into());
    }
    if image.features.contains_key(METADATA_VERSION) {
        return Decision::atomic(records, ());
    }
    let first = first_records(bootstrap, min_insync_replicas);
    records.extend(first.records);
    Decision { records, atomic: first.atomic, response: () }
}

fn first_records(mut bootstrap: Vec<MetadataRecord>, min_insync_replicas: i32) -> Decision<()> {
    if bootstrap.is_empty() {
        let levels = features::bootstrap_records(MetadataVersion::LATEST, &[]);
        let levels = levels.expect("the latest version is known");
        bootstrap = levels.into_iter().map(Into::into).collect();
    }
    let level = |wanted: &str| {
        bootstrap.iter().rev().find_map(|record| match record {
            MetadataRecord::FeatureLevelRecord(level) if level.name == wanted => {
                Some(level.feature_level)
            }
            _ => None,
        })
    };
    let version = level(METADATA_VERSION).map_or(MetadataVersion::MIN, MetadataVersion);
    let elr = level(ELR_VERSION).unwrap_or(0) > 0;
    if elr {
        let config = ConfigRecord {
            resource_type: ResourceKind::Broker.number(),
            resource_name: ConfigResource::all_brokers().name,
            name: "min.insync.replicas".to_string(),
            value: Some(min_insync_replicas.to_string()),
            ..ConfigRecord::default()
        };
        bootstrap.push(config.into());
    }
    in_transaction(version, "Bootstrap records", bootstrap, ())
}

/// A controller that makes itself known.
#[derive(Clone, PartialEq, Debug)]
pub struct ControllerRegistration {
    /// Its node id.
    pub id: NodeId,
    /// Drawn by the process at its start.
    pub incarnation: Uuid,
    /// Where it listens.
    pub end_points: Vec<BrokerEndpoint>,
}

/// Notes a controller, which it asks for once at each start.
pub fn register_controller(image: &Image, controller: ControllerRegistration) -> Decision<()> {
    let known = image.controllers.get(&controller.id);
    let again = known.is_some_and(|known| known.incarnation_id == controller.incarnation);
    if again || !image.metadata_version().has_controller_registration() {
        return Decision::atomic(Vec::new(), ());
    }
    let record = RegisterControllerRecord {
        controller_id: controller.id.0,
        incarnation_id: controller.incarnation,
        end_points: controller.end_points,
        features: features::supported(),
        ..RegisterControllerRecord::default()
    };
    Decision::atomic(vec![record.into()], ())
}

/// A broker that comes (again).
#[derive(Clone, PartialEq, Debug)]
pub struct BrokerRegistration {
    /// Its node id.
    pub id: NodeId,
    /// Drawn by the process at its start.
    pub incarnation: Uuid,
    /// Where it listens.
    pub end_points: Vec<BrokerEndpoint>,
    /// Feature levels that it can live with.
    pub features: Vec<BrokerFeature>,
    /// Its rack.
    pub rack: Option<String>,
    /// The ids of its log directories.
    pub log_dirs: Vec<Uuid>,
}

/// Registers a broker; `next_offset` is where the metadata log ends, and becomes its epoch. It starts
/// fenced: [`unfence_broker`] follows once it has read the log up to here.
pub fn register_broker(
    image: &Image,
    broker: BrokerRegistration,
    next_offset: i64,
) -> Result<Decision<i64>, ApiError> {
    check_features(image, &broker)?;
    check_directories(image, &broker)?;
    let version = image.metadata_version();
    let again = image.brokers.get(&broker.id).filter(|b| b.incarnation_id == broker.incarnation);
    let mut record = RegisterBrokerRecord {
        broker_id: broker.id.0,
        incarnation_id: broker.incarnation,
        broker_epoch: next_offset,
        end_points: broker.end_points,
        features: broker.features,
        rack: broker.rack,
        log_dirs: if version.has_directories() { broker.log_dirs } else { Vec::new() },
        ..RegisterBrokerRecord::default()
    };
    if let Some(known) = again {
        // The same process says more of itself: it goes on as what it is (reference section 2.2).
        record.broker_epoch = known.broker_epoch;
        record.fenced = known.fenced;
        record.in_controlled_shutdown = known.in_controlled_shutdown;
        record.cordoned_log_dirs.clone_from(&known.cordoned_log_dirs);
    }
    let epoch = record.broker_epoch;
    Ok(Decision::atomic(vec![record.into()], epoch))
}

/// Reference section 2.4: a finalized feature that the broker does not list counts as 0..0.
fn check_features(image: &Image, broker: &BrokerRegistration) -> Result<(), ApiError> {
    let range = |name: &str| {
        let listed = broker.features.iter().find(|feature| feature.name == name);
        listed.map(|feature| (feature.min_supported_version, feature.max_supported_version))
    };
    if range(METADATA_VERSION).is_none() {
        let message = format!("Broker {} lists no levels of metadata.version.", broker.id);
        return Err(ApiError::new(ErrorKind::InvalidRegistration, message));
    }
    for (name, level) in &image.features {
        let (min, max) = range(name).unwrap_or((0, 0));
        if !(min..=max).contains(level) {
            let message = format!(
                "Unable to register because the broker does not support finalized version {level} of {name}. \
                 The broker wants a version between {min} and {max}, inclusive."
            );
            return Err(ApiError::new(ErrorKind::UnsupportedVersion, message));
        }
    }
    Ok(())
}

/// Ids below this are Kafka's own (KIP-858).
const RESERVED_IDS: u128 = 100;

fn check_directories(image: &Image, broker: &BrokerRegistration) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::new(ErrorKind::InvalidRegistration, message));
    if !image.metadata_version().has_directories() {
        return Ok(());
    }
    if broker.log_dirs.is_empty() {
        return refuse("No directories specified in request".into());
    }
    for (index, directory) in broker.log_dirs.iter().enumerate() {
        if directory.0 < RESERVED_IDS {
            return refuse(format!("Reserved directory ID in request: {directory}"));
        }
        if broker.log_dirs[..index].contains(directory) {
            return refuse(format!("Duplicate directory ID in request: {directory}"));
        }
        let holds = |other: &RegisterBrokerRecord| other.log_dirs.contains(directory);
        let others = image.brokers.iter().filter(|(id, _)| **id != broker.id);
        if let Some((id, _)) = others.into_iter().find(|(_, other)| holds(other)) {
            return refuse(format!("Broker {id} is already registered with directory {directory}"));
        }
    }
    Ok(())
}

/// Lets a registered broker lead, and gives it what it can lead; returns how many partitions.
///
/// Not atomic where the broker has many partitions: each takes effect alone.
pub fn unfence_broker(image: &Image, id: NodeId, epoch: i64) -> Result<Decision<usize>, ApiError> {
    crate::ids::check_epoch(image, id, epoch)?;
    let unfence = BrokerRegistrationChangeRecord {
        broker_id: id.0,
        broker_epoch: epoch,
        fenced: -1,
        ..BrokerRegistrationChangeRecord::default()
    };
    let mut records = vec![unfence.into()];
    for topic in image.topics.iter() {
        for (index, partition) in topic.partitions() {
            let partition_id = PartitionId { topic: topic.id, index };
            let change = leadership(image, partition_id, partition, id);
            records.extend(change.map(MetadataRecord::from));
        }
    }
    let led = records.len() - 1;
    Ok(Decision { records, atomic: false, response: led })
}

/// What changes in a partition when `broker` comes back, if it is to lead it: it led it before (and
/// does so in a new epoch, since it may have lost what nobody was promised), or nobody does and it is
/// in the ISR, or eligible while that is empty, or the last known leader while both are (KIP-966).
fn leadership(
    image: &Image,
    id: PartitionId,
    partition: &Partition,
    broker: NodeId,
) -> Option<PartitionChangeRecord> {
    let others_lead = partition.leader != broker && image.is_active(partition.leader);
    if others_lead || !partition.replicas.contains(&broker) {
        return None;
    }
    let in_sync = partition.isr.contains(&broker);
    let isr_ran_out = partition.isr.is_empty();
    let eligible = isr_ran_out && partition.eligible.contains(&broker);
    let last_known =
        isr_ran_out && partition.eligible.is_empty() && *partition.last_known == [broker];
    if !in_sync && !eligible && !last_known {
        return None;
    }
    let mut change = PartitionChangeRecord {
        partition_id: id.index,
        topic_id: id.topic,
        leader: broker.0,
        ..PartitionChangeRecord::default()
    };
    if !in_sync {
        change.isr = Some(vec![broker.0]);
    }
    if eligible {
        let left: Vec<_> = partition.eligible.iter().copied().filter(|n| *n != broker).collect();
        change.eligible_leader_replicas = Some(raw(&left));
    }
    if !partition.last_known.is_empty() {
        change.last_known_elr = Some(vec![]);
    }
    let alone = *partition.replicas == [broker];
    if last_known && !alone {
        change.leader_recovery_state = 1; // It may lack what was committed: unclean.
    } else if partition.recovering && alone {
        change.leader_recovery_state = 0; // There is nobody left to recover from.
    }
    Some(change)
}
