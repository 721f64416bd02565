//! S40: record batches that lie, with right checksums.
//!
//! Single lies and what real clients see of them are in tools/clients/python (test_bad_input.py); here
//! are bombs in every codec, what they cost in memory, and a log that must stay as it was throughout.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use flowstone_batch::{BatchBuilder, Codec, ControlType, EndTxnMarker};
use flowstone_types::{Offset, ProducerId};
use flowstone_wire::ErrorCode;

use crate::client::{
    Client, MUCH_WITHIN, Wanted, create_topic, fetch, find_coordinator, init_producer, now,
    plain_batch, produce,
};
use crate::load::{Load, Plan};
use crate::probe::{MIB, Watch, held};
use crate::stage::Stage;

const TOPIC: &str = "attacked";
/// What a batch inflates to whose compressed bytes pass `message.max.bytes`: as much as each codec can.
const BOMBS: [(Codec, usize); 4] = [
    (Codec::Gzip, 768 << 20),
    (Codec::Zstd, 1 << 30),
    (Codec::Lz4, 192 << 20),
    (Codec::Snappy, 16 << 20),
];
/// Memory that checking any of it may take: 128 MiB is the bound on inflated bytes (`Limits`), of which a
/// buffer that doubles holds three times as much for a moment; and what the load beside needs.
const MEMORY_BYTES_MAX: u64 = 448 * MIB;

/// Where the fields of a batch are (`RecordBatch`, magic 2).
mod at {
    pub const LENGTH: usize = 8;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const COUNT: usize = 57;
    pub const RECORDS: usize = 61;
}

