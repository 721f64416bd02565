//! What concerns a whole process: how it ends (by a signal, in order; by a panic, at once), what it
//! costs when idle, and that it does not grow. So each test runs itself again, alone, as a child.

mod common;

use std::process::{Command, Output};
use std::time::Duration;

use common::{on_one_shard, on_shards};
use flowstone_runtime::{
    deadline, mailbox, now, offload, shard_index, sleep, spawn, termination, yield_now,
};

/// Runs the test `name` in a child process, which finds `FLOWSTONE_CHILD` set.
fn in_a_child(name: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture"]).env("FLOWSTONE_CHILD", "1");
    child.output().unwrap()
}

fn is_child() -> bool {
    std::env::var_os("FLOWSTONE_CHILD").is_some()
}

fn check_success(name: &str) {
    let output = in_a_child(name);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn check_panic(name: &str, message: &str) {
    let output = in_a_child(name);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{errors}");
    assert!(errors.contains(message) && errors.contains("the process ends"), "{errors}");
}

#[test]
fn a_panic_on_a_shard_ends_the_process() {
    if !is_child() {
        return check_panic("a_panic_on_a_shard_ends_the_process", "a bug on shard 1");
    }
    on_shards(2, |index| async move {
        spawn(async move {
            sleep(Duration::from_millis(1)).await;
            assert_ne!(shard_index(), 1, "a bug on shard {index}");
        });
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_panic_beside_the_shards_ends_the_process() {
    if !is_child() {
        return check_panic(
            "a_panic_beside_the_shards_ends_the_process",
            "a bug in offloaded work",
        );
    }
    on_shards(1, |_| offload(|| panic!("a bug in offloaded work")));
}

#[test]
fn a_signal_reaches_all_who_wait_on_all_shards() {
    if !is_child() {
        return check_success("a_signal_reaches_all_who_wait_on_all_shards");
    }
    on_shards(2, |index| async move {
        for _ in 0..10 {
            spawn(termination());
            let early = deadline(now().after(Duration::from_micros(100)), termination()).await;
            assert_eq!(early, None, "no signal yet");
        }
        sleep(Duration::from_millis(50)).await;
        if index == 1 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
                .unwrap();
        }
        termination().await;
        termination().await; // And whoever asks later knows at once.
    });
}

/// An idle broker costs nothing: no timer of ours wakes a shard that has no work (a heartbeat of
/// 5 ms would be 200 wake-ups a second). Under 1 % of a core is the requirement; we ask for 0.2 %.
#[test]
fn idle_shards_cost_nothing() {
    if !is_child() {
        return check_success("idle_shards_cost_nothing");
    }
    on_shards(2, |index| async move {
        sleep(Duration::from_millis(100)).await;
        if index == 0 {
            let before = process_cpu();
            sleep(Duration::from_secs(1)).await;
            let spent = process_cpu().saturating_sub(before);
            assert!(spent < Duration::from_millis(2), "{spent:?} of CPU in an idle second");
        } else {
            sleep(Duration::from_secs(1)).await;
        }
    });
}

fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Defect 3 and 4 of glommio 0.9.0 leak what is cancelled; we cancel nothing, so nothing may leak.
#[test]
fn tasks_leave_no_memory_behind() {
    if !is_child() {
        return check_success("tasks_leave_no_memory_behind");
    }
    on_one_shard(|| async {
        spawn_many(20_000).await; // The allocator's and the slabs' high-water mark.
        let before = resident_bytes();
        for _ in 0..5 {
            spawn_many(20_000).await;
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes more after 100 000 tasks");
    });
}

async fn spawn_many(count: usize) {
    let (mailer, mut mailbox) = mailbox(count);
    for number in 0..count {
        let mailer = mailer.clone();
        spawn(async move {
            let ballast = [number; 64]; // Lives across the await: the task is half a KiB.
            yield_now().await;
            mailer.send(ballast[number % 64]).unwrap();
        });
    }
    for _ in 0..count {
        mailbox.recv().await;
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
