//! A reader: partitions from their earliest offset on, and what it committed of them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use flowstone_batch::{Limits, batches, crc_ok, records};
use flowstone_history::{RecordId, Violation};
use flowstone_wire::ErrorCode;

use super::{Link, Shared};
use crate::client::{Wanted, commit, committed, fetch, find_coordinator, offsets};

/// Most bytes of one answer.
const FETCH_BYTES_MAX: i32 = 1 << 20;
/// Time between two looks at a partition.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A reader commits after so many looks, and asks for its commit half-way between.
const COMMIT_EVERY: u64 = 8;

/// What one fetch brought.
struct Read {
    /// What the next fetch asks for.
    next: i64,
    records: Vec<(i64, RecordId)>,
    /// The high watermark was reached.
    at_end: bool,
}

/// Reads until the load stops: the partitions that are this reader's.
pub(super) fn run(shared: &Shared, reader: u32) {
    let mut link = Link::new(shared);
    let own = (0..shared.plan.partitions).filter(|it| *it as u32 % shared.plan.readers == reader);
    let mut positions: Vec<_> = own.map(|partition| (partition, 0)).collect();
    let mut looks = 0_u64;
    while !shared.stopping() && !shared.over() {
        looks += 1;
        for (partition, position) in &mut positions {
            if let Some(read) = look(shared, &mut link, *partition, *position) {
                *position = read.next;
            }
            match (looks + *partition as u64) % COMMIT_EVERY {
                0 => commit_to(shared, &mut link, *partition, *position),
                4 => ask_commit(shared, &mut link, *partition),
                _ => {}
            }
        }
        sleep(LOOK_EVERY);
    }
}

/// The whole partition from its log start on, as long as errors last no longer than `settle_max`.
pub(super) fn whole(
    shared: &Shared,
    partition: i32,
    settle_max: Duration,
) -> anyhow::Result<Vec<(i64, RecordId)>> {
    let mut link = Link::new(shared);
    let until = Instant::now() + settle_max;
    // What retention had taken may be back: its removal is not flushed at once, and nothing is promised of it.
    let (mut log, mut next) = (Vec::new(), shared.partition(partition).history.start());
    loop {
        let read = look(shared, &mut link, partition, next);
        let broken = super::lock(&shared.broken).clone();
        if let Some(broken) = broken {
            bail!("{broken}");
        }
        match read {
            Some(read) => {
                log.retain(|(offset, _)| read.next > *offset);
                if read.records.is_empty() && read.next != next {
                    log.clear(); // Retention took what was read meanwhile.
                }
                next = read.next;
                log.extend(read.records);
                if read.at_end {
                    break;
                }
            }
            None if Instant::now() > until => {
                bail!("{} cannot be read: {:?}", shared.place(partition), shared.refusals.lock());
            }
            None => sleep(super::AGAIN_AFTER),
        }
    }
    // Retention may have gone on behind what was read.
    let start = shared.partition(partition).history.start();
    log.retain(|(offset, _)| *offset >= start);
    ask_commit(shared, &mut link, partition);
    super::lock(&shared.broken).clone().map_or(Ok(log), |broken| bail!("{broken}"))
}

