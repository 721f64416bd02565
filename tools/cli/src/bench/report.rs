//! What a run came to, in words and as JSON.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Outcome;
use super::process::Cpu;
use crate::output::bytes_text;

/// The quantiles that are told.
const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];
/// Threads with less of the process's time than this are not told.
const THREAD_SHARE_MIN: f64 = 0.02;

/// Everything that is known after a run.
pub struct Report {
    /// `produced` or `consumed`.
    pub verb: &'static str,
    /// What the threads counted.
    pub outcome: Outcome,
    /// From where it counted to the last answer.
    pub elapsed: Duration,
    /// The broker, where it is on this machine: pid, CPU time and memory.
    pub broker: Option<(u32, Cpu, u64)>,
    /// This process.
    pub own: Option<Cpu>,
}

/// Rates and shares.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Figures {
    /// Bytes a second.
    pub bytes: f64,
    /// Records a second.
    pub records: f64,
    /// Requests a second.
    pub requests: f64,
}

impl Figures {
    /// Of an outcome over a time.
    pub fn of(outcome: &Outcome, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        Self {
            bytes: outcome.bytes as f64 / seconds,
            records: outcome.records as f64 / seconds,
            requests: outcome.requests as f64 / seconds,
        }
    }
}

/// CPU-seconds for each 10^9 bytes.
fn per_gb(cpu_seconds: f64, bytes: u64) -> f64 {
    if bytes == 0 { 0.0 } else { cpu_seconds / (bytes as f64 / 1e9) }
}

/// CPU-microseconds for each request.
fn per_request_us(cpu_seconds: f64, requests: u64) -> f64 {
    if requests == 0 { 0.0 } else { cpu_seconds * 1e6 / requests as f64 }
}

impl Report {
    /// A JSON document. Latencies are in milliseconds.
    pub fn to_json(&self) -> Value {
        let Outcome { latency, requests, records, bytes, empty, errors, first_error, .. } =
            &self.outcome;
        let rates = Figures::of(&self.outcome, self.elapsed);
        let mut quantiles: serde_json::Map<String, Value> = QUANTILES
            .iter()
            .map(|(name, at)| ((*name).to_owned(), json!(ms(latency, *at))))
            .collect();
        quantiles.insert("max".to_owned(), json!(latency.max() as f64 / 1000.0));
        quantiles.insert("mean".to_owned(), json!(latency.mean() / 1000.0));
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "requests": requests,
            "records": records,
            "bytes": bytes,
            "empty": empty,
            "errors": errors,
            "first_error": first_error,
            "bytes_per_second": rates.bytes,
            "records_per_second": rates.records,
            "requests_per_second": rates.requests,
            "latency_ms": quantiles,
            "broker": self.broker.as_ref().map(|(pid, cpu, memory)| {
                let mut json = self.cpu_json(cpu);
                json["pid"] = json!(pid);
                json["resident_bytes"] = json!(memory);
                json
            }),
            "bench": self.own.as_ref().map(|cpu| self.cpu_json(cpu)),
        })
    }

    fn cpu_json(&self, cpu: &Cpu) -> Value {
        json!({
            "cpu_seconds": cpu.total(),
            "user_seconds": cpu.user,
            "system_seconds": cpu.system,
            "cpu_seconds_per_gb": per_gb(cpu.total(), self.outcome.bytes),
            "cpu_us_per_request": per_request_us(cpu.total(), self.outcome.requests),
            "threads": cpu.threads,
        })
    }

    /// A few lines for people.
    pub fn to_text(&self) -> String {
        let outcome = &self.outcome;
        let rates = Figures::of(outcome, self.elapsed);
        let latency = &outcome.latency;
        let mut text = format!(
            "{} {} in {:.1} s: {}/s, {:.0} records/s, {:.0} requests/s\n",
            self.verb,
            bytes_text(outcome.bytes as f64),
            self.elapsed.as_secs_f64(),
            bytes_text(rates.bytes),
            rates.records,
            rates.requests
        );
        let quantiles: Vec<String> = QUANTILES
            .iter()
            .map(|(name, at)| format!("{name} {} ms", short(ms(latency, *at))))
            .collect();
        let max = short(latency.max() as f64 / 1000.0);
        let _ = writeln!(
            text,
            "latency from the intended send time: {}, max {max} ms",
            quantiles.join(", ")
        );
        if outcome.empty > 0 {
            let _ =
                writeln!(text, "{} of {} fetches found nothing", outcome.empty, outcome.requests);
        }
        match &self.broker {
            None => text.push_str(
                "broker: not on this machine (or not ours to see), so its CPU time is not known\n",
            ),
            Some((pid, cpu, memory)) => {
                let name = format!("broker (pid {pid})");
                let _ = writeln!(
                    text,
                    "{}, {} resident",
                    self.cpu_text(&name, cpu),
                    bytes_text(*memory as f64)
                );
                let threads: Vec<String> =
                    busiest(cpu).map(|(name, seconds)| format!("{name} {seconds:.2} s")).collect();
                if !threads.is_empty() {
                    let _ = writeln!(text, "  threads: {}", threads.join(", "));
                }
            }
        }
        if let Some(cpu) = &self.own {
            let _ = writeln!(text, "{}", self.cpu_text("this bench", cpu));
        }
        if let Some(error) = &outcome.first_error {
            let _ = writeln!(text, "{} requests failed, the first: {error}", outcome.errors);
        }
        text
    }

    fn cpu_text(&self, name: &str, cpu: &Cpu) -> String {
        format!(
            "{name}: {:.2} CPU-seconds ({:.2} user, {:.2} system), {:.3} per GB, {:.1} us per request",
            cpu.total(),
            cpu.user,
            cpu.system,
            per_gb(cpu.total(), self.outcome.bytes),
            per_request_us(cpu.total(), self.outcome.requests)
        )
    }
}

