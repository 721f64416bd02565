//! S38: frames that nobody means well with, on many connections, with a well-meaning client beside.
//!
//! What one such connection is answered is tested with real clients (tools/clients/python,
//! test_bad_input.py); here are their numbers, what they cost in memory, and what others feel.

use std::net::SocketAddr;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flowstone_wire::client::encode;
use flowstone_wire::messages::ApiVersionsRequest;

use crate::client::{Answer, Client, Raw};
use crate::probe::{MIB, Patient, Watch, held, p99_holds};
use crate::stage::{Random, Stage};

/// Connections at once: slow ones, and bad ones of each kind.
const SLOW: usize = 2_000;
const BAD: usize = 500;
/// `socket.request.max.bytes`: the largest length that is no lie by itself.
const LENGTH_MAX: i32 = 100 << 20;
/// How long the slow ones are held, in full and for `make test`.
const HELD_FOR: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(20));
/// Memory that a connection may cost which has sent next to nothing: its receive buffer and its state.
const CONNECTION_BYTES_MAX: u64 = 20 << 10;
/// Memory that the daemon may take besides: pools, and what the allocator keeps.
const ALWAYS_BYTES_MAX: u64 = 48 * MIB;
/// Lines that it may log about all of them.
const LOG_LINES_MAX: usize = 300;
const TRY_FOR: Duration = Duration::from_secs(10);

/// One way to be a nuisance.
struct Attack {
    name: &'static str,
    connections: usize,
    run: fn(&Ground, &mut Random) -> anyhow::Result<()>,
}

/// Where it happens.
struct Ground {
    address: SocketAddr,
    hold: Duration,
}

const ATTACKS: [Attack; 5] = [
    Attack { name: "lengths that cannot be", connections: BAD, run: lengths },
    Attack { name: "100 MiB declared, 1 byte sent", connections: BAD, run: declared },
    Attack { name: "a byte now and then", connections: SLOW, run: slow },
    Attack { name: "random bytes", connections: BAD, run: noise },
    Attack { name: "HTTP, TLS, SSH", connections: BAD, run: strangers },
];

/// See the file.
pub fn attacks(stage: &mut Stage) -> anyhow::Result<()> {
    let mut daemon = stage.launch("data").start()?;
    let address = daemon.address();
    let hold = if stage.rounds(0, 1) == 0 { HELD_FOR.0 } else { HELD_FOR.1 };
    let ground = Ground { address, hold };
    let mut patient = Patient::new(address)?;
    patient.p99_us(Duration::from_secs(1))?; // Caches are warm behind this.
    for attack in &ATTACKS {
        let before = patient.p99_us(Duration::from_secs(3))?;
        let (memory, watch) = (held(daemon.pid())?.bytes, Watch::begin(daemon.pid()));
        let mut random = stage.random.fork();
        let (attacked, during) = scope(|scope| {
            let attacker = scope.spawn(|| (attack.run)(&ground, &mut random));
            let least = Instant::now() + Duration::from_secs(3); // Enough samples for a p99.
            let during = patient.p99_us_while(|| !attacker.is_finished() || Instant::now() < least);
            (attacker.join(), during)
        });
        let grown = watch.end().saturating_sub(memory);
        attacked.expect("attacks do not panic").context(attack.name)?;
        daemon.must_run()?;
        let during = during.context(attack.name)?;
        let after = patient.p99_us(Duration::from_secs(3))?;
        p99_holds(before, during, after).context(attack.name)?;
        let limit = ALWAYS_BYTES_MAX + attack.connections as u64 * CONNECTION_BYTES_MAX;
        ensure!(
            grown <= limit,
            "{}: {} MiB of memory, at most {} MiB are right",
            attack.name,
            grown / MIB,
            limit / MIB
        );
        stage.say(&format!(
            "{}: p99 {before} / {during} / {after} us before, beside and after; {} MiB more",
            attack.name,
            grown / MIB
        ));
        stage.at_most("MiB grown", (grown / MIB) as f64);
        stage.count("bad connections", attack.connections as u64);
    }
    let lines = daemon.said().lines().count();
    ensure!(lines <= LOG_LINES_MAX, "{lines} lines in the log: anybody can fill the disk");
    stage.count("lines logged", lines as u64);
    Ok(())
}

