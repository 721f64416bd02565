//! Group coordination, decided: classic groups, committed offsets, their records and replay.
