//! Frames of the first version of the format, which a process of an earlier build may have left: one checksum over all
//! of a frame, and nothing that tells which append it is of. They are read, never written.

use alloc::string::ToString;
use alloc::vec::Vec;
use flowstone_types::{Offset, Uuid};

use super::{Entry, Frame, Stamp, checksum};

pub(super) const MAGIC: [u8; 8] = *b"FSJRNL\0\x01";
/// Magic, checksum, length, generation, number, count of entries.
pub(super) const FRAME_HEAD_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4;
/// Topic id, partition, segment, position, where the bytes are, how many, and the length of the topic's name.
const ENTRY_HEAD_BYTES: usize = 16 + 4 + 8 + 8 + 4 + 4 + 2;

/// Reads a whole frame; `None` where it is torn.
pub(super) fn parse(frame: &[u8]) -> Option<Frame> {
    let expected = u32::from_be_bytes(*frame.get(8..)?.first_chunk()?);
    if checksum(&frame[12..]) != expected {
        return None;
    }
    let generation = u64::from_be_bytes(*frame[16..].first_chunk()?);
    let number = u64::from_be_bytes(*frame[24..].first_chunk()?);
    let count = u32::from_be_bytes(*frame[32..].first_chunk()?) as usize;
    let (mut entries, mut at) = (Vec::new(), FRAME_HEAD_BYTES);
    for _ in 0..count {
        entries.push(entry(frame, &mut at)?);
    }
    let stamp = Stamp { generation, number, settled: 0 };
    Some(Frame { stamp, len: frame.len(), entries })
}

fn entry(frame: &[u8], at: &mut usize) -> Option<Entry> {
    let head = frame.get(*at..*at + ENTRY_HEAD_BYTES)?;
    let topic_id = Uuid::from_bytes(*head.first_chunk()?);
    let index = i32::from_be_bytes(*head[16..].first_chunk()?);
    let segment = Offset(i64::from_be_bytes(*head[20..].first_chunk()?));
    let position = u64::from_be_bytes(*head[28..].first_chunk()?);
    let start = u32::from_be_bytes(*head[36..].first_chunk()?) as usize;
    let len = u32::from_be_bytes(*head[40..].first_chunk()?) as usize;
    let name = u16::from_be_bytes(*head[44..].first_chunk()?) as usize;
    *at += ENTRY_HEAD_BYTES;
    let topic = core::str::from_utf8(frame.get(*at..*at + name)?).ok()?.to_string();
    *at += name;
    let bytes = start..start + len;
    frame.get(bytes.clone())?;
    Some(Entry { topic_id, topic, index, segment, position, bytes, is_whole: true, end: None })
}
