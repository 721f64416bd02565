//! A directory that Apache Kafka 4.3.1 wrote and shut down: `golden-0` has 20 records from each of
//! five idempotent producers, with each of five codecs. `KAFKA_DATA=dir` checks every log of another.

mod common;

use std::path::{Path, PathBuf};

use common::*;
use flowstone_log::FileKind;
use flowstone_store::{LogConfig, LogDir};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Timestamp};

fn copied(name: &str) -> Folder {
    let folder = Folder::new(name);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/kafka-4.3.1");
    copy(&golden, &folder.0);
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens every partition of a directory and reads it whole; returns topic, start, end and bytes.
async fn open_all(path: PathBuf) -> Vec<(String, Offset, Offset, Vec<u8>)> {
    let (dir, store) = store_in(&path).await;
    let mut logs = Vec::new();
    for found in dir.partitions().await.unwrap() {
        let spec = flowstone_store::LogSpec {
            topic: found.topic.as_str().into(),
            id: PartitionId { topic: found.topic_id.unwrap(), index: found.index },
            config: LogConfig::default().into(),
            leader_epoch: LeaderEpoch(0),
            whereabouts: flowstone_store::Whereabouts::Untold,
        };
        let log = store.open(spec, std::rc::Rc::new(Ear::default())).await.unwrap();
        let bytes = read_all(&log, 300_000).await;
        logs.push((found.topic, log.log_start(), log.log_end(), bytes));
    }
    store.shutdown().await.unwrap();
    logs
}

fn expected() -> Vec<u8> {
    std::fs::read(copied("expected").0.join("golden-0/00000000000000000000.log")).unwrap()
}

#[test]
fn it_is_opened_and_served_as_it_is() {
    let folder = copied("golden");
    live(&folder, |path| async move {
        let dir = LogDir::open(path.clone(), flowstone_types::Uuid(1)).await.unwrap();
        assert!(dir.was_clean());
        let (_, store) = store_in(&path).await;
        let found = dir.partitions().await.unwrap().remove(0);
        let spec = flowstone_store::LogSpec {
            topic: "golden".into(),
            id: PartitionId { topic: found.topic_id.unwrap(), index: 0 },
            config: LogConfig::default().into(),
            leader_epoch: LeaderEpoch(0),
            whereabouts: flowstone_store::Whereabouts::Untold,
        };
        let log = store.open(spec, std::rc::Rc::new(Ear::default())).await.unwrap();
        assert_eq!((log.log_start(), log.log_end()), (Offset(0), Offset(100)));
        assert_eq!(log.producers().len(), 5, "from Kafka's snapshot");
        assert!(read_all(&log, 1000).await == expected());
        let first = log.offset_for_timestamp(Timestamp(0), Offset(100)).await.unwrap().unwrap();
        assert_eq!((first.0, first.2), (Offset(0), LeaderEpoch(0)));
        assert_eq!(log.epoch_end_offset(LeaderEpoch(0)), (LeaderEpoch(0), Offset(100)));
        append(&log, batch(1, 100));
        assert_eq!(log.log_end(), Offset(101));
    });
}

#[test]
fn missing_and_damaged_helpers_are_built_again() {
    let harms: [fn(&Path); 6] = [
        |path| std::fs::remove_file(path.join("golden-0/00000000000000000000.index")).unwrap(),
        |path| std::fs::remove_file(path.join("golden-0/00000000000000000000.timeindex")).unwrap(),
        |path| {
            std::fs::write(path.join("golden-0/00000000000000000000.timeindex"), [7; 11]).unwrap();
        },
        |path| std::fs::write(path.join("golden-0/leader-epoch-checkpoint"), [0; 20]).unwrap(),
        |path| std::fs::write(path.join("golden-0/00000000000000000100.snapshot"), [1; 9]).unwrap(),
        |path| std::fs::remove_file(path.join(".kafka_cleanshutdown")).unwrap(),
    ];
    for harm in harms {
        let folder = copied("harmed");
        harm(&folder.0);
        live(&folder, |path| async move {
            let logs = open_all(path).await;
            assert_eq!((logs[0].1, logs[0].2), (Offset(0), Offset(100)));
            assert!(logs[0].3 == expected());
        });
    }
}

/// Byte for byte what Kafka wrote: indexes built from the batches alone.
#[test]
fn rebuilt_indexes_are_those_kafka_wrote() {
    let folder = match std::env::var_os("KAFKA_DATA") {
        Some(data) => {
            let folder = Folder::new("kafka-data");
            copy(Path::new(&data), &folder.0);
            folder
        }
        None => copied("rebuilt"),
    };
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(&folder.0).unwrap().map(Result::unwrap) {
        let partition = entry.path();
        if !partition.is_dir() || entry.file_name() == "__cluster_metadata-0" {
            continue;
        }
        for file in std::fs::read_dir(&partition).unwrap().map(|file| file.unwrap().path()) {
            let kinds = [FileKind::OffsetIndex, FileKind::TimeIndex].map(FileKind::suffix);
            if kinds.iter().any(|kind| file.to_str().unwrap().ends_with(kind)) {
                kept.push((file.clone(), std::fs::read(&file).unwrap()));
                std::fs::remove_file(file).unwrap();
            }
        }
    }
    let _ = std::fs::remove_dir_all(folder.0.join("__cluster_metadata-0"));
    assert!(!kept.is_empty());
    live(&folder, |path| async move {
        // Touched, so that the last segment is stored again too.
        open_all(path.clone()).await;
    });
    for (file, want) in kept {
        match std::fs::read(&file) {
            Ok(got) => assert!(got == want, "{}", file.display()),
            Err(error) => assert!(is_last(&file), "{}: {error}", file.display()),
        }
    }
}

/// An active segment that is only read keeps no index files: it is read again at the next start.
fn is_last(index: &Path) -> bool {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(index.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.last().unwrap().file_stem() == index.file_stem()
}
