//! `flowstone bench`: sets a run up, drives it, tells what came of it.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use flowstone_batch::Codec;
use flowstone_wire::ErrorCode;
use flowstone_wire::messages::{FetchRequest, ProduceRequest};
use indicatif::{ProgressBar, ProgressStyle};

use super::produce::{codec, now_ms};
use super::topics;
use crate::bench::{
    Cpu, FetchLoad, Lane, Load, Outcome, Pace, ProduceLoad, Progress, Report, Run, build_batch,
    drive, listening_on, resident_bytes,
};
use crate::client::{Acks, Cluster, Connection, Topic};
use crate::failure::Failure;
use crate::output::{bytes_text, print_json, say};
use crate::{Common, random, units};

const PRODUCE_EXAMPLES: &str = "\
Examples:
  flowstone bench produce                                          as much as goes, 10 s, a topic of its own
  flowstone bench produce --partitions 16 --batch-bytes 16KiB --connections 4 --in-flight 8
  flowstone bench produce --rate 50000 --record-bytes 200          latency at 50,000 records a second
  flowstone bench produce --rate 100MB --acks 1 --json
  flowstone bench produce --topic bench --partitions 8             keeps the topic, for bench consume

Latency counts from when a request was to be sent, not from when it could be: at --rate, what a stall
kept waiting shows. Without --rate it counts from the sending. CPU time of the broker is that of the
process which listens on the port, with all its threads, where that is on this machine.";
const CONSUME_EXAMPLES: &str = "\
Examples:
  flowstone bench consume --topic bench
  flowstone bench consume --topic bench --connections 4 --fetch-bytes 4MiB --seconds 30 --json

Reads each partition from its start to its end, and again, until the time is over.";

/// `flowstone bench`.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// Send batches
    #[command(after_help = PRODUCE_EXAMPLES)]
    Produce(BenchProduce),
    /// Read batches
    #[command(after_help = CONSUME_EXAMPLES)]
    Consume(BenchConsume),
}

#[derive(Args, Debug)]
struct Shared {
    /// Connections, spread over the brokers that lead
    #[arg(short, long, default_value_t = 1)]
    connections: usize,
    /// Requests in flight on a connection, at the most
    #[arg(short, long, default_value_t = 5)]
    in_flight: usize,
    /// How long
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    seconds: Duration,
    /// How long before it counts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::duration)]
    warm_up: Duration,
    /// Threads of this process
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// `flowstone bench produce`.
#[derive(Args, Debug)]
pub struct BenchProduce {
    #[command(flatten)]
    shared: Shared,
    /// The topic; made where it is not there. Without, one of its own, deleted at the end
    #[arg(short, long)]
    topic: Option<String>,
    /// Partitions of a topic that is made
    #[arg(short, long, default_value_t = 1)]
    partitions: i32,
    /// Records a second, or bytes with a unit (100MB); as many as go without
    #[arg(short, long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,
    /// Bytes of a batch; a request has one
    #[arg(long, value_name = "BYTES", default_value = "64KiB", value_parser = units::bytes)]
    batch_bytes: u64,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = units::bytes)]
    record_bytes: u64,
    /// Who must have a batch before it counts as sent
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// Compression, done once before the start
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Codec,
}

/// `flowstone bench consume`.
#[derive(Args, Debug)]
pub struct BenchConsume {
    #[command(flatten)]
    shared: Shared,
    /// The topic
    #[arg(short, long)]
    topic: String,
    /// Fetches a second; as many as go without
    #[arg(short, long, value_name = "RATE")]
    rate: Option<f64>,
    /// Most bytes of an answer
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = units::bytes)]
    fetch_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Rate {
    Records(f64),
    Bytes(f64),
}

/// How long the last answers are waited for.
const DRAIN: Duration = Duration::from_secs(10);
/// How often the progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(200);

impl Bench {
    /// Does it.
    pub fn run(self, common: &Common) -> anyhow::Result<()> {
        match self {
            Self::Produce(produce) => produce.run(common),
            Self::Consume(consume) => consume.run(common),
        }
    }
}

impl BenchProduce {
    fn run(&self, common: &Common) -> anyhow::Result<()> {
        self.shared.check()?;
        let mut cluster = common.connect()?;
        let own = self.topic.is_none();
        let name = match &self.topic {
            Some(topic) => topic.clone(),
            None => format!("bench-{}", random::uuid()?),
        };
        match topics::create_plain(&mut cluster, &name, self.partitions) {
            Err(failure) if !own && failure.is(ErrorCode::TopicAlreadyExists) => {}
            other => other?,
        }
        let result = self.run_on(common, &mut cluster, &name);
        if own {
            topics::delete(&mut cluster, &name, true)?;
        }
        result
    }

