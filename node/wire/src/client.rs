//! The other side: requests to bytes, and bytes to responses, for the tools and the simulator.
//!
//! Sans-io like the rest. Generic over every message that kafka-protocol has, since a tool may talk
//! to another broker than ours.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, HeaderVersion};
pub use kafka_protocol::protocol::{Message, Request};

use crate::frame::PREFIX_LEN;
use crate::response::EncodeError;

/// The whole frame of a request, length prefix included.
pub fn encode<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Bytes, EncodeError> {
    let failed = |reason: String| EncodeError { what: name::<R>(), version, reason };
    let mut buffer = BytesMut::new();
    buffer.put_i32(0); // The length, when it is known.
    buffer.put_i16(R::KEY);
    buffer.put_i16(version);
    buffer.put_i32(correlation_id);
    match client_id.map(|id| i16::try_from(id.len()).map(|length| (length, id))) {
        None => buffer.put_i16(-1),
        Some(Ok((length, id))) => {
            buffer.put_i16(length);
            buffer.put_slice(id.as_bytes());
        }
        Some(Err(_)) => return Err(failed("the client id is longer than 32 KiB".to_owned())),
    }
    if R::header_version(version) >= 2 {
        buffer.put_u8(0); // No tagged fields.
    }
    request.encode(&mut buffer, version).map_err(|error| failed(format!("{error:#}")))?;
    patch_length(&mut buffer, 0).map_err(failed)?;
    Ok(buffer.freeze())
}

/// Why bytes are no response.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} version {version}: {reason}")]
pub struct ResponseError {
    /// The message's name.
    pub what: &'static str,
    /// The version that was asked with.
    pub version: i16,
    /// What is wrong.
    pub reason: String,
}

/// The number that a response (a frame without its length prefix) carries, if it is long enough:
/// which request it answers, and so how it is to be decoded.
pub fn correlation_id(frame: &[u8]) -> Option<i32> {
    frame.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
}

/// Decodes the response (a frame without its length prefix) to an `R` that was sent in `version`.
/// The peer is trusted not to lie about counts: we chose to connect to it.
pub fn decode<R: Request>(version: i16, mut frame: Bytes) -> Result<R::Response, ResponseError> {
    let failed = |reason: String| ResponseError { what: name::<R>(), version, reason };
    if frame.len() < 4 {
        return Err(failed(format!("response of {} bytes", frame.len())));
    }
    frame.advance(4); // The correlation id, by which the caller knew the request.
    if R::Response::header_version(version) >= 1 {
        let tags = crate::shape::walk("T", &frame).map_err(|error| failed(error.to_string()))?;
        frame.advance(tags);
    }
    R::Response::decode(&mut frame, version).map_err(|error| failed(format!("{error:#}")))
}

/// The highest version that both we and a peer with this range speak, if there is one.
pub fn version_in_common<R: Request>(peer_lowest: i16, peer_highest: i16) -> Option<i16> {
    let version = peer_highest.min(R::VERSIONS.max);
    (version >= peer_lowest && version >= R::VERSIONS.min).then_some(version)
}

/// Writes the length of a frame of `buffer` and `more` bytes into the buffer's first four.
pub(crate) fn patch_length(buffer: &mut BytesMut, more: usize) -> Result<(), String> {
    let bytes = buffer.len() - PREFIX_LEN + more;
    let length = i32::try_from(bytes).map_err(|_| format!("{bytes} bytes are no frame"))?;
    buffer[..PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn name<R>() -> &'static str {
    core::any::type_name::<R>().rsplit("::").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{HeartbeatRequest, HeartbeatResponse};
    use crate::{Api, ReplyTo, RequestBody};

    #[test]
    fn both_sides_understand_each_other() {
        for version in 0..=4 {
            let mut request = HeartbeatRequest::default();
            request.generation_id = 3;
            let sent = encode(&request, version, 9, Some("tool")).unwrap();
            let got = crate::decode(sent.slice(PREFIX_LEN..)).unwrap();
            assert_eq!(got.body, RequestBody::Heartbeat(request));
            assert_eq!(got.header.client_id.as_deref(), Some("tool"));

            let mut response = HeartbeatResponse::default();
            response.error_code = 27;
            let mut parts = Vec::new();
            let reply = got.header.reply_to();
            assert_eq!(reply, ReplyTo { api: Api::Heartbeat, version, correlation_id: 9 });
            reply.encode(&response.clone().into(), &mut parts).unwrap();
            let frame = parts[0].slice(PREFIX_LEN..);
            assert_eq!(correlation_id(&frame), Some(9));
            assert_eq!(decode::<HeartbeatRequest>(version, frame), Ok(response));
        }
    }

    #[test]
    fn versions_in_common() {
        assert_eq!(version_in_common::<HeartbeatRequest>(0, 9), Some(4));
        assert_eq!(version_in_common::<HeartbeatRequest>(0, 2), Some(2));
        assert_eq!(version_in_common::<HeartbeatRequest>(5, 9), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        for frame in [&b""[..], b"\x00\x00\x00", b"\x00\x00\x00\x01", b"\x00\x00\x00\x01\x05"] {
            assert!(decode::<HeartbeatRequest>(4, Bytes::from_static(frame)).is_err());
        }
        let long = "x".repeat(40_000);
        assert!(encode(&HeartbeatRequest::default(), 0, 1, Some(&long)).is_err());
    }
}
