//! Records of the cluster's own topics in words: the metadata log's, and `__consumer_offsets`'.

use std::collections::BTreeMap;

use bytes::Bytes;
use clap::ValueEnum;
use flowstone_batch::{ControlType, EndTxnMarker, Record};
use flowstone_coordinators::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use flowstone_metadata::MetadataRecord;
use flowstone_metadata::format::METADATA_LOG_DIR;
use flowstone_schema::Message;
use serde_json::{Value, json};

use super::debug::to_json;
use crate::client::{assigned, subscribed};

/// How records are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Decoder {
    /// Key and value as text
    Text,
    /// Records of the metadata log
    Metadata,
    /// Committed offsets and groups
    Offsets,
}

impl Decoder {
    /// By the name of the partition's directory.
    pub fn of_directory(name: &str) -> Self {
        match flowstone_log::names::parse_partition_dir(name) {
            _ if name == METADATA_LOG_DIR => Self::Metadata,
            Some(("__consumer_offsets", _)) => Self::Offsets,
            _ => Self::Text,
        }
    }

    /// What a record of a data batch says.
    pub fn data(self, record: &Record) -> Result<Value, String> {
        let mut told = match self {
            Self::Text => {
                json!({ "key": text(record.key.as_ref()), "value": text(record.value.as_ref()) })
            }
            Self::Metadata => metadata(record.value.as_deref().unwrap_or_default())?,
            Self::Offsets => offsets(record)?,
        };
        if !record.headers.is_empty() {
            let header = |(name, value): (&[u8], Option<&[u8]>)| json!({ "name": escaped(name), "value": value.map(escaped) });
            told["headers"] = record.headers.iter().map(header).collect();
        }
        Ok(told)
    }
}

/// A metadata record's value.
pub fn metadata(value: &[u8]) -> Result<Value, String> {
    let (record, version) = MetadataRecord::decode(value).map_err(|error| error.to_string())?;
    Ok(json!({ "type": record.name(), "version": version, "fields": to_json(&record) }))
}

fn offsets(record: &Record) -> Result<Value, String> {
    let key = record.key.as_deref().unwrap_or_default();
    let (kind, key) = numbered(key).ok_or("a key without a type")?;
    let read = |error: flowstone_schema::DecodeError| error.to_string();
    let (name, key, value) = match kind {
        0 | OffsetCommitKey::KEY => {
            let key = to_json(&OffsetCommitKey::decode(0, key).map_err(read)?);
            ("OffsetCommit", key, versioned::<OffsetCommitValue>(record.value.as_ref())?)
        }
        GroupMetadataKey::KEY => {
            let key = to_json(&GroupMetadataKey::decode(0, key).map_err(read)?);
            ("GroupMetadata", key, group(record.value.as_ref())?)
        }
        other => {
            let (key, value) = (text(record.key.as_ref()), text(record.value.as_ref()));
            return Ok(json!({ "type": format!("type {other}"), "key": key, "value": value }));
        }
    };
    Ok(json!({ "type": name, "key": key, "value": value }))
}

/// A group's generation, with what consumers tell each other in words.
fn group(value: Option<&Bytes>) -> Result<Value, String> {
    let mut told = versioned::<GroupMetadataValue>(value)?;
    let Some((version, body)) = value.and_then(|value| numbered(value)) else { return Ok(told) };
    let group = GroupMetadataValue::decode(version, body).map_err(|error| error.to_string())?;
    if group.protocol_type == "consumer" {
        for (member, told) in
            group.members.iter().zip(told["members"].as_array_mut().into_iter().flatten())
        {
            if let Some(topics) = subscribed(&member.subscription) {
                told["subscription"] = json!(topics);
            }
            if let Some(partitions) = assigned(&member.assignment) {
                let partitions = partitions.into_iter().collect::<BTreeMap<_, _>>();
                told["assignment"] = json!(partitions);
            }
        }
    }
    Ok(told)
}

/// A value behind its version; null for a tombstone.
fn versioned<M: Message + std::fmt::Debug>(value: Option<&Bytes>) -> Result<Value, String> {
    let Some(value) = value else { return Ok(Value::Null) };
    let (version, body) = numbered(value).ok_or("a value without a version")?;
    Ok(to_json(&M::decode(version, body).map_err(|error| error.to_string())?))
}

/// What a control record says.
pub fn control(record: &Record, of_quorum: Option<&dyn std::fmt::Debug>) -> Result<Value, String> {
    let kind = ControlType::of(record).map_err(|error| error.to_string())?;
    let Some(kind) = kind else { return Ok(json!({ "type": "unknown control record" })) };
    let name = format!("{kind:?}");
    match kind {
        ControlType::Abort | ControlType::Commit => {
            let marker = EndTxnMarker::parse(record.value.as_deref().unwrap_or_default());
            let epoch = marker.map_err(|error| error.to_string())?.coordinator_epoch;
            Ok(json!({ "type": name, "fields": { "coordinator_epoch": epoch } }))
        }
        _ => Ok(json!({ "type": name, "fields": of_quorum.map(|record| to_json(&record)) })),
    }
}

fn numbered(bytes: &[u8]) -> Option<(i16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((i16::from_be_bytes(*number), rest))
}

fn text(bytes: Option<&Bytes>) -> Option<String> {
    bytes.map(|bytes| escaped(bytes))
}

/// UTF-8 as it is, other bytes escaped.
fn escaped(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned)
}
