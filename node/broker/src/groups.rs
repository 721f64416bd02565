//! Group coordinators: the shell of node/coordinators.
//!
//! Each partition of `__consumer_offsets` has one, on the shard that owns the partition. It feeds
//! requests, the time and the fate of its records to the pure core, and does what the core says:
//! append these records, answer that request. Nothing is decided here.

use crate::partition::Partition;
use crate::reading::whole;
use crate::refusal::Refusal;
use crate::settings::{CONSUMER_OFFSETS, TopicSettings};
use crate::shard::Shard;
use flowstone_batch::{self as batch, BatchBuilder, Limits, Origin};
use flowstone_coordinators::{
    Answer, Config, Effect, Error, Groups, Input, Loading, Now, Replayed, Request, RequestId,
    WriteId, partition_for,
};
use flowstone_runtime::local::{self, Notify};
use flowstone_runtime::{deadline, now, spawn, wall_clock};
use flowstone_types::{Instant, Offset, PartitionId, Uuid};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tracing::{debug, error, info, warn};

/// Bytes of the partition that loading reads at a time (`offsets.load.buffer.size`).
const LOAD_BYTES: usize = 5 * 1024 * 1024;

/// The coordinators of one shard, by partition of `__consumer_offsets`.
#[derive(Default)]
pub struct Coordinators {
    by_partition: RefCell<BTreeMap<i32, Rc<Coordinator>>>,
    /// A deadline may have moved to an earlier time.
    rescheduled: Notify,
}

impl Coordinators {
    /// Starts coordinating the groups of a partition that this shard took over: reads it, then
    /// answers.
    pub fn take_over(&self, partition: Rc<Partition>, config: Config) {
        let coordinator = Rc::new(Coordinator::new(partition));
        let index = coordinator.partition.id.index;
        self.by_partition.borrow_mut().insert(index, Rc::clone(&coordinator));
        spawn(async move { coordinator.load(config).await });
    }

    /// A topic was deleted: its offsets go with it.
    pub fn topic_deleted(&self, name: &Arc<str>, id: Uuid) {
        for coordinator in self.all() {
            coordinator.feed(Input::TopicDeleted { name: Arc::clone(name), id });
        }
    }

    /// Groups that are coordinated here.
    pub fn group_count(&self) -> usize {
        let loaded = |coordinator: &Rc<Coordinator>| match &*coordinator.state.borrow() {
            State::Serving(groups) => groups.len(),
            State::Loading | State::Gone => 0,
        };
        self.by_partition.borrow().values().map(loaded).sum()
    }

    fn all(&self) -> Vec<Rc<Coordinator>> {
        self.by_partition.borrow().values().cloned().collect()
    }

    fn of(&self, index: i32) -> Option<Rc<Coordinator>> {
        self.by_partition.borrow().get(&index).cloned()
    }
}

/// Wakes this shard's coordinators at their deadlines, for ever.
pub async fn keep_time(shard: Rc<Shard>) {
    let coordinators = &shard.coordinators;
    loop {
        let moved = coordinators.rescheduled.notified();
        let mut next = Instant::NEVER;
        for coordinator in coordinators.all() {
            if coordinator.next_deadline() <= now() {
                coordinator.feed(Input::Tick);
            }
            next = next.min(coordinator.next_deadline());
        }
        deadline(next, moved).await;
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
            let shard = Rc::clone(shard);
            async move {
                match shard.coordinators.of(id.index) {
                    Some(coordinator) => {
                        let answer = coordinator.ask(request);
                        shard.coordinators.rescheduled.notify_all();
                        answer.await
                    }
                    None => request.refused(Error::NotCoordinator),
                }
            }
        };
        self.call(self.owner_of(id), ask).await
    }

    /// The partition of `__consumer_offsets` that a group's records are in; `None` until that topic
    /// exists.
    pub fn group_partition(&self, group: &str) -> Option<PartitionId> {
        let image = self.image();
        let topic = image.topics.named(CONSUMER_OFFSETS)?;
        let index = partition_for(group, topic.partition_count() as u32);
        Some(PartitionId { topic: topic.id, index: index as i32 })
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
    Loading,
    Serving(Groups),
    /// The partition failed: another node may take over, this one does not.
    Gone,
}

/// The coordinator of one partition's groups.
struct Coordinator {
    partition: Rc<Partition>,
    state: RefCell<State>,
    waiting: RefCell<HashMap<RequestId, local::Sender<Answer>>>,
    next_request: Cell<u64>,
}

impl Coordinator {
    fn new(partition: Rc<Partition>) -> Self {
        Self {
            partition,
            state: RefCell::new(State::Loading),
            waiting: RefCell::default(),
            next_request: Cell::new(0),
        }
    }

    fn next_deadline(&self) -> Instant {
        match &*self.state.borrow() {
            State::Serving(groups) => groups.next_deadline(),
            State::Loading | State::Gone => Instant::NEVER,
        }
    }

