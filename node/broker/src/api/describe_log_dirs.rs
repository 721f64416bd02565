//! DescribeLogDirs (key 35): the data directories, how full they are, and what is in them.

use crate::client::Client;
use crate::shard::Shard;
use flowstone_runtime::fs;
use flowstone_types::Uuid;
use flowstone_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use flowstone_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use flowstone_wire::{ErrorCode, string, topic_name};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// From this version on the answer tells how large and how full a directory's volume is (KIP-827).
const SPACE_SINCE: i16 = 4;

/// One log, as its owner tells of it.
struct Held {
    directory: Uuid,
    topic: Arc<str>,
    index: i32,
    bytes: i64,
}

/// Answers for every directory; with no topics named, with everything in it.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted: Option<BTreeSet<(String, i32)>> = request.topics.map(|topics| {
        let named = topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|index| (topic.topic.to_string(), *index))
        });
        named.collect()
    });
    let held = shard.on_all(|shard: Rc<Shard>| async move { held(&shard) }).await;
    let mut by_directory: BTreeMap<Uuid, BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>>> =
        BTreeMap::new();
    for log in held.into_iter().flatten() {
        let key = (log.topic.to_string(), log.index);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key)) {
            continue;
        }
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(log.index)
            .with_partition_size(log.bytes);
        let topics = by_directory.entry(log.directory).or_default();
        topics.entry(log.topic).or_default().push(partition);
    }
    let mut results = Vec::new();
    for dir in &shard.node.dirs {
        let topics = by_directory.remove(&dir.directory_id()).unwrap_or_default();
        let topics = topics.into_iter().map(|(name, partitions)| {
            DescribeLogDirsTopic::default().with_name(topic_name(&name)).with_partitions(partitions)
        });
        let mut result = DescribeLogDirsResult::default()
            .with_log_dir(string(dir.path().display().to_string()))
            .with_topics(topics.collect());
        match fs::space(dir.path()).await {
            Ok(space) if client.version >= SPACE_SINCE => {
                result.total_bytes = i64::try_from(space.total).unwrap_or(i64::MAX);
                result.usable_bytes = i64::try_from(space.usable).unwrap_or(i64::MAX);
            }
            Ok(_) => {}
            Err(_) => result.error_code = ErrorCode::KafkaStorageError as i16,
        }
        if dir.failure().is_some() {
            result.error_code = ErrorCode::KafkaStorageError as i16;
        }
        results.push(result);
    }
    DescribeLogDirsResponse::default().with_results(results)
}

fn held(shard: &Shard) -> Vec<Held> {
    let logs = shard.store.logs();
    let held = logs.iter().map(|log| Held {
        directory: log.directory_id(),
        topic: Arc::clone(log.topic()),
        index: log.id().index,
        bytes: i64::try_from(log.size()).unwrap_or(i64::MAX),
    });
    held.collect()
}
