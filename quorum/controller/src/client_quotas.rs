//! Client quotas: who may produce, fetch, ask and change how much (KIP-13, KIP-546, KIP-612, KIP-599).
//!
//! An entity is a user, a client id, both, or an address; a name that is null stands for all that have
//! no quota of their own. Entities are answered one by one, and take effect together.

use crate::error::{ApiError, ErrorKind};
use crate::partitions::check_fits;
use crate::{Decision, repeated};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use flowstone_metadata::records::{ClientQuotaRecord, EntityData};
use flowstone_metadata::{Image, MetadataRecord, QuotaEntity};

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// The rate of changes to topics and partitions that a client may ask for, per second (KIP-599).
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";

/// What a quota's value may be, beside above zero.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuotaKind {
    /// Any number.
    Real,
    /// A whole number up to this one.
    Whole(i64),
}

const USER_KEYS: &[(&str, QuotaKind)] = &[
    ("producer_byte_rate", QuotaKind::Whole(i64::MAX)),
    ("consumer_byte_rate", QuotaKind::Whole(i64::MAX)),
    ("request_percentage", QuotaKind::Real),
    (CONTROLLER_MUTATION_RATE, QuotaKind::Real),
];

const IP_KEYS: &[(&str, QuotaKind)] =
    &[("connection_creation_rate", QuotaKind::Whole(i32::MAX as i64))];

/// Quotas of one entity to change.
#[derive(Clone, PartialEq, Debug)]
pub struct QuotaAlteration {
    /// Whose, in any order.
    pub entity: QuotaEntity,
    /// Keys with their new values; `None` removes.
    pub ops: Vec<(String, Option<f64>)>,
}

/// Sets and removes quotas (AlterClientQuotas); answers for each entity, in the request's order.
pub fn alter_client_quotas(
    image: &Image,
    alterations: &[QuotaAlteration],
    validate_only: bool,
) -> Decision<Vec<(QuotaEntity, Result<(), ApiError>)>> {
    let mut records = Vec::new();
    let sorted = |entity: &QuotaEntity| {
        let mut entity = entity.clone();
        entity.sort();
        entity
    };
    // Of an entity that comes twice nothing is changed: nobody could tell which was meant.
    let twice = repeated(alterations.iter().map(|alteration| sorted(&alteration.entity)));
    let answer = |alteration: &QuotaAlteration| {
        let entity = sorted(&alteration.entity);
        let answer = if twice.contains(&entity) {
            invalid(format!("Ignoring duplicate entity {}", Shown(&entity)))
        } else {
            alter_entity(image, &entity, &alteration.ops, &mut records)
        };
        (alteration.entity.clone(), answer)
    };
    let mut answers: Vec<_> = alterations.iter().map(answer).collect();
    if let Err(too_large) = check_fits(records.len()) {
        records.clear();
        for (_, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
    }
    if validate_only {
        records.clear();
    }
    Decision::atomic(records, answers)
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ApiError> {
    Err(ApiError::new(ErrorKind::InvalidRequest, message))
}

/// Appends the records of one entity, all or none.
fn alter_entity(
    image: &Image,
    entity: &QuotaEntity,
    ops: &[(String, Option<f64>)],
    records: &mut Vec<MetadataRecord>,
) -> Result<(), ApiError> {
    let keys = keys_of(entity)?;
    if let Some(key) = repeated(ops.iter().map(|(key, _)| key)).into_iter().next() {
        let entity = Shown(entity);
        return invalid(format!(
            "Duplicate quota key {key} not updating quota for this entity {entity}"
        ));
    }
    let before = image.client_quotas.get(entity);
    let mut changes = Vec::with_capacity(ops.len());
    for (key, wish) in ops {
        let now = before.and_then(|quotas| quotas.get(key)).copied();
        if let Some(value) = wish {
            check_value(keys, key, *value)?;
        }
        if now == *wish {
            continue; // Nothing to remove, or the same value again.
        }
        let part = |(entity_type, entity_name): &(String, Option<String>)| EntityData {
            entity_type: entity_type.clone(),
            entity_name: entity_name.clone(),
            ..EntityData::default()
        };
        let record = ClientQuotaRecord {
            entity: entity.iter().map(part).collect(),
            key: key.clone(),
            value: wish.unwrap_or_default(),
            remove: wish.is_none(),
            ..ClientQuotaRecord::default()
        };
        changes.push(record.into());
    }
    records.append(&mut changes);
    Ok(())
}

/// The keys that an entity may have, if it is one.
fn keys_of(entity: &QuotaEntity) -> Result<&'static [(&'static str, QuotaKind)], ApiError> {
    if entity.is_empty() {
        return invalid("Invalid empty client quota entity");
    }
    for (index, (kind, name)) in entity.iter().enumerate() {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return invalid(format!("Unhandled client quota entity type: {kind}"));
        }
        if entity[..index].iter().any(|(other, _)| other == kind) {
            return invalid(format!("Invalid client quota entity, duplicate entity entry {kind}"));
        }
        if name.as_deref() == Some("") {
            return invalid(format!("Empty {kind} not supported"));
        }
    }
    let Some((_, address)) = entity.iter().find(|(kind, _)| kind == IP) else {
        return Ok(USER_KEYS);
    };
    if entity.len() > 1 {
        return invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId",
        );
    }
    match address {
        // Kafka also takes a name that resolves today. What a name stands for changes, and the
        // quota would not.
        Some(address) if address.parse::<IpAddr>().is_err() => {
            invalid(format!("{address} is not a valid IP."))
        }
        _ => Ok(IP_KEYS),
    }
}

