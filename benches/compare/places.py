"""Where things are. Brokers, build folder and Kafka's jars are those of the client tests: tools/clients/harness."""

import os
import shutil
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "tools" / "clients"))

from harness.places import BUILD, CLIENTS, FLOWSTONED, KAFKA_LIBS  # noqa: E402, F401 (told on to the other files here)

BLAST = BUILD / "release" / "flowstone-blast"
BENCH = BUILD / "bench"
DATA = BENCH / "data"

CPUS = sorted(os.sched_getaffinity(0))
BROKER_CPU = CPUS[0]
CLIENT_CPU = CPUS[-1]


def on_cpus(*cpus):
    """The beginning of a command that runs on these CPUs only."""
    return [shutil.which("taskset"), "-c", ",".join(map(str, cpus))]
