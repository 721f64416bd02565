//! Kafka's error codes: number, name, whether a client may try again, and a sentence.
//!
//! The numeric table of Apache Kafka 4.3.1 lives here; which error of ours becomes which code is
//! decided where the error is known, in one exhaustive match each.

use core::fmt;

macro_rules! codes {
    ($( $code:literal $name:ident $kafka:literal $($retriable:ident)? $message:literal; )+) => {
        /// An error code on the wire; as a number, the code.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(i16)]
        pub enum ErrorCode {
            $( #[doc = $message] $name = $code, )+
        }

        impl ErrorCode {
            /// Every code, ascending.
            pub const ALL: &[Self] = &[$( Self::$name ),+];

            /// The code with this number; `None` for one that Kafka 4.3.1 does not have.
            pub const fn from_number(number: i16) -> Option<Self> {
                match number {
                    $( $code => Some(Self::$name), )+
                    _ => None,
                }
            }

            /// Kafka's name of it, such as `NOT_LEADER_OR_FOLLOWER`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => $kafka, )+
                }
            }

            /// A sentence for people.
            pub const fn message(self) -> &'static str {
                match self {
                    $( Self::$name => $message, )+
                }
            }

            /// Whether a client may try the same request again.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $( Self::$name => false $(|| stringify!($retriable).len() > 0)?, )+
                }
            }
        }
    };
}

