//! Several replicas by script.

use crate::harness::*;
use crate::network::{Cluster, Disk};
use flowstone_raft::messages::*;
use flowstone_raft::*;
use flowstone_types::Offset;

/// 1, 3, 5 and 7 voters elect a leader and commit.
#[test]
fn quorums_of_any_size_elect_and_commit() {
    for voters in [&[1][..], &[1, 2, 3], &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5, 6, 7]] {
        let mut cluster = Cluster::new(voters, settings());
        cluster.run(10_000);
        let leader = cluster.leader();
        (0..10).for_each(|_| cluster.append(leader, "a"));
        cluster.run(1_000);
        cluster.assert_settled();
        assert_eq!(cluster.leaders.len(), 1, "nobody disturbs a leader that works");
    }
}

/// A minority that dies changes nothing; the leader's death costs an election.
#[test]
fn a_quorum_survives_its_leader() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.append(first, "a");
    let disk = cluster.crash(first);
    cluster.run(10_000);
    let second = cluster.leader();
    assert_ne!(first, second);
    cluster.append(second, "b");
    cluster.start(first, disk, true);
    cluster.run(3_000);
    cluster.assert_settled();
    assert_eq!(cluster.leader(), second, "whoever comes back disturbs nobody (KIP-996)");
}

/// KAFKA-15489: a leader that is cut off resigns; what it could not commit is cut off when it is back.
#[test]
fn a_leader_that_is_cut_off_loses_what_it_could_not_commit() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.cut_off.insert(first);
    (0..5).for_each(|_| cluster.append(first, "lost"));
    cluster.run(2_999);
    cluster.run(10_000);
    assert!(cluster.nodes[&first].raft.leading().is_none());
    let second = cluster.leader();
    cluster.append(second, "kept");
    cluster.cut_off.clear();
    cluster.run(5_000);
    cluster.assert_settled();
    let text = format!("{:?}", cluster.nodes[&first].disk.log);
    assert!(text.contains("kept") && !text.contains("lost"));
}

/// KAFKA-6361 (KIP-279): three leaders in a row, each with a batch that the others do not get.
#[test]
fn logs_that_parted_three_times_become_one() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    for _ in 0..3 {
        let leader = cluster.leader();
        cluster.cut_off.insert(leader);
        cluster.append(leader, "only here");
        let disk = cluster.crash(leader);
        cluster.run(10_000);
        cluster.cut_off.clear();
        cluster.start(leader, disk, true);
        cluster.run(300);
    }
    cluster.run(10_000);
    cluster.assert_settled();
}

/// Every node at once, again and again.
#[test]
fn a_quorum_survives_the_loss_of_power() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    for _ in 0..4 {
        cluster.run(8_000);
        let leader = cluster.leader();
        cluster.append(leader, "a");
        let disks: Vec<_> = [1, 2, 3].map(|id| (id, cluster.crash(id))).into();
        cluster.letters.clear();
        cluster.asked.clear();
        for (id, disk) in disks {
            cluster.start(id, disk, true);
        }
    }
    cluster.run(8_000);
    cluster.assert_settled();
}

/// KIP-630: whoever comes late takes a snapshot, in pieces, and goes on from there; so does an observer
/// that knows only its bootstrap servers.
#[test]
fn late_nodes_take_a_snapshot() {
    let retention =
        Retention { snapshot_after_bytes: 2_000, keep_bytes: 1_000, ..Retention::default() };
    let mut cluster = Cluster::new(&[1, 2, 3], Settings { retention, ..settings() });
    cluster.run(5_000);
    let leader = cluster.leader();
    let late = leader % 3 + 1;
    let disk = cluster.crash(late);
    for _ in 0..100 {
        cluster.append(leader, "some twenty bytes...");
        cluster.run(10);
    }
    assert!(cluster.nodes[&leader].raft.log_start() > Offset(50), "old log is gone");
    cluster.start(late, disk, true);
    cluster.start(8, Disk::default(), false);
    cluster.run(3_000);
    cluster.assert_settled();
    assert!(cluster.nodes[&8].raft.log_start() > Offset(50));
}

