//! One thread, many connections: sends what is due, reads what came, sleeps in `poll` between.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowstone_wire::client::correlation_id;
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Pace;
use crate::failure::Failure;

/// What one answer was worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Records.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Whether it held nothing, though it might have (a fetch at the end).
    pub empty: bool,
}

/// What a connection sends, and how its answers are read.
pub trait Load {
    /// Whether there is a request to send now.
    fn is_ready(&self) -> bool;
    /// Appends the next request. Only where [`Load::is_ready`].
    fn request(&mut self, correlation: i32, out: &mut VecDeque<Bytes>);
    /// Whether requests are answered.
    fn is_answered(&self) -> bool;
    /// What a request without an answer counts for.
    fn unanswered(&self) -> Answer;
    /// Reads an answer.
    fn answer(&mut self, correlation: i32, frame: Bytes) -> Result<Answer, Failure>;
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// When it began.
    pub start: Instant,
    /// From when on it counts, since the start.
    pub measure_from: Duration,
    /// Until when requests are sent, since the start.
    pub until: Duration,
    /// Requests in flight on a connection, at the most.
    pub in_flight: usize,
    /// How long the last answers are waited for.
    pub drain: Duration,
}

/// What a thread tells while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes answered.
    pub bytes: AtomicU64,
    /// Requests answered.
    pub requests: AtomicU64,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies in microseconds, from the intended send time.
    pub latency: Histogram<u64>,
    /// Requests that were answered well.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Their batches' bytes.
    pub bytes: u64,
    /// Fetches that found nothing.
    pub empty: u64,
    /// Requests that were refused.
    pub errors: u64,
    /// The first refusal.
    pub first_error: Option<String>,
    /// When the last answer came, since the start.
    pub last: Duration,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Self {
        let latency = Histogram::new(3).expect("three digits are allowed");
        Self {
            latency,
            requests: 0,
            records: 0,
            bytes: 0,
            empty: 0,
            errors: 0,
            first_error: None,
            last: Duration::ZERO,
        }
    }

    /// Takes in another thread's.
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("a histogram without a bound takes all");
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
        self.empty += other.empty;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.last = self.last.max(other.last);
    }

    fn count(
        &mut self,
        run: &Run,
        intended: Duration,
        now: Duration,
        answer: Result<Answer, Failure>,
    ) {
        if intended < run.measure_from {
            return;
        }
        self.last = self.last.max(now);
        match answer {
            Ok(answer) => {
                let micros = now.saturating_sub(intended).as_micros() as u64;
                self.latency.record(micros).expect("the histogram grows");
                self.requests += 1;
                self.records += answer.records;
                self.bytes += answer.bytes;
                self.empty += u64::from(answer.empty);
            }
            Err(failure) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| failure.to_string());
            }
        }
    }
}

/// A connection with what is under way on it.
pub struct Lane<L> {
    stream: TcpStream,
    address: String,
    load: L,
    correlation: i32,
    /// Correlation id and intended send time of each request, in the order of the answers.
    waiting: VecDeque<(i32, Duration)>,
    /// Slices that are still to be written.
    out: VecDeque<Bytes>,
    blocked: bool,
    incoming: Vec<u8>,
    /// A buffer that was read, for the next turn.
    spare: Vec<u8>,
}

/// Bytes read at once, where no frame asks for more.
const READ_BYTES: usize = 64 << 10;
/// Slices written at once: 21 requests of three.
const SLICES_MAX: usize = 63;
/// Longest sleep, so that the end is not missed.
const SLEEP_MAX: Duration = Duration::from_millis(100);

