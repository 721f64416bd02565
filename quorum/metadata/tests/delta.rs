//! What the images themselves tell of a change, against what its records told, and against a comparison that
//! looks at everything.

use flowstone_metadata::{Delta, Image, MetadataVersion, Topic};
use imbl::OrdMap;
use proptest::prelude::*;
use random::{Draw, grown, image};
use std::collections::BTreeSet;
use std::fmt::Debug;

mod random;

/// The keys under which they differ, found the long way.
fn keys<K: Ord + Clone, V: PartialEq + Clone>(a: &OrdMap<K, V>, b: &OrdMap<K, V>) -> BTreeSet<K> {
    let all: BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    all.into_iter().filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

fn compared(before: &Image, after: &Image) -> Delta {
    let mut delta = Delta {
        configs: keys(&before.configs, &after.configs),
        brokers: keys(&before.brokers, &after.brokers),
        controllers: before.controllers != after.controllers,
        features: before.features != after.features,
        client_quotas: before.client_quotas != after.client_quotas,
        scram: before.scram != after.scram,
        acls: before.acls != after.acls,
        delegation_tokens: before.delegation_tokens != after.delegation_tokens,
        producer_ids: before.next_producer_id != after.next_producer_id,
        ..Delta::default()
    };
    for topic in after.topics.iter() {
        let old = before.topics.with_id(topic.id);
        if old.is_none() {
            delta.topics_created.insert(topic.id);
        }
        let old = |index| old.and_then(|old| old.partition(index));
        let changed = topic.partitions().filter(|(index, p)| old(*index) != Some(p));
        delta.partitions.extend(changed.map(|(index, _)| (topic.id, index)));
    }
    let gone = before.topics.iter().filter(|topic| after.topics.with_id(topic.id).is_none());
    delta.topics_deleted.extend(gone.map(|topic| (topic.id, topic.clone())));
    delta
}

/// The same image, sharing nothing with the one it is made from.
fn apart(image: &Image) -> Image {
    let mut copy = Image::default();
    for record in image.to_records() {
        copy.apply(record, &mut Delta::default()).unwrap();
    }
    assert_eq!(copy, *image);
    copy
}

/// All of `few` is in `many`.
fn within<T: Ord + Debug>(few: &BTreeSet<T>, many: &BTreeSet<T>) -> Result<(), TestCaseError> {
    prop_assert!(few.is_subset(many), "{few:?} in {many:?}");
    Ok(())
}

proptest! {
    /// Records tell no less than the images do; they tell more only where something came to what it was.
    #[test]
    fn images_tell_what_changed(seed: u64, first in 0usize..150, then in 0usize..60) {
        let mut draw = Draw(seed);
        let before = image(MetadataVersion::LATEST, first, &mut draw);
        let (mut after, mut told) = (before.clone(), Delta::default());
        grown(&mut after, &mut told, then, &mut draw);
        let found = Delta::between(&before, &after);
        prop_assert_eq!(&found, &compared(&before, &after));
        prop_assert_eq!(&found, &Delta::between(&apart(&before), &after), "sharing is for speed only");
        prop_assert_eq!(Delta::between(&after, &before), compared(&after, &before), "and back");
        prop_assert!(Delta::between(&after, &apart(&after)).is_empty());

        let deleted = |delta: &Delta| delta.topics_deleted.keys().copied().collect::<BTreeSet<_>>();
        within(&found.topics_created, &told.topics_created)?;
        within(&deleted(&found), &deleted(&told))?;
        within(&found.configs, &told.configs)?;
        within(&found.brokers, &told.brokers)?;
        // A topic that is deleted and made again under its id is new to the records, and changed to the images.
        let again: BTreeSet<_> = told.topics_created.difference(&found.topics_created).collect();
        let partitions = found.partitions.iter().filter(|(id, _)| !again.contains(id));
        within(&partitions.copied().collect(), &told.partitions)?;
    }
}

/// A topic larger than the chunks in which its partitions are shared, and one that outgrows them in between.
#[test]
fn partitions_of_large_topics_are_found() {
    use flowstone_metadata::records::{PartitionChangeRecord, PartitionRecord, TopicRecord};
    let id = flowstone_types::Uuid(1000);
    let mut before = Image::default();
    let none = &mut Delta::default();
    let topic = TopicRecord { name: "t".into(), topic_id: id, ..Default::default() };
    before.apply(topic.into(), none).unwrap();
    let partition =
        |partition_id| PartitionRecord { partition_id, topic_id: id, ..Default::default() };
    (0..1000).for_each(|index| before.apply(partition(index).into(), none).unwrap());
    let (mut after, mut told) = (before.clone(), Delta::default());
    for index in [0, 63, 64, 500, 999] {
        let change =
            PartitionChangeRecord { partition_id: index, topic_id: id, ..Default::default() };
        after.apply(change.into(), &mut told).unwrap();
    }
    (1000..1130).for_each(|index| after.apply(partition(index).into(), &mut told).unwrap());
    assert_eq!(told.partitions.len(), 5 + 130);
    assert_eq!(Delta::between(&before, &after), told);
    let topic = |image: &Image| Topic::clone(image.topics.with_id(id).unwrap());
    assert_ne!(topic(&before), topic(&after));
    assert_eq!(topic(&after), topic(&apart(&after)));
}
