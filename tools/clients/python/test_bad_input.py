"""Bytes from outside that no client sends: each gets Kafka's error or a closed connection, and everybody else goes on.

After every test the broker must answer a well-meaning client, take a record and give it back, within bounded memory.
"""

import gzip
import random
import socket
import struct
import time

import pytest

from harness import wire
from harness.batch import batch, record, varint
from harness.broker import chosen
from harness.requests import create_topic, fetch, produce
from harness.wire import Connection, array, data, int8, int16, int32, int64, string

CORRUPT_MESSAGE, INVALID_TOPIC, INVALID_RECORD, MESSAGE_TOO_LARGE = 2, 17, 87, 10
NOISE_SEED = 20260831
MEMORY_BYTES_MAX = 256 * 1024 * 1024  # Growth that one test of a few kilobytes may cause, allocator slack included.


def resident_bytes(broker):
    with open(f"/proc/{broker.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.fixture
def victim(broker):
    """A connection for the bad bytes; when the test is over, the broker must still serve, and not have grown without bound."""
    before = resident_bytes(broker)
    process = broker.process.pid
    with Connection(broker.port) as connection:
        yield connection
    assert broker.alive() and broker.process.pid == process, "the broker survived"
    with Connection(broker.port, timeout=5) as good:
        assert good.ask(wire.API_VERSIONS, 0).int16() == 0
        reply = good.ask(wire.METADATA, 1, array([]))
        assert reply.left() > 0
    if broker.name == "flowstone":
        assert resident_bytes(broker) - before < MEMORY_BYTES_MAX


@pytest.fixture
def good(broker):
    with Connection(broker.port) as connection:
        yield connection


@pytest.fixture
def topic(good, name):
    return create_topic(good, name)


@pytest.mark.parametrize("length", [0, -1, -(2**31), 2**31 - 1, 104857601], ids=["zero", "minus-one", "lowest", "highest", "over-the-limit"])
def test_length_prefix(victim, length):
    victim.send(struct.pack(">i", length) + b"\x00" * 64)
    assert victim.closes_within(10)


@pytest.mark.parametrize("length", range(1, 8))
def test_frame_shorter_than_a_header(victim, length):
    victim.frame(b"\x00\x12\x00\x00\x00\x00\x00"[:length])
    assert victim.closes_within(10)


HELLOS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http-post": b"POST /v1/topics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    "tls": bytes.fromhex("16030100f8010000f40303") + bytes(range(240)),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("hello", HELLOS.values(), ids=HELLOS.keys())
def test_other_protocols(victim, hello):
    victim.send(hello)
    try:
        victim.socket.shutdown(socket.SHUT_WR)
    except OSError:
        return  # Closed already.
    assert victim.closes_within(10)


@pytest.mark.parametrize("api", [*range(0, 80), 999, 32767, -1, -32768])
def test_wrong_versions(victim, api):
    """Versions below and above all: an error that names UNSUPPORTED_VERSION, or the end of the connection; never silence that blocks."""
    for version in (-1, 200, 32767):
        with Connection(victim.socket.getpeername()[1]) as connection:
            connection.frame(wire.header(api, version))
            try:
                connection.reply()
            except OSError:
                continue


# A count that claims far more than arrived, behind a right header: (api, version, body up to the count).
COUNTS = {
    "metadata": (wire.METADATA, 1, b""),
    "create-topics": (wire.CREATE_TOPICS, 2, b""),
    "create-topics-assignments": (wire.CREATE_TOPICS, 2, int32(1) + string("t") + int32(1) + int16(1)),
    "delete-topics": (wire.DELETE_TOPICS, 1, b""),
    "produce-topics": (wire.PRODUCE, 3, string(None) + int16(-1) + int32(1000)),
    "produce-partitions": (wire.PRODUCE, 3, string(None) + int16(-1) + int32(1000) + int32(1) + string("t")),
    "produce-records": (wire.PRODUCE, 3, string(None) + int16(-1) + int32(1000) + int32(1) + string("t") + int32(1) + int32(0)),
    "fetch-topics": (wire.FETCH, 4, int32(-1) + int32(0) + int32(0) + int32(1 << 20) + int8(0)),
    "fetch-partitions": (wire.FETCH, 4, int32(-1) + int32(0) + int32(0) + int32(1 << 20) + int8(0) + int32(1) + string("t")),
    "list-offsets": (wire.LIST_OFFSETS, 1, int32(-1)),
    "offset-commit": (wire.OFFSET_COMMIT, 2, string("g") + int32(-1) + string("") + int64(-1)),
    "offset-fetch": (wire.OFFSET_FETCH, 1, string("g")),
    "join-group": (wire.JOIN_GROUP, 0, string("g") + int32(10000) + string("") + string("consumer")),
    "sync-group": (wire.SYNC_GROUP, 0, string("g") + int32(1) + string("m")),
    "describe-groups": (wire.DESCRIBE_GROUPS, 0, b""),
}


@pytest.mark.parametrize("count", [2**31 - 1, 2**30, 100_000_000, -2, -(2**31)])
@pytest.mark.parametrize("case", COUNTS.values(), ids=COUNTS.keys())
def test_huge_counts(victim, case, count):
    api, version, body = case
    victim.frame(wire.header(api, version) + body + struct.pack(">i", count) + b"\x00" * 16)
    try:
        victim.reply()  # An error is as good as a closed connection.
    except OSError:
        pass


@pytest.mark.parametrize("length", [2**31 - 1, 2**20, 65535, 1000])
def test_compact_counts(victim, length):
    """The same in a flexible version: Metadata v9, whose counts are unsigned varints plus one."""
    unsigned = bytearray()
    n = length + 1
    while n > 0x7F:
        unsigned.append((n & 0x7F) | 0x80)
        n >>= 7
    unsigned.append(n)
    victim.frame(wire.header(wire.METADATA, 9) + b"\x00" + bytes(unsigned) + b"\x01\x01\x01")
    try:
        victim.reply()
    except OSError:
        pass


def test_varint_without_an_end(victim):
    victim.frame(wire.header(wire.METADATA, 9) + b"\x00" + b"\xff" * 40)
    assert victim.closes_within(10)


def test_strings_longer_than_the_frame(victim):
    victim.frame(int16(wire.METADATA) + int16(1) + int32(1) + int16(32767) + b"short")
    assert victim.closes_within(10)


@pytest.mark.parametrize("round_number", range(8))
def test_noise(victim, round_number):
    """Random bytes, with and without a right length, behind right headers of every API and behind none. The seed is in this file."""
    noise = random.Random(NOISE_SEED + round_number)
    port = victim.socket.getpeername()[1]
    for _ in range(60):
        body = noise.randbytes(noise.randrange(0, 400))
        style = noise.randrange(3)
        with Connection(port, timeout=0.3) as connection:
            try:
                if style == 0:
                    connection.send(body)
                elif style == 1:
                    connection.frame(body)
                else:
                    connection.frame(wire.header(noise.randrange(0, 75), noise.randrange(0, 17)) + body)
                connection.reply()
            except OSError:
                pass


def test_truncated_requests(victim, topic):
    """A right request, cut at every byte, with a length that says it is whole."""
    body = wire.header(wire.PRODUCE, 3) + string(None) + int16(-1) + int32(1000) + array([string(topic) + array([int32(0) + data(batch([b"x"]))])])
    port = victim.socket.getpeername()[1]
    for cut in range(8, len(body)):
        with Connection(port, timeout=2) as connection:
            connection.frame(body[:cut])
            try:
                connection.reply()
            except OSError:
                pass
    with Connection(port) as connection:
        assert fetch(connection, topic, 0)[1] == 0, "nothing of it reached the log"


LYING = {
    "crc": {"crc": 1},
    "count-more": {"count": 5},
    "count-less": {"count": 1},
    "count-huge": {"count": 2**31 - 1},
    "count-negative": {"count": -1},
    "count-zero": {"count": 0},
    "delta-more": {"last_offset_delta": 9},
    "delta-negative": {"last_offset_delta": -5},
    "delta-huge": {"last_offset_delta": 2**31 - 1},
    "length-more": {"length": 5000},
    "length-less": {"length": 50},
    "length-negative": {"length": -1},
    "length-huge": {"length": 2**31 - 1},
    "magic-3": {"magic": 3},
    "magic-negative": {"magic": -1},
    "payload-noise": {"payload": b"\xff" * 40},
    "payload-missing": {"payload": b""},
    "record-length-huge": {"payload": varint(2**31 - 1) + b"\x00" * 20},
    "record-length-negative": {"payload": varint(-20) + b"\x00" * 20},
}


@pytest.mark.parametrize("lies", LYING.values(), ids=LYING.keys())
def test_lying_batches(victim, topic, good, lies):
    """Right CRC, wrong words: refused, and never in the log."""
    raw = batch([b"a", b"b"], **lies)
    with Connection(victim.socket.getpeername()[1]) as connection:
        try:
            error, _ = produce(connection, topic, raw)
            assert error != 0, "a batch that lies is not acknowledged"
        except OSError:
            pass
    assert fetch(good, topic, 0)[:2] == (0, 0)
    assert produce(good, topic, batch([b"fine"])) == (0, 0)


LYING_INSIDE = {
    "delta-inside": {"attributes": 1, "payload": gzip.compress(record(0, b"a") + record(7, b"b"))},
    "count-less-inside": {"attributes": 1, "count": 1, "last_offset_delta": 0, "payload": gzip.compress(record(0, b"a") + record(1, b"b"))},
    "not-gzip": {"attributes": 1, "payload": b"this is no gzip stream"},
}


@pytest.mark.parametrize("lies", LYING_INSIDE.values(), ids=LYING_INSIDE.keys())
def test_lies_inside_compression(victim, topic, good, broker, lies):
    """Kafka inflates every batch and refuses these. Flowstone inflates only what a topic's rules require, so it may take one; it may not stumble."""
    error, _ = produce(good, topic, batch([b"a", b"b"], **lies))
    if broker.name == "kafka":
        assert error != 0
    assert produce(good, topic, batch([b"fine"]))[0] == 0
    assert fetch(good, topic, 0)[0] == 0


def test_two_batches_in_one_partition(victim, topic, good):
    """KIP-98: since Produce v3 one batch a partition and request."""
    error, _ = produce(good, topic, batch([b"a"]) + batch([b"b"]))
    assert error == INVALID_RECORD
    assert fetch(good, topic, 0)[1] == 0


def test_control_batches_from_clients(victim, topic, good):
    control = 1 << 5
    payload = record(0, struct.pack(">hi", 0, 0), key=struct.pack(">hh", 0, 1))
    with Connection(victim.socket.getpeername()[1]) as connection:
        try:
            error, _ = produce(connection, topic, batch([b"x"], attributes=control, payload=payload, producer=5, epoch=0, sequence=-1))
            assert error == INVALID_RECORD
        except OSError:
            pass
    assert fetch(good, topic, 0)[1] == 0


def bomb(codec):
    """A batch of some kilobytes that inflates to 200 MB."""
    size = 200 * 1024 * 1024
    inner = varint(size) + b"\x00" * 5
    if codec == "gzip":
        return 1, gzip.compress(inner + bytes(size), 9)
    if codec == "zstd":
        import zstandard

        return 4, zstandard.ZstdCompressor(level=19).compress(inner + bytes(size))
    import lz4.frame

    return 3, lz4.frame.compress(inner + bytes(size), block_linked=False)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_decompression_bombs(victim, topic, good, codec, broker):
    bits, packed = bomb(codec)
    began = time.monotonic()
    with Connection(victim.socket.getpeername()[1], timeout=30) as connection:
        try:
            error, _ = produce(connection, topic, batch([b"x"], attributes=bits, payload=packed), version=7)
            # A broker that does not look inside may take it: what it may not do is grow.
            assert error in (0, CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE)
        except OSError:
            pass
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("internal", ["__consumer_offsets", "__transaction_state", "__cluster_metadata"])
def test_writes_to_internal_topics(victim, good, internal):
    error, _ = produce(good, internal, batch([b"forged"]))
    assert error != 0


def test_names_that_are_no_names(victim, good):
    for bad in ("", ".", "..", "a/b", "../../etc", "x" * 250, "nul\x00", "sp ace"):
        reply = good.ask(wire.CREATE_TOPICS, 2, array([string(bad) + int32(1) + int16(1) + array([]) + array([])]) + int32(5000) + int8(0))
        reply.int32()
        ((_, error, _),) = reply.array(lambda: (reply.string(), reply.int16(), reply.string()))  # noqa: B023
        assert error == INVALID_TOPIC, bad


def slow_loris(port, count):
    """`count` connections that sent half a header and then nothing."""
    sockets = []
    for n in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=5)
        one.sendall(struct.pack(">i", 100)[: 1 + n % 4] + (b"\x00\x03" if n % 4 == 3 else b""))
        sockets.append(one)
    return sockets


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.whole)])
def test_slow_loris(broker, victim, topic, good, count):
    """Connections that never finish a request cost the others nothing: a record goes in and out quickly while they hang."""
    hanging = slow_loris(broker.port, count)
    try:
        slowest = 0
        for n in range(50):
            began = time.monotonic()
            assert produce(good, topic, batch([b"x"])) == (0, n)
            slowest = max(slowest, time.monotonic() - began)
        assert fetch(good, topic, 0)[1] == 50
        assert slowest < 2, f"a small produce took {slowest:.2f} s beside {count} hanging connections"
    finally:
        for one in hanging:
            one.close()


