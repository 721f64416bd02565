//! OffsetFetch (key 9): a group's position; of several groups at once since version 8 (KIP-709).
//!
//! As in Kafka a topic need not exist: a position that was never kept is -1, and no error.

use super::group_words::{code, text, wire};
use crate::client::Client;
use crate::shard::Shard;
use flowstone_coordinators::{
    Answer, Error, FetchTopic, FetchedOffset, FetchedTopic, OffsetFetch, Request, Text,
};
use flowstone_metadata::Image;
use flowstone_runtime::{local, spawn};
use flowstone_types::{PartitionId, Uuid};
use flowstone_wire::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use flowstone_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use flowstone_wire::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use flowstone_wire::{ErrorCode, string, topic_name, uuid_from_wire, uuid_to_wire};
use std::collections::BTreeMap;
use std::rc::Rc;

/// From this version on a request has several groups.
const GROUPS_SINCE: i16 = 8;
/// From this version on the group has an error of its own; before, each partition has it.
const GROUP_ERROR_SINCE: i16 = 2;

/// From this version on topics have ids and no names (KIP-848).
const IDS_SINCE: i16 = 10;

/// Answers for every group.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let image = shard.image();
    let require_stable = request.require_stable;
    let mut groups = groups_of(client.version, request);
    let unknown: Vec<_> = groups
        .iter_mut()
        .map(|group| if client.version >= IDS_SINCE { name(&image, group) } else { Vec::new() })
        .collect();
    let fetches = groups.iter().map(|group| fetch(&image, group, require_stable)).collect();
    let results = fetch_all(shard, fetches).await;
    let groups = groups.into_iter().zip(results).zip(unknown);
    let groups = groups.map(|((group, result), unknown)| match result {
        Ok(topics) if client.version >= IDS_SINCE => by_id(&image, found(group, topics), unknown),
        Ok(topics) => found(group, topics),
        Err(error) => failed(client.version, group, error),
    });
    respond(client.version, groups.collect())
}

/// What is asked, in the words of the newest version.
fn groups_of(version: i16, request: OffsetFetchRequest) -> Vec<OffsetFetchRequestGroup> {
    if version >= GROUPS_SINCE {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        topics.collect()
    });
    vec![OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics)]
}

/// Gives the topics of a group that are known by their ids their names, and takes the others out.
fn name(image: &Image, group: &mut OffsetFetchRequestGroup) -> Vec<OffsetFetchRequestTopics> {
    let mut unknown = Vec::new();
    for mut topic in std::mem::take(group.topics.as_mut().unwrap_or(&mut Vec::new())) {
        match image.topics.with_id(uuid_from_wire(topic.topic_id)) {
            Some(known) => {
                topic.name = topic_name(&known.name);
                group.topics.get_or_insert_default().push(topic);
            }
            None => unknown.push(topic),
        }
    }
    unknown
}

/// The answer by topic ids: what is unknown fails as such, and of all offsets of a group those are
/// left out whose topic is gone, as nothing could be called by an id that it has not.
fn by_id(
    image: &Image,
    mut found: OffsetFetchResponseGroup,
    unknown: Vec<OffsetFetchRequestTopics>,
) -> OffsetFetchResponseGroup {
    found.topics.retain_mut(|topic| {
        let known = image.topics.named(&topic.name);
        topic.topic_id = known.map_or(topic.topic_id, |known| uuid_to_wire(known.id));
        topic.name = TopicName::default();
        known.is_some()
    });
    found.topics.extend(unknown.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter();
        let partitions = partitions.map(|index| nothing(index, ErrorCode::UnknownTopicId as i16));
        OffsetFetchResponseTopics::default()
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect())
    }));
    found
}

/// A partition without an offset, and why.
fn nothing(index: i32, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_error_code(error_code)
}

