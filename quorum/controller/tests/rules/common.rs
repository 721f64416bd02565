//! A cluster to decide on.

use flowstone_config::Config;
use flowstone_controller::{
    Active, AlteredIsr, ApiError, BrokerRegistration, Controller, Decision, Effect, Heartbeat,
    HeartbeatAnswer, IsrAlteration, NewTopic, Random, Settings, TopicDefaults, create_topics,
};
use flowstone_metadata::records::{ConfigRecord, FeatureLevelRecord, RegisterBrokerRecord};
use flowstone_metadata::{Delta, Image, MetadataRecord, Partition, features};
use flowstone_types::{Instant, NodeId, Offset, PartitionId, Uuid};
use std::time::Duration;

/// The node's own configuration: the defaults.
pub fn config() -> Config {
    Config::dev("data", 9092, &[]).unwrap().config
}

pub fn apply(image: &mut Image, records: impl IntoIterator<Item = MetadataRecord>) {
    let mut delta = Delta::default();
    for record in records {
        image.apply(record, &mut delta).unwrap();
    }
}

/// An image after what was decided.
pub fn after<R>(image: &Image, decision: &Decision<R>) -> Image {
    let mut image = image.clone();
    apply(&mut image, decision.records.clone());
    image
}

pub fn broker(id: i32, fenced: bool) -> MetadataRecord {
    RegisterBrokerRecord {
        broker_id: id,
        broker_epoch: 10 + i64::from(id),
        fenced,
        features: features::supported(),
        log_dirs: vec![Uuid(1000 + id as u128)],
        ..Default::default()
    }
    .into()
}

/// A formatted cluster with unfenced brokers.
pub fn cluster(brokers: &[i32]) -> Image {
    let mut image = Image::default();
    let levels =
        features::bootstrap_records(flowstone_metadata::MetadataVersion::LATEST, &[]).unwrap();
    apply(&mut image, levels.into_iter().map(FeatureLevelRecord::into));
    apply(&mut image, brokers.iter().map(|id| broker(*id, false)));
    image
}

/// Decides with numbers that count up.
pub fn with_random<R>(decide: impl FnOnce(&mut Random<'_>) -> R) -> R {
    let mut count = 0;
    decide(&mut Random(&mut || {
        count += 1;
        count
    }))
}

pub fn nodes(ids: &[i32]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

/// A topic to create, with the replicas of each partition.
pub fn topic(name: &str, assignments: &[&[i32]]) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions: -1,
        replication_factor: -1,
        assignments: (0..).zip(assignments.iter().map(|replicas| nodes(replicas))).collect(),
        configs: vec![],
    }
}

/// An active controller of a whole cluster; what it decides is committed at once.
pub struct Cluster {
    pub controller: Controller<()>,
    pub now: Instant,
    /// The records of the last decision.
    pub last: Vec<MetadataRecord>,
    /// Brokers that send heartbeats while time passes.
    alive: Vec<NodeId>,
    end: Offset,
    /// Numbers drawn.
    drawn: u64,
}

const BEAT: Duration = Duration::from_secs(1);

impl Cluster {
    /// Of unfenced brokers, at the latest metadata.version.
    pub fn new(brokers: &[i32]) -> Self {
        Self::of(cluster(brokers))
    }

    pub fn of(image: Image) -> Self {
        let alive = image.brokers.keys().copied().collect();
        let (now, end) = (Instant(0), Offset(100));
        let settings = Settings { idle_interval: None, ..Settings::new(NodeId(3000)) };
        let controller = Controller::new(now, image, false, end, settings);
        Self { controller, now, last: vec![], alive, end, drawn: 0 }
    }

    pub fn decide<R>(&mut self, decide: impl FnOnce(&mut Active) -> Decision<R>) -> R {
        let mut response = None;
        let mut effects = Vec::new();
        let decide = |active: &mut Active| decide(active).map(|r| response = Some(r));
        self.controller.decide(self.now, self.end, decide, &mut effects);
        self.carry_out(effects);
        response.unwrap()
    }

    pub fn try_decide<R>(
        &mut self,
        decide: impl FnOnce(&mut Active) -> Result<Decision<R>, ApiError>,
    ) -> Result<R, ApiError> {
        self.decide(|active| Decision::of(decide(active)))
    }

    fn carry_out(&mut self, effects: Vec<Effect<()>>) {
        self.last.clear();
        for effect in effects {
            if let Effect::Append(append) = effect {
                assert_eq!(append.base, self.end);
                self.end = self.end.plus(append.records.len() as i64);
                self.last.extend(append.records);
            }
        }
        self.controller.committed(self.end, &mut Vec::new());
    }

    pub fn epoch(&self, id: i32) -> i64 {
        self.controller.image().brokers[&NodeId(id)].broker_epoch
    }

