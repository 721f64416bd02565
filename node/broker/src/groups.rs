//! Group coordinators: the shell of node/coordinators.
//!
//! Each partition of `__consumer_offsets` has one, on the shard that owns the partition. It feeds
//! requests, the time and the fate of its records to the pure core, and does what the core says:
//! append these records, answer that request. Nothing is decided here.

use crate::group_log::{self, NotAppended};
use crate::life::Stage;
use crate::partition::{Partition, Uncommitted};
use crate::settings::{CONSUMER_OFFSETS, TopicSettings, group_config};
use crate::shard::Shard;
use flowstone_config::Settings;
use flowstone_coordinators::{
    Answer, Config, Effect, Error, Groups, Input, Now, Record, Request, RequestId, WriteId,
    partition_for,
};
use flowstone_runtime::local::{self, Notify, Semaphore};
use flowstone_runtime::{deadline, now, spawn, wall_clock, yield_now};
use flowstone_types::{Instant, PartitionId, Uuid};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// Partitions that one shard loads at a time; each takes a few MiB meanwhile.
const LOADS_AT_ONCE: usize = 4;

/// The coordinators of one shard.
pub struct Coordinators {
    by_partition: RefCell<BTreeMap<PartitionId, Rc<Coordinator>>>,
    alarm: Rc<Alarm>,
    loads: Semaphore,
}

impl Default for Coordinators {
    fn default() -> Self {
        Self {
            by_partition: RefCell::default(),
            alarm: Rc::default(),
            loads: Semaphore::new(LOADS_AT_ONCE),
        }
    }
}

/// When [`keep_time`] looks again, and how to have it look earlier.
#[derive(Default)]
struct Alarm {
    set_for: Cell<Instant>,
    earlier: Notify,
}

impl Alarm {
    fn ring_by(&self, at: Instant) {
        if at < self.set_for.get() {
            self.earlier.notify_all();
        }
    }
}

impl Coordinators {
    /// Starts coordinating the groups of a partition that this shard took over: reads it, then
    /// answers.
    pub fn take_over(&self, partition: Rc<Partition>, topic: Rc<TopicSettings>, all: &Settings) {
        let coordinator = Rc::new(Coordinator {
            commit_timeout: Duration::from_millis(
                all.offsets_commit_timeout_ms.unsigned_abs().into(),
            ),
            partition,
            topic: RefCell::new(topic),
            state: RefCell::new(State::Loading { deleted: Vec::new() }),
            waiting: RefCell::default(),
            next_request: Cell::new(0),
            alarm: Rc::clone(&self.alarm),
        });
        let id = coordinator.partition.id;
        self.by_partition.borrow_mut().insert(id, Rc::clone(&coordinator));
        let (config, loads) = (group_config(all), self.loads.clone());
        spawn(async move {
            let place = loads.acquire().await;
            coordinator.load(config).await;
            drop(place);
        });
    }

    /// The configs of a partition's topic changed.
    pub fn reconfigure(&self, id: PartitionId, topic: &Rc<TopicSettings>) {
        if let Some(coordinator) = self.of(id) {
            *coordinator.topic.borrow_mut() = Rc::clone(topic);
        }
    }

    /// A topic was deleted: its offsets go with it. Where it is `__consumer_offsets` itself, so do
    /// the groups.
    pub fn topic_deleted(&self, name: &Arc<str>, id: Uuid) {
        for coordinator in self.all() {
            if coordinator.partition.id.topic == id {
                coordinator.unload();
                self.by_partition.borrow_mut().remove(&coordinator.partition.id);
            } else {
                coordinator.topic_deleted(name, id);
            }
        }
    }

    /// The node stops: whoever waits for others to join a group is told to look elsewhere.
    pub fn resign(&self) {
        for coordinator in self.all() {
            coordinator.unload();
        }
    }

    /// Groups that are coordinated here.
    pub fn group_count(&self) -> usize {
        let loaded = |coordinator: &Rc<Coordinator>| match &*coordinator.state.borrow() {
            State::Serving(groups) => groups.len(),
            State::Loading { .. } | State::Gone => 0,
        };
        self.by_partition.borrow().values().map(loaded).sum()
    }

    fn all(&self) -> Vec<Rc<Coordinator>> {
        self.by_partition.borrow().values().cloned().collect()
    }

    fn of(&self, id: PartitionId) -> Option<Rc<Coordinator>> {
        self.by_partition.borrow().get(&id).cloned()
    }
}

/// Wakes this shard's coordinators at their deadlines, until the node stops.
pub async fn keep_time(shard: Rc<Shard>) {
    let Coordinators { alarm, .. } = &shard.coordinators;
    while shard.life.stage() < Stage::Stopping {
        let earlier = alarm.earlier.notified();
        alarm.set_for.set(Instant::default()); // Awake: nobody has to ring.
        let mut next = Instant::NEVER;
        for coordinator in shard.coordinators.all() {
            if coordinator.next_deadline() <= now() {
                coordinator.feed(Input::Tick);
            }
            next = next.min(coordinator.next_deadline());
        }
        if next <= now() {
            yield_now().await; // A long clean-up goes step by step, and others have their turn.
        } else {
            alarm.set_for.set(next);
            deadline(next, earlier).await;
        }
    }
}

