//! The door: accepts connections, holds the limits, sends each to the least loaded shard.
//!
//! Runs on shard 0 only, so its counts need no lock; a connection that ends elsewhere is reported
//! here by mail.

use crate::client::Client;
use crate::connection::{self, Moving};
use crate::node::{Endpoint, ListenerPlan};
use crate::partition::add;
use crate::shard::Shard;
use anyhow::Context;
use flowstone_config::{self as config, Config};
use flowstone_runtime::{Connection, Listener, SocketOptions, local::Notify, now, sleep, spawn};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;
use tracing::warn;

/// The shard that accepts.
pub const DOOR_SHARD: usize = 0;

/// One in so many of the files that the process may have open is kept for its logs: a new one that finds
/// none is offline. Clients wait instead.
const OWN_FILES_SHARE: usize = 4;
/// A failed accept (out of file descriptors, most likely) is tried again after this.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long an address may be in use before that is an error, and how often it is tried.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
const BIND_RETRY: Duration = Duration::from_millis(20);

/// Who is connected, as far as limits and placement ask.
pub struct Door {
    per_shard: RefCell<Vec<usize>>,
    per_address: RefCell<HashMap<IpAddr, usize>>,
    total: Cell<usize>,
    left: Notify,
    closing: Cell<bool>,
}

impl Door {
    /// A door to `shards` shards, with nobody inside.
    pub fn new(shards: usize) -> Self {
        Self {
            per_shard: RefCell::new(vec![0; shards]),
            per_address: RefCell::default(),
            total: Cell::new(0),
            left: Notify::new(),
            closing: Cell::new(false),
        }
    }

    /// A connection of `address` ended on shard `index`.
    pub fn left(&self, address: IpAddr, index: usize) {
        self.per_shard.borrow_mut()[index] -= 1;
        let mut per_address = self.per_address.borrow_mut();
        let count = per_address.get_mut(&address).expect("it was counted when it came");
        *count -= 1;
        if *count == 0 {
            per_address.remove(&address);
        }
        self.total.set(self.total.get() - 1);
        self.left.notify_all();
    }

    /// A connection moved between two shards.
    pub fn moved(&self, from: usize, to: usize) {
        let mut per_shard = self.per_shard.borrow_mut();
        per_shard[from] -= 1;
        per_shard[to] += 1;
    }

    /// Lets no one in any more.
    pub fn close(&self) {
        self.closing.set(true);
        self.left.notify_all();
    }

    fn enter(&self, address: IpAddr) -> usize {
        let mut per_shard = self.per_shard.borrow_mut();
        let least = (0..per_shard.len()).min_by_key(|shard| per_shard[*shard]);
        let shard = least.expect("a node has a shard");
        per_shard[shard] += 1;
        *self.per_address.borrow_mut().entry(address).or_default() += 1;
        self.total.set(self.total.get() + 1);
        shard
    }
}

/// Binds the listeners for clients and for controllers; what is told of each is the advertised
/// listener of its name.
pub async fn bind(config: &Config) -> anyhow::Result<(Vec<Listener>, Vec<ListenerPlan>)> {
    let (mut listeners, mut plans) = (Vec::new(), Vec::new());
    let options = socket_options(config);
    let clients = config.listeners.iter().map(|wanted| (wanted, false));
    let controllers = config.controller_listeners.iter().map(|wanted| (wanted, true));
    for (wanted, for_controllers) in clients.chain(controllers) {
        let name = &wanted.listener;
        let address = resolve(wanted)?;
        let mut bound = bind_one(address, options).await;
        if wanted.host.is_none() && bound.as_ref().is_err_and(is_without_ipv6) {
            bound = bind_one((Ipv4Addr::UNSPECIFIED, wanted.port).into(), options).await;
        }
        let listener = bound.with_context(|| {
            format!("cannot listen on {name}://{address}: is another broker running there?")
        })?;
        let bound = listener.local_addr();
        let told = config.advertised.iter().find(|told| told.listener == *name).unwrap_or(wanted);
        let host = told.host.clone().unwrap_or_else(own_host_name);
        let port = if told.port == 0 { bound.port() } else { told.port };
        let advertised = Endpoint { host, port };
        plans.push(ListenerPlan { name: name.clone().leak(), for_controllers, bound, advertised });
        listeners.push(listener);
    }
    Ok((listeners, plans))
}

