//! Metadata records, the immutable cluster image, its deltas and snapshots.
