//! A whole log directory on a simulated disk: the daemon's own recovery on files that anybody may have bent.
//!
//! Separate because it runs the store itself, many files at once, where `files` tries each reader alone.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use flowstone_log::ActiveProducer;
use flowstone_runtime::sim::{MachineId, World};
use flowstone_store::{
    LogConfig, LogDir, LogSpec, ReadError, StorageError, Store, StoreConfig, Watcher, Whereabouts,
};
use flowstone_types::{LeaderEpoch, Offset, PartitionId, Uuid};

use crate::bytes_in::{Input, with_right_crcs};

const DATA: &str = "/data";
/// The topic id in the corpora's `partition.metadata`.
pub(crate) const TOPIC: Uuid = Uuid(0x1234_5678_9abc_def0_1234_5678_9abc_def0);

/// The files that a piece can be; the byte before it chooses.
pub(crate) const FILES: [&str; 18] = [
    "topic-0/00000000000000000000.log",
    "topic-0/00000000000000000000.index",
    "topic-0/00000000000000000000.timeindex",
    "topic-0/00000000000000000006.log",
    "topic-0/00000000000000000006.index",
    "topic-0/00000000000000000006.timeindex",
    "topic-0/00000000000000000006.snapshot",
    "topic-0/00000000000000000012.snapshot",
    "topic-0/leader-epoch-checkpoint",
    "topic-0/partition.metadata",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    ".kafka_cleanshutdown",
    "flowstone-journal-0000000000000000",
    "topic-0/00000000000000000000.txnindex",
    "topic-0/00000000000000000012.log",
    "topic-0/00000000000000000100.snapshot",
];

/// The marker of a clean shutdown, among them.
const CLEAN: usize = 13;

/// Bit of the byte before a piece: its batches' checksums are made right.
const MEND: u8 = 0x80;

/// Pieces, each behind a byte that chooses its file. The directory is recovered, read from end to end, and left as
/// by a kill; recovered again it is the same.
pub(crate) fn directory(data: &[u8]) {
    let mut input = Input(data);
    let world = World::new(7);
    let machine = world.machine("disk");
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    while input.has_more() && files.len() < FILES.len() {
        let which = input.byte();
        let Some(bytes) = input.piece() else { break };
        let path = Path::new(DATA).join(FILES[usize::from(which & !MEND) % FILES.len()]);
        let bytes = match which & MEND {
            0 => bytes.to_vec(),
            _ => with_right_crcs(bytes, false).to_vec(),
        };
        files.retain(|(other, _)| *other != path);
        files.push((path, bytes));
    }
    let is_clean = files.iter().any(|(path, _)| path.ends_with(FILES[CLEAN]));
    run(&world, machine, async move {
        for (path, bytes) in files {
            write(&path, bytes).await;
        }
    });
    if is_clean {
        // What was shut down cleanly is believed; recovery begins with the kill that follows.
        run(&world, machine, open());
    }
    let first = run(&world, machine, open());
    let after_first = partition_files(&world, machine);
    let second = run(&world, machine, open());
    assert_eq!(second, first, "recovered twice");
    let Found::Log(_) = first else { return };
    // A kill after the first recovery: what it dropped stays dropped, what it kept is untouched.
    let after_second = partition_files(&world, machine);
    assert!(after_second == after_first, "the second recovery changed files");
}

