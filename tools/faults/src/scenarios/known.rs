//! A partition whose every record is known by its place: for damage that must never be served.
//!
//! Separate from the load, whose history wants everything that was acknowledged: where a disk with one
//! copy was damaged, records may be missing, but none may be another.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flowstone_batch::{Limits, batches, crc_ok, records};
use flowstone_wire::ErrorCode;

use crate::client::{Client, ClientError, Wanted, fetch, plain_batch, produce};

/// Records of a batch.
const BATCH: i64 = 10;
/// Bytes of a record: a thousand make more than the smallest segment.
const VALUE_BYTES: usize = 2_000;
/// How long an error may last that a retry may pass.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);

/// The value of the record at `offset`.
pub fn value(topic: &str, partition: i32, offset: i64) -> Vec<u8> {
    let head = format!("{topic}/{partition}/{offset}/");
    head.bytes().cycle().take(VALUE_BYTES).collect()
}

/// Fills a partition that is empty with so many records.
pub fn fill(client: &mut Client, topic: &str, partition: i32, count: i64) -> anyhow::Result<()> {
    fill_from(client, topic, partition, 0, count)
}

/// Adds so many records to a partition that has `from`.
pub fn fill_from(
    client: &mut Client,
    topic: &str,
    partition: i32,
    from: i64,
    count: i64,
) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLES_WITHIN;
    let mut next = from;
    while next < from + count {
        let to = (next + BATCH).min(from + count);
        let values: Vec<_> = (next..to).map(|offset| value(topic, partition, offset)).collect();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let answer = produce(client, topic, partition, plain_batch(&values))?;
        match answer.code {
            ErrorCode::None => {
                let base = answer.base_offset;
                ensure!(base == next, "{topic}-{partition}: stored at {base}, the end was {next}");
                next = to;
            }
            // A partition that was just made has its leader in a moment.
            code if code.is_retriable() && next == from && Instant::now() < until => {
                sleep(Duration::from_millis(10));
            }
            code => bail!("{topic}-{partition}: a produce was refused: {code}"),
        }
    }
    Ok(())
}

/// What a partition gives to consumers.
#[derive(Debug)]
pub struct Served {
    /// Every record below is there, and is what it was.
    pub upto: i64,
    /// What the broker says of the one at `upto`, where it is not the end.
    pub refused: Option<ErrorCode>,
}

/// Reads from `from` to `to`, or as far as it is served; a record with other bytes is an error.
pub fn served(
    client: &mut Client,
    topic: &str,
    partition: i32,
    from: i64,
    to: i64,
) -> anyhow::Result<Served> {
    let mut next = from;
    let mut until = Instant::now() + SETTLES_WITHIN;
    while next < to {
        let wait = Duration::ZERO;
        let wanted = Wanted { partition, offset: next, bytes_max: 1 << 20, wait };
        let found = match fetch(client, topic, wanted) {
            Ok(found) => found,
            // It closes the connection rather than to serve it.
            Err(ClientError::Io(_)) => {
                return Ok(Served { upto: next, refused: Some(ErrorCode::UnknownServerError) });
            }
            Err(error) => return Err(error.into()),
        };
        let before = next;
        for batch in batches(&found.records) {
            let (at, header, batch) = batch.context("not whole batches are served")?;
            let base = header.base_offset.0;
            ensure!(crc_ok(batch), "{topic}-{partition}: a torn batch was served at {base}");
            let batch = found.records.slice(at..at + batch.len());
            for record in records(&batch, &Limits::default()).context("not a batch of records")? {
                let record = record.context("not a record")?;
                let offset = record.offset.0;
                if offset < next {
                    continue; // The batch begins before what was asked for.
                }
                ensure!(offset == next, "{topic}-{partition}: {offset} served for {next}");
                let is_ours = record.value.as_deref() == Some(&value(topic, partition, offset)[..]);
                ensure!(is_ours, "{topic}-{partition}: the record at {offset} is another");
                next += 1;
            }
        }
        if next > before {
            until = Instant::now() + SETTLES_WITHIN;
            continue;
        }
        match found.code {
            ErrorCode::None if next >= found.high_watermark => {
                return Ok(Served { upto: next, refused: None });
            }
            code if Instant::now() > until => {
                return Ok(Served { upto: next, refused: Some(code) });
            }
            _ => sleep(Duration::from_millis(20)),
        }
    }
    Ok(Served { upto: next, refused: None })
}
