//! The built daemon's log directories: one that fails beside one that does not, and one for the metadata log alone.

mod daemon;

use daemon::{Daemon, ask, complaint, flowstoned, fresh_dir, run};
use flowstone_batch::BatchBuilder;
use flowstone_types::{Offset, Timestamp};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Keys of Kafka's APIs.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const CREATE_TOPICS: i16 = 19;
const DESCRIBE_LOG_DIRS: i16 = 35;
const KAFKA_STORAGE_ERROR: i16 = 56;

/// Bytes of a request.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn put<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn count(self, count: i32) -> Self {
        self.put(count.to_be_bytes())
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as i16).to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }
}

fn create_topic(daemon: &Daemon, topic: &str) {
    let body = Body::default().count(1).text(topic).count(1).put(1_i16.to_be_bytes());
    let body = body.count(0).count(0).count(10_000).put([0]);
    let answer = ask(&mut daemon.connect(), CREATE_TOPICS, 2, &body.0).unwrap();
    let error_at = 4 + 4 + 2 + topic.len();
    assert_eq!(answer[error_at..error_at + 2], [0, 0], "{answer:?}");
}

/// Sends one record; the error code of the answer.
fn produce(daemon: &Daemon, topic: &str, value: &str) -> i16 {
    let mut batch = BatchBuilder::new(Offset(0));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64; // Or retention takes it.
    batch.push(Timestamp(now), None, Some(value.as_bytes()), &[]);
    let batch = batch.build();
    let body = Body::default().put((-1_i16).to_be_bytes()).put((-1_i16).to_be_bytes());
    let body = body.count(10_000).count(1).text(topic).count(1).count(0);
    let mut body = body.count(batch.len() as i32);
    body.0.extend(&batch[..]);
    let answer = ask(&mut daemon.connect(), PRODUCE, 3, &body.0).unwrap();
    let error_at = 4 + 2 + topic.len() + 4 + 4;
    i16::from_be_bytes(answer[error_at..error_at + 2].try_into().unwrap())
}

/// Produces once the topic, which was just made, has its leader.
fn produced(daemon: &Daemon, topic: &str, value: &str) {
    until("it is stored", || produce(daemon, topic, value) == 0);
}

