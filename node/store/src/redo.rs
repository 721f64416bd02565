//! After a crash: what the journal brought and the segments may lack is put where it belongs.
//!
//! Runs before any log of the directory is opened, so that recovery finds segments as if they had been
//! written directly, and judges them as it always does. Invariants: the journal's files go only when
//! all of it is flushed in the segments; doing it twice changes nothing; of what was on stable storage in a
//! journal and is damaged, either its log is told to have held it, or the whole directory is refused.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use flowstone_log::journal::{
    Entry, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Frame, Next, Walk, frame_len,
};
use flowstone_log::{FileKind, names};
use flowstone_runtime::{Buffer, DirEntry, File, OpenOptions, PAGE_BYTES, fs};
use flowstone_types::{Offset, Uuid};
use tracing::{info, warn};

use crate::error::{Action, StorageError};
use crate::gather::gather_bounded;
use crate::home::{Owner, owner};

/// Partitions that are worked on at once.
const AT_ONCE: usize = 32;
/// Bytes that one write brings where pieces follow each other.
const WRITE_BYTES: usize = 1 << 20;

/// Where a piece of a segment stands in the journal.
struct Piece {
    segment: Offset,
    position: u64,
    file: Rc<(File, PathBuf)>,
    at: u64,
    len: usize,
    /// Its bytes are damaged: where its batches ended.
    lost: Option<Offset>,
}

/// A partition with its pieces, in the order in which they were journaled.
type Pieces = BTreeMap<(String, i32, Uuid), Vec<Piece>>;

/// What was redone.
pub(crate) struct Redone {
    /// Up to where each log was on stable storage in the journal. It is in its segments now, as far as it was whole.
    pub ends: BTreeMap<(String, i32), Offset>,
    /// The journal's files, which may go.
    pub files: Vec<PathBuf>,
}

/// Redoes the journal's files among `entries` of the directory `dir`, for [`drop_journal`] to remove. Where one was
/// damaged so that nobody knows which logs lack something, an error, unless an operator gave up what they lack.
pub(crate) async fn redo(dir: &Path, entries: &[DirEntry]) -> Result<Redone, StorageError> {
    let journals = entries.iter().filter(|entry| entry.name.starts_with(names::JOURNAL));
    let journals: Vec<PathBuf> = journals.map(|entry| dir.join(&entry.name)).collect();
    let may_lose = entries.iter().any(|entry| entry.name == names::CUT_ALLOWED);
    let mut pieces = Pieces::new();
    for path in &journals {
        let file = File::open(path, OpenOptions::default()).await;
        let file = Rc::new((file.map_err(StorageError::io(Action::Open, path))?, path.clone()));
        if let Some(position) = index(&file, &mut pieces).await? {
            let error = StorageError::DamagedJournal { path: path.clone(), position };
            if !may_lose {
                return Err(error);
            }
            warn!(%error, "given up, as the operator allows: logs may lack what they had acknowledged");
        }
    }
    let (partitions, dir_path) = (pieces.len(), Rc::<Path>::from(dir));
    let redone = gather_bounded(pieces.into_iter().collect(), AT_ONCE, |(partition, pieces)| {
        let dir = dir_path.clone();
        async move {
            let done = redo_partition(&dir, &partition, pieces).await?;
            Ok::<_, StorageError>((partition, done))
        }
    });
    let (mut bytes, mut ends) = (0, BTreeMap::new());
    for outcome in redone.await {
        let ((topic, index, _), done) = outcome?;
        bytes += done.bytes;
        ends.extend(done.end.map(|end| ((topic, index), end)));
    }
    if !journals.is_empty() {
        info!(dir = %dir.display(), partitions, bytes, "redid the journal");
    }
    Ok(Redone { ends, files: journals })
}

/// Removes the files of a journal that was redone. Flushed even where there are none: of a process that was killed
/// after it removed them, a power cut could bring them back, behind what is written from now on.
pub(crate) async fn drop_journal(dir: &Path, files: &[PathBuf]) -> Result<(), StorageError> {
    for path in files {
        fs::remove_file(path).await.map_err(StorageError::io(Action::Remove, path))?;
    }
    fs::sync_dir(dir).await.map_err(StorageError::io(Action::Flush, dir))
}

/// Notes what the frames of one file bring; returns where frames are lost of which nobody knows what they
/// brought. (What an earlier use brought is in its segments, and redoing it changes nothing as long as nobody
/// rewrites segments: a file of which a new use was about to begin is redone so.) The recovery point does not tell what is
/// needed: a clean stop moves it into the active segment.
async fn index(
    file: &Rc<(File, PathBuf)>,
    pieces: &mut Pieces,
) -> Result<Option<u64>, StorageError> {
    let mut walk = Walk::default();
    loop {
        let found = read_frame(file, walk.at()).await?;
        match walk.found(found) {
            Next::Read => {}
            Next::Look if look_behind(file, &mut walk).await? => {}
            Next::Look | Next::End => break,
        }
    }
    let contents = walk.end();
    for (frame_at, frame) in contents.frames {
        for entry in frame.entries {
            let Entry { topic_id, topic, index, segment, position, bytes, is_whole, end } = entry;
            let (at, len) = (frame_at + bytes.start as u64, bytes.len());
            let lost = end.filter(|_| !is_whole);
            if lost.is_some() {
                let file = file.1.display();
                warn!(%file, at, topic, index, "a journal is damaged: what it had of this log may be lost");
            }
            let piece = Piece { segment, position, file: file.clone(), at, len, lost };
            pieces.entry((topic, index, topic_id)).or_default().push(piece);
        }
    }
    Ok(contents.lost)
}

