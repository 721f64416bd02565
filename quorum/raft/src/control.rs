//! Control records: what the metadata log and its snapshots say of the quorum itself (reference
//! section 2.3).

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use flowstone_batch::{BatchBuilder, BatchError, BatchHeader, ControlType, Limits, records};
use flowstone_schema::{DecodeError, Message, schema};
use flowstone_types::{LeaderEpoch, Offset, Timestamp, Uuid};

schema! {
    /// A leader's epoch begins.
    message LeaderChange = 2, versions 0..=1, flexible 0 {
        /// The version of this message.
        version: i16,
        /// The leader's node id.
        leader_id: i32,
        /// The voters of the epoch.
        voters: Vec<Voter>,
        /// Those who voted for the leader.
        granting_voters: Vec<Voter>,
    }

    /// A voter.
    struct Voter {
        /// Its node id.
        voter_id: i32,
        /// The id of its metadata log directory.
        voter_directory_id: Uuid [since(1).ignorable()],
    }

    /// First record of a snapshot.
    message SnapshotHeader = 3, versions 0..=0, flexible 0 {
        /// The version of this message.
        version: i16,
        /// When the last record that the snapshot covers was appended.
        last_contained_log_timestamp: i64,
    }

    /// Last record of a snapshot: without it the file is not whole.
    message SnapshotFooter = 4, versions 0..=0, flexible 0 {
        /// The version of this message.
        version: i16,
    }

    /// The quorum's protocol: 1 where voters are in the log (KIP-853), 0 where they are configured.
    message KraftVersion = 5, versions 0..=0, flexible 0 {
        /// The version of this message.
        version: i16,
        /// The level of `kraft.version`.
        kraft_version: i16,
    }

    /// The voters, all of them.
    message KraftVoters = 6, versions 0..=0, flexible 0 {
        /// The version of this message.
        version: i16,
        /// The voters.
        voters: Vec<KraftVoter>,
    }

    /// A voter, and how it is reached.
    struct KraftVoter {
        /// Its node id.
        voter_id: i32,
        /// The id of its metadata log directory.
        voter_directory_id: Uuid,
        /// Where it listens.
        endpoints: Vec<VoterEndpoint>,
        /// The levels of `kraft.version` that it supports.
        kraft_version_feature: KraftVersionRange,
    }

    /// Where a voter listens.
    struct VoterEndpoint {
        /// The listener's name.
        name: String,
        /// The host.
        host: String,
        /// The port.
        port: u16,
    }

    /// A range of `kraft.version`.
    struct KraftVersionRange {
        /// Lowest level supported.
        min_supported_version: i16,
        /// Highest level supported.
        max_supported_version: i16,
    }
}

/// Any control record of the metadata log.
#[derive(Clone, PartialEq, Debug)]
pub enum ControlRecord {
    /// See [`LeaderChange`].
    LeaderChange(LeaderChange),
    /// See [`SnapshotHeader`].
    SnapshotHeader(SnapshotHeader),
    /// See [`SnapshotFooter`].
    SnapshotFooter(SnapshotFooter),
    /// See [`KraftVersion`].
    KraftVersion(KraftVersion),
    /// See [`KraftVoters`].
    KraftVoters(KraftVoters),
    /// One that no metadata log needs: of a newer Kafka, or a transaction marker.
    Other,
}

impl ControlRecord {
    fn encode(&self) -> (ControlType, Vec<u8>) {
        let (control, value) = match self {
            Self::LeaderChange(record) => {
                (ControlType::LeaderChange, record.to_vec(record.version))
            }
            Self::SnapshotHeader(record) => {
                (ControlType::SnapshotHeader, record.to_vec(record.version))
            }
            Self::SnapshotFooter(record) => {
                (ControlType::SnapshotFooter, record.to_vec(record.version))
            }
            Self::KraftVersion(record) => {
                (ControlType::KraftVersion, record.to_vec(record.version))
            }
            Self::KraftVoters(record) => (ControlType::KraftVoters, record.to_vec(record.version)),
            Self::Other => panic!("only what is known is written"),
        };
        (control, value.expect("we write versions that we declare"))
    }

    fn decode(control: Option<ControlType>, value: &[u8]) -> Result<Self, DecodeError> {
        // The message's version is its first field, and so stands before the version is known.
        let version = value.first_chunk::<2>().map_or(0, |bytes| i16::from_be_bytes(*bytes));
        Ok(match control {
            Some(ControlType::LeaderChange) => Self::LeaderChange(Message::decode(version, value)?),
            Some(ControlType::SnapshotHeader) => {
                Self::SnapshotHeader(Message::decode(version, value)?)
            }
            Some(ControlType::SnapshotFooter) => {
                Self::SnapshotFooter(Message::decode(version, value)?)
            }
            Some(ControlType::KraftVersion) => Self::KraftVersion(Message::decode(version, value)?),
            Some(ControlType::KraftVoters) => Self::KraftVoters(Message::decode(version, value)?),
            Some(ControlType::Abort | ControlType::Commit) | None => Self::Other,
        })
    }
}

/// A control batch of the metadata log.
pub fn control_batch(
    base_offset: Offset,
    epoch: LeaderEpoch,
    timestamp: Timestamp,
    records: &[ControlRecord],
) -> Bytes {
    let mut batch = BatchBuilder::new(base_offset).leader_epoch(epoch);
    for record in records {
        let (control, value) = record.encode();
        batch.push_control(timestamp, control, &value);
    }
    batch.build()
}

/// The records of a control batch. The caller has seen in its header that it is one.
pub fn read_control_batch(batch: &Bytes) -> Result<Vec<ControlRecord>, ControlError> {
    let header = BatchHeader::parse(batch)?;
    assert!(header.attributes.is_control(), "the caller has looked");
    let mut all = Vec::new();
    for record in records(batch, &Limits::default())? {
        let record = record?;
        let value = record.value.as_deref().unwrap_or_default();
        all.push(ControlRecord::decode(ControlType::of(&record)?, value)?);
    }
    Ok(all)
}

/// A batch that is no control batch.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// The batch is damaged.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A control record is damaged.
    #[error(transparent)]
    Record(#[from] DecodeError),
}
