//! Record batches: the gate of a produce, and the codecs.

use bytes::Bytes;
use flowstone_batch::{
    BatchBuilder, BatchHeader, Codec, Compression, HEADER_LEN, Limits, Origin, Record, Rules,
    TimestampType, check, conversion_bytes, crc_ok, records, stamp,
};
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use crate::bytes_in::{Input, with_right_crcs};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// Narrow, so that small inputs reach them.
const LIMITS: Limits = Limits { ratio_max: 16, floor_bytes: 64 << 10, bytes_max: 256 << 10 };
/// Most that a target of records with these limits makes of them: the array, each record's header list, and the
/// batch that is built again.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The first two bytes choose the topic's rules, and whether length and checksum are made right.
pub(crate) fn batch(data: &[u8]) {
    let mut input = Input(data);
    let [how, rules] = input.array();
    let bytes = match how & 3 {
        0 => Bytes::copy_from_slice(input.0),
        1 => with_right_crcs(input.0, false),
        _ => with_right_crcs(input.0, true),
    };
    let bit = |bit: u8| rules & (1 << bit) != 0;
    let codec = CODECS[usize::from(how >> 3) % CODECS.len()];
    let rules = Rules {
        max_message_bytes: BATCH_BYTES_MAX,
        compression: if bit(0) {
            Compression::Fixed { codec, level: None }
        } else {
            Compression::Producer
        },
        timestamp_type: if bit(1) {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: if bit(2) { 1000 } else { i64::MAX },
        timestamp_after_max_ms: if bit(3) { i64::MAX } else { 1000 },
        compacted: bit(4),
        origin: if bit(5) { Origin::Coordinator } else { Origin::Client },
        zstd_allowed: !bit(6),
        inspect_compressed: !bit(7),
        limits: LIMITS,
        ..Rules::default()
    };
    let _ = conversion_bytes(&bytes, &rules);
    let checked = match check(bytes, &rules, NOW) {
        Ok(checked) => checked,
        Err(rejected) => return drop(rejected.to_string()),
    };
    assert!(crc_ok(&checked.bytes), "what is appended has a right CRC");
    assert_eq!(BatchHeader::parse(&checked.bytes), Ok(checked.header));
    assert_eq!(checked.bytes.len(), checked.header.total_len());
    assert!(checked.bytes.len() <= rules.max_message_bytes);
    if rules.timestamp_type == TimestampType::CreateTime {
        // (What we gave our time would be refused of a client.)
        let again = check(checked.bytes.clone(), &rules, NOW).expect("what passed passes again");
        assert_eq!(again.bytes, checked.bytes);
    }

    let codec = checked.header.attributes.codec().expect("it was checked");
    if codec == Codec::None || rules.inspect_compressed {
        let all = read(&checked.bytes).expect("what was checked can be read");
        assert_eq!(all.len(), checked.header.count as usize);
        let base = checked.header.base_offset; // Zero, but of a coordinator's.
        assert!(all.iter().zip(0..).all(|(record, at)| record.offset == base.plus(at)));
        if !checked.header.attributes.is_control() {
            rebuild(&all, codec);
        }
    } else {
        let _ = read(&checked.bytes);
    }
    let mut stamped = checked.bytes.to_vec();
    stamp(&mut stamped, Offset(77), LeaderEpoch(3));
    let header = BatchHeader::parse(&stamped).expect("only two fields changed");
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(77), LeaderEpoch(3)));
    assert!(crc_ok(&stamped), "the checksum does not cover what was stamped");
}

/// The first byte chooses the codec; the rest is the record array of a batch whose header is right.
pub(crate) fn inflate(data: &[u8]) {
    let mut input = Input(data);
    let codec = CODECS[1 + usize::from(input.byte()) % (CODECS.len() - 1)];
    let count = u32::from(u16::from_be_bytes(input.array()));
    let mut one = BatchBuilder::new(Offset(0));
    one.push(NOW, None, None, &[]);
    let mut bytes = one.build()[..HEADER_LEN].to_vec();
    bytes[21..23].copy_from_slice(&(codec as i16).to_be_bytes());
    bytes[23..27].copy_from_slice(&count.wrapping_sub(1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    bytes.extend(input.0);
    let batch = with_right_crcs(&bytes, true);
    let allowed = LIMITS.inflated_max(batch.len() - HEADER_LEN);
    let Some(all) = read(&batch) else { return };
    let sized = |record: &Record| {
        record.key.as_ref().map_or(0, Bytes::len) + record.value.as_ref().map_or(0, Bytes::len)
    };
    assert!(all.iter().map(sized).sum::<usize>() <= allowed, "{codec:?} made too much");
    rebuild(&all, codec);
}

fn read(batch: &Bytes) -> Option<Vec<Record>> {
    records(batch, &LIMITS).ok()?.collect::<Result<_, _>>().ok()
}

/// The same records, built into a batch of ours, are read as the same.
fn rebuild(all: &[Record], codec: Codec) {
    let Some(first) = all.first() else { return };
    // Kafka takes keys that are no UTF-8 and times that are ages apart; the builder is for what we make ourselves.
    let buildable = all.iter().all(|record| {
        record.timestamp.0.checked_sub(first.timestamp.0).is_some()
            && record.headers.iter().all(|(key, _)| str::from_utf8(key).is_ok())
    });
    if !buildable {
        return;
    }
    let mut builder = BatchBuilder::new(first.offset);
    if codec != Codec::None {
        builder = builder.compressed(codec, None);
    }
    for record in all {
        let text = |key| str::from_utf8(key).expect("it was looked at");
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (text(key), value)).collect();
        builder.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
    }
    let built = builder.build();
    assert!(crc_ok(&built));
    let wide = Limits { ratio_max: usize::MAX, floor_bytes: 64 << 20, bytes_max: 64 << 20 };
    let again = records(&built, &wide).expect("it is ours").collect::<Result<Vec<_>, _>>();
    let again = again.expect("it is ours");
    assert_eq!(again.len(), all.len());
    for (again, record) in again.iter().zip(all) {
        assert_eq!((&again.key, &again.value), (&record.key, &record.value));
        assert_eq!(again.timestamp, record.timestamp);
        assert!(again.headers.iter().eq(record.headers.iter()));
    }
}
