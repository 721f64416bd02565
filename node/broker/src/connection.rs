//! One client connection: reads requests, lets them be answered, keeps the order.
//!
//! A request's way: here -> `api::answer` -> `api/<name>.rs` -> `partition.rs` -> the store, and
//! its reply back through `replies.rs`. As in Kafka the requests of a connection are worked on one
//! after the other; only produce requests overlap: each is appended before the next is read, but
//! its wait for the disk holds up nobody. A connection moves to the shard that owns most of what it
//! touches.

use crate::api;
use crate::api::fetch::Key;
use crate::budget::Budget;
use crate::client::Client;
use crate::fetch_session::Sessions;
use crate::frames::{Frame, FrameError, Frames, Overdrawn};
use crate::life::Stage;
use crate::listener::DOOR_SHARD;
use crate::replies::Replies;
use crate::shard::Shard;
use crate::standing::Standing;
use bytes::Bytes;
use flowstone_runtime::{self as runtime, Detached, now, spawn};
use flowstone_types::Instant;
use flowstone_wire::{self as wire, DecodeError};
use futures_lite::future::zip;
use std::cell::Cell;
use std::rc::Rc;
use thiserror::Error;
use tracing::{debug, warn};

/// Bytes of requests that one connection may have on their way; it is not read from past that.
/// Five of the largest batches of Kafka's default size (`max.in.flight.requests.per.connection`).
const CONNECTION_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A connection between two shards.
pub struct Moving {
    socket: Detached,
    /// What was received of the requests to come.
    staged: Bytes,
    state: ConnectionState,
}

/// What a connection's client told and opened so far; goes with it from shard to shard.
pub struct ConnectionState {
    /// Who it is.
    pub client: Client,
    /// Its fetch sessions.
    pub sessions: Sessions<Key>,
}

impl Moving {
    /// A connection that was just accepted.
    pub fn accepted(socket: Detached, client: Client) -> Self {
        let state = ConnectionState { client, sessions: Sessions::default() };
        Self { socket, staged: Bytes::new(), state }
    }
}

/// What its shard can do to a connection from outside: end it.
pub struct Handle {
    socket: runtime::Connection,
    listener: &'static str,
    last_used: Cell<Instant>,
    /// A request is being worked on.
    working: Cell<bool>,
    overdrawn: Overdrawn,
    replies: Replies,
}

impl Handle {
    /// The listener it came in by.
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    /// Ends the connection if nothing happened on it since `since`: it sent no whole request and got
    /// no answer, or takes none. One whose request still waits (for a group's other members, say)
    /// is not idle.
    pub fn close_if_idle(&self, since: Instant) {
        let quiet = !self.working.get() && self.last_used.get() < since;
        if quiet || self.replies.sending_since().is_some_and(|began| began < since) {
            self.socket.shutdown();
        }
    }

    /// Ends the connection if others have waited for the rest of its request since `since`.
    pub fn close_if_overdrawn(&self, since: Instant) {
        if self.overdrawn.get().is_some_and(|began| began < since) {
            self.socket.shutdown();
        }
    }

    /// Ends the connection if no request of it is under way.
    pub fn close_if_quiet(&self) {
        if !self.working.get() && self.replies.is_empty() {
            self.socket.shutdown();
        }
    }

    /// Ends the connection: the node stops.
    pub fn close(&self) {
        self.socket.shutdown();
    }
}

