//! Brokers that register, are heard, fall silent and go (reference section 2.2).

use crate::common::{self, Cluster, topic};
use flowstone_controller::ErrorKind::*;
use flowstone_controller::{Heartbeat, HeartbeatAnswer};
use flowstone_metadata::MetadataRecord;
use flowstone_metadata::records::RegisterBrokerRecord;
use flowstone_types::{NodeId, Offset, PartitionId, Uuid};
use std::time::Duration;

fn names(records: &[MetadataRecord]) -> Vec<&str> {
    records.iter().map(MetadataRecord::name).collect()
}

const CHANGE: &str = "PartitionChangeRecord";

/// BrokerRegistration: another incarnation waits until the session of the one before is over.
#[test]
fn a_live_broker_is_not_replaced() {
    let mut cluster = Cluster::new(&[1]);
    assert_eq!(cluster.register(1, 901, None).unwrap_err().kind, DuplicateBrokerRegistration);
    cluster.fall_silent(1);
    cluster.pass(Duration::from_secs(9));
    let epoch = cluster.register(1, 901, None).unwrap();
    assert_eq!(cluster.epoch(1), epoch);
    assert!(cluster.controller.image().brokers[&NodeId(1)].fenced);
}

/// The same incarnation amends its registration at any time, and stays what it is.
#[test]
fn a_broker_amends_its_own_registration() {
    let mut cluster = Cluster::new(&[]);
    let epoch = cluster.register(1, 900, None).unwrap();
    cluster.start(1);
    assert_eq!(cluster.register(1, 900, None).unwrap(), epoch);
    assert_eq!(names(&cluster.last), ["RegisterBrokerRecord"]);
    assert!(cluster.controller.image().is_active(NodeId(1)));
}

/// Section 2.6: a new incarnation leaves every ISR first, and its registration comes last; its epoch is no
/// larger than that record's offset.
#[test]
fn a_new_incarnation_leaves_every_isr_first() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2], &[2, 1]]));
    cluster.fence(1);
    cluster.start(1);
    cluster.expand(t, 0, &[2, 1]);
    cluster.expand(t, 1, &[2, 1]);
    cluster.fall_silent(1);
    cluster.pass(Duration::from_secs(9));
    cluster.start(1);
    cluster.expand(t, 0, &[2, 1]);
    cluster.fence(1); // In the ISR of nothing: the record alone.
    cluster.register(1, 901, None).unwrap();
    assert_eq!(names(&cluster.last), ["RegisterBrokerRecord"]);
    cluster.start(1);
    cluster.fence(2);
    cluster.register(2, 902, None).unwrap();
    assert_eq!(names(&cluster.last), [CHANGE, CHANGE, "RegisterBrokerRecord"]);
}

/// KIP-966: who comes back from a power cut may have lost what it was eligible for; who shut down in order
/// has not (KAFKA-18635, KAFKA-18106).
#[test]
fn an_unclean_shutdown_ends_eligibility() {
    let after = |in_order: bool| {
        let mut cluster = Cluster::new(&[1, 2]);
        let t = cluster.create(topic("t", &[&[1]]));
        cluster.fence(1);
        assert_eq!(cluster.led(t, 0), (-1, vec![], vec![1]));
        let previous = cluster.epoch(1);
        cluster.register(1, 901, in_order.then_some(previous)).unwrap();
        (cluster, t)
    };
    let (mut cluster, t) = after(true);
    assert_eq!(cluster.led(t, 0), (-1, vec![], vec![1]));
    cluster.start(1);
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
    assert!(!cluster.partition(t, 0).recovering);
    let (mut cluster, t) = after(false);
    assert_eq!(cluster.led(t, 0), (-1, vec![], vec![]));
    cluster.start(1); // The last known leader: uncleanly.
    assert_eq!(cluster.led(t, 0), (1, vec![1], vec![]));
    assert!(cluster.partition(t, 0).recovering);
}

