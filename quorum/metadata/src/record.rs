//! A record of the metadata log: any of the declared ones, in its value's framing.
//!
//! Invariant: what [`MetadataRecord::encode`] writes, Kafka's `MetadataRecordSerde` reads, and back:
//! frame version 1, record type, record version, body, and nothing behind it.

use crate::features::MetadataVersion;
#[allow(clippy::wildcard_imports, reason = "every record, each by its own name")]
use crate::records::*;
use alloc::boxed::Box;
use alloc::vec::Vec;
use flowstone_schema::{DecodeError, EncodeError, Message, Reader, varint};

/// The only frame version there is.
const FRAME_VERSION: u32 = 1;

macro_rules! records {
    ($($record:ident),+ $(,)?) => {
        /// Any metadata record.
        #[derive(Clone, PartialEq, Debug)]
        #[non_exhaustive]
        pub enum MetadataRecord {
            $(
                #[doc = concat!("See [`", stringify!($record), "`].")]
                $record(Box<$record>),
            )+
        }

        $(
            impl From<$record> for MetadataRecord {
                fn from(record: $record) -> Self {
                    Self::$record(Box::new(record))
                }
            }
        )+

        impl MetadataRecord {
            /// Every record type: key, name, newest version.
            pub const TYPES: &[(i16, &str, i16)] =
                &[$(($record::KEY, $record::NAME, $record::VERSION_MAX)),+];

            /// Kafka's name of the record.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$record(_) => $record::NAME,)+
                }
            }

            /// The record's type on disk.
            pub const fn key(&self) -> i16 {
                match self {
                    $(Self::$record(_) => $record::KEY,)+
                }
            }

            fn encode_body(&self, version: i16, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                match self {
                    $(Self::$record(record) => record.encode(version, out),)+
                }
            }

            fn decode_body(key: i16, version: i16, body: &[u8]) -> Result<Self, RecordError> {
                match key {
                    $($record::KEY => Ok($record::decode(version, body)?.into()),)+
                    other => Err(RecordError::UnknownType(other)),
                }
            }

            /// Some record of type `key` that `version` can tell in full, made of `draw`, for tests.
            pub fn example(key: i16, version: i16, draw: &mut dyn FnMut() -> u64) -> Option<Self> {
                use flowstone_schema::Field;
                match key {
                    $($record::KEY => Some($record::example(version, draw).into()),)+
                    _ => None,
                }
            }
        }
    };
}

records! {
    RegisterBrokerRecord,
    UnregisterBrokerRecord,
    TopicRecord,
    PartitionRecord,
    ConfigRecord,
    PartitionChangeRecord,
    FenceBrokerRecord,
    UnfenceBrokerRecord,
    RemoveTopicRecord,
    DelegationTokenRecord,
    UserScramCredentialRecord,
    FeatureLevelRecord,
    ClientQuotaRecord,
    ProducerIdsRecord,
    BrokerRegistrationChangeRecord,
    AccessControlEntryRecord,
    RemoveAccessControlEntryRecord,
    NoOpRecord,
    ZkMigrationStateRecord,
    RemoveUserScramCredentialRecord,
    BeginTransactionRecord,
    EndTransactionRecord,
    AbortTransactionRecord,
    RemoveDelegationTokenRecord,
    RegisterControllerRecord,
    ClearElrRecord,
}

impl MetadataRecord {
    /// The version in which a cluster at `metadata_version` writes this record (reference sections
    /// 2.3 and 2.6): fixed by the metadata version, but for registration changes, which take the
    /// lowest version that can tell the change.
    pub fn version_at(&self, metadata_version: MetadataVersion) -> i16 {
        match self {
            Self::RegisterBrokerRecord(_) => metadata_version.register_broker_version(),
            Self::PartitionRecord(_) | Self::PartitionChangeRecord(_) => {
                metadata_version.partition_version()
            }
            Self::BrokerRegistrationChangeRecord(change) => {
                if change.cordoned_log_dirs.is_some() {
                    3
                } else if !change.log_dirs.is_empty() {
                    2
                } else {
                    i16::from(change.in_controlled_shutdown != 0)
                }
            }
            _ => 0, // The others have one version.
        }
    }

    /// The value of the record in the log.
    pub fn encode(&self, version: i16) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(64);
        varint::write(FRAME_VERSION, &mut out);
        varint::write(self.key() as u32, &mut out);
        varint::write(version as u32, &mut out);
        self.encode_body(version, &mut out)?;
        Ok(out)
    }

    /// Reads a record's value; returns the version that it was written in, too.
    pub fn decode(value: &[u8]) -> Result<(Self, i16), RecordError> {
        let mut reader = Reader::new(value);
        match reader.varint()? {
            FRAME_VERSION => {}
            other => return Err(RecordError::UnknownFrame(other)),
        }
        let mut number = || {
            let number = reader.varint()?;
            i16::try_from(number).map_err(|_| RecordError::BadNumber(number))
        };
        let (key, version) = (number()?, number()?);
        Ok((Self::decode_body(key, version, reader.rest())?, version))
    }
}

/// A value that is no metadata record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// Another framing than the one we know.
    #[error("unknown frame version {0}")]
    UnknownFrame(u32),
    /// A record type or version that is no 16-bit number.
    #[error("{0} is no record type or version")]
    BadNumber(u32),
    /// A record that this release does not know; its metadata.version is newer than ours.
    #[error("unknown record type {0}")]
    UnknownType(i16),
    /// The record's body is not as declared.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}
