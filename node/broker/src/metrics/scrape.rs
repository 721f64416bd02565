//! What one scrape finds: each shard's figures, the cluster's image, the process.

use super::counts::OfApi;
use super::process::{self, Process};
use super::text::Series;
use crate::life::Stage;
use crate::node::Node;
use crate::partition::Totals;
use crate::settings;
use crate::shard::Shard;
use flowstone_metadata::{ConfigResource, Image};
use flowstone_raft::QuorumDescription;
use flowstone_runtime::{Memory, Space, busy_nanos, fs, memory};
use flowstone_store::{LogState, Usage};
use flowstone_types::{NodeId, Offset};
use flowstone_wire::{Api, ErrorCode};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// The shares of which a summary tells.
const QUANTILES: [f64; 6] = [0.5, 0.75, 0.95, 0.98, 0.99, 0.999];
const QUANTILE_LABELS: [&str; 6] = ["0.5", "0.75", "0.95", "0.98", "0.99", "0.999"];

/// Everything that metrics are read from. Without ties to a shard, so that it can be written down
/// elsewhere.
pub struct Scrape {
    /// This node.
    pub node: Arc<Node>,
    /// The cluster,
    pub image: Arc<Image>,
    /// below this offset of the metadata log.
    pub image_offset: Offset,
    /// The metadata quorum, where this node leads it.
    pub quorum: Option<QuorumDescription>,
    /// The shards, by number.
    pub shards: Vec<OfShard>,
    /// Accepts that failed.
    pub accepts_failed: u64,
    /// The process's buffers.
    pub buffers: Memory,
    /// The process.
    pub process: Process,
    /// The data directories.
    pub dirs: Vec<OfDir>,
    stage: Stage,
    min_isr: i32,
    cluster: OnceCell<Cluster>,
    by_topic: OnceCell<BTreeMap<Arc<str>, Totals>>,
    requests: OnceCell<BTreeMap<Api, OfApi>>,
}

/// One shard's figures.
pub struct OfShard {
    /// Time it worked.
    pub busy_nanos: u64,
    /// Jobs in its mailbox.
    pub mailbox_jobs: usize,
    /// Open connections, by listener.
    pub connections: BTreeMap<&'static str, usize>,
    /// Clients that did something wrong.
    pub peer_faults: u64,
    /// What its store uses.
    pub store: Usage,
    arriving_bytes: u64,
    request_bytes: u64,
    idle_share: f64,
    groups: usize,
    partitions: Vec<OfPartition>,
    apart: Totals,
    requests: BTreeMap<Api, OfApi>,
}

/// One partition's figures.
pub struct OfPartition {
    topic: Arc<str>,
    index: i32,
    traffic: Totals,
    /// Whether it can be written to.
    writable: bool,
    /// Bytes.
    pub size: u64,
    /// First offset.
    pub start: Offset,
    /// Offset after the last.
    pub end: Offset,
    /// Segments.
    pub segments: usize,
}

/// A data directory.
pub struct OfDir {
    /// Its path.
    pub path: String,
    /// Whether a write or flush of it failed.
    pub is_offline: bool,
    /// Its volume; `None` where that does not answer.
    pub space: Option<Space>,
}

/// Counts over the image.
#[derive(Clone, Copy, Default)]
pub struct Cluster {
    /// Brokers that may lead.
    pub active_brokers: usize,
    /// Brokers that may not.
    pub fenced_brokers: usize,
    /// All partitions.
    pub partitions: usize,
    /// Partitions nobody leads.
    pub leaderless: usize,
    /// Partitions another than their first replica leads.
    pub imbalanced: usize,
    /// Partitions that this node leads.
    pub leaders: usize,
    /// Of these: not all replicas are in sync.
    pub under_replicated: usize,
    /// Of these: fewer in sync than a write needs.
    pub under_min_isr: usize,
    /// Of these: just enough in sync.
    pub at_min_isr: usize,
    /// Partitions of which this node has a replica.
    replicas: usize,
}

