//! The quota on changes to topics and partitions: each rule of KIP-599 once.

use crate::common::{after, cluster, config, with_random};
use flowstone_controller::ErrorKind::*;
use flowstone_controller::{
    Allowance, CONTROLLER_MUTATION_RATE, Enforcement, MutationQuota, MutationQuotas, MutationRate,
    NewPartitions, NewTopic, QuotaAlteration, TopicChoice, TopicDefaults, alter_client_quotas,
    create_partitions_within, create_topics_within, delete_topics_within,
};
use flowstone_metadata::Image;
use flowstone_types::{Instant, Uuid};
use std::time::Duration;

/// Five partitions a second, 500 at once: the example of KIP-599.
const RATE: MutationRate = MutationRate { per_second: 5.0, window: Duration::from_secs(100) };

fn at(ms: u64) -> Instant {
    Instant(1_000_000_000_000).after(Duration::from_millis(ms))
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn strict_lets_the_last_one_overdraw_and_then_nobody() {
    let mut quota = MutationQuota::new(RATE, at(0));
    let mut take = |partitions, ms| quota.take(RATE, Enforcement::Strict, partitions, at(ms));
    assert_eq!(take(560, 0), Ok(ms(0)), "not slowed down");
    assert_eq!(take(1, 0), Err(ms(12_000)), "60 too many are 12 s");
    assert_eq!(take(1, 0), Err(ms(12_000)), "a refusal costs nothing");
    assert_eq!(take(1, 11_999), Err(ms(1)));
    assert_eq!(take(1, 12_000), Ok(ms(0)), "zero is enough");
    assert_eq!(take(1, 12_000), Err(ms(200)));
}

#[test]
fn permissive_never_refuses_and_slows_down() {
    let mut quota = MutationQuota::new(RATE, at(0));
    let mut take = |partitions, ms| quota.take(RATE, Enforcement::Permissive, partitions, at(ms));
    assert_eq!(take(500, 0), Ok(ms(0)));
    assert_eq!(take(60, 0), Ok(ms(12_000)));
    assert_eq!(take(5, 0), Ok(ms(13_000)));
}

/// What is not used adds up to the burst, and no further; a clock that stands still, or a call that
/// comes late, gives nothing.
#[test]
fn tokens_add_up_to_the_burst() {
    let mut quota = MutationQuota::new(RATE, at(0));
    quota.take(RATE, Enforcement::Strict, 10, at(5000)).unwrap();
    assert!(!quota.is_whole(RATE, at(6999)) && quota.is_whole(RATE, at(7000)));
    quota.take(RATE, Enforcement::Strict, 500, at(3_600_000)).unwrap();
    quota.take(RATE, Enforcement::Strict, 1, at(3_600_000)).unwrap();
    let late = quota.take(RATE, Enforcement::Strict, 1, at(0));
    assert_eq!(late, Err(ms(200)));
    assert_eq!(quota.take(RATE, Enforcement::Strict, 1, at(3_600_199)), Err(ms(1)));
    // A rate that is lowered bounds what was saved under the old one.
    let slow = MutationRate { per_second: 0.1, ..RATE };
    let mut saved = MutationQuota::new(RATE, at(0));
    saved.take(slow, Enforcement::Strict, 11, at(0)).unwrap();
    assert_eq!(saved.take(slow, Enforcement::Strict, 1, at(0)), Err(ms(10_000)));
}

/// KIP-599: from these versions on, clients know THROTTLING_QUOTA_EXCEEDED.
#[test]
fn versions_decide_how_strictly() {
    assert_eq!(Enforcement::since(6, 6), Enforcement::Strict);
    assert_eq!(Enforcement::since(6, 5), Enforcement::Permissive);
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions,
        replication_factor: 1,
        assignments: vec![],
        configs: vec![],
    }
}

fn create(image: &Image, topics: &[NewTopic], allowance: &mut Allowance<'_>) -> (Image, Vec<bool>) {
    let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
    let decision = with_random(|random| {
        create_topics_within(image, topics, defaults, false, &config(), random, allowance)
    });
    let throttled = decision.response.iter().map(|(_, answer)| {
        answer.as_ref().is_err_and(|error| error.kind == ThrottlingQuotaExceeded)
    });
    (after(image, &decision), throttled.collect())
}

