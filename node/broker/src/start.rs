//! From settings to a serving node, and back down again.
//!
//! Shard 0 opens the disks and the metadata log, tells the others, opens the door last, and closes
//! it first. The same code runs on the real back end and in simulation.

use crate::controller::Controller;
use crate::life::Stage;
use crate::listener::{self, DOOR_SHARD};
use crate::node::{Endpoint, ListenerPlan, MemoryPlan, Node};
use crate::peers::{self, Job, MAILBOX_JOBS_MAX, Peers};
use crate::shard::Shard;
use crate::{disks, groups, http};
use anyhow::{Context, anyhow, bail};
use flowstone_config::Config;
use flowstone_runtime::{
    Listener, Mailbox, Mailer, mailbox, now, shard_count, sleep, spawn, termination, wall_clock,
};
use flowstone_store::{LogDir, StorageError, Store, StoreConfig};
use futures_lite::future::{or, poll_once};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{error, info};

/// How often each shard looks whether housekeeping is due.
const TICK: Duration = Duration::from_secs(1);
/// How long the rest of a request may take to arrive while other connections wait for its memory.
const OVERDRAFT_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the disks are still there.
const DISKS_LOOK: Duration = Duration::from_millis(200);
/// How often a stopping shard looks which connections are quiet.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long requests in flight may take to end once the node is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What a node expects of its disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// They are formatted, and do direct I/O.
    Formatted,
    /// `flowstoned dev`: they are formatted if they are new, and may be of any kind.
    Dev,
}

/// What a node needs to start, and how its run ended; shared by its shards.
pub struct Boot {
    config: Config,
    shards: usize,
    memory: MemoryPlan,
    served: Served,
    mailers: Vec<Mailer<Job>>,
    /// Which shards' stores have no room.
    full: Arc<[AtomicBool]>,
    /// Each shard takes its own, once.
    mailboxes: Mutex<Vec<Option<ShardMail>>>,
    starts: Vec<Mailer<Option<Arc<Node>>>>,
    failure: Mutex<Option<anyhow::Error>>,
    /// Log directories that could not be locked, and why: they are offline.
    unlocked: BTreeMap<PathBuf, StorageError>,
}

struct ShardMail {
    jobs: Mailbox<Job>,
    start: Mailbox<Option<Arc<Node>>>,
}

