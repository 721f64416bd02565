//! Brokers as they come, live and go: registration, heartbeats, fencing, controlled shutdown.
//!
//! Separate from the registration's own rules ([`crate::register_broker`]) because these need the sessions
//! and all partitions that a broker is in. What holds (reference section 2.2):
//! - A broker is fenced, unfenced or in controlled shutdown; what it asks for moves it from one to another.
//! - It is unfenced no sooner than it has read its own registration.
//! - It may go once it leads nothing and every active broker has read so.

use crate::Decision;
use crate::active::Active;
use crate::brokers::{BrokerRegistration, register_broker};
use crate::change::{Change, Mover, TopicRules, topic_config};
use crate::error::{ApiError, ErrorKind};
use crate::ids::check_epoch;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use flowstone_metadata::records::{
    BrokerRegistrationChangeRecord, RegisterBrokerRecord, UnregisterBrokerRecord,
};
use flowstone_metadata::{ConfigResource, Image, MetadataRecord};
use flowstone_types::{Instant, NodeId, Offset, PartitionId, Uuid};

/// A broker's heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The broker.
    pub id: NodeId,
    /// The epoch that its registration gave it.
    pub epoch: i64,
    /// The last offset of the metadata log that it has applied.
    pub metadata_offset: Offset,
    /// Whether it wants to be fenced.
    pub want_fence: bool,
    /// Whether it wants to shut down.
    pub want_shut_down: bool,
    /// Its log directories that failed (KIP-858).
    pub offline_log_dirs: Vec<Uuid>,
    /// Its log directories that take no new replicas (KIP-1066); `None` where it does not say.
    pub cordoned_log_dirs: Option<Vec<Uuid>>,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatAnswer {
    /// Whether it has read its own registration.
    pub is_caught_up: bool,
    /// Whether it is fenced.
    pub is_fenced: bool,
    /// Whether it is in controlled shutdown.
    pub in_controlled_shutdown: bool,
    /// Whether it may shut down now.
    pub should_shut_down: bool,
}

/// What a broker is, and what a heartbeat can make it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Fenced,
    Unfenced,
    ControlledShutdown,
    ShutdownNow,
}

impl Active {
    /// Registers a broker, its epoch the offset of the decision's first record. `previous_epoch` is what
    /// it noted when it shut down in order, where its request can tell (version 3 on).
    ///
    /// A new incarnation leaves every ISR first; unless it shut down in order, it is eligible nowhere any
    /// more either, since a power cut may have taken the end of its logs (KIP-966).
    pub fn register(
        &mut self,
        registration: BrokerRegistration,
        previous_epoch: Option<i64>,
    ) -> Result<Decision<i64>, ApiError> {
        let (id, incarnation) = (registration.id, registration.incarnation);
        let known = self.image.brokers.get(&id);
        let another = known.filter(|known| known.incarnation_id != incarnation);
        let alive = self.sessions.is_alive(id, &self.settings, self.now);
        if another.is_some_and(|known| !known.fenced) && alive {
            let message = "Another broker is registered with that broker id.";
            return Err(ApiError::new(ErrorKind::DuplicateBrokerRegistration, message));
        }
        let again = known.is_some() && another.is_none();
        let in_order = another.is_some_and(|known| previous_epoch == Some(known.broker_epoch));
        let decision = register_broker(&self.image, registration, self.end.0)?;
        let mut records = Vec::new();
        if !again {
            let mover = if in_order { Mover::Leaves(id) } else { Mover::Lost(id) };
            self.move_broker(mover, &mut records);
        }
        records.extend(decision.records);
        Ok(Decision::each(records, decision.response))
    }

    /// Takes a broker out of the cluster. Its replicas stay where they are; a live broker comes back.
    pub fn unregister(&mut self, id: NodeId) -> Result<Decision<()>, ApiError> {
        let known = self.image.brokers.get(&id).ok_or_else(|| {
            let message = format!("Broker ID {id} is not currently registered");
            ApiError::new(ErrorKind::BrokerIdNotRegistered, message)
        })?;
        let broker_epoch = known.broker_epoch;
        let mut records = Vec::new();
        self.move_broker(Mover::Lost(id), &mut records);
        let end = UnregisterBrokerRecord { broker_id: id.0, broker_epoch, ..Default::default() };
        records.push(end.into());
        Ok(Decision::each(records, ()))
    }

