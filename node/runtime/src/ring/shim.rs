//! Test only: between an operation and the kernel. What a kernel may answer and seldom does, on demand.
//!
//! An error is answered in place of the submission (a no-op goes to the ring), so nothing happens twice;
//! a short count is a submission that asks for less. It exists in this crate's own tests and in no other
//! build.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// What a submission ends with.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// As the kernel likes.
    Plain,
    /// This error, and nothing happened.
    Error(i32),
    /// So many bytes at most.
    Short(usize),
}

thread_local! {
    static KIND: Cell<&'static str> = const { Cell::new("") };
    static ANSWERS: RefCell<VecDeque<Answer>> = const { RefCell::new(VecDeque::new()) };
    static SUBMISSIONS: Cell<usize> = const { Cell::new(0) };
    static SHORT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// From now on, submissions of this shard's operations of type `kind` end so, one after the other.
pub fn plan(kind: &'static str, answers: &[Answer]) {
    KIND.set(kind);
    ANSWERS.set(answers.iter().copied().collect());
    SUBMISSIONS.set(0);
}

/// How many submissions of that kind there were since.
pub fn submissions() -> usize {
    SUBMISSIONS.get()
}

/// An operation is about to be submitted: the error that it ends with instead.
pub fn before(name: &'static str) -> Option<i32> {
    let kind = KIND.get();
    if kind.is_empty() || name.rsplit("::").next() != Some(kind) {
        return None;
    }
    SUBMISSIONS.set(SUBMISSIONS.get() + 1);
    match ANSWERS.with_borrow_mut(VecDeque::pop_front) {
        Some(Answer::Error(error)) => return Some(error),
        Some(Answer::Short(bytes)) => SHORT.set(Some(bytes)),
        Some(Answer::Plain) | None => {}
    }
    None
}

/// It was made.
pub fn after() {
    SHORT.set(None);
}

/// How many of `bytes` the submission asks for.
pub fn shortened(bytes: usize) -> usize {
    SHORT.get().map_or(bytes, |short| bytes.min(short))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use bytes::Bytes;

    use super::Answer::{Error, Plain, Short};
    use super::{Answer, plan, submissions};
    use crate::{
        Buffer, File, Listener, OpenOptions, PAGE_BYTES, Plan, connect, launch, local, spawn,
    };

    const OPTIONS: OpenOptions =
        OpenOptions { create: true, create_new: false, direct: false, write: true, dsync: false };

    fn on_a_shard<F: Future<Output = ()> + 'static>(test: fn() -> F) {
        launch(Plan { cpus: vec![0] }, move |_| test()).expect("a shard");
    }

    /// A file on the disk that we build on, without a name.
    async fn file(name: &str, direct: bool) -> File {
        let mut path: PathBuf = std::env::current_exe().expect("a test");
        path.set_file_name(format!("shim-{name}-{}", std::process::id()));
        let file = File::open(&path, OpenOptions { direct, ..OPTIONS }).await.expect("opened");
        std::fs::remove_file(path).expect("it is there");
        file
    }

    /// Pages that differ, in three parts.
    fn parts() -> Vec<Bytes> {
        let part = |number: usize| {
            let mut buffer = Buffer::with_capacity(2 * PAGE_BYTES);
            let bytes: Vec<u8> =
                (0..2 * PAGE_BYTES).map(|at| (at / 7 + number * 50) as u8).collect();
            buffer.extend_from_slice(&bytes);
            buffer.freeze()
        };
        (0..3).map(part).collect()
    }

    async fn read(file: &File) -> Vec<u8> {
        let (result, buffer) = file.read_at(Buffer::with_capacity(16 * PAGE_BYTES), 0).await;
        result.expect("read");
        buffer.to_vec()
    }

    const AGAIN: [Answer; 2] = [Error(libc::EINTR), Error(libc::EAGAIN)];

    /// S15: no hole, and nothing at another offset than its own.
    #[test]
    fn a_write_that_is_interrupted_or_short_goes_on_where_it_was() {
        on_a_shard(|| async {
            let page = PAGE_BYTES;
            let all = parts().concat();
            for (direct, answers) in [
                (false, vec![AGAIN[0], AGAIN[1]]),
                (false, vec![Short(1), Short(1_000), AGAIN[0], Short(7_000), Short(3)]),
                (true, vec![AGAIN[1], Short(page), AGAIN[0]]),
            ] {
                let file = file("write", direct).await;
                plan("Write", &answers);
                file.write_at(parts(), page as u64).await.expect("in the end");
                assert!(submissions() > answers.len(), "all answers were given: {answers:?}");
                let bytes = read(&file).await;
                assert_eq!(bytes[..page], vec![0; page]);
                assert!(bytes[page..] == all, "{answers:?}");
            }
        });
    }

    /// S15: an error is told, at once and once, and what was not written is not there.
    #[test]
    fn a_write_that_fails_says_so_and_stops() {
        on_a_shard(|| async {
            for error in [libc::EIO, libc::ENOSPC] {
                let file = file("fails", false).await;
                plan("Write", &[Short(PAGE_BYTES), Error(error)]);
                let written = file.write_at(parts(), 0).await;
                assert_eq!(written.expect_err("told").raw_os_error(), Some(error));
                assert_eq!(submissions(), 2, "not tried again");
                assert!(read(&file).await == parts().concat()[..PAGE_BYTES]);
            }
            // A direct write that stops within a page cannot go on: it must not go on elsewhere.
            let file = file("within", true).await;
            plan("Write", &[Short(1_000)]);
            file.write_at(parts(), 0).await.expect_err("what the kernel would say of the rest");
        });
    }

    /// S14, S15: a flush that did not say yes has said no.
    #[test]
    fn a_flush_is_asked_once() {
        on_a_shard(|| async {
            let file = file("flush", false).await;
            file.write_at(parts(), 0).await.expect("written");
            for error in [libc::EIO, libc::EINTR, libc::EAGAIN] {
                plan("Simple", &[Error(error)]);
                let flushed = file.datasync().await;
                assert_eq!(flushed.expect_err("told").raw_os_error(), Some(error));
                assert_eq!(submissions(), 1);
            }
            plan("Simple", &AGAIN);
            file.allocate(0, 1 << 16).await.expect("it changes nothing to ask again");
            assert_eq!(submissions(), 3);
        });
    }

    #[test]
    fn a_descriptor_is_closed_once_whatever_the_kernel_says() {
        on_a_shard(|| async {
            let file = file("close", false).await;
            plan("Close", &[Error(libc::EINTR)]);
            file.close().await.expect_err("told");
            assert_eq!(submissions(), 1, "its number may be another's by now");
        });
    }

    #[test]
    fn a_read_that_is_interrupted_or_short_goes_on_and_one_that_fails_says_so() {
        on_a_shard(|| async {
            let file = file("read", false).await;
            file.write_at(parts(), 0).await.expect("written");
            plan("Read", &[AGAIN[0], Short(1), AGAIN[1], Short(5_000), Plain]);
            assert!(read(&file).await == parts().concat());
            assert!(submissions() >= 5);
            plan("Read", &[Short(100), Error(libc::EIO)]);
            let (result, _) = file.read_at(Buffer::with_capacity(1 << 14), 0).await;
            assert_eq!(result.expect_err("told").raw_os_error(), Some(libc::EIO));
            assert_eq!(submissions(), 2);
        });
    }

    /// S15 on the wire: every byte once, in its order.
    #[test]
    fn what_is_sent_and_received_in_pieces_arrives_whole() {
        on_a_shard(|| async {
            let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
            let listener = Listener::bind(address).await.expect("a port");
            let address = listener.local_addr();
            let (done, accepted) = local::oneshot();
            spawn(async move {
                let _ = done.send(listener.accept().await);
            });
            let to = connect(address).await.expect("it listens");
            let from = accepted.await.expect("it came").expect("accepted");
            let all = parts().concat();
            plan("Send", &[AGAIN[0], Short(1), AGAIN[1], Short(4_000), Short(4_000)]);
            to.send(parts()).await.expect("sent");
            assert!(submissions() > 5);
            plan("Receive", &[AGAIN[0], Short(1), Short(9_000), AGAIN[1]]);
            let (result, got) = from.recv_exact(Buffer::with_capacity(all.len()), all.len()).await;
            result.expect("received");
            assert!(got[..] == all);
            plan("Receive", &[Error(libc::EIO)]);
            let (result, _) = from.recv(Buffer::with_capacity(10)).await;
            result.expect_err("told");
            plan("Send", &[Short(10), Error(libc::EIO)]);
            to.send(parts()).await.expect_err("told");
            assert_eq!(submissions(), 2);
        });
    }
}
