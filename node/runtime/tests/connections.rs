//! Sockets of the real back end.

mod common;

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use common::{on_one_shard, on_shards, pattern, poll_once};
use flowstone_runtime::{
    Buffer, Connection, Detached, Listener, SocketOptions, connect, deadline, mailbox, now,
    random_u64, sleep, spawn, yield_now,
};

async fn listener() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

async fn pair() -> (Connection, Connection) {
    let listener = listener().await;
    let client = connect(listener.local_addr()).await.unwrap();
    (client, listener.accept().await.unwrap())
}

fn soon() -> flowstone_types::Instant {
    now().after(Duration::from_secs(5))
}

async fn receive(connection: &Connection, want: usize) -> Vec<u8> {
    let (result, buffer) = connection.recv_exact(Buffer::with_capacity(want), want).await;
    result.unwrap();
    buffer.to_vec()
}

#[test]
fn bytes_arrive_in_order_and_then_the_end() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        assert_eq!((client.peer(), client.local()), (server.local(), server.peer()));
        let parts = vec![Bytes::from_static(b"he"), Bytes::new(), Bytes::from_static(b"llo")];
        client.send(parts).await.unwrap();
        client.send(vec![]).await.unwrap();
        let mut buffer = Buffer::with_capacity(4096);
        buffer.extend_from_slice(b"> ");
        let (result, buffer) = server.recv_exact(buffer, 6).await;
        result.unwrap();
        assert_eq!(&buffer[..], b"> hell");
        let (got, buffer) = server.recv(buffer).await;
        assert_eq!((got.unwrap(), &buffer[..]), (1, &b"> hello"[..]));
        drop(client);
        let (got, buffer) = server.recv(buffer).await;
        assert_eq!((got.unwrap(), buffer.len()), (0, 7));
        let (result, _) = server.recv_exact(buffer, 9).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn an_exact_receive_spans_many_sends() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        let want = pattern(1, 1000);
        let bytes = Bytes::from(want.clone());
        spawn(async move {
            for start in (0..1000).step_by(100) {
                client.send(vec![bytes.slice(start..start + 100)]).await.unwrap();
                sleep(Duration::from_micros(300)).await;
            }
        });
        assert_eq!(receive(&server, 1000).await, want);
    });
}

#[test]
fn a_large_message_of_many_parts_passes_a_small_window() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        // More parts than one submission takes (1024), and far more bytes than a socket buffers.
        let parts: Vec<_> = (0..5000).map(|i| Bytes::from(pattern(i, 4001))).collect();
        let want = parts.concat();
        let len = want.len();
        spawn(async move { client.send(parts).await.unwrap() });
        sleep(Duration::from_millis(5)).await; // Let it run into a full window.
        assert!(receive(&server, len).await == want);
    });
}

/// `socket.send.buffer.bytes`: what is asked for holds for the connections that are accepted.
#[test]
fn a_send_buffer_is_as_small_as_asked_for() {
    on_one_shard(|| async {
        for (send_buffer_bytes, fits) in [(None, true), (Some(16 << 10), false)] {
            let options = SocketOptions { send_buffer_bytes, ..SocketOptions::default() };
            let listener = Listener::bind_with("127.0.0.1:0".parse().unwrap(), options).await;
            let listener = listener.unwrap();
            let client = connect(listener.local_addr()).await.unwrap();
            let server = listener.accept().await.unwrap();
            let (tell, mut sent) = mailbox(1);
            spawn(async move {
                let result = server.send(vec![Bytes::from(pattern(1, 1 << 20))]).await;
                tell.send(result.is_ok()).unwrap();
            });
            // Nobody reads: what is sent now lies in the two sockets.
            let patience = Duration::from_millis(if fits { 5_000 } else { 100 });
            let whole = deadline(now().after(patience), sent.recv()).await;
            assert_eq!(whole.is_some(), fits, "{send_buffer_bytes:?}");
            drop(client);
        }
    });
}

/// So that a receive can end where a request does.
#[test]
fn what_is_beyond_is_left_to_the_next_receive() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        client.send(vec![Bytes::from_static(b"requestrest")]).await.unwrap();
        let mut buffer = Buffer::with_capacity(4096);
        while buffer.len() < 7 {
            let (got, filled) = server.recv_upto(buffer, 7).await;
            assert!(got.unwrap() > 0);
            buffer = filled;
        }
        assert_eq!(&buffer[..], b"request");
        let (got, rest) = server.recv_exact(Buffer::with_capacity(4096), 4).await;
        assert!(got.is_ok());
        assert_eq!(&rest[..], b"rest");
    });
}

#[test]
fn shutdown_ends_what_waits() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        let (tell, mut told) = mailbox(1);
        let reader = server.clone();
        spawn(async move {
            let (got, _) = reader.recv(Buffer::with_capacity(4096)).await;
            tell.send(got.unwrap_err().kind()).unwrap();
        });
        yield_now().await;
        server.shutdown();
        assert_eq!(deadline(soon(), told.recv()).await, Some(ErrorKind::NotConnected));
        let (got, _) = server.recv(Buffer::with_capacity(4096)).await;
        assert_eq!(got.unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(server.send(vec![Bytes::from_static(b"x")]).await.is_err());
        let (got, _) = client.recv(Buffer::with_capacity(4096)).await;
        assert_eq!(got.unwrap(), 0, "the peer sees the end");
    });
}

