//! The server's keys that are used, as fields of [`Settings`].

use super::{
    ANY, CompressedCheck, Durability, Fallback, GZIP_LEVEL, Key, Kind, List, LogFormat, NON_EMPTY,
    Range, Treatment, Updates, Value, at_least, between, fallback, other_keys, real, typed_keys,
};
use alloc::string::String;

typed_keys! {
    /// The server's keys that are used, typed and in range.
    Settings, SETTINGS;
    "process.roles" process_roles: List =
        required, Range::EachOf(&["broker", "controller"]), ReadOnly,
        "What this node is: broker, controller, or both.";
    "node.id" node_id: i32 = required, at_least(0), ReadOnly,
        "This node's number in the cluster, as in its meta.properties.";
    "broker.id" broker_id: i32 = "-1", ANY, ReadOnly,
        "Old name of node.id; where given, it must be the same number.";
    "controller.listener.names" controller_listener_names: List = required, ANY, ReadOnly,
        "Names of the listeners that controllers use among themselves and with brokers.";
    "controller.quorum.bootstrap.servers" controller_quorum_bootstrap_servers: List =
        "", ANY, ReadOnly,
        "Where to look for the metadata quorum, as host:port.";
    "controller.quorum.voters" controller_quorum_voters: List = "", ANY, ReadOnly,
        "The voters of a static metadata quorum, as id@host:port.";
    "metadata.log.dir" metadata_log_dir: Option<String> = none, ANY, ReadOnly,
        "Where the metadata log is kept; the first of log.dirs where not set.";
    "metadata.log.max.record.bytes.between.snapshots" metadata_snapshot_bytes: i64 =
        "20971520", at_least(1), ReadOnly,
        "Bytes of metadata records after which a snapshot is taken.";
    "metadata.log.max.snapshot.interval.ms" metadata_snapshot_interval_ms: i64 =
        "3600000", at_least(0), ReadOnly,
        "Time after which a snapshot is taken if there are new metadata records; 0 never takes one for its age.";
    "listeners" listeners: List = "PLAINTEXT://:9092", ANY, ReadOnly,
        "Addresses to listen on, as NAME://host:port; an empty host means all interfaces.";
    "advertised.listeners" advertised_listeners: Option<List> = none, ANY, ReadOnly,
        "Addresses that clients are told to connect to; listeners where not set.";
    "listener.security.protocol.map" listener_security_protocol_map: String =
        "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
        ANY, ReadOnly,
        "The security protocol of each listener name.";
    "inter.broker.listener.name" inter_broker_listener_name: Option<String> = none, ANY, ReadOnly,
        "The listener that brokers use among themselves.";
    "security.inter.broker.protocol" security_inter_broker_protocol: String =
        "PLAINTEXT", Range::OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), ReadOnly,
        "The security protocol brokers use among themselves, where no listener is named for it.";
    "socket.request.max.bytes" socket_request_bytes_max: i32 = "104857600", at_least(1), ReadOnly,
        "Largest request that is read, in bytes.";
    "socket.listen.backlog.size" socket_backlog: i32 = "4096", at_least(1), ReadOnly,
        "Connections that may wait to be accepted, on each listener (Kafka: 50).";
    "socket.send.buffer.bytes" socket_send_buffer_bytes: i32 = "-1", ANY, ReadOnly,
        "Send buffer of each connection's socket; -1 lets the kernel adapt it (Kafka: 102400).";
    "socket.receive.buffer.bytes" socket_receive_buffer_bytes: i32 = "-1", ANY, ReadOnly,
        "Receive buffer of each connection's socket; -1 lets the kernel adapt it (Kafka: 102400).";
    "max.connections" connections_max: i32 = "2147483647", at_least(0), ClusterWide,
        "Most connections to this broker at a time.";
    "max.connections.per.ip" connections_per_ip_max: i32 = "2147483647", at_least(0), ClusterWide,
        "Most connections from one address at a time.";
    "max.connections.per.ip.overrides" connections_per_ip_overrides: String = "", ANY, ClusterWide,
        "Addresses with a limit of their own, as host:number separated by commas.";
    "connections.max.idle.ms" connections_idle_ms_max: i64 = "600000", ANY, ReadOnly,
        "Time without a request after which a connection is closed.";
    "log.dirs" log_dirs: Option<List> = none, ANY, ReadOnly,
        "Folders for the data, separated by commas; log.dir where not set.";
    "log.dir" log_dir: List = "/var/lib/flowstone", ANY, ReadOnly,
        "A folder for the data, where log.dirs is not set.";
    "num.partitions" num_partitions: i32 = "1", at_least(1), ReadOnly,
        "Partitions of a topic that is created without saying how many.";
    "default.replication.factor" default_replication_factor: i32 = "1", ANY, ReadOnly,
        "Replicas of a topic that is created without saying how many.";
    "auto.create.topics.enable" auto_create_topics: bool = "true", ANY, ReadOnly,
        "Whether asking for an unknown topic creates it.";
    "delete.topic.enable" delete_topics: bool = "true", ANY, ReadOnly,
        "Whether topics can be deleted.";
    "log.retention.check.interval.ms" log_retention_check_interval_ms: i64 =
        "300000", at_least(1), ReadOnly,
        "How often logs are looked at for what may be deleted.";
    "log.flush.offset.checkpoint.interval.ms" recovery_checkpoint_interval_ms: i32 =
        "60000", at_least(0), ReadOnly,
        "How often the checkpoints are written: recovery points, log starts, high watermarks.";
    "broker.rack" broker_rack: Option<String> = none, ANY, ReadOnly,
        "The rack this broker stands in, for placement and for clients that read close by.";
    "fetch.max.bytes" fetch_bytes_max: i32 = "57671680", at_least(1024), ReadOnly,
        "Most bytes in one fetch response; a first batch larger than this is still sent.";
    "max.request.partition.size.limit" describe_partitions_max: i32 = "2000", at_least(1), ReadOnly,
        "Most partitions in one DescribeTopicPartitions response.";
    "offsets.topic.num.partitions" offsets_topic_partitions: i32 = "50", at_least(1), ReadOnly,
        "Partitions of the topic that keeps groups and their offsets; must not change.";
    "offsets.topic.replication.factor" offsets_topic_replication_factor: i16 =
        "3", at_least(1), ReadOnly,
        "Replicas of the topic that keeps groups and their offsets.";
    "offsets.topic.segment.bytes" offsets_topic_segment_bytes: i32 =
        "104857600", at_least(1), ReadOnly,
        "Segment size of the topic that keeps groups and their offsets.";
    "offsets.retention.minutes" offsets_retention_minutes: i32 = "10080", at_least(1), ReadOnly,
        "How long an empty group's offsets are kept.";
    "offsets.retention.check.interval.ms" offsets_retention_check_interval_ms: i64 =
        "600000", at_least(1), ReadOnly,
        "How often expired offsets are looked for.";
    "offsets.commit.timeout.ms" offsets_commit_timeout_ms: i32 = "5000", at_least(1), ReadOnly,
        "How long a commit may take to be durable.";
    "offset.metadata.max.bytes" offset_metadata_bytes_max: i32 = "4096", ANY, ReadOnly,
        "Longest text that may go with a committed offset.";
    "group.initial.rebalance.delay.ms" group_initial_rebalance_delay_ms: i32 =
        "3000", ANY, ReadOnly,
        "How long an empty group waits for more members before its first rebalance.";
    "group.min.session.timeout.ms" group_session_timeout_ms_min: i32 = "6000", ANY, ReadOnly,
        "Shortest session timeout a member may ask for.";
    "group.max.session.timeout.ms" group_session_timeout_ms_max: i32 = "1800000", ANY, ReadOnly,
        "Longest session timeout a member may ask for.";
    "group.max.size" group_size_max: i32 = "2147483647", at_least(1), ReadOnly,
        "Most members of one classic group.";
    "producer.id.expiration.ms" producer_id_expiration_ms: i32 =
        "86400000", at_least(1), ClusterWide,
        "How long the producer ids of a partition are remembered after their last write.";
    "flowstone.shards" shards: Option<i32> = none, at_least(1), ReadOnly,
        "Shards, each a thread with a core of its own; one for each CPU where not set.";
    "flowstone.cpus" cpus: Option<String> = none, ANY, ReadOnly,
        "CPUs to run on, such as 0-3,8; all that the process may use where not set.";
    "flowstone.memory.bytes" memory_bytes: Option<i64> = none, at_least(67_108_864), ReadOnly,
        "Most memory for caches and requests together; a share of the host or cgroup where not set.";
    "flowstone.journal.bytes" journal_bytes: i64 = "536870912", at_least(0), ReadOnly,
        "Most disk for the journals of a log directory, in which small commits of many partitions share one write; 0 for none.";
    "flowstone.metrics.listener" metrics_listener: String = "127.0.0.1:9644", ANY, ReadOnly,
        "Address of /metrics, /healthz and /readyz, as host:port; empty is off.";
    "flowstone.log.format" log_format: LogFormat = "auto", Range::OneOf(LogFormat::NAMES), ReadOnly,
        "How the daemon logs: human, json, or auto, which is human on a terminal.";
    "flowstone.log.filter" log_filter: String = "info", NON_EMPTY, ReadOnly,
        "What the daemon logs: a level, or levels by module, such as info,flowstone_store=debug.";
    "flowstone.data.buffered" data_buffered: bool = "false", ANY, ReadOnly,
        "Buffered instead of direct I/O, for file systems without it; only with flowstoned dev.";
}

