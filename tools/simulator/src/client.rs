//! A client of the broker's wire protocol: one connection, one request at a time.
//!
//! Every request has a time limit. I/O is never given up half-way: when the time is over the
//! connection is shut down, which ends whatever is pending on it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flowstone_runtime::{Buffer, Connection, connect, deadline, local, now, spawn};
use flowstone_wire::client::{Request, ResponseError, decode, encode};

/// Largest response that a simulated broker has reason to send: a fetch of 1 MiB, and more.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// Why there is no answer. Whether the request was carried out is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed, or the time was over.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The answer makes no sense.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The answer is to another request, or of a length that cannot be.
    #[error("not an answer to our request: {0}")]
    Foreign(String),
}

/// A connection to a broker.
pub struct Client {
    connection: Connection,
    time_limit: Duration,
    correlation_id: i32,
}

impl Client {
    /// Connects; `time_limit` is for each request.
    pub async fn connect(address: SocketAddr, time_limit: Duration) -> io::Result<Self> {
        Ok(Self { connection: connect(address).await?, time_limit, correlation_id: 0 })
    }

    /// Sends `request` and waits for its answer. After an error the connection is of no more use.
    pub async fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.correlation_id += 1;
        let frame = encode(request, version, self.correlation_id, Some("simulator"));
        let frame = frame.expect("a request that its version can say");
        let (_done, pending) = local::oneshot::<()>();
        let (connection, end) = (self.connection.clone(), now().after(self.time_limit));
        spawn(async move {
            if deadline(end, pending).await.is_none() {
                connection.shutdown();
            }
        });
        self.connection.send(vec![frame]).await?;
        let answer = self.frame().await?;
        let number = flowstone_wire::client::correlation_id(&answer);
        if number != Some(self.correlation_id) {
            return Err(ClientError::Foreign(format!("correlation id {number:?}")));
        }
        Ok(decode::<R>(version, answer)?)
    }

    async fn frame(&self) -> Result<Bytes, ClientError> {
        let (result, prefix) = self.connection.recv_exact(Buffer::with_capacity(4), 4).await;
        result?;
        let len = i32::from_be_bytes(*prefix.first_chunk().expect("four bytes were asked for"));
        let len = usize::try_from(len).ok().filter(|len| *len <= RESPONSE_BYTES_MAX);
        let len = len.ok_or_else(|| ClientError::Foreign("its length cannot be".to_owned()))?;
        let (result, body) = self.connection.recv_exact(Buffer::with_capacity(len), len).await;
        result?;
        Ok(body.freeze())
    }
}
