//! The journal of a log directory: batches that are acknowledged before their segments are flushed.
//!
//! Separate because the writer and the recovery must agree on it. A frame is what one write brings: a
//! head, the heads of its entries, and somewhere behind them the bytes of each: a piece of one segment's
//! file, byte for byte. So to redo a frame is to put bytes where they belong; to do it twice changes
//! nothing.
//!
//! A journal's file is used again and again. Invariant: no frame of an earlier use passes for one of
//! this: each use draws a generation, and a frame tells it, its number in the file, and a checksum
//! over all of itself.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use flowstone_types::{Offset, Uuid};

/// What a frame begins with: name and version of the format.
const MAGIC: [u8; 8] = *b"FSJRNL\0\x01";
/// Bytes of a frame's head: magic, checksum, length, generation, number, count of entries.
pub const FRAME_HEAD_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4;
/// Bytes of an entry's head: topic id, partition, segment, position, where in the frame its bytes are, how
/// many, and the length of the topic's name, which follows.
const ENTRY_HEAD_BYTES: usize = 16 + 4 + 8 + 8 + 4 + 4 + 2;
/// Largest frame: what claims more is none.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// Where the checksum stands; it covers what follows it.
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

    /// Writes the head of an entry whose bytes stand in the frame at `bytes`.
    pub fn write_head(&self, bytes: core::ops::Range<usize>, mut put: impl FnMut(&[u8])) {
        let number = |number: usize| u32::try_from(number).expect("below FRAME_BYTES_MAX");
        put(&self.topic_id.to_bytes());
        put(&self.index.to_be_bytes());
        put(&self.segment.0.to_be_bytes());
        put(&self.position.to_be_bytes());
        put(&number(bytes.start).to_be_bytes());
        put(&number(bytes.len()).to_be_bytes());
        put(&u16::try_from(self.topic.len()).expect("a topic's name is short").to_be_bytes());
        put(self.topic.as_bytes());
    }
}

/// Fills in the head of a frame: `frame` is its first part, with [`FRAME_HEAD_BYTES`] of room in front of the
/// entries' heads, and `rest` are the parts that follow.
pub fn seal_frame<'a>(
    frame: &mut [u8],
    rest: impl Iterator<Item = &'a [u8]> + Clone,
    generation: u64,
    number: u64,
    entries: u32,
) {
    let len = frame.len() + rest.clone().map(<[u8]>::len).sum::<usize>();
    assert!(len <= FRAME_BYTES_MAX);
    let len = u32::try_from(len).expect("checked above");
    frame[..8].copy_from_slice(&MAGIC);
    frame[12..16].copy_from_slice(&len.to_be_bytes());
    frame[16..24].copy_from_slice(&generation.to_be_bytes());
    frame[24..32].copy_from_slice(&number.to_be_bytes());
    frame[32..36].copy_from_slice(&entries.to_be_bytes());
    let checksum = checksum(&frame[COVERED_FROM..], rest);
    frame[CHECKSUM_AT..COVERED_FROM].copy_from_slice(&checksum.to_be_bytes());
}

fn checksum<'a>(first: &[u8], rest: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    rest.for_each(|part| digest.update(part));
    u32::try_from(digest.finalize()).expect("32 bits")
}

/// How long the frame is that begins with these bytes; `None` where none begins.
pub fn frame_len(head: &[u8]) -> Option<usize> {
    if head.len() < FRAME_HEAD_BYTES || head[..8] != MAGIC {
        return None;
    }
    let len = u32::from_be_bytes(*head[12..].first_chunk()?) as usize;
    (FRAME_HEAD_BYTES..=FRAME_BYTES_MAX).contains(&len).then_some(len)
}

/// A frame that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Which use of the file it belongs to.
    pub generation: u64,
    /// Its number in that use, from 0.
    pub number: u64,
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
    pub bytes: core::ops::Range<usize>,
}

impl Frame {
    /// Reads a whole frame; `None` where it is torn, or none.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let len = frame_len(frame)?;
        let frame = frame.get(..len)?;
        let expected = u32::from_be_bytes(*frame[CHECKSUM_AT..].first_chunk()?);
        if checksum(&frame[COVERED_FROM..], core::iter::empty()) != expected {
            return None;
        }
        let generation = u64::from_be_bytes(*frame[16..].first_chunk()?);
        let number = u64::from_be_bytes(*frame[24..].first_chunk()?);
        let count = u32::from_be_bytes(*frame[32..].first_chunk()?) as usize;
        let (mut entries, mut at) = (Vec::new(), FRAME_HEAD_BYTES);
        for _ in 0..count {
            entries.push(entry(frame, &mut at)?);
        }
        Some(Self { generation, number, entries })
    }
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
    Some(Entry { topic_id, topic, index, segment, position, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn frame(generation: u64, number: u64) -> Vec<u8> {
        let place = |index| {
            let (topic_id, segment) = (Uuid::METADATA_TOPIC, Offset(40));
            Place { topic_id, topic: "orders", index, segment, position: 4096 }
        };
        let mut frame = vec![0; FRAME_HEAD_BYTES];
        let heads = FRAME_HEAD_BYTES + 2 * place(0).head_bytes();
        place(0).write_head(heads..heads + 5, |part| frame.extend_from_slice(part));
        place(7).write_head(heads + 5..heads + 11, |part| frame.extend_from_slice(part));
        assert_eq!(frame.len(), heads);
        frame.extend_from_slice(b"first");
        seal_frame(&mut frame, [&b"sec"[..], b"ond"].into_iter(), generation, number, 2);
        frame.extend_from_slice(b"second");
        frame
    }

    #[test]
    fn a_frame_tells_what_belongs_where() {
        let mut bytes = frame(9, 3);
        let len = bytes.len();
        bytes.resize(4096, 0); // As it stands in the file: up to a page.
        assert_eq!(frame_len(&bytes), Some(len));
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!((frame.generation, frame.number, frame.entries.len()), (9, 3, 2));
        let second = &frame.entries[1];
        assert_eq!((second.topic.as_str(), second.index), ("orders", 7));
        assert_eq!((second.segment, second.position), (Offset(40), 4096));
        assert_eq!(&bytes[second.bytes.clone()], b"second");
    }

    #[test]
    fn a_torn_frame_is_none_wherever_it_is_torn() {
        let whole = frame(9, 3);
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert_eq!(Frame::parse(&torn), None, "a bit of byte {at} was turned");
            assert_eq!(Frame::parse(&whole[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_length_of_nonsense_is_no_length() {
        let mut bytes = frame(0, 0);
        bytes[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(frame_len(&bytes), None);
        assert_eq!(frame_len(&[0; 4096]), None);
        assert_eq!(frame_len(&bytes[..20]), None);
    }
}
