//! One partition's replica, decided: leader or follower, how far everybody is, what is committed,
//! who waits for it.
//!
//! Separate because produce, fetch, the replica fetchers, the group commit and the metadata all ask,
//! and must agree. Pure: inputs are methods of [`Replica`], what is to be done comes out as
//! [`Effect`]s, in order, into a list of the caller's. Time arrives as a value. Who waits is an
//! opaque value of the shell's (`A` for an acknowledgement, `W` for a wake-up), kept here and handed
//! back when its time has come.
//!
//! What the shell owes: it performs the effects of an input, in their order, before it gives the next;
//! what takes a disk or a network comes back as an input of its own, and may come back late, twice or
//! never where that is a network's.
//!
//! | file | what it decides |
//! |---|---|
//! | `replica.rs` | the role, and what every role has: the log's ends, the high watermark, the epochs |
//! | `leader.rs` | appends, followers' fetches, the high watermark over the maximal ISR, DeleteRecords |
//! | `isr.rs` | the ISR, and the one AlterPartition under way |
//! | `progress.rs` | what the leader knows of one follower |
//! | `follower.rs` | fetching, truncation, the follower's high watermark |
//! | `reads.rs` | what a consumer may read, epochs, the preferred read replica |
//! | `waits.rs` | who waits for what, until when |
//! | `throttle.rs` | replication throttles |

#![no_std]
extern crate alloc;

mod effect;
mod follower;
mod isr;
mod leader;
mod metadata;
mod progress;
mod reads;
mod replica;
mod throttle;
mod waits;

pub use effect::{Effect, NotCommitted, Refused};
pub use follower::{
    FetchError, FetchPosition, Fetched, FetchedBatches, Fetching, Follower, LeaderRange,
};
pub use isr::{AlterPartition, AlterPartitionError, Altered, Change, ChangeId, Isr, IsrMember};
pub use leader::{Acks, FollowerAnswer, FollowerFetch, Leader, NextData};
pub use metadata::{
    Broker, Brokers, CurrentLeader, EpochCache, EpochEnd, LogEnds, Metadata, Rules,
};
pub use progress::Progress;
pub use reads::{ConsumerAnswer, ConsumerRead};
pub use replica::{Replica, Role, WhyOffline};
pub use throttle::{ReplicationQuota, ThrottledReplicas, ThrottledReplicasError};
pub use waits::{On, WaitKey};
