"""The oldest encodings of each API, byte by byte: what librdkafka, sarama, kafkajs and kafka-python of years ago send."""

import pytest

from harness import wire
from harness.batch import batch, record
from harness.places import LOOPBACK
from harness.requests import answer_to_create, create_topic, fetch, produce
from harness.until import until
from harness.wire import Connection, array, data, int16, int32, int64, string

UNKNOWN_TOPIC, OFFSET_OUT_OF_RANGE = 3, 1
LOADING = (14, 15, 16)  # The coordinator is loading, not there yet, or elsewhere: ask again.


@pytest.fixture
def connection(broker):
    with Connection(broker.port) as connection:
        yield connection


@pytest.fixture
def topic(connection, name):
    return create_topic(connection, name)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_api_versions(broker, connection, version):
    reply = connection.ask(wire.API_VERSIONS, version)
    assert reply.int16() == 0
    rows = reply.array(lambda: (reply.int16(), reply.int16(), reply.int16()))
    assert len(rows) > 25 and all(low <= high for _, low, high in rows)
    if version > 0:
        reply.int32()
    assert reply.left() == 0


def test_api_versions_from_the_future(connection):
    """KIP-511: an unknown version is answered with v0, UNSUPPORTED_VERSION, and the one row that tells the client what to ask next."""
    reply = connection.ask(wire.API_VERSIONS, 99, b"\x00")  # Header v2: tagged fields, none.
    assert reply.int16() == wire.UNSUPPORTED_VERSION
    rows = {key: (low, high) for key, low, high in reply.array(lambda: (reply.int16(), reply.int16(), reply.int16()))}
    assert rows[wire.API_VERSIONS][0] == 0 and rows[wire.API_VERSIONS][1] >= 3
    assert connection.ask(wire.API_VERSIONS, 0).int16() == 0, "the connection goes on"


def test_create_topics_says_nothing_of_success(connection, name):
    assert answer_to_create(connection, name) == (0, None), "null, not an empty message"
    assert answer_to_create(connection, name) == (36, f"Topic '{name}' already exists.")


def test_metadata_v0(broker, connection, topic):
    reply = connection.ask(wire.METADATA, 0, array([string(topic)]))
    ((node, host, port),) = reply.array(lambda: (reply.int32(), reply.string(), reply.int32()))
    assert (node, port) == (1, broker.port) and host in LOOPBACK

    def partition():
        return reply.int16(), reply.int32(), reply.int32(), reply.array(reply.int32), reply.array(reply.int32)

    ((error, found, partitions),) = reply.array(lambda: (reply.int16(), reply.string(), reply.array(partition)))
    assert (error, found) == (0, topic)
    assert sorted(partitions, key=lambda row: row[1]) == [(0, 0, 1, [1], [1]), (0, 1, 1, [1], [1])]


def test_metadata_v0_of_all_topics(connection, topic):
    """In v0 an empty list means all topics; later versions say null."""
    reply = connection.ask(wire.METADATA, 0, array([]))
    reply.array(lambda: (reply.int32(), reply.string(), reply.int32()))
    partition = lambda: (reply.int16(), reply.int32(), reply.int32(), reply.array(reply.int32), reply.array(reply.int32))  # noqa: E731
    assert topic in [row[1] for row in reply.array(lambda: (reply.int16(), reply.string(), reply.array(partition)))]
    reply = connection.ask(wire.METADATA, 1, array([]))
    reply.array(lambda: (reply.int32(), reply.string(), reply.int32(), reply.string()))
    reply.int32()
    assert reply.int32() == 0, "v1: an empty list is no topic"


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7, 8])
def test_produce(connection, topic, version):
    assert produce(connection, topic, batch([b"a", b"b"]), version) == (0, 0)
    assert produce(connection, topic, batch([b"c"]), version) == (0, 2)
    error, high, records = fetch(connection, topic, 0)
    assert (error, high) == (0, 3)
    assert record(0, b"a") + record(1, b"b") in records and records.count(b"\x02c\x00") == 1


