//! An active controller: all that it holds between becoming the quorum's leader and losing that.
//!
//! Separate from the decisions, which are functions of an image: here is the image that they are made on,
//! and who waits for them. What holds:
//! - A decision sees all decisions before it, committed or not, and nothing else.
//! - Answers are given in the order of the log, each once all that it rests on is committed; what decided
//!   nothing waits for what it saw.
//! - A transaction of records begins and ends within one decision: no decision is made inside.
//! - Who loses the leadership takes nothing with it: [`Controller::resign`] refuses who waits, and the next
//!   controller starts from the log.

use crate::Decision;
use crate::memberships::Memberships;
use crate::sessions::Sessions;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;
use flowstone_metadata::log::BATCH_RECORDS_MAX;
use flowstone_metadata::records::{BeginTransactionRecord, NoOpRecord};
use flowstone_metadata::{Image, MetadataRecord, MetadataVersion, Replay};
use flowstone_types::{Instant, NodeId, Offset};

/// Most decisions that may wait for their commit: at 1 ms a commit, ten seconds of the busiest log. The
/// shell takes no request up while [`Controller::is_full`].
pub const PENDING_MAX: usize = 10_000;

/// What a controller is told by its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The controller's own node id.
    pub node_id: NodeId,
    /// `broker.session.timeout.ms`: a broker that is not heard for so long is fenced.
    pub session_timeout: Duration,
    /// How long a broker may be without any connection before it is fenced, where the shell can tell:
    /// sooner than its session ends. Apache's controller waits for the session.
    pub disconnect_grace: Duration,
    /// `min.insync.replicas`, where neither topic nor cluster has its own.
    pub min_insync_replicas: i32,
    /// `unclean.leader.election.enable`, where neither topic nor cluster has its own.
    pub unclean_leader_election: bool,
    /// `leader.imbalance.check.interval.seconds`; `None` where `auto.leader.rebalance.enable` is false.
    pub balance_interval: Option<Duration>,
    /// `unclean.leader.election.interval.ms`: how often partitions without a leader are looked at, of
    /// topics that allow unclean elections.
    pub unclean_interval: Duration,
    /// `metadata.max.idle.interval.ms`: the log moves at least so often; `None` for no matter.
    pub idle_interval: Option<Duration>,
}

impl Settings {
    /// Kafka's defaults.
    pub const fn new(node_id: NodeId) -> Self {
        Self {
            node_id,
            session_timeout: Duration::from_secs(9),
            disconnect_grace: Duration::from_secs(1),
            min_insync_replicas: 1,
            unclean_leader_election: false,
            balance_interval: Some(Duration::from_mins(5)),
            unclean_interval: Duration::from_mins(5),
            idle_interval: Some(Duration::from_millis(500)),
        }
    }
}

/// What the shell does for a controller, in the order in which it is said.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect<A> {
    /// Append these records to the metadata log.
    Append(Append),
    /// Give this answer: what it rests on is committed.
    Answer(A),
    /// Answer NOT_CONTROLLER instead: whether it was carried out is for the next controller to know.
    NotController(A),
}

/// Records to append.
#[derive(Clone, PartialEq, Debug)]
pub struct Append {
    /// The first record's offset: where the log ended when it was decided.
    pub base: Offset,
    /// The records; not empty.
    pub records: Vec<MetadataRecord>,
    /// Whether they must be one batch; else [`batches`](flowstone_metadata::log::batches) cuts them.
    pub atomic: bool,
    /// The metadata.version to write them at.
    pub version: MetadataVersion,
}

/// An active controller; `A` is what the shell answers with once a decision is committed.
#[derive(Debug)]
pub struct Controller<A> {
    active: Active,
    committed: Image,
    /// Up to where `committed` holds the log.
    committed_end: Offset,
    pending: VecDeque<Pending<A>>,
    /// When the log grew last.
    appended: Instant,
    next_balance: Instant,
    next_unclean: Instant,
}

