//! Frames off one connection: a length, then exactly that many bytes.
//!
//! Small frames are cut out of one receive, several at a time; a large one gets a buffer that grows
//! as its bytes arrive, so that a length alone costs nothing, and out of a budget, so that many at
//! once cost no more than that (faults.md S38).

use crate::budget::{Budget, Growing};
use bytes::{Buf, Bytes};
use flowstone_runtime::{Buffer, Connection, now};
use flowstone_types::Instant;
use flowstone_wire as wire;
use flowstone_wire::frame::{PREFIX_LEN, body_len, check_api_limit};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use thiserror::Error;

/// What one receive may bring where the last one brought little: a page, so that a connection that
/// waits holds no more.
const RECEIVE_BYTES_MIN: usize = 4 * 1024;
/// What it may bring where those before it were full: some requests with a batch of a busy client's
/// size (16 to 64 KiB), each cut out without a copy.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// A buffer that was filled is followed by one larger by this factor.
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
    /// What the next receive may bring.
    room: usize,
    /// Bytes of the last frame, its prefix included; 0 before the first.
    last: usize,
    /// Bytes of large frames that are still arriving.
    budget: Rc<Budget>,
    overdrawn: Overdrawn,
}

/// Since when a connection's frame has been arriving beyond the budget, at the cost of all others
/// that wait for it.
pub type Overdrawn = Rc<Cell<Option<Instant>>>;

/// A frame's bytes, without its length prefix.
pub struct Frame {
    /// The bytes.
    pub bytes: Bytes,
    /// Their share of the budget of what is arriving; drop it once they count elsewhere.
    pub arrived: Option<Growing>,
}

impl Frames {
    /// Frames of up to `limit` bytes, after the bytes `staged` that were received before; large ones
    /// out of `budget`, and with a note where one goes beyond it.
    pub fn new(staged: Bytes, limit: usize, budget: Rc<Budget>, overdrawn: Overdrawn) -> Self {
        Self { staged, limit, room: RECEIVE_BYTES_MIN, last: 0, budget, overdrawn }
    }

    /// What was received and not yet used: goes with a connection that moves.
    pub fn into_staged(self) -> Bytes {
        self.staged
    }

    /// The next frame. Waits for it.
    pub async fn next(&mut self, connection: &Connection) -> Result<Frame, FrameError> {
        while self.staged.len() < PREFIX_LEN {
            self.receive(connection, self.last).await?;
        }
        let prefix = [0, 1, 2, 3].map(|at: usize| self.staged[at]);
        let wanted = body_len(prefix, self.limit)?;
        while self.staged.len() < PREFIX_LEN + API_KEY_BYTES {
            self.receive(connection, PREFIX_LEN + wanted).await?;
        }
        check_api_limit([self.staged[PREFIX_LEN], self.staged[PREFIX_LEN + 1]], wanted)?;
        self.staged.advance(PREFIX_LEN);
        let before = std::mem::replace(&mut self.last, PREFIX_LEN + wanted);
        while self.staged.len() < wanted {
            // What fits into a receive is waited for there, with whatever follows it.
            if wanted > self.room {
                return self.large(connection, wanted, before).await;
            }
            self.receive(connection, wanted).await?;
        }
        Ok(Frame { bytes: self.staged.split_to(wanted), arrived: None })
    }

    /// Receives once. The frame that is staged in part ends after `this` bytes, as far as is known: where those
    /// behind it are like the last, what is received ends with one, and no part of another has to be copied.
    async fn receive(&mut self, connection: &Connection, this: usize) -> Result<(), FrameError> {
        let mut buffer = Buffer::with_capacity(self.room);
        let had = self.staged.len();
        buffer.extend_from_slice(&std::mem::take(&mut self.staged));
        let upto = match self.room.checked_sub(this) {
            Some(more) if this > had => self.room - more % self.last.max(1),
            _ => self.room,
        };
        let (received, buffer) = connection.recv_upto(buffer, upto).await;
        if buffer.len() == upto {
            self.room = (self.room * GROWTH).min(RECEIVE_BYTES_MAX);
        } else {
            let like_this = buffer.len().next_power_of_two();
            self.room = self.room.min(like_this.max(RECEIVE_BYTES_MIN));
        }
        match received? {
            0 if had == 0 => Err(FrameError::Closed),
            0 => Err(FrameError::Lost(io::ErrorKind::UnexpectedEof.into())),
            _ => {
                self.staged = buffer.freeze();
                Ok(())
            }
        }
    }

    /// Receives the rest of a frame of `wanted` bytes whose beginning is staged. Who sent `before` bytes as a
    /// frame is given room for another at once.
    async fn large(
        &mut self,
        connection: &Connection,
        wanted: usize,
        before: usize,
    ) -> Result<Frame, FrameError> {
        // The next is like this one: its beginning is enough, all else is received where it stays.
        self.room = RECEIVE_BYTES_MIN;
        let mut arriving = Growing::new(&self.budget);
        let came = before.max(self.staged.len());
        let mut room = wanted.min((came * GROWTH).max(RECEIVE_BYTES_MIN));
        let mut buffer = self.room_for(&mut arriving, room).await;
        buffer.extend_from_slice(&std::mem::take(&mut self.staged));
        loop {
            let received;
            (received, buffer) = connection.recv_exact(buffer, room).await;
            received?;
            if room == wanted {
                self.overdrawn.set(None);
                return Ok(Frame { bytes: buffer.freeze(), arrived: Some(arriving) });
            }
            room = wanted.min(room * GROWTH);
            let mut larger = self.room_for(&mut arriving, room).await;
            larger.extend_from_slice(&buffer);
            buffer = larger;
        }
    }

    async fn room_for(&self, arriving: &mut Growing, bytes: usize) -> Buffer {
        arriving.grow(bytes as u64).await;
        if arriving.is_overdrawn() && self.overdrawn.get().is_none() {
            self.overdrawn.set(Some(now()));
        }
        Buffer::with_capacity(bytes)
    }
}
