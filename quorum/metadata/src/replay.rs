//! The metadata log as it is replayed, and why a record is refused.
//!
//! Separate from what each record does (`apply.rs`): here is what holds across records. Invariant: what stands in an
//! open transaction is not published.

use crate::delta::Delta;
use crate::image::Image;
use crate::record::MetadataRecord;
use alloc::string::String;
use flowstone_types::{NodeId, PartitionId, Uuid};

/// The image as it grows with the log, transactions included (KIP-868): what stands between a begin
/// and its end is not published, and an abort undoes it.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    image: Image,
    delta: Delta,
    /// Image and delta as they were when the open transaction began.
    before: Option<(Image, Delta)>,
}

impl Replay {
    /// Goes on from `image`.
    pub fn from_image(image: Image) -> Self {
        Self { image, ..Self::default() }
    }

    /// Applies the next record.
    pub fn apply(&mut self, record: MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::BeginTransactionRecord(_) => {
                if self.before.is_some() {
                    return Err(ReplayError::TransactionInTransaction);
                }
                self.before = Some((self.image.clone(), self.delta.clone()));
                Ok(())
            }
            MetadataRecord::EndTransactionRecord(_) => {
                self.before.take().map(drop).ok_or(ReplayError::NoTransaction)
            }
            MetadataRecord::AbortTransactionRecord(_) => {
                (self.image, self.delta) = self.before.take().ok_or(ReplayError::NoTransaction)?;
                Ok(())
            }
            other => self.image.apply(other, &mut self.delta),
        }
    }

    /// Whether a transaction is open. A new controller aborts it.
    pub fn in_transaction(&self) -> bool {
        self.before.is_some()
    }

    /// The image to publish, and what changed since it was last taken; `None` within a transaction.
    pub fn publish(&mut self) -> Option<(Image, Delta)> {
        let done = self.before.is_none();
        done.then(|| (self.image.clone(), core::mem::take(&mut self.delta)))
    }
}

/// A record that does not fit the image: the log is damaged, or written by something newer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// A metadata.version beyond this release.
    #[error("metadata.version {0} is not supported by this release")]
    UnknownMetadataVersion(i16),
    /// No broker with that id is registered.
    #[error("broker {0} is not registered")]
    UnknownBroker(NodeId),
    /// The broker has registered again, or not yet.
    #[error("broker {broker} is registered with epoch {current}, not {epoch}")]
    OtherBrokerEpoch {
        /// The broker.
        broker: NodeId,
        /// The epoch told.
        epoch: i64,
        /// Its epoch.
        current: i64,
    },
    /// A topic of that id or name exists.
    #[error("topic {name} ({id:?}) exists")]
    TopicExists {
        /// Its id.
        id: Uuid,
        /// Its name.
        name: String,
    },
    /// No such topic.
    #[error("no topic has the id {0:?}")]
    UnknownTopic(Uuid),
    /// No such topic.
    #[error("no topic has the name {0}")]
    UnknownTopicName(String),
    /// No such partition.
    #[error("there is no partition {id:?}", id = .0)]
    UnknownPartition(PartitionId),
    /// A new partition that is not the next one of its topic.
    #[error("partition {id:?} does not come next: its topic has {count}")]
    PartitionOutOfOrder {
        /// The partition.
        id: PartitionId,
        /// How many its topic has.
        count: usize,
    },
    /// Not as many directories as replicas.
    #[error("{directories} directories for {replicas} replicas")]
    DirectoryCount {
        /// Directories told.
        directories: usize,
        /// Replicas told.
        replicas: usize,
    },
    /// Producer ids that were handed out already.
    #[error("next producer id {next} is not beyond {before}")]
    ProducerIdsGoBack {
        /// The next id told.
        next: i64,
        /// The next id so far.
        before: i64,
    },
    /// No such ACL.
    #[error("no ACL has the id {0:?}")]
    UnknownAcl(Uuid),
    /// No such credential.
    #[error("user {0} has no such SCRAM credential")]
    UnknownScramCredential(String),
    /// No such token.
    #[error("no delegation token has the id {0}")]
    UnknownDelegationToken(String),
    /// A number that means nothing in this field.
    #[error("{field} is {value}")]
    BadValue {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// A transaction began within another.
    #[error("a transaction of records began within another")]
    TransactionInTransaction,
    /// A transaction ended that had not begun.
    #[error("a transaction of records ended that had not begun")]
    NoTransaction,
}
