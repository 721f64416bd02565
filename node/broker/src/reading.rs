//! Reading many partitions, wherever they live, until there is enough.
//!
//! One look at each partition; where that is too little, a wake-up is left at each that has nothing,
//! and the next look comes when one of them moved, until the time is over. Nobody polls. What lives on
//! this shard is looked at in place, by what the connection has standing there; every other shard is
//! asked once a look, for all its partitions.

use crate::api::fetch::Key;
use crate::client::Client;
use crate::fetch_session::Wanted;
use crate::partition::{Partition, Wake, Woken, add};
use crate::refusal::Refusal;
use crate::shard::Shard;
use crate::standing::{Place, Standing};
use bytes::Bytes;
use flowstone_partition::WaitKey;
use flowstone_runtime::{deadline, local::Notify, now};
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

/// One partition of another shard to look at; `place` says where its look goes.
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

/// Looks at the partitions of `wanted` until the appetite is met; an error or a divergence is told
/// at once.
pub async fn read(
    shard: &Rc<Shard>,
    client: &Client,
    standing: &mut Standing,
    wanted: &[Wanted<Key>],
    appetite: Appetite,
) -> Vec<Look> {
    let keys = || wanted.iter().map(|wanted| &wanted.key);
    standing.take_up(shard, client, keys());
    let moved = Rc::clone(&standing.moved);
    let mut afar = Afar { shard, ticket: None };
    loop {
        if !standing.is_current(shard) {
            standing.take_up(shard, client, keys());
        }
        // Taken before the first look, so that no move between look and wait is missed.
        let next_move = moved.notified();
        let mut sum = Sum {
            room: Room { bytes: appetite.max_bytes, empty: true },
            found: 0,
            wanted: appetite.min_bytes,
            settled: now() >= appetite.until,
        };
        let mut looks = look_around(standing, wanted, &mut sum).await;
        let waits = afar.look(standing, wanted, &mut looks, &mut sum).await;
        let settled = sum.is_settled();
        if !settled {
            deadline(appetite.until, next_move).await;
        }
        for (owner, waits) in waits {
            if !waits.is_empty() {
                forget(shard, owner, waits).await;
            }
        }
        if settled {
            standing.rest();
            return looks
                .into_iter()
                .map(|look| look.expect("every place was looked at"))
                .collect();
        }
    }
}

/// What one look around comes to.
struct Sum {
    room: Room,
    found: usize,
    wanted: usize,
    /// There is something to be told at once.
    settled: bool,
}

impl Sum {
    fn add(&mut self, look: &Look) {
        match look {
            Ok(got) => {
                self.found += got.bytes;
                self.room.fill(got.bytes);
                self.settled |= got.diverging.is_some();
            }
            Err(_) => self.settled = true,
        }
    }

    fn is_settled(&self) -> bool {
        self.settled || self.found >= self.wanted
    }
}

/// Looks at what lives here or cannot be found; the others' places stay empty.
async fn look_around(
    standing: &Standing,
    wanted: &[Wanted<Key>],
    sum: &mut Sum,
) -> Vec<Option<Look>> {
    let mut looks = Vec::with_capacity(wanted.len());
    for (place, wanted) in standing.places().zip(wanted) {
        let look = match place {
            Err(refusal) => Err(refusal.clone()),
            Ok(Place { here: None, .. }) => {
                looks.push(None);
                continue;
            }
            Ok(Place { here: Some(here), .. }) => match here.partition() {
                Some(partition) => {
                    // Left before reading: a move while we read must not be missed. One that has enough by
                    // itself is not waited for.
                    let has_more = wanted.offset < partition.high_watermark().0;
                    if !(sum.is_settled() || has_more && sum.wanted <= 1) {
                        here.wait(&partition);
                    }
                    look_into(&partition, wanted, sum.room).await
                }
                None => Err(ErrorCode::NotLeaderOrFollower.into()), // Deleted just now.
            },
        };
        sum.add(&look);
        looks.push(Some(look));
    }
    looks
}

/// The looks at other shards' partitions.
struct Afar<'a> {
    shard: &'a Rc<Shard>,
    /// For the wake-ups there; taken where one is needed.
    ticket: Option<u64>,
}

impl Drop for Afar<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shard.tickets.give_back(ticket);
        }
    }
}

