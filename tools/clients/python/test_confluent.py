"""confluent-kafka (librdkafka underneath): produce, consume, groups, admin, idempotence."""

import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from harness.places import LOOPBACK
from harness.until import until

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture
def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap})


@pytest.fixture
def make_topic(admin, name):
    def make(partitions=1, **config):
        config = {key.replace("_", "."): value for key, value in config.items()}
        admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(10)
        until(lambda: name in admin.list_topics(timeout=5).topics, what="the topic in the metadata")
        return name

    return make


def produce(broker, topic, records, **settings):
    """Produces (key, value, headers, partition) tuples and returns the delivered messages in order of acknowledgement."""
    acked = []

    def delivered(error, message):
        assert error is None, error
        acked.append(message)

    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 5} | settings)
    for key, value, headers, partition in records:
        while True:
            try:
                producer.produce(topic, value=value, key=key, headers=headers, partition=partition, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(30) == 0
    return acked


def consumer(broker, group, **settings):
    return Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "session.timeout.ms": 6000} | settings)


def read(reader, count, seconds=20):
    """The next `count` messages."""
    messages, deadline = [], time.monotonic() + seconds
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages after {seconds} s"
        for message in reader.consume(count - len(messages), timeout=0.5):
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker, make_topic, codec):
    topic = make_topic()
    records = [(f"k{n}".encode(), f"value {n} ".encode() * 10, [("n", str(n).encode()), ("empty", b""), ("null", None)], 0) for n in range(1000)]
    acked = produce(broker, topic, records, **{"compression.type": codec})
    assert [message.offset() for message in acked] == list(range(1000))
    reader = consumer(broker, f"{topic}-group")
    reader.subscribe([topic])
    got = read(reader, 1000)
    assert [(m.offset(), m.key(), m.value(), m.headers()) for m in got] == [(n, key, value, headers) for n, (key, value, headers, _) in enumerate(records)]
    reader.close()


def test_null_and_empty(broker, make_topic):
    topic = make_topic()
    records = [(None, None, None, 0), (b"", b"", None, 0), (b"k", None, None, 0), (None, b"v", None, 0)]
    produce(broker, topic, records)
    reader = consumer(broker, f"{topic}-group")
    reader.subscribe([topic])
    assert [(m.key(), m.value()) for m in read(reader, 4)] == [(key, value) for key, value, _, _ in records]
    reader.close()


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(broker, make_topic, acks):
    topic = make_topic()
    produce(broker, topic, [(None, b"x", None, 0)] * 50, acks=acks)
    reader = consumer(broker, f"{topic}-group")
    until(lambda: reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=5) == (0, 50), what="50 records in the log")
    reader.close()


def test_idempotent_producers_keep_order(broker, make_topic):
    topic = make_topic(partitions=3)
    records = [(None, f"{n}".encode(), None, n % 3) for n in range(9000)]
    produce(broker, topic, records, **{"enable.idempotence": True, "batch.num.messages": 50, "linger.ms": 0})
    reader = consumer(broker, f"{topic}-group")
    reader.subscribe([topic])
    got = {0: [], 1: [], 2: []}
    for message in read(reader, 9000):
        got[message.partition()].append(int(message.value()))
    assert got == {p: list(range(p, 9000, 3)) for p in range(3)}
    reader.close()


def test_timestamps(broker, make_topic):
    topic = make_topic()
    before = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for stamp in (before - 3000, before - 2000, before - 1000):
        producer.produce(topic, b"x", timestamp=stamp, partition=0)
    producer.flush(10)
    reader = consumer(broker, f"{topic}-group")
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert [m.timestamp()[1] for m in read(reader, 3)] == [before - 3000, before - 2000, before - 1000]

    def first_at(stamp):
        (found,) = reader.offsets_for_times([TopicPartition(topic, 0, stamp)], timeout=10)
        return found.offset

    assert [first_at(before - 5000), first_at(before - 2500), first_at(before - 2000), first_at(before - 1000)] == [0, 1, 1, 2]
    assert first_at(before) in (OFFSET_END, -1), "no record is that new"
    reader.close()


def test_log_append_time(broker, make_topic):
    topic = make_topic(message_timestamp_type="LogAppendTime")
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(topic, b"x", timestamp=1000)
    producer.flush(10)
    reader = consumer(broker, f"{topic}-group")
    reader.subscribe([topic])
    (message,) = read(reader, 1)
    kind, stamp = message.timestamp()
    assert kind == 2 and abs(stamp - time.time() * 1000) < 60000
    reader.close()


def test_seek_and_pause(broker, make_topic):
    topic = make_topic()
    produce(broker, topic, [(None, str(n).encode(), None, 0) for n in range(100)])
    reader = consumer(broker, f"{topic}-group")
    reader.assign([TopicPartition(topic, 0, 90)])
    assert [int(m.value()) for m in read(reader, 10)] == list(range(90, 100))
    reader.seek(TopicPartition(topic, 0, 10))
    assert [int(m.value()) for m in read(reader, 5)] == list(range(10, 15))
    reader.pause([TopicPartition(topic, 0)])
    assert reader.poll(1) is None
    reader.resume([TopicPartition(topic, 0)])
    assert int(read(reader, 1)[0].value()) == 15
    reader.close()


