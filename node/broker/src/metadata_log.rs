//! The metadata log's shell: `__cluster_metadata-0` with its snapshots and `quorum-state`.
//!
//! Performs what `flowstone_raft` decides; what the records mean is `flowstone_metadata`'s. Files and
//! formats are Kafka's (kafka-reference sections 2.1 and 2.3).

use crate::node::Node;
use crate::partition::{Partition, Uncommitted, Waits};
use crate::reading::whole;
use crate::refusal::Refusal;
use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use flowstone_batch::{self as batch, BatchHeader, Checked, Origin};
use flowstone_log::LogConfig;
use flowstone_metadata::log::{self as records, Entry};
use flowstone_metadata::{Image, MetadataRecord, MetadataVersion, Replay, snapshot_file};
use flowstone_raft::control::{ControlRecord, KraftVoters};
use flowstone_raft::{
    Effect, Input, QuorumDescription, QuorumState, Raft, ReplicaKey, SnapshotFile, SnapshotId,
    Stored,
};
use flowstone_runtime::{fs, wall_clock};
use flowstone_store::{AppendError, LogSpec, Store};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Timestamp, Uuid};
use flowstone_wire::ErrorCode;
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{info, warn};

/// The topic of the metadata log.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Its only partition.
const PARTITION: PartitionId = PartitionId { topic: Uuid::METADATA_TOPIC, index: 0 };
/// Who voted and who leads, beside the log.
const QUORUM_STATE: &str = "quorum-state";
/// Bytes that replay reads at a time.
const READ_BYTES: usize = 1024 * 1024;

/// The open log.
pub struct MetadataLog {
    dir: PathBuf,
    partition: Partition,
    raft: RefCell<Raft>,
    /// Snapshots on disk, the oldest first.
    snapshots: RefCell<Vec<SnapshotFile>>,
}

/// What the files told at start.
struct Found {
    replay: Replay,
    stored: Stored,
    snapshots: Vec<SnapshotFile>,
}

impl MetadataLog {
    /// Opens the log of a formatted node, replays it, and leads it in a new epoch.
    pub async fn open(node: &Node, store: &Store) -> anyhow::Result<(Self, Replay)> {
        let dir = node.metadata_dir.path().join(format!("{CLUSTER_METADATA}-0"));
        let state = read_quorum_state(&dir).await?;
        // The epoch of what is appended comes with each batch; the log only must not be ahead of it.
        let epoch = state.as_ref().map_or(LeaderEpoch(0), |state| state.epoch);
        let spec = LogSpec {
            topic: CLUSTER_METADATA.into(),
            id: PARTITION,
            config: Arc::new(log_config()),
            leader_epoch: epoch,
        };
        let waits = Waits::new(node.id);
        let log = store.open(spec, waits.clone()).await?;
        let partition = Partition::new(PARTITION, CLUSTER_METADATA.into(), log, waits, epoch);
        let found = replay(&dir, &partition, state).await?;
        let me = ReplicaKey { id: node.id, directory: node.metadata_dir.directory_id() };
        let mut effects = Vec::new();
        let endpoints = node.as_voter();
        let raft =
            Raft::start(me, endpoints, found.stored, node.metadata_retention(), &mut effects)?;
        let log = Self {
            dir,
            partition,
            raft: RefCell::new(raft),
            snapshots: RefCell::new(found.snapshots),
        };
        let image = found.replay;
        log.perform(effects, None).await?;
        Ok((log, image))
    }

    /// Everything below is committed.
    pub fn committed_end(&self) -> Offset {
        self.partition.high_watermark()
    }

    /// What DescribeQuorum tells; `None` while this node does not lead.
    pub fn describe(&self) -> Option<QuorumDescription> {
        self.raft.borrow().describe(wall_clock())
    }

    /// The kraft.version of the quorum, which is not in the image.
    pub fn kraft_version(&self) -> i16 {
        self.raft.borrow().quorum().0
    }

    /// The offset that the next record gets.
    pub fn end(&self) -> Offset {
        self.partition.log.log_end()
    }

    /// Commits records, as one batch if they are to take effect together; returns once they are on
    /// stable storage.
    pub async fn commit(
        &self,
        records: &[MetadataRecord],
        version: MetadataVersion,
        atomic: bool,
    ) -> Result<(), Refusal> {
        let epoch = self.raft.borrow().leading().ok_or(ErrorCode::NotController)?;
        let now = wall_clock();
        let batches = if atomic {
            records::batch(records, version, self.end(), epoch, now).map(|batch| vec![batch])
        } else {
            records::batches(records, version, self.end(), epoch, now)
        };
        let batches =
            batches.map_err(|why| Refusal::new(ErrorCode::InvalidRequest, why.to_string()))?;
        for batch in batches {
            self.append(batch, epoch, now).await?;
        }
        Ok(())
    }

