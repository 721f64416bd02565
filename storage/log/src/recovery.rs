//! What opening a partition's directory finds, and what of it must be read again.
//!
//! Pure: a listing comes in, a plan goes out. Rule: after a clean shutdown everything is trusted
//! whose indexes are there; after any other end, only segments that end at or below the recovery
//! point (which moves when a segment was flushed and its indexes stored). The rest is scanned.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use flowstone_types::{Offset, Timestamp};

use crate::index::{OffsetIndex, TimeIndex};
use crate::names::{FileKind, Named, classify, segment_file};

/// One file of the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written.
    pub modified: Timestamp,
}

/// A segment to load, or to scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedSegment {
    /// The offset in its name.
    pub base: Offset,
    /// Length of its `.log` file, which may be more than its batches take.
    pub file_bytes: u64,
    /// When it was last written.
    pub modified: Timestamp,
    /// Whether its batches must be read again, one by one.
    pub scan: bool,
}

/// What to do with a partition's directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Files to remove first: leftovers, and files of segments that are no more.
    pub remove: Vec<String>,
    /// The segments, by base offset.
    pub segments: Vec<PlannedSegment>,
    /// Offsets at which a producer snapshot exists, ascending.
    pub snapshots: Vec<Offset>,
    /// A compaction by Kafka was interrupted while it put its results in place: only Kafka can end it.
    pub interrupted_compaction: bool,
}

/// Decides from the files of a partition's directory. `clean`: the directory was shut down cleanly;
/// `recovery_point`: everything below is known to be flushed and indexed.
pub fn plan(files: &[Found], clean: bool, recovery_point: Offset) -> Plan {
    let mut plan = Plan::default();
    let mut logs: BTreeMap<Offset, (u64, Timestamp)> = BTreeMap::new();
    let mut indexes: BTreeMap<(Offset, bool), u64> = BTreeMap::new();
    for file in files {
        match classify(&file.name) {
            Named::Leftover => plan.remove.push(file.name.clone()),
            Named::Swap => plan.interrupted_compaction = true,
            Named::Segment(base, FileKind::Log) => {
                logs.insert(base, (file.bytes, file.modified));
            }
            Named::Segment(base, FileKind::OffsetIndex) => {
                indexes.insert((base, false), file.bytes);
            }
            Named::Segment(base, FileKind::TimeIndex) => {
                indexes.insert((base, true), file.bytes);
            }
            Named::Segment(base, FileKind::Snapshot) => plan.snapshots.push(base),
            Named::Segment(_, FileKind::TransactionIndex) | Named::Other => {}
        }
    }
    for file in files {
        if let Named::Segment(base, kind) = classify(&file.name)
            && !matches!(kind, FileKind::Log | FileKind::Snapshot)
            && !logs.contains_key(&base)
        {
            plan.remove.push(file.name.clone());
        }
    }
    plan.snapshots.sort_unstable();

    let sized = |base: Offset, is_time: bool, entry: usize| {
        indexes.get(&(base, is_time)).is_some_and(|bytes| bytes.is_multiple_of(entry as u64))
    };
    let nexts = logs.keys().skip(1).map(|next| Some(*next)).chain([None]);
    for ((base, (file_bytes, modified)), next) in logs.iter().zip(nexts) {
        let indexed = sized(*base, false, OffsetIndex::ENTRY_BYTES)
            && sized(*base, true, TimeIndex::ENTRY_BYTES);
        let flushed = clean || next.is_some_and(|next| next <= recovery_point);
        plan.segments.push(PlannedSegment {
            base: *base,
            file_bytes: *file_bytes,
            modified: *modified,
            scan: !(indexed && flushed),
        });
    }
    plan
}

/// The producer snapshot to start from, when batches are read again from `scan_from` on: the newest
/// one that is not behind it. The segments between the two must be read as well.
pub fn snapshot_for(snapshots: &[Offset], scan_from: Offset) -> Option<Offset> {
    snapshots.iter().rev().find(|at| **at <= scan_from).copied()
}

/// Snapshots that no recovery will want: below all segments, or between two of them. The one at the
/// log's end stays.
pub fn stray_snapshots(
    snapshots: &[Offset],
    segments: &[PlannedSegment],
    log_end: Offset,
) -> Vec<String> {
    snapshots
        .iter()
        .filter(|at| **at != log_end && segments.iter().all(|segment| segment.base != **at))
        .map(|at| segment_file(*at, FileKind::Snapshot))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::vec;

    fn found(names: &[&str]) -> Vec<Found> {
        let file =
            |name: &&str| Found { name: (*name).to_owned(), bytes: 24, modified: Timestamp(5) };
        names.iter().map(file).collect()
    }

    const THREE: [&str; 9] = [
        "00000000000000000000.log",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000100.log",
        "00000000000000000100.index",
        "00000000000000000100.timeindex",
        "00000000000000000200.log",
        "00000000000000000200.index",
        "00000000000000000200.timeindex",
    ];

    fn scans(files: &[&str], clean: bool, recovery_point: i64) -> Vec<bool> {
        plan(&found(files), clean, Offset(recovery_point)).segments.iter().map(|s| s.scan).collect()
    }

    #[test]
    fn only_what_was_not_sealed_is_scanned() {
        assert_eq!(scans(&THREE, true, 0), [false, false, false]);
        assert_eq!(scans(&THREE, false, 200), [false, false, true]);
        assert_eq!(scans(&THREE, false, 199), [false, true, true], "ends above the recovery point");
        assert_eq!(scans(&THREE, false, 9999), [false, false, true], "the last one always");
    }

    #[test]
    fn missing_and_crooked_indexes_are_built_again() {
        assert_eq!(scans(&THREE[..8], true, 0), [false, false, true]);
        let mut files = found(&THREE);
        files[1].bytes = 23;
        assert!(plan(&files, true, Offset(0)).segments[0].scan);
    }

    #[test]
    fn leftovers_and_orphans_go_and_strangers_stay() {
        let plan = plan(
            &found(&[
                "00000000000000000000.log.deleted",
                "00000000000000000007.cleaned",
                "00000000000000000300.index",
                "00000000000000000300.snapshot",
                "00000000000000000042-0000000001.checkpoint",
                "quorum-state",
            ]),
            false,
            Offset(0),
        );
        assert_eq!(plan.remove.len(), 3);
        assert_eq!(plan.remove[2], "00000000000000000300.index");
        assert_eq!(plan.snapshots, vec![Offset(300)]);
        assert!(!plan.interrupted_compaction);
    }

    #[test]
    fn the_newest_snapshot_not_behind_the_scan_is_used() {
        let at = [Offset(100), Offset(200), Offset(300)];
        assert_eq!(snapshot_for(&at, Offset(250)), Some(Offset(200)));
        assert_eq!(snapshot_for(&at, Offset(200)), Some(Offset(200)));
        assert_eq!(snapshot_for(&at, Offset(99)), None);
    }
}
