//! Reading many partitions, wherever they live, until there is enough.
//!
//! One look at each partition's owner; where that is too little, a wake-up is left at each, and the
//! next look comes when one of them moved, until the time is over. Nobody polls.

use crate::fetch_session::Wanted;
use crate::partition::{Partition, Wake, add};
use crate::refusal::Refusal;
use crate::shard::Shard;
use bytes::Bytes;
use flowstone_partition::WaitKey;
use flowstone_runtime::{deadline, local::Notify, now, spawn};
use flowstone_types::{Instant, LeaderEpoch, Offset, PartitionId};
use flowstone_wire::ErrorCode;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What one partition has for a consumer.
pub struct Found {
    /// Whole batches, as they stand on disk.
    pub parts: Vec<Bytes>,
    /// Their length.
    pub bytes: usize,
    /// The high watermark when it was looked at.
    pub high_watermark: Offset,
    /// The log start offset then.
    pub log_start: Offset,
    /// Where the consumer's log parts from ours, if its last epoch says so (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// One slice of what several hold; copies only where there are several.
pub fn whole(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.remove(0),
        _ => parts.concat().into(),
    }
}

/// What a look at one partition gave.
pub type Look = Result<Found, Refusal>;

/// How much is wanted, and how long to wait for it.
#[derive(Clone, Copy)]
pub struct Appetite {
    /// Wait until there are this many bytes,
    pub min_bytes: usize,
    /// or until then.
    pub until: Instant,
    /// At most this many bytes; a first batch may be larger (KIP-74).
    pub max_bytes: usize,
}

/// One partition to look at; `place` says where its look goes.
#[derive(Clone)]
struct Task {
    place: usize,
    id: PartitionId,
    wanted: Wanted<()>,
}

/// The room left in one response.
#[derive(Clone, Copy)]
struct Room {
    bytes: usize,
    /// Nothing was found yet, so the next batch found may be larger than the room.
    empty: bool,
}

impl Room {
    fn fill(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.empty &= bytes == 0;
    }
}

/// A look at one owner's partitions, and the wake-ups left there.
struct Seen {
    looks: Vec<(usize, Look)>,
    waits: Vec<(PartitionId, WaitKey)>,
}

/// Wake-ups from other shards: each fetch that waits leaves one ticket here.
#[derive(Default)]
pub struct Tickets {
    waiting: RefCell<HashMap<u64, Rc<Notify>>>,
    next: Cell<u64>,
}

impl Tickets {
    fn take(&self, moved: &Rc<Notify>) -> u64 {
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        self.waiting.borrow_mut().insert(ticket, Rc::clone(moved));
        ticket
    }

    fn ring(&self, ticket: u64) {
        if let Some(moved) = self.waiting.borrow().get(&ticket) {
            moved.notify_all();
        }
    }

    fn give_back(&self, ticket: u64) {
        self.waiting.borrow_mut().remove(&ticket);
    }
}

/// Looks at `partitions` until the appetite is met; an error or a divergence is told at once.
pub async fn read(
    shard: &Rc<Shard>,
    partitions: Vec<Result<(PartitionId, Wanted<()>), Refusal>>,
    appetite: Appetite,
) -> Vec<Look> {
    let mut by_owner: BTreeMap<usize, Vec<Task>> = BTreeMap::new();
    let mut unresolved = false;
    let mut looks: Vec<Option<Look>> = Vec::with_capacity(partitions.len());
    for (place, partition) in partitions.into_iter().enumerate() {
        looks.push(match partition {
            Ok((id, wanted)) => {
                by_owner.entry(shard.owner_of(id)).or_default().push(Task { place, id, wanted });
                None
            }
            Err(refusal) => {
                unresolved = true;
                Some(Err(refusal))
            }
        });
    }
    let moved = Rc::new(Notify::new());
    let ticket = shard.tickets.take(&moved);
    loop {
        // Taken before the first look, so that no move between look and wait is missed.
        let next_move = moved.notified();
        let mut room = Room { bytes: appetite.max_bytes, empty: true };
        let mut found = 0;
        let mut settled = unresolved || now() >= appetite.until;
        let mut waits = Vec::new();
        for (owner, tasks) in &by_owner {
            let wait = !settled && found < appetite.min_bytes;
            let seen = look_at(shard, *owner, tasks.clone(), room, wait, &moved, ticket).await;
            for (place, look) in seen.looks {
                match &look {
                    Ok(got) => {
                        found += got.bytes;
                        room.fill(got.bytes);
                        settled |= got.diverging.is_some();
                    }
                    Err(_) => settled = true,
                }
                looks[place] = Some(look);
            }
            waits.push((*owner, seen.waits));
        }
        settled |= found >= appetite.min_bytes;
        if !settled {
            deadline(appetite.until, next_move).await;
        }
        for (owner, waits) in waits {
            forget(shard, owner, waits).await;
        }
        if settled {
            shard.tickets.give_back(ticket);
            return looks
                .into_iter()
                .map(|look| look.expect("every place was looked at"))
                .collect();
        }
    }
}