/// Looks for a frame of the same use behind one that is not there, as far as that may have reached.
async fn look_behind(file: &(File, PathBuf), walk: &mut Walk) -> Result<bool, StorageError> {
    let from = walk.at() + PAGE_BYTES as u64;
    let window = read(file, from, FRAME_BYTES_MAX).await?;
    for at in (0..window.len()).step_by(PAGE_BYTES) {
        if frame_len(&window[at..]).is_some()
            && let Some(frame) = read_frame(file, from + at as u64).await?
            && walk.behind(from + at as u64, frame)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn read_frame(file: &(File, PathBuf), at: u64) -> Result<Option<Frame>, StorageError> {
    let head = read(file, at, FRAME_HEAD_BYTES).await?;
    let Some(len) = frame_len(&head) else { return Ok(None) };
    Ok(Frame::parse(&read(file, at, len).await?))
}

/// Up to `len` bytes from `at`.
async fn read((file, path): &(File, PathBuf), at: u64, len: usize) -> Result<Bytes, StorageError> {
    let (result, mut buffer) = file.read_at(Buffer::with_capacity(len), at).await;
    result.map_err(StorageError::io(Action::Read, path))?;
    buffer.truncate(len);
    Ok(buffer.freeze())
}

/// What was redone of one partition.
#[derive(Default)]
struct Done {
    bytes: u64,
    /// The offset after the last batch that the journal had of it.
    end: Option<Offset>,
}

/// Puts the pieces of one partition in place, flushed.
async fn redo_partition(
    dir: &Path,
    (topic, index, id): &(String, i32, Uuid),
    mut pieces: Vec<Piece>,
) -> Result<Done, StorageError> {
    let path = dir.join(names::partition_dir(topic, *index));
    // The directory was on stable storage, with its topic's id, before anything of it was journaled: if
    // it is not there, or another topic's, this one was deleted.
    let is_there = fs::exists(&path).await.map_err(StorageError::io(Action::Find, &path))?;
    if !is_there || !matches!(owner(&path, *id).await?, Owner::This | Owner::Bent(_)) {
        return Ok(Done::default());
    }
    // Stable: what was journaled twice at one place is the same.
    pieces.sort_by_key(|piece| (piece.segment, piece.position));
    let mut done = Done { bytes: pieces.iter().map(|piece| piece.len as u64).sum(), end: None };
    for of_segment in pieces.chunk_by(|a, b| a.segment == b.segment) {
        let log = path.join(names::segment_file(of_segment[0].segment, FileKind::Log));
        let options = OpenOptions { write: true, ..OpenOptions::default() };
        let file = match File::open(&log, options).await {
            Ok(file) => file,
            // It was there before anything of it was journaled: retention took it.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                info!(segment = %log.display(), "is gone: what the journal has of it is left out");
                continue;
            }
            Err(error) => return Err(StorageError::io(Action::Open, &log)(error)),
        };
        let follows = |a: &Piece, b: &Piece| {
            a.lost.is_none() && b.lost.is_none() && a.position + a.len as u64 == b.position
        };
        let mut reach = 0;
        for row in of_segment.chunk_by(follows) {
            if let Piece { lost: Some(end), position, len, .. } = row[0] {
                // The segment may have it. If not, recovery must find a hole: an end would pass for the segment's.
                (done.end, reach) = (done.end.max(Some(end)), reach.max(position + len as u64));
            } else {
                done.end = done.end.max(write_row(&file, &log, row).await?);
            }
        }
        // A flush that failed may have lost the file's size for good, with or without a marker that says
        // so: no later one speaks of it, unless it changes.
        let resize = async {
            let len = file.len().await?.max(reach);
            file.set_len(len + PAGE_BYTES as u64).await?;
            file.set_len(len).await
        };
        resize.await.map_err(StorageError::io(Action::Cut, &log))?;
        file.sync().await.map_err(StorageError::io(Action::Flush, &log))?;
    }
    Ok(done)
}

/// Writes pieces that follow each other; returns the offset after their last batch.
async fn write_row(
    file: &File,
    path: &Path,
    row: &[Piece],
) -> Result<Option<Offset>, StorageError> {
    let (mut parts, mut bytes, mut at) = (Vec::new(), 0, row[0].position);
    let mut end = None;
    for (number, piece) in row.iter().enumerate() {
        let part = read(&piece.file, piece.at, piece.len).await?;
        let last = flowstone_batch::batches(&part).map_while(Result::ok).last();
        end = last.map_or(end, |(_, header, _)| Some(header.last_offset().plus(1)));
        parts.push(part);
        bytes += piece.len;
        if bytes >= WRITE_BYTES || number + 1 == row.len() {
            let written = file.write_at(std::mem::take(&mut parts), at).await;
            written.map_err(StorageError::io(Action::Write, path))?;
            (at, bytes) = (at + bytes as u64, 0);
        }
    }
    Ok(end)
}
