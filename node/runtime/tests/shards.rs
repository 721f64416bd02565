//! Shards of the real back end, started as the daemon starts them.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{on_one_shard, on_shards};
use flowstone_runtime::*;

#[test]
fn every_shard_runs_and_knows_itself() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_shards = Arc::clone(&seen);
    on_shards(2, move |index| {
        let seen = Arc::clone(&seen_by_shards);
        async move {
            assert_eq!((shard_index(), shard_count()), (index, 2));
            seen.lock().unwrap().push(index);
        }
    });
    seen.lock().unwrap().sort_unstable();
    assert_eq!(*seen.lock().unwrap(), [0, 1]);
}

#[test]
fn echo() {
    on_one_shard(|| async {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr();
        spawn(async move {
            let server = listener.accept().await.unwrap();
            loop {
                let (got, buffer) = server.recv(Buffer::with_capacity(4096)).await;
                if got.unwrap() == 0 {
                    return;
                }
                server.send(vec![buffer.freeze()]).await.unwrap();
            }
        });
        let client = connect(address).await.unwrap();
        for round in 0..100u8 {
            client.send(vec![Bytes::from(vec![round; 100])]).await.unwrap();
            let (result, buffer) = client.recv_exact(Buffer::with_capacity(100), 100).await;
            result.unwrap();
            assert_eq!(buffer[..], [round; 100]);
        }
    });
}

#[test]
fn offloaded_work_and_sleeps_come_back() {
    let count = Arc::new(AtomicUsize::new(0));
    let inner = Arc::clone(&count);
    on_one_shard(move || async move {
        let before = now();
        sleep(Duration::from_millis(5)).await;
        assert!(now().since(before) >= Duration::from_millis(5));
        assert_eq!(offload(|| 7).await, 7);
        inner.fetch_add(1, SeqCst);
    });
    assert_eq!(count.load(SeqCst), 1);
}