impl Shard {
    /// Asks the coordinator of `group`, wherever it is.
    pub async fn ask_group(self: &Rc<Self>, group: &str, request: Request) -> Answer {
        match self.group_partition(group) {
            Some(id) => self.ask_partition(id, request).await,
            None => request.refused(Error::NotCoordinator),
        }
    }

    /// Asks the coordinator of one partition of `__consumer_offsets`.
    pub async fn ask_partition(self: &Rc<Self>, id: PartitionId, request: Request) -> Answer {
        let ask = move |shard: &Rc<Shard>| {
            let coordinator = shard.coordinators.of(id);
            async move {
                match coordinator {
                    Some(coordinator) => coordinator.ask(request).await,
                    None => request.refused(Error::NotCoordinator),
                }
            }
        };
        self.call(self.owner_of(id), ask).await
    }

    /// Asks several partitions' coordinators at once; answers in the order of the questions.
    pub async fn ask_partitions(
        self: &Rc<Self>,
        questions: impl IntoIterator<Item = (PartitionId, Request)>,
    ) -> Vec<Answer> {
        let ask = |(id, request)| {
            let (shard, (sender, answer)) = (Rc::clone(self), local::oneshot());
            spawn(async move { drop(sender.send(shard.ask_partition(id, request).await)) });
            answer
        };
        let coming: Vec<_> = questions.into_iter().map(ask).collect();
        let mut answers = Vec::with_capacity(coming.len());
        for answer in coming {
            answers.push(answer.await.expect("a task runs to its end"));
        }
        answers
    }

    /// The partition of `__consumer_offsets` that a group's records are in; `None` until that topic
    /// exists.
    pub fn group_partition(&self, group: &str) -> Option<PartitionId> {
        let image = self.image();
        let topic = image.topics.named(CONSUMER_OFFSETS)?;
        let count =
            u32::try_from(topic.partition_count()).expect("partitions are counted in 31 bits");
        let index = i32::try_from(partition_for(group, count)).expect("below the count");
        Some(PartitionId { topic: topic.id, index })
    }

    /// All partitions of `__consumer_offsets`.
    pub fn group_partitions(&self) -> Vec<PartitionId> {
        let image = self.image();
        let topic = image.topics.named(CONSUMER_OFFSETS);
        let ids = topic.into_iter().flat_map(|topic| {
            topic.partitions().map(|(index, _)| PartitionId { topic: topic.id, index })
        });
        ids.collect()
    }
}

enum State {
    Loading {
        /// Topics that were deleted meanwhile.
        deleted: Vec<(Arc<str>, Uuid)>,
    },
    Serving(Groups),
    /// The partition failed or was deleted, or the node stops.
    Gone,
}

/// The coordinator of one partition's groups.
struct Coordinator {
    partition: Rc<Partition>,
    topic: RefCell<Rc<TopicSettings>>,
    /// `offsets.commit.timeout.ms`: how long a client waits for a write of its own.
    commit_timeout: Duration,
    state: RefCell<State>,
    waiting: RefCell<HashMap<RequestId, local::Sender<Answer>>>,
    next_request: Cell<u64>,
    alarm: Rc<Alarm>,
}

impl Coordinator {
    fn next_deadline(&self) -> Instant {
        match &*self.state.borrow() {
            State::Serving(groups) => groups.next_deadline(),
            State::Loading { .. } | State::Gone => Instant::NEVER,
        }
    }

    /// Asks, at once; the answer may take a rebalance, or a commit.
    fn ask(self: &Rc<Self>, request: Request) -> impl Future<Output = Answer> + use<> {
        let refused = match &*self.state.borrow() {
            State::Loading { .. } => Some(Error::CoordinatorLoadInProgress),
            State::Gone => Some(Error::NotCoordinator),
            State::Serving(_) => None,
        };
        let too_late = too_late(&request);
        let (sender, answer) = local::oneshot();
        if let Some(error) = refused {
            drop(sender.send(request.refused(error)));
        } else {
            let id = RequestId(self.next_request.get());
            self.next_request.set(id.0 + 1);
            self.waiting.borrow_mut().insert(id, sender);
            self.feed(Input::Request { id, request });
        }
        let until = now().after(self.commit_timeout);
        async move {
            let answered = match too_late {
                None => answer.await,
                Some(too_late) => match deadline(until, answer).await {
                    Some(answered) => answered,
                    None => return too_late,
                },
            };
            answered.expect("every request is answered, at the latest by unloading")
        }
    }