other_keys! {
    /// Keys that are used as the defaults of a topic's, and so read through [`TopicConfig`].
    TOPIC_DEFAULTS;
    Treatment::Used => {
        "min.insync.replicas" Int = "1", at_least(1), ClusterWide,
            "Replicas that must be in sync before a write with acks=all is taken.";
        "log.retention.hours" Int = "168", ANY, ReadOnly,
            "Hours that records are kept; see log.retention.ms.";
        "log.retention.minutes" Int = none, ANY, ReadOnly,
            "Minutes that records are kept; goes before the hours.";
        "log.retention.ms" Long = none, ANY, ClusterWide,
            "Milliseconds that records are kept, -1 for ever; goes before the minutes and hours.";
        "log.retention.bytes" Long = "-1", ANY, ClusterWide,
            "Size above which a partition's oldest segments are deleted; -1 is no limit.";
        "log.segment.bytes" Int = "1073741824", at_least(1_048_576), ClusterWide,
            "Size that closes a segment.";
        "log.roll.hours" Int = "168", at_least(1), ReadOnly,
            "Hours after which a segment is closed even if it is not full; see log.roll.ms.";
        "log.roll.ms" Long = none, ANY, ClusterWide,
            "Milliseconds after which a segment is closed even if it is not full; goes before the hours.";
        "log.roll.jitter.hours" Int = "0", at_least(0), ReadOnly,
            "Most hours taken off log.roll at random, so that segments do not all close at once.";
        "log.roll.jitter.ms" Long = none, ANY, ClusterWide,
            "Most milliseconds taken off log.roll at random; goes before the hours.";
        "log.cleanup.policy" List = "delete", Range::EachOf(&["compact", "delete"]), ClusterWide,
            "What happens to old records: delete, compact, or both.";
        "log.index.size.max.bytes" Int = "10485760", at_least(4), ClusterWide,
            "Largest offset index of a segment.";
        "log.index.interval.bytes" Int = "4096", at_least(0), ClusterWide,
            "Bytes of records between two entries of the offset index.";
        "log.flush.interval.messages" Long = "9223372036854775807", at_least(1), ClusterWide,
            "Records after which a partition is flushed, in the weaker durability modes.";
        "log.flush.interval.ms" Long = none, ANY, ClusterWide,
            "Longest time that a record stays unflushed, in the weaker durability modes.";
        "log.flush.scheduler.interval.ms" Long = "9223372036854775807", ANY, ReadOnly,
            "How often it is looked whether a partition must be flushed; stands in for log.flush.interval.ms.";
        "log.segment.delete.delay.ms" Long = "60000", at_least(0), ClusterWide,
            "Time a deleted segment's files stay under their .deleted names.";
        "log.preallocate" Boolean = "false", ANY, ClusterWide,
            "Whether a segment's file has its full size from the start.";
        "message.max.bytes" Int = "1048588", at_least(0), ClusterWide,
            "Largest record batch, after compression.";
        "log.message.timestamp.type" String =
            "CreateTime", Range::OneOf(&["CreateTime", "LogAppendTime"]), ClusterWide,
            "Whose time a record carries: CreateTime or LogAppendTime.";
        "log.message.timestamp.before.max.ms" Long =
            "9223372036854775807", at_least(0), ClusterWide,
            "How far a record's timestamp may be behind the broker's clock.";
        "log.message.timestamp.after.max.ms" Long = "3600000", at_least(0), ClusterWide,
            "How far a record's timestamp may be ahead of the broker's clock.";
        "compression.type" String =
            "producer",
            Range::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ClusterWide,
            "How records are compressed in the log; producer keeps them as they came.";
        "compression.gzip.level" Int = "-1", GZIP_LEVEL, ClusterWide,
            "Level of gzip compression; -1 is its default.";
        "compression.lz4.level" Int = "9", between(1, 17), ClusterWide,
            "Level of lz4 compression, for Kafka's sake: our compressor has one level only, a fast one.";
        "compression.zstd.level" Int = "3", between(-131_072, 22), ClusterWide,
            "Level of zstd compression.";
        "log.cleaner.min.cleanable.ratio" Double = "0.5", real(0.0, 1.0), ClusterWide,
            "Share of uncompacted bytes from which a log is compacted.";
        "log.cleaner.delete.retention.ms" Long = "86400000", at_least(0), ClusterWide,
            "Time that tombstones are kept.";
        "log.cleaner.min.compaction.lag.ms" Long = "0", at_least(0), ClusterWide,
            "Time that a record stays uncompacted at least.";
        "log.cleaner.max.compaction.lag.ms" Long = "9223372036854775807", at_least(1), ClusterWide,
            "Time after which a record is compacted at the latest.";
        "unclean.leader.election.enable" Boolean = "false", ANY, ClusterWide,
            "Whether a replica that is not in sync may lead when no other can, at the price of records.";
        "log.local.retention.ms" Long = "-2", at_least(-2), ClusterWide,
            "Time that records stay here when they are remote too; -2 is the retention time.";
        "log.local.retention.bytes" Long = "-2", at_least(-2), ClusterWide,
            "Bytes that stay here when they are remote too; -2 is the retention size.";
        "flowstone.durability" String = "flushed", Range::OneOf(Durability::NAMES), ClusterWide,
            "When a write is acknowledged: flushed to stable storage, written to the disk, or in memory.";
        "flowstone.compressed.check" String =
            "full", Range::OneOf(CompressedCheck::NAMES), ClusterWide,
            "What is checked of a compressed batch: full opens it as Kafka does, header trusts its producer.";
    }
}
