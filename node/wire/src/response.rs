//! From a response to the byte slices to send.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::PREFIX_LEN;
use crate::table::{Api, ResponseBody};
use crate::{client, fetch};

/// What of a request must be kept to answer it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// Which API was asked.
    pub api: Api,
    /// The version to answer in.
    pub version: i16,
    /// The client's number for the request.
    pub correlation_id: i32,
}

/// A response that cannot be written in the version it must be. This is a fault of ours (a field
/// that this version does not have, a text over 32 KiB), but a peer may steer towards it: it is
/// logged and closes the connection, not the process.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} version {version}: {reason}")]
pub struct EncodeError {
    /// The message's name.
    pub what: &'static str,
    /// The version to be written.
    pub version: i16,
    /// What kafka-protocol says.
    pub reason: String,
}

impl ReplyTo {
    /// Appends the whole frame, length prefix included, to `parts`, and says how many bytes it has.
    /// Records of a Fetch are parts of their own: slices that are counted, not copied.
    /// Nothing is appended where it fails.
    pub fn encode(self, body: &ResponseBody, parts: &mut Vec<Bytes>) -> Result<usize, EncodeError> {
        self.encode_fetch(body, Vec::new(), parts)
    }

    /// The same; the records of a Fetch response's partitions are `records`, in the order of the
    /// partitions, each in slices.
    pub fn encode_fetch(
        self,
        body: &ResponseBody,
        records: Vec<Vec<Bytes>>,
        parts: &mut Vec<Bytes>,
    ) -> Result<usize, EncodeError> {
        assert_eq!(body.api(), self.api, "a response to another request");
        let mut buffer = BytesMut::with_capacity(RESPONSE_BYTES_USUAL);
        buffer.put_i32(0); // The length, when it is known.
        buffer.put_i32(self.correlation_id);
        if self.api.response_header_version(self.version) >= 1 {
            buffer.put_u8(0); // No tagged fields.
        }
        let failed =
            |reason| EncodeError { what: self.api.row().name, version: self.version, reason };
        if let ResponseBody::Fetch(fetched) = body {
            return fetch::encode(fetched, records, self.version, buffer, parts).map_err(failed);
        }
        body.encode(self.version, &mut buffer).map_err(failed)?;
        client::patch_length(&mut buffer, 0).map_err(failed)?;
        let bytes = buffer.len();
        parts.push(buffer.freeze());
        Ok(bytes)
    }
}

/// Most responses are smaller, and so take one allocation.
const RESPONSE_BYTES_USUAL: usize = 256;

const _: () = assert!(RESPONSE_BYTES_USUAL > PREFIX_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ApiVersionsResponse, HeartbeatResponse};

    #[test]
    fn frames_carry_length_and_number() {
        let mut response = HeartbeatResponse::default();
        response.error_code = 27;
        let want = b"\x00\x00\x00\x06\x00\x00\x00\x07\x00\x1b";
        check(Api::Heartbeat, 0, &response.clone().into(), want);
        // Flexible from version 4 on: response header 1 ends with an empty list of tagged fields.
        let want = b"\x00\x00\x00\x0c\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x1b\x00";
        check(Api::Heartbeat, 4, &response.into(), want);
    }

    /// KIP-511: the response header of ApiVersions has no tagged fields in any version.
    #[test]
    fn api_versions_keeps_the_old_header() {
        let want = b"\x00\x00\x00\x0c\x00\x00\x00\x07\x00\x00\x01\x00\x00\x00\x00\x00";
        check(Api::ApiVersions, 3, &ApiVersionsResponse::default().into(), want);
    }

    #[test]
    fn what_a_version_lacks_is_an_error() {
        let mut response = crate::messages::FetchResponse::default();
        response.session_id = 9; // Since version 7.
        let reply = ReplyTo { api: Api::Fetch, version: 4, correlation_id: 7 };
        let mut parts = Vec::new();
        let failed = reply.encode(&response.into(), &mut parts).unwrap_err();
        assert_eq!((failed.what, failed.version), ("Fetch", 4));
        assert!(parts.is_empty());
    }

    fn check(api: Api, version: i16, body: &ResponseBody, want: &[u8]) {
        let mut parts = Vec::new();
        let reply = ReplyTo { api, version, correlation_id: 7 };
        assert_eq!(reply.encode(body, &mut parts), Ok(want.len()));
        assert_eq!(parts, [Bytes::copy_from_slice(want)]);
    }
}
