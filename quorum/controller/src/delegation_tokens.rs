//! Delegation tokens (KIP-48): made, renewed, ended and described.
//!
//! What holds the secret key is outside: it makes a token's HMAC from its id, and finds the id behind an
//! HMAC that a client shows. Here a token is its id. Invariant: no token outlives its `max_timestamp`.

use crate::Decision;
use crate::error::{ApiError, ErrorKind};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use flowstone_metadata::records::{DelegationTokenRecord, RemoveDelegationTokenRecord};
use flowstone_metadata::{Image, MetadataRecord};
use flowstone_types::Timestamp;

/// How long tokens live, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenLifetimes {
    /// Whatever is done: `delegation.token.max.lifetime.ms`.
    pub max_ms: i64,
    /// Unless renewed: `delegation.token.expiry.time.ms`.
    pub renew_ms: i64,
}

/// A token to make. Principals are as `User:name`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewToken {
    /// Its id, drawn by who makes its HMAC.
    pub token_id: String,
    /// Who asks.
    pub requester: String,
    /// Whose it is to be; `None` for the requester's own (KIP-373).
    pub owner: Option<String>,
    /// Who may renew it, beside its owner.
    pub renewers: Vec<String>,
    /// How long it is to live at most; nothing above zero for as long as tokens may.
    pub max_lifetime_ms: i64,
}

/// Only users renew tokens.
const USER_PREFIX: &str = "User:";

/// Makes a token (CreateDelegationToken). `lifetimes` is `None` where there is no secret key.
pub fn create_delegation_token(
    image: &Image,
    token: NewToken,
    lifetimes: Option<TokenLifetimes>,
    now: Timestamp,
) -> Result<Decision<DelegationTokenRecord>, ApiError> {
    let lifetimes = enabled(image, lifetimes)?;
    if token.renewers.iter().any(|renewer| !renewer.starts_with(USER_PREFIX)) {
        return Err(ErrorKind::InvalidPrincipalType.into());
    }
    let max_ms = shorter(lifetimes.max_ms, token.max_lifetime_ms);
    let max_timestamp = now.0.saturating_add(max_ms);
    let record = DelegationTokenRecord {
        owner: token.owner.unwrap_or_else(|| token.requester.clone()),
        requester: token.requester,
        renewers: token.renewers,
        issue_timestamp: now.0,
        max_timestamp,
        expiration_timestamp: now.0.saturating_add(lifetimes.renew_ms).min(max_timestamp),
        token_id: token.token_id,
        ..DelegationTokenRecord::default()
    };
    Ok(Decision::atomic(vec![record.clone().into()], record))
}

/// Lets a token live on (RenewDelegationToken) for `period_ms`, or where that is not above zero, as
/// long as a renewal gives. `token_id` is what the client's HMAC stands for, if anything. The response
/// is when it ends.
pub fn renew_delegation_token(
    image: &Image,
    token_id: Option<&str>,
    principal: &str,
    period_ms: i64,
    lifetimes: Option<TokenLifetimes>,
    now: Timestamp,
) -> Result<Decision<Timestamp>, ApiError> {
    let lifetimes = enabled(image, lifetimes)?;
    let token = known(image, token_id)?;
    if is_over(token, now) {
        return Err(ErrorKind::DelegationTokenExpired.into());
    }
    check_renewer(token, principal)?;
    Ok(ending(token, now.0.saturating_add(shorter(lifetimes.renew_ms, period_ms))))
}

/// Ends a token after `period_ms`, or where that is negative, at once (ExpireDelegationToken). The
/// response is when it ends.
pub fn expire_delegation_token(
    image: &Image,
    token_id: Option<&str>,
    principal: &str,
    period_ms: i64,
    lifetimes: Option<TokenLifetimes>,
    now: Timestamp,
) -> Result<Decision<Timestamp>, ApiError> {
    enabled(image, lifetimes)?;
    let token = known(image, token_id)?;
    check_renewer(token, principal)?;
    if period_ms < 0 {
        return Ok(Decision::atomic(vec![removal(token)], now));
    }
    if is_over(token, now) {
        return Err(ErrorKind::DelegationTokenExpired.into());
    }
    Ok(ending(token, now.0.saturating_add(period_ms)))
}

/// Tokens that one sweep removes at most.
pub const TOKENS_SWEPT_MAX: usize = 1000;

/// Removes tokens that are over; the response says whether there are more.
pub fn sweep_delegation_tokens(image: &Image, now: Timestamp) -> Decision<bool> {
    let mut over = image.delegation_tokens.values().filter(|token| is_over(token, now));
    let records = over.by_ref().take(TOKENS_SWEPT_MAX).map(|token| removal(token)).collect();
    Decision::atomic(records, over.next().is_some())
}

/// The tokens that `principal` is shown (DescribeDelegationToken): of `owners` (`None` for all), those
/// that it owns or may renew, and those that `may_describe` lets it see (by DESCRIBE on the token, or
/// `DESCRIBE_TOKENS` on its owner).
pub fn describe_delegation_tokens<'a>(
    image: &'a Image,
    owners: Option<&[String]>,
    principal: &str,
    may_describe: impl Fn(&DelegationTokenRecord) -> bool,
) -> Vec<&'a DelegationTokenRecord> {
    let shown = |token: &&DelegationTokenRecord| {
        let asked = owners.is_none_or(|owners| owners.iter().any(|owner| may_renew(token, owner)));
        asked && (may_renew(token, principal) || may_describe(token))
    };
    image.delegation_tokens.values().map(|token| &**token).filter(shown).collect()
}

fn enabled(image: &Image, lifetimes: Option<TokenLifetimes>) -> Result<TokenLifetimes, ApiError> {
    let lifetimes = lifetimes.ok_or(ErrorKind::DelegationTokenAuthDisabled)?;
    if image.metadata_version().has_delegation_tokens() {
        Ok(lifetimes)
    } else {
        Err(ErrorKind::UnsupportedVersion.into())
    }
}

fn known<'a>(
    image: &'a Image,
    token_id: Option<&str>,
) -> Result<&'a DelegationTokenRecord, ApiError> {
    let token = token_id.and_then(|id| image.delegation_tokens.get(id));
    Ok(token.ok_or(ErrorKind::DelegationTokenNotFound)?)
}

fn is_over(token: &DelegationTokenRecord, now: Timestamp) -> bool {
    token.max_timestamp < now.0 || token.expiration_timestamp < now.0
}

fn may_renew(token: &DelegationTokenRecord, principal: &str) -> bool {
    token.owner == principal || token.renewers.iter().any(|renewer| renewer == principal)
}

fn check_renewer(token: &DelegationTokenRecord, principal: &str) -> Result<(), ApiError> {
    if may_renew(token, principal) {
        Ok(())
    } else {
        Err(ErrorKind::DelegationTokenOwnerMismatch.into())
    }
}

/// The shorter of what may be and what is wished for, if anything is.
fn shorter(may_be: i64, wish: i64) -> i64 {
    if wish > 0 { may_be.min(wish) } else { may_be }
}

/// The token with a new end, which is never beyond its last.
fn ending(token: &DelegationTokenRecord, at: i64) -> Decision<Timestamp> {
    let expiration_timestamp = at.min(token.max_timestamp);
    let record = DelegationTokenRecord { expiration_timestamp, ..token.clone() };
    Decision::atomic(vec![record.into()], Timestamp(expiration_timestamp))
}

fn removal(token: &DelegationTokenRecord) -> MetadataRecord {
    let token_id = token.token_id.clone();
    RemoveDelegationTokenRecord { token_id, ..RemoveDelegationTokenRecord::default() }.into()
}
