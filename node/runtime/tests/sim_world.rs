//! The simulated twin: one seed is one path, and time costs nothing.
#![cfg(feature = "sim")]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_runtime::sim::{Control, DiskFaults, MachineId, NetFaults, World};
use flowstone_runtime::{
    Buffer, Connection, File, Listener, OpenOptions, connect, deadline, fs, local, mailbox, now,
    offload, random_u64, shard_count, shard_index, sleep, spawn, termination, wall_clock,
    yield_now,
};

/// A bit of everything: two shards that mail one another, a disk, a client; a crash in the middle.
fn play(seed: u64) -> (u64, u64) {
    let world = World::new(seed);
    let server = world.machine("server");
    let client = world.machine("client");
    world.set_net_faults(NetFaults { reset: 0.001, ..NetFaults::default() });
    world.set_disk_faults(server, DiskFaults { write_error: 0.01, ..DiskFaults::default() });
    let address = SocketAddr::new(world.address(server), 9092);
    start(&world, server, address);
    world.spawn_on(client, async move {
        loop {
            let _ = ask(address).await;
            sleep(Duration::from_millis(1)).await;
        }
    });
    world.run_for(Duration::from_millis(50));
    world.crash(server);
    world.run_for(Duration::from_millis(20));
    start(&world, server, address);
    world.run_for(Duration::from_millis(50));
    world.power_loss(server);
    start(&world, server, address);
    world.run_for(Duration::from_millis(50));
    (world.trace_hash(), world.events())
}

fn start(control: &Control, server: MachineId, address: SocketAddr) {
    let (mailer, mailbox) = mailbox::<u64>(100);
    let mailbox = Rc::new(RefCell::new(Some(mailbox)));
    control.boot(server, 2, move |shard| {
        let mailer = mailer.clone();
        let mailbox = if shard == 1 { mailbox.borrow_mut().take() } else { None };
        async move {
            let Some(mut mailbox) = mailbox else {
                let listener = Listener::bind(address).await.unwrap();
                loop {
                    let connection = listener.accept().await.unwrap();
                    let mailer = mailer.clone();
                    spawn(async move {
                        while let Ok(Some(number)) = answer(&connection).await {
                            let _ = mailer.send(number);
                        }
                    });
                }
            };
            let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
            let file = File::open("/numbers".as_ref(), options).await.unwrap();
            loop {
                let number = mailbox.recv().await;
                let bytes = Bytes::copy_from_slice(&number.to_le_bytes());
                let _ = file.write_at(vec![bytes], number % 100_000).await;
                let _ = file.datasync().await;
            }
        }
    });
}

async fn answer(connection: &Connection) -> std::io::Result<Option<u64>> {
    let (result, buffer) = connection.recv_exact(Buffer::with_capacity(8), 8).await;
    if result.is_err() {
        return Ok(None);
    }
    let number = u64::from_le_bytes(buffer[..8].try_into().unwrap());
    connection.send(vec![buffer.freeze()]).await?;
    Ok(Some(number))
}

async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let connection = connect(address).await?;
    for _ in 0..10 {
        let question = random_u64().to_le_bytes();
        connection.send(vec![Bytes::copy_from_slice(&question)]).await?;
        let (result, buffer) = connection.recv_exact(Buffer::with_capacity(8), 8).await;
        result?;
        assert_eq!(buffer[..], question);
    }
    Ok(())
}

#[test]
fn one_seed_is_one_path() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (first, again) = (play(seed), play(seed));
        assert_eq!(first, again, "seed {seed}");
        assert!(first.1 > 1_000, "something happened: {} events", first.1);
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 20, "each seed is another path");
}

#[test]
fn days_pass_in_moments() {
    let world = World::new(1);
    let begun = std::time::Instant::now();
    let (start, wall) = (world.now(), wall_clock());
    world.run_for(Duration::from_hours(720));
    assert!(world.now().since(start) >= Duration::from_hours(720));
    assert_eq!(wall_clock().0 - wall.0, 30 * 86_400_000);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn loops_that_only_yield_see_time_pass() {
    let world = World::new(2);
    let until = world.now().after(Duration::from_millis(1));
    world.run(async move {
        while now() < until {
            yield_now().await;
        }
    });
}

#[test]
fn shards_know_themselves_and_exchange_mail_in_order() {
    let world = World::new(3);
    let machine = world.machine("node");
    let (mailer, mailbox) = mailbox::<(usize, u32)>(1_000);
    let mailbox = Rc::new(RefCell::new(Some(mailbox)));
    let got = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&got);
    world.boot(machine, 3, move |shard| {
        assert_eq!((shard_index(), shard_count()), (shard, 3));
        let (mailer, mailbox, seen) = (mailer.clone(), Rc::clone(&mailbox), Rc::clone(&seen));
        async move {
            if shard == 0 {
                let mut mailbox = mailbox.borrow_mut().take().unwrap();
                while seen.borrow().len() < 200 {
                    let mail = mailbox.recv().await;
                    seen.borrow_mut().push(mail);
                }
                return;
            }
            for number in 0..100 {
                mailer.send((shard, number)).unwrap();
                yield_now().await;
            }
        }
    });
    let control = world.control();
    world.run(async move { control.ended(machine).await });
    for shard in [1, 2] {
        let got = got.borrow();
        let numbers = got.iter().filter(|mail| mail.0 == shard).map(|mail| mail.1);
        assert!(numbers.eq(0..100));
    }
}

