//! What the log refuses did not happen, and who was promised it is told.

use crate::harness::{Coordinator, GROUP, commit, fetch, join, sync};
use flowstone_coordinators::{
    Answer, Config, DeleteGroups, Effect, Error, OffsetDelete, Refusal, Request,
};

/// Kafka's mapping of append errors: retriable for the client, never a storage error as such.
#[test]
fn a_refused_commit_leaves_the_offset_before() {
    for (refusal, want) in [
        (Refusal::Unavailable, Error::CoordinatorNotAvailable),
        (Refusal::Offline, Error::NotCoordinator),
        (Refusal::TooLarge, Error::UnknownServerError),
    ] {
        let mut c = Coordinator::new();
        c.commit(commit(GROUP, "t", 1));
        c.prompt = false;
        let id = c.ask(Request::Commit(commit(GROUP, "t", 2)));
        c.refuse(refusal);
        assert_eq!(c.committed(id), Some(want));
        assert_eq!(c.offset(GROUP, "t"), 1);
    }
}

/// A refusal in the middle takes out its own value, not those around it.
#[test]
fn refusals_do_not_disturb_other_commits() {
    let mut c = Coordinator::new();
    c.prompt = false;
    c.ask(Request::Commit(commit(GROUP, "t", 1)));
    c.ask(Request::Commit(commit(GROUP, "t", 2)));
    let stable = c.ask(Request::Fetch(fetch(GROUP, "t", true)));
    c.refuse(Refusal::Unavailable);
    assert!(c.waits(stable));
    c.flush();
    assert_eq!(c.offset(GROUP, "t"), 1);
    match c.take(stable) {
        Some(Answer::Fetch(Ok(topics))) => assert_eq!(topics[0].partitions[0].offset, 1),
        other => panic!("{other:?}"),
    }
}

/// A group that only a refused commit brought about is not there.
#[test]
fn a_refused_first_commit_leaves_no_group() {
    let mut c = Coordinator::new();
    c.prompt = false;
    c.ask(Request::Commit(commit(GROUP, "t", 1)));
    c.refuse(Refusal::Unavailable);
    assert!(c.groups.is_empty());
}

/// The first record of a group: who waits to join is told, and the group is not there.
#[test]
fn a_group_whose_beginning_is_refused_is_not_there() {
    let mut c = Coordinator::new();
    c.prompt = false;
    let waiting = c.ask(join("").old().request());
    c.refuse(Refusal::Unavailable);
    assert_eq!(c.join_error(waiting), Error::CoordinatorNotAvailable);
    assert!(c.groups.is_empty());
    // The same where a member was invited.
    let invited = c.ask(join("").request());
    let member = c.joined(invited).unwrap_err().member;
    c.refuse(Refusal::Unavailable);
    assert!(c.groups.is_empty());
    let again = c.ask(join(&member).request());
    assert_eq!(c.join_error(again), Error::UnknownMemberId, "and it begins anew");
}

/// An assignment that is not stored is not used: members join again.
#[test]
fn a_refused_assignment_sets_off_a_rebalance() {
    let mut c = Coordinator::new();
    let id = c.ask(join("").old().request());
    c.pass(3_000);
    let member = c.joined(id).unwrap().member;
    c.prompt = false;
    let leader = c.ask(sync(&member, 1, vec![(member.clone(), "x".into())]));
    c.refuse(Refusal::Unavailable);
    assert_eq!(c.synced(leader), Err(Error::CoordinatorNotAvailable));
    assert_eq!(c.state(), "PreparingRebalance");
    c.prompt = true;
    let id = c.ask(join(&member).request());
    let joined = c.joined(id).unwrap();
    assert_eq!(joined.generation, 2);
    c.sync_all(&[joined]);
}

/// The assignment of a generation that has passed changes nothing, refused or durable.
#[test]
fn a_late_fate_of_an_old_assignment_is_void() {
    for refused in [false, true] {
        let mut c = Coordinator::new();
        let id = c.ask(join("").old().request());
        c.pass(3_000);
        let member = c.joined(id).unwrap().member;
        c.prompt = false;
        let leader = c.ask(sync(&member, 1, vec![(member.clone(), "old".into())]));
        let newcomer = c.ask(join("").old().fresh(5).request());
        assert_eq!(c.synced(leader), Err(Error::RebalanceInProgress));
        if refused {
            c.refuse(Refusal::Unavailable);
        } else {
            c.flush();
        }
        assert_eq!(c.state(), "PreparingRebalance");
        let id = c.ask(join(&member).request());
        assert_eq!(c.joined(id).unwrap().generation, 2);
        assert_eq!(c.joined(newcomer).unwrap().generation, 2);
    }
}

