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

    /// Whether it may be submitted again, as it was, after EINTR or EAGAIN. Not what the kernel may have
    /// half done: a descriptor is closed even so, and its number may be another file's by now; and a
    /// flush that did not say yes is not asked again (fsyncgate).
    fn may_repeat(&self) -> bool {
        true
    }
}

/// How many of `bytes` one submission takes: all, unless a test has the kernel fall short.
pub(super) fn at_once(bytes: usize) -> usize {
    #[cfg(test)]
    let bytes = super::shim::shortened(bytes);
    bytes
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
    /// The error that a test has the last submission end with.
    #[cfg(test)]
    bent: Option<i32>,
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
    fn may_repeat(&self) -> bool;
    #[cfg(test)]
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

impl<T: Operation> ErasedOperation for T {
    fn entry(&mut self) -> squeue::Entry {
        Operation::entry(self)
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        Operation::advance(self, result)
    }

    fn may_repeat(&self) -> bool {
        Operation::may_repeat(self)
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
        let index = self.slots.insert(Slot {
            operation,
            generation,
            retries: 0,
            orphan,
            owner,
            #[cfg(test)]
            bent: None,
        });
        Key { index: u32::try_from(index).expect("fewer than 2^32 operations"), generation }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.generation == key.generation).then_some(slot)
    }

    /// The next submission of an operation.
    pub(super) fn entry(&mut self, key: Key) -> squeue::Entry {
        let slot = self.slot(key).expect("submitted by its future or by `completed`: it lives");
        #[cfg(test)]
        if let Some(error) = super::shim::before(slot.operation.name()) {
            slot.bent = Some(error);
            return opcode::Nop::new().build().user_data(key.user_data());
        }
        let entry = slot.operation.entry();
        #[cfg(test)]
        super::shim::after();
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
        #[cfg(test)]
        let result = slot.bent.take().map_or(result, |error| -error);
        let unwanted = matches!(slot.owner, Owner::Nobody) && matches!(slot.orphan, Orphan::Cancel);
        let again = matches!(result.wrapping_neg(), libc::EAGAIN | libc::EINTR);
        let may_repeat = !unwanted && slot.operation.may_repeat();
        if again && may_repeat && slot.retries < RETRIES_MAX {
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

#[cfg(test)]
mod tests {
    use super::*;

    use std::rc::Rc;

    use io_uring::types;

    /// Wants two bytes in all, and says through its counter whether it is alive.
    struct TwoBytes<const FINISH: bool>(u32, #[expect(dead_code, reason = "counted")] Rc<()>);

    impl<const FINISH: bool> Operation for TwoBytes<FINISH> {
        const ORPHAN: Orphan = if FINISH { Orphan::Finish } else { Orphan::Cancel };

        fn entry(&mut self) -> squeue::Entry {
            opcode::Fsync::new(types::Fd(0)).build()
        }

        fn advance(&mut self, result: io::Result<u32>) -> Step {
            self.0 += result.unwrap_or(2);
            if self.0 < 2 { Step::Again } else { Step::Done }
        }
    }

    fn insert<const FINISH: bool>(ops: &mut Ops) -> (u64, Key, Rc<()>) {
        let alive = Rc::new(());
        let operation = Box::new(TwoBytes::<FINISH>(0, Rc::clone(&alive)));
        let key = ops.insert(operation, TwoBytes::<FINISH>::ORPHAN);
        (key.user_data(), key, alive)
    }

    #[test]
    fn interrupted_and_short_operations_are_submitted_again() {
        let mut ops = Ops::default();
        let (name, key, _) = insert::<true>(&mut ops);
        for result in [-libc::EINTR, -libc::EAGAIN, 1] {
            assert!(matches!(ops.completed(name, result), After::Resubmit(again) if again == key));
        }
        assert!(ops.take_done(key, Waker::noop()).is_none());
        assert!(matches!(ops.completed(name, 1), After::Wake(_)));
        assert!(ops.take_done(key, Waker::noop()).is_some());
        assert!(matches!(ops.abandon(key), Abandoned::Taken), "its future is dropped afterwards");
        assert!(ops.slots.is_empty());
    }

    #[test]
    fn a_kernel_that_only_says_again_is_believed_in_the_end() {
        let mut ops = Ops::default();
        let (name, key, _) = insert::<true>(&mut ops);
        for _ in 0..RETRIES_MAX {
            assert!(matches!(ops.completed(name, -libc::EAGAIN), After::Resubmit(_)));
        }
        assert!(matches!(ops.completed(name, -libc::EAGAIN), After::Nothing));
        assert!(ops.take_done(key, Waker::noop()).is_some());
    }

    #[test]
    fn an_orphan_that_writes_goes_on_to_its_end_and_is_freed_there() {
        let mut ops = Ops::default();
        let (name, key, alive) = insert::<true>(&mut ops);
        assert!(matches!(ops.abandon(key), Abandoned::LeftAlone));
        assert!(matches!(ops.completed(name, -libc::EINTR), After::Resubmit(_)));
        assert!(matches!(ops.completed(name, 1), After::Resubmit(_)));
        assert_eq!(Rc::strong_count(&alive), 2);
        assert!(matches!(ops.completed(name, 1), After::Drop(_)));
        assert_eq!(Rc::strong_count(&alive), 1);
    }

    #[test]
    fn an_orphan_that_reads_is_cancelled_and_freed_at_its_last_completion() {
        for last in [-libc::ECANCELED, -libc::EINTR, 1, 2] {
            let mut ops = Ops::default();
            let (name, key, alive) = insert::<false>(&mut ops);
            assert!(matches!(ops.abandon(key), Abandoned::Cancel));
            assert!(matches!(ops.completed(CANCELLATION, -libc::ENOENT), After::Nothing));
            assert_eq!(Rc::strong_count(&alive), 2, "the kernel may still write to it");
            assert!(matches!(ops.completed(name, last), After::Drop(_)));
            assert_eq!(Rc::strong_count(&alive), 1);
        }
    }

    #[test]
    fn a_name_is_never_that_of_a_later_operation() {
        let mut ops = Ops::default();
        let (name, key, _) = insert::<true>(&mut ops);
        assert!(matches!(ops.completed(name, 2), After::Nothing));
        assert!(matches!(ops.abandon(key), Abandoned::Finished(_)));
        let (later, _, _) = insert::<true>(&mut ops);
        assert_eq!(name as u32, later as u32, "the same place");
        assert_ne!(name, later);
    }
}
