//! S26 and S27: what the network does to an idempotent producer's requests and answers (KIP-98).

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Limits, batches, records};
use flowstone_types::{Offset, ProducerId};
use flowstone_wire::ErrorCode;
use flowstone_wire::client::decode;
use flowstone_wire::messages::ProduceRequest;

use crate::client::{
    ANSWER_WITHIN, Client, PRODUCE_VERSION, Produced, Wanted, create_topic, fetch, init_producer,
    now, produce, produce_request, produced,
};
use crate::load::{Identity, Load, Plan};
use crate::proxy::{Answers, Proxy};
use crate::stage::{Random, Stage};

/// `max.in.flight.requests.per.connection` of an idempotent producer, at most.
const IN_FLIGHT_MAX: usize = 5;
/// Rounds of each, in full and for `make test`.
const ROUNDS: (u32, u32) = (20, 200);
/// How long a load runs through the proxy.
const LOAD_RUNS: Duration = Duration::from_secs(10);
const TOPIC: &str = "answers";

/// S26: a new partition's first batches arrive in another order than they were sent in.
pub fn swapped(stage: &mut Stage) -> anyhow::Result<()> {
    let daemon = stage.launch("data").start()?;
    let mut client = Client::connect(daemon.address(), ANSWER_WITHIN)?;
    let rounds = stage.rounds(ROUNDS.0, ROUNDS.1);
    created(&mut client, rounds as i32)?;
    for partition in 0..rounds as i32 {
        let identity = identity(&mut client)?;
        let count = stage.random.between(2, IN_FLIGHT_MAX as u64 + 1) as usize;
        let mut order: Vec<usize> = (0..count).collect();
        while order.is_sorted() {
            shuffle(&mut order, &mut stage.random);
        }
        let mut told = vec![None; count];
        let mut next = 0; // What the broker must wait for.
        for &index in &order {
            let answer = produce(&mut client, TOPIC, partition, batch(identity, index))?;
            let expected =
                if index == next { ErrorCode::None } else { ErrorCode::OutOfOrderSequenceNumber };
            ensure!(
                answer.code == expected,
                "batches in order {order:?}: number {index} was answered {}, not {expected}",
                answer.code
            );
            if index == next {
                (told[index], next) = (Some(answer.base_offset), next + 1);
            } else {
                stage.count("refused as out of order", 1);
            }
        }
        for (index, told) in told.iter_mut().enumerate().filter(|(_, told)| told.is_none()) {
            let answer = produce(&mut client, TOPIC, partition, batch(identity, index))?;
            ensure!(answer.code == ErrorCode::None, "the retry of {index}: {}", answer.code);
            *told = Some(answer.base_offset);
        }
        holds_exactly(&mut client, partition, count, &told)?;
        stage.count("partitions", 1);
    }
    Ok(())
}

