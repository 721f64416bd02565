//! Batches whose CRC is right and whose content lies, bombs, and the topic's rules: what Kafka's
//! LogValidator refuses, and with what.

mod common;

use std::io::Write;

use bytes::Bytes;
use common::*;
use flowstone_batch::{
    BatchBuilder, BatchError, Codec, Compression, ControlType, Invalid, Limits, Malformed, Origin,
    RECORD_ERRORS_MAX, RecordFault, Rejected, Rules, TimestampType, check, conversion_bytes,
    crc_ok, records,
};
use flowstone_types::{Offset, ProducerId, Timestamp};

fn refuse(batch: Bytes) -> Rejected {
    check(batch, &Rules::default(), NOW).expect_err("a lie")
}

fn malformed(batch: Bytes) -> Malformed {
    match refuse(batch) {
        Rejected::Invalid(Invalid::Malformed(malformed)) => malformed,
        other => panic!("{other:?}"),
    }
}

/// One record by its fields, as bytes: `length`, attributes, deltas, then `rest`.
fn record(length: u8, offset_delta: u8, rest: &[u8]) -> Vec<u8> {
    [&[length, 0, 0, offset_delta], rest].concat()
}

#[test]
fn framing_is_one_batch_exactly() {
    let good = plain(3).build();
    assert!(check(good.clone(), &Rules::default(), NOW).is_ok());
    assert!(matches!(refuse(Bytes::new()), Rejected::Framing(BatchError::Truncated { .. })));
    assert!(matches!(refuse(good.slice(..40)), Rejected::Framing(_)));
    assert!(matches!(refuse(good.slice(..good.len() - 1)), Rejected::Framing(_)));
    let two = [&good[..], &good[..]].concat();
    assert!(matches!(refuse(two.into()), Rejected::Framing(_)), "more than one batch");
    let tail = [&good[..], b"x"].concat();
    assert!(matches!(refuse(tail.into()), Rejected::Framing(_)));
    for magic in [0, 1, 3, -1_i8] {
        let mut old = good.to_vec();
        old[MAGIC] = magic as u8;
        assert_eq!(refuse(old.into()), Rejected::Framing(BatchError::Magic(magic)));
    }
    for length in [0, -1, 48, i32::MIN, i32::MAX] {
        let mut lie = good.to_vec();
        lie[LENGTH..LENGTH + 4].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(refuse(lie.into()), Rejected::Framing(_)), "{length}");
    }
}

#[test]
fn a_wrong_crc_is_corrupt() {
    let good = plain(3).build();
    for at in [CRC, ATTRIBUTES, COUNT, RECORDS, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        if at == ATTRIBUTES {
            bad[at] ^= 1;
            bad[MAX_TIMESTAMP] ^= 1;
        }
        assert!(matches!(refuse(bad.into()), Rejected::Crc { .. }), "byte {at}");
    }
}

#[test]
fn counts_cannot_lie() {
    let good = plain(3).build();
    for (count, delta) in
        [(2, 1), (4, 3), (3, 3), (3, 1), (0, -1), (-1, -2), (i32::MAX, i32::MAX - 1)]
    {
        let lie = with(&good, COUNT, &i32::to_be_bytes(count));
        let lie = with(&lie, LAST_OFFSET_DELTA, &i32::to_be_bytes(delta));
        let _ = malformed(lie);
    }
    assert_eq!(
        malformed(with(&good, COUNT, &i32::to_be_bytes(i32::MIN))),
        Malformed::Count { count: i32::MIN, last_offset_delta: 2 }
    );
    // Nor where nothing is inflated: 2^31 offsets for 100 bytes.
    let lie = with(&compressed(3, Codec::Zstd), COUNT, &i32::MAX.to_be_bytes());
    let lie = with(&lie, LAST_OFFSET_DELTA, &(i32::MAX - 1).to_be_bytes());
    assert!(matches!(malformed(lie), Malformed::Count { .. }));
}

