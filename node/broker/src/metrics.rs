//! The metrics: every fact about one, in one row; and what they read.
//!
//! Names are those that Kafka's usual exporters give its MBeans, in lower case (kafka-reference
//! section 7.4), so that dashboards and alerts work as they are; what only we have begins with
//! `flowstone_`. A shard counts for itself (`counts.rs`); a scrape gathers what all shards have
//! (`scrape.rs`) and writes it down beside them (`text.rs`).

mod counts;
mod errors;
mod process;
mod scrape;
mod text;

pub use counts::ShardMetrics;

use crate::shard::Shard;
use flowstone_runtime::offload;
use scrape::Scrape;
use std::rc::Rc;
use text::Series;

/// A row of the table.
pub struct Metric {
    name: &'static str,
    kind: Kind,
    /// Names of its labels.
    labels: &'static [&'static str],
    /// A sentence.
    help: &'static str,
    /// Writes its series from what a scrape found.
    read: fn(&Scrape, &mut Series<'_>),
}

/// How a metric behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A count, and quantiles of the last minutes.
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
        }
    }
}

/// All metrics of this node, as Prometheus reads them.
pub async fn exposition(shard: &Rc<Shard>) -> String {
    let scrape = Scrape::gather(shard).await;
    // Megabytes of text with 10 000 partitions: not on a shard.
    offload(move || render(&scrape)).await
}

fn render(scrape: &Scrape) -> String {
    let mut text = String::new();
    for metric in METRICS {
        (metric.read)(scrape, &mut Series::new(metric, &mut text));
    }
    text
}

macro_rules! metrics {
    ($( $kind:ident $name:literal [$($label:ident),*] $help:literal = $read:expr; )+) => {
        /// Every metric.
        const METRICS: &[Metric] = &[ $( Metric {
            name: $name,
            kind: Kind::$kind,
            labels: &[ $( stringify!($label) ),* ],
            help: $help,
            read: $read,
        } ),+ ];
    };
}