def test_peers_that_go_away_in_the_middle(broker, victim, topic, good):
    """Connections cut in the middle of a request, and before reading the reply."""
    body = wire.header(wire.PRODUCE, 3) + string(None) + int16(-1) + int32(1000) + array([string(topic) + array([int32(0) + data(batch([b"x" * 100]))])])
    for n in range(100):
        one = Connection(broker.port)
        one.send((int32(len(body)) + body)[: n * 2])
        if n % 3 == 0:  # A reset instead of an orderly end.
            one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.socket.close()
    error, base = produce(good, topic, batch([b"after"]))
    assert error == 0 and base == fetch(good, topic, 0)[1] - 1


@pytest.fixture(scope="module")
def limited(run_folder):
    """A broker with the limits that an operator sets, low."""
    settings = {"socket.request.max.bytes": "100000", "connections.max.idle.ms": "3000", "max.connections.per.ip": "20"}
    broker = chosen()(run_folder / "limited", settings=settings)
    broker.start()
    yield broker
    broker.close()


def test_request_max_bytes(limited):
    with Connection(limited.port) as connection:
        connection.send(struct.pack(">i", 100001) + b"\x00\x12\x00\x00")
        assert connection.closes_within(10)
    with Connection(limited.port) as connection:
        assert connection.ask(wire.API_VERSIONS, 0).int16() == 0


def test_idle_connections_are_closed(limited):
    with Connection(limited.port) as connection:
        assert connection.ask(wire.API_VERSIONS, 0).int16() == 0
        began = time.monotonic()
        assert connection.closes_within(15)
        assert time.monotonic() - began > 1.5, "not before its time"


def test_connections_per_address(limited):
    held, refused = [], 0
    try:
        for _ in range(40):
            one = Connection(limited.port, timeout=5)
            held.append(one)
            try:
                assert one.ask(wire.API_VERSIONS, 0).int16() == 0
            except OSError:
                refused += 1
        assert 15 <= refused <= 25, f"{refused} of 40 refused where 20 are allowed"
    finally:
        for one in held:
            one.socket.close()
    time.sleep(0.5)
    with Connection(limited.port) as connection:
        assert connection.ask(wire.API_VERSIONS, 0).int16() == 0, "closing makes room"
