//! Bounded mail between threads: a locked queue, emptied in one go by its shard.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use slab::Slab;

use super::bell::Bell;
use super::shard::{Shard, is_current, shard};

struct Shared<T> {
    queue: Mutex<VecDeque<T>>,
    len: AtomicUsize, // What waits in `queue` and in the receiver's batch, together.
    limit: usize,
    receiver: OnceLock<Arc<Bell>>, // Of the shard that first received.
    is_gone: AtomicBool,           // The mailbox was dropped; changes under the lock.
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn mailbox<T: Send + 'static>(limit: usize) -> (Mailer<T>, Mailbox<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        len: AtomicUsize::new(0),
        limit,
        receiver: OnceLock::new(),
        is_gone: AtomicBool::new(false),
    });
    (Mailer(Arc::clone(&shared)), Mailbox { shared, batch: VecDeque::new(), home: None })
}

pub(crate) struct Mailer<T>(Arc<Shared<T>>);

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Mailer<T> {
    pub(crate) fn send(&self, mail: T) -> Result<(), T> {
        let mut queue = self.0.queue();
        if self.0.is_gone.load(Relaxed) {
            drop(queue); // Before the mail: dropping that may send.
            return Ok(());
        }
        // Only senders add, and they hold the lock: the limit is never passed.
        if self.0.len.load(Relaxed) >= self.0.limit {
            return Err(mail);
        }
        self.0.len.fetch_add(1, Relaxed);
        queue.push_back(mail);
        let was_empty = queue.len() == 1;
        drop(queue);
        // Behind other mail the bell has been rung already, and the receiver takes all there is.
        if was_empty && let Some(bell) = self.0.receiver.get() {
            bell.ring();
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len.load(Relaxed)
    }
}

pub(crate) struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    batch: VecDeque<T>,
    home: Option<Home>,
}

/// A mailbox's place on its shard.
struct Home {
    shard: &'static Shard,
    index: usize,
}

// SAFETY: until the first receive there is no `home`, and the rest is `Send` as `T` is. After it, the
// facade's rule holds ("belongs to the shard that first receives"), and `home` checks it on each use.
unsafe impl<T: Send> Send for Mailbox<T> {}

impl<T: Send + 'static> Mailbox<T> {
    pub(crate) async fn recv(&mut self) -> T {
        poll_fn(|context| {
            if let Some(mail) = self.try_recv() {
                return Poll::Ready(mail);
            }
            let (letterboxes, index) = self.home();
            letterboxes.wait(index, context.waker());
            // Once more: what came since the look above rang no bell that would reach this waker.
            self.try_recv().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    pub(crate) fn try_recv(&mut self) -> Option<T> {
        if self.batch.is_empty() {
            self.home();
            std::mem::swap(&mut self.batch, &mut *self.shared.queue());
        }
        let mail = self.batch.pop_front()?;
        self.shared.len.fetch_sub(1, Relaxed);
        Some(mail)
    }

    fn home(&mut self) -> (&'static Letterboxes, usize) {
        let here = shard();
        let home = self.home.get_or_insert_with(|| {
            let first = self.shared.receiver.set(Arc::clone(&here.bell));
            assert!(first.is_ok(), "a mailbox has one receiver");
            let mail = Arc::clone(&self.shared) as Arc<dyn HasMail>;
            Home { shard: here, index: here.letterboxes.add(mail) }
        });
        assert!(std::ptr::eq(home.shard, here), "a mailbox stays on the shard that first received");
        (&home.shard.letterboxes, home.index)
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        self.shared.is_gone.store(true, Relaxed);
        let unread = std::mem::take(&mut *queue);
        drop(queue);
        drop(unread);
        self.shared.len.store(0, Relaxed);
        // On a foreign thread the place is left as it is: a few bytes, and no one waits there.
        if let Some(home) = &self.home
            && is_current(home.shard)
        {
            home.shard.letterboxes.remove(home.index);
        }
    }
}

/// The mailboxes of a shard, and who waits at each.
#[derive(Default)]
pub(super) struct Letterboxes(RefCell<Slab<Letterbox>>);

struct Letterbox {
    mail: Arc<dyn HasMail>,
    waiter: Option<Waker>,
}

trait HasMail {
    fn has_mail(&self) -> bool;
}

impl<T> HasMail for Shared<T> {
    fn has_mail(&self) -> bool {
        self.len.load(Relaxed) > 0
    }
}

impl Letterboxes {
    fn add(&self, mail: Arc<dyn HasMail>) -> usize {
        self.0.borrow_mut().insert(Letterbox { mail, waiter: None })
    }

    fn wait(&self, index: usize, waker: &Waker) {
        match &mut self.0.borrow_mut()[index].waiter {
            Some(held) => held.clone_from(waker),
            held @ None => *held = Some(waker.clone()),
        }
    }

    fn remove(&self, index: usize) {
        let letterbox = self.0.borrow_mut().remove(index);
        drop(letterbox); // After the borrow: dropping a waker may end its task.
    }

    /// The bell rang: wakes those whose box has mail. There are a handful of boxes on a shard, so
    /// looking into each is cheaper than having foreign threads keep a list.
    pub(super) fn wake_receivers(&self) {
        for (_, letterbox) in self.0.borrow_mut().iter_mut() {
            if letterbox.mail.has_mail()
                && let Some(waiter) = letterbox.waiter.take()
            {
                waiter.wake(); // Only schedules its task: nothing runs, nothing borrows.
            }
        }
    }

    /// Forgets all waiters, without dropping a waker.
    pub(super) fn forget(&self) {
        std::mem::forget(self.0.take());
    }
}