/// See the file.
pub fn lies(stage: &mut Stage) -> anyhow::Result<()> {
    let mut daemon = stage.launch("data").start()?;
    let load = Load::start(daemon.address(), Plan::default())?;
    load.wait_for_more(500, MUCH_WITHIN)?;
    let mut client = Client::connect(daemon.address(), MUCH_WITHIN)?;
    let code = create_topic(&mut client, TOPIC, 1, &[])?;
    ensure!(code == ErrorCode::None, "cannot create {TOPIC}: {code}");
    let producer = init_producer(&mut client)?.ok().context("no producer id")?;

    let mut cases = small_lies(producer);
    for (codec, bytes) in BOMBS {
        cases.push((
            format!("a bomb of {} MiB by {codec:?}", bytes / MIB as usize),
            bomb(codec, bytes),
        ));
    }
    let mut end = 0;
    for (lie, batch) in cases {
        let len = batch.len();
        let (before, watch) = (held(daemon.pid())?.bytes, Watch::begin(daemon.pid()));
        // A connection each: a broker may close the one that lied.
        let mut liar = Client::connect(daemon.address(), MUCH_WITHIN)?;
        let answer = produce(&mut liar, TOPIC, 0, batch).map(|answer| answer.code);
        daemon.must_run().with_context(|| lie.clone())?;
        // Snappy cannot expand twenty-fold; that is taken, and is no bomb.
        if lie.ends_with("Snappy") && matches!(answer, Ok(ErrorCode::None)) {
            end += 1;
        } else {
            let right = matches!(
                answer,
                Err(_)
                    | Ok(ErrorCode::InvalidRecord
                        | ErrorCode::CorruptMessage
                        | ErrorCode::MessageTooLarge
                        | ErrorCode::UnsupportedForMessageFormat
                        | ErrorCode::UnsupportedCompressionType
                        | ErrorCode::InvalidProducerEpoch
                        | ErrorCode::OutOfOrderSequenceNumber
                        | ErrorCode::InvalidTxnState
                        | ErrorCode::InvalidTimestamp)
            );
            ensure!(right, "{lie} ({len} bytes) was answered {answer:?}");
        }
        let wanted = Wanted { partition: 0, offset: end, bytes_max: 1 << 20, wait: Duration::ZERO };
        let log = fetch(&mut client, TOPIC, wanted)?;
        ensure!(log.high_watermark == end, "{lie}: the log ends at {}", log.high_watermark);
        ensure!(log.records.is_empty(), "{lie}: consumers are given {} bytes", log.records.len());
        stage.count("lies", 1);
        let grown = watch.end().saturating_sub(before);
        stage.at_most("MiB that the worst took", (grown / MIB) as f64);
        if len > 1_000 {
            stage.say(&format!("{lie}, {len} bytes: {answer:?}, {} MiB", grown / MIB));
        }
        ensure!(grown <= MEMORY_BYTES_MAX, "{lie} took {} MiB of memory", grown / MIB);
    }

    find_coordinator(&mut client, "any")?; // So that the topic of offsets is there.
    let mut liar = Client::connect(daemon.address(), MUCH_WITHIN)?;
    let answer = produce(&mut liar, "__consumer_offsets", 0, plain_batch(&[b"forged"]))?;
    ensure!(answer.code == ErrorCode::InvalidTopicException, "offsets forged: {}", answer.code);
    let good = produce(&mut client, TOPIC, 0, plain_batch(&[b"fine"]))?;
    ensure!(good.code == ErrorCode::None, "a right batch behind them: {}", good.code);
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

fn small_lies((id, epoch): (i64, i16)) -> Vec<(String, Bytes)> {
    let plain = plain_batch(&[b"one", b"two"]);
    let len = plain.len() as i32;
    let mut lies = Vec::new();
    let mut lie = |what: &str, bytes: Bytes| lies.push((what.to_owned(), bytes));
    for count in [0, 1, 3, -1, i32::MIN, i32::MAX] {
        lie(&format!("a count of {count}"), with(&plain, at::COUNT, &count.to_be_bytes()));
    }
    for delta in [0, 2, -1, i32::MIN, i32::MAX] {
        let bytes = with(&plain, at::LAST_OFFSET_DELTA, &delta.to_be_bytes());
        lie(&format!("a last offset delta of {delta}"), bytes);
    }
    for length in [0, 1, -1, len - 13, len + 100, i32::MAX, i32::MIN] {
        let bytes = with(&plain, at::LENGTH, &length.to_be_bytes());
        lie(&format!("a length of {length}"), bytes);
    }
    for magic in [0_u8, 1, 3, 0xff] {
        lie(&format!("magic {magic}"), with(&plain, at::MAGIC, &[magic]));
    }
    for codec in 1..=7_u16 {
        let bytes = with(&plain, at::ATTRIBUTES, &codec.to_be_bytes());
        lie(&format!("codec {codec} of what is not compressed"), bytes);
    }
    let mut forged = BatchBuilder::new(Offset::ZERO).producer(ProducerId(id), epoch, -1);
    forged.push_control(now(), ControlType::Commit, &EndTxnMarker { coordinator_epoch: 1 }.value());
    lie("a forged control batch", forged.build());
    let mut torn =
        BatchBuilder::new(Offset::ZERO).producer(ProducerId(id), epoch, 0).transactional();
    torn.push(now(), None, Some(b"x"), &[]);
    lie("a transaction that nobody began", torn.build());
    let mut own = BatchBuilder::new(Offset::ZERO).producer(ProducerId(id), epoch, 0);
    own.push(now(), None, Some(b"x"), &[]);
    let own = own.build();
    lie("a negative sequence", with(&own, at::BASE_SEQUENCE, &(-2_i32).to_be_bytes()));
    lie("a negative epoch", with(&own, at::PRODUCER_EPOCH, &(-2_i16).to_be_bytes()));
    // A record: length, attributes, timestamp and offset deltas, no key, no value, then its headers.
    let record = |tail: &[u8]| {
        let body = [&[0, 0, 0, 1, 1][..], tail].concat();
        let records = [&[(body.len() * 2) as u8][..], &body].concat();
        let one = with(&plain_batch(&[b""]), at::COUNT, &1_i32.to_be_bytes());
        let length = (at::RECORDS - at::LENGTH - 4 + records.len()) as i32;
        let batch = [&one[..at::RECORDS], &records].concat();
        with(&batch.into(), at::LENGTH, &length.to_be_bytes())
    };
    let most = [0xfe, 0xff, 0xff, 0xff, 0x0f]; // 2^31-1, zig-zag.
    lie("2^31-1 headers", record(&most));
    lie("a header's key of 2 GiB", record(&[&[2][..], &most].concat()));
    lie("-1 headers", record(&[1]));
    lie("a header without a key", record(&[2, 1, 1]));
    // CVE-2023-34455: a chunk of snappy-java's stream that declares 2^31-1 bytes.
    let chunk =
        [&b"\x82SNAPPY\0"[..], &[0, 0, 0, 1, 0, 0, 0, 1], &[0x7f, 0xff, 0xff, 0xff]].concat();
    let batch = Bytes::from([&plain[..at::RECORDS], &chunk].concat());
    let length = (batch.len() - at::LENGTH - 4) as i32;
    let batch = with(&batch, at::ATTRIBUTES, &2_u16.to_be_bytes());
    lie("a snappy chunk of 2 GiB", with(&batch, at::LENGTH, &length.to_be_bytes()));
    lies
}

/// The batch with other bytes at a place, and the checksum that fits them.
fn with(batch: &Bytes, place: usize, bytes: &[u8]) -> Bytes {
    let mut lie = batch.to_vec();
    lie[place..place + bytes.len()].copy_from_slice(bytes);
    let crc = crc_fast::crc32_iscsi(&lie[at::ATTRIBUTES..]);
    lie[at::CRC..at::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    lie.into()
}

/// A batch that is right in all but what it inflates to.
fn bomb(codec: Codec, bytes: usize) -> Bytes {
    let mut batch = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
    batch.push(now(), None, Some(&vec![0; bytes]), &[]);
    batch.build()
}
