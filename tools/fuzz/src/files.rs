//! The files of a log directory, each alone: segments, the journal, indexes, snapshots, checkpoints.

use std::ops::Range;

use flowstone_batch::{BatchHeader, HEADER_LEN, batches, crc_ok};
use flowstone_log::journal::{
    Content, FRAME_HEAD_BYTES, Frame, Place, checksum, frame_len, seal_frame,
};
use flowstone_log::{
    Active, CutEnd, End, Epochs, MetaProperties, OffsetIndex, ProducerState, Scanner, Step,
    TimeIndex, Wanted, cut, decode_clean_shutdown, decode_offsets, decode_partition_metadata,
    encode_clean_shutdown, encode_offsets, encode_partition_metadata, names, recovery,
};
use flowstone_raft::{QuorumState, SnapshotId};
use flowstone_types::{Offset, Timestamp};

use crate::bytes_in::{Input, crc32c, with_right_crcs};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const INDEX_INTERVAL_BYTES: u32 = 100;
const INDEX_BASES: [Offset; 4] =
    [Offset(0), Offset(5), Offset(1 << 40), Offset(i64::MAX - i32::MAX as i64)];

/// The first byte chooses the segment's base, whether checksums are made right, and how the file is read. What a
/// scan finds are whole batches with right checksums, in order; the same however it is read; and a scan of what it
/// leaves finds the same and ends well.
pub(crate) fn segment(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let base = Offset([0, 100, i64::MAX - 1000, 0][usize::from(how & 3)]);
    let file = match how & 4 {
        0 => with_right_crcs(input.0, false),
        _ => input.0.to_vec().into(),
    };
    let (found, end, good) = scan(&file, base, 1 << (how >> 4));
    assert!(good <= file.len());
    assert_eq!(scan(&file, base, usize::MAX), (found.clone(), end, good), "read at once");
    let (again, end, good_again) = scan(&file[..good], base, 64);
    assert_eq!((&again, good_again), (&found, good), "recovered twice");
    assert_eq!(end, End::Clean, "of what is left");

    let (mut active, mut at) = (Active::new(base, NOW), 0);
    let (mut epochs, mut producers) = (Epochs::default(), ProducerState::new());
    for header in &found {
        let batch = &file[at..at + header.total_len()];
        assert!(crc_ok(batch));
        active.push(header, INDEX_INTERVAL_BYTES);
        if epochs.latest().is_none_or(|latest| header.leader_epoch > latest) {
            epochs.assign(header.leader_epoch, header.base_offset);
        }
        producers.apply(header, header.base_offset, NOW);
        at += batch.len();
    }
    assert_eq!((at, active.bytes), (good, good as u64));
    let index = OffsetIndex::decode(base, &active.index.encode(), active.bytes);
    assert_eq!(index, Ok(active.index.clone()), "an index of ours is read again");
    assert_eq!(TimeIndex::decode(base, &active.times.encode()), Ok(active.times.clone()));
    let end = found.last().map_or(base, |last| last.last_offset().plus(1));
    let snapshot = producers.snapshot();
    let loaded = ProducerState::load(&snapshot, end, NOW).expect("a snapshot of ours is read");
    assert_eq!(loaded.snapshot(), snapshot);
    for header in &found {
        let from = active.index.floor(header.base_offset) as usize;
        let wanted =
            Wanted { from: header.base_offset, below: end, bytes_max: 1, at_least_one: true };
        served(&file[from..good], wanted, Some(&(base..end)));
    }
    // A reader may look at anything: before the end, behind it, or where nothing begins.
    let from = Offset(base.0.saturating_add(i64::from(how)));
    let wanted =
        Wanted { from, below: Offset(i64::MAX), bytes_max: 300, at_least_one: how & 8 == 0 };
    let all = base..Offset(i64::MAX);
    served(&file, wanted, (how & 4 == 0).then_some(&all));
}

