//! The active controller: what waits for what, and what its clock does.

use crate::common::{Cluster, cluster, nodes, topic};
use flowstone_controller::{Active, Controller, Decision, Effect, Settings, activate};
use flowstone_metadata::records::{NoOpRecord, TopicRecord};
use flowstone_metadata::{Image, MetadataRecord};
use flowstone_types::{Instant, NodeId, Offset, Uuid};
use std::time::Duration;

const START: Instant = Instant(0);

fn controller() -> Controller<u8> {
    let settings = Settings { idle_interval: None, ..Settings::new(NodeId(3000)) };
    Controller::new(START, Image::default(), false, Offset(10), settings)
}

fn no_ops(count: usize) -> Vec<MetadataRecord> {
    vec![NoOpRecord::default().into(); count]
}

fn decide(controller: &mut Controller<u8>, at: i64, records: usize, answer: u8) -> Vec<Effect<u8>> {
    let mut effects = Vec::new();
    let decision = Decision { records: no_ops(records), atomic: true, response: answer };
    controller.decide(START, Offset(at), |_| decision, &mut effects);
    effects
}

fn answers(effects: Vec<Effect<u8>>) -> Vec<u8> {
    let answer = |effect| match effect {
        Effect::Answer(answer) => Some(answer),
        Effect::Append(_) | Effect::NotController(_) => None,
    };
    effects.into_iter().filter_map(answer).collect()
}

fn committed(controller: &mut Controller<u8>, offset: i64) -> Vec<u8> {
    let mut effects = Vec::new();
    controller.committed(Offset(offset), &mut effects);
    answers(effects)
}

/// Reference section 2.3: a decision is answered once all its records are committed, in log order.
#[test]
fn answers_wait_for_the_commit() {
    let mut controller = controller();
    let effects = decide(&mut controller, 10, 2, 1);
    assert!(matches!(&effects[..], [Effect::Append(append)] if append.base == Offset(10)));
    assert!(answers(decide(&mut controller, 13, 1, 2)).is_empty(), "a control record at 12");
    assert!(committed(&mut controller, 11).is_empty(), "half of the first");
    assert_eq!(committed(&mut controller, 12), [1]);
    assert_eq!(committed(&mut controller, 14), [2]);
    assert_eq!(controller.committed_image().1, Offset(14));
}

/// QuorumController: what decides nothing read what may not be committed, and waits for that.
#[test]
fn a_read_waits_for_what_it_saw() {
    let mut controller = controller();
    assert_eq!(answers(decide(&mut controller, 10, 0, 1)), [1], "all is committed");
    decide(&mut controller, 10, 1, 2);
    assert!(answers(decide(&mut controller, 11, 0, 3)).is_empty());
    assert_eq!(committed(&mut controller, 11), [2, 3]);
}

/// KIP-595: a leader that is deposed cannot tell what became of its tail.
#[test]
fn who_resigns_refuses_who_waits() {
    let mut controller = controller();
    decide(&mut controller, 10, 1, 1);
    decide(&mut controller, 11, 1, 2);
    assert_eq!(committed(&mut controller, 11), [1]);
    let mut effects = Vec::new();
    controller.resign(&mut effects);
    assert_eq!(effects, [Effect::NotController(2)]);
}

/// A decision sees what was decided before, committed or not; the committed image does not.
#[test]
fn decisions_rest_on_what_is_not_committed_yet() {
    let mut controller = controller();
    let record = TopicRecord { name: "t".into(), topic_id: Uuid(500), ..Default::default() };
    let mut effects = Vec::new();
    let create = Decision { records: vec![record.into()], atomic: true, response: 1 };
    controller.decide(START, Offset(10), |_| create, &mut effects);
    let seen = |active: &mut Active| {
        assert!(active.image().topics.named("t").is_some());
        assert_eq!(active.next_offset(), Offset(11));
        Decision { records: vec![], atomic: true, response: 2 }
    };
    controller.decide(START, Offset(11), seen, &mut effects);
    assert!(controller.committed_image().0.topics.is_empty());
    committed(&mut controller, 11);
    assert_eq!(controller.committed_image().0, controller.image());
}

/// Reference section 2.3: the active controller writes a NoOpRecord every 500 ms of an idle log.
#[test]
fn an_idle_log_moves_on() {
    let settings = Settings::new(NodeId(3000));
    let mut controller: Controller<u8> =
        Controller::new(START, Image::default(), false, Offset(10), settings);
    let due = START.after(Duration::from_millis(500));
    assert_eq!(controller.next_deadline(), due);
    let mut effects = Vec::new();
    controller.tick(due.before(Duration::from_nanos(1)), Offset(10), &mut effects);
    assert!(effects.is_empty());
    controller.tick(due, Offset(10), &mut effects);
    let [Effect::Append(append)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((append.base, append.records[0].name()), (Offset(10), "NoOpRecord"));
    assert_eq!(controller.next_deadline(), due.after(Duration::from_millis(500)));
}

/// Reference section 4: leaderships go back to preferred replicas every 300 s.
#[test]
fn preferred_replicas_get_their_leaderships_back() {
    let mut cluster = Cluster::new(&[1, 2]);
    let t = cluster.create(topic("t", &[&[1, 2]]));
    cluster.fence(1);
    assert_eq!(cluster.partition(t, 0).leader, NodeId(2));
    cluster.start(1);
    let epoch = cluster.partition(t, 0).leader_epoch;
    cluster.expand(t, 0, &[2, 1]);
    cluster.pass(Duration::from_secs(299));
    assert_eq!(cluster.partition(t, 0).leader, NodeId(2));
    cluster.pass(Duration::from_secs(2));
    let partition = cluster.partition(t, 0);
    assert_eq!((partition.leader, partition.isr.to_vec()), (NodeId(1), nodes(&[2, 1])));
    assert_eq!(partition.leader_epoch.0, epoch.0 + 1);
}

/// KIP-868: a new controller aborts the transaction that the log ends in; what stood in it never was.
#[test]
fn a_dangling_transaction_is_aborted_first() {
    let settings = Settings { idle_interval: None, ..Settings::new(NodeId(3000)) };
    let image = cluster(&[1]);
    let mut controller: Controller<()> =
        Controller::new(START, image.clone(), true, Offset(10), settings);
    let mut effects = Vec::new();
    let decide = |active: &mut Active| {
        assert!(active.in_transaction());
        activate(active.image(), true, vec![], 1)
    };
    controller.decide(START, Offset(10), decide, &mut effects);
    let [Effect::Append(append)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(append.records[0].name(), "AbortTransactionRecord");
    assert_eq!(*controller.image(), image);
}