/// A decision whose records, and those before, are not committed yet.
#[derive(Debug)]
struct Pending<A> {
    /// The offset behind its last record.
    end: Offset,
    /// The cluster with it.
    image: Image,
    answer: Option<A>,
}

/// What an active controller decides on.
#[derive(Debug)]
pub struct Active {
    pub(crate) settings: Settings,
    pub(crate) now: Instant,
    /// Where the log ends, and so the offset of the next record.
    pub(crate) end: Offset,
    pub(crate) image: Image,
    pub(crate) members: Memberships,
    pub(crate) sessions: Sessions,
    replay: Replay,
}

impl Active {
    /// The cluster with all that was decided, committed or not.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// Where the log ends: the offset that the decision's first record gets.
    pub const fn next_offset(&self) -> Offset {
        self.end
    }

    /// Whether the log ends inside a transaction of records, which [`activate`](crate::activate) aborts.
    pub fn in_transaction(&self) -> bool {
        self.replay.in_transaction()
    }

    /// Takes over what was decided.
    fn apply(&mut self, records: &[MetadataRecord]) {
        for record in records {
            // What is decided fits the image that it was decided on: anything else is our bug.
            self.replay.apply(record.clone()).expect("a decision follows from the image");
            if let MetadataRecord::RegisterBrokerRecord(broker) = record {
                let id = NodeId(broker.broker_id);
                self.sessions.registered(id, broker.broker_epoch, self.end, self.now);
            }
            self.end = self.end.plus(1);
        }
        let published = self.replay.publish();
        let (image, delta) = published.expect("a transaction ends in the decision that begins it");
        self.members.follow(&self.image, &image, &delta);
        for id in &delta.brokers {
            match image.brokers.get(id) {
                None => self.sessions.ended(*id),
                Some(broker) if broker.fenced => self.sessions.fenced(*id),
                Some(_) => {}
            }
        }
        self.image = image;
    }
}

impl<A> Controller<A> {
    /// A controller whose node became the quorum's leader. `image` is all of the log below `end`, all of it
    /// committed, without the transaction that it may end in.
    pub fn new(
        now: Instant,
        image: Image,
        in_transaction: bool,
        end: Offset,
        settings: Settings,
    ) -> Self {
        let next_balance =
            settings.balance_interval.map_or(Instant::NEVER, |every| now.after(every));
        let next_unclean = now.after(settings.unclean_interval);
        let mut replay = Replay::from_image(image.clone());
        if in_transaction {
            let begin = BeginTransactionRecord::default().into();
            replay.apply(begin).expect("no transaction is open yet");
        }
        let active = Active {
            members: Memberships::of(&image),
            sessions: Sessions::new(&image, end, now),
            image: image.clone(),
            settings,
            now,
            end,
            replay,
        };
        Self {
            active,
            committed: image,
            committed_end: end,
            pending: VecDeque::new(),
            appended: now,
            next_balance,
            next_unclean,
        }
    }

    /// The cluster with all that was decided, committed or not.
    pub const fn image(&self) -> &Image {
        &self.active.image
    }

    /// The cluster as it is committed, and up to which offset that is.
    pub const fn committed_image(&self) -> (&Image, Offset) {
        (&self.committed, self.committed_end)
    }

    /// How many decisions wait for their commit.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether no further request is to be taken up until something is committed.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// Decides, on all that was decided before. `next_offset` is where the log ends: control records may
    /// have come in since the last decision.
    pub fn decide(
        &mut self,
        now: Instant,
        next_offset: Offset,
        decide: impl FnOnce(&mut Active) -> Decision<A>,
        effects: &mut Vec<Effect<A>>,
    ) {
        self.at(now, next_offset);
        let Decision { records, atomic, response } = decide(&mut self.active);
        self.append(records, atomic, Some(response), effects);
    }

