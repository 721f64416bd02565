"""Rows that are about starting: each starts brokers of its own, on an empty folder, and kills them.

Times count from before the process is made to the reply that a client waits for, so that everything in between is in them.
"""

import subprocess
import time
from pathlib import Path

import measure
from brokers import new, remove
from clients import MEGABYTES, Blast, blast, fill
from harness import wire
from places import DATA

PATIENCE_SECONDS = 300
SETTLE_SECONDS = 3
TOPICS, PARTITIONS_OF_EACH = 10, 1000
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def launch(broker):
    """Makes the process and returns when that was."""
    began = time.monotonic()
    with broker.log.open("ab") as log:
        broker.process = subprocess.Popen(broker.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=broker.folder)
    return began


def answers(broker, began):
    """Seconds to the first answer."""
    while time.monotonic() - began < PATIENCE_SECONDS:
        if not broker.alive():
            raise OSError(f"the broker ended while starting:\n{broker.log_tail()}")
        try:
            wire.api_versions(broker.port)
            return time.monotonic() - began
        except OSError:
            time.sleep(0.001)
    raise OSError(f"no answer within {PATIENCE_SECONDS} s")


def touched(broker, began, **options):
    """Seconds from `began` until every partition took a record, and until the first did."""
    offset = time.monotonic() - began
    told = blast("touch", broker, patience_seconds=PATIENCE_SECONDS, **options)
    return offset + told["all"], offset + told["first"]


def idle(bench, broker):
    """Share of a core that a broker uses when nobody asks anything, and its memory."""
    bench.sleep(SETTLE_SECONDS)
    before = measure.look(broker.process.pid, bench.feeder.pids, DATA)
    bench.sleep(bench.seconds)
    spent = measure.between(before, measure.look(broker.process.pid, bench.feeder.pids, DATA))
    rss, peak = measure.resident(broker.process.pid)
    return {"idle_percent": spent["broker_cpu_exact"] / spent["seconds"] * 100, "resident": rss, "resident_peak": peak, "raw_idle": spent}


def forget_caches():
    """Nothing that was written is in memory any more, as after a restart of the machine; only root may do that. Whether it was done."""
    subprocess.run(["sync"], check=True)
    try:
        DROP_CACHES.write_text("3")
    except PermissionError:
        return False
    return True


def told(figures):
    """A sample of these figures. Nobody else's time is taken off a start, so it is never spoiled, but its load is told."""
    with open("/proc/loadavg") as load:
        return figures | {"load": float(load.read().split()[0]), "is_spoiled": False}


def empty_start(bench, row, side):
    """From an empty folder to the first answer, then idle."""
    broker = new(side.kind)
    try:
        seconds = answers(broker, launch(broker))
        bench.progress("idle")
        return told({"start_seconds": seconds} | idle(bench, broker))
    finally:
        remove(broker)


def after_kill(bench, row, side):
    """SIGKILL with 4 GB in active segments, cold caches, and the time to the first record that is acknowledged again."""
    gb = 1 if bench.is_quick else 4.25
    broker = new(side.kind)
    try:
        broker.start()
        # One segment a partition takes it all, so all of it is active.
        blast("create", broker, topic="active", partitions=4, config="segment.bytes=2147483647")
        blast("touch", broker, topic="active")
        bench.progress(f"writing {gb} GB")
        fill(broker, "active", gb * 1e9, **MEGABYTES)
        broker.kill()
        is_cold = forget_caches()
        bench.progress("starting again")
        every, first = touched(broker, launch(broker), topic="active")
        blast("fetch", broker, topic="active", mode="verify", connections=4, seconds=2)
        return told({"first_ack_seconds": first, "all_acks_seconds": every, "written_gb": gb, "is_cold": is_cold})
    finally:
        remove(broker)


def create_many(broker):
    began = time.monotonic()
    blast("create", broker, topic="many", topics=TOPICS, partitions=PARTITIONS_OF_EACH)
    return touched(broker, began, topic="many", topics=TOPICS, connections=16, in_flight=5, value_bytes=100)[0]


def many_partitions(bench, row, side):
    """Ten thousand partitions: created and written to, idle, and back after SIGKILL."""
    broker = new(side.kind)
    try:
        broker.start()
        bench.progress("creating")
        created = create_many(broker)
        bench.progress("idle")
        quiet = idle(bench, broker)
        broker.kill()
        is_cold = forget_caches()
        bench.progress("starting again")
        every, _first = touched(broker, launch(broker), topic="many", topics=TOPICS, connections=16, in_flight=5, value_bytes=100)
        return told({"created_seconds": created, "restart_seconds": every, "is_cold": is_cold} | quiet)
    finally:
        remove(broker)


def trickle(bench, row, side):
    """Ten thousand partitions that each get one record a second."""
    from steady import figures, window

    broker = new(side.kind)
    try:
        broker.start()
        bench.progress("creating")
        create_many(broker)
        # Every connection has partitions of its own, so that each gets its record once a second.
        rate = TOPICS * PARTITIONS_OF_EACH
        producer = Blast("produce", broker, topic="many", topics=TOPICS, connections=100, in_flight=20, value_bytes=1024, rate=rate, stick=True)
        try:
            bench.progress("warming up")
            bench.sleep(bench.seconds)
            bench.progress("measuring")
            spent = window(bench, broker, [producer], bench.seconds)
            rss, peak = measure.resident(broker.process.pid)
            producer.stop()
        finally:
            producer.close()
        return figures(spent) | {"resident": rss, "resident_peak": peak, "raw": spent}
    finally:
        remove(broker)


def cold_read(bench, row, side):
    """A producer's p99 alone, and while somebody reads what is on disk only."""
    gb = 2 if bench.is_quick else 6
    batch_bytes = 64 << 10
    broker = new(side.kind)
    try:
        broker.start()
        blast("create", broker, topic="cold", partitions=16)
        blast("touch", broker, topic="cold", connections=4)
        bench.progress(f"writing {gb} GB")
        fill(broker, "cold", gb * 1e9, **MEGABYTES)
        broker.stop()
        is_cold = forget_caches()
        broker.start()
        blast("create", broker, topic="hot", partitions=16)
        blast("touch", broker, topic="hot", connections=4)
        bench.feeder.fill()
        bench.feeder.order("give")
        producer = Blast("produce", broker, topic="hot", connections=4, in_flight=50, batch_bytes=batch_bytes, rate=50e6 / batch_bytes)
        try:
            bench.progress("the producer alone")
            bench.sleep(bench.seconds)
            producer.ask()
            bench.sleep(bench.seconds)
            alone = producer.ask()["latency_us"]
            bench.progress("the producer beside a reader")
            began = time.monotonic()
            # The reader gives way on the CPU that the two clients share, so that the broker is what is measured.
            read = blast("fetch", broker, topic="cold", mode="once", connections=4, nice=True)
            seconds = time.monotonic() - began
            beside = producer.ask()["latency_us"]
            producer.stop()
        finally:
            producer.close()
        return told({
            "p99_alone_ms": alone["p99"] / 1000,
            "p99_beside_ms": beside["p99"] / 1000,
            "p99_factor": beside["p99"] / alone["p99"],
            "read_mb_s": read["bytes"] / 1e6 / seconds,
            "is_cold": is_cold,
            "raw": {"alone": alone, "beside": beside, "read": read},
        })
    finally:
        remove(broker)
