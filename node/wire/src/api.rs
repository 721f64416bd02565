//! What one row of the API table says, and the Markdown made of all rows.
//!
//! The rows themselves are in `table.rs`; this file is their vocabulary.

use core::fmt::Write;

use crate::frame::UNAUTHENTICATED_BYTES_MAX;
pub use crate::table::Api;

/// What we know and promise about one API.
#[derive(Debug)]
pub struct Row {
    /// Which API.
    pub api: Api,
    /// Kafka's name of it, such as `ListOffsets`.
    pub name: &'static str,
    /// Lowest version that is served.
    pub lowest: i16,
    /// Highest version that is served, and advertised.
    pub highest: i16,
    /// Lowest version that `ApiVersions` advertises: `lowest`, except for Produce (KAFKA-18659).
    pub advertised_lowest: i16,
    /// Which kinds of listener take it.
    pub listener: Listener,
    /// Who answers it.
    pub runs_on: RunsOn,
    /// Whether it may come before authentication. Never more than
    /// [`UNAUTHENTICATED_BYTES_MAX`] then.
    pub before_authentication: bool,
    /// Largest request of this kind, in bytes; `socket.request.max.bytes` holds besides.
    pub request_bytes_max: usize,
    /// What the principal must be allowed for the resources that the request names.
    pub authorised_by: &'static [(Operation, Resource)],
    /// What it does, in a few words, for the compatibility table.
    pub about: &'static str,
    /// Body shape by version: from which version on it holds. Ascending.
    pub(crate) shapes: &'static [(i16, &'static str)],
}

/// Kinds of listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// Only where clients and brokers connect.
    Broker,
    /// There, and on the controllers' own listener.
    BrokerAndController,
}

/// Who answers a request that arrives at a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunsOn {
    /// The broker that got it.
    Broker,
    /// The active controller, to whom the broker forwards it (KIP-590).
    Controller,
}

/// What an ACL allows or denies (`AclOperation`; the numbers are Kafka's).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i8)]
#[expect(missing_docs, reason = "the names are Kafka's and say it all")]
pub enum Operation {
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
}

/// What an ACL is about (`ResourceType`; the numbers are Kafka's).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(i8)]
#[expect(missing_docs, reason = "the names are Kafka's and say it all")]
pub enum Resource {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
}

impl Row {
    /// Whether `version` is served.
    pub fn serves(&self, version: i16) -> bool {
        (self.lowest..=self.highest).contains(&version)
    }

    /// The shape of a request body of `version`, which must be served.
    pub(crate) fn shape(&self, version: i16) -> &'static str {
        assert!(self.serves(version), "{} {version} is not served", self.name);
        let (_, shape) =
            self.shapes.iter().rfind(|(since, _)| *since <= version).unwrap_or_else(|| {
                unreachable!("{} has a shape from version {} on", self.name, self.lowest)
            });
        shape
    }
}

/// The table for the README: every API we speak, its versions, and who answers it.
pub fn compatibility_table() -> String {
    let mut table =
        String::from("| Key | API | Versions | Answered by | |\n|---:|---|---|---|---|\n");
    for row in Api::ALL.iter().map(|api| api.row()) {
        let versions = if row.lowest == row.highest {
            row.lowest.to_string()
        } else {
            format!("{}-{}", row.lowest, row.highest)
        };
        let runs_on = match row.runs_on {
            RunsOn::Broker => "broker",
            RunsOn::Controller => "controller",
        };
        let (key, name, about) = (row.api as i16, row.name, row.about);
        writeln!(table, "| {key} | {name} | {versions} | {runs_on} | {about} |").expect(TEXT_GROWS);
    }
    table
}

const TEXT_GROWS: &str = "writing to a String cannot fail";

/// Requests that are a few fields: strings are at most 32 KiB each, and none has more than five.
pub(crate) const SMALL: usize = 256 * 1024;
/// Requests that list things: 100 000 partitions x 100 bytes, and room.
pub(crate) const LISTS: usize = 16 * 1024 * 1024;
/// Requests that carry records: `socket.request.max.bytes` alone decides.
pub(crate) const RECORDS: usize = i32::MAX as usize;

const _: () = assert!(SMALL <= UNAUTHENTICATED_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole() {
        let mut last = -1;
        for row in Api::ALL.iter().map(|api| api.row()) {
            let name = row.name;
            assert_eq!(Api::from_key(row.api as i16), Some(row.api));
            assert!(row.api as i16 > last, "{name}: rows ascend by key");
            last = row.api as i16;
            assert!(row.lowest <= row.highest, "{name}");
            assert!(row.advertised_lowest <= row.lowest, "{name}");
            assert!(!row.about.is_empty() && !row.about.ends_with('.'), "{name}: a phrase");
            assert_eq!(row.shapes[0].0, row.lowest, "{name}");
            assert!(row.shapes.is_sorted_by(|a, b| a.0 < b.0 && b.0 <= row.highest), "{name}");
            if row.before_authentication {
                assert!(row.request_bytes_max <= UNAUTHENTICATED_BYTES_MAX, "{name}");
            }
        }
        assert_eq!(Api::from_key(-1), None);
        assert_eq!(Api::from_key(4), None, "LeaderAndIsr is gone since Kafka 4.0");
    }

    /// KAFKA-18659: older librdkafka takes its message format from Produce v0-v2 being advertised.
    #[test]
    fn produce_is_advertised_from_zero_and_served_from_three() {
        let row = Api::Produce.row();
        assert_eq!((row.advertised_lowest, row.lowest), (0, 3));
        let others = Api::ALL.iter().filter(|api| **api != Api::Produce).map(|api| api.row());
        assert!(others.into_iter().all(|row| row.advertised_lowest == row.lowest));
    }

    #[test]
    fn the_readme_table_has_a_line_an_api() {
        let table = compatibility_table();
        assert_eq!(table.lines().count(), 2 + Api::ALL.len());
        assert!(table.contains("| 0 | Produce | 3-13 | broker |"));
    }
}
