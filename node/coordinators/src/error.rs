//! What a request can be refused with, and why a write can be.

/// Kafka's errors, as far as a group coordinator gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Our own bug, or a record too large for the log.
    UnknownServerError,
    /// More text than `offset.metadata.max.bytes` came with an offset.
    OffsetMetadataTooLarge,
    /// The coordinator is still reading its partition.
    CoordinatorLoadInProgress,
    /// Try again: the log cannot take the record now, or the group is being deleted.
    CoordinatorNotAvailable,
    /// Another broker coordinates this group, or this partition's log failed.
    NotCoordinator,
    /// The generation is not the group's.
    IllegalGeneration,
    /// No protocol that all members support, or another protocol type.
    InconsistentGroupProtocol,
    /// The group id is empty, or too long for a record's key.
    InvalidGroupId,
    /// The group has no such member.
    UnknownMemberId,
    /// The session time-out is outside the configured range.
    InvalidSessionTimeout,
    /// Join again.
    RebalanceInProgress,
    /// The request breaks a bound of ours.
    InvalidRequest,
    /// The group has members.
    NonEmptyGroup,
    /// There is no such group.
    GroupIdNotFound,
    /// Join again with the id that came with this (KIP-394).
    MemberIdRequired,
    /// `group.max.size` is reached.
    GroupMaxSizeReached,
    /// Another member has taken over this group instance id (KIP-345).
    FencedInstanceId,
    /// A member of the group reads this topic (KIP-496).
    GroupSubscribedToTopic,
}

/// The only place where coordinator errors become wire codes.
pub fn wire_code(error: Error) -> i16 {
    match error {
        Error::UnknownServerError => -1,
        Error::OffsetMetadataTooLarge => 12,
        Error::CoordinatorLoadInProgress => 14,
        Error::CoordinatorNotAvailable => 15,
        Error::NotCoordinator => 16,
        Error::IllegalGeneration => 22,
        Error::InconsistentGroupProtocol => 23,
        Error::InvalidGroupId => 24,
        Error::UnknownMemberId => 25,
        Error::InvalidSessionTimeout => 26,
        Error::RebalanceInProgress => 27,
        Error::InvalidRequest => 42,
        Error::NonEmptyGroup => 68,
        Error::GroupIdNotFound => 69,
        Error::MemberIdRequired => 79,
        Error::GroupMaxSizeReached => 81,
        Error::FencedInstanceId => 82,
        Error::GroupSubscribedToTopic => 86,
    }
}

/// Why the log did not take a write. Only for a write of which nothing was appended: where that is
/// not certain, the shell must [`unload`](crate::Groups::unload) the partition instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The records are larger than a batch may be.
    TooLarge,
    /// Not now: the disk is full, or too few replicas are in sync.
    Unavailable,
    /// This broker does not lead the partition, or its log is offline.
    Offline,
}

impl From<Refusal> for Error {
    /// As Kafka maps append errors to what group clients know how to handle.
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::UnknownServerError,
            Refusal::Unavailable => Self::CoordinatorNotAvailable,
            Refusal::Offline => Self::NotCoordinator,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka's `GroupMetadataManager.appendGroupMetadataErrorToResponseError`: NOT_ENOUGH_REPLICAS
    /// and REQUEST_TIMED_OUT become 15, NOT_LEADER_OR_FOLLOWER and KAFKA_STORAGE_ERROR 16,
    /// MESSAGE_TOO_LARGE and RECORD_LIST_TOO_LARGE -1.
    #[test]
    fn append_errors_become_codes_that_group_clients_retry() {
        assert_eq!(wire_code(Refusal::Unavailable.into()), 15);
        assert_eq!(wire_code(Refusal::Offline.into()), 16);
        assert_eq!(wire_code(Refusal::TooLarge.into()), -1);
    }
}
