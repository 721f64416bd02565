//! A producer: windows of batches, several under way at once, each sent until its fate is known.

use std::ops::Range;
use std::thread::sleep;
use std::time::Instant;

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_history::{RecordId, Violation};
use flowstone_types::{Offset, ProducerId};
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::ProduceRequest;

use super::{Identity, Link, Shared, lock};
use crate::client::{
    ClientError, PRODUCE_VERSION, Produced, init_producer, now, produce_request, produced,
};
use crate::stage::Random;

/// Tries of a batch without identity: each may leave a copy.
const PLAIN_ATTEMPTS: u32 = 3;

/// A batch whose fate is not known.
struct Batch {
    partition: i32,
    numbers: Range<u32>,
    request: ProduceRequest,
    attempts: u32,
}

/// Produces until the load stops.
pub(super) fn run(shared: &Shared, number: u32) {
    let mut link = Link::new(shared);
    let plain = shared.plan.identity == Identity::Mixed && number % 3 == 2;
    let identity = if plain { None } else { identity(shared, &mut link) };
    if !plain && identity.is_none() {
        return; // The load was over before it began.
    }
    let mut random = Random::new(u64::from(number));
    let mut next = vec![0_u32; shared.plan.partitions as usize];
    while !shared.stopping() {
        let mut window = Vec::new();
        for _ in 0..random.between(1, u64::from(shared.plan.in_flight) + 1) {
            let partition = random.between(0, next.len() as u64) as i32;
            let count = random.between(1, u64::from(shared.plan.batch_records_max) + 1) as u32;
            let first = next[partition as usize];
            let numbers = first..first + count;
            next[partition as usize] = numbers.end;
            let records = build(shared, partition, number, numbers.clone(), identity);
            let request = produce_request(&shared.plan.topic, partition, records);
            window.push(Batch { partition, numbers, request, attempts: 0 });
        }
        while !window.is_empty() && !shared.over() {
            window = round(shared, &mut link, number, identity.is_some(), window);
        }
        sleep(shared.plan.pause);
    }
}

fn identity(shared: &Shared, link: &mut Link) -> Option<(i64, i16)> {
    while !shared.over() {
        match link.with(init_producer) {
            Some(Ok(identity)) => return Some(identity),
            Some(Err(code)) if code.is_retriable() => {
                shared.refused("identity", code);
                sleep(super::AGAIN_AFTER);
            }
            Some(Err(code)) => shared.broken(format!("no producer id: {code}")),
            None => {}
        }
    }
    None
}

fn build(
    shared: &Shared,
    partition: i32,
    producer: u32,
    numbers: Range<u32>,
    identity: Option<(i64, i16)>,
) -> Bytes {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    if let Some((id, epoch)) = identity {
        builder = builder.producer(ProducerId(id), epoch, numbers.start as i32);
    }
    for number in numbers {
        let value = shared.value(partition, RecordId { producer, number });
        builder.push(now(), None, Some(&value), &[]);
    }
    builder.build()
}

/// Sends the window's batches and hears of each; returns those that must be sent again, in order.
fn round(
    shared: &Shared,
    link: &mut Link,
    producer: u32,
    idempotent: bool,
    mut window: Vec<Batch>,
) -> Vec<Batch> {
    for batch in &mut window {
        batch.attempts += 1;
        let history = &mut shared.partition(batch.partition).history;
        for number in batch.numbers.clone() {
            history.sending(RecordId { producer, number }, idempotent);
        }
    }
    let mut answers = Vec::new();
    link.with(|client| {
        let mut sent = Vec::new();
        for batch in &window {
            sent.push((client.send(PRODUCE_VERSION, &batch.request)?, Instant::now()));
        }
        for (number, since) in sent {
            let response = client.receive::<ProduceRequest>(PRODUCE_VERSION, number)?;
            answers.push(produced(&response));
            let _ = lock(&shared.latency_us).record(since.elapsed().as_micros().max(1) as u64);
        }
        Ok::<_, ClientError>(())
    });
    let cut_off = answers.len() < window.len();
    let mut again = Vec::new();
    let mut answers = answers.into_iter();
    for batch in window {
        let tries_left = idempotent || batch.attempts < PLAIN_ATTEMPTS;
        let done = match answers.next() {
            None => !tries_left,
            Some(answer) => {
                let waits =
                    again.iter().any(|earlier: &Batch| earlier.partition == batch.partition);
                heard(shared, producer, &batch, answer, waits) || !tries_left
            }
        };
        if !done {
            again.push(batch);
        }
    }
    if !again.is_empty() && !cut_off {
        sleep(super::AGAIN_AFTER);
    }
    again
}

/// Whether the batch's fate is known now. `waits`: one before it in its partition was refused.
fn heard(shared: &Shared, producer: u32, batch: &Batch, answer: Produced, waits: bool) -> bool {
    let partition = batch.partition;
    match answer.code {
        ErrorCode::None => {
            let mut guard = shared.partition(partition);
            for (number, offset) in batch.numbers.clone().zip(answer.base_offset..) {
                let record = RecordId { producer, number };
                let judged = guard.history.acknowledged(record, offset);
                if shared.judge(partition, judged).is_none() {
                    return true;
                }
            }
            let count = u64::from(batch.numbers.end - batch.numbers.start);
            shared.acknowledged.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
            true
        }
        // An old duplicate: it is in the log, and nobody knows where any more.
        ErrorCode::DuplicateSequenceNumber if batch.attempts > 1 => true,
        // The gap is what was refused just before.
        ErrorCode::OutOfOrderSequenceNumber if waits => false,
        code @ (ErrorCode::OutOfOrderSequenceNumber
        | ErrorCode::UnknownProducerId
        | ErrorCode::InvalidProducerEpoch) => {
            let record = RecordId { producer, number: batch.numbers.start };
            let forgotten = Violation::Forgotten { record, answer: code.to_string() };
            shared.judge(partition, Err::<(), _>(forgotten));
            true
        }
        code if code.is_retriable() => {
            shared.refused("produce", code);
            false
        }
        code => {
            shared.broken(format!("{}: a produce was refused: {code}", shared.place(partition)));
            true
        }
    }
}
