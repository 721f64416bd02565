use super::*;
use alloc::vec;

fn place(index: i32) -> Place<'static> {
    let (topic_id, segment) = (Uuid::METADATA_TOPIC, Offset(40));
    Place { topic_id, topic: "orders", index, segment, position: 4096 }
}

/// A frame of two entries; where its heads end.
fn frame(generation: u64, number: u64, settled: u64) -> (Vec<u8>, usize) {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    let heads = FRAME_HEAD_BYTES + 2 * place(0).head_bytes();
    let texts = [(0, heads..heads + 5, "first"), (7, heads + 5..heads + 11, "second")];
    for (index, bytes, text) in texts {
        let content = Content { bytes, checksum: checksum(text.as_bytes()), end: Offset(60) };
        place(index).write_head(&content, |part| frame.extend_from_slice(part));
    }
    assert_eq!(frame.len(), heads);
    seal_frame(&mut frame, heads + 11, Stamp { generation, number, settled }, 2);
    frame.extend_from_slice(b"firstsecond");
    (frame, heads)
}

#[test]
fn a_frame_tells_what_belongs_where() {
    let mut bytes = frame(9, 3, 2).0;
    let len = bytes.len();
    bytes.resize(4096, 0); // As it stands in the file: up to a page.
    assert_eq!(frame_len(&bytes), Some(len));
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(frame.stamp, Stamp { generation: 9, number: 3, settled: 2 });
    assert_eq!((frame.len, frame.entries.len(), frame.is_whole()), (len, 2, true));
    let second = &frame.entries[1];
    assert_eq!((second.topic.as_str(), second.index), ("orders", 7));
    assert_eq!((second.segment, second.position), (Offset(40), 4096));
    assert_eq!(second.end, Some(Offset(60)));
    assert_eq!(&bytes[second.bytes.clone()], b"second");
}

#[test]
fn a_bit_is_seen_wherever_it_is_and_behind_the_heads_it_is_told_whose() {
    let (whole, heads) = frame(9, 3, 2);
    for at in 0..whole.len() {
        let mut bent = whole.clone();
        bent[at] ^= 1;
        let is_whole = Frame::parse(&bent).map(|f| [f.entries[0].is_whole, f.entries[1].is_whole]);
        let expected = match at {
            at if at < heads => None,
            at => Some([at >= heads + 5, at < heads + 5]),
        };
        assert_eq!(is_whole, expected, "a bit of byte {at} was turned");
        let cut = Frame::parse(&whole[..at]);
        assert_eq!(cut.is_some(), at >= heads, "cut at {at}");
        assert!(cut.is_none_or(|frame| !frame.is_whole()), "cut at {at}");
    }
}

#[test]
fn a_length_of_nonsense_is_no_length() {
    let mut bytes = frame(0, 0, 0).0;
    bytes[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(frame_len(&bytes), None);
    assert_eq!(frame_len(&[0; 4096]), None);
    assert_eq!(frame_len(&bytes[..20]), None);
}

/// A frame as builds before the second version of the format wrote it: one entry, `text`.
fn first_version(generation: u64, number: u64, text: &[u8]) -> Vec<u8> {
    let mut frame = b"FSJRNL\0\x01".to_vec();
    frame.extend([0; 8]);
    frame.extend(generation.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.extend(1_u32.to_be_bytes());
    frame.extend(Uuid::METADATA_TOPIC.to_bytes());
    frame.extend(5_i32.to_be_bytes());
    frame.extend(40_u64.to_be_bytes());
    frame.extend(4096_u64.to_be_bytes());
    frame.extend((36 + 46 + 6_u32).to_be_bytes());
    frame.extend((text.len() as u32).to_be_bytes());
    frame.extend(6_u16.to_be_bytes());
    frame.extend(b"orders");
    frame.extend(text);
    let len = frame.len() as u32;
    frame[12..16].copy_from_slice(&len.to_be_bytes());
    let checksum = crc_fast::crc32_iscsi(&frame[12..]);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn a_frame_of_the_first_version_is_read_and_proves_nothing() {
    let bytes = first_version(9, 3, b"text");
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(frame.stamp, Stamp { generation: 9, number: 3, settled: 0 });
    let entry = &frame.entries[0];
    assert_eq!((entry.topic.as_str(), entry.index, entry.end), ("orders", 5, None));
    assert_eq!(&bytes[entry.bytes.clone()], b"text");
    for at in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        assert_eq!(Frame::parse(&bent), None, "a bit of byte {at} was turned");
    }
    let file: Vec<_> = (0..4).map(|number| page(first_version(9, number, b"text"))).collect();
    assert_eq!(told(&file), (vec![0, 1, 2, 3], None));
    let mut bent = file;
    bent[1][90] ^= 1;
    assert_eq!(told(&bent), (vec![0], None), "as if it were torn");
}

fn page(mut frame: Vec<u8>) -> Vec<u8> {
    assert!(frame.len() <= FRAME_ALIGN_BYTES);
    frame.resize(FRAME_ALIGN_BYTES, 0);
    frame
}

fn bend(mut page: Vec<u8>, at: usize) -> Vec<u8> {
    page[at] ^= 4;
    page
}

/// The frame that a use begins with.
fn opening(generation: u64) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEAD_BYTES];
    seal_frame(&mut frame, FRAME_HEAD_BYTES, Stamp { generation, number: 0, settled: 0 }, 0);
    page(frame)
}

