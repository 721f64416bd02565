//! The journal of one committer: where small groups of many logs become durable with one write.
//!
//! Separate because its files are nobody's log. A group of thirty little batches for sixteen logs costs
//! sixteen writes and sixteen flushes in their segments, and one write here; the segments are
//! written later, in large pieces. Four files take turns. Invariants: a file is written anew only when
//! all that it brought is flushed in its segments, and begins with a frame that says so, on stable storage
//! before another follows; one write is in flight; bytes are written over blocks that were written and
//! flushed before, so a synchronous write needs no metadata.
//!
//! The journal is a help, not a need: while it has no room (it is being prepared, its disk is full, all
//! four files wait for their segments), groups go to their segments directly.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_log::journal::{
    Content, FRAME_ALIGN_BYTES, FRAME_HEAD_BYTES, Place, Stamp, seal_frame,
};
use flowstone_log::names;
use flowstone_runtime::local::Notify;
use flowstone_runtime::{Buffer, File, OpenOptions, PAGE_BYTES, fs, random_u64, sleep, spawn};
use flowstone_types::Offset;

use crate::dir::LogDir;
use crate::error::{Action, StorageError, out_of_space};
use crate::gather::gather_bounded;
use crate::log::Inner;
use crate::tail::Run;

const _: () = assert!(FRAME_ALIGN_BYTES == PAGE_BYTES, "a frame is whole pages");

/// Files that take turns: one is written to, the others become free meanwhile.
const FILES: usize = 4;
/// Groups that go to their segments before a journal is made: a node that only starts needs none.
const GROUPS_BEFORE: u32 = 8;
/// A file is filled with zeros in steps ahead of its writer: the first, and the largest.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a frame, as long as no single run is larger.
const FRAME_BYTES: usize = 1 << 20;
/// A run of that many bytes goes into a frame with its own pages, uncopied; copying a shorter one costs
/// less than writing the rest of its pages.
const PAGED_BYTES_MIN: usize = 8 << 10;
/// Logs that are flushed at once when a file is emptied.
const FLUSH_AT_ONCE: usize = 16;
/// How long until logs that could not be flushed are tried again.
const EMPTY_RETRY: Duration = Duration::from_secs(1);

/// What is journaled of one log: its run, and from where on it is new.
pub(crate) struct Piece {
    pub log: Rc<Inner>,
    pub run: Run,
    /// Of its batches.
    pub checksum: u32,
}

/// The journal.
pub(crate) struct Journal {
    dir: LogDir,
    direct_io: bool,
    /// Largest size of one file; 0 for no journal.
    file_bytes: Cell<u64>,
    books: RefCell<Books>,
    changed: Notify,
}

#[derive(Default)]
struct Books {
    files: Vec<JournalFile>,
    current: usize,
    groups: u32,
    preparing: bool,
    /// A write failed, or the store closes: nothing more goes in.
    closed: bool,
}

struct JournalFile {
    path: PathBuf,
    /// Opened O_DSYNC.
    file: File,
    /// This use of the file, and how many frames it has, the one that it begins with included.
    generation: u64,
    frames: u64,
    position: u64,
    /// Bytes that were written before.
    prepared: u64,
    /// Whose batches are here, and up to which offset.
    logs: BTreeMap<u64, (Rc<Inner>, Offset)>,
    emptying: bool,
}

impl Journal {
    /// A journal of up to `bytes` in `dir`; its files are made when they are needed.
    pub fn new(dir: LogDir, direct_io: bool, bytes: u64) -> Rc<Self> {
        let file_bytes = bytes / FILES as u64 / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        Rc::new(Self {
            dir,
            direct_io,
            file_bytes: Cell::new(file_bytes),
            books: RefCell::default(),
            changed: Notify::new(),
        })
    }

