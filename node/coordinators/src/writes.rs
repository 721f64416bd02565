//! Writes that the log has not confirmed, and what each is for.
//!
//! Separate because everything that must not be promised too early hangs on it.

use crate::groups::RequestId;
use crate::member::Member;
use crate::offsets::OffsetKey;
use crate::request::{Answer, Text};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;

/// Names one [`Effect::Append`](crate::Effect::Append); later writes have larger ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

/// What a write is for: what follows once it is durable, and what is taken back if it is refused.
#[derive(Debug)]
pub(crate) enum Then {
    /// A group began, without members.
    Created { group: Text },
    /// A group lost its last member.
    Emptied,
    /// A leader assigned.
    Assigned { group: Text, generation: i32, assignments: BTreeMap<Text, Bytes> },
    /// A static member came back under a new id and takes the old one's place as it is.
    Replaced(Box<Replacement>),
    /// Offsets were committed or dropped, and groups deleted with theirs.
    Offsets { keys: Vec<OffsetKey>, deleted: Vec<Text>, answer: Option<(RequestId, Answer)> },
}

#[derive(Debug)]
pub(crate) struct Replacement {
    pub group: Text,
    pub generation: i32,
    pub instance: Text,
    pub old_id: Text,
    pub old: Member,
    pub new_id: Text,
    /// Who led before: from version 9 on the client is told who leads now (KIP-814).
    pub old_leader: Text,
    pub version: i16,
}

/// At most one a request under way and a few a timer, so bounded by the connections.
#[derive(Default, Debug)]
pub(crate) struct Writes {
    next: u64,
    in_flight: BTreeMap<WriteId, Then>,
}

impl Writes {
    pub fn begin(&mut self, then: Then) -> WriteId {
        let write = WriteId(self.next);
        self.next += 1;
        self.in_flight.insert(write, then);
        write
    }

    /// The id that the next write will have.
    pub fn next(&self) -> WriteId {
        WriteId(self.next)
    }

    /// The oldest write under way.
    pub fn oldest(&self) -> Option<WriteId> {
        self.in_flight.keys().next().copied()
    }

    /// The newest write under way.
    pub fn newest(&self) -> Option<WriteId> {
        self.in_flight.keys().next_back().copied()
    }

    pub fn take(&mut self, write: WriteId) -> Option<Then> {
        self.in_flight.remove(&write)
    }

    /// The oldest write up to `through`, with its purpose.
    pub fn take_oldest(&mut self, through: WriteId) -> Option<(WriteId, Then)> {
        let oldest = self.oldest().filter(|oldest| *oldest <= through)?;
        Some((oldest, self.in_flight.remove(&oldest)?))
    }
}
