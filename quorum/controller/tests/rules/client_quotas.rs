//! Client quotas: each rule of Kafka's ClientQuotaControlManager and ClientQuotasImage once.

use crate::common::{after, cluster};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    CONTROLLER_MUTATION_RATE, QuotaAlteration, QuotaMatch, alter_client_quotas, client_quota,
    describe_client_quotas,
};
use flowstone_metadata::{Image, QuotaEntity};

const RATE: &str = "producer_byte_rate";

/// `user=a,client-id=*`, where `*` is the default.
fn entity(text: &str) -> QuotaEntity {
    let parts = text.split(',').filter_map(|part| part.split_once('='));
    parts.map(|(kind, name)| (kind.into(), (name != "*").then(|| name.into()))).collect()
}

fn alteration(whose: &str, ops: &[(&str, Option<f64>)]) -> QuotaAlteration {
    let ops = ops.iter().map(|(key, value)| ((*key).into(), *value)).collect();
    QuotaAlteration { entity: entity(whose), ops }
}

fn with(quotas: &[(&str, &str, f64)]) -> Image {
    let alter = |image: Image, (whose, key, value): &(&str, &str, f64)| {
        let wish = alteration(whose, &[(key, Some(*value))]);
        let decision = alter_client_quotas(&image, &[wish], false);
        decision.response[0].1.clone().unwrap();
        after(&image, &decision)
    };
    quotas.iter().fold(cluster(&[]), alter)
}

fn refused(wish: QuotaAlteration, message: &str) {
    let decision = alter_client_quotas(&cluster(&[]), &[wish], false);
    assert_eq!(decision.records, []);
    let error = decision.response[0].1.clone().unwrap_err();
    assert_eq!(error.kind, InvalidRequest);
    assert!(error.message.contains(message), "{error}");
}

/// KIP-546: a value sets, null removes; what is so already leaves no record.
#[test]
fn quotas_are_set_and_removed() {
    let image = with(&[("user=a,client-id=*", RATE, 5.0)]);
    let records = |ops: &[(&str, Option<f64>)]| {
        let decision = alter_client_quotas(&image, &[alteration("client-id=*,user=a", ops)], false);
        assert_eq!(decision.response[0].1, Ok(()));
        (decision.records.len(), after(&image, &decision).client_quotas.len())
    };
    assert_eq!(records(&[(RATE, Some(5.0))]), (0, 1), "the same again, told in another order");
    assert_eq!(records(&[(RATE, Some(6.0))]), (1, 1));
    assert_eq!(records(&[(RATE, None)]), (1, 0), "the last quota takes the entity with it");
    assert_eq!(records(&[("consumer_byte_rate", None)]), (0, 1));
    let only = alter_client_quotas(&image, &[alteration("user=b", &[(RATE, Some(1.0))])], true);
    assert!(only.records.is_empty() && only.response[0].1.is_ok(), "validateOnly");
}

/// KIP-546 and KIP-612: which entities there are.
#[test]
fn entities_are_checked() {
    let check = |whose, message| refused(alteration(whose, &[(RATE, Some(1.0))]), message);
    check("", "Invalid empty client quota entity");
    check("group=a", "Unhandled client quota entity type: group");
    check("user=", "Empty user not supported");
    check("user=a,user=b", "duplicate entity entry user");
    check("ip=10.0.0.1,user=a", "should not be combined with User or ClientId");
    check("ip=broker.example", "broker.example is not a valid IP.");
    let rate = [("connection_creation_rate", Some(7.0))];
    for fine in ["ip=10.0.0.1", "ip=2001:db8::1", "ip=*"] {
        let decision = alter_client_quotas(&cluster(&[]), &[alteration(fine, &rate)], false);
        assert_eq!(decision.response[0].1, Ok(()), "{fine}");
    }
}

/// Which keys an entity has, and what they may be.
#[test]
fn keys_and_values_are_checked() {
    let check = |whose, key, value, message| {
        refused(alteration(whose, &[(key, Some(value))]), message);
    };
    check("user=a", "connection_creation_rate", 1.0, "Invalid configuration key");
    check("ip=10.0.0.1", RATE, 1.0, "Invalid configuration key");
    check("user=a", RATE, 0.0, "must be greater than 0");
    check("user=a", RATE, f64::NAN, "must be greater than 0");
    check("user=a", RATE, 1.5, "cannot be a fractional value");
    check("user=a", RATE, 1e19, "too large for a LONG");
    check("user=a", CONTROLLER_MUTATION_RATE, f64::INFINITY, "too large");
    check("ip=10.0.0.1", "connection_creation_rate", 2_147_483_648.0, "too large for an INT");
    let twice = alteration("user=a", &[(RATE, Some(1.0)), (RATE, None)]);
    refused(twice, "Duplicate quota key producer_byte_rate");
    with(&[("user=a", "request_percentage", 0.5), ("user=a", CONTROLLER_MUTATION_RATE, 0.1)]);
}

