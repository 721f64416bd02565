//! The commands against a real broker, Flowstone or Apache Kafka: the one that FLOWSTONE_TEST_BOOTSTRAP
//! names, or else a daemon of each test's own, where one is built beside the tool (as by `cargo test
//! --workspace`). Where there is neither, each test says that it is skipped. Topics and groups have
//! names of their own and are deleted.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The broker to test against; `None` once it was said why there is none.
fn broker(test: &str) -> Option<Flowstone> {
    if let Ok(bootstrap) = std::env::var("FLOWSTONE_TEST_BOOTSTRAP") {
        return Some(Flowstone { bootstrap, own: None });
    }
    let daemon = Path::new(env!("CARGO_BIN_EXE_flowstone")).with_file_name("flowstoned");
    if daemon.exists() {
        return Some(Flowstone::start(&daemon, test));
    }
    // Past the capture of a passing test's output, so that nobody takes it for one that ran.
    let line = format!(
        "\nSKIPPED: {test}: no flowstoned beside the tool, and FLOWSTONE_TEST_BOOTSTRAP names no broker\n"
    );
    std::io::stderr().write_all(line.as_bytes()).expect("standard error takes it");
    None
}

struct Flowstone {
    bootstrap: String,
    own: Option<Child>,
}

impl Drop for Flowstone {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.own.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Flowstone {
    /// `flowstoned dev` in a fresh folder, once it is ready.
    fn start(daemon: &Path, test: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cluster-{test}"));
        let _ = std::fs::remove_dir_all(&dir);
        let set = ["--set", "flowstone.metrics.listener=", "--set", "flowstone.shards=1"];
        let mut child = Command::new(daemon)
            .args(["dev", "--port", "0", "--data"])
            .arg(&dir)
            .args(set)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let ready = loop {
            let line = lines.next().expect("the daemon gets ready").expect("text");
            let line = serde_json::from_str::<Value>(&line).unwrap_or_default();
            if line["message"] == "ready" {
                break line;
            }
        };
        thread::spawn(move || lines.for_each(drop)); // Or its log would fill the pipe.
        let listeners = ready["listeners"].as_str().expect("a list");
        let clients = listeners.split(',').find_map(|one| one.strip_prefix("PLAINTEXT://"));
        let bootstrap = clients.expect("a listener for clients").to_owned();
        Self { bootstrap, own: Some(child) }
    }

