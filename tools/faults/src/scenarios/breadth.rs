//! S39: every request in every version, and every key that is none, with bodies that make no sense.
//!
//! What decoders make of each shape is tested in node/wire (hostile.rs), and what real clients see in
//! tools/clients/python; here it is the whole daemon, over its sockets, with load beside.

use std::net::SocketAddr;
use std::thread::scope;

use anyhow::{Context, ensure};
use flowstone_wire::Api;
use flowstone_wire::client::correlation_id;

use crate::client::{ANSWER_WITHIN, Answer, Raw, header};
use crate::load::{Load, Plan};
use crate::probe::{MIB, Watch, held};
use crate::stage::{Random, Stage};

/// Keys that no API has, beside those from 0 to the largest that one may have one day.
const STRANGE_KEYS: [i16; 4] = [-1, i16::MIN, 999, i16::MAX];
const KEYS: i16 = 100;
/// Versions beside those that are served.
const STRANGE_VERSIONS: [i16; 3] = [-1, 100, i16::MAX];
const CORRELATION_ID: i32 = 0x5eed;
/// Threads that ask.
const CALLERS: usize = 4;
/// Memory that all of it may take: what decoding holds, and what the load beside makes of its logs.
const MEMORY_BYTES_MAX: u64 = 96 * MIB;

/// See the file.
pub fn requests(stage: &mut Stage) -> anyhow::Result<()> {
    let mut daemon = stage.launch("data").start()?;
    let address = daemon.address();
    let load = Load::start(address, Plan::default())?;
    load.wait_for_more(500, ANSWER_WITHIN)?;
    let (before, watch) = (held(daemon.pid())?.bytes, Watch::begin(daemon.pid()));
    let mut asks = Vec::new();
    for key in (0..KEYS).chain(STRANGE_KEYS) {
        let served = Api::from_key(key).map(Api::row);
        let versions = served.map_or(0..=3, |row| row.lowest..=row.highest);
        asks.extend(versions.chain(STRANGE_VERSIONS).map(|version| (key, version)));
    }
    let share = asks.len().div_ceil(CALLERS);
    let sources: Vec<_> = (0..CALLERS).map(|_| stage.random.fork()).collect();
    let asked = scope(|scope| {
        let callers: Vec<_> = asks
            .chunks(share)
            .zip(sources)
            .map(|(asks, mut random)| scope.spawn(move || ask_all(address, asks, &mut random)))
            .collect();
        let answers = callers.into_iter().map(|caller| caller.join().expect("no caller panics"));
        answers.collect::<anyhow::Result<Vec<u64>>>()
    });
    daemon.must_run()?;
    for answered in asked? {
        stage.count("answered", answered);
    }
    let grown = watch.end().saturating_sub(before);
    stage.count("kinds of request", asks.len() as u64);
    stage.at_most("MiB grown", (grown / MIB) as f64);
    ensure!(grown <= MEMORY_BYTES_MAX, "{} MiB of memory", grown / MIB);
    load.wait_for_more(200, ANSWER_WITHIN)?;
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// Sends each with each body; returns how many were answered rather than cut off.
fn ask_all(address: SocketAddr, asks: &[(i16, i16)], random: &mut Random) -> anyhow::Result<u64> {
    let mut answered = 0;
    for &(key, version) in asks {
        for body in bodies(random) {
            let mut raw = Raw::connect(address, ANSWER_WITHIN)?;
            let mut frame = header(key, version, CORRELATION_ID, random.one_in(2));
            frame.extend(&body);
            // It may be cut off while it sends.
            let _ = raw.send_frame(&frame, ANSWER_WITHIN);
            raw.finish();
            let what = || format!("key {key}, version {version}, body {body:02x?}");
            match raw.answer(ANSWER_WITHIN).with_context(what)? {
                Answer::Frame(answer) => {
                    let number = correlation_id(&answer);
                    ensure!(number == Some(CORRELATION_ID), "{}: answer to {number:?}", what());
                    ensure!(raw.closes(ANSWER_WITHIN)?, "{}: kept open", what());
                    answered += 1;
                }
                Answer::Closed => {}
                Answer::Silence => anyhow::bail!("{}: neither an answer nor an end", what()),
            }
        }
    }
    Ok(answered)
}

/// What stands where a request should be.
fn bodies(random: &mut Random) -> Vec<Vec<u8>> {
    let noise = |random: &mut Random| -> Vec<u8> {
        let words = random.between(1, 40);
        (0..words).flat_map(|_| random.bits().to_be_bytes()).collect()
    };
    vec![
        Vec::new(),
        vec![0; 64],
        vec![0xff; 64],
        [&[0x7f, 0xff, 0xff, 0xff][..], &[0; 60]].concat(), // A count of 2^31-1.
        [&[0x80, 0, 0, 0][..], &[0; 60]].concat(),          // A count of -2^31.
        [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[1; 60]].concat(), // The same, compact.
        [&[0, 4, 0xff, 0xfe, 0xc0, 0x80][..], &[0; 40]].concat(), // A string that is no UTF-8.
        [&[0xff; 10][..], &[0x80; 40]].concat(),            // A varint without an end.
        vec![1; 200],                                       // Tagged fields in tagged fields.
        noise(random),
        noise(random),
    ]
}
