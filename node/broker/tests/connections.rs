//! The built daemon's connections: limits, strangers, memory, the controllers' listener, HTTP.

mod daemon;

use daemon::{
    API_VERSIONS, DESCRIBE_CLUSTER, Daemon, METADATA, ask, connect, fresh_dir, is_closed,
};
use rustix::process::{Resource, Rlimit, prlimit};
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const CLOSED: &str = "closed a connection";

fn is_served(stream: &mut TcpStream) -> bool {
    ask(stream, API_VERSIONS, 0, &[]).is_some()
}

#[test]
fn an_address_has_its_share_of_connections() {
    let dir = fresh_dir("per-ip");
    let limits = "max.connections.per.ip.overrides=127.0.0.1:2,127.0.0.2:9";
    let mut daemon = Daemon::dev(&dir, &[limits]);
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    assert!(is_served(&mut first) && is_served(&mut second));
    assert!(is_closed(&mut daemon.connect()));
    let line = daemon.line(CLOSED);
    assert!(line["message"].as_str().unwrap().contains("max.connections.per.ip"), "{line}");
    drop(first);
    let until = Instant::now() + Duration::from_secs(5);
    while !is_served(&mut daemon.connect()) {
        assert!(Instant::now() < until, "the place of one that left is free");
    }
}

#[test]
fn at_the_limit_of_all_one_waits_until_another_leaves() {
    let dir = fresh_dir("max-connections");
    let daemon = Daemon::dev(&dir, &["max.connections=2"]);
    let (mut first, mut second) = (daemon.connect(), daemon.connect());
    assert!(is_served(&mut first) && is_served(&mut second));
    let mut third = daemon.connect();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(!is_served(&mut third));
    drop(first);
    third.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut prefix = [0; 4];
    std::io::Read::read_exact(&mut third, &mut prefix).expect("answered once there is room");
}

/// Kafka's ConnectionQuotas: `max.connections` is of the broker, not of each listener.
#[test]
fn the_limit_of_all_counts_every_listener() {
    let dir = fresh_dir("max-connections-of-all");
    let daemon = Daemon::dev(&dir, &["max.connections=1"]);
    let mut first = daemon.connect();
    assert!(is_served(&mut first));
    let mut tool = connect(daemon.controllers);
    tool.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(!is_served(&mut tool));
    drop(first);
    tool.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut prefix = [0; 4];
    std::io::Read::read_exact(&mut tool, &mut prefix).expect("answered once there is room");
}

#[test]
fn who_is_idle_is_closed_and_who_is_not_is_kept() {
    let dir = fresh_dir("idle");
    let daemon = Daemon::dev(&dir, &["connections.max.idle.ms=1500"]);
    let (mut idle, mut busy, mut slow) = (daemon.connect(), daemon.connect(), daemon.connect());
    slow.write_all(&[0, 0]).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        assert!(is_served(&mut busy));
        thread::sleep(Duration::from_millis(200));
        let _ = slow.write_all(&[0]).and_then(|()| slow.flush()); // Bytes alone are no use of it.
    }
    assert!(is_closed(&mut idle));
    assert!(is_closed(&mut slow));
    assert!(is_served(&mut busy));
}

#[test]
fn a_request_is_as_large_as_allowed_and_no_larger() {
    let dir = fresh_dir("request-size");
    let mut daemon = Daemon::dev(&dir, &["socket.request.max.bytes=1000"]);
    let mut fair = daemon.connect();
    // Metadata 0 for one topic, whose name fills the frame: 10 bytes of header, 4 + 2 of lengths.
    let names = |len: u16| {
        let mut body = 1_i32.to_be_bytes().to_vec();
        body.extend(len.to_be_bytes());
        body.extend(vec![b'!'; usize::from(len)]);
        body
    };
    assert!(ask(&mut fair, METADATA, 0, &names(1000 - 16)).is_some());
    assert!(ask(&mut daemon.connect(), METADATA, 0, &names(1000 - 15)).is_none());
    let line = daemon.line(CLOSED);
    assert!(line["message"].as_str().unwrap().contains("1001 bytes"), "{line}");
    assert!(is_served(&mut fair));
}