def test_out_of_range_offset_resets(broker, make_topic):
    topic = make_topic()
    produce(broker, topic, [(None, b"x", None, 0)] * 5)
    reader = consumer(broker, f"{topic}-group")
    reader.assign([TopicPartition(topic, 0, 1000)])
    assert read(reader, 1)[0].offset() == 0
    reader.close()


def test_commit_and_go_on(broker, make_topic):
    topic = make_topic()
    produce(broker, topic, [(None, str(n).encode(), None, 0) for n in range(20)])
    first = consumer(broker, f"{topic}-group", **{"enable.auto.commit": False})
    first.subscribe([topic])
    read(first, 8)
    first.commit(offsets=[TopicPartition(topic, 0, 5, metadata="five, by hand")], asynchronous=False)
    first.close()
    second = consumer(broker, f"{topic}-group")
    (committed,) = second.committed([TopicPartition(topic, 0)], timeout=10)
    assert (committed.offset, committed.metadata) == (5, "five, by hand")
    second.subscribe([topic])
    assert int(read(second, 1)[0].value()) == 5
    second.close()


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_rebalance(broker, make_topic, strategy):
    topic = make_topic(partitions=4)
    settings = {"partition.assignment.strategy": strategy}
    first, second = consumer(broker, f"{topic}-group", **settings), consumer(broker, f"{topic}-group", **settings)
    first.subscribe([topic])
    until(lambda: first.poll(0.1) is None and len(first.assignment()) == 4, what="four partitions at the only member")
    second.subscribe([topic])

    def shared():
        first.poll(0.1), second.poll(0.1)
        mine, theirs = ({p.partition for p in c.assignment()} for c in (first, second))
        return len(mine) == len(theirs) == 2 and not mine & theirs

    until(shared, what="two partitions each")
    second.close()
    until(lambda: first.poll(0.1) is None and len(first.assignment()) == 4, what="four partitions again after the other left")
    first.close()


def test_static_member_comes_back_to_its_partitions(broker, make_topic):
    topic = make_topic(partitions=4)
    group = f"{topic}-group"
    ask = [{"group.instance.id": f"i{n}", "partition.assignment.strategy": "range", "session.timeout.ms": 30000} for n in range(2)]
    members = [consumer(broker, group, **settings) for settings in ask]
    for member in members:
        member.subscribe([topic])

    def assignments():
        for member in members:
            member.poll(0.1)
        return [sorted(p.partition for p in member.assignment()) for member in members]

    until(lambda: sorted(map(len, assignments())) == [2, 2], what="two partitions each")
    before = assignments()
    members[1].close()  # A static member does not leave the group: no rebalance.
    members[1] = consumer(broker, group, **ask[1])
    members[1].subscribe([topic])
    until(lambda: assignments() == before, what="the same partitions after the restart")
    for member in members:
        member.close()


def test_member_that_dies_is_replaced(broker, make_topic):
    """Session time-out: a member that stops its heartbeats without leaving loses its partitions."""
    topic = make_topic(partitions=2)
    settings = {"session.timeout.ms": 2000, "heartbeat.interval.ms": 500}
    dead = consumer(broker, f"{topic}-group", **settings, **{"max.poll.interval.ms": 2000})
    dead.subscribe([topic])
    until(lambda: dead.poll(0.1) is None and len(dead.assignment()) == 2, what="both partitions at the first")
    alive = consumer(broker, f"{topic}-group", **settings)
    alive.subscribe([topic])
    # `dead` is not polled any more.
    until(lambda: alive.poll(0.1) is None and len(alive.assignment()) == 2, what="both partitions at the one that lives")
    alive.close()
    dead.close()


def test_cluster_and_topics(broker, admin, make_topic):
    topic = make_topic(partitions=3)
    found = admin.list_topics(timeout=10)
    (node,) = found.brokers.values()
    assert (node.id, node.port) == (1, broker.port) and node.host in LOOPBACK
    assert {p.id: (p.leader, p.replicas, p.isrs) for p in found.topics[topic].partitions.values()} == {n: (1, [1], [1]) for n in range(3)}
    cluster = admin.describe_cluster().result(10)
    assert len(cluster.cluster_id) == 22 and cluster.controller.id == 1 and [node.id for node in cluster.nodes] == [1]


def test_create_twice_and_delete(admin, make_topic):
    topic = make_topic()
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)
    assert refused.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in admin.list_topics(timeout=5).topics, what="the topic gone from the metadata")
    with pytest.raises(KafkaException) as refused:
        admin.delete_topics([topic])[topic].result(10)
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_validate_only(admin, name):
    admin.create_topics([NewTopic(name, 1, 1)], validate_only=True)[name].result(10)
    assert name not in admin.list_topics(timeout=5).topics


def test_create_partitions(admin, make_topic):
    topic = make_topic()
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(10)
    until(lambda: len(admin.list_topics(topic, timeout=5).topics[topic].partitions) == 3, what="three partitions")


