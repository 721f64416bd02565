//! Operations in flight: who owns their memory, who hears of their end, what becomes of orphans.
//!
//! Invariants: an operation (and with it every buffer, path, address and descriptor it points to)
//! lives in its shard's slab from submission until its last completion was reaped, whatever becomes
//! of the future. Dropping the future makes it an orphan: what only reads is cancelled, what writes
//! is carried to its end. The slot is freed in one place only, [`Ops::completed`] and its taker.

use std::any::Any;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, squeue};
use slab::Slab;

use super::shard::{Shard, shard};

/// One thing asked of the kernel, over as many submissions as it takes.
pub(super) trait Operation: Any {
    /// What becomes of it when no one waits for it any more.
    const ORPHAN: Orphan;

    /// The next submission. Pointers in it must go to memory that this value owns and that does not
    /// move with it (it moves once, into its slot, before this is first called).
    fn entry(&mut self) -> squeue::Entry;

    /// Takes the result of the last submission.
    fn advance(&mut self, result: io::Result<u32>) -> Step;
}

/// What to do after a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Submit [`Operation::entry`] again.
    Again,
    /// All done.
    Done,
}

/// See [`Operation::ORPHAN`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Orphan {
    /// Nobody wants the result: cancel it.
    Cancel,
    /// It changes something: carry it to its end.
    Finish,
}

/// Submits `operation`; the future gives it back when it is done.
pub(super) fn submit<T: Operation>(operation: T) -> InFlight<T> {
    let shard = shard();
    let key = shard.ops.borrow_mut().insert(Box::new(operation), T::ORPHAN);
    shard.push_op(key);
    InFlight { key, shard, kind: PhantomData }
}

/// Submits `operation` without anyone to wait for it.
pub(super) fn submit_detached<T: Operation>(operation: T) {
    const { assert!(matches!(T::ORPHAN, Orphan::Finish)) }
    drop(submit(operation));
}

/// An operation that someone waits for.
pub(super) struct InFlight<T> {
    key: Key,
    shard: &'static Shard,
    kind: PhantomData<T>,
}

impl<T> Unpin for InFlight<T> {}

impl<T: Operation> Future for InFlight<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut ops = self.shard.ops.borrow_mut();
        let Some(operation) = ops.take_done(self.key, context.waker()) else {
            return Poll::Pending;
        };
        let operation: Box<dyn Any> = operation;
        Poll::Ready(*operation.downcast().expect("a key has one operation, and it has one type"))
    }
}

impl<T> Drop for InFlight<T> {
    fn drop(&mut self) {
        let abandoned = self.shard.ops.borrow_mut().abandon(self.key);
        match abandoned {
            Abandoned::Taken | Abandoned::LeftAlone => {}
            Abandoned::Finished(operation) => drop(operation),
            Abandoned::Cancel => self.shard.push_cancel(self.key),
        }
    }
}

/// Names an operation to the kernel. The generation makes a stale name harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    fn from_user_data(user_data: u64) -> Self {
        Self { index: user_data as u32, generation: (user_data >> 32) as u32 }
    }

    fn user_data(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }
}

/// Completions of cancellations, which no one asks about. No key: generations stop short of it.
const CANCELLATION: u64 = u64::MAX;
const GENERATIONS: u32 = u32::MAX;

/// How often an operation that the kernel keeps answering with EAGAIN or EINTR is tried again.
const RETRIES_MAX: u8 = 100;

struct Slot {
    operation: Box<dyn ErasedOperation>,
    generation: u32,
    retries: u8,
    orphan: Orphan,
    owner: Owner,
}

enum Owner {
    /// A future that was not polled yet, or one that waits.
    Waiting(Option<Waker>),
    /// It is done and its future may take it.
    Done,
    /// The future is gone.
    Nobody,
}

/// [`Operation`] without its constant, so that a slab can hold all kinds.
trait ErasedOperation: Any {
    fn entry(&mut self) -> squeue::Entry;
    fn advance(&mut self, result: io::Result<u32>) -> Step;
}

impl<T: Operation> ErasedOperation for T {
    fn entry(&mut self) -> squeue::Entry {
        Operation::entry(self)
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        Operation::advance(self, result)
    }
}

/// All operations of a shard.
#[derive(Default)]
pub(super) struct Ops {
    slots: Slab<Slot>,
    generation: u32,
}

