//! Files on the ring.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use io_uring::{opcode, squeue, types};

use super::offload::offload;
use super::op::{Operation, Orphan, Step, at_once, submit, submit_detached};
use super::parts::Parts;
use super::shard::on_a_shard;
use crate::file::OpenOptions;
use crate::memory::{Buffer, PAGE_BYTES};

/// Permissions of new files, before the umask.
const MODE: u32 = 0o644;

/// One submission reads no more than this (the kernel stops a little below 2 GiB anyway).
const READ_BYTES_MAX: usize = 1 << 30;

#[derive(Clone)]
pub(crate) struct File(Rc<Descriptor>);

/// The descriptor, closed through the ring: the last close of a large file that was removed frees
/// its blocks, which takes the file system milliseconds.
struct Descriptor {
    fd: Option<OwnedFd>, // Taken only by drop and close.
    is_direct: bool,
}

impl Descriptor {
    fn fd(&self) -> types::Fd {
        types::Fd(self.owned().as_raw_fd())
    }

    fn owned(&self) -> &OwnedFd {
        self.fd.as_ref().expect("drop and close are the end")
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take()
            && on_a_shard()
        {
            submit_detached(Close::new(fd));
        }
    }
}

impl File {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> io::Result<Self> {
        let mut flags = libc::O_CLOEXEC;
        flags |= if options.write { libc::O_RDWR } else { libc::O_RDONLY };
        flags |= if options.create || options.create_new { libc::O_CREAT } else { 0 };
        flags |= if options.create_new { libc::O_EXCL } else { 0 };
        flags |= if options.direct { libc::O_DIRECT } else { 0 };
        flags |= if options.dsync { libc::O_DSYNC } else { 0 };
        let path = CString::new(path.as_os_str().as_bytes())?;
        let fd = submit(Open { path, flags, opened: None }).await.opened.expect("done")?;
        Ok(Self(Rc::new(Descriptor { fd: Some(fd), is_direct: options.direct })))
    }

    pub(crate) async fn read_at(&self, buffer: Buffer, offset: u64) -> (io::Result<usize>, Buffer) {
        let file = Rc::clone(&self.0);
        let mut read = submit(Read { file, buffer, offset, result: Ok(0) }).await;
        read.buffer.set_len(*read.result.as_ref().unwrap_or(&0));
        (read.result, read.buffer)
    }

    pub(crate) async fn write_at(&self, parts: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let parts = Parts::new(parts, usize::MAX);
        if parts.is_empty() {
            return Ok(());
        }
        submit(Write { file: Rc::clone(&self.0), parts, offset, result: Ok(()) }).await.result
    }

    pub(crate) async fn datasync(&self) -> io::Result<()> {
        self.run(Change::Sync(types::FsyncFlags::DATASYNC)).await
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.run(Change::Sync(types::FsyncFlags::empty())).await
    }

    pub(crate) async fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.run(Change::Allocate { offset, len }).await
    }

    async fn run(&self, change: Change) -> io::Result<()> {
        submit(Simple { file: Rc::clone(&self.0), change, result: Ok(()) }).await.result
    }

    pub(crate) async fn set_len(&self, len: u64) -> io::Result<()> {
        // IORING_OP_FTRUNCATE is younger (6.9) than what we support. The thread has a descriptor of
        // its own: ours may be closed while it works.
        let file = std::fs::File::from(self.0.owned().try_clone()?);
        offload(move || file.set_len(len)).await
    }

    pub(crate) async fn len(&self) -> io::Result<u64> {
        let statx = Box::new(MaybeUninit::zeroed());
        let status = submit(Status { file: Rc::clone(&self.0), statx, result: Ok(()) }).await;
        status.result?;
        // SAFETY: the kernel filled it, and zeros were a valid value before.
        Ok(unsafe { status.statx.assume_init() }.stx_size)
    }

    pub(crate) async fn close(self) -> io::Result<()> {
        let Ok(mut descriptor) = Rc::try_unwrap(self.0) else {
            return Ok(()); // Others hold it: the last of them closes.
        };
        let fd = descriptor.fd.take().expect("drop and close are the end");
        submit(Close::new(fd)).await.result
    }
}

struct Open {
    path: CString,
    flags: i32,
    opened: Option<io::Result<OwnedFd>>,
}

impl Operation for Open {
    const ORPHAN: Orphan = Orphan::Finish; // It may create; the descriptor goes with the orphan.

