//! Why the controller refuses: Kafka's codes as a type. `node/wire` turns kinds to numbers.

use alloc::string::{String, ToString};
use core::fmt;

/// A refusal, with the sentence that the client shows to its user.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ApiError {
    /// Kafka's error.
    pub kind: ErrorKind,
    /// What is wrong.
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<ErrorKind> for ApiError {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, message: kind.to_string() }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Kafka's errors that the controller answers with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ErrorKind {
    /// INVALID_REQUEST (42).
    #[error("The request is malformed.")]
    InvalidRequest,
    /// INVALID_TOPIC_EXCEPTION (17).
    #[error("The topic name is invalid.")]
    InvalidTopic,
    /// TOPIC_ALREADY_EXISTS (36).
    #[error("A topic with this name already exists.")]
    TopicAlreadyExists,
    /// UNKNOWN_TOPIC_OR_PARTITION (3).
    #[error("This server does not host this topic-partition.")]
    UnknownTopicOrPartition,
    /// UNKNOWN_TOPIC_ID (100).
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// INVALID_PARTITIONS (37).
    #[error("The number of partitions is invalid.")]
    InvalidPartitions,
    /// INVALID_REPLICATION_FACTOR (38).
    #[error("The replication factor is invalid.")]
    InvalidReplicationFactor,
    /// INVALID_REPLICA_ASSIGNMENT (39).
    #[error("The replica assignment is invalid.")]
    InvalidReplicaAssignment,
    /// INVALID_CONFIG (40).
    #[error("The configuration is invalid.")]
    InvalidConfig,
    /// POLICY_VIOLATION (44).
    #[error("The request violates a policy.")]
    PolicyViolation,
    /// UNSUPPORTED_SASL_MECHANISM (33).
    #[error("The broker does not support the requested SASL mechanism.")]
    UnsupportedSaslMechanism,
    /// DELEGATION_TOKEN_AUTH_DISABLED (61).
    #[error("Delegation tokens are not enabled.")]
    DelegationTokenAuthDisabled,
    /// DELEGATION_TOKEN_NOT_FOUND (62).
    #[error("There is no such delegation token.")]
    DelegationTokenNotFound,
    /// DELEGATION_TOKEN_OWNER_MISMATCH (63).
    #[error("The principal is neither owner nor renewer of the delegation token.")]
    DelegationTokenOwnerMismatch,
    /// DELEGATION_TOKEN_EXPIRED (66).
    #[error("The delegation token has expired.")]
    DelegationTokenExpired,
    /// INVALID_PRINCIPAL_TYPE (67).
    #[error("The principal type is not supported.")]
    InvalidPrincipalType,
    /// THROTTLING_QUOTA_EXCEEDED (89).
    #[error("The throttling quota has been exceeded.")]
    ThrottlingQuotaExceeded,
    /// RESOURCE_NOT_FOUND (91).
    #[error("The request refers to a resource that does not exist.")]
    ResourceNotFound,
    /// DUPLICATE_RESOURCE (92).
    #[error("The request refers to the same resource twice.")]
    DuplicateResource,
    /// UNACCEPTABLE_CREDENTIAL (93).
    #[error("The credential does not meet what is asked of credentials.")]
    UnacceptableCredential,
    /// INVALID_UPDATE_VERSION (95).
    #[error("The version of the update is invalid.")]
    InvalidUpdateVersion,
    /// STALE_BROKER_EPOCH (77).
    #[error("The broker epoch is stale.")]
    StaleBrokerEpoch,
    /// BROKER_ID_NOT_REGISTERED (102).
    #[error("The broker is not registered.")]
    BrokerIdNotRegistered,
    /// INVALID_REGISTRATION (119).
    #[error("The registration is invalid.")]
    InvalidRegistration,
    /// UNSUPPORTED_VERSION (35).
    #[error("The version is not supported.")]
    UnsupportedVersion,
    /// DUPLICATE_BROKER_REGISTRATION (101).
    #[error("This broker ID is already in use.")]
    DuplicateBrokerRegistration,
    /// NOT_LEADER_OR_FOLLOWER (6).
    #[error("The broker holds no replica of the partition.")]
    NotLeaderOrFollower,
    /// NOT_CONTROLLER (41).
    #[error("This is not the correct controller for this cluster.")]
    NotController,
    /// FENCED_LEADER_EPOCH (74).
    #[error("The leader epoch in the request is older than the epoch on the broker.")]
    FencedLeaderEpoch,
    /// PREFERRED_LEADER_NOT_AVAILABLE (80).
    #[error("The preferred leader was not available.")]
    PreferredLeaderNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE (83).
    #[error("Eligible topic partition leaders are not available.")]
    EligibleLeadersNotAvailable,
    /// ELECTION_NOT_NEEDED (84).
    #[error("Leader election not needed for topic partition.")]
    ElectionNotNeeded,
    /// NO_REASSIGNMENT_IN_PROGRESS (85).
    #[error("No partition reassignment is in progress.")]
    NoReassignmentInProgress,
    /// INELIGIBLE_REPLICA (107).
    #[error("The new ISR contains at least one ineligible replica.")]
    IneligibleReplica,
    /// NEW_LEADER_ELECTED (108).
    #[error(
        "The AlterPartition request successfully updated the partition state but the leader has changed."
    )]
    NewLeaderElected,
    /// UNKNOWN_SERVER_ERROR (-1).
    #[error("The server could not carry out the request.")]
    UnknownServer,
}