#[test]
fn records_fill_their_batch_and_fields_their_record() {
    let null = [1, 1, 0]; // Null key, null value, no headers.
    let array = |bytes: &[u8]| malformed(of_array(Codec::None, 1, bytes));
    assert!(check(of_array(Codec::None, 1, &record(12, 0, &null)), &Rules::default(), NOW).is_ok());
    assert_eq!(array(&record(12, 2, &null)), Malformed::OffsetDelta(0, 1));
    assert_eq!(array(&record(12, 1, &null)), Malformed::OffsetDelta(0, -1));
    assert_eq!(array(&record(14, 0, &null)), Malformed::Overrun(0), "record past the batch");
    assert_eq!(array(&record(10, 0, &null)), Malformed::Overrun(0), "fields past the record");
    assert_eq!(array(&record(14, 0, &[1, 1, 0, 9])), Malformed::Slack(0));
    assert_eq!(array(&record(11, 0, &null)), Malformed::NegativeLength(0));
    assert_eq!(array(&record(12, 0, &[3, 1, 0])), Malformed::NegativeLength(0), "key of -2");
    assert_eq!(array(&record(12, 0, &[20, 1, 0])), Malformed::Overrun(0), "key past the record");
    assert_eq!(array(&record(12, 0, &[1, 20, 0])), Malformed::Overrun(0), "value past the record");
    assert_eq!(array(&record(12, 0, &[1, 1, 1])), Malformed::NegativeLength(0), "-1 headers");
    assert_eq!(array(&record(12, 0, &[1, 1, 2])), Malformed::Overrun(0), "a header that is not");
    let billions = [1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]; // 2^31 - 1 headers in no bytes.
    assert_eq!(array(&record(20, 0, &billions)), Malformed::Overrun(0));
    let null_header_key = [1, 1, 2, 1, 1];
    assert_eq!(array(&record(16, 0, &null_header_key)), Malformed::NegativeLength(0));
    assert_eq!(array(&[0xff; 12]), Malformed::Varint(0));
    let tail = [&record(12, 0, &null)[..], &[0]].concat();
    assert_eq!(array(&tail), Malformed::TrailingBytes(1));
    let twice = [record(12, 0, &null), record(12, 0, &null)].concat();
    assert_eq!(malformed(of_array(Codec::None, 2, &twice)), Malformed::OffsetDelta(1, 0));
}

#[test]
fn extreme_timestamps_do_not_overflow() {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    builder.push(NOW, None, None, &[]);
    builder.push(Timestamp(NOW.0 + 1), None, None, &[]);
    let good = builder.build();
    let lie = with(&good, BASE_TIMESTAMP, &i64::MAX.to_be_bytes());
    assert_eq!(malformed(lie), Malformed::Timestamp);
    for base in [i64::MAX - 1, i64::MIN] {
        let lie = with(&good, BASE_TIMESTAMP, &base.to_be_bytes());
        assert!(matches!(refuse(lie), Rejected::Records { timestamps: true, .. }), "{base}");
    }
}

