"""The few requests that raw tests make over and over, in old versions: create a topic, look at it, write to it, read from it."""

from harness import wire
from harness.until import until
from harness.wire import array, data, int8, int16, int32, int64, string


def create_topic(connection, topic, partitions=2):
    """CreateTopics v2; returns the name when every partition has its leader."""
    assert answer_to_create(connection, topic, partitions)[0] == 0
    leaders = {partition: (0, 1) for partition in range(partitions)}
    until(lambda: metadata(connection, topic)[1] == leaders, what="every partition with its leader")
    # Kafka's metadata name a leader a moment before that leader knows.
    until(lambda: all(fetch(connection, topic, 0, partition=partition)[0] == 0 for partition in range(partitions)), what="every leader at work")
    return topic


def answer_to_create(connection, topic, partitions=1):
    """What CreateTopics v2 says of one topic: (error, message)."""
    reply = connection.ask(wire.CREATE_TOPICS, 2, array([string(topic) + int32(partitions) + int16(1) + array([]) + array([])]) + int32(10000) + int8(0))
    reply.int32()  # throttle time
    ((found, error, message),) = reply.array(lambda: (reply.string(), reply.int16(), reply.string()))
    assert found == topic and reply.left() == 0
    return error, message


def metadata(connection, topic):
    """Metadata v1: {node: (host, port)} and {partition: (error, leader)}."""
    reply = connection.ask(wire.METADATA, 1, array([string(topic)]))
    nodes = {node: (host, port) for node, host, port, _ in reply.array(lambda: (reply.int32(), reply.string(), reply.int32(), reply.string()))}
    assert reply.int32() == 1, "the controller"

    def partition():
        error, index, leader = reply.int16(), reply.int32(), reply.int32()
        reply.array(reply.int32), reply.array(reply.int32)
        return index, (error, leader)

    ((_, _, _, partitions),) = reply.array(lambda: (reply.int16(), reply.string(), reply.int8(), dict(reply.array(partition))))
    assert reply.left() == 0
    return nodes, partitions


def produce(connection, topic, records, version=3, acks=-1, partition=0):
    """Produce v3 to v8 of one partition: (error, base offset)."""
    body = string(None) + int16(acks) + int32(10000) + array([string(topic) + array([int32(partition) + data(records)])])
    reply = connection.ask(wire.PRODUCE, version, body)

    def answer():
        found = reply.int32(), reply.int16(), reply.int64()
        reply.int64()  # log append time
        if version >= 5:
            reply.int64()  # log start offset
        if version >= 8:
            reply.array(lambda: (reply.int32(), reply.string())), reply.string()
        return found

    ((_, ((index, error, base),)),) = reply.array(lambda: (reply.string(), reply.array(answer)))
    reply.int32()
    assert index == partition and reply.left() == 0
    return error, base


def fetch(connection, topic, offset, version=4, partition=0):
    """Fetch v4 to v6 of one partition: (error, high watermark, records)."""
    start = int64(0) if version >= 5 else b""
    body = int32(-1) + int32(0) + int32(1) + int32(1 << 20) + int8(0) + array([string(topic) + array([int32(partition) + int64(offset) + start + int32(1 << 20)])])
    reply = connection.ask(wire.FETCH, version, body)
    reply.int32()

    def answer():
        index, error, high, stable = reply.int32(), reply.int16(), reply.int64(), reply.int64()
        if version >= 5:
            reply.int64()
        reply.array(lambda: (reply.int64(), reply.int64()))
        return index, error, high, stable, reply.data()

    ((_, ((_, error, high, _, records),)),) = reply.array(lambda: (reply.string(), reply.array(answer)))
    assert reply.left() == 0
    return error, high, records or b""
