//! A file system of a scenario's own: an image file under a loop device, to fill and to cut the power of.
//!
//! Power is cut by the GOINGDOWN ioctl without a flush of the file system's log (ext4 and XFS have the
//! same): from then on nothing reaches the image any more, neither pages nor metadata, as if the machine
//! had stopped. What was written directly into blocks that the file system knew is in the image; a disk
//! that forgets what its own cache held is not played. Invariant: dropped, it leaves no mount and no
//! device behind.
#![allow(unsafe_code, reason = "an ioctl that rustix does not name; see cut_power")]

use std::cell::Cell;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::statvfs;
use rustix::ioctl::{Setter, ioctl, opcode};

use super::disk::Disk;

/// `_IOR('X', 125, u32)`: XFS_IOC_GOINGDOWN, and EXT4_IOC_SHUTDOWN.
const GOINGDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// XFS_FSOP_GOING_FLAGS_NOLOGFLUSH: what the log holds in memory is lost, too.
const NO_LOG_FLUSH: u32 = 2;
/// How long a file system that went down may be held by what a killed process left in the kernel.
const UNMOUNT_MAX: Duration = Duration::from_secs(20);

/// Which file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Journal in ordered mode, Debian's default.
    Ext4,
    /// The same, of those who have large disks.
    Xfs,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        })
    }
}

/// A mounted file system.
pub struct FileSystem {
    kind: Kind,
    device: String,
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
    /// Whether its power was cut since it was mounted.
    cut: Cell<bool>,
    /// What fails on command. Last, so that it goes last.
    beneath: Option<Disk>,
}

impl FileSystem {
    /// A fresh one of so many bytes, in a sparse image in `folder`; XFS wants 300 MiB or more.
    pub fn make(folder: &Path, kind: Kind, bytes: u64) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let image = folder.join(format!("{kind}.img"));
        File::create(&image)?.set_len(bytes)?;
        Self::make_on(folder, kind, image, None, &[])
    }

    /// A fresh one on a disk that fails on command, made with these words for mkfs.
    pub fn make_failing(
        folder: &Path,
        kind: Kind,
        bytes: u64,
        mkfs: &[&str],
    ) -> anyhow::Result<Self> {
        let disk = Disk::make(folder, bytes)?;
        Self::make_on(folder, kind, disk.file(), Some(disk), mkfs)
    }

    fn make_on(
        folder: &Path,
        kind: Kind,
        image: PathBuf,
        beneath: Option<Disk>,
        mkfs: &[&str],
    ) -> anyhow::Result<Self> {
        let device = run("losetup", &["--find", "--show", &text(&image)])?.trim().to_owned();
        let mount = folder.join(kind.to_string());
        let mut made =
            Self { kind, device, image, mount, beneath, mounted: false, cut: Cell::new(false) };
        let (tool, usual): (_, &[&str]) = match kind {
            // Nothing set aside for root, as which the daemon runs here: full is full. Its tables are written now, not
            // by a thread of the kernel later, which keeps a failed flush to itself.
            Kind::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0"]),
            Kind::Xfs => ("mkfs.xfs", &["-q", "-f"]),
        };
        run(tool, &[usual, mkfs, &[&made.device]].concat())?;
        fs::create_dir_all(&made.mount)?;
        made.attach()?;
        Ok(made)
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes that may still be taken.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let found = statvfs(&self.mount)?;
        Ok(found.f_bavail * found.f_frsize)
    }

    /// Its size.
    pub fn all_bytes(&self) -> anyhow::Result<u64> {
        let found = statvfs(&self.mount)?;
        Ok(found.f_blocks * found.f_frsize)
    }

    /// The power fails: nothing more reaches the image, and what has not is lost.
    pub fn cut_power(&self) -> anyhow::Result<()> {
        let root = File::open(&self.mount)?;
        self.cut.set(true);
        // SAFETY: the opcode takes a pointer to a u32 and only reads it, as `Setter` passes it; the
        // kernel answers ENOTTY where a file system does not know it.
        unsafe { ioctl(&root, Setter::<GOINGDOWN, u32>::new(NO_LOG_FLUSH)) }
            .with_context(|| format!("cannot cut the power of {}", self.mount.display()))
    }

    /// The power is back: unmounts, which writes nothing where it was cut, and mounts again. Nothing of
    /// its files is in memory then, nor, where it was cut, in the cache of the disk.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        self.detach()?;
        if self.cut.take()
            && let Some(disk) = &self.beneath
        {
            disk.lose_cache();
        }
        self.attach()
    }

    /// Unmounts, lets the file system's own tool mend what it finds broken, and mounts again.
    pub fn repair(&mut self) -> anyhow::Result<()> {
        assert!(self.kind == Kind::Ext4, "xfs_repair is another matter");
        self.detach()?;
        // Its status says what it found, too: whether it is mended shows when it is mounted.
        Command::new("e2fsck").args(["-f", "-y", &self.device]).output().context("e2fsck")?;
        self.attach()
    }

    /// The disk that fails on command, below one that was made so.
    pub fn beneath(&self) -> &Disk {
        self.beneath.as_ref().expect("made to fail")
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        run("mount", &["-o", "noatime", &self.device, &text(&self.mount)])?;
        self.mounted = true;
        Ok(())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + UNMOUNT_MAX;
        loop {
            match run("umount", &[&text(&self.mount)]) {
                Ok(_) => break,
                Err(why) if Instant::now() > until => return Err(why),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if self.mounted && self.detach().is_err() {
            let _ = run("umount", &["--lazy", &text(&self.mount)]);
        }
        let _ = run("losetup", &["--detach", &self.device]);
        if self.beneath.is_none() {
            let _ = fs::remove_file(&self.image);
        }
    }
}

/// Why file systems cannot be made here, if they cannot.
pub fn missing(kinds: &[Kind]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, for loop devices and mounts".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("this kernel offers no loop devices".to_owned());
    }
    let tools = kinds.iter().map(|kind| format!("mkfs.{kind}"));
    let lacking = |tool: &String| Command::new(tool).arg("-V").output().is_err();
    tools.into_iter().find(lacking).map(|tool| format!("there is no {tool} on this machine"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a tool to its end; what it printed.
pub fn run(tool: &str, words: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(tool).args(words).output().with_context(|| format!("cannot run {tool}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{tool} {}: {}", words.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
