//! The simulated disk through the crate's own surface: what survives what.
#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flowstone_runtime::sim::{Control, DiskFaults, DiskOperation, MachineId, World};
use flowstone_runtime::{Buffer, File, OpenOptions, fs, now};

const CREATE: OpenOptions =
    OpenOptions { create: true, create_new: false, direct: false, write: true, dsync: false };

fn block(byte: u8, len: usize) -> Bytes {
    let mut buffer = Buffer::with_capacity(len);
    buffer.set_len(len);
    buffer.fill(byte);
    buffer.freeze()
}

/// Runs `program` on a fresh machine, ends it by `end` once it waits, and returns the file `/f`.
fn survivor<F>(
    seed: u64,
    program: impl Fn() -> F + 'static,
    end: fn(&Control, MachineId),
) -> Vec<u8>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let world = World::new(seed);
    let machine = world.machine("node");
    world.spawn_on(machine, async move {
        program().await.unwrap();
        std::future::pending::<()>().await;
    });
    world.run_for(Duration::from_millis(100));
    end(&world, machine);
    world.files(machine).remove(Path::new("/f")).unwrap_or_default()
}

fn survivors<F>(
    program: impl Fn() -> F + Copy + 'static,
    end: fn(&Control, MachineId),
) -> Vec<Vec<u8>>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    (0..200).map(|seed| survivor(seed, program, end)).collect()
}

fn kill(control: &Control, machine: MachineId) {
    control.crash(machine);
}

fn cut_power(control: &Control, machine: MachineId) {
    control.power_loss(machine);
}

async fn written(dsync: bool, then_sync: bool) -> io::Result<()> {
    let file = File::open("/f".as_ref(), OpenOptions { direct: true, dsync, ..CREATE }).await?;
    fs::sync_dir("/".as_ref()).await?;
    file.write_at(vec![block(1, 8192), block(2, 4096)], 0).await?;
    if then_sync {
        file.datasync().await?;
    }
    Ok(())
}

#[test]
fn completed_writes_survive_a_kill() {
    for bytes in survivors(|| written(false, false), kill) {
        assert!(bytes[..8192] == [1; 8192] && bytes[8192..] == [2; 4096]);
    }
}

#[test]
fn flushed_writes_survive_a_power_cut_and_others_may_not() {
    for program in [|| written(true, false), || written(false, true)] {
        for bytes in survivors(program, cut_power) {
            assert!(bytes[..8192] == [1; 8192] && bytes[8192..] == [2; 4096]);
        }
    }
    let unflushed = survivors(|| written(false, false), cut_power);
    assert!(unflushed.iter().any(Vec::is_empty), "lost");
    assert!(unflushed.iter().any(|bytes| bytes.len() == 12_288 && !bytes.contains(&0)), "kept");
    let torn = |page: &[u8]| page.contains(&0) && page.iter().any(|byte| *byte != 0);
    assert!(unflushed.iter().any(|bytes| bytes.chunks(4096).any(torn)), "torn");
    let reordered = |bytes: &Vec<u8>| bytes.len() == 12_288 && bytes[0] == 0 && bytes[8192] == 2;
    assert!(unflushed.iter().any(reordered), "the later block without the earlier one");
}

#[test]
fn a_write_under_way_at_a_kill_may_arrive_in_part() {
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let world = World::new(seed);
        let machine = world.machine("node");
        world.spawn_on(machine, async {
            let file = File::open("/f".as_ref(), CREATE).await.unwrap();
            file.write_at(vec![block(1, 4096)], 0).await.unwrap();
            file.write_at(vec![block(2, 4096)], 0).await.unwrap();
            std::future::pending::<()>().await;
        });
        let slow = Duration::from_millis(10);
        world.set_disk_faults(machine, DiskFaults { latency: (slow, slow), ..Default::default() });
        world.run_for(Duration::from_millis(22));
        world.crash(machine);
        let bytes = world.files(machine).remove(Path::new("/f")).unwrap();
        seen.insert((bytes.contains(&1), bytes.contains(&2)));
    }
    assert_eq!(seen, BTreeSet::from([(true, false), (false, true), (true, true)]));
}