/// What a reader is given are whole batches, right ones where that is asked.
fn served(window: &[u8], wanted: Wanted, segment: Option<&Range<Offset>>) {
    let cut = cut(window, wanted, segment);
    let bytes = &window[cut.range.clone()];
    let (mut count, mut next) = (0, segment.map(|segment| segment.start));
    for batch in batches(bytes) {
        let (_, header, batch) = batch.expect("whole batches are handed out");
        assert!(header.last_offset() >= wanted.from && header.last_offset() < wanted.below);
        assert!(segment.is_none() || crc_ok(batch));
        assert!(next.is_none_or(|next| header.base_offset >= next), "offsets ascend");
        next = next.map(|_| header.last_offset().plus(1));
        count += 1;
    }
    assert!(bytes.len() <= wanted.bytes_max || count == 1 && wanted.at_least_one);
    if let CutEnd::Window(needed) = cut.end {
        assert!(needed > window.len() - cut.range.end || needed == HEADER_LEN);
    }
}

/// Scans as recovery does: windows of at least `window` bytes. The batches, how it ends, and where.
fn scan(file: &[u8], base: Offset, window: usize) -> (Vec<BatchHeader>, End, usize) {
    let mut scanner = Scanner::new(base, 0, base, file.len() as u64, true);
    let (mut found, mut bytes) = (Vec::new(), window);
    loop {
        let at = scanner.position() as usize;
        let next = scanner.next();
        match scanner.step(&file[at..at.saturating_add(bytes).min(file.len())]) {
            Step::Batch(header) => {
                assert!(header.base_offset >= next && scanner.next() > header.base_offset);
                found.push(header);
                bytes = window;
            }
            Step::More(least) => {
                assert!(least > bytes, "it asks for no more than it has");
                assert!(least <= file.len() - at, "it asks for more than there is");
                bytes = least;
            }
            Step::End(end) => return (found, end, scanner.position() as usize),
        }
    }
}

/// The first byte chooses whether magic, length and checksum are made right. What a frame brings lies in it, and
/// the same pieces written again are read as the same.
pub(crate) fn journal(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let mut bytes = input.0.to_vec();
    if how & 1 == 0 && bytes.len() >= FRAME_HEAD_BYTES {
        bytes[..7].copy_from_slice(b"FSJRNL\0");
        bytes[7] = 1 + (how >> 1 & 1);
        let length = bytes.len() as u32;
        bytes[12..16].copy_from_slice(&length.to_be_bytes());
        let heads = match bytes[7] {
            1 => bytes.len(),
            _ => (u32::from_be_bytes(bytes[16..20].try_into().unwrap()) as usize)
                .clamp(20, bytes.len()),
        };
        let checksum = crc32c(&bytes[12..heads]);
        bytes[8..12].copy_from_slice(&checksum.to_be_bytes());
    }
    let length = frame_len(&bytes);
    let Some(frame) = Frame::parse(&bytes) else { return };
    let length = length.expect("what parses has a length");
    assert!(frame.entries.iter().all(|entry| entry.bytes.end <= length));
    fn place(entry: &flowstone_log::journal::Entry) -> Place<'_> {
        let (topic_id, topic) = (entry.topic_id, entry.topic.as_str());
        let (index, segment, position) = (entry.index, entry.segment, entry.position);
        Place { topic_id, topic, index, segment, position }
    }
    assert_eq!(frame.len, length);
    if frame.entries.iter().any(|entry| entry.end.is_none()) {
        return assert!(frame.is_whole()); // The first version: it is not written any more.
    }
    let mut written = vec![0; FRAME_HEAD_BYTES];
    for entry in &frame.entries {
        // Where the bytes stand is kept: only the heads are written again.
        let there = bytes.get(entry.bytes.clone()).map(checksum);
        let checksum = there.filter(|_| entry.is_whole).unwrap_or(!there.unwrap_or(0));
        let end = entry.end.expect("looked for above");
        let content = Content { bytes: entry.bytes.clone(), checksum, end };
        place(entry).write_head(&content, |part| written.extend_from_slice(part));
    }
    let heads = written.len();
    if heads > length {
        return; // Entries that share their names' bytes with others.
    }
    seal_frame(&mut written, length, frame.stamp, frame.entries.len() as u32);
    written.extend_from_slice(bytes.get(heads..).unwrap_or_default());
    assert_eq!(Frame::parse(&written), Some(frame));
}

