//! A segment's two sparse indexes, in Kafka's formats.
//!
//! Built in memory while a segment is written and stored once, when it is sealed: no update in
//! place, so a crash can never leave half of one. Entries are big-endian and relative to the
//! segment's base offset. A file that Kafka preallocated ends in zero entries, which are no entries.

use alloc::vec::Vec;
use flowstone_types::{Offset, Timestamp};

/// An index file that cannot be the index of its segment: it must be built again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CorruptIndex {
    /// Not a whole number of entries.
    #[error("{0} bytes are no whole number of entries")]
    Length(usize),
    /// An entry that does not come after the one before it.
    #[error("entry {0} is out of order")]
    Order(usize),
    /// An entry that points outside of the segment.
    #[error("entry {0} points behind the segment's end")]
    Position(usize),
}

/// Offset of a batch's last record, relative to the segment's base, and the batch's position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    relative: u32,
    position: u32,
}

/// `.index`: from the last offset of a batch to where that batch starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetIndex {
    base: Offset,
    places: Vec<Place>,
}

impl OffsetIndex {
    /// Bytes of an entry: i32 relative offset, i32 position.
    pub const ENTRY_BYTES: usize = 8;

    /// An empty index of the segment at `base`.
    pub const fn new(base: Offset) -> Self {
        Self { base, places: Vec::new() }
    }

    /// Notes that the batch which ends with `last` starts at `position`.
    pub(crate) fn push(&mut self, last: Offset, position: u32) {
        let relative = (last.0 - self.base.0) as u32;
        assert!(self.places.last().is_none_or(|p| p.relative < relative && p.position < position));
        self.places.push(Place { relative, position });
    }

    /// Where to start looking for `offset`: the position of the last indexed batch that ends at or
    /// before it, or the segment's start.
    pub fn floor(&self, offset: Offset) -> u32 {
        let after =
            self.places.partition_point(|p| self.base.0 + i64::from(p.relative) <= offset.0);
        after.checked_sub(1).map_or(0, |at| self.places[at].position)
    }

    /// Position of the last indexed batch; 0 where none is.
    pub fn last_position(&self) -> u32 {
        self.places.last().map_or(0, |p| p.position)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.places.len() * Self::ENTRY_BYTES);
        for place in &self.places {
            bytes.extend_from_slice(&place.relative.to_be_bytes());
            bytes.extend_from_slice(&place.position.to_be_bytes());
        }
        bytes
    }

    /// Reads the file of the segment at `base`, whose batches fill `log_bytes`.
    pub fn decode(base: Offset, bytes: &[u8], log_bytes: u64) -> Result<Self, CorruptIndex> {
        let (entries, rest) = bytes.as_chunks::<{ Self::ENTRY_BYTES }>();
        if !rest.is_empty() {
            return Err(CorruptIndex::Length(bytes.len()));
        }
        let used = entries.iter().rposition(|entry| *entry != [0; 8]).map_or(0, |last| last + 1);
        let mut places: Vec<Place> = Vec::with_capacity(used);
        for (at, entry) in entries[..used].iter().enumerate() {
            let place = Place { relative: u32_at(entry, 0), position: u32_at(entry, 4) };
            if places
                .last()
                .is_some_and(|p| p.relative >= place.relative || p.position >= place.position)
            {
                return Err(CorruptIndex::Order(at));
            }
            if u64::from(place.position) >= log_bytes || place.relative > i32::MAX as u32 {
                return Err(CorruptIndex::Position(at));
            }
            places.push(place);
        }
        Ok(Self { base, places })
    }

    /// Bytes this index holds in memory.
    pub fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
    }
}

/// A timestamp and the last offset of the batch that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampOffset {
    /// The largest timestamp so far.
    pub timestamp: Timestamp,
    /// The last offset of the first batch with that timestamp.
    pub offset: Offset,
}

/// A timestamp and an offset relative to the segment's base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moment {
    timestamp: i64,
    relative: u32,
}

/// `.timeindex`: the largest timestamp so far, and the last offset of the batch that brought it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeIndex {
    base: Offset,
    moments: Vec<Moment>,
}

impl TimeIndex {
    /// Bytes of an entry: i64 timestamp, i32 relative offset.
    pub const ENTRY_BYTES: usize = 12;

    /// An empty index of the segment at `base`.
    pub const fn new(base: Offset) -> Self {
        Self { base, moments: Vec::new() }
    }

    /// Notes the largest timestamp so far, unless it is the one noted last. "No timestamp" (-1) is
    /// never noted.
    pub(crate) fn push(&mut self, largest: TimestampOffset) {
        if largest.timestamp.0 > self.moments.last().map_or(Timestamp::NONE.0, |m| m.timestamp) {
            let relative = (largest.offset.0 - self.base.0) as u32;
            self.moments.push(Moment { timestamp: largest.timestamp.0, relative });
        }
    }

    /// The segment's base offset.
    pub const fn base(&self) -> Offset {
        self.base
    }

    /// The largest timestamp, if any batch had one.
    pub fn last(&self) -> Option<TimestampOffset> {
        self.moments.last().map(|m| self.entry(*m))
    }

