//! Kafka's own requests and responses through our codec: reads what `tools/clients/kafka/Instances.java` prints from standard
//! input, and says of each instance that we read or write otherwise than Kafka's class what became of it. Then a line for
//! each kind and version seen: `KIND KEY VERSION COUNT WRITES`. With `apis` it prints what we serve: `KEY LOWEST HIGHEST`.
//!
//! Separate because the two codecs share nothing but the protocol. An instance is read as the daemon reads requests and the tools
//! read responses, and written as they write them: in its own version, and in every other one, where a field that a
//! version lacks is left out, told as its default, or refused exactly as in Kafka.

use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};

use bytes::Bytes;
use flowstone_wire::frame::PREFIX_LEN;
use flowstone_wire::{Api, ReplyTo, Request, RequestHeader, ResponseBody, StrBytes, decode};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut out = BufWriter::new(stdout().lock());
    if std::env::args().nth(1).as_deref() == Some("apis") {
        for row in Api::ALL.iter().map(|api| api.row()) {
            writeln!(out, "{} {} {}", row.api as i16, row.lowest, row.highest)?;
        }
        return Ok(out.flush()?);
    }
    let mut seen = BTreeMap::<(bool, i16, i16), (usize, usize)>::new();
    for line in stdin().lock().lines() {
        let line = line?;
        let instance = Instance::parse(&line)?;
        let (instances, writes) =
            seen.entry((instance.is_request, instance.api as i16, instance.version)).or_default();
        *instances += 1;
        *writes += instance.writes.len();
        if let Err(what) = instance.check() {
            let shown: String = line.chars().take(SHOWN).collect();
            writeln!(out, "WRONG {what}: {shown}")?;
        }
    }
    for ((is_request, key, version), (instances, writes)) in seen {
        let kind = if is_request { "request" } else { "response" };
        writeln!(out, "{kind} {key} {version} {instances} {writes}")?;
    }
    Ok(out.flush()?)
}

/// How much of a line is shown: some have a text of 32 KiB.
const SHOWN: usize = 2000;

/// A line of input.
struct Instance {
    is_request: bool,
    api: Api,
    version: i16,
    correlation_id: i32,
    client_id: Option<StrBytes>,
    frame: Bytes,
    body: Bytes,
    dropped: Bytes,
    /// By version; or why Kafka refuses.
    writes: Vec<(i16, Result<Bytes, String>)>,
}

/// A body that was read.
enum Read {
    Request(Request),
    Response(ResponseBody),
}

