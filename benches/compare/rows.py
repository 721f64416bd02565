"""The rows of the comparison, each once: what is sent, to whom, what counts, and what is to be reached."""

from dataclasses import dataclass, field

import steady
from steady import FanOut, Fetch, Produce


@dataclass(frozen=True)
class Goal:
    """`side` is to be better than `against` by a factor: at least, and aimed at."""

    against: str
    at_least: float
    aim: float
    side: str = "flowstone"
    metric: str | None = None  # Where it is not the row's own.


@dataclass(frozen=True)
class Metric:
    """A figure of a sample by its key there; less is better, unless said."""

    key: str
    title: str
    digits: int = 2
    more_is_better: bool = False


CPU_GB = Metric("cpu_per_gb", "broker CPU-s/GB")
US_REQUEST = Metric("us_per_request", "broker us/request", 1)
MB_S = Metric("mb_s", "MB/s", 0, more_is_better=True)


@dataclass(frozen=True)
class Row:
    """One line of the comparison, for each of its sides."""

    name: str
    title: str
    sides: tuple
    metric: Metric
    load: object
    goals: tuple = ()
    run: object = steady.run
    seconds: float | None = None
    is_latency: bool = False
    extra: tuple = field(default=())  # Further metrics that a summary shows.


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
        ("flowstone", "kafka", "kafka-tuned"),
        CPU_GB,
        Produce(16, 2, batch_bytes=64 << 10),
        (Goal("kafka", 2.5, 4.5),),
    ),
    Row(
        "produce-1m",
        "produce, 1 MB batches, 16 partitions, 4 connections x 2 in flight",
        ("flowstone", "kafka", "kafka-tuned"),
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
        extra=(Metric("p50_ms", "p50 ms", 3), Metric("p99_ms", "p99 ms")),
    ),
]
