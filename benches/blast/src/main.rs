//! `flowstone-blast`: the load of the comparisons in benches/compare, cheap enough that the broker is what is measured.

mod drive;
mod feed;
mod requests;
mod wire;
mod work;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};

use drive::{Drive, Plan};
use requests::{BatchShape, FetchShape};
use work::{Fetch, FetchMode, Frames, Produce, Target, Touch};

/// Drives a Kafka-compatible broker with frames that were built before, on one thread.
///
/// A line on standard input is answered with a line of JSON: counts since the start, latencies since the last line. The end of
/// standard input (or --seconds) ends the run.
#[derive(Parser)]
#[command(name = "flowstone-blast", version, max_term_width = 100)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Produces batches that were built before.
    Produce {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        batch: BatchArgs,
        /// Requests a second in all, at intended times; without it as many as go.
        #[arg(long)]
        rate: Option<f64>,
        /// Each connection keeps to its own share of the partitions.
        #[arg(long)]
        stick: bool,
    },
    /// Produces one batch to every partition, waits for all, and says how long the first and the last took since this began.
    Touch {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        batch: BatchArgs,
        /// How long a broker may take to be there.
        #[arg(long, default_value_t = 120)]
        patience_seconds: u64,
    },
    /// Fetches.
    Fetch {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 1 << 20)]
        partition_bytes: i32,
        #[arg(long, default_value_t = 500)]
        max_wait_ms: i32,
        #[arg(long, value_enum, default_value = "again")]
        mode: Mode,
    },
    /// Says how many records a topic has, by its partitions' end offsets.
    Ends {
        #[command(flatten)]
        topics: Topics,
    },
    /// Creates topics: NAME, or NAME-0 to NAME-(N-1) where there are several.
    Create {
        #[command(flatten)]
        topics: Topics,
        #[arg(long, default_value_t = 16)]
        partitions: i32,
        /// Topic configs.
        #[arg(long, value_name = "KEY=VALUE")]
        config: Vec<String>,
    },
    /// Deletes them.
    Delete {
        #[command(flatten)]
        topics: Topics,
    },
    /// Holds touched memory and gives it back as free memory falls: lines fill, give and rest on standard input.
    Feed {
        #[arg(long, default_value_t = 1 << 40)]
        bytes_max: u64,
    },
}

#[derive(Args)]
struct Topics {
    #[arg(long, default_value = "127.0.0.1:9092")]
    address: String,
    #[arg(long, default_value = "blast")]
    topic: String,
    /// How many topics.
    #[arg(long = "topics", default_value_t = 1)]
    count: usize,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    topics: Topics,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests without a reply, on each connection.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    #[arg(long)]
    seconds: Option<f64>,
    /// Never sleeps, for latencies.
    #[arg(long)]
    spin: bool,
}

#[derive(Args)]
struct BatchArgs {
    /// Batches are filled up to this; 0 for batches of one record.
    #[arg(long, default_value_t = 0)]
    batch_bytes: usize,
    #[arg(long, default_value_t = 1000)]
    value_bytes: usize,
    /// As in Kafka: all, or the leader alone, of those that are answered.
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
}

#[derive(Clone, Copy, ValueEnum)]
enum Acks {
    All = -1,
    Leader = 1,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Again,
    Tail,
    Once,
    Verify,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("flowstone-blast: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Command::parse().what {
        What::Produce { common, batch, rate, stick } => {
            let targets = common.topics.targets()?;
            let work = Produce::new(batch.frames(&targets)?, common.connections, stick);
            let streams = common.connect()?;
            Drive::new(streams, work, common.plan(rate))?.run()?.tell()?;
        }
        What::Touch { common, batch, patience_seconds } => {
            touch(&common, &batch, Duration::from_secs(patience_seconds))?;
        }
        What::Fetch { common, partition_bytes, max_wait_ms, mode } => {
            let targets = common.topics.targets()?;
            let shape = FetchShape { max_wait_ms, partition_bytes };
            let mode = match mode {
                Mode::Again => FetchMode::Again,
                Mode::Tail => FetchMode::Tail,
                Mode::Once => FetchMode::Once,
                Mode::Verify => FetchMode::Verify,
            };
            let work = Fetch::new(&targets, common.connections, shape, mode);
            Drive::new(common.connect()?, work, common.plan(None))?.run()?.tell()?;
        }
        What::Ends { topics } => {
            let mut records = 0;
            for topic in topics.names() {
                let found = requests::topic(&topics.ask(&requests::metadata(&topic))?)?;
                let reply = topics.ask(&requests::list_ends(&topic, found.partitions))?;
                records += requests::ends(&reply)?;
            }
            println!("{}", serde_json::json!({ "records": records }));
        }
        What::Create { topics, partitions, config } => {
            let pair = |text: &String| {
                let (key, value) = text.split_once('=').context("expected KEY=VALUE")?;
                Ok((key.to_owned(), value.to_owned()))
            };
            let configs = config.iter().map(pair).collect::<Result<Vec<_>>>()?;
            // One topic a request: Kafka bounds the records of a request to its controller.
            for topic in topics.names() {
                requests::created(&topics.ask(&requests::create_topics(
                    &[topic],
                    partitions,
                    &configs,
                ))?)?;
            }
        }
        What::Delete { topics } => {
            requests::deleted(&topics.ask(&requests::delete_topics(&topics.names()))?)?;
        }
        What::Feed { bytes_max } => feed::run(bytes_max)?,
    }
    Ok(())
}

