//! Waiting for one another within a shard: a notice, a single value, a bounded queue, permits.
//!
//! Separate because they know no executor, so both worlds use the same code. One thread only; all
//! futures here are cancel-safe: dropping one loses neither a value nor a permit.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Those who wait. A waiter is woken at most once a time it registers, in the order of registering.
#[derive(Default)]
struct Waiters {
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next: Cell<u64>,
}

impl Waiters {
    /// Registers `waker` under `ticket` (a new ticket where there is none), or renews it.
    fn register(&self, ticket: &mut Option<u64>, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        let place = ticket.and_then(|ticket| waiting.binary_search_by_key(&ticket, |w| w.0).ok());
        if let Some(place) = place {
            waiting[place].1.clone_from(waker);
        } else {
            // A waiter that was woken and finds nothing goes to the end: another was faster.
            let number = self.next.replace(self.next.get() + 1);
            *ticket = Some(number);
            waiting.push_back((number, waker.clone()));
        }
    }

    /// Takes a waiter off the list; whether it was still on it.
    fn leave(&self, ticket: u64) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.binary_search_by_key(&ticket, |w| w.0);
        place.map(|place| waiting.remove(place)).is_ok()
    }

    fn wake_one(&self) {
        let first = self.waiting.borrow_mut().pop_front();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    fn wake_all(&self) {
        let all = std::mem::take(&mut *self.waiting.borrow_mut());
        for (_, waker) in all {
            waker.wake();
        }
    }
}

/// A place in a list of waiters, left when dropped. If it was woken and then dropped unused, it
/// passes the wake-up on, so that none is lost.
struct Place<'a> {
    waiters: &'a Waiters,
    ticket: Option<u64>,
}

impl<'a> Place<'a> {
    fn new(waiters: &'a Waiters) -> Self {
        Self { waiters, ticket: None }
    }

    fn register(&mut self, waker: &Waker) {
        self.waiters.register(&mut self.ticket, waker);
    }

    /// The waiter got what it waited for.
    fn served(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.waiters.leave(ticket);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take()
            && !self.waiters.leave(ticket)
        {
            self.waiters.wake_one();
        }
    }
}

/// Tells all who wait that something changed. Says nothing to those who come later: look first,
/// then wait, with no `.await` between.
#[derive(Default)]
pub struct Notify {
    waiters: Waiters,
    round: Cell<u64>,
}

impl Notify {
    /// A notice without waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes all who wait now.
    pub fn notify_all(&self) {
        self.round.set(self.round.get() + 1);
        self.waiters.wake_all();
    }

    /// Returns after the next [`Notify::notify_all`], counted from this call (not from the first poll).
    pub fn notified(&self) -> impl Future<Output = ()> {
        let round = self.round.get();
        let mut ticket = Leave { waiters: &self.waiters, ticket: None };
        poll_fn(move |context| {
            if self.round.get() != round {
                return Poll::Ready(());
            }
            // As a whole: a closure takes copies of the fields it names, and would leave the rest to
            // be dropped here and now.
            let place = &mut ticket;
            place.waiters.register(&mut place.ticket, context.waker());
            Poll::Pending
        })
    }
}

/// A place in a list whose wake-ups are for all: nothing to pass on.
struct Leave<'a> {
    waiters: &'a Waiters,
    ticket: Option<u64>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.waiters.leave(ticket);
        }
    }
}

/// A channel for one value.
pub fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Oneshot { state: RefCell::new(State::Empty(None)) });
    (Sender(Some(Rc::clone(&shared))), Receiver(shared))
}

struct Oneshot<T> {
    state: RefCell<State<T>>,
}

enum State<T> {
    Empty(Option<Waker>),
    Full(T),
    Closed,
}

/// Sends one value, or drops and so closes the channel.
pub struct Sender<T>(Option<Rc<Oneshot<T>>>);

/// Receives it: `None` if the sender was dropped.
pub struct Receiver<T>(Rc<Oneshot<T>>);

impl<T> Sender<T> {
    /// Sends; hands the value back where the receiver is gone.
    pub fn send(mut self, value: T) -> Result<(), T> {
        let shared = self.0.take().expect("only `send` takes it, and it takes the sender too");
        if Rc::strong_count(&shared) == 1 {
            return Err(value);
        }
        shared.settle(State::Full(value));
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| Rc::strong_count(shared) == 1)
    }
}

