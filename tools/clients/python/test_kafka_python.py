"""kafka-python, two code bases of it, pinned to protocol versions from 0.11 on: what old clients speak, in non-flexible encodings.

Older than 0.11 there is only message format 0 and 1, which Kafka 4.0 stopped taking.
"""

import json
import os
import subprocess
import sys

import pytest

from harness.places import CLIENTS, HERE

OLD = CLIENTS / "old-clients"
TODAY = None


# Every codec at the oldest and the newest pin, zstd from the one that brought it (Produce v7).
CASES = [(version, codec) for version in ("0.11.0", "2.5.0") for codec in ("none", "gzip", "snappy", "lz4")]
CASES += [("1.0.0", "lz4"), ("2.0.0", "none"), ("2.1.0", "zstd"), ("2.5.0", "zstd")]


@pytest.mark.parametrize(("version", "codec"), CASES)
@pytest.mark.parametrize("library", [OLD, TODAY], ids=["kafka-python-2.0.2", "kafka-python-3"])
def test_round_trip(broker, name, library, version, codec):
    if library is OLD and sys.version_info >= (3, 12):
        pytest.skip("kafka-python 2.0.2 does not load in Python 3.12 and later")
    environment = os.environ | ({"PYTHONPATH": str(library)} if library else {})
    command = [sys.executable, str(HERE / "python" / "old_client.py"), broker.bootstrap, name, version, codec]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    assert seen["library"].startswith("2.0.2" if library is OLD else "3.")
    assert seen["offsets"] == [[n % 2, n // 2] for n in range(100)]
    assert sorted(seen["got"]) == sorted([n % 2, n // 2, f"k{n}", f"value {n}", str(n), 1000 + n] for n in range(100))
    assert seen["again"] == 48 and seen["at"] == 26 and seen["ends"] == [0, 50]
    assert seen["committed"] == 50 and seen["listed"]
