//! The keys of topics, of groups, and of subscriptions to client metrics.

use super::{
    ANY, CLIENT_MATCH, CleanupPolicy, CompressedCheck, CompressionType, Durability, Fallback,
    GZIP_LEVEL, KIP_714, KIP_848, Key, Kind, OFFSET_RESET, ONE_NODE, PREALLOCATE, Range, SHARE,
    STREAMS, THROTTLED, TIERED, TIERED_OFF, TimestampType, Treatment, Updates, Value, at_least,
    between, fallback, other_keys, real, typed_keys,
};

typed_keys! {
    /// A topic's configs that are used, typed and in range.
    TopicConfig, TOPIC_SETTINGS;
    "cleanup.policy" cleanup_policy: CleanupPolicy =
        "delete", Range::EachOf(&["compact", "delete"]), ClusterWide by ["log.cleanup.policy"],
        "What happens to old records: delete; compact is refused until it is there.";
    "compression.type" compression_type: CompressionType =
        "producer", Range::OneOf(CompressionType::NAMES), ClusterWide by ["compression.type"],
        "How records are compressed in the log; producer keeps them as they came.";
    "compression.gzip.level" compression_gzip_level: i32 =
        "-1", GZIP_LEVEL, ClusterWide by ["compression.gzip.level"],
        "Level of gzip compression; -1 is its default.";
    "compression.lz4.level" compression_lz4_level: i32 =
        "9", between(1, 17), ClusterWide by ["compression.lz4.level"],
        "Level of lz4 compression, for Kafka's sake: our compressor has one level only, a fast one.";
    "compression.zstd.level" compression_zstd_level: i32 =
        "3", between(-131_072, 22), ClusterWide by ["compression.zstd.level"],
        "Level of zstd compression.";
    "max.message.bytes" max_message_bytes: i32 =
        "1048588", at_least(0), ClusterWide by ["message.max.bytes"],
        "Largest record batch, after compression.";
    "message.timestamp.type" timestamp_type: TimestampType =
        "CreateTime",
        Range::OneOf(TimestampType::NAMES), ClusterWide by ["log.message.timestamp.type"],
        "Whose time a record carries: CreateTime or LogAppendTime.";
    "message.timestamp.before.max.ms" timestamp_before_ms_max: i64 =
        "9223372036854775807", at_least(0), ClusterWide by ["log.message.timestamp.before.max.ms"],
        "How far a record's timestamp may be behind the broker's clock.";
    "message.timestamp.after.max.ms" timestamp_after_ms_max: i64 =
        "3600000", at_least(0), ClusterWide by ["log.message.timestamp.after.max.ms"],
        "How far a record's timestamp may be ahead of the broker's clock.";
    "min.insync.replicas" min_insync_replicas: i32 =
        "1", at_least(1), ClusterWide by ["min.insync.replicas"],
        "Replicas that must be in sync before a write with acks=all is taken.";
    "unclean.leader.election.enable" unclean_leader_election: bool =
        "false", ANY, ClusterWide by ["unclean.leader.election.enable"],
        "Whether a replica that is not in sync may lead when no other can, at the price of records.";
    "retention.ms" retention_ms: i64 =
        "604800000",
        at_least(-1), ClusterWide
        by ["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "Time that records are kept; -1 is for ever.";
    "retention.bytes" retention_bytes: i64 = "-1", ANY, ClusterWide by ["log.retention.bytes"],
        "Size above which a partition's oldest segments are deleted; -1 is no limit.";
    "segment.bytes" segment_bytes: i32 =
        "1073741824", at_least(1_048_576), ClusterWide by ["log.segment.bytes"],
        "Size that closes a segment.";
    "segment.ms" segment_ms: i64 =
        "604800000", at_least(1), ClusterWide by ["log.roll.ms", "log.roll.hours"],
        "Age that closes a segment, by its records' timestamps.";
    "segment.jitter.ms" segment_jitter_ms: i64 =
        "0", at_least(0), ClusterWide by ["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "Most that is taken off segment.ms at random, so that segments do not all close at once.";
    "segment.index.bytes" segment_index_bytes: i32 =
        "10485760", at_least(4), ClusterWide by ["log.index.size.max.bytes"],
        "Largest offset index of a segment.";
    "index.interval.bytes" index_interval_bytes: i32 =
        "4096", at_least(0), ClusterWide by ["log.index.interval.bytes"],
        "Bytes of records between two entries of the offset index.";
    "file.delete.delay.ms" file_delete_delay_ms: i64 =
        "60000", at_least(0), ClusterWide by ["log.segment.delete.delay.ms"],
        "Time a deleted segment's files stay under their .deleted names.";
    "flush.messages" flush_messages: i64 =
        "9223372036854775807", at_least(1), ClusterWide by ["log.flush.interval.messages"],
        "Records after which a partition is flushed, in the weaker durability modes.";
    "flush.ms" flush_ms: i64 =
        "9223372036854775807",
        at_least(0), ClusterWide by ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "Longest time that a record stays unflushed, in the weaker durability modes.";
    "delete.retention.ms" delete_retention_ms: i64 =
        "86400000", at_least(0), ClusterWide by ["log.cleaner.delete.retention.ms"],
        "Time that tombstones are kept.";
    "min.compaction.lag.ms" min_compaction_lag_ms: i64 =
        "0", at_least(0), ClusterWide by ["log.cleaner.min.compaction.lag.ms"],
        "Time that a record stays uncompacted at least.";
    "max.compaction.lag.ms" max_compaction_lag_ms: i64 =
        "9223372036854775807", at_least(1), ClusterWide by ["log.cleaner.max.compaction.lag.ms"],
        "Time after which a record is compacted at the latest.";
    "min.cleanable.dirty.ratio" min_cleanable_dirty_ratio: f64 =
        "0.5", real(0.0, 1.0), ClusterWide by ["log.cleaner.min.cleanable.ratio"],
        "Share of uncompacted bytes from which the log is compacted.";
    "flowstone.durability" durability: Durability =
        "flushed", Range::OneOf(Durability::NAMES), ClusterWide by ["flowstone.durability"],
        "When a write is acknowledged: flushed to stable storage, written to the disk, or in memory.";
    "flowstone.compressed.check" compressed_check: CompressedCheck =
        "full",
        Range::OneOf(CompressedCheck::NAMES), ClusterWide by ["flowstone.compressed.check"],
        "What is checked of a compressed batch: full opens it as Kafka does, header trusts its producer.";
}

other_keys! {
    /// A topic's configs that have nothing to do here, or cannot be had.
    TOPIC_OTHERS;
    Treatment::NotNeeded(PREALLOCATE) => {
        "preallocate" Boolean = "false", ANY, ClusterWide by ["log.preallocate"],
            "Whether a segment's file has its full size from the start.";
    }
    Treatment::NotNeeded(ONE_NODE) => {
        "follower.replication.throttled.replicas" List = "", THROTTLED, ClusterWide by [],
            "Replicas whose incoming replication is throttled, as partition:broker, or * for all.";
        "leader.replication.throttled.replicas" List = "", THROTTLED, ClusterWide by [],
            "Replicas whose outgoing replication is throttled, as partition:broker, or * for all.";
    }
    Treatment::Refused(TIERED) => {
        "remote.storage.enable" Boolean = "false", ANY, ClusterWide by [],
            "Whether old segments go to remote storage.";
    }
    Treatment::NotNeeded(TIERED_OFF) => {
        "remote.log.copy.disable" Boolean = "false", ANY, ClusterWide by [],
            "Whether nothing more goes to remote storage.";
        "remote.log.delete.on.disable" Boolean = "false", ANY, ClusterWide by [],
            "Whether turning remote storage off deletes what is there.";
        "local.retention.ms" Long = "-2", at_least(-2), ClusterWide by ["log.local.retention.ms"],
            "Time that records stay here when they are remote too; -2 is the retention time.";
        "local.retention.bytes" Long =
            "-2", at_least(-2), ClusterWide by ["log.local.retention.bytes"],
            "Bytes that stay here when they are remote too; -2 is the retention size.";
    }
    Treatment::Internal => {
        "internal.segment.bytes" Int = none, ANY, ClusterWide by [],
            "Segment size for tests, below what segment.bytes allows.";
    }
}

other_keys! {
    /// The configs of a subscription to client metrics (KIP-714).
    CLIENT_METRICS_KEYS;
    Treatment::NotNeeded(KIP_714) => {
        "metrics" List = "", ANY, ClusterWide by [],
            "Prefixes of the names of the metrics that clients push; * for all.";
        "interval.ms" Int = "300000", between(100, 3_600_000), ClusterWide by [],
            "How often clients push them.";
        "match" List = "", CLIENT_MATCH, ClusterWide by [],
            "Which clients push them, as name=regular expression, of what they say of themselves; all without.";
    }
}

other_keys! {
    /// A group's configs (KIP-848, KIP-932, KIP-1071).
    GROUP_KEYS;
    Treatment::NotNeeded(KIP_848) => {
        "consumer.session.timeout.ms" Int =
            "45000", at_least(1), ClusterWide by ["group.consumer.session.timeout.ms"],
            "Session timeout of the consumer group.";
        "consumer.heartbeat.interval.ms" Int =
            "5000", at_least(1), ClusterWide by ["group.consumer.heartbeat.interval.ms"],
            "Heartbeat interval of the consumer group.";
        "consumer.assignment.interval.ms" Int =
            "1000", at_least(0), ClusterWide by ["group.consumer.assignment.interval.ms"],
            "Shortest time between two assignments of the consumer group.";
    }
    Treatment::NotNeeded(SHARE) => {
        "share.session.timeout.ms" Int =
            "45000", at_least(1), ClusterWide by ["group.share.session.timeout.ms"],
            "Session timeout of the share group.";
        "share.heartbeat.interval.ms" Int =
            "5000", at_least(1), ClusterWide by ["group.share.heartbeat.interval.ms"],
            "Heartbeat interval of the share group.";
        "share.assignment.interval.ms" Int =
            "1000", at_least(0), ClusterWide by ["group.share.assignment.interval.ms"],
            "Shortest time between two assignments of the share group.";
        "share.record.lock.duration.ms" Int =
            "30000", at_least(1000), ClusterWide by ["group.share.record.lock.duration.ms"],
            "How long a record is locked for the consumer that got it.";
        "share.delivery.count.limit" Int =
            "5", at_least(2), ClusterWide by ["group.share.delivery.count.limit"],
            "How often a record is delivered at most.";
        "share.partition.max.record.locks" Int =
            "2000", at_least(100), ClusterWide by ["group.share.partition.max.record.locks"],
            "Most records locked in one partition.";
        "share.auto.offset.reset" String = "latest", OFFSET_RESET, ClusterWide by [],
            "Where a new share group starts: latest, earliest, or by_duration: and an ISO 8601 duration.";
        "share.isolation.level" String =
            "read_uncommitted",
            Range::OneOf(&["read_committed", "read_uncommitted"]), ClusterWide by [],
            "Whether records of open transactions are delivered.";
        "share.renew.acknowledge.enable" Boolean = "true", ANY, ClusterWide by [],
            "Whether consumers may renew the lock of a record.";
    }
    Treatment::NotNeeded(STREAMS) => {
        "streams.session.timeout.ms" Int =
            "45000", at_least(1), ClusterWide by ["group.streams.session.timeout.ms"],
            "Session timeout of the streams group.";
        "streams.heartbeat.interval.ms" Int =
            "5000", at_least(1), ClusterWide by ["group.streams.heartbeat.interval.ms"],
            "Heartbeat interval of the streams group.";
        "streams.num.standby.replicas" Int =
            "0", at_least(0), ClusterWide by ["group.streams.num.standby.replicas"],
            "Standby replicas of each task.";
        "streams.initial.rebalance.delay.ms" Int =
            "3000", at_least(0), ClusterWide by ["group.streams.initial.rebalance.delay.ms"],
            "How long the empty streams group waits for more members.";
        "streams.assignment.interval.ms" Int =
            "1000", at_least(0), ClusterWide by ["group.streams.assignment.interval.ms"],
            "Shortest time between two assignments of the streams group.";
    }
}