impl<L: Load> Lane<L> {
    /// A lane over a connection that was negotiated.
    pub fn new(stream: TcpStream, address: String, load: L) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            address,
            load,
            correlation: 0,
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            blocked: false,
            incoming: Vec::with_capacity(READ_BYTES),
            spare: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Our address and the broker's.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.stream.local_addr().ok()?, self.stream.peer_addr().ok()?))
    }

    /// Whether a request can be queued.
    fn has_room(&self, run: &Run) -> bool {
        self.waiting.len() < run.in_flight && self.load.is_ready()
    }

    /// Queues a request that was to be sent at `intended`.
    fn request(&mut self, intended: Duration) {
        self.correlation = self.correlation.wrapping_add(1);
        self.load.request(self.correlation, &mut self.out);
        self.waiting.push_back((self.correlation, intended));
    }

    /// Writes until all is written or the socket takes no more.
    fn write(&mut self) -> io::Result<()> {
        self.blocked = false;
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let mut written = match (&self.stream).write_vectored(&slices[..count]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            while let Some(part) = self.out.front_mut() {
                if written < part.len() {
                    bytes::Buf::advance(part, written);
                    break;
                }
                written -= part.len();
                self.out.pop_front();
            }
        }
        Ok(())
    }

    /// Reads what is there, and counts each answer.
    fn read(
        &mut self,
        run: &Run,
        outcome: &mut Outcome,
        progress: &Progress,
    ) -> Result<(), Failure> {
        loop {
            let wanted = frame_len(&self.incoming)
                .map_or(READ_BYTES, |len| len.saturating_sub(self.incoming.len()).max(READ_BYTES));
            self.incoming.reserve(wanted);
            let room = self.incoming.capacity() - self.incoming.len();
            let read = match rustix::io::read(&self.stream, spare_capacity(&mut self.incoming)) {
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(self.lost(&error.to_string())),
                Ok(0) => return Err(self.lost("it closed the connection")),
                Ok(read) => read,
            };
            self.answers(run, outcome, progress)?;
            if read < room {
                return Ok(()); // Rather a `poll` than a read that finds nothing.
            }
        }
    }

    /// Counts the whole frames among what was read, and keeps the rest.
    fn answers(
        &mut self,
        run: &Run,
        outcome: &mut Outcome,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if frame_len(&self.incoming).is_none_or(|len| self.incoming.len() < len) {
            return Ok(());
        }
        let read = Bytes::from(std::mem::take(&mut self.incoming));
        let now = run.start.elapsed();
        let mut at = 0;
        while let Some(len) = frame_len(&read[at..]).filter(|len| read.len() - at >= *len) {
            let frame = read.slice(at + 4..at + len);
            at += len;
            let Some((correlation, intended)) = self.waiting.pop_front() else {
                return Err(self.lost("it answered what was not asked"));
            };
            if correlation_id(&frame) != Some(correlation) {
                return Err(self.lost("it answered out of order"));
            }
            let answer = self.load.answer(correlation, frame);
            if let Ok(answer) = &answer {
                progress.bytes.fetch_add(answer.bytes, Ordering::Relaxed);
                progress.requests.fetch_add(1, Ordering::Relaxed);
            }
            outcome.count(run, intended, now, answer);
        }
        let mut next = std::mem::take(&mut self.spare);
        next.extend_from_slice(&read[at..]);
        self.incoming = next;
        if let Ok(mut whole) = read.try_into_mut() {
            whole.clear(); // Nothing is copied when it becomes a vector again.
            self.spare = whole.into();
        }
        Ok(())
    }

    /// With acks=0, what is written is done.
    fn finish_unanswered(&mut self, run: &Run, outcome: &mut Outcome, progress: &Progress) {
        if self.load.is_answered() || !self.out.is_empty() {
            return;
        }
        let now = run.start.elapsed();
        while let Some((_, intended)) = self.waiting.pop_front() {
            let answer = self.load.unanswered();
            progress.bytes.fetch_add(answer.bytes, Ordering::Relaxed);
            progress.requests.fetch_add(1, Ordering::Relaxed);
            outcome.count(run, intended, now, Ok(answer));
        }
    }

    fn lost(&self, cause: &str) -> Failure {
        Failure::Unreachable { address: self.address.clone(), cause: cause.to_owned() }
    }
}

/// Bytes of the frame that `bytes` begin with, its length included.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    Some(4 + usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(0))
}

/// Drives the lanes to the end of the run. Fails where a connection does.
pub fn drive<L: Load>(
    mut lanes: Vec<Lane<L>>,
    mut pace: Pace,
    run: &Run,
    progress: &Progress,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::new();
    let mut turn = 0;
    loop {
        let now = run.start.elapsed();
        if now < run.until {
            send_due(&mut lanes, &mut pace, run, now, &mut turn);
        } else if now > run.until + run.drain || lanes.iter().all(|lane| lane.waiting.is_empty()) {
            break;
        }
        for lane in &mut lanes {
            if !lane.blocked && !lane.out.is_empty() {
                lane.write().map_err(|error| lane.lost(&error.to_string()))?;
            }
            lane.finish_unanswered(run, &mut outcome, progress);
        }
        let has_room = lanes.iter().any(|lane| lane.has_room(run));
        let sleep = sleep_time(has_room, &pace, run);
        wait(&mut lanes, sleep, run, &mut outcome, progress)?;
    }
    let unanswered: usize = lanes.iter().map(|lane| lane.waiting.len()).sum();
    if unanswered > 0 {
        outcome.errors += unanswered as u64;
        outcome.first_error.get_or_insert_with(|| {
            format!("{unanswered} requests were not answered in {:?}", run.drain)
        });
    }
    Ok(outcome)
}

/// Queues every request that is due and has room: each on the next lane that has.
fn send_due<L: Load>(
    lanes: &mut [Lane<L>],
    pace: &mut Pace,
    run: &Run,
    now: Duration,
    turn: &mut usize,
) {
    while let Some(intended) = pace.due(now) {
        let count = lanes.len();
        let room =
            (0..count).map(|step| (*turn + step) % count).find(|at| lanes[*at].has_room(run));
        let Some(at) = room else { return };
        lanes[at].request(intended);
        *turn = at + 1;
        pace.advance();
    }
}

/// How long nothing is to be done but to wait for the sockets.
fn sleep_time(has_room: bool, pace: &Pace, run: &Run) -> Duration {
    let now = run.start.elapsed();
    if now >= run.until || !has_room {
        return SLEEP_MAX;
    }
    pace.next().saturating_sub(now).min(run.until.saturating_sub(now)).min(SLEEP_MAX)
}

fn wait<L: Load>(
    lanes: &mut [Lane<L>],
    sleep: Duration,
    run: &Run,
    outcome: &mut Outcome,
    progress: &Progress,
) -> Result<(), Failure> {
    let ready: Vec<PollFlags> = {
        let mut fds: Vec<PollFd<'_>> = lanes
            .iter()
            .map(|lane| {
                let writable = if lane.blocked { PollFlags::OUT } else { PollFlags::empty() };
                PollFd::from_borrowed_fd(lane.stream.as_fd(), PollFlags::IN | writable)
            })
            .collect();
        let timeout =
            Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => fds.iter().map(PollFd::revents).collect(),
            Err(error) => {
                return Err(Failure::Unreachable {
                    address: "poll".to_owned(),
                    cause: error.to_string(),
                });
            }
        }
    };
    for (lane, ready) in lanes.iter_mut().zip(ready) {
        if ready.contains(PollFlags::OUT) {
            lane.blocked = false;
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            lane.read(run, outcome, progress)?;
        }
    }
    Ok(())
}
