//! Reads record batches from partitions, each from its own offset.
//!
//! Outside of any session (KIP-227; epoch -1 is the default): a tool's few partitions are told anew with each request.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use flowstone_batch::{Limits, Record, batches, records};
use flowstone_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use flowstone_wire::messages::{BrokerId, FetchRequest, FetchResponse};
use flowstone_wire::{ErrorCode, topic_name};

use super::{Cluster, Topic};
use crate::failure::{Failure, check};

/// First version that names topics by their id.
const TOPIC_IDS_SINCE: i16 = 13;
/// Most bytes of one response.
const RESPONSE_BYTES: i32 = 8 << 20;
/// Most bytes of one partition in it.
const PARTITION_BYTES: i32 = 1 << 20;

/// One partition's records.
pub struct Fetched {
    /// Its index.
    pub partition: i32,
    /// Records from the asked offset on, in order.
    pub records: Vec<Record>,
}

/// Reads partitions of one topic and keeps their positions.
pub struct Fetcher {
    /// The topic's name.
    pub topic: String,
    /// The next offset of each partition.
    pub positions: BTreeMap<i32, i64>,
}

impl Fetcher {
    /// Asks every leader once; waits up to `max_wait` for a first record.
    pub fn poll(
        &mut self,
        cluster: &mut Cluster,
        max_wait: Duration,
    ) -> Result<Vec<Fetched>, Failure> {
        let topic = cluster.topic(&self.topic)?;
        let partitions: Vec<i32> = self.positions.keys().copied().collect();
        let leaders = topic.by_leader(&partitions)?;
        let max_wait = max_wait / leaders.len().max(1) as u32; // One leader after another.
        let mut all = Vec::new();
        for (leader, indices) in leaders {
            let response = cluster
                .call(leader, |version| {
                    request(version, &topic, &indices, &self.positions, max_wait)
                })
                .and_then(|response| self.take(cluster, response, &mut all));
            match response {
                Err(failure) if failure.may_pass() => cluster.forget(&self.topic),
                other => other?,
            }
        }
        Ok(all)
    }

    fn take(
        &mut self,
        cluster: &mut Cluster,
        response: FetchResponse,
        all: &mut Vec<Fetched>,
    ) -> Result<(), Failure> {
        check(|| format!("fetch of {}", self.topic), response.error_code, None)?;
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            let index = partition.partition_index;
            let Some(position) = self.positions.get_mut(&index) else { continue };
            if partition.error_code == ErrorCode::OffsetOutOfRange as i16 {
                // Retention was quicker: go on with the first record there is.
                let earliest = cluster.offsets(&self.topic, &[index], -2)?;
                eprintln!(
                    "{}-{index}: offset {position} is gone, going on at {}",
                    self.topic, earliest[&index]
                );
                *position = earliest[&index];
                continue;
            }
            check(|| format!("fetch of {}-{index}", self.topic), partition.error_code, None)?;
            let bytes = partition.records.unwrap_or_default();
            let (records, next) = decode(&bytes, *position).map_err(|error| {
                Failure::Damaged(format!("{}-{index} at offset {position}: {error}", self.topic))
            })?;
            *position = next;
            all.push(Fetched { partition: index, records });
        }
        Ok(())
    }
}

fn request(
    version: i16,
    topic: &Topic,
    indices: &[i32],
    positions: &BTreeMap<i32, i64>,
    max_wait: Duration,
) -> FetchRequest {
    let partition = |index: &i32| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(positions[index])
            .with_partition_max_bytes(PARTITION_BYTES)
    };
    let wanted = FetchTopic::default().with_partitions(indices.iter().map(partition).collect());
    let wanted = if version >= TOPIC_IDS_SINCE {
        wanted.with_topic_id(topic.id)
    } else {
        wanted.with_topic(topic_name(&topic.name))
    };
    let request = FetchRequest::default()
        .with_max_wait_ms(max_wait.as_millis() as i32)
        .with_min_bytes(1)
        .with_max_bytes(RESPONSE_BYTES)
        .with_topics(vec![wanted]);
    if version <= 14 { request.with_replica_id(BrokerId(-1)) } else { request }
}

/// The records from `from` on and the offset after the last batch. The last batch of a response may be
/// cut.
fn decode(bytes: &Bytes, from: i64) -> Result<(Vec<Record>, i64), flowstone_batch::BatchError> {
    let (mut all, mut next) = (Vec::new(), from);
    for batch in batches(bytes) {
        let (_, header, batch) = match batch {
            Err(flowstone_batch::BatchError::Truncated { .. }) if next > from => break,
            other => other?,
        };
        next = next.max(header.last_offset().0 + 1);
        if header.attributes.is_control() {
            continue;
        }
        for record in records(&bytes.slice_ref(batch), &Limits::default())? {
            let record = record?;
            if record.offset.0 >= from {
                all.push(record);
            }
        }
    }
    Ok((all, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_batch::BatchBuilder;
    use flowstone_types::{Offset, Timestamp};

    fn batch(base: i64, values: &[&str]) -> Vec<u8> {
        let mut batch = BatchBuilder::new(Offset(base));
        for value in values {
            batch.push(Timestamp(1), None, Some(value.as_bytes()), &[]);
        }
        batch.build().to_vec()
    }

    #[test]
    fn records_before_the_position_and_a_cut_batch_are_left_out() {
        let whole = [batch(4, &["a", "b", "c"]), batch(7, &["d"])].concat();
        let cut = Bytes::from([whole, batch(8, &["e"])[..30].to_vec()].concat());
        let (records, next) = decode(&cut, 5).unwrap();
        let offsets: Vec<_> = records.iter().map(|record| record.offset.0).collect();
        assert_eq!((offsets, next), (vec![5, 6, 7], 8));
        assert!(decode(&cut.slice(cut.len() - 30..), 8).is_err(), "not even one whole batch");
        assert_eq!(decode(&Bytes::new(), 3).unwrap().1, 3);
    }
}