impl OfShard {
    fn look(shard: &Shard) -> Self {
        let partitions = shard.partitions();
        let partitions = partitions.iter().map(|partition| OfPartition {
            topic: Arc::clone(&partition.topic),
            index: partition.id.index,
            traffic: partition.traffic.totals(),
            writable: matches!(partition.log.state(), LogState::Online),
            size: partition.log.size(),
            start: partition.log.log_start(),
            end: partition.log.log_end(),
            segments: partition.log.segment_count(),
        });
        let mut connections = BTreeMap::new();
        shard.connections.for_each(|connection| {
            *connections.entry(connection.listener()).or_default() += 1;
        });
        Self {
            busy_nanos: busy_nanos(),
            mailbox_jobs: shard.peers.queue_depths().nth(shard.index).unwrap_or(0),
            connections,
            peer_faults: shard.complaints.count(),
            store: shard.store.usage(),
            arriving_bytes: shard.arriving_budget.used(),
            request_bytes: shard.request_budget.used(),
            idle_share: shard.metrics.idle_share(),
            groups: shard.coordinators.group_count(),
            partitions: partitions.collect(),
            apart: shard.metrics.apart(),
            requests: shard.metrics.requests(),
        }
    }
}

impl Scrape {
    /// Asks every shard; runs on the one that has the controller and the door.
    pub async fn gather(shard: &Rc<Shard>) -> Self {
        let shards = shard.on_all(|shard: Rc<Shard>| async move { OfShard::look(&shard) }).await;
        let mut dirs = Vec::new();
        for dir in &shard.node.dirs {
            let (path, space) =
                (dir.path().display().to_string(), fs::space(dir.path()).await.ok());
            dirs.push(OfDir { path, is_offline: dir.failure().is_some(), space });
        }
        let (image, image_offset) = shard.image_at();
        let controller = shard.controller.get();
        Self {
            node: Arc::clone(&shard.node),
            image,
            image_offset,
            quorum: controller.and_then(|controller| controller.log.describe()),
            shards,
            accepts_failed: shard.metrics.accepts_failed.get(),
            buffers: memory(),
            process: flowstone_runtime::offload(process::look).await,
            dirs,
            stage: shard.life.stage(),
            min_isr: shard.config().topic(None).min_insync_replicas,
            cluster: OnceCell::new(),
            by_topic: OnceCell::new(),
            requests: OnceCell::new(),
        }
    }