    fn entry(&mut self) -> squeue::Entry {
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), self.path.as_ptr())
            .flags(self.flags)
            .mode(MODE)
            .build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        // SAFETY: the kernel opened it for us and told no one else.
        self.opened = Some(result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }));
        Step::Done
    }
}

struct Read {
    file: Rc<Descriptor>,
    buffer: Buffer,
    offset: u64,
    result: io::Result<usize>, // Ok: how much has been read.
}

impl Operation for Read {
    const ORPHAN: Orphan = Orphan::Cancel;

    fn entry(&mut self) -> squeue::Entry {
        let done = *self.result.as_ref().expect("an error is the end");
        let want = at_once((self.buffer.capacity() - done).min(READ_BYTES_MAX));
        // SAFETY: `done` is within the buffer.
        let to = unsafe { self.buffer.start().add(done) };
        let offset = self.offset + done as u64;
        opcode::Read::new(self.file.fd(), to, want as u32).offset(offset).build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        match (result, &mut self.result) {
            (Ok(0), _) => Step::Done, // The end of the file.
            (Ok(got), Ok(done)) => {
                *done += got as usize;
                // Short: at the end of the file, or interrupted. Only another read tells; but a
                // direct one could not go on within a page, and only the end of a file lies there.
                let is_end = self.file.is_direct && !done.is_multiple_of(PAGE_BYTES);
                if is_end || *done == self.buffer.capacity() { Step::Done } else { Step::Again }
            }
            (Err(error), _) => {
                self.result = Err(error);
                Step::Done
            }
            (Ok(_), Err(_)) => unreachable!("an error is the end"),
        }
    }
}

struct Write {
    file: Rc<Descriptor>,
    parts: Parts,
    offset: u64,
    result: io::Result<()>,
}

impl Operation for Write {
    const ORPHAN: Orphan = Orphan::Finish;

    fn entry(&mut self) -> squeue::Entry {
        let (start, count) = self.parts.vectors();
        opcode::Writev::new(self.file.fd(), start, count as u32).offset(self.offset).build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        match result {
            Ok(0) => self.result = Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                self.offset += u64::from(written);
                self.parts.advance(written as usize);
                if !self.parts.is_empty() {
                    return Step::Again;
                }
            }
            Err(error) => self.result = Err(error),
        }
        Step::Done
    }
}

/// What changes a file and carries no data.
#[derive(Clone, Copy)]
enum Change {
    Sync(types::FsyncFlags),
    Allocate { offset: u64, len: u64 },
}

struct Simple {
    file: Rc<Descriptor>,
    change: Change,
    result: io::Result<()>,
}

impl Operation for Simple {
    const ORPHAN: Orphan = Orphan::Finish;

    fn entry(&mut self) -> squeue::Entry {
        match self.change {
            Change::Sync(flags) => opcode::Fsync::new(self.file.fd()).flags(flags).build(),
            Change::Allocate { offset, len } => {
                opcode::Fallocate::new(self.file.fd(), len).offset(offset).build()
            }
        }
    }

    fn may_repeat(&self) -> bool {
        matches!(self.change, Change::Allocate { .. })
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        self.result = result.map(|_| ());
        Step::Done
    }
}

struct Status {
    file: Rc<Descriptor>,
    statx: Box<MaybeUninit<libc::statx>>,
    result: io::Result<()>,
}

impl Operation for Status {
    const ORPHAN: Orphan = Orphan::Finish;

    fn entry(&mut self) -> squeue::Entry {
        opcode::Statx::new(self.file.fd(), c"".as_ptr(), self.statx.as_mut_ptr().cast())
            .flags(libc::AT_EMPTY_PATH)
            .mask(libc::STATX_SIZE)
            .build()
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        self.result = result.map(|_| ());
        Step::Done
    }
}

struct Close {
    fd: i32,
    result: io::Result<()>,
}

impl Close {
    fn new(fd: OwnedFd) -> Self {
        Self { fd: fd.into_raw_fd(), result: Ok(()) }
    }
}

impl Operation for Close {
    const ORPHAN: Orphan = Orphan::Finish;

    fn entry(&mut self) -> squeue::Entry {
        opcode::Close::new(types::Fd(self.fd)).build().flags(squeue::Flags::ASYNC)
    }

    fn may_repeat(&self) -> bool {
        false
    }

    fn advance(&mut self, result: io::Result<u32>) -> Step {
        self.result = result.map(|_| ());
        Step::Done
    }
}