impl Boot {
    /// A node with this configuration, on so many shards, with so much memory for caches and requests. Of the log
    /// directories, those of `unlocked` are offline.
    pub fn new(
        config: Config,
        shards: usize,
        memory_bytes: u64,
        served: Served,
        unlocked: BTreeMap<PathBuf, StorageError>,
    ) -> Arc<Self> {
        let memory = MemoryPlan::new(memory_bytes, shards);
        let (mut mailers, mut starts, mut mailboxes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..shards {
            let (mailer, jobs) = mailbox(MAILBOX_JOBS_MAX);
            let (starter, start) = mailbox(1);
            mailers.push(mailer);
            starts.push(starter);
            mailboxes.push(Some(ShardMail { jobs, start }));
        }
        let mailboxes = Mutex::new(mailboxes);
        Arc::new(Self {
            config,
            shards,
            memory,
            served,
            mailers,
            full: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            mailboxes,
            starts,
            failure: Mutex::new(None),
            unlocked,
        })
    }

    /// How the node's run ended: an error says why it could not start, or did not stop cleanly.
    pub fn outcome(&self) -> anyhow::Result<()> {
        let failure = self.failure.lock().expect("no shard panics and lives").take();
        failure.map_or(Ok(()), Err)
    }

    /// Runs one shard until the node stops: what `launch` runs on each.
    pub async fn run(self: Arc<Self>, index: usize) {
        let mail = self.mailboxes.lock().expect("no shard panics and lives")[index].take();
        let ShardMail { jobs, mut start } = mail.expect("each shard runs once");
        if index != DOOR_SHARD {
            let Some(node) = start.recv().await else { return };
            let shard = self.shard(index, node);
            spawn(peers::serve(Rc::clone(&shard), jobs));
            run_tasks(&shard);
            shard.life.ended().await;
            return;
        }
        if let Err(why) = self.lead(jobs).await {
            *self.failure.lock().expect("no shard panics and lives") = Some(why);
            // Those that never heard of a node end now.
            for start in &self.starts[1..] {
                let _ = start.send(None);
            }
        }
    }

    fn shard(&self, index: usize, node: Arc<Node>) -> Rc<Shard> {
        let store = Store::new(StoreConfig {
            direct_io: node.direct_io,
            memory_bytes: node.memory.store_bytes,
            journal_bytes: self.config.settings.journal_bytes as u64 / shard_count() as u64,
            retention_check_ms: self.config.settings.log_retention_check_interval_ms,
            checkpoint_ms: i64::from(self.config.settings.recovery_checkpoint_interval_ms),
            producer_expiration_ms: i64::from(self.config.settings.producer_id_expiration_ms),
            dirs_for_new: node.dirs.len(),
            ..StoreConfig::new(node.all_dirs())
        });
        let peers = Peers::new(self.mailers.clone(), Arc::clone(&self.full));
        Shard::new(index, node, peers, store)
    }

    /// Shard 0: starts the node, serves, and stops it.
    async fn lead(&self, jobs: Mailbox<Job>) -> anyhow::Result<()> {
        let began = now();
        // Heard from here on: a signal that comes while the logs are opened ends the node in order,
        // once they are, instead of killing it.
        let mut told = Box::pin(termination());
        let told_early = poll_once(&mut told).await.is_some();
        let metrics = http::open(&self.config, self.served).await?;
        let (listeners, plans) = listener::bind(&self.config).await?;
        if self.served == Served::Dev {
            disks::format_if_new(&self.config, &plans).await?;
        }
        let node = Arc::new(
            disks::open(&self.config, &self.unlocked, self.shards, self.memory, self.served, plans)
                .await?,
        );
        for start in &self.starts[1..] {
            assert!(start.send(Some(Arc::clone(&node))).is_ok(), "the first mail of an empty box");
        }
        let shard = self.shard(DOOR_SHARD, Arc::clone(&node));
        spawn(peers::serve(Rc::clone(&shard), jobs));
        let metrics = metrics.map(|(address, status)| {
            status.follow(&shard);
            address
        });
        let mut served = self.serve(&shard, listeners, metrics, began).await;
        if served.is_ok() && !told_early {
            let told = async {
                told.await;
                Ok(())
            };
            served = or(told, disks_fail(&shard.node)).await;
        }
        // Whether it served or not: the others end, in order.
        let stopped = stop(&shard, served.is_ok()).await;
        served.and(stopped)
    }

    async fn serve(
        &self,
        shard: &Rc<Shard>,
        listeners: Vec<Listener>,
        metrics: Option<SocketAddr>,
        began: flowstone_types::Instant,
    ) -> anyhow::Result<()> {
        Controller::start(shard).await.context("cannot start from the metadata log")?;
        run_tasks(shard);
        spawn(keep_metadata(Rc::clone(shard)));
        for (listener, plan) in listeners.into_iter().zip(&shard.node.listeners) {
            spawn(listener::accept(Rc::clone(shard), listener, plan.clone()));
        }
        shard.life.set(Stage::Ready);
        announce(shard, metrics, now().since(began));
        if self.served == Served::Dev && io::stdout().is_terminal() {
            welcome(&shard.node, metrics);
        }
        Ok(())
    }
}

/// Returns once the node cannot go on without the disks that it lost: the one with the metadata log, or all. What
/// Kafka does, too: with fewer, their partitions are offline and the others go on.
async fn disks_fail(node: &Node) -> anyhow::Result<()> {
    loop {
        sleep(DISKS_LOOK).await;
        if let Some(why) = node.metadata_dir.failure() {
            bail!(
                "the log directory with the metadata log is offline: {why}; see to {}, then start again",
                node.metadata_dir.path().display()
            );
        }
        let failures: Option<Vec<_>> = node.dirs.iter().map(LogDir::failure).collect();
        if let Some(why) = failures.and_then(|mut all| all.pop()) {
            bail!(
                "all log directories are offline, the last one since: {why}; see to them, then start again"
            );
        }
    }
}

/// Tasks that every shard runs while it lives.
fn run_tasks(shard: &Rc<Shard>) {
    spawn(groups::keep_time(Rc::clone(shard)));
    let shard = Rc::clone(shard);
    spawn(async move {
        let idle = shard.node.config.settings.connections_idle_ms_max;
        while shard.life.stage() < Stage::Stopping {
            sleep(TICK).await;
            shard.metrics.tick();
            shard.store.tick(wall_clock()).await;
            shard.retry_offline().await;
            shard.tell_directories();
            let overdrawn_since = now().before(OVERDRAFT_PATIENCE);
            let idle_since = u64::try_from(idle).map(|ms| now().before(Duration::from_millis(ms)));
            shard.connections.for_each(|connection| {
                connection.close_if_overdrawn(overdrawn_since);
                if let Ok(since) = idle_since {
                    connection.close_if_idle(since);
                }
            });
        }
    });
}

/// The controller's housekeeping, apart from its shard's: it takes its turn, and a decision that
/// waits for space holds the turn until the shard's retention has made some.
async fn keep_metadata(shard: Rc<Shard>) {
    while shard.life.stage() < Stage::Stopping {
        sleep(TICK).await;
        shard.controller().tick(&shard).await;
    }
}

/// How a listener is told of in lines for people.
fn shown(listener: &ListenerPlan) -> String {
    format!("{}://{}", listener.name, listener.bound)
}

/// One line that says what serves here.
fn announce(shard: &Shard, metrics: Option<SocketAddr>, took: Duration) {
    let node = &shard.node;
    let listeners: Vec<String> = node.listeners.iter().map(shown).collect();
    info!(
        node = node.id.0,
        cluster = node.cluster_id,
        listeners = listeners.join(","),
        metrics = metrics.map_or("off".to_owned(), |address| format!("http://{address}/metrics")),
        io = if node.direct_io { "direct" } else { "buffered" },
        ?took,
        "ready"
    );
}

/// For whoever tries it at a terminal: how to go on.
fn welcome(node: &Node, metrics: Option<SocketAddr>) {
    let Some(listener) = node.listeners.iter().find(|listener| !listener.for_controllers) else {
        return;
    };
    let Endpoint { host, port } = &listener.advertised;
    let dirs: Vec<String> = node.dirs.iter().map(|dir| dir.path().display().to_string()).collect();
    let (version, dirs) = (env!("CARGO_PKG_VERSION"), dirs.join(", "));
    println!(
        "
  Flowstone {version} is ready. Kafka clients connect to {host}:{port}

    kcat -b {host}:{port} -t hello -P                          type lines, end with Ctrl-D
    kcat -b {host}:{port} -t hello -C -e                       read them back
    kafka-topics.sh --bootstrap-server {host}:{port} --list    any of Kafka's own tools

  Data     {dirs}"
    );
    if let Some(address) = metrics {
        println!("  Metrics  http://{address}/metrics");
    }
    println!("  Ctrl-C stops it; what was acknowledged stays.\n");
}

/// Ends the node: lets requests in flight end, closes the logs, and, where all of that went well,
/// leaves the marker of a clean shutdown.
async fn stop(shard: &Rc<Shard>, served: bool) -> anyhow::Result<()> {
    if served {
        info!("stopping");
    }
    shard.door.close();
    shard.on_all(drain).await;
    let closed = shard
        .on_all(|shard: Rc<Shard>| async move {
            let closed = shard.store.shutdown().await;
            (shard.index, closed)
        })
        .await;
    let mut outcome = Ok(());
    for (index, closed) in closed {
        if let Err(why) = closed {
            error!(shard = index, "logs were not closed cleanly: {why}");
            outcome = Err(anyhow!("stopped, but not cleanly: the next start checks the logs"));
        }
    }
    if served && outcome.is_ok() {
        outcome = mark_clean(&shard.node).await;
    }
    if served && outcome.is_ok() {
        info!("stopped");
    }
    shard.on_all(|shard: Rc<Shard>| async move { shard.life.set(Stage::Ended) }).await;
    outcome
}

async fn mark_clean(node: &Node) -> anyhow::Result<()> {
    for dir in node.all_dirs().into_iter().filter(|dir| dir.failure().is_none()) {
        let closed = dir.close(node.broker_epoch()).await;
        closed.with_context(|| format!("cannot mark {} as clean", dir.path().display()))?;
    }
    Ok(())
}

/// Closes each connection once nothing of it is under way, all of them after [`DRAIN`].
async fn drain(shard: Rc<Shard>) {
    shard.life.set(Stage::Stopping);
    shard.coordinators.resign(); // Or a group's next generation would be waited for.
    let until = now().after(DRAIN);
    while shard.connections.len() > 0 && now() < until {
        shard.connections.for_each(|connection| connection.close_if_quiet());
        sleep(DRAIN_LOOK).await;
    }
    shard.connections.for_each(|connection| connection.close());
}
