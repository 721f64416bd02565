//! What a process on this machine costs: the one that listens on a port, and ourselves.
//!
//! From /proc: `stat` counts all threads of a process, ended ones and io_uring's workers too.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// CPU time of a process so far, in seconds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Cpu {
    /// In user mode.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// Of each thread that runs now, by its name; threads of one name together.
    pub threads: BTreeMap<String, f64>,
}

impl Cpu {
    /// Of the process `pid`; `None` where it is gone or not ours to see.
    pub fn of(pid: u32) -> Option<Self> {
        Self::read(&Path::new("/proc").join(pid.to_string()))
    }

    /// Of this process.
    pub fn own() -> Option<Self> {
        Self::read(Path::new("/proc/self"))
    }

    fn read(process: &Path) -> Option<Self> {
        let (_, user, system) = times(&fs::read_to_string(process.join("stat")).ok()?)?;
        let mut threads: BTreeMap<String, f64> = BTreeMap::new();
        for thread in fs::read_dir(process.join("task")).ok()?.flatten() {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            if let Some((name, user, system)) = times(&stat) {
                *threads.entry(name).or_default() += user + system;
            }
        }
        Some(Self { user, system, threads })
    }

    /// What came on top of `before`.
    pub fn since(&self, before: &Self) -> Self {
        let threads = self.threads.iter().map(|(name, now)| {
            (name.clone(), (now - before.threads.get(name).unwrap_or(&0.0)).max(0.0))
        });
        Self {
            user: self.user - before.user,
            system: self.system - before.system,
            threads: threads.collect(),
        }
    }

    /// In both modes.
    pub fn total(&self) -> f64 {
        self.user + self.system
    }
}

/// Memory that the process holds now, in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

/// Name, user and system seconds in a `stat` file. The name stands in parentheses and may hold any.
fn times(stat: &str) -> Option<(String, f64, f64)> {
    let (start, rest) = stat.rsplit_once(')')?;
    let (_, name) = start.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace().skip(11); // utime is the 14th of all.
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((name.to_owned(), user / per_second, system / per_second))
}

/// The process that listens where `peer` leads, if `own` shows that this is our machine.
pub fn listening_on(own: SocketAddr, peer: SocketAddr) -> Option<u32> {
    if own.ip() != peer.ip() && !peer.ip().is_loopback() {
        return None;
    }
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, peer.port()))
        .collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.find(|fd| {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            sockets.iter().any(|socket| target.as_os_str() == socket.as_str())
        })
        .map(|_| pid)
    })
}

/// Inodes of the sockets that listen on `port`, in a table of /proc/net.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (_, own_port) = fields.get(1)?.rsplit_once(':')?;
        let listens =
            fields.get(3) == Some(&LISTEN) && u16::from_str_radix(own_port, 16) == Ok(port);
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn proc_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41234 1 0 100 0 0 10 0\n   \
            1: 0100007F:2384 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 51234 1 0 20 4 30 10 -1\n";
        assert_eq!(listening_inodes(table, 9092), ["41234"]);
        assert!(listening_inodes(table, 9093).is_empty());
    }

    #[test]
    fn stat_with_an_odd_name_is_read() {
        let per_second = rustix::param::clock_ticks_per_second();
        let stat =
            format!("7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 {} {} 0 0", per_second * 2, per_second);
        assert_eq!(times(&stat), Some(("a) b (c".to_owned(), 2.0, 1.0)));
        assert_eq!(times(""), None);
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(listening_on(own, peer), Some(std::process::id()));
        assert!(
            Cpu::of(std::process::id()).is_some() && resident_bytes(std::process::id()) > Some(0)
        );
        assert_eq!(listening_on(own, "192.0.2.1:9092".parse().unwrap()), None);
    }
}
