//! One thread, many connections: sends what is due, reads what came, sleeps in `epoll` between, and tells its counts when asked.
//!
//! Whoever measures asks by a line on standard input and gets a line of JSON: counts since the start, latencies since the last
//! line. The end of standard input ends the run. So windows are cut by the one who also reads the broker's CPU time.
//!
//! In a closed loop every connection has as many requests in flight as it may. In an open loop requests have intended send times,
//! and latency counts from those, so that what a stall kept waiting shows.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use serde_json::json;

/// What one reply was worth.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counted {
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Kafka's error code.
    pub error: i16,
}

/// What is sent on each connection, and how replies are read.
pub trait Work {
    /// The next request on this connection, if it has one now.
    fn next(&mut self, lane: usize) -> Option<Bytes>;
    /// Reads a reply without its length prefix; an `Err` ends the run.
    fn reply(&mut self, lane: usize, reply: &[u8]) -> Result<Counted>;
    /// Whether nothing is left to do.
    fn is_done(&self) -> bool {
        false
    }
}

/// How requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Requests on a connection without a reply, at the most.
    pub in_flight: usize,
    /// Requests a second in all, in an open loop.
    pub rate: Option<f64>,
    /// Whether to look for work without sleeping: for latencies, where this thread has a core of its own.
    pub spin: bool,
    /// The end, if not that of standard input.
    pub run_time: Option<Duration>,
}

/// Bytes read at once, where no reply asks for more.
const READ_BYTES: usize = 256 << 10;
/// Frames written at once.
const SLICES_MAX: usize = 64;
/// Longest sleep, so that the end is not missed.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How long the last replies are waited for.
const DRAIN: Duration = Duration::from_mins(1);
/// Marks standard input among the events.
const INPUT: u64 = u64::MAX;

struct Lane {
    stream: TcpStream,
    /// Intended send time of each request without a reply.
    waiting: VecDeque<Instant>,
    out: VecDeque<Bytes>,
    blocked: bool,
    /// The beginning of a reply that is not whole yet.
    partial: Vec<u8>,
}

/// Everything of one run.
pub struct Drive<W> {
    work: W,
    plan: Plan,
    lanes: Vec<Lane>,
    epoll: OwnedFd,
    start: Instant,
    /// Requests that were due so far, in an open loop.
    due: u64,
    turn: usize,
    scratch: Vec<u8>,
    counts: Counts,
}

struct Counts {
    requests: u64,
    records: u64,
    bytes: u64,
    errors: u64,
    first_error: Option<i16>,
    latency_us: Histogram<u64>,
}