    /// The data directories whose volumes tell how large they are.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, &Space)> {
        self.dirs.iter().filter_map(|dir| Some((dir.path.as_str(), dir.space.as_ref()?)))
    }

    /// The partitions of all shards.
    pub fn partitions(&self) -> impl Iterator<Item = &OfPartition> {
        self.shards.iter().flat_map(|shard| &shard.partitions)
    }

    /// One counter, in all and by topic.
    pub fn traffic(&self, out: &mut Series<'_>, of: fn(&Totals) -> u64) {
        let by_topic = self.by_topic.get_or_init(|| {
            let mut by_topic: BTreeMap<Arc<str>, Totals> = BTreeMap::new();
            for partition in self.partitions() {
                let totals = by_topic.entry(Arc::clone(&partition.topic)).or_default();
                *totals = totals.plus(partition.traffic);
            }
            by_topic
        });
        let apart = self.shards.iter().map(|shard| of(&shard.apart)).sum::<u64>();
        out.put(&[""], apart + by_topic.values().map(of).sum::<u64>());
        for (topic, totals) in by_topic {
            out.put(&[topic], of(totals));
        }
    }

    /// One figure of each log.
    pub fn logs(&self, out: &mut Series<'_>, of: fn(&OfPartition) -> i64) {
        for partition in self.partitions() {
            out.put(&[&partition.topic, &partition.index.to_string()], of(partition));
        }
    }

    /// One figure of each shard.
    pub fn by_shard(&self, out: &mut Series<'_>, of: fn(&OfShard) -> f64) {
        for (index, shard) in self.shards.iter().enumerate() {
            out.put(&[&index.to_string()], of(shard));
        }
    }

    /// Memory of each shard, by what it is for.
    pub fn memory_by_kind(&self, out: &mut Series<'_>) {
        for (index, shard) in self.shards.iter().enumerate() {
            let index = index.to_string();
            let store = &shard.store;
            out.put(&[&index, "tails"], store.tail_bytes);
            out.put(&[&index, "indexes"], store.index_bytes);
            out.put(&[&index, "waiting"], store.waiting_bytes);
            out.put(&[&index, "arriving"], shard.arriving_bytes);
            out.put(&[&index, "requests"], shard.request_bytes);
        }
    }

    fn requests(&self) -> &BTreeMap<Api, OfApi> {
        self.requests.get_or_init(|| {
            let mut all: BTreeMap<Api, OfApi> = BTreeMap::new();
            for (api, of_api) in self.shards.iter().flat_map(|shard| &shard.requests) {
                all.entry(*api).and_modify(|sum| sum.add(of_api)).or_insert_with(|| of_api.clone());
            }
            all
        })
    }

    /// Requests, by API and version.
    pub fn requests_by_version(&self, out: &mut Series<'_>) {
        for (api, of_api) in self.requests() {
            for (version, count) in &of_api.by_version {
                out.put(&[api.row().name, &version.to_string()], count);
            }
        }
    }

    /// Error codes, by API.
    pub fn requests_by_error(&self, out: &mut Series<'_>) {
        for (api, of_api) in self.requests() {
            for (code, count) in &of_api.by_error {
                let name = ErrorCode::from_number(*code).map_or("UNKNOWN", ErrorCode::name);
                out.put(&[api.row().name, name], count);
            }
        }
    }

    /// How long requests took, by API.
    pub fn request_times(&self, out: &mut Series<'_>) {
        for (api, of_api) in self.requests() {
            let times = of_api.quantiles_ms(QUANTILES);
            let mut quantiles = [("", 0.0); QUANTILES.len()];
            for (place, pair) in quantiles.iter_mut().zip(QUANTILE_LABELS.into_iter().zip(times)) {
                *place = pair;
            }
            out.summary(&[api.row().name], of_api.count(), &quantiles);
        }
    }

    /// Connections, by listener and shard; a listener without any is told of as 0.
    pub fn connections_by_listener(&self, out: &mut Series<'_>) {
        for listener in &self.node.listeners {
            for (index, shard) in self.shards.iter().enumerate() {
                let open = shard.connections.get(listener.name).copied().unwrap_or(0);
                out.put(&[listener.name, &index.to_string()], open);
            }
        }
    }

    /// How idle the shards are, on average.
    pub fn idle_share(&self) -> f64 {
        let sum: f64 = self.shards.iter().map(|shard| shard.idle_share).sum();
        sum / self.shards.len() as f64
    }

    /// Flushes of all shards.
    pub fn flushes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.store.commits.flushes).sum()
    }

    /// Groups of all shards.
    pub fn groups(&self) -> usize {
        self.shards.iter().map(|shard| shard.groups).sum()
    }

    /// The end of the metadata log; -1 where this node does not lead it.
    pub fn log_end_of_quorum(&self) -> i64 {
        let leader = self.quorum.as_ref().and_then(|quorum| {
            quorum.voters.iter().find(|voter| voter.replica.id == quorum.leader)
        });
        leader.map_or(-1, |leader| leader.log_end.0)
    }

    /// Replicas that should be here and cannot be written to.
    pub fn offline_replicas(&self) -> usize {
        let writable = self.partitions().filter(|partition| partition.writable).count();
        self.cluster().replicas.saturating_sub(writable)
    }

    /// Kafka's numbers of a broker's states.
    pub fn broker_state(&self) -> u8 {
        match self.stage {
            Stage::Starting => 1,
            Stage::Ready => 3,
            Stage::Stopping => 7,
            Stage::Ended => 0,
        }
    }

    /// Counts over the image.
    pub fn cluster(&self) -> &Cluster {
        self.cluster.get_or_init(|| count(&self.image, self.node.id, &|topic| self.min_isr(topic)))
    }

    fn min_isr(&self, topic: &str) -> usize {
        let set = self.image.configs.get(&ConfigResource::topic(topic)).is_some();
        let own = || settings::topic_config(&self.node.config, &self.image, topic);
        let min = if set { own().min_insync_replicas } else { self.min_isr };
        usize::try_from(min).unwrap_or(0)
    }
}

fn count(image: &Image, me: NodeId, min_isr: &dyn Fn(&str) -> usize) -> Cluster {
    let mut all = Cluster::default();
    all.active_brokers = image.brokers.keys().filter(|broker| image.is_active(**broker)).count();
    all.fenced_brokers = image.brokers.len() - all.active_brokers;
    for topic in image.topics.iter() {
        let min_isr = min_isr(&topic.name);
        for (_, partition) in topic.partitions() {
            all.partitions += 1;
            all.replicas += usize::from(partition.replicas.contains(&me));
            all.leaderless += usize::from(partition.leader == NodeId::NONE);
            all.imbalanced += usize::from(partition.replicas.first() != Some(&partition.leader));
            if partition.leader == me {
                let in_sync = partition.isr.len();
                all.leaders += 1;
                all.under_replicated += usize::from(in_sync < partition.replicas.len());
                all.under_min_isr += usize::from(in_sync < min_isr);
                all.at_min_isr += usize::from(in_sync == min_isr);
            }
        }
    }
    all
}
