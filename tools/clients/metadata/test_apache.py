"""The metadata log and the quorum's messages against Apache Kafka's own code: what its controllers write, we read and write again, and its tools see
the same; what we write, its classes read and write again, and no byte changes. No broker of ours runs here."""

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.places import BUILD, HERE, KAFKA_LIBS, REPO, RUNNER
from harness.tools import LOGGING, QUICK_START, metadata_tree

pytestmark = pytest.mark.timeout(600)

# Records that the life leads to: all of Kafka 4.3.1's but those that only older controllers wrote (fencing by records of their own, the migration
# from ZooKeeper), and the end of a transaction that failed.
RECORDS = {
    "AccessControlEntryRecord", "BeginTransactionRecord", "BrokerRegistrationChangeRecord", "ClearElrRecord", "ClientQuotaRecord", "ConfigRecord",
    "DelegationTokenRecord", "EndTransactionRecord", "FeatureLevelRecord", "NoOpRecord", "PartitionChangeRecord", "PartitionRecord",
    "ProducerIdsRecord", "RegisterBrokerRecord", "RegisterControllerRecord", "RemoveAccessControlEntryRecord", "RemoveDelegationTokenRecord",
    "RemoveTopicRecord", "RemoveUserScramCredentialRecord", "TopicRecord", "UnregisterBrokerRecord", "UserScramCredentialRecord",
}  # fmt: skip
# What must stand in some snapshot for the comparison to mean something.
STATES = [
    r"elr=\[\d", r"addingReplicas=\[\d", r"leader=-1", r"fenced=true", r"inControlledShutdown=true", r"cordonedDirectories=\[\w", r"directories=\[\S+, ",
    r"metadataVersion:\s+Optional\[3.9-IV0\]", r"metadataVersion:\s+Optional\[4.3-IV0\]", r"SCRAM-SHA-512:\s+alice", r"delegationToken:\s+\w",
    r"ip\(127.0.0.9\)", r"CLIENT_METRICS:watch", r"permissionType=DENY",
]  # fmt: skip
# The quorum's own versions of Fetch begin with 12: before, a request cannot name its cluster (KIP-595).
NOT_OURS = {f"missing {kind} 1 {version}" for kind in ("request", "response") for version in range(4, 12)}


def java(main, *args, logging=LOGGING, **how):
    command = ["java", "-Xmx256m", *QUICK_START, logging, "-cp", f"{RUNNER}:{KAFKA_LIBS}/*", main, *map(str, args)]
    return subprocess.Popen(command, **how)


@pytest.fixture(scope="module")
def examples():
    """Where our side of it is. `make test` has built it when it comes here."""
    build = ["cargo", "build", "--quiet", "--workspace", "--locked", "--example", "rewrite", "--example", "instances"]
    subprocess.run(build, cwd=REPO, check=True, env=os.environ | {"CARGO_TARGET_DIR": str(BUILD)})
    return BUILD / "debug" / "examples"


@pytest.fixture(scope="module")
def life(run_folder):
    """The folder with the metadata log and the snapshots of a cluster that Apache Kafka ran."""
    folder = run_folder / "life"
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        # The nodes log as the life does.
        logging = f"-Dlog4j2.configurationFile=file:{HERE}/kafka/broker-log4j2.properties"
        status = java("ClusterLife", folder, logging=logging, stdout=log, stderr=log).wait(300)
    assert status == 0, (folder / "log").read_text(errors="replace")[-3000:]
    return folder / "metadata"


@pytest.fixture(scope="module")
def rewritten(life, examples):
    """Their files and ours that say the same, in pairs, and how many records of which type the log has."""
    ours = life.with_name("ours")
    ours.mkdir()
    done = subprocess.run([examples / "rewrite", life, ours], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (log,) = life.glob("*.log")
    pairs = [(life / path.name if (life / path.name).exists() else log, path) for path in sorted(ours.glob("*.checkpoint"))]
    return pairs, {line.split()[1]: int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("record ")}


def test_the_life_had_everything(rewritten):
    """The log makes the image of each snapshot, which `rewrite` checks; there must be enough of both."""
    pairs, records = rewritten
    assert set(records) == RECORDS
    assert len(pairs) >= 4, "three snapshots and the log's end"
    assert len({path.stem.rsplit("-", 1)[1] for _, path in pairs}) >= 2, "the quorum had more than one leader"


def test_metadata_shell_sees_the_same(rewritten):
    with ThreadPoolExecutor(2) as pool:
        pairs = [(ours, pool.submit(metadata_tree, theirs), pool.submit(metadata_tree, ours)) for theirs, ours in rewritten[0]]
    seen = ""
    for file, theirs, ours in pairs:
        assert ours.result() == theirs.result(), file
        seen += ours.result()
    missing = [state for state in STATES if not re.search(state, seen)]
    assert not missing, "the life did not lead there"


def test_kafkas_classes_keep_every_byte(examples):
    """Random instances of every metadata record and of every message of the quorum, in every version."""
    seed = int(os.environ.get("METADATA_SEED", 1))
    instances = subprocess.run([examples / "instances", str(seed), "30"], capture_output=True, text=True, check=True).stdout
    kafka = java("RoundTrip", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    told = kafka.communicate(instances, timeout=60)[0].splitlines()
    assert kafka.returncode == 0
    wrong = [line for line in told if line.split()[0] in ("CHANGED", "REFUSED", "missing") and line not in NOT_OURS]
    assert not wrong, f"METADATA_SEED={seed}"
    counted = [int(line.split()[-1]) for line in told if line.split()[0] in ("record", "request", "response")]
    assert sum(counted) == len(instances.splitlines()) and min(counted) == 30