    /// The directory that it is in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether these may be appended now. Sees to it that later ones may.
    pub fn has_room(self: &Rc<Self>, pieces: &[Piece]) -> bool {
        let bytes = split(pieces).map(|pieces| Layout::of(pieces).all).sum::<usize>() as u64;
        let file_bytes = self.file_bytes.get();
        let (fits, to_empty, prepare) = self.books.borrow_mut().room(bytes, file_bytes);
        // A task that is spawned runs at once, and looks into the books.
        if let Some(full) = to_empty {
            self.empty(full);
        }
        if prepare {
            self.prepare();
        }
        fits
    }

    /// Appends pieces, which fit; they are on stable storage when it returns `Ok`.
    pub async fn append(self: &Rc<Self>, pieces: &[Piece]) -> io::Result<()> {
        let mut parts = Vec::with_capacity(pieces.len() + 1);
        let (file, at) = {
            let mut books = self.books.borrow_mut();
            let current = books.current;
            let file = &mut books.files[current];
            let (generation, settled) = (file.generation, file.frames);
            for pieces in split(pieces) {
                frame(pieces, Stamp { generation, number: file.frames, settled }, &mut parts);
                file.frames += 1;
            }
            (file.file.clone(), file.position)
        };
        let bytes: usize = parts.iter().map(Bytes::len).sum();
        let written = file.write_at(parts, at).await;
        let mut books = self.books.borrow_mut();
        let current = books.current;
        if written.is_ok() {
            let file = &mut books.files[current];
            file.position += bytes as u64;
            for Piece { log, run, .. } in pieces {
                file.logs.insert(log.id, (log.clone(), run.next));
            }
        } else {
            // What else is in this file is in memory, too: to the segments with it.
            books.closed = true;
            drop(books);
            self.empty(current);
        }
        written
    }

    /// Ends the journal; removes its files where `all_stored` says that nobody needs them.
    pub async fn close(&self, all_stored: bool) {
        self.books.borrow_mut().closed = true;
        loop {
            let changed = self.changed.notified();
            if !self.books.borrow().preparing {
                break;
            }
            changed.await;
        }
        let files = std::mem::take(&mut self.books.borrow_mut().files);
        if !all_stored {
            return;
        }
        for file in files {
            if let Err(error) = fs::remove_file(&file.path).await {
                tracing::warn!(path = %file.path.display(), %error, "journal file not removed");
            }
        }
    }

    /// Extends the current file; or makes another one, where there is none or where it is full.
    fn prepare(self: &Rc<Self>) {
        if std::mem::replace(&mut self.books.borrow_mut().preparing, true) {
            return;
        }
        let journal = self.clone();
        spawn(async move {
            let result = journal.prepare_step().await;
            journal.books.borrow_mut().preparing = false;
            journal.changed.notify_all();
            if let Err(error) = result {
                journal.give_way(error);
            }
        });
    }

    async fn prepare_step(&self) -> io::Result<()> {
        let file_bytes = self.file_bytes.get();
        let extended = {
            let books = self.books.borrow();
            let current = books.files.get(books.current);
            let growing = current.filter(|file| file.prepared < file_bytes);
            growing.map(|file| (books.current, file.path.clone(), file.prepared))
        };
        let (path, from) = match &extended {
            Some((_, path, from)) => (path.clone(), *from),
            None => (self.dir().join(names::journal(random_u64())), 0),
        };
        let plain = OpenOptions {
            create: true,
            write: true,
            direct: self.direct_io,
            ..OpenOptions::default()
        };
        let zeros = File::open(&path, plain).await?;
        let to = (from + step(from)).min(file_bytes);
        zeros.allocate(from, to - from).await.or_else(|error| match error.kind() {
            io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        })?;
        let mut page = Buffer::with_capacity(STEP_BYTES_MIN as usize);
        page.extend_with_zeros(STEP_BYTES_MIN as usize);
        let page = page.freeze();
        let mut at = from;
        while at < to {
            let len = (to - at).min(STEP_BYTES_MIN);
            zeros.write_at(vec![page.slice(..len as usize)], at).await?;
            at += len;
        }
        zeros.sync().await?;
        if let Some((index, ..)) = extended {
            if let Some(file) = self.books.borrow_mut().files.get_mut(index) {
                file.prepared = to;
            }
            return Ok(());
        }
        fs::sync_dir(self.dir()).await?;
        let file = File::open(&path, OpenOptions { dsync: true, ..plain }).await?;
        let generation = begin(&file).await?;
        let mut books = self.books.borrow_mut();
        books.files.push(JournalFile {
            path,
            file,
            generation,
            frames: 1,
            position: PAGE_BYTES as u64,
            prepared: to,
            logs: BTreeMap::new(),
            emptying: false,
        });
        Ok(())
    }

