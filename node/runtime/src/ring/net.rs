//! Sockets on the ring.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, bind, getpeername, getsockname, listen,
    shutdown, socket_with, sockopt,
};

use super::op::{Operation, Orphan, Step, at_once, submit};
use super::parts::Parts;
use crate::memory::Buffer;
use crate::net::SocketOptions;

/// Connections the kernel holds until we accept them, unless told otherwise (it cuts this to
/// net.core.somaxconn).
const BACKLOG: u32 = 4096;

/// One submission sends no more than this: the kernel copies it within our turn, and the others wait.
const SEND_BYTES_MAX: usize = 256 << 10;

/// One submission receives no more than this.
const RECEIVE_BYTES_MAX: usize = 1 << 30;

fn new_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn address_of(address: rustix::net::SocketAddrAny) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(address)?)
}

pub(crate) struct Listener {
    fd: Rc<OwnedFd>,
    address: SocketAddr,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let fd = new_socket(address)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        // Before `listen`: accepted sockets inherit them, and a window is agreed on at the hello.
        if let Some(bytes) = options.send_buffer_bytes {
            sockopt::set_socket_send_buffer_size(&fd, bytes)?;
        }
        if let Some(bytes) = options.receive_buffer_bytes {
            sockopt::set_socket_recv_buffer_size(&fd, bytes)?;
        }
        bind(&fd, &address)?;
        listen(&fd, i32::try_from(options.backlog.unwrap_or(BACKLOG)).unwrap_or(i32::MAX))?;
        let address = address_of(getsockname(&fd)?)?;
        Ok(Self { fd: Rc::new(fd), address })
    }

    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        loop {
            let accept = Accept { listener: Rc::clone(&self.fd), accepted: None };
            let accepted = submit(accept).await.accepted.expect("done").and_then(Connection::new);
            match accepted {
                // It was gone again before we had it: no fault of the listener's.
                Err(error) if is_gone(error.kind()) => {}
                accepted => return accepted,
            }
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

fn is_gone(error: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    // TCP_NODELAY on a connection that was reset is EINVAL.
    matches!(error, ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}

struct Accept {
    listener: Rc<OwnedFd>,
    accepted: Option<io::Result<OwnedFd>>, // Goes, and so closes, with an orphan.
}

impl Operation for Accept {
    const ORPHAN: Orphan = Orphan::Cancel;

    fn entry(&mut self) -> squeue::Entry {
        let nowhere = std::ptr::null_mut();
        opcode::Accept::new(types::Fd(self.listener.as_raw_fd()), nowhere, nowhere.cast())
            .flags(libc::SOCK_CLOEXEC)
            .build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        // SAFETY: the kernel made it for us and told no one else.
        self.accepted = Some(result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }));
        Step::Done
    }
}

pub(crate) async fn connect(address: SocketAddr) -> io::Result<Connection> {
    let socket = Rc::new(new_socket(address)?);
    let (raw, len) = raw_address(address);
    let connect = Connect { socket, address: Box::new(raw), len, result: Ok(()) };
    let connect = submit(connect).await;
    connect.result?;
    let socket = Rc::into_inner(connect.socket).expect("only the operation had it");
    Connection::new(socket)
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, u32) {
    // SAFETY: zeros are a valid address storage (of family "unspecified").
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let len = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage is large and aligned enough for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of_val(&raw)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of_val(&raw)
        }
    };
    (storage, len as u32)
}

struct Connect {
    socket: Rc<OwnedFd>,
    address: Box<libc::sockaddr_storage>,
    len: u32,
    result: io::Result<()>,
}

impl Operation for Connect {
    const ORPHAN: Orphan = Orphan::Cancel;

    fn entry(&mut self) -> squeue::Entry {
        let address = (&raw const *self.address).cast();
        opcode::Connect::new(types::Fd(self.socket.as_raw_fd()), address, self.len).build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        self.result = result.map(|_| ());
        Step::Done
    }
}

#[derive(Clone)]
pub(crate) struct Connection(Rc<Socket>);

struct Socket {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
    is_shut: Cell<bool>,
    is_sending: Cell<bool>,
}

