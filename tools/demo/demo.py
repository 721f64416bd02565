"""`make demo`: Flowstone's main job on real input, with an unchanged client, through a SIGKILL.

Takes the machine's own Debian package database, one JSON record a package, publishes it with kcat, reads it back through a consumer group, kills the
broker in the middle of a second, larger publication, starts it again and checks every byte. Exits non-zero on the first thing that is not as it
should be. BROKER=kafka shows the same on Apache Kafka, which proves the demo.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "clients"))

from harness.broker import BrokerDied, chosen  # noqa: E402
from harness.places import BUILD  # noqa: E402

STATUS = Path("/var/lib/dpkg/status")
PARTITIONS = 4
COPIES_BYTES = 96 * 1000 * 1000  # The second publication: long enough to die in its middle, short enough for a demo.
LOAD_BYTES = 400 * 1000 * 1000
KILL_AT = 0.4  # Of the second publication's records, acknowledged.
SECONDS_MAX = 50  # For any one step; the whole stays under 60.


class Wrong(Exception):
    """Something is not as it should be; the message says what."""


def main():
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signal_number, lambda *_: sys.exit("demo: interrupted"))
    (BUILD / "demo").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD / "demo"))
    broker = chosen()(folder / "broker", settings={"num.partitions": str(PARTITIONS)})
    began = time.monotonic()
    try:
        show(broker, folder)
        print(f"\nAll as it should be, in {time.monotonic() - began:.0f} s.")
    except (Wrong, BrokerDied, subprocess.TimeoutExpired) as error:
        print(f"\nFAILED: {error}\n\nThe end of the broker's log:\n{broker.log_tail()}", file=sys.stderr)
        sys.exit(1)
    finally:
        if broker.alive():
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def show(broker, folder):
    step(f"Start {broker.name} in a fresh folder")
    seconds = timed(broker.start)
    say(f"answers on {broker.bootstrap} after {seconds:.2f} s")

    step("Publish this machine's packages with kcat, one JSON record each, keyed by name")
    packages = list(package_records())
    first = write(folder / "packages", packages)
    seconds = timed(lambda: kcat(broker, "-P", "-t", "packages", "-K", "\t", "-l", first))
    say(f"{len(packages):,} records, {first.stat().st_size:,} bytes, acknowledged in {seconds:.2f} s")

    step("Read them back through a consumer group")
    group = ["-G", "readers", "packages", "-X", "auto.offset.reset=earliest"]
    read = kcat(broker, *group, "-c", len(packages), "-f", "%p\t%o\t%k\t%s\n")
    check_partitions(packages, read)
    say(f"{len(packages):,} records: each there once, in the order of publication within its partition, byte for byte")

    step("Publish a larger load, and kill the broker with SIGKILL in its middle")
    many = list(copies(packages))
    second = write(folder / "many", many)
    acked_before, acks, seconds = publish_through_a_kill(broker, second, len(many))
    say(f"killed after {acked_before:,} of {len(many):,} acknowledgements; started again, it answered after {seconds:.2f} s")
    say("kcat went on by itself and finished: it never noticed more than a lost connection")

    step("Check every record")
    if acks != [(0, offset) for offset in range(len(many))]:
        raise Wrong(f"the acknowledgements are not offsets 0 to {len(many) - 1} of partition 0 in order")
    got = kcat(broker, "-C", "-t", "many", "-p", 0, "-o", "beginning", "-e", "-f", "%k\t%s\n")
    if got != second.read_bytes():
        raise Wrong(f"what was read differs from what was acknowledged: {difference(second.read_bytes(), got)}")
    say(f"{len(many):,} records, {len(got):,} bytes: every acknowledged record is there, in order, once, byte for byte")
    again = kcat(broker, "-C", "-t", "packages", "-o", "beginning", "-e", "-f", "%p\t%o\t%k\t%s\n")
    check_partitions(packages, again)
    (line,) = [line for line in packages if line.startswith(packages[0].split("\t")[0] + "\t")][:1]
    kcat(broker, "-P", "-t", "packages", "-K", "\t", feed=(line + "\n").encode())
    after = kcat(broker, *group, "-c", 1, "-f", "%k\t%s\n")
    if after != (line + "\n").encode():
        raise Wrong(f"the group did not go on behind its committed offsets: it read {after[:200]!r}")
    say("the first topic is whole, and the group went on exactly behind what it had committed")

    step("A short load")
    throughput(broker, folder)


def package_records():
    """One line a package: its name, a tab, all its fields as JSON (which holds neither tab nor line feed)."""
    for stanza in STATUS.read_text(errors="replace").split("\n\n"):
        fields, last = {}, None
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and last:
                fields[last] += "\n" + line[1:]
            elif ": " in line or line.endswith(":"):
                last, _, value = line.partition(":")
                fields[last] = value.strip()
        if "Package" in fields:
            yield f"{fields['Package']}\t{json.dumps(fields, ensure_ascii=False)}"


def copies(packages):
    """The packages again and again, each record different, up to COPIES_BYTES."""
    size, round_number = 0, 0
    while True:
        for line in packages:
            key, _, value = line.partition("\t")
            copy = f'{key}/{round_number}\t{{"round": {round_number}, {value[1:]}'
            size += len(copy.encode())
            if size > COPIES_BYTES:
                return
            yield copy
        round_number += 1


def publish_through_a_kill(broker, file, count):
    """Publishes `file` to partition 0 of topic `many` with one kcat, killing and restarting the broker meanwhile.

    Returns how many records were acknowledged before the kill, all acknowledgements as (partition, offset) in order, and the seconds until the
    restarted broker answered.
    """
    # -vvv has kcat say each acknowledgement; -E has it outlive the broker. Many short lines: read them as they come, or kcat blocks.
    words = ["-P", "-t", "many", "-p", "0", "-K", "\t", "-l", str(file), "-vvv", "-E", "-X", "retry.backoff.ms=50", "-X", "reconnect.backoff.max.ms=200"]
    producer = subprocess.Popen(kcat_command(broker, *words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    acks, before, restart_seconds = [], None, None
    deadline = time.monotonic() + SECONDS_MAX
    try:
        for line in producer.stderr:
            ack = re.search(rb"Message delivered to partition (\d+) \(offset (\d+)\)", line)
            if ack:
                acks.append((int(ack[1]), int(ack[2])))
            if before is None and len(acks) >= count * KILL_AT:
                before = len(acks)
                broker.kill()
                restart_seconds = timed(broker.start)
            if time.monotonic() > deadline:
                raise Wrong(f"kcat had {len(acks):,} of {count:,} acknowledgements after {SECONDS_MAX} s")
        producer.wait(SECONDS_MAX)
    finally:
        if producer.poll() is None:
            producer.kill()
            producer.wait()
    if before is None or before >= count:
        raise Wrong(f"the kill was to come in the middle, and came after {before} of {count}")
    if producer.returncode != 0 or len(acks) != count:
        raise Wrong(f"kcat ended with {producer.returncode} and {len(acks):,} of {count:,} acknowledgements")
    return before, acks, restart_seconds


def throughput(broker, folder):
    """Publishes LOAD_BYTES of 1,000-byte records with one kcat, and says what that took."""
    file = folder / "load"
    record = bytes(33 + n % 90 for n in range(999)) + b"\n"
    with file.open("wb") as out:
        for _ in range(LOAD_BYTES // len(record) // 1000):
            out.write(record * 1000)
    size = file.stat().st_size
    cpu = broker.cpu_seconds()
    seconds = timed(lambda: kcat(broker, "-P", "-t", "load", "-X", "batch.size=1000000", "-X", "linger.ms=5", "-l", file))
    cpu = broker.cpu_seconds() - cpu
    say(f"{size / 1e6:,.0f} MB of 1,000-byte records from one kcat in {seconds:.1f} s: {size / 1e6 / seconds:,.0f} MB/s")
    say(f"the broker spent {cpu:.2f} CPU-seconds on it: {cpu / (size / 1e9):.2f} CPU-seconds per GB")


def check_partitions(packages, read):
    """`read` is lines of partition, offset, key, value: dense offsets in each partition, its records in the order of `packages`, none missing."""
    place = {}
    for number, line in enumerate(packages):
        place.setdefault(line, []).append(number)
    ends, newest, seen = [0] * PARTITIONS, [-1] * PARTITIONS, 0
    for line in read.decode().splitlines():
        partition, offset, record = line.split("\t", 2)
        partition = int(partition)
        if int(offset) != ends[partition]:
            raise Wrong(f"partition {partition}: offset {offset} where {ends[partition]} comes next")
        if record not in place:
            raise Wrong(f"partition {partition}, offset {offset}: a record that was never published: {record[:100]}")
        if place[record][-1] <= newest[partition]:
            raise Wrong(f"partition {partition}, offset {offset}: out of order or twice: {record[:100]}")
        newest[partition] = next(number for number in place[record] if number > newest[partition])
        ends[partition] += 1
        seen += 1
    if seen != len(packages):
        raise Wrong(f"{seen} of {len(packages)} records came back")


def difference(want, got):
    """Where two byte strings part, in a few words."""
    at = next((n for n, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
    return f"{len(want):,} bytes wanted, {len(got):,} read, the first difference at byte {at:,}: {want[at : at + 60]!r} became {got[at : at + 60]!r}"


def write(file, lines):
    file.write_text("".join(line + "\n" for line in lines))
    return file


def kcat_command(broker, *words):
    settings = [] if {"-C", "-G"} & set(words) else ["-X", "acks=all", "-X", "enable.idempotence=true"]
    return ["kcat", "-b", broker.bootstrap, *settings, *(word if isinstance(word, str) else str(word) for word in words)]


def kcat(broker, *words, feed=None):
    """Runs kcat to its end and returns what it printed."""
    source = {"input": feed} if feed is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(kcat_command(broker, *words), capture_output=True, timeout=SECONDS_MAX, check=False, **source)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(kcat_command(broker, *words))}: exit {done.returncode}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def timed(call):
    began = time.monotonic()
    call()
    return time.monotonic() - began


def step(text):
    print(f"\n== {text}", flush=True)


def say(text):
    print(f"   {text}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