    /// The log is committed below `offset`: releases the answers that rest on nothing else.
    pub fn committed(&mut self, offset: Offset, effects: &mut Vec<Effect<A>>) {
        while let Some(done) = self.pending.pop_front_if(|pending| pending.end <= offset) {
            self.committed = done.image;
            self.committed_end = done.end;
            effects.extend(done.answer.map(Effect::Answer));
        }
        if self.pending.is_empty() {
            self.committed_end = self.committed_end.max(offset); // Control records at the end.
        }
    }

    /// The node is no longer the leader: all that was not committed is undone, or the next leader's.
    pub fn resign(self, effects: &mut Vec<Effect<A>>) {
        let waiting = self.pending.into_iter().filter_map(|pending| pending.answer);
        effects.extend(waiting.map(Effect::NotController));
    }

    /// When [`tick`](Self::tick) has something to do at the latest.
    pub fn next_deadline(&self) -> Instant {
        let fence = self.active.next_to_fence().map_or(Instant::NEVER, |(when, _)| when);
        let idle = self.active.settings.idle_interval;
        let idle = idle.map_or(Instant::NEVER, |longest| self.appended.after(longest));
        fence.min(idle).min(self.next_balance).min(self.next_unclean)
    }

    /// Does what is due: fences brokers, gives leaderships back to preferred replicas, elects leaders
    /// uncleanly where that is allowed, and moves an idle log on.
    pub fn tick(&mut self, now: Instant, next_offset: Offset, effects: &mut Vec<Effect<A>>) {
        self.at(now, next_offset);
        // One at a time: where a leadership goes depends on who was fenced before.
        while let Some((when, broker)) = self.active.next_to_fence()
            && when <= now
        {
            let mut records = Vec::new();
            self.active.fence(broker, &mut records);
            self.append(records, false, None, effects);
        }
        if self.next_balance <= now {
            let (records, more) = self.active.balance();
            self.append(records, false, None, effects);
            let every = self.active.settings.balance_interval;
            let pause = if more { Some(Duration::ZERO) } else { every };
            self.next_balance = pause.map_or(Instant::NEVER, |pause| now.after(pause));
        }
        if self.next_unclean <= now {
            let (records, more) = self.active.elect_uncleanly();
            self.append(records, false, None, effects);
            let every = self.active.settings.unclean_interval;
            self.next_unclean = now.after(if more { Duration::ZERO } else { every });
        }
        let idle = self.active.settings.idle_interval;
        if idle.is_some_and(|longest| self.appended.after(longest) <= now) {
            self.append(vec![NoOpRecord::default().into()], true, None, effects);
        }
    }

    fn at(&mut self, now: Instant, next_offset: Offset) {
        assert!(next_offset >= self.active.end, "the log never loses what its leader appended");
        self.active.now = self.active.now.max(now);
        self.active.end = next_offset;
    }

    fn append(
        &mut self,
        records: Vec<MetadataRecord>,
        atomic: bool,
        answer: Option<A>,
        effects: &mut Vec<Effect<A>>,
    ) {
        if records.is_empty() {
            // It saw what is not committed yet, perhaps: then it waits for that.
            match (self.pending.back(), answer) {
                (None, answer) => effects.extend(answer.map(Effect::Answer)),
                (Some(_), None) => {} // Nobody waits.
                (Some(last), answer) => {
                    let (end, image) = (last.end, last.image.clone());
                    self.pending.push_back(Pending { end, image, answer });
                }
            }
            return;
        }
        assert!(!atomic || records.len() <= BATCH_RECORDS_MAX, "too much to take effect at once");
        self.appended = self.active.now;
        let (base, version) = (self.active.end, self.active.image.metadata_version());
        self.active.apply(&records);
        let (end, image) = (self.active.end, self.active.image.clone());
        self.pending.push_back(Pending { end, image, answer });
        effects.push(Effect::Append(Append { base, records, atomic, version }));
    }
}