fn check_value(keys: &[(&str, QuotaKind)], key: &str, value: f64) -> Result<(), ApiError> {
    let Some((_, kind)) = keys.iter().find(|(known, _)| *known == key) else {
        return invalid(format!("Invalid configuration key {key}"));
    };
    if value.is_nan() || value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    match kind {
        QuotaKind::Real if value.is_infinite() => {
            invalid(format!("Proposed value for {key} is too large."))
        }
        QuotaKind::Whole(max) if value > *max as f64 => {
            let kind = if *max == i64::MAX { "a LONG" } else { "an INT" };
            invalid(format!("Proposed value for {key} is too large for {kind}."))
        }
        QuotaKind::Whole(_) if value % 1.0 > FRACTION_MAX => {
            invalid(format!("{key} cannot be a fractional value."))
        }
        QuotaKind::Real | QuotaKind::Whole(_) => Ok(()),
    }
}

/// What Kafka takes for a rounding error.
const FRACTION_MAX: f64 = 1e-6;

/// An entity as Kafka writes it.
struct Shown<'a>(&'a QuotaEntity);

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let part = |(kind, name): &(String, Option<String>)| {
            format!("{kind}={}", name.as_deref().unwrap_or("null"))
        };
        let parts: Vec<String> = self.0.iter().map(part).collect();
        write!(f, "ClientQuotaEntity(entries={{{}}})", parts.join(", "))
    }
}

/// Which names of an entity type are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QuotaMatch {
    /// This one.
    Exact(String),
    /// The default.
    Default,
    /// Any, be it the default.
    Specified,
}

impl QuotaMatch {
    /// From the number and the name on the wire.
    pub fn told(kind: i8, name: Option<String>) -> Result<Self, ApiError> {
        let told_a_name = |kind: &str| {
            invalid(format!("Request specified {kind}, but also specified a match string."))
        };
        match (kind, name) {
            (0, Some(name)) => Ok(Self::Exact(name)),
            (0, None) => {
                invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.")
            }
            (1, None) => Ok(Self::Default),
            (1, Some(_)) => told_a_name("MATCH_TYPE_DEFAULT"),
            (2, None) => Ok(Self::Specified),
            (2, Some(_)) => told_a_name("MATCH_TYPE_SPECIFIED"),
            (other, _) => invalid(format!("Unknown match type {other}")),
        }
    }

    fn takes(&self, name: Option<&str>) -> bool {
        match self {
            Self::Exact(wanted) => name == Some(wanted),
            Self::Default => name.is_none(),
            Self::Specified => true,
        }
    }
}

/// Quotas as they are answered: whose, and all of theirs.
pub type Quotas<'a> = Vec<(&'a QuotaEntity, &'a BTreeMap<String, f64>)>;

/// The quotas of entities that have each of these types with such a name (DescribeClientQuotas);
/// `strict` leaves out those that have another type beside.
pub fn describe_client_quotas<'a>(
    image: &'a Image,
    components: &[(String, QuotaMatch)],
    strict: bool,
) -> Result<Quotas<'a>, ApiError> {
    for (index, (kind, _)) in components.iter().enumerate() {
        if kind.is_empty() {
            return invalid("Invalid empty entity type.");
        }
        if components[..index].iter().any(|(other, _)| other == kind) {
            return invalid(format!(
                "Entity type {kind} cannot appear more than once in the filter."
            ));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            let message = format!("Unsupported entity type {kind}");
            return Err(ApiError::new(ErrorKind::UnsupportedVersion, message));
        }
    }
    if components.len() > 1 && components.iter().any(|(kind, _)| kind == IP) {
        return invalid(
            "Invalid entity filter component combination. IP filter component should not be used \
             with user or clientId filter component.",
        );
    }
    let asked = |entity: &QuotaEntity| {
        let has = |(kind, wanted): &(String, QuotaMatch)| {
            entity.iter().any(|(other, name)| other == kind && wanted.takes(name.as_deref()))
        };
        components.iter().all(has) && (!strict || entity.len() == components.len())
    };
    let all = image.client_quotas.iter().map(|(entity, quotas)| (entity, &**quotas));
    Ok(all.filter(|(entity, _)| asked(entity)).collect())
}

/// The quota that holds for a user's client: that of the first of the eight levels of reference
/// section 6 that has one; `None` for no bound. Beside it, who shares it: all clients of a user, all
/// users of a client id, or this user's client alone. What a default grants, it grants to each.
pub fn client_quota(
    image: &Image,
    user: &str,
    client_id: &str,
    key: &str,
) -> Option<(QuotaEntity, f64)> {
    // `None` leaves the type out, `Some(None)` is its default.
    let levels = [
        (Some(Some(user)), Some(Some(client_id))),
        (Some(Some(user)), Some(None)),
        (Some(Some(user)), None),
        (Some(None), Some(Some(client_id))),
        (Some(None), Some(None)),
        (Some(None), None),
        (None, Some(Some(client_id))),
        (None, Some(None)),
    ];
    let entity = |user: Option<Option<&str>>, client: Option<Option<&str>>| {
        let part =
            |kind: &str, name: Option<&str>| (kind.to_string(), name.map(ToString::to_string));
        let client = client.map(|name| part(CLIENT_ID, name));
        client.into_iter().chain(user.map(|name| part(USER, name))).collect::<QuotaEntity>()
    };
    levels.into_iter().find_map(|(of_user, of_client)| {
        let quotas = image.client_quotas.get(&entity(of_user, of_client))?;
        let sharers = entity(of_user.map(|_| Some(user)), of_client.map(|_| Some(client_id)));
        Some((sharers, *quotas.get(key)?))
    })
}