/// A file of pages: one use, of appends with so many frames each.
fn used(generation: u64, appends: &[u64]) -> Vec<Vec<u8>> {
    let mut file = vec![opening(generation)];
    for frames in appends {
        let settled = file.len() as u64;
        file.extend((0..*frames).map(|n| page(frame(generation, settled + n, settled).0)));
    }
    file
}

/// Goes through a file as its holder does: the numbers of the whole frames, and where frames are lost.
fn walk(file: &[Vec<u8>]) -> Contents {
    let read = |at: u64| Frame::parse(file.get(at as usize / FRAME_ALIGN_BYTES)?);
    let mut walk = Walk::default();
    loop {
        match walk.found(read(walk.at())) {
            Next::Read => {}
            Next::Look => {
                let from = walk.at() / FRAME_ALIGN_BYTES as u64 + 1;
                let mut later =
                    (from..file.len() as u64).map(|page| page * FRAME_ALIGN_BYTES as u64);
                if !later.any(|at| read(at).is_some_and(|frame| walk.behind(at, frame))) {
                    return walk.end();
                }
            }
            Next::End => return walk.end(),
        }
    }
}

fn told(file: &[Vec<u8>]) -> (Vec<u64>, Option<u64>) {
    let Contents { frames, lost } = walk(file);
    let whole = frames.iter().filter(|(_, frame)| frame.is_whole());
    (whole.map(|(_, frame)| frame.stamp.number).collect(), lost)
}

/// Whatever part of the append that was in flight a power cut leaves, over whatever was there before: what was
/// acknowledged is told, and nothing is called damage.
#[test]
fn a_torn_append_is_never_called_damage() {
    for earlier in [vec![], used(1, &[1, 1, 2, 1, 3, 1, 1]), used(1, &[9])] {
        for settled in [vec![], vec![1], vec![2, 1]] {
            let acknowledged = 1 + settled.iter().sum::<u64>();
            let before = used(2, &settled);
            let after = used(2, &[&settled[..], &[4]].concat());
            // Of each page: not written, written, or neither; of the heads' page, or of the bytes'.
            for torn in 0..4_u32.pow(4) {
                let mut file = earlier.clone();
                file.resize(file.len().max(after.len()), vec![0; FRAME_ALIGN_BYTES]);
                file[..before.len()].clone_from_slice(&before);
                for (n, page) in after[before.len()..].iter().enumerate() {
                    let at = before.len() + n;
                    match torn / 4_u32.pow(n as u32) % 4 {
                        0 => {}
                        1 => file[at].clone_from(page),
                        2 => file[at] = bend(page.clone(), 20),
                        _ => {
                            let last = page.iter().rposition(|byte| *byte > 0).unwrap();
                            file[at] = bend(page.clone(), last);
                        }
                    }
                }
                let (numbers, lost) = told(&file);
                assert_eq!(lost, None, "{settled:?}, torn as {torn}");
                assert!(numbers.len() as u64 >= acknowledged, "{settled:?}, torn as {torn}");
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
                assert!(
                    walk(&file)
                        .frames
                        .iter()
                        .all(|(_, frame)| frame.is_whole() && frame.stamp.generation == 2)
                );
            }
        }
    }
    // The frame that begins the next use, torn: nothing of that use is there, and all of the one before is stored.
    let mut file = used(1, &[1, 2, 1]);
    file[0] = bend(opening(2), 30);
    assert_eq!(told(&file), (vec![1, 2, 3, 4], None));
}

#[test]
fn what_a_later_append_speaks_of_is_told_or_told_to_be_lost() {
    let whole = used(2, &[1, 3, 1, 2]);
    let page_at = |number: usize| Some((number * FRAME_ALIGN_BYTES) as u64);
    for number in 1..whole.len() {
        let heads = |numbers: &[usize]| {
            let mut file = whole.clone();
            for n in numbers {
                file[*n] = bend(file[*n].clone(), 20);
            }
            file.extend(used(1, &[1, 1, 1]).into_iter().skip(1)); // Of an earlier use.
            told(&file)
        };
        let others = |gone: &[usize]| {
            (0..8).filter(|n| !gone.contains(&(*n as usize))).collect::<Vec<u64>>()
        };
        match number {
            1..6 => assert_eq!(heads(&[number]), (others(&[number]), page_at(number))),
            _ => assert_eq!(
                heads(&[number]),
                ((0..number as u64).collect(), None),
                "the last append"
            ),
        }
        if number < 5 {
            let gone = [number, number + 1];
            assert_eq!(heads(&gone), (others(&gone), page_at(number)));
        }
        // Bytes of the second entry: it is told which those are.
        let mut file = whole.clone();
        let last = file[number].iter().rposition(|byte| *byte > 0).unwrap();
        file[number] = bend(file[number].clone(), last);
        let contents = walk(&file);
        assert_eq!(contents.lost, None);
        let bent =
            contents.frames.iter().filter(|(_, frame)| !frame.is_whole()).collect::<Vec<_>>();
        if number < 6 {
            assert_eq!((bent.len(), bent[0].1.stamp.number), (1, number as u64));
            assert!(bent[0].1.entries[0].is_whole && contents.frames.len() == 8);
        } else {
            assert!(bent.is_empty() && contents.frames.len() == number);
        }
    }
    // The frame that a use begins with brings nothing.
    let mut file = whole.clone();
    file[0] = bend(file[0].clone(), 20);
    assert_eq!(told(&file), ((1..8).collect(), None));
}
