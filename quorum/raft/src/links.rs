//! Requests under way: at most one to each peer, each with an end.
//!
//! Invariants: a response is taken once, and only in the state that asked for it: moving to another state
//! forgets what is under way, so a late answer of an earlier epoch finds nobody (KAFKA-18991). A peer that
//! failed is left alone for `retry.backoff`.

use crate::io::RequestId;
use crate::settings::Timers;
use alloc::collections::BTreeMap;
use flowstone_types::{Instant, NodeId};

/// A peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    /// A replica.
    Node(NodeId),
    /// A bootstrap server, by its place in the list.
    Bootstrap(usize),
}

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Vote, `pre_vote` or not.
    Vote,
    /// BeginQuorumEpoch.
    Begin,
    /// EndQuorumEpoch.
    End,
    /// Fetch, of the leader.
    Fetch,
    /// Fetch, of anybody who may know the leader.
    Discover,
    /// FetchSnapshot.
    Piece,
    /// UpdateRaftVoter.
    Update,
    /// AddRaftVoter or RemoveRaftVoter, to join.
    Join,
    /// ApiVersions.
    Versions,
}

/// All peers that something is under way to, or that are left alone.
#[derive(Clone, Debug, Default)]
pub struct Links {
    last: u64,
    links: BTreeMap<Peer, Link>,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Waiting { id: RequestId, asked: Asked, deadline: Instant },
    LeftAlone { until: Instant },
}

impl Links {
    /// Whether a peer may be asked something.
    pub fn is_ready(&self, peer: Peer) -> bool {
        !self.links.contains_key(&peer)
    }

    /// Whether this is being asked of anybody.
    pub fn is_asking(&self, what: Asked) -> bool {
        self.links
            .values()
            .any(|link| matches!(link, Link::Waiting { asked, .. } if *asked == what))
    }

    /// Notes a request.
    pub fn ask(&mut self, peer: Peer, asked: Asked, now: Instant, timers: &Timers) -> RequestId {
        assert!(self.is_ready(peer), "one request at a time to each");
        self.last += 1;
        let (id, deadline) = (RequestId(self.last), now.after(timers.request_timeout));
        self.links.insert(peer, Link::Waiting { id, asked, deadline });
        id
    }

    /// Takes the answer of a request: who gave it, and to what. `None` if it is not waited for any more.
    pub fn answered(&mut self, answered: RequestId) -> Option<(Peer, Asked)> {
        let (peer, asked) = self.links.iter().find_map(|(peer, link)| match link {
            Link::Waiting { id, asked, .. } if *id == answered => Some((*peer, *asked)),
            Link::Waiting { .. } | Link::LeftAlone { .. } => None,
        })?;
        self.links.remove(&peer);
        Some((peer, asked))
    }

    /// Leaves a peer alone for a while.
    pub fn leave_alone(&mut self, peer: Peer, now: Instant, timers: &Timers) {
        self.links.insert(peer, Link::LeftAlone { until: now.after(timers.retry_backoff) });
    }

    /// Waits no more for what is under way.
    pub fn forget(&mut self) {
        self.links.retain(|_, link| matches!(link, Link::LeftAlone { .. }));
    }

    /// Gives up what takes too long, and lets those be asked again who were left alone long enough.
    /// Returns what was given up.
    pub fn expire(&mut self, now: Instant, timers: &Timers) -> Option<Asked> {
        self.links.retain(|_, link| !matches!(link, Link::LeftAlone { until } if *until <= now));
        let (peer, given_up) = self.links.iter().find_map(|(peer, link)| match link {
            Link::Waiting { asked, deadline, .. } if *deadline <= now => Some((*peer, *asked)),
            Link::Waiting { .. } | Link::LeftAlone { .. } => None,
        })?;
        self.leave_alone(peer, now, timers);
        Some(given_up)
    }

    /// When [`expire`](Self::expire) has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |link: &Link| match link {
            Link::Waiting { deadline, .. } => *deadline,
            Link::LeftAlone { until } => *until,
        };
        self.links.values().map(deadline).min()
    }
}
