//! Tasks and time: who runs next, and when the clock moves.
//!
//! Of all tasks that can run, on whatever machine and shard, the seed picks one; running it takes a
//! little virtual time, so that loops which only yield see time pass. When none can run, the clock
//! jumps to the next event.

use super::net::Packet;
use super::trace::Kind;
use super::world::{Here, State, at, here, is_active, is_alive, with};
use crate::local;
use flowstone_types::Instant;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

/// What one poll costs: from a flag that was looked at to a small batch copied.
const POLL_NANOS: (u64, u64) = (100, 2_000);

/// What happens at a point in time.
pub enum Event {
    /// Somebody waits no longer.
    Wake(Waker),
    /// A packet comes to an endpoint.
    Deliver(Packet),
}

/// A task of some process.
pub struct Task {
    pub home: Here,
    /// Not here while it runs.
    pub future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    task: u64,
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Relaxed) {
            READY.with_borrow_mut(|ready| ready.push(self));
        }
    }
}

thread_local! {
    static READY: RefCell<Vec<Arc<TaskWaker>>> = const { RefCell::new(Vec::new()) };
}

/// Forgets who can run, at the end of a world.
pub fn clear_ready() {
    READY.with_borrow_mut(Vec::clear);
}

/// Starts a task in the running process. (What is spawned while a dead process is dropped is not.)
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    let here = here();
    if is_alive(here.machine, here.incarnation) {
        spawn_at(here, task);
    }
}

/// Starts a task of `home`.
pub fn spawn_at(home: Here, future: impl Future<Output = ()> + 'static) {
    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    let waker = with(|state| {
        let task = state.number();
        let waker = Arc::new(TaskWaker { task, queued: AtomicBool::new(false) });
        let future = Some(future);
        state.tasks.insert(task, Task { home, future, waker: Arc::clone(&waker) });
        waker
    });
    waker.wake();
}

/// What [`step`] found.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// Something happened.
    Moved,
    /// Nothing can ever happen again.
    Stalled,
}

/// Runs one task, or moves the clock to the next event.
pub fn step() -> Step {
    while let Some(event) = with(due) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Deliver(packet) => super::net::deliver(packet),
        }
    }
    let ready = READY.with_borrow_mut(|ready| match ready.len() {
        0 => None,
        1 => ready.pop(),
        count => Some(ready.swap_remove(with(|state| state.rng.index(count)))),
    });
    if let Some(waker) = ready {
        poll(&waker);
        return Step::Moved;
    }
    with(|state| match state.events.first_key_value() {
        Some(((at, _), _)) => {
            state.now = *at;
            assert!(*at <= state.time_limit, "the virtual time limit has passed");
            Step::Moved
        }
        None => Step::Stalled,
    })
}

fn due(state: &mut State) -> Option<Event> {
    let first = state.events.first_entry()?;
    (first.key().0 <= state.now).then(|| first.remove())
}

fn poll(waker: &Arc<TaskWaker>) {
    waker.queued.store(false, Relaxed);
    let task = waker.task;
    let taken = with(|state| {
        let Task { home, future, .. } = state.tasks.get_mut(&task)?;
        let (home, future) = (*home, future.take().expect("a task does not run inside itself"));
        state.event(home.machine, Kind::Poll, [task, home.shard as u64, 0]);
        let nanos = state.rng.between(POLL_NANOS.0, POLL_NANOS.1);
        state.now += nanos;
        state.machines[home.machine].busy[home.shard] += nanos;
        Some((home, future))
    });
    let Some((home, mut future)) = taken else {
        return; // Its process is dead.
    };
    let wakes = Waker::from(Arc::clone(waker));
    at(home, || {
        let done = future.as_mut().poll(&mut Context::from_waker(&wakes)).is_ready();
        let mut left = Some(future);
        with(|state| match state.tasks.get_mut(&task) {
            Some(_) if done => drop(state.tasks.remove(&task)), // Its future is not in there.
            Some(entry) => entry.future = left.take(),
            None => {} // It ended its own process.
        });
        drop(left);
    });
}

/// Ends all tasks of a machine: their futures are dropped, as code of a process that is no more.
pub fn drop_tasks(machine: usize) -> usize {
    let dead = with(|state| {
        let home_is = |task: &Task| task.home.machine == machine;
        let dead = state.tasks.iter().filter(|(_, task)| home_is(task)).map(|(task, _)| *task);
        let dead: Vec<u64> = dead.collect();
        dead.iter().filter_map(|task| state.tasks.remove(task)).collect::<Vec<_>>()
    });
    let count = dead.len();
    for Task { home, future, waker } in dead {
        waker.queued.store(true, Relaxed); // Never to be queued again.
        at(home, || drop(future));
    }
    count
}

/// Runs `operation` to its end, whatever becomes of the returned future.
pub async fn carry<T: 'static>(operation: impl Future<Output = T> + 'static) -> T {
    let (sender, receiver) = local::oneshot();
    spawn(async move {
        let _ = sender.send(operation.await);
    });
    match receiver.await {
        Some(value) => value,
        None => std::future::pending().await, // Only while a dead process is dropped.
    }
}

/// Work beside the shards: it runs in one go, some time from now.
pub async fn offload<T: 'static>(work: impl FnOnce() -> T + 'static) -> T {
    carry(async move {
        let nanos = with(|state| state.rng.between(1_000, 200_000));
        sleep_nanos(nanos).await;
        work()
    })
    .await
}

/// Returns once `Control::terminate` was called for this process.
pub async fn termination() {
    let machine = here().machine;
    std::future::poll_fn(|context| {
        with(|state| {
            let machine = &mut state.machines[machine];
            if machine.terminated {
                return Poll::Ready(());
            }
            machine.waiting_for_termination.push(context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// Returns at `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    Sleep { at: at.0, event: None }
}

/// Returns after so many nanoseconds.
pub fn sleep_nanos(nanos: u64) -> Sleep {
    Sleep { at: with(|state| state.now.saturating_add(nanos)), event: None }
}

/// A timer. Gone when dropped.
pub struct Sleep {
    at: u64,
    event: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker();
        with(|state| {
            if self.at <= state.now {
                return Poll::Ready(());
            }
            match self.event.and_then(|event| state.events.get_mut(&event)) {
                Some(Event::Wake(old)) => old.clone_from(waker),
                Some(Event::Deliver(_)) | None if self.at < Instant::NEVER.0 => {
                    self.event = Some(state.schedule(self.at, Event::Wake(waker.clone())));
                }
                Some(Event::Deliver(_)) | None => {}
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(event) = self.event
            && is_active()
        {
            with(|state| drop(state.events.remove(&event)));
        }
    }
}
