//! `flowstone consume`: prints records, alone or as a member of a group.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use flowstone_batch::Record;
use serde_json::{Value, json};

use crate::Common;
use crate::client::{Cluster, Fetcher, Member, committed};
use crate::failure::Failure;
use crate::output::{parse_time, time_text};

const EXAMPLES: &str = "\
Examples:
  flowstone consume orders                          new records, until Ctrl-C
  flowstone consume orders --from beginning --exit  all there is, then end
  flowstone consume orders --from -10 -e            the last ten of each partition
  flowstone consume orders -p 3 --from 1200 -n 1    one record by its offset
  flowstone consume orders --from 2026-03-01T12:00Z
  flowstone consume orders --group billing          shares the topic with the group's members
  flowstone consume orders -f json | jq .value
  flowstone consume orders -K ' = '                 key = value";

/// Print records.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Consume {
    /// The topic
    topic: String,
    /// Read as a member of this group, from where it has committed, and commit what was printed
    #[arg(short, long, conflicts_with = "partition")]
    group: Option<String>,
    /// Where to begin: beginning, end, an offset, -N (N before the end), or a time. With --group: where
    /// the group has committed nothing
    #[arg(long, value_name = "WHERE", default_value = "end", value_parser = start, allow_hyphen_values = true)]
    from: Start,
    /// Only this partition; may be given several times
    #[arg(short, long)]
    partition: Vec<i32>,
    /// End after so many records
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// End where the topic ended at the start
    #[arg(short, long)]
    exit: bool,
    /// How records are printed
    #[arg(short, long, value_enum, default_value = "value")]
    format: Format,
    /// Print the key, this, and the value
    #[arg(short = 'K', long, value_name = "SEPARATOR")]
    key_separator: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// The value, and a newline
    Value,
    /// Partition, offset, time, key, value and headers, in words
    Full,
    /// A JSON object a line
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Beginning,
    End,
    Offset(i64),
    BeforeEnd(i64),
    Time(i64),
}

const FETCH_WAIT: Duration = Duration::from_millis(500);
const COMMIT_EVERY: Duration = Duration::from_secs(5); // Kafka's default.

impl Consume {
    /// Prints until it is stopped, or done.
    pub fn run(&self, common: &Common) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second one ends the process at once, in case that we hang.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let mut cluster = common.connect()?;
        let topic = cluster.topic(&self.topic)?;
        let mut member = match &self.group {
            Some(group) => Some(Member::join(&mut cluster, group, &self.topic)?),
            None => None,
        };
        let partitions = match (&member, self.partition.is_empty()) {
            (Some(member), _) => member.assigned.clone(),
            (None, true) => topic.indices(),
            (None, false) => self.partition.clone(),
        };
        let mut reading = self.begin(&mut cluster, &partitions)?;
        let result = self.read(common, &mut cluster, &mut reading, member.as_mut(), &stop);
        if let Some(mut member) = member {
            // What was printed is committed, also where reading failed.
            let committed = member.commit(&reading.printed);
            result.and(committed.map_err(Into::into)).and(Ok(member.leave()?))
        } else {
            result
        }
    }

    fn read(
        &self,
        common: &Common,
        cluster: &mut Cluster,
        reading: &mut Reading,
        mut member: Option<&mut Member>,
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut committed_at = Instant::now();
        while left > 0 && !stop.load(Ordering::Relaxed) && !(self.exit && reading.is_done()) {
            if let Some(member) = &mut member {
                if committed_at.elapsed() >= COMMIT_EVERY {
                    // A rebalance may be under way: then the next generation commits.
                    let _ = member.commit(&reading.printed);
                    committed_at = Instant::now();
                }
                if member.heartbeat()? {
                    let _ = member.commit(&reading.printed);
                    member.rejoin(cluster)?;
                    *reading = self.begin(cluster, &member.assigned)?;
                }
            }
            if reading.fetcher.positions.is_empty() {
                std::thread::sleep(FETCH_WAIT); // More members than partitions.
                continue;
            }
            let fetched = match reading.fetcher.poll(cluster, FETCH_WAIT.min(common.timeout / 2)) {
                Err(failure) if failure.may_pass() => {
                    eprintln!("flowstone: {failure}\nTrying again.");
                    std::thread::sleep(FETCH_WAIT);
                    continue;
                }
                other => other?,
            };
            for part in fetched {
                for record in &part.records {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    self.print(&mut out, common.json, part.partition, record)?;
                    reading.printed.insert(part.partition, record.offset.0 + 1);
                }
                if left > 0 {
                    // Behind batches without records to print, too.
                    reading
                        .printed
                        .insert(part.partition, reading.fetcher.positions[&part.partition]);
                }
            }
            out.flush()?;
        }
        Ok(())
    }

    /// Where to begin and to end in each partition.
    fn begin(&self, cluster: &mut Cluster, partitions: &[i32]) -> Result<Reading, Failure> {
        let ends = cluster.offsets(&self.topic, partitions, -1)?;
        let mut positions = match self.from {
            Start::End => ends.clone(),
            Start::Beginning => cluster.offsets(&self.topic, partitions, -2)?,
            Start::Offset(offset) => partitions.iter().map(|index| (*index, offset)).collect(),
            Start::BeforeEnd(count) => {
                let starts = cluster.offsets(&self.topic, partitions, -2)?;
                ends.iter().map(|(index, end)| (*index, (end - count).max(starts[index]))).collect()
            }
            Start::Time(ms) => {
                let mut found = cluster.offsets(&self.topic, partitions, ms)?;
                for (index, offset) in &mut found {
                    if *offset < 0 {
                        *offset = ends[index]; // Nothing is as late.
                    }
                }
                found
            }
        };
        if let Some(group) = &self.group {
            let all = committed(cluster, group)?;
            for (index, offset) in all.get(&self.topic).into_iter().flatten() {
                if let Some(position) = positions.get_mut(index) {
                    *position = *offset;
                }
            }
        }
        let fetcher = Fetcher { topic: self.topic.clone(), positions };
        Ok(Reading { fetcher, ends, printed: BTreeMap::new() })
    }

    fn print(
        &self,
        out: &mut impl Write,
        json: bool,
        partition: i32,
        record: &Record,
    ) -> io::Result<()> {
        match self.format {
            _ if json => writeln!(out, "{}", to_json(&self.topic, partition, record)),
            Format::Json => writeln!(out, "{}", to_json(&self.topic, partition, record)),
            Format::Full => writeln!(out, "{}", in_words(partition, record)),
            Format::Value => {
                if let Some(separator) = &self.key_separator {
                    out.write_all(record.key.as_deref().unwrap_or(b"null"))?;
                    out.write_all(separator.as_bytes())?;
                }
                out.write_all(record.value.as_deref().unwrap_or(b"null"))?;
                out.write_all(b"\n")
            }
        }
    }
}

