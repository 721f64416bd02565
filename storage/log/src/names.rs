//! Names of files and directories, as Kafka gives them.
//!
//! Separate because recovery, deletion and the tools must agree on what a name means.

use alloc::format;
use alloc::string::{String, ToString};
use flowstone_types::Offset;

/// What one file of a segment holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offset to position.
    OffsetIndex,
    /// `.timeindex`: timestamp to offset.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TransactionIndex,
    /// `.snapshot`: producer state at the offset in the name.
    Snapshot,
}

impl FileKind {
    /// Every kind, the batches last: whoever removes in this order never leaves batches behind
    /// that look sealed.
    pub const ALL: [Self; 5] =
        [Self::OffsetIndex, Self::TimeIndex, Self::TransactionIndex, Self::Snapshot, Self::Log];

    /// The suffix of such a file, with its dot.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TransactionIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }
}

/// Name of the file of `kind` at `base`: twenty digits and the suffix.
pub fn segment_file(base: Offset, kind: FileKind) -> String {
    format!("{:020}{}", base.0, kind.suffix())
}

/// Name of a journal's file with this number.
pub fn journal(number: u64) -> String {
    format!("{JOURNAL}{number:016x}")
}

/// Ends the name of a file that waits for its removal.
pub const DELETED: &str = ".deleted";
/// Ends the name of an unfinished result of Kafka's compaction.
pub const CLEANED: &str = ".cleaned";
/// Ends the name of a finished result of Kafka's compaction that is not in its place yet.
pub const SWAP: &str = ".swap";
/// The leader epochs of a log and where each began.
pub const EPOCHS: &str = "leader-epoch-checkpoint";
/// The topic id of a log.
pub const PARTITION_METADATA: &str = "partition.metadata";
/// Identity of a log directory.
pub const META_PROPERTIES: &str = "meta.properties";
/// Present after a clean shutdown only.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// Per partition: everything below is flushed.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Per partition: the first offset that may be read.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// Per partition: the high watermark.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Present where a write or flush of this log failed (our own file; Kafka knows none): what is in the
/// page cache and in files may not be on the disk, whatever a later flush says.
pub const DISTRUSTED: &str = "flowstone-distrusted";
/// An operator makes it where a log is damaged and is to be cut all the same; in a log directory, where a journal is
/// damaged and what it had is to be given up (our own file).
pub const CUT_ALLOWED: &str = "flowstone-cut-allowed";
/// Begins the name of a journal's file (our own: see [`crate::journal`]); a number follows.
pub const JOURNAL: &str = "flowstone-journal-";
/// Ends the name of a partition directory that waits for its removal.
pub const DELETE_DIR: &str = "-delete";
/// Ends the name of a partition directory that belongs to no topic we know.
pub const STRAY_DIR: &str = "-stray";

/// What a file of a partition directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A file of the segment (or the snapshot) at this offset.
    Segment(Offset, FileKind),
    /// A file that waits for its removal, or an unfinished temporary one.
    Leftover,
    /// A result of compaction that waits for its place.
    Swap,
    /// Something that is not ours to touch.
    Other,
}

/// Reads a file name. KRaft's snapshots (`.checkpoint`) belong to the quorum: not ours.
pub fn classify(name: &str) -> Named {
    if name.contains(".checkpoint") {
        return Named::Other;
    }
    if name.ends_with(DELETED) || name.ends_with(CLEANED) {
        return Named::Leftover;
    }
    if name.ends_with(SWAP) {
        return Named::Swap;
    }
    let Some((digits, suffix)) = name.split_at_checked(20) else { return Named::Other };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Named::Other;
    }
    let Ok(base) = digits.parse() else { return Named::Other };
    FileKind::ALL
        .into_iter()
        .find(|kind| kind.suffix() == suffix)
        .map_or(Named::Other, |kind| Named::Segment(Offset(base), kind))
}

/// Name of a partition's directory.
pub fn partition_dir(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

/// Topic and partition of a directory's name; `None` for a name that is no partition's.
pub fn parse_partition_dir(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let index: i32 = partition.parse().ok()?;
    // "+1" and "01" parse as numbers, yet Kafka never writes them.
    (index >= 0 && index.to_string() == partition && flowstone_types::valid_topic_name(topic))
        .then_some((topic, index))
}

/// Longest name a file may have on every file system we run on.
const FILE_NAME_BYTES_MAX: usize = 255;

/// Name under which a partition's directory waits for its removal (`suffix` is [`DELETE_DIR`] or
/// [`STRAY_DIR`]); the topic's part is cut where the whole would be too long, as Kafka cuts it.
pub fn retired_dir(topic: &str, partition: i32, unique: u128, suffix: &str) -> String {
    let tail = format!("-{partition}.{unique:032x}{suffix}");
    let keep = topic.len().min(FILE_NAME_BYTES_MAX - tail.len());
    format!("{}{tail}", &topic[..keep])
}

/// Whether a directory's name says that it only waits for its removal.
pub fn is_retired_dir(name: &str) -> bool {
    name.ends_with(DELETE_DIR)
        && name.len() > 33 + DELETE_DIR.len()
        && name.as_bytes()[name.len() - 33 - DELETE_DIR.len()] == b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(segment_file(Offset(42), FileKind::TimeIndex), "00000000000000000042.timeindex");
        for kind in FileKind::ALL {
            assert_eq!(classify(&segment_file(Offset(7), kind)), Named::Segment(Offset(7), kind));
        }
        assert_eq!(classify("00000000000000000042.log.deleted"), Named::Leftover);
        assert_eq!(classify("00000000000000000042.log.swap"), Named::Swap);
        for other in
            ["leader-epoch-checkpoint", "00000000000000000042-0000000001.checkpoint", "x", ""]
        {
            assert_eq!(classify(other), Named::Other, "{other}");
        }
    }

    #[test]
    fn directories_go_there_and_back() {
        assert_eq!(parse_partition_dir("my-topic-12"), Some(("my-topic", 12)));
        for bad in ["topic", "topic-", "topic-+1", "topic-01", "-1", "topic-0.0123-delete"] {
            assert_eq!(parse_partition_dir(bad), None, "{bad}");
        }
        let long = "t".repeat(249);
        let retired = retired_dir(&long, 12, 7, DELETE_DIR);
        assert_eq!(retired.len(), 255);
        assert!(is_retired_dir(&retired));
        assert!(!is_retired_dir("orders-delete"));
        assert_eq!(parse_partition_dir(&retired), None);
    }
}
