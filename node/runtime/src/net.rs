//! Listeners and connections.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::memory::Buffer;
use crate::ring;

/// A bound TCP port.
pub struct Listener(ListenerInner);

enum ListenerInner {
    Ring(ring::Listener),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Listener),
}

/// What the kernel is asked for; a simulation asks nobody. The default leaves all to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// Connections that may wait to be accepted; at most net.core.somaxconn.
    pub backlog: Option<u32>,
    /// Send buffer of each connection, in bytes; it does not grow or shrink any more.
    pub send_buffer_bytes: Option<usize>,
    /// Receive buffer of each connection, likewise.
    pub receive_buffer_bytes: Option<usize>,
}

impl Listener {
    /// Binds and listens (SO_REUSEADDR set; port 0 takes a free one).
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_with(address, SocketOptions::default()).await
    }

    /// The same, with options for the sockets of the connections to come.
    #[allow(clippy::unused_async, reason = "the simulated twin awaits")]
    pub async fn bind_with(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        world!(
            Ok(Self(ListenerInner::Ring(ring::Listener::bind(address, options)?))),
            Ok(Self(ListenerInner::Sim(crate::sim::Listener::bind(address).await?)))
        )
    }

    /// The next connection, TCP_NODELAY set. Cancel-safe: one that arrives after the future was
    /// dropped is closed.
    pub async fn accept(&self) -> io::Result<Connection> {
        match &self.0 {
            ListenerInner::Ring(listener) => Ok(Connection(Inner::Ring(listener.accept().await?))),
            #[cfg(feature = "sim")]
            ListenerInner::Sim(listener) => Ok(Connection(Inner::Sim(listener.accept().await?))),
        }
    }

    /// The bound address, its port resolved.
    pub fn local_addr(&self) -> SocketAddr {
        match &self.0 {
            ListenerInner::Ring(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            ListenerInner::Sim(listener) => listener.local_addr(),
        }
    }
}

/// Connects, TCP_NODELAY set.
pub async fn connect(address: SocketAddr) -> io::Result<Connection> {
    world!(
        Ok(Connection(Inner::Ring(ring::connect(address).await?))),
        Ok(Connection(Inner::Sim(crate::sim::connect(address).await?)))
    )
}

/// An open TCP connection. Clones are the same connection: a reader task and a writer task share it.
#[derive(Clone)]
pub struct Connection(Inner);

#[derive(Clone)]
enum Inner {
    Ring(ring::Connection),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Connection),
}

impl Connection {
    /// Receives once into the buffer's free part, which must not be empty. `Ok(n)`: the buffer grew
    /// by `n` bytes, 0 at the end of the stream.
    pub async fn recv(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let upto = buffer.capacity();
        self.recv_upto(buffer, upto).await
    }

    /// The same, but leaves to the next one what is beyond `upto` bytes in the buffer in all.
    pub async fn recv_upto(&self, buffer: Buffer, upto: usize) -> (io::Result<usize>, Buffer) {
        assert!((buffer.len() + 1..=buffer.capacity()).contains(&upto), "no room to receive into");
        each!(&self.0, connection => connection.recv_upto(buffer, upto).await)
    }

    /// Receives until the buffer holds `want` bytes in all. `UnexpectedEof` if the stream ends before.
    pub async fn recv_exact(&self, buffer: Buffer, want: usize) -> (io::Result<()>, Buffer) {
        assert!(want <= buffer.capacity(), "want {want} bytes in {}", buffer.capacity());
        if buffer.len() >= want {
            return (Ok(()), buffer);
        }
        each!(&self.0, connection => connection.recv_exact(buffer, want).await)
    }

    /// Sends all parts in order. One sender at a time.
    pub async fn send(&self, parts: Vec<Bytes>) -> io::Result<()> {
        each!(&self.0, connection => connection.send(parts).await)
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        each!(&self.0, connection => connection.peer())
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        each!(&self.0, connection => connection.local())
    }

    /// Ends both directions: a pending receive or send, and every later one, ends with an error. The
    /// socket itself closes with the last clone.
    pub fn shutdown(&self) {
        each!(&self.0, connection => connection.shutdown());
    }

    /// Takes the connection off this shard, to be mailed to another. Panics if another clone, or an
    /// operation on it, is still alive.
    pub fn detach(self) -> Detached {
        Detached(match self.0 {
            Inner::Ring(connection) => DetachedInner::Ring(connection.detach()),
            #[cfg(feature = "sim")]
            Inner::Sim(connection) => DetachedInner::Sim(connection.detach()),
        })
    }
}

/// A connection between shards. Dropping it closes the connection.
pub struct Detached(DetachedInner);

enum DetachedInner {
    Ring(ring::Detached),
    #[cfg(feature = "sim")]
    Sim(crate::sim::Detached),
}

impl Detached {
    /// Takes the connection onto this shard.
    pub fn attach(self) -> Connection {
        Connection(match self.0 {
            DetachedInner::Ring(detached) => Inner::Ring(detached.attach()),
            #[cfg(feature = "sim")]
            DetachedInner::Sim(detached) => Inner::Sim(detached.attach()),
        })
    }
}
