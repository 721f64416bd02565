//! Connections between simulated machines: TCP as a program sees it.
//!
//! Bytes of a connection arrive in order and once, in pieces of any size, some time after they were
//! sent; or the connection breaks: reset, closed by a peer that died, or silent for good (half-open)
//! because a machine lost power or a path did. A window bounds what is under way.

use super::disk::error;
use super::executor::{Event, sleep_nanos};
use super::trace::Kind;
use super::world::{State, here, is_alive, with};
use crate::Buffer;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::faults::NetFaults;

/// Connections that may wait to be accepted, as Linux's default.
const BACKLOG: usize = 4096;
/// Bytes that one direction takes before the sender waits: send and receive buffer together.
const WINDOW_BYTES: usize = 256 << 10;
/// Largest piece on its way.
const SEGMENT_BYTES: usize = 64 << 10;
/// After how long a sender whose bytes nobody acknowledges, and a connection attempt that nobody
/// answers, give up.
const GIVE_UP_NANOS: (u64, u64) = (20_000_000_000, 120_000_000_000);

/// An endpoint's name; never used again.
pub type EndpointId = u64;

/// The network.
#[derive(Default)]
pub struct Net {
    pub faults: NetFaults,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    listeners: BTreeMap<(usize, u16), Listening>,
    /// Directions that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// What waits for a cut direction to be healed, in order.
    held: Vec<Packet>,
}

struct Listening {
    queue: VecDeque<EndpointId>,
    acceptor: Option<Waker>,
}

struct Endpoint {
    machine: usize,
    peer: EndpointId,
    peer_machine: usize,
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    /// Sent by the peer, not here yet.
    under_way_bytes: usize,
    /// When the last packet on its way to here arrives: later ones come after it.
    last_arrival: u64,
    finished: bool,
    failed: Option<i32>,
    shut: bool,
    /// What it sends from now on goes nowhere.
    silent: bool,
    giving_up: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

/// Something on its way to an endpoint.
pub struct Packet {
    from: (EndpointId, usize),
    to: (EndpointId, usize),
    what: What,
}

enum What {
    Data(Bytes),
    Finish,
    Reset(i32),
}

impl Endpoint {
    fn new(machine: usize, peer: EndpointId, peer_machine: usize) -> Self {
        Self {
            machine,
            peer,
            peer_machine,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            under_way_bytes: 0,
            last_arrival: 0,
            finished: false,
            failed: None,
            shut: false,
            silent: false,
            giving_up: false,
            receiver: None,
            sender: None,
        }
    }

    fn wake(&mut self) {
        self.receiver.take().into_iter().chain(self.sender.take()).for_each(Waker::wake);
    }

    fn fail(&mut self, number: i32) {
        self.failed.get_or_insert(number);
        self.wake();
    }
}

impl State {
    fn latency(&mut self) -> u64 {
        let faults = &self.net.faults;
        let (healthy, slow, slow_max) = (faults.latency, faults.slow, faults.slow_max);
        if self.rng.chance(slow) {
            return self.rng.between(0, slow_max.as_nanos() as u64);
        }
        self.duration(healthy)
    }

    /// Sends `what` to the peer of `id`.
    fn transmit(&mut self, id: EndpointId, what: What) {
        let latency = self.latency();
        let Some(endpoint) = self.net.endpoints.get(&id) else { return };
        let from = (id, endpoint.machine);
        let to = (endpoint.peer, endpoint.peer_machine);
        let silent = endpoint.silent;
        let mut at = self.now + latency;
        if let Some(peer) = self.net.endpoints.get_mut(&to.0) {
            at = at.max(peer.last_arrival + 1);
            peer.last_arrival = at;
            if let What::Data(bytes) = &what {
                peer.under_way_bytes += bytes.len();
            }
        }
        if silent {
            self.give_up_later(id);
        } else {
            self.schedule(at, Event::Deliver(Packet { from, to, what }));
        }
    }