    /// A file could not be made or extended: the journal stays as large as it is.
    fn give_way(&self, error: io::Error) {
        let dir = self.dir().display();
        if out_of_space(&error) {
            tracing::warn!(%dir, "disk full: the journal does not grow");
        } else {
            tracing::error!(%dir, %error, "the journal does not grow");
            self.dir.fail(&StorageError::io(Action::Write, self.dir())(error));
        }
        let books = self.books.borrow();
        let smallest = books.files.iter().map(|file| file.prepared).min();
        self.file_bytes.set(smallest.unwrap_or(0));
    }

    /// Has the logs of a file written and flushed; then the file is free.
    fn empty(self: &Rc<Self>, at: usize) {
        if std::mem::replace(&mut self.books.borrow_mut().files[at].emptying, true) {
            return;
        }
        let journal = self.clone();
        spawn(async move {
            loop {
                let logs: Vec<(Rc<Inner>, Offset)> = match journal.books.borrow().files.get(at) {
                    Some(file) => file.logs.values().cloned().collect(),
                    None => return, // Closed.
                };
                let settled = gather_bounded(logs, FLUSH_AT_ONCE, |(log, end)| log.settle(end));
                let is_empty = settled.await.iter().all(Result::is_ok);
                if journal.books.borrow().closed {
                    return;
                }
                if is_empty {
                    return journal.use_again(at).await;
                }
                sleep(EMPTY_RETRY).await;
            }
        });
    }

    /// Begins a new use of a file, all of which is flushed in its segments.
    async fn use_again(&self, at: usize) {
        let file = self.books.borrow().files.get(at).map(|file| file.file.clone());
        let Some(file) = file else { return }; // Closed.
        let begun = begin(&file).await;
        let mut books = self.books.borrow_mut();
        match (begun, books.files.get_mut(at)) {
            (Ok(generation), Some(file)) => {
                file.logs.clear();
                (file.generation, file.frames) = (generation, 1);
                file.position = PAGE_BYTES as u64;
                file.emptying = false;
            }
            (Err(error), _) => {
                books.closed = true;
                drop(books);
                self.give_way(error);
            }
            (Ok(_), None) => {} // Closed.
        }
    }
}

impl Books {
    /// Whether `bytes` fit into the current file, having gone on to a free one where it is full; a file to
    /// be emptied; and whether to prepare more.
    fn room(&mut self, bytes: u64, file_bytes: u64) -> (bool, Option<usize>, bool) {
        if self.closed || PAGE_BYTES as u64 + bytes > file_bytes {
            return (false, None, false);
        }
        if self.files.is_empty() {
            self.groups += 1;
            return (false, None, self.groups > GROUPS_BEFORE);
        }
        let mut to_empty = None;
        if self.files[self.current].position + bytes > file_bytes {
            to_empty = Some(self.current);
            let is_free = |file: &JournalFile| file.logs.is_empty() && !file.emptying;
            match self.files.iter().position(is_free) {
                Some(free) => self.current = free,
                None => return (false, to_empty, self.files.len() < FILES),
            }
        }
        let file = &self.files[self.current];
        let (needed, prepared) = (file.position + bytes, file.prepared);
        let is_short = prepared < file_bytes && needed + step(prepared) / 2 > prepared;
        (!file.emptying && needed <= prepared, to_empty, is_short)
    }
}

