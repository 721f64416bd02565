//! The replies of one connection, in the order of its requests.
//!
//! Separate from reading so that a produce that waits for the disk does not hold up the next one:
//! the reader goes on, this queue keeps the order. Replies that are ready together leave in one
//! send.

use crate::budget::Held;
use bytes::Bytes;
use flowstone_runtime::{Connection, local::Notify, now};
use flowstone_types::Instant;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What becomes of a request.
pub enum Reply {
    /// The slices of its response's frame.
    Parts(Vec<Bytes>),
    /// It asked for no response (acks=0).
    Nothing,
    /// It cannot be answered, and the reason: the connection ends instead.
    HangUp(String),
}

/// A reply that is still being made.
pub type Pending = Pin<Box<dyn Future<Output = Reply>>>;

/// Bytes that one send gathers at most; past it, waiting for more replies gains nothing.
const SEND_BYTES_MAX: usize = 1024 * 1024;

struct Queued {
    pending: Pending,
    /// The request's share of the budgets, until its reply is sent.
    held: [Held; 2],
}

/// Replies on their way out.
#[derive(Default)]
pub struct Replies {
    queue: RefCell<VecDeque<Queued>>,
    /// Replies queued or being sent.
    open: Cell<usize>,
    changed: Notify,
    /// A send is under way since then.
    sending: Cell<Option<Instant>>,
    /// No request follows.
    complete: Cell<bool>,
    /// No reply leaves any more, and why.
    broken: RefCell<Option<String>>,
}

impl Replies {
    /// Queues the reply to the request that was read last.
    pub fn push(&self, pending: Pending, held: [Held; 2]) {
        self.queue.borrow_mut().push_back(Queued { pending, held });
        self.open.set(self.open.get() + 1);
        self.changed.notify_all();
    }

    /// Since when the peer did not take what is being sent to it.
    pub fn sending_since(&self) -> Option<Instant> {
        self.sending.get()
    }

    /// Whether every reply is sent.
    pub fn is_empty(&self) -> bool {
        self.open.get() == 0
    }

    /// Waits until every reply is sent; an error says why they cannot be.
    pub async fn drained(&self) -> Result<(), String> {
        while self.open.get() > 0 && self.broken.borrow().is_none() {
            self.changed.notified().await;
        }
        self.check()
    }

    /// Whether replies still leave; an error says why not.
    pub fn check(&self) -> Result<(), String> {
        self.broken.borrow().clone().map_or(Ok(()), Err)
    }

    /// No request follows: sending ends with the queue.
    pub fn complete(&self) {
        self.complete.set(true);
        self.changed.notify_all();
    }

    /// Sends replies until they are complete. Where one cannot be sent the socket is shut down,
    /// which ends the reading too; what is queued still runs to its end.
    pub async fn send_all(&self, socket: &Connection) {
        loop {
            let Some(first) = self.queue.borrow_mut().pop_front() else {
                if self.complete.get() {
                    return;
                }
                self.changed.notified().await;
                continue;
            };
            let mut batch = Batch::default();
            batch.add(first.pending.await, first.held);
            while batch.takes_more()
                && let Some((reply, held)) = self.pop_ready()
            {
                batch.add(reply, held);
            }
            let sent = batch.held.len();
            self.sending.set(Some(now()));
            if self.broken.borrow().is_none()
                && let Err(why) = batch.send(socket).await
            {
                socket.shutdown();
                *self.broken.borrow_mut() = Some(why);
            }
            self.sending.set(None);
            self.open.set(self.open.get() - sent);
            self.changed.notify_all();
        }
    }

    /// The next reply, if it is ready now.
    fn pop_ready(&self) -> Option<(Reply, [Held; 2])> {
        let mut next = self.queue.borrow_mut().pop_front()?;
        // Whoever awaits it later registers its own waker: this look needs none.
        match next.pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => Some((reply, next.held)),
            Poll::Pending => {
                self.queue.borrow_mut().push_front(next);
                None
            }
        }
    }
}

/// Replies that leave in one send.
#[derive(Default)]
struct Batch {
    parts: Vec<Bytes>,
    bytes: usize,
    held: Vec<[Held; 2]>,
    hang_up: Option<String>,
}

impl Batch {
    fn add(&mut self, reply: Reply, held: [Held; 2]) {
        self.held.push(held);
        match reply {
            Reply::Parts(parts) => {
                self.bytes += parts.iter().map(Bytes::len).sum::<usize>();
                self.parts.extend(parts);
            }
            Reply::Nothing => {}
            Reply::HangUp(why) => self.hang_up = Some(why),
        }
    }

    fn takes_more(&self) -> bool {
        self.bytes < SEND_BYTES_MAX && self.hang_up.is_none()
    }

    async fn send(self, socket: &Connection) -> Result<(), String> {
        if !self.parts.is_empty() {
            socket.send(self.parts).await.map_err(|error| format!("reply not sent: {error}"))?;
        }
        self.hang_up.map_or(Ok(()), Err)
    }
}
