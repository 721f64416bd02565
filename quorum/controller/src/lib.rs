//! What the controller decides: topics, partitions, placement, configs, producer ids, client quotas,
//! credentials, ACLs, delegation tokens, features.
//!
//! Each decision is a function of the image and a request. It returns the records that carry it out
//! and what to answer once they are committed; it changes nothing itself. A record takes the version
//! that the metadata.version fixes when it is written.
//!
//! Pure: time is not asked for, and randomness comes in as [`Random`].

#![no_std]

extern crate alloc;

mod acls;
mod active;
mod brokers;
mod change;
mod client_quotas;
mod configs;
mod delegation_tokens;
mod directories;
mod elections;
mod error;
mod features;
mod heartbeats;
mod ids;
mod isr;
mod memberships;
mod min_isr;
mod mutations;
mod partitions;
mod placement;
mod reassignments;
mod scram;
mod sessions;
mod topics;
mod transactions;

pub use acls::{AclFilter, DeletedAcls, create_acls, delete_acls, describe_acls};
pub use active::{Active, Append, Controller, Effect, PENDING_MAX, Settings};
pub use brokers::{
    BrokerRegistration, ControllerRegistration, activate, register_broker, register_controller,
    unfence_broker,
};
pub use client_quotas::{
    CONTROLLER_MUTATION_RATE, QuotaAlteration, QuotaMatch, Quotas, alter_client_quotas,
    client_quota, describe_client_quotas,
};
pub use configs::{ConfigChange, ConfigOp, NewConfigs, alter_configs, replace_configs};
pub use delegation_tokens::{
    NewToken, TOKENS_SWEPT_MAX, TokenLifetimes, create_delegation_token,
    describe_delegation_tokens, expire_delegation_token, renew_delegation_token,
    sweep_delegation_tokens,
};
pub use directories::{Assigned, note_directories, told_directory};
pub use elections::{Elected, ElectionType};
pub use error::{ApiError, ErrorKind};
pub use features::{FeatureUpdate, Quorum, UpgradeType, update_features};
pub use heartbeats::{Heartbeat, HeartbeatAnswer};
pub use ids::{PRODUCER_ID_BLOCK_LEN, allocate_producer_ids};
pub use isr::{AlteredIsr, IsrAlteration};
pub use min_isr::clear_elr_for_config_change;
pub use mutations::{Allowance, Enforcement, MutationQuota, MutationQuotas, MutationRate};
pub use partitions::{NewPartitions, create_partitions, create_partitions_within};
pub use placement::{UsableBroker, place};
pub use reassignments::{Reassigned, Reassignment, Target};
pub use scram::{
    DescribedScram, SCRAM_ITERATIONS, ScramDeletion, ScramMechanism, ScramUpsertion,
    alter_user_scram_credentials, describe_user_scram_credentials,
};
pub use topics::{
    CreatedTopic, DeletedTopic, INTERNAL_TOPICS, NewTopic, TopicChoice, TopicDefaults,
    create_topics, create_topics_within, delete_topics, delete_topics_within,
};
pub use transactions::in_transaction;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use flowstone_metadata::MetadataRecord;
use flowstone_types::Uuid;

/// What was decided.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision<R> {
    /// The records that carry it out.
    pub records: Vec<MetadataRecord>,
    /// Whether they take effect together: one batch, and so at most
    /// [`RECORDS_MAX`](flowstone_metadata::log::BATCH_RECORDS_MAX) of them.
    pub atomic: bool,
    /// What to answer once they are committed.
    pub response: R,
}

impl<R> Decision<R> {
    const fn atomic(records: Vec<MetadataRecord>, response: R) -> Self {
        Self { records, atomic: true, response }
    }

    /// Records each of which may take effect alone.
    const fn each(records: Vec<MetadataRecord>, response: R) -> Self {
        Self { records, atomic: false, response }
    }

    /// The same, with what `answer` makes of the response.
    pub fn map<T>(self, answer: impl FnOnce(R) -> T) -> Decision<T> {
        Decision { records: self.records, atomic: self.atomic, response: answer(self.response) }
    }
}

impl<R> Decision<Result<R, ApiError>> {
    /// What was decided, or that nothing was and why.
    pub fn of(decided: Result<Decision<R>, ApiError>) -> Self {
        match decided {
            Ok(decision) => decision.map(Ok),
            Err(error) => Self::atomic(Vec::new(), Err(error)),
        }
    }
}

/// What stands in `items` more than once.
fn repeated<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for item in items {
        if let Some(again) = seen.replace(item) {
            repeated.insert(again);
        }
    }
    repeated
}

/// Randomness, drawn outside: any 64 bits at a call.
pub struct Random<'a>(pub &'a mut dyn FnMut() -> u64);

impl Random<'_> {
    /// A number below `bound`, evenly enough for placement.
    fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is no number below zero");
        ((self.0)() % bound as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    fn id(&mut self) -> Uuid {
        const DRAWS_MAX: usize = 1000; // One in 64 is refused for its leading dash.
        let mut draw = || {
            let bits = (u128::from((self.0)()) << 64) | u128::from((self.0)());
            Uuid::from_random(bits.to_be_bytes())
        };
        (0..DRAWS_MAX).find_map(|_| draw()).expect("the source of randomness is stuck")
    }
}