fn fetch(image: &Image, group: &OffsetFetchRequestGroup, require_stable: bool) -> OffsetFetch {
    let topics = group.topics.as_ref().map(|topics| {
        let topics = topics.iter().map(|topic| FetchTopic {
            name: text(&topic.name),
            id: image.topics.named(&topic.name).map_or(Uuid::ZERO, |topic| topic.id),
            partitions: topic.partition_indexes.clone(),
        });
        topics.collect()
    });
    OffsetFetch { group: text(&group.group_id), topics, require_stable }
}

/// Asks for all groups: those of one partition one after the other, the partitions at once, so that
/// a long list of groups is not a long list of tasks.
async fn fetch_all(
    shard: &Rc<Shard>,
    fetches: Vec<OffsetFetch>,
) -> Vec<Result<Vec<FetchedTopic>, Error>> {
    let mut results: Vec<_> = fetches.iter().map(|_| Err(Error::NotCoordinator)).collect();
    let mut by_partition: BTreeMap<PartitionId, Vec<(usize, OffsetFetch)>> = BTreeMap::new();
    for (place, fetch) in fetches.into_iter().enumerate() {
        if let Some(id) = shard.group_partition(&fetch.group) {
            by_partition.entry(id).or_default().push((place, fetch));
        }
    }
    let ask = |(id, fetches): (PartitionId, Vec<(usize, OffsetFetch)>)| {
        let (shard, (sender, coming)) = (Rc::clone(shard), local::oneshot());
        spawn(async move {
            let mut answers = Vec::with_capacity(fetches.len());
            for (place, fetch) in fetches {
                answers.push((place, shard.ask_partition(id, Request::Fetch(fetch)).await));
            }
            drop(sender.send(answers));
        });
        coming
    };
    let coming: Vec<_> = by_partition.into_iter().map(ask).collect();
    for answers in coming {
        for (place, answer) in answers.await.expect("a task runs to its end") {
            let Answer::Fetch(result) = answer else { unreachable!("an offset fetch's answer") };
            results[place] = result;
        }
    }
    results
}

fn found(group: OffsetFetchRequestGroup, topics: Vec<FetchedTopic>) -> OffsetFetchResponseGroup {
    let name = |name: &Text| TopicName(wire(name));
    let partition = |found: FetchedOffset| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(found.partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(string(found.metadata)))
    };
    let topics = topics.into_iter().map(|topic| {
        OffsetFetchResponseTopics::default()
            .with_name(name(&topic.name))
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    });
    OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics.collect())
}

fn failed(version: i16, group: OffsetFetchRequestGroup, error: Error) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
    if version >= GROUP_ERROR_SINCE {
        return response.with_error_code(code(Some(error)));
    }
    let topics = group.topics.into_iter().flatten().map(|topic| {
        let partitions = topic.partition_indexes.into_iter();
        let partitions = partitions.map(|index| nothing(index, code(Some(error)))).collect();
        OffsetFetchResponseTopics::default().with_name(topic.name).with_partitions(partitions)
    });
    response.with_topics(topics.collect())
}

/// In the words of the version that was asked with.
fn respond(version: i16, mut groups: Vec<OffsetFetchResponseGroup>) -> OffsetFetchResponse {
    let response = OffsetFetchResponse::default();
    if version >= GROUPS_SINCE {
        return response.with_groups(groups);
    }
    let group = groups.pop().expect("old versions ask for one group");
    let partition = |one: OffsetFetchResponsePartitions| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(one.partition_index)
            .with_committed_offset(one.committed_offset)
            .with_committed_leader_epoch(one.committed_leader_epoch)
            .with_metadata(one.metadata)
            .with_error_code(one.error_code)
    };
    let topics = group.topics.into_iter().map(|topic| {
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    });
    response.with_topics(topics.collect()).with_error_code(group.error_code)
}

#[cfg(test)]
mod tests {
    use super::super::group_words::image_with;
    use super::*;
    use flowstone_wire::messages::GroupId;
    use flowstone_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
    use flowstone_wire::{Api, ReplyTo, topic_name};

