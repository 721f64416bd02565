"""The brokers that are compared, each pinned, with the settings that its makers recommend and one tuned run."""

import shutil
import subprocess
from dataclasses import dataclass, field

from harness import broker as harness
from places import BROKER_CPU, CPUS, DATA, on_cpus

# What bin/kafka-server-start.sh and bin/kafka-run-class.sh give the JVM.
JVM = ["-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]

FLUSHED = "acknowledged after the flush to disk"
CACHED = "acknowledged from the page cache, no flush"
MEMORY = "acknowledged from memory, no flush"


@dataclass(frozen=True)
class Kind:
    """A broker process: which, on how many CPUs, with what settings."""

    name: str
    cpus: int = 1
    heap: str = "1G"
    settings: dict = field(default_factory=dict)

    @property
    def cpu_list(self):
        return CPUS[: self.cpus] if self.cpus > 1 else [BROKER_CPU]


FLOWSTONE = Kind("flowstone")
FLOWSTONE_2 = Kind("flowstone", cpus=2)
KAFKA = Kind("kafka")
# One core has no use for three network and eight I/O threads; the larger heap spares it collections.
KAFKA_TUNED = Kind("kafka", heap="4G", settings={"num.network.threads": "1", "num.io.threads": "1", "num.replica.fetchers": "1"})


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a broker, and the durability of the topics on it."""

    name: str
    title: str
    kind: Kind
    durability: str
    topic: dict = field(default_factory=dict)


SIDES = {
    side.name: side
    for side in [
        Side("flowstone", "Flowstone", FLOWSTONE, FLUSHED),
        Side("kafka", "Kafka 4.3.1", KAFKA, CACHED),
        Side("kafka-tuned", "Kafka 4.3.1, tuned", KAFKA_TUNED, CACHED),
        Side("kafka-flush", "Kafka 4.3.1, flush.messages=1", KAFKA, FLUSHED, {"flush.messages": "1"}),
        Side("flowstone-memory", "Flowstone, memory", FLOWSTONE, MEMORY, {"flowstone.durability": "memory"}),
        Side("flowstone-2", "Flowstone, two shards", FLOWSTONE_2, FLUSHED),
    ]
}


class Flowstone(harness.Flowstone):
    """`flowstoned dev` with its shards pinned, and the memory that it takes outside of dev."""

    def __init__(self, kind, folder):
        cpus = ",".join(map(str, kind.cpu_list))
        memory = {"flowstone.cpus": cpus, "flowstone.memory.bytes": str(memory_share())}
        self.kind = kind
        super().__init__(folder, memory | kind.settings)

    def command(self):
        return on_cpus(*self.kind.cpu_list) + super().command()


# The tests shorten these, so that they wait less after a SIGKILL; here they are as Kafka is shipped.
SHIPPED = {"broker.session.timeout.ms": "9000", "broker.heartbeat.interval.ms": "2000"}


class Kafka(harness.Kafka):
    """Apache Kafka as its start script runs it."""

    def __init__(self, kind, folder):
        self.kind = kind
        super().__init__(folder, SHIPPED | kind.settings)

    def command(self):
        command = super().command()
        rest = command[command.index("-Djava.awt.headless=true") + 1 :]
        return [*on_cpus(*self.kind.cpu_list), "java", f"-Xmx{self.kind.heap}", f"-Xms{self.kind.heap}", *JVM, *rest]


def memory_share():
    """A quarter of the machine, as flowstoned takes where it is not told."""
    with open("/proc/meminfo") as lines:
        return int(next(lines).split()[1]) * 1024 // 4


def new(kind):
    """A broker of this kind on an empty folder, not started."""
    shutil.rmtree(DATA, ignore_errors=True)
    return (Flowstone if kind.name == "flowstone" else Kafka)(kind, DATA)


def remove(broker):
    """Ends it at once and deletes what it wrote."""
    if broker.alive():
        broker.kill()
    shutil.rmtree(DATA, ignore_errors=True)
    subprocess.run(["sync"], check=True)
