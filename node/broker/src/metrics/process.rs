//! What the kernel says of this process, under the names that every Prometheus client uses.

use std::fs;

/// The process, from outside.
#[derive(Clone, Copy, Default, Debug)]
pub struct Process {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: usize,
    /// How many there may be; 0 where there is no limit.
    pub max_fds: u64,
}

/// The kernel's unit of times in /proc; 100 a second on every architecture that Linux has now.
const TICKS_PER_SECOND: f64 = 100.0;
/// Its unit of memory there.
const PAGE_BYTES: u64 = 4096;

/// Looks into /proc; what cannot be read is 0. Blocks for some microseconds.
pub fn look() -> Process {
    let mut process = Process::default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in brackets, which may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    process.cpu_seconds = (ticks(11) + ticks(12)) / TICKS_PER_SECOND;
    let memory = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = memory.split_whitespace().map(|text| text.parse().unwrap_or(0));
    process.virtual_bytes = pages.next().unwrap_or(0) * PAGE_BYTES;
    process.resident_bytes = pages.next().unwrap_or(0) * PAGE_BYTES;
    process.open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    process.max_fds = files
        .and_then(|limits| limits.split_whitespace().next())
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(0);
    process
}

#[test]
fn this_process_is_alive() {
    let process = look();
    assert!(process.resident_bytes > 0 && process.virtual_bytes > process.resident_bytes);
    assert!(process.open_fds >= 3);
    assert!(process.max_fds as usize >= process.open_fds);
}