impl Instance {
    fn parse(line: &str) -> Result<Self, Failure> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or("the line is too short");
        let is_request = word()? == "request";
        let api = Api::from_key(word()?.parse()?).ok_or("no API of ours")?;
        let (version, correlation_id) = (word()?.parse()?, word()?.parse()?);
        let client_id = match word()?.strip_prefix('=') {
            Some(hex) => Some(StrBytes::from_utf8(bytes(hex)?)?),
            None => None,
        };
        let (frame, body, dropped) = (bytes(word()?)?, bytes(word()?)?, bytes(word()?)?);
        let mut writes = Vec::new();
        for write in words {
            let (version, body) = write.split_once('=').ok_or("no version of a write")?;
            let body = match body.strip_prefix('-') {
                Some(why) => Err(why.to_owned()),
                None => Ok(bytes(body)?),
            };
            writes.push((version.parse()?, body));
        }
        Ok(Self {
            is_request,
            api,
            version,
            correlation_id,
            client_id,
            frame,
            body,
            dropped,
            writes,
        })
    }

    fn check(&self) -> Result<(), String> {
        if !self.is_request && self.is_only_written() {
            return Ok(());
        }
        let read = self.read()?;
        let want = if self.drops_unknown_tags() { &self.dropped } else { &self.body };
        let written = self.write(&read, self.version).map_err(|why| format!("REFUSED {why}"))?;
        if written != want {
            return Err(format!("CHANGED to {written:02x?}"));
        }
        // What we wrote is Kafka's, so that its reader would read it as it read its own; so do we.
        if self.is_request {
            let Read::Request(request) = &read else { unreachable!("it is one") };
            let again = decode(request.encode().map_err(|error| error.to_string())?);
            if again.as_ref() != Ok(request) {
                return Err(format!("READ OTHERWISE as {again:?}"));
            }
        }
        for (version, want) in &self.writes {
            let written = self.write(&read, *version);
            match (want, written) {
                (Ok(want), Ok(written)) if written == want => {}
                (Err(_), Err(_)) => {}
                (Ok(_), Ok(written)) => {
                    return Err(format!("CHANGED in version {version} to {written:02x?}"));
                }
                (Ok(_), Err(why)) => return Err(format!("REFUSED in version {version}: {why}")),
                (Err(why), Ok(_)) if self.may_be_lax(why) => {}
                (Err(why), Ok(_)) => {
                    return Err(format!("NOT REFUSED in version {version}, as in Kafka: {why}"));
                }
            }
        }
        Ok(())
    }

    /// Version 5 of DescribeLogDirs is for kafka-protocol unknown; ours can be written (none of our directories is
    /// cordoned), and nobody reads it.
    fn is_only_written(&self) -> bool {
        self.api == Api::DescribeLogDirs && self.version >= 5
    }

    /// Nobody asks for them where our own reader or writer stands in for kafka-protocol's.
    fn drops_unknown_tags(&self) -> bool {
        match self.api {
            Api::OffsetCommit | Api::OffsetFetch => self.is_request && self.version >= 10,
            Api::Fetch => !self.is_request,
            _ => false,
        }
    }

    /// What we may write where Kafka refuses. A tagged field that an older version lacks is left out of a response
    /// (the daemon may then tell each client what it knows). A null that a version cannot say is not looked for by
    /// kafka-protocol: these three, the handlers keep out. And tools write requests in a version that they know.
    fn may_be_lax(&self, why: &str) -> bool {
        const LEFT_OUT: [&str; 4] =
            ["currentLeader", "divergingEpoch", "nodeEndpoints", "snapshotId"];
        let field = |name: &&str| why.contains(&format!("non-default_{name}_"));
        let null = matches!(self.api, Api::JoinGroup | Api::DeleteTopics | Api::Metadata);
        self.is_request || LEFT_OUT.iter().any(field) || null && why == "null"
    }

    fn read(&self) -> Result<Read, String> {
        if self.is_request {
            let request = decode(self.frame.clone()).map_err(|error| error.to_string())?;
            let Self { api, version, correlation_id, .. } = *self;
            let client_id = self.client_id.clone();
            let header = RequestHeader { api, version, correlation_id, client_id };
            if request.header != header {
                return Err(format!("HEADER is {:?}", request.header));
            }
            return Ok(Read::Request(request));
        }
        let (_, mut body) = split(self.frame.clone(), response_header(self.api, self.version));
        if self.drops_unknown_tags() {
            body = self.dropped.clone(); // Some of them would be kept: we send none.
        }
        let response = ResponseBody::decode(self.api, self.version, &mut body)?;
        if !body.is_empty() {
            return Err(format!("{} bytes are left", body.len()));
        }
        Ok(Read::Response(response))
    }

    /// The body as we write it in `version`; the header before it is held against Kafka's.
    fn write(&self, read: &Read, version: i16) -> Result<Bytes, String> {
        match read {
            Read::Request(request) => {
                let header = RequestHeader { version, client_id: None, ..request.header.clone() };
                let body = request.body.clone();
                let frame = Request { header, body }.encode().map_err(|error| error.to_string())?;
                Ok(split(frame, request_header(self.api, version)).1)
            }
            Read::Response(response) => {
                let (api, correlation_id) = (self.api, self.correlation_id);
                let mut parts = Vec::new();
                let reply_to = ReplyTo { api, version, correlation_id };
                let written = reply_to.encode(response, &mut parts);
                let bytes = written.map_err(|error| error.to_string())?;
                let (prefix, frame) = split(parts.concat().into(), PREFIX_LEN);
                if frame.len() + PREFIX_LEN != bytes
                    || prefix != (frame.len() as i32).to_be_bytes()[..]
                {
                    return Err(format!("PREFIX {prefix:02x?} of {} bytes", frame.len()));
                }
                let (header, body) = split(frame, response_header(api, version));
                if version == self.version && !self.frame.starts_with(&header) {
                    return Err(format!("HEADER is {header:02x?}"));
                }
                Ok(body)
            }
        }
    }
}

/// Bytes of a request's header without client id and tagged fields.
fn request_header(api: Api, version: i16) -> usize {
    8 + 2 + usize::from(api.request_header_version(version) >= 2)
}

/// Bytes of a response's header without tagged fields.
fn response_header(api: Api, version: i16) -> usize {
    4 + usize::from(api.response_header_version(version) >= 1)
}

fn split(mut bytes: Bytes, at: usize) -> (Bytes, Bytes) {
    let before = bytes.split_to(at.min(bytes.len()));
    (before, bytes)
}

fn bytes(hex: &str) -> Result<Bytes, Failure> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    digits.map(byte).collect::<Result<Vec<u8>, Failure>>().map(Bytes::from)
}
