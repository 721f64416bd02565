//! The end of offsets and groups: expiry (KIP-211), deleted topics, DeleteGroups.

use crate::config::CLEANUP_RECORDS_MAX;
use crate::error::Error;
use crate::group::{Group, State};
use crate::groups::{Effect, Groups, Now, RequestId, turn};
use crate::offsets::{Committed, OffsetKey};
use crate::records::{self, Record};
use crate::request::{Answer, DeleteGroups, Text};
use crate::writes::{Then, WriteId};
use alloc::vec::Vec;
use core::ops::Bound;
use flowstone_types::{Timestamp, Uuid};

/// From when an offset's retention counts.
enum RetainedSince {
    /// The group became empty then; `None` in old records, where the commit counts.
    Emptied(Option<Timestamp>),
    /// The offset was committed.
    Committed,
}

/// What is about to be dropped with one write.
#[derive(Default)]
struct Drops {
    records: Vec<Record>,
    keys: Vec<OffsetKey>,
    deleted: Vec<Text>,
}

impl Drops {
    fn offset(&mut self, group: &mut Group, topic: &Text, partition: i32, write: WriteId) {
        let key = OffsetKey { group: group.id.clone(), topic: topic.clone(), partition };
        self.records.push(records::offset_tombstone(&key));
        self.keys.push(key);
        group.offsets.begin(topic, partition, write, None);
    }

    /// The group itself; it is out of bounds until the log has its tombstone.
    fn group(&mut self, group: &mut Group) {
        assert!(matches!(group.state, State::Empty), "only an empty group is deleted");
        self.records.push(records::group_tombstone(&group.id));
        self.deleted.push(group.id.clone());
        group.state = State::Dead;
    }
}

impl Groups {
    /// One step of the clean-up. It goes on at once where there is more, and else after the
    /// interval.
    pub(crate) fn cleanup(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let write = self.writes.next();
        let retention_ms = self.config.offsets_retention_ms;
        let mut drops = Drops::default();
        let from = self.cleanup_from.take().map_or(Bound::Unbounded, Bound::Included);
        let mut reached = None;
        for (id, group) in self.by_id.range_mut::<Text, _>((from, Bound::Unbounded)) {
            let room = CLEANUP_RECORDS_MAX.saturating_sub(drops.records.len());
            if room == 0 {
                break;
            }
            let expired = group.expired(retention_ms, now.wall, room);
            for (topic, partition) in expired {
                drops.offset(group, &topic, partition, write);
            }
            let gone = group.offsets.all_newest().next().is_none();
            // Kafka drops an empty group without offsets at its next round, however young; we spare
            // one that a member was just invited into.
            if gone && matches!(group.state, State::Empty) && group.roster.invited().is_empty() {
                drops.group(group);
            }
            reached = Some(id.clone());
        }
        let more = drops.records.len() >= CLEANUP_RECORDS_MAX;
        if more {
            // The last group may have more to drop. What is being dropped is not found again.
            self.cleanup_from = reached;
            self.next_cleanup = now.clock;
        } else {
            self.rest_from_cleanup(now);
        }
        self.drop_all(now, drops, None, effects);
    }

    /// The next round begins after the interval: this one is done, or the log takes nothing now.
    pub(crate) fn rest_from_cleanup(&mut self, now: Now) {
        self.cleanup_from = None;
        self.next_cleanup = now.clock.after(self.config.cleanup_interval());
    }

    pub(crate) fn topic_deleted(
        &mut self,
        now: Now,
        name: &Text,
        id: Uuid,
        effects: &mut Vec<Effect>,
    ) {
        let write = self.writes.next();
        let mut drops = Drops::default();
        for group in self.by_id.values_mut() {
            let of_it = |value: &Committed| value.topic_id.is_zero() || value.topic_id == id;
            let partitions: Vec<i32> = (group.offsets.newest_of(name))
                .filter_map(|(partition, value)| of_it(value).then_some(partition))
                .collect();
            for partition in partitions {
                drops.offset(group, name, partition, write);
            }
        }
        self.drop_all(now, drops, None, effects);
    }

    pub(crate) fn delete_groups(
        &mut self,
        now: Now,
        id: RequestId,
        delete: &DeleteGroups,
        effects: &mut Vec<Effect>,
    ) {
        let write = self.writes.next();
        let mut drops = Drops::default();
        let mut results = Vec::with_capacity(delete.groups.len());
        for group_id in &delete.groups {
            let error = match self.by_id.get_mut(group_id) {
                None => Some(Error::GroupIdNotFound),
                Some(group) => match group.state {
                    State::Dead => Some(Error::GroupIdNotFound),
                    State::Preparing(_) | State::Completing { .. } | State::Stable { .. } => {
                        Some(Error::NonEmptyGroup)
                    }
                    State::Empty => {
                        let all: Vec<(Text, i32)> = (group.offsets.all_newest())
                            .map(|(topic, partition, _)| (topic.clone(), partition))
                            .collect();
                        for (topic, partition) in all {
                            drops.offset(group, &topic, partition, write);
                        }
                        drops.group(group);
                        None
                    }
                },
            };
            results.push((group_id.clone(), error));
        }
        self.drop_all(now, drops, Some((id, Answer::DeleteGroups(results))), effects);
    }

    fn drop_all(
        &mut self,
        now: Now,
        drops: Drops,
        answer: Option<(RequestId, Answer)>,
        effects: &mut Vec<Effect>,
    ) {
        let Drops { records, keys, deleted } = drops;
        if records.is_empty() {
            effects.extend(answer.map(|(id, answer)| Effect::Answer { id, answer }));
            return;
        }
        let then = Then::Offsets { keys, deleted, answer };
        turn(&self.config, &mut self.writes, now, effects).append(records, then);
    }
}

impl Group {
    /// Up to `limit` partitions whose offsets are past their retention.
    fn expired(&self, retention_ms: i64, now: Timestamp, limit: usize) -> Vec<(Text, i32)> {
        let Some(since) = self.retained_since() else { return Vec::new() };
        let over = |value: &Committed| {
            if let Some(at) = value.expires_at {
                return at <= now;
            }
            let start = match since {
                RetainedSince::Emptied(Some(at)) => at,
                RetainedSince::Emptied(None) | RetainedSince::Committed => value.at,
            };
            now.0.saturating_sub(start.0) >= retention_ms
        };
        self.offsets
            .all_newest()
            .filter(|(topic, _, value)| !self.is_subscribed_to(topic) && over(value))
            .take(limit)
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect()
    }

    /// `None` while nothing may expire.
    fn retained_since(&self) -> Option<RetainedSince> {
        if self.protocol_type.is_none() {
            return Some(RetainedSince::Committed); // Only offsets, no members ever.
        }
        match self.state {
            State::Empty => Some(RetainedSince::Emptied(self.state_since)),
            // Members that read other topics by now.
            State::Stable { .. } if self.uses_consumer_protocol() && self.subscribed.is_some() => {
                Some(RetainedSince::Committed)
            }
            State::Stable { .. } | State::Preparing(_) | State::Completing { .. } | State::Dead => {
                None
            }
        }
    }
}
