"""Rows that are measured on a broker that runs anyway: a load until three windows agree, then a measured window.

Several rows share one start of a broker, and its warm-up.
"""

import measure
from clients import DEFAULT_BATCHES, MEGABYTES, VALUE_BYTES, Blast, ClientFailed, blast, fill, whole_run
from places import CPUS, DATA

WINDOW_SECONDS = 1.5
TOOL_RUNS_MAX, TOOL_RUNS_AGREE = 5, 0.1
WARM_UP_BYTES_MAX = 20e9  # So that no disk is filled by a broker that never settles.
WINDOWS_THAT_AGREE = 3  # Two agree by chance while a JVM still compiles.


class Load:
    """What is sent, by which clients; `measured` names the one whose counts the figures are of."""

    partitions = 16
    writes = False

    def start(self, broker, topic):
        raise NotImplementedError

    def prepare(self, broker, topic):
        """What a row needs before its clients start."""

    def check(self, broker, topic, acknowledged):
        """What must be true afterwards, with so many records acknowledged."""


class Produce(Load):
    """Closed or open loop of produce requests; afterwards some of it is read back, every batch looked at."""

    writes = True

    def __init__(self, connections, in_flight, **options):
        self.options = {"connections": connections, "in_flight": in_flight} | options

    def start(self, broker, topic):
        # Where the broker has every CPU, the client shares them with it.
        cpus = [cpu for cpu in CPUS if cpu not in broker.kind.cpu_list] or CPUS
        return [Blast("produce", broker, topic=topic, cpus=cpus[-1:] if broker.kind.cpus == 1 else cpus, **self.options)]

    def check(self, broker, topic, acknowledged):
        blast("fetch", broker, topic=topic, mode="verify", connections=4, seconds=1)
        there = blast("ends", broker, topic=topic)["records"]
        if there != acknowledged:
            raise ClientFailed(f"{acknowledged} records were acknowledged, the log has {there}")


class Fetch(Load):
    """Reads what was written just before, again and again, so that it is warm."""

    def __init__(self, gb):
        self.bytes = int(gb * 1e9)

    def prepare(self, broker, topic):
        fill(broker, topic, self.bytes, **MEGABYTES)

    def start(self, broker, topic):
        return [Blast("fetch", broker, topic=topic, connections=4, partition_bytes=1 << 20)]

    def check(self, broker, topic, acknowledged):
        blast("fetch", broker, topic=topic, mode="verify", connections=4, seconds=1)


class FanOut(Load):
    """A producer at a fixed rate, and consumers that each read all of it."""

    def __init__(self, consumers, mb_s, batch_bytes):
        self.consumers = consumers
        self.produce = {"connections": 4, "in_flight": 50, "batch_bytes": batch_bytes, "rate": mb_s * 1e6 / batch_bytes}

    def start(self, broker, topic):
        consumers = Blast("fetch", broker, topic=topic, mode="tail", connections=self.consumers)
        return [consumers, Blast("produce", broker, topic=topic, **self.produce)]


def window(bench, broker, clients, seconds):
    """One window: what was spent, and what the first client counted."""
    feeder = bench.feeder.pids
    pids = [client.pid for client in clients] + feeder
    counts = clients[0].ask()
    for client in clients[1:]:
        client.ask()
    before = measure.look(broker.process.pid, pids, DATA)
    bench.sleep(seconds)
    then = clients[0].ask()
    spent = measure.between(before, measure.look(broker.process.pid, pids, DATA))
    # What the feeder spends is neither the broker's nor its clients'.
    spent["feeder_cpu"] = sum(spent["by_client"][pid] for pid in feeder)
    spent["client_cpu"] -= spent["feeder_cpu"]
    others = [client.ask() for client in clients[1:]]
    delta = {key: then[key] - counts[key] for key in ("seconds", "requests", "records", "bytes")}
    return spent | {"counts": delta, "latency_us": then["latency_us"], "others": others}