    /// Asks; the answer may take a rebalance, or a commit.
    fn ask(self: &Rc<Self>, request: Request) -> impl Future<Output = Answer> + use<> {
        let refused = match &*self.state.borrow() {
            State::Loading => Some(Error::CoordinatorLoadInProgress),
            State::Gone => Some(Error::NotCoordinator),
            State::Serving(_) => None,
        };
        let (sender, answer) = local::oneshot();
        match refused {
            Some(error) => drop(sender.send(request.refused(error))),
            None => {
                let id = RequestId(self.next_request.get());
                self.next_request.set(id.0 + 1);
                self.waiting.borrow_mut().insert(id, sender);
                self.feed(Input::Request { id, request });
            }
        }
        async move { answer.await.expect("every request is answered, at the latest by unloading") }
    }

    /// Tells the core, and does what it says; what that leads to is told in turn.
    fn feed(self: &Rc<Self>, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            match &mut *self.state.borrow_mut() {
                State::Serving(groups) => groups.handle(time(), input, &mut effects),
                State::Loading | State::Gone => return,
            }
            self.perform(effects, &mut inputs);
        }
    }

    fn perform(self: &Rc<Self>, effects: Vec<Effect>, inputs: &mut VecDeque<Input>) {
        for effect in effects {
            match effect {
                Effect::Answer { id, answer } => self.answer(id, answer),
                Effect::Append { write, records } => match self.append(&records) {
                    Ok(end) => self.await_commit(write, end),
                    Err(refusal) => {
                        let refusal = refusal.for_coordinator();
                        inputs.push_back(Input::Refused { write, refusal });
                    }
                },
            }
        }
    }

    fn answer(&self, id: RequestId, answer: Answer) {
        let waiting = self.waiting.borrow_mut().remove(&id);
        // The connection may be gone; what it asked for is done all the same.
        drop(waiting.expect("a request is answered once").send(answer));
    }

    /// Appends the records as one batch; the end of what must be committed.
    fn append(&self, records: &[flowstone_coordinators::Record]) -> Result<Offset, Refusal> {
        let now = wall_clock();
        let mut builder = BatchBuilder::new(Offset::ZERO);
        for record in records {
            builder.push(now, Some(&record.key), record.value.as_deref(), &[]);
        }
        let rules = TopicSettings::coordinator_rules();
        let batch = batch::check(builder.build(), &rules, now)?;
        let appended = self.partition.append(batch, Origin::Coordinator)?;
        Ok(appended.last_offset.plus(1))
    }

    fn await_commit(self: &Rc<Self>, write: WriteId, end: Offset) {
        let coordinator = Rc::clone(self);
        let committed = self.partition.committed(end);
        spawn(async move {
            match committed.await {
                Some(Ok(())) => coordinator.feed(Input::Durable { through: write }),
                // Whether the records survive is unknown: what is in memory may be wrong.
                Some(Err(_)) | None => coordinator.unload(),
            }
        });
    }

    fn unload(&self) {
        let before = self.state.replace(State::Gone);
        if let State::Serving(groups) = before {
            warn!(
                partition = self.partition.id.index,
                "stopped coordinating the groups of this {CONSUMER_OFFSETS} partition: its log failed"
            );
            let mut effects = Vec::new();
            groups.unload(&mut effects);
            for effect in effects {
                if let Effect::Answer { id, answer } = effect {
                    self.answer(id, answer);
                }
            }
        }
    }

    /// Reads the partition, then serves.
    async fn load(self: Rc<Self>, config: Config) {
        let began = now();
        match self.replay().await {
            Ok(loading) => {
                let mut effects = Vec::new();
                let groups = loading.finish(config, time(), &mut effects);
                let count = groups.len();
                *self.state.borrow_mut() = State::Serving(groups);
                let mut inputs = VecDeque::new();
                self.perform(effects, &mut inputs);
                inputs.into_iter().for_each(|input| self.feed(input));
                if count > 0 {
                    let took = now().since(began);
                    info!(
                        partition = self.partition.id.index,
                        groups = count,
                        ?took,
                        "loaded groups"
                    );
                }
            }
            Err(why) => {
                error!(partition = self.partition.id.index, "cannot load groups: {why:#}");
                *self.state.borrow_mut() = State::Gone;
            }
        }
    }

    async fn replay(&self) -> anyhow::Result<Loading> {
        let mut loading = Loading::new();
        let limits = Limits::default();
        let log = &self.partition.log;
        let end = log.durable_end();
        let mut from = log.log_start();
        while from < end {
            let read = log.read(from, end, LOAD_BYTES, true).await?;
            let bytes = whole(read.parts);
            anyhow::ensure!(!bytes.is_empty(), "nothing at offset {from}, the end is {end}");
            for found in batch::batches(&bytes) {
                let (at, header, _) = found?;
                from = header.last_offset().plus(1);
                if header.attributes.is_control() {
                    continue;
                }
                for record in batch::records(&bytes.slice(at..at + header.total_len()), &limits)? {
                    let record = record?;
                    let Some(key) = record.key else { continue };
                    if let Replayed::Skipped { kind } =
                        loading.replay(&key, record.value.as_deref())?
                    {
                        debug!(
                            kind,
                            offset = record.offset.0,
                            "left out a record of a kind unknown here"
                        );
                    }
                }
            }
        }
        Ok(loading)
    }
}

fn time() -> Now {
    Now { clock: now(), wall: wall_clock() }
}
