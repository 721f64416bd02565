//! One member of a classic group.

use crate::groups::RequestId;
use crate::request::{Protocol, Text};
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use flowstone_types::Instant;

/// A member, without its id: its roster has that. What its roster counts (protocols, who waits for
/// the next generation) is changed through the roster only.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub instance: Option<Text>,
    pub client_id: Text,
    pub client_host: Text,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    /// No two of one name.
    pub(crate) protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub(crate) waiting: Waiting,
    /// No JoinGroup of this member has been answered yet, so it has no id to send heartbeats with.
    pub newcomer: bool,
    /// Has sent the SyncGroup of this generation, or need not.
    pub synced: bool,
    /// When it counts as gone.
    pub deadline: Instant,
}

/// The request that a member waits on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    Nothing,
    Join(RequestId),
    Sync(RequestId),
}

impl Member {
    pub fn is_static(&self) -> bool {
        self.instance.is_some()
    }

    /// What the client's words take, but for the assignment.
    pub fn bytes(&self, id: &str) -> usize {
        let protocols = self.protocols.iter().map(|p| p.name.len() + p.metadata.len());
        let instance = self.instance.as_ref().map_or(0, |instance| instance.len());
        id.len()
            + instance
            + self.client_id.len()
            + self.client_host.len()
            + protocols.sum::<usize>()
    }

    /// A member that waits for us need not send heartbeats; a newcomer is not waited for for ever.
    pub fn may_be_silent(&self) -> bool {
        !self.newcomer && self.waiting != Waiting::Nothing
    }

    /// What this member said of itself for `protocol`.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols.iter().find(|p| &*p.name == protocol).map(|p| &p.metadata)
    }

    /// The session lasts anew, from `now`.
    pub fn heard_from(&mut self, now: Instant) {
        self.deadline = now.after(self.session_timeout);
    }
}
