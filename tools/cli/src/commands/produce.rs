//! `flowstone produce`: lines of standard input become records.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, ValueEnum};
use flowstone_batch::Codec;
use serde_json::{Value, json};

use super::key_value;
use crate::client::{Acks, Outgoing, Producer};
use crate::failure::Failure;
use crate::output::done;
use crate::{Common, units};

const EXAMPLES: &str = "\
Examples:
  echo hello | flowstone produce orders
  printf 'k1:one\\nk2:two\\n' | flowstone produce orders -K :
  flowstone produce orders -H source=cli -z zstd < lines.txt
  flowstone produce orders -K : --null-value - < changes.txt      `k1:-` is a tombstone
  flowstone consume orders -f json -e | flowstone produce copy -f json

With --acks all (the default) a batch is stored once, even where it had to be sent again.";

/// Send lines of standard input as records.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Produce {
    /// The topic
    topic: String,
    /// What stands between key and value of a line; without, there are no keys
    #[arg(short = 'K', long, value_name = "SEPARATOR")]
    key_separator: Option<String>,
    /// A header of every record
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = key_value)]
    header: Vec<(String, String)>,
    /// A value that stands for null
    #[arg(long, value_name = "TEXT")]
    null_value: Option<String>,
    /// How lines are read
    #[arg(short, long, value_enum, default_value = "text")]
    format: InputFormat,
    /// Send all to this partition; without, keys decide, and batches without keys take turns
    #[arg(short, long)]
    partition: Option<i32>,
    /// Compression
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Codec,
    /// Who must have a batch before it counts as sent
    #[arg(long, value_enum, default_value = "all")]
    acks: Acks,
    /// Bytes of a batch, before compression
    #[arg(long, value_name = "BYTES", default_value = "256KiB", value_parser = units::bytes)]
    batch_bytes: u64,
}

/// How a line becomes a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum InputFormat {
    /// The value, or key and value (-K)
    Text,
    /// A JSON object with key, value, headers, partition and timestamp, as `consume -f json` prints it
    Json,
}

/// How long a line may wait for others to fill its batch.
const LINGER: Duration = Duration::from_millis(5);
/// Lines read ahead of what is sent.
const LINES_AHEAD: usize = 10_000;
/// Bytes a record takes beside its key and value, about.
const RECORD_OVERHEAD: usize = 16;

/// Records of the batches that are being filled.
#[derive(Default)]
struct Filling {
    records: BTreeMap<i32, Vec<Outgoing>>,
    bytes: usize,
}

impl Produce {
    /// Sends until the input ends.
    pub fn run(&self, common: &Common) -> anyhow::Result<()> {
        let mut cluster = common.connect()?;
        let topic = cluster.topic(&self.topic)?;
        if let Some(partition) = self.partition {
            topic.partition(partition)?;
        }
        let partitions = topic.partitions.len();
        let mut producer = Producer::new(&mut cluster, &self.topic, self.acks, self.compression)?;
        let lines = read_lines();
        let (mut filling, mut number, mut turn, mut sent) = (Filling::default(), 0_u64, 0_usize, 0);
        loop {
            let (line, ended) = match next_line(&lines, &filling)? {
                Some(Ok(line)) => (Some(line), false),
                Some(Err(Ended)) => (None, true),
                None => (None, false),
            };
            let full = if let Some(line) = line {
                number += 1;
                let (partition, record) = self
                    .record(&line)
                    .map_err(Failure::Usage)
                    .with_context(|| format!("line {number}"))?;
                let partition = self.partition.or(partition).unwrap_or_else(|| match &record.key {
                    Some(key) => partition_of(key, partitions),
                    None => (turn % partitions) as i32,
                });
                topic.partition(partition)?;
                filling.add(partition, record);
                filling.bytes >= self.batch_bytes as usize
            } else {
                true // The input rests, or ended.
            };
            if full && !filling.records.is_empty() {
                let batch = std::mem::take(&mut filling);
                producer.send(&mut cluster, &batch.records)?;
                sent += batch.records.values().map(Vec::len).sum::<usize>();
                turn += 1;
            }
            if ended {
                break;
            }
        }
        if common.json {
            done(true, &json!({ "topic": self.topic, "records": sent }), "")?;
        } else {
            eprintln!("{sent} records to {}", self.topic); // Standard output stays for programs.
        }
        Ok(())
    }

    /// The record of a line, and the partition where the line says one.
    fn record(&self, line: &[u8]) -> Result<(Option<i32>, Outgoing), String> {
        let mut headers: Vec<(String, Option<Vec<u8>>)> = self
            .header
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone().into_bytes())))
            .collect();
        let now = now_ms();
        if self.format == InputFormat::Json {
            let (partition, mut record) = from_json(line, now)?;
            headers.append(&mut record.headers);
            return Ok((partition, Outgoing { headers, ..record }));
        }
        let (key, value) = match &self.key_separator {
            None => (None, line),
            Some(separator) => {
                let at = find(line, separator.as_bytes())
                    .ok_or_else(|| format!("there is no key: {separator:?} (-K) is not in it"))?;
                (Some(line[..at].to_vec()), &line[at + separator.len()..])
            }
        };
        let is_null = self.null_value.as_ref().is_some_and(|null| null.as_bytes() == value);
        let value = (!is_null).then(|| value.to_vec());
        Ok((None, Outgoing { key, value, headers, timestamp: now }))
    }
}

