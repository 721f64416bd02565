//! One connection: frames out and in, in versions that both sides speak.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use flowstone_wire::client::{self, Message, Request};
use flowstone_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use flowstone_wire::{ErrorCode, string};

use super::CLIENT_ID;
use crate::failure::Failure;

/// Most bytes of a response; whatever says more is no Kafka broker.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// A connection that knows what its broker speaks.
pub struct Connection {
    stream: TcpStream,
    address: String,
    correlation_id: i32,
    versions: ApiVersionsResponse,
    ranges: BTreeMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects to `address` (host:port) and learns what is spoken there.
    pub fn open(address: &str, timeout: Duration) -> Result<Self, Failure> {
        let unreachable =
            |cause: String| Failure::Unreachable { address: address.to_owned(), cause };
        let stream = connect(address, timeout).map_err(|error| unreachable(describe(&error)))?;
        let mut connection = Self {
            stream,
            address: address.to_owned(),
            correlation_id: 0,
            versions: ApiVersionsResponse::default(),
            ranges: BTreeMap::new(),
        };
        connection.negotiate()?;
        Ok(connection)
    }

    /// Where it leads, as host:port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What the broker said it speaks, features included.
    pub const fn api_versions(&self) -> &ApiVersionsResponse {
        &self.versions
    }

    /// The socket, for `bench`, which drives it itself.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Waits longer for answers than for the connection: a group's join takes as long as its members.
    pub fn wait_up_to(&self, timeout: Duration) -> Result<(), Failure> {
        let set = self.stream.set_read_timeout(Some(timeout));
        set.map_err(|error| self.lost(&describe(&error)))
    }

    /// The highest version of `R` that both sides speak.
    pub fn version<R: Request>(&self) -> Result<i16, Failure> {
        let api = name::<R>();
        let unsupported = || Failure::Unsupported { address: self.address.clone(), api };
        let (lowest, highest) = self.ranges.get(&R::KEY).ok_or_else(unsupported)?;
        client::version_in_common::<R>(*lowest, *highest).ok_or_else(unsupported)
    }

    /// Whether the broker speaks `R` at all.
    pub fn speaks<R: Request>(&self) -> bool {
        self.version::<R>().is_ok()
    }

    /// Sends a request and waits for its response. `build` is told the version.
    pub fn call<R: Request>(
        &mut self,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Failure> {
        let version = self.version::<R>()?;
        let request = build(version);
        let frame = self.exchange(&request, version)?;
        client::decode::<R>(version, frame).map_err(|error| self.lost(&error.to_string()))
    }

    /// Sends a request that gets no response (a produce with acks=0).
    pub fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), Failure> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = client::encode(request, version, self.correlation_id, Some(CLIENT_ID))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        self.stream.write_all(&frame).map_err(|error| self.lost(&describe(&error)))
    }

    fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<Bytes, Failure> {
        self.send(request, version)?;
        let frame = read_frame(&mut self.stream).map_err(|error| self.lost(&describe(&error)))?;
        if client::correlation_id(&frame) == Some(self.correlation_id) {
            Ok(frame)
        } else {
            Err(self.lost("it answered another request than was sent"))
        }
    }

    /// KIP-511: who does not know our version answers in version 0 which ones it knows.
    fn negotiate(&mut self) -> Result<(), Failure> {
        let mut version = ApiVersionsRequest::VERSIONS.max;
        loop {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request.client_software_name = string(CLIENT_ID);
                request.client_software_version = string(env!("CARGO_PKG_VERSION"));
            }
            let frame = self.exchange(&request, version)?;
            let code = frame.get(4..6).map_or(0, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
            let refused = code == ErrorCode::UnsupportedVersion as i16;
            let spoken = if refused { 0 } else { version };
            let response = client::decode::<ApiVersionsRequest>(spoken, frame)
                .map_err(|error| self.lost(&error.to_string()))?;
            if !refused {
                let what = || format!("ApiVersions of {}", self.address);
                crate::failure::check(what, response.error_code, None)?;
                self.ranges = response
                    .api_keys
                    .iter()
                    .map(|api| (api.api_key, (api.min_version, api.max_version)))
                    .collect();
                self.versions = response;
                return Ok(());
            }
            let own = response.api_keys.iter().find(|api| api.api_key == ApiVersionsRequest::KEY);
            let highest = own.map_or(0, |api| api.max_version);
            if version == 0 {
                return Err(self.lost("it refuses every version of ApiVersions"));
            }
            version = highest.clamp(0, version - 1);
        }
    }

    fn lost(&self, cause: &str) -> Failure {
        Failure::Unreachable { address: self.address.clone(), cause: cause.to_owned() }
    }
}

/// Reads one frame, without its length.
fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > RESPONSE_BYTES_MAX {
        return Err(io::Error::other("its answer is not Kafka's protocol (a TLS or HTTP port?)"));
    }
    let mut frame = Vec::new();
    stream.take(length as u64).read_to_end(&mut frame)?;
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame.into())
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it closed the connection".to_owned()
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "no answer in time (--timeout)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Kafka's name of a request, without `Request`.
fn name<R>() -> &'static str {
    let name = std::any::type_name::<R>().rsplit("::").next().unwrap_or_default();
    name.strip_suffix("Request").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn open_against(answer: &'static [u8]) -> Failure {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut some = [0; 64];
            let _ = stream.read(&mut some).unwrap();
            stream.write_all(answer).unwrap();
        });
        let failure = Connection::open(&address, Duration::from_secs(5)).err().unwrap();
        server.join().unwrap();
        failure
    }

    #[test]
    fn what_is_no_broker_is_said_so() {
        let closed = open_against(b"");
        assert!(closed.to_string().contains("closed the connection"), "{closed}");
        let http = open_against(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(http.to_string().contains("not Kafka's protocol"), "{http}");
        assert_eq!(http.status(), 3);
    }

    #[test]
    fn nobody_there_is_said_so() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let failure = Connection::open(&free, Duration::from_secs(5)).err().unwrap();
        assert!(
            failure.to_string().contains(&format!("{free} cannot be reached: connection refused"))
        );
    }
}