/// Waits for the broker, its topics and every partition, in that order. Prints when each was there, in seconds since the start.
fn touch(common: &Common, batch: &BatchArgs, patience: Duration) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(5);
    let start = Instant::now();
    let targets = loop {
        match common.topics.targets() {
            Ok(targets) => break targets,
            Err(why) if start.elapsed() > patience => return Err(why),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let known = start.elapsed();
    let first = loop {
        let work = Touch::new(batch.frames(&targets[..1])?, 1);
        match Drive::new(common.topics.connect(1)?, work, common.plan(None))?.run() {
            Ok(_) => break start.elapsed(),
            Err(why) if start.elapsed() > patience => return Err(why),
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let records = targets.len() + 1; // The first one's partition gets another.
    let work = Touch::new(batch.frames(&targets)?, common.connections);
    Drive::new(common.connect()?, work, common.plan(None))?.run()?;
    let seconds = serde_json::json!({
        "metadata": known.as_secs_f64(), "first": first.as_secs_f64(), "all": start.elapsed().as_secs_f64(),
        "records": records,
    });
    println!("{seconds}");
    Ok(())
}

impl Topics {
    fn names(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.topic.clone()],
            count => (0..count).map(|at| format!("{}-{at}", self.topic)).collect(),
        }
    }

    fn connect(&self, count: usize) -> Result<Vec<TcpStream>> {
        // A broker whose queue of new connections is full drops the next, which is tried again only a second later (Kafka's is 50 by default).
        const QUEUE: usize = 32;
        const PAUSE: Duration = Duration::from_millis(1);
        let one = |number| {
            if number >= QUEUE {
                std::thread::sleep(PAUSE);
            }
            TcpStream::connect(&self.address)
        };
        let streams: Result<Vec<_>, _> = (0..count).map(one).collect();
        streams.with_context(|| format!("cannot reach {}", self.address))
    }

    /// Sends one request on a connection of its own and returns the reply.
    fn ask(&self, request: &Bytes) -> Result<Vec<u8>> {
        let mut stream = self.connect(1)?.remove(0);
        ask(&mut stream, request)
    }

    /// Every partition of the topics; fails where one has no leader yet.
    fn targets(&self) -> Result<Vec<Target>> {
        let mut stream = self.connect(1)?.remove(0);
        let mut targets = Vec::new();
        for topic in self.names() {
            let found = requests::topic(&ask(&mut stream, &requests::metadata(&topic))?)?;
            if found.error != 0 || found.partitions == 0 {
                bail!("topic {topic}: error code {}", found.error);
            }
            let target = |partition| Target { topic: topic.clone(), id: found.id, partition };
            targets.extend((0..found.partitions).map(target));
        }
        Ok(targets)
    }
}

fn ask(stream: &mut TcpStream, request: &Bytes) -> Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut reply = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

impl Common {
    fn connect(&self) -> Result<Vec<TcpStream>> {
        self.topics.connect(self.connections)
    }

    fn plan(&self, rate: Option<f64>) -> Plan {
        let run_time = self.seconds.map(Duration::from_secs_f64);
        Plan { in_flight: self.in_flight, rate, spin: self.spin, run_time }
    }
}

impl BatchArgs {
    fn frames(&self, targets: &[Target]) -> Result<Frames> {
        let shape = match self.batch_bytes {
            0 => BatchShape { value_bytes: self.value_bytes, records: 1 },
            bytes => BatchShape::filling(bytes, self.value_bytes),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Frames::new(targets, shape, self.acks as i16, now.as_millis() as i64))
    }
}
