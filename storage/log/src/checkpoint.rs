//! The small text files of a log directory, in Kafka's formats.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use flowstone_types::{NodeId, Offset, Uuid};

/// A text file that is not what it should be; the reader falls back to something safe or refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorruptCheckpoint {
    /// Not the version we know (0 for checkpoints).
    #[error("unknown version")]
    Version,
    /// A line that does not parse.
    #[error("a line does not parse")]
    Line,
    /// More or fewer entries than the file says.
    #[error("not as many entries as announced")]
    Count,
    /// A property that must be there is missing or malformed.
    #[error("{0} is missing or malformed")]
    Property(&'static str),
}

/// Entries of a checkpoint file: a version line, a count line, then as many lines.
pub(crate) struct Lines<'a> {
    lines: core::str::Lines<'a>,
    left: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn open(text: &'a str) -> Result<Self, CorruptCheckpoint> {
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some("0") {
            return Err(CorruptCheckpoint::Version);
        }
        let left =
            lines.next().and_then(|n| n.trim().parse().ok()).ok_or(CorruptCheckpoint::Count)?;
        Ok(Self { lines, left })
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a str, CorruptCheckpoint>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next();
        match (line, self.left) {
            (None, 0) => None,
            (Some(line), 1..) => {
                self.left -= 1;
                Some(Ok(line))
            }
            (None, 1..) | (Some(_), 0) => {
                *self = Self { lines: "".lines(), left: 0 };
                Some(Err(CorruptCheckpoint::Count))
            }
        }
    }
}

/// One offset per partition of a log directory.
pub type Offsets = BTreeMap<(String, i32), Offset>;

/// The text of an offset checkpoint (`recovery-point-`, `log-start-`, `replication-offset-checkpoint`).
pub fn encode_offsets(offsets: &Offsets) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    text
}

/// Reads an offset checkpoint.
pub fn decode_offsets(text: &str) -> Result<Offsets, CorruptCheckpoint> {
    let mut offsets = Offsets::new();
    for line in Lines::open(text)? {
        let mut words = line?.split_ascii_whitespace();
        let (Some(topic), Some(partition), Some(offset), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(CorruptCheckpoint::Line);
        };
        let partition = partition.parse().map_err(|_| CorruptCheckpoint::Line)?;
        let offset: i64 = offset.parse().map_err(|_| CorruptCheckpoint::Line)?;
        offsets.insert((topic.to_owned(), partition), Offset(offset));
    }
    Ok(offsets)
}

/// The text of `partition.metadata`.
pub fn encode_partition_metadata(topic: Uuid) -> String {
    format!("version: 0\ntopic_id: {topic}")
}

/// The topic id in a `partition.metadata`.
pub fn decode_partition_metadata(text: &str) -> Result<Uuid, CorruptCheckpoint> {
    let mut fields = text.lines().filter_map(|line| line.split_once(": "));
    if fields.next() != Some(("version", "0")) {
        return Err(CorruptCheckpoint::Version);
    }
    match fields.next() {
        Some(("topic_id", id)) => {
            id.trim().parse().map_err(|_| CorruptCheckpoint::Property("topic_id"))
        }
        _ => Err(CorruptCheckpoint::Property("topic_id")),
    }
}

/// Who a log directory belongs to: `meta.properties`, version 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaProperties {
    /// The cluster's id.
    pub cluster_id: String,
    /// The node that formatted the directory.
    pub node_id: NodeId,
    /// The directory's own id (KIP-858); Kafka before 3.7 wrote none.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text = format!("cluster.id={}\n", self.cluster_id);
        if let Some(id) = self.directory_id {
            let _ = writeln!(text, "directory.id={id}");
        }
        let _ = write!(text, "node.id={}\nversion=1\n", self.node_id);
        text
    }

    /// Reads the file: Java's property format, of which ids need the escape `\` only.
    pub fn decode(text: &str) -> Result<Self, CorruptCheckpoint> {
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!'])) {
            if let Some((key, value)) = line.split_once('=') {
                known.insert(key.trim(), value.trim().replace('\\', ""));
            }
        }
        if known.get("version").map(String::as_str) != Some("1") {
            return Err(CorruptCheckpoint::Version);
        }
        let node = known.get("node.id").and_then(|id| id.parse().ok());
        let directory_id = match known.get("directory.id") {
            Some(id) => Some(id.parse().map_err(|_| CorruptCheckpoint::Property("directory.id"))?),
            None => None,
        };
        Ok(Self {
            cluster_id: known
                .remove("cluster.id")
                .ok_or(CorruptCheckpoint::Property("cluster.id"))?,
            node_id: NodeId(node.ok_or(CorruptCheckpoint::Property("node.id"))?),
            directory_id,
        })
    }
}

/// The text of `.kafka_cleanshutdown`; `broker_epoch` is -1 where there is none (KIP-966).
pub fn encode_clean_shutdown(broker_epoch: i64) -> String {
    format!(r#"{{"version":"0","broker_epoch":"{broker_epoch}"}}"#)
}

/// The broker epoch in a `.kafka_cleanshutdown`, where it can be read.
pub fn decode_clean_shutdown(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once(r#""broker_epoch""#)?;
    rest.split('"').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn offset_checkpoints_are_kafkas() {
        let mut offsets = Offsets::new();
        offsets.insert(("b".to_string(), 0), Offset(7));
        offsets.insert(("a".to_string(), 12), Offset(3));
        let text = encode_offsets(&offsets);
        assert_eq!(text, "0\n2\na 12 3\nb 0 7\n");
        assert_eq!(decode_offsets(&text), Ok(offsets));
        for bad in ["", "0\n", "0\n1\n", "0\n1\na 1\n", "0\n1\na 1 2 3\n", "0\n1\na 1 2\nb 1 2\n"] {
            assert!(decode_offsets(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn identities_are_kafkas() {
        let id = Uuid::METADATA_TOPIC;
        let text = encode_partition_metadata(id);
        assert_eq!(text, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(decode_partition_metadata(&text), Ok(id));
        assert!(decode_partition_metadata("version: 1\ntopic_id: x").is_err());

        let written_by_kafka = "#\n#Fri Nov 20 10:00:00 UTC 2026\ncluster.id=4L6g3nShT-eMCtK--X86sw\n\
                                directory.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\nversion=1\n";
        let meta = MetaProperties::decode(written_by_kafka).unwrap();
        assert_eq!((meta.cluster_id.as_str(), meta.node_id), ("4L6g3nShT-eMCtK--X86sw", NodeId(1)));
        assert_eq!(MetaProperties::decode(&meta.encode()), Ok(meta));
        assert!(MetaProperties::decode("version=0\nbroker.id=1\n").is_err());
    }

    #[test]
    fn the_clean_shutdown_marker_carries_the_broker_epoch() {
        assert_eq!(decode_clean_shutdown(&encode_clean_shutdown(42)), Some(42));
        assert_eq!(decode_clean_shutdown(r#"{"broker_epoch":"-1","version":"0"}"#), Some(-1));
        assert_eq!(decode_clean_shutdown(""), None);
    }
}
