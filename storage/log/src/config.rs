//! What one log asks of its storage: the topic configs that decide when it rolls, flushes and forgets.

/// When a produce counts as durable (`flowstone.durability`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Acknowledged after it is on stable storage.
    #[default]
    Flushed,
    /// Acknowledged after the write: survives the process, not a power cut.
    Written,
    /// Acknowledged from memory, as Kafka does by default.
    Memory,
}

/// The configs of one log. Times in ms, sizes in bytes; -1 is "no limit" where Kafka has it so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// `segment.bytes`: size that closes a segment.
    pub segment_bytes: u32,
    /// `segment.ms`: age that closes a segment, by the timestamps of its batches.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is taken off `segment.ms`, so that logs do not roll together.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: size that an index may reach before it closes its segment.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: bytes of batches between two index entries.
    pub index_interval_bytes: u32,
    /// Whether `cleanup.policy` contains `delete`; without it only DeleteRecords frees space.
    pub delete: bool,
    /// `retention.ms`, by a segment's largest timestamp; -1 keeps for ever.
    pub retention_ms: i64,
    /// `retention.bytes` of the whole log; -1 keeps everything.
    pub retention_bytes: i64,
    /// `flush.messages`: in the weaker modes, flush after this many records.
    pub flush_messages: i64,
    /// `flush.ms`: in the weaker modes, flush at the latest after this long.
    pub flush_ms: i64,
    /// `file.delete.delay.ms`: how long a removed file stays under its `.deleted` name.
    pub file_delete_delay_ms: i64,
    /// `flowstone.durability`.
    pub durability: Durability,
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            delete: true,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            durability: Durability::Flushed,
        }
    }
}
