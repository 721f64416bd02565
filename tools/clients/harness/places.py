"""Where things are: the clone, and the build folder with what setup.sh brought."""

import os
import socket
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REPO = HERE.parent.parent
BUILD = Path(os.environ.get("FLOWSTONE_BUILD") or REPO / "target").resolve()
CLIENTS = BUILD / "clients"
KAFKA_LIBS = CLIENTS / "kafka" / "libs"
RUNNER = CLIENTS / "kafka" / "runner"
FLOWSTONED = Path(os.environ.get("FLOWSTONED") or BUILD / "release" / "flowstoned")
FLOWSTONE = FLOWSTONED.with_name("flowstone")

# What a broker on this machine may call itself to its clients.
LOOPBACK = ("127.0.0.1", "localhost")


def free_port():
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
