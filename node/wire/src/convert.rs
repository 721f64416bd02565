//! Between our words and kafka-protocol's.

use flowstone_types::Uuid;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

/// An id as kafka-protocol's messages hold it.
pub fn uuid_to_wire(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_u128(id.0)
}

/// An id as our code holds it.
pub fn uuid_from_wire(id: uuid::Uuid) -> Uuid {
    Uuid(id.as_u128())
}

/// A text as kafka-protocol's messages hold it. Copies; a text of a message is best cloned, which
/// only counts a reference.
pub fn string(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// A topic's name as kafka-protocol's messages hold it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(string(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        for id in [Uuid::ZERO, Uuid::METADATA_TOPIC, Uuid(u128::MAX - 7)] {
            assert_eq!(uuid_from_wire(uuid_to_wire(id)), id);
            assert_eq!(uuid_to_wire(id).as_bytes(), &id.to_bytes());
        }
    }
}
