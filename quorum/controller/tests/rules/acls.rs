//! ACLs: each rule of Kafka's AclControlManager, AclApis and filters once (KIP-11, KIP-290).

use crate::common::{after, cluster, with_random};
use flowstone_controller::ErrorKind::*;
use flowstone_controller::{
    AclFilter, ApiError, Decision, create_acls, delete_acls, describe_acls,
};
use flowstone_metadata::records::AccessControlEntryRecord;
use flowstone_metadata::{AclOperation, AclPattern, AclPermission, AclResource, Image};
use flowstone_types::Uuid;

fn acl(pattern: AclPattern, name: &str) -> AccessControlEntryRecord {
    AccessControlEntryRecord {
        id: Uuid::ZERO,
        resource_type: AclResource::Topic.number(),
        resource_name: name.into(),
        pattern_type: pattern.number(),
        principal: "User:a".into(),
        host: "*".into(),
        operation: AclOperation::Read.number(),
        permission_type: AclPermission::Allow.number(),
        ..Default::default()
    }
}

fn literal(name: &str) -> AccessControlEntryRecord {
    acl(AclPattern::Literal, name)
}

fn create(image: &Image, acls: &[AccessControlEntryRecord]) -> Decision<Vec<Result<(), ApiError>>> {
    with_random(|random| create_acls(image, acls, random))
}

fn with(acls: &[AccessControlEntryRecord]) -> Image {
    let decision = create(&cluster(&[]), acls);
    assert!(decision.response.iter().all(Result::is_ok));
    after(&cluster(&[]), &decision)
}

/// What is there already, or asked for twice, is a success without a record.
#[test]
fn acls_are_added_once() {
    let image = with(&[literal("t"), literal("t"), acl(AclPattern::Prefixed, "t")]);
    assert_eq!(image.acls.len(), 2, "a prefix is another ACL");
    assert!(image.acls.iter().all(|(id, acl)| *id == acl.id && !id.is_zero()));
    let again = create(&image, &[literal("t"), literal("u")]);
    assert!(again.response.iter().all(Result::is_ok) && again.records.len() == 1);
    // The same draws again: ids that are taken are not given twice.
    assert_eq!(after(&image, &again).acls.len(), 3);
}

#[test]
fn bad_acls_are_refused_one_by_one() {
    let check = |change: &dyn Fn(&mut AccessControlEntryRecord), message: &str| {
        let mut bad = literal("t");
        change(&mut bad);
        let decision = create(&cluster(&[]), &[bad, literal("fine")]);
        let error = decision.response[0].clone().unwrap_err();
        assert_eq!(error.kind, InvalidRequest);
        assert!(error.message.contains(message), "{error}");
        assert!(decision.response[1].is_ok() && decision.records.len() == 1);
    };
    check(&|acl| acl.resource_type = 0, "Invalid resourceType UNKNOWN");
    check(&|acl| acl.resource_type = 1, "Invalid resourceType ANY");
    check(&|acl| acl.resource_type = 8, "Invalid resourceType UNKNOWN");
    check(&|acl| acl.pattern_type = 2, "Invalid patternType MATCH");
    check(&|acl| acl.operation = 1, "Invalid operation ANY");
    check(&|acl| acl.operation = 16, "Invalid operation UNKNOWN");
    check(&|acl| acl.permission_type = 1, "Invalid permissionType ANY");
    check(&|acl| acl.resource_name.clear(), "Resource name should not be empty");
    check(&|acl| acl.resource_type = AclResource::Cluster.number(), "kafka-cluster");
    check(&|acl| acl.principal = "a".into(), "no colon is present");
    let mut of_cluster = literal("kafka-cluster");
    of_cluster.resource_type = AclResource::Cluster.number();
    assert_eq!(create(&cluster(&[]), &[of_cluster]).response, [Ok(())]);
}