/// Every one is closed, whatever bytes follow.
fn lengths(ground: &Ground, random: &mut Random) -> anyhow::Result<()> {
    let lengths = [0, -1, i32::MIN, i32::MAX, LENGTH_MAX + 1];
    let mut open = Vec::new();
    for _ in 0..BAD {
        let mut raw = connect(ground.address)?;
        let length = *random.pick(&lengths);
        let _ = raw.send(&[&length.to_be_bytes()[..], &[0; 64]].concat(), TRY_FOR); // Or cut off.
        open.push((length, raw));
    }
    for (length, raw) in &mut open {
        ensure!(raw.closes(TRY_FOR)?, "a frame of {length} bytes is not refused");
    }
    Ok(())
}

/// What is declared is not taken before it comes.
fn declared(ground: &Ground, _: &mut Random) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for _ in 0..BAD {
        let mut raw = connect(ground.address)?;
        raw.send(&[&LENGTH_MAX.to_be_bytes()[..], &[0]].concat(), TRY_FOR)?;
        open.push(raw);
    }
    sleep(ground.hold);
    Ok(())
}

/// Slow-loris: a right request, one byte of it at a time, on all connections at once.
fn slow(ground: &Ground, _: &mut Random) -> anyhow::Result<()> {
    let request = encode(&ApiVersionsRequest::default(), 0, 7, Some("slow")).expect("a request");
    let mut open = Vec::new();
    for _ in 0..SLOW {
        open.push(connect(ground.address)?);
    }
    let (last, most) = request.split_last().context("a request has bytes")?;
    let step = ground.hold / most.len() as u32;
    for byte in most {
        let next = Instant::now() + step;
        for raw in &mut open {
            raw.send(&[*byte], TRY_FOR).context("a slow client was cut off")?;
        }
        sleep(next.saturating_duration_since(Instant::now()));
    }
    for raw in &mut open {
        raw.send(&[*last], TRY_FOR)?;
    }
    for raw in &mut open {
        let answer = raw.answer(TRY_FOR)?;
        ensure!(matches!(answer, Answer::Frame(_)), "a slow request was answered by {answer:?}");
    }
    Ok(())
}

/// Random bytes: nothing is promised to them but that others go on.
fn noise(ground: &Ground, random: &mut Random) -> anyhow::Result<()> {
    let mut open = Vec::new();
    for _ in 0..BAD {
        let mut raw = connect(ground.address)?;
        let words = random.between(1, 512);
        let bytes: Vec<u8> = (0..words).flat_map(|_| random.bits().to_be_bytes()).collect();
        let _ = if random.one_in(2) {
            raw.send(&bytes, TRY_FOR)
        } else {
            raw.send_frame(&bytes, TRY_FOR)
        };
        raw.finish();
        open.push(raw);
    }
    for raw in &mut open {
        ensure!(raw.closes(TRY_FOR)?, "a connection that sent noise and its end is kept");
    }
    Ok(())
}

/// Clients of other protocols: they end, and soon, so that their people see it.
fn strangers(ground: &Ground, random: &mut Random) -> anyhow::Result<()> {
    let tls = [&[0x16, 3, 1, 0, 0xf8, 1, 0, 0, 0xf4, 3, 3][..], &[7; 240]].concat();
    let hellos: [Vec<u8>; 4] = [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
        b"POST /v1/topics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
        tls,
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
    ];
    let mut open = Vec::new();
    for _ in 0..BAD {
        let mut raw = connect(ground.address)?;
        let _ = raw.send(random.pick::<Vec<u8>>(&hellos), TRY_FOR);
        open.push(raw);
    }
    for raw in &mut open {
        ensure!(raw.closes(TRY_FOR)?, "a client of another protocol waits for ever");
    }
    // The door is open behind all of them.
    Client::connect(ground.address, TRY_FOR)?.ask(0, &ApiVersionsRequest::default())?;
    Ok(())
}

fn connect(address: SocketAddr) -> anyhow::Result<Raw> {
    Raw::connect(address, TRY_FOR).context("no connection")
}