/// The first two bytes choose the base and the length of the log. An index that is read is written as the bytes that
/// are not zeros at the end, and never points outside.
pub(crate) fn index(data: &[u8]) {
    let mut input = Input(data);
    let base = *input.one_of(&INDEX_BASES);
    let log_bytes = *input.one_of(&[0u64, 1, 4096, 1 << 30, 1 << 31]);
    if let Ok(index) = OffsetIndex::decode(base, input.0, log_bytes) {
        let written = index.encode();
        assert!(input.0.starts_with(&written));
        assert_eq!(OffsetIndex::decode(base, &written, log_bytes), Ok(index.clone()));
        assert!(index.is_empty() || u64::from(index.last_position()) < log_bytes);
        for ahead in [0, 1, 1000, i64::from(i32::MAX)] {
            let position = u64::from(index.floor(Offset(base.0 + ahead)));
            assert!(position == 0 || position < log_bytes);
        }
    }
    if let Ok(index) = TimeIndex::decode(base, input.0) {
        let written = index.encode();
        assert!(input.0.starts_with(&written));
        assert_eq!(TimeIndex::decode(base, &written), Ok(index.clone()));
        for time in [i64::MIN, -1, 0, NOW.0, i64::MAX] {
            assert!(index.floor(Timestamp(time)) >= base);
        }
    }
}

/// The first byte chooses whether the checksum is made right. A snapshot that is read is written again, and read as
/// the same; what follows it in the log is taken in.
pub(crate) fn producers(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let mut bytes = input.0.to_vec();
    if how & 1 == 0 && bytes.len() > 6 {
        let checksum = crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&checksum.to_be_bytes());
    }
    let at = Offset(1000);
    let Ok(mut state) = ProducerState::load(&bytes, at, NOW) else { return };
    let written = state.snapshot();
    let again = ProducerState::load(&written, at, NOW).expect("a snapshot of ours is read");
    assert_eq!(again.snapshot(), written);
    assert_eq!(again.len(), state.len());
    assert_eq!(state.active().count(), state.len());
    let _ = state.truncate(Offset(10));
    state.expire(Timestamp(i64::MAX), 1);
    assert!(state.is_empty(), "all of them are old by then");
}

/// The first byte chooses which of the small files it is. What is read is written, and read as the same.
pub(crate) fn checkpoint(data: &[u8]) {
    let mut input = Input(data);
    let which = input.byte();
    let text = &*String::from_utf8_lossy(input.0);
    match which % 8 {
        0 => {
            let Ok(offsets) = decode_offsets(text) else { return };
            assert_eq!(decode_offsets(&encode_offsets(&offsets)), Ok(offsets));
        }
        1 => {
            let Ok(mut epochs) = Epochs::decode(text) else { return };
            epochs.mark_dirty();
            let written = epochs.take_dirty().expect("it is dirty");
            assert_eq!(Epochs::decode(&written), Ok(epochs.clone()));
            epochs.truncate_from_end(Offset(50));
            epochs.truncate_from_start(Offset(5));
        }
        2 => {
            let Ok(properties) = MetaProperties::decode(text) else { return };
            assert_eq!(MetaProperties::decode(&properties.encode()), Ok(properties));
        }
        3 => {
            let Ok(id) = decode_partition_metadata(text) else { return };
            assert_eq!(decode_partition_metadata(&encode_partition_metadata(id)), Ok(id));
        }
        4 => {
            let Some(epoch) = decode_clean_shutdown(text) else { return };
            assert_eq!(decode_clean_shutdown(&encode_clean_shutdown(epoch)), Some(epoch));
        }
        5 => {
            let Ok(Some(state)) = QuorumState::parse(text) else { return };
            assert_eq!(QuorumState::parse(&state.to_text(1, &[])), Ok(Some(state)));
        }
        6 => {
            if let Some((topic, index)) = names::parse_partition_dir(text) {
                assert_eq!(names::partition_dir(topic, index), text);
            }
            if let Some(id) = SnapshotId::from_file_name(text) {
                assert_eq!(id.to_string(), text);
            }
            if let names::Named::Segment(base, kind) = names::classify(text) {
                assert_eq!(names::segment_file(base, kind), text);
            }
        }
        _ => {
            let found = |name: &str| recovery::Found {
                name: name.to_owned(),
                bytes: name.len() as u64 * 4,
                modified: NOW,
            };
            let files: Vec<_> = text.lines().map(found).collect();
            let plan = recovery::plan(&files, which & 8 == 0, Offset(i64::from(which)));
            assert!(plan.segments.is_sorted_by(|a, b| a.base < b.base));
            assert!(plan.remove.iter().all(|name| files.iter().any(|file| file.name == *name)));
        }
    }
}
