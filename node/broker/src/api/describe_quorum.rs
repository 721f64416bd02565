//! DescribeQuorum (key 55): leader, voters and observers of the metadata quorum.

use crate::client::Client;
use crate::controller::CONTROLLER_SHARD;
use crate::metadata_log::CLUSTER_METADATA;
use crate::shard::Shard;
use flowstone_raft::{QuorumDescription, ReplicaState as Replica};
use flowstone_wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use flowstone_wire::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};
use flowstone_wire::{ErrorCode, string, uuid_to_wire};
use std::rc::Rc;

/// Since when fetch times are told (KIP-836), and directories, nodes and messages (KIP-853).
const TIMES_SINCE: i16 = 1;
const NODES_SINCE: i16 = 2;

/// Answers for `__cluster_metadata-0`, the only quorum there is.
pub async fn handle(
    shard: &Rc<Shard>,
    client: &Client,
    request: &DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let ask = |shard: &Rc<Shard>| {
        let described = shard.controller.get().and_then(|controller| controller.log.describe());
        std::future::ready(described)
    };
    let described = shard.call(CONTROLLER_SHARD, ask).await;
    let mut response = DescribeQuorumResponse::default();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let data = PartitionData::default().with_partition_index(index);
            let known = &**topic.topic_name == CLUSTER_METADATA && index == 0;
            match &described {
                Some(described) if known => tell(data, described, client.version),
                Some(_) => data.with_error_code(ErrorCode::UnknownTopicOrPartition as i16),
                None => data.with_error_code(ErrorCode::NotLeaderOrFollower as i16),
            }
        });
        let partitions = partitions.collect();
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions)
    });
    response.topics = topics.collect();
    if client.version >= NODES_SINCE {
        response.nodes = described.iter().flat_map(nodes).collect();
    }
    response
}

fn tell(data: PartitionData, quorum: &QuorumDescription, version: i16) -> PartitionData {
    let states = |replicas: &[Replica]| replicas.iter().map(|r| state(r, version)).collect();
    data.with_leader_id(BrokerId(quorum.leader.0))
        .with_leader_epoch(quorum.epoch.0)
        .with_high_watermark(quorum.high_watermark)
        .with_current_voters(states(&quorum.voters))
        .with_observers(states(&quorum.observers))
}

fn state(replica: &Replica, version: i16) -> ReplicaState {
    let mut state = ReplicaState::default()
        .with_replica_id(BrokerId(replica.replica.id.0))
        .with_log_end_offset(replica.log_end.0);
    if version >= TIMES_SINCE {
        state.last_fetch_timestamp = replica.last_fetch.0;
        state.last_caught_up_timestamp = replica.last_caught_up.0;
    }
    if version >= NODES_SINCE {
        state.replica_directory_id = uuid_to_wire(replica.replica.directory);
    }
    state
}

fn nodes(quorum: &QuorumDescription) -> Vec<Node> {
    let nodes = quorum.endpoints.iter().map(|voter| {
        let listeners = voter.endpoints.iter().map(|endpoint| {
            Listener::default()
                .with_name(string(endpoint.name.clone()))
                .with_host(string(endpoint.host.clone()))
                .with_port(endpoint.port)
        });
        Node::default().with_node_id(BrokerId(voter.voter_id)).with_listeners(listeners.collect())
    });
    nodes.collect()
}