/// One fetch from `position`; `None` where there was no answer, or a promise was broken.
fn look(shared: &Shared, link: &mut Link, partition: i32, position: i64) -> Option<Read> {
    let wait = Duration::ZERO;
    let wanted = Wanted { partition, offset: position, bytes_max: FETCH_BYTES_MAX, wait };
    let floor = shared.partition(partition).history.watermark();
    let answer = link.with(|client| fetch(client, &shared.plan.topic, wanted))?;
    let mut guard = shared.partition(partition);
    match answer.code {
        ErrorCode::None => {}
        // As from Kafka, the answer does not say what would be in range.
        ErrorCode::OffsetOutOfRange => {
            drop(guard);
            let topic = &shared.plan.topic;
            let (start, end) = link.with(|client| offsets(client, topic, partition))?.ok()?;
            // What retention had taken may be back for a while, if the daemon died meanwhile.
            let start = start.max(shared.partition(partition).history.start());
            if start <= position {
                let what = "the end of the log";
                let back = Violation::WentBack { what, before: position, after: end };
                return shared.judge(partition, Err(back));
            }
            shared.judge(partition, shared.partition(partition).history.starts_at(start))?;
            return Some(Read { next: start, records: Vec::new(), at_end: false });
        }
        code if code.is_retriable() => {
            shared.refused("fetch", code);
            return None;
        }
        code => {
            shared.broken(format!("{}: a fetch was refused: {code}", shared.place(partition)));
            return None;
        }
    }
    shared.judge(partition, guard.history.watermark_is(floor, answer.high_watermark))?;
    if answer.log_start > guard.history.start() && answer.log_start <= position {
        shared.judge(partition, guard.history.starts_at(answer.log_start))?;
    }
    let prefix = shared.prefix(partition);
    let read = parse(&answer.records, position, |offset, value| {
        let Some(rest) = value.strip_prefix(&prefix[..]) else {
            let what = format!("{:?}", String::from_utf8_lossy(&value[..value.len().min(40)]));
            return Err(Violation::Phantom { offset, what }.into());
        };
        Ok(guard.history.read(offset, rest)?)
    });
    drop(guard);
    let records = match read.with_context(|| shared.place(partition)) {
        Ok(records) => records,
        Err(error) => {
            shared.broken(format!("{error:#}"));
            return None;
        }
    };
    let next = position + records.len() as i64;
    if next > answer.high_watermark {
        shared.broken(format!("{}: served above the watermark", shared.place(partition)));
        return None;
    }
    Some(Read { next, records, at_end: next == answer.high_watermark })
}

/// The records of `bytes` from offset `position` on, which must follow each other without a gap.
fn parse(
    bytes: &Bytes,
    position: i64,
    mut judge: impl FnMut(i64, &[u8]) -> anyhow::Result<RecordId>,
) -> anyhow::Result<Vec<(i64, RecordId)>> {
    let mut read = Vec::new();
    for batch in batches(bytes) {
        let (at, header, batch) = batch.context("not whole batches are served")?;
        let base = header.base_offset.0;
        anyhow::ensure!(crc_ok(batch), "a torn batch was served at offset {base}");
        let batch = bytes.slice(at..at + batch.len());
        for record in records(&batch, &Limits::default()).context("not a batch of records")? {
            let record = record.context("not a record")?;
            let got = record.offset.0;
            if got < position {
                continue; // The batch begins before what was asked for.
            }
            let expected = position + read.len() as i64;
            if got != expected {
                return Err(Violation::Skipped { expected, got }.into());
            }
            read.push((got, judge(got, &record.value.unwrap_or_default())?));
        }
    }
    Ok(read)
}

fn commit_to(shared: &Shared, link: &mut Link, partition: i32, position: i64) {
    if position <= shared.partition(partition).commits.floor() {
        return;
    }
    let group = group(partition);
    while !shared.over() {
        shared.partition(partition).commits.committing(position);
        match link.with(|client| commit(client, &group, &shared.plan.topic, partition, position)) {
            Some(ErrorCode::None) => {
                return shared.partition(partition).commits.committed(position);
            }
            Some(code) if code.is_retriable() => {
                shared.refused("commit", code);
                link.with(|client| find_coordinator(client, &group));
                sleep(super::AGAIN_AFTER);
            }
            Some(code) => shared.broken(format!("group {group}: a commit was refused: {code}")),
            None => shared.partition(partition).commits.unanswered(position),
        }
    }
}

fn ask_commit(shared: &Shared, link: &mut Link, partition: i32) {
    let group = group(partition);
    let floor = shared.partition(partition).commits.floor();
    match link.with(|client| committed(client, &group, &shared.plan.topic, partition)) {
        Some(Ok(offset)) => {
            let judged = shared.partition(partition).commits.is(floor, offset);
            if let Err(violation) = judged {
                shared.broken(format!("group {group}: {violation}"));
            }
        }
        Some(Err(code)) => shared.refused("committed", code),
        None => {}
    }
}

fn group(partition: i32) -> String {
    format!("readers-{partition}")
}