    /// Takes a snapshot of `image`, the committed one, if it is time to, and drops what it made old.
    pub async fn tick(&self, image: &Image) -> anyhow::Result<()> {
        let mut effects = Vec::new();
        let input = Input::Tick {
            now: wall_clock(),
            snapshots: self.snapshots.borrow().clone(),
            log_bytes: self.partition.log.size(),
        };
        self.raft.borrow_mut().handle(input, &mut effects);
        self.perform(effects, Some(image)).await
    }

    async fn append(
        &self,
        batch: Bytes,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let bytes = batch.len() as u64;
        let end = self.place(batch, epoch, now)?;
        let told = self.tell(Input::Appended { end, bytes, now });
        assert!(told.is_empty(), "an append leads to nothing before its flush");
        if self.settled(end).await {
            self.tell(Input::Flushed { end });
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::KafkaStorageError,
            "the metadata log's disk failed: this node decides nothing more until it is restarted",
        ))
    }

    /// Gives a batch of ours its place in the log; returns the log's end behind it.
    fn place(
        &self,
        batch: Bytes,
        epoch: LeaderEpoch,
        now: Timestamp,
    ) -> Result<Offset, AppendError> {
        let header = BatchHeader::parse(&batch).expect("we built it");
        let checked = Checked { bytes: batch, header, log_append_time: None, converted: false };
        let appended = self.partition.log.append(checked, Origin::Coordinator, epoch, now)?;
        let end = appended.last_offset.plus(1);
        self.partition.appended(end);
        Ok(end)
    }

    /// Waits until everything below `end` is committed; false if it never will be. A full disk is
    /// waited for: what has its place is written once there is space, so it must be applied, too.
    async fn settled(&self, end: Offset) -> bool {
        loop {
            match self.partition.committed(end).await {
                Some(Ok(())) => return true,
                Some(Err(Uncommitted::Stalled)) => {}
                Some(Err(Uncommitted::Lost)) | None => return false,
            }
        }
    }

    fn tell(&self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.raft.borrow_mut().handle(input, &mut effects);
        effects
    }

    async fn perform(&self, effects: Vec<Effect>, image: Option<&Image>) -> anyhow::Result<()> {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::SaveState(state) => {
                    self.save_state(&state).await?;
                    effects.extend(self.tell(Input::StateSaved { now: wall_clock() }));
                }
                Effect::Append { batch, epoch } => {
                    let end = self.place(batch, epoch, wall_clock())?;
                    ensure!(self.settled(end).await, "the metadata log's disk failed");
                    effects.extend(self.tell(Input::Flushed { end }));
                }
                // Who waits for a commit waits for it at `partition`, and applies what it appended.
                Effect::Committed(_) => {}
                Effect::TakeSnapshot { id, last_timestamp } => {
                    let image = image.context("snapshots are taken at ticks")?;
                    self.take_snapshot(id, last_timestamp, image).await?;
                    let taken = Input::SnapshotTaken { id, now: wall_clock() };
                    effects.extend(self.tell(taken));
                }
                Effect::DropBefore(id) => self.drop_before(id).await?,
            }
        }
        Ok(())
    }

    async fn save_state(&self, state: &QuorumState) -> anyhow::Result<()> {
        let text = {
            let raft = self.raft.borrow();
            let (kraft_version, voters) = raft.quorum();
            let ids: Vec<_> =
                voters.voters.iter().map(|v| flowstone_types::NodeId(v.voter_id)).collect();
            state.to_text(kraft_version, &ids)
        };
        let path = self.dir.join(QUORUM_STATE);
        fs::write_atomic(&path, text.into_bytes())
            .await
            .with_context(|| format!("cannot write {}", path.display()))
    }

    async fn take_snapshot(
        &self,
        id: SnapshotId,
        last_timestamp: Timestamp,
        image: &Image,
    ) -> anyhow::Result<()> {
        let mut file = BytesMut::new();
        {
            let raft = self.raft.borrow();
            let out = |part: Bytes| file.extend_from_slice(&part);
            snapshot_file::write(image, id, last_timestamp, raft.quorum(), wall_clock(), out)?;
        }
        let bytes = file.len() as u64;
        let path = self.dir.join(id.to_string());
        fs::write_atomic(&path, file.into())
            .await
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.snapshots.borrow_mut().push(SnapshotFile { id, bytes, last_timestamp });
        info!(snapshot = %id, bytes, "took a snapshot of the metadata log");
        Ok(())
    }

    async fn drop_before(&self, id: SnapshotId) -> anyhow::Result<()> {
        let old: Vec<SnapshotId> =
            self.snapshots.borrow().iter().map(|file| file.id).filter(|old| *old < id).collect();
        for old in old {
            fs::remove_file(&self.dir.join(old.to_string())).await?;
            self.snapshots.borrow_mut().retain(|file| file.id != old);
        }
        self.partition.log.advance_log_start(id.end).await?;
        Ok(())
    }
}

