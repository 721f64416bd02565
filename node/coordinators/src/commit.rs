//! OffsetCommit, OffsetFetch and OffsetDelete.

use crate::config::{Config, GROUPS_MAX, OFFSET_METADATA_UNITS_MAX, OFFSETS_PER_GROUP_MAX};
use crate::error::Error;
use crate::group::{Group, State};
use crate::groups::{Effect, Groups, Now, RequestId, turn};
use crate::offsets::{Committed, OffsetKey, Offsets};
use crate::records;
use crate::request::{
    Answer, Commit, CommitTopic, FetchTopic, FetchedOffset, FetchedTopic, OffsetCommit,
    OffsetDelete, OffsetFetch, PartitionResult, Request, TopicResult,
};
use crate::writes::Then;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_types::{Timestamp, Uuid, valid_topic_name};

/// First version of OffsetCommit in which an unknown group is said to be one (KIP-848).
const GROUP_ID_NOT_FOUND_SINCE: i16 = 9;

impl Groups {
    pub(crate) fn commit(
        &mut self,
        now: Now,
        id: RequestId,
        commit: OffsetCommit,
        effects: &mut Vec<Effect>,
    ) {
        let key = commit.group.clone();
        let new = !self.by_id.contains_key(&key);
        let room = self.by_id.len() < GROUPS_MAX;
        let allowed = match self.by_id.get_mut(&key) {
            Some(group) => group.may_commit(&commit),
            // Without members, a group begins with its first offset.
            None if commit.generation < 0 && room => Ok(()),
            None if commit.generation < 0 => Err(Error::CoordinatorNotAvailable),
            None if commit.version >= GROUP_ID_NOT_FOUND_SINCE => Err(Error::GroupIdNotFound),
            None => Err(Error::IllegalGeneration),
        };
        if let Err(error) = allowed {
            let answer = Request::Commit(commit).refused(error);
            effects.push(Effect::Answer { id, answer });
            return;
        }
        let group =
            self.by_id.entry(key.clone()).or_insert_with(|| Group::new(key.clone(), now.wall));
        // A commit shows that its member is alive, as a heartbeat does.
        if matches!(group.state, State::Stable { .. } | State::Preparing(_)) {
            group.hear_from(&commit.member, now.clock);
        }
        let write = self.writes.next();
        let (mut records, mut keys, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for topic in &commit.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for one in &topic.partitions {
                let known = group.offsets.newest(&topic.name, one.partition).is_some();
                let full = !known && group.offsets.len() >= OFFSETS_PER_GROUP_MAX;
                let error = problem_of(topic, one, full, &self.config);
                partitions.push(PartitionResult { partition: one.partition, error });
                if error.is_some() {
                    continue;
                }
                let value = committed(topic, one, commit.retention_ms, now.wall);
                let key = OffsetKey {
                    group: key.clone(),
                    topic: topic.name.clone(),
                    partition: one.partition,
                };
                records.push(records::offset(&key, &value));
                group.offsets.begin(&topic.name, one.partition, write, Some(value));
                keys.push(key);
            }
            results.push(TopicResult { name: topic.name.clone(), id: topic.id, partitions });
        }
        let answer = Answer::Commit(results);
        if records.is_empty() {
            if new {
                self.forget(&key);
            }
            effects.push(Effect::Answer { id, answer });
        } else {
            let then = Then::Offsets { keys, deleted: Vec::new(), answer: Some((id, answer)) };
            turn(&self.config, &mut self.writes, now, effects).append(records, then);
        }
        self.reschedule(&key);
    }

    pub(crate) fn fetch(&mut self, id: RequestId, fetch: OffsetFetch, effects: &mut Vec<Effect>) {
        // Kafka 4 lets such a fetch wait for what is under way, where it once answered
        // UNSTABLE_OFFSET_COMMIT (KIP-447): no client has to come back, and none sees an offset that
        // is overtaken already.
        if let Some(newest) = self.writes.newest().filter(|_| fetch.require_stable) {
            self.stable_fetches.push_back((newest, id, fetch));
        } else {
            let answer = Answer::Fetch(Ok(self.fetched(&fetch)));
            effects.push(Effect::Answer { id, answer });
        }
    }

    /// Answers the fetches that waited for writes which are all settled now.
    pub(crate) fn release_fetches(&mut self, effects: &mut Vec<Effect>) {
        let oldest = self.writes.oldest();
        while let Some((newest, _, _)) = self.stable_fetches.front()
            && oldest.is_none_or(|oldest| *newest < oldest)
        {
            let (_, id, fetch) = self.stable_fetches.pop_front().expect("it was looked at");
            let answer = Answer::Fetch(Ok(self.fetched(&fetch)));
            effects.push(Effect::Answer { id, answer });
        }
    }

    /// An unknown group has no offsets, and that is no error.
    fn fetched(&self, fetch: &OffsetFetch) -> Vec<FetchedTopic> {
        let offsets = self.by_id.get(&fetch.group).map(|group| &group.offsets);
        let Some(topics) = &fetch.topics else {
            let all = offsets.into_iter().flat_map(Offsets::all_durable);
            return all
                .map(|(name, found)| FetchedTopic {
                    name: name.clone(),
                    id: Uuid::ZERO,
                    partitions: found.into_iter().map(|(at, value)| found_at(at, value)).collect(),
                })
                .collect();
        };
        let one = |topic: &FetchTopic, partition: i32| {
            let value = offsets.and_then(|offsets| offsets.durable(&topic.name, partition));
            // An offset of a topic that was deleted and made again is none of the new one.
            let same = |value: &&Committed| {
                value.topic_id.is_zero() || topic.id.is_zero() || value.topic_id == topic.id
            };
            match value.filter(same) {
                Some(value) => found_at(partition, value),
                None => FetchedOffset {
                    partition,
                    offset: -1,
                    leader_epoch: -1,
                    metadata: String::new(),
                },
            }
        };
        let topic = |topic: &FetchTopic| FetchedTopic {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.partitions.iter().map(|partition| one(topic, *partition)).collect(),
        };
        topics.iter().map(topic).collect()
    }