    /// Nobody acknowledges what `id` sent: one day the kernel gives up.
    fn give_up_later(&mut self, id: EndpointId) {
        let at = self.now + self.rng.between(GIVE_UP_NANOS.0, GIVE_UP_NANOS.1);
        let Some(endpoint) = self.net.endpoints.get_mut(&id) else { return };
        if !mem::replace(&mut endpoint.giving_up, true) {
            let this = (id, endpoint.machine);
            let what = What::Reset(libc::ETIMEDOUT);
            self.schedule(at, Event::Deliver(Packet { from: this, to: this, what }));
        }
    }

    /// The last handle of an endpoint is gone.
    fn close(&mut self, id: EndpointId) {
        let Some(endpoint) = self.net.endpoints.get(&id) else { return };
        // Linux resets a connection that is closed with bytes unread.
        let unread = endpoint.arrived_bytes > 0;
        let end = if unread { What::Reset(libc::ECONNRESET) } else { What::Finish };
        if endpoint.failed.is_none() && (unread || !endpoint.shut) {
            self.transmit(id, end);
        }
        self.net.endpoints.remove(&id);
    }

    /// A process of `machine` ended: its kernel closes its connections, unless it is without power.
    pub fn close_all(&mut self, machine: usize) {
        let of_machine =
            |(id, endpoint): (&EndpointId, &Endpoint)| (endpoint.machine == machine).then_some(*id);
        let ids: Vec<EndpointId> = self.net.endpoints.iter().filter_map(of_machine).collect();
        for id in ids {
            if self.machines[machine].powered {
                self.close(id);
            } else {
                self.net.endpoints.remove(&id);
            }
        }
        self.net.listeners.retain(|(owner, _), _| *owner != machine);
    }

    /// Breaks every connection between two machines.
    pub fn reset_all(&mut self, one: usize, other: usize) {
        for (id, endpoint) in &mut self.net.endpoints {
            let ends = (endpoint.machine, endpoint.peer_machine);
            if ends == (one, other) || ends == (other, one) {
                endpoint.fail(libc::ECONNRESET);
                let numbers = [*id, 0, 0];
                self.trace.event(self.now, endpoint.machine, Kind::Reset, numbers);
            }
        }
    }

    /// From now on nothing gets from one machine to another.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.net.cut.insert((from, to));
    }

    /// Undoes `cut`; what was sent meanwhile arrives.
    pub fn heal(&mut self, from: usize, to: usize) {
        self.net.cut.remove(&(from, to));
        let now = self.now;
        for packet in mem::take(&mut self.net.held) {
            if (packet.from.1, packet.to.1) == (from, to) {
                self.schedule(now, Event::Deliver(packet));
            } else {
                self.net.held.push(packet);
            }
        }
    }

    /// Connections that a machine has.
    pub fn connections(&self, machine: usize) -> usize {
        self.net.endpoints.values().filter(|endpoint| endpoint.machine == machine).count()
    }
}

/// A packet comes to where it should.
pub fn deliver(packet: Packet) {
    with(|state| {
        let Packet { from, to, .. } = packet;
        if from.1 != to.1 && state.net.cut.contains(&(from.1, to.1)) {
            state.net.held.push(packet);
            return;
        }
        let Some(endpoint) = state.net.endpoints.get_mut(&to.0) else {
            if matches!(packet.what, What::Data(_)) {
                nobody_there(state, &packet);
            }
            return;
        };
        match packet.what {
            What::Data(bytes) => {
                endpoint.under_way_bytes -= bytes.len();
                let numbers = [to.0, bytes.len() as u64, 0];
                endpoint.arrived_bytes += bytes.len();
                endpoint.arrived.push_back(bytes);
                endpoint.receiver.take().into_iter().for_each(Waker::wake);
                state.event(to.1, Kind::Arrive, numbers);
            }
            What::Finish => {
                endpoint.finished = true;
                endpoint.wake();
                state.event(to.1, Kind::Finish, [to.0, 0, 0]);
            }
            What::Reset(number) => {
                // It may overtake bytes whose segments were lost.
                if state.rng.chance(0.5) {
                    endpoint.arrived.clear();
                    endpoint.arrived_bytes = 0;
                }
                endpoint.fail(number);
                state.event(to.1, Kind::Reset, [to.0, number as u64, 0]);
            }
        }
    });
}

