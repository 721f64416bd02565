//! SCRAM credentials (KIP-554): set, removed and described.
//!
//! Keys come in made: what hashes passwords is outside. A user's credentials change once in a request;
//! users are answered one by one.

use crate::Decision;
use crate::error::{ApiError, ErrorKind};
use crate::partitions::check_fits;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::RangeInclusive;
use flowstone_metadata::records::{RemoveUserScramCredentialRecord, UserScramCredentialRecord};
use flowstone_metadata::{Image, MetadataRecord};

/// How a password is hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Kafka's number.
    pub const fn number(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// The mechanism with Kafka's number.
    pub fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.number() == number)
    }
}

/// Rounds of hashing that a credential may have: fewer are guessed too fast, more keep a server busy.
pub const SCRAM_ITERATIONS: RangeInclusive<i32> = 4096..=16_384;

/// A credential to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScramDeletion {
    /// Whose.
    pub user: String,
    /// The mechanism's number.
    pub mechanism: i8,
}

/// A credential to set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScramUpsertion {
    /// Whose.
    pub user: String,
    /// The mechanism's number.
    pub mechanism: i8,
    /// Rounds of hashing.
    pub iterations: i32,
    /// The salt.
    pub salt: Bytes,
    /// Made of the salted password (RFC 5802); means nothing where the mechanism is unknown.
    pub stored_key: Bytes,
    /// Likewise.
    pub server_key: Bytes,
}

/// Sets and removes credentials (AlterUserScramCredentials); answers for each user once.
pub fn alter_user_scram_credentials(
    image: &Image,
    deletions: &[ScramDeletion],
    upsertions: &[ScramUpsertion],
) -> Decision<Vec<(String, Result<(), ApiError>)>> {
    let mut wishes: BTreeMap<&str, Result<MetadataRecord, ApiError>> = BTreeMap::new();
    let mut order = Vec::with_capacity(deletions.len() + upsertions.len());
    let deletions = deletions.iter().map(|wish| (wish.user.as_str(), delete(image, wish)));
    let upsertions = upsertions.iter().map(|wish| (wish.user.as_str(), upsert(image, wish)));
    for (user, wish) in deletions.chain(upsertions) {
        match wishes.get_mut(user) {
            None => {
                order.push(user);
                wishes.insert(user, wish);
            }
            Some(first @ Ok(_)) => {
                let message = "A user credential cannot be altered twice in the same request";
                *first = Err(ApiError::new(ErrorKind::DuplicateResource, message));
            }
            Some(Err(_)) => {} // What was wrong first is what is answered.
        }
    }
    let mut records = Vec::with_capacity(order.len());
    let mut answers = Vec::with_capacity(order.len());
    for user in order {
        let wish = wishes.remove(user).expect("each user in the order has a wish");
        answers.push((String::from(user), wish.map(|record| records.push(record))));
    }
    if let Err(too_large) = check_fits(records.len()) {
        records.clear();
        for (_, answer) in answers.iter_mut().filter(|(_, answer)| answer.is_ok()) {
            *answer = Err(too_large.clone());
        }
    }
    Decision::atomic(records, answers)
}

fn delete(image: &Image, wish: &ScramDeletion) -> Result<MetadataRecord, ApiError> {
    let mechanism = check(image, &wish.user, wish.mechanism)?.number();
    if !image.scram.contains_key(&(mechanism, wish.user.clone())) {
        let message = "Attempt to delete a user credential that does not exist";
        return Err(ApiError::new(ErrorKind::ResourceNotFound, message));
    }
    let name = wish.user.clone();
    let record = RemoveUserScramCredentialRecord { name, mechanism, ..Default::default() };
    Ok(record.into())
}

fn upsert(image: &Image, wish: &ScramUpsertion) -> Result<MetadataRecord, ApiError> {
    let mechanism = check(image, &wish.user, wish.mechanism)?.number();
    let refuse = |message: &str| Err(ApiError::new(ErrorKind::UnacceptableCredential, message));
    if wish.iterations < *SCRAM_ITERATIONS.start() {
        return refuse("Too few iterations");
    }
    if wish.iterations > *SCRAM_ITERATIONS.end() {
        return refuse("Too many iterations");
    }
    let record = UserScramCredentialRecord {
        name: wish.user.clone(),
        mechanism,
        salt: wish.salt.clone(),
        stored_key: wish.stored_key.clone(),
        server_key: wish.server_key.clone(),
        iterations: wish.iterations,
        ..UserScramCredentialRecord::default()
    };
    Ok(record.into())
}

/// What both ask for.
fn check(image: &Image, user: &str, mechanism: i8) -> Result<ScramMechanism, ApiError> {
    let refuse = |kind, message: &str| Err(ApiError::new(kind, message));
    if !image.metadata_version().has_scram() {
        let message = "The current metadata.version does not support SCRAM";
        return refuse(ErrorKind::UnsupportedVersion, message);
    }
    if user.is_empty() {
        return refuse(ErrorKind::UnacceptableCredential, "Username must not be empty");
    }
    let unknown = || ApiError::new(ErrorKind::UnsupportedSaslMechanism, "Unknown SCRAM mechanism");
    ScramMechanism::from_number(mechanism).ok_or_else(unknown)
}

/// What is told of a user's credentials: mechanisms, and their rounds of hashing. Never a key.
pub type DescribedScram = Vec<(ScramMechanism, i32)>;

/// Tells which credentials users have (DescribeUserScramCredentials); of all users where none is
/// named. Whoever is named twice is answered once.
pub fn describe_user_scram_credentials(
    image: &Image,
    users: &[String],
) -> Vec<(String, Result<DescribedScram, ApiError>)> {
    if users.is_empty() {
        let all: BTreeSet<&String> = image.scram.keys().map(|(_, user)| user).collect();
        let describe = |user: &String| (user.clone(), Ok(credentials(image, user)));
        return all.into_iter().map(describe).collect();
    }
    let refuse = |kind, what: &str, user: &str| Err(ApiError::new(kind, format!("{what}: {user}")));
    let unique: BTreeSet<&String> = users.iter().collect();
    let describe = |user: &String| {
        let answer = match credentials(image, user) {
            _ if users.iter().filter(|other| *other == user).count() > 1 => refuse(
                ErrorKind::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request",
                user,
            ),
            none if none.is_empty() => refuse(
                ErrorKind::ResourceNotFound,
                "Attempt to describe a user credential that does not exist",
                user,
            ),
            some => Ok(some),
        };
        (user.clone(), answer)
    };
    unique.into_iter().map(describe).collect()
}

fn credentials(image: &Image, user: &str) -> DescribedScram {
    let of = |mechanism: ScramMechanism| {
        let credential = image.scram.get(&(mechanism.number(), String::from(user)))?;
        Some((mechanism, credential.iterations))
    };
    ScramMechanism::ALL.into_iter().filter_map(of).collect()
}
