//! Fetch (key 1): records from the partitions a consumer names, as soon as there are enough.
//!
//! This file is the protocol: names, sessions (KIP-227, `fetch_session.rs`), what a response leaves
//! out. The reading and waiting is `reading.rs`.

use crate::client::Client;
use crate::fetch_session::{Asked, Plan, Said, SessionError, Sessions, Wanted};
use crate::reading::{self, Appetite, Look};
use crate::shard::Shard;
use crate::standing::Standing;
use bytes::Bytes;
use flowstone_runtime::now;
use flowstone_types::Uuid;
use flowstone_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use flowstone_wire::messages::{FetchRequest, FetchResponse, TopicName};
use flowstone_wire::{ErrorCode, uuid_from_wire, uuid_to_wire};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

/// How a consumer names a partition: by topic id since version 13, by name before. One that does
/// not exist is kept as it was named, and answered so each time.
#[derive(Clone, Eq, Debug)]
pub struct Key {
    /// Its topic's name; empty where the id is given.
    pub topic: TopicName,
    /// Its topic's id; zero where the name is given.
    pub topic_id: Uuid,
    /// Its number.
    pub index: i32,
}

impl Key {
    /// Whether both are of one topic.
    ///
    /// Empty names are not compared: glibc's `memcmp` reads them by a masked load from where nothing is
    /// mapped, which the processor undoes in 80 ns. In a fetch of 16 partitions that was an eighth of its time.
    fn is_beside(&self, other: &Self) -> bool {
        self.topic_id == other.topic_id
            && self.topic.len() == other.topic.len()
            && (self.topic.is_empty() || self.topic == other.topic)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.is_beside(other)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.topic_id, self.index).hash(state);
        if !self.topic.is_empty() {
            self.topic.hash(state);
        }
    }
}

/// Versions from this on have sessions.
const SESSIONS_SINCE_VERSION: i16 = 7;
/// `isolation_level` of a consumer that wants no records of aborted transactions.
const READ_COMMITTED: i8 = 1;

/// A response, and the slices of the log that it carries: of each partition in turn.
pub struct Fetched {
    /// All but the records.
    pub response: FetchResponse,
    /// The records.
    pub records: Vec<Vec<Bytes>>,
}

/// Answers a fetch.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    sessions: &mut Sessions<Key>,
    standing: &mut Standing,
    request: FetchRequest,
) -> Fetched {
    if request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0 {
        return refuse(ErrorCode::NotLeaderOrFollower); // No other node is a replica of ours.
    }
    let sessionless = client.version < SESSIONS_SINCE_VERSION;
    let asked = Asked {
        id: request.session_id,
        epoch: if sessionless { -1 } else { request.session_epoch },
    };
    let forgotten: Vec<Key> = forgotten(&request);
    let plan = sessions.plan(asked, wanted(&request), &forgotten, shard.new_session_id());
    let plan = match plan {
        Ok(plan) => plan,
        Err(SessionError::IdNotFound) => return refuse(ErrorCode::FetchSessionIdNotFound),
        Err(SessionError::InvalidEpoch) => return refuse(ErrorCode::InvalidFetchSessionEpoch),
    };
    let appetite = Appetite {
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        until: now().after(Duration::from_millis(request.max_wait_ms.max(0) as u64)),
        max_bytes: (request.max_bytes.max(0) as usize)
            .min(shard.node.config.settings.fetch_bytes_max as usize),
    };
    let looks = reading::read(shard, client, standing, &plan.wanted, appetite).await;
    respond(sessions, plan, looks, request.isolation_level)
}

fn wanted(request: &FetchRequest) -> Vec<Wanted<Key>> {
    let topics = request.topics.iter();
    topics
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Wanted {
                key: key(&topic.topic, uuid_from_wire(topic.topic_id), partition.partition),
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            })
        })
        .collect()
}

fn forgotten(request: &FetchRequest) -> Vec<Key> {
    let topics = request.forgotten_topics_data.iter();
    topics
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|index| key(&topic.topic, uuid_from_wire(topic.topic_id), *index))
        })
        .collect()
}

fn key(topic: &TopicName, topic_id: Uuid, index: i32) -> Key {
    Key { topic: topic.clone(), topic_id, index }
}

fn refuse(code: ErrorCode) -> Fetched {
    let response = FetchResponse::default().with_error_code(code as i16);
    Fetched { response, records: Vec::new() }
}

fn respond(
    sessions: &mut Sessions<Key>,
    plan: Plan<Key>,
    looks: Vec<Look>,
    isolation_level: i8,
) -> Fetched {
    let mut response = FetchResponse::default().with_session_id(plan.session_id);
    let mut records = Vec::with_capacity(plan.wanted.len());
    let mut last: Option<Key> = None;
    for (wanted, mut look) in plan.wanted.into_iter().zip(looks) {
        let key = wanted.key;
        let slices =
            look.as_mut().map(|found| std::mem::take(&mut found.parts)).unwrap_or_default();
        let data = partition_data(key.index, look, isolation_level);
        let said = Said { high_watermark: data.high_watermark, log_start: data.log_start_offset };
        let always =
            data.error_code != 0 || !slices.is_empty() || data.diverging_epoch.end_offset >= 0;
        if !sessions.is_news(&key, said, always) && plan.incremental {
            continue;
        }
        records.push(slices);
        match response.responses.last_mut() {
            Some(topic) if last.as_ref().is_some_and(|last| last.is_beside(&key)) => {
                topic.partitions.push(data);
            }
            _ => response.responses.push(
                FetchableTopicResponse::default()
                    .with_topic(key.topic.clone())
                    .with_topic_id(uuid_to_wire(key.topic_id))
                    .with_partitions(vec![data]),
            ),
        }
        last = Some(key);
    }
    Fetched { response, records }
}

fn partition_data(index: i32, look: Look, isolation_level: i8) -> PartitionData {
    let data = PartitionData::default().with_partition_index(index);
    let found = match look {
        Ok(found) => found,
        Err(refusal) => {
            return data
                .with_error_code(refusal.code as i16)
                .with_high_watermark(-1)
                .with_last_stable_offset(-1)
                .with_log_start_offset(-1)
                .with_aborted_transactions(None);
        }
    };
    let mut data = data
        .with_high_watermark(found.high_watermark.0)
        // Without transactions nothing is undecided: what is committed is stable.
        .with_last_stable_offset(found.high_watermark.0)
        .with_log_start_offset(found.log_start.0)
        .with_records(Some(Bytes::new())); // Or rather what `Fetched::records` has.
    data.aborted_transactions = (isolation_level == READ_COMMITTED).then(Vec::new);
    if let Some((epoch, end)) = found.diverging {
        data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0);
    }
    data
}
