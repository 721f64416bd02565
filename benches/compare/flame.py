"""`make flame ROW=...`: where a broker's CPU time goes under one row's load, as a flame graph.

perf samples by the CPU's clock, since many virtual machines have no counters. Stacks are unwound from copies of them, so that a release build needs no
frame pointers; this costs, so the figures of a profiled run are no measurement.
"""

import shutil
import subprocess

import steady
from brokers import FLOWSTONE, SIDES, new, remove
from places import BENCH, BUILD

SAMPLES_A_SECOND = 299
STACK_BYTES = 16384


def draw(bench, row):
    """Runs the row's load on Flowstone, samples the broker, and says where the graph is. What is missing is one line."""
    if row.load is None or not hasattr(row.load, "start"):
        return f"no profile: {row.name} has no load that goes on; choose a produce or fetch row"
    perf = shutil.which("perf")
    if not perf:
        return "no profile: perf is missing (Debian's package linux-perf)"
    data, svg = BENCH / "perf.data", BENCH / f"flame-{row.name}.svg"
    broker = new(FLOWSTONE)
    try:
        broker.start()
        steady.create(broker, "flame", row.load.partitions, SIDES["flowstone"])
        row.load.prepare(broker, "flame")
        clients = row.load.start(broker, "flame")
        try:
            bench.sleep(2)
            record = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND), "--call-graph", f"dwarf,{STACK_BYTES}"]
            done = subprocess.run([*record, "-p", str(broker.process.pid), "-o", str(data), "--", "sleep", str(bench.seconds)], capture_output=True, text=True, check=False)
            for client in reversed(clients):
                client.stop()
        finally:
            for client in clients:
                client.close()
    finally:
        remove(broker)
    if done.returncode != 0:
        return f"no profile: perf does not work here: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    script = subprocess.run([perf, "script", "-i", str(data)], capture_output=True, check=True).stdout
    tools = BUILD / "tools" / "bin"
    folded = subprocess.run([tools / "inferno-collapse-perf"], input=script, capture_output=True, check=True).stdout
    title = f"flowstoned, {row.title}"
    graph = subprocess.run([tools / "inferno-flamegraph", "--title", title], input=folded, capture_output=True, check=True).stdout
    svg.write_bytes(graph)
    data.unlink()
    return f"flame graph: {svg}"