    /// An offset such that no record before it is as late as `timestamp`.
    pub fn floor(&self, timestamp: Timestamp) -> Offset {
        let after = self.moments.partition_point(|m| m.timestamp < timestamp.0);
        after.checked_sub(1).map_or(self.base, |at| self.entry(self.moments[at]).offset)
    }

    fn entry(&self, moment: Moment) -> TimestampOffset {
        TimestampOffset {
            timestamp: Timestamp(moment.timestamp),
            offset: self.base.plus(i64::from(moment.relative)),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.moments.len()
    }

    /// Whether there is no entry yet.
    pub fn is_empty(&self) -> bool {
        self.moments.is_empty()
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.moments.len() * Self::ENTRY_BYTES);
        for moment in &self.moments {
            bytes.extend_from_slice(&moment.timestamp.to_be_bytes());
            bytes.extend_from_slice(&moment.relative.to_be_bytes());
        }
        bytes
    }

    /// Reads the file of the segment at `base`.
    pub fn decode(base: Offset, bytes: &[u8]) -> Result<Self, CorruptIndex> {
        let (entries, rest) = bytes.as_chunks::<{ Self::ENTRY_BYTES }>();
        if !rest.is_empty() {
            return Err(CorruptIndex::Length(bytes.len()));
        }
        let used = entries.iter().rposition(|entry| *entry != [0; 12]).map_or(0, |last| last + 1);
        let mut moments: Vec<Moment> = Vec::with_capacity(used);
        for (at, entry) in entries[..used].iter().enumerate() {
            let timestamp = i64::from(u32_at(entry, 0)) << 32 | i64::from(u32_at(entry, 4));
            let moment = Moment { timestamp, relative: u32_at(entry, 8) };
            if moments
                .last()
                .is_some_and(|m| m.timestamp >= moment.timestamp || m.relative > moment.relative)
            {
                return Err(CorruptIndex::Order(at));
            }
            if moment.relative > i32::MAX as u32 {
                return Err(CorruptIndex::Position(at));
            }
            moments.push(moment);
        }
        Ok(Self { base, moments })
    }

    /// Bytes this index holds in memory.
    pub fn memory(&self) -> usize {
        self.moments.capacity() * size_of::<Moment>()
    }
}

fn u32_at(entry: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(core::array::from_fn(|byte| entry[at + byte]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Offset = Offset(100);

    fn sample() -> (OffsetIndex, TimeIndex) {
        let (mut index, mut times) = (OffsetIndex::new(BASE), TimeIndex::new(BASE));
        for step in 1..=10u32 {
            index.push(BASE.plus(i64::from(step) * 10), step * 5000);
            times.push(TimestampOffset {
                timestamp: Timestamp(1000 + i64::from(step)),
                offset: BASE.plus(i64::from(step) * 10),
            });
        }
        (index, times)
    }

    #[test]
    fn files_are_byte_exact() {
        let (index, times) = sample();
        assert_eq!(index.encode()[..8], [0, 0, 0, 10, 0, 0, 0x13, 0x88]);
        assert_eq!(times.encode()[..12], [0, 0, 0, 0, 0, 0, 3, 0xe9, 0, 0, 0, 10]);
        assert_eq!(OffsetIndex::decode(BASE, &index.encode(), 60_000), Ok(index));
        assert_eq!(TimeIndex::decode(BASE, &times.encode()), Ok(times));
    }

    #[test]
    fn a_preallocated_file_is_read_up_to_its_zeros() {
        let (index, times) = sample();
        let mut bytes = index.encode();
        bytes.resize(10 << 20, 0);
        assert_eq!(OffsetIndex::decode(BASE, &bytes, 60_000), Ok(index));
        let mut bytes = times.encode();
        bytes.resize(12 << 10, 0);
        assert_eq!(TimeIndex::decode(BASE, &bytes), Ok(times));
    }

    #[test]
    fn floors() {
        let (index, times) = sample();
        for (offset, position) in [(0, 0), (109, 0), (110, 5000), (119, 5000), (500, 50_000)] {
            assert_eq!(index.floor(Offset(offset)), position);
        }
        // A batch with exactly the wanted timestamp may start before the entry that names it.
        for (timestamp, offset) in [(0, 100), (1001, 100), (1002, 110), (9999, 200)] {
            assert_eq!(times.floor(Timestamp(timestamp)), Offset(offset));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let (index, times) = sample();
        assert_eq!(OffsetIndex::decode(BASE, &[0; 9], 1), Err(CorruptIndex::Length(9)));
        assert_eq!(
            OffsetIndex::decode(BASE, &index.encode(), 50_000),
            Err(CorruptIndex::Position(9))
        );
        for bit in 0..8 {
            let mut bytes = index.encode();
            bytes[40 + 3] ^= 1 << bit;
            // Either refused, or still in order: never a panic.
            let _ = OffsetIndex::decode(BASE, &bytes, 60_000);
        }
        let mut bytes = times.encode();
        bytes[0] = 1;
        assert_eq!(TimeIndex::decode(BASE, &bytes), Err(CorruptIndex::Order(1)));
    }
}
