//! The command flowstone: format, topics, produce, consume, groups, bench, log dump.
