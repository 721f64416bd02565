//! Who waits for a partition, for what, and until when.
//!
//! Separate because it is the hot path of produce and fetch. Nothing is scanned when something
//! moves: acknowledgements leave from the front, wake-ups leave all at once. A queue keeps its room
//! when it empties, so in the steady state nothing is allocated. Invariant: `earliest` is never later than any
//! deadline of its queue; only when it is over is the queue walked.

use crate::effect::{Effect, NotCommitted};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use flowstone_types::{Instant, Offset};

/// What a wake-up waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum On {
    /// The next move of the high watermark: consumers.
    HighWatermark,
    /// The next append: followers.
    LogEnd,
    /// The next move of a replica's log start offset: DeleteRecords.
    LowWatermark,
}

/// Names one wake-up; never used twice, so a late `forget` cannot hit another's wait.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaitKey {
    on: On,
    number: u64,
}

pub(crate) struct Waits<A, W> {
    /// Produce requests with acks=all: wait for the high watermark.
    pub committed: Acknowledgements<A>,
    /// Produce requests with acks=1: wait for this replica's own disk.
    pub durable: Acknowledgements<A>,
    bells: [Bell<W>; 3],
    next_number: u64,
}

impl<A, W> Waits<A, W> {
    pub const fn new() -> Self {
        Self {
            committed: Acknowledgements::new(),
            durable: Acknowledgements::new(),
            bells: [Bell::new(), Bell::new(), Bell::new()],
            next_number: 0,
        }
    }

    /// `wake` is handed out at the next ring, or at `deadline`, once.
    pub fn wait(&mut self, on: On, deadline: Instant, wake: W) -> WaitKey {
        let number = self.next_number;
        self.next_number += 1;
        self.bells[on as usize].wait(number, deadline, wake);
        WaitKey { on, number }
    }

    pub fn forget(&mut self, key: WaitKey) {
        self.bells[key.on as usize].forget(key.number);
    }

    pub fn ring(&mut self, on: On, effects: &mut Vec<Effect<A, W>>) {
        self.bells[on as usize].ring(effects);
    }

    /// Everybody looks again, and whoever waits for an acknowledgement hears `why`.
    pub fn dismiss(&mut self, why: NotCommitted, effects: &mut Vec<Effect<A, W>>) {
        self.committed.dismiss(why, effects);
        self.durable.dismiss(why, effects);
        self.ring_all(effects);
    }

    /// Everybody looks again.
    pub fn ring_all(&mut self, effects: &mut Vec<Effect<A, W>>) {
        for bell in &mut self.bells {
            bell.ring(effects);
        }
    }

    pub fn expire(&mut self, now: Instant, effects: &mut Vec<Effect<A, W>>) {
        self.committed.expire(now, effects);
        self.durable.expire(now, effects);
        for bell in &mut self.bells {
            bell.expire(now, effects);
        }
    }

    /// Nobody's time is over before this.
    pub fn next_deadline(&self) -> Instant {
        let bells = self.bells.iter().map(|bell| bell.earliest);
        bells
            .chain([self.committed.earliest, self.durable.earliest])
            .min()
            .unwrap_or(Instant::NEVER)
    }
}

/// Requests that wait for an offset to be passed, in log order.
pub(crate) struct Acknowledgements<A> {
    waiting: VecDeque<(Offset, Instant, A)>,
    earliest: Instant,
}

impl<A> Acknowledgements<A> {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), earliest: Instant::NEVER }
    }

    pub fn push(&mut self, end: Offset, deadline: Instant, ack: A) {
        self.earliest = self.earliest.min(deadline);
        if self.waiting.back().is_none_or(|(last, ..)| *last <= end) {
            self.waiting.push_back((end, deadline, ack));
        } else {
            // A duplicate may come after later batches: it must leave with its own end, not last.
            let place = self.waiting.partition_point(|(other, ..)| *other <= end);
            self.waiting.insert(place, (end, deadline, ack));
        }
    }

    /// Everything below `end` is what they waited for.
    pub fn release<W>(
        &mut self,
        end: Offset,
        outcome: Result<(), NotCommitted>,
        effects: &mut Vec<Effect<A, W>>,
    ) {
        while let Some((_, _, ack)) = self.waiting.pop_front_if(|(wanted, ..)| *wanted <= end) {
            effects.push(Effect::Acknowledge { ack, outcome });
        }
        if self.waiting.is_empty() {
            self.earliest = Instant::NEVER;
        }
    }

    pub fn dismiss<W>(&mut self, why: NotCommitted, effects: &mut Vec<Effect<A, W>>) {
        self.earliest = Instant::NEVER;
        let all = self.waiting.drain(..);
        effects.extend(all.map(|(_, _, ack)| Effect::Acknowledge { ack, outcome: Err(why) }));
    }

    fn expire<W>(&mut self, now: Instant, effects: &mut Vec<Effect<A, W>>) {
        if now < self.earliest {
            return;
        }
        self.earliest = Instant::NEVER;
        for (end, deadline, ack) in core::mem::take(&mut self.waiting) {
            if deadline <= now {
                let outcome = Err(NotCommitted::TimedOut);
                effects.push(Effect::Acknowledge { ack, outcome });
            } else {
                self.earliest = self.earliest.min(deadline);
                self.waiting.push_back((end, deadline, ack));
            }
        }
    }
}

/// Wake-ups that all go at once.
struct Bell<W> {
    /// By number. `None` where the wait was forgotten.
    waiting: VecDeque<(u64, Instant, Option<W>)>,
    forgotten: usize,
    earliest: Instant,
}

impl<W> Bell<W> {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), forgotten: 0, earliest: Instant::NEVER }
    }

    fn wait(&mut self, number: u64, deadline: Instant, wake: W) {
        self.earliest = self.earliest.min(deadline);
        self.waiting.push_back((number, deadline, Some(wake)));
    }

    fn forget(&mut self, number: u64) {
        let Ok(place) = self.waiting.binary_search_by_key(&number, |(number, ..)| *number) else {
            return; // It was handed out.
        };
        if self.waiting[place].2.take().is_none() {
            return;
        }
        self.forgotten += 1;
        // The usual cases cost nothing more: the newest or the oldest goes. Otherwise the places
        // are swept once they are the larger half.
        while self.waiting.pop_back_if(|(.., wake)| wake.is_none()).is_some()
            || self.waiting.pop_front_if(|(.., wake)| wake.is_none()).is_some()
        {
            self.forgotten -= 1;
        }
        if self.forgotten > self.waiting.len() / 2 {
            self.waiting.retain(|(.., wake)| wake.is_some());
            self.forgotten = 0;
        }
        if self.waiting.is_empty() {
            self.earliest = Instant::NEVER;
        }
    }

    fn ring<A>(&mut self, effects: &mut Vec<Effect<A, W>>) {
        (self.forgotten, self.earliest) = (0, Instant::NEVER);
        effects.extend(self.waiting.drain(..).filter_map(|(.., wake)| wake.map(Effect::Wake)));
    }

    fn expire<A>(&mut self, now: Instant, effects: &mut Vec<Effect<A, W>>) {
        if now < self.earliest {
            return;
        }
        self.earliest = Instant::NEVER;
        for (_, deadline, wake) in &mut self.waiting {
            if *deadline > now {
                if wake.is_some() {
                    self.earliest = self.earliest.min(*deadline);
                }
            } else if let Some(wake) = wake.take() {
                effects.push(Effect::Wake(wake));
            }
        }
        self.waiting.retain(|(.., wake)| wake.is_some());
        self.forgotten = 0;
    }
}