#[test]
fn a_full_mailbox_hands_the_mail_back() {
    let _world = World::new(4);
    let (mailer, mut mailbox) = mailbox(1);
    assert_eq!(mailer.send(1), Ok(()));
    assert_eq!(mailer.send(2), Err(2));
    assert_eq!((mailer.len(), mailbox.try_recv(), mailbox.try_recv()), (1, Some(1), None));
    drop(mailbox);
    assert_eq!(mailer.send(3), Ok(()));
}

#[test]
fn the_end_of_all_mains_is_the_end_of_the_process() {
    let world = World::new(5);
    let machine = world.machine("node");
    let beats = Rc::new(Cell::new(0));
    let counter = Rc::clone(&beats);
    world.boot(machine, 2, move |_| {
        let counter = Rc::clone(&counter);
        async move {
            spawn(async move {
                loop {
                    counter.set(counter.get() + 1);
                    sleep(Duration::from_millis(1)).await;
                }
            });
            termination().await;
        }
    });
    world.run_for(Duration::from_millis(10));
    assert!(world.is_running(machine));
    world.terminate(machine);
    let control = world.control();
    world.run(async move { control.ended(machine).await });
    let at_end = beats.get();
    assert!(at_end > 10);
    world.run_for(Duration::from_millis(10));
    assert_eq!(beats.get(), at_end);
}

#[test]
fn a_program_may_end_its_own_process() {
    let world = World::new(11);
    let machine = world.machine("node");
    let control = world.control();
    let aborts = control.clone();
    world.boot(machine, 2, move |shard| {
        let control = aborts.clone();
        async move {
            if shard == 0 {
                sleep(Duration::from_millis(1)).await;
                control.crash(machine);
                return;
            }
            std::future::pending::<()>().await;
        }
    });
    world.run(async move { control.ended(machine).await });
    world.run_for(Duration::from_millis(10));
    assert!(!world.is_running(machine));
}

#[test]
fn what_a_crash_drops_does_nothing() {
    struct Spawns(Rc<Cell<u32>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let ran = Rc::clone(&self.0);
            ran.set(ran.get() + 1);
            spawn(async move { ran.set(ran.get() + 100) });
        }
    }
    let world = World::new(6);
    let machine = world.machine("node");
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    world.boot(machine, 1, move |_| {
        let guard = Spawns(Rc::clone(&count));
        async move {
            let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
            let file = File::open("/a".as_ref(), options).await.unwrap();
            let listener = Listener::bind("0.0.0.0:1".parse().unwrap()).await.unwrap();
            let _held = (guard, file, listener);
            std::future::pending::<()>().await;
        }
    });
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.open_handles(machine).0, 1);
    world.crash(machine);
    world.run_for(Duration::from_millis(10));
    assert_eq!((dropped.get(), world.open_handles(machine)), (1, (0, 0)));
}

#[test]
fn deadlines_and_offloaded_work() {
    let world = World::new(7);
    world.run(async {
        let soon = now().after(Duration::from_secs(1));
        assert_eq!(deadline(soon, std::future::pending::<()>()).await, None);
        assert!(now() >= soon);
        let (sender, receiver) = local::oneshot();
        spawn(async move { sender.send(7).unwrap() });
        assert_eq!(deadline(soon.after(Duration::from_secs(9)), receiver).await, Some(Some(7)));
        assert_eq!(offload(|| 3 * 3).await, 9);
    });
}

#[test]
fn a_standstill_and_a_circle_are_found() {
    for run in [0, 1] {
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            let world = World::new(8);
            world.set_time_limit(world.now().after(Duration::from_mins(1)));
            world.run(async move {
                if run == 0 {
                    std::future::pending::<()>().await;
                }
                loop {
                    sleep(Duration::from_secs(1)).await;
                }
            });
        }));
        assert!(stopped.is_err());
    }
    World::new(9).run_for(Duration::from_secs(1)); // The failed worlds are gone.
}

#[test]
fn the_trace_can_be_read() {
    let world = World::new(10);
    let machine = world.machine("alpha");
    world.keep_trace(100);
    let control = world.control();
    world.spawn_on(machine, async move {
        fs::create_dir_all("/data/log".as_ref()).await.unwrap();
        control.note("made the directory");
    });
    world.run_for(Duration::from_millis(10));
    let trace = world.trace();
    let noted = |line: &str| line.contains("alpha") && line.ends_with("made the directory");
    assert!(trace.lines().any(noted), "{trace}");
}