async fn read_quorum_state(dir: &std::path::Path) -> anyhow::Result<Option<QuorumState>> {
    let path = dir.join(QUORUM_STATE);
    if !fs::exists(&path).await? {
        return Ok(None);
    }
    let bytes = fs::read(&path).await?;
    let state = QuorumState::parse(&String::from_utf8_lossy(&bytes));
    state.with_context(|| format!("{} is damaged", path.display()))
}

/// Newest snapshot, then the log behind it.
async fn replay(
    dir: &std::path::Path,
    partition: &Partition,
    state: Option<QuorumState>,
) -> anyhow::Result<Found> {
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(dir).await? {
        let (bytes, last_timestamp) = (entry.len, entry.modified);
        let id = SnapshotId::from_file_name(&entry.name);
        snapshots.extend(id.map(|id| SnapshotFile { id, bytes, last_timestamp }));
    }
    snapshots.sort_by_key(|file| file.id);
    let (mut replay, mut quorum) = (Replay::default(), None);
    let (mut from, mut voters_in_log, mut newest) = (partition.log.log_start(), false, None);
    if let Some(SnapshotFile { id, .. }) = snapshots.last() {
        let path = dir.join(id.to_string());
        let file = Bytes::from(fs::read(&path).await?);
        let read = snapshot_file::read(&file);
        let (head, image) = read.with_context(|| format!("cannot load {}", path.display()))?;
        quorum = head.voters.map(|voters| (head.kraft_version, voters));
        if *id != SnapshotId::BOOTSTRAP {
            replay = Replay::from_image(image);
            (from, voters_in_log, newest) = (id.end, true, Some(*id));
        }
    }
    let end = partition.log.log_end();
    ensure!(
        partition.log.log_start() <= from && from <= end,
        "the metadata log holds offsets {} to {end}, its newest snapshot ends at {from}: files are missing from {}",
        partition.log.log_start(),
        dir.display()
    );
    let mut behind = 0;
    let mut last_epoch = newest.map_or(LeaderEpoch(0), |id| id.epoch);
    let (mut kraft_version, mut voters) = quorum.unwrap_or((0, KraftVoters::default()));
    while from < end {
        let bytes = whole(partition.log.read(from, end, READ_BYTES, true).await?.parts);
        ensure!(
            !bytes.is_empty(),
            "nothing at offset {from} of the metadata log, its end is {end}"
        );
        for found in batch::batches(&bytes) {
            let (at, header, _) = found?;
            let (_, entry) = records::read_batch(&bytes.slice(at..at + header.total_len()))?;
            behind += header.total_len() as u64;
            last_epoch = header.leader_epoch;
            from = header.last_offset().plus(1);
            match entry {
                Entry::Records(records) => {
                    for record in records {
                        replay.apply(record)?;
                    }
                }
                Entry::Control(records) => {
                    for record in records {
                        match record {
                            ControlRecord::KraftVersion(v) => kraft_version = v.kraft_version,
                            ControlRecord::KraftVoters(v) => (voters, voters_in_log) = (v, true),
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    if replay.in_transaction() {
        warn!("the metadata log ends inside a transaction: what it began is left out");
    }
    snapshots.retain(|file| file.id != SnapshotId::BOOTSTRAP);
    let stored = Stored {
        state,
        last_epoch,
        log_end: end,
        kraft_version,
        voters,
        voters_in_log,
        snapshot: newest,
        log_bytes_behind_snapshot: behind,
    };
    Ok(Found { replay, stored, snapshots })
}

/// The metadata log rolls as Kafka's does, is flushed before anything of it counts, and is cut only
/// behind a snapshot: retention of its own would lose the cluster.
fn log_config() -> LogConfig {
    LogConfig { delete: false, retention_ms: -1, retention_bytes: -1, ..LogConfig::default() }
}
