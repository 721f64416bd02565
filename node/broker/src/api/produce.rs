//! Produce (key 0): append one batch per partition, answer when it is committed.
//!
//! In two steps, so that a connection's next request need not wait for this one's disk: `begin`
//! checks and appends in the order of the requests, `Begun::answer` waits for the commits.

use crate::client::Client;
use crate::partition::Committed;
use crate::refusal::Refusal;
use crate::shard::Shard;
use bytes::Bytes;
use flowstone_batch::{self as batch, Checked, Origin};
use flowstone_runtime::{deadline, now, offload, wall_clock};
use flowstone_store::Appended;
use flowstone_types::{Instant, PartitionId};
use flowstone_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use flowstone_wire::messages::{ProduceRequest, ProduceResponse};
use flowstone_wire::{ErrorCode, string, uuid_from_wire};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Produce versions before this know no zstd (KIP-110).
const ZSTD_SINCE_VERSION: i16 = 7;

/// The least time that a commit is given, whatever a request says: in Kafka a request's time bounds
/// the wait for other replicas, not the broker's own disk, so clients send 0 and are acknowledged.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// A batch of which more would have to be compressed anew is checked beside the shard: gzip takes
/// 1 ms for these bytes, and 17 ms for a batch of 1 MiB, in which the shard would serve nobody.
const CONVERTED_HERE_BYTES_MAX: usize = 64 << 10;

/// A request whose batches are appended, or refused.
pub struct Begun {
    response: ProduceResponse,
    /// Where in the response the outcome goes that is still to come.
    local: Vec<(Place, Appended, Committed)>,
    remote: Vec<crate::peers::Answer<Vec<(Place, Outcome)>>>,
    until: Instant,
}

type Outcome = Result<Appended, Refusal>;

/// What an append gave: what to answer, and what to wait for before.
type Appending = Result<(Appended, Committed), Refusal>;

/// Index of a topic and of a partition within it, in request and response alike.
type Place = (usize, usize);

/// One batch on its way to the shard that owns its partition.
struct Entry {
    place: Place,
    id: PartitionId,
    batch: Checked,
}

/// Checks and appends; what comes back waits for the disk only.
pub async fn begin(shard: &Rc<Shard>, client: &Client, request: ProduceRequest) -> Begun {
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut begun = Begun {
        response: ProduceResponse::default(),
        local: Vec::new(),
        remote: Vec::new(),
        until: now().after(timeout.max(PATIENCE_MIN)),
    };
    let refused = refuse_whole(&request);
    let mut away: BTreeMap<usize, Vec<Entry>> = BTreeMap::new();
    for (topic_at, topic) in request.topic_data.into_iter().enumerate() {
        let mut answer = TopicProduceResponse::default();
        answer.name = topic.name.clone();
        answer.topic_id = topic.topic_id;
        for (at, data) in topic.partition_data.into_iter().enumerate() {
            answer.partition_responses.push(unanswered(data.index));
            let place = (topic_at, at);
            let checked = if let Some(refusal) = &refused {
                Err(refusal.clone())
            } else {
                match shard.resolve(&topic.name, uuid_from_wire(topic.topic_id), data.index) {
                    Ok(id) => check(shard, client, id, data.records.unwrap_or_default()).await,
                    Err(refusal) => Err(refusal),
                }
            };
            match checked {
                Err(refusal) => fill(&mut answer.partition_responses[at], &Err(refusal)),
                Ok((id, batch)) => {
                    let owner = shard.owner_of(id);
                    away.entry(owner).or_default().push(Entry { place, id, batch });
                }
            }
        }
        begun.response.responses.push(answer);
    }
    for (owner, entries) in away {
        client.touches(owner);
        shard.room_at(owner).await;
        if owner == shard.index {
            for Entry { place, id, batch } in entries {
                match append(shard, id, batch) {
                    Ok((appended, committed)) => begun.local.push((place, appended, committed)),
                    Err(refusal) => begun.fill(place, &Err(refusal)),
                }
            }
        } else {
            let until = begun.until;
            let work = move |owner: &Rc<Shard>| {
                let appended: Vec<_> =
                    entries.into_iter().map(|e| (e.place, append(owner, e.id, e.batch))).collect();
                commit_all(appended, until)
            };
            begun.remote.push(shard.post(owner, work).await);
        }
    }
    begun
}

