//! UpdateFeatures: each rule of Kafka's FeatureControlManager once (KIP-584, KIP-778, KIP-853).

use crate::common::{after, apply, cluster};
use flowstone_controller::ErrorKind::*;
use flowstone_controller::{
    ApiError, ConfigChange, ConfigOp, Decision, FeatureUpdate, Quorum, UpgradeType, alter_configs,
    update_features,
};
use flowstone_metadata::features::{self, ELR_VERSION, KRAFT_VERSION, METADATA_VERSION};
use flowstone_metadata::records::{
    ConfigRecord, FeatureLevelRecord, RegisterBrokerRecord, RegisterControllerRecord,
};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord};
use flowstone_types::NodeId;

const ME: NodeId = NodeId(1);
const UP: Option<UpgradeType> = Some(UpgradeType::Upgrade);
const SAFE: Option<UpgradeType> = Some(UpgradeType::SafeDowngrade);
const UNSAFE: Option<UpgradeType> = Some(UpgradeType::UnsafeDowngrade);

fn quorum() -> Quorum {
    Quorum { me: ME, voters: vec![ME], kraft_version: 0, not_ready: None }
}

fn update(feature: &str, level: i16, upgrade: Option<UpgradeType>) -> FeatureUpdate {
    FeatureUpdate { feature: feature.into(), level, upgrade }
}

fn level(name: &str, feature_level: i16) -> MetadataRecord {
    FeatureLevelRecord { name: name.into(), feature_level, ..Default::default() }.into()
}

/// A cluster of one broker, at these levels.
fn at(levels: &[(&str, i16)]) -> Image {
    let mut image = cluster(&[1]);
    apply(&mut image, levels.iter().map(|(name, to)| level(name, *to)));
    image
}

type Updated = Result<Decision<Option<i16>>, ApiError>;

fn decide(image: &Image, updates: &[FeatureUpdate]) -> Updated {
    update_features(image, updates, &quorum(), 2, false)
}

fn refused(decided: Updated, message: &str) {
    let error = decided.unwrap_err();
    assert_eq!(error.kind, InvalidUpdateVersion);
    let prefix = "The update failed for all features since the following feature had an error: ";
    assert!(error.message.starts_with(prefix) && error.message.contains(message), "{error}");
}

fn listed(name: &str, max: i16) -> Vec<flowstone_metadata::records::BrokerFeature> {
    let mut listed = features::supported();
    for feature in listed.iter_mut().filter(|feature| feature.name == name) {
        feature.max_supported_version = max;
    }
    listed
}

#[test]
fn levels_go_up_and_down() {
    let image = at(&[("transaction.version", 1)]);
    let to = |level, upgrade| {
        let decision = decide(&image, &[update("transaction.version", level, upgrade)])?;
        Ok::<_, ApiError>(after(&image, &decision).feature("transaction.version"))
    };
    assert_eq!(to(2, UP), Ok(2));
    assert_eq!(to(1, UP), Ok(1), "where it is");
    assert_eq!((to(0, SAFE), to(0, UNSAFE)), (Ok(0), Ok(0)));
    let check = |wish, message| refused(decide(&image, &[wish]), message);
    check(update("transaction.version", 0, UP), "Can't downgrade the version of this feature");
    check(update("transaction.version", 2, SAFE), "Can't downgrade to a newer version.");
    check(update("transaction.version", 2, None), "does not support the given upgrade type");
    check(update("transaction.version", -1, SAFE), "cannot be less than 0");
    check(update("transaction.version", 3, UP), "Local controller 1 only supports versions 0-2");
    check(update("colour.version", 1, UP), "Local controller 1 does not support this feature.");
    check(update("colour.version", 0, SAFE), "Feature colour.version not found.");
}

