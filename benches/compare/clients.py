"""The clients that drive a broker: flowstone-blast, librdkafka's rdkafka_performance, and Kafka's own perf tools."""

import contextlib
import json
import os
import subprocess
import threading
import time

from harness.tools import LOGGING, MAINS
from places import BENCH, BLAST, CLIENT_CPU, CLIENTS, KAFKA_LIBS, on_cpus

LOOK_SECONDS = 0.05
DRAIN_SECONDS = 90  # More than flowstone-blast waits for its last replies.
PATIENCE_SECONDS = 400  # Longest that a client runs; a broker that hangs fails its row, and does not end the run.

RDKAFKA = CLIENTS / "librdkafka" / "examples" / "rdkafka_performance"


class ClientFailed(Exception):
    """A client ended with an error, or counted one."""


def words_of(options):
    """{'in_flight': 2, 'spin': True} as --in-flight 2 --spin."""
    words = []
    for key, value in options.items():
        flag = "--" + key.replace("_", "-")
        words += [] if value is False else [flag] if value is True else [flag, str(value)]
    return words


class Blast:
    """flowstone-blast beside us: asked by a line, it tells its counts; it ends with its standard input."""

    def __init__(self, what, broker, /, cpus=(CLIENT_CPU,), **options):
        command = [*on_cpus(*cpus), str(BLAST), what, "--address", broker.bootstrap, *words_of(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def ask(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ClientFailed(self.process.stderr.read()) from None
        return self.told(self.process.stdout.readline())

    def stop(self):
        """Ends the run, waits for every reply, and returns the last counts."""
        out, err = self.process.communicate(timeout=DRAIN_SECONDS)
        if self.process.returncode != 0:
            raise ClientFailed(err)
        return self.told(out)

    def told(self, line):
        if not line:
            raise ClientFailed(self.process.stderr.read())
        counts = json.loads(line)
        if counts["errors"]:
            raise ClientFailed(f"{counts['errors']} requests were refused, the first with error code {counts['first_error']}")
        return counts

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def blast(what, broker, /, nice=False, **options):
    """One call of flowstone-blast to its end; its last line, if it tells one."""
    command = [*(["nice", "-n", "19"] if nice else []), *on_cpus(CLIENT_CPU), str(BLAST), what, "--address", broker.bootstrap, *words_of(options)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    if done.returncode != 0:
        raise ClientFailed(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


class Feeder:
    """Keeps free memory touched (flowstone-blast feed); `bytes_max` 0 leaves it out."""

    def __init__(self, bytes_max):
        self.process = None
        if bytes_max:
            command = [*on_cpus(CLIENT_CPU), str(BLAST), "feed", "--bytes-max", str(bytes_max)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pids(self):
        return [self.process.pid] if self.process else []

    def order(self, word):
        """Gives an order; a feeder that the kernel ended, since memory ran out, is done without from here on."""
        if self.process and self.process.poll() is not None:
            self.process = None
        if self.process:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()

    def fill(self):
        """Touches what is free; returns when it is."""
        self.order("fill")
        if self.process:
            self.process.stdout.readline()

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


@contextlib.contextmanager
def timer(process):
    """Kills a process that has not ended when our patience has."""
    late = threading.Timer(PATIENCE_SECONDS, process.kill)
    late.start()
    try:
        yield
    finally:
        late.cancel()


def whole_run(command, log):
    """Runs a client to its end. Returns its wall seconds, its CPU seconds and what it printed."""
    began = time.monotonic()
    with (BENCH / log).open("w+b") as out:
        process = subprocess.Popen([*on_cpus(CLIENT_CPU), *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        with timer(process):
            # Tells the CPU time of exactly this child.
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = status = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode(errors="replace")
    if status != 0:
        raise ClientFailed(f"{command}: exit {status}\n{text[-2000:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, text


VALUE_BYTES = 1000


def fill(broker, topic, enough, key="bytes", **options):
    """Writes until so many bytes (or records, by `key`) are acknowledged."""
    filler = Blast("produce", broker, topic=topic, connections=4, **options)
    try:
        while filler.ask()[key] < enough:
            time.sleep(LOOK_SECONDS)
        filler.stop()
    finally:
        filler.close()


MEGABYTES = {"in_flight": 2, "batch_bytes": 1_000_000}
# As Kafka's producer makes them by default, in a fraction of its time.
DEFAULT_BATCHES = {"in_flight": 4, "batch_bytes": 16 << 10, "value_bytes": VALUE_BYTES}


def rdkafka_produce(broker, topic, records, batch_bytes):
    """librdkafka's own benchmark, producing."""
    settings = [f"batch.size={batch_bytes}", "linger.ms=5", "queue.buffering.max.messages=500000", "queue.buffering.max.kbytes=262144"]
    extra = [word for setting in settings for word in ("-X", setting)]
    return [str(RDKAFKA), "-P", "-t", topic, "-s", str(VALUE_BYTES), "-c", str(records), "-a", "-1", "-b", broker.bootstrap, "-q", *extra]


def rdkafka_fetch(broker, topic, records, partitions):
    """librdkafka's own benchmark, consuming from the start of every partition."""
    of_each = [word for partition in range(partitions) for word in ("-p", str(partition))]
    settings = ["fetch.message.max.bytes=1048576", "queued.min.messages=1000000"]
    extra = [word for setting in settings for word in ("-X", setting)]
    return [str(RDKAFKA), "-C", "-t", topic, *of_each, "-o", "beginning", "-c", str(records), "-b", broker.bootstrap, "-q", *extra]


def kafka_tool(name, *args):
    return ["java", "-Xmx512m", "-XX:+UseG1GC", LOGGING, "-cp", f"{KAFKA_LIBS}/*", MAINS[name], *map(str, args)]


def kafka_produce(broker, topic, records):
    """kafka-producer-perf-test.sh with the producer's own defaults (batches of 16 KiB, acks=all, idempotent)."""
    args = ["--bootstrap-server", broker.bootstrap, "--topic", topic, "--num-records", records, "--record-size", VALUE_BYTES, "--throughput", -1]
    return kafka_tool("kafka-producer-perf-test", *args)


def kafka_consume(broker, topic, records):
    """kafka-consumer-perf-test.sh."""
    args = ["--bootstrap-server", broker.bootstrap, "--topic", topic, "--num-records", records, "--timeout", 60000]
    return kafka_tool("kafka-consumer-perf-test", *args)