    /// Takes a heartbeat.
    pub fn heartbeat(
        &mut self,
        heartbeat: &Heartbeat,
    ) -> Result<Decision<HeartbeatAnswer>, ApiError> {
        let (id, epoch) = (heartbeat.id, heartbeat.epoch);
        check_epoch(&self.image, id, epoch)?;
        let (before, after) = self.next_state(heartbeat);
        let mut records = Vec::new();
        if before != after {
            match after {
                State::Fenced | State::ShutdownNow => self.fence(id, &mut records),
                State::Unfenced => self.unfence(id, &mut records),
                State::ControlledShutdown => self.shut_down(id, &mut records),
            }
        }
        self.sessions.heard(id, heartbeat.metadata_offset, self.now);
        if after == State::ControlledShutdown {
            let offset = Offset(self.end.0 + records.len() as i64 - 1);
            self.sessions.shuts_down(id, offset);
        }
        self.directories(heartbeat, before == after, &mut records);
        let registered_at = self.sessions.get(id).expect("its epoch was checked").registered_at;
        let answer = HeartbeatAnswer {
            is_caught_up: heartbeat.metadata_offset >= registered_at,
            is_fenced: matches!(after, State::Fenced | State::ShutdownNow),
            in_controlled_shutdown: after == State::ControlledShutdown,
            should_shut_down: after == State::ShutdownNow,
        };
        Ok(Decision::each(records, answer))
    }

    /// Notes that a broker was heard, without deciding anything: for a heartbeat that waited too long in a
    /// controller's queue. A busy controller fences nobody for that.
    pub fn heard(&mut self, heartbeat: &Heartbeat) -> Result<(), ApiError> {
        check_epoch(&self.image, heartbeat.id, heartbeat.epoch)?;
        self.sessions.heard(heartbeat.id, heartbeat.metadata_offset, self.now);
        Ok(())
    }

    /// Notes that a broker has no connection to this controller any more: it is fenced once the grace is
    /// over, unless it is heard before.
    pub fn cut_off(&mut self, broker: NodeId) {
        self.sessions.cut_off(broker, self.now);
    }

    fn next_state(&self, heartbeat: &Heartbeat) -> (State, State) {
        let id = heartbeat.id;
        let session = self.sessions.get(id).expect("its epoch was checked");
        let broker = &self.image.brokers[&id];
        let leads = || self.members.leads(id);
        if broker.fenced {
            let caught_up = heartbeat.metadata_offset >= session.registered_at;
            let lost = self.newly_lost(heartbeat);
            let after = match heartbeat {
                Heartbeat { want_shut_down: true, .. } => State::ShutdownNow,
                // What it could lead is known with the next heartbeat, once lost directories are.
                Heartbeat { want_fence: false, .. } if caught_up && lost.is_empty() => {
                    State::Unfenced
                }
                _ => State::Fenced,
            };
            return (State::Fenced, after);
        }
        if broker.in_controlled_shutdown {
            // Nobody active is nobody to wait for.
            let read_by_all = session.shutdown_offset.is_some_and(|offset| {
                let lowest = self.sessions.lowest_active_offset(&self.image);
                lowest.is_none_or(|lowest| lowest >= offset)
            });
            let done = !leads() && read_by_all;
            let after = if done { State::ShutdownNow } else { State::ControlledShutdown };
            return (State::ControlledShutdown, after);
        }
        let after = match (heartbeat.want_fence, heartbeat.want_shut_down) {
            (true, false) => State::Fenced,
            (false, true) if leads() => State::ControlledShutdown,
            (true | false, true) => State::ShutdownNow,
            (false, false) => State::Unfenced,
        };
        (State::Unfenced, after)
    }

    /// It leaves every ISR, then is fenced.
    pub(crate) fn fence(&mut self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        self.move_broker(Mover::Leaves(id), records);
        records.push(BrokerRegistrationChangeRecord { fenced: 1, ..self.change_of(id) }.into());
    }

    /// It is unfenced, then leads what nobody does and it can.
    fn unfence(&mut self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        records.push(BrokerRegistrationChangeRecord { fenced: -1, ..self.change_of(id) }.into());
        let leaderless: Vec<_> = self.members.leaderless.iter().collect();
        self.move_partitions(Mover::Comes(id), leaderless, records);
    }

