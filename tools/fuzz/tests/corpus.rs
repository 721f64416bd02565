//! Every target on its corpus, and on bent copies of each file: what any compiler can run of the fuzzing, in seconds.
//! The same copies each time, so that nobody's change fails for what it did not touch; `FLOWSTONE_SEED=n` bends others,
//! `BENT=n` makes so many copies of each file, and `make fuzz` looks for new ones.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowstone_fuzz::{Counting, Random, TARGETS, Target, most_held, mutate};

#[global_allocator]
static COUNTING: Counting = Counting;

const SEED: u64 = 1;
/// Bent copies of each file of a corpus...
const BENT: u64 = 200;
/// ...or as many as this much time is enough for, where `BENT` does not say.
const TIME_MAX: Duration = Duration::from_secs(3);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("it is a number"))
}

/// A target's files by name.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files
        .map(|entry| entry.expect("the folder can be listed").path())
        .map(|path| (path.clone(), std::fs::read(path).expect("the file can be read")))
        .collect();
    files.sort();
    files
}

/// Tries `data`; where it fails, it is kept and named.
fn check(target: &Target, data: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target.check(data))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failed", target.name));
        std::fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("a folder of the build folder");
        std::fs::write(&kept, data).expect("the build folder can be written");
        panic!("{}: {what} failed, kept as {}", target.name, kept.display());
    }
}

fn run(name: &str) {
    let target = flowstone_fuzz::target(name).expect("it is in the list");
    let files = corpus(target);
    assert!(!files.is_empty(), "{name} has a corpus");
    let seed = number("FLOWSTONE_SEED").unwrap_or(SEED);
    println!("{name}: FLOWSTONE_SEED={seed}");
    let mut random = Random::new(seed);
    check(target, b"", "nothing");
    for (path, data) in &files {
        assert!(data.len() <= target.bytes_max, "{} is larger than what is tried", path.display());
        check(target, data, &path.display().to_string());
    }
    let (began, told) = (Instant::now(), number("BENT"));
    let mut tried = 0;
    for _ in 0..told.unwrap_or(BENT) {
        for (path, data) in &files {
            let (_, other) = &files[random.below(files.len())];
            let bent = mutate(&mut random, data, other);
            check(target, &bent, &format!("a bent copy of {}", path.display()));
            tried += 1;
        }
        if told.is_none() && began.elapsed() > TIME_MAX {
            break;
        }
    }
    println!("{name}: {tried} bent copies of {} files", files.len());
}

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        $( #[test] fn $name() { run(stringify!($name)); } )+

        /// A target without a test here would be one that nobody runs.
        #[test]
        fn every_target_is_run() {
            let here = [$( stringify!($name) ),+];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, here);
        }
    };
}

targets! {
    frame, request, batch, inflate, segment, journal, index, producers, checkpoint, store, raft, control, metadata, snapshot,
    config, group_records, group_requests,
}

/// The bound of memory is worth nothing where nobody counts.
#[test]
fn memory_is_counted() {
    let held = most_held(|| drop(vec![1u8; 100_000]));
    assert!((100_000..101_000).contains(&held), "{held}");
}

/// S40. What is refused must not have been held first: a gzip bomb of 780 KB took 394 MiB for a moment.
#[test]
fn bombs_are_refused_within_a_multiple_of_their_bytes() {
    use flowstone_batch::{BatchBuilder, Codec, Limits, Rules, check};
    use flowstone_types::{Offset, Timestamp};
    let value = vec![0; 24 << 20];
    for codec in [Codec::Gzip, Codec::Lz4] {
        let mut bomb = BatchBuilder::new(Offset(0)).compressed(codec, None);
        bomb.push(Timestamp(0), None, Some(&value), &[]);
        let bomb = bomb.build();
        let limits = Limits { ratio_max: 200, floor_bytes: 0, ..Limits::default() };
        let rules = Rules { limits, inspect_compressed: true, ..Rules::default() };
        let held = most_held(|| {
            let checked = check(bomb.clone(), &rules, Timestamp(0));
            assert!(checked.is_err(), "{codec:?}");
        });
        let allowed = 64 * bomb.len() + (256 << 10);
        assert!(held <= allowed, "{codec:?}: {held} bytes for {}, {allowed} allowed", bomb.len());
    }
}
