//! The rules of Kafka's notation, each on the smallest message that shows it.

use bytes::Bytes;
use flowstone_schema::{DecodeError, EncodeError, Message, NEVER, Problem, UnknownTags, schema};
use flowstone_types::Uuid;
use proptest::prelude::*;

schema! {
    /// Every type, in the old notation up to version 1 and the compact one from 2 on.
    message Everything = 77, versions 0..=3, flexible 2 {
        /// A flag.
        flag: bool,
        /// A byte.
        small: i8 = -3,
        /// A port.
        port: u16,
        /// An epoch.
        epoch: i32 = -1,
        /// A time.
        time: i64,
        /// A rate.
        rate: f64 [since(1)],
        /// An id.
        id: Uuid,
        /// A name.
        name: String,
        /// A name that may be missing from version 1 on.
        rack: Option<String> [nullable_since(1)] = Some(String::new()),
        /// Opaque.
        data: Bytes,
        /// Opaque or missing.
        maybe_data: Option<Bytes>,
        /// Nested.
        nodes: Vec<Node>,
        /// Nested, or missing.
        node: Option<Node>,
        /// Only in the middle versions.
        old: i16 [since(1).until(2)],
        /// Dropped where there is no place for it.
        hint: i32 [since(3).ignorable()] = 9,
        /// Tagged.
        isr: Option<Vec<i32>> [since(2).tag(4)],
        /// Tagged, and new.
        leader: i32 [since(3).tag(0)] = -2,
    }

    /// A nested struct, which follows the version of the message around it.
    struct Node {
        /// Its id.
        node: i32,
        /// Its rack.
        rack: Option<String> [since(1)],
    }

    /// A message that has no compact notation.
    message Plain = -1, versions 0..=0, flexible never {
        /// Its names.
        names: Vec<String>,
    }
}

#[test]
fn declarations_carry_their_facts() {
    assert_eq!((Everything::NAME, Everything::KEY), ("Everything", 77));
    assert_eq!((Everything::VERSION_MIN, Everything::VERSION_MAX), (0, 3));
    assert_eq!((Everything::FLEXIBLE_SINCE, Plain::FLEXIBLE_SINCE), (2, NEVER));
    assert_eq!(Everything::default().leader, -2);
}

#[test]
fn old_notation_has_16_bit_strings_and_32_bit_arrays() {
    let names = Plain { names: vec!["ab".into(), String::new()], ..Plain::default() };
    assert_eq!(names.to_vec(0).unwrap(), [0, 0, 0, 2, 0, 2, b'a', b'b', 0, 0]);
}

#[test]
fn old_notation_writes_null_as_minus_one() {
    let message = Everything { rack: None, ..Everything::default() };
    let bytes = message.to_vec(1).unwrap();
    // flag 1, small 1, port 2, epoch 4, time 8, rate 8, id 16, name 2, then the rack.
    assert_eq!(&bytes[42..44], [0xff, 0xff]);
    assert_eq!(&bytes[44..48], [0, 0, 0, 0], "data is empty");
    assert_eq!(&bytes[48..52], [0xff; 4], "maybe_data is null");
    assert_eq!(&bytes[56..57], [0xff], "a missing struct is -1 in one byte");
}

#[test]
fn tags_are_written_in_order_and_only_when_they_differ_from_the_default() {
    let set = Everything { isr: Some(vec![]), leader: 5, ..Everything::default() };
    let plain = Everything::default().to_vec(3).unwrap();
    assert_eq!(plain.last(), Some(&0), "no tagged fields");
    let bytes = set.to_vec(3).unwrap();
    assert_eq!(bytes[plain.len() - 1..], [2, 0, 4, 0, 0, 0, 5, 4, 1, 1]);
}

#[test]
fn unknown_tags_are_kept_and_written_back() {
    let mut message = Everything { isr: Some(vec![7]), ..Everything::default() };
    message.unknown_tags = UnknownTags(vec![(2, Bytes::from_static(b"x")), (9, Bytes::new())]);
    let bytes = message.to_vec(2).unwrap();
    assert_eq!(Everything::decode(2, &bytes).unwrap(), message);
    assert!(bytes.ends_with(&[3, 2, 1, b'x', 4, 5, 2, 0, 0, 0, 7, 9, 0]));
}

