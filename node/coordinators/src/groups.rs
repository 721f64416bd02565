//! All groups of one partition: finds the group that an input is about, and wakes those whose time
//! has come.

use crate::config::{Config, GROUP_ID_BYTES_MAX, GROUPS_MAX, MEMBER_BYTES_MAX};
use crate::error::{Error, Refusal};
use crate::group::Group;
use crate::join::{bytes_of, problem_of};
use crate::records::Record;
use crate::request::{Answer, JoinRefused, Left, OffsetFetch, Request, Text};
use crate::writes::{Then, WriteId, Writes};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use flowstone_types::{Instant, Timestamp, Uuid};

/// Names a request that the shell will answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// The time, on both clocks: one for time-outs, one for records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For time-outs.
    pub clock: Instant,
    /// For what is written.
    pub wall: Timestamp,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A client asks.
    Request {
        /// To be named in the answer.
        id: RequestId,
        /// What it asks.
        request: Request,
    },
    /// All writes up to this one are durable, but for those refused.
    Durable {
        /// The newest of them.
        through: WriteId,
    },
    /// Nothing of this write was appended, nor will be.
    Refused {
        /// The write.
        write: WriteId,
        /// Why.
        refusal: Refusal,
    },
    /// A topic is gone; its offsets go with it.
    TopicDeleted {
        /// Its name.
        name: Text,
        /// Its id.
        id: Uuid,
    },
    /// Time has passed: call at [`Groups::next_deadline`] or later.
    Tick,
}

/// What the shell must do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append these records to the partition, in this order, and tell their fate once: durable or
    /// refused. Where they do not fit one batch they may be spread over several, since each stands
    /// alone; a refusal must then come before any was appended. Where the fate is not certain, the
    /// shell must [`Groups::unload`].
    Append {
        /// To be named when its fate is told.
        write: WriteId,
        /// Keys and values, encoded.
        records: Vec<Record>,
    },
    /// Answer this request.
    Answer {
        /// Which.
        id: RequestId,
        /// With what.
        answer: Answer,
    },
}

/// The coordinator of one `__consumer_offsets` partition. Made by [`Loading`](crate::Loading).
#[derive(Debug)]
pub struct Groups {
    pub(crate) config: Config,
    pub(crate) by_id: BTreeMap<Text, Group>,
    /// One entry a group with a time-out: its `wake`.
    wakes: BTreeSet<(Instant, Text)>,
    /// What is in `wakes`, by group.
    woken_at: BTreeMap<Text, Instant>,
    /// What all members of all groups take.
    member_bytes: usize,
    pub(crate) writes: Writes,
    /// Fetches that wait for the writes which were under way when they came, oldest first.
    pub(crate) stable_fetches: VecDeque<(WriteId, RequestId, OffsetFetch)>,
    pub(crate) next_cleanup: Instant,
    /// The group that the clean-up goes on with, where one step was not enough.
    pub(crate) cleanup_from: Option<Text>,
}

/// What a decision is made with, and where it goes.
pub(crate) struct Turn<'a> {
    pub now: Now,
    pub config: &'a Config,
    pub writes: &'a mut Writes,
    pub effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    pub fn answer(&mut self, id: RequestId, answer: Answer) {
        self.effects.push(Effect::Answer { id, answer });
    }

    pub fn append(&mut self, records: Vec<Record>, then: Then) -> WriteId {
        let write = self.writes.begin(then);
        self.effects.push(Effect::Append { write, records });
        write
    }
}

impl Groups {
    /// Takes the groups over from the log.
    pub(crate) fn new(config: Config, by_id: BTreeMap<Text, Group>, now: Now) -> Self {
        Self {
            next_cleanup: now.clock.after(config.cleanup_interval()),
            config,
            by_id,
            wakes: BTreeSet::new(),
            woken_at: BTreeMap::new(),
            member_bytes: 0,
            writes: Writes::default(),
            stable_fetches: VecDeque::new(),
            cleanup_from: None,
        }
    }

