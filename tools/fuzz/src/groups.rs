//! The group coordinator: its records, and requests whose fields are within the wire's types and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_coordinators::{
    Commit, CommitTopic, Config, DeleteGroups, DescribeGroups, Effect, FetchTopic,
    GroupMetadataKey, GroupMetadataValue, Groups, Heartbeat, Input as Happened, JoinGroup,
    LeaveGroup, Leaving, ListGroups, Loading, Now, OffsetCommit, OffsetCommitKey,
    OffsetCommitValue, OffsetDelete, OffsetFetch, Protocol, Record, Refusal, Request, RequestId,
    SyncGroup, Text, WriteId,
};
use flowstone_types::{Instant, Timestamp, Uuid};

use crate::bytes_in::Input;
use crate::quorum::there_and_back;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Pieces, in turn a key and a value; a value of one byte is a tombstone. What decodes is written the same; the groups
/// that they make take time and questions.
pub(crate) fn records(data: &[u8]) {
    let mut input = Input(data);
    let mut loading = Loading::new();
    while let Some(key) = input.piece() {
        let value = input.piece().filter(|value| value.len() != 1);
        if let Err(error) = loading.replay(key, value) {
            drop(error.to_string());
        }
        if let Some((_, key)) = key.split_first_chunk::<2>() {
            there_and_back::<OffsetCommitKey>(0, key);
            there_and_back::<GroupMetadataKey>(0, key);
        }
        if let Some(([_, version], value)) = value.and_then(<[u8]>::split_first_chunk::<2>) {
            there_and_back::<OffsetCommitValue>(*version, value);
            there_and_back::<GroupMetadataValue>(*version, value);
        }
    }
    let mut life = Life::begin(loading);
    life.pass(Duration::from_secs(10));
    life.pass(Duration::from_hours(24 * 30));
    life.settle(false);
}

/// Each request begins with a byte that chooses its kind; then its fields.
pub(crate) fn requests(data: &[u8]) {
    let mut input = Input(data);
    let mut life = Life::begin(Loading::new());
    while input.has_more() && life.asked < REQUESTS_MAX {
        match input.byte() {
            200.. => life.pass(Duration::from_millis(u64::from(input.byte()) * 100)),
            180..200 => life.settle(false),
            170..180 => life.settle(true),
            kind => {
                let request = life.request(kind % 10, &mut input);
                life.ask(request);
            }
        }
    }
    life.settle(false);
    life.pass(Duration::from_hours(1));
    // What was appended makes groups again.
    let mut loading = Loading::new();
    for record in &life.appended {
        let value = record.value.as_deref();
        loading.replay(&record.key, value).expect("records of ours are read");
    }
    let mut again = Life::begin(loading);
    again.pass(Duration::from_secs(1));
    let mut effects = Vec::new();
    life.groups.unload(&mut effects);
}

/// Most requests of one input.
const REQUESTS_MAX: u64 = 200;

/// A coordinator, and the shell around it.
struct Life {
    groups: Groups,
    clock: Instant,
    asked: u64,
    answered: u64,
    waiting: Vec<(WriteId, Vec<Record>)>,
    appended: Vec<Record>,
    /// Ids that were handed out, for members who come back.
    members: Vec<Text>,
}

impl Life {
    fn begin(loading: Loading) -> Self {
        let clock = Instant(1_000_000);
        let mut effects = Vec::new();
        // Ages pass here in one stretch: a clean-up every ten minutes would be all that is tried.
        let config = Config { cleanup_interval_ms: 24 * 60 * 60 * 1000, ..Config::default() };
        let groups = loading.finish(config, now(clock), &mut effects);
        let mut life = Self {
            groups,
            clock,
            asked: 0,
            answered: 0,
            waiting: Vec::new(),
            appended: Vec::new(),
            members: Vec::new(),
        };
        life.take(effects);
        life
    }

