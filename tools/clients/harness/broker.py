"""A broker as a child process: Flowstone, or the Apache Kafka that every test here is proved against.

Both are started in the same words and hold a data directory of the same layout, so a test does not know which one it has.
`BROKER=kafka` chooses Kafka; the default is Flowstone.
"""

import os
import shutil
import signal
import subprocess
import time

from harness import wire
from harness.places import FLOWSTONED, HERE, KAFKA_LIBS, free_port

# One node needs one replica; the rest makes tests quick: no wait before a group's first rebalance, deleted files gone after a second.
SETTINGS = {
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "log.segment.delete.delay.ms": "1000",
}

# What only Apache Kafka has to be told before it runs alone.
KAFKA_ALONE = {
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # After a SIGKILL it waits for its former self's session to end; nine seconds by default.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}

# What only Flowstone is told: several may run on this machine, and its metrics have one port by default.
FLOWSTONE_ALONE = {"flowstone.metrics.listener": ""}

START_SECONDS_MAX = 60  # Kafka takes 3 to 5 on two idle cores; a loaded machine takes its time.
STOP_SECONDS_MAX = 30


class BrokerDied(Exception):
    """The process is gone, or never answered; the message holds the end of its log."""


class Broker:
    """One broker process on one data directory, which outlives restarts. Subclasses say how it is started."""

    def __init__(self, folder, settings=None, data=None):
        self.folder = folder
        self.data = data or folder / "data"
        self.settings = SETTINGS | (settings or {})
        self.log = folder / "broker.log"
        self.port = free_port()
        self.process = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        """Starts the process and returns once it answers ApiVersions; raises BrokerDied otherwise."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if not self.alive():
                raise BrokerDied(f"ended with {self.process.returncode} while starting:\n{self.log_tail()}")
            try:
                wire.api_versions(self.port)
                return self
            except OSError:
                time.sleep(0.02)
        raise BrokerDied(f"no answer to ApiVersions within {START_SECONDS_MAX} s:\n{self.log_tail()}")

    def stop(self):
        """SIGTERM, as an operator stops it; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS_MAX)

    def kill(self):
        """SIGKILL: nothing of it runs any more when this returns."""
        self.process.kill()
        self.process.wait()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def close(self):
        """Ends the process however it can; the data stay."""
        if self.alive():
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    def log_tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def cpu_seconds(self):
        """CPU time of all its threads so far, user and system."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def server_properties(broker, controller_port, extra):
    """The server.properties of one combined node, in the words an operator of Kafka 4.3 writes."""
    listeners = f"PLAINTEXT://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{controller_port}"
    keys = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listeners": listeners,
        "advertised.listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(broker.data),
    } | extra
    return "".join(f"{key}={value}\n" for key, value in keys.items())


class Kafka(Broker):
    """Apache Kafka 4.3.1 from Maven Central, as kafka-server-start.sh starts it, with a smaller heap."""

    name = "kafka"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.properties = self.folder / "server.properties"
        self.properties.write_text(server_properties(self, free_port(), KAFKA_ALONE | self.settings))
        if not (self.data / "meta.properties").exists():
            java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self.properties), "--standalone")

    def command(self):
        log4j = f"-Dlog4j2.configurationFile=file:{HERE}/kafka/broker-log4j2.properties"
        return ["java", "-Xmx768m", "-Xms256m", "-XX:+UseG1GC", "-Djava.awt.headless=true", log4j, "-cp", f"{KAFKA_LIBS}/*", "kafka.Kafka", str(self.properties)]


class Flowstone(Broker):
    """`flowstoned dev`, or with a server.properties where the directory was formatted by somebody else."""

    name = "flowstone"

    def __init__(self, *args, properties=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.properties = None
        if properties:
            self.properties = self.folder / "server.properties"
            self.properties.write_text(server_properties(self, free_port(), FLOWSTONE_ALONE | self.settings))

    def command(self):
        if self.properties:
            return [str(FLOWSTONED), "--config", str(self.properties)]
        sets = [word for key, value in (FLOWSTONE_ALONE | self.settings).items() for word in ("--set", f"{key}={value}")]
        return [str(FLOWSTONED), "dev", "--data", str(self.data), "--port", str(self.port), *sets]


def java(main, *args):
    """Runs one Kafka main class to its end in a JVM of its own and returns what it printed."""
    command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{KAFKA_LIBS}/*", main, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise BrokerDied(f"{main} {args}: {done.stdout}{done.stderr}")
    return done.stdout


def chosen():
    """The class of broker that this run tests."""
    name = os.environ.get("BROKER", "flowstone")
    kinds = {"kafka": Kafka, "flowstone": Flowstone}
    if name not in kinds:
        raise ValueError(f"BROKER={name}: choose one of {', '.join(kinds)}")
    return kinds[name]


def copy_of(directory, to):
    """A copy of a stopped broker's data directory, for a test that changes it."""
    shutil.copytree(directory, to)
    return to
