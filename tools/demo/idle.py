"""What `flowstoned dev` costs when nobody asks anything: the time to its first answer, its memory, its CPU.

`make idle` builds it and runs this. An answer is that to ApiVersions, on an empty folder, counted from before the process was made.
"""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = Path(os.environ.get("FLOWSTONE_BUILD") or Path(__file__).resolve().parents[2] / "target")
FLOWSTONED = BUILD / "release" / "flowstoned"
IDLE_SECONDS = 10
START_SECONDS_MAX = 10
API_VERSIONS_0 = struct.pack(">ihhih", 10, 18, 0, 1, -1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_answer(port, began):
    while time.monotonic() - began < START_SECONDS_MAX:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS_MAX) as connection:
                connection.sendall(API_VERSIONS_0)
                if connection.recv(4):
                    return time.monotonic() - began
        except ConnectionRefusedError:
            time.sleep(0.0005)
    sys.exit(f"no answer within {START_SECONDS_MAX} s")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


with tempfile.TemporaryDirectory(dir=BUILD) as data:
    port, began = free_port(), time.monotonic()
    command = [FLOWSTONED, "dev", "--data", data, "--port", str(port), "--set", "flowstone.metrics.listener="]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        answered = first_answer(port, began)
        time.sleep(1)
        before = cpu_seconds(daemon.pid)
        time.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(daemon.pid) - before) / IDLE_SECONDS
        print(f"first answer after {answered * 1000:.0f} ms; idle: {resident_mib(daemon.pid):.1f} MiB resident, {idle:.2%} of a core")
    finally:
        daemon.terminate()
        daemon.wait(10)
