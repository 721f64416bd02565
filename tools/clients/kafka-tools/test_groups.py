"""kafka-consumer-groups: describe, list, reset-offsets, delete-offsets, delete."""

import pytest

from harness.until import until


@pytest.fixture
def read_group(tools, name):
    """A group that read 10 of 30 records of a topic with one partition, and left."""
    tools("kafka-topics", "--create", "--topic", name)
    tools("kafka-console-producer", "--topic", name, stdin="".join(f"{n}\n" for n in range(30)))
    group = f"{name}-group"
    tools("kafka-console-consumer", "--topic", name, "--group", group, "--from-beginning", "--max-messages", 10)
    return group


def offsets(tools, group):
    """{(topic, partition): (current, end, lag)} as describe prints it."""
    out = tools("kafka-consumer-groups", "--describe", "--group", group)
    rows = [line.split() for line in out.lines if line.startswith(group)]
    return {(row[1], int(row[2])): tuple(row[3:6]) for row in rows}


def test_describe_an_empty_group(tools, name, read_group):
    out = tools("kafka-consumer-groups", "--describe", "--group", read_group)
    assert f"Consumer group '{read_group}' has no active members." in out.err + out.out
    assert offsets(tools, read_group) == {(name, 0): ("10", "30", "20")}
    state = tools("kafka-consumer-groups", "--describe", "--group", read_group, "--state").lines[-1].split()
    assert state[0] == read_group and "Empty" in state and state[-1] == "0"
    assert read_group in tools("kafka-consumer-groups", "--list").lines
    listed = [line.split() for line in tools("kafka-consumer-groups", "--list", "--state").lines]
    assert [read_group, "Empty"] in listed


def test_describe_a_stable_group(tools, name):
    tools("kafka-topics", "--create", "--topic", name, "--partitions", 2)
    group = f"{name}-group"
    running = tools.start("kafka-console-consumer", "--topic", name, "--group", group)

    def stable():
        state = tools("kafka-consumer-groups", "--describe", "--group", group, "--state")
        return state if "Stable" in state.out else None

    state = until(stable, what="a stable group").lines[-1].split()
    assert "range" in state and state[-1] == "1"
    members = tools("kafka-consumer-groups", "--describe", "--group", group, "--members", "--verbose").lines[-1]
    assert f"{name}(0,1)" in members.replace(":0,1", "(0,1)") and "console-consumer" in members
    refused = tools("kafka-consumer-groups", "--delete", "--group", group)
    assert "GroupNotEmptyException" in refused.out
    busy = tools("kafka-consumer-groups", "--reset-offsets", "--to-earliest", "--group", group, "--topic", name, "--execute")
    assert "current state is Stable" in busy.out + busy.err
    running.stop()
    until(lambda: "Empty" in tools("kafka-consumer-groups", "--describe", "--group", group, "--state").out, what="an empty group")


@pytest.mark.parametrize(
    ("how", "to"),
    [
        (["--to-earliest"], "0"),
        (["--to-latest"], "30"),
        (["--to-offset", "17"], "17"),
        (["--shift-by", "-3"], "7"),
        (["--shift-by", "500"], "30"),
        (["--by-duration", "PT1H"], "0"),
        (["--to-current"], "10"),
    ],
)
def test_reset_offsets(tools, name, read_group, how, to):
    base = ("kafka-consumer-groups", "--reset-offsets", "--group", read_group, "--topic", name)
    plan = tools(*base, *how, "--dry-run").lines[-1].split()
    assert plan == [read_group, name, "0", to]
    assert offsets(tools, read_group)[(name, 0)][0] == "10", "a dry run changes nothing"
    assert tools(*base, *how, "--execute").lines[-1].split() == plan
    assert offsets(tools, read_group)[(name, 0)][0] == to


def test_delete_offsets(tools, name, read_group):
    out = tools("kafka-consumer-groups", "--delete-offsets", "--group", read_group, "--topic", name)
    assert "Request succeeded for deleting offsets" in out.out
    assert out.lines[-1].split() == [name, "0", "Successful"]
    assert (name, 0) not in offsets_or_none(tools, read_group)


def offsets_or_none(tools, group):
    """As `offsets`; a group that held nothing else is gone with its last offset."""
    out = tools.start("kafka-consumer-groups", "--describe", "--group", group).wait()
    return {} if "does not exist" in out.out + out.err or out.exit != 0 else offsets(tools, group)


def test_delete_group(tools, name, read_group):
    out = tools("kafka-consumer-groups", "--delete", "--group", read_group)
    assert f"Deletion of requested consumer groups ('{read_group}') was successful." in out.out
    assert read_group not in tools("kafka-consumer-groups", "--list").lines
    again = tools("kafka-consumer-groups", "--delete", "--group", read_group)
    assert "GroupIdNotFoundException" in again.out + again.err


def test_describe_all_groups(tools, read_group):
    assert read_group in tools("kafka-consumer-groups", "--describe", "--all-groups").out