impl<T> Oneshot<T> {
    fn settle(&self, state: State<T>) {
        if let State::Empty(Some(waker)) = self.state.replace(state) {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.settle(State::Closed);
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.state.borrow_mut();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Full(value) => Poll::Ready(Some(value)),
            State::Closed => Poll::Ready(None),
            State::Empty(_) => {
                *state = State::Empty(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// A bounded queue; clones are the same queue.
pub struct Queue<T>(Rc<QueueInner<T>>);

struct QueueInner<T> {
    items: RefCell<VecDeque<T>>,
    limit: usize,
    closed: Cell<bool>,
    waiters: Waiters,
}

impl<T> Queue<T> {
    /// A queue of at most `limit` items.
    pub fn new(limit: usize) -> Self {
        assert!(limit > 0, "a queue that holds nothing");
        Self(Rc::new(QueueInner {
            items: RefCell::default(),
            limit,
            closed: Cell::new(false),
            waiters: Waiters::default(),
        }))
    }

    /// Appends, or hands the item back where the queue is full or closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut items = self.0.items.borrow_mut();
        if self.0.closed.get() || items.len() >= self.0.limit {
            return Err(item);
        }
        items.push_back(item);
        drop(items);
        self.0.waiters.wake_one();
        Ok(())
    }

    /// The oldest item, waiting for one; `None` once the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        let mut place = Place::new(&self.0.waiters);
        let item = poll_fn(|context| {
            if let Some(item) = self.try_pop() {
                return Poll::Ready(Some(item));
            }
            if self.0.closed.get() {
                return Poll::Ready(None);
            }
            place.register(context.waker());
            Poll::Pending
        })
        .await;
        place.served();
        item
    }

    /// The oldest item, if any.
    pub fn try_pop(&self) -> Option<T> {
        self.0.items.borrow_mut().pop_front()
    }

    /// Refuses further items; those inside can still be popped.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.waiters.wake_all();
    }

    /// Whether it refuses further items for good.
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.0.items.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

/// A number of permits; clones share them.
#[derive(Clone)]
pub struct Semaphore(Rc<SemaphoreInner>);

struct SemaphoreInner {
    free: Cell<usize>,
    waiters: Waiters,
}

impl Semaphore {
    /// A semaphore with `permits` to give.
    pub fn new(permits: usize) -> Self {
        Self(Rc::new(SemaphoreInner { free: Cell::new(permits), waiters: Waiters::default() }))
    }

    /// Takes a permit, waiting for one; it goes back when dropped.
    pub async fn acquire(&self) -> Permit {
        let mut place = Place::new(&self.0.waiters);
        let permit = poll_fn(|context| {
            if let Some(permit) = self.try_acquire() {
                return Poll::Ready(permit);
            }
            place.register(context.waker());
            Poll::Pending
        })
        .await;
        place.served();
        permit
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(&self) -> Option<Permit> {
        let left = self.0.free.get().checked_sub(1)?;
        self.0.free.set(left);
        Some(Permit(Rc::clone(&self.0)))
    }
}

/// The right to go on, given back when dropped.
pub struct Permit(Rc<SemaphoreInner>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.waiters.wake_one();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::task::Wake;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_notice_reaches_those_who_wait_and_no_one_else() {
        let notify = Notify::new();
        notify.notify_all(); // Before anyone waits: lost, as documented.
        let mut early = pin!(notify.notified());
        assert_eq!(poll(early.as_mut()), Poll::Pending);
        let mut unpolled = pin!(notify.notified());
        notify.notify_all();
        assert_eq!(poll(early), Poll::Ready(()));
        assert_eq!(poll(unpolled.as_mut()), Poll::Ready(()), "counted from the call");
        assert_eq!(poll(pin!(notify.notified())), Poll::Pending);
        assert!(notify.waiters.waiting.borrow().is_empty(), "dropped waiters leave the list");
    }

    #[test]
    fn a_queue_is_bounded_ordered_and_ends() {
        let queue = Queue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(3)));
        queue.close();
        assert_eq!(queue.push(4), Err(4));
        for want in [Some(1), Some(2), None] {
            assert_eq!(poll(pin!(queue.pop())), Poll::Ready(want));
        }
    }

    #[test]
    fn a_wake_up_that_is_dropped_unused_goes_to_the_next() {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Relaxed);
            }
        }
        let queue = Queue::new(1);
        let mut first = Box::pin(queue.pop());
        let mut second = pin!(queue.pop());
        assert_eq!(poll(first.as_mut()), Poll::Pending);
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        assert_eq!(second.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        queue.push(7).unwrap(); // Wakes the first, which ends without looking.
        assert!(!flag.0.load(Relaxed));
        drop(first);
        assert!(flag.0.load(Relaxed));
        assert_eq!(poll(second), Poll::Ready(Some(7)));
    }

    #[test]
    fn permits_come_back() {
        let semaphore = Semaphore::new(1);
        let permit = semaphore.try_acquire().unwrap();
        assert!(semaphore.try_acquire().is_none());
        let mut waiting = pin!(semaphore.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        drop(permit);
        assert!(poll(waiting).is_ready());
        assert_eq!(semaphore.0.free.get(), 1);
    }

    #[test]
    fn one_value_or_the_news_that_none_will_come() {
        let (sender, receiver) = oneshot();
        let mut receiver = pin!(receiver);
        assert_eq!(poll(receiver.as_mut()), Poll::Pending);
        assert_eq!(sender.send(5), Ok(()));
        assert_eq!(poll(receiver), Poll::Ready(Some(5)));
        let (sender, receiver) = oneshot::<u8>();
        drop(sender);
        assert_eq!(poll(pin!(receiver)), Poll::Ready(None));
        let (sender, receiver) = oneshot();
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(5), Err(5));
    }
}