/// BrokerHeartbeat: it is unfenced once it has read its own registration, and no sooner.
#[test]
fn a_broker_is_unfenced_once_it_is_caught_up() {
    let mut cluster = Cluster::new(&[]);
    let epoch = cluster.register(1, 900, None).unwrap();
    let behind = Heartbeat { metadata_offset: Offset(epoch - 1), ..cluster.beat(1) };
    let answer = HeartbeatAnswer {
        is_caught_up: false,
        is_fenced: true,
        in_controlled_shutdown: false,
        should_shut_down: false,
    };
    assert_eq!(cluster.heartbeat(&behind), answer);
    let not_yet = Heartbeat { want_fence: true, ..cluster.beat(1) };
    assert_eq!(cluster.heartbeat(&not_yet), HeartbeatAnswer { is_caught_up: true, ..answer });
    let unfenced = HeartbeatAnswer { is_caught_up: true, is_fenced: false, ..answer };
    assert_eq!(cluster.heartbeat(&cluster.beat(1)), unfenced);
}

/// BrokerHeartbeat: only the present incarnation is heard.
#[test]
fn a_heartbeat_of_another_epoch_is_refused() {
    let mut cluster = Cluster::new(&[1]);
    let beat = cluster.beat(1);
    let stale = Heartbeat { epoch: beat.epoch - 1, ..beat.clone() };
    assert_eq!(cluster.try_decide(|a| a.heartbeat(&stale)).unwrap_err().kind, StaleBrokerEpoch);
    let unknown = Heartbeat { id: NodeId(9), ..beat };
    let refused = cluster.try_decide(|active| active.heartbeat(&unknown));
    assert_eq!(refused.unwrap_err().kind, BrokerIdNotRegistered);
}

/// Section 2.6: who is not heard for 9 s is fenced, and leaves every ISR before.
#[test]
fn a_silent_broker_is_fenced() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.fall_silent(1);
    cluster.pass(Duration::from_secs(8));
    assert!(cluster.controller.image().is_active(NodeId(1)));
    cluster.pass(Duration::from_secs(1));
    assert!(!cluster.controller.image().is_active(NodeId(1)));
    assert_eq!(names(&cluster.last), [CHANGE, "BrokerRegistrationChangeRecord"]);
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
}

/// Sooner than Apache's: the shell knows that nothing connects the broker any more.
#[test]
fn a_broker_without_connections_is_fenced_after_the_grace() {
    let mut cluster = Cluster::new(&[1, 2]);
    cluster.fall_silent(1);
    cluster.decide(|active| {
        active.cut_off(NodeId(1));
        flowstone_controller::Decision { records: vec![], atomic: true, response: () }
    });
    cluster.pass(Duration::from_millis(999));
    assert!(cluster.controller.image().is_active(NodeId(1)));
    cluster.heartbeat(&cluster.beat(1)); // By another connection: it lives.
    cluster.pass(Duration::from_secs(5));
    assert!(cluster.controller.image().is_active(NodeId(1)));
    cluster.decide(|active| {
        active.cut_off(NodeId(1));
        flowstone_controller::Decision { records: vec![], atomic: true, response: () }
    });
    cluster.pass(Duration::from_secs(1));
    assert!(!cluster.controller.image().is_active(NodeId(1)));
}

/// "Overloaded controller still touches the session."
#[test]
fn a_heartbeat_that_is_not_looked_at_keeps_the_session() {
    let mut cluster = Cluster::new(&[1]);
    cluster.fall_silent(1);
    cluster.pass(Duration::from_secs(8));
    let beat = cluster.beat(1);
    cluster
        .try_decide(|active| {
            active.heard(&beat)?;
            Ok(flowstone_controller::Decision { records: vec![], atomic: true, response: () })
        })
        .unwrap();
    cluster.pass(Duration::from_secs(8));
    assert!(cluster.controller.image().is_active(NodeId(1)));
}

/// BrokerHeartbeat: controlled shutdown ends once it leads nothing and every active broker has read that.
#[test]
fn a_broker_shuts_down_once_its_leaderships_are_taken_over() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    let wish = |cluster: &Cluster| Heartbeat { want_shut_down: true, ..cluster.beat(1) };
    let behind = cluster.beat(2);
    let answer = cluster.heartbeat(&wish(&cluster));
    assert!(answer.in_controlled_shutdown && !answer.should_shut_down);
    assert_eq!(names(&cluster.last), ["BrokerRegistrationChangeRecord", CHANGE]);
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
    cluster.heartbeat(&behind);
    assert!(!cluster.heartbeat(&wish(&cluster)).should_shut_down, "2 has not read it");
    cluster.heartbeat(&cluster.beat(2));
    let answer = cluster.heartbeat(&wish(&cluster));
    assert!(answer.should_shut_down && answer.is_fenced);
    assert!(cluster.controller.image().brokers[&NodeId(1)].fenced);
}