enum Abandoned {
    Taken,
    LeftAlone,
    Finished(Box<dyn Any>),
    Cancel,
}

/// What the shard does after a completion, when `Ops` is no longer borrowed.
pub(super) enum After {
    Nothing,
    Wake(Waker),
    Resubmit(Key),
    /// An orphan's end: dropping it may run anything.
    Drop(Box<dyn Any>),
}

impl Ops {
    fn insert(&mut self, operation: Box<dyn ErasedOperation>, orphan: Orphan) -> Key {
        self.generation = (self.generation + 1) % GENERATIONS;
        let generation = self.generation;
        let owner = Owner::Waiting(None);
        let index = self.slots.insert(Slot { operation, generation, retries: 0, orphan, owner });
        Key { index: u32::try_from(index).expect("fewer than 2^32 operations"), generation }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation).then_some(slot)
    }

    /// The next submission of an operation.
    pub(super) fn entry(&mut self, key: Key) -> squeue::Entry {
        let slot = self.slot(key).expect("submitted by its future or by `completed`: it lives");
        let entry = slot.operation.entry();
        // The kernel said "not now" once: then let it wait in a thread of its own.
        let flags = if slot.retries > 0 { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        entry.flags(flags).user_data(key.user_data())
    }

    fn take_done(&mut self, key: Key, waker: &Waker) -> Option<Box<dyn ErasedOperation>> {
        let slot = self.slot(key).expect("not polled again after it was ready");
        match &mut slot.owner {
            Owner::Waiting(Some(held)) => held.clone_from(waker),
            Owner::Waiting(held @ None) => *held = Some(waker.clone()),
            Owner::Done => return Some(self.slots.remove(key.index as usize).operation),
            Owner::Nobody => unreachable!("its future is polling"),
        }
        None
    }

    fn abandon(&mut self, key: Key) -> Abandoned {
        let Some(slot) = self.slot(key) else { return Abandoned::Taken };
        match slot.owner {
            Owner::Done => Abandoned::Finished(self.slots.remove(key.index as usize).operation),
            Owner::Waiting(_) => {
                slot.owner = Owner::Nobody;
                match slot.orphan {
                    Orphan::Cancel => Abandoned::Cancel,
                    Orphan::Finish => Abandoned::LeftAlone,
                }
            }
            Owner::Nobody => unreachable!("one future per operation"),
        }
    }

    /// Takes a completion.
    pub(super) fn completed(&mut self, user_data: u64, result: i32) -> After {
        if user_data == CANCELLATION {
            return After::Nothing; // Whether it came in time shows in what it was to cancel.
        }
        let key = Key::from_user_data(user_data);
        let slot = self.slot(key).expect("one completion per submission");
        let unwanted = matches!(slot.owner, Owner::Nobody) && matches!(slot.orphan, Orphan::Cancel);
        let again = matches!(result.wrapping_neg(), libc::EAGAIN | libc::EINTR);
        if again && !unwanted && slot.retries < RETRIES_MAX {
            slot.retries += 1;
            return After::Resubmit(key);
        }
        slot.retries = 0;
        let result =
            u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        match slot.operation.advance(result) {
            Step::Again if !unwanted => After::Resubmit(key),
            Step::Again | Step::Done => match &mut slot.owner {
                Owner::Waiting(waker) => {
                    let waker = waker.take();
                    slot.owner = Owner::Done;
                    waker.map_or(After::Nothing, After::Wake)
                }
                Owner::Nobody => After::Drop(self.slots.remove(key.index as usize).operation),
                Owner::Done => unreachable!("done operations are not submitted"),
            },
        }
    }

    /// How many are not done yet.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().filter(|(_, slot)| !matches!(slot.owner, Owner::Done)).count()
    }

    /// Those that wait for the world and would wait for ever: cancelled when the shard ends.
    pub(super) fn cancellable(&self) -> Vec<Key> {
        let waits = self.slots.iter().filter(|(_, slot)| {
            slot.orphan == Orphan::Cancel && !matches!(slot.owner, Owner::Done)
        });
        waits
            .map(|(index, slot)| Key { index: index as u32, generation: slot.generation })
            .collect()
    }
}

/// The submission that cancels another.
pub(super) fn cancellation(key: Key) -> squeue::Entry {
    opcode::AsyncCancel::new(key.user_data()).build().user_data(CANCELLATION)
}
