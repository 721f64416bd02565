//! OffsetCommit, OffsetFetch, OffsetDelete.

use crate::harness::{Coordinator, GROUP, commit, commit_by, fetch, join};
use flowstone_coordinators::{
    Answer, Commit, Error, FetchedOffset, Input, OffsetCommit, OffsetDelete, OffsetFetch,
    PartitionResult, Request, TopicResult,
};
use flowstone_types::Uuid;

/// A consumer that assigns its partitions itself needs no membership.
#[test]
fn a_simple_consumer_commits_and_fetches() {
    let mut c = Coordinator::new();
    assert_eq!(c.offset(GROUP, "t"), -1);
    assert_eq!(c.commit(commit(GROUP, "t", 42)), None);
    assert_eq!(c.offset(GROUP, "t"), 42);
    assert_eq!(c.offset(GROUP, "u"), -1);
    assert_eq!(c.commit(commit(GROUP, "t", 7)), None, "back is allowed");
    assert_eq!(c.offset(GROUP, "t"), 7);
}

/// The promise: what is answered is durable, and what is not durable is not read.
#[test]
fn a_commit_counts_once_it_is_durable() {
    let mut c = Coordinator::new();
    c.prompt = false;
    let first = c.ask(Request::Commit(commit(GROUP, "t", 1)));
    let second = c.ask(Request::Commit(commit(GROUP, "t", 2)));
    assert_eq!(c.offset(GROUP, "t"), -1);
    c.flush_one();
    assert_eq!(c.committed(first), None);
    assert!(c.waits(second));
    assert_eq!(c.offset(GROUP, "t"), 1);
    c.flush_one();
    assert_eq!(c.offset(GROUP, "t"), 2);
}

/// KIP-447: a fetch that requires stable offsets waits for commits under way when it came.
#[test]
fn a_stable_fetch_waits_for_what_is_under_way() {
    let mut c = Coordinator::new();
    c.prompt = false;
    let at_once = c.ask(Request::Fetch(fetch(GROUP, "t", true)));
    assert!(!c.waits(at_once));
    c.ask(Request::Commit(commit(GROUP, "t", 1)));
    c.ask(Request::Commit(commit(GROUP, "t", 2)));
    let waits = c.ask(Request::Fetch(fetch(GROUP, "t", true)));
    c.ask(Request::Commit(commit(GROUP, "t", 3)));
    c.flush_one();
    assert!(c.waits(waits));
    c.flush_one();
    match c.take(waits) {
        Some(Answer::Fetch(Ok(topics))) => assert_eq!(topics[0].partitions[0].offset, 2),
        other => panic!("{other:?}"),
    }
}

/// Who may commit, and with what generation (KafkaApis and ClassicGroup.validateOffsetCommit).
#[test]
fn commits_are_checked_against_the_generation() {
    let mut c = Coordinator::new();
    let old = |commit| OffsetCommit { version: 8, ..commit };
    assert_eq!(c.commit(commit_by("m", 1, "t", 1)), Some(Error::GroupIdNotFound));
    assert_eq!(c.commit(old(commit_by("m", 1, "t", 1))), Some(Error::IllegalGeneration));

    let members = c.stable(&[&["range"]]);
    assert_eq!(c.commit(commit_by(&members[0], 1, "t", 1)), None);
    assert_eq!(c.commit(commit_by(&members[0], 0, "t", 2)), Some(Error::IllegalGeneration));
    assert_eq!(c.commit(commit_by(&members[0], 2, "t", 2)), Some(Error::IllegalGeneration));
    assert_eq!(c.commit(commit_by("m", 1, "t", 2)), Some(Error::UnknownMemberId));
    assert_eq!(c.commit(commit(GROUP, "t", 2)), Some(Error::UnknownMemberId), "has members");
    assert_eq!(c.commit(commit_by(&members[0], -1, "t", 2)), Some(Error::IllegalGeneration));
    let unknown_instance =
        OffsetCommit { instance: Some("i".into()), ..commit_by(&members[0], 1, "t", 2) };
    assert_eq!(c.commit(unknown_instance), Some(Error::UnknownMemberId));

    // While members rejoin, they commit what they have read.
    c.ask(join(&members[0]).protocols(&["range", "x"]).request());
    assert_eq!(c.state(), "CompletingRebalance");
    assert_eq!(c.commit(commit_by(&members[0], 2, "t", 3)), Some(Error::RebalanceInProgress));
    assert_eq!(c.offset(GROUP, "t"), 1);
}

#[test]
fn members_commit_while_others_rejoin() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"], &["range"]]);
    c.ask(join(&members[0]).request());
    assert_eq!(c.state(), "PreparingRebalance");
    assert_eq!(c.commit(commit_by(&members[1], 1, "t", 5)), None);
}

/// A tool may reset the offsets of a group that nobody is in.
#[test]
fn an_empty_group_takes_commits_without_members() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    c.leave(&[(&members[0], "")]);
    assert_eq!(c.commit(commit(GROUP, "t", 9)), None);
    assert_eq!(c.commit(commit_by("m", 2, "t", 9)), Some(Error::UnknownMemberId));
}

/// A commit shows that its member lives, as a heartbeat does.
#[test]
fn a_commit_keeps_a_session_alive() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    for offset in 0..5 {
        c.pass(9_999);
        assert_eq!(c.commit(commit_by(&members[0], 1, "t", offset)), None);
    }
}

