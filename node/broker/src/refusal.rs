//! Why a request, or a part of it, is refused: the one place where errors of ours become codes of
//! Kafka's.
//!
//! Each domain error has one exhaustive match here, without a `_` arm: a new variant does not
//! compile until someone has chosen its code.

use flowstone_batch::{BatchError, Rejected};
use flowstone_controller::{ApiError, ErrorKind};
use flowstone_log::{ProducerError, Refused};
use flowstone_store::{AppendError, ReadError, StorageError};
use flowstone_wire::ErrorCode;
use std::fmt;

/// A code, and where the code does not say it all, words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// For people; `None` where the code's own sentence will do.
    pub message: Option<String>,
    /// Which records of a batch are at fault (index within the batch), and how (KIP-467).
    pub record_errors: Vec<(i32, Option<String>)>,
}

impl Refusal {
    /// A refusal in words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()), record_errors: Vec::new() }
    }

    /// The words, or the code's own sentence.
    pub fn text(&self) -> String {
        self.message.clone().unwrap_or_else(|| self.code.message().to_owned())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.code.name()),
            None => write!(f, "{}: {}", self.code.name(), self.code.message()),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, record_errors: Vec::new() }
    }
}

/// What a producer sent breaks the rules of a batch or of its topic (kafka-reference section 3.2).
impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let code = match &rejected {
            Rejected::Crc { .. } => ErrorCode::CorruptMessage,
            Rejected::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Rejected::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Rejected::Codec(_) | Rejected::ZstdTooEarly => ErrorCode::UnsupportedCompressionType,
            Rejected::Records { timestamps: true, .. } => ErrorCode::InvalidTimestamp,
            Rejected::Framing(error) => framing(error),
            Rejected::Invalid(_) | Rejected::Records { timestamps: false, .. } => {
                ErrorCode::InvalidRecord
            }
        };
        let mut refusal = Self::new(code, rejected.to_string());
        if let Rejected::Records { errors, .. } = rejected {
            let errors = errors.iter().map(|error| (error.index, Some(error.to_string())));
            refusal.record_errors = errors.collect();
        }
        refusal
    }
}

/// Bytes that are no batch at all are taken for damage on the way, as in Kafka, and sent again.
fn framing(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Truncated { bytes: 0, .. } | BatchError::Magic(0 | 1) => {
            ErrorCode::InvalidRecord
        }
        BatchError::Truncated { .. } | BatchError::Length(_) | BatchError::Magic(_) => {
            ErrorCode::CorruptMessage
        }
        BatchError::Codec(_)
        | BatchError::Malformed(_)
        | BatchError::Compression(..)
        | BatchError::Bomb { .. } => ErrorCode::InvalidRecord,
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::Refused(Refused::Producer(producer)) => match producer {
                ProducerError::Fenced { .. } => ErrorCode::InvalidProducerEpoch,
                ProducerError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
                ProducerError::NoTransaction { .. } => ErrorCode::InvalidTxnState,
            },
            AppendError::Refused(Refused::Epoch { .. }) => ErrorCode::FencedLeaderEpoch,
            AppendError::DiskFull | AppendError::Offline(_) => ErrorCode::KafkaStorageError,
            AppendError::Closed => ErrorCode::NotLeaderOrFollower,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Storage(_) => ErrorCode::KafkaStorageError,
            ReadError::Corrupt { .. } => ErrorCode::CorruptMessage,
            ReadError::Closed => ErrorCode::NotLeaderOrFollower,
        };
        Self::new(code, error.to_string())
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::new(ErrorCode::KafkaStorageError, error.to_string())
    }
}

/// What the controller refuses.
impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let code = match error.kind {
            ErrorKind::InvalidRequest => ErrorCode::InvalidRequest,
            ErrorKind::InvalidTopic => ErrorCode::InvalidTopicException,
            ErrorKind::TopicAlreadyExists => ErrorCode::TopicAlreadyExists,
            ErrorKind::UnknownTopicOrPartition => ErrorCode::UnknownTopicOrPartition,
            ErrorKind::UnknownTopicId => ErrorCode::UnknownTopicId,
            ErrorKind::InvalidPartitions => ErrorCode::InvalidPartitions,
            ErrorKind::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
            ErrorKind::InvalidReplicaAssignment => ErrorCode::InvalidReplicaAssignment,
            ErrorKind::InvalidConfig => ErrorCode::InvalidConfig,
            ErrorKind::PolicyViolation => ErrorCode::PolicyViolation,
            ErrorKind::UnsupportedSaslMechanism => ErrorCode::UnsupportedSaslMechanism,
            ErrorKind::DelegationTokenAuthDisabled => ErrorCode::DelegationTokenAuthDisabled,
            ErrorKind::DelegationTokenNotFound => ErrorCode::DelegationTokenNotFound,
            ErrorKind::DelegationTokenOwnerMismatch => ErrorCode::DelegationTokenOwnerMismatch,
            ErrorKind::DelegationTokenExpired => ErrorCode::DelegationTokenExpired,
            ErrorKind::InvalidPrincipalType => ErrorCode::InvalidPrincipalType,
            ErrorKind::ThrottlingQuotaExceeded => ErrorCode::ThrottlingQuotaExceeded,
            ErrorKind::ResourceNotFound => ErrorCode::ResourceNotFound,
            ErrorKind::DuplicateResource => ErrorCode::DuplicateResource,
            ErrorKind::UnacceptableCredential => ErrorCode::UnacceptableCredential,
            ErrorKind::InvalidUpdateVersion => ErrorCode::InvalidUpdateVersion,
            ErrorKind::StaleBrokerEpoch => ErrorCode::StaleBrokerEpoch,
            ErrorKind::BrokerIdNotRegistered => ErrorCode::BrokerIdNotRegistered,
            ErrorKind::UnsupportedVersion => ErrorCode::UnsupportedVersion,
            ErrorKind::InvalidRegistration => ErrorCode::InvalidRegistration,
            ErrorKind::DuplicateBrokerRegistration => ErrorCode::DuplicateBrokerRegistration,
            ErrorKind::NotLeaderOrFollower => ErrorCode::NotLeaderOrFollower,
            ErrorKind::NotController => ErrorCode::NotController,
            ErrorKind::FencedLeaderEpoch => ErrorCode::FencedLeaderEpoch,
            ErrorKind::PreferredLeaderNotAvailable => ErrorCode::PreferredLeaderNotAvailable,
            ErrorKind::EligibleLeadersNotAvailable => ErrorCode::EligibleLeadersNotAvailable,
            ErrorKind::ElectionNotNeeded => ErrorCode::ElectionNotNeeded,
            ErrorKind::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
            ErrorKind::IneligibleReplica => ErrorCode::IneligibleReplica,
            ErrorKind::NewLeaderElected => ErrorCode::NewLeaderElected,
            ErrorKind::UnknownServer => ErrorCode::UnknownServerError,
        };
        Self::new(code, error.message)
    }
}
