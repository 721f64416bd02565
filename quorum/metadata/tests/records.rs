//! Every record against the bytes of Kafka's own classes, and against random ones.

use flowstone_metadata::{MetadataRecord, MetadataVersion, RecordError, records::*};
use flowstone_schema::Problem;
use proptest::prelude::*;

/// Written by `golden/Records.java`: each field holds what its name says.
const APACHE: &str = include_str!("golden/apache-4.3.1/records.txt");

fn golden() -> impl Iterator<Item = (i16, i16, Vec<u8>)> {
    APACHE.lines().map(|line| {
        let mut words = line.split(' ');
        let mut number = || words.next().unwrap().parse().unwrap();
        let (key, version) = (number(), number());
        let hex = words.next().unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (key, version, (0..hex.len()).step_by(2).map(byte).collect())
    })
}

#[test]
fn every_record_and_version_of_kafka_is_declared() {
    let ours: Vec<(i16, i16)> = MetadataRecord::TYPES
        .iter()
        .flat_map(|(key, _, max)| (0..=*max).map(|v| (*key, v)))
        .collect();
    let theirs: Vec<(i16, i16)> = golden().map(|(key, version, _)| (key, version)).collect();
    assert_eq!(ours, theirs);
    assert_eq!(MetadataRecord::TYPES.len(), 26);
}

#[test]
fn kafkas_bytes_go_there_and_back_and_each_field_is_in_its_place() {
    for (key, version, bytes) in golden() {
        let (record, told) = MetadataRecord::decode(&bytes).unwrap();
        assert_eq!((record.key(), told), (key, version));
        assert_eq!(record.encode(version).unwrap(), bytes, "{record:?}");
        check_places(&format!("{record:?}"));
    }
}

/// Walks over the debug form, `Record { field: value, .. }`, and compares each plain value with what
/// the generator put into a field of that name. What a version lacks holds its default: skipped.
fn check_places(debug: &str) {
    for part in debug.split([',', '{']) {
        let Some((name, value)) = part.split_once(": ") else { continue };
        let value = value.trim_end_matches(['}', ' ', ']', ')']).trim_start_matches("Some(");
        let value = value.trim_start_matches('[');
        let name = kafkas_name(name.trim());
        let number = 10 + name.bytes().map(u32::from).sum::<u32>() % 90;
        let absent = ["None", "false", "-1", "-2", "0", ""].contains(&value);
        let id = flowstone_types::Uuid(number.into()).to_string();
        let expected = [
            format!("{number}"),
            format!("{number}.5"),
            format!("\"{name}\""),
            format!("b\"{name}\""),
            id,
            "true".into(),
        ];
        let nested = ["UnknownTags", "BrokerEndpoint", "BrokerFeature", "EntityData"];
        let opens = nested.iter().any(|name| value.starts_with(name));
        assert!(
            absent || opens || expected.iter().any(|e| e == value),
            "{name}: {value} in {debug}"
        );
    }
}

fn kafkas_name(ours: &str) -> String {
    let mut name = String::new();
    for (index, word) in ours.split('_').enumerate() {
        let (first, rest) = word.split_at(1);
        name.push_str(&if index == 0 { first.into() } else { first.to_uppercase() });
        name.push_str(rest);
    }
    name
}

/// Reference sections 2.3 (which version at which metadata.version) and 2.6 (the exception).
#[test]
fn the_metadata_version_chooses_the_record_version() {
    let at =
        |record: MetadataRecord, name| record.version_at(MetadataVersion::from_name(name).unwrap());
    for (name, version) in [
        ("3.3-IV3", 1),
        ("3.4-IV0", 2),
        ("3.7-IV1", 2),
        ("3.7-IV2", 3),
        ("4.2-IV1", 3),
        ("4.3-IV0", 4),
    ] {
        assert_eq!(at(RegisterBrokerRecord::default().into(), name), version, "{name}");
    }
    for (name, version) in
        [("3.7-IV1", 0), ("3.7-IV2", 1), ("4.0-IV0", 1), ("4.0-IV1", 2), ("4.3", 2)]
    {
        assert_eq!(at(PartitionRecord::default().into(), name), version, "{name}");
        assert_eq!(at(PartitionChangeRecord::default().into(), name), version, "{name}");
    }
    let change = BrokerRegistrationChangeRecord { fenced: 1, ..Default::default() };
    assert_eq!(at(change.clone().into(), "4.3"), 0);
    let change = BrokerRegistrationChangeRecord { in_controlled_shutdown: 1, ..change };
    assert_eq!(at(change.clone().into(), "4.3"), 1);
    let change =
        BrokerRegistrationChangeRecord { log_dirs: vec![flowstone_types::Uuid(9)], ..change };
    assert_eq!(at(change.clone().into(), "4.3"), 2);
    let change = BrokerRegistrationChangeRecord { cordoned_log_dirs: Some(vec![]), ..change };
    assert_eq!(at(change.into(), "4.3"), 3);
    assert_eq!(at(NoOpRecord::default().into(), "3.3"), 0);
}

/// Reference section 2.3: frame version 1; trailing bytes are an error.
#[test]
fn what_is_no_record_is_refused() {
    let refused = |bytes: &[u8]| MetadataRecord::decode(bytes).unwrap_err();
    assert_eq!(refused(&[2, 20, 0, 0]), RecordError::UnknownFrame(2));
    assert_eq!(refused(&[1, 29, 0, 0]), RecordError::UnknownType(29));
    assert_eq!(refused(&[1, 0xff, 0xff, 0xff, 0x7f, 0]), RecordError::BadNumber(0x0fff_ffff));
    let problem = |bytes| match refused(bytes) {
        RecordError::Decode(error) => error.problem,
        other => panic!("{other}"),
    };
    assert_eq!(problem(&[1, 20, 1, 0]), Problem::UnknownVersion(1));
    assert_eq!(problem(&[1, 20, 0, 0, 0]), Problem::TrailingBytes(1));
    assert_eq!(problem(&[1, 20, 0]), Problem::BadVarint);
    assert_eq!(problem(&[]), Problem::BadVarint);
}

proptest! {
    #[test]
    fn random_records_go_there_and_back(seed: u64) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33 ^ state
        };
        for (key, _, newest) in MetadataRecord::TYPES {
            for version in 0..=*newest {
                let record = MetadataRecord::example(*key, version, &mut draw).unwrap();
                let bytes = record.encode(version).unwrap();
                let (read, told) = MetadataRecord::decode(&bytes).unwrap();
                prop_assert_eq!((read.encode(version).unwrap(), told), (bytes, version));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes: Vec<u8>, key in 0u8..30, version in 0u8..5) {
        bytes.splice(0..0, [1, key, version]);
        let _ = MetadataRecord::decode(&bytes);
    }
}