/// What a fetch from offset 0 on brings.
fn fetched(daemon: &Daemon, topic: &str) -> Vec<u8> {
    let body = Body::default().count(-1).count(0).count(1).count(1 << 20).put([0]);
    let body = body.count(1).text(topic).count(1).count(0);
    let body = body.put(0_i64.to_be_bytes()).count(1 << 20);
    ask(&mut daemon.connect(), FETCH, 4, &body.0).unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The error code that DescribeLogDirs gives with a directory.
fn described(daemon: &Daemon, dir: &Path) -> i16 {
    let body = Body::default().count(-1);
    let answer = ask(&mut daemon.connect(), DESCRIBE_LOG_DIRS, 1, &body.0).unwrap();
    let path = Body::default().text(dir.to_str().unwrap()).0;
    let at = answer.windows(path.len()).position(|window| window == path).unwrap();
    i16::from_be_bytes(answer[at - 2..at].try_into().unwrap())
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !reached() {
        assert!(Instant::now() < until, "{what}: not in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// KIP-112: a directory of which a write failed is offline, with its partitions; the others go on. Operators see it in
/// LogManager's gauges, tools in DescribeLogDirs.
#[test]
fn a_directory_that_fails_is_told_offline_and_the_other_goes_on() {
    let dir = fresh_dir("two-dirs");
    let dirs = [dir.join("first"), dir.join("second")];
    let both = format!("log.dirs={},{}", dirs[0].display(), dirs[1].display());
    let daemon = Daemon::dev(&dirs[0], &[&both, "log.flush.offset.checkpoint.interval.ms=100"]);
    let topics = ["orders", "returns"];
    for topic in topics {
        create_topic(&daemon, topic);
        produced(&daemon, topic, "before");
    }
    let is_in = |dir: &Path, topic: &&str| dir.join(format!("{topic}-0")).exists();
    let failing = topics.into_iter().find(|topic| is_in(&dirs[1], topic)).unwrap();
    let going_on = topics.into_iter().find(|topic| is_in(&dirs[0], topic)).unwrap();
    const COUNT: &str = "kafka_log_logmanager_offlinelogdirectorycount";
    let gauge = |dir: &Path| {
        let series = "kafka_log_logmanager_logdirectoryoffline";
        daemon.count(&format!("{series}{{logDirectory=\"{}\"}}", dir.display()))
    };
    let told = || {
        let codes = dirs.each_ref().map(|dir| described(&daemon, dir));
        (daemon.count(COUNT), dirs.each_ref().map(|dir| gauge(dir)), codes)
    };
    assert_eq!(told(), (0, [0, 0], [0, 0]));
    // A checkpoint cannot be written where a folder has its name.
    std::fs::create_dir(dirs[1].join("replication-offset-checkpoint.tmp")).unwrap();
    assert_eq!(produce(&daemon, failing, "behind"), 0);
    until("the directory is offline", || daemon.count(COUNT) > 0);
    assert_eq!(told(), (1, [0, 1], [0, KAFKA_STORAGE_ERROR]));
    assert_eq!(produce(&daemon, failing, "later"), KAFKA_STORAGE_ERROR);
    assert_eq!(produce(&daemon, going_on, "later"), 0);
    let answer = fetched(&daemon, going_on);
    assert!(has(&answer, "later"), "{answer:?}");
}

/// Kafka's `metadata.log.dir` may be none of `log.dirs`: there is the metadata log, and nothing else.
#[test]
fn the_metadata_log_may_have_a_directory_of_its_own() {
    let dir = fresh_dir("metadata-apart");
    let (data, metadata) = (dir.join("data"), dir.join("metadata"));
    let apart = format!("metadata.log.dir={}", metadata.display());
    let is_metadata_log = |name: &str| name == "__cluster_metadata-0";
    let folders = |dir: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    for life in 0..3 {
        let mut daemon = Daemon::dev(&data, &[&apart]);
        if life == 0 {
            create_topic(&daemon, "orders");
            create_topic(&daemon, "returns");
        }
        for (topic, value) in [("orders", "an order"), ("returns", "a return")] {
            produced(&daemon, topic, &format!("{value} of life {life}"));
            for before in 0..=life {
                assert!(has(&fetched(&daemon, topic), &format!("{value} of life {before}")));
            }
        }
        assert_eq!(daemon.lines_with("log directory opened").len(), 2);
        assert!(daemon.line("log directory opened")["clean"] == (life == 1));
        assert_eq!(folders(&metadata).iter().filter(|name| !is_metadata_log(name)).count(), 0);
        assert_eq!(folders(&data).iter().filter(|name| is_metadata_log(name)).count(), 0);
        let logs = std::fs::read_dir(metadata.join("__cluster_metadata-0")).unwrap();
        let is_log =
            |entry: &std::fs::DirEntry| entry.path().extension().is_some_and(|e| e == "log");
        assert!(logs.map(Result::unwrap).filter(is_log).count() > 0);
        let clean = metadata.join(".kafka_cleanshutdown");
        let status = daemon.end_by(if life == 0 { Signal::TERM } else { Signal::KILL });
        assert_eq!(
            (status.code(), clean.exists()),
            if life == 0 { (Some(0), true) } else { (None, false) }
        );
    }
}

/// Which of some directories has a topic's only partition.
fn home<'a>(dirs: &'a [PathBuf], topic: &str) -> Vec<&'a PathBuf> {
    dirs.iter().filter(|dir| dir.join(format!("{topic}-0")).exists()).collect()
}

fn log_dirs(dirs: &[PathBuf]) -> String {
    let shown: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    format!("log.dirs={}", shown.join(","))
}

/// Where a disk should be mounted there is something else; the disk is put by.
fn break_down(dir: &Path) {
    std::fs::rename(dir, dir.with_extension("away")).unwrap();
    std::fs::write(dir, "in the way").unwrap();
}

fn mend(dir: &Path) {
    std::fs::remove_file(dir).unwrap();
    std::fs::rename(dir.with_extension("away"), dir).unwrap();
}

/// KIP-112, as Kafka 4.3.1 does at start: a directory that cannot be read is offline, and the others serve. KIP-858: what
/// may be in it is not begun anew elsewhere, be it told by the metadata or not yet; what is new goes to the others.
#[test]
fn a_directory_that_cannot_be_read_is_offline_from_the_start() {
    let dir = fresh_dir("unreadable");
    let dirs = ["first", "second", "third"].map(|name| dir.join(name));
    let all = log_dirs(&dirs);
    let topics = ["orders", "returns", "parcels"];
    let daemon = Daemon::dev(&dirs[0], &[&all]);
    for topic in topics {
        create_topic(&daemon, topic);
        produced(&daemon, topic, "before");
    }
    let failing = topics.into_iter().find(|topic| home(&dirs, topic) == [&dirs[1]]).unwrap();
    daemon.end_by(Signal::KILL);
    for life in 0..3 {
        break_down(&dirs[1]);
        let daemon = Daemon::dev(&dirs[0], &[&all]);
        assert_eq!(daemon.count("kafka_log_logmanager_offlinelogdirectorycount"), 1);
        let codes = dirs.each_ref().map(|dir| described(&daemon, dir));
        assert_eq!(codes, [0, KAFKA_STORAGE_ERROR, 0]);
        for topic in topics {
            let offline = topic == failing;
            let expected = if offline { KAFKA_STORAGE_ERROR } else { 0 };
            until("it answers", || produce(&daemon, topic, "meanwhile") == expected);
            assert_eq!(has(&fetched(&daemon, topic), "before"), !offline);
            assert_eq!(home(&dirs, topic).len(), usize::from(!offline), "{topic}");
        }
        let new = format!("new-{life}");
        create_topic(&daemon, &new);
        produced(&daemon, &new, "to another");
        assert_eq!(home(&dirs, &new).len(), 1);
        assert_eq!(daemon.end_by(Signal::TERM).code(), Some(0), "what is here is closed in order");
        mend(&dirs[1]);
        // Whole again, the metadata is told, too, which logs lie where.
        let daemon = Daemon::dev(&dirs[0], &[&all]);
        for topic in topics {
            produced(&daemon, topic, "after");
            assert!(has(&fetched(&daemon, topic), "before"), "{topic}");
        }
        assert_eq!(
            daemon.end_by(if life == 1 { Signal::TERM } else { Signal::KILL }).code(),
            (life == 1).then_some(0)
        );
    }
}

/// KIP-858: a log whose directory was taken out of log.dirs is missing, not new; found elsewhere, it is served from there.
#[test]
fn a_log_whose_directory_is_not_there_is_not_begun_anew() {
    let dir = fresh_dir("taken-out");
    let dirs = ["first", "second"].map(|name| dir.join(name));
    let both = log_dirs(&dirs);
    let mut daemon = Daemon::dev(&dirs[0], &[&both]);
    let applied =
        |daemon: &Daemon| daemon.count("kafka_controller_kafkacontroller_lastappliedrecordoffset");
    let before = applied(&daemon);
    let topics = ["orders", "returns"];
    for topic in topics {
        create_topic(&daemon, topic); // Two records: the topic, and its partition.
        produced(&daemon, topic, "before");
    }
    until("the metadata knows where they are", || applied(&daemon) == before + 6);
    let gone = topics.into_iter().find(|topic| home(&dirs, topic) == [&dirs[1]]).unwrap();
    daemon.end_by(Signal::KILL);

    let first = log_dirs(&dirs[..1]);
    daemon = Daemon::dev(&dirs[0], &[&first]);
    until("it answers", || produce(&daemon, gone, "meanwhile") == KAFKA_STORAGE_ERROR);
    assert_eq!(home(&dirs[..1], gone).len(), 0);
    let line = daemon.line("partition is offline")["message"].to_string();
    assert!(line.contains("directory.id=") && line.contains("delete the topic"), "{line}");
    daemon.end_by(Signal::KILL);

    // An operator moves the log over by hand.
    let name = format!("{gone}-0");
    std::fs::rename(dirs[1].join(&name), dirs[0].join(&name)).unwrap();
    daemon = Daemon::dev(&dirs[0], &[&first]);
    produced(&daemon, gone, "after");
    assert!(has(&fetched(&daemon, gone), "before"));
}

/// The metadata log's directory cannot be done without, nor can one that is merely not formatted be an accident.
#[test]
fn what_kafka_refuses_at_start_is_refused() {
    let dir = fresh_dir("refused");
    let dirs = ["first", "second"].map(|name| dir.join(name));
    let both = log_dirs(&dirs);
    Daemon::dev(&dirs[0], &[&both]).end_by(Signal::KILL);
    let refusal = || {
        let mut command = flowstoned(["dev", "--port", "0", "--data"]);
        command.arg(&dirs[0]).args(["--set", &both, "--set", "flowstone.metrics.listener="]);
        let (status, stderr) = run(command);
        assert_eq!(status, 1);
        complaint(&stderr)
    };
    break_down(&dirs[0]);
    let line = refusal();
    assert!(line.contains("cannot write to"), "{line}");
    mend(&dirs[0]);
    std::fs::remove_dir_all(&dirs[1]).unwrap();
    std::fs::create_dir(&dirs[1]).unwrap();
    let line = refusal();
    assert!(line.contains("is not formatted") && line.contains("--ignore-formatted"), "{line}");
}
