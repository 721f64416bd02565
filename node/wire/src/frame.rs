//! The length in front of every frame: what it may say before we believe it.
//!
//! Separate because the daemon, the tools and the simulator read frames from different things, but
//! must refuse the same ones. A frame is an `i32` length, then exactly that many bytes.

use crate::Api;

/// Bytes of the length prefix.
pub const PREFIX_LEN: usize = 4;

/// Bytes of a request that must have arrived before its own limit is known: the length prefix's
/// successors `api_key` and `api_version`, and the correlation id.
pub const FIXED_HEADER_LEN: usize = 8;

/// Largest request before a connection is authenticated, as Kafka's
/// `sasl.server.max.receive.size`: who has not said its name may not make us hold 100 MiB.
pub const UNAUTHENTICATED_BYTES_MAX: usize = 512 * 1024;

/// A length that no request of ours has; the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Zero, negative, or shorter than the fixed part of a header.
    #[error("frame of {length} bytes: a request has at least {FIXED_HEADER_LEN}")]
    TooShort {
        /// What the prefix said.
        length: i32,
    },
    /// More than `limit`.
    #[error("frame of {length} bytes: at most {limit} are taken here")]
    TooLarge {
        /// What the prefix said.
        length: i32,
        /// `socket.request.max.bytes`, or less before authentication, or the API's own limit.
        limit: usize,
    },
    /// The first bytes are another protocol's.
    #[error("these bytes look like {protocol}, not like Kafka's protocol on a plaintext listener")]
    Foreign {
        /// Which protocol.
        protocol: &'static str,
    },
}

/// How many bytes follow this prefix. `limit` is what this connection may send in one request.
pub fn body_len(prefix: [u8; PREFIX_LEN], limit: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    let bytes = usize::try_from(length).map_err(|_| FrameError::TooShort { length })?;
    if bytes > limit {
        return Err(match foreign(prefix) {
            Some(protocol) => FrameError::Foreign { protocol },
            None => FrameError::TooLarge { length, limit },
        });
    }
    if bytes < FIXED_HEADER_LEN {
        return Err(FrameError::TooShort { length });
    }
    Ok(bytes)
}

/// Holds a request of `bytes` bytes against its API's own limit, once the first bytes of its header
/// are here and before memory is taken for the rest. An unknown API passes: [`crate::decode`] names it.
pub fn check_api_limit(header: [u8; 2], bytes: usize) -> Result<(), FrameError> {
    match Api::from_key(i16::from_be_bytes(header)).map(|api| api.row().request_bytes_max) {
        Some(limit) if bytes > limit => Err(FrameError::TooLarge { length: bytes as i32, limit }),
        _ => Ok(()),
    }
}

/// What people send by mistake to a plaintext listener, for a log line that says so.
fn foreign(prefix: [u8; PREFIX_LEN]) -> Option<&'static str> {
    match &prefix {
        [0x16, 0x03, ..] => Some("a TLS hello"),
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"PATC" | b"CONN" => {
            Some("an HTTP request")
        }
        b"PRI " => Some("an HTTP/2 preface"),
        b"SSH-" => Some("an SSH greeting"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 104_857_600;

    #[test]
    fn lengths_are_believed_only_in_range() {
        assert_eq!(body_len(8i32.to_be_bytes(), LIMIT), Ok(8));
        assert_eq!(body_len((LIMIT as i32).to_be_bytes(), LIMIT), Ok(LIMIT));
        for length in [0, 1, 7, -1, i32::MIN] {
            let refused = body_len(length.to_be_bytes(), LIMIT);
            assert_eq!(refused, Err(FrameError::TooShort { length }));
        }
        for length in [LIMIT as i32 + 1, i32::MAX] {
            let refused = body_len(length.to_be_bytes(), LIMIT);
            assert_eq!(refused, Err(FrameError::TooLarge { length, limit: LIMIT }));
        }
    }

    #[test]
    fn other_protocols_are_named() {
        for (prefix, name) in [
            (*b"GET ", "an HTTP request"),
            ([0x16, 3, 1, 2], "a TLS hello"),
            (*b"PRI ", "an HTTP/2 preface"),
        ] {
            assert_eq!(body_len(prefix, LIMIT), Err(FrameError::Foreign { protocol: name }));
        }
    }

    #[test]
    fn an_api_has_its_own_limit() {
        let heartbeat = (Api::Heartbeat as i16).to_be_bytes();
        let limit = Api::Heartbeat.row().request_bytes_max;
        assert_eq!(check_api_limit(heartbeat, limit), Ok(()));
        assert!(check_api_limit(heartbeat, limit + 1).is_err());
        assert_eq!(check_api_limit((Api::Produce as i16).to_be_bytes(), LIMIT), Ok(()));
        assert_eq!(check_api_limit(999i16.to_be_bytes(), LIMIT), Ok(()));
    }
}
