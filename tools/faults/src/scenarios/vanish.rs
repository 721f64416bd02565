//! S24: peers that end with a RST, and peers that are simply gone: two thousand at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use flowstone_wire::messages::join_group_request::JoinGroupRequestProtocol;
use flowstone_wire::messages::{DescribeGroupsRequest, GroupId, JoinGroupRequest};
use flowstone_wire::string;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::Pid;

use crate::client::{ANSWER_WITHIN, Client, Raw, header};
use crate::load::{Load, Plan};
use crate::probe::{MIB, held};
use crate::stage::Stage;

/// Connections at once.
const PEERS: usize = 2_000;
/// Times that all of them come and go.
const ROUNDS: (u32, u32) = (2, 12);
/// `connections.max.idle.ms` here.
const IDLE_MS_MAX: u64 = 5_000;
/// When the last idle connection must be gone: the timeout, and a look at the connections now and then.
const GONE_WITHIN: Duration = Duration::from_millis(IDLE_MS_MAX * 2 + 5_000);
/// `flowstone.memory.bytes` here: caches that the load beside fills are full soon, and what grows behind
/// that is a leak.
const CACHES_BYTES: u64 = 64 * MIB;
/// Memory that may stay behind all of them: pools, tails of the load's logs, what the allocator keeps.
const KEPT_BYTES_MAX: u64 = CACHES_BYTES + 16 * MIB;
/// An address of the documentation's (RFC 5737), which peers have as long as they are there.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SESSION_TIMEOUT_MS: i32 = 6_000;

