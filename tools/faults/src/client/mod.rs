//! A blocking client of the broker's wire protocol, for what scenarios ask and for what they do wrong.
//!
//! Separate from the tool's client, which behaves well and hides connections: here every byte can be
//! chosen. Invariant: nothing waits longer than its time limit.

mod raw;
mod requests;
mod topics;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flowstone_wire::client::{Request, ResponseError, correlation_id, decode, encode};

pub use raw::{Answer, Raw, header};
pub use requests::{
    PRODUCE_VERSION, Produced, Wanted, commit, committed, create_topic, fetch, find_coordinator,
    init_producer, now, plain_batch, produce, produce_request, produced,
};
pub use topics::{delete_topic, offsets, topic_names};

/// How long a broker that is well may take for an answer, on a slow machine.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The same for what is much work.
pub const MUCH_WITHIN: Duration = Duration::from_mins(1);

/// Why there is no answer. Whether the request was carried out is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed, or the time was over.
    #[error("no answer: {0}")]
    Io(#[from] std::io::Error),
    /// The answer makes no sense.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The answer is to another request.
    #[error("an answer to request {0:?}, which was not asked")]
    Foreign(Option<i32>),
}

/// A connection that sends requests and decodes their answers.
pub struct Client {
    raw: Raw,
    time_limit: Duration,
    correlation_id: i32,
}

impl Client {
    /// Connects; `time_limit` is for this and for each answer.
    pub fn connect(address: SocketAddr, time_limit: Duration) -> std::io::Result<Self> {
        let raw = Raw::connect(address, time_limit)?;
        Ok(Self { raw, time_limit, correlation_id: 0 })
    }

    /// Over a connection that was made elsewhere.
    pub fn over(stream: TcpStream, time_limit: Duration) -> Self {
        Self { raw: Raw::from(stream), time_limit, correlation_id: 0 }
    }

    /// Sends a request without waiting for its answer; returns its number.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> std::io::Result<i32> {
        self.correlation_id += 1;
        let frame = encode(request, version, self.correlation_id, Some("faults"));
        self.raw.send(&frame.expect("a request that its version can say"), self.time_limit)?;
        Ok(self.correlation_id)
    }

    /// The answer to the request of this number, which is the oldest unanswered one.
    pub fn receive<R: Request>(
        &mut self,
        version: i16,
        number: i32,
    ) -> Result<R::Response, ClientError> {
        let frame = self.raw.frame(Instant::now() + self.time_limit)?;
        match correlation_id(&frame) {
            Some(found) if found == number => Ok(decode::<R>(version, frame)?),
            other => Err(ClientError::Foreign(other)),
        }
    }

    /// Sends a request and waits for its answer. After an error the connection is of no more use.
    pub fn ask<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let number = self.send(version, request)?;
        self.receive::<R>(version, number)
    }
}
