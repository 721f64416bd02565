"""Our codec of requests and responses against Apache Kafka's own generated classes: random instances of every API and version that we serve, and no
byte is another. No broker runs here."""

import os
import subprocess

import pytest

from harness.places import BUILD, KAFKA_LIBS, REPO, RUNNER
from harness.tools import LOGGING, QUICK_START

pytestmark = pytest.mark.timeout(300)

# Of each kind and version.
COUNT = 12
# The one version that we write and never read: kafka-protocol's message lacks its field.
WRITTEN_ONLY = ("response", 35, 5)


@pytest.fixture(scope="module")
def round_trip():
    """Our side of it. `make test` has built it when it comes here."""
    build = ["cargo", "build", "--quiet", "--locked", "-p", "flowstone-wire", "--example", "round_trip"]
    subprocess.run(build, cwd=REPO, check=True, env=os.environ | {"CARGO_TARGET_DIR": str(BUILD)})
    return BUILD / "debug" / "examples" / "round_trip"


@pytest.fixture(scope="module")
def served(round_trip):
    """Key -> the versions that we serve."""
    rows = subprocess.run([round_trip, "apis"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {key: range(lowest, highest + 1) for key, lowest, highest in (map(int, row.split()) for row in rows)}


def test_kafkas_instances_keep_every_byte(round_trip, served):
    """Kafka's class writes, we read and write: the same bytes, also in every other version of the message, where what that one lacks is left
    out, defaulted or refused as Kafka does. What we wrote is then what Kafka's reader wrote, so that it reads it as its own.
    """
    seed = int(os.environ.get("CODEC_SEED", 1))
    print(f"CODEC_SEED={seed}")
    command = ["java", "-Xmx256m", *QUICK_START, LOGGING, "-cp", f"{RUNNER}:{KAFKA_LIBS}/*", "Instances", str(seed), str(COUNT), *map(str, served)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as kafka:
        ours = subprocess.run([round_trip], stdin=kafka.stdout, capture_output=True, text=True, check=False)
    assert kafka.returncode == 0 and ours.returncode == 0, ours.stderr
    told = ours.stdout.splitlines()
    wrong = [line for line in told if line.startswith("WRONG")]
    assert not wrong, f"CODEC_SEED={seed}"
    seen = {}
    for line in told:
        kind, *numbers = line.split()
        key, version, instances, writes = map(int, numbers)
        assert instances == COUNT
        seen[kind, key, version] = writes
    # Kafka printed all versions that it has of these APIs: ours are the same, none more and none less.
    assert set(seen) == {(kind, key, version) for kind in ("request", "response") for key, versions in served.items() for version in versions}
    # Each was written in the other versions, too, but for those instances that have tags of nobody's: every fourth.
    others = {key: len(versions) - 1 for key, versions in served.items()}
    assert all(writes == others[place[1]] * COUNT * 3 // 4 for place, writes in seen.items() if place != WRITTEN_ONLY)