/// Bytes for a connection that the other machine does not know (any more).
fn nobody_there(state: &mut State, packet: &Packet) {
    let Packet { from, to, .. } = *packet;
    if state.machines[to.1].powered {
        let at = state.now + state.latency();
        let what = What::Reset(libc::ECONNRESET);
        state.schedule(at, Event::Deliver(Packet { from: to, to: from, what }));
    } else {
        state.give_up_later(from.0);
    }
}

/// A bound port.
pub struct Listener {
    machine: usize,
    incarnation: u64,
    address: SocketAddr,
}

impl Listener {
    /// As `crate::Listener::bind`.
    pub async fn bind(mut address: SocketAddr) -> io::Result<Self> {
        crate::yield_now().await;
        let here = here();
        with(|state| {
            let machine = &mut state.machines[here.machine];
            let ours = address.ip().is_unspecified()
                || address.ip().is_loopback()
                || address.ip() == machine.address;
            if !ours {
                return Err(error(libc::EADDRNOTAVAIL));
            }
            if address.port() == 0 {
                address.set_port(machine.free_port());
            }
            let key = (here.machine, address.port());
            if state.net.listeners.contains_key(&key) {
                return Err(error(libc::EADDRINUSE));
            }
            let listening = Listening { queue: VecDeque::new(), acceptor: None };
            state.net.listeners.insert(key, listening);
            Ok(Self { machine: here.machine, incarnation: here.incarnation, address })
        })
    }

    /// As `crate::Listener::accept`.
    pub async fn accept(&self) -> io::Result<Connection> {
        poll_fn(|context| {
            with(|state| {
                let key = (self.machine, self.address.port());
                let listening = state.net.listeners.get_mut(&key).expect("bound while we live");
                let Some(id) = listening.queue.pop_front() else {
                    listening.acceptor = Some(context.waker().clone());
                    return Poll::Pending;
                };
                let remote = remote_address(state, id);
                Poll::Ready(Ok(Connection::new(id, self.address, remote, self.incarnation, state)))
            })
        })
        .await
    }

    /// As `crate::Listener::local_addr`.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if is_alive(self.machine, self.incarnation) {
            with(|state| {
                let listening = state.net.listeners.remove(&(self.machine, self.address.port()));
                let queue = listening.map(|listening| listening.queue).unwrap_or_default();
                for id in queue {
                    state.close(id);
                }
            });
        }
    }
}

impl super::world::Machine {
    fn free_port(&mut self) -> u16 {
        self.next_port = if self.next_port == 60_999 { 32_768 } else { self.next_port + 1 };
        self.next_port
    }
}

/// The client's address, as the server sees it: ports of clients are not kept apart, endpoints are.
fn remote_address(state: &State, id: EndpointId) -> SocketAddr {
    let endpoint = &state.net.endpoints[&id];
    let address = state.machines[endpoint.peer_machine].address;
    SocketAddr::new(address, 32_768 + (endpoint.peer % 28_000) as u16)
}

/// As `crate::connect`.
pub async fn connect(address: SocketAddr) -> io::Result<Connection> {
    let here = here();
    let latency = with(State::latency);
    sleep_nanos(latency).await;
    let attempt = with(|state| attempt(state, here.machine, address));
    match attempt {
        Ok(ids) => {
            let connection = with(|state| {
                let local = SocketAddr::new(
                    state.machines[here.machine].address,
                    32_768 + (ids.0 % 28_000) as u16,
                );
                Connection::new(ids.0, local, address, here.incarnation, state)
            });
            let latency = with(State::latency);
            sleep_nanos(latency).await;
            Ok(connection)
        }
        Err(number) => {
            with(|state| {
                let port = u64::from(address.port());
                state.event(here.machine, Kind::NoConnect, [port, number as u64, 0]);
            });
            if number == libc::ETIMEDOUT {
                let nanos = with(|state| state.rng.between(GIVE_UP_NANOS.0, GIVE_UP_NANOS.1));
                sleep_nanos(nanos).await;
            }
            Err(error(number))
        }
    }
}

