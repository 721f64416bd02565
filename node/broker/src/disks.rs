//! The node's disks: are they ours, are they formatted, and which run of them is this?
//!
//! A directory says whose it is in `meta.properties` (cluster id, node id, directory id). Everything
//! else is refused: a foreign disk in our slots is an operator's mistake, and writing to it would be
//! ours (faults.md S19).

use crate::metadata_log::CLUSTER_METADATA;
use crate::node::{ListenerPlan, MemoryPlan, Node};
use crate::start::Served;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use flowstone_config::Config;
use flowstone_log::{MetaProperties, names};
use flowstone_metadata::format::{BOOTSTRAP_CHECKPOINT, Endpoint, Format};
use flowstone_metadata::{MetadataRecord, MetadataVersion, snapshot_file};
use flowstone_runtime::{fs, random_bytes, wall_clock};
use flowstone_store::{Action, LogDir, StorageError};
use flowstone_types::{NodeId, Uuid};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tracing::{info, warn};

/// Opens the directories of `log.dirs`, once it is certain that they are this node's. As in Kafka, one that the
/// system does not let us read or write is offline and the others serve (KIP-112), but for the one of the metadata log;
/// one that is missing or not formatted is a mistake, and refused.
pub async fn open(
    config: &Config,
    unlocked: &BTreeMap<PathBuf, StorageError>,
    shards: usize,
    memory: MemoryPlan,
    served: Served,
    listeners: Vec<ListenerPlan>,
) -> anyhow::Result<Node> {
    let mut found: Vec<(PathBuf, Result<MetaProperties, StorageError>)> = Vec::new();
    for path in config.all_dirs().map(PathBuf::from) {
        let meta = match unlocked.get(&path) {
            None => identity(&path).await?,
            Some(why) => Err(why.clone()),
        };
        if let Ok(meta) = &meta {
            let others = found.iter().filter_map(|(path, meta)| Some((path, meta.as_ref().ok()?)));
            check(config, &path, meta, others)?;
        }
        found.push((path, meta));
    }
    let mut dirs = Vec::new();
    let mut metadata_dir = None;
    let mut cluster_id = String::new();
    for (path, meta) in found {
        let (id, opened) = match meta {
            Ok(meta) => {
                cluster_id = meta.cluster_id;
                let id = meta.directory_id.expect("`check` wants one");
                (id, LogDir::open(path.clone(), id).await)
            }
            Err(why) => (Uuid::ZERO, Err(why)),
        };
        let is_metadata = path == Path::new(&config.metadata_dir);
        let dir = match opened {
            Ok(dir) => dir,
            Err(why @ StorageError::Io { .. }) if is_metadata => {
                bail!("the log directory with the metadata log cannot be opened: {why}")
            }
            Err(why @ StorageError::Io { .. }) => LogDir::offline(path.clone(), id, why),
            Err(why) => return Err(why.into()),
        };
        if is_metadata {
            metadata_dir = Some(dir.clone());
        }
        if config.data_dirs.iter().any(|data| Path::new(data) == path) {
            dirs.push(dir);
        }
    }
    let metadata_dir = metadata_dir.expect("it is among all");
    ensure!(
        dirs.iter().any(|dir| dir.failure().is_none()),
        "none of the log directories can be opened: see to {}",
        config.data_dirs.join(", ")
    );
    // Made there and nowhere else, however full the others are.
    metadata_dir.adopt(CLUSTER_METADATA, 0);
    report_old_images(&dirs);
    let online = dirs.iter().chain([&metadata_dir]).filter(|dir| dir.failure().is_none());
    let online: BTreeSet<&Path> = online.map(LogDir::path).collect();
    let direct_io = direct_io(config, served, &online).await?;
    Ok(Node {
        id: NodeId(config.settings.node_id),
        cluster_id,
        incarnation: fresh_id(),
        dirs,
        metadata_dir,
        direct_io,
        shards,
        memory,
        listeners,
        started: wall_clock(),
        kraft_version: OnceLock::new(),
        broker_epoch: OnceLock::new(),
        config: config.clone(),
    })
}

/// Whose a directory is; the inner error where the system does not let us look.
async fn identity(path: &Path) -> anyhow::Result<Result<MetaProperties, StorageError>> {
    let file = path.join(names::META_PROPERTIES);
    let bytes = match fs::read(&file).await {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => bail!(
            "{} is not formatted: run `flowstone format --standalone -t CLUSTER_ID -c FILE` once, with \
             --ignore-formatted where other log directories are",
            path.display()
        ),
        Err(why) => return Ok(Err(StorageError::io(Action::Read, &file)(why))),
    };
    let meta = MetaProperties::decode(&String::from_utf8_lossy(&bytes));
    meta.with_context(|| format!("{} is damaged", file.display())).map(Ok)
}

fn check<'a>(
    config: &Config,
    path: &Path,
    meta: &MetaProperties,
    others: impl Iterator<Item = (&'a PathBuf, &'a MetaProperties)>,
) -> anyhow::Result<()> {
    ensure!(
        meta.node_id.0 == config.settings.node_id,
        "{} belongs to node {}, this is node {}: check node.id and log.dirs",
        path.display(),
        meta.node_id,
        config.settings.node_id
    );
    ensure!(
        meta.directory_id.is_some(),
        "{} has no directory.id: it was written by Kafka before 3.7; start Apache Kafka 3.7 or later on it once",
        path.display()
    );
    for (other, theirs) in others {
        ensure!(
            meta.cluster_id == theirs.cluster_id,
            "{} belongs to cluster {}, {} to cluster {}: check log.dirs",
            path.display(),
            meta.cluster_id,
            other.display(),
            theirs.cluster_id
        );
        ensure!(
            meta.directory_id != theirs.directory_id,
            "{} and {} have the same directory.id: one is a copy of the other, take it out of log.dirs",
            other.display(),
            path.display()
        );
    }
    Ok(())
}

