//! The features whose levels a cluster agrees on, metadata.version among them (reference section 2.4).

use crate::records::{BrokerFeature, FeatureLevelRecord};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The feature that says which records may be in the log.
pub const METADATA_VERSION: &str = "metadata.version";
/// The feature of the metadata quorum itself: its level is in control records, not in the image.
pub const KRAFT_VERSION: &str = "kraft.version";
/// The feature of eligible leader replicas (KIP-966).
pub const ELR_VERSION: &str = "eligible.leader.replicas.version";

/// Level of `metadata.version`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MetadataVersion(pub i16);

/// Every level: name, and whether its records differ from those of the level before.
const VERSIONS: &[(i16, &str, bool)] = &[
    (7, "3.3-IV3", true),
    (8, "3.4-IV0", true),
    (9, "3.5-IV0", false),
    (10, "3.5-IV1", false),
    (11, "3.5-IV2", true),
    (12, "3.6-IV0", false),
    (13, "3.6-IV1", true),
    (14, "3.6-IV2", true),
    (15, "3.7-IV0", true),
    (16, "3.7-IV1", false),
    (17, "3.7-IV2", true),
    (18, "3.7-IV3", false),
    (19, "3.7-IV4", false),
    (20, "3.8-IV0", false),
    (21, "3.9-IV0", false),
    (22, "4.0-IV0", false),
    (23, "4.0-IV1", true),
    (24, "4.0-IV2", false),
    (25, "4.0-IV3", false),
    (26, "4.1-IV0", false),
    (27, "4.1-IV1", false),
    (28, "4.2-IV0", false),
    (29, "4.2-IV1", false),
    (30, "4.3-IV0", true),
];

impl MetadataVersion {
    /// Lowest level that Kafka 4.x lives with.
    pub const MIN: Self = Self(7);
    /// Level of a cluster that is formatted today.
    pub const LATEST: Self = Self(30);
    const V3_4_IV0: Self = Self(8);
    const V3_5_IV2: Self = Self(11);
    const V3_6_IV1: Self = Self(13);
    const V3_6_IV2: Self = Self(14);
    const V3_7_IV0: Self = Self(15);
    const V3_7_IV2: Self = Self(17);
    const V4_0_IV0: Self = Self(22);
    const V4_0_IV1: Self = Self(23);
    const V4_0_IV2: Self = Self(24);
    const V4_1_IV0: Self = Self(26);
    const V4_2_IV0: Self = Self(28);
    const V4_2_IV1: Self = Self(29);
    const V4_3_IV0: Self = Self(30);

    /// The level of a name such as `4.3-IV0`; of a release such as `4.3`, its newest.
    pub fn from_name(name: &str) -> Option<Self> {
        let release = |full: &str| full.split_once('-').is_some_and(|(release, _)| release == name);
        let found = VERSIONS.iter().rev().find(|(_, full, _)| *full == name || release(full));
        found.map(|(level, _, _)| Self(*level))
    }

    /// Whether this release knows the level.
    pub fn is_known(self) -> bool {
        (Self::MIN..=Self::LATEST).contains(&self)
    }

    /// Whether going from the level before to this one changed the records' formats.
    pub fn changes_records(self) -> bool {
        VERSIONS.iter().any(|(level, _, changes)| *level == self.0 && *changes)
    }

    /// Whether any level from the lower one (without it) to the higher one changed the records' formats.
    pub fn records_differ(self, other: Self) -> bool {
        let (low, high) = (self.min(other), self.max(other));
        (low.0 + 1..=high.0).any(|level| Self(level).changes_records())
    }

    /// Whether brokers could tell that they were on their way from ZooKeeper.
    pub fn has_zk_migration(self) -> bool {
        self >= Self::V3_4_IV0
    }

    /// Whether partitions have eligible leader replicas (KIP-966), be the feature on or off.
    pub fn has_eligible_replicas(self) -> bool {
        self >= Self::V4_0_IV1
    }

    /// Whether replicas have directories (KIP-858).
    pub fn has_directories(self) -> bool {
        self >= Self::V3_7_IV2
    }

    /// Whether controllers register themselves.
    pub fn has_controller_registration(self) -> bool {
        self >= Self::V3_7_IV0
    }

    /// Whether SCRAM credentials are in the log (KIP-900).
    pub fn has_scram(self) -> bool {
        self >= Self::V3_5_IV2
    }

    /// Whether delegation tokens are in the log (KAFKA-15219).
    pub fn has_delegation_tokens(self) -> bool {
        self >= Self::V3_6_IV2
    }

    /// Whether records may come in transactions (KIP-868).
    pub fn has_transactions(self) -> bool {
        self >= Self::V3_6_IV1
    }

