"""Answers that clients' own test suites rely on, by hand: each was found where Flowstone and Apache Kafka answered the same bytes differently."""

import uuid

import pytest

from harness import wire
from harness.batch import batch
from harness.requests import create_topic, metadata, produce
from harness.until import until
from harness.wire import Connection, array, int8, int16, int32, int64, string

DELETE_TOPICS, DESCRIBE_CONFIGS = wire.DELETE_TOPICS, 32
OFFSET_OUT_OF_RANGE, UNKNOWN_TOPIC, INVALID_REQUEST = 1, 3, 42
NO_TAGS = b"\x00"


@pytest.fixture
def connection(broker):
    with Connection(broker.port) as connection:
        yield connection


@pytest.fixture
def topic(connection, name):
    return create_topic(connection, name)


def compact(raw):
    """A compact string or array of less than 127: its length plus one, then its bytes; None is null."""
    return b"\x00" if raw is None else bytes([len(raw) + 1]) + raw


def ask_flexible(connection, api, version, body):
    """A request with header v2; the reply stands behind the response header v1."""
    connection.frame(wire.header(api, version, 9) + NO_TAGS + body)
    reply = connection.reply()
    assert (reply.int32(), reply.int8()) == (9, 0)
    return reply


def compact_string(reply):
    length = reply.int8() - 1
    return None if length < 0 else reply.take(length).decode()


def topic_by_id(connection, version, name, topic_id):
    """Metadata of one topic, asked for with both of its names: (error, name, id), as the reply ends with it."""
    body = b"\x02" + topic_id.bytes + compact(name) + NO_TAGS + int8(0) + int8(0) + (int8(0) if version <= 10 else b"") + NO_TAGS
    reply = ask_flexible(connection, wire.METADATA, version, body)
    reply.int32()
    for _ in range(reply.int8() - 1):
        reply.int32(), compact_string(reply), reply.int32(), compact_string(reply), reply.int8()
    compact_string(reply), reply.int32()
    assert reply.int8() == 2, "one topic"
    return reply.int16(), compact_string(reply), uuid.UUID(bytes=reply.take(16))


@pytest.mark.parametrize("name_beside", [None, b"", b"another"], ids=["null", "empty", "another"])
def test_a_topic_by_id_whatever_name_stands_beside_it(connection, topic, name_beside):
    """Java's admin sends an empty name with the id."""
    none = uuid.UUID(int=0)
    error, _, topic_id = topic_by_id(connection, 12, topic.encode(), none)
    assert error == 0 and topic_id != none
    assert topic_by_id(connection, 12, name_beside, topic_id) == (0, topic, topic_id)


def test_the_answer_that_creates_a_topic_does_not_know_it_yet(connection, name):
    """Suites that delete a topic and look whether it is gone must not find a new one (kafka-go's do)."""
    reply = connection.ask(wire.METADATA, 1, array([string(name)]))
    reply.array(lambda: (reply.int32(), reply.string(), reply.int32(), reply.string()))
    reply.int32()
    assert reply.int32() == 1
    assert (reply.int16(), reply.string(), reply.int8(), reply.int32()) == (UNKNOWN_TOPIC, name, 0, 0)

    def created():
        try:
            return metadata(connection, name)[1].get(0) == (0, 1)
        except AssertionError:
            return False

    until(created, what="the topic that was asked for")


@pytest.mark.parametrize("keys", [array([]), int32(-1)], ids=["empty", "null"])
def test_no_config_keys_means_all(connection, topic, keys):
    reply = connection.ask(DESCRIBE_CONFIGS, 1, array([int8(2) + string(topic) + keys]) + int8(0))
    reply.int32()
    assert reply.int32() == 1
    assert reply.int16() == 0
    reply.string(), reply.int8(), reply.string()
    assert reply.int32() > 20


def test_a_deleted_topic_has_no_message(connection, topic):
    """aiokafka's suite looks for null, not for an empty text."""
    reply = ask_flexible(connection, DELETE_TOPICS, 5, b"\x02" + compact(topic.encode()) + int32(10000) + NO_TAGS)
    reply.int32()
    assert reply.int8() == 2
    assert (compact_string(reply), reply.int16(), compact_string(reply)) == (topic, 0, None)


@pytest.mark.parametrize("timeout", [0, -1])
@pytest.mark.parametrize("acks", [1, -1])
def test_produce_without_time_is_acknowledged(connection, topic, acks, timeout):
    """The time bounds the wait for other replicas, not that for the broker's own disk."""
    body = string(None) + int16(acks) + int32(timeout) + array([string(topic) + array([int32(0) + wire.data(batch([b"a"]))])])
    reply = connection.ask(wire.PRODUCE, 3, body)
    assert (reply.int32(), reply.string(), reply.int32(), reply.int32()) == (1, topic, 1, 0)
    assert (reply.int16(), reply.int64()) == (0, 0)


def test_fetch_behind_an_epoch_that_never_was(connection, topic):
    """A consumer whose last epoch the log never came to is out of range; no answer at all would hold it for ever."""
    assert produce(connection, topic, batch([b"a", b"b"])) == (0, 0)
    partition = int32(0) + int32(-1) + int64(1) + int32(1000) + int64(-1) + int32(1 << 20) + NO_TAGS
    body = int32(-1) + int32(0) + int32(1) + int32(1 << 20) + int8(0) + int32(0) + int32(-1)
    body += b"\x02" + compact(topic.encode()) + b"\x02" + partition + NO_TAGS + b"\x01" + compact(b"") + NO_TAGS
    reply = ask_flexible(connection, wire.FETCH, 12, body)
    assert (reply.int32(), reply.int16(), reply.int32(), reply.int8()) == (0, 0, 0, 2)
    assert (compact_string(reply), reply.int8(), reply.int32()) == (topic, 2, 0)
    assert (reply.int16(), reply.int64()) == (OFFSET_OUT_OF_RANGE, -1)


def test_a_producer_id_without_its_epoch(connection):
    """KIP-360: both or neither."""
    reply = ask_flexible(connection, wire.INIT_PRODUCER_ID, 3, compact(None) + int32(1000) + int64(5) + int16(-1) + NO_TAGS)
    assert (reply.int32(), reply.int16(), reply.int64()) == (0, INVALID_REQUEST, -1)