codes! {
    -1 UnknownServerError "UNKNOWN_SERVER_ERROR" "The server met an error that it did not expect.";
    0 None "NONE" "No error.";
    1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" "The offset is not among those the server holds.";
    2 CorruptMessage "CORRUPT_MESSAGE" retriable "The records fail their checksum, are malformed, or lack the key a compacted topic needs.";
    3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" retriable "This server does not host this topic-partition.";
    4 InvalidFetchSize "INVALID_FETCH_SIZE" "The requested fetch size is invalid.";
    5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" retriable "The partition has no leader at the moment; an election is under way.";
    6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" retriable "This broker is not the partition's leader, or not one of its replicas.";
    7 RequestTimedOut "REQUEST_TIMED_OUT" retriable "The request timed out.";
    8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" "The broker is not available.";
    9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" retriable "The replica is not available for the requested topic-partition.";
    10 MessageTooLarge "MESSAGE_TOO_LARGE" "The request has a batch larger than the server accepts.";
    11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" "The controller moved to another broker.";
    12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" "The metadata that goes with the offset is too large.";
    13 NetworkException "NETWORK_EXCEPTION" retriable "The server disconnected before it sent a response.";
    14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" retriable "The coordinator is still loading, and cannot answer yet.";
    15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" retriable "The coordinator is not available.";
    16 NotCoordinator "NOT_COORDINATOR" retriable "This is not the correct coordinator.";
    17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" "The operation cannot be done on this topic: its name is invalid, or it is internal.";
    18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" "The batch is larger than a segment may be.";
    19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" retriable "Fewer replicas are in sync than min.insync.replicas asks for.";
    20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" retriable "The records were written, but to fewer in-sync replicas than required.";
    21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" "The value of acks is none of -1, 0 and 1.";
    22 IllegalGeneration "ILLEGAL_GENERATION" "The group's generation is another one.";
    23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" "The member supports no protocol that the group's other members support, or names none.";
    24 InvalidGroupId "INVALID_GROUP_ID" "The group id is invalid.";
    25 UnknownMemberId "UNKNOWN_MEMBER_ID" "The coordinator does not know this member.";
    26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" "The session timeout is outside group.min.session.timeout.ms to group.max.session.timeout.ms.";
    27 RebalanceInProgress "REBALANCE_IN_PROGRESS" "The group is rebalancing; the member has to join again.";
    28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" "The commit is larger than a record may be.";
    29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" "Not authorized to access the topic.";
    30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" "Not authorized to access the group.";
    31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" "Not authorized to do this to the cluster.";
    32 InvalidTimestamp "INVALID_TIMESTAMP" "The timestamp of a record is out of the acceptable range.";
    33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" "The broker does not support the requested SASL mechanism.";
    34 IllegalSaslState "ILLEGAL_SASL_STATE" "The request does not fit the connection's SASL state.";
    35 UnsupportedVersion "UNSUPPORTED_VERSION" "This version of the API is not supported.";
    36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" "A topic with this name already exists.";
    37 InvalidPartitions "INVALID_PARTITIONS" "The number of partitions is invalid.";
    38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" "The replication factor is below 1 or above the number of available brokers.";
    39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" "The replica assignment is invalid.";
    40 InvalidConfig "INVALID_CONFIG" "The configuration is invalid.";
    41 NotController "NOT_CONTROLLER" retriable "This is not the cluster's active controller.";
    42 InvalidRequest "INVALID_REQUEST" "The request is malformed or contradicts itself.";
    43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" "The message format does not support the request.";
    44 PolicyViolation "POLICY_VIOLATION" "The request does not satisfy the configured policy.";
    45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" "The producer's sequence number is not the next one.";
    46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" "The producer's sequence number was seen before.";
    47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" "The producer's epoch is old.";
    48 InvalidTxnState "INVALID_TXN_STATE" "The transaction is in no state that allows this.";
    49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" "The producer id is not the one assigned to its transactional id.";
    50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" "The transaction timeout is above transaction.max.timeout.ms.";
    51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" retriable "Another operation on the same transaction is still going on.";
    52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" "The transaction coordinator that sent this marker has been replaced.";
    53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" "Not authorized to use the transactional id.";
    54 SecurityDisabled "SECURITY_DISABLED" "Security features are disabled.";
    55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" "The operation was not tried, because others of the same batch failed.";
    56 KafkaStorageError "KAFKA_STORAGE_ERROR" retriable "The disk failed when the partition's log was accessed.";
    57 LogDirNotFound "LOG_DIR_NOT_FOUND" "The broker has no such log directory.";
    58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" "SASL authentication failed.";
    59 UnknownProducerId "UNKNOWN_PRODUCER_ID" "The broker remembers nothing of this producer id.";
    60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" "A reassignment of the partition is in progress.";
    61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" "Delegation tokens are not enabled.";
    62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" "There is no such delegation token.";
    63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" "The principal is neither owner nor renewer of the delegation token.";
    64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" "Delegation tokens cannot be asked for on this kind of connection.";
    65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" "Not authorized to use the delegation token.";
    66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" "The delegation token has expired.";
    67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" "The principal type is not supported.";
    68 NonEmptyGroup "NON_EMPTY_GROUP" "The group is not empty.";
    69 GroupIdNotFound "GROUP_ID_NOT_FOUND" "The group id does not exist.";
    70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" retriable "There is no such fetch session.";
    71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" retriable "The fetch session's epoch is another one.";
    72 ListenerNotFound "LISTENER_NOT_FOUND" retriable "The leader has no listener of the name on which the request came.";
    73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" "Topic deletion is disabled.";
    74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" retriable "The leader epoch in the request is older than the broker's.";
    75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" retriable "The leader epoch in the request is newer than the broker's.";
    76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" "The client does not support the partition's compression type.";
    77 StaleBrokerEpoch "STALE_BROKER_EPOCH" "The broker's epoch has changed.";
    78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" retriable "The high watermark has not caught up since the last election; the offset is not known yet.";
    79 MemberIdRequired "MEMBER_ID_REQUIRED" "The member needs an id from the coordinator before it can enter the group.";
    80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" retriable "The preferred leader is not available.";
    81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" "The group has reached its greatest size.";
    82 FencedInstanceId "FENCED_INSTANCE_ID" "Another member with the same group.instance.id has replaced this one.";
    83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" retriable "No replica that may lead the partition is available.";
    84 ElectionNotNeeded "ELECTION_NOT_NEEDED" retriable "The partition needs no election.";
    85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" "No reassignment of the partition is in progress.";
    86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" "The group is subscribed to the topic, so its offsets cannot be deleted.";
    87 InvalidRecord "INVALID_RECORD" "A record failed the broker's validation.";
    88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" retriable "Offsets of a pending transaction have to be settled first.";
    89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" retriable "A quota has been exceeded.";
    90 ProducerFenced "PRODUCER_FENCED" "A newer producer with the same transactional id has taken over.";
    91 ResourceNotFound "RESOURCE_NOT_FOUND" "The request refers to a resource that does not exist.";
    92 DuplicateResource "DUPLICATE_RESOURCE" "The request refers to the same resource twice.";
    93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" "The credential does not meet what is asked of credentials.";
    94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" "Sender or receiver of a request among voters is none of the expected voters.";
    95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" "The version of the update is invalid.";
    96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" "The finalized features could not be updated.";
    97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" "The principal of a forwarded request could not be read.";
    98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" "The requested snapshot was not found.";
    99 PositionOutOfRange "POSITION_OUT_OF_RANGE" "The position is not within the snapshot.";
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" retriable "This server does not host this topic ID.";
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" "This broker ID is already in use.";
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" "The broker ID is not registered.";
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" retriable "The topic ID in the request is not the log's.";
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" "The cluster ID in the request is not the server's.";
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" "The transactional id could not be found.";
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" retriable "The fetch session mixes topic IDs and topic names.";
    107 IneligibleReplica "INELIGIBLE_REPLICA" "The new ISR contains a replica that may not be in it.";
    108 NewLeaderElected "NEW_LEADER_ELECTED" "The partition's state was changed, and so was its leader.";
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" "The offset has moved to tiered storage.";
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" "The member's epoch is fenced: it must give up its partitions and join again.";
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" "Another member still uses this instance id, and must leave first.";
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" "The group does not support this assignor or its version.";
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" "The member's epoch is stale: its next heartbeat brings the new one.";
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" "The request was sent to the wrong kind of endpoint.";
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" "This kind of endpoint is not supported.";
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" "This controller ID is not known.";
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" "The telemetry subscription is unknown or outdated.";
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" "The telemetry is larger than the broker accepts.";
    119 InvalidRegistration "INVALID_REGISTRATION" "The controller considers the registration invalid.";
    120 TransactionAbortable "TRANSACTION_ABORTABLE" "The transaction met an error; it can be aborted and the transactional id used on.";
    121 InvalidRecordState "INVALID_RECORD_STATE" "The record is in no state in which it can be acknowledged.";
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" retriable "There is no such share session.";
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" retriable "The share session's epoch is another one.";
    124 FencedStateEpoch "FENCED_STATE_EPOCH" "The share group's state has another epoch.";
    125 InvalidVoterKey "INVALID_VOTER_KEY" "The voter's key is not that of the replica which got the request.";
    126 DuplicateVoter "DUPLICATE_VOTER" "The voter is already one of the voters.";
    127 VoterNotFound "VOTER_NOT_FOUND" "The voter is not one of the voters.";
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" "The regular expression is not valid.";
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" "The client's metadata is stale; it has to bootstrap again.";
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" "The topology is invalid.";
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" "The topology's epoch is invalid.";
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" "The topology's epoch is outdated.";
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" retriable "The limit of share sessions has been reached.";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> i16 {
        self as i16
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.number()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::error::ResponseError;

    #[test]
    fn codes_are_kafkas() {
        let numbers: Vec<i16> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, (-1..=133).collect::<Vec<_>>());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), Some(*code));
            assert!(code.message().ends_with('.'), "{code}");
            let camel: String = code.name().split('_').map(capitalized).collect();
            assert_eq!(format!("{code:?}"), camel);
            if let Some(theirs) = ResponseError::try_from_code(code.number()) {
                assert_eq!(theirs.to_string(), camel);
                // Kafka's ConcurrentTransactionsException is retriable; kafka-protocol says it is not.
                let agree = theirs.is_retriable() == code.is_retriable();
                assert_eq!(agree, *code != ErrorCode::ConcurrentTransactions, "{code}");
            }
        }
        assert_eq!(ErrorCode::from_number(134), None);
        assert_eq!(ErrorCode::from_number(-2), None);
    }

    fn capitalized(word: &str) -> String {
        word[..1].to_owned() + &word[1..].to_lowercase()
    }
}
