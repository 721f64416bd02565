//! Reassignments: begun, moved on, called off (KIP-455, KIP-860).

use crate::common::{Cluster, apply, nodes, topic};
use crate::replicas::three;
use flowstone_controller::ErrorKind::{self, *};
use flowstone_metadata::records::PartitionChangeRecord;
use flowstone_types::{LeaderEpoch, NodeId};

fn reassign(
    cluster: &mut Cluster,
    target: Option<&[i32]>,
    may_change_factor: bool,
) -> Result<(), ErrorKind> {
    let topics = [("t".to_string(), vec![(0, target.map(nodes))])];
    let answers =
        cluster.try_decide(|active| active.alter_reassignments(&topics, may_change_factor));
    answers.unwrap().remove(0).1.remove(0).1.map_err(|error| error.kind)
}

/// Section 4: replicas = target + removing; done once all that stay are in sync; a leader that goes is told
/// NEW_LEADER_ELECTED.
#[test]
fn a_reassignment_ends_once_all_that_stay_are_in_sync() {
    let mut cluster = Cluster::new(&[1, 2, 3, 4]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    reassign(&mut cluster, Some(&[3, 4]), false).unwrap();
    let p = cluster.partition(t, 0);
    assert_eq!((&*p.replicas, &*p.adding), (&*nodes(&[3, 4, 1, 2]), &*nodes(&[3, 4])));
    assert_eq!((&*p.removing, p.leader_epoch), (&*nodes(&[1, 2]), LeaderEpoch(0)));
    let listed = cluster.decide(|active| flowstone_controller::Decision {
        records: vec![],
        atomic: true,
        response: active.reassignments(None),
    });
    assert_eq!(listed[0].1[0].adding, nodes(&[3, 4]));
    cluster.expand(t, 0, &[1, 2, 3]);
    assert_eq!(cluster.partition(t, 0).leader, NodeId(1));
    let last = cluster.alteration(t, 0, &[1, 2, 3, 4]);
    assert_eq!(cluster.alter(1, last).unwrap_err().kind, NewLeaderElected);
    let p = cluster.partition(t, 0);
    assert_eq!((p.leader, &*p.replicas, &*p.isr), (NodeId(3), &*nodes(&[3, 4]), &*nodes(&[3, 4])));
    assert!(p.adding.is_empty() && p.removing.is_empty());
    assert_eq!(p.directories.len(), 2);
    assert_eq!(p.leader_epoch, LeaderEpoch(1));
}

/// Section 4: the leader stays, yet replicas go: a new leader epoch, so that they stop fetching.
#[test]
fn replicas_that_go_are_a_new_leader_epoch() {
    let (mut cluster, t) = three();
    reassign(&mut cluster, Some(&[1, 2]), true).unwrap();
    let p = cluster.partition(t, 0);
    assert_eq!((p.leader, p.leader_epoch), (NodeId(1), LeaderEpoch(1)));
    assert_eq!((&*p.replicas, &*p.isr), (&*nodes(&[1, 2]), &*nodes(&[1, 2])));
    reassign(&mut cluster, Some(&[2, 1]), true).unwrap();
    assert_eq!(*cluster.partition(t, 0).replicas, *nodes(&[2, 1]), "only the order: at once");
}

/// KIP-455: a reassignment is called off; what was added goes.
#[test]
fn a_reassignment_is_called_off() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    assert_eq!(reassign(&mut cluster, None, true), Err(NoReassignmentInProgress));
    reassign(&mut cluster, Some(&[2, 3]), true).unwrap();
    reassign(&mut cluster, Some(&[2, 3]), true).unwrap(); // Asked for again: nothing changes.
    assert_eq!(*cluster.partition(t, 0).adding, *nodes(&[3]));
    assert!(cluster.last.is_empty());
    reassign(&mut cluster, None, true).unwrap();
    let p = cluster.partition(t, 0);
    assert_eq!((&*p.replicas, &*p.isr), (&*nodes(&[2, 1]), &*nodes(&[1, 2])));
    assert!(p.adding.is_empty() && p.removing.is_empty());
}

/// The same after other targets: what an earlier one added goes as well, so that the factor of before is back
/// (KIP-455). Apache keeps it where the later target adds another one.
#[test]
fn calling_off_after_another_target_brings_the_first_replicas_back() {
    for (targets, adding, removing) in [
        ([[2, 3], [2, 1]], vec![3], vec![3]),
        ([[2, 3], [2, 4]], vec![3, 4], vec![1, 3]),
        ([[3, 4], [2, 3]], vec![3, 4], vec![1, 4]),
    ] {
        let mut cluster = Cluster::new(&[1, 2, 3, 4]);
        let t = cluster.create(topic("t", &[&[1, 2]]));
        // Out of sync, so that nothing is done at once.
        cluster.fence(2);
        for target in targets {
            reassign(&mut cluster, Some(&target), true).unwrap();
        }
        let p = cluster.partition(t, 0);
        assert_eq!((&*p.adding, &*p.removing), (&*nodes(&adding), &*nodes(&removing)));
        reassign(&mut cluster, None, true).unwrap();
        let p = cluster.partition(t, 0);
        let mut replicas = p.replicas.to_vec();
        replicas.sort_unstable();
        assert_eq!((replicas, &*p.isr), (nodes(&[1, 2]), &*nodes(&[1])));
        assert!(p.adding.is_empty() && p.removing.is_empty());
    }
}