/// Topics are charged one by one, by their partitions; the refused leave nothing.
#[test]
fn topics_and_partitions_are_charged() {
    let mut quota = MutationQuota::new(RATE, at(0));
    let mut strict = Allowance::of(&mut quota, RATE, Enforcement::Strict, at(0));
    let topics = [topic("a", 490), topic("b", 20), topic("c", 1)];
    let (image, throttled) = create(&cluster(&[1]), &topics, &mut strict);
    assert_eq!((throttled, strict.throttle()), (vec![false, false, true], ms(2000)));
    assert_eq!((image.topics.len(), image.topics.named("c")), (2, None));

    let more = NewPartitions { name: "a".into(), count: 491, assignments: None };
    let added = with_random(|random| {
        let more = std::slice::from_ref(&more);
        create_partitions_within(&image, more, false, random, &mut strict)
    });
    assert_eq!(added.response[0].1.as_ref().unwrap_err().kind, ThrottlingQuotaExceeded);
    assert_eq!(added.records, []);
    let mut later = Allowance::of(&mut quota, RATE, Enforcement::Strict, at(2000));
    let choice = |name: &str| TopicChoice { name: Some(name.into()), id: Uuid::ZERO };
    let deleted = delete_topics_within(&image, &[choice("a"), choice("b")], &mut later);
    let kinds: Vec<_> =
        deleted.response.iter().map(|t| t.result.as_ref().map_err(|e| e.kind).err()).collect();
    assert_eq!((kinds, deleted.records.len()), (vec![None, Some(ThrottlingQuotaExceeded)], 1));
    assert_eq!(later.throttle(), ms(98_000), "490 partitions went");
}

#[test]
fn older_clients_are_slowed_down_instead() {
    let mut quota = MutationQuota::new(RATE, at(0));
    let mut permissive = Allowance::of(&mut quota, RATE, Enforcement::Permissive, at(0));
    let (image, throttled) =
        create(&cluster(&[1]), &[topic("a", 510), topic("b", 5)], &mut permissive);
    assert_eq!((throttled, image.topics.len()), (vec![false, false], 2));
    assert_eq!(permissive.throttle(), ms(3000));
    let mut unbounded = Allowance::unbounded();
    create(&cluster(&[1]), &[topic("a", 9000)], &mut unbounded);
    assert_eq!(unbounded.throttle(), ms(0));
}

/// Reference section 6: what a default grants, it grants to each; those without a quota are free, and
/// what is whole again is forgotten.
#[test]
fn everybody_has_the_quota_that_holds_for_them() {
    let default_client = QuotaAlteration {
        entity: vec![("client-id".into(), None)],
        ops: vec![(CONTROLLER_MUTATION_RATE.into(), Some(1.0))],
    };
    let bounded = cluster(&[1]);
    let bounded = after(&bounded, &alter_client_quotas(&bounded, &[default_client], false));
    let topics = [topic("a", 11), topic("b", 1)];
    let (topics, _) = create(&cluster(&[1]), &topics, &mut Allowance::unbounded());
    let both = ["a", "b"].map(|name| TopicChoice { name: Some(name.into()), id: Uuid::ZERO });
    let mut quotas = MutationQuotas::default();
    let mut refused = |image: &Image, client: &str, ms| {
        let window = Duration::from_secs(10);
        let mut allowance =
            quotas.allowance(image, ("u", client), window, Enforcement::Strict, at(ms));
        let deleted = delete_topics_within(&topics, &both, &mut allowance).response;
        (deleted[1].result.is_err(), quotas.len())
    };
    assert_eq!(refused(&cluster(&[]), "a", 0), (false, 0), "no quota");
    assert_eq!(refused(&bounded, "a", 0), (true, 1));
    assert_eq!(refused(&bounded, "b", 0), (true, 2), "its own");
    for client in 2..1023 {
        refused(&bounded, &client.to_string(), 0);
    }
    assert_eq!(refused(&bounded, "a", 1000), (true, 1023), "overdrawn again");
    assert_eq!(refused(&bounded, "late", 11_000), (true, 1024));
    assert_eq!(refused(&bounded, "later", 11_000), (true, 3), "a, late and later are not whole");
}