metrics! {
    // What goes in and out, by topic; without a topic, all of it.
    Counter "kafka_server_brokertopicmetrics_messagesin_total" [topic]
        "Records appended." = |all, out| all.traffic(out, |t| t.messages_in);
    Counter "kafka_server_brokertopicmetrics_bytesin_total" [topic]
        "Bytes of record batches appended." = |all, out| all.traffic(out, |t| t.bytes_in);
    Counter "kafka_server_brokertopicmetrics_bytesout_total" [topic]
        "Bytes of record batches sent to consumers." = |all, out| all.traffic(out, |t| t.bytes_out);
    Counter "kafka_server_brokertopicmetrics_totalproducerequests_total" [topic]
        "Batches that producers asked to append." = |all, out| all.traffic(out, |t| t.produce_requests);
    Counter "kafka_server_brokertopicmetrics_failedproducerequests_total" [topic]
        "Batches that could not be appended." = |all, out| all.traffic(out, |t| t.produce_failed);
    Counter "kafka_server_brokertopicmetrics_totalfetchrequests_total" [topic]
        "Looks at a partition for a consumer." = |all, out| all.traffic(out, |t| t.fetch_requests);
    Counter "kafka_server_brokertopicmetrics_failedfetchrequests_total" [topic]
        "Looks at a partition that failed." = |all, out| all.traffic(out, |t| t.fetch_failed);

    // Partitions that this broker holds.
    Gauge "kafka_server_replicamanager_partitioncount" []
        "Partitions that this broker holds." = |all, out| out.put(&[], all.partitions().count());
    Gauge "kafka_server_replicamanager_leadercount" []
        "Partitions that this broker leads." = |all, out| out.put(&[], all.cluster().leaders);
    Gauge "kafka_server_replicamanager_underreplicatedpartitions" []
        "Partitions led here with fewer replicas in sync than assigned." =
        |all, out| out.put(&[], all.cluster().under_replicated);
    Gauge "kafka_server_replicamanager_underminisrpartitioncount" []
        "Partitions led here with fewer replicas in sync than min.insync.replicas." =
        |all, out| out.put(&[], all.cluster().under_min_isr);
    Gauge "kafka_server_replicamanager_atminisrpartitioncount" []
        "Partitions led here with just as many replicas in sync as min.insync.replicas." =
        |all, out| out.put(&[], all.cluster().at_min_isr);
    Gauge "kafka_server_replicamanager_offlinereplicacount" []
        "Replicas assigned to this broker that cannot be written: their disk failed or is full." =
        |all, out| out.put(&[], all.offline_replicas());

    // The cluster, as its controller sees it.
    Gauge "kafka_controller_kafkacontroller_activecontrollercount" []
        "Whether this node is the active controller." =
        |all, out| out.put(&[], u8::from(all.quorum.is_some()));
    Gauge "kafka_controller_kafkacontroller_activebrokercount" []
        "Registered brokers that are not fenced." = |all, out| out.put(&[], all.cluster().active_brokers);
    Gauge "kafka_controller_kafkacontroller_fencedbrokercount" []
        "Registered brokers that are fenced." = |all, out| out.put(&[], all.cluster().fenced_brokers);
    Gauge "kafka_controller_kafkacontroller_globaltopiccount" []
        "Topics of the cluster." = |all, out| out.put(&[], all.image.topics.len());
    Gauge "kafka_controller_kafkacontroller_globalpartitioncount" []
        "Partitions of the cluster." = |all, out| out.put(&[], all.cluster().partitions);
    Gauge "kafka_controller_kafkacontroller_offlinepartitionscount" []
        "Partitions of the cluster without a leader." = |all, out| out.put(&[], all.cluster().leaderless);
    Gauge "kafka_controller_kafkacontroller_preferredreplicaimbalancecount" []
        "Partitions whose leader is not the first of their replicas." =
        |all, out| out.put(&[], all.cluster().imbalanced);
    Gauge "kafka_controller_kafkacontroller_lastappliedrecordoffset" []
        "Offset of the last metadata record that this node follows." =
        |all, out| out.put(&[], all.image_offset.0 - 1);

    // The metadata quorum.
    Gauge "kafka_server_raftmetrics_current_state" [current_state]
        "What this node is in the metadata quorum." =
        |all, out| out.put(&[if all.quorum.is_some() { "leader" } else { "unattached" }], 1);
    Gauge "kafka_server_raftmetrics_current_leader" []
        "The quorum's leader; -1 where there is none." =
        |all, out| out.put(&[], all.quorum.as_ref().map_or(-1, |quorum| quorum.leader.0));
    Gauge "kafka_server_raftmetrics_current_epoch" []
        "The quorum's epoch." =
        |all, out| out.put(&[], all.quorum.as_ref().map_or(-1, |quorum| quorum.epoch.0));
    Gauge "kafka_server_raftmetrics_high_watermark" []
        "Offset below which metadata records are committed." =
        |all, out| out.put(&[], all.quorum.as_ref().map_or(-1, |quorum| quorum.high_watermark));
    Gauge "kafka_server_raftmetrics_log_end_offset" []
        "Offset that the next metadata record gets." =
        |all, out| out.put(&[], all.log_end_of_quorum());
    Gauge "kafka_server_raftmetrics_number_of_voters" []
        "Voters of the quorum." =
        |all, out| out.put(&[], all.quorum.as_ref().map_or(0, |quorum| quorum.voters.len()));
    Gauge "kafka_server_raftmetrics_number_of_observers" []
        "Nodes that follow the metadata log without a vote." =
        |all, out| out.put(&[], all.quorum.as_ref().map_or(0, |quorum| quorum.observers.len()));

    // Requests and connections.
    Counter "kafka_network_requestmetrics_requests_total" [request, version]
        "Requests answered." = |all, out| all.requests_by_version(out);
    Counter "kafka_network_requestmetrics_errors_total" [request, error]
        "Error codes in responses." = |all, out| all.requests_by_error(out);
    Summary "kafka_network_requestmetrics_totaltimems" [request]
        "Milliseconds from a request's decoding to its response's encoding, waiting included; quantiles of the last one to two minutes." =
        |all, out| all.request_times(out);
    Gauge "kafka_server_socket_server_metrics_connection_count" [listener, networkProcessor]
        "Open connections, by listener and shard." = |all, out| all.connections_by_listener(out);
    Gauge "kafka_network_socketserver_networkprocessoravgidle_percent" []
        "Share of their time that the shards wait, from 0 to 1, over about a minute." =
        |all, out| out.put(&[], all.idle_share());
    Gauge "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent" []
        "The same: a shard reads requests and works on them." =
        |all, out| out.put(&[], all.idle_share());
    Gauge "kafka_server_kafkaserver_brokerstate" []
        "The broker's state: 1 starting, 3 running, 7 shutting down." =
        |all, out| out.put(&[], all.broker_state());

    // Logs and groups.
    Gauge "kafka_log_log_size" [topic, partition]
        "Bytes of a partition's log." = |all, out| all.logs(out, |log| log.size as i64);
    Gauge "kafka_log_log_logstartoffset" [topic, partition]
        "First offset of a partition's log." = |all, out| all.logs(out, |log| log.start.0);
    Gauge "kafka_log_log_logendoffset" [topic, partition]
        "Offset that the next record of a partition gets." = |all, out| all.logs(out, |log| log.end.0);
    Gauge "kafka_log_log_numlogsegments" [topic, partition]
        "Segments of a partition's log." = |all, out| all.logs(out, |log| log.segments as i64);
    Gauge "kafka_log_logmanager_offlinelogdirectorycount" []
        "Log directories that are offline: they could not be opened, or a write or flush failed." =
        |all, out| out.put(&[], all.dirs.iter().filter(|dir| dir.is_offline).count());
    Gauge "kafka_log_logmanager_logdirectoryoffline" [logDirectory]
        "Whether a log directory is offline." =
        |all, out| all.dirs.iter().for_each(|dir| out.put(&[&dir.path], u8::from(dir.is_offline)));
    Counter "kafka_log_logflushstats_logflushrateandtimems_count" []
        "Flushes of logs to stable storage." = |all, out| out.put(&[], all.flushes());
    Gauge "kafka_coordinator_group_groupmetadatamanager_numgroups" []
        "Groups that this broker coordinates." = |all, out| out.put(&[], all.groups());

    // The process, as every Prometheus client names it.
    Counter "process_cpu_seconds_total" []
        "User and system time of the process." = |all, out| out.put(&[], all.process.cpu_seconds);
    Gauge "process_resident_memory_bytes" []
        "Resident memory of the process." = |all, out| out.put(&[], all.process.resident_bytes);
    Gauge "process_virtual_memory_bytes" []
        "Address space of the process." = |all, out| out.put(&[], all.process.virtual_bytes);
    Gauge "process_open_fds" []
        "Open file descriptors." = |all, out| out.put(&[], all.process.open_fds);
    Gauge "process_max_fds" []
        "File descriptors that may be open; 0 is no limit." = |all, out| out.put(&[], all.process.max_fds);
    Gauge "process_start_time_seconds" []
        "When the node started, in seconds since 1970." =
        |all, out| out.put(&[], all.node.started.0 as f64 / 1000.0);

    // Our own.
    Gauge "flowstone_build_info" [version]
        "The release that runs; always 1." = |_, out| out.put(&[env!("CARGO_PKG_VERSION")], 1);
    Counter "flowstone_shard_busy_seconds_total" [shard]
        "Time that a shard worked rather than waited." =
        |all, out| all.by_shard(out, |shard| seconds(shard.busy_nanos));
    Gauge "flowstone_shard_mailbox_jobs" [shard]
        "Work from other shards that waits for a shard." =
        |all, out| all.by_shard(out, |shard| shard.mailbox_jobs as f64);
    Gauge "flowstone_shard_connections" [shard]
        "Client connections that live on a shard." =
        |all, out| all.by_shard(out, |shard| shard.connections.values().sum::<usize>() as f64);
    Counter "flowstone_peer_faults_total" [shard]
        "Connections closed or refused because of what their client did." =
        |all, out| all.by_shard(out, |shard| shard.peer_faults as f64);
    Counter "flowstone_accept_failures_total" []
        "Connections that could not be accepted: too many open files, most likely." =
        |all, out| out.put(&[], all.accepts_failed);
    Gauge "flowstone_memory_bytes" [shard, kind]
        "Memory by what it is for: tails of logs, indexes, batches that wait for the disk, large requests that are arriving, requests that are worked on." =
        |all, out| all.memory_by_kind(out);
    Gauge "flowstone_memory_limit_bytes" [kind]
        "What flowstone.memory.bytes gives each shard for tails and indexes together (store), for requests that arrive, and for those worked on." =
        |all, out| {
            out.put(&["store"], all.node.memory.store_bytes);
            out.put(&["arriving"], all.node.memory.arriving_bytes);
            out.put(&["requests"], all.node.memory.request_bytes);
        };
    Gauge "flowstone_buffer_bytes" [state]
        "Buffers of the process: held by somebody, or kept for reuse." = |all, out| {
            out.put(&["used"], all.buffers.used);
            out.put(&["pooled"], all.buffers.pooled);
        };
    Gauge "flowstone_store_open_files" [shard]
        "Segment files that a shard keeps open." =
        |all, out| all.by_shard(out, |shard| shard.store.files as f64);
    Counter "flowstone_commit_groups_total" [shard]
        "Group commits: all that waited, made durable together." =
        |all, out| all.by_shard(out, |shard| shard.store.commits.groups as f64);
    Counter "flowstone_commit_journaled_total" [shard]
        "Group commits that went to the journal: one write for all logs." =
        |all, out| all.by_shard(out, |shard| shard.store.commits.journaled as f64);
    Counter "flowstone_commit_logs_total" [shard]
        "Logs in group commits; over the groups, the size of a group." =
        |all, out| all.by_shard(out, |shard| shard.store.commits.logs as f64);
    Counter "flowstone_commit_bytes_total" [shard]
        "Bytes of group commits." =
        |all, out| all.by_shard(out, |shard| shard.store.commits.bytes as f64);
    Counter "flowstone_commit_seconds_total" [shard]
        "Time of group commits; over the groups, the latency of one." =
        |all, out| all.by_shard(out, |shard| seconds(shard.store.commits.nanos));
    Gauge "flowstone_commit_seconds_max" [shard]
        "The slowest group commit since the start." =
        |all, out| all.by_shard(out, |shard| seconds(shard.store.commits.nanos_max));
    Gauge "flowstone_dir_size_bytes" [dir]
        "Size of a data directory's volume." =
        |all, out| all.volumes().for_each(|(path, space)| out.put(&[path], space.total));
    Gauge "flowstone_dir_usable_bytes" [dir]
        "Free space of a data directory's volume." =
        |all, out| all.volumes().for_each(|(path, space)| out.put(&[path], space.usable));
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_named_as_prometheus_wants_and_explained() {
        let mut seen = BTreeSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(seen.insert(name), "{name} comes twice");
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(allowed), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']), "{name}");
            let counts = name.ends_with("_total") || name.ends_with("_count");
            let is_counter = metric.kind == Kind::Counter;
            assert!(counts == is_counter || name.ends_with("connection_count"), "{name}");
        }
    }
}