fn attempt(
    state: &mut State,
    from: usize,
    address: SocketAddr,
) -> Result<(EndpointId, EndpointId), i32> {
    let to = if address.ip().is_loopback() {
        Some(from)
    } else {
        state.machines.iter().position(|machine| machine.address == address.ip())
    };
    let to = to.ok_or(libc::EHOSTUNREACH)?;
    let cut = from != to && [(from, to), (to, from)].iter().any(|way| state.net.cut.contains(way));
    if cut || !state.machines[to].powered {
        return Err(libc::ETIMEDOUT);
    }
    let refuse = state.net.faults.refuse;
    let refused = state.rng.chance(refuse);
    let (client, server) = (state.number(), state.number());
    let listening = state.net.listeners.get_mut(&(to, address.port()));
    let listening = listening.filter(|listening| !refused && listening.queue.len() < BACKLOG);
    let listening = listening.ok_or(libc::ECONNREFUSED)?;
    listening.queue.push_back(server);
    listening.acceptor.take().into_iter().for_each(Waker::wake);
    state.net.endpoints.insert(client, Endpoint::new(from, server, to));
    state.net.endpoints.insert(server, Endpoint::new(to, client, from));
    state.event(from, Kind::Connect, [client, server, to as u64]);
    Ok((client, server))
}

/// An open connection.
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

/// A connection between shards.
pub struct Detached(Handle);

struct Handle {
    id: EndpointId,
    machine: usize,
    incarnation: u64,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if is_alive(self.machine, self.incarnation) {
            with(|state| state.close(self.id));
        }
    }
}

/// Ends the program's test where a receive or a send is given up half-way: on a ring, the kernel
/// goes on with it, and bytes that it takes or leaves are lost.
struct NotDropped<'a>(&'a Handle, &'static str);

impl Drop for NotDropped<'_> {
    fn drop(&mut self) {
        let Self(handle, operation) = self;
        assert!(
            !is_alive(handle.machine, handle.incarnation) || std::thread::panicking(),
            "a pending {operation} was dropped: only what is cancel-safe may be"
        );
    }
}

impl Connection {
    fn new(
        id: EndpointId,
        local: SocketAddr,
        remote: SocketAddr,
        incarnation: u64,
        state: &State,
    ) -> Self {
        let machine = state.net.endpoints[&id].machine;
        Self(Rc::new(Handle { id, machine, incarnation, local, remote }))
    }

    /// As `crate::Connection::recv_upto`.
    pub async fn recv_upto(&self, mut buffer: Buffer, upto: usize) -> (io::Result<usize>, Buffer) {
        let room = upto - buffer.len();
        let result = self.receive(&mut buffer, room).await;
        (result, buffer)
    }

    /// As `crate::Connection::recv_exact`.
    pub async fn recv_exact(&self, mut buffer: Buffer, want: usize) -> (io::Result<()>, Buffer) {
        while buffer.len() < want {
            let left = want - buffer.len();
            match self.receive(&mut buffer, left).await {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
                Ok(_) => {}
                Err(e) => return (Err(e), buffer),
            }
        }
        (Ok(()), buffer)
    }

    async fn receive(&self, buffer: &mut Buffer, limit: usize) -> io::Result<usize> {
        let guard = NotDropped(&self.0, "receive");
        let result = poll_fn(|context| self.poll_receive(buffer, limit, context)).await;
        mem::forget(guard);
        result
    }

    fn poll_receive(
        &self,
        buffer: &mut Buffer,
        limit: usize,
        context: &Context<'_>,
    ) -> Poll<io::Result<usize>> {
        with(|state| {
            let State { net, rng, .. } = state;
            let endpoint = net.endpoints.get_mut(&self.0.id).expect("open while we live");
            if endpoint.shut {
                return Poll::Ready(Err(error(libc::ECONNABORTED)));
            }
            if endpoint.arrived_bytes > 0 {
                let mut count = limit.min(endpoint.arrived_bytes);
                if rng.chance(net.faults.split) {
                    count = rng.between(1, count as u64) as usize;
                }
                take(&mut endpoint.arrived, count, buffer);
                endpoint.arrived_bytes -= count;
                let peer = endpoint.peer;
                if let Some(peer) = net.endpoints.get_mut(&peer) {
                    peer.sender.take().into_iter().for_each(Waker::wake);
                }
                return Poll::Ready(Ok(count));
            }
            if let Some(number) = endpoint.failed {
                return Poll::Ready(Err(error(number)));
            }
            if endpoint.finished {
                return Poll::Ready(Ok(0));
            }
            endpoint.receiver = Some(context.waker().clone());
            Poll::Pending
        })
    }

