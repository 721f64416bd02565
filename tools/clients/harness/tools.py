"""Apache Kafka's command-line tools by the names of their scripts, run in one JVM (kafka/ToolServer.java)."""

import itertools
import json
import re
import socket
import subprocess
from dataclasses import dataclass

from harness.places import HERE, KAFKA_LIBS, RUNNER

# Script in Kafka's bin/ -> the main class it starts.
MAINS = {
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-storage": "kafka.tools.StorageTool",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}
# Tools that take files, not a broker.
OFFLINE = {"kafka-dump-log", "kafka-storage"}
# Tools that do their work in a hook of the JVM's own end (their last flush and the summary), so each gets a JVM.
OWN_JVM = {"kafka-verifiable-consumer", "kafka-verifiable-producer"}

LOGGING = f"-Dlog4j2.configurationFile=file:{HERE}/kafka/tools-log4j2.properties"
QUICK_START = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]


def metadata_tree(file):
    """All that kafka-metadata-shell shows of a metadata log or snapshot, but for where its records end.

    In a JVM of its own, and more than once: that of Kafka 4.3.1 does not wait for its own threads, so that it may show an image in which
    nothing is loaded yet (at offset -1), or never end.
    """
    command = ["java", "-Xmx256m", *QUICK_START, LOGGING, "-cp", f"{KAFKA_LIBS}/*", "org.apache.kafka.shell.MetadataShell", "--snapshot", str(file), "tree", "/image"]
    for _ in range(20):
        try:
            out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False).stdout
        except subprocess.TimeoutExpired:
            continue
        shown, loaded = re.subn(r"(?m)^provenance:\n  offset \d.*\n", "", out)
        if loaded:
            return shown
    raise AssertionError(f"kafka-metadata-shell never showed {file}")


@dataclass
class Output:
    """What a tool left behind."""

    exit: int
    out: str
    err: str

    @property
    def lines(self):
        return [line for line in self.out.splitlines() if line.strip()]


class Tools:
    """The JVM that runs the tools. One call at a time from a thread; tools started with `start` run beside it."""

    def __init__(self, log):
        command = ["java", "-Xmx512m", *QUICK_START, LOGGING, "-cp", f"{RUNNER}:{KAFKA_LIBS}/*", "ToolServer"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        words = self.process.stdout.readline().split()
        if len(words) != 2 or words[0] != "port":
            raise RuntimeError(f"the tool server said {words} instead of its port")
        self.lines = socket.create_connection(("127.0.0.1", int(words[1]))).makefile("rw", encoding="utf-8", newline="\n")
        self.ids = itertools.count(1)

    def ask(self, **words):
        self.lines.write(json.dumps(words) + "\n")
        self.lines.flush()
        return json.loads(self.lines.readline())

    def start(self, tool, *args, bootstrap=None, stdin=""):
        """Starts a tool beside the caller."""
        args = [str(arg) for arg in args]
        if tool not in OFFLINE:
            args = ["--bootstrap-server", bootstrap, *args]
        if tool in OWN_JVM:
            command = ["java", *QUICK_START, LOGGING, "-cp", f"{KAFKA_LIBS}/*", MAINS[tool], *args]
            return Alone(command, f"{tool} {' '.join(args)}")
        run = str(next(self.ids))
        self.ask(op="start", id=run, main=MAINS[tool], args=args, stdin=stdin)
        return Running(self, run, f"{tool} {' '.join(args)}")

    def run(self, tool, *args, bootstrap=None, stdin="", seconds=60, fails=False):
        """Runs a tool to its end. It must exit with 0, or with anything else where `fails`."""
        running = self.start(tool, *args, bootstrap=bootstrap, stdin=stdin)
        output = running.wait(seconds)
        if (output.exit != 0) != fails:
            raise AssertionError(f"{running.name}: exit {output.exit}\n{output.out}\n{output.err}")
        return output

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Alone:
    """A tool in a JVM of its own."""

    def __init__(self, command, name):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(self, seconds=60):
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"{self.name}: not done after {seconds} s\n{out}\n{err}") from None
        return Output(self.process.returncode, out, err)

    def stop(self, seconds=30):
        self.process.terminate()
        return self.wait(seconds)


class Running:
    """A tool that was started in the shared JVM."""

    def __init__(self, tools, run, name):
        self.tools, self.run, self.name = tools, run, name

    def peek(self):
        reply = self.tools.ask(op="peek", id=self.run)
        return Output(reply["exit"], reply["out"], reply["err"])

    def wait(self, seconds=60):
        reply = self.tools.ask(op="wait", id=self.run, ms=int(seconds * 1000))
        if not reply["done"]:
            self.tools.ask(op="stop", id=self.run)
            raise AssertionError(f"{self.name}: not done after {seconds} s\n{reply['out']}\n{reply['err']}")
        return Output(reply["exit"], reply["out"], reply["err"])

    def stop(self, seconds=30):
        """Ends it as SIGTERM would, by its shutdown hooks, and returns its output."""
        self.tools.ask(op="stop", id=self.run)
        return self.wait(seconds)
