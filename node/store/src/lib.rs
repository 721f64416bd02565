//! Performs what storage/log decides: files, group commit, cache, recovery of a shard's logs.