#[test]
fn a_value_is_never_lost_in_silence() {
    let lost = Everything { rate: 1.0, ..Everything::default() };
    let error = EncodeError::FieldNotInVersion { field: "Everything.rate", version: 0 };
    assert_eq!(lost.to_vec(0), Err(error));
    let tagged = Everything { leader: 1, ..Everything::default() };
    assert!(tagged.to_vec(2).is_err(), "tag 0 is new in version 3");
    let ignorable = Everything { hint: 1, ..Everything::default() };
    assert_eq!(ignorable.to_vec(2), Everything::default().to_vec(2));
    let null = Everything { rack: None, ..Everything::default() };
    assert_eq!(null.to_vec(0), Err(EncodeError::Null { field: "Everything.rack", version: 0 }));
    let long = Everything { name: "x".repeat(32_768), ..Everything::default() };
    assert_eq!(long.to_vec(1), Err(EncodeError::TooLong { len: 32_768 }));
    assert!(long.to_vec(2).is_ok());
    assert!(matches!(long.to_vec(4), Err(EncodeError::UnknownVersion { .. })));
}

#[test]
fn counts_that_lie_are_refused_before_memory_is_reserved() {
    for count in [i32::MAX, 2, 1_000_000] {
        let error = Plain::decode(0, &count.to_be_bytes()).unwrap_err();
        let problem = Problem::BadCount { count: i64::from(count), remaining: 0 };
        assert_eq!(error, DecodeError { place: "Plain.names", problem });
    }
    assert_eq!(Plain::decode(0, &[0x80, 0, 0, 0]).unwrap_err().problem, Problem::Null);
}

#[test]
fn errors_name_the_place() {
    let check = |bytes: &[u8], place, problem| {
        assert_eq!(Plain::decode(0, bytes), Err(DecodeError { place, problem }));
    };
    check(&[0, 0], "Plain.names", Problem::EndsEarly);
    check(&[0, 0, 0, 1, 0, 1, 0xff], "Plain.names", Problem::NotUtf8);
    check(&[0, 0, 0, 1, 0xff, 0xff], "Plain.names", Problem::Null);
    check(&[0, 0, 0, 0, 0], "Plain", Problem::TrailingBytes(1));
    let version = Problem::UnknownVersion(1);
    assert_eq!(Plain::decode(1, &[]), Err(DecodeError { place: "Plain", problem: version }));
    let mut foreign = Everything::default().to_vec(2).unwrap();
    foreign.pop();
    foreign.extend([1, 0, 4, 0, 0, 0, 1]);
    assert_eq!(Everything::decode(2, &foreign).unwrap_err().problem, Problem::ForeignTag(0));
    let longer = [1, 4, 2, 1, 9];
    foreign.truncate(foreign.len() - 7);
    foreign.extend(longer);
    assert_eq!(Everything::decode(2, &foreign).unwrap_err().problem, Problem::TagTooLong(1));
}

proptest! {
    #[test]
    fn every_version_goes_there_and_back(seed: u64, version in 0i16..=3) {
        let message = example::<Everything>(seed, version);
        let bytes = message.to_vec(version).unwrap();
        // Bytes and not values are compared where a rate is NaN.
        prop_assert_eq!(Everything::decode(version, &bytes).unwrap().to_vec(version).unwrap(), bytes);
    }

    #[test]
    fn random_bytes_are_refused_or_read(bytes: Vec<u8>, version in -1i16..=4) {
        let _ = Everything::decode(version, &bytes);
        let _ = Plain::decode(version, &bytes);
    }

    #[test]
    fn damaged_messages_are_refused_or_read(seed: u64, version in 0i16..=3, at: usize, byte: u8) {
        let mut bytes = example::<Everything>(seed, version).to_vec(version).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Everything::decode(version, &bytes);
        prop_assert!(Everything::decode(version, &bytes[..at]).is_err(), "cut short");
    }
}

/// A random instance; the multiplier is that of Knuth's MMIX generator.
fn example<M: Message>(seed: u64, version: i16) -> M {
    let mut state = seed;
    M::example(version, &mut || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33 ^ state
    })
}
