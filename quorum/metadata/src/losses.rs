//! What of an image a metadata.version has no records for.
//!
//! Separate because a snapshot, a downgrade and the answer to who asked for it must agree on it. Invariants: what
//! [`Image::to_records_at`] writes is all but the losses; between versions whose records do not differ nothing is lost.

use crate::features::MetadataVersion;
use crate::image::Image;
use crate::records::RegisterBrokerRecord;
use crate::topics::Partition;
use alloc::vec::Vec;
use core::fmt;

/// A kind of thing that an image holds and a metadata.version cannot tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Loss {
    /// Before 3.4-IV0: that a broker is on its way from ZooKeeper.
    MigratingBrokers,
    /// Before 3.5-IV2: SCRAM credentials.
    ScramCredentials,
    /// Before 3.6-IV2: delegation tokens.
    DelegationTokens,
    /// Before 3.7-IV0: registrations of controllers.
    ControllerRegistrations,
    /// Before 3.7-IV2: the online log directories of brokers (KIP-858).
    LogDirectories,
    /// Before 3.7-IV2: which directory a replica is in (KIP-858).
    ReplicaDirectories,
    /// Before 4.0-IV1: eligible leader replicas and last known leaders (KIP-966).
    EligibleReplicas,
    /// Before 4.3-IV0: cordoned log directories (KIP-1066).
    CordonedDirectories,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MigratingBrokers => "the migration state of brokers",
            Self::ScramCredentials => "SCRAM credentials",
            Self::DelegationTokens => "delegation tokens",
            Self::ControllerRegistrations => "registrations of controllers",
            Self::LogDirectories => "log directories of brokers",
            Self::ReplicaDirectories => "log directories of replicas",
            Self::EligibleReplicas => "eligible leader replicas",
            Self::CordonedDirectories => "cordoned log directories",
        })
    }
}

impl Image {
    /// What this image holds that records of `version` cannot tell: what a downgrade to it would lose.
    pub fn losses_at(&self, version: MetadataVersion) -> Vec<Loss> {
        let mut found = Vec::new();
        let mut lose = |kind, lost: bool| {
            if lost {
                found.push(kind);
            }
        };
        let broker =
            |lost: fn(&RegisterBrokerRecord) -> bool| self.brokers.values().any(|b| lost(b));
        let partition = |lost: fn(&Partition) -> bool| {
            self.topics.iter().any(|topic| topic.partitions().any(|(_, partition)| lost(partition)))
        };
        if !version.has_zk_migration() {
            lose(Loss::MigratingBrokers, broker(|broker| broker.is_migrating_zk_broker));
        }
        if !version.has_scram() {
            lose(Loss::ScramCredentials, !self.scram.is_empty());
        }
        if !version.has_delegation_tokens() {
            lose(Loss::DelegationTokens, !self.delegation_tokens.is_empty());
        }
        if !version.has_controller_registration() {
            lose(Loss::ControllerRegistrations, !self.controllers.is_empty());
        }
        if !version.has_directories() {
            lose(Loss::LogDirectories, broker(|broker| !broker.log_dirs.is_empty()));
            let in_one = |p: &Partition| p.directories.iter().any(|directory| !directory.is_zero());
            lose(Loss::ReplicaDirectories, partition(in_one));
        }
        if !version.has_eligible_replicas() {
            lose(Loss::EligibleReplicas, partition(Partition::has_eligible));
        }
        if !version.has_cordoned_directories() {
            lose(Loss::CordonedDirectories, broker(|broker| broker.cordoned_log_dirs.is_some()));
        }
        found
    }
}