async fn look_at(
    shard: &Rc<Shard>,
    owner: usize,
    tasks: Vec<Task>,
    room: Room,
    wait: bool,
    moved: &Rc<Notify>,
    ticket: u64,
) -> Seen {
    if owner == shard.index {
        let moved = Rc::clone(moved);
        let wake = move || -> Wake {
            let moved = Rc::clone(&moved);
            Box::new(move || moved.notify_all())
        };
        return look_here(shard, tasks, room, wait.then_some(&wake)).await;
    }
    let home = shard.index;
    let work = move |owner: &Rc<Shard>| {
        let owner = Rc::clone(owner);
        async move {
            let wake = || ring_from_afar(&owner, home, ticket);
            look_here(&owner, tasks, room, wait.then_some(&wake)).await
        }
    };
    shard.call(owner, work).await
}

/// A wake-up at this shard for a fetch that waits on shard `home`.
fn ring_from_afar(shard: &Rc<Shard>, home: usize, ticket: u64) -> Wake {
    let shard = Rc::clone(shard);
    Box::new(move || {
        spawn(async move {
            let ring = move |home: &Rc<Shard>| home.tickets.ring(ticket);
            shard.peers.send(home, Box::new(ring)).await;
        });
    })
}

async fn look_here(
    shard: &Shard,
    tasks: Vec<Task>,
    mut room: Room,
    wake: Option<&dyn Fn() -> Wake>,
) -> Seen {
    let mut seen = Seen { looks: Vec::with_capacity(tasks.len()), waits: Vec::new() };
    for Task { place, id, wanted } in tasks {
        let look = match shard.partition(id) {
            Ok(partition) => {
                if let Some(wake) = wake {
                    // Left before reading: a move while we read must not be missed.
                    seen.waits.extend(partition.await_data(wake()).map(|key| (id, key)));
                }
                look_into(&partition, &wanted, room).await
            }
            Err(refusal) => Err(refusal),
        };
        if let Ok(found) = &look {
            room.fill(found.bytes);
        }
        seen.looks.push((place, look));
    }
    seen
}

/// One partition's answer (kafka-reference section 1.2, Fetch; KIP-320 for the epochs).
async fn look_into(partition: &Partition, wanted: &Wanted<()>, room: Room) -> Look {
    let traffic = &partition.traffic;
    add(&traffic.fetch_requests, 1);
    let look = find(partition, wanted, room).await;
    match &look {
        Ok(found) => add(&traffic.bytes_out, found.bytes as u64),
        Err(_) => add(&traffic.fetch_failed, 1),
    }
    look
}

async fn find(partition: &Partition, wanted: &Wanted<()>, room: Room) -> Look {
    partition.check_epoch(wanted.current_leader_epoch)?;
    let log = &partition.log;
    let high_watermark = partition.high_watermark();
    let mut found = Found {
        parts: Vec::new(),
        bytes: 0,
        high_watermark,
        log_start: log.log_start(),
        diverging: diverging(partition, wanted)?,
    };
    if found.diverging.is_some() {
        return Ok(found);
    }
    let from = Offset(wanted.offset);
    if from < found.log_start || from > log.log_end() {
        return Err(ErrorCode::OffsetOutOfRange.into());
    }
    let most = room.bytes.min(usize::try_from(wanted.max_bytes).unwrap_or(0));
    if from < high_watermark && (most > 0 || room.empty) {
        let read = log.read(from, high_watermark, most, room.empty).await?;
        found.parts = read.parts;
        found.bytes = read.bytes;
    }
    Ok(found)
}

/// "If the leader's log has no record of that epoch up to that offset, the two logs parted." An epoch
/// that this log never came to cannot be answered so: as in Kafka, the consumer is out of range.
fn diverging(
    partition: &Partition,
    wanted: &Wanted<()>,
) -> Result<Option<(LeaderEpoch, Offset)>, Refusal> {
    if wanted.last_fetched_epoch < 0 {
        return Ok(None);
    }
    let (epoch, end) = partition.log.epoch_end_offset(LeaderEpoch(wanted.last_fetched_epoch));
    if epoch.0 < 0 || end.0 < 0 {
        return Err(ErrorCode::OffsetOutOfRange.into());
    }
    let parted = epoch.0 < wanted.last_fetched_epoch || end < Offset(wanted.offset);
    Ok(parted.then_some((epoch, end)))
}

async fn forget(shard: &Rc<Shard>, owner: usize, waits: Vec<(PartitionId, WaitKey)>) {
    let forget = move |shard: &Rc<Shard>| {
        for (id, key) in waits {
            if let Ok(partition) = shard.partition(id) {
                partition.forget(key);
            }
        }
    };
    if owner == shard.index {
        forget(shard);
    } else {
        shard.peers.send(owner, Box::new(forget)).await;
    }
}