/// Begins a use of a file; returns its generation. Behind a frame that is torn, nothing of an earlier use can be
/// taken for the rest of this one.
async fn begin(file: &File) -> io::Result<u64> {
    let (generation, mut parts) = (random_u64(), Vec::new());
    frame(&[], Stamp { generation, number: 0, settled: 0 }, &mut parts);
    file.write_at(parts, 0).await?;
    Ok(generation)
}

/// Bytes that a file with `prepared` bytes is extended by.
fn step(prepared: u64) -> u64 {
    prepared.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
}

/// Cuts pieces into frames' worth.
fn split(mut left: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    std::iter::from_fn(move || {
        let (mut bytes, mut count) = (0, 0);
        for piece in left {
            let next = piece.place().head_bytes() + piece.run.pages.len();
            if count > 0 && bytes + next > FRAME_BYTES {
                break;
            }
            (bytes, count) = (bytes + next, count + 1);
        }
        let (these, rest) = left.split_at(count);
        left = rest;
        (count > 0).then_some(these)
    })
}

/// Where in a frame its parts end.
struct Layout {
    /// The frame's head and those of its entries.
    heads: usize,
    /// The small runs, copied behind them; and that, in whole pages.
    copied: usize,
    padded: usize,
    /// The pages of the large runs.
    all: usize,
}

impl Layout {
    fn of(pieces: &[Piece]) -> Self {
        let heads: usize = pieces.iter().map(|piece| piece.place().head_bytes()).sum();
        let heads = FRAME_HEAD_BYTES + heads;
        let (mut copied, mut pages) = (heads, 0);
        for Piece { run, .. } in pieces {
            if run.len() < PAGED_BYTES_MIN {
                copied += run.len();
            } else {
                pages += run.pages.len();
            }
        }
        let padded = copied.next_multiple_of(PAGE_BYTES);
        Self { heads, copied, padded, all: padded + pages }
    }
}

/// Adds a frame of these pieces, whole pages, to `parts`.
fn frame(pieces: &[Piece], stamp: Stamp, parts: &mut Vec<Bytes>) {
    let Layout { heads, copied, padded, all } = Layout::of(pieces);
    let mut head = Buffer::with_capacity(padded);
    head.extend_with_zeros(FRAME_HEAD_BYTES);
    let (mut copied_at, mut paged_at) = (heads, padded);
    for piece in pieces {
        let Run { start, pages_at, pages, .. } = &piece.run;
        let at = if piece.run.len() < PAGED_BYTES_MIN {
            copied_at += piece.run.len();
            copied_at - piece.run.len()
        } else {
            paged_at += pages.len();
            paged_at - pages.len() + (start - pages_at) as usize
        };
        let (bytes, end) = (at..at + piece.run.len(), piece.run.next);
        let content = Content { bytes, checksum: piece.checksum, end };
        piece.place().write_head(&content, |part| head.extend_from_slice(part));
    }
    let (small, large): (Vec<_>, Vec<_>) =
        pieces.iter().map(|piece| &piece.run).partition(|run| run.len() < PAGED_BYTES_MIN);
    for run in small {
        head.extend_from_slice(run.batches());
    }
    head.extend_with_zeros(padded);
    seal_frame(
        &mut head[..heads],
        if all > padded { all } else { copied },
        stamp,
        pieces.len() as u32,
    );
    parts.push(head.freeze());
    parts.extend(large.into_iter().map(|run| run.pages.clone()));
}

impl Piece {
    fn place(&self) -> Place<'_> {
        Place {
            topic_id: self.log.partition.topic,
            topic: &self.log.topic,
            index: self.log.partition.index,
            segment: self.run.segment,
            position: self.run.start,
        }
    }
}