#[test]
fn strangers_are_closed_with_a_line_that_names_them_and_no_flood() {
    let dir = fresh_dir("strangers");
    let mut daemon = Daemon::dev(&dir, &[]);
    let mut fair = daemon.connect();
    let hellos: [&[u8]; 2] =
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"];
    for hello in hellos.iter().cycle().take(50) {
        let mut stranger = daemon.connect();
        stranger.write_all(hello).unwrap();
        assert!(is_closed(&mut stranger));
    }
    assert!(is_served(&mut fair));
    daemon.line(CLOSED);
    let lines = daemon.lines_with(CLOSED);
    let says = |what: &str| lines.iter().any(|l| l["message"].as_str().unwrap().contains(what));
    assert!(says("an HTTP request") && says("a TLS hello"), "{lines:?}");
    assert!(lines.len() <= 10, "{} lines", lines.len());
    assert_eq!(daemon.count("flowstone_peer_faults_total{shard=\"0\"}"), 50);
}

/// faults.md S38: "memory grows only with bytes received".
#[test]
fn a_length_alone_costs_no_memory() {
    const CLIENTS: usize = 300;
    let dir = fresh_dir("length-alone");
    let daemon = Daemon::dev(&dir, &[]);
    let before = daemon.metric("process_resident_memory_bytes");
    let mut header = (100 * 1024 * 1024_i32).to_be_bytes().to_vec();
    header.extend([0, 0, 0, 3]); // Produce 3
    let mut open: Vec<TcpStream> = (0..CLIENTS).map(|_| daemon.connect()).collect();
    for client in &mut open {
        client.write_all(&header).unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    let grown = daemon.metric("process_resident_memory_bytes") - before;
    let each = grown / CLIENTS as f64;
    assert!(each < 32.0 * 1024.0, "{each} bytes for each of {CLIENTS}");
    assert!(daemon.serves());
}

/// faults.md S38: large requests that arrive slowly share a budget, and hold up nobody else.
#[test]
fn many_that_send_large_requests_slowly_hold_up_nobody() {
    const CLIENTS: usize = 40;
    let dir = fresh_dir("slow-large");
    // An eighth of 64 MiB is for what arrives: room for the first megabytes of a few.
    let daemon = Daemon::dev(&dir, &["flowstone.memory.bytes=67108864"]);
    let mut header = (50 * 1024 * 1024_i32).to_be_bytes().to_vec();
    header.extend([0, 0, 0, 3]);
    let megabyte = vec![0; 1024 * 1024];
    let mut open: Vec<TcpStream> = (0..CLIENTS).map(|_| daemon.connect()).collect();
    for client in &mut open {
        client.write_all(&header).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = client.write_all(&megabyte);
    }
    assert!(daemon.serves());
    let arriving = daemon.metric("flowstone_memory_bytes{shard=\"0\",kind=\"arriving\"}");
    let mebibyte = 1024.0 * 1024.0;
    assert!(arriving >= mebibyte, "{arriving}: they count");
    // One at a time may go beyond: it has a megabyte, and room for four.
    assert!(arriving <= (8.0 + 4.0) * mebibyte, "{arriving}");
}

/// faults.md S8: out of file descriptors, those who are connected live on, and it recovers.
#[test]
fn without_file_descriptors_those_inside_go_on() {
    let dir = fresh_dir("no-files");
    let daemon = Daemon::dev(&dir, &[]);
    let mut inside = daemon.connect();
    assert!(is_served(&mut inside));
    let open = daemon.metric("process_open_fds") as u64;
    let few = Rlimit { current: Some(open + 4), maximum: Some(open + 4) };
    prlimit(Some(daemon.pid()), Resource::Nofile, few).unwrap();
    let outside: Vec<TcpStream> = (0..20).map(|_| daemon.connect()).collect();
    thread::sleep(Duration::from_millis(300));
    assert!(is_served(&mut inside));
    drop(outside);
    thread::sleep(Duration::from_millis(300));
    assert!(daemon.serves(), "it recovers by itself");
    assert!(daemon.metric("flowstone_accept_failures_total") > 0.0);
}

#[test]
fn controllers_have_a_listener_of_their_own() {
    let dir = fresh_dir("controllers");
    let daemon = Daemon::dev(&dir, &[]);
    let mut tool = connect(daemon.controllers);
    let versions = ask(&mut tool, API_VERSIONS, 0, &[]).unwrap();
    let keys: Vec<i16> = versions[6..]
        .chunks_exact(6)
        .map(|entry| i16::from_be_bytes([entry[0], entry[1]]))
        .collect();
    assert!(keys.contains(&DESCRIBE_CLUSTER) && keys.contains(&API_VERSIONS), "{keys:?}");
    assert!(!keys.contains(&METADATA) && !keys.contains(&0), "{keys:?}");
    // Version 1 of header and body: no tags in the header, then authorized operations, endpoint type
    // and tags.
    let of_type = |endpoint_type: u8| [0, 0, endpoint_type, 0];
    let answer = ask(&mut tool, DESCRIBE_CLUSTER, 1, &of_type(2)).unwrap();
    let error = |answer: &[u8]| i16::from_be_bytes([answer[5], answer[6]]);
    assert_eq!(error(&answer), 0);
    let port = u32::from(daemon.controllers.port()).to_be_bytes();
    assert!(answer.windows(4).any(|bytes| bytes == port), "its own port: {answer:?}");
    const MISMATCHED_ENDPOINT_TYPE: i16 = 114;
    let answer = ask(&mut tool, DESCRIBE_CLUSTER, 1, &of_type(1)).unwrap();
    assert_eq!(error(&answer), MISMATCHED_ENDPOINT_TYPE);
    let answer = ask(&mut daemon.connect(), DESCRIBE_CLUSTER, 1, &of_type(2)).unwrap();
    assert_eq!(error(&answer), MISMATCHED_ENDPOINT_TYPE);
    assert!(ask(&mut tool, METADATA, 0, &[0; 4]).is_none(), "closed: brokers only");
}

/// What the usual Grafana boards for Kafka and their alerts ask for (kafka-reference section 7.4).
const DASHBOARDS: &[&str] = &[
    "kafka_server_brokertopicmetrics_messagesin_total",
    "kafka_server_brokertopicmetrics_bytesin_total",
    "kafka_server_brokertopicmetrics_bytesout_total",
    "kafka_server_brokertopicmetrics_totalproducerequests_total",
    "kafka_server_brokertopicmetrics_failedproducerequests_total",
    "kafka_server_brokertopicmetrics_totalfetchrequests_total",
    "kafka_server_brokertopicmetrics_failedfetchrequests_total",
    "kafka_server_replicamanager_underreplicatedpartitions",
    "kafka_server_replicamanager_underminisrpartitioncount",
    "kafka_server_replicamanager_offlinereplicacount",
    "kafka_server_replicamanager_partitioncount",
    "kafka_server_replicamanager_leadercount",
    "kafka_controller_kafkacontroller_activecontrollercount",
    "kafka_controller_kafkacontroller_offlinepartitionscount",
    "kafka_controller_kafkacontroller_globaltopiccount",
    "kafka_network_requestmetrics_totaltimems",
    "kafka_network_socketserver_networkprocessoravgidle_percent",
    "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
    "kafka_server_socket_server_metrics_connection_count",
    "kafka_server_raftmetrics_current_state",
    "kafka_server_raftmetrics_high_watermark",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
];

#[test]
fn http_answers_what_it_has_and_nothing_else() {
    let dir = fresh_dir("http");
    let daemon = Daemon::dev(&dir, &[]);
    assert!(daemon.serves());
    let (status, body) = daemon.http("GET", "/healthz");
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ok\n"));
    assert_eq!(daemon.http("HEAD", "/metrics").1, "");
    assert_eq!(daemon.http("GET", "/").0, "HTTP/1.1 404 Not Found");
    assert_eq!(daemon.http("POST", "/metrics").0, "HTTP/1.1 405 Method Not Allowed");
    let long = "a".repeat(9000);
    let status = daemon.http("GET", &format!("/{long}")).0;
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
    // Those who connect and say nothing: more than it serves at a time, and it goes on.
    let silent: Vec<TcpStream> = (0..7).map(|_| connect(daemon.http)).collect();
    assert_eq!(daemon.http("GET", "/readyz").0, "HTTP/1.1 200 OK");
    drop(silent);
    let (_, text) = daemon.http("GET", "/metrics");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let known = name.strip_suffix("_count").unwrap_or(name);
        assert!(text.contains(&format!("# TYPE {known}")), "{line}");
    }
    for name in DASHBOARDS {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing");
    }
    let versions =
        "kafka_network_requestmetrics_requests_total{request=\"ApiVersions\",version=\"0\"}";
    assert_eq!(daemon.count(versions), 1);
}