    fn shut_down(&mut self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        let change =
            BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..self.change_of(id) };
        records.push(change.into());
        self.move_broker(Mover::Leaves(id), records);
    }

    /// The online directories that the broker says are lost.
    fn newly_lost(&self, heartbeat: &Heartbeat) -> Vec<Uuid> {
        if !self.image.metadata_version().has_directories() {
            return Vec::new();
        }
        let online = &self.image.brokers[&heartbeat.id].log_dirs;
        let lost = |directory: &&Uuid| heartbeat.offline_log_dirs.contains(directory);
        online.iter().filter(lost).copied().collect()
    }

    /// Directories that failed since, and those that take no new replicas. Who does not stay what it is
    /// leaves every ISR anyway.
    fn directories(&self, heartbeat: &Heartbeat, stays: bool, records: &mut Vec<MetadataRecord>) {
        let (id, version) = (heartbeat.id, self.image.metadata_version());
        let broker = &self.image.brokers[&id];
        let lost = self.newly_lost(heartbeat);
        if !lost.is_empty() {
            let lies_there = |partition: &PartitionId| {
                let p = self.image.topics.partition(*partition).expect("its broker is a member");
                p.replicas.iter().zip(&p.directories).any(|(r, d)| *r == id && lost.contains(d))
            };
            if stays {
                let hit: Vec<_> = self.members.in_sync(id).filter(lies_there).collect();
                self.move_partitions(Mover::Leaves(id), hit, records);
            }
            let stays_online = |directory: &&Uuid| !lost.contains(*directory);
            let log_dirs: Vec<_> = broker.log_dirs.iter().filter(stays_online).copied().collect();
            // A record cannot tell that none is left; such a broker ends anyway.
            if !log_dirs.is_empty() {
                let change = BrokerRegistrationChangeRecord { log_dirs, ..self.change_of(id) };
                records.push(change.into());
            }
        }
        if let Some(cordoned) = &heartbeat.cordoned_log_dirs
            && version.has_cordoned_directories()
        {
            let same = |known: &Vec<Uuid>| {
                known.len() == cordoned.len() && known.iter().all(|d| cordoned.contains(d))
            };
            if !broker.cordoned_log_dirs.as_ref().is_some_and(same) {
                let cordoned_log_dirs = Some(cordoned.clone());
                let change =
                    BrokerRegistrationChangeRecord { cordoned_log_dirs, ..self.change_of(id) };
                records.push(change.into());
            }
        }
    }

    fn change_of(&self, id: NodeId) -> BrokerRegistrationChangeRecord {
        let broker: &RegisterBrokerRecord = &self.image.brokers[&id];
        BrokerRegistrationChangeRecord {
            broker_id: id.0,
            broker_epoch: broker.broker_epoch,
            ..BrokerRegistrationChangeRecord::default()
        }
    }

    /// What a broker's move does to the partitions that it is in sync or eligible in.
    fn move_broker(&self, mover: Mover, records: &mut Vec<MetadataRecord>) {
        let (Mover::Leaves(id) | Mover::Lost(id)) = mover else { return };
        let partitions: Vec<_> = self.members.in_sync(id).collect();
        self.move_partitions(mover, partitions, records);
    }

    pub(crate) fn move_partitions(
        &self,
        mover: Mover,
        partitions: Vec<PartitionId>,
        records: &mut Vec<MetadataRecord>,
    ) {
        let mut rules = BTreeMap::new(); // Of the topics met: one look-up each.
        for id in partitions {
            let rules = rules.entry(id.topic).or_insert_with(|| self.rules(id.topic));
            let before = self.image.topics.partition(id).expect("a member of the image");
            let change = Change::new(&self.image, id, before, *rules, mover);
            records.extend(change.build().map(MetadataRecord::from));
        }
    }

    /// What rules a topic's partitions.
    pub(crate) fn rules(&self, topic: Uuid) -> TopicRules {
        let (image, settings) = (&self.image, &self.settings);
        let topic = image.topics.with_id(topic).expect("a topic of the image");
        let told = topic_config(image, &topic.name, "min.insync.replicas");
        let min_isr = told.and_then(|value| value.parse().ok());
        let min_isr: i32 = min_isr.unwrap_or(settings.min_insync_replicas);
        let factor = topic.partition(0).map_or(1, |partition| partition.replicas.len());
        TopicRules {
            min_isr: (min_isr.max(0) as usize).min(factor),
            unclean: unclean_enabled(image, settings.node_id, &topic.name)
                .unwrap_or(settings.unclean_leader_election),
        }
    }

    /// The unfenced broker whose session ends first, and when.
    pub(crate) fn next_to_fence(&self) -> Option<(Instant, NodeId)> {
        self.sessions.next_to_end(&self.image, &self.settings)
    }
}

/// The topic's own word, this controller's, the cluster's.
fn unclean_enabled(image: &Image, controller: NodeId, topic: &str) -> Option<bool> {
    const KEY: &str = "unclean.leader.election.enable";
    let own = image.config(&ConfigResource::topic(topic), KEY);
    let of_node = || image.config(&ConfigResource::broker(controller), KEY);
    let of_all = || image.config(&ConfigResource::all_brokers(), KEY);
    own.or_else(of_node).or_else(of_all).map(|value| value.eq_ignore_ascii_case("true"))
}