#[test]
fn a_client_is_no_broker() {
    let mut control = BatchBuilder::new(Offset::ZERO).producer(ProducerId(1), 0, 0).transactional();
    control.push_control(NOW, ControlType::Commit, &[0; 6]);
    let control = control.build();
    assert_eq!(refuse(control.clone()), Rejected::Invalid(Invalid::Control));
    let coordinator = Rules { origin: Origin::Coordinator, ..Rules::default() };
    assert_eq!(check(control.clone(), &coordinator, NOW).unwrap().bytes, control);
    // Nor is a marker compressed because the topic says so.
    let compression = Compression::Fixed { codec: Codec::Zstd, level: None };
    let coordinator = Rules { compression, ..coordinator };
    assert_eq!(check(control.clone(), &coordinator, NOW).unwrap().bytes, control);
    // A coordinator numbers its own batches, within what a log can hold (found by the fuzz target `batch`).
    for (base, fits) in [(7, true), (-1, false), (i64::MAX - 1, true), (i64::MAX, false)] {
        let mut numbered = control.to_vec();
        numbered[..8].copy_from_slice(&base.to_be_bytes());
        assert_eq!(check(numbered.into(), &coordinator, NOW).is_ok(), fits, "{base}");
    }

    let good = plain(1).build();
    let horizon = with(&good, ATTRIBUTES, &[0, 0x40]);
    assert_eq!(refuse(horizon), Rejected::Invalid(Invalid::DeleteHorizon));
    let transactional = with(&good, ATTRIBUTES, &[0, 0x10]);
    assert_eq!(refuse(transactional), Rejected::Invalid(Invalid::NoProducer));
    let append_time = with(&good, ATTRIBUTES, &[0, 0x08]);
    assert!(matches!(refuse(append_time), Rejected::Records { timestamps: true, .. }));
    let mut offset = good.to_vec();
    offset[7] = 9;
    assert_eq!(refuse(offset.into()), Rejected::Invalid(Invalid::BaseOffset(Offset(9))));
    for (epoch, sequence) in [(0, -1), (-1, 0), (0, i32::MIN), (i16::MIN, 0)] {
        let mut builder = BatchBuilder::new(Offset::ZERO).producer(ProducerId(5), epoch, sequence);
        builder.push(NOW, None, None, &[]);
        assert_eq!(
            refuse(builder.build()),
            Rejected::Invalid(Invalid::Sequence { producer_id: 5, epoch, sequence })
        );
    }
}

#[test]
fn sizes_are_the_topics_to_limit() {
    let batch = plain(10).build();
    let bytes = batch.len();
    let message = |max_message_bytes| Rules { max_message_bytes, ..Rules::default() };
    assert!(check(batch.clone(), &message(bytes), NOW).is_ok());
    assert_eq!(
        check(batch.clone(), &message(bytes - 1), NOW),
        Err(Rejected::TooLarge { bytes, limit: bytes - 1 })
    );
    let segment = Rules { segment_bytes: bytes - 1, ..Rules::default() };
    assert_eq!(
        check(batch, &segment, NOW),
        Err(Rejected::LargerThanSegment { bytes, limit: bytes - 1 })
    );
    // After conversion too, which makes a compressed batch larger.
    let small = compressed(1000, Codec::Zstd);
    let rules = Rules {
        max_message_bytes: small.len(),
        compression: Compression::Fixed { codec: Codec::None, level: None },
        ..Rules::default()
    };
    assert!(matches!(check(small, &rules, NOW), Err(Rejected::TooLarge { .. })));
}

#[test]
fn codecs_must_be_known() {
    let good = plain(1).build();
    for codec in 5..8 {
        assert_eq!(refuse(with(&good, ATTRIBUTES, &[0, codec])), Rejected::Codec(codec));
    }
    let old = Rules { zstd_allowed: false, ..Rules::default() };
    assert_eq!(check(compressed(1, Codec::Zstd), &old, NOW), Err(Rejected::ZstdTooEarly));
    assert!(check(compressed(1, Codec::Lz4), &old, NOW).is_ok());
}

#[test]
fn compacted_topics_want_keys() {
    let rules = Rules { compacted: true, ..Rules::default() };
    for codec in Codec::ALL {
        assert!(check(compressed(3, codec), &rules, NOW).is_ok());
        let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
        for index in 0..4 {
            builder.push(NOW, (index % 2 == 0).then_some(b"k"), None, &[]);
        }
        let Err(Rejected::Records { timestamps, errors }) = check(builder.build(), &rules, NOW)
        else {
            panic!("{codec:?}")
        };
        assert!(!timestamps);
        let faults: Vec<_> = errors.iter().map(|error| (error.index, &error.fault)).collect();
        assert_eq!(faults, [(1, &RecordFault::NoKey), (3, &RecordFault::NoKey)], "{codec:?}");
    }
    let mut many = BatchBuilder::new(Offset::ZERO);
    for _ in 0..5000 {
        many.push(NOW, None, None, &[]);
    }
    let Err(Rejected::Records { errors, .. }) = check(many.build(), &rules, NOW) else { panic!() };
    assert_eq!(errors.len(), RECORD_ERRORS_MAX);
}