/// UpdateFeatures v0 told a downgrade by a boolean (KIP-778).
#[test]
fn the_way_is_told_by_version() {
    assert_eq!(UpgradeType::told(0, 3, true), SAFE);
    assert_eq!(UpgradeType::told(0, 3, false), UP);
    assert_eq!([1, 2, 3].map(|n| UpgradeType::told(1, n, true)), [UP, SAFE, UNSAFE]);
    assert_eq!([0, 4].map(|n| UpgradeType::told(2, n, false)), [None, None]);
}

/// All or none; one error for all.
#[test]
fn one_bad_feature_stops_all() {
    let image = at(&[("group.version", 0), ("share.version", 0)]);
    let (group, share) = (update("group.version", 1, UP), update("share.version", 1, UP));
    let both = decide(&image, &[group.clone(), share]).unwrap();
    assert_eq!((both.records.len(), both.atomic), (2, true));
    refused(decide(&image, &[group.clone(), update("share.version", 7, UP)]), "share.version");
    let twice = decide(&image, &[group.clone(), group.clone()]).unwrap_err();
    assert_eq!(twice.kind, InvalidRequest);
    let only = update_features(&image, &[group], &quorum(), 1, true).unwrap();
    assert_eq!((only.records, only.response), (vec![], None), "validateOnly");
    let bad = update_features(&image, &[update("share.version", 7, UP)], &quorum(), 1, true);
    refused(bad, "share.version");
}

/// Every registered broker, fenced or not, every registered controller, and every voter that never
/// registered is asked.
#[test]
fn everybody_must_support_the_level() {
    let image = at(&[("transaction.version", 1)]);
    let wish = [update("transaction.version", 2, UP)];
    let mut old_broker = image.clone();
    let features = listed("transaction.version", 1);
    let broker = RegisterBrokerRecord {
        broker_id: 7,
        fenced: true,
        features: features.clone(),
        ..Default::default()
    };
    apply(&mut old_broker, [broker.into()]);
    refused(decide(&old_broker, &wish), "Broker 7 only supports versions 0-1");

    let controller = |controller_id, features| {
        let record = RegisterControllerRecord { controller_id, features, ..Default::default() };
        MetadataRecord::from(record)
    };
    let mut old_controller = image.clone();
    apply(&mut old_controller, [controller(8, features.clone()), controller(1, features)]);
    refused(decide(&old_controller, &wish), "Controller 8 only supports versions 0-1");
    let mut silent = old_controller.clone();
    apply(&mut silent, [controller(8, vec![])]);
    refused(decide(&silent, &wish), "Controller 8 does not support this feature.");

    let three = Quorum { voters: vec![ME, NodeId(2), NodeId(3)], ..quorum() };
    let mut two = image.clone();
    apply(&mut two, [controller(2, features::supported())]);
    refused(update_features(&two, &wish, &three, 1, false), "controller 3 has not registered");
    apply(&mut two, [controller(3, features::supported())]);
    assert!(update_features(&two, &wish, &three, 1, false).is_ok());
    apply(&mut old_controller, [level(METADATA_VERSION, 14), level(ELR_VERSION, 0)]);
    assert!(decide(&old_controller, &wish).is_ok(), "before 3.7-IV0 controllers do not register");
}

/// KIP-778: down only over levels that left the records as they were (reference section 2.4).
#[test]
fn metadata_version_goes_down_only_where_nothing_is_lost() {
    let to = |from, wish, upgrade| {
        let image = at(&[(METADATA_VERSION, from), (ELR_VERSION, 0)]);
        decide(&image, &[update(METADATA_VERSION, wish, upgrade)])
    };
    assert!(to(26, 30, UP).is_ok() && to(29, 23, SAFE).is_ok() && to(29, 23, UNSAFE).is_ok());
    let lost = "Refusing to perform the requested downgrade because it might delete";
    refused(to(30, 29, SAFE), lost);
    refused(to(29, 22, SAFE), lost);
    refused(to(29, 22, SAFE), "Unsupported metadata.version downgrade from 29 to 22.");
    refused(to(30, 29, UNSAFE), "Unsafe metadata downgrade is not supported in this version.");
    refused(to(29, 28, UP), "Can't downgrade the version of this feature");
    refused(to(30, 31, UP), "Local controller 1 only supports versions 7-30");
    refused(to(30, 6, UNSAFE), "Local controller 1 only supports versions 7-30");
}