    fn output(&self, args: &str, input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flowstone"))
            .args(["-b", &self.bootstrap])
            .args(args.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("the tool reads its input");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    /// Standard output of a command that works.
    fn feed(&self, args: &str, input: &str) -> String {
        let output = self.output(args, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn run(&self, args: &str) -> String {
        self.feed(args, "")
    }

    fn json(&self, args: &str) -> Value {
        serde_json::from_str(&self.run(&format!("{args} --json"))).expect("JSON")
    }

    /// Status and message of a command that does not work.
    fn fails(&self, args: &str) -> (Option<i32>, String) {
        let output = self.output(args, "");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn unique(name: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    format!("cli-{name}-{}", now.as_nanos())
}

#[test]
fn topics_live_and_die() {
    let Some(flowstone) = broker("topics") else { return };
    let topic = &unique("topics");
    flowstone.run(&format!("topics create {topic} -p 2 --config retention.ms=86400000"));
    let (status, message) = flowstone.fails(&format!("topics create {topic}"));
    assert!(status == Some(4) && message.contains("TOPIC_ALREADY_EXISTS"), "{message}");
    flowstone.run(&format!("topics create {topic} --if-not-exists"));
    flowstone.run(&format!("topics alter {topic} -p 3"));
    let described = flowstone.json(&format!("topics describe {topic}"));
    assert_eq!(described[0]["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(described[0]["configs"]["retention.ms"], "86400000");
    assert!(flowstone.run("topics list").contains(topic.as_str()));
    flowstone.run(&format!("configs set -t {topic} max.message.bytes=2000000"));
    let configs = flowstone.json(&format!("configs describe -t {topic} max.message.bytes"));
    assert_eq!(configs[0]["value"], "2000000");
    flowstone.run(&format!("configs delete -t {topic} max.message.bytes"));
    let configs = flowstone.json(&format!("configs describe -t {topic} max.message.bytes"));
    assert_eq!(configs, Value::Array(vec![]));
    let (status, message) = flowstone.fails(&format!("configs set -t {topic} no.such.key=1"));
    assert_eq!(status, Some(4), "{message}");
    flowstone.run(&format!("topics delete {topic}"));
    assert_eq!(flowstone.fails(&format!("topics describe {topic}")).0, Some(4));
    flowstone.run(&format!("topics delete {topic} --if-exists"));
}

#[test]
fn records_come_back_as_they_were() {
    let Some(flowstone) = broker("records") else { return };
    let topic = &unique("records");
    flowstone.run(&format!("topics create {topic} -p 3"));
    let mut all = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let lines: Vec<String> =
            (0..500).map(|at| format!("key-{at}:{codec} {at} größer")).collect();
        let input = lines.join("\n");
        flowstone.feed(&format!("produce {topic} -K : -z {codec} -H source=test"), &input);
        all.extend(lines);
    }
    let read = flowstone.run(&format!("consume {topic} --from beginning --exit -K :"));
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    all.sort_unstable();
    assert_eq!(read, all);
    let lines = flowstone.run(&format!("consume {topic} --from beginning -e -f json -p 0 -n 1"));
    let first: Value = serde_json::from_str(&lines).expect("JSON");
    assert_eq!((&first["offset"], &first["partition"]), (&0.into(), &0.into()));
    assert_eq!(first["headers"][0]["value"], "test");
    // What `consume -f json` prints, `produce -f json` takes.
    let copy = &unique("copy");
    flowstone.run(&format!("topics create {copy} -p 3"));
    flowstone.feed(&format!("produce {copy} -f json"), &lines);
    let copied = flowstone.run(&format!("consume {copy} --from beginning -e -f json"));
    let copied: Value = serde_json::from_str(&copied).expect("JSON");
    for field in ["key", "value", "headers", "timestamp", "partition"] {
        assert_eq!(copied[field], first[field], "{field}");
    }
    flowstone.feed(&format!("produce {copy} -p 1 --acks 1"), "x\n");
    flowstone.feed(&format!("produce {copy} -p 1 --acks 0"), "y\n");
    assert_eq!(flowstone.fails(&format!("produce {copy} -p 9")).0, Some(2));
    flowstone.run(&format!("topics delete {topic} {copy}"));
}

#[test]
fn groups_share_commit_and_are_reset() {
    let Some(flowstone) = broker("groups") else { return };
    let (topic, group) = (&unique("grouped"), &unique("group"));
    flowstone.run(&format!("topics create {topic} -p 2"));
    let input: Vec<String> = (0..100).map(|at| format!("{at}:v")).collect();
    flowstone.feed(&format!("produce {topic} -K :"), &input.join("\n"));
    let consume = format!("consume {topic} -g {group} --from beginning --exit");
    assert_eq!(flowstone.run(&consume).lines().count(), 100);
    assert_eq!(flowstone.run(&consume).lines().count(), 0, "committed");
    let described = flowstone.json(&format!("groups describe {group}"));
    assert_eq!((&described["lag"], &described["state"]), (&0.into(), &"Empty".into()));
    let reset = format!("groups reset-offsets {group} -t {topic} --shift-by -5");
    flowstone.run(&reset);
    assert_eq!(flowstone.json(&format!("groups describe {group}"))["lag"], 0, "a dry run");
    flowstone.run(&format!("{reset} --execute"));
    assert_eq!(flowstone.json(&format!("groups describe {group}"))["lag"], 10);
    assert_eq!(flowstone.run(&consume).lines().count(), 10);
    flowstone.run(&format!("groups reset-offsets {group} -t {topic}:0 --to-earliest --execute"));
    assert!(flowstone.run("groups list").contains(group.as_str()));
    flowstone.run(&format!("groups delete-offsets {group} -t {topic}:1"));
    flowstone.run(&format!("groups delete {group}"));
    let (status, message) = flowstone.fails(&format!("groups describe {group}"));
    assert!(status == Some(4) && message.contains("GROUP_ID_NOT_FOUND"), "{message}");
    flowstone.run(&format!("topics delete {topic}"));
}

#[test]
fn the_cluster_is_shown() {
    let Some(flowstone) = broker("cluster") else { return };
    assert!(!flowstone.run("cluster id").trim().is_empty());
    let brokers = flowstone.json("cluster brokers");
    let id = brokers[0]["broker"].as_i64().expect("a node id");
    assert!(flowstone.json("cluster quorum")["replicas"][0]["log_end"].as_i64() > Some(0));
    let versions = flowstone.json(&format!("cluster api-versions --broker {id}"));
    assert!(versions["apis"].as_array().map(Vec::len) > Some(20));
    assert_eq!(flowstone.json("cluster log-dirs")[0]["broker"], id);
    flowstone.json("cluster log-dirs --partitions");
    let keys = flowstone.json(&format!("configs describe --broker {id} --all log.segment.bytes"));
    assert_eq!(keys[0]["key"], "log.segment.bytes");
}

#[test]
fn a_load_runs() {
    let Some(flowstone) = broker("bench") else { return };
    let topic = &unique("bench");
    let produced = flowstone.json(&format!(
        "bench produce -t {topic} -p 4 -c 2 -s 1s --warm-up 100ms --batch-bytes 16KiB"
    ));
    assert!(produced["requests"].as_f64() > Some(0.0), "{produced}");
    let consumed = flowstone.json(&format!("bench consume -t {topic} -c 2 -s 1s --warm-up 100ms"));
    assert!(consumed["records"].as_f64() > Some(0.0), "{consumed}");
    flowstone.run(&format!("topics delete {topic}"));
}
