//! Work for another shard: one hop there, one hop back, nothing shared.
//!
//! What belongs to another shard is sent to its owner as a closure that runs there; its result
//! comes back by the same kind of mail. A shard always drains its own mailbox (in a task that
//! awaits nothing else), so waiting for room in a full one cannot dead-lock.

use crate::partition::Partition;
use crate::refusal::Refusal;
use crate::shard::Shard;
use flowstone_runtime::{Mailbox, Mailer, local, sleep, spawn};
use flowstone_types::PartitionId;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// A piece of work that runs on the shard it is sent to.
pub type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// Jobs that may wait for one shard: 64 connections x 16 requests in flight from each of its peers
/// would be more than it can do in a second; past that the senders wait.
pub const MAILBOX_JOBS_MAX: usize = 16_384;

/// How long a sender waits before it looks again at a full mailbox.
const FULL_MAILBOX_PAUSE: Duration = Duration::from_millis(1);

/// The way to every shard of this node, and the answers this one waits for.
pub struct Peers {
    mailers: Vec<Mailer<Job>>,
    /// Which shards' stores had no room when they were last looked at; one list for all shards.
    full: Arc<[AtomicBool]>,
    answers: RefCell<HashMap<u64, local::Sender<Box<dyn Any + Send>>>>,
    next_answer: Cell<u64>,
}

impl Peers {
    /// `mailers[i]` leads to shard `i`, and `full[i]` tells of its store.
    pub fn new(mailers: Vec<Mailer<Job>>, full: Arc<[AtomicBool]>) -> Self {
        Self { mailers, full, answers: RefCell::default(), next_answer: Cell::new(0) }
    }

    /// Jobs that wait for each shard.
    pub fn queue_depths(&self) -> impl Iterator<Item = usize> + '_ {
        self.mailers.iter().map(Mailer::len)
    }

    /// Puts `job` into the mailbox of shard `to`, waiting for room.
    pub async fn send(&self, to: usize, mut job: Job) {
        while let Err(refused) = self.mailers[to].send(job) {
            job = refused;
            sleep(FULL_MAILBOX_PAUSE).await;
        }
    }

    fn answered(&self, key: u64, answer: Box<dyn Any + Send>) {
        let waiting = self.answers.borrow_mut().remove(&key);
        let waiting = waiting.expect("an answer comes once, for a question of ours");
        // Nobody waits any more where the connection is gone: the work was done all the same.
        drop(waiting.send(answer));
    }
}

/// What comes back from another shard.
pub struct Answer<T> {
    coming: local::Receiver<Box<dyn Any + Send>>,
    kind: PhantomData<T>,
}

impl<T: 'static> Answer<T> {
    /// Waits for it.
    pub async fn get(self) -> T {
        let answer = self.coming.await.expect("a shard answers every job");
        *answer.downcast().expect("the answer is of the type that was asked for")
    }
}

impl Shard {
    /// Sends `job` to shard `to` without waiting for it to be in its mailbox.
    pub fn dispatch(self: &Rc<Self>, to: usize, job: Job) {
        if let Err(job) = self.peers.mailers[to].send(job) {
            let shard = Rc::clone(self);
            spawn(async move { shard.peers.send(to, job).await });
        }
    }

    /// Says to the others whether there is room in this shard's store: after each append.
    pub fn tell_room(&self) {
        let full = &self.peers.full[self.index];
        // Written where it changes only: all shards read it.
        if full.load(Relaxed) == self.store.has_room() {
            full.store(!self.store.has_room(), Relaxed);
        }
    }

    /// Returns once shard `owner` has room for another request's batches. Costs a hop only where it
    /// had none. What waits here holds nothing of that shard, whose disk makes room by itself.
    pub async fn room_at(self: &Rc<Self>, owner: usize) {
        if owner == self.index {
            return self.store.room().await;
        }
        while self.peers.full[owner].load(Relaxed) {
            let wait = |owner: &Rc<Self>| {
                let owner = Rc::clone(owner);
                async move {
                    owner.store.room().await;
                    owner.tell_room();
                }
            };
            self.post(owner, wait).await.get().await;
        }
    }