    fn happened(&mut self, input: Happened) {
        let mut effects = Vec::new();
        self.groups.handle(now(self.clock), input, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { write, records } => {
                    assert!(self.waiting.last().is_none_or(|(last, _)| *last < write));
                    self.waiting.push((write, records));
                }
                Effect::Answer { answer, .. } => {
                    self.answered += 1;
                    assert!(self.answered <= self.asked, "an answer to nobody: {answer:?}");
                    if let flowstone_coordinators::Answer::Join(joined) = answer {
                        let member = joined.map_or_else(|no| no.member, |yes| yes.member);
                        self.members.push(member);
                    }
                }
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.asked += 1;
        let id = RequestId(self.asked);
        self.happened(Happened::Request { id, request });
    }

    /// Ticks until so much time has passed; a deadline that has come must move.
    fn pass(&mut self, time: Duration) {
        let until = self.clock.after(time);
        let mut ticks = 0;
        while self.groups.next_deadline() <= until && ticks < TICKS_MAX {
            self.clock = self.clock.max(self.groups.next_deadline());
            self.happened(Happened::Tick);
            self.settle(false);
            ticks += 1;
        }
        self.clock = until;
    }

    fn settle(&mut self, refused: bool) {
        while !self.waiting.is_empty() {
            let (write, records) = self.waiting.remove(0);
            if refused {
                let refusal = Refusal::TooLarge;
                self.happened(Happened::Refused { write, refusal });
            } else {
                self.appended.extend(records);
                self.happened(Happened::Durable { through: write });
            }
        }
    }

    fn member(&self, input: &mut Input<'_>) -> Text {
        match self.members.len() {
            count @ 1.. if input.byte() & 3 != 0 => {
                self.members[usize::from(input.byte()) % count].clone()
            }
            _ => text(input),
        }
    }

    fn request(&self, kind: u8, input: &mut Input<'_>) -> Request {
        let group = text(input);
        match kind {
            0 | 9 => Request::Join(JoinGroup {
                version: i16::from(input.byte() % 10),
                group,
                member: self.member(input),
                instance: maybe(input),
                session_timeout_ms: number(input),
                rebalance_timeout_ms: number(input),
                protocol_type: text(input),
                protocols: list(input, |input| Protocol {
                    name: text(input),
                    metadata: blob(input),
                }),
                client_id: text(input),
                client_host: Text::from("/192.0.2.7"),
                fresh: u128::from(self.asked),
            }),
            1 => Request::Sync(SyncGroup {
                group,
                generation: number(input),
                member: self.member(input),
                instance: maybe(input),
                protocol_type: maybe(input),
                protocol: maybe(input),
                assignments: list(input, |input| (self.member(input), blob(input))),
            }),
            2 => Request::Heartbeat(Heartbeat {
                group,
                generation: number(input),
                member: self.member(input),
                instance: maybe(input),
            }),
            3 => Request::Leave(LeaveGroup {
                group,
                members: list(input, |input| Leaving {
                    member: self.member(input),
                    instance: maybe(input),
                }),
            }),
            4 => Request::Commit(OffsetCommit {
                version: 2 + i16::from(input.byte() % 9),
                group,
                generation: number(input),
                member: self.member(input),
                instance: maybe(input),
                retention_ms: long(input),
                topics: list(input, |input| CommitTopic {
                    name: text(input),
                    id: Uuid(u128::from(input.byte())),
                    partitions: list(input, |input| Commit {
                        partition: number(input),
                        offset: long(input),
                        leader_epoch: number(input),
                        metadata: maybe(input).map(|text| text.to_string()),
                    }),
                }),
            }),
            5 => Request::Fetch(OffsetFetch {
                group,
                topics: (input.byte() & 1 == 0).then(|| {
                    list(input, |input| FetchTopic {
                        name: text(input),
                        id: Uuid(u128::from(input.byte())),
                        partitions: list(input, number),
                    })
                }),
                require_stable: input.byte() & 1 == 0,
            }),
            6 => Request::DeleteOffsets(OffsetDelete {
                group,
                topics: list(input, |input| (text(input), list(input, number))),
            }),
            7 => Request::DeleteGroups(DeleteGroups { groups: list(input, text) }),
            _ if input.byte() & 1 == 0 => Request::Describe(DescribeGroups {
                version: i16::from(input.byte() % 7),
                groups: list(input, text),
            }),
            _ => Request::List(ListGroups { states: list(input, text), types: list(input, text) }),
        }
    }
}

/// Deadlines that may come in one stretch of time: a clean-up goes in steps.
const TICKS_MAX: usize = 2000;

fn now(clock: Instant) -> Now {
    Now { clock, wall: Timestamp(NOW.0 + (clock.0 / 1_000_000) as i64) }
}

/// Few texts, so that requests meet each other's; some of them hostile.
fn text(input: &mut Input<'_>) -> Text {
    match input.byte() {
        0 => Text::from(""),
        1..8 => Text::from("g"),
        8..16 => Text::from("consumer"),
        16..24 => Text::from("range"),
        24 => Arc::from("x".repeat(i16::MAX as usize)),
        25 => Text::from("\0\u{10ffff}/../"),
        26 => Text::from("Stable"),
        length => {
            let bytes = input.take(usize::from(length & 7));
            Text::from(&*String::from_utf8_lossy(bytes))
        }
    }
}

fn maybe(input: &mut Input<'_>) -> Option<Text> {
    (input.byte() & 1 == 0).then(|| text(input))
}

fn number(input: &mut Input<'_>) -> i32 {
    match input.byte() {
        0 => i32::MIN,
        1 => i32::MAX,
        2 => -1,
        3 => 10_000,
        4 => i32::from_be_bytes(input.array()),
        small => i32::from(small) - 5,
    }
}

fn long(input: &mut Input<'_>) -> i64 {
    match input.byte() {
        0 => i64::MIN,
        1 => i64::MAX,
        2 => -1,
        3 => i64::from_be_bytes(input.array()),
        small => i64::from(small) - 4,
    }
}

fn blob(input: &mut Input<'_>) -> Bytes {
    let length = usize::from(input.byte());
    Bytes::copy_from_slice(input.take(length))
}

fn list<'a, T>(input: &mut Input<'a>, mut one: impl FnMut(&mut Input<'a>) -> T) -> Vec<T> {
    (0..input.byte() & 3).map(|_| one(input)).collect()
}
