//! Files and names of the real back end.

mod common;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use common::{Folder, on_one_shard, pattern, poll_once};
use flowstone_runtime::{Buffer, File, OpenOptions, PAGE_BYTES, fs, mailbox, sleep, spawn};

const NEW: OpenOptions =
    OpenOptions { create: true, create_new: true, write: true, direct: false, dsync: false };

fn aligned(seed: u64, len: usize) -> Bytes {
    let mut buffer = Buffer::with_capacity(len);
    buffer.extend_from_slice(&pattern(seed, len));
    buffer.freeze()
}

async fn read(file: &File, offset: u64, capacity: usize) -> Vec<u8> {
    let (got, buffer) = file.read_at(Buffer::with_capacity(capacity), offset).await;
    assert_eq!(got.unwrap(), buffer.len());
    buffer.to_vec()
}

#[test]
fn direct_files_are_written_read_reserved_and_cut() {
    on_one_shard(|| async {
        let folder = Folder::new("direct");
        if !fs::space(folder.path()).await.unwrap().direct {
            eprintln!("skipped: {} has no O_DIRECT", folder.path().display());
            return;
        }
        let options = OpenOptions { direct: true, dsync: true, ..NEW };
        let file = File::open(&folder.join("log"), options).await.unwrap();
        file.allocate(0, 1 << 20).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 1 << 20, "reserved with its size");
        let parts = vec![aligned(1, 4096), aligned(2, 65536), aligned(3, 8192)];
        let want = parts.concat();
        file.write_at(parts, 4096).await.unwrap();
        file.datasync().await.unwrap();
        assert_eq!(read(&file, 4096, 128 << 10).await[..want.len()], want);
        assert_eq!(read(&file, 0, 4096).await, [0; 4096]);
        file.set_len(8192 + 100).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 8292);
        assert_eq!(read(&file, 4096, 65536).await, want[..4196], "short at an odd end");
        assert_eq!(read(&file, 12288, 4096).await, [], "defect 5: nothing past the end");
        let odd = file.write_at(vec![Bytes::from_static(b"odd")], 0).await;
        assert_eq!(odd.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        file.sync().await.unwrap();
        file.close().await.unwrap();
    });
}

#[test]
fn buffered_files_take_any_bytes() {
    on_one_shard(|| async {
        let folder = Folder::new("buffered");
        let path = folder.join("file");
        let file = File::open(&path, NEW).await.unwrap();
        assert!(file.is_empty().await.unwrap());
        // More parts than one submission takes (1024), some of them empty.
        let parts: Vec<_> = (0..3000).map(|i| Bytes::from(vec![i as u8; i % 7])).collect();
        let want = parts.concat();
        file.clone().write_at(parts, 3).await.unwrap();
        assert_eq!(fs::read(&path).await.unwrap()[3..], want);
        assert_eq!(read(&file, want.len() as u64, 4096).await.len(), 3, "short at the end");
        for far in [want.len() as u64 + 3, 1 << 40] {
            assert_eq!(read(&file, far, 4096).await, [], "nothing past the end");
        }
        file.write_at(vec![], 0).await.unwrap();
        let again = File::open(&path, NEW).await.map(|_| ()).unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        let readable = File::open(&path, OpenOptions::default()).await.unwrap();
        assert!(readable.write_at(vec![Bytes::from_static(b"x")], 0).await.is_err());
        let missing = File::open(&folder.join("none"), OpenOptions::default()).await.map(|_| ());
        assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}

/// Says when its memory was let go.
struct Watched(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, SeqCst);
    }
}

/// dataplane rule: dropping a write's future neither frees its memory early nor loses the write
/// (glommio's lost 100 of 100 that were not submitted yet).
#[test]
fn a_dropped_write_is_still_written() {
    on_one_shard(|| async {
        let folder = Folder::new("dropped");
        let file = File::open(&folder.join("file"), NEW).await.unwrap();
        let freed: Vec<_> = (0..100).map(|_| Arc::new(AtomicBool::new(false))).collect();
        for (number, freed) in freed.iter().enumerate() {
            let memory = Watched(pattern(number as u64, 5000), Arc::clone(freed));
            let parts = vec![Bytes::from_owner(memory)];
            let write = file.write_at(parts, number as u64 * 5000);
            assert!(poll_once(pin!(write)).await.is_none(), "submitted at the end of the turn");
            assert!(!freed.load(SeqCst), "the kernel still needs it");
        }
        file.sync().await.unwrap();
        while !freed.iter().all(|freed| freed.load(SeqCst)) {
            sleep(Duration::from_millis(1)).await;
        }
        for number in 0..100 {
            let (_, buffer) = file.read_at(Buffer::with_capacity(8192), number * 5000).await;
            assert_eq!(buffer[..5000], pattern(number, 5000)[..], "write {number}");
        }
    });
}

