//! `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever looks after the process.
//!
//! On a port of its own, which opens first and closes last, so that it can be seen that a node is
//! starting or stopping. One request a connection, a few connections at a time, each bounded in
//! bytes and in time.

use crate::life::Stage;
use crate::listener::bind_one;
use crate::metrics;
use crate::shard::Shard;
use crate::start::Served;
use anyhow::{Context, anyhow};
use bytes::Bytes;
use flowstone_config::{Config, server_key};
use flowstone_runtime::local::{self, Semaphore};
use flowstone_runtime::{Buffer, Connection, Listener, SocketOptions, deadline, now, sleep, spawn};
use std::cell::OnceCell;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;
use tracing::{info, warn};

/// Connections served at a time; others wait in the kernel.
const CONNECTIONS_MAX: usize = 8;
/// The largest request head.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Header lines in it.
const HEADERS_MAX: usize = 64;
/// From accept to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A failed accept is tried again after this.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// How far the node is: nothing before its first shard lives.
#[derive(Default)]
pub struct Status(OnceCell<Rc<Shard>>);

impl Status {
    /// From now on this shard says how far the node is.
    pub fn follow(&self, shard: &Rc<Shard>) {
        assert!(self.0.set(Rc::clone(shard)).is_ok(), "a node starts once");
    }
}

/// Opens `flowstone.metrics.listener`, if it is on, and answers there.
pub async fn open(
    config: &Config,
    served: Served,
) -> anyhow::Result<Option<(SocketAddr, Rc<Status>)>> {
    const KEY: &str = "flowstone.metrics.listener";
    let Some((host, port)) = &config.metrics_address else { return Ok(None) };
    let resolved = (host.as_str(), *port).to_socket_addrs();
    let mut resolved = resolved.with_context(|| format!("{KEY}: cannot resolve {host}"))?;
    let mut address = resolved.next().ok_or_else(|| anyhow!("{KEY}: {host} has no address"))?;
    let is_default = server_key(KEY).and_then(|key| key.default.text()) == config.server_text(KEY);
    let bound = if served == Served::Dev && is_default {
        match Listener::bind(address).await {
            Err(why) => {
                // Another dev node has it, most likely: no reason not to start, nor to wait.
                info!("metrics are on a free port: {address} cannot be used ({why})");
                address.set_port(0);
                Listener::bind(address).await
            }
            bound => bound,
        }
    } else {
        bind_one(address, SocketOptions::default()).await
    };
    let listener = bound.with_context(|| {
        format!(
            "cannot listen on {address} for metrics: set {KEY} to another address, or to nothing"
        )
    })?;
    let (address, status) = (listener.local_addr(), Rc::<Status>::default());
    spawn(accept(listener, Rc::clone(&status)));
    Ok(Some((address, status)))
}

async fn accept(listener: Listener, status: Rc<Status>) {
    let places = Semaphore::new(CONNECTIONS_MAX);
    loop {
        let place = places.acquire().await;
        match listener.accept().await {
            Ok(connection) => {
                let status = Rc::clone(&status);
                spawn(async move {
                    converse(connection, &status).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "could not accept a connection for metrics");
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Answers the one request of a connection, unless that takes too long.
async fn converse(connection: Connection, status: &Status) {
    let (_done, over) = local::oneshot::<()>(); // Over as soon as this function is.
    let socket = connection.clone();
    spawn(async move {
        deadline(now().after(PATIENCE), over).await;
        socket.shutdown();
    });
    let Some(asked) = request(&connection).await else { return };
    let Answer { status: line, kind, body, head_only } = match asked {
        Ok(asked) => answer(&asked, status).await,
        Err(line) => Answer::text(line, format!("{line}\n")),
    };
    let head = format!(
        "HTTP/1.1 {line}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut parts = vec![Bytes::from(head)];
    parts.extend((!head_only && !body.is_empty()).then(|| Bytes::from(body)));
    let _ = connection.send(parts).await; // Who went does not miss it.
}

struct Asked {
    method: String,
    path: String,
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
    head_only: bool,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        let kind = "text/plain; charset=utf-8";
        Self { status, kind, body: body.into(), head_only: false }
    }
}

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// The request, or the status line of a bad one; `None` where none came.
async fn request(connection: &Connection) -> Option<Result<Asked, &'static str>> {
    let mut buffer = Buffer::with_capacity(REQUEST_BYTES_MAX);
    loop {
        let received;
        (received, buffer) = connection.recv(buffer).await;
        if received.ok()? == 0 {
            return None;
        }
        match parse(&buffer) {
            Ok(None) if buffer.len() < REQUEST_BYTES_MAX => {}
            Ok(None) => return Some(Err("431 Request Header Fields Too Large")),
            Ok(Some(asked)) => return Some(Ok(asked)),
            Err(line) => return Some(Err(line)),
        }
    }
}

/// A whole request head; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Asked>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
            let method = request.method.unwrap_or_default();
            Ok(Some(Asked { method: method.to_owned(), path: path.to_owned() }))
        }
        Err(httparse::Error::TooManyHeaders) => Err("431 Request Header Fields Too Large"),
        Err(_) => Err("400 Bad Request"),
    }
}

async fn answer(asked: &Asked, status: &Status) -> Answer {
    if !matches!(asked.method.as_str(), "GET" | "HEAD") {
        return Answer::text("405 Method Not Allowed", "only GET and HEAD\n");
    }
    let shard = status.0.get();
    let stage = shard.map_or(Stage::Starting, |shard| shard.life.stage());
    let answer = match asked.path.as_str() {
        "/healthz" => Answer::text(OK, "ok\n"),
        "/readyz" => match stage {
            Stage::Ready => Answer::text(OK, "ready\n"),
            Stage::Starting => Answer::text(UNAVAILABLE, "starting\n"),
            Stage::Stopping | Stage::Ended => Answer::text(UNAVAILABLE, "stopping\n"),
        },
        "/metrics" => match shard {
            Some(shard) => Answer {
                kind: "text/plain; version=0.0.4; charset=utf-8",
                ..Answer::text(OK, metrics::exposition(shard).await)
            },
            None => Answer::text(UNAVAILABLE, "starting\n"),
        },
        _ => Answer::text("404 Not Found", "there are /metrics, /healthz and /readyz\n"),
    };
    Answer { head_only: asked.method == "HEAD", ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_far_as_we_need_them() {
        let path = |text: &str| parse(text.as_bytes()).map(|asked| asked.map(|asked| asked.path));
        assert_eq!(path("GET /metrics HTTP/1.1\r\n"), Ok(None));
        assert_eq!(
            path("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n"),
            Ok(Some("/metrics".into()))
        );
        assert_eq!(path("\x16\x03\x01\x02\r\n\r\n"), Err("400 Bad Request"));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(path(&many), Err("431 Request Header Fields Too Large"));
    }
}
