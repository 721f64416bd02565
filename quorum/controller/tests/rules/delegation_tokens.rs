//! Delegation tokens: each rule of Kafka's DelegationTokenControlManager once (KIP-48, KIP-373).

use crate::common::{after, apply, cluster};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    ApiError, Decision, NewToken, TOKENS_SWEPT_MAX, TokenLifetimes, create_delegation_token,
    describe_delegation_tokens, expire_delegation_token, renew_delegation_token,
    sweep_delegation_tokens,
};
use flowstone_metadata::Image;
use flowstone_metadata::features::METADATA_VERSION;
use flowstone_metadata::records::FeatureLevelRecord;
use flowstone_types::Timestamp;

const LIFETIMES: Option<TokenLifetimes> = Some(TokenLifetimes { max_ms: 700, renew_ms: 100 });
const NOW: Timestamp = Timestamp(1000);
const ALICE: &str = "User:alice";
const BOB: &str = "User:bob";

fn token(id: &str) -> NewToken {
    NewToken {
        token_id: id.into(),
        requester: ALICE.into(),
        owner: None,
        renewers: vec![BOB.into()],
        max_lifetime_ms: -1,
    }
}

fn with(tokens: &[NewToken]) -> Image {
    tokens.iter().fold(cluster(&[]), |image, token| {
        after(&image, &create_delegation_token(&image, token.clone(), LIFETIMES, NOW).unwrap())
    })
}

/// When the token ends after the decision.
fn end(image: &Image, decision: Result<Decision<Timestamp>, ApiError>) -> Result<i64, ErrorKind> {
    let decision = decision.map_err(|error| error.kind)?;
    let kept = after(image, &decision).delegation_tokens.get("t").map(|t| t.expiration_timestamp);
    assert!(kept.is_none_or(|at| at == decision.response.0), "it ends when the answer says");
    Ok(decision.response.0)
}

/// Its life: what the server grants, or less if so asked; never beyond its last.
#[test]
fn a_token_lives_as_long_as_it_may() {
    let life = |max_lifetime_ms, renew_ms| {
        let lifetimes = Some(TokenLifetimes { max_ms: 700, renew_ms });
        let token = NewToken { max_lifetime_ms, ..token("t") };
        let made = create_delegation_token(&cluster(&[]), token, lifetimes, NOW).unwrap().response;
        (made.issue_timestamp, made.expiration_timestamp, made.max_timestamp)
    };
    assert_eq!(life(-1, 100), (1000, 1100, 1700));
    assert_eq!(life(0, 100), (1000, 1100, 1700));
    assert_eq!(life(9000, 100), (1000, 1100, 1700));
    assert_eq!(life(50, 100), (1000, 1050, 1050));
    assert_eq!(life(-1, i64::MAX), (1000, 1700, 1700), "no overflow");
}

/// KIP-373: for another; only users renew.
#[test]
fn owners_and_renewers() {
    let made = |token| create_delegation_token(&cluster(&[]), token, LIFETIMES, NOW);
    let own = made(token("t")).unwrap().response;
    assert_eq!((&*own.owner, &*own.requester), (ALICE, ALICE));
    let others = made(NewToken { owner: Some(BOB.into()), ..token("t") }).unwrap().response;
    assert_eq!((&*others.owner, &*others.requester), (BOB, ALICE));
    let group = NewToken { renewers: vec!["Group:staff".into()], ..token("t") };
    assert_eq!(made(group).unwrap_err().kind, InvalidPrincipalType);
}

#[test]
fn without_a_key_or_in_an_older_cluster_there_are_no_tokens() {
    let image = with(&[token("t")]);
    let kind = |image: &Image, lifetimes| {
        create_delegation_token(image, token("u"), lifetimes, NOW).map_err(|e| e.kind).err()
    };
    assert_eq!(kind(&image, None), Some(DelegationTokenAuthDisabled));
    let t = Some("t");
    let disabled = Err(DelegationTokenAuthDisabled);
    assert_eq!(end(&image, renew_delegation_token(&image, t, ALICE, 1, None, NOW)), disabled);
    assert_eq!(end(&image, expire_delegation_token(&image, t, ALICE, 1, None, NOW)), disabled);
    let mut old = image;
    let name = METADATA_VERSION.into();
    let level = FeatureLevelRecord { name, feature_level: 13, ..Default::default() };
    apply(&mut old, [level.into()]);
    assert_eq!(kind(&old, LIFETIMES), Some(UnsupportedVersion), "before 3.6-IV2");
}

