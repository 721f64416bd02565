//! Who leads and who is in sync (reference sections 2.2 and 4, KIP-966).

use crate::common::{self, Cluster, apply, nodes, topic};
use flowstone_controller::ErrorKind::{self, *};
use flowstone_controller::{
    ElectionType, Heartbeat, IsrAlteration, note_directories, told_directory,
};
use flowstone_metadata::records::{ClearElrRecord, FeatureLevelRecord};
use flowstone_metadata::{Image, MetadataVersion, Partition};
use flowstone_types::{LeaderEpoch, NodeId, PartitionId, Uuid};
use std::time::Duration;

const ELR: &str = "eligible.leader.replicas.version";

fn level(name: &str, feature_level: i16) -> FeatureLevelRecord {
    FeatureLevelRecord { name: name.into(), feature_level, ..Default::default() }
}

/// Where eligible leader replicas are not kept.
fn without_elr(brokers: &[i32]) -> Cluster {
    let mut image = common::cluster(brokers);
    apply(&mut image, [level(ELR, 0).into()]);
    Cluster::of(image)
}

pub fn three() -> (Cluster, Uuid) {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let t = cluster.create(topic("t", &[&[1, 2, 3]]));
    (cluster, t)
}

/// Section 2.2, AlterPartition: each check, and which comes first.
#[test]
fn a_leader_is_refused_in_kafkas_order() {
    let (mut cluster, t) = three();
    cluster.fence(3);
    cluster.start(3);
    let good = cluster.alteration(t, 0, &[1, 2]);
    fn set(isr: &[i32]) -> impl Fn(&mut IsrAlteration) + '_ {
        move |a| a.isr = isr.iter().map(|id| (NodeId(*id), None)).collect()
    }
    type Spoil<'a> = &'a dyn Fn(&mut IsrAlteration);
    let cases: &[(Spoil, ErrorKind)] = &[
        (&|a| a.id.topic = Uuid(1), UnknownTopicId),
        (&|a| a.id.index = 9, UnknownTopicOrPartition),
        (&|a| a.leader_epoch.0 += 1, NotController),
        (&|a| a.partition_epoch += 1, NotController),
        (
            &|a| {
                a.partition_epoch += 1;
                a.leader_epoch.0 -= 1;
            },
            NotController,
        ),
        (
            &|a| {
                a.leader_epoch.0 -= 1;
                a.partition_epoch -= 1;
            },
            FencedLeaderEpoch,
        ),
        (
            &|a| {
                a.partition_epoch -= 1;
                a.isr = vec![];
            },
            InvalidUpdateVersion,
        ),
        (&set(&[1, 9]), InvalidRequest),
        (&set(&[1, 2, 2]), InvalidRequest),
        (&set(&[2]), InvalidRequest),
        (&|a| a.recovering = true, InvalidRequest),
    ];
    for (change, kind) in cases {
        let mut alteration = good.clone();
        change(&mut alteration);
        assert_eq!(cluster.alter(1, alteration).unwrap_err().kind, *kind);
        assert!(cluster.last.is_empty());
    }
    let of_another = cluster.alteration(t, 0, &[1, 2]);
    assert_eq!(cluster.alter(2, of_another).unwrap_err().kind, InvalidRequest);
    let epoch = cluster.epoch(1) - 1;
    let stale = cluster.try_decide(|active| active.alter_partitions(NodeId(1), epoch, &[]));
    assert_eq!(stale.unwrap_err().kind, StaleBrokerEpoch);
}

/// KIP-903 (KAFKA-14617): the incarnation that fetched is not the one that is registered now. KIP-841: nor
/// one that is fenced.
#[test]
fn another_incarnation_enters_no_isr() {
    let (mut cluster, t) = three();
    cluster.fence(3);
    let before = cluster.alteration(t, 0, &[1, 2, 3]);
    assert_eq!(cluster.alter(1, before.clone()).unwrap_err().kind, IneligibleReplica);
    cluster.register(3, 903, None).unwrap();
    cluster.start(3);
    assert_eq!(cluster.alter(1, before.clone()).unwrap_err().kind, IneligibleReplica);
    let seen_now = cluster.alteration(t, 0, &[1, 2, 3]);
    assert_ne!(seen_now.isr, before.isr);
    assert_eq!(cluster.alter(1, seen_now).unwrap().isr, nodes(&[1, 2, 3]));
}

