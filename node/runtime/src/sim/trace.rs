//! What happened, in order: a hash that tells two runs apart, and the last lines for a reader.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// Kinds of events; each carries up to three numbers whose meaning its docs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A task is polled: task, shard.
    Poll,
    /// A machine starts: shards, incarnation.
    Boot,
    /// A process ends by SIGKILL or by itself: tasks dropped.
    Kill,
    /// A machine loses power: tasks dropped.
    PowerLoss,
    /// A process is asked to stop.
    Terminate,
    /// A file is opened: inode.
    Open,
    /// A read completes: inode, offset, bytes (`u64::MAX`: failed).
    Read,
    /// A write is applied: inode, offset, bytes.
    Write,
    /// A write fails: inode, offset, bytes that reached the disk.
    WriteFails,
    /// A write that was under way at a crash: inode, offset, bytes that reached the disk.
    WriteCut,
    /// A file was made durable: inode, versions up to.
    Sync,
    /// Making a file or directory durable failed: inode.
    SyncFails,
    /// A directory was made durable: inode.
    SyncDir,
    /// A file's size or allocation changed: inode, size.
    Resize,
    /// A name changed: directory, inode (0: removed).
    Name,
    /// A connection was made: endpoints of the client and the server.
    Connect,
    /// A connection was refused or could not be made: port.
    NoConnect,
    /// Bytes arrive: endpoint, bytes.
    Arrive,
    /// The peer's end of stream arrives: endpoint.
    Finish,
    /// A connection breaks: endpoint.
    Reset,
    /// A connection falls silent for good: endpoint.
    Silence,
}

/// One event, as it is kept for a reader.
struct Line {
    at: u64,
    machine: usize,
    what: What,
}

enum What {
    Event(Kind, [u64; 3]),
    Note(String),
}

/// The trace of one world.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    keep: usize,
    lines: VecDeque<Line>,
}

impl Trace {
    /// Keeps the last `lines` events for [`Trace::text`] (0: only the hash).
    pub fn keep(&mut self, lines: usize) {
        self.keep = lines;
    }

    /// Takes down one event.
    pub fn event(&mut self, at: u64, machine: usize, kind: Kind, numbers: [u64; 3]) {
        self.events += 1;
        self.mix(at);
        self.mix((machine as u64) << 8 | kind as u64);
        for number in numbers {
            self.mix(number);
        }
        if self.keep > 0 {
            self.push(Line { at, machine, what: What::Event(kind, numbers) });
        }
    }

    /// Takes down what a program or the harness has to say; part of the hash too.
    pub fn note(&mut self, at: u64, machine: usize, note: &str) {
        self.events += 1;
        self.mix(at);
        for byte in note.bytes() {
            self.mix(u64::from(byte));
        }
        if self.keep > 0 {
            self.push(Line { at, machine, what: What::Note(note.to_owned()) });
        }
    }

    /// Adds words for a reader to what was taken down; they are no part of the hash.
    pub fn explain(&mut self, at: u64, machine: usize, words: impl FnOnce() -> String) {
        if self.keep > 0 {
            self.push(Line { at, machine, what: What::Note(words()) });
        }
    }

    fn push(&mut self, line: Line) {
        if self.lines.len() == self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    /// Equal for two runs that took the same path.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines that were kept, oldest first; `name` names a machine.
    pub fn text(&self, name: impl Fn(usize) -> String) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let at = line.at as f64 / 1e6;
            let _ = write!(text, "{at:>14.6} ms  {:<8} ", name(line.machine));
            let _ = match &line.what {
                What::Event(kind, [a, b, c]) => writeln!(text, "{kind:?} {a} {b} {c}"),
                What::Note(note) => writeln!(text, "{note}"),
            };
        }
        text
    }
}