    fn old() -> OffsetFetchRequest {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partition_indexes(vec![3]);
        let group = GroupId(string("g"));
        OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![topic]))
    }

    fn encodes(version: i16, response: OffsetFetchResponse) {
        let reply_to = ReplyTo { api: Api::OffsetFetch, version, correlation_id: 1 };
        reply_to.encode(&response.into(), &mut Vec::new()).unwrap();
    }

    #[test]
    fn old_versions_ask_for_one_group() {
        for version in 1..8 {
            let groups = groups_of(version, old());
            assert_eq!((groups.len(), &**groups[0].group_id), (1, "g"));
            let partition = FetchedOffset {
                partition: 3,
                offset: 7,
                leader_epoch: 1,
                metadata: "note".to_owned(),
            };
            let topic =
                FetchedTopic { name: Text::from("t"), id: Uuid::ZERO, partitions: vec![partition] };
            let response = respond(version, vec![found(groups[0].clone(), vec![topic])]);
            assert_eq!(response.topics[0].partitions[0].committed_offset, 7);
            assert!(response.groups.is_empty());
            encodes(version, response);
        }
    }

    /// Kafka's `OffsetFetchResponse.groupError`: before version 2 there is no error at the top.
    #[test]
    fn a_group_that_cannot_be_asked_fails_where_the_version_has_room() {
        for version in 1..=9 {
            let group = groups_of(1, old()).remove(0);
            let response =
                respond(version, vec![failed(version, group, Error::CoordinatorLoadInProgress)]);
            if version < 2 {
                let partition = &response.topics[0].partitions[0];
                assert_eq!((partition.error_code, partition.committed_offset), (14, -1));
            } else if version < 8 {
                assert_eq!((response.error_code, response.topics.len()), (14, 0));
            } else {
                assert_eq!(response.groups[0].error_code, 14);
            }
            encodes(version, response);
        }
    }

    /// KafkaApis: an id that no topic has is UNKNOWN_TOPIC_ID; of all offsets of a group, those of
    /// topics that are gone are left out.
    #[test]
    fn topics_are_known_by_their_ids_since_version_10() {
        let image = image_with("t", 1);
        let topic = |id: u128| {
            OffsetFetchRequestTopics::default()
                .with_topic_id(uuid_to_wire(Uuid(id)))
                .with_partition_indexes(vec![0])
        };
        let offset = |name| FetchedTopic {
            name: Text::from(name),
            id: Uuid::ZERO,
            partitions: vec![FetchedOffset {
                partition: 0,
                offset: 5,
                leader_epoch: 1,
                metadata: String::new(),
            }],
        };
        let told = |mut group: OffsetFetchRequestGroup, results| {
            let unknown = name(&image, &mut group);
            let asked = fetch(&image, &group, false);
            let group = by_id(&image, found(group, results), unknown);
            let topics = group.topics.iter().map(|topic| {
                let partition = &topic.partitions[0];
                let id = uuid_from_wire(topic.topic_id).0;
                (id, partition.committed_offset, partition.error_code)
            });
            let topics: Vec<_> = topics.collect();
            encodes(10, respond(10, vec![group]));
            (asked.topics.map(|topics| topics.len()), topics)
        };
        let group = OffsetFetchRequestGroup::default();
        let some = group.clone().with_topics(Some(vec![topic(8), topic(7)]));
        assert_eq!(told(some, vec![offset("t")]), (Some(1), vec![(7, 5, 0), (8, -1, 100)]));
        let none_known = group.clone().with_topics(Some(vec![topic(8)]));
        assert_eq!(told(none_known, vec![]), (Some(0), vec![(8, -1, 100)]), "not all of them");
        let all = group.with_topics(None);
        assert_eq!(told(all, vec![offset("gone"), offset("t")]), (None, vec![(7, 5, 0)]));
    }
}
