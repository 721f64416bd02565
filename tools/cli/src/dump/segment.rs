//! `.log` files and metadata snapshots: batch by batch, so that a segment of any size takes little
//! memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use flowstone_batch::{BatchHeader, HEADER_LEN, Limits, crc_ok, records};
use flowstone_metadata::snapshot_file;
use flowstone_raft::control::{ControlRecord, read_control_batch};
use serde_json::{Value, json};

use super::Report;
use super::decode::{self, Decoder};
use crate::output::{bytes_text, time_text};

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

impl Report<'_> {
    /// A segment's batches.
    pub(super) fn segment(&mut self, path: &Path, decoder: Decoder) -> anyhow::Result<()> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        self.begin(path, "segment", &bytes_text(length as f64))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let mut position = 0;
        while position < length {
            let left = length - position;
            let mut batch = vec![0; HEADER_LEN.min(left as usize)];
            reader.read_exact(&mut batch)?;
            if batch.iter().all(|byte| *byte == 0) {
                let line = format!("position {position}: {left} bytes that were never written");
                self.tell(path, &line, json!({ "position": position, "unwritten_bytes": left }))?;
                break;
            }
            let header = match BatchHeader::parse(&batch) {
                Ok(header) if header.total_len() as u64 <= left => header,
                Ok(header) => {
                    let needed = header.total_len();
                    self.damage(path, &format!("position {position}: a batch of {needed} bytes, of which {left} are there"))?;
                    break;
                }
                Err(error) => {
                    self.damage(path, &format!("position {position}: {error}"))?;
                    break;
                }
            };
            batch.resize(header.total_len(), 0);
            reader.read_exact(&mut batch[HEADER_LEN..])?;
            self.batch(path, position, &header, &batch.into(), decoder)?;
            position += header.total_len() as u64;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        path: &Path,
        position: u64,
        header: &BatchHeader,
        batch: &Bytes,
        decoder: Decoder,
    ) -> anyhow::Result<()> {
        let sound = crc_ok(batch);
        let told =
            if self.options.records && sound { told(header, batch, decoder) } else { Ok(vec![]) };
        let mut object = describe(position, header);
        object["crc_ok"] = json!(sound);
        let line = in_words(position, header);
        match told {
            Ok(told) if self.options.json => {
                if self.options.records {
                    object["records"] = json!(told);
                }
                self.tell(path, "", object)?;
            }
            Ok(told) => {
                self.tell(path, &line, Value::Null)?;
                for record in told {
                    self.tell(path, &record_in_words(&record), Value::Null)?;
                }
            }
            Err(error) => {
                self.tell(path, &line, object)?;
                self.damage(path, &format!("offset {}: {error}", header.base_offset))?;
            }
        }
        if !sound {
            self.damage(
                path,
                &format!("offset {}: the batch has a wrong CRC", header.base_offset),
            )?;
        }
        Ok(())
    }

    /// A snapshot of the metadata: its batches, and whether it is whole.
    pub(super) fn metadata_snapshot(&mut self, path: &Path) -> anyhow::Result<()> {
        self.segment(path, Decoder::Metadata)?;
        let file = Bytes::from(std::fs::read(path)?);
        match snapshot_file::read_records(&file) {
            Ok((head, records)) => {
                let count = records.len();
                let line = format!("whole: {count} records, kraft.version {}", head.kraft_version);
                let object =
                    json!({ "whole": true, "records": count, "kraft_version": head.kraft_version });
                Ok(self.tell(path, &line, object)?)
            }
            Err(error) => Ok(self.damage(path, &error.to_string())?),
        }
    }
}

/// What the records of a batch say.
fn told(header: &BatchHeader, batch: &Bytes, decoder: Decoder) -> Result<Vec<Value>, String> {
    let control = header.attributes.is_control();
    let quorum: Vec<ControlRecord> = match (control, decoder) {
        (true, Decoder::Metadata) => {
            read_control_batch(batch).map_err(|error| error.to_string())?
        }
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for (at, record) in records(batch, &Limits::default()).map_err(|e| e.to_string())?.enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let mut object = if control {
            decode::control(&record, quorum.get(at).map(|record| record as _))?
        } else {
            decoder.data(&record).map_err(|error| format!("record {}: {error}", record.offset))?
        };
        object["offset"] = json!(record.offset.0);
        object["timestamp"] = json!(record.timestamp.0);
        all.push(object);
    }
    Ok(all)
}

fn describe(position: u64, header: &BatchHeader) -> Value {
    let attributes = header.attributes;
    json!({
        "position": position,
        "bytes": header.total_len(),
        "base_offset": header.base_offset.0,
        "last_offset": header.last_offset().0,
        "count": header.count,
        "leader_epoch": header.leader_epoch.0,
        "codec": attributes.codec().map_or("unknown", |codec| codec.name()),
        "timestamp_type": format!("{:?}", attributes.timestamp_type()),
        "base_timestamp": header.base_timestamp.0,
        "max_timestamp": header.max_timestamp.0,
        "producer_id": header.producer_id.0,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "last_sequence": header.last_sequence(),
        "transactional": attributes.is_transactional(),
        "control": attributes.is_control(),
        "delete_horizon": attributes.has_delete_horizon(),
        "crc": header.crc,
    })
}

fn in_words(position: u64, header: &BatchHeader) -> String {
    let (first, last) = (header.base_offset, header.last_offset());
    let mut parts = vec![
        format!("offsets {first}..{last}"),
        format!("{} records", header.count),
        format!("{} bytes at {position}", header.total_len()),
        format!("epoch {}", header.leader_epoch),
        time_text(header.max_timestamp.0).unwrap_or_else(|| "no time".to_owned()),
    ];
    match header.attributes.codec() {
        Ok(flowstone_batch::Codec::None) => {}
        Ok(codec) => parts.push(codec.name().to_owned()),
        Err(number) => parts.push(format!("unknown codec {number}")),
    }
    if header.has_producer() {
        let (id, epoch) = (header.producer_id.0, header.producer_epoch);
        let (first, last) = (header.base_sequence, header.last_sequence());
        parts.push(format!("producer {id}/{epoch} sequences {first}..{last}"));
    }
    if header.attributes.is_transactional() {
        parts.push("transactional".to_owned());
    }
    if header.attributes.is_control() {
        parts.push("control".to_owned());
    }
    parts.join("  ")
}

fn record_in_words(record: &Value) -> String {
    let offset = &record["offset"];
    let part = |name: &str| match &record[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let headers = if record["headers"].is_null() {
        String::new()
    } else {
        format!("  headers {}", record["headers"])
    };
    match (&record["type"], &record["fields"]) {
        (Value::Null, _) => format!("  {offset}  {} = {}{headers}", part("key"), part("value")),
        (_, Value::Null) => {
            format!("  {offset}  {} {} = {}", part("type"), part("key"), part("value"))
        }
        (_, fields) => format!("  {offset}  {} {fields}", part("type")),
    }
}