struct Ended;

/// The next line; nothing where what is there already should not wait any longer.
fn next_line(
    lines: &Receiver<io::Result<Vec<u8>>>,
    filling: &Filling,
) -> anyhow::Result<Option<Result<Vec<u8>, Ended>>> {
    let received = if filling.records.is_empty() {
        lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
    } else {
        lines.recv_timeout(LINGER)
    };
    match received {
        Ok(line) => Ok(Some(Ok(line.context("standard input")?))),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Ok(Some(Err(Ended))),
    }
}

impl Filling {
    fn add(&mut self, partition: i32, record: Outgoing) {
        let field = |field: &Option<Vec<u8>>| field.as_ref().map_or(0, Vec::len);
        self.bytes += field(&record.key) + field(&record.value) + RECORD_OVERHEAD;
        self.records.entry(partition).or_default().push(record);
    }
}

/// Reads standard input beside the sending, so that a batch need not wait for a line.
fn read_lines() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::sync_channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if matches!(read, Ok(0)) {
                return;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let failed = read.is_err();
            if sender.send(read.map(|_| line)).is_err() || failed {
                return; // Nobody listens any more.
            }
        }
    });
    receiver
}

fn from_json(line: &[u8], now: i64) -> Result<(Option<i32>, Outgoing), String> {
    let json: Value = serde_json::from_slice(line).map_err(|error| format!("no JSON: {error}"))?;
    let object = json.as_object().ok_or("expected a JSON object")?;
    let bytes = |value: Option<&Value>| match value {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone().into_bytes()),
        Some(other) => Some(other.to_string().into_bytes()), // A document as the value.
    };
    let headers = match object.get("headers") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(pairs)) => pairs
            .iter()
            .map(|pair| {
                let name = pair.get("name").and_then(Value::as_str);
                let name = name.ok_or("a header has no name")?;
                Ok((name.to_owned(), bytes(pair.get("value"))))
            })
            .collect::<Result<_, String>>()?,
        Some(_) => return Err("headers must be an array of {\"name\", \"value\"}".to_owned()),
    };
    let partition = object.get("partition").and_then(Value::as_i64);
    let partition = partition.map(|p| i32::try_from(p).map_err(|_| format!("no partition: {p}")));
    let record = Outgoing {
        key: bytes(object.get("key")),
        value: bytes(object.get("value")),
        headers,
        timestamp: object.get("timestamp").and_then(Value::as_i64).unwrap_or(now),
    };
    Ok((partition.transpose()?, record))
}

fn find(line: &[u8], separator: &[u8]) -> Option<usize> {
    if separator.is_empty() {
        return None;
    }
    line.windows(separator.len()).position(|window| window == separator)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Reads a codec's name.
pub fn codec(text: &str) -> Result<Codec, String> {
    Codec::ALL.into_iter().find(|codec| codec.name() == text).ok_or_else(|| {
        let names: Vec<_> = Codec::ALL.iter().map(|codec| codec.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Where Kafka's clients put a record with this key: murmur2 of it, without its sign.
fn partition_of(key: &[u8], partitions: usize) -> i32 {
    ((murmur2(key) & 0x7fff_ffff) as usize % partitions) as i32
}

/// Kafka's murmur2: 32 bits, seed 0x9747b28c.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (chunks, rest) = data.as_chunks::<4>();
    for chunk in chunks {
        let mut word = u32::from_le_bytes(*chunk).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// From Kafka's `UtilsTest.testMurmur2`.
    #[test]
    fn keys_go_where_kafkas_clients_put_them() {
        for (key, want) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, want, "{key}");
        }
    }

    fn parse(options: &[&str], line: &str) -> Result<(Option<i32>, Outgoing), String> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            produce: Produce,
        }
        let options = ["produce", "t"].iter().chain(options);
        Line::try_parse_from(options).unwrap().produce.record(line.as_bytes())
    }

    #[test]
    fn lines_become_records() {
        let plain = parse(&[], "k:v").unwrap().1;
        assert_eq!((plain.key, plain.value), (None, Some(b"k:v".to_vec())));
        let keyed = parse(&["-K", ":", "-H", "h=1"], "k:v:w").unwrap().1;
        assert_eq!((keyed.key, keyed.value), (Some(b"k".to_vec()), Some(b"v:w".to_vec())));
        assert_eq!(keyed.headers, [("h".to_owned(), Some(b"1".to_vec()))]);
        assert!(parse(&["-K", ":"], "none").is_err());
        let tombstone = parse(&["-K", ":", "--null-value", "-"], "k:-").unwrap().1;
        assert_eq!(tombstone.value, None);
    }

    #[test]
    fn json_lines_become_records() {
        let line = r#"{"key":"k","value":{"a":1},"headers":[{"name":"h","value":null}],"partition":2,"timestamp":7}"#;
        let (partition, record) = parse(&["-f", "json"], line).unwrap();
        let want = Outgoing {
            key: Some(b"k".to_vec()),
            value: Some(br#"{"a":1}"#.to_vec()),
            headers: vec![("h".to_owned(), None)],
            timestamp: 7,
        };
        assert_eq!((partition, record), (Some(2), want));
        for bad in ["", "[]", r#"{"headers":{}}"#, r#"{"partition":99999999999}"#] {
            assert!(parse(&["-f", "json"], bad).is_err(), "{bad}");
        }
    }
}
