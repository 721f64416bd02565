//! One partition's log, decided: segments, indexes, recovery, producer state, retention, checkpoints.
