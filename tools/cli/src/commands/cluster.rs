//! `flowstone cluster`: what kafka-cluster, kafka-metadata-quorum, kafka-broker-api-versions and
//! kafka-log-dirs tell.

use clap::Subcommand;
use flowstone_wire::messages::describe_quorum_request::{PartitionData, TopicData};
use flowstone_wire::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, DescribeQuorumRequest,
};
use flowstone_wire::{Api, topic_name, uuid_from_wire};
use serde_json::{Value, json};

use crate::Common;
use crate::client::Cluster;
use crate::failure::check;
use crate::output::{Table, bytes_text, done, print_json, say};

const EXAMPLES: &str = "\
Examples:
  flowstone cluster id
  flowstone cluster brokers
  flowstone cluster quorum
  flowstone cluster api-versions --broker 1
  flowstone cluster log-dirs --partitions --json";

/// `flowstone cluster`.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub enum ClusterCommand {
    /// The cluster's id
    Id,
    /// The brokers
    Brokers,
    /// The metadata quorum: leader, voters, observers, and how far each is
    Quorum,
    /// Which APIs and features a broker has, and in which versions
    ApiVersions {
        /// Ask this broker, by its node id; any without
        #[arg(long, value_name = "ID")]
        broker: Option<i32>,
    },
    /// The log directories of the brokers, and how full they are
    LogDirs {
        /// Each partition with its size
        #[arg(short, long)]
        partitions: bool,
        /// Only this broker, by its node id
        #[arg(long, value_name = "ID")]
        broker: Option<i32>,
    },
}

impl ClusterCommand {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<()> {
        let mut cluster = common.connect()?;
        match self {
            Self::Id => {
                cluster.refresh(Some(&[]))?;
                let id = cluster.id.unwrap_or_default();
                Ok(done(common.json, &json!({ "cluster_id": id }), &id)?)
            }
            Self::Brokers => brokers(common, &mut cluster),
            Self::Quorum => quorum(common, &mut cluster),
            Self::ApiVersions { broker } => api_versions(common, &mut cluster, broker),
            Self::LogDirs { partitions, broker } => {
                log_dirs(common, &mut cluster, partitions, broker)
            }
        }
    }
}

fn brokers(common: &Common, cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut table = Table::new(&["broker", "host", "port", "rack", "fenced", "controller"]);
    if cluster.any()?.speaks::<DescribeClusterRequest>() {
        let response = cluster.call_any(|version| {
            let request = DescribeClusterRequest::default();
            if version >= 2 { request.with_include_fenced_brokers(true) } else { request }
        })?;
        check(|| "cluster".to_owned(), response.error_code, response.error_message.as_deref())?;
        for broker in &response.brokers {
            table.push([
                json!(broker.broker_id.0),
                json!(&*broker.host),
                json!(broker.port),
                json!(broker.rack.as_deref()),
                json!(broker.is_fenced),
                json!(broker.broker_id == response.controller_id),
            ]);
        }
    } else {
        cluster.refresh(Some(&[]))?; // Kafka before 2.8.
        for broker in cluster.brokers.values() {
            let (host, port) = broker.address.rsplit_once(':').unwrap_or((&broker.address, ""));
            table.push([
                json!(broker.id),
                json!(host),
                json!(port.parse::<u16>().ok()),
                json!(broker.rack),
                json!(false),
                json!(broker.id == cluster.controller),
            ]);
        }
    }
    Ok(table.print(common.json)?)
}

fn quorum(common: &Common, cluster: &mut Cluster) -> anyhow::Result<()> {
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default()
        .with_topic_name(topic_name("__cluster_metadata"))
        .with_partitions(vec![partition]);
    let response =
        cluster.call_any(|_| DescribeQuorumRequest::default().with_topics(vec![topic]))?;
    let what = || "metadata quorum".to_owned();
    check(what, response.error_code, response.error_message.as_deref())?;
    let mut documents = Vec::new();
    for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
        check(what, partition.error_code, partition.error_message.as_deref())?;
        let voters = partition.current_voters.iter().map(|replica| ("voter", replica));
        let observers = partition.observers.iter().map(|replica| ("observer", replica));
        let end = |id| {
            let leader = partition.current_voters.iter().find(|replica| replica.replica_id == id);
            leader.map_or(-1, |leader| leader.log_end_offset)
        };
        let leader_end = end(partition.leader_id);
        let mut table = Table::new(&["node", "role", "directory", "log_end", "lag"]);
        for (role, replica) in voters.chain(observers) {
            let leads = replica.replica_id == partition.leader_id;
            table.push([
                json!(replica.replica_id.0),
                json!(if leads { "leader" } else { role }),
                json!(uuid_from_wire(replica.replica_directory_id).to_string()),
                json!(replica.log_end_offset),
                json!((leader_end - replica.log_end_offset).max(0)),
            ]);
        }
        if common.json {
            documents.push(json!({
                "leader": partition.leader_id.0,
                "leader_epoch": partition.leader_epoch,
                "high_watermark": partition.high_watermark,
                "replicas": table.to_json(),
            }));
        } else {
            let (leader, epoch) = (partition.leader_id.0, partition.leader_epoch);
            let committed = partition.high_watermark;
            say(format_args!("leader {leader}, epoch {epoch}, high watermark {committed}"))?;
            table.print(false)?;
        }
    }
    let first = documents.into_iter().next().unwrap_or(Value::Null);
    if common.json { Ok(print_json(&first)?) } else { Ok(()) }
}

