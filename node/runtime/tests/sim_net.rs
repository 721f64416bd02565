//! The simulated network through the crate's own surface: bytes in order and whole, or an error.
#![cfg(feature = "sim")]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_runtime::sim::{MachineId, NetFaults, World};
use flowstone_runtime::{
    Buffer, Connection, Detached, Listener, connect, local, mailbox, now, random_u64, sleep, spawn,
};

struct Pair {
    world: World,
    server: MachineId,
    client: MachineId,
    address: SocketAddr,
}

fn pair(seed: u64, faults: NetFaults) -> Pair {
    let world = World::new(seed);
    let (server, client) = (world.machine("server"), world.machine("client"));
    world.set_net_faults(faults);
    let address = SocketAddr::new(world.address(server), 9092);
    Pair { world, server, client, address }
}

impl Pair {
    /// Runs `serve` for the first connection and `ask` at the other end, until `ask` is done.
    fn run<S, C, T: 'static>(
        &self,
        serve: impl FnOnce(Connection) -> S + 'static,
        ask: impl FnOnce(Connection) -> C + 'static,
    ) -> T
    where
        S: Future<Output = ()> + 'static,
        C: Future<Output = T> + 'static,
    {
        let (address, (sender, receiver)) = (self.address, local::oneshot());
        self.world.spawn_on(self.server, async move {
            let listener = Listener::bind(address).await.unwrap();
            serve(listener.accept().await.unwrap()).await;
        });
        self.world.spawn_on(self.client, async move {
            sleep(Duration::from_millis(1)).await;
            let connection = connect(address).await.unwrap();
            drop(sender.send(ask(connection).await));
        });
        self.world.run(receiver).unwrap()
    }
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|index| (index * 31 % 251) as u8).collect::<Vec<_>>().into()
}

async fn drain(connection: Connection) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    loop {
        let (result, buffer) = connection.recv(Buffer::with_capacity(50_000)).await;
        all.extend_from_slice(&buffer);
        match result {
            Ok(0) => return (all, Ok(())),
            Ok(count) => assert_eq!(count, buffer.len()),
            Err(e) => return (all, Err(e)),
        }
    }
}

#[test]
fn bytes_arrive_in_order_and_whole() {
    for seed in 0..50 {
        let faults = NetFaults { split: 0.5, slow: 0.05, ..NetFaults::default() };
        let pair = pair(seed, faults);
        let sent = pattern(1_000_000);
        let parts = vec![sent.slice(..3), sent.slice(3..3), sent.slice(3..700_000)];
        let rest = sent.slice(700_000..);
        let (got, end) = pair.run(
            |connection| async move {
                connection.send(parts).await.unwrap();
                connection.send(vec![rest]).await.unwrap();
            },
            drain,
        );
        assert!(end.is_ok() && got == sent, "seed {seed}: {} bytes, {end:?}", got.len());
    }
}

#[test]
fn a_sender_waits_for_the_receiver() {
    let pair = pair(1, NetFaults::default());
    pair.run(
        |connection| async move {
            let before = now();
            connection.send(vec![pattern(2_000_000)]).await.unwrap();
            assert!(now().since(before) >= Duration::from_secs(9), "its window was full");
        },
        |connection| async move {
            sleep(Duration::from_secs(10)).await;
            assert_eq!(drain(connection).await.0.len(), 2_000_000);
        },
    );
}

#[test]
fn exactly_what_was_asked_for() {
    let pair = pair(2, NetFaults { split: 0.9, ..NetFaults::default() });
    pair.run(
        |connection| async move { connection.send(vec![pattern(105)]).await.unwrap() },
        |connection| async move {
            let (result, buffer) = connection.recv_exact(Buffer::with_capacity(100), 100).await;
            assert!(result.is_ok() && buffer[..] == pattern(100));
            let (result, buffer) = connection.recv_exact(Buffer::with_capacity(100), 50).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(buffer.len(), 5);
        },
    );
}

#[test]
fn a_shutdown_ends_what_is_pending() {
    let pair = pair(3, NetFaults::default());
    pair.run(
        |connection| async move { assert!(drain(connection).await.1.is_ok()) },
        |connection| async move {
            let reader = connection.clone();
            let (sender, receiver) = local::oneshot();
            spawn(async move { drop(sender.send(drain(reader).await.1)) });
            sleep(Duration::from_secs(1)).await;
            connection.shutdown();
            assert!(receiver.await.unwrap().is_err());
            assert!(connection.send(vec![pattern(1)]).await.is_err());
        },
    );
}

