"""aiokafka: a third code base of the protocol, asynchronous."""

import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_round_trip(broker, name, codec):
    async def scenario():
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", compression_type=codec, enable_idempotence=True)
        await producer.start()
        for n in range(300):
            await producer.send(name, b"value %d" % n, key=b"k", headers=[("n", b"%d" % n)], partition=0)
        await producer.stop()
        consumer = AIOKafkaConsumer(name, bootstrap_servers=broker.bootstrap, group_id=f"{name}-group", auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        got = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(300)]
        await consumer.commit()
        committed = await consumer.committed(TopicPartition(name, 0))
        await consumer.stop()
        return got, committed

    got, committed = asyncio.run(scenario())
    assert [(m.offset, m.value, m.headers) for m in got] == [(n, b"value %d" % n, (("n", b"%d" % n),)) for n in range(300)]
    assert committed == 300


def test_admin_and_times(broker, name):
    async def scenario():
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"retention.ms": "3600000"})])
        await admin.create_partitions({name: NewPartitions(2)})
        described = await admin.describe_topics([name])
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await producer.start()
        now = int(time.time() * 1000)
        for stamp in (now - 2000, now - 1000):
            await producer.send_and_wait(name, b"x", partition=1, timestamp_ms=stamp)
        await producer.stop()
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap)
        await consumer.start()
        partition = TopicPartition(name, 1)
        found = await consumer.offsets_for_times({partition: now - 1500})
        ends = await consumer.end_offsets([partition])
        await consumer.stop()
        await admin.delete_topics([name])
        left = await admin.list_topics()
        await admin.close()
        return described, found[partition], ends[partition], left

    described, found, end, left = asyncio.run(scenario())
    assert len(described[0]["partitions"]) == 2
    assert (found.offset, end) == (1, 2)
    assert name not in left


def test_two_members(broker, name):
    async def scenario():
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic(name, 4, 1)])
        await admin.close()
        members = [AIOKafkaConsumer(name, bootstrap_servers=broker.bootstrap, group_id=f"{name}-group", auto_offset_reset="earliest") for _ in range(2)]
        await asyncio.gather(*(member.start() for member in members))
        for _ in range(200):
            if sorted(len(member.assignment()) for member in members) == [2, 2]:
                break
            await asyncio.sleep(0.1)
        counts = sorted(len(member.assignment()) for member in members)
        await asyncio.gather(*(member.stop() for member in members))
        return counts

    assert asyncio.run(scenario()) == [2, 2]