/// RST in the middle of a request, behind one, and before the answer is read.
pub fn resets(stage: &mut Stage) -> anyhow::Result<()> {
    let mut launch = stage.launch("data");
    launch.set("flowstone.memory.bytes", &CACHES_BYTES.to_string());
    let mut daemon = launch.start()?;
    let (address, pid) = (daemon.address(), daemon.pid());
    let load = Load::start(address, Plan::default())?;
    load.wait_for_more(500, ANSWER_WITHIN)?;
    let before = held(pid)?;
    for round in 0..stage.rounds(ROUNDS.0, ROUNDS.1) {
        let mut peers = Vec::new();
        for number in 0..PEERS {
            let mut peer = Raw::connect(address, ANSWER_WITHIN)?;
            let ask = header(18, 0, 1, false); // ApiVersions: the answer is larger than the request.
            match number % 3 {
                0 => peer.send(&[0, 0, 1], ANSWER_WITHIN)?,
                1 => peer.send_frame(&ask, ANSWER_WITHIN)?,
                _ => (0..20).try_for_each(|_| peer.send_frame(&ask, ANSWER_WITHIN))?,
            }
            peers.push(peer);
        }
        peers.into_iter().try_for_each(Raw::reset)?;
        settles(pid, before.files, ANSWER_WITHIN).context("after resets")?;
        daemon.must_run()?;
        load.wait_for_more(200, ANSWER_WITHIN)?;
        remembers(stage, pid, round, before.bytes)?;
    }
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// Peers whose address is gone: nobody answers, nobody says so. A member of a group is among them.
pub fn half_open(stage: &mut Stage) -> anyhow::Result<()> {
    let mut launch = stage.launch("data");
    launch
        .set("connections.max.idle.ms", &IDLE_MS_MAX.to_string())
        .set("flowstone.memory.bytes", &CACHES_BYTES.to_string());
    let mut daemon = launch.start()?;
    let (address, pid) = (daemon.address(), daemon.pid());
    let load = Load::start(address, Plan::default())?;
    load.wait_for_more(500, ANSWER_WITHIN)?;
    let before = held(pid)?;
    for round in 0..stage.rounds(ROUNDS.0, ROUNDS.1 / 3) {
        let there = Elsewhere::appear()?;
        let mut peers = Vec::new();
        for number in 0..PEERS {
            let mut peer = Raw::from(from_elsewhere(address)?);
            let ask = header(18, 0, 1, false);
            if number % 2 == 0 {
                peer.send_frame(&ask, ANSWER_WITHIN)?; // The answer is on its way when all ends.
            } else {
                peer.send(&[0, 0], ANSWER_WITHIN)?;
            }
            peers.push(peer);
        }
        let group = format!("half-open-{round}");
        let mut member = Client::over(from_elsewhere(address)?, ANSWER_WITHIN);
        join(&mut member, &group)?;
        let there_now = held(pid)?.files;
        let gone = Elsewhere::vanish(there)?;
        // On a slow machine the first may have been idle for too long already.
        ensure!(there_now >= before.files + PEERS as u64 / 2, "the peers were never there");
        settles(pid, before.files, GONE_WITHIN).context("of peers that are gone")?;
        released(address, &group)?;
        drop(gone);
        drop((peers, member));
        daemon.must_run()?;
        load.wait_for_more(200, ANSWER_WITHIN)?;
        remembers(stage, pid, round, before.bytes)?;
    }
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// Why peers cannot vanish here.
pub fn missing() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    let works = root && Elsewhere::appear().is_ok();
    (!works).then(|| "needs root and the command `ip` (iproute2)".to_owned())
}

/// An address of the loopback that can be taken away.
struct Elsewhere;

/// It was taken away: what is sent there is lost without a word.
struct Gone;

impl Elsewhere {
    fn appear() -> anyhow::Result<Self> {
        // A run that was killed may have left it.
        ip(&["addr", "replace", &format!("{ELSEWHERE}/32"), "dev", "lo"])?;
        Ok(Self)
    }

    fn vanish(there: Self) -> anyhow::Result<Gone> {
        // Whatever would be sent elsewhere now is not to leave this machine.
        ip(&["route", "replace", "blackhole", &format!("{ELSEWHERE}/32")])?;
        drop(there);
        Ok(Gone)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = ip(&["addr", "del", &format!("{ELSEWHERE}/32"), "dev", "lo"]);
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = ip(&["route", "del", "blackhole", &format!("{ELSEWHERE}/32")]);
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("no command `ip`")?;
    if !output.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn from_elsewhere(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let peer = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&peer, &SocketAddr::new(IpAddr::V4(ELSEWHERE), 0))?;
    connect(&peer, &address)?;
    Ok(TcpStream::from(peer))
}

/// Waits until no more than its own files (and those of a few clients that come and go) are open.
fn settles(pid: Pid, files: u64, at_most: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + at_most;
    while held(pid)?.files > files + 10 {
        if Instant::now() > until {
            bail!("{} files are open {at_most:?} later, it were {files}", held(pid)?.files);
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What stays behind a round is bounded, however many rounds there are.
fn remembers(stage: &mut Stage, pid: Pid, round: u32, before: u64) -> anyhow::Result<()> {
    let kept = held(pid)?.bytes.saturating_sub(before);
    stage.say(&format!("round {round}: {} MiB more than before all", kept / MIB));
    ensure!(kept <= KEPT_BYTES_MAX, "round {round}: {} MiB more than before all", kept / MIB);
    stage.at_most("MiB kept", (kept / MIB) as f64);
    stage.count("connections", PEERS as u64);
    Ok(())
}

fn join(member: &mut Client, group: &str) -> anyhow::Result<()> {
    let mut protocol = JoinGroupRequestProtocol::default();
    protocol.name = string("range");
    let mut request = JoinGroupRequest::default();
    request.group_id = GroupId(string(group.to_owned()));
    request.session_timeout_ms = SESSION_TIMEOUT_MS;
    request.rebalance_timeout_ms = SESSION_TIMEOUT_MS;
    request.protocol_type = string("consumer");
    request.protocols = vec![protocol];
    let until = Instant::now() + ANSWER_WITHIN;
    loop {
        let answer = member.ask(2, &request)?; // Before KIP-394: no id is needed beforehand.
        match answer.error_code {
            0 => return Ok(()),
            code if Instant::now() > until => bail!("cannot join: {code}"),
            _ => sleep(Duration::from_millis(100)), // The coordinator is loading.
        }
    }
}

/// Waits until the coordinator gave up the member.
fn released(address: SocketAddr, group: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address, ANSWER_WITHIN)?;
    let until = Instant::now() + Duration::from_millis(SESSION_TIMEOUT_MS as u64 * 3);
    let mut request = DescribeGroupsRequest::default();
    request.groups = vec![GroupId(string(group.to_owned()))];
    loop {
        let answer = client.ask(1, &request)?;
        let group = answer.groups.first().context("no answer of the group")?;
        if group.members.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the group keeps a member that is gone: {group:?}");
        sleep(Duration::from_millis(100));
    }
}