    /// Tells the core, and does what it says; what that leads to is told in turn.
    fn feed(self: &Rc<Self>, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            match &mut *self.state.borrow_mut() {
                State::Serving(groups) => groups.handle(time(), input, &mut effects),
                State::Loading { .. } | State::Gone => return,
            }
            self.perform(effects, &mut inputs);
        }
        self.alarm.ring_by(self.next_deadline());
    }

    fn perform(self: &Rc<Self>, effects: Vec<Effect>, inputs: &mut VecDeque<Input>) {
        let mut failed = false;
        for effect in effects {
            match effect {
                Effect::Answer { id, answer } => self.answer(id, answer),
                // Whoever waits for it is told by the unloading.
                Effect::Append { .. } if failed => {}
                Effect::Append { write, records } => match self.append(write, &records) {
                    Ok(()) => {}
                    Err(NotAppended::Refused(refusal)) => {
                        inputs.push_back(Input::Refused { write, refusal });
                    }
                    Err(NotAppended::LogFailed) => failed = true,
                },
            }
        }
        if failed {
            self.log_failed();
        }
    }

    fn answer(&self, id: RequestId, answer: Answer) {
        let waiting = self.waiting.borrow_mut().remove(&id);
        // The connection may be gone; what it asked for is done all the same.
        drop(waiting.expect("a request is answered once").send(answer));
    }

    fn append(self: &Rc<Self>, write: WriteId, records: &[Record]) -> Result<(), NotAppended> {
        let rules = self.topic.borrow().coordinator_rules();
        let end = group_log::append(&self.partition, records, &rules)?;
        let coordinator = Rc::clone(self);
        let mut committed = self.partition.committed(end);
        // Should a later write's task run before this one: what is committed is everything below
        // its end, so both writes are, and the core takes the second telling for nothing.
        spawn(async move {
            loop {
                match committed.await {
                    Some(Ok(())) => return coordinator.feed(Input::Durable { through: write }),
                    // It is written once there is space: what is in memory stays right.
                    Some(Err(Uncommitted::Stalled)) => {
                        committed = coordinator.partition.committed(end);
                    }
                    // Whether the records survive is unknown: what is in memory may be wrong.
                    Some(Err(Uncommitted::Lost)) | None => return coordinator.log_failed(),
                }
            }
        });
        Ok(())
    }

    fn topic_deleted(self: &Rc<Self>, name: &Arc<str>, id: Uuid) {
        if let State::Loading { deleted } = &mut *self.state.borrow_mut() {
            deleted.push((Arc::clone(name), id));
            return;
        }
        self.feed(Input::TopicDeleted { name: Arc::clone(name), id });
    }

    fn log_failed(&self) {
        if self.unload() {
            warn!(
                partition = self.partition.id.index,
                "no longer coordinates the groups of this {CONSUMER_OFFSETS} partition: its log failed"
            );
        }
    }

    /// Answers nobody any more, and tells those who wait; whether there was anything to end.
    fn unload(&self) -> bool {
        let before = self.state.replace(State::Gone);
        if let State::Serving(groups) = before {
            let mut effects = Vec::new();
            groups.unload(&mut effects);
            for effect in effects {
                if let Effect::Answer { id, answer } = effect {
                    self.answer(id, answer);
                }
            }
            return true;
        }
        matches!(before, State::Loading { .. })
    }

    /// Reads the partition, then serves.
    async fn load(self: Rc<Self>, config: Config) {
        let began = now();
        let replayed = group_log::replay(&self.partition).await;
        let deleted = match &mut *self.state.borrow_mut() {
            State::Loading { deleted } => std::mem::take(deleted),
            State::Serving(_) | State::Gone => return, // The node stops, or the topic is gone.
        };
        let loading = match replayed {
            Ok(loading) => loading,
            Err(why) => {
                error!(partition = self.partition.id.index, "cannot load groups: {why:#}");
                *self.state.borrow_mut() = State::Gone;
                return;
            }
        };
        let mut effects = Vec::new();
        let groups = loading.finish(config, time(), &mut effects);
        if !groups.is_empty() {
            let took = now().since(began);
            info!(
                partition = self.partition.id.index,
                groups = groups.len(),
                ?took,
                "loaded groups"
            );
        }
        *self.state.borrow_mut() = State::Serving(groups);
        let mut inputs = VecDeque::new();
        self.perform(effects, &mut inputs);
        let deleted = deleted.into_iter().map(|(name, id)| Input::TopicDeleted { name, id });
        inputs.into_iter().chain(deleted).for_each(|input| self.feed(input));
        self.alarm.ring_by(self.next_deadline());
    }
}

/// What a client is told whose answer hangs on a write that takes too long: Kafka's
/// `REQUEST_TIMED_OUT`, as it is mapped to what old clients know how to handle. `None` for requests
/// that wait for other members, as long as those take.
fn too_late(request: &Request) -> Option<Answer> {
    let error = match request {
        Request::Commit(_) | Request::DeleteOffsets(_) | Request::DeleteGroups(_) => {
            Error::CoordinatorNotAvailable
        }
        Request::Fetch(fetch) if fetch.require_stable => Error::NotCoordinator,
        Request::Fetch(_)
        | Request::Join(_)
        | Request::Sync(_)
        | Request::Heartbeat(_)
        | Request::Leave(_)
        | Request::Describe(_)
        | Request::List(_) => return None,
    };
    Some(request.refused(error))
}

fn time() -> Now {
    Now { clock: now(), wall: wall_clock() }
}
