//! The metadata log's shell: `__cluster_metadata-0` with its snapshots and `quorum-state`.
//!
//! Performs what `flowstone_raft` decides; what the records mean is `flowstone_metadata`'s. Files and
//! formats are Kafka's (kafka-reference sections 2.1 and 2.3).

use crate::node::Node;
use crate::partition::{Partition, Uncommitted, Waits};
use crate::reading::whole;
use crate::refusal::Refusal;
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use flowstone_batch::{self as batch, BatchHeader, Checked, Origin};
use flowstone_log::LogConfig;
use flowstone_metadata::log as records;
use flowstone_metadata::{Image, Loader, MetadataRecord, MetadataVersion, Replay, snapshot_file};
use flowstone_raft::control::KraftVoters;
use flowstone_raft::{
    Effect, EpochStart, Input, Now, QuorumDescription, QuorumState, Raft, ReplicaKey, Role,
    Settings, SnapshotFile, SnapshotId, Stored, Timers,
};
use flowstone_runtime::{fs, now, random_u64, wall_clock};
use flowstone_store::{AppendError, LogSpec, Store, Whereabouts};
use flowstone_types::{LeaderEpoch, NodeId, Offset, PartitionId, Timestamp, Uuid};
use flowstone_wire::ErrorCode;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::{error, info, warn};

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
    snapshots: RefCell<Vec<SnapshotId>>,
    /// The snapshot that Raft asked for while the image was behind: taken at the next tick.
    asked: Cell<Option<SnapshotId>>,
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
            whereabouts: Whereabouts::Untold,
        };
        let waits = Waits::new(node.id);
        let log = store.open(spec, waits.clone()).await?;
        let partition = Partition::new(PARTITION, CLUSTER_METADATA.into(), log, waits, epoch);
        let (replay, stored) = load(&dir, &partition, state).await?;
        let me = ReplicaKey { id: node.id, directory: node.metadata_dir.directory_id() };
        check_voter(me, &stored)?;
        let snapshots = stored.snapshots.iter().map(|file| file.id).collect();
        let listener = node.listeners.iter().find(|listener| listener.for_controllers);
        let settings = Settings {
            cluster_id: node.cluster_id.clone(),
            role: Role::Controller,
            listener: listener.map_or("CONTROLLER", |listener| listener.name).to_owned(),
            bootstrap_servers: 0,
            auto_join: false,
            timers: Timers::default(),
            retention: node.metadata_retention(),
        };
        let (mut effects, seed, at) = (Vec::new(), random_u64(), clocks());
        let raft = Raft::start(settings, me, node.as_voter(), stored, seed, at, &mut effects)?;
        let log = Self {
            dir,
            partition,
            raft: RefCell::new(raft),
            snapshots: RefCell::new(snapshots),
            asked: Cell::new(None),
        };
        log.perform(effects, None).await?;
        Ok((log, replay))
    }

    /// Everything below is committed.
    pub fn committed_end(&self) -> Offset {
        self.partition.high_watermark()
    }

    /// What DescribeQuorum tells; `None` while this node does not lead.
    pub fn describe(&self) -> Option<QuorumDescription> {
        self.raft.borrow().describe(clocks())
    }

    /// The kraft.version of the quorum, which is not in the image.
    pub fn kraft_version(&self) -> i16 {
        self.raft.borrow().quorum().kraft_version
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
        let (epoch, _) = self.raft.borrow().leading().ok_or(ErrorCode::NotController)?;
        let now = wall_clock();
        let batches = if atomic {
            records::batch(records, version, self.end(), epoch, now).map(|batch| vec![batch])
        } else {
            records::batches(records, version, self.end(), epoch, now)
        };
        let batches =
            batches.map_err(|why| Refusal::new(ErrorCode::InvalidRequest, why.to_string()))?;
        for batch in batches {
            self.append(batch, epoch).await?;
        }
        Ok(())
    }

    /// Takes a snapshot of `image`, the committed one, if it is time to, and drops what it made old.
    pub async fn tick(&self, image: &Image) -> anyhow::Result<()> {
        // What Raft asked for meanwhile was at an offset that the image has passed.
        let input = self.asked.take().map_or(Input::Tick, Input::SnapshotNotTaken);
        let effects = self.tell(input);
        self.perform(effects, Some(image)).await
    }

    async fn append(&self, batch: Bytes, epoch: LeaderEpoch) -> Result<(), Refusal> {
        // Before Raft counts the batch: what it counts must be in the log.
        self.partition.log.takes()?;
        let mut effects = Vec::new();
        let appended = self.raft.borrow_mut().append(clocks(), epoch, batch, &mut effects);
        appended.map_err(|why| Refusal::new(ErrorCode::NotController, why.to_string()))?;
        self.perform(effects, None).await.map_err(|why| {
            error!("the metadata log: {why:#}");
            Refusal::new(
                ErrorCode::KafkaStorageError,
                "the metadata log's disk failed: this node decides nothing more until it is restarted",
            )
        })
    }

    /// Gives a batch of ours its place in the log.
    fn place(&self, batch: Bytes) -> Result<(), AppendError> {
        let header = BatchHeader::parse(&batch).expect("we built it");
        let (epoch, now) = (header.leader_epoch, wall_clock());
        let checked = Checked { bytes: batch, header, log_append_time: None, converted: false };
        let appended = self.partition.log.append(checked, Origin::Coordinator, epoch, now)?;
        self.partition.appended(appended.last_offset.plus(1));
        Ok(())
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
        self.raft.borrow_mut().handle(clocks(), input, &mut effects);
        effects
    }

    async fn perform(&self, effects: Vec<Effect>, image: Option<&Image>) -> anyhow::Result<()> {
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::SaveState(state) => {
                    self.save_state(&state).await?;
                    effects.extend(self.tell(Input::StateSaved));
                }
                Effect::Append { batches, end } => {
                    self.place(batches)?;
                    ensure!(self.settled(end).await, "its disk failed");
                    effects.extend(self.tell(Input::Flushed { end }));
                }
                // Who waits for a commit waits for it at `partition`, and applies what it appended.
                Effect::Committed(_) | Effect::LeaderChanged { .. } => {}
                Effect::TakeSnapshot { id, last_timestamp } => match image {
                    Some(image) => match self.take_snapshot(id, last_timestamp, image).await {
                        Ok(file) => effects.extend(self.tell(Input::SnapshotTaken(file))),
                        Err(why) => {
                            self.asked.set(Some(id)); // There may be space for it later.
                            return Err(why);
                        }
                    },
                    None => self.asked.set(Some(id)),
                },
                Effect::DropBefore(id) => {
                    let dropped = self.drop_before(id).await;
                    // Or Raft would never ask again; what is left goes with the next ones.
                    let log_bytes = self.partition.log.size();
                    effects.extend(self.tell(Input::Dropped { log_bytes }));
                    dropped?;
                }
                Effect::Fault(fault) => bail!(fault),
                Effect::Truncate { .. }
                | Effect::Send { .. }
                | Effect::Respond { .. }
                | Effect::ReadAndRespond { .. }
                | Effect::ReadPieceAndRespond { .. }
                | Effect::WritePiece { .. }
                | Effect::InstallSnapshot { .. } => {
                    panic!("a quorum of one has nobody to talk to: {effect:?}")
                }
            }
        }
        Ok(())
    }

    async fn save_state(&self, state: &QuorumState) -> anyhow::Result<()> {
        let text = {
            let raft = self.raft.borrow();
            let quorum = raft.quorum();
            let ids: Vec<NodeId> = quorum.keys().map(|voter| voter.id).collect();
            state.to_text(quorum.kraft_version, &ids)
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
    ) -> anyhow::Result<SnapshotFile> {
        let mut file = BytesMut::new();
        {
            let raft = self.raft.borrow();
            let quorum = raft.quorum_at(id.end);
            let quorum = (quorum.kraft_version, &quorum.voters);
            let out = |part: Bytes| file.extend_from_slice(&part);
            snapshot_file::write(image, id, last_timestamp, quorum, wall_clock(), out)?;
        }
        let bytes = file.len() as u64;
        let path = self.dir.join(id.to_string());
        fs::write_atomic(&path, file.into())
            .await
            .with_context(|| format!("cannot write {}", path.display()))?;
        self.snapshots.borrow_mut().push(id);
        info!(snapshot = %id, bytes, "took a snapshot of the metadata log");
        Ok(SnapshotFile { id, bytes, last_timestamp })
    }

    async fn drop_before(&self, id: SnapshotId) -> anyhow::Result<()> {
        let is_old = |known: &SnapshotId| *known < id;
        let old: Vec<_> = self.snapshots.borrow().iter().copied().filter(is_old).collect();
        for old in old {
            fs::remove_file(&self.dir.join(old.to_string())).await?;
            self.snapshots.borrow_mut().retain(|known| *known != old);
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
async fn load(
    dir: &std::path::Path,
    partition: &Partition,
    state: Option<QuorumState>,
) -> anyhow::Result<(Replay, Stored)> {
    let log = &partition.log;
    let mut snapshots = Vec::new();
    for entry in fs::read_dir(dir).await? {
        let (bytes, last_timestamp) = (entry.len, entry.modified);
        let id = SnapshotId::from_file_name(&entry.name);
        snapshots.extend(id.map(|id| SnapshotFile { id, bytes, last_timestamp }));
    }
    snapshots.sort_by_key(|file| file.id);
    let newest = snapshots.last().map(|file| file.id);
    snapshots.retain(|file| file.id != SnapshotId::BOOTSTRAP);
    let mut loader = Loader::new(state, KraftVoters::default(), snapshots);
    if let Some(id) = newest {
        let path = dir.join(id.to_string());
        let file = Bytes::from(fs::read(&path).await?);
        let read = loader.snapshot(id, &file);
        read.with_context(|| format!("cannot load {}", path.display()))?;
    }
    let (start, end) = (log.log_start(), log.log_end());
    let mut from = newest.map_or(start, |id| id.end);
    ensure!(
        start <= from && from <= end,
        "the metadata log holds offsets {start} to {end}, its newest snapshot ends at {from}: files are missing from {}",
        dir.display()
    );
    if start < from {
        loader.skip(start, from, &epochs(partition, start, from), 0);
    }
    while from < end {
        let bytes = whole(log.read(from, end, READ_BYTES, true).await?.parts);
        ensure!(
            !bytes.is_empty(),
            "nothing at offset {from} of the metadata log, its end is {end}"
        );
        for found in batch::batches(&bytes) {
            let (at, header, _) = found?;
            // One voter alone has committed whatever is in its log.
            loader.batch(&bytes.slice(at..at + header.total_len()))?;
            from = header.last_offset().plus(1);
        }
    }
    let (replay, mut stored) = loader.finish();
    stored.log_bytes = log.size();
    if replay.in_transaction() {
        warn!("the metadata log ends inside a transaction: what it began is left out");
    }
    Ok((replay, stored))
}

/// Where the epochs of a part of the log start.
fn epochs(partition: &Partition, start: Offset, end: Offset) -> Vec<EpochStart> {
    let (mut epochs, mut at) = (Vec::new(), start);
    while at < end {
        let epoch = partition.log.epoch_of(at);
        let (_, behind) = partition.log.epoch_end_offset(epoch);
        epochs.push(EpochStart { epoch, start: at });
        at = behind.max(at.plus(1));
    }
    epochs
}

/// Whether this node is the voter that these disks know. Another one's disks must not be led by it.
fn check_voter(me: ReplicaKey, stored: &Stored) -> anyhow::Result<()> {
    let quorum = stored.quorum.last();
    match quorum.keys().collect::<Vec<_>>()[..] {
        [] => bail!("the metadata quorum has no voters: format this node with --standalone"),
        [only] => ensure!(
            only.may_be(me),
            "the metadata quorum's voter is node {} with directory {}, but this is node {} with directory {}: \
             these disks belong to another node, or the metadata directory was replaced",
            only.id,
            only.directory,
            me.id,
            me.directory
        ),
        _ => bail!(
            "the metadata quorum has {} voters; this release runs as the only one",
            quorum.len()
        ),
    }
    Ok(())
}

/// The time, by both clocks.
fn clocks() -> Now {
    Now { clock: now(), wall: wall_clock() }
}

/// The metadata log rolls as Kafka's does, is flushed before anything of it counts, and is cut only
/// behind a snapshot: retention of its own would lose the cluster.
fn log_config() -> LogConfig {
    LogConfig { delete: false, retention_ms: -1, retention_bytes: -1, ..LogConfig::default() }
}