    pub fn create(&mut self, topic: NewTopic) -> Uuid {
        let defaults = TopicDefaults { partitions: 1, replication_factor: 1 };
        let config = config();
        let mut drawn = self.drawn;
        let mut draw = || {
            drawn += 1;
            drawn
        };
        let created = self.decide(|active| {
            let random = &mut Random(&mut draw);
            create_topics(active.image(), &[topic], defaults, false, &config, random)
        });
        self.drawn = drawn;
        created[0].1.as_ref().unwrap().id
    }

    pub fn partition(&self, topic: Uuid, index: i32) -> Partition {
        let id = PartitionId { topic, index };
        Partition::clone(self.controller.image().topics.partition(id).unwrap())
    }

    /// Sets a topic's config, as if it was decided so.
    pub fn configure(&mut self, topic: &str, name: &str, value: &str) {
        let record = ConfigRecord {
            resource_type: 2,
            resource_name: topic.into(),
            name: name.into(),
            value: Some(value.into()),
            ..Default::default()
        };
        let records = vec![record.into()];
        self.decide(|_| Decision { records, atomic: true, response: () });
    }

    /// A heartbeat of a broker that has read everything.
    pub fn beat(&self, id: i32) -> Heartbeat {
        Heartbeat {
            id: NodeId(id),
            epoch: self.epoch(id),
            metadata_offset: Offset(self.end.0 - 1),
            want_fence: false,
            want_shut_down: false,
            offline_log_dirs: vec![],
            cordoned_log_dirs: None,
        }
    }

    pub fn heartbeat(&mut self, heartbeat: &Heartbeat) -> HeartbeatAnswer {
        self.try_decide(|active| active.heartbeat(heartbeat)).unwrap()
    }

    /// Has the broker fenced, as it asks for.
    pub fn fence(&mut self, id: i32) {
        let heartbeat = Heartbeat { want_fence: true, ..self.beat(id) };
        assert!(self.heartbeat(&heartbeat).is_fenced);
        self.alive.retain(|alive| alive.0 != id);
    }

    /// Has a fenced broker unfenced.
    pub fn start(&mut self, id: i32) {
        assert!(!self.heartbeat(&self.beat(id)).is_fenced);
        self.alive.push(NodeId(id));
    }

    /// The broker is heard no more.
    pub fn fall_silent(&mut self, id: i32) {
        self.alive.retain(|alive| alive.0 != id);
    }

    /// Registers a new incarnation, which had noted `previous_epoch` at its shutdown.
    pub fn register(
        &mut self,
        id: i32,
        incarnation: u128,
        previous_epoch: Option<i64>,
    ) -> Result<i64, ApiError> {
        let registration = BrokerRegistration {
            id: NodeId(id),
            incarnation: Uuid(incarnation),
            end_points: vec![],
            features: features::supported(),
            rack: None,
            log_dirs: vec![Uuid(1000 + id as u128)],
        };
        self.try_decide(|active| active.register(registration, previous_epoch))
    }

    /// The leader, the ISR and the eligible replicas of a partition.
    pub fn led(&self, topic: Uuid, index: i32) -> (i32, Vec<i32>, Vec<i32>) {
        let p = self.partition(topic, index);
        (p.leader.0, flowstone_metadata::raw(&p.isr), flowstone_metadata::raw(&p.eligible))
    }

    /// Lets time pass, with heartbeats from who lives.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        while self.now < until {
            self.now = self.now.after(BEAT).min(until);
            for id in self.alive.clone() {
                self.heartbeat(&self.beat(id.0));
            }
            let mut effects = Vec::new();
            self.controller.tick(self.now, self.end, &mut effects);
            self.carry_out(effects);
        }
    }

    /// The leader of a partition brings these replicas into its ISR.
    pub fn expand(&mut self, topic: Uuid, index: i32, isr: &[i32]) {
        let alteration = self.alteration(topic, index, isr);
        let leader = self.partition(topic, index).leader;
        let altered = self.alter(leader.0, alteration);
        altered.unwrap();
    }

    pub fn alteration(&self, topic: Uuid, index: i32, isr: &[i32]) -> IsrAlteration {
        let partition = self.partition(topic, index);
        IsrAlteration {
            id: PartitionId { topic, index },
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|id| (NodeId(*id), Some(self.epoch(*id)))).collect(),
            recovering: false,
        }
    }

    pub fn alter(&mut self, broker: i32, change: IsrAlteration) -> Result<AlteredIsr, ApiError> {
        let epoch = self.epoch(broker);
        let answers =
            self.try_decide(|active| active.alter_partitions(NodeId(broker), epoch, &[change]));
        answers.unwrap().remove(0)
    }
}
