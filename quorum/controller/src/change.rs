//! One change of one partition: who leads it, who is in sync, who is eligible, in which epochs.
//!
//! Separate because every rule that touches a partition ends here, and elections must not differ by who
//! asks. What holds (KIP-966, reference section 4):
//! - A leader is active, its directory is online, and it is in the ISR, or eligible while that is empty; or
//!   the election is unclean, and says so in the recovery state.
//! - Who leaves an ISR that is smaller than `min.insync.replicas` holds all that was committed: it becomes
//!   eligible, unless it came back from an unclean shutdown. An ISR may run out only where that is kept.
//! - Every word about the leader is a new leader epoch; an ISR that shrinks is none (KAFKA-15021).

use crate::partitions::default_directory;
use alloc::vec;
use alloc::vec::Vec;
use flowstone_metadata::features::ELR_VERSION;
use flowstone_metadata::records::PartitionChangeRecord;
use flowstone_metadata::{ConfigResource, Image, MetadataVersion, Partition, raw};
use flowstone_types::{NodeId, PartitionId, Uuid};

/// How a leader is found, where the present one cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Election {
    /// The preferred replica takes over if it can.
    Preferred,
    /// The present leader stays if it can.
    Online,
    /// The same; and if nobody else can, anybody active.
    Unclean,
}

/// A broker that is just changing: the image does not show it yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mover {
    /// None.
    Nobody,
    /// It may lead from now on.
    Comes(NodeId),
    /// It leaves every ISR.
    Leaves(NodeId),
    /// It may have lost what it had: it leaves every ISR, and is eligible nowhere.
    Lost(NodeId),
}

/// What a topic's partitions are ruled by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicRules {
    /// `min.insync.replicas`, no more than there are replicas.
    pub min_isr: usize,
    /// `unclean.leader.election.enable`.
    pub unclean: bool,
}

impl TopicRules {
    /// The election that keeps a partition led.
    pub const fn election(self) -> Election {
        if self.unclean { Election::Unclean } else { Election::Online }
    }
}

/// A partition as it is to become; [`build`](Self::build) finds what follows.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    image: &'a Image,
    before: &'a Partition,
    id: PartitionId,
    rules: TopicRules,
    mover: Mover,
    pub election: Election,
    pub isr: Vec<NodeId>,
    pub replicas: Vec<NodeId>,
    pub removing: Vec<NodeId>,
    pub adding: Vec<NodeId>,
    pub recovering: bool,
    /// A replica's directory, where it is told.
    pub directory: Option<(NodeId, Uuid)>,
}

/// The first metadata.version at which brokers bear an ISR that shrinks within a leader epoch.
const SHRINKS_IN_EPOCH: MetadataVersion = MetadataVersion(12); // 3.6-IV0

impl<'a> Change<'a> {
    pub fn new(
        image: &'a Image,
        id: PartitionId,
        before: &'a Partition,
        rules: TopicRules,
        mover: Mover,
    ) -> Self {
        let mut isr = before.isr.to_vec();
        if let Mover::Leaves(gone) | Mover::Lost(gone) = mover {
            isr.retain(|node| *node != gone);
        }
        Self {
            election: rules.election(),
            isr,
            replicas: before.replicas.to_vec(),
            removing: before.removing.to_vec(),
            adding: before.adding.to_vec(),
            recovering: before.recovering,
            directory: None,
            image,
            before,
            id,
            rules,
            mover,
        }
    }

    /// The record of all that changes; `None` where nothing does.
    pub fn build(mut self) -> Option<PartitionChangeRecord> {
        let (before, version) = (self.before, self.image.metadata_version());
        let elr = self.image.feature(ELR_VERSION) > 0;
        let mut record = PartitionChangeRecord {
            partition_id: self.id.index,
            topic_id: self.id.topic,
            ..PartitionChangeRecord::default()
        };
        self.complete_reassignment();
        let mut eligible = if elr { self.eligible() } else { Vec::new() };
        let (leader, unclean) = self.elect(&eligible, elr);
        if leader != before.leader {
            record.leader = leader.0;
            if let Some(place) = eligible.iter().position(|node| *node == leader) {
                eligible.remove(place);
                self.isr = vec![leader];
            }
            if unclean {
                self.isr = vec![leader];
                eligible.clear();
                self.recovering = true;
            }
        }
        let told = |record: &PartitionChangeRecord| record.leader != NO_LEADER_CHANGE;
        let leaves = |from: &[NodeId], to: &[NodeId]| from.iter().any(|node| !to.contains(node));
        if !told(&record) && leaves(&before.replicas, &self.replicas) {
            record.leader = before.leader.0; // A replica that is removed must not fetch on as one.
        }
        let changed = |was: &[NodeId], is: &[NodeId]| (was != is).then(|| raw(is));
        record.eligible_leader_replicas = changed(&before.eligible, &eligible);
        if !self.isr.is_empty() || elr {
            record.isr = changed(&before.isr, &self.isr);
        }
        let shrinks = record.isr.is_some() && leaves(&before.isr, &self.isr);
        if version < SHRINKS_IN_EPOCH && shrinks && !told(&record) {
            record.leader = before.leader.0;
        }
        if elr {
            record.last_known_elr = self.last_known(&record);
        }
        if version.has_directories() {
            let directories = self.directories();
            record.directories = (*directories != *before.directories).then_some(directories);
        }
        record.replicas = changed(&before.replicas, &self.replicas);
        record.removing_replicas = changed(&before.removing, &self.removing);
        record.adding_replicas = changed(&before.adding, &self.adding);
        if self.recovering != before.recovering {
            record.leader_recovery_state = self.recovering.into();
        }
        let nothing = PartitionChangeRecord {
            partition_id: self.id.index,
            topic_id: self.id.topic,
            ..PartitionChangeRecord::default()
        };
        (record != nothing).then_some(record)
    }

