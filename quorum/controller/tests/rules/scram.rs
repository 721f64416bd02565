//! SCRAM credentials: each rule of Kafka's ScramControlManager and ScramImage once (KIP-554).

use crate::common::{after, apply, cluster};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    ApiError, Decision, ScramDeletion, ScramMechanism, ScramUpsertion,
    alter_user_scram_credentials, describe_user_scram_credentials,
};
use flowstone_metadata::Image;
use flowstone_metadata::features::METADATA_VERSION;
use flowstone_metadata::records::FeatureLevelRecord;

const SHA_256: i8 = 1;
const SHA_512: i8 = 2;

fn set(user: &str, mechanism: i8, iterations: i32) -> ScramUpsertion {
    ScramUpsertion {
        user: user.into(),
        mechanism,
        iterations,
        salt: "salt".into(),
        stored_key: "stored".into(),
        server_key: "server".into(),
    }
}

fn delete(user: &str, mechanism: i8) -> ScramDeletion {
    ScramDeletion { user: user.into(), mechanism }
}

fn alter(
    image: &Image,
    deletions: &[ScramDeletion],
    upsertions: &[ScramUpsertion],
) -> Decision<Vec<(String, Result<(), ApiError>)>> {
    alter_user_scram_credentials(image, deletions, upsertions)
}

fn with(upsertions: &[ScramUpsertion]) -> Image {
    upsertions.iter().fold(cluster(&[]), |image, wish| {
        after(&image, &alter(&image, &[], std::slice::from_ref(wish)))
    })
}

fn kinds(
    decision: &Decision<Vec<(String, Result<(), ApiError>)>>,
) -> Vec<(&str, Option<ErrorKind>)> {
    let answers = decision.response.iter();
    answers.map(|(user, r)| (user.as_str(), r.as_ref().err().map(|error| error.kind))).collect()
}

#[test]
fn credentials_are_set_replaced_and_removed() {
    let image = with(&[set("a", SHA_256, 4096), set("a", SHA_256, 8192), set("a", SHA_512, 4096)]);
    let credential = &image.scram[&(SHA_256, "a".into())];
    assert_eq!((credential.iterations, &*credential.stored_key), (8192, &b"stored"[..]));
    let decision = alter(&image, &[delete("a", SHA_256)], &[]);
    assert_eq!(kinds(&decision), [("a", None)]);
    assert_eq!(after(&image, &decision).scram.len(), 1, "the other mechanism's stays");
}

/// 4096 to 16384 rounds; a user's name; the two mechanisms (KIP-554).
#[test]
fn credentials_are_checked() {
    let check = |wish, kind, message: &str| {
        let decision = alter(&cluster(&[]), &[], &[wish]);
        assert_eq!(decision.records, []);
        let error = decision.response[0].1.clone().unwrap_err();
        assert_eq!((error.kind, &*error.message), (kind, message));
    };
    check(set("a", SHA_256, 4095), UnacceptableCredential, "Too few iterations");
    check(set("a", SHA_512, 16_385), UnacceptableCredential, "Too many iterations");
    check(set("", SHA_256, 4096), UnacceptableCredential, "Username must not be empty");
    check(set("a", 3, 4096), UnsupportedSaslMechanism, "Unknown SCRAM mechanism");
    let decision = alter(&cluster(&[]), &[delete("a", SHA_256), delete("b", 0)], &[]);
    assert_eq!(
        kinds(&decision),
        [("a", Some(ResourceNotFound)), ("b", Some(UnsupportedSaslMechanism))]
    );
    assert_eq!(with(&[set("a", SHA_512, 16_384)]).scram.len(), 1);
}

/// A user's credentials change once in a request, be it by two mechanisms; the others' do.
#[test]
fn nobody_is_altered_twice() {
    let image = with(&[set("a", SHA_256, 4096)]);
    let decision = alter(
        &image,
        &[delete("a", SHA_256), delete("x", SHA_256)],
        &[set("a", SHA_256, 4096), set("b", SHA_256, 4096), set("b", SHA_512, 4096)],
    );
    let twice = Some(DuplicateResource);
    assert_eq!(kinds(&decision), [("a", twice), ("x", Some(ResourceNotFound)), ("b", twice)]);
    assert_eq!(decision.records, []);
    let decision = alter(&image, &[], &[set("b", SHA_256, 1), set("b", SHA_256, 4096)]);
    assert_eq!(kinds(&decision), [("b", Some(UnacceptableCredential))], "what was wrong first");
    let decision = alter(&image, &[delete("a", SHA_256)], &[set("c", SHA_256, 4096)]);
    assert_eq!((kinds(&decision), decision.records.len()), (vec![("a", None), ("c", None)], 2));
}

/// KIP-900: SCRAM is in the log since metadata.version 3.5-IV2.
#[test]
fn an_older_cluster_has_no_scram() {
    let at = |feature_level| {
        let mut image = cluster(&[]);
        let name = METADATA_VERSION.into();
        apply(
            &mut image,
            [FeatureLevelRecord { name, feature_level, ..Default::default() }.into()],
        );
        alter(&image, &[], &[set("a", SHA_256, 4096)]).response.remove(0).1.map_err(|e| e.kind)
    };
    assert_eq!((at(10), at(11)), (Err(UnsupportedVersion), Ok(())));
}

#[test]
fn describing_tells_mechanisms_and_rounds() {
    let image = with(&[set("a", SHA_256, 4096), set("a", SHA_512, 8192), set("b", SHA_512, 4096)]);
    let describe = |users: &[&str]| {
        let users: Vec<String> = users.iter().map(|user| (*user).into()).collect();
        describe_user_scram_credentials(&image, &users)
    };
    let (sha_256, sha_512) = (ScramMechanism::Sha256, ScramMechanism::Sha512);
    let a = ("a".to_string(), Ok(vec![(sha_256, 4096), (sha_512, 8192)]));
    let b = ("b".to_string(), Ok(vec![(sha_512, 4096)]));
    assert_eq!(describe(&[]), [a.clone(), b], "all");
    assert_eq!(describe(&["a"]), [a]);
    let refused = |users: &[&str]| {
        describe(users).into_iter().map(|(_, r)| r.unwrap_err().kind).collect::<Vec<_>>()
    };
    assert_eq!(refused(&["c"]), [ResourceNotFound]);
    assert_eq!(refused(&["a", "a"]), [DuplicateResource], "answered once");
}
