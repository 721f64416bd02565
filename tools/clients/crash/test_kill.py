"""SIGKILL under load: nothing acknowledged is lost, doubled or out of order, and groups keep their place.

Each cycle starts the broker on what the last kill left, checks what was acknowledged since the last look and the end of what was there before, loads
it again and kills it at a random moment. Every WHOLE_EVERY cycles and after the last one everything is read from the start and checked.
KILL_CYCLES is how many (10 by default, 200 by `make kill`); KILL_SEED repeats the moments of a run.
"""

import itertools
import os
import random
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from harness import wire
from harness.until import until
from harness.wire import Connection, array, int32, int64, string

CYCLES = int(os.environ.get("KILL_CYCLES") or 10)
SEED = int(os.environ.get("KILL_SEED") or time.time_ns() % 1_000_000)
PARTITIONS = 3
GROUP = "survivors"
TOPIC = "kill"
LOAD_SECONDS = (0.3, 1.5)  # How long a cycle loads the broker before the kill, at least and at most.
CYCLE_SECONDS_MAX = 60
WHOLE_EVERY = 20  # Millions of records after many cycles: to read all of them each time would be most of the run.
AGAIN = 10_000  # Records of a partition that are read again each time: some segments, all that a kill can tear among them.


def value_of(record):
    """The bytes of a record, which (cycle, partition, number) says whole."""
    cycle, partition, number = record
    return f"{cycle}/{partition}/{number}/".encode() + b"x" * (number % 700)


def record_of(value):
    """What these bytes are the value of; an error where they are no whole value of ours."""
    record = tuple(map(int, value.split(b"/", 3)[:3]))
    assert value == value_of(record), f"not the bytes of {record}: {value[:40]!r}"
    return record


class Ledger:
    """What was sent and what was acknowledged, per partition, over all cycles. Records stand as (cycle, partition, number): bytes would fill the memory."""

    def __init__(self):
        self.sent = {p: set() for p in range(PARTITIONS)}
        self.acked = {p: {} for p in range(PARTITIONS)}  # offset -> record
        self.ends = {p: 0 for p in range(PARTITIONS)}  # how far the last audit came

    def acks(self):
        return sum(map(len, self.acked.values()))


def load(broker, ledger, cycle, stop):
    """Produces unique values to every partition until told to stop, and notes every acknowledgement."""

    def delivered(error, message):
        partition = message.partition()
        if error is None:
            assert message.offset() not in ledger.acked[partition], "two records acknowledged at one offset"
            ledger.acked[partition][message.offset()] = record_of(message.value())

    producer = Producer({
        "bootstrap.servers": broker.bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 1, "batch.num.messages": 200,
        "message.timeout.ms": 3000, "queue.buffering.max.messages": 20000, "log_level": 0,
    })  # fmt: skip
    number = 0
    while not stop.is_set():
        for partition in range(PARTITIONS):
            record = (cycle, partition, number)
            try:
                producer.produce(TOPIC, value=value_of(record), partition=partition, on_delivery=delivered)
            except BufferError:
                producer.poll(0.01)
                continue
            except Exception as error:  # noqa: BLE001  # A fatal producer error ends this cycle's load; what was acknowledged still counts.
                if getattr(error, "args", [None])[0] and error.args[0].code() == KafkaError._FATAL:
                    return producer
                raise
            ledger.sent[partition].add(record)
        number += 1
        producer.poll(0)
    return producer


def commits(broker, committed, stop):
    """Commits rising offsets of the group, noting each that was acknowledged. Raw requests: they end with the connection, and nothing retries."""
    offset = committed.get("acked", 0)
    while not stop.is_set():
        try:
            with Connection(broker.port, timeout=5) as connection:
                while not stop.is_set():
                    committed["asked"] = offset + 1
                    body = string(GROUP) + int32(-1) + string("") + int64(-1) + array([string(TOPIC) + array([int32(0) + int64(offset + 1) + string("")])])
                    reply = connection.ask(wire.OFFSET_COMMIT, 2, body)
                    ((_, ((_, error),)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int16()))))  # noqa: B023
                    if error == 0:
                        offset += 1
                        committed["acked"] = offset
        except OSError:
            time.sleep(0.02)  # The broker was killed under it: this commit may or may not be there.


