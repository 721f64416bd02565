//! One file for each Kafka API; this one sends each request to its file.
//!
//! `RequestBody` has one variant for each row of the API table in node/wire, so an API that is
//! advertised and has no handler does not compile.

use crate::connection::ConnectionState;
use crate::replies::{Pending, Reply};
use crate::shard::Shard;
use crate::standing::Standing;
use bytes::Bytes;
use flowstone_runtime::now;
use flowstone_wire::{ReplyTo, Request, RequestBody, ResponseBody};
use std::rc::Rc;

mod alter_configs;
mod api_versions;
mod authorized;
mod config_resource;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
pub mod fetch;
mod find_coordinator;
mod group_words;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

/// Whether a request may be worked on before the replies to those ahead of it have left. Produce
/// may: it is appended in order, and its reply waits in the queue.
pub fn overlaps(request: &Request) -> bool {
    matches!(request.body, RequestBody::Produce(_))
}

/// Works on a request. What comes back is its reply: at once, or, for a produce, once what it
/// appended is committed.
pub async fn answer(
    shard: &Rc<Shard>,
    connection: &mut ConnectionState,
    standing: &mut Standing,
    request: Request,
) -> Pending {
    use RequestBody as Body;
    let began = now();
    let reply_to = request.header.reply_to();
    let client = &connection.client;
    let response: ResponseBody = match request.body {
        Body::Produce(produce) => {
            let acks = produce.acks;
            let begun = produce::begin(shard, client, produce).await;
            let shard = Rc::clone(shard);
            return Box::pin(async move {
                let response = begun.answer().await;
                if acks == 0 {
                    let failure = produce::failure(&response);
                    shard.metrics.answered(reply_to, &response.into(), began);
                    return match failure {
                        None => Reply::Nothing,
                        Some(why) => Reply::HangUp(why),
                    };
                }
                encode(&shard, reply_to, &response.into(), began)
            });
        }
        Body::Fetch(fetch) => {
            let sessions = &mut connection.sessions;
            let fetched = fetch::handle(shard, client, sessions, standing, fetch).await;
            let response = fetched.response.into();
            let reply = encode_fetch(shard, reply_to, &response, fetched.records, began);
            return Box::pin(std::future::ready(reply));
        }
        Body::ListOffsets(list) => list_offsets::handle(shard, client, list).await.into(),
        Body::Metadata(metadata) => metadata::handle(shard, client, metadata).into(),
        Body::OffsetCommit(commit) => offset_commit::handle(shard, client, commit).await.into(),
        Body::OffsetFetch(fetch) => offset_fetch::handle(shard, client, fetch).await.into(),
        Body::FindCoordinator(find) => find_coordinator::handle(shard, client, find).await.into(),
        Body::JoinGroup(join) => join_group::handle(shard, client, join).await.into(),
        Body::Heartbeat(heartbeat) => heartbeat::handle(shard, heartbeat).await.into(),
        Body::LeaveGroup(leave) => leave_group::handle(shard, client, leave).await.into(),
        Body::SyncGroup(sync) => sync_group::handle(shard, client, sync).await.into(),
        Body::DescribeGroups(describe) => {
            describe_groups::handle(shard, client, describe).await.into()
        }
        Body::ListGroups(list) => list_groups::handle(shard, client, list).await.into(),
        Body::ApiVersions(versions) => {
            api_versions::handle(shard, client, &request.header, &versions).into()
        }
        Body::DeleteRecords(delete) => delete_records::handle(shard, delete).await.into(),
        Body::InitProducerId(init) => init_producer_id::handle(shard, init).await.into(),
        Body::OffsetForLeaderEpoch(epochs) => {
            offset_for_leader_epoch::handle(shard, epochs).await.into()
        }
        Body::DescribeCluster(describe) => {
            describe_cluster::handle(shard, client, &describe).into()
        }
        Body::DescribeProducers(describe) => {
            describe_producers::handle(shard, describe).await.into()
        }
        Body::DescribeTopicPartitions(describe) => {
            describe_topic_partitions::handle(shard, &describe).into()
        }
        Body::CreateTopics(create) => create_topics::handle(shard, client, create).await.into(),
        Body::DeleteTopics(delete) => delete_topics::handle(shard, client, delete).await.into(),
        Body::CreatePartitions(create) => create_partitions::handle(shard, create).await.into(),
        Body::DescribeConfigs(describe) => {
            describe_configs::handle(shard, client, &describe).into()
        }
        Body::AlterConfigs(alter) => alter_configs::handle(shard, alter).await.into(),
        Body::IncrementalAlterConfigs(alter) => {
            incremental_alter_configs::handle(shard, alter).await.into()
        }
        Body::ListConfigResources(list) => {
            list_config_resources::handle(shard, client, &list).into()
        }
        Body::DeleteGroups(delete) => delete_groups::handle(shard, delete).await.into(),
        Body::OffsetDelete(delete) => offset_delete::handle(shard, delete).await.into(),
        Body::DescribeLogDirs(describe) => {
            describe_log_dirs::handle(shard, client, describe).await.into()
        }
        Body::DescribeQuorum(describe) => {
            describe_quorum::handle(shard, client, &describe).await.into()
        }
    };
    let reply = encode(shard, reply_to, &response, began);
    Box::pin(std::future::ready(reply))
}

/// The reply's bytes. A response that its version cannot express is a fault of ours that a peer may
/// steer towards: it costs the peer its connection, not the node.
fn encode(
    shard: &Shard,
    reply_to: ReplyTo,
    response: &ResponseBody,
    began: flowstone_types::Instant,
) -> Reply {
    encode_fetch(shard, reply_to, response, Vec::new(), began)
}

/// The same, with the records that a Fetch response carries.
fn encode_fetch(
    shard: &Shard,
    reply_to: ReplyTo,
    response: &ResponseBody,
    records: Vec<Vec<Bytes>>,
    began: flowstone_types::Instant,
) -> Reply {
    let mut parts = Vec::new();
    let encoded = reply_to.encode_fetch(response, records, &mut parts);
    shard.metrics.answered(reply_to, response, began);
    match encoded {
        Ok(_) => Reply::Parts(parts),
        Err(error) => Reply::HangUp(error.to_string()),
    }
}