def test_produce_without_acks_is_not_answered(connection, topic):
    body = string(None) + int16(0) + int32(10000) + array([string(topic) + array([int32(0) + data(batch([b"quiet"]))])])
    connection.frame(wire.header(wire.PRODUCE, 3, 7) + body)
    reply = connection.ask(wire.API_VERSIONS, 0, correlation=8)
    assert reply.int16() == 0, "the next reply on the connection is the next request's"
    until(lambda: fetch(connection, topic, 0)[1] == 1, what="the record in the log")


def test_produce_in_dead_formats_is_refused(connection, topic):
    """Produce v0 to v2 are advertised for old librdkafka's sake (KIP-896) and carry formats that Kafka 4 does not take: an error, or the end of the connection."""
    for version in (0, 1, 2):
        with Connection(connection.socket.getpeername()[1]) as own:
            body = int16(-1) + int32(1000) + array([string(topic) + array([int32(0) + data(batch([b"x"]))])])
            own.frame(wire.header(wire.PRODUCE, version) + body)
            try:
                reply = own.reply()
            except OSError:
                continue
            reply.int32()
            ((_, ((_, error, _),)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int16(), reply.int64()))))  # noqa: B023
            assert error != 0
    assert fetch(connection, topic, 0)[1] == 0


@pytest.mark.parametrize("version", [4, 5, 6])
def test_fetch(connection, topic, version):
    produce(connection, topic, batch([b"one"]))
    assert fetch(connection, topic, 0, version)[:2] == (0, 1)
    assert fetch(connection, topic, 1, version) == (0, 1, b"")
    assert fetch(connection, topic, 2, version)[0] == OFFSET_OUT_OF_RANGE
    assert fetch(connection, "nowhere-" + topic, 0, version)[0] == UNKNOWN_TOPIC


def test_list_offsets_v1(connection, topic):
    produce(connection, topic, batch([b"a", b"b"], timestamp=5000))

    def ask(time):
        reply = connection.ask(wire.LIST_OFFSETS, 1, int32(-1) + array([string(topic) + array([int32(0) + int64(time)])]))
        ((_, (found,)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int16(), reply.int64(), reply.int64()))))
        return found[1], found[3]

    assert [ask(time) for time in (-2, -1, 4000, 6000)] == [(0, 0), (0, 2), (0, 0), (0, -1)]


def test_classic_group_in_the_first_versions(connection, topic):
    """FindCoordinator 0, JoinGroup 0, SyncGroup 0, Heartbeat 0, OffsetCommit 2, OffsetFetch 1, DescribeGroups 0, ListGroups 0, LeaveGroup 0."""
    group = f"{topic}-group"

    def coordinator():
        reply = connection.ask(wire.FIND_COORDINATOR, 0, string(group))
        return (reply.int16(), reply.int32(), reply.string(), reply.int32())[:2] == (0, 1)

    until(coordinator, what="the group's coordinator")
    subscription = int16(0) + array([string(topic)]) + data(None)
    ask = string(group) + int32(10000) + string("") + string("consumer") + array([string("range") + data(subscription)])

    def join():
        reply = connection.ask(wire.JOIN_GROUP, 0, ask)
        error = reply.int16()
        return None if error in LOADING else (reply, error)

    reply, error = until(join, what="a coordinator that has loaded its groups")
    generation, protocol, leader, member = reply.int32(), reply.string(), reply.string(), reply.string()
    assert (error, generation, protocol) == (0, 1, "range") and leader == member and member.startswith("raw-")
    assert reply.array(lambda: (reply.string(), reply.data())) == [(member, subscription)]

    reply = connection.ask(wire.SYNC_GROUP, 0, string(group) + int32(generation) + string(member) + array([string(member) + data(b"whatever the leader says")]))
    assert (reply.int16(), reply.data()) == (0, b"whatever the leader says")

    def heartbeat(generation, member):
        return connection.ask(wire.HEARTBEAT, 0, string(group) + int32(generation) + string(member)).int16()

    illegal_generation, unknown_member = 22, 25
    assert heartbeat(generation, member) == 0
    assert heartbeat(generation + 1, member) == illegal_generation
    assert heartbeat(generation, "nobody") == unknown_member

    def commit(generation, offset):
        body = string(group) + int32(generation) + string(member) + int64(-1) + array([string(topic) + array([int32(0) + int64(offset) + string("note")])])
        reply = connection.ask(wire.OFFSET_COMMIT, 2, body)
        ((_, ((_, error),)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int16()))))
        return error

    assert commit(generation, 42) == 0
    assert commit(generation + 5, 43) == illegal_generation
    reply = connection.ask(wire.OFFSET_FETCH, 1, string(group) + array([string(topic) + array([int32(0), int32(1)])]))
    ((_, rows),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int64(), reply.string(), reply.int16()))))
    assert sorted(rows) == [(0, 42, "note", 0), (1, -1, "", 0)]

    reply = connection.ask(wire.DESCRIBE_GROUPS, 0, array([string(group)]))
    member_row = lambda: (reply.string(), reply.string(), reply.string(), reply.data(), reply.data())  # noqa: E731
    ((error, _, state, kind, chosen, members),) = reply.array(lambda: (reply.int16(), reply.string(), reply.string(), reply.string(), reply.string(), reply.array(member_row)))
    assert (error, state, kind, chosen) == (0, "Stable", "consumer", "range")
    assert [(row[0], row[1], row[3]) for row in members] == [(member, "raw", subscription)]

    reply = connection.ask(wire.LIST_GROUPS, 0)
    assert reply.int16() == 0 and (group, "consumer") in reply.array(lambda: (reply.string(), reply.string()))
    assert connection.ask(wire.LEAVE_GROUP, 0, string(group) + string(member)).int16() == 0
    assert heartbeat(generation, member) == unknown_member