/// `offset.metadata.max.bytes` counts UTF-16 units, and fails only the partition it concerns.
#[test]
fn too_much_metadata_fails_its_partition() {
    let mut c = Coordinator::new();
    let one = |partition, metadata: String| Commit {
        partition,
        offset: 1,
        leader_epoch: -1,
        metadata: Some(metadata),
    };
    let mut request = commit(GROUP, "t", 0);
    request.topics[0].partitions =
        vec![one(0, "x".repeat(4_097)), one(1, "ß".repeat(4_096)), one(2, "😀".repeat(2_049))];
    let id = c.ask(Request::Commit(request));
    let error = |partition, error| PartitionResult { partition, error };
    let too_large = Some(Error::OffsetMetadataTooLarge);
    let want = TopicResult {
        name: "t".into(),
        id: crate::harness::TOPIC_ID,
        partitions: vec![error(0, too_large), error(1, None), error(2, too_large)],
    };
    assert_eq!(c.take(id), Some(Answer::Commit(vec![want])));
    // Nothing at all to write: no group comes of it.
    let mut request = commit("other", "t", 0);
    request.topics[0].partitions = vec![one(0, "x".repeat(4_097))];
    assert_eq!(c.commit(request), too_large);
    assert_eq!(c.groups.len(), 1);
}

/// OffsetFetch with a null topic list: all there is.
#[test]
fn all_offsets_of_a_group() {
    let mut c = Coordinator::new();
    let mut request = commit(GROUP, "t", 5);
    request.topics[0].partitions.push(Commit {
        partition: 3,
        offset: 6,
        leader_epoch: 2,
        metadata: Some("note".into()),
    });
    assert_eq!(c.commit(request), None);
    let all = |group: &str| {
        Request::Fetch(OffsetFetch { group: group.into(), topics: None, require_stable: false })
    };
    let id = c.ask(all(GROUP));
    let Some(Answer::Fetch(Ok(topics))) = c.take(id) else { panic!() };
    assert_eq!(topics.len(), 1);
    let found = |partition, offset, leader_epoch, metadata: &str| FetchedOffset {
        partition,
        offset,
        leader_epoch,
        metadata: metadata.into(),
    };
    assert_eq!(topics[0].partitions, [found(0, 5, -1, ""), found(3, 6, 2, "note")]);
    let id = c.ask(all("nobody"));
    assert_eq!(c.take(id), Some(Answer::Fetch(Ok(Vec::new()))));
}

/// KIP-848, OffsetFetch 10: offsets of a topic that was made anew under its name are not found.
#[test]
fn offsets_belong_to_a_topic_id() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 5));
    for (id, want) in [(crate::harness::TOPIC_ID, 5), (Uuid(0x55), -1), (Uuid::ZERO, 5)] {
        let mut request = fetch(GROUP, "t", false);
        request.topics.as_mut().unwrap()[0].id = id;
        let id = c.ask(Request::Fetch(request));
        let Some(Answer::Fetch(Ok(topics))) = c.take(id) else { panic!() };
        assert_eq!(topics[0].partitions[0].offset, want);
    }
}

fn delete(c: &mut Coordinator, group: &str, topic: &str) -> Result<Option<Error>, Error> {
    let topics = vec![(topic.into(), vec![0])];
    let id = c.ask(Request::DeleteOffsets(OffsetDelete { group: group.into(), topics }));
    match c.take(id) {
        Some(Answer::DeleteOffsets(result)) => result.map(|topics| topics[0].partitions[0].error),
        other => panic!("{other:?}"),
    }
}

/// KIP-496: OffsetDelete, but not of topics that a member reads.
#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut c = Coordinator::new();
    assert_eq!(delete(&mut c, GROUP, "t"), Err(Error::GroupIdNotFound));
    let members = c.stable(&[&["range"]]); // Reads "t".
    c.commit(commit_by(&members[0], 1, "t", 1));
    c.commit(commit_by(&members[0], 1, "u", 2));
    assert_eq!(delete(&mut c, GROUP, "t"), Ok(Some(Error::GroupSubscribedToTopic)));
    assert_eq!(delete(&mut c, GROUP, "u"), Ok(None));
    assert_eq!(delete(&mut c, GROUP, "never-committed"), Ok(None));
    assert_eq!((c.offset(GROUP, "t"), c.offset(GROUP, "u")), (1, -1));
    c.leave(&[(&members[0], "")]);
    assert_eq!(delete(&mut c, GROUP, "t"), Ok(None), "nobody reads it any more");
    assert_eq!(c.offset(GROUP, "t"), -1);
}

/// KIP-496: of members that are no consumers we cannot tell what they read.
#[test]
fn offsets_of_other_live_groups_are_not_deleted() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").old().with(|j| j.protocol_type = "connect".into()).request());
    c.pass(3_000);
    c.joined(id).unwrap();
    assert_eq!(delete(&mut c, GROUP, "t"), Err(Error::NonEmptyGroup));
}

#[test]
fn offsets_go_with_their_topic() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 1));
    c.commit(commit("h", "t", 1));
    c.commit(commit(GROUP, "u", 1));
    c.input(Input::TopicDeleted { name: "t".into(), id: Uuid(0x55) });
    assert_eq!(c.offset(GROUP, "t"), 1, "that was another topic of this name");
    c.input(Input::TopicDeleted { name: "t".into(), id: crate::harness::TOPIC_ID });
    assert_eq!((c.offset(GROUP, "t"), c.offset("h", "t"), c.offset(GROUP, "u")), (-1, -1, 1));
}

/// Old clients have an empty group id, and their offsets are kept under it.
#[test]
fn the_empty_group_id_holds_offsets() {
    let mut c = Coordinator::new();
    assert_eq!(c.commit(commit("", "t", 3)), None);
    assert_eq!(c.offset("", "t"), 3);
    assert_eq!(delete(&mut c, "", "t"), Err(Error::InvalidGroupId));
}