#[test]
fn a_rename_without_a_flush_of_its_directory_may_vanish() {
    async fn replaced(flush: bool) -> io::Result<()> {
        fs::write_atomic("/f".as_ref(), b"old".to_vec()).await?;
        if flush {
            return fs::write_atomic("/f".as_ref(), b"new".to_vec()).await;
        }
        let file = File::open("/g".as_ref(), CREATE).await?;
        file.write_at(vec![Bytes::from_static(b"new")], 0).await?;
        file.sync().await?;
        fs::rename("/g".as_ref(), "/f".as_ref()).await
    }
    let seen: BTreeSet<_> = survivors(|| replaced(false), cut_power).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new".to_vec()]));
    let seen: BTreeSet<_> = survivors(|| replaced(true), cut_power).into_iter().collect();
    assert_eq!(seen, BTreeSet::from([b"new".to_vec()]));
}

/// One machine, one task.
fn on_a_machine<F>(prepare: impl FnOnce(&World, MachineId), task: F)
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let world = World::new(1);
    let machine = world.machine("node");
    prepare(&world, machine);
    let (sender, receiver) = flowstone_runtime::local::oneshot();
    world.spawn_on(machine, async move { drop(sender.send(task.await)) });
    world.run(receiver).unwrap().unwrap();
}

#[test]
fn reads_are_short_only_at_the_end() {
    on_a_machine(|_, _| {}, async {
        let file = File::open("/f".as_ref(), CREATE).await?;
        file.write_at(vec![block(7, 4096), block(8, 1000)], 10).await?;
        assert_eq!(file.len().await?, 5_106);
        let (result, buffer) = file.read_at(Buffer::with_capacity(4096), 0).await;
        assert_eq!((result?, &buffer[8..12]), (4096, &[0, 0, 7, 7][..]));
        let (result, buffer) = file.read_at(buffer, 4096).await;
        assert_eq!((result?, buffer[1_009]), (1_010, 8));
        let (result, _) = file.read_at(buffer, 9_000).await;
        assert_eq!(result?, 0);
        Ok(())
    });
}

#[test]
fn direct_files_want_what_the_kernel_wants() {
    on_a_machine(|_, _| {}, async {
        let file = File::open("/f".as_ref(), OpenOptions { direct: true, ..CREATE }).await?;
        let invalid = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        };
        invalid(file.write_at(vec![block(1, 4095)], 0).await);
        invalid(file.write_at(vec![block(1, 4096)], 512).await);
        invalid(file.write_at(vec![block(1, 8192).slice(1..4097)], 0).await);
        file.write_at(vec![block(1, 4096)], 4096).await?;
        let read_only = File::open("/f".as_ref(), OpenOptions::default()).await?;
        assert!(read_only.write_at(vec![block(1, 1)], 0).await.is_err());
        Ok(())
    });
}

#[test]
fn a_disk_fills_up_and_has_room_again() {
    on_a_machine(|world, machine| world.set_capacity(machine, Some(64 << 10)), async {
        fs::create_dir_all("/d/e".as_ref()).await?;
        let file = File::open("/d/e/f".as_ref(), CREATE).await?;
        file.allocate(0, 32 << 10).await?;
        let full = |result: io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        };
        full(file.allocate(0, 65 << 10).await);
        full(file.write_at(vec![block(1, 64 << 10)], 4096).await);
        file.write_at(vec![block(1, 28 << 10)], 4096).await?;
        fs::remove_dir_all("/d".as_ref()).await?;
        drop(file);
        assert_eq!(fs::space("/".as_ref()).await?.usable, 64 << 10);
        let file = File::open("/g".as_ref(), CREATE).await?;
        file.write_at(vec![block(1, 64 << 10)], 0).await
    });
}