fn api_versions(common: &Common, cluster: &mut Cluster, broker: Option<i32>) -> anyhow::Result<()> {
    let connection = match broker {
        Some(id) => cluster.node(id)?,
        None => cluster.any()?,
    };
    let response = connection.api_versions();
    let mut apis = Table::new(&["key", "api", "lowest", "highest"]);
    for api in &response.api_keys {
        let name = api_name(api.api_key);
        let (lowest, highest) = (json!(api.min_version), json!(api.max_version));
        apis.push([json!(api.api_key), json!(name), lowest, highest]);
    }
    let mut features = Table::new(&["feature", "lowest", "highest", "finalized"]);
    for feature in &response.supported_features {
        let finalized = response.finalized_features.iter().find(|f| f.name == feature.name);
        features.push([
            json!(&*feature.name),
            json!(feature.min_version),
            json!(feature.max_version),
            json!(finalized.map(|f| f.max_version_level)),
        ]);
    }
    if common.json {
        let (apis, features) = (apis.to_json(), features.to_json());
        let address = connection.address();
        return Ok(print_json(&json!({ "broker": address, "apis": apis, "features": features }))?);
    }
    apis.print(false)?;
    if features.len() > 0 {
        say("")?;
        features.print(false)?;
    }
    Ok(())
}

/// Kafka's name of an API; also of those that only other brokers have.
fn api_name(key: i16) -> String {
    const OTHERS: [(i16, &str); 48] = [
        (17, "SaslHandshake"),
        (24, "AddPartitionsToTxn"),
        (25, "AddOffsetsToTxn"),
        (26, "EndTxn"),
        (27, "WriteTxnMarkers"),
        (28, "TxnOffsetCommit"),
        (29, "DescribeAcls"),
        (30, "CreateAcls"),
        (31, "DeleteAcls"),
        (34, "AlterReplicaLogDirs"),
        (36, "SaslAuthenticate"),
        (38, "CreateDelegationToken"),
        (39, "RenewDelegationToken"),
        (40, "ExpireDelegationToken"),
        (41, "DescribeDelegationToken"),
        (43, "ElectLeaders"),
        (45, "AlterPartitionReassignments"),
        (46, "ListPartitionReassignments"),
        (48, "DescribeClientQuotas"),
        (49, "AlterClientQuotas"),
        (50, "DescribeUserScramCredentials"),
        (51, "AlterUserScramCredentials"),
        (52, "Vote"),
        (56, "AlterPartition"),
        (57, "UpdateFeatures"),
        (64, "UnregisterBroker"),
        (65, "DescribeTransactions"),
        (66, "ListTransactions"),
        (68, "ConsumerGroupHeartbeat"),
        (69, "ConsumerGroupDescribe"),
        (71, "GetTelemetrySubscriptions"),
        (72, "PushTelemetry"),
        (76, "ShareGroupHeartbeat"),
        (77, "ShareGroupDescribe"),
        (78, "ShareFetch"),
        (79, "ShareAcknowledge"),
        (80, "AddRaftVoter"),
        (81, "RemoveRaftVoter"),
        (83, "InitializeShareGroupState"),
        (84, "ReadShareGroupState"),
        (85, "WriteShareGroupState"),
        (86, "DeleteShareGroupState"),
        (87, "ReadShareGroupStateSummary"),
        (88, "StreamsGroupHeartbeat"),
        (89, "StreamsGroupDescribe"),
        (90, "DescribeShareGroupOffsets"),
        (91, "AlterShareGroupOffsets"),
        (92, "DeleteShareGroupOffsets"),
    ];
    let ours = Api::from_key(key).map(|api| api.row().name);
    let other = OTHERS.iter().find(|(known, _)| *known == key).map(|(_, name)| *name);
    ours.or(other).map_or_else(|| format!("API {key}"), str::to_owned)
}

fn log_dirs(
    common: &Common,
    cluster: &mut Cluster,
    partitions: bool,
    only: Option<i32>,
) -> anyhow::Result<()> {
    cluster.refresh(Some(&[]))?;
    let ids: Vec<i32> = cluster.brokers.keys().copied().collect();
    let mut dirs = Table::new(&["broker", "directory", "partitions", "bytes", "total", "usable"]);
    let mut sizes = Table::new(&["broker", "directory", "topic", "partition", "bytes", "lag"]);
    let bytes = |bytes: i64| match bytes {
        ..0 => Value::Null, // Before version 4 nobody says.
        bytes if common.json => json!(bytes),
        bytes => json!(bytes_text(bytes as f64)),
    };
    for id in ids.into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
        let response = cluster.call(id, |_| DescribeLogDirsRequest::default().with_topics(None))?;
        check(|| format!("log directories of broker {id}"), response.error_code, None)?;
        for dir in response.results {
            check(|| format!("{} on broker {id}", dir.log_dir), dir.error_code, None)?;
            let all = dir.topics.iter().flat_map(|topic| &topic.partitions);
            let (count, size) =
                all.fold((0, 0), |(count, size), p| (count + 1, size + p.partition_size));
            let (total, usable) = (bytes(dir.total_bytes), bytes(dir.usable_bytes));
            dirs.push([json!(id), json!(&*dir.log_dir), json!(count), bytes(size), total, usable]);
            for topic in &dir.topics {
                for partition in &topic.partitions {
                    sizes.push([
                        json!(id),
                        json!(&*dir.log_dir),
                        json!(topic.name.as_str()),
                        json!(partition.partition_index),
                        json!(partition.partition_size),
                        json!(partition.offset_lag),
                    ]);
                }
            }
        }
    }
    let table = if partitions { sizes } else { dirs };
    Ok(table.print(common.json)?)
}
