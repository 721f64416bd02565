//! The cluster as the metadata log tells it: immutable to those who read it, cheap to copy.
//!
//! Separate because everything reads it: the controller decides on it, shards serve from it, snapshots
//! are it. Invariant: equal records in equal order make equal images, on whatever node.

use crate::features::{METADATA_VERSION, MetadataVersion};
use crate::records::{
    AccessControlEntryRecord, DelegationTokenRecord, RegisterBrokerRecord,
    RegisterControllerRecord, UserScramCredentialRecord,
};
use crate::topics::Topics;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use flowstone_types::{NodeId, Uuid};
use imbl::OrdMap;

/// The cluster at one offset of the metadata log. A clone costs a dozen reference counts; what two
/// images have in common they share.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Image {
    /// Finalized feature levels above 0, metadata.version among them.
    pub features: OrdMap<String, i16>,
    /// Registered brokers: the record that registered each, with the changes since.
    pub brokers: OrdMap<NodeId, Arc<RegisterBrokerRecord>>,
    /// Registered controllers.
    pub controllers: OrdMap<NodeId, Arc<RegisterControllerRecord>>,
    /// Topics and their partitions.
    pub topics: Topics,
    /// Configs that were set, by resource; none is empty.
    pub configs: OrdMap<ConfigResource, Arc<BTreeMap<String, String>>>,
    /// Client quotas, by entity; none is empty.
    pub client_quotas: OrdMap<QuotaEntity, Arc<BTreeMap<String, f64>>>,
    /// The first producer id that was not handed out yet.
    pub next_producer_id: i64,
    /// ACLs, by id.
    pub acls: OrdMap<Uuid, Arc<AccessControlEntryRecord>>,
    /// SCRAM credentials, by mechanism and user.
    pub scram: OrdMap<(i8, String), Arc<UserScramCredentialRecord>>,
    /// Delegation tokens, by id.
    pub delegation_tokens: OrdMap<String, Arc<DelegationTokenRecord>>,
}

/// Whose quota: pairs of entity type and name (`None`: the default), by type.
pub type QuotaEntity = Vec<(String, Option<String>)>;

impl Image {
    /// The metadata.version; the lowest one until the log tells.
    pub fn metadata_version(&self) -> MetadataVersion {
        self.features
            .get(METADATA_VERSION)
            .map_or(MetadataVersion::MIN, |level| MetadataVersion(*level))
    }

    /// A feature's finalized level; 0 where it has none.
    pub fn feature(&self, name: &str) -> i16 {
        self.features.get(name).copied().unwrap_or(0)
    }

    /// The value of a resource's config, if it was set.
    pub fn config(&self, resource: &ConfigResource, key: &str) -> Option<&str> {
        self.configs.get(resource)?.get(key).map(String::as_str)
    }

    /// Whether the broker may lead: registered, not fenced, not on its way out.
    pub fn is_active(&self, broker: NodeId) -> bool {
        self.brokers.get(&broker).is_some_and(|b| !b.fenced && !b.in_controlled_shutdown)
    }
}

/// What kind of thing has configs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResourceKind {
    /// A topic.
    Topic,
    /// A broker; with an empty name, the default of all.
    Broker,
    /// A subscription to client metrics.
    ClientMetrics,
    /// A group.
    Group,
}

impl ResourceKind {
    /// Kafka's number.
    pub const fn number(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }

    /// The kind with Kafka's number. Loggers (8) have none here: their levels are not persisted.
    pub const fn from_number(number: i8) -> Option<Self> {
        match number {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }
}

/// Something that has configs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConfigResource {
    /// What kind.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
}

impl ConfigResource {
    /// The topic with this name.
    pub fn topic(name: &str) -> Self {
        Self { kind: ResourceKind::Topic, name: name.to_string() }
    }

    /// The broker with this id.
    pub fn broker(id: NodeId) -> Self {
        Self { kind: ResourceKind::Broker, name: id.to_string() }
    }

    /// The default of all brokers.
    pub const fn all_brokers() -> Self {
        Self { kind: ResourceKind::Broker, name: String::new() }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ResourceKind::Topic => "TOPIC",
            ResourceKind::Broker => "BROKER",
            ResourceKind::ClientMetrics => "CLIENT_METRICS",
            ResourceKind::Group => "GROUP",
        };
        write!(f, "ConfigResource(type={kind}, name='{}')", self.name)
    }
}
