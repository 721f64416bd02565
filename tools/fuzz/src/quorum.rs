//! The metadata quorum: its messages, the log's records, and what snapshots make of them.

use bytes::Bytes;
use flowstone_batch::{BatchHeader, batches};
use flowstone_metadata::log::{Entry, read_batch};
use flowstone_metadata::{Image, Loader, MetadataRecord, Replay, snapshot_file};
use flowstone_raft::control::{
    ControlRecord, KraftVersion, KraftVoters, LeaderChange, SnapshotFooter, SnapshotHeader,
    control_batch, read_control_batch,
};
use flowstone_raft::messages as m;
use flowstone_raft::{Quorum, SnapshotId};
use flowstone_schema::Message;
use flowstone_types::{LeaderEpoch, Offset, Timestamp};

use crate::bytes_in::{Input, with_right_crcs};

/// Reads a message in one of its versions.
type Read = fn(u8, &[u8]);

const MESSAGES: &[Read] = &[
    there_and_back::<m::VoteRequest>,
    there_and_back::<m::VoteResponse>,
    there_and_back::<m::BeginQuorumEpochRequest>,
    there_and_back::<m::BeginQuorumEpochResponse>,
    there_and_back::<m::EndQuorumEpochRequest>,
    there_and_back::<m::EndQuorumEpochResponse>,
    there_and_back::<m::FetchRequest>,
    there_and_back::<m::FetchResponse>,
    there_and_back::<m::FetchSnapshotRequest>,
    there_and_back::<m::FetchSnapshotResponse>,
    there_and_back::<m::DescribeQuorumRequest>,
    there_and_back::<m::DescribeQuorumResponse>,
    there_and_back::<m::AddRaftVoterRequest>,
    there_and_back::<m::AddRaftVoterResponse>,
    there_and_back::<m::RemoveRaftVoterRequest>,
    there_and_back::<m::RemoveRaftVoterResponse>,
    there_and_back::<m::UpdateRaftVoterRequest>,
    there_and_back::<m::UpdateRaftVoterResponse>,
    there_and_back::<LeaderChange>,
    there_and_back::<SnapshotHeader>,
    there_and_back::<SnapshotFooter>,
    there_and_back::<KraftVersion>,
    there_and_back::<KraftVoters>,
];

/// The first two bytes choose the message and its version.
pub(crate) fn message(data: &[u8]) {
    let mut input = Input(data);
    let read = input.one_of(MESSAGES);
    read(input.byte(), input.0);
}

/// What decodes can be written, and what was written is read and written the same. (Not what was read: unknown tagged
/// fields may have come in any order, and a number that is none equals nothing.)
pub(crate) fn there_and_back<M: Message>(version: u8, bytes: &[u8]) {
    let versions = i16::from(version) % (M::VERSION_MAX - M::VERSION_MIN + 1);
    let version = M::VERSION_MIN + versions;
    let Ok(message) = M::decode(version, bytes) else { return };
    let written = message.to_vec(version).expect("what was read can be written");
    let again = M::decode(version, &written).expect("what was written is read");
    assert_eq!(again.to_vec(version), Ok(written), "{} {version}", M::NAME);
}

/// Control batches, their checksums made right. What is read of the kinds we write is written, and read as the same.
pub(crate) fn control(data: &[u8]) {
    let file = with_right_crcs(data, true);
    for batch in batches(&file) {
        let Ok((_, header, bytes)) = batch else { return };
        let batch = file.slice_ref(bytes);
        let read = read_batch(&batch);
        if !header.attributes.is_control() {
            continue;
        }
        let Ok(mut all) = read_control_batch(&batch) else { continue };
        assert_eq!(read.expect("its CRC is right"), (header, Entry::Control(all.clone())));
        all.retain(|record| *record != ControlRecord::Other);
        if !all.is_empty() {
            let written = control_batch(Offset(3), LeaderEpoch(1), Timestamp(2), &all);
            assert_eq!(read_control_batch(&written), Ok(all));
        }
    }
}

/// Pieces, each a record's value. What decodes is written the same; the image that those that apply make is told by a
/// snapshot, which makes the same image.
pub(crate) fn records(data: &[u8]) {
    let mut input = Input(data);
    let mut replay = Replay::default();
    while let Some(value) = input.piece() {
        let Ok((record, version)) = MetadataRecord::decode(value) else { continue };
        let written = record.encode(version).expect("what was read can be written");
        let (again, _) = MetadataRecord::decode(&written).expect("what was written is read");
        assert_eq!(again.encode(version), Ok(written));
        if let Err(refused) = replay.apply(record) {
            drop(refused.to_string());
        }
    }
    if let Some((image, _)) = replay.publish() {
        told_again(&image);
    }
}

/// A log, or a snapshot's file: the first byte chooses. Checksums are made right.
pub(crate) fn snapshot(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    let file = with_right_crcs(input.0, false);
    if how & 1 == 0 {
        let _ = snapshot_file::read_records(&file);
        if let Ok((_, image)) = snapshot_file::read(&file) {
            told_again(&image);
        }
        return;
    }
    let mut loader = Loader::new(None, KraftVoters::default(), Vec::new());
    for batch in batches(&file) {
        let Ok((_, _, bytes)) = batch else { break };
        let batch = file.slice_ref(bytes);
        let taken = if how & 2 == 0 { loader.batch(&batch) } else { loader.note(&batch) };
        if taken.is_err() {
            break;
        }
    }
    let (mut replay, stored) = loader.finish();
    assert!(stored.log_start <= stored.log_end);
    assert!(stored.epochs.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start));
    if let Some((image, _)) = replay.publish() {
        told_again(&image);
    }
}

/// A snapshot of `image` makes the same image, unless its metadata.version cannot tell all of it.
fn told_again(image: &Image) {
    let id = SnapshotId { end: Offset(9), epoch: LeaderEpoch(2) };
    let (mut file, time) = (Vec::new(), Timestamp(5));
    let quorum = Quorum { kraft_version: 1, voters: KraftVoters::default() };
    let quorum = (quorum.kraft_version, &quorum.voters);
    let out = |part: Bytes| file.extend_from_slice(&part);
    if let Err(refused) = snapshot_file::write(image, id, time, quorum, time, out) {
        return drop(refused.to_string());
    }
    let file = Bytes::from(file);
    let first = BatchHeader::parse(&file).expect("it is ours");
    assert_eq!(first.leader_epoch, id.epoch);
    let (_, again) = snapshot_file::read(&file).expect("a snapshot of ours is read");
    assert_eq!(again, *image, "a snapshot tells the whole image");
}