/// `socket.*`, for those who connect.
fn socket_options(config: &Config) -> SocketOptions {
    let settings = &config.settings;
    SocketOptions {
        backlog: Some(settings.socket_backlog.unsigned_abs()),
        send_buffer_bytes: usize::try_from(settings.socket_send_buffer_bytes).ok(),
        receive_buffer_bytes: usize::try_from(settings.socket_receive_buffer_bytes).ok(),
    }
}

/// "All interfaces" is an IPv6 address, which covers IPv4; some machines have no IPv6.
fn is_without_ipv6(error: &std::io::Error) -> bool {
    let errors = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    errors.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Binds, with patience: when a node was killed, the kernel holds the listener that its ring waited
/// on for some milliseconds more.
pub async fn bind_one(address: SocketAddr, options: SocketOptions) -> std::io::Result<Listener> {
    let until = now().after(BIND_PATIENCE);
    loop {
        match Listener::bind_with(address, options).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && now() < until => {
                sleep(BIND_RETRY).await;
            }
            bound => return bound,
        }
    }
}

/// The address that a listener is bound to; without a host it is all of them.
fn resolve(endpoint: &config::Endpoint) -> anyhow::Result<SocketAddr> {
    let Some(host) = &endpoint.host else {
        return Ok((Ipv6Addr::UNSPECIFIED, endpoint.port).into());
    };
    let mut found = (host.as_str(), endpoint.port)
        .to_socket_addrs()
        .with_context(|| format!("{}: cannot resolve {host}", endpoint.listener))?;
    found.next().with_context(|| format!("{}: {host} has no address", endpoint.listener))
}

/// What clients are told where the configuration names no host.
fn own_host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// Accepts connections on `listener` until the door closes.
pub async fn accept(shard: Rc<Shard>, listener: Listener, plan: ListenerPlan) {
    let door = &shard.door;
    let room = room();
    while !door.closing.get() {
        match listener.accept().await {
            Ok(socket) => {
                // As Kafka: at the limit of all, one waits here for somebody to leave, and those
                // behind it with the kernel. Looked at after the accept: other listeners let in, too.
                let limit = || room.min(shard.config().settings.connections_max as usize);
                while door.total.get() >= limit() && !door.closing.get() {
                    shard.complaints.complain(|left_out| {
                        let limit = limit();
                        warn!(limit, left_out, "new clients wait: as many connections as may be");
                    });
                    door.left.notified().await;
                }
                admit(&shard, socket, &plan).await;
            }
            Err(error) => {
                add(&shard.metrics.accepts_failed, 1);
                shard.complaints.complain(|left_out| {
                    warn!(%error, left_out, "could not accept a connection");
                });
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// How many connections leave the logs their files.
fn room() -> usize {
    let files = getrlimit(Resource::Nofile).current.and_then(|count| usize::try_from(count).ok());
    files.map_or(usize::MAX, |files| files - files / OWN_FILES_SHARE)
}

/// How many connections one address may have.
fn connections_max(config: &Config, address: IpAddr) -> usize {
    let own = config.connections_per_ip.iter().find(|(host, _)| host.parse() == Ok(address));
    own.map_or(config.settings.connections_per_ip_max, |(_, limit)| *limit).max(0) as usize
}

async fn admit(shard: &Rc<Shard>, socket: Connection, plan: &ListenerPlan) {
    let door = &shard.door;
    let client = Client::new(socket.peer(), plan.name, plan.for_controllers);
    let address = client.address.ip();
    let limit = connections_max(&shard.config(), address);
    let here = door.per_address.borrow().get(&address).copied().unwrap_or(0);
    if door.closing.get() {
        socket.shutdown();
        return;
    }
    if here >= limit {
        shard.complaints.complain(|left_out| {
            warn!(%address, limit, left_out, "closed a connection: max.connections.per.ip is reached");
        });
        socket.shutdown();
        return;
    }
    let to = door.enter(address);
    let moving = Moving::accepted(socket.detach(), client);
    let arrive = move |shard: &Rc<Shard>| spawn(connection::serve(Rc::clone(shard), moving));
    if to == shard.index {
        arrive(shard);
    } else {
        shard.peers.send(to, Box::new(arrive)).await;
    }
}