/// KIP-853: from one voter to three by AddRaftVoter, and back by RemoveRaftVoter, the leader first.
#[test]
fn a_quorum_grows_and_shrinks() {
    let mut cluster = Cluster::new(&[1], settings());
    for id in [2, 3] {
        cluster.start(id, Disk::default(), false);
        cluster.run(1_000);
        let listeners = voter(id).endpoints;
        let request = AddRaftVoterRequest {
            timeout_ms: 1_000,
            voter_id: id,
            voter_directory_id: key(id).directory,
            listeners,
            ..AddRaftVoterRequest::default()
        };
        cluster.ask(1, Request::AddRaftVoter(request));
        cluster.run(1_000);
        let Some(Response::AddRaftVoter(added)) = cluster.answers.pop() else { panic!() };
        assert_eq!((added.error_code, added.error_message), (0, None));
    }
    cluster.assert_settled();
    assert_eq!(cluster.nodes[&3].raft.quorum(), &quorum(&[1, 2, 3]));
    let request = RemoveRaftVoterRequest {
        voter_id: 1,
        voter_directory_id: key(1).directory,
        ..RemoveRaftVoterRequest::default()
    };
    cluster.ask(1, Request::RemoveRaftVoter(request));
    cluster.run(10_000);
    let Some(Response::RemoveRaftVoter(removed)) = cluster.answers.pop() else { panic!() };
    assert_eq!(removed.error_code, 0);
    assert_ne!(cluster.leader(), 1);
    let leader = cluster.leader();
    cluster.append(leader, "without it");
    cluster.run(1_000);
    cluster.assert_settled();
    assert_eq!(cluster.nodes[&1].raft.quorum(), &quorum(&[2, 3]));
}

/// `controller.quorum.auto.join.enable`.
#[test]
fn controllers_join_by_themselves() {
    let mut cluster = Cluster::new(&[1], Settings { auto_join: true, ..settings() });
    cluster.start(2, Disk::default(), false);
    cluster.start(3, Disk::default(), false);
    cluster.run(20_000);
    cluster.assert_settled();
    let mut ids: Vec<_> = cluster.nodes[&1].raft.quorum().keys().map(|voter| voter.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
}

/// A leader that stops hands over at once, not after a fetch time-out.
#[test]
fn a_leader_that_stops_hands_over_at_once() {
    let mut cluster = Cluster::new(&[1, 2, 3], settings());
    cluster.run(5_000);
    let first = cluster.leader();
    cluster.input(first, Input::Shutdown);
    cluster.deliver();
    cluster.run(300);
    assert_ne!(cluster.leader(), first);
}

/// Raft thesis, 4.2.2, and the simulator's story: of two voters, the leader was asked to remove itself, and
/// resigned before anybody had the batch that says so. Its own voters were the other one alone, whose log was too
/// short for its vote: nobody led any more.
#[test]
fn a_removed_leader_that_alone_has_the_batch_leads_once_more() {
    let mut cluster = Cluster::new(&[1, 2], settings());
    cluster.run(5_000);
    let (first, other) = (cluster.leader(), 3 - cluster.leader());
    cluster.cut_off.insert(first);
    let request = RemoveRaftVoterRequest {
        voter_id: first,
        voter_directory_id: key(first).directory,
        ..RemoveRaftVoterRequest::default()
    };
    cluster.ask(first, Request::RemoveRaftVoter(request));
    cluster.run(5_000);
    assert!(cluster.nodes.values().all(|node| node.raft.leading().is_none()));
    cluster.cut_off.clear();
    cluster.run(10_000);
    assert_eq!(cluster.leader(), other, "and then it is gone");
    assert_eq!(cluster.nodes[&other].raft.quorum(), &quorum(&[other]));
    cluster.run(1_000);
    cluster.assert_settled();
}
