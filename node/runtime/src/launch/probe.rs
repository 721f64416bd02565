//! Can this machine run us? Asked once at start, so that each "no" is one line with its remedy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::topology::Topology;
use crate::ring;

/// The oldest kernel that has all we use: io_uring with DEFER_TASKRUN.
const KERNEL_MIN: (u32, u32) = (6, 1);

/// What the rings of a process need of RLIMIT_MEMLOCK where the kernel counts them (glommio refuses less).
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// How long a ring is waited for where there is no memory for it: the kernel gives back those of a process
/// that was killed some time after its end, and the next one may be starting already.
const RING_WITHIN: Duration = Duration::from_secs(5);
const RING_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Fewer files than this don't carry a broker: each connection and each segment is one.
const OPEN_FILES_MIN: u64 = 1024;

/// What the probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The kernel's release, as `uname -r` says.
    pub kernel: String,
    /// The cores.
    pub topology: Topology,
    /// The limits, after the soft limit of open files was raised to the hard one.
    pub limits: Limits,
    /// Memory in bytes that this process may use: the machine's, or its control group's.
    pub memory_bytes: u64,
}

/// Limits of the process; `None` is "unlimited".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// RLIMIT_NOFILE: open files and sockets.
    pub open_files: Option<u64>,
    /// RLIMIT_MEMLOCK in bytes.
    pub locked_memory: Option<u64>,
}

/// Why this process can't run here. Each prints as one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Older than Linux 6.1.
    #[error("Linux {release} is too old: install a kernel of at least 6.1 (Debian 12 has it)")]
    Kernel {
        /// As `uname -r` says.
        release: String,
    },
    /// ENOSYS.
    #[error(
        "this kernel has no io_uring: use one built with CONFIG_IO_URING, and in a container a seccomp profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    IoUringMissing,
    /// `kernel.io_uring_disabled` is 1 (unprivileged processes) or 2 (all).
    #[error(
        "io_uring is switched off by kernel.io_uring_disabled = {setting}: set it to 0 \
         (sysctl -w kernel.io_uring_disabled=0, and in /etc/sysctl.d to keep it)"
    )]
    IoUringDisabled {
        /// Its value.
        setting: u32,
    },
    /// EPERM without that setting: a sandbox.
    #[error(
        "io_uring is forbidden by a sandbox (seccomp): allow io_uring_setup, io_uring_enter and io_uring_register \
         (docker run --security-opt seccomp=PROFILE; systemd SystemCallFilter=@io-uring)"
    )]
    IoUringForbidden,
    /// EINVAL: the flags are unknown, whatever the kernel's version says.
    #[error(
        "this kernel's io_uring lacks SINGLE_ISSUER or DEFER_TASKRUN (Linux 6.1): use a kernel of at least 6.1"
    )]
    IoUringTooOld,
    /// RLIMIT_MEMLOCK.
    #[error(
        "the limit of locked memory is {bytes} bytes, {MEMLOCK_BYTES_MIN} are needed: raise it \
         (ulimit -l unlimited; systemd LimitMEMLOCK=infinity; docker run --ulimit memlock=-1)"
    )]
    LockedMemory {
        /// The soft limit.
        bytes: u64,
    },
    /// ENOMEM.
    #[error(
        "no memory for an io_uring: raise the limit of locked memory \
         (ulimit -l unlimited; systemd LimitMEMLOCK=infinity) or free some memory"
    )]
    NoMemory,
    /// RLIMIT_NOFILE.
    #[error(
        "only {count} files may be open at once, at least {OPEN_FILES_MIN} are needed: raise it \
         (ulimit -n 100000; systemd LimitNOFILE=100000; docker run --ulimit nofile=100000)"
    )]
    OpenFiles {
        /// The hard limit.
        count: u64,
    },
    /// Anything else.
    #[error("{what}: {error}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// What came back.
        error: io::Error,
    },
}

/// Looks whether shards can run here, and raises the soft limit of open files to the hard one.
pub fn probe() -> Result<Host, ProbeError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&kernel).is_some_and(|version| version < KERNEL_MIN) {
        return Err(ProbeError::Kernel { release: kernel });
    }
    let limits = Limits { open_files: raise_open_files()?, locked_memory: locked_memory()? };
    if let Err(error) = with_memory(ring::open_ring) {
        let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        return Err(explain(error, disabled.trim().parse().unwrap_or(0)));
    }
    let topology = Topology::read()
        .map_err(|error| ProbeError::Other { what: "reading the CPU affinity", error })?;
    Ok(Host { kernel, topology, limits, memory_bytes: memory_bytes() })
}

/// Tries until there is memory for it: a process that was killed gives its own back some time after its end.
fn with_memory<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + RING_WITHIN;
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < until => {
                sleep(RING_AGAIN_AFTER);
            }
            outcome => return outcome,
        }
    }
}