/// That nobody is left is true whatever the log says. A restart finds the generation before, whose
/// members then time out (Kafka: the same).
#[test]
fn a_refused_end_of_the_last_member_is_only_forgotten() {
    let mut c = Coordinator::new();
    let members = c.stable(&[&["range"]]);
    c.prompt = false;
    assert_eq!(c.leave(&[(&members[0], "")]), [None]);
    c.refuse(Refusal::Unavailable);
    assert_eq!(c.state(), "Empty");
    let mut c = c.reloaded(Config::default());
    assert_eq!(c.state(), "Stable");
    c.pass(10_000);
    assert_eq!(c.state(), "Empty");
}

/// A group is gone when its tombstone is durable; until then nobody gets anything of it.
#[test]
fn a_refused_deletion_brings_the_group_back() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 1));
    c.prompt = false;
    let delete = Request::DeleteGroups(DeleteGroups { groups: vec![GROUP.into()] });
    let id = c.ask(delete.clone());
    assert_eq!(c.state(), "Dead");
    assert_eq!(c.commit(commit(GROUP, "t", 2)), Some(Error::CoordinatorNotAvailable));
    let join = c.ask(join("").request());
    assert_eq!(c.join_error(join), Error::CoordinatorNotAvailable);
    assert_eq!(c.offset(GROUP, "t"), 1, "still durable");
    c.refuse(Refusal::Unavailable);
    let error = Some(Error::CoordinatorNotAvailable);
    assert_eq!(c.take(id), Some(Answer::DeleteGroups(vec![(GROUP.into(), error)])));
    assert_eq!((c.state(), c.offset(GROUP, "t")), ("Empty", 1));

    let id = c.ask(delete);
    c.flush();
    assert_eq!(c.take(id), Some(Answer::DeleteGroups(vec![(GROUP.into(), None)])));
    assert!(c.groups.is_empty());
}

/// A commit under way when its group is deleted: the log has the tombstone after it, and so do we.
#[test]
fn a_deletion_covers_commits_under_way() {
    let mut c = Coordinator::new();
    c.prompt = false;
    c.ask(Request::Commit(commit(GROUP, "t", 1)));
    c.ask(Request::DeleteGroups(DeleteGroups { groups: vec![GROUP.into()] }));
    c.flush();
    assert!(c.groups.is_empty());
    assert!(c.reloaded(Config::default()).groups.is_empty());
}

#[test]
fn a_refused_offset_deletion_says_so() {
    let mut c = Coordinator::new();
    c.commit(commit(GROUP, "t", 1));
    c.prompt = false;
    let topics = vec![("t".into(), vec![0])];
    let id = c.ask(Request::DeleteOffsets(OffsetDelete { group: GROUP.into(), topics }));
    c.refuse(Refusal::Offline);
    assert_eq!(c.take(id), Some(Answer::DeleteOffsets(Err(Error::NotCoordinator))));
    assert_eq!(c.offset(GROUP, "t"), 1);
}

/// The log failed, or another broker took over: nobody is left waiting.
#[test]
fn unloading_answers_all_who_wait() {
    let mut c = Coordinator::new();
    c.prompt = false;
    let id = c.ask(join("").old().request());
    c.pass(3_000);
    let joined = c.joined(id).unwrap();
    let waits = [
        c.ask(sync(&joined.member, 1, Vec::new())),
        c.ask(Request::Commit(commit("other", "t", 1))),
        c.ask(Request::Fetch(fetch("other", "t", true))),
        c.ask(join("").old().with(|j| j.group = "third".into()).request()),
    ];
    let mut effects = Vec::new();
    c.groups.unload(&mut effects);
    let mut answered: Vec<_> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Answer { id, answer } => {
                assert!(format!("{answer:?}").contains("NotCoordinator"), "{answer:?}");
                *id
            }
            Effect::Append { .. } => panic!("there is no log any more"),
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, waits);
}
