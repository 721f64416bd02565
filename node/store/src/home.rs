//! A partition's directory: made, put on stable storage, and told from those of other topics.
//!
//! Separate from opening what is in it, because redoing the journal asks whose a directory is, too.
//! Invariant: what may be this topic's, damaged, is never taken for another's and put aside.

use std::path::Path;

use bytes::Bytes;
use flowstone_log::{FileKind, names};
use flowstone_runtime::{File, OpenOptions, fs};
use flowstone_types::Uuid;

use crate::dir::LogDir;
use crate::error::{Action, StorageError};

/// Makes the directory of a partition that has none, and that `dir` counts already. Nothing of it is
/// flushed before the first write ([`make_durable`]): a power cut takes an empty log, which is then made again.
pub(crate) async fn create(
    dir: &LogDir,
    path: &Path,
    topic: &str,
    index: i32,
    id: Uuid,
) -> Result<(), StorageError> {
    // A partition of this name may have been here before: its offsets are not this one's, and a
    // log start above this log's end would have recovery delete it all.
    dir.forget_offsets(topic, index);
    let made = async {
        if !dir.is_forgotten() {
            dir.checkpoint().await?;
        }
        fs::create_dir_all(path).await.map_err(StorageError::io(Action::Make, path))?;
        write_partition_metadata(path, id).await
    };
    let made = made.await;
    if made.is_err() {
        dir.forget(topic, index); // Another directory may have more luck.
    }
    made
}

/// Writes `partition.metadata`, not flushed.
pub(crate) async fn write_partition_metadata(path: &Path, id: Uuid) -> Result<(), StorageError> {
    let file = path.join(names::PARTITION_METADATA);
    let text = Bytes::from(flowstone_log::encode_partition_metadata(id));
    let options = OpenOptions { create: true, write: true, ..OpenOptions::default() };
    let write = async {
        let metadata = File::open(&file, options).await?;
        metadata.set_len(0).await?;
        metadata.write_at(vec![text], 0).await
    };
    write.await.map_err(StorageError::io(Action::Write, &file))
}

/// Puts on stable storage what a first batch needs around it: the topic id, the names of the
/// partition's files, and the partition's own name.
pub(crate) async fn make_durable(dir: &LogDir, path: &Path) -> Result<(), StorageError> {
    let file = path.join(names::PARTITION_METADATA);
    let flush = async { File::open(&file, OpenOptions::default()).await?.sync().await };
    flush.await.map_err(StorageError::io(Action::Flush, &file))?;
    fs::sync_dir(path).await.map_err(StorageError::io(Action::Flush, path))?;
    fs::sync_dir(dir.path()).await.map_err(StorageError::io(Action::Flush, dir.path()))
}

/// Whose a partition's directory is, by its `partition.metadata`.
pub(crate) enum Owner {
    /// The topic that was asked for.
    This,
    /// The same, but its file is damaged: which, and how.
    Bent(StorageError),
    /// Another topic.
    Other(Uuid),
    /// It does not say: Kafka before 2.8 made it, or nothing was ever written in it.
    Nobody,
}

/// Bits in which a `partition.metadata` may differ from what it should be, and still be that one, damaged. Ids are
/// random: the files of two topics differ in some sixty bits, in so few once in 10^15 pairs.
const BENT_BITS_MAX: u32 = 16;

/// Whether the partition at `path` is of the topic `id`. Of a file that neither can be read nor resembles that
/// topic's, an error.
pub(crate) async fn owner(path: &Path, id: Uuid) -> Result<Owner, StorageError> {
    let file = path.join(names::PARTITION_METADATA);
    let bytes = match fs::read(&file).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Owner::Nobody),
        Err(error) => return Err(StorageError::io(Action::Read, &file)(error)),
    };
    let right = flowstone_log::encode_partition_metadata(id);
    let found = flowstone_log::decode_partition_metadata(&String::from_utf8_lossy(&bytes));
    let damaged = |what: String| StorageError::Damaged {
        path: file.clone(),
        what: format!("{what}; mend it: {right:?}"),
    };
    match found {
        Ok(found) if found == id => Ok(Owner::This),
        // Made, not yet flushed, and cut off: nothing was ever written here.
        Err(_) if !has_batches(path).await? => Ok(Owner::Nobody),
        _ if bits_apart(&bytes, right.as_bytes()) <= BENT_BITS_MAX => {
            Ok(Owner::Bent(damaged(format!(
                "a few bits of the id of topic {id} are wrong, and nothing of it is served or moved"
            ))))
        }
        Ok(found) => Ok(Owner::Other(found)),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// How many bits of two texts differ; a newline at the end does not count.
fn bits_apart(one: &[u8], other: &[u8]) -> u32 {
    let (one, other) = (one.trim_ascii_end(), other.trim_ascii_end());
    if one.len() != other.len() {
        return u32::MAX;
    }
    one.iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum()
}

async fn has_batches(path: &Path) -> Result<bool, StorageError> {
    let entries = fs::read_dir(path).await.map_err(StorageError::io(Action::List, path))?;
    let is_log =
        |name: &str| matches!(names::classify(name), names::Named::Segment(_, FileKind::Log));
    Ok(entries.iter().any(|entry| is_log(&entry.name) && entry.len > 0))
}