fn busiest(cpu: &Cpu) -> impl Iterator<Item = (&String, f64)> {
    let mut threads: Vec<(&String, f64)> = cpu
        .threads
        .iter()
        .map(|(name, seconds)| (name, *seconds))
        .filter(|(_, seconds)| *seconds > cpu.total() * THREAD_SHARE_MIN)
        .collect();
    threads.sort_by(|a, b| b.1.total_cmp(&a.1));
    threads.into_iter()
}

fn ms(latency: &Histogram<u64>, quantile: f64) -> f64 {
    latency.value_at_quantile(quantile) as f64 / 1000.0
}

/// Milliseconds with three digits that count.
fn short(ms: f64) -> String {
    let digits = match ms {
        ..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{ms:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut outcome = Outcome::new();
        for micros in 1..=10_000 {
            outcome.latency.record(micros).unwrap();
        }
        (outcome.requests, outcome.records, outcome.bytes) = (10_000, 100_000, 2_000_000_000);
        let cpu = Cpu { user: 1.0, system: 3.0, threads: [("shard-0".to_owned(), 3.5)].into() };
        let broker = Some((7, cpu.clone(), 48_000_000));
        Report {
            verb: "produced",
            outcome,
            elapsed: Duration::from_secs(10),
            broker,
            own: Some(cpu),
        }
    }

    #[test]
    fn figures_are_per_second_per_gb_and_per_request() {
        let json = report().to_json();
        assert_eq!(json["bytes_per_second"], 2e8);
        assert_eq!(json["records_per_second"], 1e4);
        assert_eq!(json["broker"]["cpu_seconds_per_gb"], 2.0);
        assert_eq!(json["broker"]["cpu_us_per_request"], 400.0);
        let near = |name: &str, want: f64| {
            let got = json["latency_ms"][name].as_f64().unwrap();
            assert!((got - want).abs() < want / 500.0, "{name}: {got}");
        };
        near("p50", 5.0);
        near("p99", 9.9);
        near("p99.9", 9.99);
        near("max", 10.0);
        assert!(per_gb(1.0, 0) < f64::EPSILON && per_request_us(1.0, 0) < f64::EPSILON);
    }

    #[test]
    fn people_get_a_few_lines() {
        let text = report().to_text();
        let want = "produced 2.0 GB in 10.0 s: 200 MB/s, 10000 records/s, 1000 requests/s\n";
        assert!(text.starts_with(want), "{text}");
        assert!(text.contains("broker (pid 7): 4.00 CPU-seconds (1.00 user, 3.00 system), 2.000 per GB, 400.0 us per request, 48.0 MB resident\n  threads: shard-0 3.50 s\n"), "{text}");
    }

    #[test]
    fn outcomes_add_up() {
        let mut sum = Outcome::new();
        sum.add(&report().outcome);
        sum.add(&report().outcome);
        assert_eq!((sum.requests, sum.latency.len()), (20_000, 20_000));
    }
}
