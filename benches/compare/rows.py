"""The rows of the comparison, each once: what is sent, to whom, what counts, and what is to be reached."""

from dataclasses import dataclass

import clients
import starts
import steady
from steady import FanOut, Fetch, Produce, Tool


@dataclass(frozen=True)
class Goal:
    """`side` is to be better than `against` by a factor: at least, and aimed at."""

    against: str
    at_least: float
    aim: float
    side: str = "flowstone"


@dataclass(frozen=True)
class Limit:
    """Flowstone's own figure, by its key in a sample: at most `at_least`, and aimed at; at least, where more is better."""

    metric: str
    at_least: float
    aim: float


@dataclass(frozen=True)
class Metric:
    """A figure of a sample by its key there; less is better, unless said."""

    key: str
    title: str
    digits: int = 2
    more_is_better: bool = False


CPU_GB = Metric("cpu_per_gb", "broker CPU-s/GB")
US_REQUEST = Metric("us_per_request", "broker us/request", 1)
MIB = Metric("resident_mib", "MiB resident", 0)
MB_S = Metric("mb_s", "MB/s", 0, more_is_better=True)


@dataclass(frozen=True)
class Row:
    """One line of the comparison, for each of its sides."""

    name: str
    title: str
    sides: tuple
    metric: Metric
    load: object = None  # None where a row starts brokers of its own.
    goals: tuple = ()
    limits: tuple = ()
    run: object = steady.run
    seconds: float | None = None
    is_latency: bool = False
    rounds_max: int = 9  # Fewer where a round takes minutes, so that all rows fit into an hour.
    agree: float = 0.05  # How far apart the windows of a warm broker may be.
    extra: tuple = ()  # Further metrics that a summary shows.

    @property
    def cost(self):
        """What windows are held against each other by: CPU per GB or per request."""
        return CPU_GB if self.metric == CPU_GB else US_REQUEST

    def metric_of(self, key):
        """The metric with this key among the row's own."""
        return next(metric for metric in (self.metric, *self.extra) if metric.key == key)


RECORD = 16, 5  # Connections and requests in flight on each.

