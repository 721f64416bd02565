//! Frames off one connection: a length, then exactly that many bytes.
//!
//! Small frames are cut out of one receive, several at a time; a large one gets a buffer that grows
//! as its bytes arrive, so that a length alone costs nothing (faults.md S38).

use bytes::{Buf, Bytes};
use flowstone_runtime::{Buffer, Connection};
use flowstone_wire as wire;
use flowstone_wire::frame::{PREFIX_LEN, body_len, check_api_limit};
use std::io;
use thiserror::Error;

/// What one receive may bring: a few dozen small requests, or the head of a large one.
const RECEIVE_BYTES: usize = 16 * 1024;

/// A buffer for a large frame grows by this factor each time that it is full.
const GROWTH: usize = 4;

/// What must have come of a request before its API's own limit is known.
const API_KEY_BYTES: usize = 2;

/// Why no more frames come from this connection.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The peer closed between frames: the usual end.
    #[error("closed by the peer")]
    Closed,
    /// The peer went in the middle of a frame, or the network did.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// A length that no request of ours has.
    #[error(transparent)]
    Length(#[from] wire::frame::FrameError),
}

/// Cuts frames out of what a connection receives.
pub struct Frames {
    /// Received and not yet used.
    staged: Bytes,
    limit: usize,
}

impl Frames {
    /// Frames of up to `limit` bytes, after the bytes `staged` that were received before.
    pub fn new(staged: Bytes, limit: usize) -> Self {
        Self { staged, limit }
    }

    /// What was received and not yet used: goes with a connection that moves.
    pub fn into_staged(self) -> Bytes {
        self.staged
    }

    /// The next frame's bytes, without its length prefix. Waits for them.
    pub async fn next(&mut self, connection: &Connection) -> Result<Bytes, FrameError> {
        while self.staged.len() < PREFIX_LEN {
            self.receive(connection).await?;
        }
        let prefix = [0, 1, 2, 3].map(|at: usize| self.staged[at]);
        let wanted = body_len(prefix, self.limit)?;
        while self.staged.len() < PREFIX_LEN + API_KEY_BYTES {
            self.receive(connection).await?;
        }
        check_api_limit([self.staged[PREFIX_LEN], self.staged[PREFIX_LEN + 1]], wanted)?;
        self.staged.advance(PREFIX_LEN);
        if self.staged.len() >= wanted {
            return Ok(self.staged.split_to(wanted));
        }
        large(connection, &std::mem::take(&mut self.staged), wanted).await
    }

    async fn receive(&mut self, connection: &Connection) -> Result<(), FrameError> {
        let mut buffer = Buffer::with_capacity(RECEIVE_BYTES);
        buffer.extend_from_slice(&self.staged);
        let (received, buffer) = connection.recv(buffer).await;
        match received? {
            0 if self.staged.is_empty() => Err(FrameError::Closed),
            0 => Err(FrameError::Lost(io::ErrorKind::UnexpectedEof.into())),
            _ => {
                self.staged = buffer.freeze();
                Ok(())
            }
        }
    }
}

/// Receives the rest of a frame of `wanted` bytes that begins with `head`.
async fn large(connection: &Connection, head: &[u8], wanted: usize) -> Result<Bytes, FrameError> {
    let mut room = wanted.min((head.len() * GROWTH).max(RECEIVE_BYTES * GROWTH));
    let mut buffer = Buffer::with_capacity(room);
    buffer.extend_from_slice(head);
    loop {
        let received;
        (received, buffer) = connection.recv_exact(buffer, room).await;
        received?;
        if room == wanted {
            return Ok(buffer.freeze());
        }
        room = wanted.min(room * GROWTH);
        let mut larger = Buffer::with_capacity(room);
        larger.extend_from_slice(&buffer);
        buffer = larger;
    }
}
