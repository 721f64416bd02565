//! The journal of a log directory: batches that are acknowledged before their segments are flushed.
//!
//! Separate because the writer and the recovery must agree on it. A frame is a head, the heads of its
//! entries, and somewhere behind them the bytes of each: a piece of one segment's file, byte for byte. So
//! to redo a frame is to put bytes where they belong; to do it twice changes nothing.
//!
//! A journal's file is used again and again. Invariants: no frame of an earlier use passes for one of
//! this: each use draws a generation, and a frame tells it, its number in the file, and a checksum over
//! its heads, which have one over the bytes of each entry. A use begins with a frame of its own that brings
//! nothing, on stable storage before another follows. A frame tells how many of its generation were on
//! stable storage before its append began: those must be there, and what is not is damage (see [`Walk`]).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use flowstone_types::{Offset, Uuid};

mod first;
#[cfg(test)]
mod tests;
mod walk;

pub use walk::{Contents, Next, Walk};

/// What a frame begins with: name and version of the format.
const MAGIC: [u8; 8] = *b"FSJRNL\0\x02";
/// Bytes of a frame's head: magic, checksum, length of the frame, length of all its heads, generation, number,
/// frames before the append, count of entries.
pub const FRAME_HEAD_BYTES: usize = 8 + 4 + 4 + 4 + 8 + 8 + 8 + 4;
/// Bytes of an entry's head: topic id, partition, segment, position, where in the frame its bytes are, how
/// many, their checksum, the offset behind them, and the length of the topic's name, which follows.
const ENTRY_HEAD_BYTES: usize = 16 + 4 + 8 + 8 + 4 + 4 + 4 + 8 + 2;
/// Largest frame: what claims more is none.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// A frame begins at a multiple of that many bytes in its file.
pub const FRAME_ALIGN_BYTES: usize = 4096;

/// Where the checksum stands; it covers what follows it, up to the end of the heads.
const CHECKSUM_AT: usize = 8;
const COVERED_FROM: usize = CHECKSUM_AT + 4;

/// Where bytes belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The topic.
    pub topic_id: Uuid,
    /// Its name, which names the partition's directory.
    pub topic: &'a str,
    /// The partition.
    pub index: i32,
    /// The base offset of the segment.
    pub segment: Offset,
    /// The position in its file.
    pub position: u64,
}

impl Place<'_> {
    /// Bytes of the head of an entry of this place.
    pub fn head_bytes(&self) -> usize {
        ENTRY_HEAD_BYTES + self.topic.len()
    }

    /// Writes the head of an entry with this content.
    pub fn write_head(&self, content: &Content, mut put: impl FnMut(&[u8])) {
        let number = |number: usize| u32::try_from(number).expect("below FRAME_BYTES_MAX");
        put(&self.topic_id.to_bytes());
        put(&self.index.to_be_bytes());
        put(&self.segment.0.to_be_bytes());
        put(&self.position.to_be_bytes());
        put(&number(content.bytes.start).to_be_bytes());
        put(&number(content.bytes.len()).to_be_bytes());
        put(&content.checksum.to_be_bytes());
        put(&content.end.0.to_be_bytes());
        put(&u16::try_from(self.topic.len()).expect("a topic's name is short").to_be_bytes());
        put(self.topic.as_bytes());
    }
}

/// What an entry brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Where its bytes are in the frame.
    pub bytes: Range<usize>,
    /// Their [`checksum`].
    pub checksum: u32,
    /// The offset after the last of its batches.
    pub end: Offset,
}

/// Where a frame belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Which use of the file.
    pub generation: u64,
    /// Its number in that use, from 0.
    pub number: u64,
    /// How many frames of that use were on stable storage before the append began that it is of: the number of that
    /// append's first frame.
    pub settled: u64,
}

/// Fills in the head of a frame of `len` bytes: `heads` has [`FRAME_HEAD_BYTES`] of room in front of the heads of its
/// entries, of which there are so many.
pub fn seal_frame(heads: &mut [u8], len: usize, stamp: Stamp, entries: u32) {
    assert!(len <= FRAME_BYTES_MAX && heads.len() <= len);
    let number = |number: usize| u32::try_from(number).expect("checked above");
    heads[..8].copy_from_slice(&MAGIC);
    heads[12..16].copy_from_slice(&number(len).to_be_bytes());
    let heads_len = number(heads.len());
    heads[16..20].copy_from_slice(&heads_len.to_be_bytes());
    heads[20..28].copy_from_slice(&stamp.generation.to_be_bytes());
    heads[28..36].copy_from_slice(&stamp.number.to_be_bytes());
    heads[36..44].copy_from_slice(&stamp.settled.to_be_bytes());
    heads[44..48].copy_from_slice(&entries.to_be_bytes());
    let checksum = checksum(&heads[COVERED_FROM..]);
    heads[CHECKSUM_AT..COVERED_FROM].copy_from_slice(&checksum.to_be_bytes());
}

