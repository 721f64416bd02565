//! A connection whose bytes are the scenario's own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Largest answer that a scenario has reason to expect: fetches of 1 MiB, and a batch more.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What came of bad bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A frame, without its length.
    Frame(Bytes),
    /// The broker closed the connection.
    Closed,
    /// Nothing, in all the time it had.
    Silence,
}

/// See the file.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    pub fn connect(address: SocketAddr, time_limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, time_limit)?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends these bytes as they are.
    pub fn send(&mut self, bytes: &[u8], time_limit: Duration) -> io::Result<()> {
        self.0.set_write_timeout(Some(time_limit))?;
        self.0.write_all(bytes)
    }

    /// Sends them behind the length that they have.
    pub fn send_frame(&mut self, body: &[u8], time_limit: Duration) -> io::Result<()> {
        let length = i32::try_from(body.len()).expect("a frame of a scenario is below 2 GiB");
        self.send(&[&length.to_be_bytes(), body].concat(), time_limit)
    }

    /// The next frame, without its length.
    pub fn frame(&mut self, until: Instant) -> io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.fill(&mut prefix, until)?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Err(io::Error::other(format!("a length of {length} is no answer")));
        }
        let mut frame = vec![0; length];
        self.fill(&mut frame, until)?;
        Ok(frame.into())
    }

    /// What the broker makes of what was sent.
    pub fn answer(&mut self, within: Duration) -> io::Result<Answer> {
        match self.frame(Instant::now() + within) {
            Ok(frame) => Ok(Answer::Frame(frame)),
            Err(error) => match error.kind() {
                ErrorKind::TimedOut => Ok(Answer::Silence),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Ok(Answer::Closed)
                }
                _ => Err(error),
            },
        }
    }

    /// Whether the broker closes the connection; what it still answers is passed over.
    pub fn closes(&mut self, within: Duration) -> io::Result<bool> {
        let until = Instant::now() + within;
        loop {
            match self.answer(until.saturating_duration_since(Instant::now()))? {
                Answer::Frame(_) => {}
                Answer::Closed => return Ok(true),
                Answer::Silence => return Ok(false),
            }
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) {
        let _ = self.0.shutdown(Shutdown::Write); // It is closed already, or it is now.
    }

    /// Ends the connection with a RST instead of an orderly close.
    pub fn reset(self) -> io::Result<()> {
        rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO))?;
        Ok(())
    }

    fn fill(&mut self, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.0.set_read_timeout(Some(left))?;
            match self.0.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = &mut buffer[read..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

/// A request's header, without the length before it: version 2 of it where `flexible`, else 1.
pub fn header(key: i16, version: i16, correlation_id: i32, flexible: bool) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(key.to_be_bytes());
    header.extend(version.to_be_bytes());
    header.extend(correlation_id.to_be_bytes());
    header.extend((-1_i16).to_be_bytes()); // No client id.
    if flexible {
        header.push(0); // No tagged fields.
    }
    header
}