/// An entity's quotas change together or not at all; entities one by one, but never one twice.
#[test]
fn entities_are_answered_one_by_one() {
    let half = alteration("user=a", &[(RATE, Some(1.0)), ("colour", Some(1.0))]);
    let decision = alter_client_quotas(
        &cluster(&[]),
        &[half, alteration("user=b", &[(RATE, Some(1.0))])],
        false,
    );
    assert!(decision.response[0].1.is_err() && decision.response[1].1.is_ok());
    assert_eq!(decision.records.len(), 1);
    let wish = |whose| alteration(whose, &[(RATE, Some(1.0))]);
    let twice = [wish("user=a,client-id=b"), wish("client-id=b,user=a")];
    let decision = alter_client_quotas(&cluster(&[]), &twice, false);
    assert!(decision.records.is_empty() && decision.response.iter().all(|(_, r)| r.is_err()));
}

#[test]
fn describing_filters_by_type_and_name() {
    let whose = ["user=a", "user=*", "user=a,client-id=b", "client-id=b", "ip=*"];
    let rated = |whose: &&'static str| {
        let key = if whose.starts_with("ip") { "connection_creation_rate" } else { RATE };
        (*whose, key, 1.0)
    };
    let image = with(&whose.iter().map(rated).collect::<Vec<_>>());
    let found = |components: &[(&str, QuotaMatch)], strict| {
        let components: Vec<_> =
            components.iter().map(|(kind, wanted)| ((*kind).into(), wanted.clone())).collect();
        let found = describe_client_quotas(&image, &components, strict).unwrap();
        let sorted = |text: &str| {
            let mut entity = entity(text);
            entity.sort();
            entity
        };
        let is = |text: &&str| found.iter().any(|(entity, _)| **entity == sorted(text));
        whose.iter().filter(|text| is(text)).copied().collect::<Vec<_>>()
    };
    let a = || ("user", QuotaMatch::Exact("a".into()));
    assert_eq!(found(&[], false), whose);
    assert_eq!(found(&[], true), [""; 0]);
    assert_eq!(found(&[a()], false), ["user=a", "user=a,client-id=b"]);
    assert_eq!(found(&[a()], true), ["user=a"]);
    assert_eq!(found(&[("user", QuotaMatch::Default)], false), ["user=*"]);
    assert_eq!(found(&[("user", QuotaMatch::Specified)], true), ["user=a", "user=*"]);
    assert_eq!(found(&[a(), ("client-id", QuotaMatch::Specified)], false), ["user=a,client-id=b"]);
}

#[test]
fn malformed_filters_are_refused() {
    let image = cluster(&[]);
    let check = |kinds: &[&str], kind: ErrorKind| {
        let components: Vec<_> =
            kinds.iter().map(|kind| ((*kind).into(), QuotaMatch::Default)).collect();
        assert_eq!(describe_client_quotas(&image, &components, false).unwrap_err().kind, kind);
    };
    check(&[""], InvalidRequest);
    check(&["user", "user"], InvalidRequest);
    check(&["group"], UnsupportedVersion);
    check(&["ip", "user"], InvalidRequest);
    assert_eq!(QuotaMatch::told(0, Some("a".into())), Ok(QuotaMatch::Exact("a".into())));
    for (kind, name) in [(0, None), (1, Some("a")), (2, Some("a")), (3, None)] {
        assert!(QuotaMatch::told(kind, name.map(Into::into)).is_err(), "{kind}");
    }
}

/// Reference section 6: eight levels; a default grants to each of those it stands for.
#[test]
fn the_most_specific_quota_holds() {
    let levels = [
        ("user=a,client-id=b", "client-id=b,user=a"),
        ("user=a,client-id=*", "client-id=b,user=a"),
        ("user=a", "user=a"),
        ("user=*,client-id=b", "client-id=b,user=a"),
        ("user=*,client-id=*", "client-id=b,user=a"),
        ("user=*", "user=a"),
        ("client-id=b", "client-id=b"),
        ("client-id=*", "client-id=b"),
    ];
    for strongest in 0..levels.len() {
        let quotas: Vec<_> = (strongest..levels.len())
            .map(|level| (levels[level].0, CONTROLLER_MUTATION_RATE, level as f64 + 1.0))
            .collect();
        let held = client_quota(&with(&quotas), "a", "b", CONTROLLER_MUTATION_RATE);
        assert_eq!(held, Some((entity(levels[strongest].1), strongest as f64 + 1.0)));
    }
    assert_eq!(client_quota(&with(&[("user=a", RATE, 1.0)]), "a", "b", "request_percentage"), None);
}
