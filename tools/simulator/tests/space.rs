//! A broker without space: on its disk, or in its memory. What waits is done once there is some.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use flowstone_batch::BatchBuilder;
use flowstone_runtime::sim::{Control, DiskFaults, MachineId, World};
use flowstone_runtime::{Buffer, connect, sleep, wall_clock};
use flowstone_simulator::client::Client;
use flowstone_simulator::scenarios::broker::start;
use flowstone_types::Offset;
use flowstone_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use flowstone_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use flowstone_wire::messages::{CreateTopicsRequest, MetadataRequest, ProduceRequest};
use flowstone_wire::{ErrorCode, string, topic_name};

/// How long one waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Enough for the requests of all.
const MEMORY_BYTES: u64 = 1 << 30;

/// A broker and one who asks it.
struct Asker {
    control: Control,
    machine: MachineId,
    address: SocketAddr,
}

impl Asker {
    /// Plays `story` with a broker on so many shards.
    fn with<F: Future<Output = ()> + 'static>(shards: usize, story: fn(Rc<Self>) -> F) {
        for seed in 0..3 {
            let world = World::new(seed);
            let machine = world.machine("broker");
            let address = SocketAddr::new(world.address(machine), 9092);
            let asker = Rc::new(Self { control: world.control(), machine, address });
            world.run(async move {
                start(&asker.control, machine, shards, MEMORY_BYTES);
                asker.reached().await;
                story(asker).await;
            });
        }
    }

    /// Returns once the broker serves.
    async fn reached(&self) {
        let request = MetadataRequest::default();
        loop {
            let client = Client::connect(self.address, PATIENCE).await;
            if let Ok(mut client) = client
                && client.ask(12, &request).await.is_ok()
            {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address, PATIENCE).await.expect("the broker goes on")
    }

    /// The answer to a CreateTopics, if there is one in time.
    async fn create(&self, name: &str, configs: &[(&str, &str)]) -> Option<ErrorCode> {
        let mut topic = CreatableTopic::default();
        topic.name = topic_name(name);
        topic.num_partitions = 1;
        topic.replication_factor = 1;
        let config = |(name, value): &(&str, &str)| {
            let mut config = CreatableTopicConfig::default();
            config.name = string((*name).to_owned());
            config.value = Some(string((*value).to_owned()));
            config
        };
        topic.configs = configs.iter().map(config).collect();
        let mut request = CreateTopicsRequest::default();
        request.topics = vec![topic];
        request.timeout_ms = 1_000;
        let response = self.client().await.ask(5, &request).await.ok()?;
        Some(ErrorCode::from_number(response.topics[0].error_code).expect("one of Kafka's"))
    }

    /// The topics' names and ids.
    async fn topics(&self) -> Vec<(String, flowstone_types::Uuid)> {
        let request = MetadataRequest::default().with_topics(None);
        let response = self.client().await.ask(12, &request).await.expect("the broker goes on");
        let named = |topic: &flowstone_wire::messages::metadata_response::MetadataResponseTopic| {
            let name = topic.name.as_ref().expect("by name").to_string();
            (name, flowstone_wire::uuid_from_wire(topic.topic_id))
        };
        response.topics.iter().map(named).collect()
    }

    async fn produce(&self, topic: &str, value: &[u8]) -> Option<ErrorCode> {
        let response = self.client().await.ask(8, &batch(topic, value)).await.ok()?;
        let code = response.responses[0].partition_responses[0].error_code;
        Some(ErrorCode::from_number(code).expect("one of Kafka's"))
    }

    /// Leaves no space, and creates topics until one has to wait: that one's name.
    async fn fill_the_metadata_log(&self) -> String {
        self.control.set_capacity(self.machine, Some(self.control.disk_used(self.machine)));
        for number in 0.. {
            let name = format!("topic-{number}");
            match self.create(&name, &[]).await {
                Some(ErrorCode::None) => assert!(number < 1_000, "the disk does not fill up"),
                None => return name,
                Some(code) => panic!("{name}: answered with {code:?}"),
            }
        }
        unreachable!("the numbers do not end")
    }
}

fn batch(topic: &str, value: &[u8]) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    builder.push(wall_clock(), None, Some(value), &[]);
    let mut data = PartitionProduceData::default();
    data.records = Some(builder.build());
    let mut of_topic = TopicProduceData::default();
    of_topic.name = topic_name(topic);
    of_topic.partition_data = vec![data];
    let mut request = ProduceRequest::default();
    request.acks = -1;
    request.timeout_ms = 60_000;
    request.topic_data = vec![of_topic];
    request
}

