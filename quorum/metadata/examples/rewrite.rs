//! Replays the metadata log in a directory, and writes its image as snapshots of ours: one beside each
//! snapshot that is there, and one of the log's end. `cargo run --example rewrite FROM TO`.
//!
//! Separate because other readers than ours (`kafka-metadata-shell`) are to judge what we write of what others wrote:
//! `tools/clients/metadata` does. Fails where a snapshot is not what the log says at its end. Tells, a line each,
//! which record types and versions the log has, and the snapshots written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{env, fs};

use bytes::Bytes;
use flowstone_batch::batches;
use flowstone_metadata::log::{self, Entry};
use flowstone_metadata::{Delta, Loader, snapshot_file};
use flowstone_raft::SnapshotId;
use flowstone_raft::control::KraftVoters;
use flowstone_types::Timestamp;

type Failure = Box<dyn std::error::Error>;

/// Paths in `directory` that end with `suffix`, in the order of the offsets that they begin with.
fn files(directory: &Path, suffix: &str) -> Result<Vec<PathBuf>, Failure> {
    let all = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<BTreeSet<_>, Failure>>()?;
    Ok(all.into_iter().filter(|path| path.to_string_lossy().ends_with(suffix)).collect())
}

/// What the log and the snapshots come to, as the log is gone through.
struct Rewriting<'a> {
    to: &'a Path,
    loader: Loader,
    /// When the last batch was appended.
    last: Timestamp,
}

impl Rewriting<'_> {
    /// Writes the image at this point of the log, and holds it against `theirs`.
    fn write(&mut self, id: SnapshotId, theirs: Option<&Path>) -> Result<(), Failure> {
        let (mut replay, stored) = self.loader.clone().finish();
        let (image, _) = replay.publish().ok_or("a transaction is open")?;
        let quorum = stored.quorum.last();
        if let Some(path) = theirs {
            let (head, theirs) = snapshot_file::read(&fs::read(path)?.into())?;
            if theirs != image {
                let other = Delta::between(&theirs, &image);
                return Err(
                    format!("{} is not what the log says: {other:?}", path.display()).into()
                );
            }
            if head.last_contained_log_timestamp != self.last
                || head.voters.as_ref() != Some(&quorum.voters)
            {
                return Err(format!("{}: {head:?}", path.display()).into());
            }
        }
        let mut file = Vec::new();
        let quorum = (quorum.kraft_version, &quorum.voters);
        snapshot_file::write(&image, id, self.last, quorum, self.last, |part| {
            file.extend_from_slice(&part);
        })?;
        let path = self.to.join(id.to_string());
        fs::write(&path, file)?;
        println!("snapshot {}", path.display());
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1).map(PathBuf::from);
    let (Some(from), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: rewrite FROM TO".into());
    };
    let mut theirs = BTreeMap::new();
    let mut loader = Loader::new(None, KraftVoters::default(), vec![]);
    for path in files(&from, ".checkpoint")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match SnapshotId::from_file_name(&name) {
            Some(id @ SnapshotId::BOOTSTRAP) => loader.snapshot(id, &fs::read(&path)?.into())?,
            Some(id) => drop(theirs.insert(id.end, (id, path))),
            None => {}
        }
    }
    let mut rewriting = Rewriting { to: &to, loader, last: Timestamp(0) };
    let mut types = BTreeMap::new();
    let mut end = SnapshotId::BOOTSTRAP;
    for path in files(&from, ".log")? {
        let file: Bytes = fs::read(&path)?.into();
        for batch in batches(&file) {
            let (_, header, bytes) = batch?;
            if let Some((id, path)) = theirs.remove(&header.base_offset) {
                rewriting.write(id, Some(&path))?;
            }
            let bytes = file.slice_ref(bytes);
            if let (_, Entry::Records(records)) = log::read_batch(&bytes)? {
                for record in records {
                    *types.entry(record.name()).or_insert(0) += 1;
                }
            }
            rewriting.loader.batch(&bytes)?;
            rewriting.last = header.max_timestamp;
            end = SnapshotId { end: header.last_offset().plus(1), epoch: header.leader_epoch };
        }
    }
    if let Some((_, (_, path))) = theirs.first_key_value() {
        return Err(format!("{} ends where no batch does", path.display()).into());
    }
    rewriting.write(end, None)?;
    for (name, count) in types {
        println!("record {name} {count}");
    }
    Ok(())
}