impl Begun {
    /// Waits until everything that was appended is committed, or the request's time is over.
    pub async fn answer(mut self) -> ProduceResponse {
        for (place, appended, committed) in std::mem::take(&mut self.local) {
            let outcome = commit(appended, committed, self.until).await;
            self.fill(place, &outcome);
        }
        for answer in std::mem::take(&mut self.remote) {
            for (place, outcome) in answer.get().await {
                self.fill(place, &outcome);
            }
        }
        self.response
    }

    fn fill(&mut self, (topic, partition): Place, outcome: &Outcome) {
        fill(&mut self.response.responses[topic].partition_responses[partition], outcome);
    }
}

/// What failed in a request that asked for no response: closing the connection is the only way
/// left to tell its client.
pub fn failure(response: &ProduceResponse) -> Option<String> {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let code = partitions.find(|partition| partition.error_code != 0)?.error_code;
    let name = ErrorCode::from_number(code).map_or("an error", ErrorCode::name);
    Some(format!("a produce with acks=0 failed with {name}"))
}

/// What is wrong with the request before any batch is looked at.
fn refuse_whole(request: &ProduceRequest) -> Option<Refusal> {
    if !(-1..=1).contains(&request.acks) {
        return Some(ErrorCode::InvalidRequiredAcks.into());
    }
    request.transactional_id.as_ref().map(|_| {
        Refusal::new(ErrorCode::InvalidTxnState, "transactions are not supported by this broker")
    })
}

async fn check(
    shard: &Shard,
    client: &Client,
    id: PartitionId,
    records: Bytes,
) -> Result<(PartitionId, Checked), Refusal> {
    let settings = shard.settings(id.topic)?;
    if settings.is_internal && !client.is_admin() {
        let text = format!("clients may not write to the internal topic {}", settings.topic);
        return Err(Refusal::new(ErrorCode::InvalidTopicException, &text));
    }
    let rules = settings.rules(client.version >= ZSTD_SINCE_VERSION);
    let now = wall_clock();
    let checked = if batch::conversion_bytes(&records, &rules) > CONVERTED_HERE_BYTES_MAX {
        offload(move || batch::check(records, &rules, now)).await
    } else {
        batch::check(records, &rules, now)
    };
    let checked = checked.inspect_err(|_| shard.metrics.batch_refused());
    checked.map(|batch| (id, batch)).map_err(Refusal::from)
}

/// Appends on the shard that owns the partition.
fn append(
    shard: &Shard,
    id: PartitionId,
    batch: Checked,
) -> Result<(Appended, Committed), Refusal> {
    let partition = shard.partition(id)?;
    let appended = partition.append(batch, Origin::Client)?;
    shard.tell_room();
    let committed = partition.committed(appended.last_offset.plus(1));
    Ok((appended, committed))
}

async fn commit_all(appended: Vec<(Place, Appending)>, until: Instant) -> Vec<(Place, Outcome)> {
    let mut outcomes = Vec::with_capacity(appended.len());
    for (place, one) in appended {
        let outcome = match one {
            Ok((appended, committed)) => commit(appended, committed, until).await,
            Err(refusal) => Err(refusal),
        };
        outcomes.push((place, outcome));
    }
    outcomes
}

async fn commit(appended: Appended, committed: Committed, until: Instant) -> Outcome {
    match deadline(until, committed).await {
        Some(Some(Ok(()))) => Ok(appended),
        // The records may or may not be there: the client retries, a producer id tells them apart.
        Some(_) => Err(ErrorCode::KafkaStorageError.into()),
        None => Err(ErrorCode::RequestTimedOut.into()),
    }
}

fn unanswered(index: i32) -> PartitionProduceResponse {
    let mut answer = PartitionProduceResponse::default();
    answer.index = index;
    answer
}

fn fill(answer: &mut PartitionProduceResponse, outcome: &Outcome) {
    match outcome {
        Ok(appended) => {
            answer.base_offset = appended.base_offset.0;
            answer.log_append_time_ms = appended.log_append_time.map_or(-1, |time| time.0);
            answer.log_start_offset = appended.log_start.0;
        }
        Err(refusal) => {
            answer.error_code = refusal.code as i16;
            answer.base_offset = -1;
            answer.log_append_time_ms = -1;
            answer.log_start_offset = -1;
            answer.error_message = refusal.message.clone().map(string);
            for (index, text) in &refusal.record_errors {
                let mut error = BatchIndexAndErrorMessage::default();
                error.batch_index = *index;
                error.batch_index_error_message = text.clone().map(string);
                answer.record_errors.push(error);
            }
        }
    }
}
