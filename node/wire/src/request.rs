//! From the bytes of a frame to a request.
//!
//! Separate from the response side: what is refused here closes the connection, since a peer that
//! cannot frame a request cannot read an error either. `ApiVersions` of an unknown version is the one
//! exception (KIP-511).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;

use crate::frame::FIXED_HEADER_LEN;
use crate::response::{EncodeError, ReplyTo};
use crate::table::{Api, RequestBody};
use crate::{messages, shape};

/// One request.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Who asks, in which version, under which number.
    pub header: RequestHeader,
    /// What is asked. Records of a Produce are slices of the frame, not copies.
    pub body: RequestBody,
}

/// The header of a request whose API is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// Which API.
    pub api: Api,
    /// In which version. Served, except with `ApiVersions`, where any may be asked for.
    pub version: i16,
    /// The client's number for this request; its response carries it.
    pub correlation_id: i32,
    /// `client.id`, where the client gave one.
    pub client_id: Option<StrBytes>,
}

impl RequestHeader {
    /// What the response must be encoded for.
    pub fn reply_to(&self) -> ReplyTo {
        // KIP-511: who asks ApiVersions in a version we do not know is answered in version 0.
        let version = if self.api.row().serves(self.version) { self.version } else { 0 };
        ReplyTo { api: self.api, version, correlation_id: self.correlation_id }
    }
}

impl Request {
    /// The frame that this request came in, without its length prefix and without tagged fields in its
    /// header: for tools that hold our codec against another.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let RequestHeader { api, version, correlation_id, client_id } = &self.header;
        let failed = |reason| EncodeError { what: api.row().name, version: *version, reason };
        let mut frame = BytesMut::new();
        frame.put_i16(*api as i16);
        frame.put_i16(*version);
        frame.put_i32(*correlation_id);
        match client_id {
            None => frame.put_i16(-1),
            Some(id) => {
                let length = i16::try_from(id.len()).map_err(|error| failed(error.to_string()))?;
                frame.put_i16(length);
                frame.put_slice(id.as_bytes());
            }
        }
        if api.request_header_version(*version) >= 2 {
            frame.put_u8(0);
        }
        self.body.encode(*version, &mut frame).map_err(failed)?;
        Ok(frame.freeze())
    }
}

/// Bytes that are no request of ours. The connection is to be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends within the header.
    #[error("request of {bytes} bytes ends within its header")]
    NoHeader {
        /// Length of the frame.
        bytes: usize,
    },
    /// No API of ours has this key.
    #[error("unknown API key {key} (version {version})")]
    UnknownApi {
        /// The key asked for.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// We do not serve this version.
    #[error("{api:?} version {version} is not served")]
    UnsupportedVersion {
        /// The API asked for.
        api: Api,
        /// The version asked for.
        version: i16,
    },
    /// The API is ours, its bytes are not.
    #[error("{api:?} version {version}: {reason}")]
    Malformed {
        /// The API asked for.
        api: Api,
        /// The version asked for.
        version: i16,
        /// What is wrong.
        reason: Malformed,
    },
}

/// What is wrong with a header or body.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// A field goes on after the last byte.
    #[error("the bytes end within a field")]
    Truncated,
    /// A length or count below -1, which stands for null.
    #[error("a length or count of {length}")]
    Negative {
        /// What was read.
        length: i32,
    },
    /// An array that claims more elements than there are bytes.
    #[error("an array of {claimed} elements with {bytes_left} bytes left")]
    Count {
        /// What was read.
        claimed: usize,
        /// What is there.
        bytes_left: usize,
    },
    /// More elements and tagged fields than [`shape::ELEMENTS_MAX`].
    #[error("more than {} array elements and tagged fields", shape::ELEMENTS_MAX)]
    TooManyElements,
    /// A varint of more than 32 bits.
    #[error("a varint of more than 32 bits")]
    Varint,
    /// A tagged field that is not as long as it says.
    #[error("tagged field {tag} is not of the size it claims")]
    TagSize {
        /// Its tag.
        tag: u32,
    },
    /// Text that is not UTF-8.
    #[error("the client id is not UTF-8")]
    ClientId,
    /// What the decoder found: a null where none may be, text that is not UTF-8.
    #[error("{0}")]
    Field(String),
}

/// Decodes a frame, without its length prefix. Allocates no more than a small multiple of it.
pub fn decode(frame: Bytes) -> Result<Request, DecodeError> {
    if frame.len() < FIXED_HEADER_LEN {
        return Err(DecodeError::NoHeader { bytes: frame.len() });
    }
    let mut rest = frame;
    let (key, version, correlation_id) = (rest.get_i16(), rest.get_i16(), rest.get_i32());
    let Some(api) = Api::from_key(key) else {
        return Err(DecodeError::UnknownApi { key, version });
    };
    if !api.row().serves(version) {
        if api != Api::ApiVersions {
            return Err(DecodeError::UnsupportedVersion { api, version });
        }
        // KIP-511. What follows may have any form in that version; nothing of it is needed.
        let header = RequestHeader { api, version, correlation_id, client_id: None };
        let body = RequestBody::ApiVersions(messages::ApiVersionsRequest::default());
        return Ok(Request { header, body });
    }
    let malformed = |reason| DecodeError::Malformed { api, version, reason };
    let client_id = client_id(&mut rest, api.request_header_version(version)).map_err(malformed)?;
    shape::walk(api.row().shape(version), &rest).map_err(malformed)?;
    let body = RequestBody::decode(api, version, &mut rest);
    let body = body.map_err(|error| malformed(Malformed::Field(error)))?;
    Ok(Request { header: RequestHeader { api, version, correlation_id, client_id }, body })
}