/// Why a connection ended.
#[derive(Debug, Error)]
enum End {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("bad request: {0}")]
    Request(#[from] DecodeError),
    #[error("{0} is for brokers; this listener is for controllers")]
    ForBrokers(&'static str),
    #[error("{0}")]
    Replies(String),
    #[error("the node stops")]
    Stopping,
}

/// Serves a connection until it ends or moves away.
pub async fn serve(shard: Rc<Shard>, arrived: Moving) {
    let Moving { socket, staged, mut state } = arrived;
    let socket = socket.attach();
    let handle = Rc::new(Handle {
        socket: socket.clone(),
        listener: state.client.listener,
        last_used: Cell::new(now()),
        working: Cell::new(false),
        overdrawn: Overdrawn::default(),
        replies: Replies::default(),
    });
    let entry = shard.connections.enter(Rc::clone(&handle));
    let limit = shard.node.config.settings.socket_request_bytes_max as usize;
    let budget = Rc::clone(&shard.arriving_budget);
    let mut frames = Frames::new(staged, limit, budget, Rc::clone(&handle.overdrawn));
    let reading = async {
        let ended = requests(&shard, &handle, &mut frames, &mut state).await;
        handle.replies.complete();
        ended
    };
    let (ended, ()) = zip(reading, handle.replies.send_all(&socket)).await;
    // Where a reply could not be given, that is why, not the reading that ended with it.
    let ended = handle.replies.check().map_err(End::Replies).and(ended);
    shard.connections.leave(entry);
    drop(handle);
    match ended {
        Ok(to) => {
            let moving = Moving { socket: socket.detach(), staged: frames.into_staged(), state };
            let arrive = move |shard: &Rc<Shard>| spawn(serve(Rc::clone(shard), moving));
            shard.peers.send(to, Box::new(arrive)).await;
            let from = shard.index;
            shard.peers.send(DOOR_SHARD, Box::new(move |s| s.door.moved(from, to))).await;
        }
        Err(end) => {
            socket.shutdown();
            report(&shard, &state.client, &end);
            let (address, from) = (state.client.address.ip(), shard.index);
            shard.peers.send(DOOR_SHARD, Box::new(move |s| s.door.left(address, from))).await;
        }
    }
}

/// Reads and works on requests; returns the shard that the connection should move to.
async fn requests(
    shard: &Rc<Shard>,
    handle: &Handle,
    frames: &mut Frames,
    state: &mut ConnectionState,
) -> Result<usize, End> {
    let replies = &handle.replies;
    let budget = Budget::new(CONNECTION_BYTES_MAX);
    let mut standing = Standing::default();
    loop {
        let Frame { bytes: frame, arrived } = frames.next(&handle.socket).await?;
        handle.working.set(true);
        let bytes = frame.len() as u64;
        let held = [budget.take(bytes).await, shard.request_budget.take(bytes).await];
        drop(arrived);
        let request = wire::decode(frame)?;
        state.client.asks(&request.header);
        let row = request.header.api.row();
        if state.client.on_controller_listener && row.listener == wire::Listener::Broker {
            return Err(End::ForBrokers(row.name));
        }
        if api::overlaps(&request) {
            replies.check().map_err(End::Replies)?;
        } else {
            replies.drained().await.map_err(End::Replies)?;
        }
        // Boxed: a connection that waits for its next request would carry 5 KiB for nothing.
        let pending = Box::pin(api::answer(shard, state, &mut standing, request)).await;
        replies.push(pending, held);
        handle.working.set(false);
        handle.last_used.set(now());
        if shard.life.stage() >= Stage::Stopping {
            return Err(End::Stopping); // The queued replies leave; clients with more go elsewhere.
        }
        if let Some(to) = state.client.better_home(shard.index) {
            replies.drained().await.map_err(End::Replies)?;
            return Ok(to);
        }
    }
}

/// One line about a peer that did something wrong; a peer that just went is no news.
fn report(shard: &Shard, client: &Client, end: &End) {
    let peer = client.address;
    match end {
        End::Frame(FrameError::Closed | FrameError::Lost(_)) | End::Stopping => {
            debug!(%peer, "{end}");
        }
        End::Frame(FrameError::Length(_))
        | End::Request(_)
        | End::ForBrokers(_)
        | End::Replies(_) => {
            let id = client.id.as_deref().unwrap_or("");
            shard.complaints.complain(|left_out| {
                warn!(%peer, client_id = id, left_out, "closed a connection: {end}");
            });
        }
    }
}
