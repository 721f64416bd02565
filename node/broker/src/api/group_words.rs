//! Between the words of Kafka's group messages and those of node/coordinators.

use crate::shard::Shard;
use flowstone_coordinators::{Error, Text, wire_code};
use flowstone_types::PartitionId;
use flowstone_wire::messages::GroupId;
use flowstone_wire::{ErrorCode, StrBytes, string};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

/// A text of a request; copied, since a slice would keep the frame that it came in.
pub fn text(text: &StrBytes) -> Text {
    Text::from(&**text)
}

/// The same, where it may be missing.
pub fn optional(text: Option<&StrBytes>) -> Option<Text> {
    text.map(self::text)
}

/// A text of a response.
pub fn wire(text: &Text) -> StrBytes {
    string(&**text)
}

/// A group's id in a response.
pub fn group_id(group: &Text) -> GroupId {
    GroupId(wire(group))
}

/// The code of an error, or of none.
pub fn code(error: Option<Error>) -> i16 {
    error.map_or(ErrorCode::None as i16, wire_code)
}

/// A client's address as Java prints an `InetAddress` that was never looked up: a slash, and no
/// abbreviation of zeros.
pub fn host(address: IpAddr) -> Text {
    match address.to_canonical() {
        IpAddr::V4(address) => Text::from(format!("/{address}")),
        IpAddr::V6(address) => {
            let parts = address.segments().map(|part| format!("{part:x}"));
            Text::from(format!("/{}", parts.join(":")))
        }
    }
}

/// The groups of a request by the partition that each belongs to, once each; `Err` with all of them
/// until `__consumer_offsets` exists.
pub fn by_partition(
    shard: &Shard,
    groups: &[GroupId],
) -> Result<BTreeMap<PartitionId, Vec<Text>>, Vec<Text>> {
    let mut seen = HashSet::new();
    let groups = groups.iter().map(|group| text(group));
    let groups: Vec<Text> = groups.filter(|group| seen.insert(Text::clone(group))).collect();
    let mut by_partition: BTreeMap<_, Vec<Text>> = BTreeMap::new();
    for group in &groups {
        let Some(id) = shard.group_partition(group) else { return Err(groups) };
        by_partition.entry(id).or_default().push(Text::clone(group));
    }
    Ok(by_partition)
}

/// A cluster with one topic, for the tests of the APIs that ask whether a topic exists.
#[cfg(test)]
pub fn image_with(name: &str, partitions: i32) -> flowstone_metadata::Image {
    use flowstone_metadata::records::TopicRecord;
    use flowstone_metadata::{Delta, Image, MetadataRecord, MetadataVersion, Partition};
    use flowstone_types::{NodeId, Uuid};
    let topic = Uuid(7);
    let record = TopicRecord { name: name.to_owned(), topic_id: topic, ..TopicRecord::default() };
    let mut records: Vec<MetadataRecord> = vec![record.into()];
    for index in 0..partitions {
        let partition = Partition::new(vec![NodeId(1)], vec![Uuid(1)], vec![NodeId(1)]);
        let id = PartitionId { topic, index };
        records.push(partition.to_record(id, MetadataVersion::LATEST).into());
    }
    let mut image = Image::default();
    for record in records {
        image.apply(record, &mut Delta::default()).expect("the records are right");
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_printed_as_java_does() {
        for (address, want) in [
            ("192.0.2.7", "/192.0.2.7"),
            ("::1", "/0:0:0:0:0:0:0:1"),
            ("2001:db8::a", "/2001:db8:0:0:0:0:0:a"),
            ("::ffff:192.0.2.7", "/192.0.2.7"),
        ] {
            assert_eq!(&*host(address.parse().unwrap()), want);
        }
    }

    #[test]
    fn no_error_is_code_zero() {
        assert_eq!(code(None), 0);
        assert_eq!(code(Some(Error::NotCoordinator)), ErrorCode::NotCoordinator as i16);
    }
}
