//! Indexes, producer snapshots and the small text files of a log directory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flowstone_batch::{BatchHeader, HEADER_LEN};
use flowstone_log::{
    Epochs, FileKind, MetaProperties, OffsetIndex, ProducerState, TimeIndex, decode_clean_shutdown,
    decode_offsets, decode_partition_metadata,
};
use flowstone_raft::QuorumState;
use flowstone_types::{Offset, Timestamp};
use serde_json::json;

use super::{Report, base_text};
use crate::output::time_text;

/// Bytes of an entry of `.txnindex`: i16 version, then four i64.
const TRANSACTION_ENTRY_BYTES: usize = 34;

impl Report<'_> {
    /// `.index`: each entry, held against the segment where that is there.
    pub(super) fn offset_index(&mut self, path: &Path, base: Offset) -> anyhow::Result<()> {
        let bytes = fs::read(path)?;
        let log = File::open(path.with_extension(&FileKind::Log.suffix()[1..])).ok();
        let log_bytes = log.as_ref().map_or(Ok(u64::MAX), |log| log.metadata().map(|m| m.len()))?;
        let count = match OffsetIndex::decode(base, &bytes, log_bytes) {
            Ok(index) => index.len(),
            Err(error) => return Ok(self.damage(path, &error.to_string())?),
        };
        self.begin(path, "offset index", &format!("{}, {count} entries", base_text(base)))?;
        for entry in bytes.as_chunks::<{ OffsetIndex::ENTRY_BYTES }>().0.iter().take(count) {
            let relative = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let position = u32::from_be_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let offset = base.0 + i64::from(relative);
            let object = json!({ "offset": offset, "position": position });
            self.tell(path, &format!("offset {offset} at {position}"), object)?;
            let mut start = [0; HEADER_LEN];
            let Some(log) = &log else { continue };
            log.read_exact_at(&mut start, position.into())?;
            match BatchHeader::parse(&start) {
                Ok(header) if header.last_offset().0 == offset => {}
                Ok(header) => {
                    let last = header.last_offset();
                    self.damage(
                        path,
                        &format!(
                            "at {position} is a batch that ends with offset {last}, not {offset}"
                        ),
                    )?;
                }
                Err(error) => self.damage(path, &format!("at {position} is no batch: {error}"))?,
            }
        }
        Ok(())
    }

    /// `.timeindex`
    pub(super) fn time_index(&mut self, path: &Path, base: Offset) -> anyhow::Result<()> {
        let bytes = fs::read(path)?;
        let count = match TimeIndex::decode(base, &bytes) {
            Ok(index) => index.len(),
            Err(error) => return Ok(self.damage(path, &error.to_string())?),
        };
        self.begin(path, "time index", &format!("{}, {count} entries", base_text(base)))?;
        for entry in bytes.as_chunks::<{ TimeIndex::ENTRY_BYTES }>().0.iter().take(count) {
            let (time, relative) = entry.split_first_chunk::<8>().expect("an entry is longer");
            let time = i64::from_be_bytes(*time);
            let relative =
                relative.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            let offset = base.0 + i64::from(relative);
            let line = format!("{} offset {offset}", time_text(time).unwrap_or_default());
            self.tell(path, &line, json!({ "timestamp": time, "offset": offset }))?;
        }
        Ok(())
    }

    /// `.txnindex`: aborted transactions.
    pub(super) fn transaction_index(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(path)?;
        let (entries, rest) = bytes.as_chunks::<TRANSACTION_ENTRY_BYTES>();
        self.begin(path, "transaction index", &format!("{} aborted transactions", entries.len()))?;
        for entry in entries {
            let number = |at: usize| {
                let bytes = entry[at..].first_chunk::<8>().expect("34 bytes hold four numbers");
                i64::from_be_bytes(*bytes)
            };
            let [producer, first, last, stable] = [2, 10, 18, 26].map(number);
            let object = json!({ "producer_id": producer, "first_offset": first, "last_offset": last, "last_stable_offset": stable });
            let line = format!("producer {producer} offsets {first}..{last}, last stable {stable}");
            self.tell(path, &line, object)?;
        }
        if !rest.is_empty() {
            self.damage(path, &format!("{} bytes are no entry", rest.len()))?;
        }
        Ok(())
    }

    /// `.snapshot`: what is remembered of idempotent producers.
    pub(super) fn producers(&mut self, path: &Path, at: Offset) -> anyhow::Result<()> {
        let bytes = fs::read(path)?;
        let state = match ProducerState::load(&bytes, at, Timestamp(0)) {
            Ok(state) => state,
            Err(error) => return Ok(self.damage(path, &error.to_string())?),
        };
        self.begin(
            path,
            "producer snapshot",
            &format!("at offset {at}, {} producers", state.len()),
        )?;
        for producer in state.active() {
            let object = super::debug::to_json(&producer);
            let line = format!(
                "producer {}/{} last sequence {} at {}",
                producer.id.0,
                producer.epoch,
                producer.last_sequence,
                time_text(producer.last_timestamp.0).unwrap_or_default()
            );
            self.tell(path, &line, json!({ "producer": object }))?;
        }
        Ok(())
    }

    /// `leader-epoch-checkpoint`
    pub(super) fn epochs(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)?;
        if let Err(error) = Epochs::decode(&text) {
            return Ok(self.damage(path, &error.to_string())?);
        }
        self.begin(path, "leader epochs", "")?;
        for line in text.lines().skip(2) {
            let mut words = line.split(' ').map(str::parse::<i64>).map(Result::unwrap_or_default);
            let (epoch, start) = (words.next().unwrap_or(-1), words.next().unwrap_or(-1));
            let object = json!({ "epoch": epoch, "start_offset": start });
            self.tell(path, &format!("epoch {epoch} from offset {start}"), object)?;
        }
        Ok(())
    }

    /// `partition.metadata`
    pub(super) fn partition_metadata(&mut self, path: &Path) -> anyhow::Result<()> {
        match decode_partition_metadata(&fs::read_to_string(path)?) {
            Ok(id) => {
                self.begin(path, "partition metadata", "")?;
                let object = json!({ "topic_id": id.to_string() });
                Ok(self.tell(path, &format!("topic id {id}"), object)?)
            }
            Err(error) => Ok(self.damage(path, &error.to_string())?),
        }
    }

    /// `meta.properties`
    pub(super) fn meta_properties(&mut self, path: &Path) -> anyhow::Result<()> {
        match MetaProperties::decode(&fs::read_to_string(path)?) {
            Ok(meta) => {
                self.begin(path, "identity of a log directory", "")?;
                let directory = meta.directory_id.map(|id| id.to_string());
                let (cluster, node) = (&meta.cluster_id, meta.node_id);
                let line = format!(
                    "cluster {cluster}, node {node}, directory {}",
                    directory.as_deref().unwrap_or("without an id")
                );
                let object =
                    json!({ "cluster_id": cluster, "node_id": node.0, "directory_id": directory });
                Ok(self.tell(path, &line, object)?)
            }
            Err(error) => Ok(self.damage(path, &error.to_string())?),
        }
    }

    /// `.kafka_cleanshutdown`
    pub(super) fn clean_shutdown(&mut self, path: &Path) -> anyhow::Result<()> {
        let epoch = decode_clean_shutdown(&fs::read_to_string(path)?);
        self.begin(path, "the node was stopped cleanly", "")?;
        let line =
            epoch.map_or("no broker epoch".to_owned(), |epoch| format!("broker epoch {epoch}"));
        Ok(self.tell(path, &line, json!({ "clean_shutdown": true, "broker_epoch": epoch }))?)
    }

    /// A checkpoint of offsets by partition.
    pub(super) fn offsets(&mut self, path: &Path) -> anyhow::Result<()> {
        let offsets = match decode_offsets(&fs::read_to_string(path)?) {
            Ok(offsets) => offsets,
            Err(error) => return Ok(self.damage(path, &error.to_string())?),
        };
        self.begin(path, "checkpoint", &format!("{} partitions", offsets.len()))?;
        for ((topic, partition), offset) in offsets {
            let object = json!({ "topic": topic, "partition": partition, "offset": offset.0 });
            self.tell(path, &format!("{topic}-{partition} {offset}"), object)?;
        }
        Ok(())
    }

    /// `quorum-state`
    pub(super) fn quorum_state(&mut self, path: &Path) -> anyhow::Result<()> {
        match QuorumState::parse(&fs::read_to_string(path)?) {
            Ok(state) => {
                self.begin(path, "quorum state", "")?;
                let line = state.as_ref().map_or("empty".to_owned(), |state| {
                    format!(
                        "epoch {}, leader {}, voted for {}",
                        state.epoch, state.leader, state.voted
                    )
                });
                let object = state.map(|state| {
                    json!({ "epoch": state.epoch.0, "leader": state.leader.0, "voted": state.voted.0 })
                });
                Ok(self.tell(path, &line, object.unwrap_or_else(|| json!({})))?)
            }
            Err(error) => Ok(self.damage(path, &error.to_string())?),
        }
    }
}
