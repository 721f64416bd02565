//! Raising and lowering the levels that the cluster agrees on (UpdateFeatures, KIP-584, KIP-778).
//!
//! All features of a request change, or none. Invariant: no level is decided that a registered broker
//! or controller, or a voter that never registered, could not live with.

use crate::error::{ApiError, ErrorKind};
use crate::min_isr::before_elr;
use crate::{Decision, repeated};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use flowstone_metadata::Image;
use flowstone_metadata::features::{
    self, ELR_VERSION, FEATURES, KRAFT_VERSION, METADATA_VERSION, MetadataVersion,
};
use flowstone_metadata::records::{BrokerFeature, FeatureLevelRecord, NoOpRecord};
use flowstone_types::NodeId;

/// Which way a level may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UpgradeType {
    /// Up.
    Upgrade,
    /// Down, where nothing is lost.
    SafeDowngrade,
    /// Down, whatever is lost.
    UnsafeDowngrade,
}

impl UpgradeType {
    /// From the fields of a request: version 0 has only `allow_downgrade`. `None` for an unknown number.
    pub const fn told(version: i16, upgrade_type: i8, allow_downgrade: bool) -> Option<Self> {
        match (version, upgrade_type) {
            (0, _) if allow_downgrade => Some(Self::SafeDowngrade),
            (0, _) | (_, 1) => Some(Self::Upgrade),
            (_, 2) => Some(Self::SafeDowngrade),
            (_, 3) => Some(Self::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// A feature to bring to another level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureUpdate {
    /// Its name.
    pub feature: String,
    /// The level; 0 takes it away.
    pub level: i16,
    /// Which way it may go; `None` for a way that is not known.
    pub upgrade: Option<UpgradeType>,
}

/// What the metadata quorum, whose level is not in the image, says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quorum {
    /// This controller.
    pub me: NodeId,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// Its `kraft.version`.
    pub kraft_version: i16,
    /// Why it could not go to `kraft.version` 1 now, if so: every voter must have said that it can, and
    /// under which directory id it is known (UpdateRaftVoter, KIP-853).
    pub not_ready: Option<String>,
}

/// Brings features to other levels (UpdateFeatures). `min_insync_replicas` is what this controller's own
/// configuration says. The response is the `kraft.version` that the quorum is to write in control
/// records before this decision's own, if that changes.
///
/// An error is of the whole request. Where there is none, versions up to 1 list each feature with NONE,
/// and version 2 lists nothing.
pub fn update_features(
    image: &Image,
    updates: &[FeatureUpdate],
    quorum: &Quorum,
    min_insync_replicas: i32,
    validate_only: bool,
) -> Result<Decision<Option<i16>>, ApiError> {
    if let Some(name) = repeated(updates.iter().map(|update| &update.feature)).first() {
        let message = format!("Feature {name} is updated twice.");
        return Err(ApiError::new(ErrorKind::InvalidRequest, message));
    }
    for update in updates {
        check(image, update, quorum)?;
    }
    check_needs(image, updates)?;
    let turns_elr_on = |update: &FeatureUpdate| update.feature == ELR_VERSION && update.level > 0;
    let mut records = Vec::new();
    if updates.iter().any(turns_elr_on) {
        records = before_elr(image, min_insync_replicas);
    }
    let mut kraft_version = None;
    for FeatureUpdate { feature, level, .. } in updates {
        if feature != KRAFT_VERSION {
            let (name, feature_level) = (feature.clone(), *level);
            let record = FeatureLevelRecord { name, feature_level, ..Default::default() };
            records.push(record.into());
        } else if *level != quorum.kraft_version {
            kraft_version = Some(*level);
            records.push(NoOpRecord::default().into()); // Its commit is that of the control records.
        }
    }
    if validate_only {
        return Ok(Decision::atomic(Vec::new(), None));
    }
    Ok(Decision::atomic(records, kraft_version))
}

fn refuse<T>(what: impl fmt::Display) -> Result<T, ApiError> {
    let message = format!(
        "The update failed for all features since the following feature had an error: {what}"
    );
    Err(ApiError::new(ErrorKind::InvalidUpdateVersion, message))
}

/// Whether one feature may go to its level, whatever becomes of the others.
fn check(image: &Image, update: &FeatureUpdate, quorum: &Quorum) -> Result<(), ApiError> {
    let FeatureUpdate { feature, level, upgrade } = update;
    let invalid = |why: &str| {
        refuse(format_args!("Invalid update version {level} for feature {feature}. {why}"))
    };
    let Some(upgrade) = *upgrade else {
        return invalid("The controller does not support the given upgrade type.");
    };
    let now = match feature.as_str() {
        METADATA_VERSION => image.metadata_version().0,
        KRAFT_VERSION => quorum.kraft_version,
        other => image.feature(other),
    };
    if *level < 0 {
        return invalid("A feature version cannot be less than 0.");
    }
    if let Some(why) = why_not_supported(image, feature, *level, quorum) {
        return invalid(&why);
    }
    match upgrade {
        UpgradeType::Upgrade if *level < now => {
            return invalid(
                "Can't downgrade the version of this feature without setting the upgrade type to \
                 either safe or unsafe downgrade.",
            );
        }
        UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade if *level > now => {
            return invalid("Can't downgrade to a newer version.");
        }
        _ => {}
    }
    match feature.as_str() {
        METADATA_VERSION => {
            check_metadata_version(image.metadata_version(), MetadataVersion(*level), upgrade)
        }
        KRAFT_VERSION if *level < now => invalid("Can't downgrade the version of this feature."),
        KRAFT_VERSION => match &quorum.not_ready {
            Some(why) if *level > now => invalid(why),
            _ => Ok(()),
        },
        other if !FEATURES.iter().any(|known| known.name == other) => {
            invalid(&format!("Feature {other} not found."))
        }
        _ => Ok(()),
    }
}

/// KIP-778: down only over levels that left the records as they were.
fn check_metadata_version(
    now: MetadataVersion,
    wish: MetadataVersion,
    upgrade: UpgradeType,
) -> Result<(), ApiError> {
    assert!(wish.is_known(), "this controller lives with the level");
    if wish >= now || !wish.records_differ(now) {
        return Ok(());
    }
    let why = match upgrade {
        UpgradeType::UnsafeDowngrade => {
            "Unsafe metadata downgrade is not supported in this version."
        }
        UpgradeType::SafeDowngrade | UpgradeType::Upgrade => {
            "Refusing to perform the requested downgrade because it might delete metadata information."
        }
    };
    let (from, to) = (now.0, wish.0);
    refuse(format_args!("Unsupported metadata.version downgrade from {from} to {to}. {why}"))
}

/// Whether what features need of each other holds once all of them are updated. Those that stay are
/// asked too.
fn check_needs(image: &Image, updates: &[FeatureUpdate]) -> Result<(), ApiError> {
    let mut after: BTreeMap<&str, i16> =
        image.features.iter().map(|(name, level)| (name.as_str(), *level)).collect();
    after.extend(updates.iter().map(|update| (update.feature.as_str(), update.level)));
    let version = after.get(METADATA_VERSION).copied().unwrap_or(MetadataVersion::MIN.0);
    for feature in FEATURES {
        let level = after.get(feature.name).copied().unwrap_or(0);
        let needs = feature.needs_at(level);
        if needs.0 > version {
            let (name, needed) = (feature.name, needs.0);
            return refuse(format_args!(
                "Invalid update version {level} for feature {name}. {name} could not be set to \
                 {level} because it depends on metadata.version level {needed}"
            ));
        }
    }
    Ok(())
}

/// The levels that a node can live with.
#[derive(Clone, Copy)]
struct Range {
    min: i16,
    max: i16,
}

impl Range {
    /// Of a feature that a node does not list: it can only be without.
    const NONE: Self = Self { min: 0, max: 0 };

    fn of(listed: &[BrokerFeature], feature: &str) -> Self {
        let found = listed.iter().find(|known| known.name == feature);
        found.map_or(Self::NONE, |found| Self {
            min: found.min_supported_version,
            max: found.max_supported_version,
        })
    }

    fn why_not(self, level: i16, who: impl fmt::Display) -> Option<String> {
        match self {
            _ if (self.min..=self.max).contains(&level) => None,
            Self { max: 0, .. } => Some(format!("{who} does not support this feature.")),
            Self { min, max } if min == max => Some(format!("{who} only supports versions {min}")),
            Self { min, max } => Some(format!("{who} only supports versions {min}-{max}")),
        }
    }
}

/// Who could not live with the level, and why.
fn why_not_supported(image: &Image, feature: &str, level: i16, quorum: &Quorum) -> Option<String> {
    let me = quorum.me;
    let local = Range::of(&features::supported(), feature);
    local
        .why_not(level, format_args!("Local controller {me}"))
        .or_else(|| {
            image.brokers.iter().find_map(|(id, broker)| {
                Range::of(&broker.features, feature).why_not(level, format_args!("Broker {id}"))
            })
        })
        .or_else(|| {
            // Before controllers registered, nobody could say what they can live with.
            let asked = image.metadata_version().has_controller_registration();
            asked.then(|| why_no_controller(image, feature, level, quorum)).flatten()
        })
}

fn why_no_controller(image: &Image, feature: &str, level: i16, quorum: &Quorum) -> Option<String> {
    let others = image.controllers.iter().filter(|(id, _)| **id != quorum.me);
    let why = others.into_iter().find_map(|(id, controller)| {
        Range::of(&controller.features, feature).why_not(level, format_args!("Controller {id}"))
    });
    why.or_else(|| {
        let known = |id: &NodeId| *id == quorum.me || image.controllers.contains_key(id);
        let unknown = quorum.voters.iter().find(|id| !known(id))?;
        Some(format!("controller {unknown} has not registered, and may not support this feature"))
    })
}
