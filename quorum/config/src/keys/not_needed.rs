//! Kafka's server keys that are understood and checked, but have nothing to do here.

use super::{
    ANY, COMPACTION, COORDINATOR, Fallback, KIP_848, Key, Kind, MEMORY, METADATA_FIXED, METRICS,
    NON_EMPTY, NOT_LIMITED, ONE_CHECKPOINT, ONE_DIR, ONE_NODE, OWN_SESSION, PLAIN_OFFSETS, POOLS,
    QUOTAS, Range, SECURITY_OFF, SHARE, STREAMS, TIERED_OFF, TRANSACTIONS, Treatment, Updates,
    at_least, between, fallback, other_keys, real,
};

other_keys! {
    /// Accepted; a warning lists those that are set, once, with the reason.
    NOT_NEEDED;
    Treatment::NotNeeded(ONE_NODE) => {
        "leader.replication.throttled.rate" Long =
            "9223372036854775807", at_least(0), ClusterWide,
            "Bytes a second that throttled replicas send at most.";
        "follower.replication.throttled.rate" Long =
            "9223372036854775807", at_least(0), ClusterWide,
            "Bytes a second that throttled replicas receive at most.";
        "replica.alter.log.dirs.io.max.bytes.per.second" Long =
            "9223372036854775807", at_least(0), ClusterWide,
            "Bytes a second that moves between data directories take at most.";
        "broker.heartbeat.interval.ms" Int = "2000", ANY, ReadOnly,
            "Time between a broker's heartbeats to the controller.";
        "broker.session.timeout.ms" Int = "9000", ANY, ReadOnly,
            "Time without a heartbeat after which the controller fences a broker.";
        "initial.broker.registration.timeout.ms" Int = "60000", ANY, ReadOnly,
            "Time a starting broker waits to be registered.";
        "controller.quorum.election.timeout.ms" Int = "1000", at_least(0), ReadOnly,
            "Time without a leader after which a voter starts an election.";
        "controller.quorum.fetch.timeout.ms" Int = "2000", at_least(0), ReadOnly,
            "Time without a successful fetch after which a voter becomes candidate, or a leader resigns.";
        "controller.quorum.election.backoff.max.ms" Int = "1000", at_least(0), ReadOnly,
            "Longest pause before an election is tried again.";
        "controller.quorum.append.linger.ms" Int = "25", at_least(0), ReadOnly,
            "How long the quorum's leader gathers writes before it flushes them.";
        "controller.quorum.request.timeout.ms" Int = "2000", at_least(0), ReadOnly,
            "How long a quorum request may take.";
        "controller.quorum.retry.backoff.ms" Int = "20", at_least(0), ReadOnly,
            "Pause before a failed quorum request is sent again.";
        "controller.quorum.auto.join.enable" Boolean = "false", ANY, ReadOnly,
            "Whether a controller adds itself to the voters.";
        "controller.quorum.fetch.max.bytes" Int = "1048576", at_least(1), ReadOnly,
            "Most bytes of metadata records in one fetch.";
        "controller.quorum.fetch.snapshot.max.bytes" Int = "1048576", at_least(1), ReadOnly,
            "Most bytes of a snapshot in one fetch.";
        "metadata.max.idle.interval.ms" Int = "500", at_least(0), ReadOnly,
            "How often an idle quorum leader writes a no-op record; 0 never.";
        "request.timeout.ms" Int = "30000", ANY, ReadOnly,
            "How long a request to another node may take.";
        "socket.connection.setup.timeout.ms" Long = "10000", ANY, ReadOnly,
            "How long a connection to another node may take to be made.";
        "socket.connection.setup.timeout.max.ms" Long = "30000", ANY, ReadOnly,
            "How long a connection to another node may take to be made, after several failures.";
        "controller.socket.timeout.ms" Int = "30000", ANY, ReadOnly,
            "How long a request to the controller may take.";
        "num.replica.fetchers" Int = "1", at_least(1), ClusterWide,
            "Fetchers for each broker that is followed.";
        "replica.lag.time.max.ms" Long = "30000", ANY, ReadOnly,
            "Time without catching up after which a follower leaves the in-sync set.";
        "replica.fetch.max.bytes" Int = "1048576", at_least(0), ReadOnly,
            "Bytes a follower asks for, of each partition.";
        "replica.fetch.wait.max.ms" Int = "500", ANY, ReadOnly,
            "How long a follower's fetch may wait for data.";
        "replica.fetch.min.bytes" Int = "1", ANY, ReadOnly,
            "Bytes a follower's fetch waits for.";
        "replica.fetch.backoff.ms" Int = "1000", at_least(0), ReadOnly,
            "Pause after a follower's fetch failed.";
        "replica.fetch.response.max.bytes" Int = "10485760", at_least(0), ReadOnly,
            "Bytes a follower asks for, in one fetch.";
        "replica.socket.timeout.ms" Int = "30000", ANY, ReadOnly,
            "How long a follower's request may take.";
        "replica.socket.receive.buffer.bytes" Int = "65536", ANY, ReadOnly,
            "Receive buffer of a follower's socket.";
        "auto.leader.rebalance.enable" Boolean = "true", ANY, ReadOnly,
            "Whether leadership goes back to preferred replicas by itself.";
        "leader.imbalance.check.interval.seconds" Long = "300", at_least(1), ReadOnly,
            "How often it is looked whether leadership should go back to preferred replicas.";
        "controlled.shutdown.enable" Boolean = "true", ANY, ReadOnly,
            "Whether a stopping broker hands over its partitions first.";
    }
    Treatment::NotNeeded(METADATA_FIXED) => {
        "metadata.log.segment.bytes" Int = "1073741824", at_least(8_388_608), ReadOnly,
            "Size that closes a segment of the metadata log.";
        "metadata.log.segment.ms" Long = "604800000", ANY, ReadOnly,
            "Age that closes a segment of the metadata log.";
        "metadata.max.retention.bytes" Long = "104857600", ANY, ReadOnly,
            "Size above which old metadata segments and snapshots are deleted.";
        "metadata.max.retention.ms" Long = "604800000", ANY, ReadOnly,
            "Age above which old metadata segments and snapshots are deleted.";
    }
    Treatment::NotNeeded(NOT_LIMITED) => {
        "max.connection.creation.rate" Int = "2147483647", at_least(0), ClusterWide,
            "Most new connections a second.";
    }
    Treatment::NotNeeded(POOLS) => {
        "num.network.threads" Int = "3", at_least(1), ClusterWide,
            "Threads that read requests and write responses.";
        "num.io.threads" Int = "8", at_least(1), ClusterWide,
            "Threads that process requests.";
        "background.threads" Int = "10", at_least(1), ClusterWide,
            "Threads for background work.";
        "num.recovery.threads.per.data.dir" Int = "2", at_least(1), ClusterWide,
            "Threads that recover logs at start, for each data directory.";
        "num.replica.alter.log.dirs.threads" Int = none, ANY, ReadOnly,
            "Threads that move replicas between data directories.";
        "group.coordinator.threads" Int = "4", at_least(1), ReadOnly,
            "Threads of the group coordinator.";
        "group.coordinator.background.threads" Int = "2", at_least(1), ReadOnly,
            "Threads of the group coordinator's background work.";
        "share.coordinator.threads" Int = "1", at_least(1), ReadOnly,
            "Threads of the share coordinator.";
    }
    Treatment::NotNeeded(MEMORY) => {
        "queued.max.requests" Int = "500", at_least(1), ReadOnly,
            "Requests that may wait before reading from connections pauses.";
        "queued.max.request.bytes" Long = "-1", ANY, ReadOnly,
            "Bytes of requests that may wait before reading from connections pauses; -1 is no limit.";
        "fetch.purgatory.purge.interval.requests" Int = "1000", ANY, ReadOnly,
            "After how many waiting fetches finished ones are swept out.";
        "producer.purgatory.purge.interval.requests" Int = "1000", ANY, ReadOnly,
            "After how many waiting produces finished ones are swept out.";
        "delete.records.purgatory.purge.interval.requests" Int = "1", ANY, ReadOnly,
            "After how many waiting DeleteRecords finished ones are swept out.";
        "share.fetch.purgatory.purge.interval.requests" Int = "1000", ANY, ReadOnly,
            "After how many waiting share fetches finished ones are swept out.";
        "offsets.load.buffer.size" Int = "5242880", at_least(1), ReadOnly,
            "Bytes read at a time when offsets are loaded.";
        "group.coordinator.cached.buffer.max.bytes" Int = "1048588", at_least(524_288), ClusterWide,
            "Largest buffer that the group coordinator keeps for its next write.";
    }
    Treatment::NotNeeded(SECURITY_OFF) => {
        "sasl.kerberos.ticket.renew.window.factor" Double = "0.8", ANY, PerBroker,
            "Share of a ticket's life after which it is renewed.";
        "sasl.kerberos.ticket.renew.jitter" Double = "0.05", ANY, PerBroker,
            "Random part of the share of a ticket's life after which it is renewed.";
        "sasl.kerberos.min.time.before.relogin" Long = "60000", ANY, PerBroker,
            "Shortest time between two logins.";
        "connection.failed.authentication.delay.ms" Int = "100", at_least(0), ReadOnly,
            "Delay before a connection that failed to authenticate is closed.";
        "early.start.listeners" List = none, ANY, ReadOnly,
            "Listeners that open before ACLs are loaded.";
        "delegation.token.max.lifetime.ms" Long = "604800000", at_least(1), ReadOnly,
            "Longest life of a delegation token.";
        "delegation.token.expiry.time.ms" Long = "86400000", at_least(1), ReadOnly,
            "Life of a delegation token without renewal.";
        "delegation.token.expiry.check.interval.ms" Long = "3600000", at_least(1), ReadOnly,
            "How often expired delegation tokens are removed.";
    }
    Treatment::NotNeeded(ONE_DIR) => {
        "cordoned.log.dirs" List = "", ANY, PerBroker,
            "Data directories that get no new partitions.";
        "log.dir.failure.timeout.ms" Long = "30000", at_least(1), ReadOnly,
            "How long a broker with a failed directory waits for the controller to know.";
    }
    Treatment::NotNeeded(ONE_CHECKPOINT) => {
        "log.flush.start.offset.checkpoint.interval.ms" Int = "60000", at_least(0), ReadOnly,
            "How often the log start offset checkpoint is written.";
        "replica.high.watermark.checkpoint.interval.ms" Long = "5000", ANY, ReadOnly,
            "How often the high watermark checkpoint is written.";
    }
    Treatment::NotNeeded(OWN_SESSION) => {
        "max.incremental.fetch.session.cache.slots" Int = "1000", at_least(0), ReadOnly,
            "Most incremental fetch sessions that are remembered.";
    }
    Treatment::NotNeeded(COMPACTION) => {
        "log.cleaner.enable" Boolean = "true", ANY, ReadOnly,
            "Whether compaction runs.";
        "log.cleaner.threads" Int = "1", at_least(0), ClusterWide,
            "Threads that compact.";
        "log.cleaner.dedupe.buffer.size" Long = "134217728", ANY, ClusterWide,
            "Memory for the keys of a compaction, over all threads.";
        "log.cleaner.io.max.bytes.per.second" Double = "1.7976931348623157E308", ANY, ClusterWide,
            "Most bytes a second that compaction reads and writes.";
        "log.cleaner.io.buffer.size" Int = "524288", at_least(0), ClusterWide,
            "Memory for a compaction's reads and writes, over all threads.";
        "log.cleaner.io.buffer.load.factor" Double = "0.9", ANY, ClusterWide,
            "How full the table of a compaction's keys may get.";
        "log.cleaner.backoff.ms" Long = "15000", at_least(0), ClusterWide,
            "Pause when there is nothing to compact.";
    }
    Treatment::NotNeeded(PLAIN_OFFSETS) => {
        "offsets.topic.compression.codec" Int = "0", ANY, ReadOnly,
            "Compression of the topic that keeps groups and their offsets; 0 is none.";
    }
    Treatment::NotNeeded(COORDINATOR) => {
        "group.coordinator.append.linger.ms" Int = "-1", at_least(-1), ReadOnly,
            "How long the group coordinator gathers writes; -1 adapts.";
        "group.coordinator.rebalance.protocols" List =
            "classic,consumer,streams",
            Range::EachOf(&["consumer", "classic", "share", "streams"]), ReadOnly,
            "Group protocols that are on.";
    }
    Treatment::NotNeeded(KIP_848) => {
        "group.consumer.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Session timeout of consumer groups.";
        "group.consumer.min.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Shortest session timeout of a consumer group.";
        "group.consumer.max.session.timeout.ms" Int = "60000", at_least(1), ReadOnly,
            "Longest session timeout of a consumer group.";
        "group.consumer.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Heartbeat interval of consumer groups.";
        "group.consumer.min.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Shortest heartbeat interval of a consumer group.";
        "group.consumer.max.heartbeat.interval.ms" Int = "15000", at_least(1), ReadOnly,
            "Longest heartbeat interval of a consumer group.";
        "group.consumer.max.size" Int = "2147483647", at_least(1), ReadOnly,
            "Most members of one consumer group.";
        "group.consumer.assignors" List = "uniform,range", ANY, ReadOnly,
            "Assignors for consumer groups, the default first.";
        "group.consumer.migration.policy" String =
            "bidirectional",
            Range::OneOfIgnoringCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), ReadOnly,
            "Whether groups may change between the classic and the consumer protocol.";
        "group.consumer.assignment.interval.ms" Int = "1000", at_least(0), ClusterWide,
            "Shortest time between two assignments of a consumer group.";
        "group.consumer.min.assignment.interval.ms" Int = "0", at_least(0), ReadOnly,
            "Shortest assignment interval that a consumer group may set.";
        "group.consumer.max.assignment.interval.ms" Int = "15000", at_least(0), ReadOnly,
            "Longest assignment interval that a consumer group may set.";
    }
    Treatment::NotNeeded(SHARE) => {
        "group.share.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Session timeout of share groups.";
        "group.share.min.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Shortest session timeout of a share group.";
        "group.share.max.session.timeout.ms" Int = "60000", at_least(1), ReadOnly,
            "Longest session timeout of a share group.";
        "group.share.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Heartbeat interval of share groups.";
        "group.share.min.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Shortest heartbeat interval of a share group.";
        "group.share.max.heartbeat.interval.ms" Int = "15000", at_least(1), ReadOnly,
            "Longest heartbeat interval of a share group.";
        "group.share.max.size" Int = "200", between(1, 1000), ReadOnly,
            "Most members of one share group.";
        "group.share.assignors" List = "simple", ANY, ReadOnly,
            "Assignors for share groups.";
        "group.share.assignment.interval.ms" Int = "1000", at_least(0), ClusterWide,
            "Shortest time between two assignments of a share group.";
        "group.share.min.assignment.interval.ms" Int = "0", at_least(0), ReadOnly,
            "Shortest assignment interval that a share group may set.";
        "group.share.max.assignment.interval.ms" Int = "15000", at_least(0), ReadOnly,
            "Longest assignment interval that a share group may set.";
        "group.share.delivery.count.limit" Int = "5", between(2, 10), ReadOnly,
            "How often a record is delivered at most.";
        "group.share.min.delivery.count.limit" Int = "2", between(2, 5), ReadOnly,
            "Lowest delivery count limit that a share group may set.";
        "group.share.max.delivery.count.limit" Int = "10", between(5, 25), ReadOnly,
            "Highest delivery count limit that a share group may set.";
        "group.share.record.lock.duration.ms" Int = "30000", between(1000, 3_600_000), ReadOnly,
            "How long a record is locked for the consumer that got it.";
        "group.share.min.record.lock.duration.ms" Int = "15000", between(1000, 30_000), ReadOnly,
            "Shortest lock duration that a share group may set.";
        "group.share.max.record.lock.duration.ms" Int =
            "60000", between(30_000, 3_600_000), ReadOnly,
            "Longest lock duration that a share group may set.";
        "group.share.partition.max.record.locks" Int = "2000", between(100, 10_000), ReadOnly,
            "Most records locked in one partition.";
        "group.share.min.partition.max.record.locks" Int = "100", between(100, 2000), ReadOnly,
            "Lowest number of record locks that a share group may set.";
        "group.share.max.partition.max.record.locks" Int = "4000", between(2000, 10_000), ReadOnly,
            "Highest number of record locks that a share group may set.";
        "group.share.max.share.sessions" Int = "2000", at_least(1), ReadOnly,
            "Most share sessions on one broker.";
        "share.coordinator.state.topic.num.partitions" Int = "50", at_least(1), ReadOnly,
            "Partitions of the topic that keeps share state.";
        "share.coordinator.state.topic.replication.factor" Short = "3", at_least(1), ReadOnly,
            "Replicas of the topic that keeps share state.";
        "share.coordinator.state.topic.min.isr" Short = "2", at_least(1), ReadOnly,
            "In-sync replicas of the topic that keeps share state.";
        "share.coordinator.state.topic.segment.bytes" Int = "104857600", at_least(1), ReadOnly,
            "Segment size of the topic that keeps share state.";
        "share.coordinator.state.topic.compression.codec" Int = "0", ANY, ReadOnly,
            "Compression of the topic that keeps share state.";
        "share.coordinator.append.linger.ms" Int = "-1", at_least(-1), ReadOnly,
            "How long the share coordinator gathers writes.";
        "share.coordinator.load.buffer.size" Int = "5242880", at_least(1), ReadOnly,
            "Bytes read at a time when share state is loaded.";
        "share.coordinator.snapshot.update.records.per.snapshot" Int =
            "500", between(0, 500), ReadOnly,
            "Updates between two snapshots of a share partition's state.";
        "share.coordinator.write.timeout.ms" Int = "5000", at_least(1), ReadOnly,
            "How long a write of share state may take.";
        "share.coordinator.cached.buffer.max.bytes" Int = "1048588", at_least(524_288), ClusterWide,
            "Largest buffer that the share coordinator keeps for its next write.";
    }
    Treatment::NotNeeded(STREAMS) => {
        "group.streams.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Session timeout of streams groups.";
        "group.streams.min.session.timeout.ms" Int = "45000", at_least(1), ReadOnly,
            "Shortest session timeout of a streams group.";
        "group.streams.max.session.timeout.ms" Int = "60000", at_least(1), ReadOnly,
            "Longest session timeout of a streams group.";
        "group.streams.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Heartbeat interval of streams groups.";
        "group.streams.min.heartbeat.interval.ms" Int = "5000", at_least(1), ReadOnly,
            "Shortest heartbeat interval of a streams group.";
        "group.streams.max.heartbeat.interval.ms" Int = "15000", at_least(1), ReadOnly,
            "Longest heartbeat interval of a streams group.";
        "group.streams.max.size" Int = "2147483647", at_least(1), ReadOnly,
            "Most members of one streams group.";
        "group.streams.num.standby.replicas" Int = "0", at_least(0), ReadOnly,
            "Standby replicas of each task of a streams group.";
        "group.streams.max.standby.replicas" Int = "2", at_least(0), ReadOnly,
            "Most standby replicas that a streams group may set.";
        "group.streams.initial.rebalance.delay.ms" Int = "3000", at_least(0), ReadOnly,
            "How long an empty streams group waits for more members.";
        "group.streams.assignment.interval.ms" Int = "1000", at_least(0), ClusterWide,
            "Shortest time between two assignments of a streams group.";
        "group.streams.min.assignment.interval.ms" Int = "0", at_least(0), ReadOnly,
            "Shortest assignment interval that a streams group may set.";
        "group.streams.max.assignment.interval.ms" Int = "15000", at_least(0), ReadOnly,
            "Longest assignment interval that a streams group may set.";
    }
    Treatment::NotNeeded(TRANSACTIONS) => {
        "transaction.state.log.num.partitions" Int = "50", at_least(1), ReadOnly,
            "Partitions of the topic that keeps transactions.";
        "transaction.state.log.replication.factor" Short = "3", at_least(1), ReadOnly,
            "Replicas of the topic that keeps transactions.";
        "transaction.state.log.min.isr" Int = "2", at_least(1), ReadOnly,
            "In-sync replicas of the topic that keeps transactions.";
        "transaction.state.log.segment.bytes" Int = "104857600", at_least(1), ReadOnly,
            "Segment size of the topic that keeps transactions.";
        "transaction.state.log.load.buffer.size" Int = "5242880", at_least(1), ReadOnly,
            "Bytes read at a time when transactions are loaded.";
        "transaction.max.timeout.ms" Int = "900000", at_least(1), ReadOnly,
            "Longest timeout a transaction may have.";
        "transactional.id.expiration.ms" Int = "604800000", at_least(1), ReadOnly,
            "How long an unused transactional id is remembered.";
        "transaction.abort.timed.out.transaction.cleanup.interval.ms" Int =
            "10000", at_least(1), ReadOnly,
            "How often timed out transactions are aborted.";
        "transaction.remove.expired.transaction.cleanup.interval.ms" Int =
            "3600000", at_least(1), ReadOnly,
            "How often expired transactional ids are removed.";
        "transaction.partition.verification.enable" Boolean = "true", ANY, ClusterWide,
            "Whether a transactional write is checked with the coordinator first.";
        "add.partitions.to.txn.retry.backoff.ms" Int = "20", at_least(1), ReadOnly,
            "Pause before a partition is added to a transaction again.";
        "add.partitions.to.txn.retry.backoff.max.ms" Int = "100", at_least(0), ReadOnly,
            "Longest pause before a partition is added to a transaction again.";
    }
    Treatment::NotNeeded(QUOTAS) => {
        "quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that client quotas look back on.";
        "quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of client quotas.";
        "replication.quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that replication quotas look back on.";
        "replication.quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of replication quotas.";
        "alter.log.dirs.replication.quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that the quota of moves between directories looks back on.";
        "alter.log.dirs.replication.quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of the quota of moves between directories.";
        "controller.quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that the quota of controller mutations looks back on.";
        "controller.quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of the quota of controller mutations.";
    }
    Treatment::NotNeeded(METRICS) => {
        "kafka.metrics.polling.interval.secs" Int = "10", at_least(1), ReadOnly,
            "How often older metrics reporters look.";
        "metrics.num.samples" Int = "2", at_least(1), ReadOnly,
            "Samples that a metric's rate is made of.";
        "metrics.sample.window.ms" Long = "30000", at_least(1), ReadOnly,
            "Length of a sample of a metric's rate.";
        "metrics.recording.level" String = "INFO", ANY, ReadOnly,
            "Which metrics are recorded: INFO, DEBUG or TRACE.";
        "telemetry.max.bytes" Int = "1048576", at_least(1), ReadOnly,
            "Largest push of client metrics.";
    }
    Treatment::NotNeeded(TIERED_OFF) => {
        "remote.log.storage.manager.class.name" String = none, NON_EMPTY, ReadOnly,
            "Java class of the remote storage.";
        "remote.log.storage.manager.class.path" String = none, ANY, ReadOnly,
            "Where the Java class of the remote storage is.";
        "remote.log.storage.manager.impl.prefix" String = "rsm.config.", NON_EMPTY, ReadOnly,
            "Prefix of the keys of the remote storage's Java class.";
        "remote.log.metadata.manager.class.name" String =
            "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
            NON_EMPTY, ReadOnly,
            "Java class that keeps remote metadata.";
        "remote.log.metadata.manager.class.path" String = none, ANY, ReadOnly,
            "Where the Java class that keeps remote metadata is.";
        "remote.log.metadata.manager.impl.prefix" String = "rlmm.config.", NON_EMPTY, ReadOnly,
            "Prefix of the keys of the Java class that keeps remote metadata.";
        "remote.log.metadata.manager.listener.name" String = none, NON_EMPTY, ReadOnly,
            "Listener that the Java class which keeps remote metadata connects to.";
        "remote.log.metadata.custom.metadata.max.bytes" Int = "128", at_least(0), ReadOnly,
            "Largest custom metadata of a remote segment.";
        "remote.log.manager.thread.pool.size" Int = "2", at_least(1), ReadOnly,
            "Threads for remote work.";
        "remote.log.manager.copier.thread.pool.size" Int = "10", at_least(1), ClusterWide,
            "Threads that copy segments out.";
        "remote.log.manager.expiration.thread.pool.size" Int = "10", at_least(1), ClusterWide,
            "Threads that delete remote segments.";
        "remote.log.manager.follower.thread.pool.size" Int = "2", at_least(1), ClusterWide,
            "Threads for remote work of followers.";
        "remote.log.manager.task.interval.ms" Long = "30000", at_least(1), ReadOnly,
            "How often remote work is looked for.";
        "remote.log.manager.copy.max.bytes.per.second" Long =
            "9223372036854775807", at_least(1), ClusterWide,
            "Most bytes a second that are copied out.";
        "remote.log.manager.copy.quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that the quota of copies to remote storage looks back on.";
        "remote.log.manager.copy.quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of the quota of copies to remote storage.";
        "remote.log.manager.fetch.max.bytes.per.second" Long =
            "9223372036854775807", at_least(1), ClusterWide,
            "Most bytes a second that are read from remote storage.";
        "remote.log.manager.fetch.quota.window.num" Int = "11", at_least(1), ReadOnly,
            "Samples that the quota of reads from remote storage looks back on.";
        "remote.log.manager.fetch.quota.window.size.seconds" Int = "1", at_least(1), ReadOnly,
            "Length of a sample of the quota of reads from remote storage.";
        "remote.log.reader.threads" Int = "10", at_least(1), ClusterWide,
            "Threads that read from remote storage.";
        "remote.log.reader.max.pending.tasks" Int = "100", at_least(1), ReadOnly,
            "Most reads from remote storage that may wait.";
        "remote.log.index.file.cache.total.size.bytes" Long =
            "1073741824", at_least(1), ClusterWide,
            "Size of the cache of remote indexes.";
        "remote.fetch.max.wait.ms" Int = "500", at_least(1), ClusterWide,
            "How long a read from remote storage may take.";
        "remote.list.offsets.request.timeout.ms" Long = "30000", at_least(1), ClusterWide,
            "How long a search for offsets in remote storage may take.";
        "follower.fetch.last.tiered.offset.enable" Boolean = "false", ANY, ClusterWide,
            "Whether a new follower starts after what is remote.";
    }
    Treatment::Internal => {
        "internal.metadata.delete.delay.millis" Long = "60000", ANY, ReadOnly,
            "Delay before old metadata files are removed.";
        "internal.metadata.log.segment.bytes" Int = none, ANY, ReadOnly,
            "Metadata segment size for tests.";
        "internal.metadata.max.batch.size.in.bytes" Int = "8388608", ANY, ReadOnly,
            "Largest metadata batch.";
        "controller.performance.always.log.threshold.ms" Long = "2000", at_least(0), ReadOnly,
            "Controller events slower than this are always logged.";
        "controller.performance.sample.period.ms" Long = "60000", at_least(100), ReadOnly,
            "How often slow controller events are summed up.";
        "server.max.startup.time.ms" Long = "9223372036854775807", at_least(0), ReadOnly,
            "Longest time that a start may take.";
        "unstable.api.versions.enable" Boolean = "false", ANY, ReadOnly,
            "Serves API versions that are not released yet.";
        "unstable.feature.versions.enable" Boolean = "false", ANY, ReadOnly,
            "Allows feature levels that are not released yet.";
        "unclean.leader.election.interval.ms" Long = "300000", at_least(1), ReadOnly,
            "How often partitions without a leader are looked at.";
        "producer.id.expiration.check.interval.ms" Int = "600000", at_least(1), ReadOnly,
            "How often expired producer ids are looked for.";
        "log.initial.task.delay.ms" Long = "30000", at_least(0), ReadOnly,
            "Delay before the first retention and flush checks.";
        "group.consumer.regex.refresh.interval.ms" Int = "600000", at_least(10_000), ReadOnly,
            "How often subscribed patterns are matched again.";
        "group.share.initialize.retry.interval.ms" Int = "30000", at_least(1), ReadOnly,
            "Pause before share state is initialised again.";
        "group.share.persister.class.name" String =
            "org.apache.kafka.server.share.persister.DefaultStatePersister", ANY, ReadOnly,
            "Java class that keeps share state.";
        "share.coordinator.cold.partition.snapshot.interval.ms" Int =
            "300000", at_least(1), ReadOnly,
            "How often idle share partitions are written again.";
        "share.coordinator.state.topic.prune.interval.ms" Int = "300000", at_least(1), ReadOnly,
            "How often old share state is deleted.";
        "remote.log.manager.task.retry.backoff.ms" Long = "500", at_least(1), ReadOnly,
            "Pause before remote work is tried again.";
        "remote.log.manager.task.retry.backoff.max.ms" Long = "30000", at_least(1), ReadOnly,
            "Longest pause before remote work is tried again.";
        "remote.log.manager.task.retry.jitter" Double = "0.2", real(0.0, 0.5), ReadOnly,
            "Random part of the pause before remote work is tried again.";
        "remote.log.index.file.cache.ttl.ms" Long = "900000", at_least(-1), ReadOnly,
            "How long a remote index is cached.";
    }
}
