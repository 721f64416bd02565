//! What every shard of this node knows from the start, and never changes.

use flowstone_config::Config;
use flowstone_controller::{BrokerRegistration, ControllerRegistration};
use flowstone_metadata::records::BrokerEndpoint;
use flowstone_metadata::{features, format};
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
    /// `log.dirs`, opened.
    pub dirs: Vec<LogDir>,
    /// The one of them that holds the metadata log.
    pub metadata_dir: LogDir,
    /// Whether its files are read and written past the page cache.
    pub direct_io: bool,
    /// How many shards it has.
    pub shards: usize,
    /// How its memory is shared out.
    pub memory: MemoryPlan,
    /// The listeners it opened, and what clients are told of them.
    pub listeners: Vec<ListenerPlan>,
    /// When it started.
    pub started: Timestamp,
    /// The epoch of its registration, once it has one.
    pub broker_epoch: OnceLock<i64>,
}

/// A listener for clients.
#[derive(Clone, Debug)]
pub struct ListenerPlan {
    /// Its name, such as PLAINTEXT.
    pub name: &'static str,
    /// What it is bound to.
    pub bound: SocketAddr,
    /// What clients are told.
    pub advertised: Endpoint,
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
pub struct MemoryPlan {
    /// Tails of logs, read-ahead, indexes of sealed segments.
    pub store_bytes: usize,
    /// Requests that are being worked on.
    pub request_bytes: u64,
}

impl MemoryPlan {
    /// Shares out `total` bytes over `shards`: three quarters to the store, the rest to requests.
    pub fn new(total: u64, shards: usize) -> Self {
        let each = total / shards as u64;
        Self { store_bytes: (each / 4 * 3) as usize, request_bytes: each / 4 }
    }
}

impl Node {
    /// What clients of a listener are told to connect to.
    pub fn endpoint(&self, listener: &str) -> &Endpoint {
        let plan = self.listeners.iter().find(|plan| plan.name == listener);
        &plan.expect("a connection comes in by one of our listeners").advertised
    }

    /// This node as a voter of the metadata quorum, reached by its controller listener.
    pub fn as_voter(&self) -> KraftVoter {
        let controller = controller_endpoint(&self.config);
        KraftVoter {
            voter_id: self.id.0,
            voter_directory_id: self.metadata_dir.directory_id(),
            endpoints: vec![VoterEndpoint {
                name: controller.listener,
                host: controller.host,
                port: controller.port,
                ..VoterEndpoint::default()
            }],
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
        let end_point = |plan: &ListenerPlan| BrokerEndpoint {
            name: plan.name.to_owned(),
            host: plan.advertised.host.clone(),
            port: plan.advertised.port,
            security_protocol: PLAINTEXT,
            ..BrokerEndpoint::default()
        };
        BrokerRegistration {
            id: self.id,
            incarnation: self.incarnation,
            end_points: self.listeners.iter().map(end_point).collect(),
            features: features::supported(),
            rack: self.config.settings.broker_rack.clone(),
            log_dirs: self.dirs.iter().map(LogDir::directory_id).collect(),
        }
    }

    /// This node as a controller that makes itself known.
    pub fn as_controller(&self) -> ControllerRegistration {
        let controller = controller_endpoint(&self.config);
        let end_point = BrokerEndpoint {
            name: controller.listener,
            host: controller.host,
            port: controller.port,
            security_protocol: PLAINTEXT,
            ..BrokerEndpoint::default()
        };
        ControllerRegistration {
            id: self.id,
            incarnation: self.incarnation,
            end_points: vec![end_point],
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

/// Where controllers reach this node, as the quorum's voters are told.
pub fn controller_endpoint(config: &Config) -> format::Endpoint {
    let told = config.advertised.iter().chain(&config.controller_listeners);
    let controller = config.controller_listeners.first();
    let controller =
        controller.expect("the configuration was checked: a controller has a listener");
    let told = told.into_iter().find(|told| told.listener == controller.listener);
    let told = told.unwrap_or(controller);
    format::Endpoint {
        listener: told.listener.clone(),
        host: told.host.clone().unwrap_or_else(|| "localhost".to_owned()),
        port: told.port,
    }
}