/// PartitionReassignmentRevert: calling off must not lose what only added replicas hold.
#[test]
fn calling_off_is_refused_where_it_would_lose_data() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1]]));
    reassign(&mut cluster, Some(&[1, 2]), true).unwrap();
    cluster.expand(t, 0, &[1, 2]);
    reassign(&mut cluster, Some(&[1]), true).unwrap();
    reassign(&mut cluster, Some(&[2]), true).unwrap();
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
    let mut image = cluster.controller.image().clone();
    let mut p = cluster.partition(t, 0);
    assert_eq!(*p.adding, *nodes(&[2]));
    p.isr = nodes(&[2]).into();
    p.leader = NodeId(2);
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: t,
        isr: Some(vec![2]),
        leader: 2,
        ..Default::default()
    };
    apply(&mut image, [change.into()]);
    let mut cluster = Cluster::of(image);
    assert_eq!(reassign(&mut cluster, None, true), Err(InvalidReplicaAssignment));
    cluster.configure("t", "unclean.leader.election.enable", "true");
    assert_eq!(reassign(&mut cluster, None, true), Ok(()));
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
}

/// The same where the ISR has run out (KIP-966), and only an added replica is eligible, or the last known
/// leader. The simulator's story: it was called off, and the one that was no replica any more was elected.
#[test]
fn calling_off_is_refused_where_only_an_added_replica_is_eligible() {
    for (eligible, last_known) in [(vec![2], vec![]), (vec![], vec![2])] {
        let mut cluster = Cluster::new(&[1, 2]);
        let t = cluster.create(topic("t", &[&[1]]));
        reassign(&mut cluster, Some(&[2]), true).unwrap();
        let mut image = cluster.controller.image().clone();
        let change = PartitionChangeRecord {
            partition_id: 0,
            topic_id: t,
            isr: Some(vec![]),
            leader: -1,
            eligible_leader_replicas: Some(eligible),
            last_known_elr: Some(last_known),
            ..Default::default()
        };
        apply(&mut image, [change.into()]);
        let mut cluster = Cluster::of(image);
        cluster.fence(2);
        assert_eq!(reassign(&mut cluster, None, true), Err(InvalidReplicaAssignment));
        cluster.configure("t", "unclean.leader.election.enable", "true");
        assert_eq!(reassign(&mut cluster, None, true), Ok(()));
        cluster.start(2);
        let p = cluster.partition(t, 0);
        assert_eq!((&*p.replicas, &*p.isr), (&*nodes(&[1]), &*nodes(&[1])));
    }
}

/// The same where those that were there before are fenced: nobody fenced is in sync (KIP-841), and whoever comes
/// back first leads, uncleanly. The simulator's story: the first one was put into the ISR while it was down.
#[test]
fn calling_off_puts_nobody_fenced_into_the_isr() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.configure("t", "unclean.leader.election.enable", "true");
    reassign(&mut cluster, Some(&[3]), true).unwrap();
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: t,
        isr: Some(vec![3]),
        leader: 3,
        ..Default::default()
    };
    let mut image = cluster.controller.image().clone();
    apply(&mut image, [change.into()]);
    let mut cluster = Cluster::of(image);
    cluster.fence(1);
    cluster.fence(2);
    reassign(&mut cluster, None, true).unwrap();
    let p = cluster.partition(t, 0);
    assert_eq!((p.leader, &*p.replicas, &*p.isr), (NodeId::NONE, &*nodes(&[1, 2]), &[][..]));
    assert!(p.eligible.is_empty() && p.last_known.is_empty(), "{p:?}");
    cluster.start(2);
    assert_eq!(cluster.partition(t, 0).leader, NodeId(2), "{:?}", cluster.last);
    let p = cluster.partition(t, 0);
    assert_eq!((p.leader, &*p.isr, p.recovering), (NodeId(2), &*nodes(&[2]), true));
}

/// KIP-860, and what a manual assignment must be.
#[test]
fn a_bad_target_is_refused() {
    let (mut cluster, _) = three();
    assert_eq!(reassign(&mut cluster, Some(&[1]), false), Err(InvalidReplicationFactor));
    assert_eq!(reassign(&mut cluster, Some(&[]), true), Err(InvalidReplicaAssignment));
    assert_eq!(reassign(&mut cluster, Some(&[1, 1]), true), Err(InvalidReplicaAssignment));
    assert_eq!(reassign(&mut cluster, Some(&[1, 9]), true), Err(InvalidReplicaAssignment));
}