    pub(crate) fn delete_offsets(
        &mut self,
        now: Now,
        id: RequestId,
        delete: &OffsetDelete,
        effects: &mut Vec<Effect>,
    ) {
        let group = self.by_id.get_mut(&delete.group);
        let (group, allowed) = match group {
            None => (None, Err(Error::GroupIdNotFound)),
            Some(group) => {
                let allowed = group.may_delete_offsets();
                (Some(group), allowed)
            }
        };
        let Some(group) = group.filter(|_| allowed.is_ok()) else {
            let answer = Answer::DeleteOffsets(Err(allowed.expect_err("filtered by it")));
            effects.push(Effect::Answer { id, answer });
            return;
        };
        let write = self.writes.next();
        let (mut records, mut keys, mut results) = (Vec::new(), Vec::new(), Vec::new());
        for (topic, partitions) in &delete.topics {
            let subscribed = group.is_subscribed_to(topic);
            let error = subscribed.then_some(Error::GroupSubscribedToTopic);
            let result = |partition: &i32| PartitionResult { partition: *partition, error };
            results.push(TopicResult {
                name: topic.clone(),
                id: Uuid::ZERO,
                partitions: partitions.iter().map(result).collect(),
            });
            for partition in partitions.iter().filter(|_| !subscribed) {
                if group.offsets.newest(topic, *partition).is_some() {
                    let group_id = delete.group.clone();
                    let key =
                        OffsetKey { group: group_id, topic: topic.clone(), partition: *partition };
                    records.push(records::offset_tombstone(&key));
                    group.offsets.begin(topic, *partition, write, None);
                    keys.push(key);
                }
            }
        }
        let answer = Answer::DeleteOffsets(Ok(results));
        if records.is_empty() {
            effects.push(Effect::Answer { id, answer });
        } else {
            let then = Then::Offsets { keys, deleted: Vec::new(), answer: Some((id, answer)) };
            turn(&self.config, &mut self.writes, now, effects).append(records, then);
        }
    }
}

impl Group {
    /// Kafka's checks, in its order.
    fn may_commit(&self, commit: &OffsetCommit) -> Result<(), Error> {
        let empty = match self.state {
            State::Dead => return Err(Error::CoordinatorNotAvailable),
            State::Empty => true,
            State::Preparing(_) | State::Completing { .. } | State::Stable { .. } => false,
        };
        if commit.generation < 0 && empty {
            return Ok(()); // A consumer that assigns its partitions itself, or a tool.
        }
        if commit.generation >= 0 || !commit.member.is_empty() || commit.instance.is_some() {
            self.validate(&commit.member, commit.instance.as_ref())?;
            if commit.generation != self.generation {
                return Err(Error::IllegalGeneration);
            }
        } else {
            return Err(Error::UnknownMemberId); // Nobody may commit past the members.
        }
        match self.state {
            // It knows the generation, but not yet what it owns.
            State::Completing { .. } => Err(Error::RebalanceInProgress),
            State::Empty | State::Preparing(_) | State::Stable { .. } | State::Dead => Ok(()),
        }
    }

    /// A group whose members' topics we can tell may have the offsets of others deleted (KIP-496).
    fn may_delete_offsets(&self) -> Result<(), Error> {
        match self.state {
            State::Dead => Err(Error::GroupIdNotFound),
            State::Empty => Ok(()),
            State::Preparing(_) | State::Completing { .. } | State::Stable { .. } => {
                if self.uses_consumer_protocol() { Ok(()) } else { Err(Error::NonEmptyGroup) }
            }
        }
    }
}

fn problem_of(topic: &CommitTopic, one: &Commit, full: bool, config: &Config) -> Option<Error> {
    let units_max = usize::try_from(config.offset_metadata_max).unwrap_or(0);
    let units_max = units_max.min(OFFSET_METADATA_UNITS_MAX);
    // UTF-16 has no more units than UTF-8 has bytes, so most need not be counted.
    let too_large =
        |text: &String| text.len() > units_max && text.encode_utf16().count() > units_max;
    if one.metadata.as_ref().is_some_and(too_large) {
        Some(Error::OffsetMetadataTooLarge)
    } else if !valid_topic_name(&topic.name) || one.partition < 0 {
        Some(Error::InvalidRequest)
    } else if full {
        Some(Error::UnknownServerError)
    } else {
        None
    }
}

fn committed(topic: &CommitTopic, one: &Commit, retention_ms: i64, now: Timestamp) -> Committed {
    Committed {
        offset: one.offset,
        leader_epoch: one.leader_epoch,
        metadata: one.metadata.as_deref().unwrap_or("").into(),
        at: now,
        expires_at: (retention_ms != -1).then(|| Timestamp(now.0.saturating_add(retention_ms))),
        topic_id: topic.id,
    }
}

fn found_at(partition: i32, value: &Committed) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.to_string(),
    }
}