def read_from(broker, starts):
    """{partition: [(offset, record)]} from an offset of each partition to its end."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "the-auditor", "enable.auto.commit": False, "auto.offset.reset": "error", "log_level": 0})
    ends, seen = {}, {p: [] for p in range(PARTITIONS)}

    def watermarks(partition):
        try:
            return consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=20)
        except KafkaException:
            return None  # Kafka's metadata name a leader a moment before that leader knows.

    for partition in range(PARTITIONS):
        low, ends[partition] = until(lambda: watermarks(partition), what="the partition's leader")  # noqa: B023
        assert low == 0
    consumer.assign([TopicPartition(TOPIC, partition, starts[partition]) for partition in range(PARTITIONS)])
    progressed = time.monotonic()
    while any(starts[p] + len(seen[p]) < ends[p] for p in seen):
        assert time.monotonic() - progressed < CYCLE_SECONDS_MAX, f"stuck: read {[starts[p] + len(seen[p]) for p in seen]} of {ends}"
        for message in consumer.consume(10000, timeout=0.2):
            assert message.error() is None, message.error()
            seen[message.partition()].append((message.offset(), record_of(message.value())))
            progressed = time.monotonic()
    consumer.close()
    return seen


def audit(broker, ledger, whole):
    """The whole rule, partition by partition, for all records or for those since shortly before the last audit's end."""
    starts = {p: 0 if whole else max(0, end - AGAIN) for p, end in ledger.ends.items()}
    for partition, records in read_from(broker, starts).items():
        first = starts[partition]
        end = first + len(records)
        assert [offset for offset, _ in records] == list(range(first, end)), f"partition {partition}: offsets have holes"
        assert end >= ledger.ends[partition], f"partition {partition}: ends at {end}, and ended at {ledger.ends[partition]}"
        acked = ledger.acked[partition]
        newest = max(acked, default=-1)
        assert newest < end, f"partition {partition}: {acked[newest]} acknowledged at {newest}, and the log ends at {end}"
        for offset, record in records:
            told = acked.get(offset, record)
            assert told == record, f"partition {partition}: {told} acknowledged at {offset}, and there is {record}"
        found = [record for _, record in records]
        assert all(a < b for a, b in itertools.pairwise(found)), f"partition {partition}: a record is there twice, or out of order"
        assert ledger.sent[partition].issuperset(found), f"partition {partition}: a record that nobody sent"
        ledger.ends[partition] = end


@pytest.mark.timeout(CYCLES * CYCLE_SECONDS_MAX)
def test_kill_under_load(new_broker, capsys):
    moments = random.Random(SEED)
    with capsys.disabled():
        print(f"\n{CYCLES} cycles, KILL_SEED={SEED}", flush=True)
    broker = new_broker()
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1, config={"segment.bytes": str(1 << 20)})])[TOPIC].result(20)
    ledger, committed = Ledger(), {}
    starts = []
    for cycle in range(CYCLES):
        stop, result = threading.Event(), []
        writer = threading.Thread(target=lambda: result.append(load(broker, ledger, cycle, stop)))  # noqa: B023
        committer = threading.Thread(target=commits, args=(broker, committed, stop))
        before = ledger.acks()
        writer.start()
        committer.start()
        # Some cycles are killed from the first acknowledgement on, some in full flow.
        deadline = time.monotonic() + CYCLE_SECONDS_MAX
        while ledger.acks() == before:
            assert writer.is_alive() and time.monotonic() < deadline, "no acknowledgement in this cycle"
            time.sleep(0.005)
        time.sleep(moments.uniform(*LOAD_SECONDS) if cycle % 3 else moments.uniform(0, 0.1))
        broker.kill()
        stop.set()
        writer.join(CYCLE_SECONDS_MAX)
        committer.join(CYCLE_SECONDS_MAX)
        assert result, "the producer's thread failed"
        result[0].purge()
        result[0].flush(5)
        began = time.monotonic()
        broker.start()
        starts.append(time.monotonic() - began)
        audit(broker, ledger, whole=(cycle + 1) % WHOLE_EVERY == 0 or cycle + 1 == CYCLES)
        check_group(broker, committed)
        with capsys.disabled():
            print(f"  cycle {cycle + 1}: {ledger.acks():,} acknowledged in all, all there; up again after {starts[-1]:.2f} s", flush=True)
    assert ledger.acks() > CYCLES * 100


def check_group(broker, committed):
    """The group stands at its last acknowledged commit, or at the one that was under way."""

    def offset():
        with Connection(broker.port) as connection:
            reply = connection.ask(wire.OFFSET_FETCH, 1, string(GROUP) + array([string(TOPIC) + array([int32(0)])]))
            ((_, ((_, offset, _, error),)),) = reply.array(lambda: (reply.string(), reply.array(lambda: (reply.int32(), reply.int64(), reply.string(), reply.int16()))))
            return (offset,) if error == 0 else None

    (found,) = until(offset, what="the group's coordinator after the start")
    if "acked" in committed:
        assert committed["acked"] <= found <= committed["asked"]
        committed["acked"] = found  # The next cycle goes on from what is there.


def test_clean_stop_and_start(new_broker):
    """SIGTERM under load: it ends by itself within seconds, with 0, and everything acknowledged is there."""
    broker = new_broker()
    broker.start()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])[TOPIC].result(20)
    ledger, stop, result = Ledger(), threading.Event(), []
    writer = threading.Thread(target=lambda: result.append(load(broker, ledger, 0, stop)))
    writer.start()
    until(lambda: ledger.acks() > 1000, what="load")
    began = time.monotonic()
    status = broker.stop()
    seconds = time.monotonic() - began
    stop.set()
    writer.join(CYCLE_SECONDS_MAX)
    result[0].purge()
    result[0].flush(5)
    assert status == (143 if broker.name == "kafka" else 0) and seconds < 15
    assert (broker.data / ".kafka_cleanshutdown").exists()
    broker.start()
    audit(broker, ledger, whole=True)