/// The checksum of an entry's bytes, and of heads.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// How long the frame is that begins with these bytes; `None` where none begins.
pub fn frame_len(head: &[u8]) -> Option<usize> {
    if head.len() < FRAME_HEAD_BYTES || (head[..8] != MAGIC && head[..8] != first::MAGIC) {
        return None;
    }
    let len = u32::from_be_bytes(*head[12..].first_chunk()?) as usize;
    (first::FRAME_HEAD_BYTES..=FRAME_BYTES_MAX).contains(&len).then_some(len)
}

/// A frame that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it belongs.
    pub stamp: Stamp,
    /// Bytes of it.
    pub len: usize,
    /// What it brings.
    pub entries: Vec<Entry>,
}

/// A piece of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The topic.
    pub topic_id: Uuid,
    /// Its name.
    pub topic: String,
    /// The partition.
    pub index: i32,
    /// The base offset of the segment.
    pub segment: Offset,
    /// The position in its file.
    pub position: u64,
    /// Where its bytes are in the frame.
    pub bytes: Range<usize>,
    /// Whether they are there as they were written.
    pub is_whole: bool,
    /// The offset after the last of its batches, where the frame tells: the first version of the format does not.
    pub end: Option<Offset>,
}

impl Frame {
    /// Reads a frame; `None` where there is none, or its heads are torn.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let len = frame_len(frame)?;
        if frame[..8] == first::MAGIC {
            return first::parse(frame.get(..len)?);
        }
        let heads = u32::from_be_bytes(*frame[16..].first_chunk()?) as usize;
        if !(FRAME_HEAD_BYTES..=len).contains(&heads) {
            return None;
        }
        let expected = u32::from_be_bytes(*frame[CHECKSUM_AT..].first_chunk()?);
        if checksum(frame.get(COVERED_FROM..heads)?) != expected {
            return None;
        }
        let number = |at: usize| Some(u64::from_be_bytes(*frame[at..].first_chunk()?));
        let stamp = Stamp { generation: number(20)?, number: number(28)?, settled: number(36)? };
        let count = u32::from_be_bytes(*frame[44..].first_chunk()?) as usize;
        let (mut entries, mut at) = (Vec::new(), FRAME_HEAD_BYTES);
        for _ in 0..count {
            entries.push(entry(&frame[..heads], &mut at, frame, len)?);
        }
        (stamp.settled <= stamp.number).then_some(Self { stamp, len, entries })
    }

    /// Whether all that it brings is there as it was written.
    pub fn is_whole(&self) -> bool {
        self.entries.iter().all(|entry| entry.is_whole)
    }
}

fn entry(heads: &[u8], at: &mut usize, frame: &[u8], len: usize) -> Option<Entry> {
    let head = heads.get(*at..*at + ENTRY_HEAD_BYTES)?;
    let topic_id = Uuid::from_bytes(*head.first_chunk()?);
    let index = i32::from_be_bytes(*head[16..].first_chunk()?);
    let segment = Offset(i64::from_be_bytes(*head[20..].first_chunk()?));
    let position = u64::from_be_bytes(*head[28..].first_chunk()?);
    let from = u32::from_be_bytes(*head[36..].first_chunk()?) as usize;
    let bytes = from..from + u32::from_be_bytes(*head[40..].first_chunk()?) as usize;
    let expected = u32::from_be_bytes(*head[44..].first_chunk()?);
    let end = Some(Offset(i64::from_be_bytes(*head[48..].first_chunk()?)));
    let name = u16::from_be_bytes(*head[56..].first_chunk()?) as usize;
    *at += ENTRY_HEAD_BYTES;
    let topic = core::str::from_utf8(heads.get(*at..*at + name)?).ok()?.to_string();
    *at += name;
    if bytes.end > len {
        return None;
    }
    let is_whole = frame.get(bytes.clone()).is_some_and(|bytes| checksum(bytes) == expected);
    Some(Entry { topic_id, topic, index, segment, position, bytes, is_whole, end })
}
