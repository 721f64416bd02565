//! `flowstone bench` against a broker that stores nothing: what it counts, and that it comes to an end.

#[path = "common/sink.rs"]
mod sink;

use std::process::Command;

use serde_json::Value;

fn bench(args: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_flowstone"))
        .args(["-b", &sink::start().to_string(), "--json", "bench"])
        .args(args.split_whitespace())
        .output()
        .expect("the binary is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn as_much_as_goes_is_counted() {
    let report = bench(
        "produce --seconds 500ms --warm-up 100ms --batch-bytes 16KiB --record-bytes 1000 -c 3 -p 4",
    );
    let (requests, records, bytes) =
        (number(&report, "requests"), number(&report, "records"), number(&report, "bytes"));
    assert!(requests > 10.0 && number(&report, "errors") == 0.0, "{report}");
    assert!((records - requests * 16.0).abs() < 0.5, "16 records of 1,000 bytes: {report}");
    assert!(bytes / requests > 16_000.0 && bytes / requests <= 16_384.0);
    assert!(report["latency_ms"]["p50"].as_f64() > Some(0.0));
    assert!(report["broker"]["pid"].as_u64() == Some(std::process::id().into()), "the sink is us");
}

#[test]
fn a_rate_is_kept() {
    let report =
        bench("produce --seconds 1s --warm-up 0 --batch-bytes 1000 --record-bytes 900 --rate 200");
    let requests = number(&report, "requests");
    assert!(
        (190.0..=200.0).contains(&requests),
        "200 records a second, one in a request: {report}"
    );
}

#[test]
fn without_acks_what_is_written_counts() {
    let report = bench("produce --seconds 300ms --warm-up 0 --acks 0 --topic t");
    assert!(number(&report, "requests") > 10.0);
}

#[test]
fn partitions_are_read_again_and_again() {
    let report = bench("consume --topic t --seconds 500ms --warm-up 0 -c 2 -i 2");
    let (requests, records) = (number(&report, "requests"), number(&report, "records"));
    assert!(requests > 10.0 && number(&report, "empty") == 0.0, "{report}");
    assert!((records - requests * 100.0).abs() < 0.5, "{report}");
}

#[test]
fn usage_is_checked() {
    for args in ["produce --rate 0", "produce -c 1 --threads 2", "consume", "produce --acks 7"] {
        let output = Command::new(env!("CARGO_BIN_EXE_flowstone"))
            .arg("bench")
            .args(args.split_whitespace())
            .output()
            .expect("the binary is there");
        assert_eq!(output.status.code(), Some(2), "{args}");
    }
}

/// A connection with room in flight but no partition to ask for sleeps: it once asked `poll` without
/// end.
#[test]
fn waiting_costs_nothing() {
    let slow = sink::SLOW_FETCH_BYTES;
    let args = format!("consume --topic t --seconds 1s --warm-up 0 -i 9 --fetch-bytes {slow}");
    let report = bench(&args);
    let cpu = report["bench"]["cpu_seconds"].as_f64().expect("our own CPU time");
    assert!(cpu < 0.3, "{cpu} CPU-seconds for a second of waiting");
}