/// Runs a program on the machine to its end, which is a kill to all that it leaves open.
fn run<T: 'static>(
    world: &World,
    machine: MachineId,
    main: impl Future<Output = T> + 'static,
) -> T {
    let result = Rc::new(std::cell::RefCell::new(None));
    let main = Rc::new(std::cell::RefCell::new(Some(main)));
    let place = Rc::clone(&result);
    world.boot(machine, 1, move |_| {
        let main = main.borrow_mut().take().expect("one shard");
        let place = Rc::clone(&place);
        async move {
            let value = main.await;
            *place.borrow_mut() = Some(value);
        }
    });
    let control = world.control();
    world.run(async move {
        while control.is_running(machine) {
            flowstone_runtime::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    result.take().expect("it ran to its end")
}

async fn write(path: &Path, bytes: Vec<u8>) {
    use flowstone_runtime::{File, OpenOptions, fs};
    let parent = path.parent().expect("it is inside of the directory");
    fs::create_dir_all(parent).await.expect("the disk is healthy");
    let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
    let file = File::open(path, options).await.expect("the disk is healthy");
    file.write_at(vec![bytes.into()], 0).await.expect("the disk is healthy");
    file.sync().await.expect("the disk is healthy");
}

fn partition_files(world: &World, machine: MachineId) -> Vec<(PathBuf, Vec<u8>)> {
    let files = world.files(machine).into_iter();
    files.filter(|(path, _)| path.starts_with(Path::new(DATA).join("topic-0"))).collect()
}

/// What opening a directory came to.
#[derive(PartialEq, Debug)]
enum Found {
    /// It is refused, which is the operator's to mend.
    Refused(String),
    /// A log.
    Log(Box<Log>),
}

/// A log, as its readers see it.
#[derive(PartialEq, Debug)]
struct Log {
    start: Offset,
    end: Offset,
    bytes: Vec<u8>,
    corrupt: usize,
    epoch: Option<LeaderEpoch>,
    producers: Vec<ActiveProducer>,
}

async fn open() -> Found {
    let opened = async {
        let dir = LogDir::open(DATA, Uuid(77)).await?;
        let mut config = StoreConfig::new(vec![dir.clone()]);
        config.memory_bytes = 1 << 20;
        config.journal_bytes = 0;
        let store = Store::new(config);
        let spec = LogSpec {
            topic: "topic".into(),
            id: PartitionId { topic: TOPIC, index: 0 },
            config: Arc::new(LogConfig::default()),
            leader_epoch: LeaderEpoch::NONE,
            whereabouts: Whereabouts::Untold,
        };
        let log = store.open(spec, Rc::new(Nobody)).await?;
        Ok::<_, StorageError>((store, log))
    };
    let (_store, log) = match opened.await {
        Ok(opened) => opened,
        Err(error) => return Found::Refused(error.to_string()),
    };
    let (start, end) = (log.log_start(), log.log_end());
    assert!(start <= end, "{start} to {end}");
    assert_eq!(log.durable_end(), end, "what recovery leaves is on stable storage");
    let (mut bytes, mut corrupt, mut next) = (Vec::new(), 0, start);
    while next < end {
        match log.read(next, Offset(i64::MAX), 8 << 10, true).await {
            Ok(out) if out.bytes == 0 => break,
            Ok(out) => {
                let parts = out.parts.concat();
                assert_eq!(parts.len(), out.bytes);
                let before = next;
                for batch in flowstone_batch::batches(&parts) {
                    let (_, header, batch) = batch.expect("whole batches are served");
                    assert!(flowstone_batch::crc_ok(batch), "a corrupt batch was served");
                    assert!(header.last_offset() >= next && header.last_offset() < end);
                    next = header.last_offset().plus(1);
                }
                assert!(next > before, "bytes without a batch");
                bytes.extend(parts);
            }
            // Damage in a segment that was sealed, or shut down cleanly: told, and never served.
            Err(ReadError::Corrupt { .. } | ReadError::Storage(StorageError::Damaged { .. })) => {
                corrupt += 1;
                next = Offset(next.0 + 1 + (end.0 - next.0) / 2);
            }
            Err(error) => panic!("reading {next} of {start} to {end}: {error}"),
        }
    }
    let (epoch, producers) = (log.latest_epoch(), log.producers());
    Found::Log(Box::new(Log { start, end, bytes, corrupt, epoch, producers }))
}

/// Nobody waits for what the store reports.
struct Nobody;

impl Watcher for Nobody {
    fn durable(&self, _end: Offset) {}
    fn failed(&self, error: &StorageError) {
        panic!("the disk is healthy: {error}");
    }
    fn stalled(&self, error: &StorageError) {
        panic!("the disk has room: {error}");
    }
}