/// Section 4: a shrink is a new partition epoch and the same leader epoch from 3.6-IV0 on (KAFKA-15021).
#[test]
fn a_shrink_is_no_new_leader_epoch() {
    let (mut cluster, t) = three();
    let altered = cluster.alter(1, cluster.alteration(t, 0, &[1, 2])).unwrap();
    assert_eq!((altered.leader_epoch, altered.partition_epoch), (LeaderEpoch(0), 1));
    let mut image = Image::default();
    apply(&mut image, [level("metadata.version", MetadataVersion(11).0).into()]);
    apply(&mut image, [1, 2].map(|id| common::broker(id, false)));
    let mut cluster = Cluster::of(image);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    let altered = cluster.alter(1, cluster.alteration(t, 0, &[1])).unwrap();
    assert_eq!(altered.leader_epoch, LeaderEpoch(1));
}

/// KIP-966: below min.insync.replicas whoever leaves the ISR stays eligible; the ISR may run out.
#[test]
fn who_leaves_a_small_isr_stays_eligible() {
    let (mut cluster, t) = three();
    cluster.configure("t", "min.insync.replicas", "2");
    cluster.fence(3);
    assert_eq!(cluster.led(t, 0), (1, vec![1, 2], vec![]), "2 are enough");
    cluster.fence(2);
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![2]));
    cluster.fence(1);
    assert_eq!(cluster.led(t, 0), (-1, vec![], vec![2, 1]));
    assert_eq!(*cluster.partition(t, 0).last_known, [NodeId(1)]);
    cluster.start(3);
    assert_eq!(cluster.led(t, 0).0, -1, "not eligible");
    cluster.start(2);
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![1]));
    assert!(cluster.partition(t, 0).last_known.is_empty());
    assert!(!cluster.partition(t, 0).recovering);
    cluster.expand(t, 0, &[2, 3]);
    assert_eq!(cluster.led(t, 0), (2, vec![2, 3], vec![]), "enough again");
}

/// KIP-966's case (faults 2.2): the last replica standing loses its tail at a power cut; others that hold
/// all wait for nobody, and it does not lead.
#[test]
fn the_last_replica_standing_does_not_truncate_the_others() {
    let (mut cluster, t) = three();
    cluster.configure("t", "min.insync.replicas", "2");
    cluster.fence(3);
    cluster.fence(2);
    cluster.fall_silent(1);
    cluster.register(2, 902, Some(cluster.epoch(2))).unwrap(); // In order.
    cluster.pass(Duration::from_secs(9));
    cluster.register(1, 901, None).unwrap();
    assert_eq!(cluster.led(t, 0), (-1, vec![], vec![2]));
    cluster.start(1);
    assert_eq!(cluster.led(t, 0).0, -1, "it may have lost what was committed");
    cluster.start(2);
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
    assert!(!cluster.partition(t, 0).recovering);
}

/// KAFKA-19522: the last known leader is elected only once it is unfenced.
#[test]
fn a_fenced_last_known_leader_is_not_elected() {
    let (mut cluster, t) = three();
    cluster.expand(t, 0, &[1]);
    cluster.fence(1);
    cluster.register(1, 901, None).unwrap();
    assert_eq!(cluster.led(t, 0), (-1, vec![], vec![]));
    cluster.fence(2); // Looks at every partition without a leader again.
    cluster.start(2);
    assert_eq!(cluster.led(t, 0).0, -1);
    cluster.start(1);
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
    assert!(cluster.partition(t, 0).recovering, "unclean, and says so");
}