/// Eligible leader replicas are records of metadata.version 4.0-IV1 (level 23).
#[test]
fn features_need_each_other() {
    let image = at(&[(METADATA_VERSION, 22), (ELR_VERSION, 0)]);
    let (elr, version) = (update(ELR_VERSION, 1, UP), update(METADATA_VERSION, 23, UP));
    refused(
        decide(&image, std::slice::from_ref(&elr)),
        "eligible.leader.replicas.version could not be set to 1 because it depends on \
         metadata.version level 23",
    );
    let both = decide(&image, &[elr, version]).unwrap();
    assert_eq!(after(&image, &both).feature(ELR_VERSION), 1, "both at once, in any order");
}

/// KIP-966: with eligible leader replicas on, the controller knows the one min.insync.replicas.
#[test]
fn turning_elr_on_settles_min_insync_replicas() {
    let key = "min.insync.replicas";
    let image = at(&[(ELR_VERSION, 0)]);
    let broker = ConfigResource::broker(NodeId(1));
    let own = ConfigChange { key: key.into(), op: ConfigOp::Set, value: Some("3".into()) };
    let set = alter_configs(
        &image,
        &[(broker.clone(), vec![own.clone()])],
        false,
        &crate::common::config(),
    );
    let image = after(&image, &set);
    let on = decide(&image, &[update(ELR_VERSION, 1, UP)]).unwrap();
    let turned_on = after(&image, &on);
    let cluster = ConfigResource::all_brokers();
    assert_eq!(turned_on.config(&cluster, key), Some("2"), "the controller's own");
    assert_eq!(turned_on.config(&broker, key), None);
    assert_eq!(on.records.last(), Some(&level(ELR_VERSION, 1)), "before the level itself");
    let mut told = image;
    let of_cluster = ConfigRecord {
        resource_type: 4,
        name: key.into(),
        value: Some("1".into()),
        ..Default::default()
    };
    apply(&mut told, [of_cluster.into()]);
    let on = decide(&told, &[update(ELR_VERSION, 1, UP)]).unwrap();
    assert_eq!(after(&told, &on).config(&cluster, key), Some("1"), "what is set stays");
}

/// KIP-853: kraft.version is not in the image, goes up only, and only once the voters can.
#[test]
fn kraft_version_is_the_quorums() {
    let image = at(&[]);
    let decide = |wish, quorum: &Quorum| {
        update_features(&image, &[update(KRAFT_VERSION, wish, UP)], quorum, 1, false)
    };
    let up = decide(1, &quorum()).unwrap();
    assert_eq!((up.response, up.records[0].name(), up.records.len()), (Some(1), "NoOpRecord", 1));
    assert_eq!(after(&image, &up), image);
    let one = Quorum { kraft_version: 1, ..quorum() };
    assert_eq!(
        decide(1, &one).unwrap(),
        Decision { records: vec![], atomic: true, response: None }
    );
    let why = "Directory id must be known for all of the voters";
    let unready = Quorum { not_ready: Some(why.into()), ..quorum() };
    refused(decide(1, &unready), why);
    assert!(decide(0, &unready).is_ok(), "it stays where it is");
    let down = update_features(&image, &[update(KRAFT_VERSION, 0, SAFE)], &one, 1, false);
    refused(down, "Can't downgrade the version of this feature.");
    let only = update_features(&image, &[update(KRAFT_VERSION, 1, UP)], &quorum(), 1, true);
    assert_eq!(only.unwrap().response, None, "validateOnly");
}