/// `6.1.0-26-amd64` is (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn explain(error: io::Error, io_uring_disabled: u32) -> ProbeError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => ProbeError::IoUringMissing,
        Some(libc::EPERM | libc::EACCES) if io_uring_disabled > 0 => {
            ProbeError::IoUringDisabled { setting: io_uring_disabled }
        }
        Some(libc::EPERM | libc::EACCES) => ProbeError::IoUringForbidden,
        Some(libc::EINVAL) => ProbeError::IoUringTooOld,
        Some(libc::ENOMEM) => ProbeError::NoMemory,
        _ => ProbeError::Other { what: "setting up an io_uring", error },
    }
}

fn raise_open_files() -> Result<Option<u64>, ProbeError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Some(count) = maximum.filter(|count| *count < OPEN_FILES_MIN) {
        return Err(ProbeError::OpenFiles { count });
    }
    if current == maximum {
        return Ok(current);
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(|error| {
        ProbeError::Other { what: "raising the limit of open files", error: error.into() }
    })?;
    Ok(maximum)
}

fn locked_memory() -> Result<Option<u64>, ProbeError> {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Err(ProbeError::LockedMemory { bytes }),
        limit => Ok(limit),
    }
}

/// The machine's memory, or less where a control group says so.
fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    let machine = info.totalram * u64::from(info.mem_unit);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit_of = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
    memory_limits(&groups).iter().filter_map(|path| limit_of(path)).fold(machine, u64::min)
}

/// The files that may limit a process's memory, `groups` being its `/proc/PID/cgroup`: its group's own,
/// and those of each group on the way up, in version 2 and 1 of control groups.
fn memory_limits(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let own = Path::new(root).join(own.trim_start_matches('/'));
        let up = own.ancestors().take_while(|folder| folder.starts_with(root));
        files.extend(up.map(|folder| folder.join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_will_do() {
        let host = probe().unwrap();
        assert!(host.memory_bytes > 64 << 20);
        assert_eq!(getrlimit(Resource::Nofile).current, host.limits.open_files);
    }

    #[test]
    fn every_group_on_the_way_up_may_limit_memory() {
        let of = |groups| memory_limits(groups).iter().map(|it| it.display().to_string()).collect();
        let second: Vec<String> = of("0::/system.slice/flowstoned\n");
        let group = "/sys/fs/cgroup";
        let files = ["/system.slice/flowstoned", "/system.slice", ""];
        assert_eq!(second, files.map(|it| format!("{group}{it}/memory.max")));
        let first: Vec<String> = of("9:cpu,cpuacct:/a\n7:memory:/b\n1:name=systemd:/c\n");
        let files = ["/memory/b", "/memory"].map(|it| format!("{group}{it}/memory.limit_in_bytes"));
        assert_eq!(first, files);
    }

    /// Rings of a process that was killed count against the limit of locked memory for a while.
    #[test]
    fn memory_is_waited_for_and_nothing_else() {
        let attempts = |errors: &[i32]| {
            let mut made = 0;
            let outcome = with_memory(|| {
                made += 1;
                errors.get(made - 1).map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(*code)))
            });
            (made, outcome.map_err(|error| error.raw_os_error().unwrap()))
        };
        assert_eq!(attempts(&[libc::ENOMEM, libc::ENOMEM]), (3, Ok(())));
        assert_eq!(attempts(&[libc::ENOMEM, libc::EPERM]), (2, Err(libc::EPERM)));
    }

    #[test]
    fn versions_are_read_from_releases() {
        for (release, want) in
            [("6.1.0-26-amd64", (6, 1)), ("5.15.0", (5, 15)), ("6.18.44-fc-v669", (6, 18))]
        {
            assert_eq!(version(release), Some(want));
        }
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn each_error_is_one_line_with_its_remedy() {
        let os = io::Error::from_raw_os_error;
        check(&explain(os(libc::ENOSYS), 0), "CONFIG_IO_URING");
        check(&explain(os(libc::EPERM), 2), "io_uring_disabled = 2: set it to 0");
        check(&explain(os(libc::EPERM), 0), "seccomp");
        check(&explain(os(libc::EINVAL), 0), "at least 6.1");
        check(&explain(os(libc::ENOMEM), 0), "LimitMEMLOCK=infinity");
        check(&explain(os(libc::EMFILE), 0), "setting up an io_uring: Too many open files");
        check(&ProbeError::Kernel { release: "5.10.0".into() }, "Linux 5.10.0 is too old");
        check(&ProbeError::LockedMemory { bytes: 65536 }, "65536 bytes, 524288 are needed");
        check(&ProbeError::OpenFiles { count: 256 }, "LimitNOFILE");
    }

    fn check(error: &ProbeError, want: &str) {
        let line = error.to_string();
        assert!(line.contains(want), "{line}");
        assert!(!line.contains('\n') && !line.contains("  "), "{line}");
    }
}