def run(bench, row, side, broker, topic):
    """Creates the row's topic, warms up, measures, checks, deletes it. Returns the sample."""
    load = row.load
    touched = create(broker, topic, load.partitions, side)
    load.prepare(broker, topic)
    bench.feeder.fill()
    bench.feeder.order("rest" if row.is_latency else "give")
    clients = load.start(broker, topic)
    try:
        warm, is_warm = [], False
        while not is_warm and len(warm) < bench.warm_windows_max:
            warm.append(window(bench, broker, clients, WINDOW_SECONDS))
            last = [figures(one)[row.cost.key] for one in warm[-WINDOWS_THAT_AGREE:]]
            bench.progress(f"warming up, {last[-1]:.2f} {row.cost.title}")
            if load.writes and sum(one["counts"]["bytes"] for one in warm) > WARM_UP_BYTES_MAX:
                break
            is_warm = len(last) == WINDOWS_THAT_AGREE and max(last) <= min(last) * (1 + row.agree)
        bench.progress("measuring")
        seconds = row.seconds or bench.seconds
        spent = window(bench, broker, clients, seconds / 2 if bench.is_quick and row.seconds else seconds)
        rss, peak = measure.resident(broker.process.pid)
        for client in reversed(clients):
            counts = client.stop()
    finally:
        for client in clients:
            client.close()
    load.check(broker, topic, touched + counts["records"])
    blast("delete", broker, topic=topic)
    return figures(spent) | {"resident": rss, "resident_peak": peak, "is_warm": is_warm, "raw": spent, "warm_up": warm}


def create(broker, topic, partitions, side):
    """Creates a topic with the configs of a side; returns the records that are in it then."""
    pairs = [f"{key}={value}" for key, value in side.topic.items()]
    assert len(pairs) <= 1, "flowstone-blast is given one config at most"
    blast("create", broker, topic=topic, partitions=partitions, **({"config": pairs[0]} if pairs else {}))
    # A leader that was elected is not yet one that takes records: one record to each partition shows that all do.
    return blast("touch", broker, topic=topic, connections=4, value_bytes=100)["records"]


def figures(spent):
    """Figures of a window, by the names that rows and table use."""
    counts, seconds, disk = spent["counts"], spent["counts"]["seconds"], spent["disk"]
    gb, requests = counts["bytes"] / 1e9, max(1, counts["requests"])
    latency = {f"{name}_ms": us / 1000 for name, us in spent["latency_us"].items() if name != "count"}
    return latency | {
        "cpu_per_gb": spent["broker_cpu"] / gb if gb else None,
        "us_per_request": spent["broker_cpu"] * 1e6 / requests,
        "box_per_gb": spent["box_cpu"] / gb if gb else None,
        "box_us_per_request": spent["box_cpu"] * 1e6 / requests,
        "client_per_gb": spent["client_cpu"] / gb if gb else None,
        "mb_s": gb * 1000 / seconds,
        "requests_s": counts["requests"] / seconds,
        "cores": spent["broker_cpu"] / spent["seconds"],
        "disk_written_per_byte": disk["written"] / counts["bytes"] if counts["bytes"] else None,
        "disk_read_mb_s": disk["read"] / 1e6 / spent["seconds"],
        "flushes_s": disk["flushes"] / spent["seconds"],
        "load": spent["load"],
        "steal": spent["steal"],
        "foreign_cpu": spent["foreign_cpu"],
        "is_spoiled": spent["is_spoiled"],
    }


class Tool(Load):
    """A client of somebody else's, which cannot be asked while it runs: run to its end until two runs agree, then measured as a whole."""

    def __init__(self, name, command, records, reads=False):
        self.name, self.command, self.records, self.reads = name, command, records, reads


def run_tool(bench, row, side, broker, topic):
    """As `run`, for a client that cannot be asked while it runs."""
    tool = row.load
    create(broker, topic, tool.partitions, side)
    records = tool.records // (4 if bench.is_quick else 1)
    if tool.reads:
        fill(broker, topic, records, "records", **DEFAULT_BATCHES)
    bench.feeder.fill()
    bench.feeder.order("give")
    warm, is_warm = [], False
    while not is_warm and len(warm) < TOOL_RUNS_MAX:
        bench.progress("warming up")
        began = measure.cpu_of(broker.process.pid)
        whole_run(tool.command(broker, topic, records // 2), f"{tool.name}-warm.log")
        warm.append(measure.cpu_of(broker.process.pid) - began)
        is_warm = len(warm) > 1 and max(warm[-2:]) <= min(warm[-2:]) * (1 + TOOL_RUNS_AGREE)
    bench.progress("measuring")
    before = measure.look(broker.process.pid, bench.feeder.pids, DATA)
    wall, cpu, text = whole_run(tool.command(broker, topic, records), f"{tool.name}.log")
    spent = measure.between(before, measure.look(broker.process.pid, bench.feeder.pids, DATA), ended=cpu)
    rss, peak = measure.resident(broker.process.pid)
    blast("delete", broker, topic=topic)
    spent |= {"counts": {"seconds": wall, "requests": 0, "records": records, "bytes": records * VALUE_BYTES}, "latency_us": {}}
    sample = figures(spent) | {"us_per_request": None, "requests_s": None, "resident": rss, "resident_peak": peak, "is_warm": is_warm}
    return sample | {"raw": spent, "warm_up": warm, "printed": text[-4000:]}