/// BrokerHeartbeat: who leads nothing, or is fenced, goes at once.
#[test]
fn a_broker_that_leads_nothing_goes_at_once() {
    let mut cluster = Cluster::new(&[1]);
    let wish = Heartbeat { want_shut_down: true, ..cluster.beat(1) };
    assert!(cluster.heartbeat(&wish).should_shut_down);
    assert!(cluster.heartbeat(&wish).should_shut_down, "fenced");
}

/// KIP-841: who is on its way out enters no ISR.
#[test]
fn a_broker_on_its_way_out_enters_no_isr() {
    let mut cluster = Cluster::new(&[1, 2, 3]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.create(topic("u", &[&[2]])); // Keeps 2 from going at once.
    cluster.heartbeat(&Heartbeat { want_shut_down: true, ..cluster.beat(2) });
    assert_eq!(cluster.led(t, 0).1, [1]);
    let alteration = cluster.alteration(t, 0, &[1, 2]);
    assert_eq!(cluster.alter(1, alteration).unwrap_err().kind, IneligibleReplica);
}

/// KIP-858: a lost directory takes the broker out of the ISRs of what lies there, and of nothing else.
#[test]
fn a_lost_directory_is_left() {
    let mut image = common::cluster(&[2]);
    let two = RegisterBrokerRecord {
        log_dirs: vec![Uuid(1001), Uuid(1003)],
        fenced: false,
        broker_id: 1,
        broker_epoch: 11,
        ..Default::default()
    };
    common::apply(&mut image, [two.into()]);
    let mut cluster = Cluster::of(image);
    let t = cluster.create(topic("t", &[&[1, 2], &[1, 2]]));
    let assignment = [(Uuid(1001), vec![PartitionId { topic: t, index: 0 }])];
    cluster.try_decide(|active| active.assign_to_directories(NodeId(1), 11, &assignment)).unwrap();
    assert_eq!(names(&cluster.last), [CHANGE]);
    assert_eq!(cluster.partition(t, 0).directories[0], Uuid(1001));
    let lost = Heartbeat { offline_log_dirs: vec![Uuid(1001)], ..cluster.beat(1) };
    cluster.heartbeat(&lost);
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
    assert_eq!(cluster.led(t, 1), (1, vec![1, 2], vec![]));
    assert_eq!(names(&cluster.last), [CHANGE, "BrokerRegistrationChangeRecord"]);
    assert_eq!(cluster.controller.image().brokers[&NodeId(1)].log_dirs, [Uuid(1003)]);
    cluster.heartbeat(&Heartbeat { epoch: cluster.epoch(1), ..lost });
    assert!(cluster.last.is_empty(), "told until it is acknowledged, written once");
}

/// KIP-1066: cordoned directories are noted where they change.
#[test]
fn cordoned_directories_are_noted() {
    let mut cluster = Cluster::new(&[1]);
    let cordoned = Heartbeat { cordoned_log_dirs: Some(vec![Uuid(1001)]), ..cluster.beat(1) };
    cluster.heartbeat(&cordoned);
    let known = cluster.controller.image().brokers[&NodeId(1)].cordoned_log_dirs.clone();
    assert_eq!(known, Some(vec![Uuid(1001)]));
    cluster.heartbeat(&cordoned);
    assert!(cluster.last.is_empty());
}

/// UnregisterBroker: out of every ISR, eligible nowhere; its replicas stay assigned.
#[test]
fn an_unregistered_broker_leaves_nothing_but_replicas() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    let u = cluster.create(topic("u", &[&[1]]));
    cluster.try_decide(|active| active.unregister(NodeId(1))).unwrap();
    assert_eq!(cluster.led(t, 0), (2, vec![2], vec![]));
    assert_eq!(cluster.led(u, 0), (-1, vec![], vec![]));
    assert_eq!(cluster.partition(u, 0).replicas[0], NodeId(1));
    let again = cluster.try_decide(|active| active.unregister(NodeId(1)));
    assert_eq!(again.unwrap_err().kind, BrokerIdNotRegistered);
}
