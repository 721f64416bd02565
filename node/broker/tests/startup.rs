//! The built daemon's starts and ends: what an operator sees, and what is left on disk.

mod daemon;

use daemon::{Daemon, complaint, flowstoned, fresh_dir, run};
use rustix::process::Signal;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Status after a start that failed, and after one with a wrong configuration.
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// `dev` on free ports.
fn dev(data: &Path, set: &[&str]) -> Command {
    let mut command = flowstoned(["dev", "--port", "0", "--data"]);
    command.arg(data).args(["--set", "flowstone.metrics.listener=127.0.0.1:0"]);
    for pair in set {
        command.args(["--set", pair]);
    }
    command
}

/// A properties file for a node that somebody formatted.
fn server_properties(dir: &Path, lines: &str) -> Command {
    let file = dir.join("server.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0\n\
         controller.quorum.bootstrap.servers=127.0.0.1:9093\n\
         flowstone.metrics.listener=127.0.0.1:0\n{lines}\n"
    );
    std::fs::write(&file, text).unwrap();
    let mut command = flowstoned(["--config"]);
    command.arg(file);
    command
}

#[test]
fn sigterm_ends_it_within_seconds_and_marks_the_data_as_clean() {
    let dir = fresh_dir("sigterm");
    let daemon = Daemon::dev(&dir, &[]);
    assert!(daemon.serves());
    assert_eq!(daemon.http("GET", "/readyz"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
    let mut open = daemon.connect(); // Somebody who is connected does not hold it up.
    let began = Instant::now();
    let status = daemon.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(dir.join(CLEAN_SHUTDOWN).exists());
    assert!(daemon::is_closed(&mut open));
}

#[test]
fn sigkill_leaves_what_the_next_start_serves() {
    let dir = fresh_dir("sigkill");
    let daemon = Daemon::dev(&dir, &[]);
    assert!(daemon.serves());
    assert_eq!(daemon.end_by(Signal::KILL).code(), None);
    assert!(!dir.join(CLEAN_SHUTDOWN).exists());
    let mut daemon = Daemon::dev(&dir, &[]);
    assert!(daemon.serves());
    assert_eq!(daemon.line("log directory opened")["clean"], false);
}

#[test]
fn the_first_lines_say_what_runs() {
    let dir = fresh_dir("lines");
    let mut daemon = Daemon::dev(&dir, &[]);
    let starts = daemon.line("flowstoned starts");
    assert_eq!(starts["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(starts["roles"], "broker,controller");
    assert_eq!(starts["shards"], 1);
    assert_eq!(starts["durability"], "Flushed");
    assert!(starts["memory_mib"].as_u64().unwrap() > 0);
    let directory = daemon.line("data directory");
    assert_eq!(directory["dir"], dir.display().to_string());
    assert!(!directory["file_system"].as_str().unwrap().is_empty());
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let dir = fresh_dir("twice");
    let first = Daemon::dev(&dir, &[]);
    let (status, stderr) = run(dev(&dir, &[]));
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains("in use by another broker process"), "{line}");
    assert!(first.serves());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = fresh_dir("port");
    let mut clients = flowstoned(["dev", "--port", &port.to_string(), "--data"]);
    clients.arg(&dir).args(["--set", "flowstone.metrics.listener="]);
    let (status, stderr) = run(clients);
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains(&format!("PLAINTEXT://127.0.0.1:{port}")), "{line}");
    assert!(line.contains("is another broker running there?"), "{line}");
    let metrics = format!("flowstone.metrics.listener=127.0.0.1:{port}");
    let (status, stderr) = run(dev(&dir, &[&metrics]));
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains("set flowstone.metrics.listener"), "{line}");
}

#[test]
fn a_foreign_disk_is_refused() {
    let dir = fresh_dir("foreign");
    let (ours, theirs) = (dir.join("ours"), dir.join("theirs"));
    for data in [&ours, &theirs] {
        assert_eq!(Daemon::dev(data, &[]).end_by(Signal::TERM).code(), Some(0));
    }
    let (status, stderr) = run(dev(&ours, &["node.id=7"]));
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(
        line.contains("belongs to node 1, this is node 7: check node.id and log.dirs"),
        "{line}"
    );
    let both = format!("log.dirs={},{}", ours.display(), theirs.display());
    let (status, stderr) = run(server_properties(&dir, &both));
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains("belongs to cluster"), "{line}");
}

#[test]
fn data_that_is_missing_or_not_formatted_is_told_apart() {
    let dir = fresh_dir("unformatted");
    let missing = format!("log.dirs={}", dir.join("missing").display());
    let empty = format!("log.dirs={}", dir.display());
    for (dirs, says) in [(missing, "does not exist"), (empty, "is not formatted")] {
        let (status, stderr) = run(server_properties(&dir, &dirs));
        assert_eq!(status, FAILED);
        let line = complaint(&stderr);
        assert!(line.contains(says) && line.contains("flowstone format"), "{line}");
    }
}

#[test]
fn data_of_another_user_is_named() {
    const NOBODY: u32 = 65534;
    let dir = fresh_dir("forbidden");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = dev(&dir, &[]);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/"); // Root may write everywhere.
        if flowstoned(["--version"]).uid(NOBODY).gid(NOBODY).current_dir("/").output().is_err() {
            eprintln!("skipped: nobody may not run {}", env!("CARGO_BIN_EXE_flowstoned"));
            return;
        }
    }
    let (status, stderr) = run(command);
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains("must belong to the user that runs flowstoned"), "{line}");
}

#[test]
fn a_wrong_key_is_refused_with_its_line_and_the_nearest_one() {
    let dir = fresh_dir("keys");
    let (status, stderr) = run(server_properties(&dir, "log.retention.hour=1"));
    assert_eq!(status, USAGE);
    assert!(stderr.contains("server.properties:7: "), "{stderr}");
    assert!(stderr.contains("log.retention.hours"), "{stderr}");
    let (status, stderr) = run(dev(&dir, &["num.partitions=many"]));
    assert_eq!(status, USAGE);
    assert!(stderr.contains("num.partitions"), "{stderr}");
    let (status, stderr) = run(flowstoned(["--config", "/nowhere/server.properties"]));
    assert_eq!(status, USAGE);
    assert!(complaint(&stderr).contains("cannot read the configuration"), "{stderr}");
    let (status, stderr) = run(flowstoned([] as [&str; 0]));
    assert_eq!(status, USAGE);
    assert!(complaint(&stderr).contains("flowstoned dev"), "{stderr}");
}

#[test]
fn limits_that_are_too_low_are_named_with_their_remedy() {
    let dir = fresh_dir("limits");
    let mut command = Command::new("sh");
    let script = "ulimit -n 256; exec \"$0\" dev --port 0 --data \"$1\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_flowstoned")]).arg(&dir);
    let (status, stderr) = run(command);
    assert_eq!(status, FAILED);
    let line = complaint(&stderr);
    assert!(line.contains("only 256 files may be open") && line.contains("ulimit -n"), "{line}");
}

#[test]
fn the_reference_lists_every_key() {
    let output = flowstoned(["config", "--list"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for key in ["log.retention.ms", "flowstone.durability", "socket.request.max.bytes"] {
        assert!(text.contains(key), "{key}");
    }
}
