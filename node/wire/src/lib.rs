//! Frames, the API table and error codes: the only crate that names kafka-protocol.
//!
//! Bytes of a frame become a [`Request`]; a response becomes the byte slices to send. Everything
//! here is sans-io: no sockets, no clock, no state between calls. Three facts live here and nowhere
//! else: which APIs and versions we speak ([`Api`] and its [`Row`]s), how a request is shaped on the
//! wire, and what each error code is called ([`ErrorCode`]).
//!
//! Bytes from outside never allocate more than a small multiple of what arrived: see `shape.rs`.

mod api;
mod api_versions;
pub mod client;
mod convert;
mod error_code;
mod fetch;
pub mod frame;
#[cfg(test)]
mod hostile;
mod newest;
mod request;
mod response;
mod shape;
mod table;

pub use api::{Api, Listener, Operation, Resource, Row, RunsOn, compatibility_table};
pub use api_versions::{FinalizedFeature, SupportedFeature, VersionsAnswer, api_versions_response};
pub use convert::{string, topic_name, uuid_from_wire, uuid_to_wire};
pub use error_code::ErrorCode;
pub use kafka_protocol::messages;
pub use kafka_protocol::messages::TopicName;
pub use kafka_protocol::protocol::StrBytes;
pub use request::{DecodeError, Malformed, Request, RequestHeader, decode};
pub use response::{EncodeError, ReplyTo};
pub use shape::ELEMENTS_MAX;
pub use table::{RequestBody, ResponseBody};
/// An id as kafka-protocol's messages hold it; ours is `flowstone_types::Uuid`.
pub use uuid::Uuid;
