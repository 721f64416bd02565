"""librdkafka's own regression tests against the broker under test.

Every test that librdkafka declares is either run, or needs no broker (it says so itself: TEST_F_LOCAL), or stands in left-out.md with the reason.
A librdkafka that declares a test which is in neither place fails the run: nothing is left out silently.
"""

import os
import re
import subprocess

import pytest

from harness.places import CLIENTS, HERE, KAFKA_LIBS

TESTS = CLIENTS / "librdkafka" / "tests"

# Enough of the suite to find a broken broker within a minute; the rest is for `make clients`.
QUICK = {"0001", "0005", "0008", "0012", "0013", "0015", "0017", "0022", "0026", "0030", "0031", "0054", "0063", "0073", "0090", "0099", "0130"}
# Tests that want a broker which does not create topics by itself.
NO_AUTO_CREATE = {"0045"}
# Tests that do nothing when they are told to be quick.
NEVER_QUICK = {"0082"}
# Tests that want a group's first members to come into one generation, as with Kafka's own wait for them; the harness has none.
WAIT_FOR_MEMBERS = {"0118"}
# 0011 but for records without a key in a compacted topic.
BATCHES = ["test_single_partition", "test_partitioner", "test_message_partitioner_wo_per_message_flag", "test_per_message_partition_flag"]
# 0081 is all of administration in one; these are its parts but for ACLs and SCRAM users, which a name's beginning selects.
ADMIN = [
    "CreateTopics", "DeleteTopics", "CreatePartitions", "AlterConfigs", "IncrementalAlterConfigs", "DescribeConfigs", "DeleteRecords", "ListConsumerGroups",
    "DescribeConsumerGroups", "DescribeTopics", "DescribeCluster", "DeleteGroups", "DeleteConsumerGroupOffsets", "ListOffsets", "AlterConsumerGroupOffsets",
    "ListConsumerGroupOffsets",
]  # fmt: skip
SECONDS_MAX = 300


def declared():
    """[(number, name, needs a broker)] as the suite's own table has them; nothing where it was not built."""
    table = TESTS / "test.c"
    if not table.exists():
        return []
    rows = re.findall(r"_TEST\((\d{4})(_\w+),\s*([A-Z_0-9| ]+)", table.read_text().split("struct test tests[] = {")[1].split("{NULL}};")[0])
    return [(number, number + rest, "TEST_F_LOCAL" not in flags and "TEST_F_MANUAL" not in flags) for number, rest, flags in rows]


def left_out():
    """{number: reason} of the table in left-out.md."""
    return dict(re.findall(r"^\| (\d{4}) \| (.+?) \|$", (HERE / "librdkafka" / "left-out.md").read_text(), re.M))


def cases():
    reasons = left_out()
    for number in sorted({number for number, _, needs_broker in declared() if needs_broker} - set(reasons)):
        marks = [] if number in QUICK else [pytest.mark.whole]
        if number == "0081":
            yield from (pytest.param(number, "default", f"do_test_{part}", marks=marks, id=f"{number}-{part}") for part in ADMIN)
            continue
        if number == "0011":
            yield from (pytest.param(number, "default", part, marks=marks, id=f"{number}-{part}") for part in BATCHES)
            continue
        yield pytest.param(number, "waiting" if number in WAIT_FOR_MEMBERS else "default", None, marks=marks, id=number)
        if number in NO_AUTO_CREATE:
            yield pytest.param(number, "noautocreate", None, marks=pytest.mark.whole, id=f"{number}-noautocreate")


@pytest.fixture(scope="module")
def own(run_folder):
    """Brokers for this suite by scenario, each started once, with the four partitions a topic that its tests count on."""
    from harness.broker import chosen

    started = {}

    def get(scenario):
        if scenario not in started:
            settings = {"num.partitions": "4", "auto.create.topics.enable": "false" if scenario == "noautocreate" else "true"}
            if scenario == "waiting":
                settings["group.initial.rebalance.delay.ms"] = "3000"
            started[scenario] = chosen()(run_folder / f"librdkafka-{scenario}", settings=settings).start()
        if not started[scenario].alive():
            started[scenario].start()
        return started[scenario]

    yield get
    for broker in started.values():
        broker.close()


def topics_script(folder):
    """bin/kafka-topics.sh, which some tests call, as Kafka's distribution has it."""
    script = folder / "bin" / "kafka-topics.sh"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 -cp "{KAFKA_LIBS}/*" org.apache.kafka.tools.TopicCommand "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.mark.timeout(SECONDS_MAX + 30)
@pytest.mark.parametrize(("number", "scenario", "part"), list(cases()))
def test_librdkafka(own, tmp_path, number, scenario, part):
    broker = own(scenario)
    (tmp_path / "test.conf").write_text(f"bootstrap.servers={broker.bootstrap}\ntest.topic.random=true\n")
    environment = os.environ | {
        "TESTS": number,
        "RDKAFKA_TEST_CONF": str(tmp_path / "test.conf"),
        "LD_LIBRARY_PATH": f"{TESTS.parent}/src:{TESTS.parent}/src-cpp",
        "KAFKA_PATH": str(topics_script(tmp_path)),
        "BROKERS": broker.bootstrap,
        "CI": "true",  # longer request time-outs
    }
    if part:
        environment["SUBTESTS"] = part
    # -L: not those that need no broker; -Q: fewer messages; -p1: one test at a time.
    command = [str(TESTS / "test-runner"), "-L", *([] if number in NEVER_QUICK else ["-Q"]), "-p1", "-V", "4.3.1", "-s", "noautocreate" if scenario == "noautocreate" else "default"]
    log = tmp_path / "output"
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=TESTS, env=environment, stdout=output, stderr=output, timeout=SECONDS_MAX, check=False)
    text = log.read_text(errors="replace")
    assert done.returncode == 0, "\n".join(text.splitlines()[-60:])
    assert re.search(rf"\|\s*{number}_\w+\s*\|\s*PASSED", re.sub(r"\x1b\[[0-9;]*m", "", text)), "it ran\n" + text[-3000:]
    assert broker.alive(), broker.log_tail()


def test_nothing_is_left_out_silently():
    if not declared():
        pytest.skip("librdkafka's test suite is not built: tools/clients/setup.sh librdkafka")
    known = {number for number, _, _ in declared()}
    assert set(left_out()) <= known, "a reason for a test that librdkafka does not have"
    assert len(list(cases())) > 60
