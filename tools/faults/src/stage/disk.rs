//! A disk that fails on command: one file, served by this process through FUSE, under a loop device.
//!
//! The kernel's whole stack is above it, so an error here is to the daemon what a bad disk is. It has a
//! cache of its own, as disks have: what was written is in its medium only after a flush, and a loss of
//! power loses the rest. Invariant: reads see the cache, as they do on a disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::Context;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

/// Bytes that the cache holds together.
const BLOCK: u64 = 4096;
/// The one file.
const NAME: &str = "disk";
const INODE: INodeNo = INodeNo(2);
/// How long a drive that resets itself fails every flush. One that said yes again at once would lie to those
/// whose bytes it lost, and no host could tell: the error goes to one of them, and takes its way.
const RESET_TAKES: Duration = Duration::from_millis(50);
/// How long the kernel may believe what it was told of the file, which never changes.
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// The disk; dropped, it is gone.
pub struct Disk {
    state: Arc<State>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
}

struct State {
    medium: File,
    bytes: u64,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Written and not flushed, by block.
    cache: BTreeMap<u64, Box<[u8]>>,
    /// The next flush fails.
    fail_next: Option<AfterFailure>,
    flushes_failed: u32,
    /// It resets itself.
    away_until: Option<Instant>,
    /// Reads of these bytes fail.
    bad: Vec<Range<u64>>,
    reads_failed: u32,
}

/// What a disk does with its cache when a flush fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterFailure {
    /// It keeps it: the next flush puts all of it into the medium.
    Keeps,
    /// It forgets it, as a drive that resets itself: what was written before is gone, and flushes fail until it
    /// is back ([`RESET_TAKES`]).
    Forgets,
}

impl Disk {
    /// A disk of so many bytes, all zero, in `folder`.
    pub fn make(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let mount = folder.join("fuse");
        std::fs::create_dir_all(&mount)?;
        let medium = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(folder.join("medium.img"))?;
        medium.set_len(bytes)?;
        let state = Arc::new(State { medium, bytes, faults: Mutex::default() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("flowstone-faults".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::clone(&state)), &mount, &config)
            .context("cannot mount by FUSE")?;
        Ok(Self { state, mount, session: Some(session) })
    }

    /// The file that a loop device takes.
    pub fn file(&self) -> PathBuf {
        self.mount.join(NAME)
    }

    /// The next flush fails and puts nothing into the medium; those after it succeed as [`AfterFailure`] says.
    pub fn fail_next_flush(&self, then: AfterFailure) {
        self.state.faults().fail_next = Some(then);
    }

    /// How many flushes failed.
    pub fn flushes_failed(&self) -> u32 {
        self.state.faults().flushes_failed
    }

    /// How many reads failed.
    pub fn reads_failed(&self) -> u32 {
        self.state.faults().reads_failed
    }

    /// The power fails: what was not flushed is lost, and a reset is over.
    pub fn lose_cache(&self) {
        let mut faults = self.state.faults();
        faults.cache.clear();
        faults.away_until = None;
    }

    /// Reads of the blocks where a copy of these bytes begins fail from now on, until [`Disk::heal`];
    /// how many copies there are.
    pub fn break_where(&self, wanted: &[u8]) -> io::Result<usize> {
        const STEP: usize = 1 << 20;
        let mut faults = self.state.faults();
        let mut window = vec![0; STEP + wanted.len()];
        let (mut at, mut copies) = (0, 0);
        while at < self.state.bytes {
            let len = window.len().min((self.state.bytes - at) as usize);
            self.state.read(&faults, at, &mut window[..len])?;
            for found in find(&window[..len], wanted).filter(|found| *found < STEP) {
                let block = (at + found as u64) / BLOCK * BLOCK;
                faults.bad.push(block..block + BLOCK);
                copies += 1;
            }
            at += STEP as u64;
        }
        Ok(copies)
    }

    /// All reads succeed again.
    pub fn heal(&self) {
        self.state.faults().bad.clear();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
        let _ = std::fs::remove_file(self.mount.with_file_name("medium.img"));
    }
}

fn find(text: &[u8], wanted: &[u8]) -> impl Iterator<Item = usize> {
    let starts = text.iter().enumerate().filter(|(_, byte)| wanted.first() == Some(byte));
    starts.map(|(at, _)| at).filter(|at| text[*at..].starts_with(wanted))
}

impl State {
    /// What a thread that panicked left is still whole.
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, faults: &Faults, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.medium.read_exact_at(to, offset)?;
        let end = offset + to.len() as u64;
        for (block, bytes) in faults.cache.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let start = block * BLOCK;
            let (from, until) = (start.max(offset), (start + BLOCK).min(end));
            let part = &bytes[(from - start) as usize..(until - start) as usize];
            to[(from - offset) as usize..(until - offset) as usize].copy_from_slice(part);
        }
        Ok(())
    }

    fn write(&self, faults: &mut Faults, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut at, mut data) = (offset, data);
        while !data.is_empty() {
            let (block, within) = (at / BLOCK, (at % BLOCK) as usize);
            let len = data.len().min(BLOCK as usize - within);
            let mut bytes = vec![0; BLOCK as usize].into_boxed_slice();
            if len < BLOCK as usize {
                self.read(faults, block * BLOCK, &mut bytes)?;
            }
            bytes[within..within + len].copy_from_slice(&data[..len]);
            faults.cache.insert(block, bytes);
            (at, data) = (at + len as u64, &data[len..]);
        }
        Ok(())
    }

    fn flush(&self, faults: &mut Faults) -> io::Result<()> {
        if !faults.cache.is_empty()
            && let Some(then) = faults.fail_next.take()
        {
            faults.flushes_failed += 1;
            faults.away_until =
                (then == AfterFailure::Forgets).then(|| Instant::now() + RESET_TAKES);
            if then == AfterFailure::Keeps {
                return Err(rustix::io::Errno::IO.into());
            }
        }
        if faults.away_until.is_some_and(|until| Instant::now() < until) {
            faults.cache.clear();
            return Err(rustix::io::Errno::IO.into());
        }
        let cache = std::mem::take(&mut faults.cache);
        cache.iter().try_for_each(|(block, bytes)| self.medium.write_all_at(bytes, block * BLOCK))
    }
}

/// The disk, as the kernel asks for it.
struct Served(Arc<State>);

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_disk = inode == INODE;
        FileAttr {
            ino: inode,
            size: if is_disk { self.0.bytes } else { 0 },
            blocks: if is_disk { self.0.bytes / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: BLOCK as u32,
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&KNOWN_FOR, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&KNOWN_FOR, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel caches nothing of it: what is read is read here.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut faults = self.0.faults();
        let end = self.0.bytes.min(offset + u64::from(size));
        if faults.bad.iter().any(|bad| offset < bad.end && bad.start < end) {
            faults.reads_failed += 1;
            return reply.error(Errno::EIO);
        }
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        match self.0.read(&faults, offset, &mut bytes) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(&mut self.0.faults(), offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.0.flush(&mut self.0.faults()) {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // A descriptor is closed, which means nothing to a disk.
    }
}

/// Why such a disk cannot be made here, if it cannot.
pub fn missing() -> Option<String> {
    let there = Path::new("/dev/fuse").exists();
    (!there).then(|| "this kernel offers no FUSE".to_owned())
}