impl<W: Work> Drive<W> {
    /// Takes over connected sockets.
    pub fn new(streams: Vec<TcpStream>, work: W, plan: Plan) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut lanes = Vec::with_capacity(streams.len());
        for stream in streams {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            epoll::add(&epoll, &stream, EventData::new_u64(lanes.len() as u64), EventFlags::IN)?;
            let (waiting, out) = (VecDeque::new(), VecDeque::new());
            lanes.push(Lane { stream, waiting, out, blocked: false, partial: Vec::new() });
        }
        // A regular file or /dev/null cannot be waited for: then only `run_time` ends the run.
        let _ = epoll::add(&epoll, io::stdin(), EventData::new_u64(INPUT), EventFlags::IN);
        let latency_us = Histogram::new(3).expect("three digits are allowed");
        let counts =
            Counts { requests: 0, records: 0, bytes: 0, errors: 0, first_error: None, latency_us };
        let (start, scratch) = (Instant::now(), Vec::with_capacity(READ_BYTES));
        Ok(Self { work, plan, lanes, epoll, start, due: 0, turn: 0, scratch, counts })
    }

    /// Runs to the end, when every request has its reply.
    pub fn run(mut self) -> Result<Self> {
        let mut end = self.plan.run_time.map(|time| self.start + time);
        let mut events = Vec::with_capacity(256);
        for lane in 0..self.lanes.len() {
            self.fill(lane)?;
        }
        loop {
            let now = Instant::now();
            let is_over = end.is_some_and(|end| now >= end) || self.work.is_done();
            if is_over {
                let is_quiet = self.lanes.iter().all(|lane| lane.waiting.is_empty());
                if is_quiet || end.is_some_and(|end| now >= end + DRAIN) {
                    break;
                }
                self.plan.rate = None;
                self.plan.in_flight = 0;
            }
            self.send_due(now)?;
            events.clear();
            let sleep = self.sleep(Instant::now());
            let timeout = Timespec { tv_sec: 0, tv_nsec: sleep.subsec_nanos().into() };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.plan.spin {
                // The kernel's worker that ends a broker's write may be on this CPU: without this it waits
                // for a tick, four milliseconds, and so would the broker.
                thread::yield_now();
            }
            for event in &events {
                let (lane, flags) = (event.data.u64(), event.flags);
                if lane == INPUT {
                    if !self.asked()? {
                        epoll::delete(&self.epoll, io::stdin())?;
                        end = Some(Instant::now());
                    }
                    continue;
                }
                let lane = lane as usize;
                if flags.contains(EventFlags::OUT) {
                    self.write(lane)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read(lane)?;
                    self.fill(lane)?;
                }
            }
        }
        let lost: usize = self.lanes.iter().map(|lane| lane.waiting.len()).sum();
        if lost > 0 {
            bail!("{lost} requests got no reply within {DRAIN:?}");
        }
        Ok(self)
    }

    /// In a closed loop: as many requests as may be in flight.
    fn fill(&mut self, at: usize) -> Result<()> {
        if self.plan.rate.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        while self.lanes[at].waiting.len() < self.plan.in_flight {
            let Some(request) = self.work.next(at) else { break };
            self.lanes[at].out.push_back(request);
            self.lanes[at].waiting.push_back(now);
        }
        self.write(at)
    }

    /// In an open loop: every request that is due, each on the next connection that has room.
    fn send_due(&mut self, now: Instant) -> Result<()> {
        let Some(rate) = self.plan.rate else { return Ok(()) };
        loop {
            let intended = self.start + Duration::from_secs_f64(self.due as f64 / rate);
            if intended > now {
                return Ok(());
            }
            let count = self.lanes.len();
            let room = (0..count)
                .map(|step| (self.turn + step) % count)
                .find(|at| self.lanes[*at].waiting.len() < self.plan.in_flight);
            let Some(at) = room else { return Ok(()) };
            let Some(request) = self.work.next(at) else { return Ok(()) };
            self.lanes[at].out.push_back(request);
            self.lanes[at].waiting.push_back(intended);
            (self.turn, self.due) = (at + 1, self.due + 1);
            self.write(at)?;
        }
    }

    fn sleep(&self, now: Instant) -> Duration {
        if self.plan.spin {
            return Duration::ZERO;
        }
        let Some(rate) = self.plan.rate else { return SLEEP_MAX };
        let next = self.start + Duration::from_secs_f64(self.due as f64 / rate);
        next.saturating_duration_since(now).min(SLEEP_MAX)
    }

    /// Writes until all is written or the socket takes no more.
    fn write(&mut self, at: usize) -> Result<()> {
        let lane = &mut self.lanes[at];
        let was_blocked = std::mem::take(&mut lane.blocked);
        while !lane.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = lane.out.len().min(SLICES_MAX);
            for (slice, frame) in slices.iter_mut().zip(&lane.out) {
                *slice = IoSlice::new(frame);
            }
            let mut written = match (&lane.stream).write_vectored(&slices[..count]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    lane.blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.context("the broker closed a connection")?,
            };
            while let Some(frame) = lane.out.front_mut() {
                if written < frame.len() {
                    frame.advance(written);
                    break;
                }
                written -= frame.len();
                lane.out.pop_front();
            }
        }
        if lane.blocked != was_blocked {
            let out = if lane.blocked { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, lane.stream.as_fd(), data, EventFlags::IN | out)?;
        }
        Ok(())
    }

    /// Reads what is there, and counts each whole reply.
    fn read(&mut self, at: usize) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            // A long reply is read to where it stays; short ones share a buffer, and nothing of them is moved.
            let mut partial = std::mem::take(&mut self.lanes[at].partial);
            let missing = frame_bytes(&partial).map(|len| len - partial.len());
            let into = if let Some(missing) = missing {
                partial.reserve(missing);
                &mut partial
            } else {
                scratch.clear();
                scratch.extend_from_slice(&partial);
                partial.clear();
                &mut scratch
            };
            let room = into.capacity() - into.len();
            let read = match rustix::io::read(&self.lanes[at].stream, spare_capacity(into)) {
                Ok(0) => bail!("the broker closed a connection"),
                Ok(read) => read,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(error).context("reading from the broker"),
            };
            let used = self.replies(at, into)?;
            into.drain(..used);
            if missing.is_none() {
                partial.extend_from_slice(&scratch);
            }
            self.lanes[at].partial = partial;
            if read < room {
                break;
            }
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Counts the whole replies at the front of `bytes`; returns how many bytes they are.
    fn replies(&mut self, at: usize, bytes: &[u8]) -> Result<usize> {
        let now = Instant::now();
        let mut used = 0;
        while let Some(len) = frame_bytes(&bytes[used..]).filter(|len| bytes.len() - used >= *len) {
            let Some(intended) = self.lanes[at].waiting.pop_front() else {
                bail!("the broker replied to what was not asked");
            };
            let counted = self.work.reply(at, &bytes[used + 4..used + len])?;
            used += len;
            let counts = &mut self.counts;
            if counted.error != 0 {
                counts.errors += 1;
                counts.first_error.get_or_insert(counted.error);
                continue;
            }
            counts.requests += 1;
            counts.records += counted.records;
            counts.bytes += counted.bytes;
            let latency = now.saturating_duration_since(intended).as_micros() as u64;
            counts.latency_us.record(latency).expect("the histogram grows");
        }
        Ok(used)
    }

    /// Answers each line of standard input; whether it is still open.
    fn asked(&mut self) -> Result<bool> {
        let mut lines = [0; 64];
        let read = rustix::io::read(io::stdin(), &mut lines)?;
        for _ in lines[..read].iter().filter(|byte| **byte == b'\n') {
            self.tell()?;
        }
        Ok(read > 0)
    }

    /// Prints the counts so far.
    pub fn tell(&mut self) -> Result<()> {
        let counts = &mut self.counts;
        let latency = &counts.latency_us;
        let at = |quantile: f64| latency.value_at_quantile(quantile);
        let line = json!({
            "seconds": self.start.elapsed().as_secs_f64(),
            "requests": counts.requests,
            "records": counts.records,
            "bytes": counts.bytes,
            "errors": counts.errors,
            "first_error": counts.first_error,
            "latency_us": {
                "count": latency.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
                "p99.9": at(0.999), "p99.99": at(0.9999), "max": latency.max(),
            },
        });
        counts.latency_us.reset();
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }
}

