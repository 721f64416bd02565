//! Files and the namespace they live in.

use std::io;
use std::path::Path;

use bytes::Bytes;
use flowstone_types::Timestamp;

use crate::memory::{Buffer, PAGE_BYTES};
use crate::ring;

/// An open file. Clones are the same open file.
#[derive(Clone)]
pub struct File(Inner);

#[derive(Clone)]
enum Inner {
    Ring(ring::File),
    #[cfg(feature = "sim")]
    Sim(crate::sim::File),
}

/// How to open a file. All false: an existing file, to be read through the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    /// Make it where it does not exist.
    pub create: bool,
    /// Make it, and fail with `AlreadyExists` where it does exist.
    pub create_new: bool,
    /// O_DIRECT: offsets, lengths and memory are multiples of 4096.
    pub direct: bool,
    /// Open for reading and writing, not only for reading.
    pub write: bool,
    /// O_DSYNC: a write is on stable storage when it returns.
    pub dsync: bool,
}

impl File {
    /// Opens a file.
    pub async fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        world!(
            Ok(Self(Inner::Ring(ring::File::open(path, options).await?))),
            Ok(Self(Inner::Sim(crate::sim::File::open(path, options).await?)))
        )
    }

    /// Reads up to `buffer.capacity()` bytes from `offset`, over what the buffer held; on `Ok(n)` its
    /// length is `n`, which is short only at the end of the file. Direct: the offset is a multiple of 4096.
    pub async fn read_at(&self, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        each!(&self.0, file => file.read_at(buffer, offset).await)
    }

    /// Writes all of `parts`, one after the other, from `offset`. Once begun it is carried to its end,
    /// even if the future is dropped. An error says nothing about how much arrived. Direct: the
    /// offset, and each part's address and length, are multiples of 4096.
    pub async fn write_at(&self, parts: Vec<Bytes>, offset: u64) -> io::Result<()> {
        each!(&self.0, file => file.write_at(parts, offset).await)
    }

    /// fdatasync: the data, and what is needed to read it again, is on stable storage.
    pub async fn datasync(&self) -> io::Result<()> {
        each!(&self.0, file => file.datasync().await)
    }

    /// fsync: data and all metadata are on stable storage.
    pub async fn sync(&self) -> io::Result<()> {
        each!(&self.0, file => file.sync().await)
    }

    /// Reserves `len` bytes from `offset` (fallocate mode 0: they read as zeros, the file grows).
    pub async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        each!(&self.0, file => file.allocate(offset, len).await)
    }

    /// Cuts or extends the file to `len` bytes.
    pub async fn set_len(&self, len: u64) -> io::Result<()> {
        each!(&self.0, file => file.set_len(len).await)
    }

    /// The file's length in bytes.
    pub async fn len(&self) -> io::Result<u64> {
        each!(&self.0, file => file.len().await)
    }

    /// Whether the file holds nothing.
    pub async fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// Closes this handle, and the file with the last one. Dropping does the same in the background.
    pub async fn close(self) -> io::Result<()> {
        each!(self.0, file => file.close().await)
    }
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 are not ours and are left out.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes (of a file).
    pub len: u64,
    /// Last modification.
    pub modified: Timestamp,
}

/// What a file system can hold, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Space {
    /// Size in bytes.
    pub total: u64,
    /// Bytes that we may still use.
    pub usable: u64,
    /// Its kind: "ext4", "xfs", "tmpfs", ... ("unknown" where we have no name for it).
    pub kind: &'static str,
    /// Whether a file there can be opened with O_DIRECT.
    pub direct: bool,
}

/// Names: making, moving, removing and listing them. Durable only where the name says so.
pub mod fs {
    use super::{Buffer, Bytes, DirEntry, File, OpenOptions, PAGE_BYTES, Path, Space, io, ring};

    /// Makes a directory and those above it.
    pub async fn create_dir_all(path: &Path) -> io::Result<()> {
        world!(ring::fs::create_dir_all(path).await, crate::sim::fs::create_dir_all(path).await)
    }

    /// Renames, replacing what was there. Durable after [`sync_dir`].
    pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
        world!(ring::fs::rename(from, to).await, crate::sim::fs::rename(from, to).await)
    }

    /// Removes a file.
    pub async fn remove_file(path: &Path) -> io::Result<()> {
        world!(ring::fs::remove_file(path).await, crate::sim::fs::remove_file(path).await)
    }

    /// Removes a directory and all in it.
    pub async fn remove_dir_all(path: &Path) -> io::Result<()> {
        world!(ring::fs::remove_dir_all(path).await, crate::sim::fs::remove_dir_all(path).await)
    }

    /// Puts a directory's names on stable storage.
    pub async fn sync_dir(path: &Path) -> io::Result<()> {
        world!(ring::fs::sync_dir(path).await, crate::sim::fs::sync_dir(path).await)
    }

    /// Whether something has this name.
    pub async fn exists(path: &Path) -> io::Result<bool> {
        world!(ring::fs::exists(path).await, crate::sim::fs::exists(path).await)
    }

    /// The names in a directory, in byte order.
    pub async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
        world!(ring::fs::read_dir(path).await, crate::sim::fs::read_dir(path).await)
    }

    /// Size and kind of the file system that holds `path`, and whether it does O_DIRECT.
    pub async fn space(path: &Path) -> io::Result<Space> {
        world!(ring::fs::space(path).await, crate::sim::fs::space(path).await)
    }

    /// The whole of a small file.
    pub async fn read(path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path, OpenOptions::default()).await?;
        let mut bytes = Vec::new();
        loop {
            // One byte more than is left, so that the last read is short and ends the loop.
            let left = (file.len().await? as usize).saturating_sub(bytes.len());
            let buffer = Buffer::with_capacity((left + 1).min(READ_BYTES));
            let (result, buffer) = file.read_at(buffer, bytes.len() as u64).await;
            result?;
            bytes.extend_from_slice(&buffer);
            if buffer.len() < buffer.capacity() {
                file.close().await?;
                return Ok(bytes);
            }
        }
    }

    /// Replaces a small file in one step: after a crash it holds the old bytes or the new ones. The
    /// new bytes are on stable storage on return. Goes through `<path>.tmp`.
    pub async fn write_atomic(path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
        let file = File::open(temporary, options).await?;
        file.set_len(0).await?; // What a crash may have left.
        file.write_at(vec![Bytes::from(bytes)], 0).await?;
        file.sync().await?;
        file.close().await?;
        rename(temporary, path).await?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent).await,
            _ => sync_dir(Path::new(".")).await,
        }
    }

    /// Largest piece [`read`] reads at once.
    const READ_BYTES: usize = 256 * PAGE_BYTES;
}