#[test]
fn owner_and_renewers_renew() {
    let image = with(&[token("t")]);
    let renew = |id, who, period, now| {
        end(&image, renew_delegation_token(&image, id, who, period, LIFETIMES, Timestamp(now)))
    };
    let t = Some("t");
    assert_eq!(renew(t, ALICE, -1, 1050), Ok(1150), "as long as a renewal gives");
    assert_eq!(renew(t, BOB, 10, 1050), Ok(1060), "less if so asked");
    assert_eq!(renew(t, BOB, i64::MAX, 1100), Ok(1200));
    assert_eq!(renew(t, "User:eve", -1, 1050), Err(DelegationTokenOwnerMismatch));
    assert_eq!(renew(t, ALICE, -1, 1101), Err(DelegationTokenExpired));
    assert_eq!(renew(t, "User:eve", -1, 1101), Err(DelegationTokenExpired), "asked first");
    assert_eq!(renew(None, ALICE, -1, 1050), Err(DelegationTokenNotFound));
    assert_eq!(renew(Some("u"), ALICE, -1, 1050), Err(DelegationTokenNotFound));
    let short = with(&[NewToken { max_lifetime_ms: 120, ..token("t") }]);
    let last = renew_delegation_token(&short, t, ALICE, -1, LIFETIMES, Timestamp(1090));
    assert_eq!(end(&short, last), Ok(1120), "never beyond its last");
}

#[test]
fn a_negative_period_ends_a_token_at_once() {
    let image = with(&[token("t")]);
    let expire = |who, period, now| {
        end(
            &image,
            expire_delegation_token(&image, Some("t"), who, period, LIFETIMES, Timestamp(now)),
        )
    };
    assert_eq!(expire(ALICE, 20, 1050), Ok(1070));
    assert_eq!(expire(BOB, i64::MAX, 1050), Ok(1700));
    assert_eq!(expire("User:eve", -1, 1050), Err(DelegationTokenOwnerMismatch));
    assert_eq!(expire(ALICE, 20, 1101), Err(DelegationTokenExpired));
    assert_eq!(expire(ALICE, -1, 1101), Ok(1101), "even what is over");
    let gone = expire_delegation_token(&image, Some("t"), ALICE, -1, LIFETIMES, NOW).unwrap();
    assert!(after(&image, &gone).delegation_tokens.is_empty());
    let zero = expire_delegation_token(&image, Some("t"), ALICE, 0, LIFETIMES, NOW).unwrap();
    let left = after(&image, &zero);
    assert_eq!(left.delegation_tokens["t"].expiration_timestamp, NOW.0, "over, and swept later");
}

#[test]
fn what_is_over_is_swept() {
    let image = with(&[token("t"), NewToken { max_lifetime_ms: 50, ..token("u") }]);
    let left = |now| {
        let decision = sweep_delegation_tokens(&image, Timestamp(now));
        assert!(!decision.response);
        after(&image, &decision).delegation_tokens.len()
    };
    assert_eq!((left(1050), left(1051), left(1101)), (2, 1, 0));
    let many: Vec<_> = (0..=TOKENS_SWEPT_MAX).map(|n| token(&n.to_string())).collect();
    let decision = sweep_delegation_tokens(&with(&many), Timestamp(9000));
    assert_eq!((decision.records.len(), decision.response), (TOKENS_SWEPT_MAX, true));
}

#[test]
fn tokens_are_shown_to_whom_they_concern() {
    let image =
        with(&[token("t"), NewToken { requester: BOB.into(), renewers: vec![], ..token("u") }]);
    let shown = |owners: Option<&[&str]>, who, may: bool| {
        let owners: Option<Vec<String>> =
            owners.map(|owners| owners.iter().map(|owner| (*owner).into()).collect());
        let shown = describe_delegation_tokens(&image, owners.as_deref(), who, |_| may);
        shown.iter().map(|token| token.token_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shown(None, ALICE, false), ["t"]);
    assert_eq!(shown(None, BOB, false), ["t", "u"], "renewer of one, owner of the other");
    assert_eq!(shown(None, "User:eve", false), [""; 0]);
    assert_eq!(shown(None, "User:eve", true), ["t", "u"]);
    assert_eq!(shown(Some(&[ALICE]), BOB, false), ["t"]);
    assert_eq!(shown(Some(&[]), BOB, true), [""; 0]);
}
