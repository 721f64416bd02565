//! The files that hold metadata records: snapshots, `bootstrap.checkpoint`, and the 0-0 checkpoint
//! that `format --standalone` leaves (reference section 2.1).

use crate::delta::Delta;
use crate::features::MetadataVersion;
use crate::image::Image;
use crate::load::LoadError;
use crate::log::LogError;
use crate::record::MetadataRecord;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use flowstone_raft::SnapshotId;
use flowstone_raft::control::KraftVoters;
use flowstone_raft::snapshot::{SnapshotHead, SnapshotWriter, read_snapshot};
use flowstone_types::{LeaderEpoch, Timestamp};

/// Writes a snapshot of `image`, piece by piece, to `out`. `last` is when the last record before
/// `id.end` was appended. An image that its own metadata.version cannot tell whole is refused.
pub fn write(
    image: &Image,
    id: SnapshotId,
    last: Timestamp,
    quorum: (i16, &KraftVoters),
    now: Timestamp,
    out: impl FnMut(Bytes),
) -> Result<(), LogError> {
    let quorum = (quorum.0 >= 1).then_some(quorum); // At 0 the voters are configured, not told.
    let version = image.metadata_version();
    if let Some(&loss) = image.losses_at(version).first() {
        return Err(LogError::NotTold { loss, version });
    }
    write_records(image.to_records(), version, id.epoch, last, quorum, now, out)
}

/// The image of a snapshot's file. One of 1,000,000 partitions with three replicas each (119 MiB) takes
/// some 0.4 s on one core, and 220 MiB beside the file (`benches/scale.rs`).
pub fn read(file: &Bytes) -> Result<(SnapshotHead, Image), LoadError> {
    let mut image = Image::default();
    let head = read_snapshot(file, |value| {
        image.apply(decode(&value)?, &mut Delta::default())?; // All is new: nobody asks what changed.
        Ok::<_, LoadError>(())
    })?;
    Ok((head, image))
}

/// The records of a snapshot's file, one by one: of `bootstrap.checkpoint`, or for tools.
pub fn read_records(file: &Bytes) -> Result<(SnapshotHead, Vec<MetadataRecord>), LoadError> {
    let mut records = Vec::new();
    let head = read_snapshot(file, |value| {
        records.push(decode(&value)?);
        Ok::<_, LoadError>(())
    })?;
    Ok((head, records))
}

/// `bootstrap.checkpoint`: what the first controller writes to an empty log. Goes to every log
/// directory.
pub fn bootstrap(records: Vec<MetadataRecord>, now: Timestamp) -> Result<Bytes, LogError> {
    let mut file = BytesMut::new();
    let out = |part: Bytes| file.extend_from_slice(&part);
    let (records, version) = (records.into_iter(), MetadataVersion::LATEST);
    write_records(records, version, LeaderEpoch(0), Timestamp(0), None, now, out)?;
    Ok(file.freeze())
}

/// `00000000000000000000-0000000000.checkpoint`: who votes, told before there is a log. Goes to
/// `__cluster_metadata-0`, where the node is formatted to vote.
pub fn first_voters(kraft_version: i16, voters: &KraftVoters, now: Timestamp) -> Bytes {
    let mut file = BytesMut::new();
    let epoch = SnapshotId::BOOTSTRAP.epoch;
    let (writer, first) = SnapshotWriter::new(epoch, now, Some((kraft_version, voters)), now);
    file.extend_from_slice(&first);
    writer.finish().iter().for_each(|part| file.extend_from_slice(part));
    file.freeze()
}

fn write_records(
    records: impl Iterator<Item = MetadataRecord>,
    version: MetadataVersion,
    epoch: LeaderEpoch,
    last: Timestamp,
    quorum: Option<(i16, &KraftVoters)>,
    now: Timestamp,
    mut out: impl FnMut(Bytes),
) -> Result<(), LogError> {
    let (mut writer, first) = SnapshotWriter::new(epoch, last, quorum, now);
    out(first);
    for record in records {
        let value = record.encode(record.version_at(version))?;
        writer.push(&value).into_iter().for_each(&mut out);
    }
    writer.finish().into_iter().for_each(&mut out);
    Ok(())
}

fn decode(value: &Bytes) -> Result<MetadataRecord, LogError> {
    Ok(MetadataRecord::decode(value)?.0)
}
