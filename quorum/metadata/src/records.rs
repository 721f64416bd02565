//! The metadata records, each declared once: Kafka 4.3.1's 26 (reference section 2.3).
//!
//! Their meaning is in [`crate::Image`], their framing in [`crate::MetadataRecord`].

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_schema::schema;
use flowstone_types::Uuid;

schema! {
    /// A broker came (again), with a new epoch. It starts fenced.
    message RegisterBrokerRecord = 0, versions 0..=4, flexible 0 {
        /// The broker's node id.
        broker_id: i32,
        /// Left from the migration off ZooKeeper; always false.
        is_migrating_zk_broker: bool [since(2)],
        /// Drawn by the process at its start.
        incarnation_id: Uuid,
        /// Given by the controller; no larger than this record's offset, and never smaller than before.
        broker_epoch: i64,
        /// Where it listens.
        end_points: Vec<BrokerEndpoint>,
        /// Feature levels that it can live with.
        features: Vec<BrokerFeature>,
        /// Its rack.
        rack: Option<String>,
        /// Whether it may not lead.
        fenced: bool = true,
        /// Whether it is on its way out.
        in_controlled_shutdown: bool [since(1)],
        /// Ids of its log directories that are online (KIP-858).
        log_dirs: Vec<Uuid> [since(3).tag(0)],
        /// Those of them that take no new replicas; null until the broker says so (KIP-1066).
        cordoned_log_dirs: Option<Vec<Uuid>> [since(4).tag(1)],
    }

    /// Where a broker listens.
    struct BrokerEndpoint {
        /// The listener's name.
        name: String,
        /// The advertised host.
        host: String,
        /// The advertised port.
        port: u16,
        /// 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL.
        security_protocol: i16,
    }

    /// A range of a feature's levels.
    struct BrokerFeature {
        /// The feature's name.
        name: String,
        /// Lowest level supported.
        min_supported_version: i16,
        /// Highest level supported.
        max_supported_version: i16,
    }

    /// A broker's registration ends.
    message UnregisterBrokerRecord = 1, versions 0..=0, flexible 0 {
        /// The broker's node id.
        broker_id: i32,
        /// The epoch that ends.
        broker_epoch: i64,
    }

    /// A topic is created; its configs and partitions follow.
    message TopicRecord = 2, versions 0..=0, flexible 0 {
        /// Its name.
        name: String,
        /// Its id.
        topic_id: Uuid,
    }

    /// A partition is created.
    message PartitionRecord = 3, versions 0..=2, flexible 0 {
        /// Its index in the topic.
        partition_id: i32 = -1,
        /// Its topic.
        topic_id: Uuid,
        /// Brokers that hold it, the preferred leader first.
        replicas: Vec<i32>,
        /// Those in sync.
        isr: Vec<i32>,
        /// Those that a reassignment takes away.
        removing_replicas: Vec<i32>,
        /// Those that a reassignment adds.
        adding_replicas: Vec<i32>,
        /// The leader, or -1.
        leader: i32 = -1,
        /// 1 after an unclean election until the leader has recovered, else 0.
        leader_recovery_state: i8 [tag(0)],
        /// Count of its leaderships.
        leader_epoch: i32 = -1,
        /// Count of its changes.
        partition_epoch: i32 = -1,
        /// Log directory of each replica, in their order (KIP-858).
        directories: Vec<Uuid> [since(1)],
        /// Replicas outside the ISR that hold all that was committed (KIP-966).
        eligible_leader_replicas: Option<Vec<i32>> [since(2).tag(1)],
        /// Last known leader once ISR and eligible replicas ran out (KIP-966).
        last_known_elr: Option<Vec<i32>> [since(2).tag(2)],
    }

    /// A config is set, or removed.
    message ConfigRecord = 4, versions 0..=0, flexible 0 {
        /// 2 topic, 4 broker, 16 client metrics, 32 group.
        resource_type: i8,
        /// Whose; empty for the default of all brokers.
        resource_name: String,
        /// The key.
        name: String,
        /// The value, or null to remove it.
        value: Option<String>,
    }

    /// A partition changed; what is null or a negative marker did not.
    message PartitionChangeRecord = 5, versions 0..=2, flexible 0 {
        /// Its index in the topic.
        partition_id: i32 = -1,
        /// Its topic.
        topic_id: Uuid,
        /// The new ISR.
        isr: Option<Vec<i32>> [tag(0)],
        /// The new leader, -1 for none, -2 for no change. Any but -2 is a new leader epoch.
        leader: i32 [tag(1)] = -2,
        /// The new replicas.
        replicas: Option<Vec<i32>> [tag(2)],
        /// The new removing replicas.
        removing_replicas: Option<Vec<i32>> [tag(3)],
        /// The new adding replicas.
        adding_replicas: Option<Vec<i32>> [tag(4)],
        /// The new recovery state, -1 for no change.
        leader_recovery_state: i8 [tag(5)] = -1,
        /// The new eligible leader replicas.
        eligible_leader_replicas: Option<Vec<i32>> [since(2).tag(6)],
        /// The new last known leader.
        last_known_elr: Option<Vec<i32>> [since(2).tag(7)],
        /// The new directories.
        directories: Option<Vec<Uuid>> [since(1).tag(8)],
    }

    /// A broker is fenced (before MV 3.3; later releases write [`BrokerRegistrationChangeRecord`]).
    message FenceBrokerRecord = 7, versions 0..=0, flexible 0 {
        /// The broker's node id.
        id: i32,
        /// Its epoch.
        epoch: i64,
    }

    /// A broker is unfenced (before MV 3.3).
    message UnfenceBrokerRecord = 8, versions 0..=0, flexible 0 {
        /// The broker's node id.
        id: i32,
        /// Its epoch.
        epoch: i64,
    }

    /// A topic is deleted, with its partitions and configs.
    message RemoveTopicRecord = 9, versions 0..=0, flexible 0 {
        /// Its id.
        topic_id: Uuid,
    }

    /// A delegation token is issued or renewed.
    message DelegationTokenRecord = 10, versions 0..=0, flexible 0 {
        /// Principal that owns it.
        owner: String,
        /// Principal that asked for it.
        requester: String,
        /// Principals that may renew it.
        renewers: Vec<String>,
        /// When it was issued, in ms.
        issue_timestamp: i64,
        /// When it ends whatever is done, in ms.
        max_timestamp: i64,
        /// When it ends unless renewed, in ms.
        expiration_timestamp: i64,
        /// Its id.
        token_id: String,
    }

    /// A user's SCRAM credential is set.
    message UserScramCredentialRecord = 11, versions 0..=0, flexible 0 {
        /// The user.
        name: String,
        /// 1 SCRAM-SHA-256, 2 SCRAM-SHA-512.
        mechanism: i8,
        /// The salt.
        salt: Bytes,
        /// Proves the client.
        stored_key: Bytes,
        /// Proves the server.
        server_key: Bytes,
        /// Rounds of hashing.
        iterations: i32,
    }

    /// A feature's finalized level.
    message FeatureLevelRecord = 12, versions 0..=0, flexible 0 {
        /// The feature.
        name: String,
        /// Its level; 0 takes the feature away.
        feature_level: i16,
    }

    /// A client quota is set, or removed.
    message ClientQuotaRecord = 14, versions 0..=0, flexible 0 {
        /// Whose quota: user, client id, address, or two of them.
        entity: Vec<EntityData>,
        /// The quota's key.
        key: String,
        /// The quota.
        value: f64,
        /// Whether it is removed.
        remove: bool,
    }

    /// One part of whose quota it is.
    struct EntityData {
        /// `user`, `client-id` or `ip`.
        entity_type: String,
        /// Its name; null for the default of all.
        entity_name: Option<String>,
    }

    /// A block of producer ids was handed out.
    message ProducerIdsRecord = 15, versions 0..=0, flexible 0 {
        /// Whom to.
        broker_id: i32,
        /// That broker's epoch.
        broker_epoch: i64 = -1,
        /// The first id behind the block.
        next_producer_id: i64,
    }

    /// A broker's registration changed.
    message BrokerRegistrationChangeRecord = 17, versions 0..=3, flexible 0 {
        /// The broker's node id.
        broker_id: i32,
        /// Its epoch.
        broker_epoch: i64,
        /// 1 fenced, -1 unfenced, 0 no change.
        fenced: i8 [tag(0)],
        /// 1 in controlled shutdown, 0 no change.
        in_controlled_shutdown: i8 [since(1).tag(1)],
        /// The new online log directories; empty for no change.
        log_dirs: Vec<Uuid> [since(2).tag(2)],
        /// The new cordoned ones; null for no change.
        cordoned_log_dirs: Option<Vec<Uuid>> [since(3).tag(3)],
    }

    /// An ACL is added.
    message AccessControlEntryRecord = 18, versions 0..=0, flexible 0 {
        /// Its id.
        id: Uuid,
        /// What kind of resource.
        resource_type: i8,
        /// Its name.
        resource_name: String,
        /// How the name matches: 3 literal, 4 prefixed.
        pattern_type: i8,
        /// Who, as `User:name`.
        principal: String,
        /// From where.
        host: String,
        /// May do what.
        operation: i8,
        /// 2 deny, 3 allow.
        permission_type: i8,
    }

    /// An ACL is removed.
    message RemoveAccessControlEntryRecord = 19, versions 0..=0, flexible 0 {
        /// Its id.
        id: Uuid,
    }

    /// Nothing: Apache's controllers write it so that the log moves.
    message NoOpRecord = 20, versions 0..=0, flexible 0 {}

    /// Left from the migration off ZooKeeper; means nothing.
    message ZkMigrationStateRecord = 21, versions 0..=0, flexible 0 {
        /// The state.
        zk_migration_state: i8,
    }

    /// A user's SCRAM credential is removed.
    message RemoveUserScramCredentialRecord = 22, versions 0..=0, flexible 0 {
        /// The user.
        name: String,
        /// The mechanism.
        mechanism: i8,
    }

    /// What follows counts only once [`EndTransactionRecord`] comes (KIP-868).
    message BeginTransactionRecord = 23, versions 0..=0, flexible 0 {
        /// What it is for.
        name: Option<String> [tag(0)],
    }

    /// The transaction counts.
    message EndTransactionRecord = 24, versions 0..=0, flexible 0 {}

    /// The transaction never was.
    message AbortTransactionRecord = 25, versions 0..=0, flexible 0 {
        /// Why.
        reason: Option<String> [tag(0)],
    }

    /// A delegation token is removed.
    message RemoveDelegationTokenRecord = 26, versions 0..=0, flexible 0 {
        /// Its id.
        token_id: String,
    }

    /// A controller came (again).
    message RegisterControllerRecord = 27, versions 0..=0, flexible 0 {
        /// Its node id.
        controller_id: i32,
        /// Drawn by the process at its start.
        incarnation_id: Uuid,
        /// Left from the migration off ZooKeeper; always false.
        zk_migration_ready: bool,
        /// Where it listens.
        end_points: Vec<BrokerEndpoint>,
        /// Feature levels that it can live with.
        features: Vec<BrokerFeature>,
    }

    /// Eligible leader replicas are forgotten: `min.insync.replicas` changed (KIP-966).
    message ClearElrRecord = 28, versions 0..=0, flexible 0 {
        /// The topic; empty for all.
        topic_name: String,
    }
}