#[test]
fn timestamps_stay_in_the_topics_window() {
    let rules =
        Rules { timestamp_before_max_ms: 1000, timestamp_after_max_ms: 500, ..Rules::default() };
    let verdict = |codec, deltas: &[i64]| {
        let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
        for delta in deltas {
            builder.push(Timestamp(NOW.0 + delta), None, None, &[]);
        }
        match check(builder.build(), &rules, NOW) {
            Ok(_) => Vec::new(),
            Err(Rejected::Records { timestamps: true, errors }) => {
                errors.iter().map(|error| error.index).collect()
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    for codec in Codec::ALL {
        assert_eq!(verdict(codec, &[0, -1000, 500]), [0; 0], "both ends are in");
        assert_eq!(verdict(codec, &[0, 501, -1001, 3]), [1, 2]);
        let none = -1 - NOW.0;
        assert_eq!(verdict(codec, &[none, 0]), [0; 0], "no timestamp is none too old");
        assert_eq!(verdict(codec, &[none, -1001]), [1]);
    }
    // Without a limit downwards, and with the broker's clock, anything old goes.
    let old = || {
        let mut builder = BatchBuilder::new(Offset::ZERO);
        builder.push(Timestamp(0), None, None, &[]);
        builder.build()
    };
    assert!(check(old(), &Rules::default(), NOW).is_ok());
    let ours = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules };
    assert!(check(old(), &ours, NOW).is_ok());
}

#[test]
fn the_greatest_timestamp_is_corrected() {
    for codec in Codec::ALL {
        let good = compressed(3, codec);
        // Above what is allowed, or below the base: seen to lie without a look inside.
        for lie in [i64::MAX, 5, i64::MIN] {
            let checked =
                check(with(&good, MAX_TIMESTAMP, &lie.to_be_bytes()), &Rules::default(), NOW);
            assert_eq!(checked.unwrap().bytes, good, "{codec:?}");
        }
        let plausible = with(&good, MAX_TIMESTAMP, &(NOW.0 + 7).to_be_bytes());
        let checked = check(plausible.clone(), &Rules::default(), NOW).unwrap();
        assert_eq!(
            checked.bytes,
            if codec == Codec::None { &good } else { &plausible },
            "{codec:?}"
        );
        let inspect = Rules { inspect_compressed: true, ..Rules::default() };
        assert_eq!(check(plausible, &inspect, NOW).unwrap().bytes, good);
    }
}

#[test]
fn log_append_time_is_set_without_recompression() {
    let rules = Rules { timestamp_type: TimestampType::LogAppendTime, ..Rules::default() };
    for codec in Codec::ALL {
        let sent = compressed(3, codec);
        let checked = check(sent.clone(), &rules, Timestamp(NOW.0 + 9)).unwrap();
        assert_eq!(checked.log_append_time, Some(Timestamp(NOW.0 + 9)));
        assert_eq!(checked.header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert!(crc_ok(&checked.bytes) && !checked.converted);
        assert_eq!(checked.bytes[RECORDS..], sent[RECORDS..]);
        let read = records(&checked.bytes, &Limits::default()).unwrap();
        assert!(read.into_iter().all(|record| record.unwrap().timestamp.0 == NOW.0 + 9));
    }
}

#[test]
fn lies_inside_compression_are_found_where_it_is_opened() {
    let inspect = Rules { inspect_compressed: true, ..Rules::default() };
    let two = [record(12, 0, &[1, 1, 0]), record(12, 6, &[1, 1, 0])].concat();
    let lz4 = lz4_frame(&two, |_| {});
    let batch = of_array(Codec::Lz4, 2, &lz4);
    assert!(matches!(
        check(batch, &inspect, NOW),
        Err(Rejected::Invalid(Invalid::Malformed(Malformed::OffsetDelta(1, 3))))
    ));
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let good = compressed(100, codec);
        let garbage = of_array(codec, 100, &[0xa5; 300]);
        assert!(matches!(
            check(garbage, &inspect, NOW),
            Err(Rejected::Invalid(Invalid::Compression(BatchError::Compression(_, _))))
        ));
        for cut in [1, 4, 8] {
            let cut = seal(good[..good.len() - cut].to_vec());
            assert!(check(cut, &inspect, NOW).is_err(), "{codec:?}");
        }
        let short = with(&good, COUNT, &99_i32.to_be_bytes());
        let short = with(&short, LAST_OFFSET_DELTA, &98_i32.to_be_bytes());
        assert!(check(short, &inspect, NOW).is_err(), "{codec:?}: a record too many");
    }
}

/// An LZ4 frame by another hand than ours.
fn lz4_frame(data: &[u8], options: impl Fn(&mut lz4_flex::frame::FrameInfo)) -> Vec<u8> {
    let mut info = lz4_flex::frame::FrameInfo::new();
    options(&mut info);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lz4_frames_of_any_make_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize};
    let plain = plain(20_000).build();
    let data = &plain[RECORDS..];
    assert!(data.len() > 256 << 10);
    let sizes = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
    for block_size in sizes {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for extras in 0..8 {
                let frame = lz4_frame(data, |info| {
                    info.block_size = block_size;
                    info.block_mode = mode;
                    info.block_checksums = extras & 1 != 0;
                    info.content_checksum = extras & 2 != 0;
                    info.content_size = (extras & 4 != 0).then_some(data.len() as u64);
                });
                let batch = of_array(Codec::Lz4, 20_000, &frame);
                let rules = Rules { inspect_compressed: true, ..Rules::default() };
                assert!(check(batch, &rules, NOW).is_ok(), "{block_size:?} {mode:?} {extras}");
            }
        }
    }
}