/// Formats this node's directories where none of them is formatted yet: `flowstoned dev` needs no
/// `flowstone format`.
pub async fn format_if_new(config: &Config, listeners: &[ListenerPlan]) -> anyhow::Result<()> {
    // That of the metadata log first: `Format` puts what a controller begins with there.
    let paths: Vec<PathBuf> = config.all_dirs().map(PathBuf::from).collect();
    for path in &paths {
        make(path).await.with_context(|| format!("cannot make {}", path.display()))?;
        if fs::exists(&path.join(names::META_PROPERTIES)).await? {
            return Ok(());
        }
    }
    let controller = listeners.iter().find(|listener| listener.for_controllers);
    let controller = controller.context("a dev node has a listener for controllers")?;
    let format = Format {
        cluster_id: fresh_id().to_string(),
        node_id: NodeId(config.settings.node_id),
        version: MetadataVersion::LATEST,
        features: Vec::new(),
        standalone: Some(Endpoint {
            listener: controller.name.to_owned(),
            host: controller.advertised.host.clone(),
            port: controller.advertised.port,
        }),
        directory_ids: paths.iter().map(|_| fresh_id()).collect(),
    };
    for file in format.files(wall_clock())? {
        let path = paths[file.dir].join(&file.path);
        if let Some(parent) = path.parent() {
            make(parent).await.with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write_atomic(&path, file.bytes.to_vec())
            .await
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Makes a directory where there is none, and puts its name on stable storage: all that is ever
/// written in it goes with the name.
async fn make(path: &Path) -> io::Result<()> {
    if fs::exists(path).await? {
        return Ok(());
    }
    fs::create_dir_all(path).await?;
    for parent in path.ancestors().skip(1) {
        // The parent of a relative path's first part is where the process runs.
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::sync_dir(parent).await?;
    }
    Ok(())
}

/// Whether direct I/O is used: always, but for `dev` on a file system that has none.
async fn direct_io(
    config: &Config,
    served: Served,
    dirs: &BTreeSet<&Path>,
) -> anyhow::Result<bool> {
    let mut direct = !config.settings.data_buffered;
    for path in dirs {
        let space =
            fs::space(path).await.with_context(|| format!("cannot look at {}", path.display()))?;
        let (dir, kind) = (path.display(), space.kind);
        info!(%dir, file_system = kind, usable_mib = space.usable >> 20, "data directory");
        if space.direct || !direct {
            continue;
        }
        ensure!(
            served == Served::Dev,
            "{dir} is on {kind}, which cannot do direct I/O (O_DIRECT): put log.dirs on ext4 or XFS"
        );
        warn!(
            "{dir} is on {kind}, which cannot do direct I/O: using the page cache, flushed as often"
        );
        direct = false;
    }
    Ok(direct)
}

/// A random id, never a reserved one.
pub fn fresh_id() -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(random_bytes()) {
            return id;
        }
    }
}

/// Tells of directories that earlier runs closed than the others: old images of them were put back, or
/// they were not in `log.dirs` for a while. What was written since is missing, or unknown to the
/// metadata; whoever was killed last has no marker to tell by.
fn report_old_images(dirs: &[LogDir]) {
    let closed = dirs.iter().filter_map(LogDir::clean_broker_epoch);
    let Some(newest) = closed.max() else { return };
    for dir in dirs {
        if let Some(epoch) = dir.clean_broker_epoch()
            && epoch < newest
        {
            warn!(
                dir = %dir.path().display(),
                epoch,
                newest,
                "the data directories were not closed by the same run: this one is older, an image \
                 that was put back perhaps; what was written since is missing in it"
            );
        }
    }
}

/// Tells of directories of topics that the cluster does not have: they are left alone.
pub async fn report_strays(node: &Node, image: &flowstone_metadata::Image) {
    for dir in &node.dirs {
        let Ok(partitions) = dir.partitions().await else { continue };
        for found in partitions {
            let known = match found.topic_id {
                Some(id) => image.topics.with_id(id).is_some(),
                None => image.topics.named(&found.topic).is_some(),
            };
            if !known && found.topic != CLUSTER_METADATA {
                warn!(
                    dir = %dir.path().display(),
                    topic = found.topic,
                    partition = found.index,
                    "stray partition: the cluster has no such topic; its directory is left alone"
                );
            }
        }
    }
}

/// What formatting left for a first controller; nothing where `bootstrap.checkpoint` is missing.
pub async fn bootstrap_records(node: &Node) -> anyhow::Result<Vec<MetadataRecord>> {
    let path = node.metadata_dir.path().join(BOOTSTRAP_CHECKPOINT);
    if !fs::exists(&path).await? {
        return Ok(Vec::new());
    }
    let file = Bytes::from(fs::read(&path).await?);
    let (_, records) = snapshot_file::read_records(&file)
        .with_context(|| format!("{} is damaged", path.display()))?;
    Ok(records)
}
