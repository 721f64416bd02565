//! The metadata quorum's rules: election, replication, snapshots.
