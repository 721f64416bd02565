//! Mail between simulated shards: a bounded queue that wakes its receiver.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// As `crate::mailbox`.
pub fn mailbox<T: Send + 'static>(limit: usize) -> (Mailer<T>, Mailbox<T>) {
    let post = Post { mail: VecDeque::new(), limit, receiver: None, gone: false };
    let post = Arc::new(Mutex::new(post));
    (Mailer(Arc::clone(&post)), Mailbox(post))
}

struct Post<T> {
    mail: VecDeque<T>,
    limit: usize,
    receiver: Option<Waker>,
    gone: bool,
}

/// The sending end.
pub struct Mailer<T>(Arc<Mutex<Post<T>>>);

/// The receiving end.
pub struct Mailbox<T>(Arc<Mutex<Post<T>>>);

// There is one thread, so the lock is always free; it makes the ends `Send`, as the type asks.
fn open<T>(post: &Mutex<Post<T>>) -> MutexGuard<'_, Post<T>> {
    post.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Mailer<T> {
    /// As `crate::Mailer::send`.
    pub fn send(&self, mail: T) -> Result<(), T> {
        let mut post = open(&self.0);
        if post.gone {
            drop(post);
            drop(mail);
            return Ok(());
        }
        if post.mail.len() == post.limit {
            return Err(mail);
        }
        post.mail.push_back(mail);
        let receiver = post.receiver.take();
        drop(post);
        if let Some(receiver) = receiver {
            receiver.wake();
        }
        Ok(())
    }

    /// As `crate::Mailer::len`.
    pub fn len(&self) -> usize {
        open(&self.0).mail.len()
    }

    /// As `crate::Mailer::is_empty`.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Mailer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Mailbox<T> {
    /// As `crate::Mailbox::recv`.
    pub async fn recv(&mut self) -> T {
        poll_fn(|context| {
            let mut post = open(&self.0);
            if let Some(mail) = post.mail.pop_front() {
                return Poll::Ready(mail);
            }
            post.receiver = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// As `crate::Mailbox::try_recv`.
    pub fn try_recv(&mut self) -> Option<T> {
        open(&self.0).mail.pop_front()
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        let mut post = open(&self.0);
        post.gone = true;
        let mail = std::mem::take(&mut post.mail);
        drop(post); // Mail may hold a mailer of this very box.
        drop(mail);
    }
}