/// KIP-290: what each pattern type of a filter finds.
#[test]
fn filters_find_by_pattern() {
    let names = [
        acl(AclPattern::Literal, "orders"),
        acl(AclPattern::Literal, "*"),
        acl(AclPattern::Prefixed, "ord"),
        acl(AclPattern::Prefixed, "orders-eu"),
        acl(AclPattern::Literal, "ord"),
    ];
    let image = with(&names);
    let found = |pattern_type: i8, name: Option<&str>| {
        let resource_name = name.map(Into::into);
        let filter = AclFilter { pattern_type, resource_name, ..AclFilter::ALL };
        let found = describe_acls(&image, &filter).unwrap();
        let says = |acl: &AccessControlEntryRecord| (acl.pattern_type, acl.resource_name.clone());
        let place = |acl: &&AccessControlEntryRecord| {
            names.iter().position(|known| says(known) == says(acl)).unwrap()
        };
        let mut places: Vec<_> = found.iter().map(place).collect();
        places.sort_unstable();
        places
    };
    const ANY: i8 = 1;
    const MATCH: i8 = 2;
    assert_eq!(found(ANY, None), [0, 1, 2, 3, 4]);
    assert_eq!(found(ANY, Some("ord")), [2, 4], "the name as written");
    assert_eq!(found(MATCH, Some("orders")), [0, 1, 2], "what applies to it");
    assert_eq!(found(MATCH, Some("*")), [1]);
    assert_eq!(found(AclPattern::Literal.number(), Some("ord")), [4]);
    assert_eq!(found(AclPattern::Literal.number(), Some("orders-us")), [0; 0], "* is a name too");
    assert_eq!(found(AclPattern::Prefixed.number(), None), [2, 3]);
}

#[test]
fn filters_find_by_entry() {
    let image = with(&[literal("t")]);
    let finds = |change: &dyn Fn(&mut AclFilter)| {
        let mut filter = AclFilter::ALL;
        change(&mut filter);
        describe_acls(&image, &filter).unwrap().len() == 1
    };
    let read = AclOperation::Read.number();
    assert!(finds(&|_| {}) && finds(&|f| f.operation = read));
    assert!(!finds(&|f| f.operation = AclOperation::All.number()), "ALL is an operation, not any");
    assert!(!finds(&|f| f.resource_type = AclResource::Group.number()));
    assert!(!finds(&|f| f.permission_type = AclPermission::Deny.number()));
    assert!(finds(&|f| f.principal = Some("User:a".into())));
    assert!(!finds(&|f| f.principal = Some("User:*".into())), "as written, not as it applies");
    assert!(finds(&|f| f.host = Some("*".into())) && !finds(&|f| f.host = Some("10.0.0.1".into())));
}

#[test]
fn deleting_answers_for_each_filter() {
    let image = with(&[literal("a"), literal("b"), literal("c")]);
    let named = |name: &str| AclFilter { resource_name: Some(name.into()), ..AclFilter::ALL };
    let unknown = AclFilter { operation: 0, ..AclFilter::ALL };
    let filters = [named("a"), unknown, named("x"), named("a"), named("b")];
    let decision = delete_acls(&image, &filters);
    let found: Vec<_> =
        decision.response.iter().map(|r| r.as_ref().map(Vec::len).map_err(|e| e.kind)).collect();
    assert_eq!(found, [Ok(1), Err(InvalidRequest), Ok(0), Ok(1), Ok(1)]);
    assert_eq!(decision.records.len(), 2, "what two filters find goes once");
    let left = after(&image, &decision);
    assert_eq!(left.acls.values().next().unwrap().resource_name, "c");
    let pattern = AclFilter { pattern_type: 5, ..AclFilter::ALL };
    assert_eq!(describe_acls(&image, &pattern).unwrap_err().message, "Unknown patternFilter.");
}

/// Reference section 2.3: 10,000 records at most per user operation.
#[test]
fn what_is_too_large_for_one_batch_is_refused_whole() {
    let many: Vec<_> = (0..10_001).map(|n| literal(&n.to_string())).collect();
    let decision = create(&cluster(&[]), &many);
    let refused = |r: &Result<(), ApiError>| r.as_ref().is_err_and(|e| e.kind == PolicyViolation);
    assert!(decision.records.is_empty() && decision.response.iter().all(refused));
    assert_eq!(create(&cluster(&[]), &many[1..]).records.len(), 10_000);
}