/// Bytes of the frame that `bytes` begin with, its length prefix included.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    Some(4 + u32::from_be_bytes(*prefix) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    /// Sends numbers and wants each back, plus what the peer adds to it.
    #[derive(Default)]
    struct Numbers {
        next: i32,
        expected: VecDeque<i32>,
        left: usize,
    }

    impl Work for Numbers {
        fn next(&mut self, _lane: usize) -> Option<Bytes> {
            self.left = self.left.checked_sub(1)?;
            self.next += 1;
            self.expected.push_back(self.next);
            Some([4_i32.to_be_bytes(), self.next.to_be_bytes()].concat().into())
        }

        fn reply(&mut self, _lane: usize, reply: &[u8]) -> Result<Counted> {
            let number = i32::from_be_bytes(*reply.first_chunk().context("a number")?);
            if Some(number.abs()) != self.expected.pop_front() {
                bail!("out of order");
            }
            Ok(Counted { records: 1, bytes: 4, error: i16::from(number < 0) })
        }

        fn is_done(&self) -> bool {
            self.left == 0
        }
    }

    /// A peer that answers each number with what `answer` makes of it, in two pieces, so that replies arrive torn.
    fn peer(answer: impl Fn(i32) -> i32 + Send + 'static) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.set_nodelay(true).unwrap();
            let mut frame = [0; 8];
            while stream.read_exact(&mut frame).is_ok() {
                let number = answer(i32::from_be_bytes(*frame[4..].first_chunk().unwrap()));
                let reply = [4_i32.to_be_bytes(), number.to_be_bytes()].concat();
                let (first, rest) = reply.split_at(5);
                let _ = stream.write_all(first).and_then(|()| stream.write_all(rest));
            }
        });
        stream
    }

    fn run(
        answer: impl Fn(i32) -> i32 + Send + 'static,
        rate: Option<f64>,
    ) -> Result<Drive<Numbers>> {
        let plan = Plan { in_flight: 7, rate, spin: false, run_time: Some(Duration::from_mins(1)) };
        Drive::new(vec![peer(answer)], Numbers { left: 100, ..Numbers::default() }, plan)?.run()
    }

    #[test]
    fn every_request_is_answered_and_counted() {
        let done = run(|number| number, None).unwrap();
        assert_eq!((done.counts.requests, done.counts.bytes, done.counts.errors), (100, 400, 0));
        assert_eq!(done.counts.latency_us.len(), 100);
    }

    #[test]
    fn refusals_are_counted_apart() {
        let done = run(|number| if number % 10 == 0 { -number } else { number }, None).unwrap();
        assert_eq!((done.counts.requests, done.counts.errors), (90, 10));
        assert_eq!(done.counts.first_error, Some(1));
    }

    #[test]
    fn replies_out_of_order_end_the_run() {
        assert!(run(|number| number + 1, None).is_err());
    }

    /// The tenth reply is late by 50 ms: what was due meanwhile counts from when it was due.
    #[test]
    fn latency_counts_from_the_intended_time() {
        let late = |number| {
            if number == 10 {
                thread::sleep(Duration::from_millis(50));
            }
            number
        };
        let done = run(late, Some(1000.0)).unwrap();
        let latency = &done.counts.latency_us;
        let waited = latency.count_between(5_000, u64::MAX);
        assert!(waited >= 30, "{waited} of 100 requests waited for the late one");
    }
}