/// More operations at once than either queue of the ring holds (1024 and 4096).
#[test]
fn more_operations_than_the_ring_holds() {
    const COUNT: u64 = 10_000;
    on_one_shard(|| async {
        let folder = Folder::new("many");
        let file = File::open(&folder.join("file"), NEW).await.unwrap();
        file.write_at(vec![Bytes::from(pattern(1, 1 << 20))], 0).await.unwrap();
        let want = pattern(1, 1 << 20);
        let (done, mut all_done) = mailbox(COUNT as usize);
        for number in 0..COUNT {
            let (file, done) = (file.clone(), done.clone());
            spawn(async move {
                let offset = number * 97 % 1_000_000;
                let bytes = read(&file, offset, PAGE_BYTES).await;
                done.send((offset as usize, bytes)).unwrap();
            });
        }
        for _ in 0..COUNT {
            let (offset, bytes) = all_done.recv().await;
            assert_eq!(bytes, want[offset..offset + PAGE_BYTES]);
        }
    });
}

#[test]
fn names_are_made_moved_listed_and_removed() {
    on_one_shard(|| async {
        let folder = Folder::new("names");
        let deep = folder.join("a/b/c");
        fs::create_dir_all(&deep).await.unwrap();
        fs::create_dir_all(&deep).await.unwrap();
        let (one, two) = (deep.join("one"), deep.join("two"));
        fs::write_atomic(&one, b"first".to_vec()).await.unwrap();
        fs::write_atomic(&one, b"2nd".to_vec()).await.unwrap();
        assert_eq!(fs::read(&one).await.unwrap(), b"2nd");
        fs::rename(&one, &two).await.unwrap();
        fs::sync_dir(&deep).await.unwrap();
        assert!(!fs::exists(&one).await.unwrap() && fs::exists(&two).await.unwrap());
        fs::create_dir_all(&deep.join("folder")).await.unwrap();
        let list = fs::read_dir(&deep).await.unwrap();
        let list: Vec<_> = list.iter().map(|e| (e.name.as_str(), e.is_dir)).collect();
        assert_eq!(list, [("folder", true), ("two", false)], "no temporary file is left");
        let entry = fs::read_dir(&deep).await.unwrap().remove(1);
        assert_eq!(entry.len, 3);
        assert!(entry.modified.0 > 1_700_000_000_000);
        fs::remove_file(&two).await.unwrap();
        assert!(fs::remove_file(&two).await.is_err());
        fs::remove_dir_all(&folder.join("a")).await.unwrap();
        assert!(fs::read_dir(&deep).await.is_err());
    });
}

#[test]
fn file_systems_are_known() {
    on_one_shard(|| async {
        let space = fs::space(Path::new(env!("CARGO_TARGET_TMPDIR"))).await.unwrap();
        assert!(space.usable > 0 && space.usable <= space.total, "{space:?}");
        assert_eq!(fs::space(Path::new("/dev/shm")).await.unwrap().kind, "tmpfs");
        assert!(fs::space(Path::new("/nowhere")).await.is_err());
    });
}

#[test]
fn small_files_are_read_whole() {
    on_one_shard(|| async {
        let folder = Folder::new("small");
        for len in [0, 1, 4095, 4096, 4097, (1 << 20) + 5] {
            let path = folder.join(&len.to_string());
            fs::write_atomic(&path, pattern(len as u64, len)).await.unwrap();
            assert_eq!(fs::read(&path).await.unwrap(), pattern(len as u64, len));
        }
        // Its length is 0, as that of all files there; it holds something all the same.
        assert!(!fs::read(Path::new("/proc/self/status")).await.unwrap().is_empty());
    });
}