#[test]
fn the_kernel_closes_what_a_killed_process_had() {
    let pair = pair(4, NetFaults::default());
    let (control, server) = (pair.world.control(), pair.server);
    let (_, end) = pair.run(
        |connection| async move { drop(drain(connection).await) },
        move |connection| async move {
            control.crash(server);
            drain(connection).await
        },
    );
    assert!(end.is_ok());
    assert_eq!(pair.world.open_handles(server), (0, 0));
}

#[test]
fn a_machine_without_power_says_nothing() {
    let pair = pair(5, NetFaults::default());
    let (control, server, address) = (pair.world.control(), pair.server, pair.address);
    pair.run(
        |connection| async move { drop(drain(connection).await) },
        move |connection| async move {
            control.power_loss(server);
            let before = now();
            connection.send(vec![pattern(10)]).await.unwrap(); // Into the send buffer.
            let (_, end) = drain(connection).await;
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(now().since(before) >= Duration::from_secs(20));
            let error = connect(address).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            control.power_on(server);
            let error = connect(address).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        },
    );
}

#[test]
fn connections_break_by_chance_and_one_end_may_not_know() {
    let reset = NetFaults { reset: 0.1, ..NetFaults::default() };
    let silent = NetFaults { silence: 0.1, ..NetFaults::default() };
    for (faults, kind) in
        [(reset, io::ErrorKind::ConnectionReset), (silent, io::ErrorKind::TimedOut)]
    {
        let pair = pair(6, faults);
        let result = pair.run(
            |connection| async move { drop(drain(connection).await) },
            |connection| async move {
                loop {
                    if let Err(e) = connection.send(vec![pattern(1_000)]).await {
                        return e.kind();
                    }
                    sleep(Duration::from_secs(1)).await;
                }
            },
        );
        assert_eq!(result, kind);
    }
}

#[test]
fn a_cut_path_holds_bytes_until_it_is_healed() {
    let pair = pair(7, NetFaults::default());
    let (control, server, client) = (pair.world.control(), pair.server, pair.client);
    pair.run(
        |connection| async move { connection.send(vec![pattern(10)]).await.unwrap() },
        move |connection| async move {
            control.cut(server, client);
            let (again, path) = (control.clone(), (server, client));
            spawn(async move {
                sleep(Duration::from_secs(5)).await;
                again.heal(path.0, path.1);
            });
            let before = now();
            let (got, end) = drain(connection).await;
            assert!(end.is_ok() && got == pattern(10));
            assert!(now().since(before) >= Duration::from_secs(5));
        },
    );
}

#[test]
fn a_connection_moves_to_another_shard() {
    let pair = pair(8, NetFaults::default());
    let (mailer, mailbox) = mailbox::<Detached>(10);
    let mailbox = Rc::new(RefCell::new(Some(mailbox)));
    let address = pair.address;
    pair.world.boot(pair.server, 2, move |shard| {
        let (mailer, mailbox) = (mailer.clone(), Rc::clone(&mailbox));
        async move {
            if shard == 0 {
                let listener = Listener::bind(address).await.unwrap();
                let connection = listener.accept().await.unwrap();
                assert_eq!(connection.local(), address);
                assert!(mailer.send(connection.detach()).is_ok());
                return std::future::pending().await;
            }
            let mut mailbox = mailbox.borrow_mut().take().unwrap();
            let connection = mailbox.recv().await.attach();
            connection.send(vec![pattern(10)]).await.unwrap();
        }
    });
    let (sender, receiver) = local::oneshot();
    pair.world.spawn_on(pair.client, async move {
        sleep(Duration::from_millis(1)).await;
        let connection = connect(address).await.unwrap();
        assert_eq!(connection.peer(), address);
        drop(sender.send(drain(connection).await.0));
    });
    assert_eq!(pair.world.run(receiver).unwrap(), pattern(10));
}

#[test]
#[should_panic(expected = "a pending receive was dropped")]
fn giving_up_a_receive_is_found() {
    let pair = pair(9, NetFaults::default());
    pair.run(
        |connection| async move {
            sleep(Duration::from_secs(9)).await;
            drop(connection);
        },
        |connection| async move {
            let soon = now().after(Duration::from_secs(1));
            let receive = connection.recv(Buffer::with_capacity(10));
            drop(flowstone_runtime::deadline(soon, receive).await);
            assert_ne!(random_u64(), 0);
        },
    );
}

#[test]
fn ports_are_taken_and_given_back() {
    let pair = pair(10, NetFaults::default());
    let address = pair.address;
    pair.world.spawn_on(pair.server, async move {
        let first = Listener::bind(address).await.unwrap();
        let taken = Listener::bind(address).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(address).await.unwrap();
        let any = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_ne!(any.local_addr().port(), 0);
        assert!(Listener::bind("192.168.0.1:1".parse().unwrap()).await.is_err());
    });
    pair.world.run_for(Duration::from_secs(1));
}