    fn run_on(&self, common: &Common, cluster: &mut Cluster, name: &str) -> anyhow::Result<()> {
        let topic = cluster.topic(name)?;
        let sizes = (self.batch_bytes as usize, self.record_bytes as usize);
        let (batch, records) = build_batch(sizes.0, sizes.1, self.compression, now_ms());
        let rate = self.rate.map(|rate| match rate {
            Rate::Records(each_second) => each_second / records as f64,
            Rate::Bytes(each_second) => each_second / batch.len() as f64,
        });
        let lanes = self.shared.lanes(cluster, &topic, |connection, partitions| {
            let version = connection.version::<ProduceRequest>()?;
            ProduceLoad::new(&topic, partitions, version, self.acks, (batch.clone(), records))
        })?;
        self.shared.run(common, "produced", lanes, rate)
    }
}

impl BenchConsume {
    fn run(&self, common: &Common) -> anyhow::Result<()> {
        self.shared.check()?;
        let mut cluster = common.connect()?;
        let topic = cluster.topic(&self.topic)?;
        let starts = cluster.offsets(&self.topic, &topic.indices(), -2)?;
        let ends = cluster.offsets(&self.topic, &topic.indices(), -1)?;
        if starts == ends {
            let text = format!(
                "topic {0} is empty: fill it with `flowstone bench produce --topic {0}`",
                self.topic
            );
            return Err(Failure::Usage(text).into());
        }
        let lanes = self.shared.lanes(&mut cluster, &topic, |connection, partitions| {
            let version = connection.version::<FetchRequest>()?;
            let starts: BTreeMap<i32, i64> =
                partitions.iter().map(|index| (*index, starts[index])).collect();
            Ok(FetchLoad::new(topic.clone(), &starts, version, self.fetch_bytes as i32))
        })?;
        self.shared.run(common, "consumed", lanes, self.rate)
    }
}

impl Shared {
    fn check(&self) -> Result<(), Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        match self {
            Self { connections: 0, .. } => usage("--connections must be at least 1"),
            Self { in_flight: 0, .. } => usage("--in-flight must be at least 1"),
            Self { threads, connections, .. } if *threads == 0 || threads > connections => {
                usage("--threads must be between 1 and the number of --connections")
            }
            Self { .. } => Ok(()),
        }
    }

    /// The connections, each with its share of the partitions that its broker leads. With fewer
    /// partitions than connections, several share one.
    fn lanes<L: Load>(
        &self,
        cluster: &mut Cluster,
        topic: &Topic,
        mut load: impl FnMut(&Connection, &[i32]) -> Result<L, Failure>,
    ) -> anyhow::Result<Vec<Lane<L>>> {
        let leaders: Vec<(i32, Vec<i32>)> =
            topic.by_leader(&topic.indices())?.into_iter().collect();
        if self.connections < leaders.len() {
            let text = format!(
                "{} brokers lead partitions: --connections must be as many at least",
                leaders.len()
            );
            return Err(Failure::Usage(text).into());
        }
        let mut lanes = Vec::new();
        for at in 0..self.connections {
            let (leader, partitions) = &leaders[at % leaders.len()];
            let (nth, among) = share(at, self.connections, leaders.len());
            let mine = partitions_of(partitions, nth, among);
            cluster.node(*leader)?;
            let address = cluster.brokers[leader].address.clone();
            let connection = Connection::open(&address, cluster.timeout)?;
            let load = load(&connection, &mine)?;
            lanes.push(Lane::new(connection.into_stream(), address, load)?);
        }
        Ok(lanes)
    }

    fn run<L: Load + Send>(
        &self,
        common: &Common,
        verb: &'static str,
        lanes: Vec<Lane<L>>,
        rate: Option<f64>,
    ) -> anyhow::Result<()> {
        if rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return Err(Failure::Usage("--rate must be more than 0".to_owned()).into());
        }
        let broker = lanes.first().and_then(Lane::addresses);
        let broker = broker.and_then(|(own, peer)| listening_on(own, peer));
        let run = Run {
            start: Instant::now(),
            measure_from: self.warm_up,
            until: self.warm_up + self.seconds,
            in_flight: self.in_flight,
            drain: DRAIN,
        };
        let progress = Progress::default();
        let total = lanes.len();
        let mut parts: Vec<Vec<Lane<L>>> = (0..self.threads).map(|_| Vec::new()).collect();
        for (at, lane) in lanes.into_iter().enumerate() {
            parts[at % self.threads].push(lane);
        }
        let (outcome, before) = thread::scope(|scope| {
            let threads: Vec<_> = parts
                .into_iter()
                .map(|lanes| {
                    let rate = rate.map(|rate| rate * lanes.len() as f64 / total as f64);
                    let (run, progress) = (&run, &progress);
                    scope.spawn(move || drive(lanes, Pace::new(rate), run, progress))
                })
                .collect();
            let before = watch(&run, &progress, broker, || {
                threads.iter().all(ScopedJoinHandle::is_finished)
            });
            let mut outcome = Outcome::new();
            for thread in threads {
                outcome.add(&thread.join().expect("a driver does not panic")?);
            }
            Ok::<_, Failure>((outcome, before))
        })?;
        let own = Cpu::own().map(|now| now.since(&before.own));
        let broker = broker.and_then(|pid| {
            let used = Cpu::of(pid)?.since(before.broker.as_ref()?);
            Some((pid, used, resident_bytes(pid).unwrap_or_default()))
        });
        let elapsed = outcome.last.saturating_sub(run.measure_from);
        let report = Report { verb, outcome, elapsed, broker, own };
        if common.json {
            print_json(&report.to_json())?;
        } else {
            say(report.to_text().trim_end())?;
        }
        match report.outcome.first_error {
            Some(error) => anyhow::bail!("{} requests failed: {error}", report.outcome.errors),
            None => Ok(()),
        }
    }
}