ROWS = [
    Row(
        "produce-16k",
        "produce, 16 KiB batches of 1000-byte records, 16 partitions, 16 connections x 2 in flight",
        ("flowstone", "kafka", "kafka-tuned", "kafka-flush", "flowstone-memory"),
        CPU_GB,
        Produce(16, 2, batch_bytes=16 << 10),
        (Goal("kafka", 3, 5), Goal("kafka-flush", 8, 20)),
    ),
    Row(
        "produce-64k",
        "produce, 64 KiB batches, 16 partitions, 16 connections x 2 in flight",
        ("flowstone", "kafka"),
        CPU_GB,
        Produce(16, 2, batch_bytes=64 << 10),
        (Goal("kafka", 2.5, 4.5),),
    ),
    Row(
        "produce-1m",
        "produce, 1 MB batches, 16 partitions, 4 connections x 2 in flight",
        ("flowstone", "kafka"),
        CPU_GB,
        Produce(4, 2, batch_bytes=1_000_000),
        (Goal("kafka", 2.5, 5),),
    ),
    Row(
        "one-record",
        "produce, one 100-byte record a request, 16 partitions, 16 connections x 5 in flight",
        ("flowstone", "kafka", "kafka-tuned", "kafka-flush", "flowstone-memory"),
        US_REQUEST,
        Produce(*RECORD, value_bytes=100),
        (Goal("kafka", 3, 6), Goal("kafka-flush", 8, 20)),
    ),
    Row(
        "connections-200",
        "produce, one 100-byte record a request, 200 connections x 1 in flight",
        ("flowstone", "kafka"),
        US_REQUEST,
        Produce(200, 1, value_bytes=100),
        (Goal("kafka", 3, 5),),
    ),
    Row(
        "connections-2000",
        "produce, one 100-byte record a request, 2,000 connections x 1 in flight",
        ("flowstone", "kafka"),
        US_REQUEST,
        Produce(2000, 1, value_bytes=100),
        (Goal("kafka", 3, 5),),
    ),
    Row(
        "fetch-warm",
        "fetch of 2 GB that was written just before, 1 MiB a partition, 4 connections",
        ("flowstone", "kafka"),
        CPU_GB,
        Fetch(2),
        (Goal("kafka", 1 / 1.1, 1.2),),
    ),
    Row(
        "fan-out",
        "tail of a 20 MB/s stream of 16 KiB batches by 16 consumers (per GB delivered)",
        ("flowstone", "kafka"),
        CPU_GB,
        FanOut(16, 20, 16 << 10),
        (Goal("kafka", 2, 4),),
    ),
    Row(
        "latency-1k",
        "latency from the intended send time, 1,000 requests/s of one 1 KiB record, 4 connections",
        ("flowstone", "kafka", "kafka-flush"),
        Metric("p99.9_ms", "p99.9 ms"),
        Produce(4, 250, value_bytes=1024, rate=1000, spin=True),
        (Goal("kafka", 1, 5),),
        seconds=20,
        is_latency=True,
        agree=0.15,  # Two thousand requests a window, each on a core that slept.
        extra=(Metric("p50_ms", "p50 ms", 3), Metric("p99_ms", "p99 ms")),
        limits=(Limit("p50_ms", 0.3, 0.3),),
    ),
    Row(
        "two-shards",
        "produce, 16 KiB batches, one shard on one core against two shards on two (of which the client uses a part)",
        ("flowstone", "flowstone-2"),
        MB_S,
        Produce(16, 2, batch_bytes=16 << 10),
        (Goal("flowstone", 1.6, 1.9, side="flowstone-2"),),
        extra=(CPU_GB,),
    ),
    Row(
        "librdkafka-produce",
        "rdkafka_performance: 1000-byte records, batch.size 65536, linger.ms 5, acks=all",
        ("flowstone", "kafka"),
        CPU_GB,
        Tool("rdkafka-produce", lambda *run: clients.rdkafka_produce(*run, 65536), 3_000_000),
        run=steady.run_tool,
    ),
    Row(
        "librdkafka-consume",
        "rdkafka_performance: fetch of 16 KiB batches, 1 MiB a partition",
        ("flowstone", "kafka"),
        CPU_GB,
        Tool("rdkafka-consume", lambda *run: clients.rdkafka_fetch(*run, 16), 2_000_000, reads=True),
        run=steady.run_tool,
    ),
    Row(
        "kafka-producer-perf",
        "kafka-producer-perf-test with its defaults: 1000-byte records, acks=all, idempotent",
        ("flowstone", "kafka"),
        CPU_GB,
        Tool("kafka-produce", clients.kafka_produce, 1_000_000),
        run=steady.run_tool,
    ),
    Row(
        "kafka-consumer-perf",
        "kafka-consumer-perf-test with its defaults",
        ("flowstone", "kafka"),
        CPU_GB,
        Tool("kafka-consume", clients.kafka_consume, 2_000_000, reads=True),
        run=steady.run_tool,
    ),
    Row(
        "start",
        "empty folder to the first answer; idle",
        ("flowstone", "kafka"),
        Metric("start_seconds", "s to the first answer", 3),
        run=starts.empty_start,
        extra=(Metric("idle_percent", "% of a core idle"), MIB),
        limits=(Limit("start_seconds", 0.1, 0.05), Limit("resident_mib", 48, 32)),
    ),
    Row(
        "kill-active",
        "SIGKILL with 4 GB in active segments: from the start of the process to the first acknowledged record",
        ("flowstone", "kafka"),
        Metric("first_ack_seconds", "s to the first acknowledged record"),
        run=starts.after_kill,
        extra=(Metric("all_acks_seconds", "s until all four partitions"),),
        limits=(Limit("first_ack_seconds", 2, 1),),
    ),
    Row(
        "partitions-10k",
        "10,000 partitions: until all took a record after creation, and after SIGKILL",
        ("flowstone", "kafka"),
        Metric("restart_seconds", "s back after SIGKILL"),
        run=starts.many_partitions,
        extra=(Metric("created_seconds", "s created and written to"), Metric("idle_percent", "% of a core idle"), MIB),
        limits=(Limit("created_seconds", 5, 2), Limit("restart_seconds", 5, 2), Limit("resident_mib", 300, 150), Limit("idle_percent", 3, 1)),
        rounds_max=2,
    ),
    Row(
        "trickle-10k",
        "10,000 partitions, one 1 KiB record a second each: 10,000 requests/s",
        ("flowstone", "kafka"),
        Metric("cores", "cores used"),
        run=starts.trickle,
        extra=(Metric("requests_s", "requests/s", 0, more_is_better=True), Metric("p99_ms", "p99 ms"), MIB),
        limits=(Limit("requests_s", 9_900, 9_900), Limit("cores", 1, 0.5)),
        rounds_max=2,
    ),
    Row(
        "cold-read",
        "50 MB/s of 64 KiB batches beside a reader of what is on disk only: p99 with the reader by p99 without",
        ("flowstone", "kafka"),
        Metric("p99_factor", "x p99"),
        run=starts.cold_read,
        extra=(Metric("p99_alone_ms", "p99 ms alone"), Metric("p99_beside_ms", "p99 ms beside"), Metric("read_mb_s", "MB/s read", 0, more_is_better=True)),
        limits=(Limit("p99_factor", 2, 1.2),),
    ),
]