#[test]
fn snappy_without_framing_is_read() {
    // As librdkafka and franz-go send it; snappy-java takes both.
    let plain = plain(3).build();
    let raw = snap::raw::Encoder::new().compress_vec(&plain[RECORDS..]).unwrap();
    let rules = Rules { inspect_compressed: true, ..Rules::default() };
    assert!(check(of_array(Codec::Snappy, 3, &raw), &rules, NOW).is_ok());
    // CVE-2023-34455: a chunk length is believed by nobody.
    for len in [u32::MAX, 0x7fff_ffff, 1000] {
        let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(&raw);
        assert!(check(of_array(Codec::Snappy, 3, &framed), &rules, NOW).is_err());
    }
    // Nor a block's own: 4 GiB from five bytes.
    let lie = of_array(Codec::Snappy, 3, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
    assert!(check(lie, &rules, NOW).is_err());
}

#[test]
fn gzip_members_and_zstd_frames_may_follow_each_other() {
    let plain = plain(40).build();
    let (one, two) = plain[RECORDS..].split_at(100);
    let rules = Rules { inspect_compressed: true, ..Rules::default() };
    let gzip = |data: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        out.write_all(data).unwrap();
        out.finish().unwrap()
    };
    let batch = of_array(Codec::Gzip, 40, &[gzip(one), gzip(two)].concat());
    assert!(check(batch, &rules, NOW).is_ok());
    // A stream that declares no size, as the Java client writes it.
    let mut stream = zstd::Encoder::new(Vec::new(), 1).unwrap();
    stream.write_all(one).unwrap();
    let frames = [stream.finish().unwrap(), zstd::bulk::compress(two, 1).unwrap()].concat();
    assert!(check(of_array(Codec::Zstd, 40, &frames), &rules, NOW).is_ok());
}