/// CPU time when counting began.
struct Before {
    own: Cpu,
    broker: Option<Cpu>,
}

/// Shows the progress until the threads are done; notes the CPU time at the end of the warm-up.
fn watch(run: &Run, progress: &Progress, broker: Option<u32>, done: impl Fn() -> bool) -> Before {
    thread::sleep(run.measure_from.saturating_sub(run.start.elapsed()));
    let before = Before { own: Cpu::own().unwrap_or_default(), broker: broker.and_then(Cpu::of) };
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(run.until.as_secs().max(1))
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} s  {msg}");
    bar.set_style(style.expect("the template is right"));
    let (mut last_bytes, mut last_requests, mut last) = (0, 0, run.start.elapsed());
    while !done() {
        thread::sleep(SHOW_EVERY);
        if bar.is_hidden() {
            continue;
        }
        let now = run.start.elapsed();
        let bytes = progress.bytes.load(Ordering::Relaxed);
        let requests = progress.requests.load(Ordering::Relaxed);
        let seconds = now.saturating_sub(last).as_secs_f64();
        let rate = bytes_text((bytes - last_bytes) as f64 / seconds);
        bar.set_message(format!(
            "{rate}/s  {:.0} requests/s",
            (requests - last_requests) as f64 / seconds
        ));
        bar.set_position(now.as_secs());
        (last_bytes, last_requests, last) = (bytes, requests, now);
    }
    bar.finish_and_clear();
    before
}

/// Which of the connections to its broker connection `at` is, and how many there are, where
/// connections take turns at brokers.
fn share(at: usize, connections: usize, brokers: usize) -> (usize, usize) {
    let broker = at % brokers;
    (at / brokers, (connections - broker).div_ceil(brokers))
}

/// The partitions of the `nth` among so many connections.
fn partitions_of(partitions: &[i32], nth: usize, among: usize) -> Vec<i32> {
    if partitions.len() < among {
        return vec![partitions[nth % partitions.len()]];
    }
    partitions.iter().copied().skip(nth).step_by(among).collect()
}

fn rate(text: &str) -> Result<Rate, String> {
    let rate = match text.parse::<f64>() {
        Ok(records) => Rate::Records(records),
        Err(_) => Rate::Bytes(units::bytes(text)? as f64),
    };
    match rate {
        Rate::Records(each) | Rate::Bytes(each) if each.is_finite() && each > 0.0 => Ok(rate),
        _ => Err("expected records a second, or bytes a second such as 100MB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_records_or_bytes() {
        assert_eq!(rate("50000"), Ok(Rate::Records(50_000.0)));
        assert_eq!(rate("100MB"), Ok(Rate::Bytes(1e8)));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("many").is_err());
    }

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        for (connections, partitions, brokers) in
            [(1, 7, 1), (3, 7, 1), (7, 3, 1), (5, 4, 2), (4, 9, 3)]
        {
            let mut seen = Vec::new();
            for at in 0..connections {
                let (nth, among) = share(at, connections, brokers);
                assert!(nth < among);
                let led: Vec<i32> = (0..partitions)
                    .filter(|index| *index as usize % brokers == at % brokers)
                    .collect();
                let mine = partitions_of(&led, nth, among);
                assert!(!mine.is_empty());
                seen.extend(mine);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), partitions as usize, "{connections} {partitions} {brokers}");
        }
    }
}
