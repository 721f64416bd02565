//! ACLs: added, removed and found by filter (KIP-11, KIP-290). Whether they let somebody in is asked
//! elsewhere.
//!
//! Added and removed one by one in the answers, together in the log. Invariant: no two ACLs of the
//! image differ only in their ids.

use crate::error::{ApiError, ErrorKind};
use crate::partitions::check_fits;
use crate::{Decision, Random};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_metadata::records::{AccessControlEntryRecord, RemoveAccessControlEntryRecord};
use flowstone_metadata::{
    AclOperation, AclPattern, AclPermission, AclResource, Image, MetadataRecord,
};
use flowstone_types::Uuid;

/// The one name of the cluster as a resource.
const CLUSTER_NAME: &str = "kafka-cluster";
/// The literal name that stands for every name.
const EVERY_NAME: &str = "*";

/// "Any", as a number of every enum in a filter.
const ANY: i8 = 1;
/// A filter's pattern type that finds every ACL that would apply to the name.
const MATCH: i8 = 2;

/// Adds ACLs (CreateAcls); answers for each, in their order. Their ids are not looked at: each new one
/// gets its own. What is there already is a success.
pub fn create_acls(
    image: &Image,
    acls: &[AccessControlEntryRecord],
    random: &mut Random<'_>,
) -> Decision<Vec<Result<(), ApiError>>> {
    let mut answers: Vec<_> = acls.iter().map(check_new).collect();
    // By what they say; the image is gone through once, however many are asked for.
    let mut wanted: BTreeMap<_, &AccessControlEntryRecord> = BTreeMap::new();
    for (acl, _) in acls.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()) {
        wanted.insert(said(acl), acl);
    }
    for known in image.acls.values() {
        wanted.remove(&said(known));
    }
    if let Err(too_large) = check_fits(wanted.len()) {
        wanted.clear();
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
    }
    let record = |acl: &AccessControlEntryRecord| {
        let mut id = random.id();
        while image.acls.contains_key(&id) {
            id = random.id();
        }
        AccessControlEntryRecord { id, ..acl.clone() }.into()
    };
    Decision::atomic(wanted.into_values().map(record).collect(), answers)
}

/// All that an ACL says.
fn said(acl: &AccessControlEntryRecord) -> (i8, &str, i8, &str, &str, i8, i8) {
    let AccessControlEntryRecord { resource_name, principal, host, .. } = acl;
    let (resource, pattern) = (acl.resource_type, acl.pattern_type);
    (resource, resource_name, pattern, principal, host, acl.operation, acl.permission_type)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::InvalidRequest, message)
}

fn check_new(acl: &AccessControlEntryRecord) -> Result<(), ApiError> {
    let bad = |what: &str, number: i8| {
        let name = match number {
            ANY => "ANY",
            MATCH if what == "patternType" => "MATCH",
            _ => "UNKNOWN",
        };
        invalid(format!("Invalid {what} {name}"))
    };
    let resource = AclResource::from_number(acl.resource_type)
        .ok_or_else(|| bad("resourceType", acl.resource_type))?;
    AclPattern::from_number(acl.pattern_type)
        .ok_or_else(|| bad("patternType", acl.pattern_type))?;
    AclOperation::from_number(acl.operation).ok_or_else(|| bad("operation", acl.operation))?;
    AclPermission::from_number(acl.permission_type)
        .ok_or_else(|| bad("permissionType", acl.permission_type))?;
    if acl.resource_name.is_empty() {
        return Err(invalid("Resource name should not be empty"));
    }
    if resource == AclResource::Cluster && acl.resource_name != CLUSTER_NAME {
        let message = format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}");
        return Err(invalid(message));
    }
    if !acl.principal.contains(':') {
        return Err(invalid(format!(
            "Could not parse principal from `{}` (no colon is present separating the principal type \
             from the principal name)",
            acl.principal
        )));
    }
    Ok(())
}