/// KIP-966: a change of min.insync.replicas makes nobody eligible that was (KAFKA-16540).
#[test]
fn cleared_replicas_are_eligible_no_more() {
    let (mut cluster, t) = three();
    cluster.expand(t, 0, &[1]);
    cluster.fence(1);
    assert_eq!(cluster.led(t, 0).2, [1]);
    let clear = vec![ClearElrRecord::default().into()];
    cluster.decide(|_| flowstone_controller::Decision {
        records: clear,
        atomic: true,
        response: (),
    });
    cluster.start(1);
    assert_eq!(cluster.led(t, 0).0, -1);
}

/// Without KIP-966 the last member of an ISR stays in it, and nobody else leads.
#[test]
fn without_elr_an_isr_never_runs_out() {
    let mut cluster = without_elr(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.fence(2);
    cluster.fence(1);
    assert_eq!(cluster.led(t, 0), (-1, vec![1], vec![]));
    cluster.start(2);
    assert_eq!(cluster.led(t, 0), (-1, vec![1], vec![]));
    cluster.start(1);
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
}

/// unclean.leader.election.enable: a leader from outside the ISR, alone in it, and recovering.
#[test]
fn an_unclean_leader_is_elected_only_where_allowed() {
    let mut cluster = without_elr(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.fence(2);
    cluster.fence(1);
    cluster.start(2);
    cluster.pass(Duration::from_mins(5));
    assert_eq!(cluster.led(t, 0).0, -1);
    cluster.configure("t", "unclean.leader.election.enable", "true");
    cluster.pass(Duration::from_mins(5));
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
    assert!(cluster.partition(t, 0).recovering);
    let mut recovered = cluster.alteration(t, 0, &[2]);
    recovered.recovering = true;
    assert!(cluster.alter(2, recovered.clone()).unwrap().recovering);
    recovered.recovering = false;
    assert!(!cluster.alter(2, recovered).unwrap().recovering);
}

/// ElectLeaders: what each type of election does, and does not need to do.
#[test]
fn operators_elect_leaders() {
    let (mut cluster, t) = three();
    cluster.fence(1);
    cluster.start(1);
    let one = [("t".to_string(), vec![0, 7])];
    let elect = |cluster: &mut Cluster, election, told: Option<&[(String, Vec<i32>)]>| {
        let answers = cluster.decide(|active| active.elect_leaders(election, told));
        let kind = |(_, answer): (i32, Result<(), flowstone_controller::ApiError>)| {
            answer.err().map(|error| error.kind)
        };
        answers.into_iter().flat_map(|(_, of)| of).map(kind).collect::<Vec<_>>()
    };
    use ElectionType::{Preferred, Unclean};
    let unknown = Some(UnknownTopicOrPartition);
    let got = elect(&mut cluster, Preferred, Some(&one));
    assert_eq!(got, [Some(PreferredLeaderNotAvailable), unknown], "1 is not in sync");
    assert_eq!(elect(&mut cluster, Unclean, Some(&one)), [Some(ElectionNotNeeded), unknown]);
    assert_eq!(elect(&mut cluster, Unclean, None), [], "needless ones are left out");
    cluster.expand(t, 0, &[2, 3, 1]);
    assert_eq!(elect(&mut cluster, Preferred, None), [None]);
    assert_eq!(cluster.partition(t, 0).leader, NodeId(1));
    for id in [1, 2, 3] {
        cluster.fence(id);
    }
    assert_eq!(elect(&mut cluster, Unclean, None), [Some(EligibleLeadersNotAvailable)]);
    let mut cluster = without_elr(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.fence(2);
    cluster.fence(1);
    cluster.start(2);
    assert_eq!(elect(&mut cluster, Unclean, None), [None], "asked for, whatever the topic says");
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
}

/// AssignReplicasToDirs: its errors; a directory that is not online takes the replica out of the ISR.
#[test]
fn replicas_are_assigned_to_directories() {
    let (mut cluster, t) = three();
    let u = cluster.create(topic("u", &[&[2]]));
    let id = |topic, index| PartitionId { topic, index };
    let all = vec![id(Uuid(9), 0), id(t, 9), id(u, 0), id(t, 0)];
    let assignment = [(Uuid(7777), all)];
    let epoch = cluster.epoch(1);
    let assign = |active: &mut flowstone_controller::Active| {
        active.assign_to_directories(NodeId(1), epoch, &assignment)
    };
    let answers = cluster.try_decide(assign).unwrap().remove(0).1;
    let kinds: Vec<_> = answers.into_iter().map(|(_, answer)| answer.err()).collect();
    let expected =
        [Some(UnknownTopicId), Some(UnknownTopicOrPartition), Some(NotLeaderOrFollower), None];
    assert_eq!(kinds, expected);
    assert_eq!(cluster.led(t, 0), (2, vec![2, 3], vec![]));
    assert_eq!(cluster.partition(t, 0).directories[0], Uuid(7777));
}

/// KIP-858: what a broker with several directories tells of its replicas, one that decides alone too.
#[test]
fn where_replicas_lie_is_noted_once() {
    let (mut cluster, t) = three();
    let id = |topic, index| PartitionId { topic, index };
    let found = [(id(t, 0), Uuid(7777)), (id(t, 9), Uuid(7777)), (id(Uuid(9), 0), Uuid(7777))];
    let before = cluster.partition(t, 0).clone();
    let note = |active: &mut flowstone_controller::Active| {
        let decision = note_directories(active.image(), NodeId(1), &found);
        let count = decision.records.len();
        Ok(decision.map(|()| count))
    };
    assert_eq!(cluster.try_decide(note).unwrap(), 1, "what is not there is passed over");
    let after = cluster.partition(t, 0).clone();
    assert_eq!(told_directory(&after, NodeId(1)), Some(Uuid(7777)));
    assert_eq!(after.directories[1..], before.directories[1..]);
    assert_eq!((after.leader, after.leader_epoch), (before.leader, before.leader_epoch));
    assert_eq!(cluster.try_decide(note).unwrap(), 0, "told already");
    let unassigned = Partition::new(vec![NodeId(1)], vec![Uuid(1)], vec![NodeId(1)]);
    assert_eq!(told_directory(&unassigned, NodeId(1)), None, "Kafka's DirectoryId.UNASSIGNED");
}

/// KIP-858: nobody leads from a lost directory, be it the last of the ISR and unfenced anew.
#[test]
fn a_lost_directory_is_not_led_from() {
    let mut cluster = without_elr(&[1]);
    let t = cluster.create(topic("t", &[&[1]]));
    let epoch = cluster.epoch(1);
    let assign = |cluster: &mut Cluster, directory| {
        let assignment = [(directory, vec![PartitionId { topic: t, index: 0 }])];
        let assign = |active: &mut flowstone_controller::Active| {
            active.assign_to_directories(NodeId(1), epoch, &assignment)
        };
        cluster.try_decide(assign).unwrap();
        cluster.fence(1);
        cluster.start(1);
        cluster.led(t, 0)
    };
    assert_eq!(assign(&mut cluster, Uuid(7777)), (-1, vec![1], vec![]));
    assert_eq!(assign(&mut cluster, Uuid(1001)), (1, vec![1], vec![]));
}

/// KIP-1066: a broker whose directories are all cordoned takes no new replica by placement.
#[test]
fn cordoned_brokers_take_no_new_replicas() {
    let mut cluster = Cluster::new(&[1, 2]);
    let cordoned = Heartbeat { cordoned_log_dirs: Some(vec![Uuid(1002)]), ..cluster.beat(2) };
    cluster.heartbeat(&cordoned);
    let mut placed = topic("t", &[]);
    (placed.partitions, placed.replication_factor) = (4, 1);
    let t = cluster.create(placed);
    for index in 0..4 {
        assert_eq!(*cluster.partition(t, index).replicas, [NodeId(1)]);
    }
}
