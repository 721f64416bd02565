//! What every shard of this node knows from the start, and never changes.

use flowstone_config::Config;
use flowstone_controller::{BrokerRegistration, ControllerRegistration};
use flowstone_metadata::features;
use flowstone_metadata::records::BrokerEndpoint;
use flowstone_raft::Retention;
use flowstone_raft::control::{KraftVersionRange, KraftVoter, VoterEndpoint};
use flowstone_store::LogDir;
use flowstone_types::{NodeId, Timestamp, Uuid};
use std::net::SocketAddr;
use std::sync::OnceLock;

/// Kafka's number of the protocol without encryption or authentication.
const PLAINTEXT: i16 = 0;

/// This node.
pub struct Node {
    /// Its configuration: keys of its file, of its command line, and defaults.
    pub config: Config,
    /// `node.id`.
    pub id: NodeId,
    /// The cluster's id, as meta.properties has it.
    pub cluster_id: String,
    /// This run of the process, for the controller (KIP-866).
    pub incarnation: Uuid,
    /// `log.dirs`, opened, or offline from the start.
    pub dirs: Vec<LogDir>,
    /// The one that holds the metadata log: one of them, or one apart (`metadata.log.dir`).
    pub metadata_dir: LogDir,
    /// Whether its files are read and written past the page cache.
    pub direct_io: bool,
    /// How many shards it has.
    pub shards: usize,
    /// How its memory is shared out.
    pub memory: MemoryPlan,
    /// The listeners it opened, and what is told of them.
    pub listeners: Vec<ListenerPlan>,
    /// When it started.
    pub started: Timestamp,
    /// The kraft.version of its quorum, once the metadata log is open.
    pub kraft_version: OnceLock<i16>,
    /// The epoch of its registration, once it has one.
    pub broker_epoch: OnceLock<i64>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Its name, such as PLAINTEXT.
    pub name: &'static str,
    /// Whether it is for controllers and their tools; else for clients and brokers.
    pub for_controllers: bool,
    /// What it is bound to.
    pub bound: SocketAddr,
    /// What clients are told.
    pub advertised: Endpoint,
}

impl ListenerPlan {
    fn to_record(&self) -> BrokerEndpoint {
        BrokerEndpoint {
            name: self.name.to_owned(),
            host: self.advertised.host.clone(),
            port: self.advertised.port,
            security_protocol: PLAINTEXT,
            ..BrokerEndpoint::default()
        }
    }
}

/// A host and port, as clients connect to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How `flowstone.memory.bytes` is shared out, per shard.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "a size says its unit")]
pub struct MemoryPlan {
    /// Tails of logs, read-ahead, indexes of sealed segments.
    pub store_bytes: usize,
    /// Large requests of which a part has arrived.
    pub arriving_bytes: u64,
    /// Requests that are being worked on.
    pub request_bytes: u64,
}

impl MemoryPlan {
    /// Shares out `total` bytes over `shards`: three quarters to the store, an eighth to each of the
    /// others.
    pub fn new(total: u64, shards: usize) -> Self {
        let each = total / shards as u64;
        let store_bytes = (each / 4 * 3) as usize;
        Self { store_bytes, arriving_bytes: each / 8, request_bytes: each / 8 }
    }
}

impl Node {
    /// What those who came in by a listener are told to connect to.
    pub fn endpoint(&self, listener: &str) -> &Endpoint {
        let plan = self.listeners.iter().find(|plan| plan.name == listener);
        &plan.expect("a connection comes in by one of our listeners").advertised
    }

    /// `log.dirs`, and behind them the directory of the metadata log where that is none of them.
    pub fn all_dirs(&self) -> Vec<LogDir> {
        let id = self.metadata_dir.directory_id();
        let is_apart = self.dirs.iter().all(|dir| dir.directory_id() != id);
        self.dirs.iter().chain(is_apart.then_some(&self.metadata_dir)).cloned().collect()
    }

    /// This node as a voter of the metadata quorum, reached by its controller listener.
    pub fn as_voter(&self) -> KraftVoter {
        let endpoint = |plan: &ListenerPlan| VoterEndpoint {
            name: plan.name.to_owned(),
            host: plan.advertised.host.clone(),
            port: plan.advertised.port,
            ..VoterEndpoint::default()
        };
        KraftVoter {
            voter_id: self.id.0,
            voter_directory_id: self.metadata_dir.directory_id(),
            endpoints: self.listeners.iter().filter(|l| l.for_controllers).map(endpoint).collect(),
            kraft_version_feature: KraftVersionRange {
                min_supported_version: 0,
                max_supported_version: 1,
                ..KraftVersionRange::default()
            },
            ..KraftVoter::default()
        }
    }

    /// The epoch of this broker's registration; -1 before it.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.get().copied().unwrap_or(-1)
    }

    /// This node as a broker that registers.
    pub fn as_broker(&self) -> BrokerRegistration {
        let listeners = self.listeners.iter().filter(|listener| !listener.for_controllers);
        let online = self.dirs.iter().filter(|dir| dir.failure().is_none());
        BrokerRegistration {
            id: self.id,
            incarnation: self.incarnation,
            end_points: listeners.map(ListenerPlan::to_record).collect(),
            features: features::supported(),
            rack: self.config.settings.broker_rack.clone(),
            log_dirs: online.map(LogDir::directory_id).collect(),
        }
    }

    /// This node as a controller that makes itself known.
    pub fn as_controller(&self) -> ControllerRegistration {
        let listeners = self.listeners.iter().filter(|listener| listener.for_controllers);
        ControllerRegistration {
            id: self.id,
            incarnation: self.incarnation,
            end_points: listeners.map(ListenerPlan::to_record).collect(),
        }
    }

    /// When snapshots of the metadata log are taken, and when they go.
    pub fn metadata_retention(&self) -> Retention {
        let settings = &self.config.settings;
        Retention {
            snapshot_after_bytes: settings.metadata_snapshot_bytes.unsigned_abs(),
            snapshot_after_ms: settings.metadata_snapshot_interval_ms,
            ..Retention::default()
        }
    }
}