/// What has its place in the metadata log is written once there is space: so it must be applied, and
/// until then nothing is said of it.
#[test]
fn a_metadata_record_waits_for_space_and_is_applied() {
    Asker::with(2, |broker| async move {
        let waiting = broker.fill_the_metadata_log().await;
        let before = broker.topics().await;
        assert!(before.iter().all(|(name, _)| *name != waiting), "told of what is not durable");
        broker.control.set_capacity(broker.machine, None);
        while !broker.topics().await.iter().any(|(name, _)| *name == waiting) {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(broker.create(&waiting, &[]).await, Some(ErrorCode::TopicAlreadyExists));
        assert_eq!(broker.create("another", &[]).await, Some(ErrorCode::None));
        while broker.produce(&waiting, b"value").await != Some(ErrorCode::None) {
            sleep(Duration::from_millis(100)).await;
        }
        let after = broker.topics().await;
        broker.control.power_loss(broker.machine);
        start(&broker.control, broker.machine, 2, MEMORY_BYTES);
        broker.reached().await;
        assert_eq!(broker.topics().await, after, "the log says what the image said");
    });
}

/// A snapshot of the metadata log finds no space when it is due: it is taken once there is some, and neither the full
/// disk nor a power cut behind it takes anything from the cluster's state.
#[test]
fn a_metadata_snapshot_that_finds_no_space_is_taken_later() {
    /// `metadata.log.max.snapshot.interval.ms`, and some time to look.
    const DUE: Duration = Duration::from_secs(3_700);
    Asker::with(1, |broker| async move {
        assert_eq!(broker.create("kept", &[]).await, Some(ErrorCode::None));
        let snapshots = || {
            let files = broker.control.files(broker.machine).into_keys();
            files.filter(|path| path.to_string_lossy().ends_with(".checkpoint")).count()
        };
        let before = snapshots();
        let used = broker.control.disk_used(broker.machine);
        broker.control.set_capacity(broker.machine, Some(used));
        sleep(DUE).await;
        assert_eq!(snapshots(), before, "there was no space for it");
        let topics = broker.topics().await;
        assert!(topics.iter().any(|(name, _)| name == "kept"));
        broker.control.set_capacity(broker.machine, None);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(snapshots(), before + 1, "not tried again");
        broker.control.power_loss(broker.machine);
        start(&broker.control, broker.machine, 1, MEMORY_BYTES);
        broker.reached().await;
        assert_eq!(broker.topics().await, topics);
    });
}

/// Retention makes space while a decision waits for it: neither waits for the other.
#[test]
fn retention_makes_the_space_that_a_decision_waits_for() {
    Asker::with(1, |broker| async move {
        let configs =
            [("retention.ms", "20000"), ("segment.ms", "100"), ("file.delete.delay.ms", "0")];
        assert_eq!(broker.create("passing", &configs).await, Some(ErrorCode::None));
        for _ in 0..5 {
            assert_eq!(broker.produce("passing", &vec![7; 900_000]).await, Some(ErrorCode::None));
            sleep(Duration::from_millis(200)).await;
        }
        let waiting = broker.fill_the_metadata_log().await;
        // Past the next look of retention: log.retention.check.interval.ms is 300,000. What it frees
        // is enough for all topics that wait to be opened, too.
        sleep(Duration::from_secs(310)).await;
        let known = broker.topics().await;
        assert!(known.iter().any(|(name, _)| *name == waiting), "still waits for space");
    });
}

/// Batches that wait for the disk are bounded, also those that come from another shard.
#[test]
fn a_shard_whose_disk_hangs_takes_no_more_from_the_others() {
    Asker::with(3, |broker| async move {
        assert_eq!(broker.create("ledger", &[]).await, Some(ErrorCode::None));
        let ever = Duration::from_secs(100);
        let hangs = DiskFaults { sync_latency: (ever, ever), ..DiskFaults::default() };
        broker.control.set_disk_faults(broker.machine, hangs);
        for _ in 0..60 {
            let broker = Rc::clone(&broker);
            broker.control.clone().spawn_on(broker.machine, async move {
                broker.produce("ledger", &vec![7; 900_000]).await;
            });
        }
        sleep(Duration::from_secs(2)).await;
        let waiting = broker.waiting_bytes().await;
        assert!((8 << 20..12 << 20).contains(&waiting), "{waiting} bytes wait for the disk");
    });
}

impl Asker {
    /// `flowstone_memory_bytes` of what waits for the disk, on the shard that has most.
    async fn waiting_bytes(&self) -> usize {
        let address = SocketAddr::new(self.address.ip(), 9644);
        let connection = connect(address).await.expect("the broker goes on");
        let asked = Bytes::from_static(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n");
        connection.send(vec![asked]).await.expect("it is read");
        let mut text = String::new();
        loop {
            let (got, buffer) = connection.recv(Buffer::with_capacity(1 << 16)).await;
            if got.expect("it answers") == 0 {
                break;
            }
            text += std::str::from_utf8(&buffer).expect("text");
        }
        let mut of_shards = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("flowstone_memory_bytes{")?;
            let (labels, value) = rest.split_once("} ")?;
            labels.contains("\"waiting\"").then(|| value.parse::<f64>().expect("a number") as usize)
        });
        of_shards.by_ref().max().expect("each shard tells it")
    }
}
