//! The built daemon as a child process, and bytes to and from it.

#![allow(dead_code, reason = "each test file uses its part")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// More than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh directory for one test.
pub fn fresh_dir(test: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// `flowstoned` with these arguments.
pub fn flowstoned<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowstoned"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a command that should end by itself: its status, and what it said on stderr.
pub fn run(mut command: Command) -> (i32, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let Output { status, stderr, .. } = wait_with_output(child);
    (status.code().unwrap_or(-1), String::from_utf8(stderr).unwrap())
}

fn wait_with_output(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let done = Arc::new(Mutex::new(false));
    let watched = Arc::clone(&done);
    thread::spawn(move || {
        thread::sleep(PATIENCE);
        if !*watched.lock().unwrap() {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    *done.lock().unwrap() = true;
    output
}

/// The line that says why a start failed: the only one that is no log line.
pub fn complaint(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(lines.len(), 1, "one clear line, not: {stderr}");
    lines[0].to_owned()
}

/// A daemon that serves.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where controllers connect.
    pub controllers: SocketAddr,
    /// `/metrics` and the like.
    pub http: SocketAddr,
}

impl Daemon {
    /// `flowstoned dev` on `data`, on free ports and one shard, with more keys; returns once it is
    /// ready.
    pub fn dev(data: &Path, set: &[&str]) -> Self {
        let mut command = flowstoned(["dev", "--port", "0", "--data"]);
        command.arg(data);
        let usual = ["flowstone.metrics.listener=127.0.0.1:0", "flowstone.shards=1"];
        for pair in usual.iter().chain(set) {
            command.args(["--set", pair]);
        }
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                kept.lock().unwrap().push(value);
            }
        });
        let nowhere = ([127, 0, 0, 1], 0).into();
        let mut daemon =
            Self { child, lines, clients: nowhere, controllers: nowhere, http: nowhere };
        let ready = daemon.line("ready");
        let listeners = ready["listeners"].as_str().unwrap();
        let address = |name: &str| -> SocketAddr {
            let found = listeners.split(',').find_map(|l| l.strip_prefix(&format!("{name}://")));
            found.unwrap().parse().unwrap()
        };
        let http = ready["metrics"].as_str().unwrap();
        let http = http.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
        daemon.http = http.parse().unwrap();
        daemon.clients = address("PLAINTEXT");
        daemon.controllers = address("CONTROLLER");
        daemon
    }

    /// Waits for a log line whose message begins so.
    pub fn line(&mut self, message: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(line) = self.lines_with(message).into_iter().next() {
                return line;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended: {ended:?} {:#?}", self.lines.lock().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
        panic!("no line {message:?} in {:#?}", self.lines.lock().unwrap());
    }

    /// The log lines so far whose message begins so.
    pub fn lines_with(&self, message: &str) -> Vec<Value> {
        let begins =
            |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        self.lines.lock().unwrap().iter().filter(begins).cloned().collect()
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal, and waits for the end.
    pub fn end_by(mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection of a client.
    pub fn connect(&self) -> TcpStream {
        connect(self.clients)
    }

    /// Whether a client is answered.
    pub fn serves(&self) -> bool {
        ask(&mut self.connect(), API_VERSIONS, 0, &[]).is_some()
    }

    /// Status line and body of an HTTP request.
    pub fn http(&self, method: &str, path: &str) -> (String, String) {
        let mut stream = connect(self.http);
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The same, of what counts.
    pub fn count(&self, series: &str) -> u64 {
        self.metric(series) as u64
    }

    /// The value of one series in `/metrics`.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.http("GET", "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys of Kafka's APIs.
pub const METADATA: i16 = 3;
/// See `METADATA`.
pub const API_VERSIONS: i16 = 18;
/// See `METADATA`.
pub const DESCRIBE_CLUSTER: i16 = 60;

/// A connection that gives up before the test does.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request with a header of version 1 (and, where `body` begins with them, tags); what comes
/// back without the frame's length, or `None` where the connection ends instead.
pub fn ask(stream: &mut TcpStream, api: i16, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    frame.extend(api.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend((-1_i16).to_be_bytes());
    frame.extend(body);
    stream.write_all(&(frame.len() as u32).to_be_bytes()).ok()?;
    stream.write_all(&frame).ok()?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut answer).ok()?;
    assert_eq!(answer[..4], 7_i32.to_be_bytes(), "the correlation id comes back");
    Some(answer[4..].to_vec())
}

/// Whether the peer closes the connection soon, without another byte.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0))
        || stream.take_error().is_ok_and(|error| error.is_some())
}