/// Which ACLs are meant. Numbers are those on the wire: a record's, or 1 for any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclFilter {
    /// What kind of resource.
    pub resource_type: i8,
    /// Its name; `None` for any.
    pub resource_name: Option<String>,
    /// How the ACL's name matches; 2 (MATCH) for all ACLs that apply to the name.
    pub pattern_type: i8,
    /// Who; `None` for any.
    pub principal: Option<String>,
    /// From where; `None` for any.
    pub host: Option<String>,
    /// What is done.
    pub operation: i8,
    /// Whether it may be done.
    pub permission_type: i8,
}

impl AclFilter {
    /// Finds every ACL.
    pub const ALL: Self = Self {
        resource_type: ANY,
        resource_name: None,
        pattern_type: ANY,
        principal: None,
        host: None,
        operation: ANY,
        permission_type: ANY,
    };

    fn check(&self) -> Result<(), ApiError> {
        let pattern = self.pattern_type;
        let known = |number, named: bool| number == ANY || named;
        if !known(self.resource_type, AclResource::from_number(self.resource_type).is_some())
            || !known(pattern, pattern == MATCH || AclPattern::from_number(pattern).is_some())
        {
            return Err(invalid("Unknown patternFilter."));
        }
        if !known(self.operation, AclOperation::from_number(self.operation).is_some())
            || !known(
                self.permission_type,
                AclPermission::from_number(self.permission_type).is_some(),
            )
        {
            return Err(invalid("Unknown entryFilter."));
        }
        Ok(())
    }

    /// Whether it finds this ACL.
    pub fn matches(&self, acl: &AccessControlEntryRecord) -> bool {
        let number = |wanted: i8, has: i8| wanted == ANY || wanted == has;
        let text = |wanted: &Option<String>, has: &String| wanted.as_ref().is_none_or(|w| w == has);
        number(self.resource_type, acl.resource_type)
            && number(self.operation, acl.operation)
            && number(self.permission_type, acl.permission_type)
            && text(&self.principal, &acl.principal)
            && text(&self.host, &acl.host)
            && self.matches_name(acl)
    }

    fn matches_name(&self, acl: &AccessControlEntryRecord) -> bool {
        let has = acl.resource_name.as_str();
        match (self.pattern_type, self.resource_name.as_deref()) {
            (ANY | MATCH, None) => true,
            (ANY, Some(wanted)) => wanted == has,
            (MATCH, Some(wanted)) => match AclPattern::from_number(acl.pattern_type) {
                Some(AclPattern::Literal) => wanted == has || has == EVERY_NAME,
                Some(AclPattern::Prefixed) => wanted.starts_with(has),
                None => false, // Of a release that we do not know: it applies to nobody here.
            },
            (pattern, wanted) => {
                pattern == acl.pattern_type && wanted.is_none_or(|wanted| wanted == has)
            }
        }
    }
}

/// What a filter of DeleteAcls removed.
pub type DeletedAcls = Result<Vec<AccessControlEntryRecord>, ApiError>;

/// Removes the ACLs that filters find (DeleteAcls); answers for each filter, in their order. What two
/// filters find is told by both, and removed once.
pub fn delete_acls(image: &Image, filters: &[AclFilter]) -> Decision<Vec<DeletedAcls>> {
    let mut ids: BTreeSet<Uuid> = BTreeSet::new();
    let mut answers: Vec<DeletedAcls> = Vec::with_capacity(filters.len());
    for filter in filters {
        let found = describe_acls(image, filter).map(|found| {
            ids.extend(found.iter().map(|acl| acl.id));
            found.into_iter().cloned().collect()
        });
        answers.push(found);
    }
    if let Err(too_large) = check_fits(ids.len()) {
        ids.clear();
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
    }
    let remove = |id| RemoveAccessControlEntryRecord { id, ..Default::default() }.into();
    let records: Vec<MetadataRecord> = ids.into_iter().map(remove).collect();
    Decision::atomic(records, answers)
}

/// The ACLs that a filter finds (DescribeAcls).
pub fn describe_acls<'a>(
    image: &'a Image,
    filter: &AclFilter,
) -> Result<Vec<&'a AccessControlEntryRecord>, ApiError> {
    filter.check()?;
    Ok(image.acls.values().map(|acl| &**acl).filter(|acl| filter.matches(acl)).collect())
}