    /// As `crate::Connection::send`.
    pub async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let mut parts: VecDeque<Bytes> = parts.into();
        let guard = NotDropped(&self.0, "send");
        let result = poll_fn(|context| self.poll_send(&mut parts, context)).await;
        mem::forget(guard);
        result
    }

    fn poll_send(
        &self,
        parts: &mut VecDeque<Bytes>,
        context: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let id = self.0.id;
        with(|state| {
            while let Some(part) = parts.front_mut() {
                let endpoint = state.net.endpoints.get_mut(&id).expect("open while we live");
                if endpoint.shut {
                    return Poll::Ready(Err(error(libc::EPIPE)));
                }
                if let Some(number) = endpoint.failed {
                    return Poll::Ready(Err(error(number)));
                }
                let peer = endpoint.peer;
                let used = |peer: &Endpoint| peer.arrived_bytes + peer.under_way_bytes;
                let used = state.net.endpoints.get(&peer).map_or(0, used);
                let room = WINDOW_BYTES.saturating_sub(used);
                if room == 0 {
                    let endpoint = state.net.endpoints.get_mut(&id).expect("seen above");
                    endpoint.sender = Some(context.waker().clone());
                    return Poll::Pending;
                }
                let mut count = part.len().min(room).min(SEGMENT_BYTES);
                let split = state.net.faults.split;
                if count > 1 && state.rng.chance(split) {
                    count = state.rng.between(1, count as u64) as usize;
                }
                let piece = part.split_to(count);
                if part.is_empty() {
                    parts.pop_front();
                }
                if count > 0 {
                    self.break_perhaps(state);
                    state.transmit(id, What::Data(piece));
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// The faults that a segment may meet.
    fn break_perhaps(&self, state: &mut State) {
        let (id, machine) = (self.0.id, self.0.machine);
        let NetFaults { reset, silence, .. } = state.net.faults;
        if state.rng.chance(reset) {
            state.transmit(id, What::Reset(libc::ECONNRESET));
            let endpoint = state.net.endpoints.get_mut(&id).expect("the sender's own");
            endpoint.fail(libc::ECONNRESET);
            state.event(machine, Kind::Reset, [id, 0, 0]);
        } else if state.rng.chance(silence) {
            let peer = state.net.endpoints[&id].peer;
            for end in [id, peer] {
                if let Some(endpoint) = state.net.endpoints.get_mut(&end) {
                    endpoint.silent = true;
                }
            }
            state.event(machine, Kind::Silence, [id, peer, 0]);
        }
    }

    /// As `crate::Connection::peer`.
    pub fn peer(&self) -> SocketAddr {
        self.0.remote
    }

    /// As `crate::Connection::local`.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// As `crate::Connection::shutdown`.
    pub fn shutdown(&self) {
        with(|state| {
            let endpoint = state.net.endpoints.get_mut(&self.0.id).expect("open while we live");
            if !mem::replace(&mut endpoint.shut, true) {
                endpoint.wake();
                state.transmit(self.0.id, What::Finish);
            }
        });
    }

    /// As `crate::Connection::detach`.
    pub fn detach(self) -> Detached {
        let handle = Rc::try_unwrap(self.0);
        Detached(handle.ok().expect("no other clone of a connection that is detached"))
    }
}

impl Detached {
    /// As `crate::Detached::attach`.
    pub fn attach(self) -> Connection {
        Connection(Rc::new(self.0))
    }
}

/// Moves `count` bytes from the front of `arrived` to the end of `buffer`.
fn take(arrived: &mut VecDeque<Bytes>, mut count: usize, buffer: &mut Buffer) {
    while count > 0 {
        let first = arrived.front_mut().expect("as many have arrived");
        let now = first.split_to(count.min(first.len()));
        buffer.extend_from_slice(&now);
        count -= now.len();
        if first.is_empty() {
            arrived.pop_front();
        }
    }
}