#[test]
fn a_refused_connection_is_an_error() {
    on_one_shard(|| async {
        let gone = listener().await.local_addr();
        let error = connect(gone).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let listener = listener().await;
        let error = Listener::bind(listener.local_addr()).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn ipv6_works_where_the_machine_has_it() {
    on_one_shard(|| async {
        let Ok(listener) = Listener::bind("[::1]:0".parse().unwrap()).await else {
            eprintln!("skipped: no IPv6 here");
            return;
        };
        let client = connect(listener.local_addr()).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().peer(), client.local());
    });
}

/// A receive whose future is gone must not write into memory that someone else got since.
#[test]
fn a_dropped_receive_keeps_its_buffer_until_the_kernel_lets_go() {
    on_one_shard(|| async {
        let (client, server) = pair().await;
        for _ in 0..100 {
            let buffer = Buffer::with_capacity(4096);
            let place = buffer.as_ptr();
            assert!(poll_once(pin!(server.recv(buffer))).await.is_none());
            let other = Buffer::with_capacity(4096); // The pool gives out what came back last.
            assert_ne!(other.as_ptr(), place, "the kernel may still write there");
        }
        sleep(Duration::from_millis(1)).await; // The cancellations go out.
        client.send(vec![Bytes::from_static(b"still works")]).await.unwrap();
        assert_eq!(receive(&server, 11).await, b"still works");
        server.detach(); // No operation holds the socket any more.
    });
}

#[test]
fn a_dropped_accept_takes_no_connection_with_it() {
    on_one_shard(|| async {
        let listener = listener().await;
        for _ in 0..10 {
            assert!(poll_once(pin!(listener.accept())).await.is_none());
        }
        sleep(Duration::from_millis(1)).await;
        let client = connect(listener.local_addr()).await.unwrap();
        let server = deadline(soon(), listener.accept()).await.unwrap().unwrap();
        assert_eq!(server.peer(), client.local());
    });
}

/// A connection moves between shards a hundred times while its client keeps asking.
#[test]
fn a_connection_moves_from_shard_to_shard() {
    let (to_first, first) = mailbox::<Detached>(1);
    let (to_second, second) = mailbox::<Detached>(1);
    let boxes = std::sync::Arc::new(std::sync::Mutex::new([Some(first), Some(second)]));
    on_shards(2, move |index| {
        let own = boxes.lock().unwrap()[index].take().unwrap();
        let next = [to_second.clone(), to_first.clone()][index].clone();
        async move {
            let mut own = own;
            let (tell_end, mut end) = mailbox(1);
            if index == 0 {
                let listener = listener().await;
                let address = listener.local_addr();
                spawn(async move {
                    client(address).await;
                    tell_end.send(()).unwrap();
                });
                next.send(listener.accept().await.unwrap().detach()).ok().unwrap();
            }
            for _ in 0..50 {
                let connection = own.recv().await.attach();
                for _ in 0..3 {
                    let bytes = receive(&connection, 3000).await;
                    connection.send(vec![Bytes::from(bytes)]).await.unwrap();
                }
                next.send(connection.detach()).ok().unwrap();
            }
            if index == 0 {
                end.recv().await;
            }
        }
    });

    async fn client(address: std::net::SocketAddr) {
        let connection = connect(address).await.unwrap();
        for round in 0..300 {
            let want = pattern(round, 3000);
            connection.send(vec![Bytes::from(want.clone())]).await.unwrap();
            assert_eq!(receive(&connection, 3000).await, want);
        }
    }
}

/// 24 connections over two shards, messages of any size up to 900 KB, sent in pieces, reconnecting,
/// every byte checked.
#[test]
fn soak() {
    let (tell_address, address) = std::sync::mpsc::channel();
    let (tell_end, end) = mailbox(1);
    let received = std::sync::Arc::new(std::sync::Mutex::new((address, Some(end))));
    on_shards(2, move |index| {
        let (tell_address, tell_end) = (tell_address.clone(), tell_end.clone());
        let received = received.clone();
        async move {
            if index == 0 {
                let mut end = received.lock().unwrap().1.take().unwrap();
                let listener = listener().await;
                tell_address.send(listener.local_addr()).unwrap();
                for _ in 0..24 * 3 {
                    let connection = listener.accept().await.unwrap();
                    spawn(async move { echo(connection).await });
                }
                end.recv().await;
                return;
            }
            let address = loop {
                if let Ok(address) = received.lock().unwrap().0.try_recv() {
                    break address;
                }
                yield_now().await;
            };
            let (done, mut all_done) = mailbox(24);
            for _ in 0..24 {
                let done = done.clone();
                spawn(async move {
                    for _ in 0..3 {
                        converse(&connect(address).await.unwrap()).await;
                    }
                    done.send(()).unwrap();
                });
            }
            for _ in 0..24 {
                all_done.recv().await;
            }
            tell_end.send(()).unwrap();
        }
    });

    async fn echo(connection: Connection) {
        loop {
            let header = Buffer::with_capacity(8);
            let (Ok(()), header) = connection.recv_exact(header, 8).await else { return };
            let len = u64::from_le_bytes(header[..].try_into().unwrap()) as usize;
            let (result, body) = connection.recv_exact(Buffer::with_capacity(len), len).await;
            result.unwrap();
            connection.send(vec![header.freeze(), body.freeze()]).await.unwrap();
        }
    }

    async fn converse(connection: &Connection) {
        for _ in 0..8 {
            let seed = random_u64();
            let len = (1 << (seed % 20)) + seed as usize % 400_000 / (1 + seed as usize % 30);
            let body = Bytes::from(pattern(seed, len));
            let cut = seed as usize % len;
            let header = Bytes::from((len as u64).to_le_bytes().to_vec());
            connection.send(vec![header]).await.unwrap();
            connection.send(vec![body.slice(..cut)]).await.unwrap();
            yield_now().await;
            connection.send(vec![body.slice(cut..)]).await.unwrap();
            let answer = receive(connection, 8 + len).await;
            assert!(answer[8..] == body[..], "seed {seed}");
        }
    }
}
