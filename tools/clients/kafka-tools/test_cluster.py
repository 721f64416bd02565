"""kafka-broker-api-versions, kafka-metadata-quorum, and the cluster's own face."""

import re

from harness import wire

# What a broker must offer so that today's and yesterday's clients work, with a version each that old clients still speak.
WANTED = {
    "Produce": 3, "Fetch": 4, "ListOffsets": 1, "Metadata": 0, "OffsetCommit": 2, "OffsetFetch": 1, "FindCoordinator": 0, "JoinGroup": 0, "Heartbeat": 0,
    "LeaveGroup": 0, "SyncGroup": 0, "DescribeGroups": 0, "ListGroups": 0, "ApiVersions": 0, "CreateTopics": 2, "DeleteTopics": 1, "DeleteRecords": 0,
    "InitProducerId": 0, "OffsetForLeaderEpoch": 2, "DescribeConfigs": 1, "AlterConfigs": 0, "DescribeLogDirs": 1, "CreatePartitions": 0, "DeleteGroups": 0,
    "IncrementalAlterConfigs": 0, "OffsetDelete": 0, "DescribeCluster": 0, "DescribeProducers": 0, "DescribeTopicPartitions": 0,
    "DescribeQuorum": 0, "ListConfigResources": 0,
}  # fmt: skip


def test_broker_api_versions(tools, broker):
    out = tools("kafka-broker-api-versions").out
    assert re.search(rf"^(127\.0\.0\.1|localhost):{broker.port} \(id: 1 rack: null isFenced: false\) -> \($", out, re.M)
    offered = {found[1]: (int(found[2]), int(found[3] or found[2])) for found in re.finditer(r"^\t(\w+)\(\d+\): (\d+)(?: to (\d+))? \[usable: \d+\]", out, re.M)}
    for api, version in WANTED.items():
        low, high = offered[api]
        assert low <= version <= high, f"{api} {version} is outside {low} to {high}"


def test_the_same_by_hand(broker):
    offered = wire.api_versions(broker.port)
    assert offered[wire.PRODUCE][0] == 0, "KIP-896: librdkafka before 2.8 looks for Produce v0 and gives up without it"
    assert offered[wire.API_VERSIONS][0] == 0


def test_metadata_quorum_status(tools):
    out = tools("kafka-metadata-quorum", "describe", "--status").out
    status = dict(re.split(r":\s+", line, maxsplit=1) for line in out.splitlines() if ":" in line)
    assert status["LeaderId"] == "1"
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", status["ClusterId"])
    assert int(status["LeaderEpoch"]) >= 1
    assert int(status["HighWatermark"]) > 0
    assert status["MaxFollowerLag"] == "0"
    assert '"id": 1' in status["CurrentVoters"] and status["CurrentObservers"] == "[]"


def test_metadata_quorum_replication(tools):
    heading, row = tools("kafka-metadata-quorum", "describe", "--replication").lines
    values = dict(zip(heading.split(), row.split(), strict=False))
    assert (values["NodeId"], values["Lag"]) == ("1", "0")
    assert row.rstrip().endswith("Leader")
    assert int(values["LogEndOffset"]) > 0


def test_describe_topics_shows_the_internal_one(tools, name):
    tools("kafka-console-producer", "--topic", name, stdin="x\n")
    tools("kafka-console-consumer", "--topic", name, "--group", f"{name}-group", "--from-beginning", "--max-messages", 1)
    assert "__consumer_offsets" in tools("kafka-topics", "--list").lines
    assert "__consumer_offsets" not in tools("kafka-topics", "--list", "--exclude-internal").lines
    assert "PartitionCount: 4" in tools("kafka-topics", "--describe", "--topic", "__consumer_offsets").lines[0]