    /// Whether log directories can be cordoned (KIP-1066).
    pub fn has_cordoned_directories(self) -> bool {
        self >= Self::V4_3_IV0
    }

    pub(crate) fn register_broker_version(self) -> i16 {
        match self {
            _ if self.has_cordoned_directories() => 4,
            _ if self.has_directories() => 3,
            _ if self.has_zk_migration() => 2,
            _ => 1,
        }
    }

    pub(crate) fn partition_version(self) -> i16 {
        match self {
            _ if self.has_eligible_replicas() => 2,
            _ if self.has_directories() => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match VERSIONS.iter().find(|(level, _, _)| *level == self.0) {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "unknown metadata.version {}", self.0),
        }
    }
}

/// A feature and its levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Kafka's name.
    pub name: &'static str,
    /// Lowest level that we can live with.
    pub min: i16,
    /// Highest level that we can live with.
    pub max: i16,
    /// The level that a new cluster gets, and from which metadata.version on.
    default: (i16, MetadataVersion),
}

impl Feature {
    /// The level in a cluster that is formatted at `version`.
    pub fn default_at(&self, version: MetadataVersion) -> i16 {
        if version >= self.default.1 { self.default.0 } else { 0 }
    }

    /// The metadata.version that this level needs: only [`ELR_VERSION`] writes records of its own.
    pub fn needs_at(&self, level: i16) -> MetadataVersion {
        let has_records = self.name == ELR_VERSION && level > 0;
        if has_records { MetadataVersion::V4_0_IV1 } else { MetadataVersion::MIN }
    }
}

const fn feature(name: &'static str, max: i16, since: MetadataVersion) -> Feature {
    Feature { name, min: 0, max, default: (max, since) }
}

/// The features beside metadata.version and kraft.version, by name.
pub const FEATURES: &[Feature] = &[
    feature(ELR_VERSION, 1, MetadataVersion::V4_1_IV0),
    feature("group.version", 1, MetadataVersion::V4_0_IV0),
    feature("share.version", 1, MetadataVersion::V4_2_IV0),
    feature("streams.version", 1, MetadataVersion::V4_2_IV1),
    feature("transaction.version", 2, MetadataVersion::V4_0_IV2),
];

/// All ranges that a node of ours registers with and tells in ApiVersions, by name. A finalized
/// feature that is not listed counts as 0..0 and keeps the node out (reference section 2.4).
pub fn supported() -> Vec<BrokerFeature> {
    let range = |name: &str, min, max| BrokerFeature {
        name: name.to_string(),
        min_supported_version: min,
        max_supported_version: max,
        ..BrokerFeature::default()
    };
    let mut all: Vec<_> = FEATURES.iter().map(|f| range(f.name, f.min, f.max)).collect();
    all.push(range(KRAFT_VERSION, 0, 1));
    all.push(range(METADATA_VERSION, MetadataVersion::MIN.0, MetadataVersion::LATEST.0));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The records that `format` leaves for the first controller: metadata.version first, then what
/// is above level 0, by name. `chosen` overrides the defaults of `version`.
pub fn bootstrap_records(
    version: MetadataVersion,
    chosen: &[(String, i16)],
) -> Result<Vec<FeatureLevelRecord>, FeatureError> {
    let level = |name: &str, feature_level| FeatureLevelRecord {
        name: name.to_string(),
        feature_level,
        ..FeatureLevelRecord::default()
    };
    if !version.is_known() {
        return Err(FeatureError::OutOfRange {
            name: METADATA_VERSION.to_string(),
            level: version.0,
        });
    }
    for (name, level) in chosen {
        let known = FEATURES.iter().find(|feature| feature.name == name);
        let feature = known.ok_or_else(|| FeatureError::Unknown { name: name.clone() })?;
        if !(feature.min..=feature.max).contains(level) {
            return Err(FeatureError::OutOfRange { name: name.clone(), level: *level });
        }
    }
    let mut records = alloc::vec![level(METADATA_VERSION, version.0)];
    for feature in FEATURES {
        let chosen = chosen.iter().rev().find(|(name, _)| name == feature.name);
        match chosen.map_or(feature.default_at(version), |(_, level)| *level) {
            0 => {}
            above => records.push(level(feature.name, above)),
        }
    }
    Ok(records)
}

/// A feature that cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FeatureError {
    /// No such feature.
    #[error("unknown feature {name}")]
    Unknown {
        /// The name given.
        name: String,
    },
    /// No such level of it.
    #[error("feature {name} has no level {level} in this release")]
    OutOfRange {
        /// The feature.
        name: String,
        /// The level asked for.
        level: i16,
    },
}
