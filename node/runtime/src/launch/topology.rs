//! Which cores there are, and in which order to use them.
//!
//! Read from sysfs and the affinity mask. The hwloc crates were tried: `hwloc2` needs the system's
//! libhwloc and pkg-config at build time, `hwlocality` needs that or CMake and a download; a fresh
//! Debian has none of them, and what we ask is four small files per core.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    /// Logical CPUs, in the order to use them: first one of each physical core, then their siblings.
    pub cpus: Vec<usize>,
    /// How many physical cores these are.
    pub core_count: usize,
}

impl Topology {
    /// Looks at the machine: the allowed CPUs (affinity mask, which cpusets and containers set).
    pub fn read() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        Ok(Self::of(allowed, Path::new("/sys/devices/system/cpu")))
    }

    fn of(allowed: Vec<usize>, sysfs: &Path) -> Self {
        // By (package, core); what sysfs does not tell is taken for a core of its own.
        let mut cores: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for cpu in allowed {
            let told = |name| number(&sysfs.join(format!("cpu{cpu}/topology/{name}")));
            let core = match (told("physical_package_id"), told("core_id")) {
                (Some(package), Some(core)) => (package, core),
                _ => (u64::MAX, cpu as u64),
            };
            cores.entry(core).or_default().push(cpu);
        }
        let core_count = cores.len();
        let threads_max = cores.values().map(Vec::len).max().unwrap_or(0);
        let mut cpus = Vec::new();
        for thread in 0..threads_max {
            cpus.extend(cores.values().filter_map(|threads| threads.get(thread)));
        }
        Self { cpus, core_count }
    }
}

fn number(path: &PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What the process may use, from before its first thread was pinned.
static ALLOWED: OnceLock<CpuSet> = OnceLock::new();

/// Takes note of it, for [`unpin`].
pub(super) fn note_allowed() -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    ALLOWED.get_or_init(|| allowed);
    Ok(())
}

/// Lets the calling thread, which inherited a shard's core, run wherever the process may.
pub(crate) fn unpin() {
    if let Some(allowed) = ALLOWED.get() {
        // If it fails, the thread stays where it is: slower, not wrong.
        let _ = sched_setaffinity(None, allowed);
    }
}

/// Pins the calling thread.
pub(super) fn pin_to(cpu: usize) -> io::Result<()> {
    let refused = |why: String| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("cannot use CPU {cpu}: {why}"))
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(refused(format!("the highest is {}", CpuSet::MAX_CPU - 1)));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_of_each_core_comes_first() {
        let sysfs = std::env::temp_dir().join(format!("flowstone-topology-{}", std::process::id()));
        // Two packages of two cores of two threads, numbered as Linux does: siblings far apart.
        for cpu in 0..8 {
            let folder = sysfs.join(format!("cpu{cpu}/topology"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("physical_package_id"), format!("{}\n", cpu / 2 % 2)).unwrap();
            fs::write(folder.join("core_id"), format!("{}\n", cpu % 2)).unwrap();
        }
        let of = |allowed: &[usize]| {
            let topology = Topology::of(allowed.to_vec(), &sysfs);
            (topology.cpus, topology.core_count)
        };
        assert_eq!(of(&[0, 1, 2, 3, 4, 5, 6, 7]), (vec![0, 1, 2, 3, 4, 5, 6, 7], 4));
        assert_eq!(of(&[0, 4, 1]), (vec![0, 1, 4], 2), "the affinity mask decides");
        assert_eq!(of(&[9, 10]), (vec![9, 10], 2), "sysfs knows nothing of them");
        fs::remove_dir_all(&sysfs).unwrap();
    }

    #[test]
    fn this_machine_has_a_core() {
        let topology = Topology::read().unwrap();
        assert!(topology.core_count >= 1);
        assert!(topology.cpus.len() >= topology.core_count);
    }
}