def test_configs(admin, make_topic):
    topic = make_topic(retention_ms="60000")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    configs = admin.describe_configs([resource])[resource].result(10)
    assert configs["retention.ms"].value == "60000" and configs["cleanup.policy"].value == "delete"
    change = [ConfigEntry("max.message.bytes", "123456", incremental_operation=AlterConfigOpType.SET), ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)]
    altered = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=change)
    admin.incremental_alter_configs([altered])[altered].result(10)
    configs = admin.describe_configs([resource])[resource].result(10)
    assert configs["max.message.bytes"].value == "123456" and configs["retention.ms"].value == "604800000"
    node = ConfigResource(ResourceType.BROKER, "1")
    assert admin.describe_configs([node])[node].result(10)["node.id"].value == "1"


def test_delete_records_and_offsets(broker, admin, make_topic):
    topic = make_topic()
    produce(broker, topic, [(None, b"x", None, 0)] * 10)
    partition = TopicPartition(topic, 0, 4)
    assert admin.delete_records([partition])[partition].result(10).low_watermark == 4

    def offset(spec):
        ask = TopicPartition(topic, 0)
        return admin.list_offsets({ask: spec})[ask].result(10).offset

    assert [offset(OffsetSpec.earliest()), offset(OffsetSpec.latest())] == [4, 10]


def test_groups(broker, admin, make_topic):
    topic = make_topic()
    group = f"{topic}-group"
    produce(broker, topic, [(None, b"x", None, 0)] * 10)
    reader = consumer(broker, group, **{"client.id": "the-reader"})
    reader.subscribe([topic])
    read(reader, 10)
    reader.commit(asynchronous=False)
    described = admin.describe_consumer_groups([group])[group].result(10)
    (member,) = described.members
    assert (described.state.name, described.partition_assignor, member.client_id) == ("STABLE", "range", "the-reader")
    assert [(p.topic, p.partition) for p in member.assignment.topic_partitions] == [(topic, 0)]
    with pytest.raises(KafkaException) as refused:
        admin.delete_consumer_groups([group])[group].result(10)
    assert refused.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    reader.close()
    from confluent_kafka import ConsumerGroupTopicPartitions

    (offsets,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    assert [(p.topic, p.partition, p.offset) for p in offsets.result(10).topic_partitions] == [(topic, 0, 10)]
    altered = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 3)])
    admin.alter_consumer_group_offsets([altered])[group].result(10)
    again = consumer(broker, group)
    assert again.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 3
    again.close()
    assert group in [listed.group_id for listed in admin.list_consumer_groups().result(10).valid]
    admin.delete_consumer_groups([group])[group].result(10)
    assert group not in [listed.group_id for listed in admin.list_consumer_groups().result(10).valid]


def test_message_too_large(broker, make_topic):
    topic = make_topic(max_message_bytes="10000")
    errors = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 2000000})
    producer.produce(topic, b"x" * 20000, on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    assert [error.code() for error in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_unknown_topic_without_auto_create(broker, name):
    reader = consumer(broker, f"{name}-group", **{"allow.auto.create.topics": False})
    reader.subscribe([name])
    message = until(lambda: reader.poll(0.5), what="an error")
    assert message.error().code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    reader.close()


def test_long_poll_sees_a_record_at_once(broker, make_topic):
    """A fetch that waits is answered when a record comes, not when its time is over."""
    topic = make_topic()
    reader = consumer(broker, f"{topic}-group", **{"fetch.wait.max.ms": 20000, "socket.timeout.ms": 60000})
    reader.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    assert reader.poll(1.5) is None
    began = time.monotonic()
    produce(broker, topic, [(None, b"now", None, 0)])
    (message,) = read(reader, 1)
    assert message.value() == b"now" and time.monotonic() - began < 3
    reader.close()


@pytest.mark.whole
def test_many_topics_and_partitions(broker, admin, name):
    topics = [NewTopic(f"{name}-{n}", 10, 1) for n in range(50)]
    for future in admin.create_topics(topics).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5})
    for n in range(50):
        for partition in range(10):
            producer.produce(f"{name}-{n}", f"{n}/{partition}".encode(), partition=partition)
    assert producer.flush(30) == 0
    reader = consumer(broker, f"{name}-group")
    reader.subscribe([f"^{name}-.*"])
    assert len({message.value() for message in read(reader, 500, 60)}) == 500
    reader.close()
    for future in admin.delete_topics([topic.topic for topic in topics]).values():
        future.result(30)


@pytest.mark.whole
def test_large_messages(broker, make_topic):
    topic = make_topic(max_message_bytes="20000000")
    values = [bytes([n]) * (3_000_000 + n) for n in range(8)]
    produce(broker, topic, [(None, value, None, 0) for value in values], **{"message.max.bytes": 15000000})
    reader = consumer(broker, f"{topic}-group", **{"fetch.message.max.bytes": 100000})
    reader.subscribe([topic])
    assert [message.value() for message in read(reader, 8, 60)] == values, "each is larger than any byte cap asked for, and still comes"
    reader.close()