def test_init_producer_id_v0_and_its_rules(connection, topic):
    """Section 3.2 of idempotence: sequences go up by records, a repeated batch gets its old offset, a gap is OUT_OF_ORDER_SEQUENCE."""

    def allot():
        reply = connection.ask(wire.INIT_PRODUCER_ID, 0, string(None) + int32(60000))
        reply.int32()
        error, producer, epoch = reply.int16(), reply.int64(), reply.int16()
        return None if error in LOADING else (error, producer, epoch)

    error, producer, epoch = until(allot, what="a block of producer ids")
    assert (error, epoch) == (0, 0) and producer >= 0
    out_of_order = 45

    def send(sequence, values, epoch=0):
        return produce(connection, topic, batch(values, producer=producer, epoch=epoch, sequence=sequence))

    assert send(0, [b"a", b"b"]) == (0, 0)
    assert send(2, [b"c"]) == (0, 2)
    assert send(0, [b"a", b"b"]) == (0, 0), "a duplicate is acknowledged with its first offset"
    assert send(2, [b"c"]) == (0, 2)
    assert send(9, [b"gap"])[0] == out_of_order
    assert send(3, [b"d"]) == (0, 3)
    assert fetch(connection, topic, 0)[1] == 4, "nothing was appended twice"


def test_pipelined_requests_are_answered_in_order(connection, topic):
    for correlation in range(50):
        body = string(None) + int16(-1) + int32(10000) + array([string(topic) + array([int32(0) + data(batch([b"%d" % correlation]))])])
        connection.frame(wire.header(wire.PRODUCE, 3, correlation) + body)
    for correlation in range(50):
        reply = connection.reply()
        assert reply.int32() == correlation
        ((_, ((_, error, base, _),)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int16(), reply.int64(), reply.int64()))))  # noqa: B023
        assert (error, base) == (0, correlation)


def test_frames_in_pieces(connection, topic):
    """A request arrives byte by byte, and two in one segment."""
    frame = wire.header(wire.METADATA, 0) + array([string(topic)])
    whole = int32(len(frame)) + frame
    for n in range(len(whole)):
        connection.send(whole[n : n + 1])
    assert connection.reply().int32() == 1
    connection.send(whole + whole)
    assert [connection.reply().int32(), connection.reply().int32()] == [1, 1]
