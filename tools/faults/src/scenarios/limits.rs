//! S7 and S8: a daemon that is short of CPU, memory, files, threads.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::ApiVersionsRequest;

use crate::cgroup::Cgroup;
use crate::client::{ANSWER_WITHIN, Answer, Client, Raw, create_topic, header};

use crate::load::{Load, Plan};
use crate::probe::{MIB, held};
use crate::stage::Stage;

/// Files with which it must refuse to start, the least with which it starts, and connections that ask
/// for more than those.
const FILES_TOO_FEW: u64 = 256;
const FILES: u64 = 1024;
const CALLERS: usize = 1_500;
/// Control group, v1: 5 % of one CPU.
const PERIOD_US: u64 = 100_000;
const QUOTA_US: u64 = 5_000;
/// How long it starves, in full and for `make test`.
const STARVED_FOR: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// How long it may have no more threads, in full and for `make test`: idle workers of a ring end after 5 s.
const LIMITED_FOR: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(15));
const MEMORY_BYTES: u64 = 128 * MIB;
const MEMORY_LOAD_FOR: Duration = Duration::from_secs(15);
const RESUMES_WITHIN: Duration = Duration::from_secs(5);

/// S8: out of file descriptors. Who is connected goes on, and all is well when there are files again.
pub fn files(stage: &mut Stage) -> anyhow::Result<()> {
    let under = |files: u64| vec!["prlimit".to_owned(), format!("--nofile={files}:{files}")];
    let mut refused = stage.launch("refused");
    refused.under(under(FILES_TOO_FEW));
    let (_, said) = refused.start_refused()?;
    let names_it = said.contains(&FILES_TOO_FEW.to_string());
    ensure!(names_it, "it does not say how many it may open: {said}");

    let mut launch = stage.launch("data");
    launch.under(under(FILES));
    let mut daemon = launch.start()?;
    let (address, pid) = (daemon.address(), daemon.pid());
    let load = Load::start(address, Plan::default())?;
    load.wait_for_more(100, ANSWER_WITHIN)?;
    let mut early = Client::connect(address, ANSWER_WITHIN)?;
    early.ask(0, &ApiVersionsRequest::default())?;
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(Raw::connect(address, ANSWER_WITHIN).context("the kernel's queue is full")?);
    }
    let mut let_in = 0;
    let ask = [&header(18, 0, 1, false)[..]].concat();
    for caller in &mut callers {
        caller.send_frame(&ask, ANSWER_WITHIN)?;
    }
    let until = Instant::now() + ANSWER_WITHIN;
    for caller in &mut callers {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let_in += usize::from(matches!(caller.answer(left)?, Answer::Frame(_)));
    }
    ensure!(let_in < CALLERS, "{let_in} callers were let in with {FILES} files: no fault was made");
    load.wait_for_more(200, ANSWER_WITHIN).context("who was there before the callers")?;
    daemon.must_run()?;
    ensure!(
        daemon.said().contains("new clients wait"),
        "nothing in the log says why clients are not let in"
    );
    // What the callers leave is enough for the broker itself: a topic's files.
    let code = create_topic(&mut early, "beside", 50, &[])?;
    ensure!(code == ErrorCode::None, "no topic can be made: {code}");
    let offline = daemon.said().contains("partition is offline");
    ensure!(!offline, "the callers took the files of a partition");
    stage.count("let in", let_in as u64);
    stage.at_most("files", held(pid)?.files as f64);
    drop(callers);
    let began = Instant::now();
    Client::connect(address, ANSWER_WITHIN)?
        .ask(0, &ApiVersionsRequest::default())
        .context("a new client, when there are files again")?;
    stage.at_most("seconds to the next client", began.elapsed().as_secs_f64());
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// S8: no thread more than it has. The kernel's workers for its ring are threads, too: without any,
/// operations on files are cancelled, which is an error to producers and never an acknowledgement.
pub fn threads(stage: &mut Stage) -> anyhow::Result<()> {
    let launch = stage.launch("data");
    let mut daemon = launch.start()?;
    let load = Load::start(daemon.address(), Plan::default())?;
    load.wait_for_more(1_000, ANSWER_WITHIN)?;
    let group = Cgroup::new("pids", &[])?;
    group.hold(daemon.pid())?;
    let threads = held(daemon.pid())?.threads;
    group.set("pids.max", &threads.to_string())?;
    let before = load.acknowledged();
    let limited = if stage.rounds(0, 1) == 0 { LIMITED_FOR.0 } else { LIMITED_FOR.1 };
    sleep(limited);
    load.check()?;
    daemon.must_run()?;
    ensure!(held(daemon.pid())?.threads <= threads, "it has more threads than it may: no fault");
    stage.count("records while limited", load.acknowledged() - before);
    group.set("pids.max", "max")?;
    let status = daemon.stop()?;
    ensure!(status.success(), "it ended with {status}");
    let _daemon = launch.start()?;
    load.wait_for_more(500, ANSWER_WITHIN)?;
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// S7: 5 % of one CPU for a while.
pub fn cpu(stage: &mut Stage) -> anyhow::Result<()> {
    let mut daemon = stage.launch("data").start()?;
    let group = Cgroup::new("cpu", &[("cpu.cfs_period_us", PERIOD_US.to_string())])?;
    let load = Load::start(daemon.address(), Plan::default())?;
    load.wait_for_more(500, ANSWER_WITHIN)?;
    group.set("cpu.cfs_quota_us", &QUOTA_US.to_string())?;
    group.hold(daemon.pid())?;
    let starved = if stage.rounds(0, 1) == 0 { STARVED_FOR.0 } else { STARVED_FOR.1 };
    let before = load.acknowledged();
    sleep(starved);
    load.check()?;
    daemon.must_run()?;
    let throttled = group.number("cpu.stat", "nr_throttled ")?;
    ensure!(throttled > 0, "it was never short of CPU: no fault was made");
    stage.count("records starved", load.acknowledged() - before);
    group.set("cpu.cfs_quota_us", "-1")?;
    let resumed = load.wait_for_more(500, RESUMES_WITHIN)?;
    stage.at_most("seconds to resume", resumed.as_secs_f64());
    stage.count("periods throttled", throttled);
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}

/// S7: 128 MiB of memory, page cache included, and more on its way than fits.
pub fn memory(stage: &mut Stage) -> anyhow::Result<()> {
    let limit = [("memory.limit_in_bytes", MEMORY_BYTES.to_string())];
    let group = Cgroup::new("memory", &limit)?;
    let mut launch = stage.launch("data");
    launch.under(group.words());
    let mut daemon = launch.start()?;
    let plan = Plan {
        producers: 32,
        batch_records_max: 40,
        value_bytes_max: 20_000,
        pause: Duration::ZERO,
        answer_within: Duration::from_secs(30),
        ..Plan::default()
    };
    let load = Load::start(daemon.address(), plan)?;
    let until = Instant::now() + MEMORY_LOAD_FOR;
    while Instant::now() < until {
        daemon.must_run().context("the kernel's out-of-memory killer, most likely")?;
        stage.at_most("MiB resident", (held(daemon.pid())?.bytes / MIB) as f64);
        load.check()?;
        sleep(Duration::from_millis(100));
    }
    let kills = group.number("memory.oom_control", "oom_kill ")?;
    ensure!(kills == 0, "the kernel killed it: out of memory");
    stage.count("records acknowledged", load.verdict()?.acknowledged);
    Ok(())
}
