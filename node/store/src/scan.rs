//! Goes through a segment's file from front to back: the core's scanner, fed from disk.

use std::path::PathBuf;

use bytes::Bytes;
use flowstone_batch::BatchHeader;
use flowstone_log::{End, Scanner, Step};
use flowstone_runtime::{Buffer, File, PAGE_BYTES};

use crate::error::{Action, StorageError};

/// How much is read at once: the largest pooled buffer.
const SCAN_BYTES: usize = 1 << 20;

/// A scan under way.
pub(crate) struct SegmentScan {
    file: File,
    path: PathBuf,
    scanner: Scanner,
    window: Bytes,
    /// Position of the window's first byte.
    window_at: u64,
    end: End,
}

impl SegmentScan {
    pub fn open(file: File, path: PathBuf, scanner: Scanner) -> Self {
        let window_at = scanner.position();
        Self { file, path, scanner, window: Bytes::new(), window_at, end: End::Clean }
    }

    /// The next batch, header and bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, StorageError> {
        loop {
            let at = (self.scanner.position() - self.window_at) as usize;
            match self.scanner.step(&self.window[at..]) {
                Step::Batch(header) => {
                    return Ok(Some((header, self.window.slice(at..at + header.total_len()))));
                }
                Step::End(end) => {
                    self.end = end;
                    return Ok(None);
                }
                Step::More(bytes) => self.read(bytes).await?,
            }
        }
    }

    /// Why it ended, and how many bytes of the file are good.
    pub fn ended(&self) -> (End, u64) {
        (self.end, self.scanner.position())
    }

    /// The offset after the last batch.
    pub fn next_offset(&self) -> flowstone_types::Offset {
        self.scanner.next()
    }

    async fn read(&mut self, least: usize) -> Result<(), StorageError> {
        let position = self.scanner.position();
        let page = position - position % PAGE_BYTES as u64;
        let skip = (position - page) as usize;
        let left = (self.scanner.file_bytes() - page) as usize;
        let buffer = Buffer::with_capacity((skip + least).max(left.min(SCAN_BYTES)));
        let (result, buffer) = self.file.read_at(buffer, page).await;
        result.map_err(StorageError::io(Action::Read, &self.path))?;
        if buffer.len() < skip + least {
            let what = format!("{} bytes at {page}, {} were expected", buffer.len(), skip + least);
            return Err(StorageError::Damaged { path: self.path.clone(), what });
        }
        (self.window, self.window_at) = (buffer.freeze(), page);
        Ok(())
    }
}