/// The end of the header: `client_id`, never compact, and from header version 2 on tagged fields.
fn client_id(rest: &mut Bytes, header_version: i16) -> Result<Option<StrBytes>, Malformed> {
    let length = shape::walk(if header_version >= 2 { "sT" } else { "s" }, rest)?;
    let mut header = rest.split_to(length);
    match usize::try_from(header.get_i16()) {
        Ok(bytes) => {
            let text = StrBytes::from_utf8(header.split_to(bytes));
            text.map(Some).map_err(|_| Malformed::ClientId)
        }
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_kafka_writes_them() {
        // Kafka's protocol guide: header v1 is key, version, correlation id, client id.
        let v1 = frame(12, 0, b"\x00\x02me", b"\x00\x01g\x00\x00\x00\x07\x00\x01m");
        let request = decode(v1).unwrap();
        assert_eq!(request.header.client_id.as_deref(), Some("me"));
        let RequestBody::Heartbeat(heartbeat) = request.body else { panic!() };
        assert_eq!((heartbeat.generation_id, &*heartbeat.member_id), (7, "m"));
        // Header v2 has tagged fields after the same, not compact, client id.
        let v2 = frame(12, 4, b"\x00\x02me\x01\x05\x01x", b"\x02g\x00\x00\x00\x07\x02m\x00\x00");
        assert_eq!(decode(v2).unwrap().header.client_id.as_deref(), Some("me"));
        let null = frame(12, 0, b"\xff\xff", b"\x00\x01g\x00\x00\x00\x07\x00\x01m");
        assert_eq!(decode(null).unwrap().header.client_id, None);
    }

    #[test]
    fn unknown_keys_and_versions_are_refused() {
        let unknown = DecodeError::UnknownApi { key: 4, version: 1 };
        assert_eq!(decode(frame(4, 1, b"", b"")), Err(unknown));
        for version in [-1, 5, i16::MAX] {
            let refused = DecodeError::UnsupportedVersion { api: Api::Heartbeat, version };
            assert_eq!(decode(frame(12, version, b"", b"")), Err(refused));
        }
        // Advertised from 0, but Kafka 4 refuses what is below 3.
        let refused = DecodeError::UnsupportedVersion { api: Api::Produce, version: 2 };
        assert_eq!(decode(frame(0, 2, b"", b"")), Err(refused));
        assert_eq!(decode(Bytes::from_static(b"1234567")), Err(DecodeError::NoHeader { bytes: 7 }));
    }

    /// KIP-511: "if the broker does not support the version, it answers with version 0".
    #[test]
    fn api_versions_is_understood_in_any_version() {
        for version in [5, 77, -3] {
            let request = decode(frame(18, version, b"", b"")).unwrap();
            assert_eq!(request.header.version, version);
            assert_eq!(request.header.reply_to().version, 0);
        }
    }

    #[test]
    fn a_bad_client_id_is_malformed() {
        for (id, reason) in [
            (&b"\x00\x02\xff\xff"[..], Malformed::ClientId),
            (b"\x7f\xff", Malformed::Truncated),
            (b"\x80\x00", Malformed::Negative { length: -32768 }),
        ] {
            let refused = DecodeError::Malformed { api: Api::ListGroups, version: 0, reason };
            assert_eq!(decode(frame(16, 0, id, b"")), Err(refused));
        }
    }

    #[test]
    fn records_are_slices_of_the_frame() {
        let records = vec![7u8; 5000];
        for version in 3..=13 {
            let mut data = messages::produce_request::PartitionProduceData::default();
            data.records = Some(Bytes::from(records.clone()));
            let mut topic = messages::produce_request::TopicProduceData::default();
            topic.partition_data.push(data);
            let mut produce = messages::ProduceRequest::default();
            produce.topic_data.push(topic);
            let sent = crate::client::encode(&produce, version, 1, None).unwrap();
            let frame = sent.slice(4..);
            let inside = frame.as_ptr_range();
            let RequestBody::Produce(got) = decode(frame).unwrap().body else { panic!() };
            let got = got.topic_data[0].partition_data[0].records.clone().unwrap();
            assert_eq!(got, records);
            assert!(inside.contains(&got.as_ptr()), "version {version} copied the records");
        }
    }

    fn frame(key: i16, version: i16, client_id: &[u8], body: &[u8]) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_slice(client_id);
        frame.put_slice(body);
        frame.freeze()
    }
}