    /// The time by which [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Instant {
        let first = self.wakes.first().map_or(Instant::NEVER, |(at, _)| *at);
        first.min(self.next_cleanup)
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Takes note of `input` and appends what follows to `effects`.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Request { id, request } => self.request(now, id, request, effects),
            Input::Durable { through } => self.durable(now, through, effects),
            Input::Refused { write, refusal } => self.refused(now, write, refusal, effects),
            Input::TopicDeleted { name, id } => self.topic_deleted(now, &name, id, effects),
            Input::Tick => self.tick(now, effects),
        }
    }

    /// New settings, from now on.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
    }

    /// This broker no longer coordinates these groups, or the log failed: all who wait are told to
    /// look for the coordinator.
    pub fn unload(mut self, effects: &mut Vec<Effect>) {
        let error = Error::NotCoordinator;
        let newest = self.writes.newest().unwrap_or(WriteId(0));
        while let Some((_, then)) = self.writes.take_oldest(newest) {
            if let Then::Offsets { answer: Some((id, answer)), .. } = then {
                effects.push(Effect::Answer { id, answer: answer.failed(error) });
            }
        }
        for (_, id, fetch) in self.stable_fetches {
            effects.push(Effect::Answer { id, answer: Request::Fetch(fetch).refused(error) });
        }
        for group in self.by_id.values_mut() {
            group.answer_all_waiting(error, effects);
        }
    }

    fn request(&mut self, now: Now, id: RequestId, request: Request, effects: &mut Vec<Effect>) {
        if let Some(error) = id_problem(&request) {
            effects.push(Effect::Answer { id, answer: request.refused(error) });
            return;
        }
        match request {
            Request::Join(join) => {
                let member = join.member.clone();
                let new = !self.by_id.contains_key(&join.group);
                let room = (!new || self.by_id.len() < GROUPS_MAX)
                    && self.member_bytes + bytes_of(&join) <= MEMBER_BYTES_MAX;
                let refused = |error| Answer::Join(Err(JoinRefused { error, member }));
                if let Some(error) = problem_of(&join, &self.config) {
                    effects.push(Effect::Answer { id, answer: refused(error) });
                } else if new && !join.member.is_empty() {
                    effects.push(Effect::Answer { id, answer: refused(Error::UnknownMemberId) });
                } else if !room {
                    let answer = refused(Error::CoordinatorNotAvailable);
                    effects.push(Effect::Answer { id, answer });
                } else {
                    let key = join.group.clone();
                    let group = self
                        .by_id
                        .entry(key.clone())
                        .or_insert_with(|| Group::new(key.clone(), now.wall));
                    let turn = &mut turn(&self.config, &mut self.writes, now, effects);
                    group.join(id, join, turn);
                    if new && group.is_vacant() {
                        self.forget(&key); // The join was refused.
                    } else if new {
                        group.write_beginning(turn);
                    }
                    self.reschedule(&key);
                }
            }
            Request::Sync(sync) => {
                let key = sync.group.clone();
                match self.with_group(now, &key, effects, |group, turn| group.sync(id, sync, turn))
                {
                    Some(()) => {}
                    None => effects.push(Effect::Answer {
                        id,
                        answer: Answer::Sync(Err(Error::UnknownMemberId)),
                    }),
                }
            }
            Request::Heartbeat(heartbeat) => {
                let key = heartbeat.group.clone();
                let result = self.with_group(now, &key, effects, |group, turn| {
                    group.heartbeat(&heartbeat, turn.now)
                });
                let answer = Answer::Heartbeat(result.unwrap_or(Err(Error::UnknownMemberId)));
                effects.push(Effect::Answer { id, answer });
            }
            Request::Leave(leave) => {
                let key = leave.group.clone();
                let left = self.with_group(now, &key, effects, |group, turn| {
                    group.leave(&leave.members, turn)
                });
                // An unknown group is told member by member.
                let unknown = |leaving: &crate::request::Leaving| Left {
                    member: leaving.member.clone(),
                    instance: leaving.instance.clone(),
                    error: Some(Error::UnknownMemberId),
                };
                let left = left.unwrap_or_else(|| Ok(leave.members.iter().map(unknown).collect()));
                effects.push(Effect::Answer { id, answer: Answer::Leave(left) });
            }
            Request::Commit(commit) => self.commit(now, id, commit, effects),
            Request::Fetch(fetch) => self.fetch(id, fetch, effects),
            Request::DeleteOffsets(delete) => self.delete_offsets(now, id, &delete, effects),
            Request::DeleteGroups(delete) => self.delete_groups(now, id, &delete, effects),
            Request::Describe(describe) => {
                let answer = Answer::Describe(self.describe(&describe));
                effects.push(Effect::Answer { id, answer });
            }
            Request::List(list) => {
                let answer = Answer::List(Ok(self.list(&list)));
                effects.push(Effect::Answer { id, answer });
            }
        }
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        // Those that are due now; one that is due again at once has its turn in the next tick.
        let later = self.wakes.split_off(&(Instant(now.clock.0.saturating_add(1)), Text::from("")));
        for (_, key) in core::mem::replace(&mut self.wakes, later) {
            self.woken_at.remove(&key);
            self.with_group(now, &key, effects, Group::time_out);
        }
        if self.next_cleanup <= now.clock {
            self.cleanup(now, effects);
        }
    }

    /// Calls `act` on a group, and notes when it next needs to be woken. `None` without the group.
    pub(crate) fn with_group<T>(
        &mut self,
        now: Now,
        key: &Text,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Group, &mut Turn<'_>) -> T,
    ) -> Option<T> {
        let group = self.by_id.get_mut(key)?;
        let result = act(group, &mut turn(&self.config, &mut self.writes, now, effects));
        self.reschedule(key);
        Some(result)
    }

    /// Holds this group no longer.
    pub(crate) fn forget(&mut self, key: &Text) -> Option<Group> {
        let group = self.by_id.remove(key)?;
        self.member_bytes -= group.bytes_counted;
        self.reschedule(key);
        Some(group)
    }

    /// Brings what is kept about `key` beside the group up to date.
    pub(crate) fn reschedule(&mut self, key: &Text) {
        let mut wake = Instant::NEVER;
        if let Some(group) = self.by_id.get_mut(key) {
            debug_assert!(group.wake <= group.earliest_deadline(), "a time-out would be missed");
            wake = group.wake;
            self.member_bytes -= group.bytes_counted;
            group.bytes_counted = group.roster.bytes();
            self.member_bytes += group.bytes_counted;
        }
        let before = self.woken_at.get(key).copied();
        if before == Some(wake) || (before.is_none() && wake == Instant::NEVER) {
            return; // As after nearly every heartbeat.
        }
        if let Some((id, before)) = self.woken_at.remove_entry(key) {
            self.wakes.remove(&(before, id));
        }
        if wake != Instant::NEVER {
            self.wakes.insert((wake, key.clone()));
            self.woken_at.insert(key.clone(), wake);
        }
    }
}

/// A turn of one group; a function, so that the borrow of the groups stays free.
pub(crate) fn turn<'a>(
    config: &'a Config,
    writes: &'a mut Writes,
    now: Now,
    effects: &'a mut Vec<Effect>,
) -> Turn<'a> {
    Turn { now, config, writes, effects }
}

/// What is wrong with the group id. Kafka lets the empty one hold offsets, for old clients.
fn id_problem(request: &Request) -> Option<Error> {
    let (group, may_be_empty) = match request {
        Request::Join(join) => (&join.group, false),
        Request::Sync(sync) => (&sync.group, false),
        Request::Heartbeat(heartbeat) => (&heartbeat.group, false),
        Request::Leave(leave) => (&leave.group, false),
        Request::DeleteOffsets(delete) => (&delete.group, false),
        Request::Commit(commit) => (&commit.group, true),
        Request::Fetch(fetch) => (&fetch.group, true),
        Request::DeleteGroups(_) | Request::Describe(_) | Request::List(_) => return None,
    };
    let bad = (group.is_empty() && !may_be_empty) || group.len() > GROUP_ID_BYTES_MAX;
    bad.then_some(Error::InvalidGroupId)
}
