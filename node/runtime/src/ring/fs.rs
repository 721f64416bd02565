//! Names in directories, on the threads beside the shards: these calls block, and are rare.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use flowstone_types::Timestamp;

use super::offload::offload;
use crate::file::{DirEntry, Space};

/// Runs `work` on an own copy of `path`.
async fn at<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path = path.to_owned();
    offload(move || work(&path)).await
}

pub(crate) async fn create_dir_all(path: &Path) -> io::Result<()> {
    at(path, |path| fs::create_dir_all(path)).await
}

pub(crate) async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let to = to.to_owned();
    at(from, move |from| fs::rename(from, &to)).await
}

pub(crate) async fn remove_file(path: &Path) -> io::Result<()> {
    at(path, |path| fs::remove_file(path)).await
}

pub(crate) async fn remove_dir_all(path: &Path) -> io::Result<()> {
    at(path, |path| fs::remove_dir_all(path)).await
}

pub(crate) async fn sync_dir(path: &Path) -> io::Result<()> {
    at(path, |path| fs::File::open(path)?.sync_all()).await
}

pub(crate) async fn exists(path: &Path) -> io::Result<bool> {
    at(path, Path::try_exists).await
}

pub(crate) async fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    at(path, |path| {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let status = match entry.metadata() {
                Ok(status) => status,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // Just removed.
                Err(error) => return Err(error),
            };
            let modified = status.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            entries.push(DirEntry {
                name,
                is_dir: status.is_dir(),
                len: status.len(),
                modified: Timestamp(modified.as_millis() as i64),
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    })
    .await
}

pub(crate) async fn space(path: &Path) -> io::Result<Space> {
    at(path, |path| {
        let status = rustix::fs::statvfs(path)?;
        Ok(Space {
            total: status.f_blocks * status.f_frsize,
            usable: status.f_bavail * status.f_frsize,
            kind: kind(rustix::fs::statfs(path)?.f_type as u64),
            direct: does_direct(path)?,
        })
    })
    .await
}

/// Whether O_DIRECT works there, by trying: file systems refuse it at open (EINVAL).
fn does_direct(path: &Path) -> io::Result<bool> {
    let directory = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    // A file without a name: nothing to clean up. The file systems that lack it (NFS, ...) are not
    // those we want to write to directly.
    let tried = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE | libc::O_DIRECT)
        .open(directory);
    match tried {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EISDIR) => Ok(false),
            _ => Err(error),
        },
    }
}

/// File systems by their magic number (statfs(2)).
fn kind(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x0102_1994 => "tmpfs",
        0x9123_683e => "btrfs",
        0x794c_7630 => "overlayfs",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        _ => "unknown",
    }
}
