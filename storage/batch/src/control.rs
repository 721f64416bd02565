//! Control records: what a log writes to itself (KIP-98 transaction markers, KIP-595 Raft's).

use crate::error::{BatchError, Malformed};
use crate::record::Record;

/// What a control record says; its number stands in the record's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ControlType {
    /// A transaction was aborted.
    Abort = 0,
    /// A transaction was committed.
    Commit = 1,
    /// A Raft leader's epoch began.
    LeaderChange = 2,
    /// First record of a snapshot.
    SnapshotHeader = 3,
    /// Last record of a snapshot.
    SnapshotFooter = 4,
    /// `kraft.version` changed.
    KraftVersion = 5,
    /// The voters changed.
    KraftVoters = 6,
}

/// Version of the key that is written; later ones may only append.
const KEY_VERSION: i16 = 0;

impl ControlType {
    const ALL: [Self; 7] = [
        Self::Abort,
        Self::Commit,
        Self::LeaderChange,
        Self::SnapshotHeader,
        Self::SnapshotFooter,
        Self::KraftVersion,
        Self::KraftVoters,
    ];

    /// The type of a control batch's record; `None` for types of a later Kafka, which are to be
    /// skipped. An error where the key is no control record's.
    pub fn of(record: &Record) -> Result<Option<Self>, BatchError> {
        let key = record.key.as_deref().unwrap_or_default();
        let &[v0, v1, t0, t1, ..] = key else { return Err(Malformed::Control.into()) };
        if i16::from_be_bytes([v0, v1]) < KEY_VERSION {
            return Err(Malformed::Control.into());
        }
        let number = i16::from_be_bytes([t0, t1]);
        Ok(Self::ALL.into_iter().find(|known| *known as i16 == number))
    }

    /// A control record's key.
    pub fn key(self) -> [u8; 4] {
        let ([v0, v1], [t0, t1]) = (KEY_VERSION.to_be_bytes(), (self as i16).to_be_bytes());
        [v0, v1, t0, t1]
    }
}

/// The value of a transaction marker (types [`ControlType::Abort`] and [`ControlType::Commit`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EndTxnMarker {
    /// Epoch of the transaction coordinator that decided: an older one's marker is refused.
    pub coordinator_epoch: i32,
}

impl EndTxnMarker {
    const VERSION: i16 = 0;

    /// Reads a marker's value; later versions may only append.
    pub fn parse(value: &[u8]) -> Result<Self, BatchError> {
        let &[v0, v1, e0, e1, e2, e3, ..] = value else { return Err(Malformed::Control.into()) };
        if i16::from_be_bytes([v0, v1]) < Self::VERSION {
            return Err(Malformed::Control.into());
        }
        Ok(Self { coordinator_epoch: i32::from_be_bytes([e0, e1, e2, e3]) })
    }

    /// The marker as a record's value.
    pub fn value(self) -> [u8; 6] {
        let [v0, v1] = Self::VERSION.to_be_bytes();
        let [e0, e1, e2, e3] = self.coordinator_epoch.to_be_bytes();
        [v0, v1, e0, e1, e2, e3]
    }
}
