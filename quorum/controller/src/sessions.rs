//! What an active controller knows of its brokers that no record tells: when each was heard last, and how
//! far it has read.
//!
//! Separate because it ends with the leadership: a new controller starts by giving every broker a whole
//! session. Invariant: there is one for each registered broker, of its present epoch.

use crate::active::Settings;
use alloc::collections::BTreeMap;
use flowstone_metadata::Image;
use flowstone_metadata::records::RegisterBrokerRecord;
use flowstone_types::{Instant, NodeId, Offset};

#[derive(Clone, Debug)]
pub(crate) struct Session {
    epoch: i64,
    /// When the broker was heard last.
    heard: Instant,
    /// Since when it has no connection to anybody, as the shell says.
    cut_off: Option<Instant>,
    /// The last offset of the metadata log that it has applied; -1 where it did not say.
    pub metadata_offset: Offset,
    /// An offset at or behind its registration: it is unfenced once it has read up to here.
    pub registered_at: Offset,
    /// The offset that all active brokers must have read before it may go.
    pub shutdown_offset: Option<Offset>,
}

/// The sessions of all registered brokers.
#[derive(Clone, Debug)]
pub(crate) struct Sessions(BTreeMap<NodeId, Session>);

impl Sessions {
    /// Of a controller that becomes active with all of `image`, which ends before `end`.
    pub fn new(image: &Image, end: Offset, now: Instant) -> Self {
        let session = |broker: &RegisterBrokerRecord| Session {
            epoch: broker.broker_epoch,
            heard: now,
            cut_off: None,
            metadata_offset: Offset(-1),
            registered_at: Offset(end.0 - 1),
            shutdown_offset: broker.in_controlled_shutdown.then_some(Offset(end.0 - 1)),
        };
        Self(image.brokers.iter().map(|(id, broker)| (*id, session(broker))).collect())
    }

    /// A broker's registration was written at `offset`.
    pub fn registered(&mut self, id: NodeId, epoch: i64, offset: Offset, now: Instant) {
        let known = self.0.remove(&id).filter(|known| known.epoch == epoch);
        let shutdown_offset = known.and_then(|known| known.shutdown_offset);
        let session = Session {
            epoch,
            heard: now,
            cut_off: None,
            metadata_offset: Offset(-1),
            registered_at: offset,
            shutdown_offset,
        };
        self.0.insert(id, session);
    }

    pub fn ended(&mut self, id: NodeId) {
        self.0.remove(&id);
    }

    pub fn get(&self, id: NodeId) -> Option<&Session> {
        self.0.get(&id)
    }

    /// A registered broker was heard.
    pub fn heard(&mut self, id: NodeId, metadata_offset: Offset, now: Instant) {
        let session = self.0.get_mut(&id).expect("a registered broker has a session");
        session.heard = session.heard.max(now);
        session.cut_off = None;
        session.metadata_offset = metadata_offset;
    }

    /// A broker is to go once all have read up to `offset`; the first word counts.
    pub fn shuts_down(&mut self, id: NodeId, offset: Offset) {
        let session = self.0.get_mut(&id).expect("a registered broker has a session");
        session.shutdown_offset.get_or_insert(offset);
    }

    pub fn fenced(&mut self, id: NodeId) {
        if let Some(session) = self.0.get_mut(&id) {
            session.shutdown_offset = None;
            session.cut_off = None;
        }
    }

    /// A broker's last connection is gone; forgotten once it is heard again.
    pub fn cut_off(&mut self, id: NodeId, now: Instant) {
        if let Some(session) = self.0.get_mut(&id) {
            session.cut_off.get_or_insert(now);
        }
    }

    /// Whether the broker's session lasts.
    pub fn is_alive(&self, id: NodeId, settings: &Settings, now: Instant) -> bool {
        self.0.get(&id).is_some_and(|session| now < ends(session, settings))
    }

    /// The unfenced broker whose session ends first, and when.
    pub fn next_to_end(&self, image: &Image, settings: &Settings) -> Option<(Instant, NodeId)> {
        let unfenced =
            self.0.iter().filter(|(id, _)| image.brokers.get(*id).is_some_and(|b| !b.fenced));
        unfenced.map(|(id, session)| (ends(session, settings), *id)).min()
    }

    /// The last offset that every active broker has read; `None` where none is active.
    pub fn lowest_active_offset(&self, image: &Image) -> Option<Offset> {
        let active = self.0.iter().filter(|(id, _)| image.is_active(**id));
        active.map(|(_, session)| session.metadata_offset).min()
    }
}

fn ends(session: &Session, settings: &Settings) -> Instant {
    let timed_out = session.heard.after(settings.session_timeout);
    let given_up = session.cut_off.map(|since| since.after(settings.disconnect_grace));
    given_up.map_or(timed_out, |given_up| given_up.min(timed_out))
}