impl Afar<'_> {
    /// Fills the places that are still empty; returns the wake-ups that were left, by owner.
    async fn look(
        &mut self,
        standing: &Standing,
        wanted: &[Wanted<Key>],
        looks: &mut [Option<Look>],
        sum: &mut Sum,
    ) -> Vec<(usize, Vec<(PartitionId, WaitKey)>)> {
        let mut by_owner: BTreeMap<usize, Vec<Task>> = BTreeMap::new();
        for (place, (found, wanted)) in standing.places().zip(wanted).enumerate() {
            if let Ok(Place { id, owner, here: None }) = found {
                let task = Task { place, id: *id, wanted: wanted.without_key() };
                by_owner.entry(*owner).or_default().push(task);
            }
        }
        let mut waits = Vec::new();
        for (owner, tasks) in by_owner {
            let home = self.shard.index;
            let shard = self.shard;
            let moved = &standing.moved;
            let ticket = (!sum.is_settled())
                .then(|| *self.ticket.get_or_insert_with(|| shard.tickets.take(moved)));
            let room = sum.room;
            let work = move |owner: &Rc<Shard>| {
                let wake = ticket.map(|ticket| ring_from_afar(owner, home, ticket));
                let owner = Rc::clone(owner);
                async move { look_there(&owner, tasks, room, wake).await }
            };
            let seen = shard.call(owner, work).await;
            for (place, look) in seen.looks {
                sum.add(&look);
                looks[place] = Some(look);
            }
            waits.push((owner, seen.waits));
        }
        waits
    }
}

/// A wake-up at this shard for a fetch that waits on shard `home`.
struct FromAfar {
    shard: Rc<Shard>,
    home: usize,
    ticket: u64,
}

fn ring_from_afar(shard: &Rc<Shard>, home: usize, ticket: u64) -> Wake {
    Rc::new(FromAfar { shard: Rc::clone(shard), home, ticket })
}

impl Woken for FromAfar {
    fn wake(self: Rc<Self>) {
        let ticket = self.ticket;
        let ring = move |home: &Rc<Shard>| home.tickets.ring(ticket);
        self.shard.dispatch(self.home, Box::new(ring));
    }
}

async fn look_there(shard: &Shard, tasks: Vec<Task>, mut room: Room, wake: Option<Wake>) -> Seen {
    let mut seen = Seen { looks: Vec::with_capacity(tasks.len()), waits: Vec::new() };
    for Task { place, id, wanted } in tasks {
        let look = match shard.partition(id) {
            Ok(partition) => {
                if let Some(wake) = &wake {
                    // Left before reading: a move while we read must not be missed.
                    let key = partition.await_data(Rc::clone(wake));
                    seen.waits.extend(key.map(|key| (id, key)));
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
async fn look_into<K>(partition: &Partition, wanted: &Wanted<K>, room: Room) -> Look {
    let traffic = &partition.traffic;
    add(&traffic.fetch_requests, 1);
    // Most partitions of a consumer at the tail have nothing new: those cost no future of their own.
    let look = match glance(partition, wanted, room) {
        Ok((found, None)) => return Ok(found),
        Ok((found, Some(most))) => fill(partition, wanted, room, found, most).await,
        Err(refusal) => Err(refusal),
    };
    match &look {
        Ok(found) => add(&traffic.bytes_out, found.bytes as u64),
        Err(_) => add(&traffic.fetch_failed, 1),
    }
    look
}

/// All but the records; and at most how many bytes of those to read, where there are any.
fn glance<K>(
    partition: &Partition,
    wanted: &Wanted<K>,
    room: Room,
) -> Result<(Found, Option<usize>), Refusal> {
    partition.check_epoch(wanted.current_leader_epoch)?;
    let log = &partition.log;
    let high_watermark = partition.high_watermark();
    let log_start = log.log_start();
    let diverging = diverging(partition, wanted)?;
    let from = Offset(wanted.offset);
    let parted = diverging.is_some();
    if !parted && (from < log_start || (from > high_watermark && from > log.log_end())) {
        return Err(ErrorCode::OffsetOutOfRange.into());
    }
    let most = room.bytes.min(usize::try_from(wanted.max_bytes).unwrap_or(0));
    let reads = !parted && from < high_watermark && (most > 0 || room.empty);
    let found = Found { parts: Vec::new(), bytes: 0, high_watermark, log_start, diverging };
    Ok((found, reads.then_some(most)))
}

async fn fill<K>(
    partition: &Partition,
    wanted: &Wanted<K>,
    room: Room,
    mut found: Found,
    most: usize,
) -> Look {
    let from = Offset(wanted.offset);
    let read = partition.log.read(from, found.high_watermark, most, room.empty).await?;
    (found.parts, found.bytes) = (read.parts, read.bytes);
    Ok(found)
}

/// "If the leader's log has no record of that epoch up to that offset, the two logs parted." An epoch
/// that this log never came to cannot be answered so: as in Kafka, the consumer is out of range.
fn diverging<K>(
    partition: &Partition,
    wanted: &Wanted<K>,
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
    shard.peers.send(owner, Box::new(forget)).await;
}
