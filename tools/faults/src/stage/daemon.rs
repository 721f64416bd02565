//! The daemon as a child process: started as an operator starts it, ended as faults end it.
//!
//! Invariants: one log file for all starts on a stage, so that a failure can be read from its beginning;
//! a daemon that is dropped is killed, and nothing of it runs any more.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// More than any start takes that is not broken; scenarios hold starts to less.
const START_MAX: Duration = Duration::from_mins(2);
/// The same for an orderly stop.
const STOP_MAX: Duration = Duration::from_mins(1);
/// A thread in the middle of a system call stops behind it.
const FREEZE_MAX: Duration = Duration::from_secs(10);
/// How often the log is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Last lines of a log that an error shows.
const TAIL_LINES: usize = 20;

/// How a daemon is to be started, as often as a scenario likes.
#[derive(Clone)]
pub struct Launch {
    flowstoned: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    config: Option<PathBuf>,
    /// Words before the daemon's own: a program that starts it under limits.
    under: Vec<String>,
}

impl Launch {
    /// On a free port, which stays the same for all its starts.
    pub fn new(flowstoned: &Path, data: PathBuf, log: PathBuf) -> Self {
        let port = free_port();
        let settings = vec![("flowstone.metrics.listener".to_owned(), String::new())];
        let flowstoned = flowstoned.to_owned();
        Self { flowstoned, data, log, port, settings, config: None, under: Vec::new() }
    }

    /// Sets a configuration key.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same on another port, where nobody waits for it.
    pub fn on_another_port(&self) -> Self {
        Self { port: free_port(), ..self.clone() }
    }

    /// Where its data are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Starts it by these words, to which its own are added: a program that limits or deceives it.
    pub fn under(&mut self, words: Vec<String>) -> &mut Self {
        self.under = words;
        self
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut words = self.under.iter();
        let mut command = match words.next() {
            None => Command::new(&self.flowstoned),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.flowstoned);
                command
            }
        };
        match &self.config {
            Some(file) => command.arg("--config").arg(file),
            None => {
                command.args(["dev", "--port", &self.port.to_string(), "--data"]).arg(&self.data)
            }
        };
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().with_context(|| format!("cannot start {}", self.flowstoned.display()))
    }

    /// Starts it, and does not wait until it is ready.
    pub fn begin(&self) -> anyhow::Result<Daemon> {
        let log_from = log_len(&self.log);
        let child = self.spawn()?;
        let (log, address) = (self.log.clone(), self.address());
        Ok(Daemon { child, log, log_from, address, ready_after: Duration::ZERO })
    }

    /// Starts it; returns once it says that it is ready.
    pub fn start(&self) -> anyhow::Result<Daemon> {
        let began = Instant::now();
        let mut daemon = self.begin()?;
        daemon.wait_for("\"message\":\"ready\"", START_MAX)?;
        daemon.ready_after = began.elapsed();
        Ok(daemon)
    }

    /// Starts one that must refuse: its exit status, and what it said.
    pub fn start_refused(&self) -> anyhow::Result<(i32, String)> {
        let log_from = log_len(&self.log);
        let mut child = self.spawn()?;
        let Some(status) = wait(&mut child, START_MAX)? else {
            child.kill()?;
            child.wait()?;
            bail!("it started, and should have refused to:\n{}", tail(&self.log, log_from));
        };
        let said = tail(&self.log, log_from);
        ensure!(!status.success(), "it ended well, and should have refused to start:\n{said}");
        Ok((status.code().unwrap_or(-1), said))
    }
}

/// A daemon that serves.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    log_from: u64,
    address: SocketAddr,
    /// From its start to its word that it is ready.
    pub ready_after: Duration,
}

impl Daemon {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it logged since this start.
    pub fn said(&self) -> String {
        since(&self.log, self.log_from)
    }

    /// Waits until it logged this.
    pub fn wait_for(&mut self, text: &str, at_most: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + at_most;
        while !self.said().contains(text) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", tail(&self.log, self.log_from));
            }
            if Instant::now() > until {
                let seconds = at_most.as_secs();
                let log = tail(&self.log, self.log_from);
                bail!("the daemon did not say {text:?} in {seconds} s:\n{log}");
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Whether it takes connections.
    pub fn is_listening(&self) -> bool {
        TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok()
    }

    /// An error if it has ended by itself.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the daemon ended with {status}:\n{}", tail(&self.log, self.log_from))
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    /// SIGSTOP; no thread of it runs any more when this returns.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.child.id());
        let until = Instant::now() + FREEZE_MAX;
        loop {
            let mut running = 0;
            for task in fs::read_dir(&tasks)?.flatten() {
                // The state is behind the name, which stands in brackets.
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
                running += usize::from(!matches!(state, None | Some('T')));
            }
            if running == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{running} threads do not stop");
        }
    }

    /// SIGKILL; nothing of it runs any more when this returns.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for it to end by itself; its status.
    pub fn ends(&mut self, at_most: Duration) -> anyhow::Result<ExitStatus> {
        match wait(&mut self.child, at_most)? {
            Some(status) => Ok(status),
            None => bail!("it goes on:\n{}", tail(&self.log, self.log_from)),
        }
    }

    /// SIGTERM, and the status with which it ended.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match wait(&mut self.child, STOP_MAX)? {
            Some(status) => Ok(status),
            None => bail!("it does not stop:\n{}", tail(&self.log, self.log_from)),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free now; should another process take it in between, the start says so.
fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|bound| bound.local_addr());
    free.expect("a free port").port()
}

fn wait(child: &mut Child, at_most: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let until = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        sleep(LOOK_EVERY);
    }
}

fn log_len(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |found| found.len())
}

fn since(log: &Path, from: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("(no log: {error})");
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn tail(log: &Path, from: u64) -> String {
    let text = since(log, from);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