/// How far it is.
struct Reading {
    fetcher: Fetcher,
    /// Where each partition ended when we began.
    ends: BTreeMap<i32, i64>,
    /// The next offset after what was printed.
    printed: BTreeMap<i32, i64>,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.fetcher.positions.iter().all(|(index, at)| *at >= self.ends[index])
    }
}

/// A record as `produce -f json` takes it. Bytes that are no UTF-8 go through lossily, and are told.
fn to_json(topic: &str, partition: i32, record: &Record) -> Value {
    fn text(bytes: Option<&[u8]>) -> Option<Cow<'_, str>> {
        bytes.map(String::from_utf8_lossy)
    }
    let headers = record.headers.iter().map(
        |(name, value)| json!({ "name": String::from_utf8_lossy(name), "value": text(value) }),
    );
    let fields = [record.key.as_deref(), record.value.as_deref()];
    let lossy = fields.into_iter().flatten().any(|bytes| std::str::from_utf8(bytes).is_err());
    let mut json = json!({
        "topic": topic,
        "partition": partition,
        "offset": record.offset.0,
        "timestamp": record.timestamp.0,
        "key": text(record.key.as_deref()),
        "value": text(record.value.as_deref()),
        "headers": headers.collect::<Vec<_>>(),
    });
    if lossy {
        json["lossy"] = json!(true);
    }
    json
}

fn in_words(partition: i32, record: &Record) -> String {
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or("null".to_owned(), |bytes| bytes.escape_ascii().to_string())
    };
    let mut parts = vec![
        partition.to_string(),
        record.offset.to_string(),
        time_text(record.timestamp.0).unwrap_or_else(|| "-".to_owned()),
        text(record.key.as_deref()),
        text(record.value.as_deref()),
    ];
    let header = |(name, value)| format!("{}={}", String::from_utf8_lossy(name), text(value));
    parts.extend(record.headers.iter().map(header));
    parts.join(" ")
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" | "earliest" | "start" => return Ok(Start::Beginning),
        "end" | "latest" => return Ok(Start::End),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(if number < 0 { Start::BeforeEnd(-number) } else { Start::Offset(number) });
    }
    parse_time(text).map(Start::Time).ok_or_else(|| {
        "expected beginning, end, an offset, -N, or a time such as 2026-03-01T12:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flowstone_batch::{BatchBuilder, Limits, records};
    use flowstone_types::{Offset, Timestamp};

    #[test]
    fn starts_are_read() {
        assert_eq!(start("beginning"), Ok(Start::Beginning));
        assert_eq!(start("12"), Ok(Start::Offset(12)));
        assert_eq!(start("-12"), Ok(Start::BeforeEnd(12)));
        assert_eq!(start("2026-03-01T12:00:00Z"), Ok(Start::Time(1_772_366_400_000)));
        assert!(start("soon").is_err());
    }

    #[test]
    fn records_are_printed_as_they_are() {
        let mut batch = BatchBuilder::new(Offset(41));
        batch.push(Timestamp(7), Some(b"k"), None, &[("h", Some(b"1"))]);
        batch.push(Timestamp(7), None, Some(b"\xff"), &[]);
        let batch: Bytes = batch.build();
        let all: Vec<_> =
            records(&batch, &Limits::default()).unwrap().map(Result::unwrap).collect();
        assert_eq!(in_words(3, &all[0]), "3 41 1970-01-01T00:00:00.007Z k null h=1");
        assert_eq!(in_words(3, &all[1]), "3 42 1970-01-01T00:00:00.007Z null \\xff");
        let json = to_json("t", 3, &all[0]);
        assert_eq!(json["headers"], json!([{ "name": "h", "value": "1" }]));
        assert_eq!((&json["key"], &json["value"]), (&json!("k"), &Value::Null));
        assert_eq!(to_json("t", 3, &all[1])["lossy"], json!(true));
    }
}