/// S27: batches are appended, and their answers never arrive.
pub fn unheard(stage: &mut Stage) -> anyhow::Result<()> {
    let daemon = stage.launch("data").start()?;
    let proxy = Proxy::start(daemon.address())?;
    let mut direct = Client::connect(daemon.address(), ANSWER_WITHIN)?;
    let rounds = stage.rounds(ROUNDS.0, ROUNDS.1);
    created(&mut direct, rounds as i32)?;
    for partition in 0..rounds as i32 {
        let identity = identity(&mut direct)?;
        let count = stage.random.between(1, IN_FLIGHT_MAX as u64 + 1) as usize;
        let heard = stage.random.between(0, count as u64) as usize;
        proxy.answers(Answers::PassThenSwallow(heard));
        let mut client = Client::connect(proxy.address(), ANSWER_WITHIN)?;
        let mut sent = Vec::new();
        for index in 0..count {
            let request = produce_request(TOPIC, partition, batch(identity, index));
            sent.push(client.send(PRODUCE_VERSION, &request)?);
        }
        let mut answers = Vec::new();
        for &number in &sent[..heard] {
            answers.push(produced(&client.receive::<ProduceRequest>(PRODUCE_VERSION, number)?));
        }
        for frame in proxy.swallowed(count - heard, ANSWER_WITHIN) {
            answers.push(produced(&decode::<ProduceRequest>(PRODUCE_VERSION, frame)?));
        }
        proxy.cut();
        ensure!(answers.len() == count, "{} of {count} were answered", answers.len());
        let mut told = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            ensure!(answer.code == ErrorCode::None, "batch {index}: {}", answer.code);
            told.push(Some(answer.base_offset));
        }
        // It retries all it did not hear of, on another connection, as clients do.
        for index in heard..count {
            let again = produce(&mut direct, TOPIC, partition, batch(identity, index))?;
            let wanted = Produced { code: ErrorCode::None, base_offset: index as i64 };
            ensure!(again == wanted, "the retry of {index} of {count} was answered {again:?}");
            stage.count("retries deduplicated", 1);
        }
        holds_exactly(&mut direct, partition, count, &told)?;
    }
    // The same to a whole load: some answers are swallowed, and the connection cut behind each.
    proxy.answers(Answers::CutEvery(50));
    let plan = Plan { identity: Identity::Idempotent, ..Plan::default() };
    let load = Load::start(proxy.address(), plan)?;
    std::thread::sleep(LOAD_RUNS);
    proxy.answers(Answers::Pass);
    let totals = load.verdict()?;
    stage.count("records acknowledged", totals.acknowledged);
    Ok(())
}

fn created(client: &mut Client, partitions: i32) -> anyhow::Result<()> {
    let code = create_topic(client, TOPIC, partitions, &[])?;
    ensure!(code == ErrorCode::None, "cannot create {TOPIC}: {code}");
    Ok(())
}

fn identity(client: &mut Client) -> anyhow::Result<(i64, i16)> {
    init_producer(client)?.map_err(|code| anyhow::anyhow!("no producer id: {code}"))
}

/// The producer's batch of this number: one record, which says which it is.
fn batch((id, epoch): (i64, i16), index: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Offset::ZERO).producer(ProducerId(id), epoch, index as i32);
    builder.push(now(), None, Some(format!("{id}/{index}").as_bytes()), &[]);
    builder.build()
}

fn holds_exactly(
    client: &mut Client,
    partition: i32,
    count: usize,
    told: &[Option<i64>],
) -> anyhow::Result<()> {
    let wanted = Wanted { partition, offset: 0, bytes_max: 1 << 20, wait: Duration::ZERO };
    let log = fetch(client, TOPIC, wanted)?;
    ensure!(log.code == ErrorCode::None, "cannot read {TOPIC}-{partition}: {}", log.code);
    let mut found = 0..0;
    for batch in batches(&log.records) {
        let (at, _, batch) = batch?;
        let bytes = log.records.slice(at..at + batch.len());
        for record in records(&bytes, &Limits::default())? {
            let record = record?;
            let value = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
            let index = value.rsplit('/').next().context("a value")?.parse::<usize>()?;
            grows(&mut found, record.offset.0, index)?;
        }
    }
    ensure!(found == (0..count), "{} records, {count} were sent", found.end);
    let places: Vec<_> = (0..count as i64).map(Some).collect();
    ensure!(told == places, "acknowledged at {told:?}, and they are at {places:?}");
    Ok(())
}

fn grows(found: &mut Range<usize>, offset: i64, index: usize) -> anyhow::Result<()> {
    if offset != found.end as i64 || index != found.end {
        bail!("offset {offset} holds batch {index}: {} was to come", found.end);
    }
    found.end += 1;
    Ok(())
}

fn shuffle(order: &mut [usize], random: &mut Random) {
    for last in (1..order.len()).rev() {
        order.swap(last, random.between(0, last as u64 + 1) as usize);
    }
}