    /// A reassignment is done once all replicas that are to stay are in sync; the others then go.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let stays = |node: &NodeId| !self.removing.contains(node);
        let isr: Vec<_> = self.isr.iter().copied().filter(stays).collect();
        let replicas: Vec<_> = self.replicas.iter().copied().filter(stays).collect();
        if isr.is_empty() || replicas.is_empty() || replicas.iter().any(|node| !isr.contains(node))
        {
            return;
        }
        self.isr = isr;
        self.replicas = replicas;
        self.removing.clear();
        self.adding.clear();
    }

    /// Who holds all that was committed without being in sync any more.
    fn eligible(&self) -> Vec<NodeId> {
        if self.isr.len() >= self.rules.min_isr {
            return Vec::new();
        }
        let mut eligible = Vec::new();
        for node in self.before.eligible.iter().chain(&self.before.isr) {
            let lost = self.mover == Mover::Lost(*node);
            let gone = !self.replicas.contains(node);
            if !lost && !gone && !self.isr.contains(node) && !eligible.contains(node) {
                eligible.push(*node);
            }
        }
        eligible
    }

    /// The leader, and whether it may lack what was committed.
    fn elect(&self, eligible: &[NodeId], elr: bool) -> (NodeId, bool) {
        let has_all = |node: &NodeId| {
            self.isr.contains(node) || (self.isr.is_empty() && eligible.contains(node))
        };
        let clean = |node: &NodeId| has_all(node) && self.may_lead(*node);
        let before = self.before.leader;
        let preferred = self.replicas.first().copied();
        let stays = Some(before).filter(clean);
        let first = match self.election {
            Election::Preferred => preferred.filter(clean).or(stays),
            Election::Online | Election::Unclean => stays,
        };
        let found = first.or_else(|| self.replicas.iter().copied().find(clean));
        if let Some(leader) = found {
            return (leader, false);
        }
        // KAFKA-19522: not one that is fenced.
        if elr
            && eligible.is_empty()
            && self.isr.is_empty()
            && let [last] = *self.before.last_known
            && self.replicas.contains(&last) // Not one that a reassignment took away since.
            && self.may_lead(last)
        {
            return (last, true);
        }
        let anybody = match self.election {
            Election::Unclean => self.replicas.iter().copied().find(|node| self.may_lead(*node)),
            Election::Preferred | Election::Online => None,
        };
        anybody.map_or((NodeId::NONE, false), |leader| (leader, true))
    }

    fn may_lead(&self, node: NodeId) -> bool {
        let active = match self.mover {
            Mover::Comes(coming) if coming == node => true,
            Mover::Leaves(gone) | Mover::Lost(gone) if gone == node => false,
            Mover::Nobody | Mover::Comes(_) | Mover::Leaves(_) | Mover::Lost(_) => {
                self.image.is_active(node)
            }
        };
        active && self.directory_is_online(node)
    }

    /// Whether the replica's directory is not known to be lost (KIP-858).
    fn directory_is_online(&self, node: NodeId) -> bool {
        let place = self.before.replicas.iter().position(|replica| *replica == node);
        let Some(directory) = place.map(|place| self.before.directories[place]) else {
            return true; // It has none yet.
        };
        let online = self.image.brokers.get(&node).map_or(&[][..], |broker| &broker.log_dirs);
        // A broker that tells no directories registered before MV 3.7-IV2 (KAFKA-16162).
        !is_known(directory) && directory != LOST
            || online.is_empty()
            || online.contains(&directory)
    }

    /// Remembered when a partition loses its last leader, forgotten when it has one (KIP-966).
    fn last_known(&self, record: &PartitionChangeRecord) -> Option<Vec<i32>> {
        let before = self.before;
        let ran_out = record.isr.as_ref().is_some_and(Vec::is_empty);
        let stays = record.leader == NO_LEADER_CHANGE && before.leader != NodeId::NONE;
        let led = record.leader >= 0 || stays;
        let mut known = match before.leader {
            leader if ran_out && leader != NodeId::NONE => vec![leader],
            _ if led => Vec::new(),
            _ => before.last_known.to_vec(),
        };
        known.retain(|node| self.replicas.contains(node)); // Reassigned away, it has nothing any more.
        (*known != *before.last_known).then(|| raw(&known))
    }

    fn directories(&self) -> Vec<Uuid> {
        let before = self.before;
        let of = |node: &NodeId| match self.directory {
            Some((told, directory)) if told == *node => directory,
            Some(_) | None => match before.replicas.iter().position(|replica| replica == node) {
                Some(place) => before.directories[place],
                None => default_directory(self.image, *node),
            },
        };
        self.replicas.iter().map(of).collect()
    }
}

/// "The leader did not change."
pub(crate) const NO_LEADER_CHANGE: i32 = -2;

/// Kafka's `DirectoryId.LOST`.
pub(crate) const LOST: Uuid = Uuid(2);

/// Whether the id is one that a directory can have: below are Kafka's words for none.
pub(crate) const fn is_known(directory: Uuid) -> bool {
    directory.0 >= 100
}

/// A topic's config: its own, or the cluster's.
pub(crate) fn topic_config<'a>(image: &'a Image, topic: &str, key: &str) -> Option<&'a str> {
    let own = image.config(&ConfigResource::topic(topic), key);
    own.or_else(|| image.config(&ConfigResource::all_brokers(), key))
}