    /// Sends `work` to shard `to` and returns once it is in its mailbox: two posts to one shard
    /// arrive in order, and the part of `work` before its future runs in that order too.
    pub async fn post<T, F, W>(&self, to: usize, work: W) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        W: FnOnce(&Rc<Shard>) -> F + Send + 'static,
    {
        let home = self.index;
        let key = self.peers.next_answer.get();
        self.peers.next_answer.set(key + 1);
        let (sender, coming) = local::oneshot();
        self.peers.answers.borrow_mut().insert(key, sender);
        let job: Job = Box::new(move |shard| {
            let working = work(shard);
            let shard = Rc::clone(shard);
            spawn(async move {
                let answer: Box<dyn Any + Send> = Box::new(working.await);
                shard.dispatch(home, Box::new(move |home| home.peers.answered(key, answer)));
            });
        });
        self.peers.send(to, job).await;
        Answer { coming, kind: PhantomData }
    }

    /// Runs `work` on shard `to`, here if that is this one, and waits for its result.
    pub async fn call<T, F, W>(self: &Rc<Self>, to: usize, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        W: FnOnce(&Rc<Shard>) -> F + Send + 'static,
    {
        if to == self.index {
            return work(self).await;
        }
        self.post(to, work).await.get().await
    }
}

impl Shard {
    /// Runs `work` for each item where its partition lives, with one hop to each owner; results in
    /// the order of the items. A partition that is not there is a refusal.
    pub async fn scatter<T, R, F, W>(
        self: &Rc<Self>,
        items: Vec<(Result<PartitionId, Refusal>, T)>,
        work: W,
    ) -> Vec<Result<R, Refusal>>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = Result<R, Refusal>> + 'static,
        W: Fn(Rc<Partition>, T) -> F + Copy + Send + 'static,
    {
        let mut results: Vec<Option<Result<R, Refusal>>> = Vec::with_capacity(items.len());
        let mut by_owner: BTreeMap<usize, Vec<(usize, PartitionId, T)>> = BTreeMap::new();
        for (place, (id, item)) in items.into_iter().enumerate() {
            results.push(match id {
                Ok(id) => {
                    by_owner.entry(self.owner_of(id)).or_default().push((place, id, item));
                    None
                }
                Err(refusal) => Some(Err(refusal)),
            });
        }
        for (owner, items) in by_owner {
            let all = move |shard: &Rc<Shard>| {
                let shard = Rc::clone(shard);
                async move {
                    let mut done = Vec::with_capacity(items.len());
                    for (place, id, item) in items {
                        let result = match shard.partition(id) {
                            Ok(partition) => work(partition, item).await,
                            Err(refusal) => Err(refusal),
                        };
                        done.push((place, result));
                    }
                    done
                }
            };
            for (place, result) in self.call(owner, all).await {
                results[place] = Some(result);
            }
        }
        results.into_iter().map(|result| result.expect("every place was filled")).collect()
    }

    /// Runs `work` on every shard, this one included, all at once; results in the shards' order.
    pub async fn on_all<T, F, W>(self: &Rc<Self>, work: W) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        W: Fn(Rc<Shard>) -> F + Clone + Send + 'static,
    {
        let mut answers = Vec::with_capacity(self.node.shards);
        for to in 0..self.node.shards {
            let work = work.clone();
            answers.push(self.post(to, move |shard: &Rc<Shard>| work(Rc::clone(shard))).await);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.get().await);
        }
        results
    }
}

/// Runs the jobs of this shard's mailbox for ever.
pub async fn serve(shard: Rc<Shard>, mut mailbox: Mailbox<Job>) {
    loop {
        let job = mailbox.recv().await;
        job(&shard);
    }
}