impl Connection {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&fd, true)?;
        // Fails where the peer is gone already.
        let peer = getpeername(&fd)?.ok_or(io::ErrorKind::NotConnected)?;
        let (peer, local) = (address_of(peer)?, address_of(getsockname(&fd)?)?);
        Ok(Detached { fd, peer, local }.attach())
    }

    pub(crate) async fn recv_upto(
        &self,
        buffer: Buffer,
        upto: usize,
    ) -> (io::Result<usize>, Buffer) {
        let before = buffer.len();
        let (result, buffer) = self.receive(buffer, Want::Some { upto }).await;
        (result.map(|()| buffer.len() - before), buffer)
    }

    pub(crate) async fn recv_exact(&self, buffer: Buffer, want: usize) -> (io::Result<()>, Buffer) {
        self.receive(buffer, Want::All { upto: want }).await
    }

    async fn receive(&self, buffer: Buffer, want: Want) -> (io::Result<()>, Buffer) {
        if self.0.is_shut.get() {
            return (Err(shut_down()), buffer);
        }
        let operation = Receive { socket: Rc::clone(&self.0), buffer, want, result: Ok(()) };
        let Receive { buffer, result, .. } = submit(operation).await;
        (result, buffer)
    }

    pub(crate) async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        let parts = Parts::new(parts, SEND_BYTES_MAX);
        if self.0.is_shut.get() {
            return Err(shut_down());
        }
        if parts.is_empty() {
            return Ok(());
        }
        let sending = Sending::begin(&self.0);
        // SAFETY: zeros are a valid message header: no address, no data, no control.
        let message = unsafe { std::mem::zeroed() };
        submit(Send { sending, parts, message, result: Ok(()) }).await.result
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.0.local
    }

    pub(crate) fn shutdown(&self) {
        self.0.is_shut.set(true);
        let _ = shutdown(&self.0.fd, Shutdown::Both); // Fails where the peer has done it already.
    }

    pub(crate) fn detach(self) -> Detached {
        let socket = Rc::into_inner(self.0).expect("detached with a clone or an operation alive");
        Detached { fd: socket.fd, peer: socket.peer, local: socket.local }
    }
}

fn shut_down() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection was shut down on our side")
}

#[derive(Clone, Copy)]
enum Want {
    /// Whatever comes first, until the buffer holds `upto` bytes.
    Some { upto: usize },
    /// No less than that.
    All { upto: usize },
}

struct Receive {
    socket: Rc<Socket>,
    buffer: Buffer,
    want: Want,
    result: io::Result<()>,
}

impl Operation for Receive {
    const ORPHAN: Orphan = Orphan::Cancel;

    fn entry(&mut self) -> squeue::Entry {
        let held = self.buffer.len();
        let (upto, flags) = match self.want {
            Want::Some { upto } => (upto, 0),
            Want::All { upto } => (upto, libc::MSG_WAITALL),
        };
        let want = at_once((upto - held).min(RECEIVE_BYTES_MAX));
        // SAFETY: `held` is within the buffer.
        let to = unsafe { self.buffer.start().add(held) };
        let fd = types::Fd(self.socket.fd.as_raw_fd());
        opcode::Recv::new(fd, to, want as u32).flags(flags).build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        match result {
            Ok(0) if self.socket.is_shut.get() => self.result = Err(shut_down()),
            Ok(0) => match self.want {
                Want::Some { .. } => {}
                Want::All { .. } => self.result = Err(io::ErrorKind::UnexpectedEof.into()),
            },
            Ok(got) => {
                let held = self.buffer.len() + got as usize;
                self.buffer.set_len(held);
                if let Want::All { upto } = self.want
                    && held < upto
                {
                    return Step::Again;
                }
            }
            Err(error) => self.result = Err(error),
        }
        Step::Done
    }
}

/// Holds the socket, and the right to be its one sender.
struct Sending(Rc<Socket>);

impl Sending {
    fn begin(socket: &Rc<Socket>) -> Self {
        assert!(!socket.is_sending.replace(true), "one sender at a time");
        Self(Rc::clone(socket))
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.is_sending.set(false);
    }
}

struct Send {
    sending: Sending,
    parts: Parts,
    message: libc::msghdr,
    result: io::Result<()>,
}

impl Operation for Send {
    // Half a frame can't be taken back, and the connection is of no use after it.
    const ORPHAN: Orphan = Orphan::Cancel;

    fn entry(&mut self) -> squeue::Entry {
        let (start, count) = self.parts.vectors();
        self.message.msg_iov = start;
        self.message.msg_iovlen = count;
        // WAITALL: the kernel itself goes on after a short send.
        opcode::SendMsg::new(types::Fd(self.sending.0.fd.as_raw_fd()), &raw const self.message)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
            .build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        match result {
            Ok(0) => self.result = Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                self.parts.advance(sent as usize);
                if !self.parts.is_empty() {
                    return Step::Again;
                }
            }
            Err(error) => self.result = Err(error),
        }
        Step::Done
    }
}

pub(crate) struct Detached {
    fd: OwnedFd,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Detached {
    pub(crate) fn attach(self) -> Connection {
        let Self { fd, peer, local } = self;
        let (is_shut, is_sending) = (Cell::new(false), Cell::new(false));
        Connection(Rc::new(Socket { fd, peer, local, is_shut, is_sending }))
    }
}