#[test]
fn bombs_do_not_go_off() {
    let rules = Rules { inspect_compressed: true, ..Rules::default() };
    let zeros = vec![0; 64 << 20];
    let bombs = [
        (Codec::Gzip, {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
            out.write_all(&zeros).unwrap();
            out.finish().unwrap()
        }),
        (Codec::Zstd, zstd::bulk::compress(&zeros, 1).unwrap()),
        (Codec::Zstd, {
            let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
            out.write_all(&zeros).unwrap();
            out.finish().unwrap()
        }),
        (
            Codec::Lz4,
            lz4_frame(&zeros, |info| info.block_size = lz4_flex::frame::BlockSize::Max4MB),
        ),
        (Codec::Snappy, snap::raw::Encoder::new().compress_vec(&zeros).unwrap()),
    ];
    for (codec, bomb) in bombs {
        let limits = Limits { ratio_max: 20, ..rules.limits };
        let rules = Rules { limits, max_message_bytes: 1 << 30, ..rules.clone() };
        let got = check(of_array(codec, 5, &bomb), &rules, NOW);
        assert!(
            matches!(got, Err(Rejected::Invalid(Invalid::Compression(BatchError::Bomb { .. })))),
            "{codec:?} {got:?}"
        );
        // The same bytes on disk: a reader is no more patient.
        let read = records(&of_array(codec, 5, &bomb), &limits).err();
        assert!(matches!(read, Some(BatchError::Bomb { .. })), "{codec:?}");
    }
}

#[test]
fn an_honest_batch_of_one_repeated_record_is_no_bomb() {
    let inspect = Rules { inspect_compressed: true, ..Rules::default() };
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(Offset::ZERO).compressed(codec, None);
        let value = vec![b'x'; 1000];
        for _ in 0..900 {
            builder.push(NOW, None, Some(&value), &[]);
        }
        assert!(check(builder.build(), &inspect, NOW).is_ok(), "{codec:?}");
    }
}

#[test]
fn levels_are_the_codecs_own() {
    let sent = plain(2000).build();
    let size = |codec, level| {
        let compression = Compression::Fixed { codec, level };
        let rules = Rules { compression, ..Rules::default() };
        check(sent.clone(), &rules, NOW).unwrap().bytes.len()
    };
    assert!(size(Codec::Gzip, Some(9)) < size(Codec::Gzip, Some(1)));
    assert_eq!(size(Codec::Gzip, Some(-1)), size(Codec::Gzip, None), "Kafka's default");
    assert!(size(Codec::Zstd, Some(19)) < size(Codec::Zstd, Some(-50)));
    assert_eq!(size(Codec::Lz4, Some(17)), size(Codec::Lz4, None), "one LZ4 compressor here");
}

/// What decides whether a batch is checked beside the shard: nothing of one that keeps its codec.
#[test]
fn only_a_change_of_codec_is_a_conversion() {
    let size = |sent, target: Option<Codec>| {
        let mut batch = BatchBuilder::new(Offset::ZERO).compressed(sent, None);
        batch.push(NOW, None, Some(&[7; 5_000]), &[]);
        let compression =
            target.map_or(Compression::Producer, |codec| Compression::Fixed { codec, level: None });
        let bytes = batch.build();
        (conversion_bytes(&bytes, &Rules { compression, ..Rules::default() }), bytes.len())
    };
    assert_eq!(size(Codec::None, None).0, 0);
    assert_eq!(size(Codec::Gzip, Some(Codec::Gzip)).0, 0);
    let (conversion, sent) = size(Codec::None, Some(Codec::Gzip));
    assert_eq!(conversion, sent);
    let (conversion, sent) = size(Codec::Zstd, Some(Codec::None));
    assert!(conversion > sent, "it grows");
    assert_eq!(conversion_bytes(b"no batch", &Rules::default()), 0);
}