#[test]
fn faults_come_when_they_are_told_to_and_by_chance() {
    on_a_machine(
        |world, machine| {
            world.fail_next(machine, DiskOperation::Sync, "/f", 1);
            world.fail_next(machine, DiskOperation::Write, "/g", 2);
        },
        async {
            let file = File::open("/f".as_ref(), CREATE).await?;
            let other = File::open("/g".as_ref(), CREATE).await?;
            assert!(file.datasync().await.is_err());
            file.datasync().await?;
            assert!(other.write_at(vec![block(1, 10)], 0).await.is_err());
            assert!(other.set_len(5).await.is_err());
            other.set_len(5).await
        },
    );
    let always = DiskFaults { read_error: 0.5, sticky: 1.0, ..DiskFaults::default() };
    on_a_machine(|world, machine| world.set_disk_faults(machine, always), async {
        let file = File::open("/f".as_ref(), CREATE).await?;
        while file.read_at(Buffer::with_capacity(1), 0).await.0.is_ok() {}
        for _ in 0..20 {
            assert!(file.read_at(Buffer::with_capacity(1), 0).await.0.is_err(), "sticky");
        }
        Ok(())
    });
}

#[test]
fn a_stuck_disk_comes_back_late() {
    let faults = DiskFaults { stuck: 1.0, ..DiskFaults::default() };
    on_a_machine(|world, machine| world.set_disk_faults(machine, faults), async {
        let before = now();
        let file = File::open("/f".as_ref(), CREATE).await?;
        assert!(now().since(before) >= Duration::from_mins(1));
        // Carried to its end, though nobody waits for it.
        drop(flowstone_runtime::deadline(now(), file.write_at(vec![block(1, 10)], 0)).await);
        flowstone_runtime::sleep(Duration::from_secs(61)).await;
        assert_eq!(file.len().await?, 10);
        Ok(())
    });
}

#[test]
fn names_are_listed_in_order() {
    on_a_machine(|_, _| {}, async {
        fs::create_dir_all("/d/b".as_ref()).await?;
        for path in ["/d/c", "/d/a"] {
            let file = File::open(path.as_ref(), OpenOptions { create_new: true, ..CREATE });
            file.await?.close().await?;
        }
        let entries = fs::read_dir("/d".as_ref()).await?;
        let names: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.is_dir)).collect();
        assert_eq!(names, [("a", false), ("b", true), ("c", false)]);
        fs::remove_file("/d/a".as_ref()).await?;
        assert!(!fs::exists("/d/a".as_ref()).await?);
        assert_eq!(fs::read("/d/c".as_ref()).await?, b"");
        let again = File::open("/d/c".as_ref(), OpenOptions { create_new: true, ..CREATE });
        assert_eq!(again.await.err().map(|e| e.kind()), Some(io::ErrorKind::AlreadyExists));
        Ok(())
    });
}

/// Every moment of a file's replacement, ended in every way: the old bytes or the new ones.
#[test]
fn the_moments_of_a_replaced_file_show_one_of_both() {
    let world = World::new(1);
    let machine = world.machine("node");
    let write = |text: &'static [u8]| {
        world.boot(machine, 1, move |_| async move {
            fs::write_atomic(Path::new("/file"), text.to_vec()).await.unwrap();
        });
        world.run_for(Duration::from_secs(1));
    };
    write(b"old");
    world.record(machine);
    write(b"new!");
    let moments = world.recorded(machine);
    assert!(moments.len() > 6, "{} moments", moments.len());
    let mut seen = BTreeSet::new();
    for moment in &moments {
        let image = moment.image();
        let questions = image.questions();
        let ways: u32 = questions.iter().product();
        for mut number in 0..ways {
            let mut answer = |count: &u32| {
                let answer = number % count;
                number /= count;
                answer
            };
            let answers: Vec<u32> = questions.iter().map(&mut answer).collect();
            let left = image.answered(&answers, None);
            assert!(left.questions().iter().all(|count| *count == 1), "all is decided");
            seen.insert(left.files()[Path::new("/file")].clone());
        }
    }
    assert_eq!(Vec::from_iter(seen), [b"new!".to_vec(), b"old".to_vec()]);
    let last = moments.last().unwrap().image();
    let nothing_more = last.answered(&vec![0; last.questions().len()], None);
    assert_eq!(nothing_more.files()[Path::new("/file")], b"new!", "it was flushed");
}
